"""The `fit` of the reference's first versions, as versions 3 to 6 carry it on: a mixin of its models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from ..errors import InputError, warn
from ..training.schedules import FIT_SCHEDULES
from .arguments import SentenceTransformerTrainingArguments
from .callbacks import TrainerControl, TrainerState
from .old_fit import DEFAULTS, OldFit, check_objectives
from .samplers import BatchSamplers
from .settings import Settings
from .trainer import SentenceTransformerTrainer

_USUAL_BATCH = 8


class Objective(NamedTuple):
    """A data loader, read: columns by name, its batch size, and the sampler that makes such batches."""

    columns: dict[str, list[Any]]
    batch_size: int | None
    batch_sampler: BatchSamplers


class FitMixin(OldFit):
    """The methods `fit` and `old_fit` of a model."""

    def fit(
        self,
        train_objectives: Iterable[tuple[Any, nn.Module]],
        evaluator: Any = None,
        epochs: int = 1,
        steps_per_epoch: int | None = None,
        scheduler: str = "WarmupLinear",
        warmup_steps: int = 10000,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.AdamW,
        optimizer_params: Mapping[str, Any] = DEFAULTS,
        weight_decay: float = 0.01,
        evaluation_steps: int = 0,
        output_path: str | None = None,
        save_best_model: bool = True,
        max_grad_norm: float = 1,
        use_amp: bool = False,
        callback: Callable[[float, int, int], None] | None = None,
        show_progress_bar: bool = True,
        checkpoint_path: str | None = None,
        checkpoint_save_steps: int = 500,
        checkpoint_save_total_limit: int = 0,
        resume_from_checkpoint: bool = False,
    ) -> None:
        """Train on data loaders, in turns of a batch each.

        As in the reference, the schedule of the learning rate counts full batches only, so that the last steps of a run
        may have the rate 0; the model ends with the weights of the last step, and `output_path` with the best.

        Args:
            train_objectives: pairs of a data loader and a loss.
            evaluator: called every `evaluation_steps` steps and at the end of each epoch.
            epochs: passes over the smallest data set.
            steps_per_epoch: steps of the whole run, if there is one epoch.
            scheduler: course of the learning rate, in any case: WarmupLinear, WarmupCosine,
                WarmupCosineWithHardRestarts, WarmupConstant or ConstantLR.
            warmup_steps: steps over which the learning rate rises from 0.
            optimizer_class: made of groups of parameters and `optimizer_params`.
            optimizer_params: options of the optimizer.
            weight_decay: of all weights but biases and those of normalization layers.
            evaluation_steps: see `evaluator`; 0 for none but those at the ends of epochs.
            output_path: where the model is saved: the best with an evaluator, else the last.
            save_best_model: False to save nothing if there is an evaluator.
            max_grad_norm: gradients are scaled down to this norm.
            use_amp: train in mixed fp16.
            callback: called with score, epoch and steps after each evaluation.
            show_progress_bar: show one on a terminal.
            checkpoint_path: where checkpoints go; None for no checkpoints.
            checkpoint_save_steps: steps between two of them.
            checkpoint_save_total_limit: number of them to keep; 0 for all.
            resume_from_checkpoint: go on from the newest in `checkpoint_path`.

        Raises:
            ConfigError: an argument has an impossible value.
            InputError: the rows do not fit the loss.
        """
        model: Any = self
        objectives = check_objectives(train_objectives, scheduler)
        read = [_read(loader) for loader, _ in objectives]
        names = [f"_dataset_{number}" for number in range(1, len(read) + 1)]
        size = _batch_size(read)
        if steps_per_epoch and epochs != 1:
            warn(
                f"got steps_per_epoch={steps_per_epoch} with epochs={epochs}: it is ignored, as in the reference since "
                f"version 3, and an epoch has all batches; old_fit counts such epochs"
            )
            steps_per_epoch = None
        losses = dict(zip(names, (loss for _, loss in objectives), strict=True))
        full = min(_rows(one) // size for one in read)
        others = [one.batch_sampler for one in read if one.batch_sampler is not BatchSamplers.BATCH_SAMPLER]
        arguments = SentenceTransformerTrainingArguments(
            output_dir=checkpoint_path or output_path or "checkpoints/model",
            batch_sampler=others[-1] if others else BatchSamplers.BATCH_SAMPLER,
            multi_dataset_batch_sampler="round_robin",
            per_device_train_batch_size=size,
            per_device_eval_batch_size=size,
            num_train_epochs=epochs,
            max_steps=steps_per_epoch or -1,
            lr_scheduler_type=FIT_SCHEDULES[scheduler.lower()],
            warmup_steps=warmup_steps,
            weight_decay=weight_decay,
            eval_strategy="steps" if evaluation_steps and evaluator is not None else "no",
            eval_steps=evaluation_steps or None,
            max_grad_norm=max_grad_norm,
            fp16=use_amp,
            disable_tqdm=not show_progress_bar,
            save_strategy="no" if checkpoint_path is None else "steps",
            save_steps=checkpoint_save_steps,
            save_total_limit=checkpoint_save_total_limit,
        )
        trainer = _FitTrainer(
            model=model,
            args=arguments,
            train_dataset=dict(zip(names, (one.columns for one in read), strict=True)),
            loss=losses,
            evaluator=evaluator,
            optimizer_cls_and_kwargs=(optimizer_class, dict(optimizer_params)),
        )
        trainer.total = steps_per_epoch or full * epochs * len(read)
        trainer.writes = output_path is not None or checkpoint_path is not None
        trainer.add_callback(_Follower(trainer.evaluator, callback, output_path, save_best=save_best_model))
        found = resume_from_checkpoint and list(Path(checkpoint_path or "").glob("checkpoint-*"))
        if resume_from_checkpoint and not found:
            warn(f"got resume_from_checkpoint=True and no checkpoint in {checkpoint_path}: starting anew")
        trainer.train(resume_from_checkpoint=bool(found))


class _FitTrainer(SentenceTransformerTrainer):
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


class _Follower:
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


def _read(loader: Any) -> Objective:
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
    if not examples or not all(hasattr(one, "texts") for one in examples):
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


def _batch_size(read: Sequence[Objective]) -> int:
    """Return the batch size of the last loader that has one, which is that of all."""
    sizes = [one.batch_size for one in read if one.batch_size is not None]
    if len(set(sizes)) > 1:
        warn(
            f"got batch sizes {sizes}: all data sets are trained with {sizes[-1]}, as in the reference since version 3"
        )
    return sizes[-1] if sizes else _USUAL_BATCH


def _rows(objective: Objective) -> int:
    return len(objective.columns["sentence_0"])
