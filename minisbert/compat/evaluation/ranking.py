"""Evaluators of reranking and of paraphrase mining, with the reference's interface."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from ... import evaluation
from ...errors import InputError, InputTypeError, shown, warn
from ...evaluation.evaluator import Measurement
from ...search import ScoreFunction
from ...similarity import cos_sim
from ..checks import check_function, check_list, check_mapping
from .base import EmbeddedBy, TaskEvaluator, logger


class RerankingEvaluator(TaskEvaluator):
    """Mean average precision, reciprocal rank and nDCG of given documents.

    See `minisbert.evaluation.RerankingEvaluator`. `mrr_at_k` is the old name of `at_k`.
    """

    def __init__(
        self,
        samples: list[dict[str, str | list[str]]],
        at_k: int = 10,
        name: str = "",
        write_csv: bool = True,
        similarity_fct: ScoreFunction = cos_sim,
        batch_size: int = 64,
        show_progress_bar: bool = False,
        use_batched_encoding: bool = True,
        truncate_dim: int | None = None,
        mrr_at_k: int | None = None,
    ) -> None:
        super().__init__(name, batch_size, show_progress_bar, write_csv, truncate_dim)
        if mrr_at_k is not None:
            logger.warning("the argument mrr_at_k is now called at_k")
            at_k = mrr_at_k
        rows: Any = samples.values() if isinstance(samples, Mapping) else samples
        check_list(rows, "samples", of="dicts with query, positive and negative")
        lists = (_with_lists(row, number) for number, row in enumerate(rows))
        self.samples = [row for row in lists if row["positive"] and row["negative"]]
        self.at_k = at_k
        of = "of two tensors, such as cos_sim"
        self.similarity_fct: ScoreFunction = check_function(similarity_fct, "similarity_fct", of=of)
        self.use_batched_encoding = use_batched_encoding
        self.csv_file = self.file_name("RerankingEvaluator", f"_results_@{at_k}.csv")
        self.csv_headers = ["epoch", "steps", "MAP", f"MRR@{at_k}", f"NDCG@{at_k}"]
        self.primary_metric = f"ndcg@{at_k}"

    def measure(self, model: Any) -> Measurement:
        """Compute the metrics of `model`: means over the queries."""
        scores = self.compute_metrics(model)
        metrics = {"map": scores["map"], f"mrr@{self.at_k}": scores["mrr"], f"ndcg@{self.at_k}": scores["ndcg"]}
        return Measurement(metrics, f"ndcg@{self.at_k}", {name.upper(): value for name, value in metrics.items()})

    def compute_metrics(self, model: Any) -> dict[str, float]:
        """Compute "map", "mrr" and "ndcg", in the way that `use_batched_encoding` names."""
        return (self.compute_metrics_batched if self.use_batched_encoding else self.compute_metrics_individual)(model)

    def compute_metrics_batched(self, model: Any) -> dict[str, float]:
        """Compute "map", "mrr" and "ndcg"; the texts of all queries are embedded at the same time."""
        return self._computed(model, at_once=True)

    def compute_metrics_individual(self, model: Any) -> dict[str, float]:
        """Compute "map", "mrr" and "ndcg"; the texts of one query are embedded after those of another."""
        return self._computed(model, at_once=False)

    compute_metrices = compute_metrics
    compute_metrices_batched = compute_metrics_batched
    compute_metrices_individual = compute_metrics_individual

    def _computed(self, model: Any, *, at_once: bool) -> dict[str, float]:
        def scores(query: Tensor, documents: Tensor) -> Tensor:
            found = self.similarity_fct(query[0] if at_once else query, documents)
            return found[:1] if found.dim() > 1 else found.unsqueeze(0)

        task = evaluation.RerankingEvaluator(
            self.samples, at_k=self.at_k, similarity_fct=scores, use_batched_encoding=at_once
        )
        metrics = task.measure(EmbeddedBy(self, model, kinds=True)).metrics  # type: ignore[arg-type]
        return dict(zip(("map", "mrr", "ndcg"), metrics.values(), strict=True))

    def embed_inputs(
        self,
        model: Any,
        sentences: Any,
        encode_fn_name: str | None = None,
        show_progress_bar: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Embed texts, as "query" or "document" if `encode_fn_name` says so: (n, d), a tensor."""
        encode = getattr(model, f"encode_{encode_fn_name}" if encode_fn_name else "encode")
        shown = self.show_progress_bar and self.use_batched_encoding if show_progress_bar is None else show_progress_bar
        options = {"batch_size": self.batch_size, "show_progress_bar": shown}
        return encode(sentences, **options, convert_to_tensor=True, truncate_dim=self.truncate_dim, **kwargs)

    def get_config_dict(self) -> dict[str, Any]:
        """Settings for the model card: `at_k`, and `truncate_dim` if it is given."""
        return {"at_k": self.at_k, **super().get_config_dict()}


