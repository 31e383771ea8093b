"""Readers of files as lists of `InputExample`, under the reference's names. `Trainer` reads files by itself."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

from .data.readers import read_lines
from .data.rows import InputExample
from .errors import ConfigError, InputError, check_count, check_flag, shown
from .similarity import is_number

__all__ = [
    "InputExample",
    "LabelSentenceReader",
    "NLIDataReader",
    "PairedFilesReader",
    "STSBenchmarkDataReader",
    "STSDataReader",
    "TripletReader",
]

Cell = TypeVar("Cell")
Quoting: TypeAlias = Literal[0, 1, 2, 3]  # the constants of the module csv


class LabelSentenceReader:
    """Reads lines of a label and a text; labels are numbered in the order in which they come.

    Args:
        folder: of the files.
        label_col_idx: column of the label, from 0.
        sentence_col_idx: column of the text.
        separator: between columns.

    Attributes:
        label_map: the number of each label so far.
    """

    def __init__(
        self, folder: str | Path, label_col_idx: int = 0, sentence_col_idx: int = 1, separator: str = "\t"
    ) -> None:
        self.folder, self.separator = _path(folder, "folder"), separator
        self.label_col_idx, self.sentence_col_idx = _columns(
            label_col_idx=label_col_idx, sentence_col_idx=sentence_col_idx
        )
        if not isinstance(separator, str) or not separator:
            raise ConfigError(f"got separator={separator!r}; expected a text, such as a tab")
        self.label_map: dict[str, int] = {}

    def get_examples(self, filename: str, max_examples: int = 0) -> list[InputExample]:
        """Read a file, or its first `max_examples` lines; raises InputError with the line that does not fit."""
        path, examples = self.folder / _path(filename, "filename"), []
        for number, line in enumerate(_first(read_lines(path), max_examples)):
            cells = line.strip().split(self.separator)
            label = _cell(cells, self.label_col_idx, path, number, str)
            text = _cell(cells, self.sentence_col_idx, path, number, str)
            class_number = self.label_map.setdefault(label, len(self.label_map))
            examples.append(InputExample(guid=f"{filename}-{number}", texts=[text], label=class_number))
        return examples


class NLIDataReader:
    """Reads the files s1.SPLIT, s2.SPLIT and labels.SPLIT, gzipped, of natural language inference.

    Args:
        dataset_folder: of the files.
    """

    def __init__(self, dataset_folder: str | Path) -> None:
        self.dataset_folder = _path(dataset_folder, "dataset_folder")

    def get_examples(self, filename: str, max_examples: int = 0) -> list[InputExample]:
        """Read a split, such as "train.gz", or its first `max_examples` rows; raises InputError."""
        _path(filename, "filename")
        columns = [read_lines(self.dataset_folder / f"{part}.{filename}") for part in ("s1", "s2", "labels")]
        if len({len(column) for column in columns}) > 1:
            raise InputError(
                f"got {[len(column) for column in columns]} lines in the three files; expected equal numbers"
            )
        return [
            InputExample(guid=f"{filename}-{number}", texts=[first, second], label=self.map_label(label))
            for number, (first, second, label) in enumerate(_first(list(zip(*columns, strict=True)), max_examples))
        ]

    @staticmethod
    def get_labels() -> dict[str, int]:
        """Return the number of each label."""
        return {"contradiction": 0, "entailment": 1, "neutral": 2}

    def get_num_labels(self) -> int:
        """Return how many labels there are."""
        return len(self.get_labels())

    def map_label(self, label: str) -> int:
        """Return the number of a label in any case; raises InputError."""
        labels, name = self.get_labels(), label.strip().lower()
        if name not in labels:
            raise InputError(f"got the label {label!r}; expected one of {', '.join(labels)}")
        return labels[name]


class PairedFilesReader:
    """Reads several files line by line; the lines of one number belong together, and are labelled 1.

    Args:
        filepaths: the files, plain or gzipped.
    """

    def __init__(self, filepaths: Sequence[str | Path]) -> None:
        if isinstance(filepaths, (str, Path)) or not isinstance(filepaths, Sequence):
            raise ConfigError(f"got {filepaths!r}; expected several files: put their names in a list")
        self.filepaths = [_path(path, "filepaths") for path in filepaths]

    def get_examples(self, max_examples: int = 0) -> list[InputExample]:
        """Read up to the end of the shortest file, or the first `max_examples` lines; raises InputError."""
        rows = list(zip(*(read_lines(path) for path in self.filepaths), strict=False))
        return [
            InputExample(guid=str(number), texts=list(texts), label=1)
            for number, texts in enumerate(_first(rows, max_examples))
        ]


class STSDataReader:
    """Reads rows of two texts and a score.

    Args:
        dataset_folder: of the files, plain or gzipped.
        s1_col_idx: column of the first text, from 0.
        s2_col_idx: column of the second text.
        score_col_idx: column of the score.
        delimiter: between columns.
        quoting: how fields are quoted, as in the module csv.
        normalize_scores: bring scores to 0 to 1.
        min_score: the score that is then 0.
        max_score: the score that is then 1.
    """

    def __init__(
        self,
        dataset_folder: str | Path,
        s1_col_idx: int = 0,
        s2_col_idx: int = 1,
        score_col_idx: int = 2,
        delimiter: str = "\t",
        quoting: Quoting = csv.QUOTE_NONE,
        normalize_scores: bool = True,
        min_score: float = 0,
        max_score: float = 5,
    ) -> None:
        self.dataset_folder = _path(dataset_folder, "dataset_folder")
        self.delimiter, self.quoting = delimiter, quoting
        self.s1_col_idx, self.s2_col_idx, self.score_col_idx = _columns(
            s1_col_idx=s1_col_idx, s2_col_idx=s2_col_idx, score_col_idx=score_col_idx
        )
        if not (is_number(min_score) and is_number(max_score) and -math.inf < min_score < max_score < math.inf):
            raise ConfigError(
                f"got scores from {shown(min_score)} to {shown(max_score)}; expected two numbers, the smaller first"
            )
        self.normalize_scores = check_flag(normalize_scores, "normalize_scores")
        self.min_score, self.max_score = min_score, max_score

    def get_examples(self, filename: str, max_examples: int = 0) -> list[InputExample]:
        """Read a file, or its first `max_examples` rows; raises InputError with the line that does not fit."""
        path, examples = self.dataset_folder / _path(filename, "filename"), []
        for number, row in enumerate(_first(_rows(path, self.delimiter, self.quoting), max_examples)):
            score = _cell(row, self.score_col_idx, path, number, float)
            if self.normalize_scores:
                score = (score - self.min_score) / (self.max_score - self.min_score)
            texts = [_cell(row, column, path, number, str) for column in (self.s1_col_idx, self.s2_col_idx)]
            examples.append(InputExample(guid=f"{filename}{number}", texts=texts, label=score))
        return examples


class STSBenchmarkDataReader(STSDataReader):
    """Reads the files of the STS benchmark: the score in column 4, the texts in columns 5 and 6, from 0."""

    def __init__(
        self,
        dataset_folder: str | Path,
        s1_col_idx: int = 5,
        s2_col_idx: int = 6,
        score_col_idx: int = 4,
        delimiter: str = "\t",
        quoting: Quoting = csv.QUOTE_NONE,
        normalize_scores: bool = True,
        min_score: float = 0,
        max_score: float = 5,
    ) -> None:
        super().__init__(
            dataset_folder,
            s1_col_idx,
            s2_col_idx,
            score_col_idx,
            delimiter,
            quoting,
            normalize_scores,
            min_score,
            max_score,
        )


class TripletReader:
    """Reads rows of an anchor, a positive and a negative.

    Args:
        dataset_folder: of the files, plain or gzipped.
        s1_col_idx: column of the anchor, from 0.
        s2_col_idx: column of the positive.
        s3_col_idx: column of the negative.
        has_header: leave out the first row.
        delimiter: between columns.
        quoting: how fields are quoted, as in the module csv.
    """

    def __init__(
        self,
        dataset_folder: str | Path,
        s1_col_idx: int = 0,
        s2_col_idx: int = 1,
        s3_col_idx: int = 2,
        has_header: bool = False,
        delimiter: str = "\t",
        quoting: Quoting = csv.QUOTE_NONE,
    ) -> None:
        self.dataset_folder = _path(dataset_folder, "dataset_folder")
        self.delimiter, self.quoting = delimiter, quoting
        self.columns = _columns(s1_col_idx=s1_col_idx, s2_col_idx=s2_col_idx, s3_col_idx=s3_col_idx)
        self.has_header = check_flag(has_header, "has_header")

    def get_examples(self, filename: str, max_examples: int = 0) -> list[InputExample]:
        """Read a file, or its first `max_examples` rows; raises InputError with the line that does not fit."""
        path = self.dataset_folder / _path(filename, "filename")
        rows = list(_rows(path, self.delimiter, self.quoting))[self.has_header :]
        return [
            InputExample(texts=[_cell(row, column, path, number, str) for column in self.columns])
            for number, row in enumerate(_first(rows, max_examples), self.has_header)
        ]


def _columns(**numbers: int) -> tuple[int, ...]:
    """Return numbers of columns, given by the names of the arguments.

    Raises:
        ConfigError: one is no whole number of at least 0.
    """
    return tuple(check_count(number, name, least=0) for name, number in numbers.items())


def _path(name: object, argument: str) -> Path:
    """Return the name of a file or folder.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(name, (str, Path)):
        raise ConfigError(f"got {argument}={shown(name)}; expected the name of a file or folder: pass one")
    return Path(name)


