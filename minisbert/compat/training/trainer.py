"""`SentenceTransformerTrainer`: the reference's arguments and results around minisbert's Trainer."""

from __future__ import annotations

import inspect
import random
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from ...data.roles import TrainingRows
from ...errors import ConfigError, InputError, check_count, warn
from ...evaluation.evaluator import as_evaluator
from ...losses import Loss
from ...model import EmbeddingModel
from ..collator import SentenceTransformerDataCollator
from ..losses import CoSENTLoss
from .arguments import BaseTrainingArguments, SentenceTransformerTrainingArguments
from .batches import LABEL_COLUMNS
from .callbacks import CallbackHandler, TrainerControl, TrainerState
from .course import Course
from .data import check_streams, named, read
from .evaluations import TrainerEvaluations
from .files import TrainerFiles
from .loaders import TrainerLoaders, check_overrides
from .own_loss import OwnLoss, put_model
from .running import Plan, PlannedTrainer
from .settings import Settings, settings_of

NamedRows: TypeAlias = dict[str, TrainingRows]


class TrainOutput(NamedTuple):
    """The result of a run: steps done, mean loss of all of them, and speeds."""

    global_step: int
    training_loss: float
    metrics: dict[str, float]


class SentenceTransformerTrainer(TrainerEvaluations, TrainerFiles, TrainerLoaders):
    """Train a model with the reference's arguments; what they do is said there and in `minisbert.Trainer`.

    Raises:
        ConfigError: an argument is impossible, or one that minisbert does not offer.
        InputError: the rows do not fit the loss.
    """

    training_args_class: type[BaseTrainingArguments] = SentenceTransformerTrainingArguments

    def __init__(
        self,
        model: EmbeddingModel | None = None,
        args: BaseTrainingArguments | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        loss: nn.Module
        | Callable[[Any], nn.Module]
        | Mapping[str, nn.Module | Callable[[Any], nn.Module]]
        | None = None,
        evaluator: Any = None,
        data_collator: Any = None,
        processing_class: Any = None,
        model_init: Callable[[], EmbeddingModel] | None = None,
        compute_metrics: Callable[..., Any] | None = None,
        callbacks: list[Any] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, Any] = (None, None),
        optimizer_cls_and_kwargs: tuple[type[torch.optim.Optimizer], dict[str, Any]] | None = None,
        preprocess_logits_for_metrics: Callable[..., Any] | None = None,
        *,
        tokenizer: Any = None,
    ) -> None:
        self.args = self.training_args_class(output_dir="tmp_trainer") if args is None else args
        if not isinstance(self.args, BaseTrainingArguments):
            raise ConfigError(
                f"got args of type {type(self.args).__name__}; expected SentenceTransformerTrainingArguments: make them"
            )
        check_overrides(type(self), SentenceTransformerTrainer)
        _seed(check_count(self.args.seed, "seed", least=0))
        self.model_init = model_init
        self.model = self._first_model(model)
        if compute_metrics is not None or preprocess_logits_for_metrics is not None:
            warn("compute_metrics is not called, as in the reference: pass an evaluator")
        self.compute_metrics = compute_metrics
        self.processing_class = processing_class or tokenizer or getattr(self.model, "tokenizer", None)
        self.data_collator = self._collator(data_collator)
        self.train_dataset, self.eval_dataset = train_dataset, eval_dataset
        if self.args.eval_strategy != "no" and eval_dataset is None and evaluator is None:
            raise ConfigError(
                f"got eval_strategy={self.args.eval_strategy!r} and nothing to evaluate with; expected an eval_dataset "
                f"or an evaluator: pass one"
            )
        check_streams(train_dataset, max_steps=self.args.max_steps, of="train_dataset")
        check_streams(eval_dataset, max_steps=self.args.max_steps, of="eval_dataset")
        self.optimizer, self.lr_scheduler = optimizers
        if self.optimizer is None and self.lr_scheduler is not None:
            raise ConfigError("got a scheduler and no optimizer; expected both: pass optimizers=(optimizer, scheduler)")
        self.optimizer_cls_and_kwargs = optimizer_cls_and_kwargs
        self.state, self.is_in_train = self._state([]), False
        self.callback_handler = CallbackHandler(callbacks or [])
        self.loss: Any = self._losses(loss)
        self.evaluator = None if evaluator is None else as_evaluator(evaluator)
        self._settings()
        self._set_context()
        self.callback_handler.call("on_init_end", self.args, self.state)

    # ---- parts ------------------------------------------------------------------------------------------------------

    def _state(self, log_history: list[dict[str, float]]) -> TrainerState:
        first, first_here = self.is_world_process_zero(), self.is_local_process_zero()
        return TrainerState(log_history=log_history, is_world_process_zero=first, is_local_process_zero=first_here)

    def _first_model(self, model: EmbeddingModel | None) -> EmbeddingModel:
        if model is None and self.model_init is None:
            raise ConfigError("got neither model nor model_init; expected one of them: pass a SentenceTransformer")
        made = model if self.model_init is None else self.call_model_init()
        if not isinstance(made, EmbeddingModel):
            raise ConfigError(f"got model of type {type(made).__name__}; expected a SentenceTransformer: load one")
        return made.to("cpu") if self.args.use_cpu else made

    def call_model_init(self, trial: Any = None) -> EmbeddingModel:
        """Make a model with `model_init`, and put it into the loss."""
        if self.model_init is None:
            raise ConfigError("got no model_init; expected a function that makes a model: pass it")
        make: Callable[..., EmbeddingModel] = self.model_init
        model = make(trial) if inspect.signature(make).parameters else make()
        for loss in self._all_losses():
            put_model(loss, model)
        return model

    def _collator(self, collator: Any) -> Any:
        """Return the collator; only its prompts and label columns count, as texts are tokenized once."""
        if collator is None:
            return self.get_data_collator(self.model, self.args, self.processing_class)
        if not isinstance(collator, SentenceTransformerDataCollator):
            raise ConfigError(
                f"got data_collator {type(collator).__name__}; expected None or a SentenceTransformerDataCollator, as "
                f"texts are tokenized before training: change the rows or the model's tokenizer in its place"
            )
        if sorted(collator.valid_label_columns) != sorted(LABEL_COLUMNS):
            raise ConfigError(
                f"got valid_label_columns={collator.valid_label_columns}; expected {list(LABEL_COLUMNS)}: rename the "
                f"column of labels to label"
            )
        return collator

    def get_data_collator(
        self, model: EmbeddingModel, args: BaseTrainingArguments, processing_class: Any = None
    ) -> SentenceTransformerDataCollator:
        """Make the collator of batches, for code that asks for them."""
        preprocess: Any = getattr(model, "preprocess", None) or getattr(model, "tokenize", None)
        prompts: Any = args.prompts
        return SentenceTransformerDataCollator(preprocess, prompts=prompts)

    def get_default_loss(self, model: EmbeddingModel) -> nn.Module:
        """Return the loss that is used if none is given."""
        return CoSENTLoss(model)  # type: ignore[arg-type, unused-ignore]

    def prepare_loss(self, loss: nn.Module | Callable[[Any], nn.Module], model: EmbeddingModel) -> nn.Module:
        """Return a loss on the model's device, made by a function of the model if it is one."""
        made = loss if isinstance(loss, nn.Module) or not callable(loss) else loss(model)
        if not isinstance(made, nn.Module):
            raise ConfigError(
                f"got {type(made).__name__} as loss; expected a loss, such as CoSENTLoss(model): make one"
            )
        put_model(made, model)
        return made.to(model.device)

    def override_model_in_loss(self, loss: nn.Module, model: EmbeddingModel) -> nn.Module:
        """Make `model` the one that a loss holds."""
        put_model(loss, model)
        return loss

    def _losses(self, loss: Any) -> Any:
        if loss is None:
            loss = self.get_default_loss(self.model)
        if not isinstance(loss, Mapping):
            return self.prepare_loss(loss, self.model)
        for name, data in (("train_dataset", self.train_dataset), ("eval_dataset", self.eval_dataset)):
            sets = named(data)
            if data is not None and sets is None:
                raise ConfigError(f"got losses by name and one {name}; expected data sets by name: pass a dict")
            if missing := sorted(set(sets or ()) - set(loss)):
                raise ConfigError(f"got losses for {list(loss)}; expected one for {missing[0]!r} of {name} too: add it")
        return {name: self.prepare_loss(one, self.model) for name, one in loss.items()}

    def _all_losses(self) -> list[nn.Module]:
        losses = getattr(self, "loss", None)
        if losses is None:
            return []
        return list(losses.values()) if isinstance(losses, Mapping) else [losses]

    def _set_context(self) -> None:
        self.callback_handler.context |= {
            "model": self.model,
            "processing_class": self.processing_class,
            "tokenizer": self.processing_class,
            "train_dataloader": None,
            "eval_dataloader": None,
        }

    # ---- training ---------------------------------------------------------------------------------------------------

    def train(
        self,
        resume_from_checkpoint: str | Path | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Train, and leave the model in evaluation mode.

        Args:
            resume_from_checkpoint: True for the newest checkpoint in `args.output_dir`, or the folder of one.
            trial: not used.
            ignore_keys_for_eval: not used.

        Raises:
            InputError: there is no checkpoint to resume from, or it is damaged.
        """
        if self.train_dataset is None:
            raise ConfigError("got no train_dataset; expected one to train on: pass it to the trainer")
        if self.model_init is not None and self.state.global_step:
            _seed(self.args.seed)
            self.model = self.call_model_init()
            self._set_context()
        self.is_in_train, start = True, time.time()
        if self.args.eval_on_start:
            TrainerEvaluations.evaluate(self)  # as the other evaluations of a run, none by a method of a subclass
        self.state = self._state([*self.state.log_history] if self.args.eval_on_start else [])
        if resume_from_checkpoint is True and not list(Path(self.args.output_dir or "").glob("checkpoint-*")):
            raise InputError(f"got no checkpoint in {self.args.output_dir} to resume from; expected one: start anew")
        trainer = self._trainer(training=True)
        history = trainer.train(resume=resume_from_checkpoint or False)
        seconds, steps = time.time() - start, history.steps
        metrics = {
            "train_runtime": round(seconds, 4),
            "train_samples_per_second": round(self.state.epoch * trainer.row_count() / max(seconds, 1e-9), 3),
            "train_steps_per_second": round(steps / max(seconds, 1e-9), 3),
        }
        self.log({**metrics, "total_flos": 0.0, "train_loss": history.train_loss})
        metrics["train_loss"] = history.train_loss
        best = Path(self.args.output_dir or "") / "best"
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint is None and best.is_dir():
            self.state.best_model_checkpoint = str(best)
        self._course({}).finish(self._folder)
        self.is_in_train = False
        self.callback_handler.call("on_train_end", self.args, self.state)
        return TrainOutput(steps, history.train_loss, {**metrics, "epoch": self.state.epoch})

    def _rows_per_step(self) -> int:
        return self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size

    def _trainer(self, *, training: bool, eval_dataset: Any = None) -> PlannedTrainer:
        """Make minisbert's Trainer of everything given, or of evaluation data alone."""
        args = self.args
        settings = self._settings()
        if self.optimizer_cls_and_kwargs is not None and self.optimizer is None:
            settings = settings.with_optimizer(*self.optimizer_cls_and_kwargs)
        if not training:
            held_out = self._rows(eval_dataset)
            settings = settings.with_changes(keep_best=False, metric_for_best_model=None, save_every=None)
            plan = Plan(
                settings,
                self._course(held_out),
                eval_datasets=named(eval_dataset) or {"": eval_dataset},
                batch_sampler=_own(args.batch_sampler),
            )
            return self._planned(held_out, held_out, plan)
        needed = args.max_steps * self._rows_per_step() if args.max_steps > 0 else None
        train = self._rows(self.train_dataset, most=needed)
        held_out = self._rows(self.eval_dataset) if self._evaluates else {}
        plan = Plan(
            settings,
            self._course(held_out),
            optimizer=self.optimizer,
            scheduler=self.lr_scheduler,
            datasets=named(self.train_dataset) or {"": self.train_dataset},
            eval_datasets=named(self.eval_dataset) or {"": self.eval_dataset},
            batch_sampler=_own(args.batch_sampler),
            turns=_own(args.multi_dataset_batch_sampler),
        )
        return self._planned(
            train,
            held_out,
            plan,
            evaluator=self.evaluator if self._evaluates else None,
            output_dir=self._folder,
            show_progress_bar=not args.disable_tqdm,
        )

    def _planned(self, train: NamedRows, held_out: NamedRows, plan: Plan, **options: Any) -> PlannedTrainer:
        """Make minisbert's Trainer of rows by name; "" is the name of a single data set."""
        losses = {name: self._loss_of(name, rows) for name, rows in {**train, **held_out}.items()}
        first, *others = losses.values()
        one_for_all = "" in train or all(other is first for other in others)
        return PlannedTrainer(
            self.model,
            train.get("", train),
            plan=plan,
            loss=first if one_for_all else losses,
            config=plan.settings.config,
            eval_data=held_out.get("", held_out) or None,
            **{"show_progress_bar": False, **options},
        )

    def _course(self, held_out: NamedRows) -> Course:
        counts = {name: len(rows) for name, rows in held_out.items()}
        return Course(self.args, self.state, self.callback_handler, self.log, counts)

    def _settings(self) -> Settings:
        """Translate the arguments."""
        return settings_of(self.args, device=self.model.device)

    @property
    def _evaluates(self) -> bool:
        """True if there are evaluations during training."""
        return bool(self.args.eval_strategy != "no")

    @property
    def _folder(self) -> str | None:
        """The folder for what the run writes, or None to write nothing."""
        return self.args.output_dir

    def _rows(self, data: Any, *, most: int | None = None) -> NamedRows:
        """Read data sets by name; "" is the name of a single one."""
        if data is None:
            return {}
        sets = named(data)
        if sets is None:
            return {"": read(data, classes=self._classes(""), most=most)}
        return {name: read(one, classes=self._classes(name)) for name, one in sets.items()}

    def _classes(self, name: str) -> bool:
        loss = self.loss.get(name) if isinstance(self.loss, Mapping) else self.loss
        return isinstance(loss, Loss) and bool(loss.label_kind == "class")

    def _loss_of(self, name: str, rows: Any) -> Loss:
        loss = self.loss[name] if isinstance(self.loss, Mapping) else self.loss
        compute = None
        if type(self).compute_loss is not TrainerLoaders.compute_loss:
            compute = partial(self._computed, name, list(rows.texts))
        elif isinstance(loss, Loss) and not getattr(loss, "rewritten", False):  # for embeddings
            return loss
        first: Any = self.model.transformer
        return OwnLoss(loss, features=first.features_of, labels=rows.label_type, compute=compute)

    def _computed(self, name: str, columns: list[str], features: list[dict[str, Any]], labels: Tensor | None) -> Any:
        """Return what a `compute_loss` of the user's own makes of a batch, called as the reference calls it."""
        parts = zip(columns, features, strict=True)
        inputs = {f"{column}_{key}": value for column, one in parts for key, value in one.items()}
        inputs |= {} if labels is None else {"label": labels}
        inputs |= {"dataset_name": name} if name else {}
        value = self.compute_loss(self.model, inputs, return_outputs=not torch.is_grad_enabled())
        return value[0] if isinstance(value, tuple) else value

    # ---- log, callbacks, files --------------------------------------------------------------------------------------

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add an entry to the log, with epoch and step, and show it to the callbacks."""
        shown = {**logs, "epoch": self.state.epoch}
        self.state.log_history.append({**shown, "step": self.state.global_step})
        self.callback_handler.call("on_log", self.args, self.state, logs=shown)

    @property
    def control(self) -> TrainerControl:
        """The next things in a run, as the callbacks left them."""
        return self.callback_handler.control

    def add_callback(self, callback: Any) -> None:
        """Add a callback, or a new one of a class."""
        self.callback_handler.add_callback(callback)

    def pop_callback(self, callback: Any) -> Any:
        """Remove a callback, or the first of a class, and return it."""
        return self.callback_handler.pop_callback(callback)

    def remove_callback(self, callback: Any) -> None:
        """Remove a callback, or the first of a class."""
        self.callback_handler.pop_callback(callback)

    def get_num_trainable_parameters(self) -> int:
        """Return the number of weights that are trained."""
        return sum(one.numel() for one in self.model.parameters() if one.requires_grad)

    def get_learning_rates(self) -> list[float]:
        """Return the learning rate of the last step, of each group of the optimizer."""
        optimizer = self.callback_handler.context.get("optimizer")
        return [float(group["lr"]) for group in optimizer.param_groups] if optimizer is not None else []

    def is_local_process_zero(self) -> bool:
        """Return True for the first process of this machine."""
        return self.args.local_process_index == 0

    def is_world_process_zero(self) -> bool:
        """Return True for the first of all processes."""
        return self.args.process_index == 0


def _own(sampler: Any) -> Any:
    """Return a sampler of the user's own, a class or a function; None for a name of one."""
    return sampler if callable(sampler) else None


def _seed(seed: int) -> None:
    """Seed the global generators, as the reference's Trainer does when it is made."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.manual_seed(seed)
