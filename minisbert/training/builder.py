"""From the arguments of a `Trainer` to the parts of a run, and a run back to a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from .. import kernels
from ..data.roles import TrainingRows
from ..data.sampling import EpochSampler
from ..distributed import by_first, rank, world_size
from ..errors import InputError, MinisbertError, first_line, warn
from ..evaluation import Evaluator
from ..losses import Loss
from ..model import EmbeddingModel
from .adamw import Optimizer
from .checkpoint import Checkpoint, Fingerprint, check_same_run, saved_weights, set_random_state
from .config import TrainingConfig
from .dataset import Place, TrainingBatches, TrainingDataset
from .history import OnLog, TrainingLog
from .loop import Engine, TrainingRun
from .naming import own_parameters, own_rates
from .optimization import adamw, sparse_word_table
from .prompts import column_prompts, leaves_out_prompts
from .record import shown_name
from .schedules import Schedule, make_schedule
from .selection import loss_metric
from .validation import EvaluationSet, Validation


class TrainingSet(NamedTuple):
    """A data set, its name ("" for the only one), and the loss it is trained with."""

    name: str
    rows: TrainingRows
    loss: Loss


@dataclass
class RunBuilder:
    """Build a packed training run part by part; `replay.py` builds some parts in the reference's way.

    Attributes:
        model: the model to train.
        sets: the data sets.
        eval_sets: those to evaluate the loss on.
        config: the settings.
        multiple: sample as from several data sets, even if there is only one.
        eval_datasets: the rows of `eval_sets`, tokenized by `run`.
    """

    model: EmbeddingModel
    sets: Sequence[TrainingSet]
    config: TrainingConfig
    multiple: bool
    eval_sets: Sequence[TrainingSet] = ()
    eval_datasets: Sequence[TrainingDataset] = ()

    def run(
        self, *, evaluator: Evaluator | None, output_dir: Path | None, on_log: OnLog | None, show_progress_bar: bool
    ) -> TrainingRun:
        """Build a run that starts at its first step."""
        config, sampler = self.config, self.sampler()
        datasets = [self.dataset(part) for part in self.sets]
        self.eval_datasets = [self.dataset(part) for part in self.eval_sets]
        tokenized = [*datasets, *self.eval_datasets]
        self.tokenize_for_guides([*self.sets, *self.eval_sets], tokenized)
        self.model.report_truncation(
            sum(dataset.truncated for dataset in tokenized), sum(dataset.texts for dataset in tokenized)
        )
        batches = TrainingBatches(
            datasets,
            [f"data set {part.name!r}" if shown_name(part.name) else part.rows.source for part in self.sets],
            sampler,
            accumulation=config.gradient_accumulation,
            shared=self.shares,
            on_epoch_start=self.start_epoch,
        )
        total_steps = self.total_steps(math.ceil(len(sampler) / (1 if self.shares else world_size())))
        engine = self.engine(total_steps)
        writes = rank() == 0
        file = self.log_file(output_dir) if output_dir and writes else None
        return TrainingRun(
            model=self.model,
            config=config,
            batches=batches,
            engine=engine,
            log=TrainingLog(epoch_after=batches.epoch_after, file=file, on_log=on_log if writes else None),
            evaluator=evaluator,
            output_dir=output_dir,
            fingerprint=Fingerprint.of(self.model, tokenized, self.losses(), multiple=self.multiple),
            total_steps=total_steps,
            validation=self.validation(engine),
            show_progress_bar=show_progress_bar and writes,
            on_evaluation=self.start_evaluation,
        )

    def tokenize_for_guides(self, parts: Sequence[TrainingSet], datasets: Sequence[TrainingDataset]) -> None:
        """Give data sets the tokens that the guides of their losses read, where these are other ones."""
        for part, dataset in zip(parts, datasets, strict=True):
            if isinstance(part.loss.guide, EmbeddingModel) and not part.loss.trains_guide:
                dataset.guide = self.guide_dataset(part, part.loss.guide.to(self.model.device).eval())

    @property
    def shares(self) -> bool:
        """True if the processes of the run share every batch, because a loss gathers their embeddings."""
        return world_size() > 1 and any(loss.gather_across_devices for loss in self.losses())

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Compute in the way of the run for a block of code."""
        encoder = self.model.transformer.encoder
        with (
            encoder.compiled() if self.config.compile else nullcontext(),
            encoder.recomputing() if self.config.gradient_checkpointing else nullcontext(),
        ):
            yield

    def sampler(self) -> EpochSampler:
        """Make the sampler, and warn if it cannot place all rows."""
        config, rows = self.config, [part.rows for part in self.sets]
        size = config.batch_size * (world_size() if self.shares else 1)
        sampler = self._sampler(rows, batch_size=size, multiple=self.multiple)
        if config.batch_sampler != "batch_sampler" and (left := sampler.left_out(0)):
            reason = (
                f"their texts are in too many other rows for batches of {size} without duplicates"
                if config.batch_sampler == "no_duplicates"
                else "no other row of their label is left to pair them with, or no other label"
            )
            warn(f"about {left} of {sum(map(len, rows))} rows are left out of each epoch: {reason}")
        return sampler

    def _sampler(self, rows: Sequence[TrainingRows], *, batch_size: int, multiple: bool) -> EpochSampler:
        config = self.config
        weights = (multiple and config.dataset_weights) or {}
        return EpochSampler(
            rows,
            batch_size=batch_size,
            seed=config.seed,
            several=config.multi_dataset_batch_sampler if multiple else None,
            no_duplicates=config.batch_sampler == "no_duplicates",
            duplicates_seed=self.duplicates_seed,
            group_by_label=config.batch_sampler == "group_by_label",
            weights=[weights[part.name] for part in self.sets] if weights else None,
        )

    def validation(self, engine: Engine) -> Validation | None:
        """Make what computes the loss on the evaluation data, or None if there is none."""
        size = self.config.eval_batch_size
        sets = [
            EvaluationSet(
                loss_metric(part.name),
                rows,
                self._sampler([part.rows], batch_size=size, multiple=False),
                self.computed_loss(part.loss),
                self.rows_of_last(part),
            )
            for part, rows in zip(self.eval_sets, self.eval_datasets, strict=True)
        ]
        return Validation(engine, sets) if sets else None

    def engine(self, total_steps: int) -> Engine:
        """Make the engine for the model's device, with optimizers and schedule."""
        losses = [self.computed_loss(loss) for loss in self.losses()]
        return self.engine_class()(self.model, losses, self.optimizers(), self.schedule(total_steps), self.config)

    def schedule(self, total_steps: int) -> Schedule:
        """Make the schedule of the learning rate."""
        config, steps = self.config, self.schedule_steps(total_steps)
        schedule = make_schedule(
            config.lr_scheduler_type,
            highest=config.learning_rate,
            warmup=config.warmup(steps),
            total=steps,
            parameters=config.lr_scheduler_kwargs,
        )
        if total_steps == 1 and not schedule.factor(torch.zeros(())):
            warn("the only step has a learning rate of 0, since it is the warm-up: pass warmup_steps=0")
        return schedule

    def prompts(self, part: TrainingSet) -> dict[str, str]:
        """Return the prompt of each column of a data set that has one."""
        return column_prompts(self.config.prompts, list(part.rows.texts), dataset=part.name)

    def own_rates(self) -> dict[nn.Parameter, float]:
        """Return the parameters with a learning rate of their own."""
        return own_rates(self.model, self.losses(), self.config.learning_rate_mapping)

    def losses(self) -> list[Loss]:
        """Return the loss of each data set."""
        return [part.loss for part in self.sets]

    # ---- what a replay builds in another way --------------------------------------------------------------------

    def dataset(self, part: TrainingSet) -> TrainingDataset:
        """Tokenize the rows of a data set, as its loss needs them."""
        return TrainingDataset(
            part.rows,
            self.model.transformer.text_tokenizer,
            prompts=self.prompts(part),
            leaves_out_prompts=leaves_out_prompts(self.model),
            apart=bool(part.loss.forms),
            labels_equal_texts=part.loss.labels_equal_texts,
        )

    def guide_dataset(self, part: TrainingSet, guide: EmbeddingModel) -> TrainingDataset | None:
        """Tokenize the rows of a data set for the guide of its loss; None if it is given the tokens of the model."""
        return TrainingDataset(part.rows, guide.transformer.text_tokenizer)

    def engine_class(self) -> type[Engine]:
        """Return the kind of engine for the model's device."""
        on_gpu = kernels.on_gpu(next(self.model.parameters()))
        if self.model.device.type == "cpu" and not on_gpu:
            return Engine
        from .gpu import CapturedEngine, PiecewiseEngine  # which a CPU has no use for

        return CapturedEngine if on_gpu else PiecewiseEngine

    def computed_loss(self, loss: Loss) -> Loss:
        """Return the loss that computes `loss`."""
        return loss

    def optimizers(self) -> list[Optimizer]:
        """Make AdamW, where possible with a sparse one for the word embeddings."""
        config, on_gpu = self.config, kernels.on_gpu(next(self.model.parameters()))
        shared = {*own_parameters(self.losses(), self.model)} & {*self.model.parameters()}
        dense = on_gpu or config.precision == "fp16" or config.weight_decay or shared
        return adamw(
            self.model,
            self.losses(),
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            own_rates=self.own_rates(),
            word_table=None if dense else sparse_word_table(self.model),
            capturable=on_gpu,
        )

    def total_steps(self, batches_per_epoch: int) -> int:
        """Return the optimizer steps of the whole run."""
        return self.config.total_steps(batches_per_epoch)

    def schedule_steps(self, total_steps: int) -> int:
        """Return the updates that the schedule of the learning rate counts on."""
        return total_steps

    def duplicates_seed(self, epoch: int) -> int:
        """Return the seed of batches without duplicates."""
        return self.config.seed + epoch

    def rows_of_last(self, part: TrainingSet) -> int | None:
        """Return the rows that the last batch of an evaluation counts as; None for those that it has."""
        return None

    def log_file(self, output_dir: Path) -> Path | None:
        """Return the file that log entries are appended to, or None."""
        return output_dir / "train_log.jsonl"

    def start_epoch(self) -> None:
        """Do what comes before the first batch of an epoch: nothing."""

    def start_evaluation(self, step: int) -> None:
        """Do what comes before the evaluation after a step: nothing."""


