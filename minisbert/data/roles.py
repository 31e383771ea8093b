"""Assign roles to the columns of a table: texts, and the label."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, InputError, shown, warn
from ..text import TEXTS_AT_ONCE, TextTokenizer, TokenizedTexts, with_prompt
from .labels import (
    Labels,
    LabelType,
    is_number,
    is_vector,
    label_type,
    number_of,
    read_classes,
    read_labels,
    read_vectors,
)
from .lists import LEFT_OUT, expand_lists
from .rows import Table, as_table

LABEL_NAMES = ("label", "labels", "score", "scores")  # in lower or upper case
_ID_NAMES = ("", "id", "_id", "idx", "index", "guid", "uuid", "unnamed: 0")  # of columns that are never a label
_SHOWN_CLASSES = 10  # in the line at the start
_ID_ENDINGS = ("_id", "-id", "_idx", "_index", "docid", "qid")


@dataclass(frozen=True)
class TrainingRows:
    """Rows ready to be tokenized.

    Attributes:
        texts: column name to texts, in the order the loss sees them.
        labels: one number for each row; several for each row as an array, (rows, size) or (rows, columns, size); or
            None.
        label_name: name of the label's column, or None.
        source: origin of the rows, for messages.
        label_type: type of the labels in the data.
        label_index: index of the label among all columns; None for the last.
        classes: names of the classes that the labels number, from 0; empty if the data has numbers.
        row_by_row: True if `tokens` has the texts row by row; otherwise column by column.
    """

    row_by_row: ClassVar[bool] = False

    texts: dict[str, list[str]] = field(repr=False)
    labels: Labels | None = field(repr=False)
    label_name: str | None
    source: str
    label_type: LabelType = "float"
    label_index: int | None = None
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.texts.values())))

    @property
    def scores(self) -> Sequence[float] | None:
        """The labels if there is one number for each row, or None; an array in a token store."""
        several = isinstance(self.labels, np.ndarray) and self.labels.ndim > 1
        return None if several else cast("Sequence[float] | None", self.labels)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns, in the order of the data."""
        names = list(self.texts)
        if self.label_name is not None:
            names.insert(len(names) if self.label_index is None else self.label_index, self.label_name)
        return tuple(names)

    @property
    def head(self) -> TrainingRows:
        """The rows in memory: all of them, unless these are in a token store."""
        return self

    def tokens(self, tokenizer: TextTokenizer, prompts: Mapping[str, str]) -> TokenizedTexts:
        """Tokenize the texts, those of some columns with a prompt before them."""
        return TokenizedTexts.join(
            [
                tokenizer(with_prompt([*texts[start : start + TEXTS_AT_ONCE]], prompts.get(column, "")), first=start)
                for column, texts in self.texts.items()
                for start in range(0, max(1, len(texts)), TEXTS_AT_ONCE)
            ]
        )

    def text_numbers(self) -> Sequence[Collection[int]] | NDArray[np.uint64]:
        """Return the texts of each row as numbers, equal for equal texts."""
        numbers: dict[str, int] = {}
        columns = [[numbers.setdefault(text, len(numbers)) for text in texts] for texts in self.texts.values()]
        return [frozenset(row) for row in zip(*columns, strict=True)]

    def numbered_as(self, classes: tuple[str, ...]) -> TrainingRows:
        """Return the rows with their classes, if they have names, numbered as in other rows.

        Raises:
            InputError: a class has no number there.
        """
        if self.classes in ((), classes):
            return self
        unknown = [name for name in self.classes if name not in classes]
        if unknown:
            raise InputError(
                f"got the class {unknown[0]} in {self.source}; expected one of the training rows: {', '.join(classes)}"
            )
        numbers = [float(classes.index(name)) for name in self.classes]
        scores = self.scores if self.scores is not None else ()
        return replace(self, labels=[numbers[int(score)] for score in scores], classes=classes)

    def subset(self, indices: Sequence[int]) -> TrainingRows:
        """Return the rows at these indices, in this order."""
        return replace(
            self,
            texts={name: [texts[index] for index in indices] for name, texts in self.texts.items()},
            labels=_at(self.labels, indices),
        )

    def describe(self) -> str:
        """Describe the roles of the columns in one line."""
        label = f"label {self.label_name}" if self.label_name else "no label"
        if self.classes:
            names = [f"{number}: {name}" for number, name in enumerate(self.classes[:_SHOWN_CLASSES])]
            more = ["..."] if len(self.classes) > _SHOWN_CLASSES else []
            label += f" of {len(self.classes)} classes ({', '.join([*names, *more])})"
        elif isinstance(self.labels, np.ndarray) and self.labels.ndim > 1:
            label += f" of {' x '.join(map(str, self.labels.shape[1:]))} numbers"
        return f"{len(self):,} rows of {self.source}: texts {' + '.join(self.texts)}, {label}"


