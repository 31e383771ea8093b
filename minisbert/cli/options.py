"""Options that several commands share, the checks of their values, and tables for the terminal."""

from __future__ import annotations

import argparse
import inspect
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import ConfigError, InputError
from ..storage.files import check_no_file, is_file, temporary_path, write_error

if TYPE_CHECKING:
    from ..sentence_transformer import SentenceTransformer

_PATIENCE = 5.0  # seconds

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_command(
    commands: Subparsers,
    name: str,
    run: Callable[[argparse.Namespace], None],
    *,
    example: str,
    usage: str | None = None,
) -> argparse.ArgumentParser:
    """Add a command that `run` runs: its help is the docstring of `run`, with an example at the end.

    Args:
        commands: of the program.
        name: of the command.
        run: runs it.
        example: one line.
        usage: in short, where there are many options.
    """
    about = inspect.getdoc(run)
    parser = commands.add_parser(
        name,
        help=about,
        description=about,
        epilog=f"example:\n  {example}",
        usage=usage,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


# ---- models ---------------------------------------------------------------------------------------------------------


def add_model_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add the model to load, and a group with its device and its dtype, which is returned."""
    parser.add_argument("model", help="model folder or name")
    group = parser.add_argument_group("how it is computed")
    add_device(group)
    group.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16", "int8"), help="dtype of the weights (default: as saved)"
    )
    return group


def load_model(options: argparse.Namespace) -> SentenceTransformer:
    """Load the model of the options on their device and in their dtype."""
    from ..sentence_transformer import SentenceTransformer

    return SentenceTransformer(options.model, device=options.device, dtype=getattr(options, "dtype", None))


def add_device(parser: argparse._ActionsContainer) -> None:
    """Add the device to run on."""
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda or mps (default: the best available one)")


# ---- values of options ----------------------------------------------------------------------------------------------


def column_names(text: str) -> list[str]:
    """Parse "a,b,c"."""
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(f"got {text!r}; expected column names with commas between them")
    return names


def positive(text: str) -> int:
    """Parse a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected a whole number of at least 1")
    return int(text)


def output_path(text: str) -> Path:
    """Parse the name of a file or folder to write."""
    if not text.strip() or "\0" in text:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected a name: pass . for the current folder")
    return Path(text)


def label_scale(text: str) -> tuple[float, float]:
    """Parse "LOW-HIGH"; either number may be negative."""
    dash = text.find("-", 1)
    try:
        low, high = float(text[:dash]), float(text[dash + 1 :])
    except ValueError:
        low = high = 0.0
    if dash < 0 or not -math.inf < low < high < math.inf:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected LOW-HIGH, such as 0-5")
    return low, high


# ---- processes ------------------------------------------------------------------------------------------------------


def check_one_process(command: str, *, fix: str) -> None:
    """Refuse to run a command in each of several processes of a launcher, all of which would do the same.

    Raises:
        ConfigError: there are several; the first of them tells the user.
    """
    from ..distributed import launched

    if launched():
        count, number = os.environ["WORLD_SIZE"], os.environ["RANK"]
        error = ConfigError(
            f"got minisbert {command} in {count} processes of a launcher such as torchrun, which would all do the "
            f"same; expected one process: {fix}"
        )
        if number != "0":  # a launcher ends the first, maybe before it has told, once another has ended
            time.sleep(_PATIENCE)
            error.told = True
        raise error


# ---- output ---------------------------------------------------------------------------------------------------------


def check_writable(folder: Path, *, file: str = ".minisbert-probe") -> None:
    """Check before the work that a folder, or `file` in it, can be written.

    Raises:
        InputError: it cannot.
    """
    probe = folder / file
    try:
        check_no_file(folder)
        new = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
        for path in new:
            path.rmdir()
    except OSError as error:
        raise write_error(folder, error) from None


def check_output_file(output: Path, *, inputs: Iterable[Path | str | None]) -> None:
    """Check before the work that a file can be written, and is none of those that are read.

    Raises:
        InputError: it cannot, or it is.
    """
    target = output.resolve()  # a link stays a link; its target is written
    if target in [Path(one).resolve() for one in inputs if one is not None]:
        raise InputError(
            f"got {output} as input and --output; expected two files, or the texts are lost: choose another"
        )
    check_writable(target.parent, file=temporary_path(target).name)
    if target.exists() and not target.is_file():
        kind = "folder" if target.is_dir() else "device or pipe"
        raise InputError(f"{output} is a {kind}; expected the name of a file to write")


def tell_of_model(folder: Path) -> None:
    """Say on standard error that a model that lies in a folder will be replaced."""
    if is_file(folder / "modules.json"):
        sys.stderr.write(f"{folder} holds a model, which is replaced at the end; files of other names stay\n")


def table(rows: Iterable[Sequence[Any]], *, numbers: bool = True) -> str:
    """Align rows of cells as text: the first column to the left, the others to the right if they hold numbers."""
    return "\n".join(aligned(rows, numbers=numbers))


def aligned(rows: Iterable[Sequence[Any]], *, numbers: bool = False) -> list[str]:
    """Return the lines of a table; rows may differ in length."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip_longest(*cells, fillvalue="")]
    return [
        "  ".join(
            cell.rjust(width) if numbers and column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=False))
        ).rstrip()
        for row in cells
    ]


def before_and_after(before: Mapping[str, float], after: Mapping[str, float], *, of: str = "metric") -> str:
    """Make a table of the values of metrics, or `of` something else, that are in both mappings, and their changes."""
    rows = [
        (name, f"{value:.4f}", f"{after[name]:.4f}", f"{after[name] - value:+.4f}")
        for name, value in before.items()
        if name in after
    ]
    return table([(of, "before", "after", "change"), *rows])


def counted(number: int, noun: str) -> str:
    """Return a number of things in words: "1 step", "2 steps"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def shortened(text: str, width: int = 60) -> str:
    """Cut a text to at most `width` characters, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= width else f"{line[: width - 3]}..."
