"""Make the environment in which other tools read exported models.

    python tests/engines/export_environment.py FOLDER
    MINISBERT_EXPORTED=FOLDER python -m pytest -m engines tests/engines/test_exported.py

It has no minisbert: fastembed and light-embed exclude the huggingface_hub that transformers 5 asks for. transformers.js
is added where there is npm.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

PACKAGES = ("fastembed>=0.9", "light-embed>=1.0.9", "openvino>=2026.4")

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    venv.create(folder, with_pip=True)
    subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "-q", *PACKAGES], check=True)
    if npm := shutil.which("npm"):
        install = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", folder]
        subprocess.run([*install, "@huggingface/transformers@4.3.2"], check=True)
