"""From rows to what a loss takes: the tokens of each column, and the labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError, warn

Collator = TypeVar("Collator", bound="BaseDataCollator")

_LABELS = ("label", "labels", "score", "scores")
_FAMILIES = (  # names of columns in the order in which losses expect them
    ("anchor", "positive", "negative"),
    ("question", "answer"),
    ("query", "response"),
    ("hypothesis", "entailment", "contradiction"),
)


def _takes_tokenize_fn(kind: type[Collator]) -> type[Collator]:
    """Let a collator take `tokenize_fn`, the argument of versions 3 to 5, which takes texts and maybe a task."""
    init = kind.__init__

    @wraps(init)
    def taking(self: Any, *arguments: Any, **options: Any) -> None:
        tokenize = options.pop("tokenize_fn", None)
        if tokenize is None:
            init(self, *arguments, **options)
            return

        def preprocess(texts: list[str], prompt: str | None = None, task: str | None = None) -> Any:
            texts = [f"{prompt}{text}" for text in texts] if prompt else texts
            return tokenize(texts) if task is None else tokenize(texts, task=task)

        init(self, preprocess, *arguments, **options)

    kind.__init__ = taking  # type: ignore[method-assign]
    return kind


@_takes_tokenize_fn
@dataclass
class BaseDataCollator:
    """Makes a batch of rows: for each column what `preprocess_fn` makes of its texts, under COLUMN_NAME, and "label".

    Args:
        preprocess_fn: makes tensors by name of a list of texts; it takes the options `prompt` and `task`.
        valid_label_columns: names that the column of labels may have; the first that there is counts.
        router_mapping: the task of each column; or, by name of data set, such mappings.
        prompts: one for all columns, or one for each; or, by name of data set, such prompts.
        max_length: most tokens of a text; one number, or one for each task.
    """

    preprocess_fn: Callable[..., Any]
    valid_label_columns: list[str] = field(default_factory=lambda: list(_LABELS))
    router_mapping: dict[str, Any] | None = field(default_factory=dict, repr=False)
    prompts: str | dict[str, Any] | None = field(default_factory=dict, repr=False)
    max_length: int | dict[str, int] | None = field(default=None, repr=False)
    _warned_columns: set[tuple[str, ...]] = field(default_factory=set, init=False, repr=False)

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Make a batch of rows.

        Raises:
            ConfigError: prompts are by data set, and the rows name none.
        """
        if not features:
            return {}
        batch: dict[str, Any] = {}
        columns = list(features[0])
        if "dataset_name" in columns:
            columns.remove("dataset_name")
            batch["dataset_name"] = features[0]["dataset_name"]
        if tuple(columns) not in self._warned_columns:
            self.maybe_warn_about_column_order(columns)
        label = next((name for name in self.valid_label_columns if name in columns), None)
        if label is not None:
            columns.remove(label)
            labels = [row[label] for row in features]
            batch["label"] = torch.stack(labels) if isinstance(labels[0], Tensor) else torch.tensor(labels)
        tasks, prompts = self._tasks(batch.get("dataset_name")), self._prompts(batch.get("dataset_name"))
        for column in columns:
            task = tasks.get(column)
            options: dict[str, Any] = {
                "prompt": prompts if isinstance(prompts, str) else (prompts or {}).get(column),
                "task": task,
            }
            longest = self.max_length.get(task or "") if isinstance(self.max_length, dict) else self.max_length
            if longest is not None:
                options["max_length"] = longest
            made = self.preprocess_fn([row[column] for row in features], **options)
            batch.update({f"{column}_{name}": value for name, value in made.items()})
            if task is not None:
                batch[f"{column}_task"] = task
        return batch

    def _tasks(self, dataset: str | None) -> dict[str, str]:
        """Return the task of each column of a data set that has one."""
        mapping = self.router_mapping or {}
        if isinstance(next(iter(mapping.values()), None), dict):
            return cast("dict[str, str]", mapping.get(dataset or "", {}))
        return mapping

    def _prompts(self, dataset: str | None) -> str | dict[str, str] | None:
        """Return the prompt of a data set, or those of its columns."""
        prompts = self.prompts
        if not isinstance(prompts, dict) or not prompts:
            return prompts
        if dataset is not None and dataset in prompts:
            return cast("str | dict[str, str]", prompts[dataset])
        if not isinstance(next(iter(prompts.values())), dict):
            return prompts
        if dataset is None:
            raise ConfigError(
                f"got prompts for the data sets {list(prompts)}, and rows that name none; expected one for each "
                f"column: leave out the names of data sets"
            )
        return {}

    def maybe_warn_about_column_order(self, column_names: list[str]) -> None:
        """Warn, once for the same columns, if their names say that they are in another order than losses expect."""
        self._warned_columns.add(tuple(column_names))
        for family in _FAMILIES:
            for place, name in enumerate(family):
                if name in column_names and column_names.index(name) != place:
                    warn(
                        f"got {name!r} as column {column_names.index(name)} of {column_names}; expected it as column "
                        f"{place}, since losses read columns in order: use dataset.select_columns({list(family)})"
                    )
                    return


@_takes_tokenize_fn
@dataclass
class SentenceTransformerDataCollator(BaseDataCollator):
    """The collator of models that embed texts; see `BaseDataCollator`."""


def smart_batching_collate(model: Any, batch: Sequence[Any]) -> tuple[list[dict[str, Any]], Tensor]:
    """Return the tokens of each column of some examples, and their labels, as `fit` gives them to losses.

    Args:
        model: makes tokens, by `tokenize`.
        batch: examples with `texts` and a `label`.
    """
    columns = zip(*(example.texts for example in batch), strict=False)
    features = [model.tokenize(list(texts)) for texts in columns]
    labels = [example.label for example in batch]
    if labels and isinstance(labels[0], np.ndarray):
        return features, torch.from_numpy(np.stack(labels))
    return features, torch.tensor(labels)
