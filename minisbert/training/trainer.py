"""`Trainer`: check that a model, rows, losses and settings fit together, choose where to start, and train."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch

from ..data.roles import training_rows
from ..data.rows import named_datasets
from ..distributed import broadcast_tensors, by_first, gather_objects, processes, rank, world_size
from ..errors import ConfigError, InputError, InputTypeError, warn
from ..evaluation import Evaluator
from ..evaluation.evaluator import as_evaluator
from ..losses import Loss
from ..model import EmbeddingModel
from ..modules.lora import trains_base
from .builder import RunBuilder, TrainingSet, resume_from
from .checkpoint import Checkpoint, clean_up, exclusive_lock, newest_valid, seeded
from .config import ReplayVersion, TrainingConfig
from .history import OnLog, TrainingHistory
from .loop import train
from .naming import freezing, frozen_parameters, own_rates
from .prompts import check_prompts, column_prompts, leaves_out_prompts
from .record import record_run, shown_name
from .replay import Replay
from .selection import chosen_metric, loss_metric


class Trainer:
    """Fine-tune a model on rows of texts.

    Args:
        model: trained in place.
        train_data: a path, a list of dicts or tuples, a dict of columns, or anything iterable of rows; or several of
            these by name, in a dict. Each batch then comes from one of them.
        loss: turns the embeddings of a batch and its labels into a number; with several data sets one for all, or a
            dict with one for each name.
        config: settings of the run.
        eval_data: rows whose loss is computed every `eval_every` steps and at the end, logged as "eval_loss"; or
            several data sets by name, logged as "eval_<name>_loss". Their losses are those of `loss`.
        evaluator: called at the same times; an evaluator, a list of them, or a function of the model that returns a
            number or numbers by name.
        output_dir: where checkpoints, `best/`, `eval/` and `train_log.jsonl` go.
        columns: the columns of all these rows to use, in order; the same of every data set.
        scale: the labels that stand for 0 and 1, in every data set.
        token_store: folder in which the token ids of `train_data`, data files, are kept, to be mapped into memory; they
            are tokenized only once. See `minisbert.data.stored_rows`.
        on_log: called with each log entry.
        show_progress_bar: show the course of the run on standard error, live on a terminal and in a line now and then
            elsewhere, and at the start how the columns are understood.

    Raises:
        InputError: the rows do not fit the loss.
        ConfigError: the settings contradict each other.
    """

    packed: Callable[..., RunBuilder] = RunBuilder  # builds the run
    replay: ClassVar[type[Replay]] = Replay  # builds the run if `config.replay` asks for one

    def __init__(
        self,
        model: EmbeddingModel,
        train_data: Any,
        *,
        loss: Loss | Mapping[str, Loss],
        config: TrainingConfig | None = None,
        eval_data: Any = None,
        evaluator: Evaluator | Callable[..., Any] | Sequence[Any] | None = None,
        output_dir: str | Path | None = None,
        columns: Sequence[str] | None = None,
        scale: tuple[float, float] | None = None,
        token_store: str | Path | None = None,
        on_log: OnLog | None = None,
        show_progress_bar: bool = True,
    ) -> None:
        _check_types(model=model, config=config, on_log=on_log, output_dir=output_dir)
        self.model = model
        self.config = config or TrainingConfig()
        self.evaluator = None if evaluator is None else as_evaluator(evaluator)
        self.output_dir = Path(output_dir) if output_dir is not None else None
        named = named_datasets(train_data)
        self._multiple = named is not None
        datasets = named or {"": train_data}
        held_out = {} if eval_data is None else named_datasets(eval_data) or {"": eval_data}
        losses = _losses(loss, datasets, held_out, multiple=self._multiple)

        self._show = show_progress_bar
        how: dict[str, Any] = {"columns": columns, "scale": scale}
        self._sets, self._eval_sets = (
            [self._training_set(name, data, losses[name], store, how) for name, data in some.items()]
            for some, store in ((datasets, token_store), (held_out, None))
        )
        classes = {part.name: part.rows.classes for part in self._sets}
        self._eval_sets = [
            part._replace(rows=part.rows.numbered_as(classes.get(part.name, self._sets[0].rows.classes)))
            for part in self._eval_sets
        ]
        self._check_losses()
        for part in self._eval_sets:
            part.loss.to(model.device)
        for _, rows, of in self._sets:
            of.to(model.device)
            scores = rows.scores if rows.scores is not None else ()
            if not of.takes_labels and (negative := np.count_nonzero(np.asarray(scores) <= 0)):
                warn(
                    f"{type(of).__name__} takes the texts of every row as belonging together, and {negative:,} of "
                    f"{len(rows):,} are labelled 0 or below: leave them out if they do not"
                )
        self._on_log = on_log
        self._start: str | None = None  # digest of the weights that the last run started from
        self._check_settings()

    def train(self, *, resume: bool | str | Path = False) -> TrainingHistory:
        """Train, and leave the model in evaluation mode.

        Args:
            resume: go on from the newest checkpoint in `output_dir` that is not damaged (from the start if there is no
                checkpoint at all), or from the folder of a checkpoint.

        Returns:
            The course of the run.

        Raises:
            ConfigError: the checkpoint is of another run.
            InputError: it is damaged, or a file cannot be written.
            DivergenceError: gradients stay infinite or NaN, or weights become so.
            TrainingInterrupted: SIGINT (Ctrl-C), a KeyboardInterrupt. Like SIGTERM it ends the run after the current
                step, and with an `output_dir` a checkpoint is saved; a second one stops at once. This holds in the main
                thread, where Python's own handlers are installed.
            TrainingTerminated: SIGTERM, a SystemExit.
        """
        from .watch import Watch  # not before it is needed

        if not isinstance(resume, (bool, str, Path)):
            raise ConfigError(f"got resume={resume!r}; expected True, False or the folder of a checkpoint")
        self._check_losses()  # the model may have been changed since
        build = self.packed if self.config.replay is None else self.replay
        builder = build(self.model, self._sets, self.config, multiple=self._multiple, eval_sets=self._eval_sets)
        with (
            processes(self.model.device),
            Watch(),
            ExitStack() as of_first,
            torch.inference_mode(False),
            torch.enable_grad(),
            seeded(self.config.seed, self.model.device),
            builder.computing(),
            freezing(self.model, [part.loss for part in self._sets], self.config.freeze),
        ):
            self._agree()
            by_first(lambda: of_first.enter_context(exclusive_lock(self.output_dir)))
            checkpoint = by_first(lambda: self._checkpoint(resume))
            if self.output_dir is not None and rank() == 0:
                clean_up(self.output_dir)
            run = builder.run(
                evaluator=self.evaluator,
                output_dir=self.output_dir,
                on_log=self._on_log,
                show_progress_bar=self._show,
            )
            if len(set(gather_objects((run.fingerprint, repr(self.config))))) > 1:
                raise ConfigError(
                    "got other rows, losses or settings in one process of the run than in another; expected the same "
                    "in all: read the same files, and draw with the same seed"
                )
            if checkpoint is not None:
                if self._start is not None:
                    run.fingerprint = replace(run.fingerprint, weights=self._start)
                resume_from(checkpoint, run, builder.schedule)
            by_first(run.log.open)
            self._start = run.fingerprint.weights
            if self._show and rank() == 0:
                self._announce(checkpoint, resume=bool(resume))
            train(run)
        self.model.eval()
        self.model.training_record = record_run(
            self.config,
            [(*part, rows.plain_token_counts()) for part, rows in zip(self._sets, run.batches.datasets, strict=True)],
            [
                (*part, rows.plain_token_counts())
                for part, rows in zip(self._eval_sets, builder.eval_datasets, strict=True)
            ],
            self.evaluator,
            run.log.history,
        )
        return run.log.history

    def _training_set(
        self, name: str, data: Any, loss: Loss, store: str | Path | None, how: Mapping[str, Any]
    ) -> TrainingSet:
        """Read the rows of a data set, into a token store if there is a folder for it; check that they fit the loss."""
        from ..data.stored_rows import stored_rows  # not before it is needed
        from ..data.token_store import is_store

        if not isinstance(loss, Loss):
            shown = loss.__name__ if isinstance(loss, type) else type(loss).__name__
            raise ConfigError(f"got {shown} as loss; expected a loss, such as CosineSimilarityLoss(): make one")
        how = {**how, "classes": loss.label_kind == "class"}
        try:
            if store is None and not is_store(data):
                rows = training_rows(data, **how)
            else:
                prompts = partial(column_prompts, self.config.prompts, dataset=name)
                tokenizer = self.model.transformer.text_tokenizer
                rows = stored_rows(data, tokenizer, cache=store, prompts=prompts, show_progress_bar=self._show, **how)
            loss.check_rows(tuple(rows.texts), rows.labels)
        except (InputError, InputTypeError) as error:
            raise type(error)(f"data set {name!r}: {error}" if name else str(error)) from None
        return TrainingSet(name, rows, loss)

    def _agree(self) -> None:
        """Give the model and the losses of every process the weights of process 0."""
        if self.config.replay is not None and world_size() > 1:
            raise ConfigError(
                f"got replay={self.config.replay!r} in {world_size()} processes; expected one, which is what is "
                f"repeated: start it without torchrun, or train without replay"
            )
        trained = torch.nn.ModuleList([self.model, *(part.loss for part in self._sets)])
        broadcast_tensors([*trained.parameters(), *trained.buffers()])

    def _check_losses(self) -> None:
        """Refuse losses that do not go with the model."""
        for part in [*self._sets, *self._eval_sets]:
            part.loss.check_model(self.model)

    def _check_settings(self) -> None:
        """Refuse settings that contradict each other, or a model that cannot be trained."""
        config, model = self.config, self.model
        if config.save_every and self.output_dir is None:
            raise ConfigError("got save_every and no output_dir; expected a folder for checkpoints: pass output_dir")
        evaluates = self.evaluator is not None or bool(self._eval_sets)
        if config.keep_best and not (evaluates and self.output_dir):
            raise ConfigError(
                "got keep_best; it needs an evaluator or eval_data to compare weights with, and an output_dir to keep "
                "the best in"
            )
        if config.early_stopping_patience is not None and not evaluates:
            raise ConfigError("got early_stopping_patience; it needs an evaluator or eval_data: pass one of them")
        if self.evaluator is None and evaluates:
            chosen_metric(config, {loss_metric(part.name): 0.0 for part in self._eval_sets}, None)
        half = {parameter.dtype for parameter in model.parameters()} - {torch.float32, torch.float64}
        if getattr(model.transformer.encoder, "quantized", False):
            raise ConfigError("got a model with dtype 'int8'; training needs float32: load it with dtype='float32'")
        if half:
            raise ConfigError(
                f"got weights in {half.pop()}; training needs float32: load the model with dtype='float32'"
            )
        if model.transformer.adapter is not None:
            self._check_adapter()
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise ConfigError("got a model whose parameters are all frozen; expected some with requires_grad=True")
        if config.dataset_weights is not None:
            self._check_weights(config.dataset_weights)
        frozen_parameters(model, config.freeze)
        own_rates(model, [part.loss for part in self._sets], config.learning_rate_mapping)
        if config.replay is not None:
            self._check_replay()
        check_prompts(config.prompts, [(name, list(rows.texts)) for name, rows, _ in self._sets + self._eval_sets])

    def _check_replay(self) -> None:
        """Refuse what is not repeated."""
        config, device = self.config, self.model.device
        if device.type != "cpu":
            raise ConfigError(f"got replay on {device}; expected the CPU: load the model with device='cpu'")
        from .replay_losses import check_replayed  # only a replay needs it

        for loss in (part.loss for part in self._sets + self._eval_sets):
            version = cast(ReplayVersion, config.replay)
            check_replayed(loss, self.model, version, batch_size=config.batch_size)
        if config.prompts and leaves_out_prompts(self.model):
            raise ConfigError(
                f"got replay={config.replay!r} with prompts and a model whose pooling leaves them out, which is not "
                f"repeated; expected one without the other: set_pooling_include_prompt(True), or train without replay"
            )

    def _check_adapter(self) -> None:
        """Refuse what does not go with an adapter."""
        if self.config.replay is not None:
            raise ConfigError(
                f"got replay={self.config.replay!r} and a model with an adapter, which is not repeated; expected one "
                f"without the other: train without replay"
            )
        if trains_base(self.model.transformer.encoder):
            raise ConfigError(
                "got an adapter, and weights of its base that are not frozen and would not be saved with it; expected "
                "a frozen base: leave it as add_adapter does, or call merge_and_unload()"
            )

    def _check_weights(self, weights: Mapping[str, float]) -> None:
        """Refuse shares that are not of the data sets."""
        names = [part.name for part in self._sets]
        if not self._multiple or set(weights) != set(names) or not all(weights.values()):
            raise ConfigError(
                f"got dataset_weights={dict(weights)}; expected a number above 0 for each of several data sets: "
                f"{', '.join(map(repr, names)) if self._multiple else 'pass train_data by name'}"
            )

    def _checkpoint(self, resume: bool | str | Path) -> Checkpoint | None:
        """Choose the checkpoint to start from, or None to start at the first step."""
        if not isinstance(resume, bool):
            folder = Path(resume)
            for checkpoint in Checkpoint.all_in(folder.parent):
                if checkpoint.folder == folder:
                    return checkpoint
            raise InputError(
                f"got {folder} to resume from; expected a checkpoint folder, such as OUTPUT/checkpoint-500"
            )
        if resume and self.output_dir is None:
            raise ConfigError("got resume=True and no output_dir; expected the folder of the checkpoints: pass it")
        found = Checkpoint.all_in(self.output_dir) if self.output_dir else []
        if self.output_dir is None or not found:
            return None
        if not resume:
            raise ConfigError(
                f"{self.output_dir} holds checkpoints of an earlier run, up to {found[-1].folder.name}; expected none: "
                f"resume that run (--resume), remove them, or choose another folder"
            )
        newest, damages = newest_valid(self.output_dir)
        if newest is None:
            raise InputError(
                f"every checkpoint in {self.output_dir} is damaged: {damages[0]}; expected a complete one: start again "
                f"in another folder"
            )
        for damage in damages:
            warn(f"{damage}; resuming {newest.folder} instead")
        return newest

    def _announce(self, checkpoint: Checkpoint | None, *, resume: bool) -> None:
        """Print where the run starts, and how the columns of each data set are understood."""
        start = f"resuming {checkpoint.folder}" if checkpoint else "starting"
        if resume and not checkpoint:
            start = f"starting from the first step, as there is no checkpoint in {self.output_dir}"
        for name, rows, loss in self._sets:
            title = f" {shown_name(name)}:" if shown_name(name) else ""
            ignored = " (not used by this loss)" if rows.labels is not None and not loss.takes_labels else ""
            sys.stderr.write(f"{start}:{title} {rows.describe()}{ignored}, {type(loss).__name__}\n")
        for name, rows, loss in self._eval_sets:
            title = f" {name}:" if name else ""
            sys.stderr.write(f"evaluating on:{title} {rows.describe()}, {type(loss).__name__}\n")


def _check_types(*, model: object, config: object, on_log: object, output_dir: object) -> None:
    """Refuse arguments of the wrong type."""
    if not isinstance(model, EmbeddingModel):
        raise ConfigError(f"got model of type {type(model).__name__}; expected a SentenceTransformer: load one")
    if config is not None and not isinstance(config, TrainingConfig):
        raise ConfigError(f"got config of type {type(config).__name__}; expected a TrainingConfig: make one")
    if on_log is not None and not callable(on_log):
        raise ConfigError(f"got on_log of type {type(on_log).__name__}; expected something that can be called")
    if output_dir is not None and not (isinstance(output_dir, (str, Path)) and "\0" not in str(output_dir)):
        raise ConfigError(f"got output_dir {output_dir!r}; expected the path of a folder")


def _losses(
    loss: Loss | Mapping[str, Loss], datasets: Mapping[str, Any], held_out: Mapping[str, Any], *, multiple: bool
) -> dict[str, Loss]:
    """Return the loss of each data set."""
    names = [*datasets, *(name for name in held_out if name not in datasets)]
    if not isinstance(loss, Mapping):
        return dict.fromkeys(names, loss)
    if not multiple:
        raise ConfigError(f"got losses for {list(loss)} and one data set; expected one loss: pass it by itself")
    if "" in held_out:
        raise ConfigError(
            f"got losses for {list(loss)} and one evaluation data set; expected a dict: pass eval_data by name"
        )
    if set(loss) != set(names):
        raise ConfigError(
            f"got losses for {list(loss)} and data sets {names}; expected the same names: give each its loss"
        )
    return dict(loss)
