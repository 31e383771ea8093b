"""The bases of evaluators, and the evaluator that calls several in turn."""

from __future__ import annotations

import csv
import inspect
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, InputError, InputTypeError, shown, warn
from ..model import EmbeddingModel
from ..similarity import SimilarityFunction, check_embeddings
from ..text import check_texts

_logger = logging.getLogger(__name__)


class Evaluator(ABC):
    """Called with a model, returns metrics by name.

    Args:
        name: put before each metric name, with "_".
        batch_size: most texts in one forward pass; by default only the number of tokens is limited.
        show_progress_bar: show one on a terminal.
        write_csv: append to a CSV file where an output path is given.
        truncate_dim: evaluate only the leading dimensions.

    Attributes:
        primary_metric: name of the metric that says which model is better; larger is better. Set by each call.
        metric_names: names of all metrics. Set by each call.
        description: title of the task, for the model card.
        csv_file: name of the file that `write_row` appends to.
    """

    description = ""
    csv_file = ""
    name = ""  # here as well for subclasses that do not call __init__
    primary_metric: str | None = None
    metric_names: tuple[str, ...] = ()
    truncate_dim: int | None = None

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
        """Settings of the evaluation that the model card shows: `truncate_dim`, if it is given."""
        return {} if self.truncate_dim is None else {"truncate_dim": self.truncate_dim}

    def named(self, metrics: Mapping[str, float], *, primary: str) -> dict[str, float]:
        """Put the evaluator's name before the metrics, and set `metric_names` and `primary_metric`."""
        prefix = f"{self.name}_" if self.name else ""
        self.primary_metric = prefix + primary
        result = {prefix + metric: value for metric, value in metrics.items()}
        self.metric_names = tuple(result)
        return result

    def log(self, metrics: Mapping[str, float], *, epoch: float, steps: int) -> None:
        """Log metrics at INFO, one line each."""
        when = "" if epoch < 0 else f", epoch {epoch:g}" + ("" if steps < 0 else f", step {steps}")
        _logger.info("%s%s%s", self.description or type(self).__name__, f" on {self.name}" if self.name else "", when)
        for name, value in metrics.items():
            _logger.info("%s: %.4f", name, value)

    def write_row(
        self,
        output_path: str | Path | None,
        columns: Mapping[str, object],
        *,
        epoch: float,
        steps: int,
        line_end: str = "\r\n",
    ) -> None:
        """Append a row to the CSV file, unless `output_path` is None or `write_csv` off; a new file gets a header.

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
            raise cannot_write(path, error) from error


@dataclass(frozen=True)
class Measurement:
    """The outcome of one evaluation.

    Attributes:
        metrics: values by name.
        primary: name of the metric that says which model is better.
        row: columns of the CSV file.
        write: writes further files into a folder, or None.
    """

    metrics: Mapping[str, float]
    primary: str
    row: Mapping[str, object]
    write: Callable[[Path], None] | None = None


class TaskEvaluator(Evaluator):
    """An evaluator of one task: `measure` computes the metrics, a call also names them and writes the files."""

    line_end = "\r\n"

    def __init__(
        self, name: str, batch_size: int | None, show_progress_bar: bool, write_csv: bool, truncate_dim: int | None
    ) -> None:
        options = {"show_progress_bar": show_progress_bar, "write_csv": write_csv}
        super().__init__(name, batch_size=batch_size, truncate_dim=truncate_dim, **options)

    def __call__(
        self,
        model: EmbeddingModel,
        output_path: str | Path | None = None,
        epoch: float = -1,
        steps: int = -1,
    ) -> dict[str, float]:
        """Evaluate `model`: metric names, with the evaluator's name before them, to values."""
        measurement = self.measure(model)
        if measurement.write is not None and output_path is not None:
            measurement.write(Path(output_path))
        self.write_row(output_path, measurement.row, epoch=epoch, steps=steps, line_end=self.line_end)
        metrics = self.named(measurement.metrics, primary=measurement.primary)
        self.log(metrics, epoch=epoch, steps=steps)
        return metrics

    @abstractmethod
    def measure(self, model: EmbeddingModel) -> Measurement:
        """Compute the metrics of `model`."""

    def embed(self, encode: Callable[..., Any], texts: Sequence[str], **options: Any) -> Any:
        """Call a model's `encode`, `encode_query` or `encode_document` with the options of the evaluator."""
        shared = {"batch_size": self.batch_size, "show_progress_bar": self.show_progress_bar}
        return check_embeddings(encode(texts, **{**shared, "truncate_dim": self.truncate_dim, **options}), len(texts))

    def file_name(self, task: str, ending: str = "_results.csv") -> str:
        """Name of a file of the evaluation; the evaluator's name follows that of the task."""
        return f"{task}{'_' + self.name if self.name else ''}{ending}"


