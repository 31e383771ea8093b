"""Make the environment in which packages written for sentence-transformers are tried with minisbert.

    python tests/downstream/environments.py FOLDER
    MINISBERT_DOWNSTREAM=FOLDER python -m pytest -m downstream

They need huggingface_hub 1.x, which the suite's own environment excludes, and bring sentence-transformers with them,
which stays unused.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "langchain-huggingface==1.2.3",
    "llama-index-embeddings-huggingface==0.8.0",
    "haystack-ai==3.4.1",
    "sentence-transformers-haystack==2.0.0",
    "chromadb==1.5.9",
    "keybert==0.9.0",
    "bertopic==0.17.4",
    "txtai==9.14.0",
    "setfit==1.2.0",
)


def main(folder: Path) -> None:
    """Install everything into FOLDER."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "torch==2.13.0", *PACKAGES], check=True)
    subprocess.run([python, "-m", "pip", "install", "-q", "-e", ROOT], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
