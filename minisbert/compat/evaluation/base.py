"""The bases of evaluators with the reference's interface, and the one that calls several."""

from __future__ import annotations

import logging
import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ...errors import InputError, InputTypeError, shown
from ...evaluation import Evaluator
from ...evaluation.evaluator import Measurement
from ...similarity import SimilarityFunction, embedding_matrix
from ..checks import check_function, check_list

logger = logging.getLogger(__name__)
_HELD = {"labels": "numbers 0 and 1", "scores": "numbers"}  # columns of something else than texts


class BaseEvaluator(Evaluator):
    """Base of evaluators: a subclass has a `__call__` that returns a number, or numbers by name.

    Attributes:
        greater_is_better: a larger primary metric is better.
        primary_metric: name of the metric that decides; with numbers by name, set by `__call__`.
    """

    greater_is_better = True
    number_called = "evaluator"  # the name that minisbert's Trainer gives a single number

    def __init__(self) -> None:
        self.greater_is_better = True
        self.primary_metric = None

    def __call__(
        self,
        model: Any,
        output_path: str | Path | None = None,
        epoch: float = -1,
        steps: int = -1,
    ) -> Any:
        """Evaluate `model`; files go into `output_path`, and -1 for `epoch` and `steps` means outside training."""
        raise NotImplementedError(f"{type(self).__name__} has no __call__")

    def prefix_name_to_metrics(self, metrics: Mapping[str, Any], name: str) -> dict[str, Any]:
        """Put a name before metrics and `primary_metric`, and make their values floats where they are numbers."""
        prefix = f"{name}_" if name else ""
        result = {prefix + metric: _float_or_same(value) for metric, value in metrics.items()}
        primary = getattr(self, "primary_metric", None)
        if primary is not None and not primary.startswith(prefix):
            self.primary_metric = prefix + primary
        self.metric_names = tuple(result)
        return result

    def store_metrics_in_model_card_data(
        self, model: Any, metrics: Mapping[str, Any], epoch: float = 0, step: int = 0
    ) -> None:
        """Let the model's card show metrics, if the model keeps them for it."""
        store = getattr(getattr(model, "model_card_data", None), "set_evaluation_metrics", None)
        if store is not None:
            store(self, metrics, epoch, step)

    @property
    def description(self) -> str:  # type: ignore[override]
        """The name of the class in words, without "Evaluator"."""
        name = type(self).__name__.partition("Evaluator")[0]
        name = f"CrossEncoder{name[2:]}" if name.startswith("CE") else name
        return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)

    def get_config_dict(self) -> dict[str, Any]:
        """Settings of the evaluation that the model card shows."""
        return {}


SentenceEvaluator = BaseEvaluator  # its older name


class SequentialEvaluator(BaseEvaluator):
    """Calls evaluators one after the other.

    The metrics are those of all, and `sequential_score`, the primary one. A number without a name is called
    "evaluator_" and the place of its evaluator.

    Args:
        evaluators: what to call.
        main_score_function: from the primary metric of each evaluator to one number; by default the last of them.
    """

    def __init__(
        self,
        evaluators: Iterable[Any],
        main_score_function: Callable[[list[Any]], Any] = lambda scores: scores[-1],
    ) -> None:
        super().__init__()
        if callable(evaluators) or not isinstance(evaluators, Iterable):
            raise InputTypeError(f"got evaluators={shown(evaluators)}; expected several: put a single one in a list")
        self.evaluators = [
            check_function(one, f"evaluators[{place}]", of="of a model, such as an evaluator")
            for place, one in enumerate(evaluators)
        ]
        self.main_score_function = check_function(main_score_function, "main_score_function", of="of a list of numbers")

    def __call__(
        self,
        model: Any,
        output_path: str | Path | None = None,
        epoch: float = -1,
        steps: int = -1,
    ) -> dict[str, Any]:
        """Evaluate `model`: metric names to values."""
        results: dict[str, Any] = {}
        scores: list[Any] = []
        for place, evaluator in enumerate(self.evaluators):
            result = evaluator(model, output_path, epoch, steps)
            if not isinstance(result, Mapping):
                result = {f"evaluator_{place}": result}
            primary = getattr(evaluator, "primary_metric", None)
            scores.append(result[primary if primary in result else next(iter(result))])
            results |= result
        results["sequential_score"] = self.main_score_function(scores) if scores else 0.0
        self.primary_metric, self.metric_names = "sequential_score", tuple(results)
        return results


