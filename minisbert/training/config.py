"""All settings of a training run, in one frozen dataclass."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args, get_type_hints

from ..data.rows import SMALLEST_GROUPED, DatasetOrder, RowSampling
from ..errors import ConfigError
from .checks import mismatch, pattern_rates_problem, patterns_problem, plain, rates_problem
from .prompts import Prompts, prompts_problem
from .schedules import SchedulerName, parameter_problem

PrecisionMode: TypeAlias = Literal["fp32", "fp16", "bf16"]
ReplayVersion: TypeAlias = Literal["5.1", "6.2"]

_CHECKS: dict[str, Callable[[Any], str | None]] = {
    "lr_scheduler_kwargs": rates_problem,
    "dataset_weights": rates_problem,
    "learning_rate_mapping": pattern_rates_problem,
    "freeze": patterns_problem,
    "prompts": prompts_problem,
}


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Settings of a training run. The defaults are the reference Trainer's.

    Attributes:
        epochs: passes over the rows.
        batch_size: rows in one forward pass.
        eval_batch_size: rows of which the loss is computed at once in an evaluation.
        learning_rate: highest learning rate.
        lr_scheduler_type: course of the rate after the warm-up. "linear" and "cosine" fall to 0 at the last step,
            "cosine_with_restarts" falls to 0 `num_cycles` times, "cosine_with_min_lr" falls to `min_lr` or to the share
            `min_lr_rate`, "polynomial" falls to `lr_end` along a curve of degree `power`, "inverse_sqrt" falls with the
            root of the steps in units of `timescale`. "constant" has no warm-up, "constant_with_warmup" has one.
        lr_scheduler_kwargs: the parameters named there, such as {"num_cycles": 3}.
        warmup_steps: optimizer steps over which the rate rises from 0; a number below 1 is a share of all steps.
        learning_rate_mapping: highest learning rates of some parameters, by regular expressions that are searched for
            in their names, such as {"embeddings": 1e-5}. The names are those of the saved weights, behind
            "model.0.model." as in the reference.
        freeze: regular expressions with which the names of parameters begin that are not trained, such as "embeddings"
            or "encoder.layer.[0-2]"; the names are those of the saved weights. The copy of the model that
            `ContrastiveTensionLoss` trains is frozen likewise.
        weight_decay: weight decay of AdamW, for weights that are neither biases nor of normalization layers.
        max_grad_norm: gradients are scaled down to this norm; 0 leaves them as they are.
        precision: "fp32", or mixed precision in "fp16" (with loss scaling) or "bf16". Weights stay in float32.
        gradient_checkpointing: keep only the inputs of each layer, and compute it again in backward: the same gradients
            in less memory and more time.
        compile: run the layers through torch.compile: two graphs, and two more for evaluations, serve all layers and
            batches. Other optimizations, such as CUDA graphs on a GPU, are then off.
        seed: decides row order and dropout.
        max_steps: stop after this many optimizer steps; overrides `epochs`.
        gradient_accumulation: batches whose gradients are averaged for one optimizer step.
        batch_sampler: "batch_sampler" cuts the shuffled rows into batches; "no_duplicates" also makes sure that no
            text is in a batch twice, where it would be its own negative; "group_by_label" puts at least two rows of
            each of at least two labels into a batch.
        multi_dataset_batch_sampler: with several data sets, "proportional" takes every row of each once an epoch;
            "round_robin" takes a batch of each in turn until one is used up.
        dataset_weights: instead of either, draw the data set of each batch by these shares, such as {"graded": 1,
            "answers": 3}. An epoch has as many batches as all data sets together; one that is used up starts again.
        prompts: put before each text in training and for the loss on evaluation data: a text, or texts by column, by
            data set, or by data set and column. Evaluators use the model's own prompts.
        log_every: optimizer steps between two log entries.
        eval_every: optimizer steps between two evaluations; by default there is one, at the end.
        eval_each_epoch: evaluate at the end of each epoch too.
        save_every: optimizer steps between two checkpoints; by default one is saved only when a run is interrupted.
        save_total_limit: number of newest checkpoints to keep; by default all.
        replay: repeat the arithmetic and the random draws of the reference's Trainer of this version, on the CPU in
            fp32: losses and weights are then bitwise its own. By default training is packed, which is faster.
        keep_best: at the end, go back to the weights of the best evaluation; there is only one to choose from without
            `eval_every` or `eval_each_epoch`.
        metric_for_best_model: the metric that decides which evaluation is best, as the log names it, such as
            "eval_loss"; "eval_" may be left out. By default the evaluator's primary one, or without an evaluator the
            loss on the evaluation data.
        greater_is_better: True if its larger value is the better one; by default so, unless its name ends in "loss".
        early_stopping_patience: stop after this many evaluations in a row without a better metric.
        early_stopping_threshold: a metric counts as better there if it is better by more than this.

    Raises:
        ConfigError: a value is impossible.
    """

    epochs: int = 3
    batch_size: int = 8
    eval_batch_size: int = 8
    learning_rate: float = 5e-5
    lr_scheduler_type: SchedulerName = "linear"
    lr_scheduler_kwargs: Mapping[str, float] | None = None
    warmup_steps: float = 0
    learning_rate_mapping: Mapping[str, float] | None = None
    freeze: Sequence[str] = ()
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    precision: PrecisionMode = "fp32"
    gradient_checkpointing: bool = False
    compile: bool = False
    seed: int = 42
    max_steps: int | None = None
    gradient_accumulation: int = 1
    batch_sampler: RowSampling = "batch_sampler"
    multi_dataset_batch_sampler: DatasetOrder = "proportional"
    dataset_weights: Mapping[str, float] | None = None
    prompts: Prompts | None = None
    log_every: int = 500
    eval_every: int | None = None
    eval_each_epoch: bool = False
    save_every: int | None = None
    save_total_limit: int | None = None
    keep_best: bool = False
    metric_for_best_model: str | None = None
    greater_is_better: bool | None = None
    early_stopping_patience: int | None = None
    early_stopping_threshold: float = 0.0
    replay: ReplayVersion | None = None

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            value = plain(getattr(self, name))
            object.__setattr__(self, name, value)
            if name in _CHECKS:
                problem = _CHECKS[name](value) if value is not None else None
            else:
                problem = mismatch(value, get_args(hint) or (hint,), least=0 if name == "seed" else 1)
            if problem:
                raise ConfigError(f"got {name}={value!r}; expected {problem}")
        self._check_together()

    def _check_together(self) -> None:
        """Refuse settings that contradict each other."""
        if self.warmup_steps >= 1 and self.warmup_steps != int(self.warmup_steps):
            raise ConfigError(f"got warmup_steps={self.warmup_steps}; expected whole steps, or a share below 1")
        parameters = self.lr_scheduler_kwargs or {}
        if problem := parameter_problem(self.lr_scheduler_type, parameters, highest=self.learning_rate):
            raise ConfigError(f"got lr_scheduler_kwargs={self.lr_scheduler_kwargs!r}; expected {problem}")
        if self.early_stopping_patience and not (self.eval_every or self.eval_each_epoch):
            raise ConfigError(
                f"got early_stopping_patience={self.early_stopping_patience} and one evaluation, at the end; expected "
                f"several: set eval_every or eval_each_epoch"
            )
        if self.batch_sampler == "group_by_label":
            for name in ("batch_size", "eval_batch_size"):
                if (size := getattr(self, name)) < SMALLEST_GROUPED or size % 2:
                    raise ConfigError(
                        f"got {name}={size} with batch_sampler='group_by_label'; expected an even number from "
                        f"{SMALLEST_GROUPED}, for two rows of each label"
                    )
            if self.replay == "5.1":
                raise ConfigError("got replay='5.1' with group_by_label, which 6.2 changed; expected replay='6.2'")
        if self.dataset_weights is not None and self.replay:
            raise ConfigError(
                f"got replay={self.replay!r} with dataset_weights, which the reference does not have; expected one "
                f"without the other: leave one out"
            )
        if self.replay and (self.precision != "fp32" or self.compile):
            raise ConfigError(f"got replay={self.replay!r} with precision or compile; expected fp32, not compiled")

    def total_steps(self, batches_per_epoch: int) -> int:
        """Return the optimizer steps of the whole run."""
        return self.max_steps or self.epochs * math.ceil(batches_per_epoch / self.gradient_accumulation)

    def steps_over(self, rows: int) -> int:
        """Return the optimizer steps of a run over one data set of `rows` rows."""
        return self.total_steps(math.ceil(rows / self.batch_size))

    def warmup(self, total_steps: int) -> int:
        """Return the optimizer steps of the warm-up."""
        steps = self.warmup_steps
        return math.ceil(total_steps * steps) if steps < 1 else int(steps)
