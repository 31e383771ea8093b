"""Information retrieval: are the relevant documents of a query among the most similar ones of a corpus?"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ConfigError, InputError, InputTypeError, check_count, shown
from ..search import EmbeddingsOrFile, ScoreFunction, embedding_rows, merge_best, nearest
from ..similarity import SimilarityFunction, embedding_matrix, truncate_embeddings
from .evaluator import Measurement, TaskEvaluator, cannot_write, check_texts_by_id
from .metrics import mean

if TYPE_CHECKING:
    from ..model import EmbeddingModel

# By function: scores and corpus rows of the best documents for each query, best first, (queries, k) each.
Rankings: TypeAlias = "dict[str, tuple[Tensor, NDArray[np.int64]]]"

_SCORES_AT_ONCE = 2**24  # 64 MiB of scores
_CSV_NAMES = {
    "accuracy": "Accuracy", "precision": "Precision", "recall": "Recall", "mrr": "MRR", "ndcg": "NDCG", "map": "MAP"
}  # fmt: skip


class InformationRetrievalEvaluator(TaskEvaluator):
    """Accuracy, precision, recall, nDCG, MRR and MAP of the best documents for each query.

    Metrics `<function>_<metric>@<k>`. The primary one is nDCG at the largest k, of the main score function, or of the
    function with the best nDCG in the first call. Queries are encoded as queries and the corpus as documents, one
    chunk at a time; documents with equal scores are ranked by id. Queries without relevant documents are left out.

    Args:
        queries: texts by id.
        corpus: texts by id.
        relevant_docs: the ids of the relevant documents, by query id.
        corpus_chunk_size: documents whose embeddings are in memory at the same time.
        mrr_at_k: numbers of best documents that count for MRR, like the four arguments below.
        ndcg_at_k: for nDCG.
        accuracy_at_k: for the share of queries with a relevant document.
        precision_recall_at_k: for precision and recall.
        map_at_k: for MAP.
        show_progress_bar: show one on a terminal.
        batch_size: most texts in one forward pass; by default only the number of tokens is limited.
        name: put before metric names and into the file names.
        write_csv: append to a CSV file where an output path is given.
        truncate_dim: evaluate only the leading dimensions.
        score_functions: functions by name, each from (n, d) and (m, d) tensors to (n, m) scores; by default the
            model's own similarity.
        main_score_function: the function whose nDCG is the primary metric; evaluated alone where no others are given.
        query_prompt: put before each query.
        query_prompt_name: name of a saved prompt to put before each query.
        corpus_prompt: put before each document.
        corpus_prompt_name: name of a saved prompt to put before each document.
        ignore_same_id: leave out the document with the query's own id, as BEIR does; queries of ArguAna and Quora are
            documents too.
        write_predictions: write the best documents of each query to a .jsonl file for each function where an output
            path is given.
        corpus_embeddings: (corpus, d), in the order of `corpus`: embeddings to use instead of the model's, such as a
            memory map or the path of a .npy file, of which one chunk is in memory at a time; only queries are encoded.
        keep_unknown: as the reference does, count relevant documents that are not in the corpus, or that are named
            twice, as not found, and leave out queries that are unknown; by default they are refused.

    Raises:
        InputError: an id in `relevant_docs` is unknown, no query has relevant documents, or the embeddings are not one
            for each document.
        InputTypeError: a text is not a string, or ids have no common order.
        ConfigError: a k or chunk size is below 1, or a function is unknown.
    """

    description = "Information Retrieval"
    line_end = "\n"

    def __init__(
        self,
        queries: Mapping[Any, str],
        corpus: Mapping[Any, str],
        relevant_docs: Mapping[Any, Iterable[Any]],
        *,
        corpus_chunk_size: int = 50_000,
        mrr_at_k: Sequence[int] = (10,),
        ndcg_at_k: Sequence[int] = (10,),
        accuracy_at_k: Sequence[int] = (1, 3, 5, 10),
        precision_recall_at_k: Sequence[int] = (1, 3, 5, 10),
        map_at_k: Sequence[int] = (100,),
        show_progress_bar: bool = False,
        batch_size: int | None = None,
        name: str = "",
        write_csv: bool = True,
        truncate_dim: int | None = None,
        score_functions: Mapping[str, ScoreFunction] | None = None,
        main_score_function: str | SimilarityFunction | None = None,
        query_prompt: str | None = None,
        query_prompt_name: str | None = None,
        corpus_prompt: str | None = None,
        corpus_prompt_name: str | None = None,
        ignore_same_id: bool = False,
        write_predictions: bool = False,
        corpus_embeddings: EmbeddingsOrFile | None = None,
        keep_unknown: bool = False,
    ) -> None:
        super().__init__(name, batch_size, show_progress_bar, write_csv, truncate_dim)
        queries = check_texts_by_id(queries, what="queries")
        corpus = check_texts_by_id(corpus, what="corpus")
        # In the order of their ids, so that search, which puts lower rows first among equal scores, ranks by id.
        self.corpus_ids = _in_order(corpus)
        self.corpus = [corpus[key] for key in self.corpus_ids]
        self.corpus_embeddings = None if corpus_embeddings is None else embedding_rows(corpus_embeddings)
        if self.corpus_embeddings is not None:
            if len(self.corpus_embeddings) != len(corpus):
                raise InputError(
                    f"got {len(self.corpus_embeddings)} corpus_embeddings for {len(corpus)} documents; expected one "
                    f"for each: embed the values of corpus, in their order"
                )
            row_of = {key: row for row, key in enumerate(corpus)}
            self._rows = np.fromiter((row_of[key] for key in self.corpus_ids), np.int64, len(corpus))
        relevant = _relevant_rows(queries, self.corpus_ids, relevant_docs, keep_unknown=keep_unknown)
        self.queries_ids = [key for key in queries if key in relevant]
        self.queries = [queries[key] for key in self.queries_ids]
        self.relevant_rows = [relevant[key] for key in self.queries_ids]
        if not isinstance(ignore_same_id, bool):
            raise ConfigError(f"got ignore_same_id={ignore_same_id!r}; expected True or False")
        self.ignore_same_id = ignore_same_id
        self.at_k = {
            "accuracy": _checked_k(accuracy_at_k, "accuracy_at_k"),
            "precision": _checked_k(precision_recall_at_k, "precision_recall_at_k"),
            "recall": _checked_k(precision_recall_at_k, "precision_recall_at_k"),
            "ndcg": _checked_k(ndcg_at_k, "ndcg_at_k"),
            "mrr": _checked_k(mrr_at_k, "mrr_at_k"),
            "map": _checked_k(map_at_k, "map_at_k"),
        }
        if not self.at_k["ndcg"]:
            raise ConfigError("got no ndcg_at_k; expected at least one, for the primary metric: pass [10]")
        check_count(corpus_chunk_size, "corpus_chunk_size")
        self.score_functions, self.main_score_function = _functions(score_functions, main_score_function)
        self.corpus_chunk_size = corpus_chunk_size
        self.query_prompt = query_prompt
        self.query_prompt_name = query_prompt_name
        self.corpus_prompt = corpus_prompt
        self.corpus_prompt_name = corpus_prompt_name
        self.write_predictions = write_predictions
        self.csv_file = self.file_name("Information-Retrieval_evaluation")
        self.predictions_file = self.file_name("Information-Retrieval_evaluation", "_predictions.jsonl")
        self._main: str | None = self.main_score_function

    def measure(self, model: EmbeddingModel) -> Measurement:
        """Compute the metrics of `model`."""
        own = SimilarityFunction.of(model.similarity_fn_name)
        rankings = self.search(model, self.score_functions or {own.value: own.matrix})
        results = {name: self.measure_rows(rows) for name, (_, rows) in rankings.items()}
        primary = f"ndcg@{max(self.at_k['ndcg'])}"
        if self._main not in results:
            self._main = max(sorted(results), key=lambda name: results[name][primary])
        metrics = {f"{name}_{metric}": value for name, result in results.items() for metric, value in result.items()}
        write = partial(self._write_predictions, rankings=rankings) if self.write_predictions else None
        row = csv_columns(metrics, sorted(results), self.at_k)
        return Measurement(metrics, f"{self._main}_{primary}", row, write)

    def get_config_dict(self) -> dict[str, Any]:
        """Settings for the model card: `truncate_dim` and the prompts, if they are given."""
        names = ("query_prompt", "query_prompt_name", "corpus_prompt", "corpus_prompt_name")
        prompts = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        ignored = {"ignore_same_id": True} if self.ignore_same_id else {}
        return {**super().get_config_dict(), **prompts, **ignored}

    def search(self, model: EmbeddingModel, functions: Mapping[str, ScoreFunction]) -> Rankings:
        """Rank the best documents for each query, one chunk of the corpus at a time."""
        most = max(max(values, default=1) for values in self.at_k.values())
        top_k = most + self.ignore_same_id
        queries = self._embeddings(model.encode_query, self.queries, self.query_prompt, self.query_prompt_name)
        best: dict[str, tuple[Tensor, Tensor]] = {}
        for start in range(0, len(self.corpus), self.corpus_chunk_size):
            texts = self.corpus[start : start + self.corpus_chunk_size]
            if self.corpus_embeddings is None:
                chunk = self._embeddings(model.encode_document, texts, self.corpus_prompt, self.corpus_prompt_name)
            else:
                given = embedding_matrix(self.corpus_embeddings[self._rows[start : start + len(texts)]])
                chunk = truncate_embeddings(given, self.truncate_dim).to(queries.device)
            _make_equal(chunk, texts)
            for name, function in functions.items():
                result = nearest(
                    queries,
                    chunk,
                    top_k=top_k,
                    score_function=function,
                    query_chunk_size=max(1, _SCORES_AT_ONCE // len(texts)),
                    corpus_chunk_size=len(texts),
                    first_row=start,
                )
                best[name] = merge_best(best[name], result, top_k) if start else result
            del chunk  # before the next one is made
        rankings = {name: (scores, rows.cpu().numpy()) for name, (scores, rows) in best.items()}
        if self.ignore_same_id:
            return {name: self._without_own(*ranked, most) for name, ranked in rankings.items()}
        return rankings

    def _without_own(self, scores: Tensor, rows: NDArray[np.int64], most: int) -> tuple[Tensor, NDArray[np.int64]]:
        """Keep the `most` best documents beside that with the query's own id; -1 stands where there are fewer."""
        row_of = {key: row for row, key in enumerate(self.corpus_ids)}
        own = np.array([row_of.get(key, -1) for key in self.queries_ids])[:, None]
        order = np.argsort(rows == own, axis=1, kind="stable")[:, :most]  # own ones are last
        kept = np.take_along_axis(np.where(rows == own, -1, rows), order, axis=1)
        return scores.gather(1, torch.from_numpy(order).to(scores.device)), kept

    def _embeddings(
        self, encode: Callable[..., Any], texts: list[str], prompt: str | None, prompt_name: str | None
    ) -> Tensor:
        embeddings: Tensor = self.embed(encode, texts, prompt=prompt, prompt_name=prompt_name, convert_to_tensor=True)
        return embeddings

    def measure_rows(self, rows: NDArray[np.int64]) -> dict[str, float]:
        """Compute all metrics of a ranking: corpus rows, best first, (queries, k)."""
        relevant = np.array([len(wanted) for wanted in self.relevant_rows])
        hits = np.array([np.isin(ranked, wanted) for ranked, wanted in zip(rows, self.relevant_rows, strict=True)])
        ranks = np.arange(1, hits.shape[1] + 1)
        hits_so_far = hits.cumsum(axis=1)
        gains = (hits / np.log2(ranks + 1)).cumsum(axis=1)
        best_gains = (1 / np.log2(np.arange(relevant.max()) + 2)).cumsum()
        precisions = (hits * hits_so_far / ranks).cumsum(axis=1)
        first = np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, np.inf)

        def at(sums: NDArray[Any], k: int) -> NDArray[Any]:
            return sums[:, min(k, sums.shape[1]) - 1]

        measures: dict[str, Callable[[int], float]] = {
            "accuracy": lambda k: mean(first <= k),
            "precision": lambda k: mean(at(hits_so_far, k) / k),
            "recall": lambda k: mean(at(hits_so_far, k) / relevant),
            "ndcg": lambda k: mean(at(gains, k) / best_gains[np.minimum(relevant, k) - 1]),
            "mrr": lambda k: float(np.where(first <= k, 1 / first, 0).cumsum()[-1] / len(first)),
            "map": lambda k: mean(at(precisions, k) / np.minimum(relevant, k)),
        }
        return {f"{metric}@{k}": measures[metric](k) for metric, values in self.at_k.items() for k in values}

    def _write_predictions(self, folder: Path, rankings: Rankings) -> None:
        """Write a .jsonl file for each function, a line for each query.

        Raises:
            InputError: a file cannot be written.
        """
        for name, (scores, rows) in rankings.items():
            path = folder / self.predictions_file.replace(".jsonl", f"_{name}.jsonl")
            ranked = zip(self.queries_ids, self.queries, scores.tolist(), rows.tolist(), strict=True)
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with path.open("w", encoding="utf-8", newline="\n") as file:
                    for query_id, query, query_scores, query_rows in ranked:
                        results = [
                            {"corpus_id": self.corpus_ids[row], "score": score}
                            for row, score in zip(query_rows, query_scores, strict=True)
                            if row >= 0
                        ]
                        line = {"query_id": query_id, "query": query, "results": results}
                        file.write(json.dumps(line, default=_plain) + "\n")
            except OSError as error:
                raise cannot_write(path, error) from error


