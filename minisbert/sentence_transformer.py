"""`SentenceTransformer`: the model, with the old way to train it on top."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import InputError, warn
from .model import EmbeddingModel

if TYPE_CHECKING:
    from .evaluation import Evaluator
    from .losses import Loss
    from .training.config import ReplayVersion
    from .training.fit import Callback
    from .training.history import TrainingHistory
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
        """Call an evaluator with this model; what it writes goes into the folder `output_path`.

        Raises:
            InputError: the folder cannot be made.
        """
        if output_path is not None:
            try:
                Path(output_path).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(
                    f"cannot make the folder {output_path} ({error.strerror}); expected a path that can be written"
                ) from None
        return evaluator(self, output_path)

    def fit(
        self,
        train_objectives: Sequence[tuple[Any, Loss]],
        *,
        evaluator: Evaluator | None = None,
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
        callback: Callback | None = None,
        show_progress_bar: bool = True,
        checkpoint_path: str | Path | None = None,
        checkpoint_save_steps: int = 500,
        checkpoint_save_total_limit: int = 0,
        resume_from_checkpoint: bool = False,
        replay: ReplayVersion | None = None,
    ) -> TrainingHistory:
        """Train with the reference's old arguments.

        The schedule reaches 0 at the true last step. With an evaluator and `save_best_model`, model and `output_path`
        end with the best weights; otherwise with the last.

        Args:
            train_objectives: pairs of rows (a DataLoader, or anything `Trainer` takes) and loss; several take turns,
                batch by batch, until one has no rows left in the epoch.
            evaluator: called every `evaluation_steps` steps, after each epoch, and at the end.
            epochs: passes over the rows.
            steps_per_epoch: optimizer steps that count as an epoch; by default all batches.
            scheduler: "WarmupLinear".
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
        options = dict(locals())  # every argument above
        model = options.pop("self")
        from .training.fit import fit  # not needed to embed

        return fit(model, **options)

    def _model_card(self, model_name: str | None) -> str:
        if self._card and self.training_record is None:
            return self._card
        try:
            from .card.composing import card_text

            return card_text(self, self.training_record, name=model_name)
        except Exception as error:  # whatever it is, trained weights are worth more than their card
            warn(f"the model card could not be made: {error!r}; README.md is left empty")
            return ""
