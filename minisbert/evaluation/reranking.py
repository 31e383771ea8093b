"""Reranking: are the relevant documents of a query ranked before its other documents?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, InputTypeError, check_count
from ..search import ScoreFunction
from ..similarity import cos_sim
from ..text import check_texts
from .evaluator import Measurement, TaskEvaluator
from .metrics import Cuts, average_precision, mean, ndcg, reciprocal_rank

if TYPE_CHECKING:
    from ..model import EmbeddingModel


@dataclass(frozen=True)
class Sample:
    """A query with documents.

    Attributes:
        query: the query.
        positive: relevant documents.
        negative: other documents.
    """

    query: str
    positive: list[str]
    negative: list[str]


class RerankingEvaluator(TaskEvaluator):
    """Mean average precision, reciprocal rank and nDCG of the documents given for each query.

    Metrics `map`, `mrr@<at_k>` and `ndcg@<at_k>`, the primary one. Documents with equal scores share their ranks for
    `map` and `ndcg`; for `mrr` the positives come first. Queries without a positive or without a negative are left
    out.

    Args:
        samples: {"query": text, "positive": texts, "negative": texts} for each query; a single text counts as a list
            of one. Also a dict with such values.
        at_k: number of first ranks that count for MRR and nDCG.
        name: put before metric names and into the file name.
        write_csv: append to a CSV file where an output path is given.
        similarity_fct: (n, d) and (m, d) tensors to (n, m) scores.
        batch_size: most texts in one forward pass; by default only the number of tokens is limited.
        show_progress_bar: show one on a terminal.
        use_batched_encoding: encode the documents of all queries at the same time; if False, query by query, which
            takes less memory and more time.
        truncate_dim: evaluate only the leading dimensions.

    Raises:
        InputError: a sample lacks a key, or none has both positives and negatives.
        InputTypeError: a text is not a string.
        ConfigError: `at_k` is below 1.
    """

    description = "Reranking"

    def __init__(
        self,
        samples: Iterable[Mapping[str, Any]] | Mapping[Any, Mapping[str, Any]],
        *,
        at_k: int = 10,
        name: str = "",
        write_csv: bool = True,
        similarity_fct: ScoreFunction = cos_sim,
        batch_size: int | None = None,
        show_progress_bar: bool = False,
        use_batched_encoding: bool = True,
        truncate_dim: int | None = None,
    ) -> None:
        super().__init__(name, batch_size, show_progress_bar, write_csv, truncate_dim)
        rows = samples.values() if isinstance(samples, Mapping) else samples
        known = [_checked(row, number) for number, row in enumerate(rows)]
        self.samples = [sample for sample in known if sample.positive and sample.negative]
        if not self.samples:
            raise InputError(
                f"got {len(known)} samples, none with both positives and negatives; expected at least one: add some"
            )
        check_count(at_k, "at_k")
        self.at_k = at_k
        self.similarity_fct = similarity_fct
        self.use_batched_encoding = use_batched_encoding
        self.csv_file = self.file_name("RerankingEvaluator", f"_results_@{at_k}.csv")

    def measure(self, model: EmbeddingModel) -> Measurement:
        """Compute the metrics of `model`: means over the queries."""
        groups = [self.samples] if self.use_batched_encoding else [[sample] for sample in self.samples]
        columns = zip(*(values for group in groups for values in self._measure(model, group)), strict=True)
        names = ("map", f"mrr@{self.at_k}", f"ndcg@{self.at_k}")
        metrics = {name: mean(values) for name, values in zip(names, columns, strict=True)}
        return Measurement(metrics, names[-1], {name.upper(): value for name, value in metrics.items()})

    def get_config_dict(self) -> dict[str, Any]:
        """Settings for the model card: `at_k`, and `truncate_dim` if it is given."""
        return {"at_k": self.at_k, **super().get_config_dict()}

    def _measure(self, model: EmbeddingModel, samples: Sequence[Sample]) -> list[tuple[float, float, float]]:
        """Compute average precision, reciprocal rank and nDCG of each sample."""
        options = {
            "show_progress_bar": self.show_progress_bar and self.use_batched_encoding,
            "convert_to_tensor": True,
        }
        queries = self.embed(model.encode_query, [sample.query for sample in samples], **options)
        texts = [text for sample in samples for text in (*sample.positive, *sample.negative)]
        documents = self.embed(model.encode_document, texts, **options)
        results, start = [], 0
        for row, sample in enumerate(samples):
            count = len(sample.positive) + len(sample.negative)
            scores = self.similarity_fct(queries[row : row + 1], documents[start : start + count])
            start += count
            if scores.shape != (1, count):
                raise InputError(
                    f"got scores of shape {tuple(scores.shape)} for 1 query and {count} documents; expected a number "
                    f"for each pair: pass cos_sim, dot_score or a function like them"
                )
            values = scores[0].cpu().numpy().astype(np.float64)
            relevant = np.arange(count) < len(sample.positive)
            precision = average_precision(Cuts.of(values, relevant))
            rank = reciprocal_rank(relevant[np.argsort(-values, kind="stable")], self.at_k)
            results.append((precision, rank, ndcg(values, relevant, self.at_k)))
        return results


def _checked(row: Mapping[str, Any], number: int) -> Sample:
    if not isinstance(row, Mapping) or not {"query", "positive", "negative"} <= row.keys():
        got = f"the keys {list(row)}" if isinstance(row, Mapping) else type(row).__name__
        raise InputError(f"samples[{number}] has {got}; expected query, positive and negative: fix the sample")
    if not isinstance(row["query"], str):
        raise InputTypeError(
            f"samples[{number}]['query'] is of type {type(row['query']).__name__}; expected a string: fix the sample"
        )
    lists = [
        check_texts([row[key]] if isinstance(row[key], str) else row[key], what=f"samples[{number}][{key!r}]")
        for key in ("positive", "negative")
    ]
    return Sample(row["query"], *lists)
