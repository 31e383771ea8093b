"""Make the environment in which the engines of docs/engines.md embed.

    python tests/engines/environments.py FOLDER
    MINISBERT_ENGINES=FOLDER python -m pytest -m engines

Spark needs Python 3.11 and Java 17, and is left out with --without-spark.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("ray[data]>=2.40", "dask>=2024.8", "polars>=1.0", "duckdb>=1.0", "datasets>=3.0", "pandas<3", "pyarrow>=15")


def main(folder: Path, *, spark: bool) -> None:
    """Install everything into FOLDER."""
    venv.create(folder, with_pip=True)
    packages = (*PACKAGES, *(["pyspark>=4"] if spark else []))
    subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "-q", *packages, "-e", ROOT], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), spark="--without-spark" not in sys.argv)
