"""Paraphrase mining: average precision of the most similar pairs among many texts."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from itertools import chain, combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, InputTypeError, check_count, shown
from ..search import paraphrase_mining
from .evaluator import Measurement, TaskEvaluator, check_texts_by_id
from .metrics import Cuts

if TYPE_CHECKING:
    from ..model import EmbeddingModel


class ParaphraseMiningEvaluator(TaskEvaluator):
    """Average precision of the most similar pairs among texts, and their best F1.

    Metrics `average_precision`, the primary one; `f1` at the best threshold, with `precision` and `recall` there; and
    that `threshold`. Paraphrases that are not among the mined pairs count as missed.

    Args:
        sentences_map: texts by id.
        duplicates_list: pairs of ids of paraphrases.
        duplicates_dict: the same as {id: {id: True}}; one direction is enough.
        add_transitive_closure: count paraphrases of the same text as paraphrases of each other.
        query_chunk_size: as in `paraphrase_mining`, like the three arguments below.
        corpus_chunk_size: see there.
        max_pairs: see there.
        top_k: see there.
        show_progress_bar: show one on a terminal.
        batch_size: most texts in one forward pass; by default only the number of tokens is limited.
        name: put before metric names and into the file name.
        write_csv: append to a CSV file where an output path is given.
        truncate_dim: evaluate only the leading dimensions.

    Raises:
        InputError: there are no paraphrases, or one has an unknown id.
        InputTypeError: a text is not a string.
        ConfigError: a size, `max_pairs` or `top_k` is below 1.
    """

    description = "Paraphrase Mining"

    def __init__(
        self,
        sentences_map: Mapping[Any, str],
        duplicates_list: Iterable[tuple[Any, Any]] | None = None,
        duplicates_dict: Mapping[Any, Mapping[Any, bool]] | None = None,
        *,
        add_transitive_closure: bool = False,
        query_chunk_size: int = 5_000,
        corpus_chunk_size: int = 100_000,
        max_pairs: int = 500_000,
        top_k: int = 100,
        show_progress_bar: bool = False,
        batch_size: int | None = None,
        name: str = "",
        write_csv: bool = True,
        truncate_dim: int | None = None,
    ) -> None:
        super().__init__(name, batch_size, show_progress_bar, write_csv, truncate_dim)
        texts = check_texts_by_id(sentences_map, what="sentences_map")
        self.ids, self.sentences = list(texts), list(texts.values())
        pairs = list(_checked(duplicates_list or (), "duplicates_list", Iterable, "pairs of ids"))
        for first, others in _checked(duplicates_dict or {}, "duplicates_dict", Mapping, "{id: True} by id").items():
            same = _checked(others, f"duplicates_dict[{first!r}]", Mapping, "True by id")
            pairs += [(first, second) for second, value in same.items() if value]
        self.duplicates = _row_pairs(pairs, {key: row for row, key in enumerate(self.ids)})
        if add_transitive_closure:
            self.duplicates = _transitive_closure(self.duplicates)
        if not self.duplicates:
            raise InputError(
                "got no duplicates; expected at least one pair of ids to find: pass duplicates_list or duplicates_dict"
            )
        check_count(query_chunk_size, "query_chunk_size")
        check_count(corpus_chunk_size, "corpus_chunk_size")
        check_count(max_pairs, "max_pairs")
        check_count(top_k, "top_k")
        self.add_transitive_closure = add_transitive_closure
        self.query_chunk_size = query_chunk_size
        self.corpus_chunk_size = corpus_chunk_size
        self.max_pairs = max_pairs
        self.top_k = top_k
        self.csv_file = self.file_name("paraphrase_mining_evaluation")

    def measure(self, model: EmbeddingModel) -> Measurement:
        """Compute the metrics of `model`."""
        pairs = paraphrase_mining(
            model,
            self.sentences,
            show_progress_bar=self.show_progress_bar,
            batch_size=self.batch_size,
            query_chunk_size=self.query_chunk_size,
            corpus_chunk_size=self.corpus_chunk_size,
            max_pairs=self.max_pairs,
            top_k=self.top_k,
            truncate_dim=self.truncate_dim,
        )
        total = len(self.duplicates)
        same = [(first, second) in self.duplicates for _, first, second in pairs]
        cuts = Cuts.of(np.array([score for score, _, _ in pairs]), np.array(same))
        f1, precision = cuts.f1(total), cuts.precision()
        best = int(f1.argmax())
        hits = np.diff(cuts.relevant, prepend=0)
        metrics = {
            "average_precision": float((precision * hits).cumsum()[-1] / total),
            "f1": float(f1[best]),
            "precision": float(precision[best]),
            "recall": float(cuts.relevant[best] / total),
            "threshold": float(cuts.threshold(best)) if f1[best] else 0.0,
        }
        columns = ("precision", "recall", "f1", "threshold", "average_precision")
        return Measurement(metrics, "average_precision", {column: metrics[column] for column in columns})

    def get_config_dict(self) -> dict[str, Any]:
        """Settings for the model card: how pairs are mined, and `truncate_dim` if it is given."""
        return {
            "add_transitive_closure": self.add_transitive_closure,
            "max_pairs": self.max_pairs,
            "top_k": self.top_k,
            **super().get_config_dict(),
        }


def _checked(value: Any, name: str, kind: type, of: str) -> Any:
    if not isinstance(value, kind) or isinstance(value, str):
        raise InputTypeError(f"got {name}={shown(value)}; expected {of}: see ParaphraseMiningEvaluator")
    return value


def _row_pairs(pairs: Iterable[tuple[Hashable, Hashable]], rows: Mapping[Any, int]) -> set[tuple[int, int]]:
    """Convert pairs of ids to pairs of rows, the lower row first."""
    result = set()
    for pair in pairs:
        found = hasattr(pair, "__getitem__") and not isinstance(pair, (str, Mapping))
        if not found or len(pair) != 2 or pair[0] == pair[1]:
            raise InputError(f"got the duplicates {pair!r}; expected two different ids: drop the pair")
        for key in pair:
            if not isinstance(key, Hashable) or key not in rows:
                raise InputError(
                    f"got the duplicates {pair!r}, and {key!r} is not in sentences_map; expected ids of sentences: "
                    f"drop the pair or add the sentence"
                )
        first, second = sorted(rows[key] for key in pair)
        result.add((first, second))
    return result


def _transitive_closure(pairs: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """All pairs of rows that are connected by a chain of pairs."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = np.array(sorted(pairs), np.int64).reshape(-1, 2)
    rows, ends = np.unique(edges, return_inverse=True)
    places = tuple(ends.astype(np.int32) for ends in ends.reshape(-1, 2).T)  # SciPy 1.11 reads no longer ones aright
    graph = coo_array((np.ones(len(edges), np.int8), places), shape=(len(rows), len(rows)))
    _, labels = connected_components(graph, directed=False)
    groups = (rows[labels == label].tolist() for label in np.unique(labels))
    return set(chain.from_iterable(combinations(group, 2) for group in groups))
