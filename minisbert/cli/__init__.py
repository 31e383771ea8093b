"""The commands: `minisbert COMMAND ...`.

Exit status: 0 done; 2 wrong use or bad input, with one line on standard error; 130 stopped by Ctrl-C and 143 by
SIGTERM; 1 anything else. Data goes to standard output, progress and messages to standard error. The modules are light:
each declares the options of its commands with `add`, and imports what a command needs when it runs.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, TextIO

from ..errors import InputError, MinisbertError, TrainingInterrupted, TrainingTerminated
from ..version import __version__
from . import distill, encode, evaluate, export, inspect, kernels, merge, mine, push, reproduce, tokenize, train

_COMMANDS = (train, tokenize, mine, merge, distill, reproduce, encode, evaluate, inspect, export, push, kernels)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a model may hold characters that the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    parser = _parser()
    if "_ARGCOMPLETE" in os.environ:  # set by a shell that completes a line
        complete(parser)
    options = parser.parse_args(arguments)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            with contextlib.redirect_stdout(_Output(sys.stdout)), _first_prints():
                options.run(options)
                sys.stdout.flush()
        except MinisbertError as error:
            return 2 if error.told else _fail(str(error), 2)
        except BrokenPipeError:
            _discard_output()  # its reader is gone
            return 1
        except (TrainingInterrupted, TrainingTerminated) as stop:
            hint = ": run the same command with --resume" if stop.checkpoint else ""
            with _first_prints():  # all stop together
                sys.stderr.write(f"minisbert: {stop}{hint}\n")
            return 130 if isinstance(stop, KeyboardInterrupt) else 143
        except KeyboardInterrupt:
            return _fail("interrupted", 130)
    return 0


@contextlib.contextmanager
def _first_prints() -> Iterator[None]:
    """Let only the first of several processes that a launcher started print; errors of all are raised."""
    if os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0":
        yield
        return
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def complete(parser: argparse.ArgumentParser) -> None:
    """Complete the line of a shell and end, if argcomplete is installed."""
    with contextlib.suppress(ImportError):
        import argcomplete

        argcomplete.autocomplete(parser)


class _Output:
    """Standard output; InputError says that it cannot be written to, as on a full disk."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> Any:
        return self._checked(self._stream.write, text)

    def flush(self) -> None:
        self._checked(self._stream.flush)

    def _checked(self, call: Callable[..., Any], *given: str) -> Any:
        try:
            return call(*given)
        except BrokenPipeError:
            raise
        except OSError as error:
            _discard_output()
            raise InputError(
                f"cannot write to standard output ({error.strerror}); expected a file or terminal that can be written "
                f"to: check the free space"
            ) from error


def _discard_output() -> None:
    """Point standard output to nowhere, or Python would try to flush it again when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Parser(argparse.ArgumentParser):
    """Reports errors in one line, also those of commands, where argparse would print all options first."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[argparse.Namespace, list[str]]:  # type: ignore[override]
        """Refuse unknown arguments of a command in its own name, not in that of the program."""
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            model = hasattr(options, "model") and any(text.partition("=")[0] == "--model" for text in unknown)
            hint = "; the model comes first, without an option" if model else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return options, unknown

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        if message.endswith("expected one argument"):
            option = message.partition(":")[0].removeprefix("argument ")
            message += f" (write {option}=-1 for one that begins with -)"
        # From "invalid float value: 'x'".
        for kind, expected in (("int", "a whole number"), ("float", "a number")):
            option, found, got = message.partition(f": invalid {kind} value: ")
            message = f"{option}: got {got}; expected {expected}" if found else message
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}: see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="minisbert", description="Train, run, evaluate and save sentence-embedding models.")
    parser.add_argument("--version", action="version", version=f"minisbert {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add(commands)
    return parser


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    sys.stderr.write(f"minisbert: warning: {message}\n")


def _fail(message: str, status: int) -> int:
    sys.stderr.write(f"minisbert: error: {message}\n")
    return status
