"""`python -m minisbert.compat`: a script, a module or a command, as Python itself runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = '''"""A script."""
from __future__ import annotations

import multiprocessing
import sys

import beside
from sentence_transformers import CrossEncoder


class Kept:
    pass


def name(_: int) -> str:
    import sentence_transformers

    return f"{type(sentence_transformers).__name__} {CrossEncoder.__module__} {__name__} {__file__[-8:]}"


if __name__ == "__main__":
    print(sys.argv, sys.path[0], __name__, __file__, __doc__, beside.VALUE)
    sys.argv = ["changed"]
    for method in ("spawn", "fork"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            print(pool.map(name, [0]), type(pool.apply(Kept)) is Kept)
    sys.exit(5)
'''


def run(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "minisbert.compat", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=place, check=False)


def spawned(main: str, file: str) -> str:
    return f"['CompatModule sentence_transformers.cross_encoder {main} {file}'] True"


def test_a_script_and_its_processes(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "script.py").write_text(SCRIPT)
    (tmp_path / "inner" / "beside.py").write_text("VALUE = 3")
    done = run(tmp_path, "inner/script.py", "-m", "--x=1")
    assert done.stdout.splitlines() == [
        f"['inner/script.py', '-m', '--x=1'] {tmp_path / 'inner'} __main__ inner/script.py A script. 3",
        spawned("__mp_main__", "cript.py"),
        spawned("__main__", "cript.py"),
    ], done.stderr
    assert done.returncode == 5


def test_a_package_and_its_processes(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    main = tmp_path / "pack" / "__main__.py"
    main.write_text(SCRIPT.replace("import beside", "from . import beside"))
    (tmp_path / "pack" / "__init__.py").touch()
    (tmp_path / "pack" / "beside.py").write_text("VALUE = 3")
    done = run(tmp_path, "-m", "pack", "-c")
    assert done.stdout.splitlines() == [
        f"['{main}', '-c'] {tmp_path} __main__ {main} A script. 3",
        spawned("__mp_main__", "ain__.py"),
        spawned("__main__", "ain__.py"),
    ], done.stderr
    assert done.returncode == 5


def test_a_command(tmp_path: Path) -> None:
    code = "import sys, sentence_transformers as s; print(sys.argv, repr(sys.path[0]), type(s).__name__)"
    assert run(tmp_path, "-c", code, "a").stdout == "['-c', 'a'] '' CompatModule\n"


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        (
            "def f():\n    1 / 0\nf()\n",
            ['  File "script.py", line 3, in <module>', "ZeroDivisionError: division by zero"],
        ),
        ("x = (\n", ['  File "script.py", line 1', "SyntaxError: '(' was never closed"]),
    ],
)
def test_a_traceback_begins_in_the_script(source: str, lines: list[str], tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(source)
    done = run(tmp_path, "script.py")
    said = [line for line in done.stderr.splitlines() if not line.startswith("Traceback")]
    assert (said[0], said[-1]) == tuple(lines)
    assert done.returncode == 1
    assert "minisbert" not in done.stderr


def test_help_and_standard_input(tmp_path: Path) -> None:
    assert run(tmp_path, "--help").stdout.startswith("usage: python -m minisbert.compat script.py")
    command = [sys.executable, "-m", "minisbert.compat", "-", "a"]
    code = "import sys, sentence_transformers as s; print(sys.argv, type(s).__name__)"
    done = subprocess.run(command, input=code, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stdout == "['-', 'a'] CompatModule\n", done.stderr


def test_an_interruption_is_told_as_in_python(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("raise KeyboardInterrupt")
    done = run(tmp_path, "script.py")
    assert done.returncode == 130
    assert [line for line in done.stderr.splitlines() if "File" in line] == ['  File "script.py", line 1, in <module>']


def test_a_script_has_no_package(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("from . import finder")
    assert "attempted relative import with no known parent package" in run(tmp_path, "script.py").stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "got no arguments, expected a script"),
        (("-x",), "got -x, expected a script"),
        (("-c",), "got -c, expected a script"),
        (("nothing.py",), "got nothing.py, expected a Python script: No such file"),
        (("-m", "nothing"), "got -m nothing, expected a module that can be run"),
        (("-m", "nothing.below"), "got -m nothing.below, expected a module that can be run"),
    ],
)
def test_what_cannot_be_run(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = run(tmp_path, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"minisbert.compat: {said}")
    assert done.stderr.count("\n") == 1
