"""What every evaluator has in common."""

from __future__ import annotations

import csv
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, InputTypeError
from ..similarity import SimilarityFunction
from ..text import check_texts

if TYPE_CHECKING:
    from ..model import EmbeddingModel


class Evaluator(ABC):
    """Called with a model, returns metrics by name.

    Attributes:
        name: put before each metric name, with "_".
        primary_metric: name of the metric that says which model is better; larger is better. Set by each call.
        description: what is evaluated, for the model card.
    """

    description = ""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.primary_metric: str | None = None

    @abstractmethod
    def __call__(
        self,
        model: EmbeddingModel,
        output_path: str | Path | None = None,
        epoch: float = -1,
        steps: int = -1,
    ) -> dict[str, float]:
        """Evaluate `model`; `epoch` and `steps` go into the CSV file (-1: outside training)."""

    def get_config_dict(self) -> dict[str, Any]:
        """What the model card says of how this was evaluated; only what is not as usual."""
        return {}

    def named(self, metrics: Mapping[str, float], *, primary: str) -> dict[str, float]:
        """Put the evaluator's name before the metrics, and note which is the primary one."""
        prefix = f"{self.name}_" if self.name else ""
        self.primary_metric = prefix + primary
        return {prefix + metric: value for metric, value in metrics.items()}


def append_csv(path: Path, row: Mapping[str, object], *, line_end: str = "\r\n") -> None:
    """Append one row to a CSV file; a new file starts with the names.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator=line_end)
            if new:
                writer.writerow(row.keys())
            writer.writerow(row.values())
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror}); expected a folder that can be written") from error


def check_rows(**columns: Sequence[str]) -> list[list[str]]:
    """Return columns of texts as lists, or say why they are no rows.

    Raises:
        InputTypeError: an entry is not a string.
        InputError: the columns are empty or differ in length.
    """
    lists = [check_texts(texts, what=name) for name, texts in columns.items()]
    sizes = {name: len(texts) for name, texts in zip(columns, lists, strict=True)}
    if len(set(sizes.values())) > 1:
        got = ", ".join(f"{size} {name}" for name, size in sizes.items())
        raise InputError(f"got {got}; expected as many of each: pass one text of each for every row")
    if not len(lists[0]):
        raise InputError(f"got no {', '.join(columns)}; expected at least one of each: pass rows to evaluate on")
    return lists


def check_texts_by_id(texts: Mapping[Any, str], *, what: str) -> dict[Any, str]:
    """Return texts by their ids as a dictionary, or say which one is no text.

    Raises:
        InputTypeError: `texts` is no mapping, or an entry is not a string.
        InputError: there are none.
    """
    if not isinstance(texts, Mapping):
        raise InputTypeError(f"got {type(texts).__name__} for {what}; expected a dict: pass {{id: text}}")
    if not texts:
        raise InputError(f"got no {what}; expected at least one: pass {{id: text}}")
    for key, text in texts.items():
        if not isinstance(text, str):
            raise InputTypeError(
                f"{what}[{key!r}] is {repr(text)[:60]} of type {type(text).__name__}; expected a string: drop the entry"
            )
    return dict(texts)


def similarity_functions(names: Sequence[str | SimilarityFunction] | None) -> list[SimilarityFunction]:
    """The functions called `names`, each once.

    Raises:
        InputTypeError: `names` is one name.
        ConfigError: there is no such function.
    """
    if isinstance(names, str):
        raise InputTypeError(f"got {names!r} as similarity functions; expected several: put the name in a list")
    return list(dict.fromkeys(SimilarityFunction.of(name) for name in names or ()))
