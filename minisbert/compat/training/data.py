"""Data of the reference's Trainer as rows: data sets of the datasets library, streams, dicts of them, lists."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from ...data.roles import TrainingRows, training_rows
from ...data.rows import named_datasets
from ...errors import ConfigError, InputError, warn

_RESERVED = ("return_loss", "dataset_name")


def named(data: Any) -> dict[str, Any] | None:
    """Return data sets by name, as a dict or DatasetDict has them; None for a single one, such as a dict of columns."""
    if not isinstance(data, Mapping):
        return None
    found = data if any(map(is_stream, data.values())) else named_datasets(data)
    return None if found is None else {str(name): one for name, one in found.items()}


def is_stream(data: Any) -> bool:
    """Return True for an IterableDataset of the datasets library."""
    return any(
        one.__name__ == "IterableDataset" and one.__module__.startswith("datasets") for one in type(data).__mro__
    )


def read(data: Any, *, classes: bool, most: int | None = None) -> TrainingRows:
    """Read a data set.

    Args:
        data: rows in any form; a stream is read into memory.
        classes: labels are classes.
        most: rows of a stream to read; None for all.

    Raises:
        InputError: the rows cannot be read, or a column has a reserved name.
    """
    if names := sorted(set(getattr(data, "column_names", None) or ()) & set(_RESERVED)):
        raise InputError(f"got the column {names[0]!r}, a name that the reference uses itself: rename it")
    table_of = getattr(data, "column_names", None) and not is_stream(data)
    pairs = [name for name in data.column_names if len(data) and _is_pair(data[0][name])] if table_of else []
    if pairs:
        warn(
            f"got lists of two texts in the column {pairs[0]}, and took each list as two texts; the reference "
            f"takes it as one input, a pair, as cross encoders read them"
        )
    return training_rows(list(islice(data, most)) if is_stream(data) else data, classes=classes)


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(one, str) for one in value)


def check_streams(data: Any, *, max_steps: int, of: str) -> None:
    """Refuse streams that cannot be read.

    Raises:
        ConfigError: a stream is one of several data sets, or the training data without `max_steps`.
    """
    if any(map(is_stream, (named(data) or {}).values())):
        raise ConfigError(f"got an IterableDataset in the dict {of}; expected a Dataset: load it without streaming")
    if is_stream(data) and of == "train_dataset" and max_steps <= 0:
        raise ConfigError(
            "got an IterableDataset and no max_steps; expected the length of the run, as that of the data is not "
            "known: set max_steps"
        )
