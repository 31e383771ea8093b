"""The base of losses, which take embeddings and labels and know nothing of models or texts."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..distributed import broadcast_object, gather_rows, world_size
from ..errors import ConfigError, InputError, check_count, shown

Labels: TypeAlias = Sequence[float] | NDArray[Any]
LabelKind: TypeAlias = Literal["number", "numbers", "class"]
Form: TypeAlias = Literal["model", "guide", "tokens"]
AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])
T = TypeVar("T")

LARGEST_SIZE = 2**20  # of a layer of a loss: far more than any embedding has
LARGEST_CLASS = 2**24  # labels are float32, in which larger whole numbers have gaps
_WANTED: dict[LabelKind, str] = {
    "number": "a number",
    "numbers": "a number or a list of numbers",
    "class": "a class, which is a whole number or a name",
}


class Loss(nn.Module):
    """Base of the losses.

    `forward(embeddings, labels)` takes one (batch, dim) tensor for each text column, in column order, and the labels,
    (batch,) or (batch, size), or None; it returns a scalar, or several by name, whose sum is the loss and which the log
    shows one by one. Losses compute in float32. A loss with a `guide` takes a third argument, the guide's embeddings of
    each column, (batch, size). `layered` and `forms` say where it is given something else.

    The attributes declare what a loss needs of the rows and of the training loop: `check_rows` checks the rows before
    training, and the engine of the run reads the rest.

    Attributes:
        min_columns: smallest number of text columns.
        max_columns: largest number of text columns, or None for any.
        needs_labels: True if rows need a label.
        label_kind: what a label is: "number", "numbers" (one or several for each row, such as an embedding), or
            "class", a whole number from 0.
        label_range: smallest and largest valid label, or None for any.
        labels_equal_texts: True if rows without labels are labelled 1 where their texts have equal tokens, otherwise 0.
        layered: True if the first argument holds for each layer, from the embeddings of words to the last layer, the
            embeddings that what follows the encoder makes of it.
        forms: for each column the form in which it is given, where that is not always an embedding by the model: an
            embedding by the "model" or by the "guide", both in the first argument; or its "tokens", a packed batch
            whose `restore` leads to the rows, in the third one.
        trains_guide: True if the guide is trained and reads the tokens of the model, as a copy of it does; otherwise
            it is not changed, and has its own tokenizer.
        cached: True if the texts of a batch are embedded in mini-batches, each a second time for its gradients, so that
            memory does not grow with the batch: see `training/gradient_cache.py`.
        mini_batch_size: number of texts in a mini-batch.
        mini_batch_num_tokens: number of tokens in a mini-batch; takes the place of `mini_batch_size`.
        gather_across_devices: True if the rows of all processes of a run are the candidates of each row, in training;
            otherwise every process computes the loss of its own rows.
        recordable: True if the loss launches the same operations for all batches of a size and never waits for the
            device, so that training on a GPU may capture it as a CUDA graph.
    """

    min_columns: int = 2
    max_columns: int | None = None
    needs_labels: bool = False
    label_kind: LabelKind = "number"
    label_range: tuple[float, float] | None = None
    labels_equal_texts: bool = False
    layered: bool = False
    forms: tuple[Form, ...] = ()
    trains_guide: bool = False
    cached: bool = False
    mini_batch_size: int = 32
    mini_batch_num_tokens: int | None = None
    gather_across_devices: bool = False
    recordable: bool = False

    @property
    def guide(self) -> nn.Module | None:
        """Another model, which embeds every column too, or None; the engine calls it on the packed batch."""
        return None

    @property
    def takes_labels(self) -> bool:
        """True if labels, where there are some, make a difference."""
        return self.needs_labels or self.labels_equal_texts

    @property
    def paper(self) -> str:
        """The name under which the model card finds the paper to cite: the class name, or that of a variant."""
        return type(self).__name__

    def get_config_dict(self) -> dict[str, Any]:
        """Return the loss's parameters, with the reference's names, for the model card."""
        return {}

    def check_model(self, model: nn.Module) -> None:
        """Check that the loss goes with the model to train: any does, unless it was made of another one.

        Raises:
            ConfigError: it does not; the message is one line.
        """

    def columns(self, embeddings: Sequence[Tensor]) -> list[Tensor]:
        """Return the embeddings in float32 at least, after checking their number and rows.

        Raises:
            InputError: there are too few or too many columns, or their lengths differ.
        """
        name = type(self).__name__
        if not self._takes(len(embeddings)):
            raise InputError(f"got {len(embeddings)} text column(s); {name} expects {self._columns_wanted()}")
        return aligned(embeddings, loss=name)

    def gathered(self, columns: Sequence[Tensor]) -> list[Tensor]:
        """Return columns with the rows of the other processes behind their own, if the loss gathers and is trained.

        All have as many rows, and one size: (batch, dim) to (rows of all processes, dim).
        """
        if not (self.gather_across_devices and torch.is_grad_enabled() and world_size() > 1):
            return list(columns)
        return list(gather_rows(torch.cat(list(columns), dim=1), own_first=True).chunk(len(columns), dim=1))

    def _takes(self, columns: int) -> bool:
        return columns >= self.min_columns and (self.max_columns is None or columns <= self.max_columns)

    def _columns_wanted(self) -> str:
        return f"{self.min_columns}" if self.max_columns == self.min_columns else f"at least {self.min_columns}"

    def check_rows(self, texts: Sequence[str], labels: Labels | None) -> None:
        """Check that training rows fit the loss.

        Args:
            texts: names of the text columns.
            labels: one for each row, (rows,) or (rows, size), or None.

        Raises:
            InputError: they do not fit; the message is one line.
        """
        name = type(self).__name__
        kind = _WANTED[self.label_kind]
        if not self._takes(len(texts)):
            wanted = self._columns_wanted()
            label = "which is a number" if self.label_kind == "number" else kind
            wanted += f" and a label, {label}" if self.needs_labels else ""
            example = "anchor, positive" if self.min_columns > 1 else "text"
            raise InputError(
                f"got {len(texts)} text column(s) {list(texts)}; {name} expects {wanted}: name the columns to use, in "
                f"order, such as {example}"
            )
        if self.needs_labels and labels is None:
            raise InputError(
                f"got the text columns {list(texts)} and no labels; {name} expects {kind} for each row: call its "
                f"column label or score, or name the columns to use with the label's last"
            )
        if labels is None:
            return
        size = sizes_of(labels)
        if size and self.takes_labels and self.label_kind != "numbers":
            raise InputError(
                f"got labels of {' x '.join(map(str, size))} numbers each; {name} expects {kind} for each row: choose "
                f"the columns"
            )
        if self.needs_labels and self.label_kind == "class":
            _check_classes(labels, name)
        if self.label_range is not None:
            low, high = float(np.min(labels)), float(np.max(labels))
            if low < self.label_range[0] or high > self.label_range[1]:
                raise InputError(
                    f"got labels from {low:g} to {high:g}; {name} expects {self.label_range[0]:g} to "
                    f"{self.label_range[1]:g}: say which labels stand for 0 and 1, with "
                    f"scale=({_range(low, high, ', ')}) or --scale={_range(low, high, '-')}"
                )


class LossOver(Loss):
    """Base of the losses that compute another loss several times; columns and labels are those of that loss.

    Args:
        loss: any loss over embeddings.

    Raises:
        ConfigError: it is none.
    """

    def __init__(self, loss: object) -> None:
        super().__init__()
        if not isinstance(loss, Loss):
            raise ConfigError(f"got {type(loss).__name__} as loss; expected a loss, such as CoSENTLoss(): make one")
        if loss.forms or loss.layered:
            raise ConfigError(
                f"got {type(loss).__name__} as loss; {type(self).__name__} expects one over embeddings, such as "
                f"CoSENTLoss()"
            )
        self.loss = loss
        self.needs_labels, self.label_kind = loss.needs_labels, loss.label_kind
        self.trains_guide, self.cached = loss.trains_guide, loss.cached
        self.mini_batch_size, self.mini_batch_num_tokens = loss.mini_batch_size, loss.mini_batch_num_tokens
        self.gather_across_devices = loss.gather_across_devices

    def drawn(self, choices: Sequence[int], count: int) -> list[int]:
        """Draw some of several choices with Python's `random`; processes that gather draw the same."""
        chosen = random.sample(choices, count)
        return broadcast_object(chosen) if self.gather_across_devices and torch.is_grad_enabled() else chosen

    @property
    def guide(self) -> nn.Module | None:
        """The guide of the inner loss."""
        return self.loss.guide

    def check_model(self, model: nn.Module) -> None:
        """Check that the inner loss goes with the model to train."""
        self.loss.check_model(model)

    def inner(self, columns: Sequence[Tensor], labels: Tensor | None, guided: Sequence[Tensor]) -> Tensor:
        """Compute the inner loss, a scalar; of one that returns terms the sum."""
        value: Any = self.loss(columns, labels) if self.guide is None else self.loss(columns, labels, guided)
        total: Tensor = torch.stack(list(value.values())).sum() if isinstance(value, Mapping) else value
        return total

    def check_rows(self, texts: Sequence[str], labels: Labels | None) -> None:
        """Check that training rows fit the inner loss."""
        self.loss.check_rows(texts, labels)


