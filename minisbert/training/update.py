"""The second half of an optimizer step: from gradients to changed weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..cuda_graphs import Recorded, Recorder
from .optimization import LinearSchedule
from .tables import clip


class Update:
    """Clips gradients and changes the weights at the scheduled rate, unless a gradient is not finite.

    Args:
        parameters: what is trained.
        optimizers: of these parameters.
        scaler: of the losses, in fp16.
        schedule: of the learning rate; its steps are updates that changed the weights.
        max_grad_norm: gradients are scaled down to this norm; 0 leaves them as they are.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        optimizers: Sequence[torch.optim.Optimizer],
        scaler: torch.amp.GradScaler,
        schedule: LinearSchedule,
        *,
        max_grad_norm: float,
    ) -> None:
        self.parameters, self.optimizers, self.scaler = list(parameters), optimizers, scaler
        self.schedule = schedule
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

    def __call__(self, loss: Tensor) -> Tensor:
        """Go one step, and drop the gradients; returns their norm, or NaN where the loss is not finite."""
        self._rate = self.schedule.rate(self._done)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self._rate
            self.scaler.unscale_(optimizer)
        norm = clip(self.parameters, self._limit)
        if not math.isfinite(loss):
            norm = torch.full_like(norm, math.nan)
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

    Args:
        parameters: as for `Update`, like what is not named here.
        optimizers: AdamW with `on_device`.
        scaler: see there.
        schedule: see there.
        max_grad_norm: see there.
        record: turns work into its recording.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        optimizers: Sequence[torch.optim.Optimizer],
        scaler: torch.amp.GradScaler,
        schedule: LinearSchedule,
        *,
        max_grad_norm: float,
        record: Recorder[Tensor],
    ) -> None:
        super().__init__(parameters, optimizers, scaler, schedule, max_grad_norm=max_grad_norm)
        device = self.parameters[0].device
        self._place = torch.zeros((), dtype=torch.float64, device=device)
        self._last_rate = torch.zeros((), dtype=torch.float64, device=device)
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
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

    def __call__(self, loss: Tensor) -> Tensor:
        """Go one step, and set the gradients to 0; returns their norm, which holds until the next call.

        It is NaN where the loss is not finite.
        """
        self._loss.copy_(loss)
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
        self._last_rate.copy_(self.schedule.rate_on_device(self._place))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"].copy_(self._last_rate)
            self.scaler.unscale_(optimizer)
        norm = torch.where(self._loss.isfinite(), clip(self.parameters, self._limit), math.nan)
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
