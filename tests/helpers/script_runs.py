"""Run every training script of tests/compat/scripts in one process, and print what each printed as a line of JSON.

python script_runs.py minisbert|reference MODEL_FOLDER [SCRIPT ...]
"""

from __future__ import annotations

import contextlib
import io
import json
import runpy
import sys
import warnings
from pathlib import Path

import torch

SCRIPTS = Path(__file__).parents[1] / "compat" / "scripts"
NAMES = sorted(script.stem for script in SCRIPTS.glob("*.py"))


def main(library: str, folder: str, *names: str) -> None:
    """Run scripts with a library."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if library == "minisbert":
        from minisbert import compat

        compat.install()
    for name in names or NAMES:
        sys.argv[:] = [name, folder]
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
        numbers = json.loads(printed.getvalue().strip().splitlines()[-1])
        sys.stdout.write(json.dumps({"script": name, "numbers": numbers}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