def csv_columns(
    metrics: Mapping[str, float], functions: Sequence[str], at_k: Mapping[str, Sequence[int]]
) -> dict[str, float]:
    """Put metrics, named `<function>_<metric>@<k>`, in the order of the CSV file, under its names."""
    order = [("accuracy", k) for k in at_k["accuracy"]]
    order += [(metric, k) for k in at_k["precision"] for metric in ("precision", "recall")]
    order += [(metric, k) for metric in ("mrr", "ndcg", "map") for k in at_k[metric]]
    return {
        f"{name}-{_CSV_NAMES[metric]}@{k}": metrics[f"{name}_{metric}@{k}"] for name in functions for metric, k in order
    }


def _plain(key: Any) -> Any:
    """Return an id of numpy as a number, and one that JSON has no form for as a text."""
    return key.item() if isinstance(key, np.generic) else str(key)


def _make_equal(embeddings: Tensor, texts: Sequence[str]) -> None:
    """Give equal texts bitwise equal rows, in place, so that their scores tie and their ids decide."""
    first: dict[str, int] = {}
    source = [first.setdefault(text, row) for row, text in enumerate(texts)]
    repeated = [row for row, origin in enumerate(source) if row != origin]
    if repeated:
        embeddings[repeated] = embeddings[[source[row] for row in repeated]]


