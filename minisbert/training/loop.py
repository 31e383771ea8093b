"""The training loop, and the plain way to compute a step of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeAlias, cast

import torch
from torch import Tensor, nn

from ..distributed import alone, broadcast_object, by_first, rank, sharing
from ..errors import ConfigError, warn
from ..evaluation import Evaluator
from ..evaluation.evaluator import metrics_of
from ..losses import Loss
from ..model import EmbeddingModel
from ..modules.features import Features
from ..packing import PackedBatch
from .adamw import Optimizer
from .checkpoint import Checkpoint, Fingerprint, random_states, saved_weights
from .config import TrainingConfig
from .dataset import TrainingBatch, TrainingBatches, TrainingStep
from .given import Layers, in_forms
from .gradient_cache import GradientCache, mini_batches
from .guards import SkippedSteps, StopSignal, check_weights, interruption
from .history import TrainingLog
from .naming import load_own_state, own_parameters, own_state
from .optimization import check_moments, clip_gradients, merge_gradients, sparse_gradients, sum_gradients
from .schedules import Schedule
from .selection import loss_metric, note_evaluation

if TYPE_CHECKING:
    from .progress import TrainingProgress

Action: TypeAlias = Literal["log", "evaluate", "save"]


@dataclass
class TrainingRun:
    """One run, from where it stands to its end.

    Attributes:
        model: trained in place.
        config: the settings.
        batches: the batches of each optimizer step.
        engine: computes a step.
        log: the history, and where it is written.
        evaluator: called as the settings say, or None.
        validation: computes the loss on evaluation data at the same times, or None.
        output_dir: where checkpoints, `best/` and `eval/` go, or None.
        fingerprint: digests of what decides the result beside the settings.
        total_steps: optimizer steps of the whole run.
        step: optimizer steps done.
        checkpoint: the newest checkpoint, or None.
        show_progress_bar: show the course of the run: live on a terminal, a line now and then elsewhere.
        on_evaluation: called with the step before each evaluation.
        on_start: called before the first step, once a run that is resumed stands where it goes on.
        course: called after each step, yields what follows it; by default what the settings say.
    """

    model: EmbeddingModel
    config: TrainingConfig
    batches: TrainingBatches
    engine: Engine
    log: TrainingLog
    evaluator: Evaluator | None
    output_dir: Path | None
    fingerprint: Fingerprint
    total_steps: int
    validation: Callable[[], dict[str, float]] | None = None
    step: int = 0
    checkpoint: Checkpoint | None = None
    show_progress_bar: bool = True
    on_evaluation: Callable[[int], None] = lambda step: None
    on_start: Callable[[TrainingRun], None] = lambda run: None
    course: Callable[[TrainingRun], Iterator[Action]] = lambda run: as_set(run)

    @property
    def evaluates(self) -> bool:
        """True if there is something to evaluate with."""
        return self.evaluator is not None or self.validation is not None


def train(run: TrainingRun) -> None:
    """Train from step `run.step` to the last, or until the evaluations no longer get better.

    Raises:
        DivergenceError: gradients stay infinite or NaN, or weights become so.
        InputError: a file cannot be written.
        TrainingInterrupted: SIGINT was received.
        TrainingTerminated: SIGTERM was received.
    """
    run.on_start(run)
    model, engine, log, output_dir = run.model, run.engine, run.log, run.output_dir
    skipped = SkippedSteps(run.step)
    end = run.step if log.history.stopped_early else run.total_steps  # a run that stopped early and is resumed
    with (
        StopSignal() as stop,
        _progress(run) as progress,
        engine.running(updates=run.step - log.history.skipped_steps),
        closing(engine.upcoming(run.batches.steps(run.step, end))) as steps,
    ):
        log.start()
        for step in steps:  # the batches of one optimizer step
            if not model.training:  # an evaluator leaves it in evaluation mode
                model.train()

            # Forward, loss and backward of each batch; their gradients add up to those of the mean loss.
            loss = engine.backward(step.batches)
            # Several processes add up their gradients and losses: from here on all have the same.
            loss = engine.add_up(loss)
            # The norm of the gradients before they are clipped; NaN where the loss is not finite.
            norm = engine.clip(loss)
            # AdamW at the scheduled rate; a norm that is not finite leaves the weights as they are.
            engine.update(norm)

            run.step += 1
            log.add(loss, tokens=step.tokens, terms=engine.take_terms())
            progress.add(loss, tokens=step.tokens)
            skipped.add(norm)
            if not engine.asynchronous:  # otherwise reading the norms would make a GPU wait: with the log is enough
                skipped.check(run.batches, output_dir)

            for action in run.course(run):
                if action == "log":
                    _write_losses(run, norm)
                    skipped.check(run.batches, output_dir)
                elif action == "evaluate" and run.evaluates:
                    with progress.paused("evaluating"):
                        _evaluate(run)
                elif action == "save" and output_dir:
                    skipped.check(run.batches, output_dir)
                    if not skipped.skipping:  # a checkpoint that may be worse must not replace a good one
                        with progress.paused("saving"):
                            _save(run, output_dir)

            if (received := stop.agreed()) is not None:
                _interrupt(run, received)
            if log.history.stopped_early:
                break

    _finish(run)


def _finish(run: TrainingRun) -> None:
    """Check the weights, go back to the best ones if they are kept, and complete the history."""
    check_weights(run.engine.weights(), run.step, run.output_dir)
    skipped, why = run.log.history.skipped_steps, "because their gradients were not finite"
    if run.step and skipped == run.step:
        warn(f"all {run.step} steps were skipped, {why}: the model is unchanged")
    elif 2 * skipped > run.step:
        warn(f"{skipped} of {run.step} steps were skipped, {why}: train again with a lower learning_rate")
    if run.config.keep_best and run.evaluates and run.step:
        _load_best(run)
    run.log.finish(run.step)


def as_set(run: TrainingRun) -> Iterator[Action]:
    """Yield what follows the step just done by the settings of a run; each is done before the next is chosen."""
    config, log, is_last = run.config, run.log, run.step == run.total_steps
    if is_last or _is_due(run.step, config.log_every):
        yield "log"
    ends_epoch = config.eval_each_epoch and run.batches.place(run.step).starts_epoch
    if ends_epoch or is_last or _is_due(run.step, config.eval_every):
        yield "evaluate"
        if log.history.stopped_early and log.step_losses:
            yield "log"
    if _is_due(run.step, config.save_every):
        yield "save"


def _evaluate(run: TrainingRun) -> None:
    """Log the metrics of the model, and save it in `best/` if they are the best so far and it is to be kept."""
    with run.log.evaluating(), sharing():
        run.on_evaluation(run.step)
        metrics = run.validation() if run.validation is not None else {}
        terms, primary = run.engine.take_terms(), None
        shown = terms if loss_metric("") in metrics else []  # the reference shows none of several data sets
        if run.evaluator is not None:
            folder = run.output_dir / "eval" if run.output_dir and rank() == 0 else None
            epoch = run.batches.epoch_after(run.step)
            result = run.evaluator(run.model, folder, epoch=epoch, steps=run.step)
            measured, primary = metrics_of(run.evaluator, result)
            metrics |= measured
        metrics, primary = broadcast_object((metrics, primary))  # what follows from them is the same in all processes
        run.log.write_metrics(run.step, metrics, terms=shown)
        is_best = note_evaluation(run.log.history, run.config, metrics, primary, step=run.step)
        if is_best and run.config.keep_best and run.output_dir:
            check_weights(run.engine.weights(), run.step, run.output_dir)
            best = run.output_dir / "best"
            by_first(lambda: run.model.save_pretrained(best, create_model_card=False))


def _load_best(run: TrainingRun) -> None:
    """Put the best weights into the model."""
    if run.log.history.best_step is None:
        warn(
            f"keep_best kept nothing, because the metric was NaN in every evaluation: the model has the weights of the "
            f"last step, {run.step}"
        )
    elif run.output_dir:
        best = run.output_dir / "best"
        run.model.load_state_dict(by_first(lambda: saved_weights(best, run.model)))


def _interrupt(run: TrainingRun, number: int) -> NoReturn:
    """End the run because of a signal, after saving a checkpoint if there is a folder for it."""
    if run.output_dir and (run.checkpoint is None or run.checkpoint.step != run.step):
        _save(run, run.output_dir)
    folder = run.checkpoint.folder if run.checkpoint else None
    raise interruption(number, step=run.step, total=run.total_steps, checkpoint=folder)


def _save(run: TrainingRun, output_dir: Path) -> None:
    """Save a checkpoint of the model and of all that changes during the run; remove the oldest beyond the limit."""
    check_weights(run.engine.weights(), run.step, output_dir)
    _count_skipped(run)
    run.log.count_seconds()
    state = {
        "step": run.step,
        **run.log.state_dict(),
        "config": asdict(run.config),
        "identity": asdict(run.fingerprint),
        **run.engine.state_dict(),
        "place": tuple(run.batches.place(run.step)),
        **random_states(run.model.device),
    }
    keep = run.config.save_total_limit
    run.checkpoint = by_first(lambda: Checkpoint.save(output_dir, run.model, step=run.step, state=state, keep=keep))


def _write_losses(run: TrainingRun, norm: Tensor) -> None:
    """Write the losses since the last entry to the log."""
    _count_skipped(run)
    run.log.write_losses(run.step, rate=float(run.engine.rate), norm=norm)


def _count_skipped(run: TrainingRun) -> None:
    run.log.history.skipped_steps = run.step - int(run.engine.updates)


def _progress(run: TrainingRun) -> TrainingProgress:
    from .progress import TrainingProgress  # not before it is needed

    return TrainingProgress(
        run.total_steps, done=run.step, shown=run.show_progress_bar, rate=lambda: float(run.engine.rate)
    )


def _is_due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0


class Engine:
    """Compute optimizer steps as written here; `gpu.py` has engines that compute the same on other devices.

    Args:
        model: the model to train.
        losses: one for each data set.
        optimizers: of their parameters.
        schedule: learning rate by the number of updates, which are the steps that changed the weights.
        config: the settings; `precision` and `max_grad_norm` are used.

    Attributes:
        asynchronous: True if a GPU computes steps that the host does not wait for; reading the others then waits.
        updates: number of updates done, float64, ().
        rate: learning rate of the last step, float64, ().
    """

    asynchronous = False

    def __init__(
        self,
        model: EmbeddingModel,
        losses: Sequence[nn.Module],
        optimizers: Sequence[Optimizer],
        schedule: Schedule,
        config: TrainingConfig,
    ) -> None:
        self.model, self.losses = model, nn.ModuleList(losses)
        self.optimizers, self.schedule = list(optimizers), schedule
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.own_parameters = own_parameters(self.losses, model)
        self.max_grad_norm = config.max_grad_norm or math.inf
        self.dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(config.precision)
        self.scaler = torch.amp.GradScaler(model.device.type, enabled=config.precision == "fp16")
        self.updates, self.rate = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        self._terms: list[dict[str, Tensor]] = []

    @contextmanager
    def running(self, *, updates: int) -> Iterator[None]:
        """Be ready for steps after `updates` updates, for a block of code."""
        self.updates.fill_(updates)
        with sparse_gradients(self.optimizers):
            yield

    def upcoming(self, steps: Generator[TrainingStep]) -> Generator[TrainingStep]:
        """Return the batches of each step, as they are; engines on other devices prepare them ahead."""
        return steps

    def backward(self, batches: Sequence[TrainingBatch]) -> Tensor:
        """Add the gradients of the mean loss of the batches to those of the parameters; return that loss, ()."""
        total = torch.zeros((), device=self.model.device)
        for batch in batches:
            with nullcontext() if batch.shared else alone():
                total = total + self.backward_batch(batch.to(self.model.device), self.embed)
        return total

    def add_up(self, loss: Tensor) -> Tensor:
        """Add up gradients over all processes; return the sum of `loss`, ()."""
        self.scaler.scale(loss)  # which a process without a batch has not used yet
        all_dense = self.asynchronous and not self.own_parameters  # whose gradients are not made before they are known
        return sum_gradients([*self.parameters, *self.own_parameters], loss, all_dense=all_dense)

    def backward_batch(self, batch: TrainingBatch, embed: Callable[[PackedBatch], Tensor]) -> Tensor:
        """Add the gradients of the loss of a batch divided by its divisor; return that quotient, ().

        Raises:
            ConfigError: the loss is not a scalar with a gradient.
        """
        loss = self.loss(self.losses[batch.dataset], batch, embed)
        if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
            got = f"a tensor of shape {list(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ConfigError(
                f"got {got} from {type(self.losses[batch.dataset]).__name__}; expected one number that depends on the "
                f"embeddings: return a scalar tensor with a gradient"
            )
        loss = loss / batch.divisor
        torch.autograd.backward(self.scaler.scale(loss))
        return loss.detach()

    def loss(self, of: nn.Module, batch: TrainingBatch, embed: Callable[[PackedBatch], Tensor]) -> Any:
        """Embed the columns of a batch, and return what the loss `of` makes of them."""
        if isinstance(of, Loss) and of.layered:
            return self.sum_of_terms(
                of(Layers(self.model, batch, self.autocast), batch.labels, *self.guided(of, batch))
            )
        if isinstance(of, Loss) and of.forms:
            with self.autocast():  # of a decoder too
                embeddings, tokens = in_forms(of, batch, embed)
                return self.sum_of_terms(of(embeddings, batch.labels, *([tokens] if tokens else [])))
        with self.autocast():
            cached = GradientCache(embed, partial(merge_gradients, self.parameters))
            embeddings = [
                column  # (rows, dim)
                for texts, columns in zip(batch.texts, batch.columns, strict=True)
                for column in cached(mini_batches(of, texts))[texts.restore].chunk(columns)
            ]
        return self.sum_of_terms(of(embeddings, batch.labels, *self.guided(of, batch)))

    def sum_of_terms(self, value: Any) -> Any:
        """Return what a loss returned; of terms by name the sum, after keeping them for the log."""
        if not isinstance(value, Mapping) or not value:
            return value
        self._terms.append({name: term.detach() for name, term in value.items()})
        return torch.stack(list(value.values())).sum()

    def take_terms(self) -> list[dict[str, Tensor]]:
        """Return the terms of each batch since the last call, of losses that have some."""
        terms, self._terms = self._terms, []
        return terms

    def guided(self, loss: nn.Module, batch: TrainingBatch) -> list[list[Tensor]]:
        """Return the third argument of a loss with a guide: the guide's embeddings of each column, (rows, size).

        The list is empty for a loss without a guide.
        """
        guide = getattr(loss, "guide", None)
        if guide is None:
            return []
        texts, columns = batch.texts, batch.columns
        if batch.guide_texts:
            texts, columns = batch.guide_texts, (sum(columns),)
        with self.autocast(), torch.set_grad_enabled(torch.is_grad_enabled() and bool(loss.trains_guide)):
            return [
                [
                    column
                    for packed, count in zip(texts, columns, strict=True)
                    for column in torch.cat([guide(Features(part)).sentences for part in mini_batches(loss, packed)])[
                        packed.restore
                    ].chunk(count)
                ]
            ]

    def embed(self, texts: PackedBatch) -> Tensor:
        """Embed texts: (texts, dim), in packed order."""
        features: Features = self.model(Features(texts))
        return features.sentences

    def clip(self, loss: Tensor) -> Tensor:
        """Clip the gradients; return their norm before, (), or NaN if `loss` is not finite."""
        for optimizer in self.optimizers:
            self.scaler.unscale_(cast(torch.optim.Optimizer, optimizer))  # which reads the groups of either kind
        norm = clip_gradients(self.parameters, self.max_grad_norm)
        finite = loss.isfinite()
        own = [one.grad for one in self.own_parameters if one.grad is not None and not one.grad.is_sparse]
        if own:  # those of a loss are not clipped, as in the reference, but may overflow in half precision
            finite = finite & torch.nn.utils.get_total_norm(own).isfinite()
        return torch.where(finite, norm, math.nan)

    def update(self, norm: Tensor) -> None:
        """Update the weights at the scheduled rate if `norm` is finite, and drop the gradients."""
        highest, factor = self.schedule.highest, self.schedule.factor(self.updates)
        self.rate = highest * factor
        if math.isfinite(norm):
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = float(group.get("highest", highest) * factor)
                optimizer.step()
            self.updates += 1
        self.scaler.update()
        self.drop_gradients()

    def drop_gradients(self) -> None:
        """Drop the gradients of all parameters."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def autocast(self) -> AbstractContextManager[Any]:
        """Compute a block of code in the precision of the run."""
        return torch.autocast(self.model.device.type, self.dtype) if self.dtype else nullcontext()

    def weights(self) -> list[nn.Parameter]:
        """Return all parameters of the model and the losses."""
        return [*self.model.parameters(), *self.own_parameters]

    def state_dict(self) -> dict[str, Any]:
        """Return the state of optimizers, loss scaling and losses."""
        return {
            "optimizer": [optimizer.state_dict() for optimizer in self.optimizers],
            "scaler": self.scaler.state_dict(),
            "losses": own_state(self.losses, self.model),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the state of optimizers, loss scaling and losses.

        Raises:
            ValueError: it does not fit them, or another error of torch.
        """
        load_own_state(self.losses, self.model, state["losses"])
        for optimizer, saved in zip(self.optimizers, state["optimizer"], strict=True):
            optimizer.load_state_dict(saved)
            check_moments(optimizer)
        self.scaler.load_state_dict(state["scaler"])
