"""Runs as the reference's arguments describe them: their optimizer, schedule, batches and course."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ... import kernels
from ...data.roles import TrainingRows
from ...data.sampling import EpochSampler
from ...errors import ConfigError, warn
from ...evaluation import Evaluator
from ...training.adamw import Optimizer
from ...training.builder import RunBuilder
from ...training.checkpoint import Checkpoint
from ...training.history import OnLog, TrainingHistory, TrainingLog
from ...training.loop import Engine, TrainingRun
from ...training.naming import load_own_state, named_parameters
from ...training.optimization import BETAS, EPS, adamw_over, owned_parameters, parameter_groups
from ...training.schedules import Schedule
from ...training.selection import loss_metric
from ...training.trainer import Trainer
from ...training.validation import Validation
from .batches import FullBatches, GivenBatches, GivenTurns, in_order, own_sampler, own_turns
from .course import Course
from .data import is_stream
from .old_fit import decays
from .settings import Settings


@dataclass
class Plan:
    """The parts of a run that minisbert's settings do not say.

    Attributes:
        settings: the settings.
        course: what follows each step.
        optimizer: the user's own, or None.
        scheduler: the user's own of that optimizer, or None.
        datasets: training data as the user gave it, by name.
        eval_datasets: evaluation data, in the same way.
        batch_sampler: the user's class or function for batches, or None.
        turns: the user's class or function for batches of several data sets, or None.
    """

    settings: Settings
    course: Course
    optimizer: torch.optim.Optimizer | None = None
    scheduler: Any = None
    datasets: Mapping[str, Any] = field(default_factory=dict)
    eval_datasets: Mapping[str, Any] = field(default_factory=dict)
    batch_sampler: Any = None
    turns: Any = None


@dataclass
class PlannedBuilder(RunBuilder):
    """Build a run by a plan."""

    plan: Plan = field(kw_only=True)

    def run(
        self, *, evaluator: Evaluator | None, output_dir: Path | None, on_log: OnLog | None, show_progress_bar: bool
    ) -> TrainingRun:
        """Build a run that starts at its first step."""
        run = super().run(
            evaluator=evaluator, output_dir=output_dir, on_log=on_log, show_progress_bar=show_progress_bar
        )
        run.course, run.on_start = self.plan.course, self.plan.course.start
        return run

    def log_file(self, output_dir: Path) -> Path | None:
        """Return None: the log of the reference is in the state of its trainer."""
        return None

    def total_steps(self, batches_per_epoch: int) -> int:
        """Return the optimizer steps of the whole run, which may end within an epoch."""
        if not batches_per_epoch:
            raise ConfigError(f"got no full batch of {self.config.batch_size} rows; expected one: lower the batch size")
        streams = any(map(is_stream, self.plan.datasets.values()))
        of_stream = streams and (self.config.max_steps or 0) * self.config.gradient_accumulation
        self.plan.course.batches_per_epoch = of_stream or batches_per_epoch  # the reference counts so
        steps = math.ceil(batches_per_epoch / self.config.gradient_accumulation)
        return self.config.max_steps or math.ceil(self.plan.settings.epochs * steps)

    def schedule_steps(self, total_steps: int) -> int:
        """Return the updates that the schedule of the learning rate counts on."""
        planned = self.plan.settings.schedule_steps
        return total_steps if planned is None else planned

    def optimizers(self) -> list[Optimizer]:
        """Make AdamW as minisbert does, or the optimizer that is asked for."""
        settings, config = self.plan.settings, self.config
        if self.plan.optimizer is not None:
            for group in self.plan.optimizer.param_groups:
                group["highest"] = group.get("initial_lr", group["lr"])
            return [self.plan.optimizer]
        if settings.optimizer is not None:
            options: dict[str, Any] = {"lr": config.learning_rate, **(settings.optimizer_options or {})}
            return [settings.optimizer(self._groups(), **options)]
        if settings.betas == BETAS and settings.eps == EPS and not settings.decays_by_name:
            return super().optimizers()
        return [
            adamw_over(
                self._groups(),
                device=self.model.device,
                learning_rate=config.learning_rate,
                betas=settings.betas,
                eps=settings.eps,
                capturable=kernels.on_gpu(next(self.model.parameters())),
            )
        ]

    def engine(self, total_steps: int) -> Engine:
        """Make the engine of the device; torch's own optimizers and schedulers have a plain one."""
        if self.plan.optimizer is None and self.plan.settings.optimizer is None:
            return super().engine(total_steps)
        losses, schedule = [self.computed_loss(loss) for loss in self.losses()], self.schedule(total_steps)
        return GivenEngine(self.model, losses, self.optimizers(), schedule, self.config, scheduler=self.plan.scheduler)

    def _groups(self) -> list[dict[str, Any]]:
        """Sort the parameters into those with weight decay and those without."""
        if self.plan.settings.decays_by_name:
            named = named_parameters(self.model, self.losses())
            pairs = [(one.parameter, decays(one.name)) for one in named]
        else:
            owned = owned_parameters(self.model, *self.losses())
            pairs = [(one, not isinstance(owner, nn.LayerNorm) and "bias" not in name) for name, one, owner in owned]
        return parameter_groups(pairs, weight_decay=self.config.weight_decay, own_rates=self.own_rates())

    def _sampler(self, rows: Sequence[TrainingRows], *, batch_size: int, multiple: bool) -> EpochSampler:
        settings, plan, config = self.plan.settings, self.plan, self.config
        several = config.multi_dataset_batch_sampler if multiple else None
        options: dict[str, Any] = {"batch_size": batch_size, "seed": config.seed, "several": several}
        given = [self._as_given(one) for one in rows]
        drop_last = settings.drop_last
        if any(map(is_stream, given)):
            in_turn = [in_order(one, batch_size=batch_size, drop_last=drop_last) for one in rows]
            return GivenBatches(rows, in_turn, **options)
        if plan.batch_sampler is not None or (plan.turns is not None and multiple):
            return self._given_sampler(rows, given, options)
        if settings.data_seed is not None and not multiple and config.batch_sampler == "batch_sampler":
            options["seed"] = settings.data_seed
        if drop_last:
            if config.batch_sampler != "batch_sampler":
                raise ConfigError(
                    f"got dataloader_drop_last=True with batch_sampler={config.batch_sampler!r}; expected one without "
                    f"the other: leave one out"
                )
            full = FullBatches(rows, **options)
            if not len(full):
                raise ConfigError(f"got no full batch of {batch_size} rows; expected one: lower the batch size")
            return full
        if options["seed"] != config.seed:
            return EpochSampler(rows, **options)
        return super()._sampler(rows, batch_size=batch_size, multiple=multiple)

    def _as_given(self, rows: TrainingRows) -> Any:
        """Return a data set as the user gave it."""
        for parts, given in ((self.sets, self.plan.datasets), (self.eval_sets, self.plan.eval_datasets)):
            for part in parts:
                if part.rows is rows and part.name in given:
                    return given[part.name]
        return None

    def _given_sampler(self, rows: Sequence[TrainingRows], given: list[Any], options: dict[str, Any]) -> EpochSampler:
        plan, seed, size = self.plan, self.config.seed, options["batch_size"]
        make, drop_last = plan.batch_sampler or default_sampler, plan.settings.drop_last
        samplers = [own_sampler(make, one, batch_size=size, drop_last=drop_last, seed=seed) for one in given]
        if plan.turns is not None and options["several"] is not None:
            return GivenTurns(rows, own_turns(plan.turns, given, samplers, seed=seed), **options)
        return GivenBatches(rows, samplers, **options)

    def measure(self) -> TrainingHistory:
        """Compute the loss on the evaluation data with the model as it is; return a log of one entry."""
        self.eval_datasets = [self.dataset(part) for part in self.eval_sets]
        self.tokenize_for_guides(self.eval_sets, self.eval_datasets)
        schedule = Schedule(self.config.learning_rate, 0, 1)
        engine = Engine(self.model, [], [], schedule, self.config)
        validation: Validation | None = self.validation(engine)
        losses = {} if validation is None else validation()
        log = TrainingLog(epoch_after=float, file=None, on_log=None)
        log.write_metrics(0, losses, terms=engine.take_terms() if loss_metric("") in losses else ())
        return log.history