def _range(low: float, high: float, between: str) -> str:
    return f"{math.floor(min(low, 0)):g}{between}{math.ceil(high):g}"


def sizes_of(labels: Labels | None) -> tuple[int, ...]:
    """Return the shape of one label: () for a number, (size,) or (columns, size) for several."""
    return getattr(labels, "shape", (0,))[1:]


def _check_classes(labels: Labels, name: str) -> None:
    values = np.asarray(labels)
    wrong = ~((values >= 0) & (values <= LARGEST_CLASS) & (values == np.floor(values)))
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(
            f"row {row} has the label {labels[row]:g}; {name} expects classes, numbered from 0: number them so, or "
            f"give their names"
        )


# ---- embeddings and labels of a batch -------------------------------------------------------------------------------


def aligned(embeddings: Sequence[Tensor], *, loss: str) -> list[Tensor]:
    """Return the columns in float32 at least, after checking that each has one row for each training row.

    Raises:
        InputError: their lengths differ.
    """
    rows = [len(column) for column in embeddings]
    if len(set(rows)) > 1:
        raise InputError(f"got columns of {rows} rows; {loss} expects one embedding of each column for each row")
    return [column.float() if column.dtype in (torch.float16, torch.bfloat16) else column for column in embeddings]


def check_labels(labels: Tensor | None, rows: int, *, loss: str, exact: bool = False) -> Tensor:
    """Return labels as a float (rows,) tensor.

    Args:
        labels: one for each row, or None.
        rows: of the batch.
        loss: name of the loss, for messages.
        exact: keep float64 labels as they are.

    Raises:
        InputError: there are no labels, or not one for each row.
    """
    if labels is None:
        raise InputError(f"got no labels; {loss} expects one number for each of the {rows} rows")
    if labels.numel() != rows:
        raise InputError(f"got {labels.numel()} labels for {rows} rows; {loss} expects one for each row")
    return (labels if exact and labels.dtype == torch.float64 else labels.float()).view(-1)