def training_rows(
    data: Any,
    *,
    columns: Sequence[str] | None = None,
    scale: tuple[float, float] | None = None,
    classes: bool = False,
) -> TrainingRows:
    """Find the texts and the label in rows of any shape.

    A column called label, labels, score or scores, in any case, is the label and every other one is text, in order.
    Without such a column, the last one is the label if it holds numbers and is no id by its name. Any other column of
    numbers is refused, also one of a .csv or .tsv file, where they are written as texts. With `columns`, only those are
    used, in that order. Columns of lists are expanded; see `expand_lists`. Empty texts are counted in a warning.

    Labels are numbers, or lists of numbers of one size, such as embeddings. With `classes` the last column is the label
    if none is called so, and labels that are names are numbered from 0 in the order of their sorted names, as
    `class_encode_column` of datasets does.

    Args:
        data: anything `as_table` takes, or rows whose roles are known.
        columns: names of the columns to use.
        scale: the labels that stand for 0 and 1; by default labels are taken as they are.
        classes: labels are classes, by number or by name.

    Raises:
        InputError: a value does not fit the role of its column; the message names the first such row.
        ConfigError: the scale is empty, or for labels that are no scores.
    """
    if scale is not None and not _is_scale(scale):
        raise ConfigError(f"got the scale {shown(scale)}; expected two finite numbers, the smaller first: pass (0, 5)")
    if isinstance(data, TrainingRows):
        if columns is not None or scale is not None:
            option = "columns" if columns is not None else "scale"
            raise ConfigError(f"got {option} for rows that have been read; expected none: pass it when they are read")
        return data
    rows, table = rows_of_table(as_table(data, columns), columns, scale, classes=classes)
    _count_empty(table, rows.texts)
    return rows


def rows_of_table(
    table: Table, columns: Sequence[str] | None, scale: tuple[float, float] | None, *, classes: bool
) -> tuple[TrainingRows, Table]:
    """Find the texts and the label in a table as `training_rows` does; return also the table with lists expanded."""
    if columns is not None:
        table = table.select(columns)
    table = expand_lists(table, numbers=_not_expanded(table), chosen=columns is not None)
    if not table.columns:
        raise InputError(f"{table.source} has no columns of texts; expected at least one: name the columns to use")
    names = list(table.columns)
    label_name = _label_column(table, classes=classes)
    if columns is None:
        _refuse_numbers(table, label_name)
    texts = {name: column_texts(table, name) for name in names if name != label_name}
    if not texts:
        raise InputError(f"{table.source} has the columns {names}; expected at least one column of texts: add it")
    labels, class_names = _labels(table, label_name, scale, classes=classes) if label_name else (None, ())
    label_index = names.index(label_name) if label_name else None
    if scale is not None and labels is None:
        raise InputError(
            f"got a scale, and {table.source} has the columns {names}; expected a label: name its column label or score"
        )
    kind: LabelType = "float"
    if class_names:
        kind = "int"
    elif isinstance(labels, np.ndarray):
        kind = "list"
    elif label_name and scale is None:
        kind = label_type(table.columns[label_name])
    return TrainingRows(texts, labels, label_name, table.source, kind, label_index, class_names), table


def _at(labels: Labels | None, indices: Sequence[int]) -> Labels | None:
    if isinstance(labels, np.ndarray):
        return labels[np.asarray(indices, dtype=np.int64)]
    return None if labels is None else [labels[index] for index in indices]