class GivenEngine(Engine):
    """An engine with an optimizer of torch's, and with its scheduler if there is one."""

    def __init__(self, *arguments: Any, scheduler: Any) -> None:
        super().__init__(*arguments)
        self._scheduler = scheduler

    @contextmanager
    def running(self, *, updates: int) -> Iterator[None]:
        """Be ready for steps after `updates` updates, for a block of code."""
        while self._scheduler is not None and self._scheduler.last_epoch < updates:
            self._scheduler.step()
        with super().running(updates=updates):
            yield

    def update(self, norm: Tensor) -> None:
        """Update the weights if `norm` is finite, at the rate of the scheduler."""
        if self._scheduler is None:
            super().update(norm)
            return
        self.rate = torch.tensor(float(self.optimizers[0].param_groups[0]["lr"]), dtype=torch.float64)
        if math.isfinite(norm):
            for optimizer in self.optimizers:
                optimizer.step()
            self._scheduler.step()
            self.updates += 1
        self.scaler.update()
        self.drop_gradients()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the state of optimizers, loss scaling and losses."""
        load_own_state(self.losses, self.model, state["losses"])
        for optimizer, saved in zip(self.optimizers, state["optimizer"], strict=True):
            optimizer.load_state_dict(saved)
        self.scaler.load_state_dict(state["scaler"])


class PlannedTrainer(Trainer):
    """A Trainer of minisbert whose run is built by a plan, in a folder that may hold another run."""

    def __init__(self, *arguments: Any, plan: Plan, **options: Any) -> None:
        self.packed = partial(PlannedBuilder, plan=plan)
        super().__init__(*arguments, **options)

    def measure(self) -> TrainingHistory:
        """Compute the loss on the evaluation data; return a log of one entry."""
        builder: PlannedBuilder = self.packed(  # type: ignore[assignment]
            self.model, self._sets, self.config, multiple=self._multiple, eval_sets=self._eval_sets
        )
        return builder.measure()

    def row_count(self) -> int:
        """Return the number of rows to train on."""
        return sum(len(part.rows) for part in self._sets)

    def eval_counts(self) -> dict[str, int]:
        """Return the rows of each evaluation data set by name."""
        return {part.name: len(part.rows) for part in self._eval_sets}

    def _checkpoint(self, resume: bool | str | Path) -> Checkpoint | None:
        if resume is False and self.output_dir is not None and (found := Checkpoint.all_in(self.output_dir)):
            warn(
                f"{self.output_dir} holds checkpoints of an earlier run, up to {found[-1].folder.name}: those of the "
                f"same steps are replaced"
            )
            return None
        return super()._checkpoint(resume)


def default_sampler(dataset: Any, **options: Any) -> Any:
    """Return a sampler of shuffled rows, for users' samplers over several data sets."""
    from torch.utils.data import BatchSampler, RandomSampler

    order = RandomSampler(range(len(dataset)), generator=options["generator"])
    return BatchSampler(order, options["batch_size"], options["drop_last"])
