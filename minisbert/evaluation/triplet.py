"""How often an anchor is closer to its positive than to its negative."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..similarity import SimilarityFunction
from .base import Evaluator, check_rows, functions_of, similarity_functions, with_main

if TYPE_CHECKING:
    from ..model import EmbeddingModel

_FUNCTIONS = ("cosine", "dot", "manhattan", "euclidean")


class TripletEvaluator(Evaluator):
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
        batch_size: most texts in one forward pass; by default only tokens are bounded.
        show_progress_bar: show one on a terminal.
        write_csv: append to a CSV file where an output path is given.
        truncate_dim: evaluate only the leading dimensions.
        similarity_fn_names: functions to evaluate; by default the model's own.

    Raises:
        InputError: the lists differ in length or are empty.
        ConfigError: an unknown function, or a margin that is no number.
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
        super().__init__(
            name,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            write_csv=write_csv,
            truncate_dim=truncate_dim,
        )
        self.anchors, self.positives, self.negatives = check_rows(
            anchors=anchors, positives=positives, negatives=negatives
        )
        main = SimilarityFunction.of(main_similarity_function) if main_similarity_function else None
        chosen = similarity_functions(similarity_fn_names)
        self.similarity_fn_names = with_main(chosen, main, option="main_similarity_function")
        self.main_similarity_function = main
        self.margin = _margins(margin)
        self.csv_file = f"triplet_evaluation{'_' + name if name else ''}_results.csv"

    def __call__(
        self,
        model: EmbeddingModel,
        output_path: str | Path | None = None,
        epoch: float = -1,
        steps: int = -1,
    ) -> dict[str, float]:
        """Evaluate `model`: metric names, with the evaluator's name before them, to values."""
        options: dict[str, Any] = {
            "batch_size": self.batch_size,
            "show_progress_bar": self.show_progress_bar,
            "truncate_dim": self.truncate_dim,
        }
        anchors = model.encode_query(self.anchors, **options)
        others = model.encode_document([*self.positives, *self.negatives], **options)
        positives, negatives = others[: len(anchors)], others[len(anchors) :]
        functions = functions_of(model, self.similarity_fn_names)
        metrics = {}
        for function in functions:
            limit = function.pairwise(anchors, negatives) + self.margin[function.value]
            closer = function.pairwise(anchors, positives) > limit
            metrics[f"{function.value}_accuracy"] = closer.float().mean().item()
        columns = {f"accuracy_{function.value}": metrics[f"{function.value}_accuracy"] for function in functions}
        self.write_row(output_path, columns, epoch=epoch, steps=steps)
        if len(functions) > 1:
            metrics["max_accuracy"] = max(metrics.values())
        if self.main_similarity_function is not None:
            primary = f"{self.main_similarity_function.value}_accuracy"
        else:
            primary = "max_accuracy" if len(functions) > 1 else f"{functions[0].value}_accuracy"
        return self.named(metrics, primary=primary)

    def get_config_dict(self) -> dict[str, Any]:
        """`margin` by function unless all are 0, and `truncate_dim` where it is given."""
        config: dict[str, Any] = {"margin": self.margin} if any(self.margin.values()) else {}
        return {**config, **super().get_config_dict()}


def _margins(margin: float | Mapping[str, float] | None) -> dict[str, float]:
    """A margin for each function."""
    given = margin if isinstance(margin, Mapping) else dict.fromkeys(_FUNCTIONS, 0 if margin is None else margin)
    for name, value in given.items():
        if name not in _FUNCTIONS:
            raise ConfigError(f"got a margin for {name!r}; expected one for {', '.join(_FUNCTIONS)}: mend the name")
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ConfigError(f"got margin {value!r}; expected a finite number, or one for each function by name")
    return {name: given.get(name, 0) for name in _FUNCTIONS}