def _not_expanded(table: Table) -> list[str]:
    """Return the columns whose lists are labels: those called so, else the last one if it holds numbers."""
    named = [name for name in table.columns if name.lower() in LABEL_NAMES]
    last = next(reversed(table.columns), "")
    if named or last in LEFT_OUT or not all(map(is_vector, table.columns.get(last, [None]))):
        return named
    return [last]


def _is_scale(scale: Any) -> bool:
    if not isinstance(scale, (tuple, list)) or len(scale) != 2 or not all(map(is_number, scale)):
        return False
    low, high = map(number_of, scale)
    return low is not None and high is not None and 0 < high - low < math.inf


def _label_column(table: Table, *, classes: bool) -> str | None:
    named = [name for name in table.columns if name.lower() in LABEL_NAMES]
    if len(named) > 1:
        raise InputError(
            f"{table.source} has several columns that could be the label: {named}; expected one: name the columns to "
            f'use, such as columns=("sentence1", "sentence2", "{named[0]}")'
        )
    if named:
        return named[0]
    last = list(table.columns)[-1]
    if len(table.columns) < 2 or _is_id(last):
        return None
    values = table.columns[last]
    if classes or all(map(is_vector, values)):
        return last
    if any(is_number(value) or (not isinstance(value, str) and number_of(value) is not None) for value in values):
        return last
    return last if _spells_numbers(table, last) else None


def _is_id(name: str) -> bool:
    return name.lower() in _ID_NAMES or name.lower().endswith(_ID_ENDINGS)


def _spells_numbers(table: Table, name: str) -> bool:
    """Return True if a column of a file without types holds numbers only."""
    return not table.typed and all(number_of(value) is not None for value in table.columns[name])


def _refuse_numbers(table: Table, label: str | None) -> None:
    """Raise InputError if columns beside the label hold numbers only, though they could be read as texts."""
    numbers = [name for name in table.columns if name != label and _spells_numbers(table, name)]
    if numbers:
        others = tuple(name for name in table.columns if name not in numbers) or tuple(table.columns)
        raise InputError(
            f"{table.source} holds only numbers in {', '.join(map(repr, numbers))}; expected texts: "
            f"name the columns to use, such as columns={others} or --columns {','.join(others)}"
        )


def _count_empty(table: Table, texts: Mapping[str, Sequence[str]]) -> None:
    """Warn of texts that are empty or blank."""
    for name, values in texts.items():
        if empty := empty_rows(values):
            warn(
                f"{len(empty):,} text(s) of column {name} are empty, the first at {table.at(empty[0])}: they count as "
                f"texts like any other; drop these rows if that is not meant"
            )


def empty_rows(texts: Sequence[str]) -> list[int]:
    """Return the numbers of texts that are empty or blank."""
    return [row for row, text in enumerate(texts) if not text or text.isspace()]


def column_texts(table: Table, name: str) -> list[str]:
    """Return the values of a column of texts.

    Raises:
        InputError: a value is not a text; the message names its row.
    """
    values = table.columns[name]
    for row, value in enumerate(values):
        if not isinstance(value, str):
            got = f"column {name} holds {shown(value)} of type {type(value).__name__}"
            raise table.error(row, f"{got}; expected a text: drop the row, or name the columns to use")
        if not value.isascii() and (index := _lone_surrogate(value)) is not None:
            got = f"column {name} holds the lone surrogate {value[index]!r} at character {index}"
            raise table.error(row, f"{got}; expected valid Unicode: fix the encoding of the rows, or drop the row")
    return values


def _lone_surrogate(text: str) -> int | None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return error.start
    return None


def _labels(
    table: Table, name: str, scale: tuple[float, float] | None, *, classes: bool
) -> tuple[Labels, tuple[str, ...]]:
    """Return the labels in a column, and the names of their classes."""
    vectors = any(map(is_vector, table.columns[name]))
    if scale is not None and (vectors or classes):
        wanted = "classes" if classes else "lists of numbers"
        raise ConfigError(f"got a scale for the label {name}, which holds {wanted}; expected none: leave it out")
    if classes:
        return read_classes(table, name)
    return (read_vectors(table, name) if vectors else read_labels(table, name, scale)), ()