def _in_order(corpus: Mapping[Any, str]) -> list[Any]:
    try:
        return sorted(corpus)
    except TypeError as error:
        raise InputTypeError(
            f"got corpus ids without an order ({error}); expected ids of one type: make them str"
        ) from None


def _relevant_rows(
    queries: Mapping[Any, str],
    corpus_ids: Sequence[Any],
    relevant_docs: Mapping[Any, Iterable[Any]],
    *,
    keep_unknown: bool,
) -> dict[Any, list[int]]:
    """Find the corpus rows of the relevant documents, for each query that has some; -2 and below stand for no row."""
    if not isinstance(relevant_docs, Mapping):
        raise InputTypeError(
            f"got {type(relevant_docs).__name__} for relevant_docs; expected a dict: pass {{query id: document ids}}"
        )
    row_of = {key: row for row, key in enumerate(corpus_ids)}
    relevant: dict[Any, list[int]] = {}
    for query, documents in relevant_docs.items():
        if query not in queries:
            if keep_unknown:
                continue
            raise InputError(
                f"relevant_docs names the query {query!r}; expected ids in queries: drop it or add the query"
            )
        if isinstance(documents, str) or not isinstance(documents, Iterable):
            got = type(documents).__name__
            raise InputTypeError(
                f"relevant_docs[{query!r}] is a {got}; expected a set of document ids: put them in one"
            )
        documents = list(documents)
        if keep_unknown:
            found = list({row_of[key]: None for key in documents if key in row_of})
            relevant[query] = [*found, *range(-2, len(found) - len(documents) - 2, -1)]
            continue
        if unknown := [key for key in documents if not isinstance(key, Hashable) or key not in row_of]:
            raise InputError(
                f"relevant_docs[{query!r}] names the document {min(unknown, key=str)!r}; expected ids in corpus: drop "
                f"it or add the document"
            )
        if documents:
            relevant[query] = [row_of[key] for key in set(documents)]
    relevant = {query: rows for query, rows in relevant.items() if rows}
    if not relevant:
        raise InputError(
            f"got {len(queries)} queries, none with relevant documents; expected at least one: add to relevant_docs"
        )
    return relevant


def _checked_k(values: Sequence[int], what: str) -> list[int]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise ConfigError(f"got {what}={shown(values)}; expected a list of whole numbers: pass [10]")
    return list(dict.fromkeys(check_count(k, what, most=2**31 - 1) for k in values))


def _functions(
    given: Mapping[str, ScoreFunction] | None, main: str | SimilarityFunction | None
) -> tuple[dict[str, ScoreFunction], str | None]:
    """Return score functions by name ({} for the model's own), and the name of the main one."""
    name = main.value if isinstance(main, SimilarityFunction) else main
    if given is None:
        function = SimilarityFunction.of(name) if name else None
        return ({function.value: function.matrix} if function else {}), name
    if not given or (name is not None and name not in given):
        raise ConfigError(
            f"got the score functions {list(given)} and main_score_function {name!r}; expected some, the main one "
            f"among them: fix the names"
        )
    return dict(given), name
