"""The training loop."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NoReturn, cast

import torch
from torch import Tensor, nn
from tqdm import tqdm

from .. import kernels
from ..ahead import ahead
from ..cuda_graphs import CudaGraphs
from ..data.roles import TrainingRows
from ..data.sampling import Batch, EpochSampler
from ..errors import DivergenceError, InputError, MinisbertError
from ..evaluation import Evaluator
from ..losses import Loss
from ..model import EmbeddingModel
from ..modules.layers import Embedding
from .checkpoint import Checkpoint, check_same_run, newest_whole, prune, weights_in
from .config import TrainingConfig
from .dataset import TrainingDataset
from .finite import MOST_SKIPPED, SkippedSteps, all_finite, shown_rows
from .gradients import MOST_TOKENS, Gradients, Prepared, recordable
from .history import LogEntry, OnLog, TrainingHistory, TrainingLog
from .identity import Identity
from .metrics import metric_numbers
from .optimization import LinearSchedule, adamw, check_moments
from .record import shown_name
from .replay import Replay
from .stopping import Stop, stopped
from .tables import sparse_gradients, word_table
from .update import DeviceUpdate, Update

_AHEAD = 4  # optimizer steps that are prepared while the device works


class TrainingRun:
    """One run: the loop and everything that changes while it goes.

    Args:
        model: trained in place.
        datasets: rows, each with a name and the loss they are trained with.
        several: whether the data sets take turns as several do, even if there is only one.
        config: settings of the run.
        replay: whose ways to follow, or None for packed training.
        evaluator: called as the settings say.
        output_dir: where checkpoints, `best/`, `eval/` and `train_log.jsonl` go.
        on_log: called with each log entry.
        checkpoint: where to go on from.
        start: digest of the weights that the run started from; by default those that the model has.
        show_progress_bar: show one on a terminal.

    Raises:
        ConfigError: the checkpoint is of another run.
    """

    def __init__(
        self,
        model: EmbeddingModel,
        datasets: Sequence[tuple[str, TrainingRows, Loss]],
        *,
        several: bool,
        config: TrainingConfig,
        replay: Replay | None,
        evaluator: Evaluator | None,
        output_dir: Path | None,
        on_log: OnLog | None,
        checkpoint: Checkpoint | None,
        start: str | None,
        show_progress_bar: bool,
    ) -> None:
        self.model, self.config, self.replay = model, config, replay
        self.evaluator, self.output_dir = evaluator, output_dir
        self.device = model.device
        rows, losses = [rows for _, rows, _ in datasets], [loss for _, _, loss in datasets]
        self.names = [f"data set {name!r}" if shown_name(name) else part.source for name, part, _ in datasets]
        self.datasets = [TrainingDataset(part, model.transformer.tokenizer) for part in rows]
        model.report_truncation(
            sum(dataset.truncated for dataset in self.datasets), sum(dataset.texts for dataset in self.datasets)
        )
        self.losses = nn.ModuleList([replay.loss(loss) for loss in losses] if replay else losses)
        self.sampler = EpochSampler(
            rows,
            batch_size=config.batch_size,
            seed=config.seed,
            several=config.multi_dataset_batch_sampler if several else None,
            no_duplicates=config.batch_sampler == "no_duplicates",
            duplicates_seed=partial(replay.duplicates_seed, seed=config.seed, several=several) if replay else None,
        )
        if config.batch_sampler == "no_duplicates" and (left := self.sampler.left_out(0)):
            warnings.warn(
                f"{left} of {sum(map(len, rows))} rows are left out of each epoch, or about so many: their texts stand "
                f"in too many other rows for batches of {config.batch_size} without duplicates",
                stacklevel=4,
            )
        self.identity = Identity.of(model, self.datasets, losses, several=several)
        if start is not None:
            self.identity = replace(self.identity, weights=start)
        self.updates_per_epoch = math.ceil(len(self.sampler) / config.gradient_accumulation)
        self.total = schedule_total = config.total_steps(len(self.sampler))
        self._words: Embedding | None = None
        on_device = kernels.on_gpu(next(model.parameters()))
        if replay is None:
            if not on_device and config.precision != "fp16" and not config.weight_decay:
                self._words = word_table(model)
            self.optimizers = adamw(
                model,
                losses,
                learning_rate=config.learning_rate,
                weight_decay=config.weight_decay,
                table=cast(nn.Parameter, self._words.weight) if self._words else None,
                on_device=on_device,
            )
        else:
            self.optimizers = [replay.optimizer(model, losses, config)]
            schedule_total = replay.schedule_steps(self.total, [len(part) for part in rows], config)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "fp16")
        graphs = CudaGraphs(self.device)
        self.update = (partial(DeviceUpdate, record=graphs) if on_device else Update)(
            [parameter for parameter in model.parameters() if parameter.requires_grad],
            self.optimizers,
            self.scaler,
            LinearSchedule(config.learning_rate, config.warmup(schedule_total), schedule_total),
            max_grad_norm=config.max_grad_norm,
        )
        self.gradients = Gradients(
            model,
            list(self.losses),
            self.datasets,
            precision=config.precision,
            scaler=self.scaler,
            drop=self.update.drop,
            replay=replay,
            record=graphs if on_device and recordable(model, losses) else None,
            most_tokens=MOST_TOKENS if on_device else None,
        )
        self.history = TrainingHistory()
        self.step = 0
        self.step_losses: list[Tensor] = []  # since the last log entry, read only when it is written
        self.loss_total = 0.0
        self.checkpoint = checkpoint  # the newest
        if checkpoint is not None:
            self._restore(checkpoint)
        self._skipped = SkippedSteps(self.step)
        self._never_waits = on_device
        log_file = output_dir / "train_log.jsonl" if output_dir else None
        self.log = TrainingLog(self.history, log_file, on_log)
        self._show = show_progress_bar

    def go(self) -> None:
        """Train from where the run stands to its end.

        Raises:
            DivergenceError: gradients stay infinite or NaN, or weights become so.
            InputError: a file cannot be written.
            TrainingInterrupted: Ctrl-C came.
            TrainingTerminated: SIGTERM came.
        """
        self.clock, self.tokens = time.perf_counter(), 0
        self._began = self.clock - self.history.seconds
        self.bar = tqdm(
            total=self.total, initial=self.step, desc="Training", unit="step", disable=None if self._show else True
        )
        self.update.start(self.step - self.history.skipped_steps)
        try:
            with Stop() as stop, self.bar, sparse_gradients(self._words), self._prepared() as updates:
                for update in updates:
                    self._go_one_step(update)
                    if stop.signal is not None:
                        self._stop(stop.signal)
        finally:
            self.update.end()
        self._check_weights()
        if self.step and self.history.skipped_steps == self.step:
            warnings.warn(
                f"all {self.step} steps were skipped, because their gradients were not finite: the model is what it "
                f"was",
                stacklevel=3,
            )
        if self.config.keep_best and self.history.best_step is not None and self.output_dir:
            self.model.load_state_dict(weights_in(self.output_dir / "best", self.model))
        self.history.steps = self.step
        self.history.train_loss = self.loss_total / max(1, self.step)
        self.history.seconds = time.perf_counter() - self._began

    def _go_one_step(self, update: Sequence[Prepared]) -> None:
        if not self.model.training:
            self.model.train()
        loss, tokens = self.gradients(update)
        norm = self.update(loss)
        self.step_losses.append(loss)
        self.tokens += tokens
        self.step += 1
        self._skipped.add(norm)
        self.bar.update()
        if not self._never_waits:
            self._check_gradients()
        last = self.step == self.total
        if self.step % self.config.log_every == 0 or last:
            self._write_log(norm)
        if self.evaluator:
            self._evaluate_if_due(self.evaluator, last=last)
        if self.output_dir is not None and _due(self.step, self.config.save_every):
            self._check_gradients()
            if not self._skipped.now:  # or a checkpoint that may be worse takes the place of a good one
                self.checkpoint = self._save(self.output_dir)

    @contextmanager
    def _prepared(self) -> Iterator[Iterator[list[Prepared]]]:
        """What is left to do, for a block of code; on a GPU prepared in another thread while the device works."""
        prepared = map(self.gradients.prepare, self._updates())
        if self.device.type == "cpu":
            yield prepared
        else:
            with closing(ahead(prepared, depth=_AHEAD)) as made:
                yield made

    def _updates(self) -> Iterator[list[Batch]]:
        """For each optimizer step that is left, its batches."""
        step = self.step
        while step < self.total:
            if self.replay is not None and step % self.updates_per_epoch == 0:
                self.replay.start_epoch()
            for update in islice(self._updates_of_epoch(step), self.total - step):
                step += 1
                yield update

    def _updates_of_epoch(self, step: int) -> Iterator[list[Batch]]:
        """What is left of an epoch after `step` optimizer steps of the run."""
        epoch, done = divmod(step, self.updates_per_epoch)
        updates = _grouped(self.sampler.epoch(epoch), self.config.gradient_accumulation)
        return islice(updates, done, None)

    def _write_log(self, norm: Tensor) -> None:
        self._count_skipped()
        losses = torch.stack(self.step_losses).cpu().double()
        self.loss_total += float(losses.sum())
        now = time.perf_counter()
        entry = self._entry(
            loss=float(losses.mean()),
            learning_rate=self.update.rate,
            grad_norm=float(norm),
            tokens_per_second=self.tokens / max(now - self.clock, 1e-9),
        )
        self.history.tokens += self.tokens
        self.step_losses, self.tokens, self.clock = [], 0, now
        self.bar.set_postfix(
            loss=f"{entry['loss']:.4f}",
            lr=f"{entry['learning_rate']:.2e}",
            tokens=f"{entry['tokens_per_second']:,.0f}/s",
        )
        self.log.write(entry)
        self._check_gradients()

    def _evaluate_if_due(self, evaluator: Evaluator, *, last: bool) -> None:
        by_steps = _due(self.step, self.config.eval_every)
        by_epoch = self.config.eval_each_epoch and self.step % self.updates_per_epoch == 0
        if not (by_steps or by_epoch or last):
            return
        if self.replay is not None:
            self.replay.start_evaluation(at_epoch_end=not by_steps)
        self._evaluate(evaluator)

    def _evaluate(self, evaluator: Evaluator) -> None:
        paused = time.perf_counter()
        folder = self.output_dir / "eval" if self.output_dir else None
        metrics = metric_numbers(evaluator(self.model, folder, epoch=self._epoch(), steps=self.step), evaluator)
        self.log.write(self._entry(**{f"eval_{name}": value for name, value in metrics.items()}))
        metric = metrics[evaluator.primary_metric or next(iter(metrics))]
        best = self.history.best_metric
        if not math.isnan(metric) and (best is None or metric > best):
            self.history.best_metric, self.history.best_step = metric, self.step
            if self.config.keep_best and self.output_dir:
                self._check_weights()
                self.model.save_pretrained(self.output_dir / "best", create_model_card=False)
        seconds = time.perf_counter() - paused
        self.clock += seconds  # evaluation does not count as training time
        self.history.evaluation_seconds += seconds

    def _save(self, output_dir: Path) -> Checkpoint:
        self._check_weights()
        self._count_skipped()
        self.history.seconds = time.perf_counter() - self._began
        state = {
            "step": self.step,
            "step_losses": [float(loss) for loss in self.step_losses],
            "loss_total": self.loss_total,
            "history": self.history.state(),
            "config": asdict(self.config),
            "identity": asdict(self.identity),
            "optimizer": [optimizer.state_dict() for optimizer in self.optimizers],
            "scaler": self.scaler.state_dict(),
            "losses": self.losses.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }
        checkpoint = Checkpoint.save(output_dir, self.model, step=self.step, state=state)
        if self.config.save_total_limit is not None:
            prune(output_dir, newest=checkpoint, keep=self.config.save_total_limit)
        return checkpoint

    def _stop(self, number: int) -> NoReturn:
        """End the run because of a signal, so that it can go on later."""
        saved = self.checkpoint is not None and self.checkpoint.step == self.step
        if self.output_dir is not None and not saved:
            self.checkpoint = self._save(self.output_dir)
        folder = self.checkpoint.folder if self.checkpoint is not None else None
        raise stopped(number, step=self.step, total=self.total, checkpoint=folder)

    def _check_gradients(self) -> None:
        """End the run where too many steps in a row were skipped; waits for the device."""
        first = self._skipped.first()
        if first is None:
            return
        batches = next(self._updates_of_epoch(first - 1))
        raise DivergenceError(
            f"the gradients of {MOST_SKIPPED} steps in a row are not finite, first those of step {first}: "
            f"{shown_rows(batches, self.names)} (counted from 0); expected finite ones: look at these rows and their "
            f"labels, or start anew in another folder with a lower learning_rate; {self._last_good()}"
        )

    def _check_weights(self) -> None:
        """End the run where weights are not finite, before they are saved anywhere."""
        if not all_finite([*self.model.parameters(), *self.losses.parameters()]):
            raise DivergenceError(
                f"the weights are not finite after step {self.step}, and are not saved; expected finite ones: start "
                f"anew in another folder with a lower learning_rate, or from another model; {self._last_good()}"
            )

    def _last_good(self) -> str:
        checkpoint = newest_whole(self.output_dir)[0] if self.output_dir is not None else None
        return f"the last good checkpoint is {checkpoint.folder}" if checkpoint else "there is no checkpoint"

    def _restore(self, checkpoint: Checkpoint) -> None:
        """Go back to a checkpoint; after an error the model is what it was."""
        state = checkpoint.state()
        try:
            weights = weights_in(checkpoint.folder, self.model)
            check_same_run(state, self.config, self.identity, weights, checkpoint=checkpoint.folder)
            self.identity = Identity(**state["identity"])
            self.losses.load_state_dict(state["losses"])
            for optimizer, saved in zip(self.optimizers, state["optimizer"], strict=True):
                optimizer.load_state_dict(saved)
                check_moments(optimizer)
            self.scaler.load_state_dict(state["scaler"])
            self.history = TrainingHistory(**state["history"])
            self._check_best()
            self.step = range(self.total + 1)[state["step"]]
            self.step_losses = [
                torch.tensor(value, device=self.device, dtype=self.model.dtype) for value in state["step_losses"]
            ]
            self.loss_total = float(state["loss_total"])
            torch.set_rng_state(state["rng"])
            if state["cuda_rng"] is not None and self.device.type == "cuda":
                torch.cuda.set_rng_state(state["cuda_rng"], self.device)
        except MinisbertError:
            raise
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).strip().split("\n")[0]
            raise InputError(
                f"the state in {checkpoint.folder} does not fit this run ({reason}); resume from an earlier checkpoint"
            ) from error
        self.model.load_state_dict(weights)

    def _check_best(self) -> None:
        """Refuse to go on towards weights that are gone."""
        best = self.output_dir / "best" if self.output_dir is not None else None
        if self.config.keep_best and self.history.best_step is not None and best is not None and not best.is_dir():
            raise InputError(f"{best} is missing; expected the best weights so far there: put them back, or start anew")

    def _count_skipped(self) -> None:
        self.history.skipped_steps = self.step - self.update.done

    def _entry(self, **values: float) -> LogEntry:
        return {"step": self.step, "epoch": round(self._epoch(), 6), **values}

    def _epoch(self) -> float:
        return self.step / self.updates_per_epoch


def _grouped(batches: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    while group := list(islice(batches, size)):
        yield group


def _due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0
