"""The `fit` of the reference's first versions, as versions 3 to 6 carry it on: a mixin of its models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...errors import check_count, warn
from ...training.schedules import fit_schedule
from .old_fit import DEFAULTS, OldFit, check_objectives


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
        from ..samplers import BatchSamplers
        from .arguments import SentenceTransformerTrainingArguments  # these are not needed to embed
        from .fit_trainer import FitTrainer, Follower, common_batch_size, read_loader

        model: Any = self
        objectives = check_objectives(train_objectives, scheduler)
        check_count(epochs, "epochs", least=0)
        read = [read_loader(loader) for loader, _ in objectives]
        names = [f"_dataset_{number}" for number in range(1, len(read) + 1)]
        size = common_batch_size(read)
        if steps_per_epoch and epochs != 1:
            warn(
                f"got steps_per_epoch={steps_per_epoch} with epochs={epochs}: it is ignored, as in the reference since "
                f"version 3, and an epoch has all batches; old_fit counts such epochs"
            )
            steps_per_epoch = None
        losses = dict(zip(names, (loss for _, loss in objectives), strict=True))
        full = min(one.rows // size for one in read)
        others = [one.batch_sampler for one in read if one.batch_sampler is not BatchSamplers.BATCH_SAMPLER]
        arguments = SentenceTransformerTrainingArguments(
            output_dir=checkpoint_path or output_path or "checkpoints/model",
            batch_sampler=others[-1] if others else BatchSamplers.BATCH_SAMPLER,
            multi_dataset_batch_sampler="round_robin",
            per_device_train_batch_size=size,
            per_device_eval_batch_size=size,
            num_train_epochs=epochs,
            max_steps=steps_per_epoch or -1,
            lr_scheduler_type=fit_schedule(scheduler),
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
        trainer = FitTrainer(
            model=model,
            args=arguments,
            train_dataset=dict(zip(names, (one.columns for one in read), strict=True)),
            loss=losses,
            evaluator=evaluator,
            optimizer_cls_and_kwargs=(optimizer_class, dict(optimizer_params)),
        )
        trainer.total = steps_per_epoch or full * epochs * len(read)
        trainer.writes = output_path is not None or checkpoint_path is not None
        trainer.add_callback(Follower(trainer.evaluator, callback, output_path, save_best=save_best_model))
        found = resume_from_checkpoint and list(Path(checkpoint_path or "").glob("checkpoint-*"))
        if resume_from_checkpoint and not found:
            warn(f"got resume_from_checkpoint=True and no checkpoint in {checkpoint_path}: starting anew")
        trainer.train(resume_from_checkpoint=bool(found))
