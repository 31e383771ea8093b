"""Make the environment of the tools that run exported models.

    python tests/engines/runtime_environment.py FOLDER
    MINISBERT_RUNTIMES=FOLDER python -m pytest -m engines tests/engines/test_runtimes.py

fastembed and light-embed exclude huggingface_hub 2.x. transformers.js is installed where npm is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

PACKAGES = ("fastembed==0.9.1", "light-embed==1.0.9", "onnxruntime>=1.20", "openvino==2026.4.1")
SCRIPTS = ("@huggingface/transformers@4.3.2",)


def main(folder: Path) -> None:
    """Install everything into FOLDER."""
    venv.create(folder, with_pip=True)
    subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "-q", *PACKAGES], check=True)
    if npm := shutil.which("npm"):
        (folder / "package.json").write_text("{}")
        skip = {"ONNXRUNTIME_NODE_INSTALL": "skip"}  # of libraries for GPUs
        options = ["--no-audit", "--no-fund", "--silent"]
        subprocess.run([npm, "install", *options, *SCRIPTS], cwd=folder, env={**os.environ, **skip}, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
