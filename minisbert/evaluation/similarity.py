"""Correlation of the similarities of embeddings with human scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, InputError, warn
from ..similarity import PRECISIONS, Precision, SimilarityFunction
from ..text import check_texts
from .evaluator import Measurement, TaskEvaluator, functions_of, primary_function, similarity_functions

if TYPE_CHECKING:
    from ..model import EmbeddingModel


class EmbeddingSimilarityEvaluator(TaskEvaluator):
    """Pearson and Spearman correlation of the similarity of two texts with a score.

    Metrics `pearson_<function>` and `spearman_<function>` for each similarity function, and with several functions
    `pearson_max` and `spearman_max`. The primary metric is Spearman of the main similarity, or the largest.

    Args:
        sentences1: first text of each pair.
        sentences2: second text of each pair.
        scores: a number for each pair, on any scale.
        batch_size: most texts in one forward pass; by default only the number of tokens is limited.
        main_similarity: the function whose Spearman is the primary metric.
        similarity_fn_names: functions to evaluate; by default the model's own.
        name: put before metric names and into the file name.
        show_progress_bar: show one on a terminal.
        write_csv: append to a CSV file where an output path is given.
        precision: evaluate embeddings of this precision, normalized.
        truncate_dim: evaluate only the leading dimensions.

    Raises:
        InputError: the three lists differ in length, hold fewer than two rows, or a score is not a finite number.
        ConfigError: a function or precision is unknown.
    """

    description = "Semantic Similarity"

    def __init__(
        self,
        sentences1: Sequence[str],
        sentences2: Sequence[str],
        scores: Sequence[float],
        *,
        batch_size: int | None = None,
        main_similarity: str | SimilarityFunction | None = None,
        similarity_fn_names: Sequence[str] | None = None,
        name: str = "",
        show_progress_bar: bool = False,
        write_csv: bool = True,
        precision: Precision | None = None,
        truncate_dim: int | None = None,
    ) -> None:
        super().__init__(name, batch_size, show_progress_bar, write_csv, truncate_dim)
        self.sentences1 = check_texts(sentences1, what="sentences1")
        self.sentences2 = check_texts(sentences2, what="sentences2")
        self.scores = _checked_scores(scores, len(self.sentences1), len(self.sentences2))
        if not np.ptp(self.scores):
            warn(
                f"all {len(self.scores)} scores are {self.scores[0]:g}; expected different ones: a correlation with "
                f"them is not defined, and every metric is NaN"
            )
        main = SimilarityFunction.of(main_similarity) if main_similarity else None
        self.similarity_fn_names = similarity_functions(similarity_fn_names, main=main, option="main_similarity")
        self.main_similarity = main
        if precision is not None and precision not in PRECISIONS:
            raise ConfigError(f"got precision={precision!r}; expected {', '.join(PRECISIONS)}")
        self.precision = precision
        postfix = f"_{precision}" if precision else ""
        self.csv_file = self.file_name("similarity_evaluation", f"{postfix}_results.csv")

    def measure(self, model: EmbeddingModel) -> Measurement:
        """Compute the correlations of `model`."""
        from scipy.stats import pearsonr, spearmanr

        embeddings = self._embeddings(model)
        first, second = embeddings[: len(self.scores)], embeddings[len(self.scores) :]
        functions = functions_of(model, self.similarity_fn_names)
        kinds: dict[str, Callable[..., Any]] = {"pearson": pearsonr, "spearman": spearmanr}
        metrics: dict[str, float] = {}
        for function in functions:
            similarities = function.pairwise(first, second).numpy()
            constant = not np.ptp(similarities) or not np.ptp(self.scores)  # a correlation is not defined then
            for kind, correlation in kinds.items():
                value = float("nan") if constant else float(correlation(self.scores, similarities)[0])
                metrics[f"{kind}_{function.value}"] = value
        names = [function.value for function in functions]
        row = {f"{name}_{kind}": metrics[f"{kind}_{name}"] for name in names for kind in kinds}
        if len(functions) > 1:
            metrics |= {f"{kind}_max": max(metrics[f"{kind}_{name}"] for name in names) for kind in kinds}
        return Measurement(metrics, f"spearman_{primary_function(functions, self.main_similarity)}", row)

    def get_config_dict(self) -> dict[str, Any]:
        """Settings for the model card: `truncate_dim` and `precision`, if they are given."""
        config = super().get_config_dict()
        return config if self.precision is None else {**config, "precision": self.precision}

    def _embeddings(self, model: EmbeddingModel) -> NDArray[np.float32]:
        """Embed the first texts and then the second ones: (2 * pairs, dim)."""
        embeddings: NDArray[Any] = self.embed(
            model.encode,
            [*self.sentences1, *self.sentences2],
            normalize_embeddings=self.precision is not None,
            precision=self.precision or "float32",
        )
        if self.precision == "binary":
            embeddings = (embeddings.astype(np.int16) + 128).astype(np.uint8)
        if self.precision in ("binary", "ubinary"):  # compare the bits, not the bytes they are packed in
            embeddings = np.unpackbits(embeddings, axis=-1)
        return embeddings.astype(np.float32)


def _checked_scores(scores: Sequence[float], first: int, second: int) -> NDArray[np.float64]:
    if not len(scores) == first == second:
        raise InputError(f"got {first} and {second} sentences and {len(scores)} scores; expected one of each per pair")
    if first < 2:
        raise InputError(f"got {first} pair(s); expected at least 2, for a correlation: add pairs")
    values = np.empty(first)
    for row, score in enumerate(scores):
        try:
            values[row] = float(score)
        except (TypeError, ValueError, OverflowError):
            values[row] = np.nan
        if not np.isfinite(values[row]):
            raise InputError(f"scores[{row}] is {score!r}; expected a finite number: fix the score or drop the pair")
    return values
