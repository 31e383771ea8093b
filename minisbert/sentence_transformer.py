"""`SentenceTransformer`: the model, with the old way to train it on top."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import ConfigError, InputError, first_line, warn
from .model import EmbeddingModel

if TYPE_CHECKING:
    from .evaluation import Evaluator
    from .losses import Loss
    from .training.config import ReplayVersion
    from .training.history import LogEntry, TrainingHistory
    from .training.record import TrainingRecord

EvaluationResult = TypeVar("EvaluationResult")


class SentenceTransformer(EmbeddingModel):
    """A sentence-embedding model: `SentenceTransformer("all-MiniLM-L6-v2")`.

    Arguments, and all that the model does besides `fit`, `evaluate` and its model card, are those of `EmbeddingModel`.
    """

    training_record: TrainingRecord | None = None

    def evaluate(
        self, evaluator: Callable[..., EvaluationResult], output_path: str | Path | None = None
    ) -> EvaluationResult:
        """Call an evaluator, or a function of the model, with this model.

        Args:
            evaluator: called with the model and `output_path`.
            output_path: the folder for what the evaluator writes.

        Returns:
            What the evaluator returns; numbers by name for a function of the model alone.

        Raises:
            ConfigError: it cannot be called with a model.
            InputError: the folder cannot be made.
        """
        if output_path is not None:
            try:
                Path(output_path).mkdir(parents=True, exist_ok=True)
            except (OSError, TypeError, ValueError) as error:
                reason = getattr(error, "strerror", None) or first_line(error)
                raise InputError(
                    f"cannot make the folder {output_path} ({reason}); expected a path that can be written"
                ) from None
        from .evaluation.evaluator import as_evaluator

        called: Any = evaluator if _takes_path(evaluator) else as_evaluator(evaluator)
        result: EvaluationResult = called(self, output_path)
        return result

    def fit(
        self,
        train_objectives: Sequence[tuple[Any, Loss]],
        *,
        evaluator: Evaluator | Callable[..., Any] | None = None,
        epochs: int = 1,
        steps_per_epoch: int | None = None,
        scheduler: str = "WarmupLinear",
        warmup_steps: int = 10_000,
        optimizer_params: Mapping[str, float] | None = None,
        weight_decay: float = 0.01,
        evaluation_steps: int = 0,
        output_path: str | Path | None = None,
        save_best_model: bool = True,
        max_grad_norm: float = 1.0,
        use_amp: bool = False,
        callback: Callable[[float, float, int], None] | None = None,
        show_progress_bar: bool = True,
        checkpoint_path: str | Path | None = None,
        checkpoint_save_steps: int = 500,
        checkpoint_save_total_limit: int = 0,
        resume_from_checkpoint: bool = False,
        replay: ReplayVersion | None = None,
    ) -> TrainingHistory:
        """Train with the reference's old arguments.

        The schedule ends at the true last step. With an evaluator and `save_best_model`, model and `output_path`
        end with the best weights; otherwise with the last.

        Args:
            train_objectives: pairs of rows (a DataLoader, or anything `Trainer` takes) and loss; several take turns,
                batch by batch, until one has no rows left in the epoch.
            evaluator: called every `evaluation_steps` steps, after each epoch, and at the end.
            epochs: passes over the rows.
            steps_per_epoch: optimizer steps that count as an epoch; by default all batches.
            scheduler: course of the learning rate: "WarmupLinear", "WarmupCosine", "WarmupCosineWithHardRestarts",
                "WarmupConstant" or "ConstantLR", in any case.
            warmup_steps: optimizer steps over which the learning rate rises from 0.
            optimizer_params: {"lr": learning rate}, 2e-5 by default.
            weight_decay: weight decay of AdamW.
            evaluation_steps: see `evaluator`; 0 to evaluate only after each epoch.
            output_path: where the model is saved.
            save_best_model: see above.
            max_grad_norm: gradients are scaled down to this norm.
            use_amp: train in mixed fp16.
            callback: called with score, epoch and steps after each evaluation.
            show_progress_bar: show one on a terminal.
            checkpoint_path: where checkpoints go.
            checkpoint_save_steps: optimizer steps between two checkpoints.
            checkpoint_save_total_limit: number of checkpoints to keep; 0 for all.
            resume_from_checkpoint: go on from the newest checkpoint in `checkpoint_path`.
            replay: "5.1" or "6.2" to repeat that version's `fit` to the bit, on the CPU: its schedule, which counts
                full batches only and trains the last steps at rate 0, its optimizer, and its random draws.

        Raises:
            ConfigError: an argument has an impossible value.
            InputError: the rows do not fit the loss.
        """
        from .training.config import TrainingConfig  # these are not needed to embed
        from .training.objectives import FitTrainer, read_objectives
        from .training.schedules import fit_schedule

        schedule = fit_schedule(scheduler)
        if unknown := sorted(set(optimizer_params or {}) - {"lr"}):
            raise ConfigError(f"got optimizer_params {unknown}; expected only 'lr'")
        if replay is not None and steps_per_epoch and epochs > 1:
            raise ConfigError(
                f"got steps_per_epoch={steps_per_epoch} with replay={replay!r} and epochs={epochs}; expected no "
                f"steps_per_epoch, which the reference ignores over several epochs: leave it out"
            )
        rows, losses, batch_size, batch_sampler = read_objectives(train_objectives, keep_order=replay is not None)
        # An epoch takes every batch of the smallest data set, and as many of the others.
        batches = min(math.ceil(len(part) / batch_size) for part in rows.values()) * len(rows)
        steps = (steps_per_epoch or batches) * epochs
        if warmup_steps >= steps and schedule != "constant":
            warn(
                f"warmup_steps={warmup_steps} is not below the {steps} steps of this run: the learning rate never "
                f"reaches its full value; a tenth of the steps is a usual choice"
            )
        config = TrainingConfig(
            epochs=epochs,
            batch_size=batch_size,
            batch_sampler=batch_sampler,
            learning_rate=(optimizer_params or {}).get("lr", 2e-5),
            lr_scheduler_type=schedule,
            warmup_steps=warmup_steps,
            weight_decay=weight_decay,
            max_grad_norm=max_grad_norm,
            precision="fp16" if use_amp else "fp32",
            max_steps=steps if steps_per_epoch else None,
            multi_dataset_batch_sampler="round_robin",
            eval_every=evaluation_steps or steps_per_epoch,
            eval_each_epoch=not steps_per_epoch,
            save_every=checkpoint_save_steps if checkpoint_path else None,
            save_total_limit=checkpoint_save_total_limit or None,
            keep_best=evaluator is not None and save_best_model and output_path is not None,
            replay=replay,
        )

        def report(entry: LogEntry) -> None:
            primary = trainer.evaluator.primary_metric if trainer.evaluator is not None else None
            if callback is not None and (name := f"eval_{primary}") in entry:
                callback(entry[name], entry["epoch"], int(entry["step"]))

        trainer = FitTrainer(
            self,
            rows,
            loss=losses,
            config=config,
            evaluator=evaluator,
            output_dir=checkpoint_path or output_path,
            on_log=report,
            show_progress_bar=show_progress_bar,
        )
        history = trainer.train(resume=resume_from_checkpoint)
        if output_path is not None:
            self.save_pretrained(output_path)
        return history

    def _model_card(self, model_name: str | None) -> str:
        if self._card and self.training_record is None:
            return self._card
        try:
            from .card.composing import card_text

            return card_text(self, self.training_record, name=model_name)
        except Exception as error:  # whatever it is, trained weights are worth more than their card
            warn(f"the model card could not be made: {error!r}; README.md is left empty")
            return ""


def _takes_path(evaluator: Any) -> bool:
    """Return True if an evaluator is called with a folder after the model; another second argument is an option."""
    try:
        signature = inspect.signature(evaluator)
        signature.bind(None, None)
    except (TypeError, ValueError):
        return False
    _, second, *_ = (*signature.parameters.values(), None)
    named = second is not None and (second.name == "output_path" or second.default is second.empty)
    return named and not isinstance(evaluator, EmbeddingModel)