class ParaphraseMiningEvaluator(TaskEvaluator):
    """Average precision and F1 of paraphrase mining; see `minisbert.evaluation.ParaphraseMiningEvaluator`.

    Pairs with an id that is not in `sentences_map` are left out, with a warning; a pair of an id with itself counts as
    missed.
    """

    def __init__(
        self,
        sentences_map: dict[str, str],
        duplicates_list: list[tuple[str, str]] | None = None,
        duplicates_dict: dict[str, dict[str, bool]] | None = None,
        add_transitive_closure: bool = False,
        query_chunk_size: int = 5000,
        corpus_chunk_size: int = 100000,
        max_pairs: int = 500000,
        top_k: int = 100,
        show_progress_bar: bool = False,
        batch_size: int = 16,
        name: str = "",
        write_csv: bool = True,
        truncate_dim: int | None = None,
    ) -> None:
        super().__init__(name, batch_size, show_progress_bar, write_csv, truncate_dim)
        check_mapping(sentences_map, "sentences_map", of="texts by id")
        self.ids, self.sentences = list(sentences_map), list(sentences_map.values())
        self.query_chunk_size = query_chunk_size
        self.corpus_chunk_size = corpus_chunk_size
        self.max_pairs = max_pairs
        self.top_k = top_k
        self._add_transitive_closure = add_transitive_closure
        self.duplicates = _graph(duplicates_list or (), duplicates_dict or {})
        if add_transitive_closure:
            self.duplicates = self.add_transitive_closure(self.duplicates)
        row_of = {key: row for row, key in enumerate(self.ids)}
        pairs = [
            (first, second) for first, others in self.duplicates.items() for second, same in others.items() if same
        ]
        known = [pair for pair in pairs if pair[0] in row_of and pair[1] in row_of]
        if len(known) < len(pairs):
            other = next(key for pair in pairs for key in pair if key not in row_of)
            warn(f"some duplicates have ids that are not in sentences_map, such as {other!r}: they are left out")
        self._rows = {(min(rows), max(rows)) for rows in ((row_of[one], row_of[two]) for one, two in known)}
        self.total_num_duplicates = len(self._rows)
        self.csv_file = self.file_name("paraphrase_mining_evaluation")
        self.csv_headers = ["epoch", "steps", "precision", "recall", "f1", "threshold", "average_precision"]
        self.primary_metric = "average_precision"

    def measure(self, model: Any) -> Measurement:
        """Compute the metrics of `model`."""
        names = ("average_precision", "f1", "precision", "recall", "threshold")
        if not self._rows:
            warn("got no duplicates among the sentences; expected some: every metric is 0")
            none = dict.fromkeys(names, 0.0)
            return Measurement(none, names[0], dict.fromkeys(self.csv_headers[2:], 0))
        task = evaluation.ParaphraseMiningEvaluator(
            dict(zip(self.ids, self.sentences, strict=True)),
            [(self.ids[0], self.ids[1])],
            query_chunk_size=self.query_chunk_size,
            corpus_chunk_size=self.corpus_chunk_size,
            max_pairs=self.max_pairs,
            top_k=self.top_k,
            show_progress_bar=self.show_progress_bar,
            batch_size=self.batch_size,
            truncate_dim=self.truncate_dim,
        )
        task.duplicates = self._rows  # those of an id with itself among them, which it would refuse
        return task.measure(model)

    @staticmethod
    def add_transitive_closure(graph: Mapping[Any, Mapping[Any, bool]]) -> dict[Any, dict[Any, bool]]:
        """Make all texts that are connected by duplicates duplicates of each other: {id: {id: True}}."""
        neighbours: dict[Any, set[Any]] = defaultdict(set)
        for first, others in graph.items():
            for second in (key for key, same in others.items() if same):
                neighbours[first].add(second)
                neighbours[second].add(first)
        closed: dict[Any, dict[Any, bool]] = {key: dict(others) for key, others in graph.items()}
        seen: set[Any] = set()
        for start in neighbours:
            group, left = {start: None}, [start]
            while start not in seen and left:
                new = [key for key in neighbours[left.pop()] if key not in group]
                group.update(dict.fromkeys(new))
                left += new
            if start not in seen:
                for key in group:
                    closed.setdefault(key, {}).update({other: True for other in group if other != key})
                seen |= group.keys()
        return closed

    def get_config_dict(self) -> dict[str, Any]:
        """Settings for the model card: how pairs are mined, and `truncate_dim` if it is given."""
        mined = {"add_transitive_closure": self._add_transitive_closure, "max_pairs": self.max_pairs}
        return {**mined, "top_k": self.top_k, **super().get_config_dict()}


def _with_lists(row: Any, number: int) -> dict[str, Any]:
    """Return a sample with its positives and negatives in lists."""
    known = check_mapping(row, f"samples[{number}]", of="query, positive and negative")
    found = dict(known)
    for key in ("positive", "negative"):
        if key not in known:
            raise InputError(
                f"samples[{number}] has the keys {list(known)}; expected query, positive and negative: fix the sample"
            )
        value = known[key]
        found[key] = (
            [value] if isinstance(value, str) else list(check_list(value, f"samples[{number}][{key!r}]", of="texts"))
        )
    return found


def _graph(
    pairs: Iterable[tuple[Any, Any]], duplicates: Mapping[Any, Mapping[Any, bool]]
) -> dict[Any, dict[Any, bool]]:
    """Return pairs in both forms as one: {id: {id: True}}, those of the list in both directions."""
    of = "dicts of ids, with True for duplicates, by id"
    graph: dict[Any, dict[Any, bool]] = {}
    for key, others in check_mapping(duplicates, "duplicates_dict", of=of).items():
        graph[key] = dict(check_mapping(others, f"duplicates_dict[{key!r}]", of="True by id"))
    for row, pair in enumerate(check_list(pairs, "duplicates_list", of="pairs of ids")):
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise InputTypeError(f"got duplicates_list[{row}]={shown(pair)}; expected a pair of ids: pass two")
        first, second = pair
        graph.setdefault(first, {})[second] = True
        graph.setdefault(second, {})[first] = True
    return graph
