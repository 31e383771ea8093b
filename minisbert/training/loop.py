"""The training loop."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from .. import kernels
from ..card import TrainingFacts
from ..data.roles import training_rows
from ..data.sampling import batches_per_epoch, epoch_batches
from ..errors import ConfigError, InputError
from ..evaluation import Evaluator
from ..losses import Loss
from ..model import EmbeddingModel
from ..modules.features import Features
from . import replay
from .checkpoint import Checkpoint, check_same_run, prune
from .config import TrainingConfig
from .dataset import TrainingDataset
from .history import LogEntry, OnLog, TrainingHistory, TrainingLog
from .optimization import adamw, linear_schedule

_AMP_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


class Trainer:
    """Fine-tunes a model on rows of texts.

    Args:
        model: trained in place.
        train_data: a path, a list of dicts or tuples, a dict of columns, or anything iterable of rows.
        loss: turns the embeddings of a batch and its labels into a number.
        config: settings of the run.
        evaluator: called every `eval_every` steps and at the end.
        output_dir: where checkpoints, `best/`, `eval/` and `train_log.jsonl` go.
        columns: the columns of `train_data` to use, in order.
        scale: the labels that stand for 0 and 1.
        on_log: called with each log entry.
        show_progress_bar: show one on a terminal, and say at the start how the columns are understood.

    Raises:
        InputError: the rows do not fit the loss.
        ConfigError: the settings contradict each other.
    """

    def __init__(
        self,
        model: EmbeddingModel,
        train_data: Any,
        *,
        loss: Loss,
        config: TrainingConfig | None = None,
        evaluator: Evaluator | None = None,
        output_dir: str | Path | None = None,
        columns: Sequence[str] | None = None,
        scale: tuple[float, float] | None = None,
        on_log: OnLog | None = None,
        show_progress_bar: bool = True,
    ) -> None:
        self.model = model
        self.config = config or TrainingConfig()
        self.loss = loss.to(model.device)
        self.evaluator = evaluator
        self.output_dir = Path(output_dir) if output_dir is not None else None
        self._rows = training_rows(train_data, columns=columns, scale=scale)
        self._on_log = on_log
        self._show = show_progress_bar
        self.loss.check_rows(tuple(self._rows.texts), self._rows.labels)
        if self.config.save_every and self.output_dir is None:
            raise ConfigError("got save_every and no output_dir; expected a folder for the checkpoints")
        if self.config.replay is not None and model.device.type != "cpu":
            raise ConfigError(f"got replay on {model.device}; expected the CPU: load the model with device='cpu'")
        half = {p.dtype for p in model.parameters()} - {torch.float32, torch.float64}
        if half:
            raise ConfigError(
                f"got weights in {half.pop()}; training needs float32: load the model with dtype='float32'"
            )
        if self.config.keep_best and (evaluator is None or self.output_dir is None):
            raise ConfigError("got keep_best; it needs an evaluator to tell the best, and an output_dir to keep it in")

    def train(self, *, resume: bool | str | Path = False) -> TrainingHistory:
        """Train, and leave the model in evaluation mode.

        Args:
            resume: go on from the newest checkpoint in `output_dir` (from the start if there is none), or from the
                one given.

        Returns:
            The course of the run.

        Raises:
            ConfigError: the checkpoint is of another run.
        """
        dataset = TrainingDataset(self._rows, self.model.transformer.tokenizer)
        self.model.report_truncation(dataset.truncated, dataset.texts)
        checkpoint = self._checkpoint(resume)
        with _seeded(self.config.seed, self.model.device), self._way_to_run():
            run = _Run(self, dataset, checkpoint)
            if self._show:
                start = f"resuming {checkpoint.folder}" if checkpoint else "starting"
                sys.stderr.write(f"{start}: {self._rows.describe()}, {type(self.loss).__name__}\n")
            run.go()
        self.model.eval()
        self.model.training_facts = self._facts(run.history)
        return run.history

    def _way_to_run(self) -> AbstractContextManager[None]:
        if self.config.replay is not None:
            return kernels.use("reference")
        return self.model.transformer.auto_model.compiled() if self.config.compile else nullcontext()

    def _checkpoint(self, resume: bool | str | Path) -> Checkpoint | None:
        if isinstance(resume, bool):
            found = Checkpoint.all_in(self.output_dir) if resume and self.output_dir else []
            return found[-1] if found else None
        folder = Path(resume)
        found = [checkpoint for checkpoint in Checkpoint.all_in(folder.parent) if checkpoint.folder == folder]
        if not found:
            raise InputError(
                f"got {folder} to resume from; expected a checkpoint folder, such as OUTPUT/checkpoint-500"
            )
        return found[0]

    def _facts(self, history: TrainingHistory) -> TrainingFacts:
        evaluations = [entry for entry in history.entries if any(name.startswith("eval_") for name in entry)]
        if self.config.keep_best and history.best_step is not None:
            evaluations = [entry for entry in evaluations if entry["step"] == history.best_step]
        final = evaluations[-1] if evaluations else {}
        return TrainingFacts(
            loss=type(self.loss).__name__,
            loss_parameters=self.loss.get_config_dict(),
            rows=len(self._rows),
            text_columns=tuple(self._rows.texts),
            label_column=self._rows.label_name,
            settings=asdict(self.config),
            metrics={name.removeprefix("eval_"): value for name, value in final.items() if name.startswith("eval_")},
            evaluated=self.evaluator.description if self.evaluator else "",
            log=tuple(history.entries),
        )


class _Run:
    """One run: the loop and everything that changes while it goes."""

    def __init__(self, trainer: Trainer, dataset: TrainingDataset, checkpoint: Checkpoint | None) -> None:
        self.model, self.config = trainer.model, trainer.config
        self.loss = trainer.loss if self.config.replay is None else replay.loss_of(trainer.loss, self.config.replay)
        self.evaluator, self.output_dir = trainer.evaluator, trainer.output_dir
        self.dataset, self.device = dataset, trainer.model.device
        config = self.config
        self.fingerprint = dataset.fingerprint()
        self.updates_per_epoch = math.ceil(
            batches_per_epoch(len(dataset), config.batch_size) / config.gradient_accumulation
        )
        self.total = config.total_steps(batches_per_epoch(len(dataset), config.batch_size))
        self.warmup = config.warmup(self.total)
        self.optimizer = adamw(
            self.model, self.loss, learning_rate=config.learning_rate, weight_decay=config.weight_decay
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "fp16")
        self.history = TrainingHistory()
        self.step = 0
        self.losses: list[Tensor] = []  # of the steps since the last log entry, read only when it is written
        self.loss_total = 0.0
        if checkpoint is not None:
            self._restore(checkpoint)
        log_file = self.output_dir / "train_log.jsonl" if self.output_dir else None
        self.log = TrainingLog(self.history, log_file, trainer._on_log)
        self._show = trainer._show

    def go(self) -> None:
        """Train from where the run stands to its end."""
        started = time.perf_counter()
        self.clock, self.tokens = started, 0
        self.bar = tqdm(
            total=self.total, initial=self.step, desc="Training", unit="step", disable=None if self._show else True
        )
        with self.bar:
            for update in self._updates():
                self.model.train()
                norm = self._optimize(update)
                self.step += 1
                self.bar.update()
                last = self.step == self.total
                if self.step % self.config.log_every == 0 or last:
                    self._write_log(norm)
                if self.evaluator and (last or _due(self.step, self.config.eval_every)):
                    self._evaluate(self.evaluator)
                if _due(self.step, self.config.save_every):
                    self._save()
        if self.config.keep_best and self.history.best_step is not None and self.output_dir:
            _load_weights(self.model, self.output_dir / "best")
        self.history.steps = self.step
        self.history.train_loss = self.loss_total / max(1, self.step)
        self.history.seconds = time.perf_counter() - started

    def _updates(self) -> Iterator[list[NDArray[np.int64]]]:
        """For each optimizer step that is left, the row numbers of its batches."""
        config = self.config
        while self.step < self.total:
            epoch, done = divmod(self.step, self.updates_per_epoch)
            if config.replay is not None and not done:
                replay.draw_for_loader()
            batches = epoch_batches(len(self.dataset), config.batch_size, seed=config.seed, epoch=epoch)
            yield from islice(_grouped(batches, config.gradient_accumulation), done, done + self.total - self.step)

    def _optimize(self, update: Sequence[NDArray[np.int64]]) -> Tensor:
        """One optimizer step over the batches of `update`; returns the norm of the gradients."""
        config = self.config
        rate = config.learning_rate * linear_schedule(
            self.step - self.history.skipped_steps, warmup=self.warmup, total=self.total
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.learning_rate = rate
        step_loss = torch.zeros((), device=self.device)
        for rows in update:
            with self._autocast():
                embeddings = self._embed(rows)
            labels = self.dataset.labels(rows)
            loss = self.loss(embeddings, None if labels is None else labels.to(self.device)) / len(update)
            self.scaler.scale(loss).backward()
            step_loss += loss.detach()
        self.scaler.unscale_(self.optimizer)
        limit = config.max_grad_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        self._scaled_step()
        self.optimizer.zero_grad(set_to_none=True)
        self.losses.append(step_loss)
        return norm

    def _embed(self, rows: NDArray[np.int64]) -> list[Tensor]:
        """Embeddings of each text column: (rows, dim) each."""
        if self.config.replay is not None:
            columns = self.dataset.columns(rows)
            self.tokens += sum(len(text) for texts in columns for text in texts)
            return replay.forward(self.model, columns, version=self.config.replay)
        batch = self.dataset.pack(rows).to(self.device)
        self.tokens += batch.tokens
        embeddings = self.model(Features(batch)).sentences[batch.restore]  # (columns * rows, dim)
        return list(embeddings.chunk(self.dataset.column_count))

    def _scaled_step(self) -> None:
        if not self.scaler.is_enabled():
            self.optimizer.step()
            return
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.get_scale() < scale:  # the gradients overflowed, and no weight was changed
            self.history.skipped_steps += 1

    def _autocast(self) -> AbstractContextManager[Any]:
        dtype = _AMP_DTYPES.get(self.config.precision)
        return torch.autocast(self.device.type, dtype) if dtype else nullcontext()

    def _write_log(self, norm: Tensor) -> None:
        losses = torch.stack(self.losses).cpu().double()
        self.loss_total += float(losses.sum())
        now = time.perf_counter()
        entry = self._entry(
            loss=float(losses.mean()),
            learning_rate=self.learning_rate,
            grad_norm=float(norm),
            tokens_per_second=self.tokens / max(now - self.clock, 1e-9),
        )
        self.history.tokens += self.tokens
        self.losses, self.tokens, self.clock = [], 0, now
        self.bar.set_postfix(
            loss=f"{entry['loss']:.4f}",
            lr=f"{entry['learning_rate']:.2e}",
            tokens=f"{entry['tokens_per_second']:,.0f}/s",
        )
        self.log.write(entry)

    def _evaluate(self, evaluator: Evaluator) -> None:
        paused = time.perf_counter()
        if self.config.replay is not None:
            replay.draw_for_loader()
        folder = self.output_dir / "eval" if self.output_dir else None
        metrics = evaluator(self.model, folder, epoch=self._epoch(), steps=self.step)
        self.log.write(self._entry(**{f"eval_{name}": value for name, value in metrics.items()}))
        metric = metrics[evaluator.primary_metric or next(iter(metrics))]
        best = self.history.best_metric
        if not math.isnan(metric) and (best is None or metric > best):
            self.history.best_metric, self.history.best_step = metric, self.step
            if self.config.keep_best and self.output_dir:
                self.model.save_pretrained(self.output_dir / "best", create_model_card=False)
        self.clock += time.perf_counter() - paused  # evaluation does not count as training time

    def _save(self) -> None:
        if self.output_dir is None:
            return
        state = {
            "step": self.step,
            "losses": [float(loss) for loss in self.losses],
            "loss_total": self.loss_total,
            "history": self.history.state(),
            "config": asdict(self.config),
            "fingerprint": self.fingerprint,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "loss": self.loss.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }
        Checkpoint.save(self.output_dir, self.model, step=self.step, state=state)
        prune(self.output_dir, keep=self.config.save_total_limit)

    def _restore(self, checkpoint: Checkpoint) -> None:
        state = checkpoint.state()
        check_same_run(state, self.config, self.fingerprint, checkpoint=checkpoint.folder)
        _load_weights(self.model, checkpoint.folder)
        self.loss.load_state_dict(state["loss"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.history = TrainingHistory(**state["history"])
        self.step = state["step"]
        self.losses = [torch.tensor(value, device=self.device) for value in state["losses"]]
        self.loss_total = state["loss_total"]
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"], self.device)

    def _entry(self, **values: float) -> LogEntry:
        return {"step": self.step, "epoch": round(self._epoch(), 6), **values}

    def _epoch(self) -> float:
        return self.step / self.updates_per_epoch


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch for a block of code, and leave its generators as they were."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def _load_weights(model: EmbeddingModel, folder: Path) -> None:
    saved = EmbeddingModel(folder, device="cpu")
    model.load_state_dict(saved.state_dict())


def _grouped(batches: Iterator[NDArray[np.int64]], size: int) -> Iterator[list[NDArray[np.int64]]]:
    while group := list(islice(batches, size)):
        yield group


def _due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0