class SequentialEvaluator(Evaluator):
    """Calls evaluators one after the other.

    The metrics are those of all evaluators, and `sequential_score`, the primary one. If two have a metric of the same
    name, the later one counts, with a warning.

    Args:
        evaluators: what to call; functions too.
        main_score_function: from the primary metric of each evaluator to one number; by default the last of them.

    Raises:
        InputError: the list is empty.
        ConfigError: an evaluator, or `main_score_function`, cannot be called, or returns something else than numbers.
    """

    description = "Sequential"

    def __init__(
        self,
        evaluators: Iterable[Evaluator | Callable[..., Any]],
        *,
        main_score_function: Callable[[list[float]], float] = lambda scores: scores[-1],
    ) -> None:
        super().__init__()
        if not isinstance(evaluators, Iterable):
            raise ConfigError(f"got {shown(evaluators)} as evaluators; expected several: put it in a list")
        try:
            self.evaluators = [as_evaluator(evaluator) for evaluator in evaluators]
        except RecursionError:
            raise ConfigError("got a list of evaluators that holds itself; expected it not to: take it out") from None
        if not self.evaluators:
            raise InputError("got no evaluators; expected at least one: put one in the list")
        if not callable(main_score_function) or not _takes(main_score_function, []):
            raise ConfigError(
                f"got {shown(main_score_function)} as main_score_function; expected a function of a list of scores "
                f"that gives a number: pass one, such as max"
            )
        self.main_score_function = main_score_function

    def __call__(
        self,
        model: EmbeddingModel,
        output_path: str | Path | None = None,
        epoch: float = -1,
        steps: int = -1,
    ) -> dict[str, float]:
        """Evaluate `model`: metric names to values."""
        metrics: dict[str, float] = {}
        scores = []
        for evaluator in self.evaluators:
            result, score = metrics_of(evaluator, evaluator(model, output_path, epoch=epoch, steps=steps))
            scores.append(score)
            repeated = sorted(metrics.keys() & result.keys())
            if repeated:
                warn(f"several evaluators have the metric {repeated[0]}; only the last is kept: give them names")
            metrics |= result
        score = self.main_score_function(scores)
        named, name = {"sequential_score": score}, "main_score_function"
        main = numeric_metrics(named, got=shown(score), name=name, primary=None, expected="a number")
        self.log(main, epoch=epoch, steps=steps)
        return self.named(metrics | main, primary="sequential_score")


