"""NanoBEIR with the reference's interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ConfigError
from ...evaluation.evaluator import Measurement
from ...evaluation.nano_beir import DATASETS, load_split
from ...evaluation.retrieval import csv_columns
from ...search import ScoreFunction
from ...similarity import SimilarityFunction
from ..checks import check_list
from .base import TaskEvaluator
from .retrieval import InformationRetrievalEvaluator


class NanoBEIREvaluator(TaskEvaluator):
    """Information retrieval in small data sets; see `minisbert.evaluation.NanoBEIREvaluator`.

    A subclass may name another class for the data sets in `information_retrieval_class`.
    """

    information_retrieval_class: type[InformationRetrievalEvaluator] = InformationRetrievalEvaluator
    line_end = "\n"

    def __init__(
        self,
        dataset_names: list[str] | None = None,
        dataset_id: str = "sentence-transformers/NanoBEIR-en",
        mrr_at_k: list[int] = [10],  # noqa: B006 - as in the reference; none of them is changed
        ndcg_at_k: list[int] = [10],  # noqa: B006
        accuracy_at_k: list[int] = [1, 3, 5, 10],  # noqa: B006
        precision_recall_at_k: list[int] = [1, 3, 5, 10],  # noqa: B006
        map_at_k: list[int] = [100],  # noqa: B006
        show_progress_bar: bool = False,
        batch_size: int = 32,
        write_csv: bool = True,
        truncate_dim: int | None = None,
        score_functions: dict[str, ScoreFunction] | None = None,
        main_score_function: str | SimilarityFunction | None = None,
        aggregate_fn: Callable[[list[float]], float] = np.mean,
        aggregate_key: str = "mean",
        query_prompts: str | dict[str, str] | None = None,
        corpus_prompts: str | dict[str, str] | None = None,
        write_predictions: bool = False,
    ) -> None:
        ending = f"_{truncate_dim}" if truncate_dim else ""
        super().__init__(f"NanoBEIR_{aggregate_key}{ending}", batch_size, show_progress_bar, write_csv, truncate_dim)
        given = list(DATASETS) if dataset_names is None else dataset_names
        self.dataset_names = check_list(given, "dataset_names", of="names, such as 'msmarco'")
        self.dataset_id = dataset_id
        self.aggregate_fn, self.aggregate_key = aggregate_fn, aggregate_key
        self.mrr_at_k = mrr_at_k
        self.ndcg_at_k = ndcg_at_k
        self.accuracy_at_k = accuracy_at_k
        self.precision_recall_at_k = precision_recall_at_k
        self.map_at_k = map_at_k
        self._check_names()
        self.query_prompts = self._prompts(query_prompts, "query_prompts")
        self.corpus_prompts = self._prompts(corpus_prompts, "corpus_prompts")
        options: dict[str, Any] = {
            "mrr_at_k": mrr_at_k,
            "ndcg_at_k": ndcg_at_k,
            "accuracy_at_k": accuracy_at_k,
            "precision_recall_at_k": precision_recall_at_k,
            "map_at_k": map_at_k,
            "show_progress_bar": show_progress_bar,
            "batch_size": batch_size,
            "write_csv": write_csv,
            "truncate_dim": truncate_dim,
            "score_functions": score_functions,
            "main_score_function": main_score_function,
            "write_predictions": write_predictions,
        }
        self.evaluators = [self._load_dataset(name, **options) for name in self.dataset_names]
        first = self.evaluators[0]
        self.score_functions, self.score_function_names = score_functions, first.score_function_names
        self.main_score_function = first.main_score_function
        self.csv_file = f"NanoBEIR_evaluation_{aggregate_key}_results.csv"
        self.csv_headers = list(first.csv_headers)

    def __call__(
        self,
        model: Any,
        output_path: str | Path | None = None,
        epoch: float = -1,
        steps: int = -1,
        *args: Any,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Evaluate `model`: metric names to values, those of each data set first. Further arguments are not used."""
        every: dict[str, Any] = {}
        values: dict[str, list[float]] = {}
        for evaluator in self.evaluators:
            metrics = evaluator(model, output_path, epoch, steps)
            every |= metrics
            for name, value in metrics.items():
                values.setdefault(name.removeprefix(f"{evaluator.name}_"), []).append(value)
        results = {name: self.aggregate_fn(several) for name, several in values.items()}
        names = self.evaluators[0].score_function_names
        if names != self.score_function_names:
            self.primary_metric = None
        self.score_functions, self.score_function_names = self.evaluators[0].score_functions, names
        best = f"ndcg@{max(self.ndcg_at_k)}"
        main = None if self.main_score_function is None else self.main_score_function.value
        main = main or max(names, key=lambda name: float(results[f"{name}_{best}"]))
        row = csv_columns(results, names, self.evaluators[0].at_k())
        measured = Measurement(results, self.primary_metric or f"{main}_{best}", row)
        named = self.finish(model, measured, output_path, epoch, steps)
        self.metric_names = (*every, *named)
        return {**every, **named}

    def measure(self, model: Any) -> Measurement:
        """Compute the means for `model`."""
        metrics = self(model)
        return Measurement(metrics, self.primary_metric or "", {})

    def store_metrics_in_model_card_data(
        self, model: Any, metrics: Mapping[str, Any], epoch: float = 0, step: int = 0
    ) -> None:
        """Let the model's card show the means, where there is more than one data set."""
        if len(self.dataset_names) > 1:
            super().store_metrics_in_model_card_data(model, metrics, epoch, step)

    def get_config_dict(self) -> dict[str, Any]:
        """Settings for the model card."""
        prompts = {"query_prompts": self.query_prompts, "corpus_prompts": self.corpus_prompts}
        given = {name: value for name, value in prompts.items() if value is not None}
        return {
            "dataset_names": self.dataset_names,
            "dataset_id": self.dataset_id,
            **super().get_config_dict(),
            **given,
        }

    def _get_human_readable_name(self, dataset_name: str) -> str:
        ending = "" if self.truncate_dim is None else f"_{self.truncate_dim}"
        return f"Nano{DATASETS[dataset_name.lower()]}{ending}"

    def _load_dataset(self, dataset_name: str, **ir_evaluator_kwargs: Any) -> InformationRetrievalEvaluator:
        """Make the evaluator of one data set."""
        for option, prompts in (("query_prompt", self.query_prompts), ("corpus_prompt", self.corpus_prompts)):
            if prompts is not None:
                ir_evaluator_kwargs[option] = prompts.get(dataset_name)
        return self.information_retrieval_class(
            *load_split(self.dataset_id, f"Nano{DATASETS[dataset_name.lower()]}"),
            name=self._get_human_readable_name(dataset_name),
            **ir_evaluator_kwargs,
        )

    def _check_names(self) -> None:
        if not self.dataset_names:
            raise ConfigError("got no dataset_names; expected at least one, or None for all")
        for name in self.dataset_names:
            if name.lower() not in DATASETS:
                raise ConfigError(f"got the data set {name!r}; expected some of {', '.join(DATASETS)}")

    def _prompts(self, prompts: str | dict[str, str] | None, option: str) -> dict[str, str] | None:
        if isinstance(prompts, str):
            return dict.fromkeys(self.dataset_names, prompts)
        if prompts is not None and (missing := [name for name in self.dataset_names if name not in prompts]):
            raise ConfigError(f"got {option} without {missing[0]!r}; expected one for each data set: add it, or ''")
        return prompts
