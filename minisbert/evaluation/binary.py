"""How well a threshold on similarities tells pairs that belong together from pairs that do not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..similarity import SimilarityFunction
from .base import Evaluator, check_rows, functions_of, similarity_functions
from .metrics import Cuts, average_precision, matthews_correlation

if TYPE_CHECKING:
    from ..model import EmbeddingModel

_COLUMNS = ("accuracy", "accuracy_threshold", "f1", "precision", "recall", "f1_threshold", "ap", "mcc")
_DISTANCES = (SimilarityFunction.EUCLIDEAN, SimilarityFunction.MANHATTAN)


class BinaryClassificationEvaluator(Evaluator):
    """Accuracy, F1, average precision and Matthews correlation of telling pairs apart by their similarity.

    Metrics for each similarity function, with its name and "_" before them: accuracy at its best threshold; F1 at its
    own, with precision and recall there; both thresholds; average precision; Matthews correlation at the threshold of
    F1. With several functions also `max_<metric>`. The primary metric is average precision, or the largest.
    Thresholds of euclidean and manhattan are distances: a pair belongs together up to it.

    Args:
        sentences1: first text of each pair.
        sentences2: second text of each pair.
        labels: 1 for each pair that belongs together, 0 for the others.
        name: put before metric names and into the file name.
        batch_size: most texts in one forward pass; by default only tokens are bounded.
        show_progress_bar: show one on a terminal.
        write_csv: append to a CSV file where an output path is given.
        truncate_dim: evaluate only the leading dimensions.
        similarity_fn_names: functions to evaluate; by default the model's own.

    Raises:
        InputError: the lists differ in length, a label is not 0 or 1, or all are the same.
        ConfigError: an unknown function.
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
        super().__init__(
            name,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            write_csv=write_csv,
            truncate_dim=truncate_dim,
        )
        self.sentences1, self.sentences2 = check_rows(sentences1=sentences1, sentences2=sentences2)
        self.labels = _checked_labels(labels, len(self.sentences1))
        self.similarity_fn_names = similarity_functions(similarity_fn_names)
        self.csv_file = f"binary_classification_evaluation{'_' + name if name else ''}_results.csv"

    def __call__(
        self,
        model: EmbeddingModel,
        output_path: str | Path | None = None,
        epoch: float = -1,
        steps: int = -1,
    ) -> dict[str, float]:
        """Evaluate `model`: metric names, with the evaluator's name before them, to values."""
        first, second = self._encode(model)
        functions = functions_of(model, self.similarity_fn_names)
        results = {
            function.value: _measured(
                function.pairwise(first, second).numpy(), self.labels, distance=function in _DISTANCES
            )
            for function in functions
        }
        columns = {f"{name}_{metric}": result[metric] for name, result in results.items() for metric in _COLUMNS}
        self.write_row(output_path, columns, epoch=epoch, steps=steps)
        if len(functions) > 1:
            names = next(iter(results.values()))
            results["max"] = {metric: max(result[metric] for result in results.values()) for metric in names}
        metrics = {
            f"{name}_{metric}": float(value) for name, result in results.items() for metric, value in result.items()
        }
        return self.named(metrics, primary="max_ap" if len(functions) > 1 else f"{functions[0].value}_ap")

    def _encode(self, model: EmbeddingModel) -> tuple[NDArray[Any], NDArray[Any]]:
        """Embeddings of both sides; a text that occurs several times is encoded once."""
        rows = {text: row for row, text in enumerate(dict.fromkeys([*self.sentences1, *self.sentences2]))}
        embeddings = model.encode(
            list(rows),
            batch_size=self.batch_size,
            show_progress_bar=self.show_progress_bar,
            truncate_dim=self.truncate_dim,
        )
        return embeddings[[rows[text] for text in self.sentences1]], embeddings[
            [rows[text] for text in self.sentences2]
        ]


def _measured(similarities: NDArray[Any], labels: NDArray[np.bool_], *, distance: bool) -> dict[str, Any]:
    """All metrics of one function; thresholds keep the number type of the similarities."""
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
        raise InputError(f"got {rows} pairs and {len(labels)} labels; expected as many: pass one label for each pair")
    for row, label in enumerate(labels):
        if not isinstance(label, (int, float, np.number, np.bool_)) or label not in (0, 1):
            raise InputError(f"labels[{row}] is {label!r}; expected 0 or 1: mend the label")
    values = np.asarray(labels).astype(bool)
    if values.all() or not values.any():
        raise InputError(f"got only the label {int(values[0])}; expected pairs of both labels, 0 and 1: add the others")
    return values
