"""`Trainer`: takes a model, rows and a loss, checks that they go together, and runs the loop."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch

from .. import kernels
from ..data.roles import TrainingRows, training_rows
from ..data.rows import named_datasets
from ..errors import ConfigError, InputError, InputTypeError
from ..evaluation import Evaluator
from ..losses import Loss
from ..model import EmbeddingModel
from .alone import alone_in
from .checkpoint import Checkpoint, clean_up, newest_whole
from .config import TrainingConfig
from .history import OnLog, TrainingHistory
from .loop import TrainingRun
from .record import record_run, shown_name
from .replay import Replay


class _TrainingSet(NamedTuple):
    name: str
    rows: TrainingRows
    loss: Loss


class Trainer:
    """Fine-tunes a model on rows of texts.

    Args:
        model: trained in place.
        train_data: a path, a list of dicts or tuples, a dict of columns, or anything iterable of rows; or several of
            these under names, in a dict. Each batch then comes from one of them.
        loss: turns the embeddings of a batch and its labels into a number; with several data sets one for all, or a
            dict with one for each name.
        config: settings of the run.
        evaluator: called every `eval_every` steps and at the end.
        output_dir: where checkpoints, `best/`, `eval/` and `train_log.jsonl` go.
        columns: the columns of `train_data` to use, in order; of every data set the same.
        scale: the labels that stand for 0 and 1, in every data set.
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
        loss: Loss | Mapping[str, Loss],
        config: TrainingConfig | None = None,
        evaluator: Evaluator | None = None,
        output_dir: str | Path | None = None,
        columns: Sequence[str] | None = None,
        scale: tuple[float, float] | None = None,
        on_log: OnLog | None = None,
        show_progress_bar: bool = True,
    ) -> None:
        _check_kinds(config=config, evaluator=evaluator, on_log=on_log, output_dir=output_dir)
        self.model = model
        self.config = config or TrainingConfig()
        self.evaluator = evaluator
        self.output_dir = Path(output_dir) if output_dir is not None else None
        named = named_datasets(train_data)
        self._several = named is not None
        self._sets: list[_TrainingSet] = []
        datasets = named or {"": train_data}
        for name, of in _losses(loss, datasets, several=self._several).items():
            if not isinstance(of, Loss):
                shown = of.__name__ if isinstance(of, type) else type(of).__name__
                raise ConfigError(f"got {shown} as loss; expected a loss, such as CosineSimilarityLoss(): make one")
            try:
                rows = training_rows(datasets[name], columns=columns, scale=scale)
                of.check_rows(tuple(rows.texts), rows.labels)
            except (InputError, InputTypeError) as error:
                raise type(error)(f"data set {name!r}: {error}" if name else str(error)) from None
            if not of.needs_labels and rows.labels is not None and (negative := sum(x <= 0 for x in rows.labels)):
                warnings.warn(
                    f"{type(of).__name__} takes every row as one that belongs together, and {negative:,} of "
                    f"{len(rows):,} are labelled 0 or below: leave them out if they do not",
                    stacklevel=2,
                )
            self._sets.append(_TrainingSet(name, rows, of.to(model.device)))
        self._on_log = on_log
        self._show = show_progress_bar
        self._start: str | None = None  # digest of the weights that the last run started from
        if self.config.save_every and self.output_dir is None:
            raise ConfigError("got save_every and no output_dir; expected a folder for the checkpoints")
        if self.config.replay is not None and model.device.type != "cpu":
            raise ConfigError(f"got replay on {model.device}; expected the CPU: load the model with device='cpu'")
        _check_trainable(model)
        if self.config.keep_best and (evaluator is None or self.output_dir is None):
            raise ConfigError("got keep_best; it needs an evaluator to tell the best, and an output_dir to keep it in")

    def train(self, *, resume: bool | str | Path = False) -> TrainingHistory:
        """Train, and leave the model in evaluation mode.

        Args:
            resume: go on from the newest checkpoint in `output_dir` that is not damaged (from the start if there is
                none at all), or from the one given.

        Returns:
            The course of the run.

        Raises:
            ConfigError: the checkpoint is of another run.
            InputError: it is damaged, or a file cannot be written.
            DivergenceError: gradients stay infinite or NaN, or weights become so.
            TrainingInterrupted: Ctrl-C came, a KeyboardInterrupt. Like SIGTERM it ends the run after the step that is
                at work, and with an `output_dir` a checkpoint is saved; a second one stops at once. This is so in the
                main thread, where Python's own handlers are installed.
            TrainingTerminated: SIGTERM came, a SystemExit.
        """
        if not isinstance(resume, (bool, str, Path)):
            raise ConfigError(f"got resume={resume!r}; expected True, False or the folder of a checkpoint")
        with ExitStack() as stack:
            stack.enter_context(alone_in(self.output_dir))
            checkpoint = self._checkpoint(resume)
            if self.output_dir is not None:
                clean_up(self.output_dir)
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(_seeded(self.config.seed, self.model.device))
            stack.enter_context(self._way_to_run())
            run = TrainingRun(
                self.model,
                self._sets,
                several=self._several,
                config=self.config,
                replay=self._replay(),
                evaluator=self.evaluator,
                output_dir=self.output_dir,
                on_log=self._on_log,
                checkpoint=checkpoint,
                start=self._start if checkpoint else None,
                show_progress_bar=self._show,
            )
            self._start = run.identity.weights
            if self._show:
                anew = f"starting anew, as there is no checkpoint in {self.output_dir}" if resume else "starting"
                start = f"resuming {checkpoint.folder}" if checkpoint else anew
                for name, rows, loss in self._sets:
                    called = f" {shown_name(name)}:" if shown_name(name) else ""
                    ignored = rows.labels is not None and not loss.needs_labels
                    told = f"{rows.describe()}{' (not used by this loss)' if ignored else ''}"
                    sys.stderr.write(f"{start}:{called} {told}, {type(loss).__name__}\n")
            run.go()
        self.model.eval()
        datasets = [
            (*dataset, tokenized.token_counts) for dataset, tokenized in zip(self._sets, run.datasets, strict=True)
        ]
        self.model.training_record = record_run(self.config, datasets, self.evaluator, run.history)
        return run.history

    def _replay(self) -> Replay | None:
        return Replay(self.config.replay) if self.config.replay is not None else None

    def _way_to_run(self) -> AbstractContextManager[None]:
        if self.config.replay is not None:
            return kernels.use("reference")
        return self.model.transformer.auto_model.compiled() if self.config.compile else nullcontext()

    def _checkpoint(self, resume: bool | str | Path) -> Checkpoint | None:
        if isinstance(resume, bool):
            if resume and self.output_dir is None:
                raise ConfigError("got resume=True and no output_dir; expected the folder of the checkpoints: pass it")
            found = Checkpoint.all_in(self.output_dir) if self.output_dir else []
            if self.output_dir is None or not found:
                return None
            if not resume:
                raise ConfigError(
                    f"{self.output_dir} holds checkpoints of an earlier run, up to {found[-1].folder.name}; expected "
                    f"none: resume that run (--resume), remove them, or choose another folder"
                )
            newest, damages = newest_whole(self.output_dir)
            if newest is None:
                raise InputError(
                    f"no checkpoint in {self.output_dir} is whole: {damages[0]}; expected one that is: start anew in "
                    f"another folder"
                )
            for damage in damages:
                warnings.warn(f"{damage}; resuming {newest.folder} instead", stacklevel=3)
            return newest
        folder = Path(resume)
        found = [checkpoint for checkpoint in Checkpoint.all_in(folder.parent) if checkpoint.folder == folder]
        if not found:
            raise InputError(
                f"got {folder} to resume from; expected a checkpoint folder, such as OUTPUT/checkpoint-500"
            )
        return found[0]


