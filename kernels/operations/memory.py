"""Memory that training uses again from step to step, since the system takes long to give it out anew."""

from __future__ import annotations

import weakref
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, UntypedStorage


class Block:
    """A block of memory, given to one tensor at a time."""

    def __init__(self) -> None:
        self._memory: NDArray[np.uint8] | None = None  # of NumPy, which asks Linux for large pages
        self._storage: weakref.ref[UntypedStorage] | None = None
        self._lock = Lock()  # threads may share a model

    def take(self, size: int) -> Tensor:
        """Return `size` bytes: those of an earlier call if no tensor over them is left, or others."""
        with self._lock:
            if self._storage is not None and self._storage() is not None:
                return torch.from_numpy(np.empty(size, np.uint8))
            if self._memory is None or len(self._memory) < size:
                self._memory = None  # before there is more
                self._memory = np.empty(size, np.uint8)
            taken = torch.from_numpy(self._memory)  # with a storage of its own, which views and graphs keep alive
            self._storage = weakref.ref(taken.untyped_storage())
            return taken[:size]


class TrainingMemory:
    """Memory of an encoder in training. A copy of it is empty.

    Attributes:
        kept: what the forward pass keeps for the backward pass.
        gradients: of weights.
        shared: what is needed within one pass.
    """

    def __init__(self) -> None:
        self.release()

    def __reduce__(self) -> tuple[type[TrainingMemory], tuple[()]]:
        return TrainingMemory, ()

    def release(self) -> None:
        """Give all of it back to the system, once nothing holds it."""
        self.kept, self.gradients, self.shared = Block(), Block(), Block()
