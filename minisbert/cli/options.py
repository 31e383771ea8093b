"""What several commands share."""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import InputError
from ..storage.files import is_file

if TYPE_CHECKING:
    from ..evaluation import EmbeddingSimilarityEvaluator
    from ..sentence_transformer import SentenceTransformer

_ENDINGS = (".safetensors", ".json", ".jsonl", ".txt", ".md", ".png")  # of the files of a model

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_command(
    commands: Subparsers, name: str, run: Callable[[argparse.Namespace], None], *, about: str, example: str
) -> argparse.ArgumentParser:
    """A command's parser, with an example at the end of its help."""
    parser = commands.add_parser(
        name,
        help=about,
        description=about,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Options that say how a model is loaded."""
    parser.add_argument("--device", help="cpu, cuda, mps (default: the best there is)")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16", "int8"), help="number type of the weights"
    )


def load_model(options: argparse.Namespace, name: str) -> SentenceTransformer:
    """Load the model called `name` with the options of `add_model_options`."""
    from ..sentence_transformer import SentenceTransformer

    return SentenceTransformer(name, device=options.device, dtype=getattr(options, "dtype", None))


def column_names(text: str) -> list[str]:
    """Parse "a,b,c"."""
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(f"got {text!r}; expected column names with commas between them")
    return names


def positive(text: str) -> int:
    """Parse a whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected a whole number from 1")
    return int(text)


def output_path(text: str) -> Path:
    """Parse the name of what is written."""
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


def sts_evaluator(path: Path, columns: Sequence[str] | None, *, name: str = "") -> EmbeddingSimilarityEvaluator:
    """An evaluator of the scored pairs in a data file.

    Raises:
        InputError: the file does not hold two texts and a score in each row.
    """
    from ..data.roles import training_rows
    from ..evaluation import EmbeddingSimilarityEvaluator

    rows = training_rows(path, columns=columns)
    if len(rows) < 2:
        raise InputError(f"{path} holds {len(rows)} row; expected at least two to evaluate on: add rows")
    if len(rows.texts) != 2 or rows.labels is None:
        raise InputError(
            f"{path} has the text columns {list(rows.texts)} and {'a' if rows.labels else 'no'} score; expected two "
            f"texts and a score: name the columns to use, such as sentence1,sentence2,score"
        )
    first, second = rows.texts.values()
    return EmbeddingSimilarityEvaluator(first, second, rows.labels, name=name)


def check_writable(folder: Path, *, file: str = ".minisbert-probe") -> None:
    """Say now, and not after the work, that a folder cannot be written, or no `file` in it.

    Raises:
        InputError: it cannot.
    """
    probe = folder / file
    try:
        new = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
        for path in new:
            path.rmdir()
    except OSError as error:
        raise InputError(
            f"cannot write to {folder} ({error.strerror}); expected a folder that can be written: choose another"
        ) from None


def check_output(folder: Path, *, resume: bool) -> None:
    """Say now, and not after the training, why no model can be written to a folder, and what will become of it.

    Raises:
        InputError: none can.
    """
    check_writable(folder)
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.is_dir() and path.suffix in _ENDINGS:
            raise InputError(f"{path} is a folder; expected a file there: remove it, or choose another place")
        if not path.is_dir() and re.fullmatch(r"\d+_[A-Z]\w+|eval|best", path.name):
            raise InputError(f"{path} is a file; expected a folder there: remove it, or choose another place")
    if not resume:
        _tell_what_is_replaced(folder)


def _tell_what_is_replaced(folder: Path) -> None:
    """Say that a folder holds a model already."""
    if is_file(folder / "modules.json") and not any(folder.glob("checkpoint-*")):  # with these it stays as it is
        sys.stderr.write(f"{folder} holds a model, which is replaced at the end; files of other names stay\n")


def table(rows: Iterable[Sequence[Any]], *, numbers: bool = True) -> str:
    """Rows of cells as aligned text; the first column is left-aligned, the others right if they hold numbers."""
    return "\n".join(aligned(rows, numbers=numbers))


def aligned(rows: Iterable[Sequence[Any]], *, numbers: bool = False) -> list[str]:
    """The lines of a table; rows may be of different lengths."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip_longest(*cells, fillvalue="")]
    return [
        "  ".join(
            cell.rjust(width) if numbers and column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=False))
        ).rstrip()
        for row in cells
    ]


def shortened(text: str, width: int = 60) -> str:
    """At most `width` characters of a text, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= width else f"{line[: width - 3]}..."