class TaskEvaluator(BaseEvaluator):
    """An evaluator of one task: `measure` computes the metrics, a call also names, writes, logs and stores them.

    Attributes:
        csv_headers: columns of the CSV file; those of similarity functions that the model chooses are added in a call.
    """

    line_end = "\r\n"
    csv_headers: Sequence[str] = ("epoch", "steps")

    def __init__(
        self, name: str, batch_size: int, show_progress_bar: bool, write_csv: bool, truncate_dim: int | None
    ) -> None:
        super().__init__()
        if name and not isinstance(name, str):
            raise InputTypeError(f"got name={shown(name)}; expected a text that names files and metrics: pass a string")
        self.name = name
        self.batch_size = batch_size
        self.show_progress_bar = show_progress_bar
        self.write_csv = write_csv
        self.truncate_dim = truncate_dim

    def __call__(
        self,
        model: Any,
        output_path: str | Path | None = None,
        epoch: float = -1,
        steps: int = -1,
    ) -> dict[str, Any]:
        """Evaluate `model`: metric names, with the evaluator's name before them, to values."""
        return self.finish(model, self.measure(model), output_path, epoch, steps)

    def finish(
        self,
        model: Any,
        measured: Measurement,
        output_path: str | Path | None,
        epoch: float,
        steps: int,
        *,
        values: bool = True,
    ) -> dict[str, Any]:
        """Write a row of the CSV file, and name, log (unless `values` is off) and store the metrics; return them."""
        if measured.write is not None and output_path is not None:
            measured.write(Path(output_path))
        self.csv_headers = ["epoch", "steps", *measured.row]
        self.write_row(output_path, measured.row, epoch=epoch, steps=steps, line_end=self.line_end)
        self.primary_metric = measured.primary
        metrics = self.prefix_name_to_metrics(measured.metrics, self.name)
        when = "" if epoch < 0 else f", epoch {epoch:g}" + ("" if steps < 0 else f", step {steps}")
        what = f"{self.description}{f' on {self.name}' if self.name else ''}"
        logger.info("%s%s%s", what, when, "" if self.truncate_dim is None else f", {self.truncate_dim} dimensions")
        for name, value in metrics.items() if values else ():
            logger.info("%s: %.4f", name, value)
        self.store_metrics_in_model_card_data(model, metrics, epoch, steps)
        return metrics

    @abstractmethod
    def measure(self, model: Any) -> Measurement:
        """Compute the metrics of `model`."""

    def embed_inputs(self, model: Any, sentences: Any, **kwargs: Any) -> Any:
        """Embed texts with the options of the evaluator: (n, d), an array."""
        options = {"batch_size": self.batch_size, "show_progress_bar": self.show_progress_bar}
        return model.encode(sentences, **options, convert_to_numpy=True, truncate_dim=self.truncate_dim, **kwargs)

    def get_config_dict(self) -> dict[str, Any]:
        """Settings for the model card: `truncate_dim`, if it is given."""
        return {} if self.truncate_dim is None else {"truncate_dim": self.truncate_dim}

    def file_name(self, task: str, ending: str = "_results.csv") -> str:
        """Name of a file of the evaluation; the evaluator's name follows that of the task."""
        return f"{task}{'_' + self.name if self.name else ''}{ending}"


class EmbeddedBy:
    """A model whose texts an evaluator embeds with its `embed_inputs`, which a subclass may have changed.

    Args:
        evaluator: whose `embed_inputs` is called.
        model: the model to embed with.
        kinds: call it with "query" or "document" as `encode_fn_name` too.
    """

    def __init__(self, evaluator: Any, model: Any, *, kinds: bool = False) -> None:
        self._evaluator = evaluator
        self._model = model
        self._kinds = kinds

    @property
    def similarity_fn_name(self) -> str:
        """Name of the model's own similarity function."""
        return SimilarityFunction.of(self._model.similarity_fn_name).value

    def encode(self, texts: Any, **options: Any) -> Any:
        """Embed texts."""
        return as_rows(self._evaluator.embed_inputs(self._model, texts), options)

    def encode_query(self, texts: Any, **options: Any) -> Any:
        """Embed queries."""
        return self._encode(self._model, "query", texts, options)

    def encode_document(self, texts: Any, **options: Any) -> Any:
        """Embed documents."""
        return self._encode(self._model, "document", texts, options)

    def _encode(self, model: Any, kind: str, texts: Any, options: Mapping[str, Any]) -> Any:
        named = {"encode_fn_name": kind} if self._kinds else {}
        return as_rows(self._evaluator.embed_inputs(model, texts, **named), options)


def as_rows(embeddings: Any, options: Mapping[str, Any]) -> Tensor | NDArray[Any]:
    """Return embeddings as a tensor if the options of `encode` ask for one, else as an array on the CPU."""
    if isinstance(embeddings, np.ndarray) and not options.get("convert_to_tensor"):
        return embeddings
    tensor = embeddings if isinstance(embeddings, Tensor) else embedding_matrix(embeddings)
    return tensor if options.get("convert_to_tensor") else embedding_matrix(tensor.detach()).cpu().numpy()


def function_names(names: Sequence[Any] | None, main: SimilarityFunction | None = None) -> list[str]:
    """Return the names of similarity functions to evaluate; without any, that of the main one."""
    given = () if names is None else check_list(names, "similarity_fn_names", of="names, such as 'cosine'")
    chosen = [SimilarityFunction.of(name).value for name in given]
    return chosen or ([main.value] if main is not None else [])


def check_lengths(**columns: Sequence[Any]) -> None:
    """Check that columns are lists, and equally long.

    Raises:
        InputTypeError: one is none.
        InputError: they differ in length.
    """
    for name, values in columns.items():
        check_list(values, name, of=_HELD.get(name, "texts"))
    if len({len(values) for values in columns.values()}) > 1:
        got = ", ".join(f"{len(values)} {name}" for name, values in columns.items())
        raise InputError(f"got {got}; expected the same number of each: pass one of each for every row")


def _float_or_same(value: Any) -> Any:
    try:
        return float(value)
    except ValueError:
        return value
