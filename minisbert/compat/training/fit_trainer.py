"""The trainer behind `fit`, what follows its steps, and how it reads data loaders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from ...errors import InputError, warn
from ..samplers import BatchSamplers
from .callbacks import TrainerControl, TrainerState
from .settings import Settings
from .trainer import SentenceTransformerTrainer

_USUAL_BATCH = 8


class FitTrainer(SentenceTransformerTrainer):
    """A trainer with the schedule of `fit`, which evaluates at the end of each epoch if there is an evaluator.

    Attributes:
        total: updates that the schedule counts on.
        writes: False to write no files but those that `fit` saves.
    """

    total: int | None = None
    writes = True

    def _settings(self) -> Settings:
        return replace(super()._settings(), decays_by_name=True, schedule_steps=self.total)

    @property
    def _evaluates(self) -> bool:
        return self.evaluator is not None

    @property
    def _folder(self) -> str | None:
        return self.args.output_dir if self.writes else None


class Follower:
    """Evaluate at the end of each epoch, report each score, and save the best model, or the last."""

    def __init__(
        self, evaluator: Any, callback: Callable[..., Any] | None, output_path: str | None, *, save_best: bool
    ) -> None:
        self._evaluator, self._callback = evaluator, callback
        self._output_path, self._save_best = output_path, save_best
        self._best: float | None = None
        self._last: tuple[int, dict[str, float]] = -1, {}

    def on_epoch_end(self, args: Any, state: TrainerState, control: TrainerControl, **more: Any) -> None:
        """Ask for an evaluation, or report again that of the same step."""
        step, metrics = self._last
        if self._evaluator is not None and step == state.global_step:
            self.on_evaluate(args, state, control, metrics=metrics, **more)
        elif self._evaluator is not None:
            control.should_evaluate = True

    def on_evaluate(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        *,
        metrics: dict[str, float],
        model: Any,
        **_: Any,
    ) -> None:
        """Report the score, and save the model if it is the best."""
        self._last = state.global_step, metrics
        primary = getattr(self._evaluator, "primary_metric", None) or "evaluator"
        score = next((value for name, value in metrics.items() if name.endswith(primary)), None)
        if score is None:
            return
        if self._callback is not None:
            self._callback(score, state.epoch, state.global_step)
        upward = getattr(self._evaluator, "greater_is_better", True)
        if self._best is None or (score > self._best if upward else score < self._best):
            self._best = score
            if self._save_best and self._output_path is not None:
                model.save_pretrained(self._output_path)

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, *, model: Any, **_: Any) -> None:
        """Save the model if there was nothing to choose the best by."""
        if self._evaluator is None and self._output_path is not None:
            model.save_pretrained(self._output_path)


# ---- objectives -----------------------------------------------------------------------------------------------------


class Objective(NamedTuple):
    """A data loader, read: columns by name, its batch size, and the sampler that makes such batches."""

    columns: dict[str, list[Any]]
    batch_size: int | None
    batch_sampler: BatchSamplers

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.columns["sentence_0"])


def read_loader(loader: Any) -> Objective:
    """Read a data loader once, in its own order, drawing from the global generators as it does.

    Raises:
        InputError: it gives no examples with texts.
    """
    if not hasattr(loader, "collate_fn"):
        examples = list(loader)
    else:
        collate, loader.collate_fn = loader.collate_fn, _as_it_is
        try:
            examples = [one for batch in loader for one in (batch if isinstance(batch, (list, tuple)) else [batch])]
        finally:
            loader.collate_fn = collate
    if not examples or any(getattr(one, "texts", None) is None for one in examples):
        got = type(examples[0]).__name__ if examples else "nothing"
        raise InputError(f"got {got} from a data loader; expected examples with texts: make InputExample of the rows")
    columns: dict[str, list[Any]] = {
        f"sentence_{number}": list(texts)
        for number, texts in enumerate(zip(*(one.texts for one in examples), strict=False))
    }
    labels = [one.label for one in examples]
    if not all(isinstance(label, (int, float)) and label == 0 for label in labels):
        columns["label"] = labels
    return Objective(columns, _size(loader), _sampler(loader))


def _as_it_is(batch: Any) -> Any:
    return batch


def _size(loader: Any) -> int | None:
    size = getattr(loader, "batch_size", None)
    if size is None and getattr(loader, "batch_sampler", None) is not None:
        warn(
            "got a data loader with a batch_sampler, whose batches are not kept, as in the reference since version 3: "
            "pass batch_sampler to SentenceTransformerTrainingArguments, or call old_fit"
        )
        size = getattr(loader.batch_sampler, "batch_size", None)
    return size


def _sampler(loader: Any) -> BatchSamplers:
    """Return the sampler that makes the batches which a loader makes; loaders and data sets are known by name."""
    if _is_a(loader, "NoDuplicatesDataLoader"):
        return BatchSamplers.NO_DUPLICATES
    grouped = _is_a(getattr(loader, "dataset", None), "SentenceLabelDataset")
    return BatchSamplers.GROUP_BY_LABEL if grouped else BatchSamplers.BATCH_SAMPLER


def _is_a(value: Any, name: str) -> bool:
    return any(kind.__name__ == name for kind in type(value).__mro__)


def common_batch_size(read: Sequence[Objective]) -> int:
    """Return the batch size of the last loader that has one, which is that of all."""
    sizes = [one.batch_size for one in read if one.batch_size is not None]
    if len(set(sizes)) > 1:
        warn(
            f"got batch sizes {sizes}: all data sets are trained with {sizes[-1]}, as in the reference since version 3"
        )
    return sizes[-1] if sizes else _USUAL_BATCH
