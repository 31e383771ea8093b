"""Running a script, a module or a command as `__main__`, with `sentence_transformers` answered by minisbert.

A process that multiprocessing spawns imports the main module of its parent by the name in `__main__.__spec__`. That
name is `minisbert.compat.spawned`, which installs the finder first and then runs the same file; the file's path is in
the environment, for children of children as well.
"""

from __future__ import annotations

import functools
import io
import os
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import CodeType, ModuleType, TracebackType
from typing import Any

from ..errors import ConfigError, TrainingInterrupted

MAIN_VARIABLE = "MINISBERT_COMPAT_MAIN"  # the path of the file that is __main__, and its package after a line break
_USAGE = "python -m minisbert.compat script.py [arguments], or -m module, -c code or - (standard input) in its place"
_HELP = """usage: python -m minisbert.compat [-c code | -m module | script.py | -] [arguments]

Run code written for sentence-transformers with minisbert, as Python runs it with the same arguments.

  script.py   a file
  -m module   a module, or the __main__ of a package
  -c code     code as text
  -           code from standard input; on a terminal, line by line
  arguments   in sys.argv[1:]

example: python -m minisbert.compat train.py --epochs 1
"""


class MainSpec(ModuleSpec):
    """The specification of a main module: spawned processes import its name, relative imports take its package."""

    def __init__(self, package: str) -> None:
        super().__init__(f"{__package__}.spawned", None)
        self._package = package

    @property
    def parent(self) -> str:
        """The package of the main module, "" for a script."""
        return self._package


def prepare(arguments: list[str]) -> Callable[[], Any]:
    """Compile what the arguments name, and make it the main module, as Python does with the same arguments.

    Args:
        arguments: those after `python -m minisbert.compat`.

    Returns:
        The function that runs it.

    Raises:
        ConfigError: if they name nothing that can be run.
    """
    start: tuple[CodeType | None, dict[str, Any], str, str]
    kind = arguments[0] if arguments else ""
    if kind in ("-h", "--help"):
        return functools.partial(sys.stdout.write, _HELP)
    if kind[:2] in ("-c", "-m") and len(kind) > 2:  # without a space
        kind, arguments = kind[:2], [kind[:2], kind[2:], *arguments[1:]]
    if kind in ("-c", "-m") and len(arguments) > 1:
        start, rest = (_command if kind == "-c" else _module)(arguments[1]), arguments[2:]
    elif kind == "-":
        start, rest = _standard_input(), arguments[1:]
    elif kind and not kind.startswith("-"):
        start, rest = _script(kind), arguments[1:]
    else:
        raise ConfigError(f"got {kind or 'no arguments'}, expected a script: {_USAGE}")
    code, names, first, place = start
    sys.argv[:] = [first, *rest]
    _search_first(place)
    if Path(names.get("__file__", "")).is_file():
        os.environ[MAIN_VARIABLE] = f"{Path(names['__file__']).absolute()}\n{names['__package__'] or ''}"
    else:
        os.environ.pop(MAIN_VARIABLE, None)
    main = ModuleType("__main__")
    main.__dict__.update(names, __spec__=MainSpec(names["__package__"] or ""))
    sys.modules["__main__"] = main
    if code is None:
        return functools.partial(_converse, main.__dict__)
    return functools.partial(_execute, code, main.__dict__)


def compiled(path: str) -> CodeType:
    """Compile a script.

    Raises:
        ConfigError: if there is no such file.
    """
    try:
        with io.open_code(str(Path(path).absolute())) as file:
            source = file.read()
    except OSError as error:
        raise ConfigError(f"got {path}, expected a Python script: {error.strerror}; {_USAGE}") from None
    return compile(source, path, "exec", dont_inherit=True)


def _execute(code: CodeType, names: dict[str, Any]) -> None:
    """Execute the code of a main module. The traceback of an error begins at its own first line.

    The error itself goes on, so that the process ends as one of Python's own: with its exit status, or by SIGINT.
    """
    try:
        exec(code, names)  # noqa: S102  (the user's own script)
    except BaseException as error:
        own = error.__traceback__.tb_next if error.__traceback__ is not None else None
        hook = getattr(sys, "excepthook", sys.__excepthook__)
        sys.excepthook = functools.partial(_show, hook, error, own)
        if isinstance(error, TrainingInterrupted):  # Python takes no subclass for an interruption
            raise KeyboardInterrupt from error
        raise


def _show(hook: Callable[..., Any], error: BaseException, traceback: TracebackType | None, *_: Any) -> None:
    hook(type(error), error.with_traceback(traceback), traceback)


def _converse(names: dict[str, Any]) -> None:
    """Run lines from the terminal."""
    from code import interact

    interact(f"Python {sys.version} on {sys.platform}, with minisbert.compat", local=names, exitmsg="")


def _search_first(place: str) -> None:
    """Put a folder in the place of the current one, which `python -m` searches first unless it is told not to."""
    if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        sys.path[0] = place


def _script(path: str) -> tuple[CodeType, dict[str, Any], str, str]:
    """Return the code of a script, the names of its module, sys.argv[0] and sys.path[0]."""
    return compiled(path), {"__file__": path, "__package__": None}, path, str(Path(path).resolve().parent)


def _command(code: str) -> tuple[CodeType, dict[str, Any], str, str]:
    return compile(code, "<string>", "exec", dont_inherit=True), {"__package__": None}, "-c", ""


def _standard_input() -> tuple[CodeType | None, dict[str, Any], str, str]:
    names = {"__file__": "<stdin>", "__package__": None}
    if sys.stdin is None or sys.stdin.isatty():
        return None, names, "-", ""
    source = sys.stdin.buffer.read()  # a line in it may name its encoding
    return compile(source, "<stdin>", "exec", dont_inherit=True), names, "-", ""


def _module(name: str) -> tuple[CodeType, dict[str, Any], str, str]:
    place = str(Path.cwd())
    _search_first(place)
    try:
        spec = find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = find_spec(f"{name}.__main__")
    except ModuleNotFoundError:
        spec = None
    code = getattr(spec.loader, "get_code", lambda _: None)(spec.name) if spec is not None else None
    if spec is None or code is None or spec.origin is None:
        raise ConfigError(
            f"got -m {name}, expected a module that can be run: install it, or look at its name; {_USAGE}"
        )
    return code, {"__file__": spec.origin, "__package__": spec.parent, "__cached__": spec.cached}, spec.origin, place
