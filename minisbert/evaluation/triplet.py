"""Accuracy of triplets: is the anchor closer to the positive than to the negative?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..similarity import SimilarityFunction
from .evaluator import Measurement, TaskEvaluator, check_rows, functions_of, primary_function, similarity_functions

if TYPE_CHECKING:
    from ..model import EmbeddingModel

_FUNCTIONS = ("cosine", "dot", "manhattan", "euclidean")


class TripletEvaluator(TaskEvaluator):
    """Share of triplets whose anchor is more similar to the positive than to the negative.

    Metrics `<function>_accuracy` for each similarity function, and with several functions `max_accuracy`. The primary
    metric is that of the main similarity function, or the largest. Anchors are encoded as queries, the other texts
    as documents.

    Args:
        anchors: first text of each triplet.
        positives: the text that should be closer.
        negatives: the text that should be farther.
        main_similarity_function: the function whose accuracy is the primary metric.
        margin: by how much closer; a number, or one for each function by name.
        name: put before metric names and into the file name.
        batch_size: most texts in one forward pass; by default only the number of tokens is limited.
        show_progress_bar: show one on a terminal.
        write_csv: append to a CSV file where an output path is given.
        truncate_dim: evaluate only the leading dimensions.
        similarity_fn_names: functions to evaluate; by default the model's own.

    Raises:
        InputError: the lists differ in length or are empty.
        ConfigError: a function is unknown, or a margin is not a finite number.
    """

    description = "Triplet"

    def __init__(
        self,
        anchors: Sequence[str],
        positives: Sequence[str],
        negatives: Sequence[str],
        *,
        main_similarity_function: str | SimilarityFunction | None = None,
        margin: float | Mapping[str, float] | None = None,
        name: str = "",
        batch_size: int | None = None,
        show_progress_bar: bool = False,
        write_csv: bool = True,
        truncate_dim: int | None = None,
        similarity_fn_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(name, batch_size, show_progress_bar, write_csv, truncate_dim)
        self.anchors, self.positives, self.negatives = check_rows(
            anchors=anchors, positives=positives, negatives=negatives
        )
        main = SimilarityFunction.of(main_similarity_function) if main_similarity_function else None
        self.similarity_fn_names = similarity_functions(
            similarity_fn_names, main=main, option="main_similarity_function"
        )
        self.main_similarity_function = main
        self.margin = _margins(margin)
        self.csv_file = self.file_name("triplet_evaluation")

    def measure(self, model: EmbeddingModel) -> Measurement:
        """Compute the accuracies of `model`."""
        anchors = self.embed(model.encode_query, self.anchors)
        others = self.embed(model.encode_document, [*self.positives, *self.negatives])
        positives, negatives = others[: len(anchors)], others[len(anchors) :]
        functions = functions_of(model, self.similarity_fn_names)
        accuracies: dict[str, float] = {}
        for function in functions:
            limit = function.pairwise(anchors, negatives) + self.margin[function.value]
            closer = function.pairwise(anchors, positives) > limit
            accuracies[function.value] = closer.float().mean().item()
        row = {f"accuracy_{name}": value for name, value in accuracies.items()}
        if len(functions) > 1:
            accuracies["max"] = max(accuracies.values())
        metrics = {f"{name}_accuracy": value for name, value in accuracies.items()}
        return Measurement(metrics, f"{primary_function(functions, self.main_similarity_function)}_accuracy", row)

    def get_config_dict(self) -> dict[str, Any]:
        """Settings for the model card: `margin` by function unless all are 0, and `truncate_dim` if it is given."""
        config: dict[str, Any] = {"margin": self.margin} if any(self.margin.values()) else {}
        return {**config, **super().get_config_dict()}


def _margins(margin: float | Mapping[str, float] | None) -> dict[str, float]:
    """Return a margin for each function."""
    margins = margin if isinstance(margin, Mapping) else dict.fromkeys(_FUNCTIONS, 0 if margin is None else margin)
    for name, value in margins.items():
        if name not in _FUNCTIONS:
            raise ConfigError(f"got a margin for {name!r}; expected one for {', '.join(_FUNCTIONS)}: fix the name")
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ConfigError(f"got margin={value!r}; expected a finite number, or one for each function by name")
    return {name: margins.get(name, 0) for name in _FUNCTIONS}
