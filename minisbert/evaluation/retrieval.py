"""How well a model finds the relevant documents of queries in a corpus."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ConfigError, InputError, InputTypeError
from ..search import ScoreFunction, check_sizes, merged, nearest
from ..similarity import SimilarityFunction
from .base import Evaluator, check_texts_by_id
from .metrics import mean

if TYPE_CHECKING:
    from ..model import EmbeddingModel

_SCORES_AT_ONCE = 2**24  # 64 MiB of them
_CSV_NAMES = {
    "accuracy": "Accuracy", "precision": "Precision", "recall": "Recall", "mrr": "MRR", "ndcg": "NDCG", "map": "MAP"
}  # fmt: skip


class InformationRetrievalEvaluator(Evaluator):
    """Accuracy, precision, recall, nDCG, MRR and MAP of the best documents for each query.

    Metrics `<function>_<metric>@<k>`. The primary one is nDCG at the largest k, of the main score function, or of the
    function that had the best at the first call. Queries are encoded as queries and the corpus as documents, one
    chunk at a time; documents with equal scores are ranked by id. Queries without relevant documents are left out.

    Args:
        queries: texts by id.
        corpus: texts by id.
        relevant_docs: the ids of the relevant documents, by query id.
        corpus_chunk_size: documents whose embeddings are held at the same time.
        mrr_at_k: numbers of best documents that MRR looks at, like the four arguments below.
        ndcg_at_k: for nDCG.
        accuracy_at_k: for the share of queries with a relevant document.
        precision_recall_at_k: for precision and recall.
        map_at_k: for MAP.
        show_progress_bar: show one on a terminal.
        batch_size: most texts in one forward pass; by default only tokens are bounded.
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
        write_predictions: write the best documents of each query to a .jsonl file for each function where an output
            path is given.

    Raises:
        InputError: an id in `relevant_docs` is unknown, or no query has relevant documents.
        InputTypeError: something is no text, or ids have no common order.
        ConfigError: an impossible k or chunk size, or an unknown function.
    """

    description = "Information Retrieval"

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
        write_predictions: bool = False,
    ) -> None:
        super().__init__(
            name,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            write_csv=write_csv,
            truncate_dim=truncate_dim,
        )
        queries = check_texts_by_id(queries, what="queries")
        corpus = check_texts_by_id(corpus, what="corpus")
        # In the order of their ids, so that search, which puts lower rows first among equal scores, ranks by id.
        self.corpus_ids = _in_order(corpus)
        self.corpus = [corpus[key] for key in self.corpus_ids]
        relevant = _relevant_rows(queries, self.corpus_ids, relevant_docs)
        self.queries_ids = [key for key in queries if key in relevant]
        self.queries = [queries[key] for key in self.queries_ids]
        self.relevant_rows = [relevant[key] for key in self.queries_ids]
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
        check_sizes(corpus_chunk_size=corpus_chunk_size)
        self.score_functions, self.main_score_function = _functions(score_functions, main_score_function)
        self.corpus_chunk_size = corpus_chunk_size
        self.query_prompt = query_prompt
        self.query_prompt_name = query_prompt_name
        self.corpus_prompt = corpus_prompt
        self.corpus_prompt_name = corpus_prompt_name
        self.write_predictions = write_predictions
        stem = f"Information-Retrieval_evaluation{'_' + name if name else ''}"
        self.csv_file = f"{stem}_results.csv"
        self.predictions_file = f"{stem}_predictions.jsonl"
        self._main: str | None = self.main_score_function

    def __call__(
        self,
        model: EmbeddingModel,
        output_path: str | Path | None = None,
        epoch: float = -1,
        steps: int = -1,
    ) -> dict[str, float]:
        """Evaluate `model`: metric names, with the evaluator's name before them, to values."""
        own = SimilarityFunction.of(model.similarity_fn_name)
        functions = self.score_functions or {own.value: own.matrix}
        best = self._search(model, functions)
        results = {name: self._measured(rows) for name, (_, rows) in best.items()}
        if output_path is not None and self.write_predictions:
            for name, (scores, rows) in best.items():
                self._write_predictions(Path(output_path), name, scores, rows)
        self.write_row(output_path, self._csv_columns(results), epoch=epoch, steps=steps, line_end="\n")
        primary = f"ndcg@{max(self.at_k['ndcg'])}"
        if self._main not in results:
            self._main = max(sorted(results), key=lambda name: results[name][primary])
        metrics = {f"{name}_{metric}": value for name, result in results.items() for metric, value in result.items()}
        return self.named(metrics, primary=f"{self._main}_{primary}")

    def get_config_dict(self) -> dict[str, Any]:
        """`truncate_dim` and the prompts, where they are given."""
        names = ("query_prompt", "query_prompt_name", "corpus_prompt", "corpus_prompt_name")
        prompts = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return {**super().get_config_dict(), **prompts}

    def _search(
        self, model: EmbeddingModel, functions: Mapping[str, ScoreFunction]
    ) -> dict[str, tuple[Tensor, NDArray[np.int64]]]:
        """Scores and corpus rows of the best documents for each query, best first: (queries, k) each."""
        top_k = max(max(values, default=1) for values in self.at_k.values())
        queries = self._encode(model.encode_query, self.queries, self.query_prompt, self.query_prompt_name)
        best: dict[str, tuple[Tensor, Tensor]] = {}
        for start in range(0, len(self.corpus), self.corpus_chunk_size):
            texts = self.corpus[start : start + self.corpus_chunk_size]
            chunk = self._encode(model.encode_document, texts, self.corpus_prompt, self.corpus_prompt_name)
            _make_equal(chunk, texts)
            for name, function in functions.items():
                scores, rows = nearest(
                    queries,
                    chunk,
                    top_k=top_k,
                    score_function=function,
                    query_chunk_size=max(1, _SCORES_AT_ONCE // len(texts)),
                    corpus_chunk_size=len(texts),
                )
                found = scores, rows + start
                best[name] = merged(best[name], found, top_k) if start else found
            del chunk  # before the next one is made
        return {name: (scores, rows.cpu().numpy()) for name, (scores, rows) in best.items()}

    def _encode(
        self, encode: Callable[..., Any], texts: list[str], prompt: str | None, prompt_name: str | None
    ) -> Tensor:
        embeddings: Tensor = encode(
            texts,
            prompt=prompt,
            prompt_name=prompt_name,
            batch_size=self.batch_size,
            show_progress_bar=self.show_progress_bar,
            convert_to_tensor=True,
            truncate_dim=self.truncate_dim,
        )
        return embeddings

    def _measured(self, rows: NDArray[np.int64]) -> dict[str, float]:
        """All metrics of a ranking: corpus rows, best first, (queries, k)."""
        relevant = np.array([len(wanted) for wanted in self.relevant_rows])
        hits = np.array([np.isin(found, wanted) for found, wanted in zip(rows, self.relevant_rows, strict=True)])
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

    def _csv_columns(self, results: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """The metrics in the order of the file."""
        order = [("accuracy", k) for k in self.at_k["accuracy"]]
        order += [(metric, k) for k in self.at_k["precision"] for metric in ("precision", "recall")]
        order += [(metric, k) for metric in ("mrr", "ndcg", "map") for k in self.at_k[metric]]
        return {
            f"{name}-{_CSV_NAMES[metric]}@{k}": results[name][f"{metric}@{k}"]
            for name in sorted(results)
            for metric, k in order
        }

    def _write_predictions(self, folder: Path, name: str, scores: Tensor, rows: NDArray[np.int64]) -> None:
        path = folder / self.predictions_file.replace(".jsonl", f"_{name}.jsonl")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with path.open("w", encoding="utf-8", newline="\n") as file:
                for number, (query_scores, query_rows) in enumerate(zip(scores.tolist(), rows.tolist(), strict=True)):
                    found = [
                        {"corpus_id": self.corpus_ids[row], "score": score}
                        for row, score in zip(query_rows, query_scores, strict=True)
                    ]
                    line = {"query_id": self.queries_ids[number], "query": self.queries[number], "results": found}
                    file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise InputError(
                f"cannot write {path} ({error.strerror}); expected a folder that can be written"
            ) from error


def _make_equal(embeddings: Tensor, texts: Sequence[str]) -> None:
    """Give equal texts equal rows to the last bit, in place, so that their scores tie and their ids decide."""
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
    queries: Mapping[Any, str], corpus_ids: Sequence[Any], relevant_docs: Mapping[Any, Iterable[Any]]
) -> dict[Any, list[int]]:
    """Corpus rows of the relevant documents, for each query that has some."""
    if not isinstance(relevant_docs, Mapping):
        raise InputTypeError(
            f"got {type(relevant_docs).__name__} for relevant_docs; expected a dict: pass {{query id: document ids}}"
        )
    row_of = {key: row for row, key in enumerate(corpus_ids)}
    relevant: dict[Any, list[int]] = {}
    for query, documents in relevant_docs.items():
        if query not in queries:
            raise InputError(
                f"relevant_docs names the query {query!r}; expected ids in queries: drop it or add the query"
            )
        if isinstance(documents, str):
            raise InputTypeError(f"relevant_docs[{query!r}] is a str; expected a set of document ids: put it in a set")
        wanted = set(documents)
        unknown = wanted - row_of.keys()
        if unknown:
            raise InputError(
                f"relevant_docs[{query!r}] names the document {min(unknown, key=str)!r}; expected ids in corpus: drop "
                f"it or add the document"
            )
        if wanted:
            relevant[query] = [row_of[key] for key in wanted]
    if not relevant:
        raise InputError(
            f"got {len(queries)} queries, none with relevant documents; expected at least one: add to relevant_docs"
        )
    return relevant


def _checked_k(values: Sequence[int], what: str) -> list[int]:
    for k in values:
        if not isinstance(k, (int, np.integer)) or k < 1:
            raise ConfigError(f"got {k!r} in {what}; expected whole numbers of at least 1: pass [10]")
    return list(dict.fromkeys(values))


def _functions(
    given: Mapping[str, ScoreFunction] | None, main: str | SimilarityFunction | None
) -> tuple[dict[str, ScoreFunction], str | None]:
    """Score functions by name ({} for the model's own), and the name of the main one."""
    name = main.value if isinstance(main, SimilarityFunction) else main
    if given is None:
        function = SimilarityFunction.of(name) if name else None
        return ({function.value: function.matrix} if function else {}), name
    if not given or (name is not None and name not in given):
        raise ConfigError(
            f"got the score functions {list(given)} and main_score_function {name!r}; expected some, the main one "
            f"among them: mend the names"
        )
    return dict(given), name
