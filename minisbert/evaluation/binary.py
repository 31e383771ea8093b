"""Classification of pairs of texts by a threshold on their similarity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..similarity import SimilarityFunction
from .evaluator import Measurement, TaskEvaluator, check_rows, functions_of, primary_function, similarity_functions
from .metrics import Cuts, average_precision, matthews_correlation

if TYPE_CHECKING:
    from ..model import EmbeddingModel

_COLUMNS = ("accuracy", "accuracy_threshold", "f1", "precision", "recall", "f1_threshold", "ap", "mcc")
_DISTANCES = (SimilarityFunction.EUCLIDEAN, SimilarityFunction.MANHATTAN)


class BinaryClassificationEvaluator(TaskEvaluator):
    """Accuracy, F1, average precision and Matthews correlation of classifying pairs by their similarity.

    Metrics for each similarity function, with its name and "_" before them: accuracy at its best threshold; F1 at its
    own, with precision and recall there; both thresholds; average precision; Matthews correlation at the threshold of
    F1. With several functions also `max_<metric>`. The primary metric is average precision, or the largest.
    Thresholds of euclidean and manhattan are distances: a pair is positive up to them.

    Args:
        sentences1: first text of each pair.
        sentences2: second text of each pair.
        labels: 1 for each positive pair, 0 for the others.
        name: put before metric names and into the file name.
        batch_size: most texts in one forward pass; by default only the number of tokens is limited.
        show_progress_bar: show one on a terminal.
        write_csv: append to a CSV file where an output path is given.
        truncate_dim: evaluate only the leading dimensions.
        similarity_fn_names: functions to evaluate; by default the model's own.

    Raises:
        InputError: the lists differ in length, a label is not 0 or 1, or all labels are the same.
        ConfigError: a function is unknown.
    """

    description = "Binary Classification"

    def __init__(
        self,
        sentences1: Sequence[str],
        sentences2: Sequence[str],
        labels: Sequence[int],
        *,
        name: str = "",
        batch_size: int | None = None,
        show_progress_bar: bool = False,
        write_csv: bool = True,
        truncate_dim: int | None = None,
        similarity_fn_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(name, batch_size, show_progress_bar, write_csv, truncate_dim)
        self.sentences1, self.sentences2 = check_rows(sentences1=sentences1, sentences2=sentences2)
        self.labels = _checked_labels(labels, len(self.sentences1))
        self.similarity_fn_names = similarity_functions(similarity_fn_names)
        self.csv_file = self.file_name("binary_classification_evaluation")

    def measure(self, model: EmbeddingModel) -> Measurement:
        """Compute the metrics of `model`; a text that occurs several times is encoded once."""
        rows = {text: row for row, text in enumerate(dict.fromkeys([*self.sentences1, *self.sentences2]))}
        embeddings = self.embed(model.encode, list(rows))
        first, second = (embeddings[[rows[text] for text in side]] for side in (self.sentences1, self.sentences2))
        functions = functions_of(model, self.similarity_fn_names)
        results: dict[str, dict[str, Any]] = {}
        for function in functions:
            similarities = function.pairwise(first, second).numpy()
            results[function.value] = _measure(similarities, self.labels, distance=function in _DISTANCES)
        row = {f"{name}_{metric}": result[metric] for name, result in results.items() for metric in _COLUMNS}
        if len(functions) > 1:
            names = results[functions[0].value]
            results["max"] = {metric: max(result[metric] for result in results.values()) for metric in names}
        metrics = {
            f"{name}_{metric}": float(value) for name, result in results.items() for metric, value in result.items()
        }
        return Measurement(metrics, f"{primary_function(functions)}_ap", row)


def _measure(similarities: NDArray[Any], labels: NDArray[np.bool_], *, distance: bool) -> dict[str, Any]:
    """Compute all metrics of one function; thresholds keep the dtype of the similarities."""
    cuts = Cuts.of(similarities, labels)
    rows, total = len(labels), int(labels.sum())
    # Also with no pair above the threshold, which is then just beyond the best score.
    correct = np.append(rows - total, cuts.relevant + (rows - total) - (cuts.taken - cuts.relevant))
    best = int(correct.argmax())
    beyond = np.nextafter(cuts.scores[0], np.inf, dtype=cuts.scores.dtype)
    accuracy_threshold = cuts.threshold(best - 1) if best else beyond
    f1 = cuts.f1(total)
    cut = int(f1.argmax())
    sign = -1 if distance else 1
    return {
        "accuracy": float(correct[best] / rows),
        "accuracy_threshold": sign * accuracy_threshold,
        "f1": float(f1[cut]),
        "f1_threshold": sign * cuts.threshold(cut),
        "precision": float(cuts.precision()[cut]),
        "recall": float(cuts.relevant[cut] / total),
        "ap": average_precision(cuts),
        "mcc": matthews_correlation(cuts, cut),
    }


def _checked_labels(labels: Sequence[int], rows: int) -> NDArray[np.bool_]:
    if len(labels) != rows:
        raise InputError(
            f"got {rows} pairs and {len(labels)} labels; expected one label for each pair: add or drop some"
        )
    for row, label in enumerate(labels):
        if not isinstance(label, (int, float, np.number, np.bool_)) or label not in (0, 1):
            raise InputError(f"labels[{row}] is {label!r}; expected 0 or 1: fix the label")
    values = np.asarray(labels).astype(bool)
    if values.all() or not values.any():
        raise InputError(f"got only the label {int(values[0])}; expected pairs of both labels, 0 and 1: add the others")
    return values
