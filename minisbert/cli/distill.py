"""`minisbert distill`: train a smaller model to embed texts as another one does."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..errors import InputError
from .options import Subparsers, add_command, add_device, before_and_after, column_names, counted, output_path
from .settings import add_settings, given_settings
from .train import add_quiet, check_output, train_and_save


def add(commands: Subparsers) -> None:
    """Add the command."""
    example = "minisbert distill all-MiniLM-L6-v2 --layers 0,3,5 --texts texts.txt --epochs 3 --output my-student"
    parser = add_command(commands, "distill", run_distill, example=example)
    parser.add_argument("teacher", help="model folder or name to learn from")
    parser.add_argument(
        "--output", "--out", type=output_path, required=True, metavar="DIR", help="folder for the model"
    )
    students = parser.add_mutually_exclusive_group(required=True)
    students.add_argument(
        "--layers", type=_layers, metavar="N,N", help="the student is the teacher with these layers, counted from 0"
    )
    students.add_argument("--student", metavar="MODEL", help="the student is this model, a folder or name")
    parser.add_argument(
        "--texts",
        type=Path,
        nargs="+",
        required=True,
        metavar="FILE",
        help="texts to train on, without labels: a text a line, or data files, all of whose columns of text are used",
    )
    parser.add_argument(
        "--columns",
        type=column_names,
        metavar="NAMES",
        help="the columns of data files to use, such as question,answer",
    )
    parser.add_argument(
        "--held-out",
        type=Path,
        metavar="FILE",
        help="texts to compare student and teacher on (default: a tenth of the texts, at most 1,000)",
    )
    parser.add_argument(
        "--projection",
        choices=("pca", "dense"),
        help="where the two have embeddings of different sizes: pca projects the teacher's on the student's smaller "
        "size, dense adds a layer to the student (default: pca if the student's are smaller)",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue from the newest complete checkpoint in the output folder (start again if there is none)",
    )
    add_device(parser)
    add_quiet(parser)
    add_settings(parser, instead_of="a distillation's")
    parser.set_defaults(report=False)


def run_distill(options: argparse.Namespace) -> None:
    """Train a student to embed texts as a teacher does; compare the two on other texts, before and after."""
    from ..distributed import rank
    from ..recipes import prepare_distillation

    _check(options)
    texts = [text for path in options.texts for text in _texts(path, options.columns)]
    held_out = None if options.held_out is None else _texts(options.held_out, options.columns)
    check_output(options)
    run = prepare_distillation(
        options.teacher,
        texts,
        layers=options.layers,
        student=options.student,
        projection=options.projection,
        held_out=held_out,
        settings=given_settings(options),
        output_dir=options.output,
        device=options.device,
        show_progress_bar=not options.quiet,
    )
    history, before, after = train_and_save(run.student, run.trainer, options, rows=run.rows)
    if rank() == 0:
        print(before_and_after(before, after))
        sys.stderr.write(
            f"{counted(history.steps, 'step')} on {len(run.rows):,} texts, {history.seconds:.0f} s; the model is in "
            f"{options.output}\n"
        )


def _check(options: argparse.Namespace) -> None:
    from ..data.readers import has_columns

    teacher = Path(options.teacher).expanduser()
    if teacher.is_dir() and teacher.resolve() == options.output.resolve():
        raise InputError(
            f"got {options.teacher} as teacher and as output, which replaces it; expected two folders: choose another "
            f"output"
        )
    files = [*options.texts, *([options.held_out] if options.held_out else [])]
    if options.columns and not any(has_columns(path) for path in files):
        raise InputError(
            f"got --columns {','.join(options.columns)} for {files[0]}, which has a text a line; expected a data file, "
            f"such as .tsv: leave --columns out"
        )


def _texts(path: Path, columns: list[str] | None) -> list[str]:
    """Read the lines of a file, or the texts of all its columns."""
    from ..data.readers import has_columns, read_lines
    from ..data.roles import training_rows

    if not has_columns(path):
        return read_lines(path)
    return [text for column in training_rows(path, columns=columns).texts.values() for text in column]


def _layers(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"got {text!r}; expected numbers of layers with commas between them")
    return list(map(int, parts))