def _check_kinds(*, config: object, evaluator: object, on_log: object, output_dir: object) -> None:
    """Refuse arguments of the wrong kind."""
    if config is not None and not isinstance(config, TrainingConfig):
        raise ConfigError(f"got config of type {type(config).__name__}; expected a TrainingConfig: make one")
    for what, given in (("evaluator", evaluator), ("on_log", on_log)):
        if given is not None and not callable(given):
            raise ConfigError(f"got {what} of type {type(given).__name__}; expected one that can be called")
    if output_dir is not None and not (isinstance(output_dir, (str, Path)) and "\0" not in str(output_dir)):
        raise ConfigError(f"got output_dir {output_dir!r}; expected the path of a folder")


def _check_trainable(model: EmbeddingModel) -> None:
    """Refuse a model whose weights cannot be trained."""
    half = {p.dtype for p in model.parameters()} - {torch.float32, torch.float64}
    if getattr(model.transformer.auto_model, "quantized", False):
        raise ConfigError("got a model with dtype 'int8'; training needs float32: load it with dtype='float32'")
    if half:
        raise ConfigError(f"got weights in {half.pop()}; training needs float32: load the model with dtype='float32'")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError("got a model whose parameters are all frozen; expected some with requires_grad=True")


def _losses(loss: Loss | Mapping[str, Loss], datasets: Mapping[str, Any], *, several: bool) -> dict[str, Loss]:
    """The loss of each data set."""
    if not isinstance(loss, Mapping):
        return dict.fromkeys(datasets, loss)
    if not several:
        raise ConfigError(f"got losses for {list(loss)} and one data set; expected one loss: pass it by itself")
    if set(loss) != set(datasets):
        raise ConfigError(
            f"got losses for {list(loss)} and data sets {list(datasets)}; expected the same names: give each its loss"
        )
    return {name: loss[name] for name in datasets}


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch for a block of code, and leave its generators as they were."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
