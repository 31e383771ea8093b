"""`python -m minisbert.compat`: a script, a module or a command, as Python itself runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
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


def test_help(tmp_path: Path) -> None:
    for option in ("-h", "--help"):
        done = run(tmp_path, option, "script.py")
        assert done.stdout.startswith("usage: python -m minisbert.compat [-c code")
        assert "example: python -m minisbert.compat train.py" in done.stdout
        assert (done.returncode, done.stderr) == (0, "")
    (tmp_path / "script.py").write_text("import sys; print(sys.argv)")
    assert run(tmp_path, "script.py", "--help").stdout == "['script.py', '--help']\n"


def piped(place: Path, source: bytes, *arguments: str, compat: bool = True) -> tuple[int, bytes, bytes]:
    command = [sys.executable, *(["-m", "minisbert.compat"] if compat else []), "-", *arguments]
    done = subprocess.run(command, input=source, capture_output=True, cwd=place, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "source",
    [
        b"import sys; print(sys.argv, repr(sys.path[0]), __name__, __file__, sys.stdin.read() == '')",
        b"\xef\xbb\xbfprint(ascii('\xc3\xa4'))\r\n",
        b"",
        b"raise SystemExit(3)",
        b"def f():\n    1 / 0\nf()\n",
        b"x = (\n",
    ],
)
def test_standard_input(source: bytes, tmp_path: Path) -> None:
    ours, pythons = (piped(tmp_path, source, "a", "--help", compat=compat) for compat in (True, False))
    assert ours == pythons


def test_standard_input_in_another_encoding(tmp_path: Path) -> None:
    assert piped(tmp_path, b"# coding: latin-1\nprint(ascii('\xe4'))")[1].strip() == b"'\\xe4'"


def test_standard_input_that_is_a_terminal(tmp_path: Path) -> None:
    pty = pytest.importorskip("pty")
    controller, terminal = pty.openpty()
    try:
        os.write(controller, b"import sentence_transformers as s; print(type(s).__name__)\nraise SystemExit(4)\n")
        command = [sys.executable, "-m", "minisbert.compat", "-"]
        done = subprocess.run(command, stdin=terminal, capture_output=True, cwd=tmp_path, check=False, timeout=60)
    finally:
        os.close(controller)
        os.close(terminal)
    assert (done.returncode, b"CompatModule" in done.stdout) == (4, True), done.stderr


def test_a_command_or_module_without_a_space(tmp_path: Path) -> None:
    assert run(tmp_path, "-cimport sys; print(sys.argv)", "a").stdout == "['-c', 'a']\n"
    (tmp_path / "beside.py").write_text("import sys; print(sys.argv[1:])")
    assert run(tmp_path, "-mbeside", "a").stdout == "['a']\n"


@pytest.mark.parametrize(
    "source",
    [
        "raise KeyboardInterrupt",
        "import atexit\natexit.register(print, 'bye')\nraise KeyboardInterrupt",
        "import sys\nsys.excepthook = lambda kind, *_: print(kind)\nraise KeyboardInterrupt",
        "class Own(KeyboardInterrupt): pass\nraise Own",
        "raise GeneratorExit",
        "import sys\nsys.excepthook = lambda kind, *_: print(kind)\n1 / 0",
        "from minisbert.errors import ConfigError\nraise ConfigError('no')",
        "import sys\ntry:\n    1 / 0\nfinally:\n    sys.exit('text')",
    ],
)
def test_an_error_ends_the_process_as_in_python(source: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(source)
    ours = run(tmp_path, "script.py")
    pythons = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (ours.returncode, ours.stdout) == (pythons.returncode, pythons.stdout)
    assert ours.stderr == pythons.stderr.replace(f'"{tmp_path}{os.sep}', '"')


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_an_interruption_ends_the_process_by_its_signal(tmp_path: Path) -> None:
    waiting = "print(flush=True)\nimport time\ntime.sleep(60)"
    stopped = "from minisbert.errors import TrainingInterrupted\nraise TrainingInterrupted('stop', checkpoint=None)"
    for source in (waiting, stopped):
        (tmp_path / "script.py").write_text(source)
        command = [sys.executable, "-m", "minisbert.compat", "script.py"]
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # which jobs in the background ignore
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.send_signal(signal.SIGINT)
            said = process.communicate()[1]
        assert process.returncode == -signal.SIGINT
        assert next(line for line in said.splitlines() if "File" in line).startswith('  File "script.py", line ')
        assert "__main__.py" not in said


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
