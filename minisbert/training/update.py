"""The second half of an optimizer step: from gradients to changed weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..kernels.graphs import Recorded, Recorder
from .optimization import linear_schedule, linear_schedule_on_device
from .tables import clip


class Update:
    """Clips gradients and changes the weights at the scheduled rate, unless a gradient is not finite.

    Args:
        parameters: what is trained.
        optimizers: of these parameters.
        scaler: of the losses, in fp16.
        learning_rate: the highest.
        warmup: updates over which the rate rises.
        total: updates at which it is 0.
        max_grad_norm: gradients are scaled down to this norm; 0 leaves them as they are.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        optimizers: Sequence[torch.optim.Optimizer],
        scaler: torch.amp.GradScaler,
        *,
        learning_rate: float,
        warmup: int,
        total: int,
        max_grad_norm: float,
    ) -> None:
        self.parameters, self.optimizers, self.scaler = list(parameters), optimizers, scaler
        self.learning_rate, self.warmup, self.total = learning_rate, warmup, total
        self._limit = max_grad_norm or math.inf
        self._done, self._rate = 0, 0.0

    @property
    def done(self) -> int:
        """Updates that changed the weights: the place in the schedule."""
        return self._done

    @property
    def rate(self) -> float:
        """Learning rate of the last update."""
        return self._rate

    def start(self, done: int) -> None:
        """Take a place in the schedule."""
        self._done = done

    def __call__(self) -> Tensor:
        """Go one step, and drop the gradients; returns their norm."""
        self._rate = self.learning_rate * linear_schedule(self._done, warmup=self.warmup, total=self.total)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self._rate
            self.scaler.unscale_(optimizer)
        norm = clip(self.parameters, self._limit)
        if math.isfinite(norm):
            for optimizer in self.optimizers:
                optimizer.step()
            self._done += 1
        self.scaler.update()
        self.drop()
        return norm

    def drop(self) -> None:
        """Drop the gradients there are."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def end(self) -> None:
        """Let go what only training needs."""


class DeviceUpdate(Update):
    """The same without ever waiting for the device, as a CUDA graph; gradients stay where they are from step to step.

    The optimizers are AdamW with `on_device`.

    Args:
        record: turns work into its recording.
        options: as for `Update`.
    """

    def __init__(self, *options: Any, record: Recorder[Tensor], **more: Any) -> None:
        super().__init__(*options, **more)
        device = self.parameters[0].device
        self._place = torch.zeros((), dtype=torch.float64, device=device)
        self._last_rate = torch.zeros((), dtype=torch.float64, device=device)
        self._update = Recorded(self._changed, record)
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)

    @property
    def done(self) -> int:
        """Updates that changed the weights; waits for the device."""
        return int(self._place)

    @property
    def rate(self) -> float:
        """Learning rate of the last update; waits for the device."""
        return float(self._last_rate)

    def start(self, done: int) -> None:
        """Take a place in the schedule, and the rates of optimizers that may have been read from a file."""
        self._place.fill_(done)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = torch.zeros((), device=self._place.device)

    def __call__(self) -> Tensor:
        """Go one step, and set the gradients to 0; returns their norm, which holds until the next call."""
        return self._update()

    def drop(self) -> None:
        """Set the gradients to 0."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=False)

    def end(self) -> None:
        """Let go of the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def _changed(self) -> Tensor:
        factor = linear_schedule_on_device(self._place, warmup=self.warmup, total=self.total)
        self._last_rate.copy_(self.learning_rate * factor)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"].copy_(self._last_rate)
            self.scaler.unscale_(optimizer)
        norm = clip(self.parameters, self._limit)
        found_inf = 1 - norm.isfinite().float()
        for optimizer in self.optimizers:
            # How fused optimizers are told on the device itself to change nothing; torch's own scaler does the same.
            setattr(optimizer, "found_inf", found_inf)  # noqa: B010
            optimizer.step()
            delattr(optimizer, "found_inf")
        self._place += 1 - found_inf
        self.scaler.update()
        self.drop()
        return norm
