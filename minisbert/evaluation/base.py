"""What every evaluator has in common."""

from __future__ import annotations

import csv
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, InputError, InputTypeError
from ..similarity import SimilarityFunction
from ..text import check_texts

if TYPE_CHECKING:
    from ..model import EmbeddingModel


class Evaluator(ABC):
    """Called with a model, returns metrics by name.

    Args:
        name: put before each metric name, with "_".
        batch_size: most texts in one forward pass; by default only tokens are bounded.
        show_progress_bar: show one on a terminal.
        write_csv: append to a CSV file where an output path is given.
        truncate_dim: evaluate only the leading dimensions.

    Attributes:
        primary_metric: name of the metric that says which model is better; larger is better. Set by each call.
        metric_names: names of all metrics. Set by each call.
        description: what is evaluated, for the model card.
        csv_file: name of the file that `write_row` appends to.
    """

    description = ""
    csv_file = ""

    def __init__(
        self,
        name: str = "",
        *,
        batch_size: int | None = None,
        show_progress_bar: bool = False,
        write_csv: bool = True,
        truncate_dim: int | None = None,
    ) -> None:
        self.name = name
        self.batch_size = batch_size
        self.show_progress_bar = show_progress_bar
        self.write_csv = write_csv
        self.truncate_dim = truncate_dim
        self.primary_metric: str | None = None
        self.metric_names: tuple[str, ...] = ()

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
        """What the model card says of how this was evaluated: `truncate_dim`, where it is given."""
        return {} if self.truncate_dim is None else {"truncate_dim": self.truncate_dim}

    def named(self, metrics: Mapping[str, float], *, primary: str) -> dict[str, float]:
        """Put the evaluator's name before the metrics, and note their names and which is the primary one."""
        prefix = f"{self.name}_" if self.name else ""
        self.primary_metric = prefix + primary
        result = {prefix + metric: value for metric, value in metrics.items()}
        self.metric_names = tuple(result)
        return result

    def write_row(
        self,
        output_path: str | Path | None,
        columns: Mapping[str, object],
        *,
        epoch: float,
        steps: int,
        line_end: str = "\r\n",
    ) -> None:
        """Append a row to the CSV file, if one is wanted; a new file starts with the names.

        Raises:
            InputError: the file cannot be written.
        """
        if not self.write_csv or output_path is None:
            return
        path, row = Path(output_path) / self.csv_file, {"epoch": epoch, "steps": steps, **columns}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            new = not path.exists()
            with path.open("a", newline="", encoding="utf-8") as file:
                writer = csv.writer(file, lineterminator=line_end)
                if new:
                    writer.writerow(row.keys())
                writer.writerow(row.values())
        except OSError as error:
            raise InputError(
                f"cannot write {path} ({error.strerror}); expected a folder that can be written"
            ) from error


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


def with_main(
    functions: list[SimilarityFunction], main: SimilarityFunction | None, *, option: str
) -> list[SimilarityFunction]:
    """The functions to evaluate when `main`, given as `option`, is the one that counts; alone where there are none.

    Raises:
        ConfigError: it is not among them.
    """
    if main is None or main in functions:
        return functions
    if functions:
        evaluated = ", ".join(function.value for function in functions)
        raise ConfigError(f"got {option} {main.value!r}; expected one that is evaluated: {evaluated}")
    return [main]


def functions_of(model: EmbeddingModel, chosen: list[SimilarityFunction]) -> list[SimilarityFunction]:
    """The functions chosen, or else the model's own."""
    return chosen or [SimilarityFunction.of(model.similarity_fn_name)]
