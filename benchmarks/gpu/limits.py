"""The device's limits: matrix products of the model's shapes in each precision, and copying in its memory."""

from __future__ import annotations

import statistics

import timing
import torch
from limits import Rates, torch_linear

from gpu.sizes import DTYPES, Sizes


def product_rates(device: str, sizes: Sizes) -> Rates:
    """The rates of products of the model's four shapes, by precision and number of tokens."""
    makers = {
        (precision, "torch linear"): torch_linear(getattr(torch, dtype), device) for precision, dtype in DTYPES.items()
    }
    return Rates(makers=makers, rows=sizes.product_rows, seconds=sizes.product_seconds, clock=timing.clock_of(device))


class Bandwidth:
    """Measures how fast the device's memory is copied.

    Attributes:
        gigabytes: what was read and written in a second, each time.
    """

    def __init__(self, device: str, sizes: Sizes, *, times: int = 10) -> None:
        self._from = torch.randint(0, 256, (sizes.copied,), dtype=torch.uint8, device=device)
        self._to = torch.empty_like(self._from)
        self._clock, self._times = timing.clock_of(device), times
        self._to.copy_(self._from)  # warms up
        self.gigabytes: list[float] = []

    def measure(self) -> None:
        """Copy some times more."""
        start = self._clock()
        for _ in range(self._times):
            self._to.copy_(self._from)
        seconds = self._clock() - start
        self.gigabytes.append(2 * self._times * self._from.numel() / max(seconds, 1e-9) / 1e9)

    def median(self, last: int | None = None) -> float:
        """Of all measurements, or of the last ones."""
        return statistics.median(self.gigabytes[-(last or 0) :])


def traffic(tokens: int, item_bytes: int, *, dim: int = 384, intermediate: int = 1_536, layers: int = 6) -> int:
    """Bytes that the layers read and write for so many tokens if each of their kernels touches its tokens once.

    The kernels are the products (query, key and value together; GELU in the product that raises), attention, and the
    two normalizations with their residuals. Weights are left out.
    """
    attention = (dim + 3 * dim) + (3 * dim + dim) + (dim + dim)
    feed_forward = 2 * (dim + intermediate)
    normalizations = 2 * (2 * dim + dim)
    return tokens * layers * (attention + feed_forward + normalizations) * item_bytes
