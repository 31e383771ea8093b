"""NanoBEIR: retrieval in small versions of the data sets of BEIR."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, InputError, first_line
from ..model import EmbeddingModel
from ..search import ScoreFunction
from ..similarity import SimilarityFunction
from .evaluator import Evaluator
from .retrieval import InformationRetrievalEvaluator, csv_columns

# Short names, and what the splits are called behind "Nano".
DATASETS: Mapping[str, str] = {
    "climatefever": "ClimateFEVER",
    "dbpedia": "DBPedia",
    "fever": "FEVER",
    "fiqa2018": "FiQA2018",
    "hotpotqa": "HotpotQA",
    "msmarco": "MSMARCO",
    "nfcorpus": "NFCorpus",
    "nq": "NQ",
    "quoraretrieval": "QuoraRetrieval",
    "scidocs": "SCIDOCS",
    "arguana": "ArguAna",
    "scifact": "SciFact",
    "touche2020": "Touche2020",
}


class NanoBEIREvaluator(Evaluator):
    """Call an `InformationRetrievalEvaluator` for each data set of NanoBEIR, and aggregate its metrics.

    Metrics are those of each data set, behind its name, and their means, behind "NanoBEIR_mean". The primary one is the
    mean nDCG at the largest k. The data sets come from the Hub through the package datasets.

    Args:
        dataset_names: short names of the data sets, in any case; by default all 13: climatefever, dbpedia, fever,
            fiqa2018, hotpotqa, msmarco, nfcorpus, nq, quoraretrieval, scidocs, arguana, scifact, touche2020.
        dataset_id: what `datasets.load_dataset` loads: a name on the Hub or a folder, with the configurations corpus,
            queries and qrels, and a split "Nano<data set>" in each.
        mrr_at_k: as in `InformationRetrievalEvaluator`, like all that follow up to `main_score_function`.
        ndcg_at_k: see there.
        accuracy_at_k: see there.
        precision_recall_at_k: see there.
        map_at_k: see there.
        show_progress_bar: show one on a terminal.
        batch_size: most texts in one forward pass; by default only the number of tokens is limited.
        write_csv: append to CSV files where an output path is given.
        truncate_dim: evaluate only the leading dimensions.
        score_functions: see there.
        main_score_function: see there.
        aggregate_fn: from the values of a metric to one.
        aggregate_key: stands for it in names.
        query_prompts: put before queries: one text, or texts by data set.
        corpus_prompts: put before documents, in the same way.
        write_predictions: see there.

    Raises:
        ConfigError: a name is unknown, or prompts lack a data set.
        InputError: the data sets cannot be loaded.
    """

    description = "Nano BEIR"

    def __init__(
        self,
        dataset_names: Sequence[str] | None = None,
        dataset_id: str = "sentence-transformers/NanoBEIR-en",
        *,
        mrr_at_k: Sequence[int] = (10,),
        ndcg_at_k: Sequence[int] = (10,),
        accuracy_at_k: Sequence[int] = (1, 3, 5, 10),
        precision_recall_at_k: Sequence[int] = (1, 3, 5, 10),
        map_at_k: Sequence[int] = (100,),
        show_progress_bar: bool = False,
        batch_size: int | None = None,
        write_csv: bool = True,
        truncate_dim: int | None = None,
        score_functions: Mapping[str, ScoreFunction] | None = None,
        main_score_function: str | SimilarityFunction | None = None,
        aggregate_fn: Callable[[list[float]], Any] = np.mean,
        aggregate_key: str = "mean",
        query_prompts: str | Mapping[str, str] | None = None,
        corpus_prompts: str | Mapping[str, str] | None = None,
        write_predictions: bool = False,
    ) -> None:
        shared: dict[str, Any] = {
            "batch_size": batch_size,
            "show_progress_bar": show_progress_bar,
            "write_csv": write_csv,
        }
        ending = f"_{truncate_dim}" if truncate_dim else ""
        super().__init__(f"NanoBEIR_{aggregate_key}{ending}", truncate_dim=truncate_dim, **shared)
        self.dataset_names = _names(dataset_names)
        self.dataset_id = dataset_id
        self.aggregate_fn, self.aggregate_key = aggregate_fn, aggregate_key
        self.query_prompts = _prompts(query_prompts, self.dataset_names, "query_prompts")
        self.corpus_prompts = _prompts(corpus_prompts, self.dataset_names, "corpus_prompts")
        self.evaluators = [
            InformationRetrievalEvaluator(
                *load_split(dataset_id, f"Nano{DATASETS[name.lower()]}"),
                name=f"Nano{DATASETS[name.lower()]}{ending}",
                mrr_at_k=mrr_at_k,
                ndcg_at_k=ndcg_at_k,
                accuracy_at_k=accuracy_at_k,
                precision_recall_at_k=precision_recall_at_k,
                map_at_k=map_at_k,
                score_functions=score_functions,
                main_score_function=main_score_function,
                query_prompt=self.query_prompts.get(name),
                corpus_prompt=self.corpus_prompts.get(name),
                write_predictions=write_predictions,
                truncate_dim=truncate_dim,
                **shared,
            )
            for name in self.dataset_names
        ]
        self.csv_file = f"NanoBEIR_evaluation_{aggregate_key}_results.csv"

    def __call__(
        self,
        model: EmbeddingModel,
        output_path: str | Path | None = None,
        epoch: float = -1,
        steps: int = -1,
    ) -> dict[str, float]:
        """Evaluate `model`: metric names to values, those of each data set first."""
        every: dict[str, float] = {}
        values: dict[str, list[float]] = {}
        for evaluator in self.evaluators:
            metrics = evaluator(model, output_path, epoch=epoch, steps=steps)
            every |= metrics
            for name, value in metrics.items():
                values.setdefault(name.removeprefix(f"{evaluator.name}_"), []).append(value)
        results = {name: float(self.aggregate_fn(several)) for name, several in values.items()}
        at_k = self.evaluators[0].at_k
        functions = sorted({name.rpartition("_")[0] for name in results})
        self.write_row(output_path, csv_columns(results, functions, at_k), epoch=epoch, steps=steps, line_end="\n")
        best = f"ndcg@{max(at_k['ndcg'])}"
        main = self.evaluators[0].main_score_function or max(functions, key=lambda name: results[f"{name}_{best}"])
        named = self.named(results, primary=f"{main}_{best}")
        self.log(named, epoch=epoch, steps=steps)
        self.metric_names = (*every, *named)
        return {**every, **named}

    def get_config_dict(self) -> dict[str, Any]:
        """Settings for the model card."""
        config: dict[str, Any] = {"dataset_names": self.dataset_names, "dataset_id": self.dataset_id}
        prompts = {"query_prompts": self.query_prompts, "corpus_prompts": self.corpus_prompts}
        return {**config, **super().get_config_dict(), **{name: value for name, value in prompts.items() if value}}


def _names(names: Sequence[str] | None) -> list[str]:
    if isinstance(names, str):
        raise ConfigError(f"got {names!r} as dataset_names; expected several: put it in a list")
    chosen = list(DATASETS) if names is None else list(names)
    for name in chosen:
        if not isinstance(name, str) or name.lower() not in DATASETS:
            raise ConfigError(f"got the data set {name!r}; expected some of {', '.join(DATASETS)}")
    if not chosen:
        raise ConfigError("got no dataset_names; expected at least one, or None for all")
    return chosen


def _prompts(prompts: str | Mapping[str, str] | None, names: Sequence[str], option: str) -> dict[str, str]:
    """Return the prompt of each data set."""
    if prompts is None:
        return {}
    if isinstance(prompts, str):
        return dict.fromkeys(names, prompts)
    if missing := [name for name in names if name not in prompts]:
        raise ConfigError(f"got {option} without {missing[0]!r}; expected one for each data set: add it, or ''")
    return {name: prompts[name] for name in names}


def _advice(dataset_id: str, error: Exception) -> str:
    """Return what is expected of a data set that cannot be loaded, and how to get it."""
    parts = "the configurations corpus (_id, text), queries (_id, text) and qrels (query-id, corpus-id)"
    if Path(str(dataset_id)).is_dir():
        return f"expected a README.md there that names the files of {parts} and of this split: see the guide"
    if isinstance(error, ConnectionError):
        return "expected a connection to the Hub, or a copy of the data set: pass its folder as dataset_id"
    return f"expected a folder or the name of a data set on the Hub, with {parts}: check the name"


def load_split(dataset_id: str, split: str) -> tuple[dict[str, str], dict[str, str], dict[str, set[str]]]:
    """Load queries, corpus and relevant documents of a data set.

    Raises:
        InputError: it is not there, or lacks a column.
    """
    try:
        from datasets import load_dataset
    except ImportError:
        raise InputError("NanoBEIR needs the package datasets; expected it installed: pip install datasets") from None
    try:
        corpus, queries, pairs = (
            load_dataset(dataset_id, part, split=split) for part in ("corpus", "queries", "qrels")
        )
        texts = [{row["_id"]: row["text"] for row in rows if row["text"]} for rows in (queries, corpus)]
        relevant: dict[str, set[str]] = {}
        for row in pairs:
            found = row["corpus-id"]
            relevant.setdefault(row["query-id"], set()).update(found if isinstance(found, list) else [found])
    except Exception as error:  # of any type; datasets has its own, which are no ValueError
        reason = f"no column {error}" if isinstance(error, KeyError) else first_line(error)
        raise InputError(f"cannot load {split} of {dataset_id!r} ({reason}); {_advice(dataset_id, error)}") from error
    return texts[0], texts[1], relevant
