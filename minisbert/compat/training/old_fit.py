"""`old_fit`: the loop of the reference's version 2, a plain one over padded features."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ...training.schedules import fit_schedule, make_schedule
from ..checks import check_list

DEFAULTS: Mapping[str, Any] = {"lr": 2e-5}
_NOT_DECAYED = ("bias", "LayerNorm.bias", "LayerNorm.weight")


class OldFit:
    """The method `old_fit` of a model, and the parts of it that code of version 2 calls."""

    best_score = -9999999.0

    def old_fit(
        self,
        train_objectives: Iterable[tuple[Any, nn.Module]],
        evaluator: Any = None,
        epochs: int = 1,
        steps_per_epoch: int | None = None,
        scheduler: str = "WarmupLinear",
        warmup_steps: int = 10000,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.AdamW,
        optimizer_params: Mapping[str, Any] = DEFAULTS,
        weight_decay: float = 0.01,
        evaluation_steps: int = 0,
        output_path: str | None = None,
        save_best_model: bool = True,
        max_grad_norm: float = 1,
        use_amp: bool = False,
        callback: Callable[[float, int, int], None] | None = None,
        show_progress_bar: bool = True,
        checkpoint_path: str | None = None,
        checkpoint_save_steps: int = 500,
        checkpoint_save_total_limit: int = 0,
    ) -> None:
        """Train as version 2 did: an optimizer for each objective, batches as the data loaders make them, padded.

        The arguments are those of `fit`, but `steps_per_epoch` also counts with several epochs. `fit` is faster.

        Raises:
            ConfigError: an argument has an impossible value.
        """
        model: Any = self
        objectives = check_objectives(train_objectives, scheduler)
        loaders, losses = [loader for loader, _ in objectives], [loss.to(model.device) for _, loss in objectives]
        for loader in loaders:
            loader.collate_fn = self.smart_batching_collate
        rounds = steps_per_epoch or min(map(len, loaders))
        optimizers = [_optimizer(loss, optimizer_class, optimizer_params, weight_decay) for loss in losses]
        schedules = [
            self._get_scheduler(one, scheduler=scheduler, warmup_steps=warmup_steps, t_total=rounds * epochs)
            for one in optimizers
        ]
        amp = use_amp and model.device.type == "cuda"
        scaler = torch.amp.GradScaler(model.device.type, enabled=amp)
        batches = [_Endless(loader) for loader in loaders]
        self.best_score, step = -9999999.0, 0
        for epoch in range(epochs):
            for done in range(1, rounds + 1):
                for loss, optimizer, schedule, rest in zip(losses, optimizers, schedules, batches, strict=True):
                    model.train()
                    loss.train()
                    columns, labels = rest.take()
                    features = [_moved(column, model.device) for column in columns]
                    with torch.autocast(model.device.type, torch.float16, enabled=amp):
                        value = loss(features, labels.to(model.device))
                    scaler.scale(value).backward()
                    scaler.unscale_(optimizer)
                    torch.nn.utils.clip_grad_norm_(loss.parameters(), max_grad_norm)
                    before = scaler.get_scale()
                    scaler.step(optimizer)
                    scaler.update()
                    optimizer.zero_grad()
                    if scaler.get_scale() >= before:
                        schedule.step()
                step += 1
                if evaluation_steps > 0 and done % evaluation_steps == 0:
                    self._eval_during_training(evaluator, output_path, save_best_model, epoch, done, callback)
                if checkpoint_path and checkpoint_save_steps and step % checkpoint_save_steps == 0:
                    self._save_checkpoint(checkpoint_path, checkpoint_save_total_limit, step)
            self._eval_during_training(evaluator, output_path, save_best_model, epoch, -1, callback)
        if evaluator is None and output_path is not None:
            model.save_pretrained(output_path)
        if checkpoint_path:
            self._save_checkpoint(checkpoint_path, checkpoint_save_total_limit, step)
        model.eval()

    @staticmethod
    def _get_scheduler(
        optimizer: torch.optim.Optimizer, scheduler: str, warmup_steps: int, t_total: int
    ) -> torch.optim.lr_scheduler.LambdaLR:
        """Make a schedule by its name in `fit`."""
        schedule = make_schedule(fit_schedule(scheduler), highest=1.0, warmup=warmup_steps, total=t_total)
        return torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: float(schedule.factor(torch.tensor(step, dtype=torch.float64)))
        )

    def smart_batching_collate(self, batch: Sequence[Any]) -> tuple[list[dict[str, Tensor]], Tensor]:
        """Make a batch of examples: the features of each column, and the labels."""
        model: Any = self
        columns = [model.preprocess(list(texts)) for texts in zip(*(one.texts for one in batch), strict=True)]
        labels = [example.label for example in batch]
        if labels and isinstance(labels[0], np.ndarray):
            return columns, torch.from_numpy(np.stack(labels))
        return columns, torch.tensor(labels)

    def _eval_during_training(
        self,
        evaluator: Any,
        output_path: str | None,
        save_best_model: bool,
        epoch: int,
        steps: int,
        callback: Callable[[float, int, int], None] | None,
    ) -> None:
        """Evaluate, report the score, and save the model if it is the best so far."""
        from ...evaluation.evaluator import as_evaluator, metrics_of  # not needed to embed

        if evaluator is None:
            return
        folder = Path(output_path) / "eval" if output_path is not None else None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        called = as_evaluator(evaluator)
        metrics, primary = metrics_of(called, called(self, folder, epoch=epoch, steps=steps))  # type: ignore[arg-type]
        score = next(iter(metrics.values())) if primary is None else primary
        if callback is not None:
            callback(score, epoch, steps)
        if score > self.best_score:
            self.best_score = score
            if save_best_model and output_path is not None:
                model: Any = self
                model.save_pretrained(output_path)

    def _save_checkpoint(self, checkpoint_path: str, checkpoint_save_total_limit: int, step: int) -> None:
        """Save the model in a folder named by the step, and remove the oldest beyond the limit."""
        model: Any = self
        model.save_pretrained(Path(checkpoint_path) / str(step))
        if checkpoint_save_total_limit and checkpoint_save_total_limit > 0:
            saved = [one for one in Path(checkpoint_path).iterdir() if one.name.isdecimal()]
            for folder in sorted(saved, key=lambda one: int(one.name))[:-checkpoint_save_total_limit]:
                shutil.rmtree(folder)


def check_objectives(objectives: Iterable[Any], scheduler: Any) -> list[tuple[Any, Any]]:
    """Return pairs of a data loader and a loss.

    Raises:
        ConfigError: there are none, or the scheduler has an unknown name.
    """
    found = list(check_list(objectives, "train_objectives", of="pairs of a data loader and a loss"))
    if not found:
        raise ConfigError("got no train objectives; expected a list of at least one pair (data loader, loss)")
    fit_schedule(scheduler)
    for objective in found:
        if not isinstance(objective, (tuple, list)) or len(objective) != 2:
            raise ConfigError(f"got {type(objective).__name__} as an objective; expected a pair (data loader, loss)")
        if isinstance(objective[0], nn.Module) or not callable(objective[1]):  # a class makes its loss
            kinds = ", ".join(type(one).__name__ for one in objective)
            raise ConfigError(f"got the objective ({kinds}); expected (data loader, loss): put the loss second")
    return found


def decays(name: str) -> bool:
    """Return True if the old `fit` applies weight decay to a parameter of this name."""
    return not any(part in name for part in _NOT_DECAYED)


def _optimizer(
    loss: nn.Module, kind: type[torch.optim.Optimizer], options: Mapping[str, Any], weight_decay: float
) -> torch.optim.Optimizer:
    decayed = {True: [], False: []}  # type: dict[bool, list[nn.Parameter]]
    for name, parameter in loss.named_parameters():
        decayed[decays(name)].append(parameter)
    groups = [{"params": decayed[True], "weight_decay": weight_decay}, {"params": decayed[False], "weight_decay": 0.0}]
    return kind(groups, **options)


class _Endless:
    """The batches of a loader, again and again; its iterator is made at once, as it draws from the global generator."""

    def __init__(self, loader: Any) -> None:
        self._loader, self._batches = loader, iter(loader)

    def take(self) -> Any:
        """Return the next batch."""
        try:
            return next(self._batches)
        except StopIteration:
            self._batches = iter(self._loader)
            return next(self._batches)


def _moved(features: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in features.items()}
