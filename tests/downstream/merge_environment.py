"""Make the environment in which the reference merges models, to be compared with minisbert's merges.

    python tests/downstream/merge_environment.py FOLDER
    MINISBERT_MERGES=FOLDER python -m pytest -m downstream tests/downstream/test_merges.py

mergekit, with which the reference merges, is in no other environment of the tests.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

PACKAGES = ("torch==2.13.0", "sentence-transformers==6.2.0", "mergekit==0.1.5")


def main(folder: Path) -> None:
    """Install everything into FOLDER."""
    venv.create(folder, with_pip=True)
    for package in PACKAGES:  # torch first, as a build for the CPU
        subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "-q", package], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