# ---- options --------------------------------------------------------------------------------------------------------


def check_positive(value: float, name: str) -> float:
    """Return a number above 0.

    Raises:
        ConfigError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= sys.float_info.max:
        raise ConfigError(f"got {name}={shown(value)}; expected a positive number")
    return value


def check_number(value: float, name: str) -> float:
    """Return a finite number.

    Raises:
        ConfigError: it is none.
    """
    # a whole number can be too large for a float, which every use of it would need
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= sys.float_info.max:
        raise ConfigError(f"got {name}={shown(value)}; expected a finite number")
    return value


def check_sampled(value: int, name: str, *, of: str) -> int:
    """Return how many of several to sample: a whole number of at least 1, or -1 for all.

    Raises:
        ConfigError: it is none.
    """
    every = isinstance(value, int) and value == -1
    return -1 if every else check_count(value, name, otherwise=f"-1 for all {of}")


def check_list(values: Sequence[T], name: str) -> list[T]:
    """Return a list or a tuple as a list.

    Raises:
        ConfigError: it is neither.
    """
    if not isinstance(values, (list, tuple)):
        raise ConfigError(f"got {name}={shown(values)}; expected a list of numbers")
    return list(values)


def check_callable(function: AnyFunction, name: str, example: str) -> AnyFunction:
    """Return a function.

    Raises:
        ConfigError: it cannot be called.
    """
    if not callable(function):
        raise ConfigError(f"got {name}={shown(function)}; expected a function, such as {example}")
    return function


def check_choice(value: str, name: str, choices: Sequence[str]) -> str:
    """Return one of several names.

    Raises:
        ConfigError: it is none of them.
    """
    if not isinstance(value, str) or value not in choices:
        raise ConfigError(f"got {name}={shown(value)}; expected one of {', '.join(choices)}")
    return value


def function_name(function: Callable[..., Any]) -> str:
    """Return the name of a function, as cards print it."""
    return str(getattr(function, "__name__", "custom"))


def dimension_of(model: object, loss: str) -> int:
    """Return the size of a model's embeddings.

    Raises:
        ConfigError: there is no model.
    """
    measure = getattr(model, "get_sentence_embedding_dimension", None)
    size = measure() if callable(measure) else None
    if not isinstance(size, int):
        raise ConfigError(f"got the model {type(model).__name__}; {loss} expects one that embeds: pass it first")
    return size