class FunctionEvaluator(Evaluator):
    """A function as an evaluator.

    The primary metric is the one that the function names in an attribute `primary_metric`, or else the first.

    Args:
        function: called with the model, or as evaluators are with output_path, epoch and steps too; returns a number or
            numbers by name. A number is called "score".

    Raises:
        ConfigError: it cannot be called so.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(write_csv=False)
        self.function = function
        self.description = getattr(function, "__name__", type(function).__name__).strip("<>")  # of <lambda>
        self._only_model = not _takes(function, None, None, epoch=-1, steps=-1)
        if self._only_model and not _takes(function, None):
            raise ConfigError(
                f"got the evaluator {self.description}, which cannot be called with a model alone; expected a function "
                f"of the model, or of model, output_path, epoch and steps: give the other arguments defaults"
            )

    def __call__(
        self,
        model: EmbeddingModel,
        output_path: str | Path | None = None,
        epoch: float = -1,
        steps: int = -1,
    ) -> dict[str, float]:
        """Evaluate `model`: metric names to values.

        Raises:
            ConfigError: the function returns something else than numbers.
        """
        given = () if self._only_model else (output_path,)
        position = {} if self._only_model else {"epoch": epoch, "steps": steps}
        result = self.function(model, *given, **position)
        named = result if isinstance(result, Mapping) else {"score": result}
        primary = getattr(self.function, "primary_metric", None)
        name, expected = f"the evaluator {self.description}", "a number or numbers by name"
        metrics = numeric_metrics(named, got=shown(result), name=name, primary=primary, expected=expected)
        self.log(metrics, epoch=epoch, steps=steps)
        return self.named(metrics, primary=primary or next(iter(metrics)))


def as_evaluator(value: Any) -> Evaluator:
    """Return an evaluator for an evaluator, any other callable, or a list of them.

    Raises:
        ConfigError: it cannot be called with a model, or its primary metric has no name.
    """
    primary = getattr(value, "primary_metric", None)
    if not isinstance(value, type) and primary is not None and not isinstance(primary, str):
        raise ConfigError(
            f"got {shown(primary)} as primary_metric of {type(value).__name__}; expected the name of a metric: fix it"
        )
    if isinstance(value, Evaluator):
        return value
    if hasattr(value, "primary_metric") and _takes(value, None, None, epoch=-1, steps=-1):
        evaluator: Evaluator = value  # one of another library, which has the same interface
        return evaluator
    if isinstance(value, (list, tuple)):
        return SequentialEvaluator(value)
    if isinstance(value, (type, EmbeddingModel)) or not callable(value):
        raise ConfigError(
            f"got {shown(value)} as evaluator; expected one, or a function of the model that gives a number or numbers "
            f"by name"
        )
    return FunctionEvaluator(value)


def metrics_of(evaluator: Evaluator, result: Any) -> tuple[dict[str, float], float]:
    """Return what an evaluator returned as floats by name, and the value of its primary metric.

    Raises:
        ConfigError: it is something else, or lacks the primary metric.
    """
    primary, called = getattr(evaluator, "primary_metric", None), getattr(evaluator, "number_called", None)
    if called is not None and not isinstance(result, Mapping):  # an evaluator that may return a single number
        result, primary = {called: result}, None
    metrics = numeric_metrics(result, name=type(evaluator).__name__, primary=primary)
    return metrics, metrics[next(iter(metrics)) if primary is None else primary]


def numeric_metrics(
    metrics: Any, *, name: str, primary: Any, got: str | None = None, expected: str = "numbers by name"
) -> dict[str, float]:
    """Convert the metrics of an evaluator, which may be numbers of any type, to floats by name.

    Args:
        metrics: what the evaluator returned.
        name: of the evaluator, for messages.
        primary: name of its primary metric, or None.
        got: what to show in a message; by default the metrics.
        expected: what to ask for.

    Raises:
        ConfigError: they are something else.
    """
    try:
        names, values = list(metrics.keys()), list(metrics.values())
        if any(isinstance(value, np.complexfloating) for value in values):  # which float() cuts to half
            raise TypeError
        result = {str(key): float(value) for key, value in zip(names, values, strict=True)}
    except (AttributeError, TypeError, ValueError, RuntimeError, OverflowError):
        names, result = [], {}
    if not result or (primary is not None and (not isinstance(primary, str) or primary not in result)):
        raise ConfigError(
            f"got {(shown(metrics) if got is None else got)[:200]} from {name}; expected {expected}"
            f"{f', with {shown(primary)} among them' if primary is not None else ''}: fix what it returns"
        )
    if len(result) < len(names):
        raise ConfigError(f"got metrics named {shown(names)} from {name}; expected each name once as text: rename one")
    return result


def _takes(function: Callable[..., Any], *given: Any, **named: Any) -> bool:
    try:
        inspect.signature(function).bind(*given, **named)
    except TypeError:
        return False
    except ValueError:  # a function of C that does not say
        return len(given) == 1
    return True


# ---- arguments of evaluators ----------------------------------------------------------------------------------------


def check_rows(**columns: Sequence[str]) -> list[list[str]]:
    """Return columns of texts as lists.

    Raises:
        InputTypeError: an entry is not a string.
        InputError: the columns are empty or differ in length.
    """
    lists = [check_texts(texts, what=name) for name, texts in columns.items()]
    sizes = {name: len(texts) for name, texts in zip(columns, lists, strict=True)}
    if len(set(sizes.values())) > 1:
        got = ", ".join(f"{size} {name}" for name, size in sizes.items())
        raise InputError(f"got {got}; expected the same number of each: pass one text of each for every row")
    if not len(lists[0]):
        raise InputError(f"got no {', '.join(columns)}; expected at least one of each: pass rows to evaluate on")
    return lists


def check_texts_by_id(texts: Mapping[Any, str], *, what: str) -> dict[Any, str]:
    """Return texts by their ids as a dictionary.

    Raises:
        InputTypeError: `texts` is no mapping, or an entry is not a string.
        InputError: `texts` is empty.
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


def similarity_functions(
    names: Sequence[str | SimilarityFunction] | None, *, main: SimilarityFunction | None = None, option: str = ""
) -> list[SimilarityFunction]:
    """Return the functions to evaluate, each once: those called `names`, or else `main` alone.

    Args:
        names: of the functions.
        main: the function of the primary metric.
        option: name of the argument that `main` comes from, for messages.

    Raises:
        InputTypeError: `names` is a single name.
        ConfigError: a function is unknown, or `main` is not evaluated.
    """
    if isinstance(names, str):
        raise InputTypeError(f"got {names!r} as similarity functions; expected several: put the name in a list")
    functions = list(dict.fromkeys(SimilarityFunction.of(name) for name in names or ()))
    if main is None or main in functions:
        return functions
    if functions:
        evaluated = ", ".join(function.value for function in functions)
        raise ConfigError(f"got {option}={main.value!r}; expected one that is evaluated: {evaluated}")
    return [main]


def functions_of(model: EmbeddingModel, chosen: list[SimilarityFunction]) -> list[SimilarityFunction]:
    """Return the chosen functions, or else the model's own."""
    return chosen or [SimilarityFunction.of(model.similarity_fn_name)]


def primary_function(functions: Sequence[SimilarityFunction], main: SimilarityFunction | None = None) -> str:
    """Name of the function of the primary metric: the main one, or the only one, or "max"."""
    if main is not None:
        return main.value
    return "max" if len(functions) > 1 else functions[0].value


def cannot_write(path: Path, error: OSError) -> InputError:
    """Make the error for a file that cannot be written."""
    return InputError(f"cannot write {path} ({error.strerror}); expected a folder that can be written to")
