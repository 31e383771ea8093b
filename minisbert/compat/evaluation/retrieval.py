"""The evaluator of information retrieval, with the reference's interface."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ... import evaluation
from ...errors import warn
from ...evaluation.evaluator import Measurement
from ...evaluation.retrieval import csv_columns
from ...model import EmbeddingModel
from ...search import ScoreFunction
from ...similarity import SimilarityFunction
from ..checks import check_list, check_mapping
from .base import EmbeddedBy, TaskEvaluator, as_rows, logger

_METRICS = ("accuracy", "precision", "recall", "ndcg", "mrr", "map")


class InformationRetrievalEvaluator(TaskEvaluator):
    """Accuracy, precision, recall, nDCG, MRR and MAP of search.

    See `minisbert.evaluation.InformationRetrievalEvaluator`. Relevant documents that are not in the corpus count as not
    found, and queries that are not there are left out, both with a warning.
    """

    line_end = "\n"

    def __init__(
        self,
        queries: dict[str, str],
        corpus: dict[str, str],
        relevant_docs: dict[str, set[str]],
        corpus_chunk_size: int = 50000,
        mrr_at_k: list[int] = [10],  # noqa: B006 - as in the reference; none of them is changed
        ndcg_at_k: list[int] = [10],  # noqa: B006
        accuracy_at_k: list[int] = [1, 3, 5, 10],  # noqa: B006
        precision_recall_at_k: list[int] = [1, 3, 5, 10],  # noqa: B006
        map_at_k: list[int] = [100],  # noqa: B006
        show_progress_bar: bool = False,
        batch_size: int = 32,
        name: str = "",
        write_csv: bool = True,
        truncate_dim: int | None = None,
        score_functions: dict[str, ScoreFunction] | None = None,
        main_score_function: str | SimilarityFunction | None = None,
        query_prompt: str | None = None,
        query_prompt_name: str | None = None,
        corpus_prompt: str | None = None,
        corpus_prompt_name: str | None = None,
        write_predictions: bool = False,
    ) -> None:
        super().__init__(name, batch_size, show_progress_bar, write_csv, truncate_dim)
        check_mapping(queries, "queries", of="texts by id")
        check_mapping(corpus, "corpus", of="texts by id")
        check_mapping(relevant_docs, "relevant_docs", of="a set of ids of documents for each id of a query")
        if score_functions is not None:
            check_mapping(score_functions, "score_functions", of="functions by name, such as {'cosine': cos_sim}")
        self.queries_ids = [key for key in queries if key in relevant_docs and len(relevant_docs[key])]
        self.queries = [queries[key] for key in self.queries_ids]
        self.corpus_ids, self.corpus = list(corpus), list(corpus.values())
        self.relevant_docs = relevant_docs
        _warn_of_unknown(queries, corpus, relevant_docs)
        self.query_prompt, self.query_prompt_name = query_prompt, query_prompt_name
        self.corpus_prompt, self.corpus_prompt_name = corpus_prompt, corpus_prompt_name
        self.corpus_chunk_size = corpus_chunk_size
        self.mrr_at_k = mrr_at_k
        self.ndcg_at_k = ndcg_at_k
        self.accuracy_at_k = accuracy_at_k
        self.precision_recall_at_k = precision_recall_at_k
        self.map_at_k = map_at_k
        for metric, counts in self.at_k().items():
            check_list(counts, f"{metric}_at_k", of="whole numbers, such as 10")
        self.score_functions = score_functions
        self.score_function_names = sorted(score_functions or ())
        self._score_functions_from_model = score_functions is None
        self.main_score_function = SimilarityFunction.of(main_score_function) if main_score_function else None
        self.write_predictions = write_predictions
        self.csv_file = self.file_name("Information-Retrieval_evaluation")
        self.predictions_file = self.file_name("Information-Retrieval_evaluation", "_predictions.jsonl")
        self.csv_headers = ["epoch", "steps"]
        self._append_csv_headers(self.score_function_names)
        self._task()  # which finds wrong arguments now, not after an epoch

    def __call__(
        self,
        model: Any,
        output_path: str | Path | None = None,
        epoch: float = -1,
        steps: int = -1,
        *args: Any,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Evaluate `model`; further arguments are those of `compute_all_metrics`."""
        if self._score_functions_from_model:
            functions = self._model_score_functions(model)
            if self.score_function_names != sorted(functions):
                self.primary_metric = None
            self.score_functions, self.score_function_names = functions, sorted(functions)
        scores = self.compute_all_metrics(model, *args, **{"output_path": output_path, **kwargs})
        best = max(self.ndcg_at_k)
        main = None if self.main_score_function is None else self.main_score_function.value
        main = main or max(self.score_function_names, key=lambda name: float(scores[name]["ndcg@k"][best]))
        metrics = {
            f"{name}_{metric.replace('@k', f'@{k}')}": value
            for name, result in scores.items()
            for metric, values in result.items()
            for k, value in values.items()
        }
        row = csv_columns(metrics, self.score_function_names, self.at_k())
        primary = self.primary_metric or f"{main}_ndcg@{best}"
        return self.finish(model, Measurement(metrics, primary, row), output_path, epoch, steps, values=False)

    def measure(self, model: Any) -> Measurement:
        """Compute the metrics of `model` without names, files and logs."""
        return self._task().measure(_Sides(self, model, None, None))  # type: ignore[arg-type]

    def compute_all_metrics(
        self,
        model: Any,
        corpus_model: Any = None,
        corpus_embeddings: Tensor | None = None,
        output_path: str | Path | None = None,
    ) -> dict[str, dict[str, dict[int, float]]]:
        """Compute the metrics of each score function: {"cosine": {"accuracy@k": {1: 0.5, ...}, ...}}.

        Args:
            model: embeds the queries, and the corpus too without the next two.
            corpus_model: embeds the corpus.
            corpus_embeddings: (corpus, d): embeddings of the corpus, in its order.
            output_path: a folder for predictions, if they are written.
        """
        if self.score_functions is None:
            self.score_functions = self._model_score_functions(model)
            self.score_function_names = sorted(self.score_functions)
        task, view = self._task(), _Sides(self, model, corpus_model, corpus_embeddings)
        logger.info("queries: %d, corpus: %d", len(self.queries), len(self.corpus))
        if type(self).compute_metrics is not InformationRetrievalEvaluator.compute_metrics:
            scores = self._own_metrics(task, view)
        else:
            measured = task.measure(view)  # type: ignore[arg-type]
            if measured.write is not None and output_path is not None:
                measured.write(Path(output_path))
            scores = {name: self._by_metric(measured.metrics, f"{name}_") for name in self.score_functions}
        for name in self.score_function_names:
            logger.info("by %s", name)
            self.output_scores(scores[name])
        return scores

    compute_metrices = compute_all_metrics

    def compute_metrics(self, queries_result_list: list[Any]) -> dict[str, dict[int, float]]:
        """Compute the metrics of hits: for each query a list of {"corpus_id": id, "score": number}."""
        task = self._task()
        row_of = {key: row for row, key in enumerate(task.corpus_ids)}
        most = max(len(hits) for hits in queries_result_list)
        rows = np.full((len(queries_result_list), most), -1)
        for number, hits in enumerate(queries_result_list):
            ranked = sorted(hits, key=lambda hit: (-hit["score"], hit["corpus_id"]))
            rows[number, : len(ranked)] = [row_of.get(hit["corpus_id"], -1) for hit in ranked]
        return self._by_metric(task.measure_rows(rows))

    @staticmethod
    def compute_dcg_at_k(relevances: Sequence[float], k: int) -> float:
        """Discounted cumulative gain of the first k ranks."""
        return sum(relevance / math.log2(rank + 2) for rank, relevance in enumerate(relevances[:k]))

    def get_corpus_id_ranks(self) -> Tensor:
        """Place of each document in the order of the ids: int64, (corpus,)."""
        return torch.tensor(self._order()).argsort()

    def output_scores(self, scores: Mapping[str, Mapping[int, float]]) -> None:
        """Log the metrics of one score function."""
        for metric, values in scores.items():
            for k, value in values.items():
                logger.info("%s: %.4f", metric.replace("@k", f"@{k}"), value)

    def embed_inputs(
        self,
        model: Any,
        sentences: Any,
        encode_fn_name: str | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Embed texts, as "query" or "document" if `encode_fn_name` says so: (n, d), a tensor."""
        encode = getattr(model, f"encode_{encode_fn_name}" if encode_fn_name else "encode")
        return encode(
            sentences,
            prompt_name=prompt_name,
            prompt=prompt,
            batch_size=self.batch_size,
            show_progress_bar=self.show_progress_bar,
            convert_to_tensor=True,
            truncate_dim=self.truncate_dim,
            **kwargs,
        )

    def get_config_dict(self) -> dict[str, Any]:
        """Settings for the model card: `truncate_dim` and the prompts, if they are given."""
        names = ("query_prompt", "query_prompt_name", "corpus_prompt", "corpus_prompt_name")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return {**super().get_config_dict(), **given}

    def _model_score_functions(self, model: Any) -> dict[str, ScoreFunction]:
        function = SimilarityFunction.of(model.similarity_fn_name)
        return {function.value: function.matrix if isinstance(model, EmbeddingModel) else model.similarity}

    def _append_csv_headers(self, score_function_names: Iterable[str]) -> None:
        names, at_k = list(score_function_names), self.at_k()
        every = {f"{name}_{metric}@{k}": 0.0 for name in names for metric in _METRICS for k in at_k[metric]}
        self.csv_headers = [*self.csv_headers, *csv_columns(every, names, at_k)]

    def at_k(self) -> dict[str, Sequence[int]]:
        """Return the numbers of best documents that count for each metric."""
        both = self.precision_recall_at_k
        last = {"ndcg": self.ndcg_at_k, "mrr": self.mrr_at_k, "map": self.map_at_k}
        return {"accuracy": self.accuracy_at_k, "precision": both, "recall": both, **last}

    def _by_metric(self, metrics: Mapping[str, float], prefix: str = "") -> dict[str, dict[int, float]]:
        at_k = self.at_k()
        return {f"{metric}@k": {k: metrics[f"{prefix}{metric}@{k}"] for k in at_k[metric]} for metric in _METRICS}

    def _own_metrics(self, task: evaluation.InformationRetrievalEvaluator, view: Any) -> dict[str, Any]:
        """Compute the metrics of a subclass, which has a `compute_metrics` of its own."""
        scores = {}
        for name, (values, rows) in task.search(view, self.score_functions or {}).items():
            ranked = zip(values.tolist(), rows.tolist(), strict=True)
            scores[name] = self.compute_metrics(
                [
                    [{"corpus_id": task.corpus_ids[row], "score": score} for score, row in zip(*query, strict=True)]
                    for query in ranked
                ]
            )
        return scores

    def _order(self) -> list[int]:
        """Places of the documents in the order of their ids."""
        return sorted(range(len(self.corpus_ids)), key=self.corpus_ids.__getitem__)

    def _task(self) -> evaluation.InformationRetrievalEvaluator:
        return evaluation.InformationRetrievalEvaluator(
            dict(zip(self.queries_ids, self.queries, strict=True)),
            dict(zip(self.corpus_ids, self.corpus, strict=True)),
            self.relevant_docs,
            corpus_chunk_size=self.corpus_chunk_size,
            mrr_at_k=self.mrr_at_k,
            ndcg_at_k=self.ndcg_at_k,
            accuracy_at_k=self.accuracy_at_k,
            precision_recall_at_k=self.precision_recall_at_k,
            map_at_k=self.map_at_k,
            name=self.name,
            score_functions=self.score_functions,
            query_prompt=self.query_prompt,
            query_prompt_name=self.query_prompt_name,
            corpus_prompt=self.corpus_prompt,
            corpus_prompt_name=self.corpus_prompt_name,
            write_predictions=self.write_predictions,
            keep_unknown=True,
        )


class _Sides(EmbeddedBy):
    """A model for the queries, and another or given embeddings for the corpus, in the order of its ids."""

    def __init__(
        self, evaluator: InformationRetrievalEvaluator, model: Any, corpus_model: Any, embeddings: Tensor | None
    ) -> None:
        super().__init__(evaluator, model, kinds=True)
        self._corpus_model = model if corpus_model is None else corpus_model
        self._embeddings = embeddings
        self._rows = iter(() if embeddings is None else evaluator._order())

    @property
    def similarity_fn_name(self) -> str:
        """Name of a function that is never asked: the evaluator names its own."""
        return SimilarityFunction.COSINE.value

    def encode_document(self, texts: Any, **options: Any) -> Any:
        """Embed documents."""
        if self._embeddings is None:
            return self._encode(self._corpus_model, "document", texts, options)
        return as_rows(self._embeddings[[next(self._rows) for _ in texts]], options)

    def _encode(self, model: Any, kind: str, texts: Any, options: Mapping[str, Any]) -> Any:
        prompts = {name: options.get(name) for name in ("prompt_name", "prompt")}
        return as_rows(self._evaluator.embed_inputs(model, texts, encode_fn_name=kind, **prompts), options)


def _warn_of_unknown(queries: Mapping[Any, Any], corpus: Mapping[Any, Any], relevant: Mapping[Any, Any]) -> None:
    others = [key for key in relevant if key not in queries]
    missing = [key for query in relevant if query in queries for key in relevant[query] if key not in corpus]
    for what, keys, done in (("queries", others, "left out"), ("documents", missing, "counted as not found")):
        if keys:
            warn(f"relevant_docs names {len(keys)} {what} that are not there, such as {keys[0]!r}: they are {done}")