def _first(rows: Sequence[Cell] | Iterator[Cell], count: int) -> Iterator[Cell]:
    """Return the first rows; all if the number is not above 0.

    Raises:
        ConfigError: it is no whole number.
    """
    negative = isinstance(count, int) and count < 0
    return islice(rows, None if negative else check_count(count, "max_examples", least=0, most=sys.maxsize) or None)


def _rows(path: Path, delimiter: str, quoting: Quoting) -> Iterator[list[str]]:
    try:
        yield from csv.reader(read_lines(path), delimiter=delimiter, quoting=quoting)
    except (csv.Error, TypeError, OverflowError) as error:  # the latter two for arguments of another kind
        raise InputError(f"{path} cannot be read ({error}); expected columns: check delimiter and quoting") from None


def _cell(row: Sequence[str], column: int, path: Path, number: int, kind: Callable[[str], Cell]) -> Cell:
    """Return a field of a row as text or number.

    Raises:
        InputError: the row is too short, or the field is no number.
    """
    if column >= len(row):
        raise InputError(f"{path}, line {number + 1}: got {len(row)} columns; expected one of number {column}, from 0")
    try:
        value = kind(row[column])
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError
        return value
    except ValueError:
        raise InputError(f"{path}, line {number + 1}: got {row[column]!r} as score; expected a finite number") from None