def resume_from(checkpoint: Checkpoint, run: TrainingRun, schedule: Callable[[int], Schedule]) -> None:
    """Bring a run to where a checkpoint was saved; after an error the model is unchanged.

    Args:
        checkpoint: where the run goes on.
        run: a run that starts at its first step, perhaps in another number of processes.
        schedule: total steps to the learning rate, for a run that then has another number of them.

    Raises:
        ConfigError: the checkpoint is of another run.
        InputError: it is damaged, or does not fit this run.
    """
    state = by_first(checkpoint.state)
    try:
        weights = by_first(lambda: saved_weights(checkpoint.folder, run.model))
        check_same_run(checkpoint, state, weights, run.config, run.fingerprint)
        run.fingerprint = Fingerprint(**state["identity"])
        run.engine.load_state_dict(state)
        run.log.load_state_dict(state, like=next(run.model.parameters()))
        if run.config.keep_best and run.log.history.best_step is not None and run.output_dir is not None:
            best = run.output_dir / "best"
            if not by_first(best.is_dir):
                raise InputError(
                    f"{best} is missing; expected the best weights so far there: put them back, or start again"
                )
        run.step = state["step"]
        epochs = run.total_steps // run.batches.steps_per_epoch
        if "place" in state and run.batches.go_on(run.step, Place(*state["place"])) and run.config.max_steps is None:
            run.total_steps = run.batches.last_step(epochs)
            run.engine.schedule = schedule(run.total_steps)
        run.step = range(run.total_steps + 1)[run.step]
        set_random_state(state, run.model.device)
    except MinisbertError:
        raise
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"the state in {checkpoint.folder} does not fit this run ({first_line(error)}); resume from an earlier "
            f"checkpoint"
        ) from error
    run.model.load_state_dict(weights)
    run.checkpoint = checkpoint
