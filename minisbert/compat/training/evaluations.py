"""Evaluations that are asked for, not those of a run: the loss on data, and the metrics of the evaluator."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import ConfigError
from ...evaluation.evaluator import metrics_of
from ...model import EmbeddingModel
from .arguments import BaseTrainingArguments
from .callbacks import CallbackHandler, TrainerState
from .course import Course
from .data import named
from .running import PlannedTrainer


class PredictionOutput(NamedTuple):
    """The result of `predict`; as in the reference, there are metrics alone."""

    predictions: None
    label_ids: None
    metrics: dict[str, float]


class TrainerEvaluations:
    """The methods of a trainer that evaluate.

    Attributes:
        model: the model.
        args: the arguments.
        state: of the run.
        callback_handler: calls the callbacks.
        eval_dataset: the evaluation data.
        evaluator: or None.
        is_in_train: a run is going on.
    """

    model: EmbeddingModel
    args: BaseTrainingArguments
    state: TrainerState
    callback_handler: CallbackHandler
    eval_dataset: Any
    evaluator: Any
    is_in_train: bool

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add an entry to the log."""
        raise NotImplementedError

    def _trainer(self, *, training: bool, eval_dataset: Any = None) -> PlannedTrainer:
        raise NotImplementedError

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Compute the loss on the evaluation data, and call the evaluator.

        Args:
            eval_dataset: in place of that of the trainer; or the name of one of several.
            ignore_keys: not used.
            metric_key_prefix: put before the names of the metrics in place of "eval".
        """
        data = self.eval_dataset if eval_dataset is None else eval_dataset
        if isinstance(data, str):
            data = (named(self.eval_dataset) or {})[data]
        if data is None and self.evaluator is None:
            raise ConfigError("got no eval_dataset and no evaluator; expected one of them: pass it to the trainer")
        measured = self._measured(data)
        course = Course(self.args, self.state, self.callback_handler, self.log, measured.counts)
        return course.evaluated(
            measured.found,
            measured.seconds,
            terms=measured.terms,
            prefix=metric_key_prefix,
            in_run=self.is_in_train,
        )

    def predict(
        self, test_dataset: Any, ignore_keys: list[str] | None = None, metric_key_prefix: str = "test"
    ) -> PredictionOutput:
        """Compute the loss on a data set, and call the evaluator, as `evaluate` does, but log nothing.

        Args:
            test_dataset: the rows.
            ignore_keys: not used.
            metric_key_prefix: put before the names of the metrics.
        """
        if named(test_dataset) is not None:
            raise ConfigError("got data sets by name as test_dataset; expected one: call predict for each")
        measured = self._measured(test_dataset)
        course = Course(self.args, self.state, CallbackHandler([]), lambda logs: None, measured.counts)
        metrics = course.evaluated(
            measured.found, measured.seconds, terms=measured.terms, prefix=metric_key_prefix, in_run=False
        )
        metrics.pop("epoch", None)
        self.callback_handler.call("on_predict", self.args, self.state, metrics=metrics)
        return PredictionOutput(None, None, metrics)

    def _measured(self, data: Any) -> _Measured:
        """Compute the loss on data, unless it is None, and call the evaluator, if there is one."""
        start = time.time()
        found: dict[str, float] = {}
        counts: dict[str, int] = {}
        terms: list[str] = []
        if data is not None:
            trainer = self._trainer(training=False, eval_dataset=data)
            counts, history = trainer.eval_counts(), trainer.measure()
            found, terms = history.entries[-1], history.terms
        if self.evaluator is not None:
            folder = Path(self.args.output_dir or "") / "eval"
            folder.mkdir(parents=True, exist_ok=True)
            result = self.evaluator(self.model, folder, epoch=self.state.epoch, steps=self.state.global_step)
            found |= {f"eval_{name}": value for name, value in metrics_of(self.evaluator, result)[0].items()}
        return _Measured(found, counts, terms, time.time() - start)


class _Measured(NamedTuple):
    """Metrics by name, rows of each data set by name, names of the terms of the loss, and seconds."""

    found: Mapping[str, float]
    counts: Mapping[str, int]
    terms: Collection[str]
    seconds: float
