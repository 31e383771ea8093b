"""The training loop."""

from __future__ import annotations

import hashlib
import math
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from tqdm import tqdm

from .. import kernels
from ..ahead import ahead
from ..data.roles import TrainingRows
from ..data.sampling import Batch, EpochSampler
from ..errors import ConfigError, InputError, MinisbertError
from ..evaluation import Evaluator
from ..kernels.graphs import CudaGraphs
from ..losses import Loss
from ..model import EmbeddingModel
from ..modules.encoder import Embedding, Encoder
from .checkpoint import Checkpoint, check_same_run, prune
from .config import TrainingConfig
from .dataset import TrainingDataset
from .gradients import MOST_TOKENS, Gradients, Prepared, recordable
from .history import LogEntry, OnLog, TrainingHistory, TrainingLog
from .optimization import adamw
from .replay import Replay
from .update import DeviceUpdate, Update

_AHEAD = 4  # optimizer steps that are prepared while the device works


class TrainingRun:
    """One run: the loop and everything that changes while it goes.

    Args:
        model: trained in place.
        datasets: rows, each with the loss they are trained with.
        several: whether the data sets take turns as several do, even if there is only one.
        config: settings of the run.
        replay: whose ways to follow, or None for packed training.
        evaluator: called as the settings say.
        output_dir: where checkpoints, `best/`, `eval/` and `train_log.jsonl` go.
        on_log: called with each log entry.
        checkpoint: where to go on from.
        show_progress_bar: show one on a terminal.

    Raises:
        ConfigError: the checkpoint is of another run.
    """

    def __init__(
        self,
        model: EmbeddingModel,
        datasets: Sequence[tuple[TrainingRows, Loss]],
        *,
        several: bool,
        config: TrainingConfig,
        replay: Replay | None,
        evaluator: Evaluator | None,
        output_dir: Path | None,
        on_log: OnLog | None,
        checkpoint: Checkpoint | None,
        show_progress_bar: bool,
    ) -> None:
        self.model, self.config, self.replay = model, config, replay
        self.evaluator, self.output_dir = evaluator, output_dir
        self.device = model.device
        rows, losses = [rows for rows, _ in datasets], [loss for _, loss in datasets]
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
        self.fingerprint = _fingerprint(self.datasets, losses, several=several)
        self.updates_per_epoch = math.ceil(len(self.sampler) / config.gradient_accumulation)
        self.total = schedule_total = config.total_steps(len(self.sampler))
        self._words: Embedding | None = None
        on_device = kernels.on_gpu(next(model.parameters()))
        if replay is None:
            if not on_device and config.precision != "fp16" and not config.weight_decay:
                self._words = _word_table(model)
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
        self.gradients = Gradients(
            model,
            list(self.losses),
            self.datasets,
            precision=config.precision,
            scaler=self.scaler,
            replay=replay,
            record=graphs if on_device and recordable(model, losses) else None,
            most_tokens=MOST_TOKENS if on_device else None,
        )
        self.update = (partial(DeviceUpdate, record=graphs) if on_device else Update)(
            [parameter for parameter in model.parameters() if parameter.requires_grad],
            self.optimizers,
            self.scaler,
            learning_rate=config.learning_rate,
            warmup=config.warmup(schedule_total),
            total=schedule_total,
            max_grad_norm=config.max_grad_norm,
        )
        self.history = TrainingHistory()
        self.step = 0
        self.step_losses: list[Tensor] = []  # since the last log entry, read only when it is written
        self.loss_total = 0.0
        if checkpoint is not None:
            self._restore(checkpoint)
        log_file = output_dir / "train_log.jsonl" if output_dir else None
        self.log = TrainingLog(self.history, log_file, on_log)
        self._show = show_progress_bar

    def go(self) -> None:
        """Train from where the run stands to its end."""
        started = time.perf_counter()
        self.clock, self.tokens = started, 0
        self.history.evaluation_seconds = 0.0
        self.bar = tqdm(
            total=self.total, initial=self.step, desc="Training", unit="step", disable=None if self._show else True
        )
        self.update.start(self.step - self.history.skipped_steps)
        try:
            with self.bar, _sparse_gradients(self._words), self._prepared() as updates:
                for update in updates:
                    self._go_one_step(update)
        finally:
            self.update.end()
        if self.config.keep_best and self.history.best_step is not None and self.output_dir:
            self.model.load_state_dict(_weights_for(self.model, self.output_dir / "best"))
        self.history.steps = self.step
        self.history.train_loss = self.loss_total / max(1, self.step)
        self.history.seconds = time.perf_counter() - started

    def _go_one_step(self, update: Sequence[Prepared]) -> None:
        if not self.model.training:
            self.model.train()
        loss, tokens = self.gradients(update)
        norm = self.update()
        self.step_losses.append(loss)
        self.tokens += tokens
        self.step += 1
        self.bar.update()
        last = self.step == self.total
        if self.step % self.config.log_every == 0 or last:
            self._write_log(norm)
        if self.evaluator:
            self._evaluate_if_due(self.evaluator, last=last)
        if _due(self.step, self.config.save_every):
            self._save()

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
            epoch, done = divmod(step, self.updates_per_epoch)
            if self.replay is not None and not done:
                self.replay.start_epoch()
            updates = _grouped(self.sampler.epoch(epoch), self.config.gradient_accumulation)
            for update in islice(updates, done, done + self.total - step):
                step += 1
                yield update

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
        metrics = evaluator(self.model, folder, epoch=self._epoch(), steps=self.step)
        self.log.write(self._entry(**{f"eval_{name}": value for name, value in metrics.items()}))
        metric = metrics[evaluator.primary_metric or next(iter(metrics))]
        best = self.history.best_metric
        if not math.isnan(metric) and (best is None or metric > best):
            self.history.best_metric, self.history.best_step = metric, self.step
            if self.config.keep_best and self.output_dir:
                self.model.save_pretrained(self.output_dir / "best", create_model_card=False)
        seconds = time.perf_counter() - paused
        self.clock += seconds  # evaluation does not count as training time
        self.history.evaluation_seconds += seconds

    def _save(self) -> None:
        if self.output_dir is None:
            return
        self._count_skipped()
        state = {
            "step": self.step,
            "step_losses": [float(loss) for loss in self.step_losses],
            "loss_total": self.loss_total,
            "history": self.history.state(),
            "config": asdict(self.config),
            "fingerprint": self.fingerprint,
            "optimizer": [optimizer.state_dict() for optimizer in self.optimizers],
            "scaler": self.scaler.state_dict(),
            "losses": self.losses.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }
        Checkpoint.save(self.output_dir, self.model, step=self.step, state=state)
        prune(self.output_dir, keep=self.config.save_total_limit)

    def _restore(self, checkpoint: Checkpoint) -> None:
        """Go back to a checkpoint; after an error the model is what it was."""
        state = checkpoint.state()
        try:
            check_same_run(state, self.config, self.fingerprint, checkpoint=checkpoint.folder)
            weights = _weights_for(self.model, checkpoint.folder)
            self.losses.load_state_dict(state["losses"])
            for optimizer, saved in zip(self.optimizers, state["optimizer"], strict=True):
                optimizer.load_state_dict(saved)
            self.scaler.load_state_dict(state["scaler"])
            self.history = TrainingHistory(**state["history"])
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

    def _count_skipped(self) -> None:
        self.history.skipped_steps = self.step - self.update.done

    def _entry(self, **values: float) -> LogEntry:
        return {"step": self.step, "epoch": round(self._epoch(), 6), **values}

    def _epoch(self) -> float:
        return self.step / self.updates_per_epoch


