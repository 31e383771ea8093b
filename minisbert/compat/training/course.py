"""Logs, evaluations, checkpoints and callbacks after each step of a run, when the reference has them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...distributed import by_first, rank
from ...errors import ConfigError
from ...storage.files import read_json_object
from ...training.loop import Action, TrainingRun
from ...training.selection import loss_metric
from .arguments import BaseTrainingArguments
from .callbacks import CallbackHandler, TrainerState
from .rotation import keep_only, rotate

_STATE = "trainer_state.json"
_DIGITS = 4  # of terms of a loss in the log
Log = Callable[[dict[str, float]], None]


@dataclass
class Course:
    """Decide what follows each step.

    Attributes:
        arguments: of the run.
        state: brought up to date at each step.
        callbacks: called in between; they may ask for more.
        log: takes each entry of the log.
        eval_rows: rows of each evaluation data set by name; "" is the name of a single one.
        batches_per_epoch: set before the first step.
    """

    arguments: BaseTrainingArguments
    state: TrainerState
    callbacks: CallbackHandler
    log: Log
    eval_rows: Mapping[str, int] = field(default_factory=dict)
    batches_per_epoch: int = 1

    def start(self, run: TrainingRun) -> None:
        """Bring the state to where a run starts or goes on, and tell the callbacks."""
        arguments, state = self.arguments, self.state
        self._resume(run)
        state.max_steps, state.train_batch_size = run.total_steps, arguments.train_batch_size
        state.num_train_epochs = math.ceil(run.batches.epoch_after(run.total_steps))
        state.is_local_process_zero = arguments.local_process_index == 0
        state.is_world_process_zero = arguments.process_index == 0
        for kind in ("logging", "eval", "save"):
            steps = getattr(arguments, f"{kind}_steps")
            if steps is not None:
                setattr(state, f"{kind}_steps", math.ceil(run.total_steps * steps) if steps < 1 else int(steps))
        self.callbacks.context |= {"optimizer": run.engine.optimizers[0], "lr_scheduler": None}
        self.callbacks.control.should_training_stop = self.callbacks.control.should_epoch_stop = False
        self._call("on_train_begin")
        self._call("on_epoch_begin")
        self._call("on_step_begin")

    def __call__(self, run: TrainingRun) -> Iterator[Action]:
        """Yield what follows the step just done."""
        state = self.state
        state.global_step, state.epoch = run.step, self._epoch(run)
        control = self.callbacks.control
        control.should_log = control.should_evaluate = control.should_save = False
        last = run.step >= run.total_steps
        self._after_step(last=last)
        self._call("on_step_end")
        yield from self._asked_for(run)
        starts_epoch = run.batches.place(run.step).starts_epoch
        if self.callbacks.control.should_epoch_stop and not starts_epoch:
            self._stop_epoch(run)
        ends_epoch = starts_epoch or last or self.callbacks.control.should_training_stop
        if ends_epoch:
            self._after_epoch()
            self._call("on_epoch_end")
            yield from self._asked_for(run)
        stops = self.callbacks.control.should_training_stop
        if (last or stops) and run.log.step_losses:
            yield "log"  # not shown, but in the mean of all losses
        if last:
            return
        if stops:
            run.log.history.stopped_early = True
            return
        if ends_epoch:
            self.callbacks.control.should_epoch_stop = False
            self._call("on_epoch_begin")
        self._call("on_step_begin")

    def _after_step(self, *, last: bool) -> None:
        arguments, state, control = self.arguments, self.state, self.callbacks.control
        step, delayed = state.global_step, arguments.eval_delay > state.global_step
        if arguments.logging_strategy == "steps" and step % state.logging_steps == 0:
            control.should_log = True
        if arguments.logging_first_step and step == 1:
            control.should_log = True
        if arguments.eval_strategy == "steps" and not delayed and (last or step % state.eval_steps == 0):
            control.should_evaluate = True
        if arguments.save_strategy == "steps" and (last or (state.save_steps > 0 and step % state.save_steps == 0)):
            control.should_save = True

    def _after_epoch(self) -> None:
        arguments, control = self.arguments, self.callbacks.control
        control.should_log |= arguments.logging_strategy == "epoch"
        control.should_evaluate |= arguments.eval_strategy == "epoch" and arguments.eval_delay <= self.state.epoch
        control.should_save |= arguments.save_strategy == "epoch"

    def _stop_epoch(self, run: TrainingRun) -> None:
        """End the run where its last epoch is to stop.

        Raises:
            ConfigError: another epoch is to follow.
        """
        if math.ceil(run.batches.epoch_after(run.step)) < self.state.num_train_epochs:
            raise ConfigError(
                f"got should_epoch_stop from a callback at step {run.step}, before the last epoch; expected it in the "
                f"last one, as no rows of an epoch are left out: set should_training_stop"
            )
        self.callbacks.control.should_training_stop = True

    def _asked_for(self, run: TrainingRun) -> Iterator[Action]:
        """Yield what the flow and the callbacks ask for, and tell the callbacks when it is done."""
        history = run.log.history
        if self.callbacks.control.should_log and run.log.step_losses:
            self.callbacks.control.should_log = False
            yield "log"
            entry = history.entries[-1]
            terms = {name: round(entry[name], _DIGITS) for name in history.terms if name in entry}
            self.log({**{name: entry[name] for name in ("loss", "grad_norm", "learning_rate")}, **terms})
        if self.callbacks.control.should_evaluate:
            self.callbacks.control.should_evaluate = False
            if run.evaluates:
                start = time.perf_counter()
                yield "evaluate"
                self.evaluated(history.entries[-1], time.perf_counter() - start, terms=history.terms)
                self._note_best(run)
                if self.arguments.save_strategy == "best":
                    self.callbacks.control.should_save = history.best_step == run.step
        if self.callbacks.control.should_save:
            self.callbacks.control.should_save = False
            yield "save"
            self._note_checkpoint(run)
            self._call("on_save")

    def evaluated(
        self,
        entry: Mapping[str, float],
        seconds: float,
        *,
        terms: Collection[str] = (),
        prefix: str = "eval",
        in_run: bool = True,
    ) -> dict[str, float]:
        """Log an evaluation as the reference does, an entry for each data set, and tell the callbacks of each.

        Args:
            entry: what minisbert logged.
            seconds: time that it took.
            terms: names of those of the loss, which are in the log alone.
            prefix: put before the names of metrics in place of "eval".
            in_run: the evaluator was called once for all data sets, and not for each.

        Returns:
            All metrics, with the epoch where the log has no "eval_loss", as there.
        """
        left = {name.removeprefix("eval_"): value for name, value in entry.items() if name.startswith("eval_")}
        shown = {f"eval_{name}": round(left.pop(name), _DIGITS) for name in terms if name in left}
        losses = {name: left.pop(loss_metric(name), None) for name in self.eval_rows}
        metrics: dict[str, float] = {}
        for number, (name, rows) in enumerate((self.eval_rows or {"": 0}).items()):
            part = f"{prefix}_{name}" if name else prefix
            loss, batches = losses.get(name), math.ceil(rows / self.arguments.eval_batch_size)
            one = {} if loss is None else {f"{part}_loss": loss}
            if not in_run or number == 0:
                start = f"{prefix if in_run else part}_"
                one |= {metric if metric.startswith(start) else start + metric: left[metric] for metric in left}
            one |= {
                f"{part}_runtime": round(seconds, 4),
                f"{part}_samples_per_second": round(rows / max(seconds, 1e-9), 3),
                f"{part}_steps_per_second": round(batches / max(seconds, 1e-9), 3),
            }
            has_loss = "eval_loss" in one
            self.log({**one, **(shown if has_loss else {})})
            one |= {} if has_loss else {"epoch": self.state.epoch}
            metrics |= one
            self._call("on_evaluate", metrics=one)
        return metrics

    def _note_best(self, run: TrainingRun) -> None:
        if self.arguments.metric_for_best_model is not None:
            self.state.best_metric = run.log.history.best_metric
            self.state.best_global_step = run.log.history.best_step

    def _note_checkpoint(self, run: TrainingRun) -> None:
        """Name the folder of the best weights, once there is one, and write the state beside the checkpoint."""
        if self.state.best_global_step is not None and run.output_dir is not None:
            folder = run.output_dir / f"checkpoint-{self.state.best_global_step}"
            if folder.is_dir():
                self.state.best_model_checkpoint = str(folder)
        if run.checkpoint is None or run.checkpoint.step != run.step or run.output_dir is None or rank():
            return
        self.state.stateful_callbacks = self.callbacks.states()
        self.state.save_to_json(run.checkpoint.folder / _STATE)
        limit = self.arguments.save_total_limit
        if limit is not None and limit > 0:
            rotate(run.output_dir, newest=run.step, keep=limit, best=self._best_folder())

    def finish(self, output_dir: str | None) -> None:
        """Keep only the best checkpoint where one is to be kept, as the reference does at the end of a run."""
        best = self._best_folder()
        limit = self.arguments.save_total_limit
        if output_dir is not None and best is not None and limit == 1 and self.arguments.should_save:
            keep_only(Path(output_dir), newest=self.state.global_step, best=best)

    def _best_folder(self) -> Path | None:
        best = self.state.best_model_checkpoint
        return None if best is None else Path(best)

    def _resume(self, run: TrainingRun) -> None:
        """Take over the state of a run that is resumed, and those of its callbacks if the arguments ask for it."""
        if run.checkpoint is None:
            return
        state, file = self.state, run.checkpoint.folder / _STATE
        state.global_step, state.epoch = run.step, self._epoch(run)
        saved = by_first(lambda: read_json_object(file) if file.is_file() else None)
        if saved is None:
            return
        for name in ("log_history", "best_metric", "best_global_step", "best_model_checkpoint"):
            setattr(state, name, saved[name])
        if self.arguments.restore_callback_states_from_checkpoint:
            self.callbacks.load_states(saved.get("stateful_callbacks") or {})

    def _epoch(self, run: TrainingRun) -> float:
        """Return the epochs done after the step just done, as the reference counts them."""
        if not run.step or run.batches.has_moved:
            return run.batches.epoch_after(run.step)
        epochs, steps = divmod(run.step - 1, run.batches.steps_per_epoch)  # steps of this epoch before this one
        batches = (steps + 1) * self.arguments.gradient_accumulation_steps
        return epochs + min(batches / self.batches_per_epoch, 1.0)

    def _call(self, event: str, **more: Any) -> None:
        self.callbacks.call(event, self.arguments, self.state, **more)
