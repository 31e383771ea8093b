"""What a model card tells of the rows and the loss of a run."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ..card.record import TrainedOn
from ..card.statistics import label_statistics, samples, text_statistics
from ..data.roles import TrainingRows
from ..losses import Loss


def trained_on(name: str, rows: TrainingRows, loss: Loss, token_counts: NDArray[np.int64]) -> TrainedOn:
    """Describe a data set and its loss.

    Args:
        name: of the data set; a name that `fit` made up is left out.
        rows: the rows.
        loss: what they were trained with.
        token_counts: tokens of each text, (columns, rows).
    """
    statistics = {
        column: text_statistics(column, counts) for column, counts in zip(rows.texts, token_counts, strict=True)
    }
    if rows.labels is not None and rows.label_name is not None:
        statistics[rows.label_name] = label_statistics(rows.label_name, rows.labels, rows.label_type)
    return TrainedOn(
        name=shown_name(name),
        rows=len(rows),
        columns=rows.columns,
        label_column=rows.label_name,
        loss=type(loss).__name__,
        loss_parameters={key: _plain(value) for key, value in loss.get_config_dict().items()},
        inner_losses=_inner(loss),
        statistics=tuple(statistics[column] for column in rows.columns),
        samples=samples(rows.columns, rows.texts, rows.labels or [], rows.label_type),
    )


def shown_name(name: str) -> str:
    """A data set's name, or "" for one that `fit` made up."""
    return "" if re.fullmatch(r"_dataset_\d+", name) else name


def _inner(loss: nn.Module) -> tuple[str, ...]:
    inner = getattr(loss, "loss", None)
    return (type(inner).__name__, *_inner(inner)) if isinstance(inner, nn.Module) else ()


def _plain(value: Any) -> Any:
    """A value that JSON can hold."""
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, nn.Module):
        return type(value).__name__
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