@contextmanager
def _sparse_gradients(table: Embedding | None) -> Iterator[None]:
    """Let the gradients of a table hold only the rows that were looked up, for a block of code."""
    if table is not None:
        table.sparse = True
    try:
        yield
    finally:
        if table is not None:
            table.sparse = False


def _word_table(model: EmbeddingModel) -> Embedding | None:
    """The word embeddings, where few of their rows have a gradient at a step and that can be made use of."""
    encoder = model.transformer.auto_model
    if not isinstance(encoder, Encoder) or model.device.type != "cpu" or model.dtype != torch.float32:
        return None
    return encoder.embeddings.word if encoder.embeddings.word.weight.requires_grad else None


def _weights_for(model: EmbeddingModel, folder: Path) -> dict[str, Tensor]:
    """The weights saved in `folder`.

    Raises:
        ConfigError: they are of another model.
    """
    weights: dict[str, Tensor] = EmbeddingModel(folder, device="cpu").state_dict()
    shapes = {name: tensor.shape for name, tensor in weights.items()}
    if shapes != {name: tensor.shape for name, tensor in model.state_dict().items()}:
        raise ConfigError(f"the weights in {folder} are of another model; expected those of the one that is trained")
    return weights


def _fingerprint(datasets: Sequence[TrainingDataset], losses: Sequence[Loss], *, several: bool) -> str:
    parts = [dataset.fingerprint() for dataset in datasets]
    parts += [f"{type(loss).__name__} {loss.get_config_dict()}" for loss in losses]
    return hashlib.sha256(f"{several} {' '.join(parts)}".encode()).hexdigest()


def _grouped(batches: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    while group := list(islice(batches, size)):
        yield group


def _due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0
