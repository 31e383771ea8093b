"""How much the parts of `run.py gpu` measure."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass

# Names of the precisions as results have them, and as models take them.
DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
ITEM_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}


@dataclass(frozen=True)
class Window:
    """Optimizer steps from one log entry to the next, and how many such stretches there are; the first warms up."""

    steps: int
    count: int = 4


@dataclass(frozen=True)
class Sizes:
    """Numbers of everything.

    Attributes:
        texts: of each length class, repeated where there are fewer.
        batch_sizes: of the reference; the best one is taken.
        tried: texts on which that is found out.
        tokens: of a packed batch in the measurement of the model alone, at most.
        product_rows: tokens in the matrix products of the device's limit.
        product_seconds: that each of them takes at least.
        copied: bytes of the buffer whose copying gives the bandwidth.
        batches: of texts in the operations: how many, and tokens of the shortest and of the longest.
        pairs: of the contrastive loss in the operations.
        repeats: runs of an operation in each round.
        windows: stretches of training by the largest batch size that they are for.
        largest_batch: of training.
        memory_batch: of the one step whose memory is measured.
    """

    texts: Mapping[str, int]
    batch_sizes: tuple[int, ...]
    tried: int
    tokens: int
    product_rows: tuple[int, ...]
    product_seconds: float
    copied: int
    batches: tuple[tuple[int, int, int], ...]
    pairs: int
    repeats: int
    windows: Mapping[int, Window]
    largest_batch: int
    memory_batch: int

    def window(self, batch_size: int) -> Window:
        """What is trained at a batch size."""
        return next(window for most, window in self.windows.items() if batch_size <= most)


FULL = Sizes(
    texts={"titles": 50_000, "paragraphs": 20_000, "long": 5_000, "mixed": 20_000},  # each about a million tokens
    batch_sizes=(32, 128, 512),
    tried=4_096,
    tokens=65_536,
    product_rows=(4_096, 8_192, 16_384, 32_768, 65_536),
    product_seconds=0.02,
    copied=2**30,
    batches=((4_096, 8, 24), (400, 64, 256)),
    pairs=4_096,
    repeats=10,
    windows={64: Window(20), 256: Window(10), 4_096: Window(2)},
    largest_batch=4_096,
    memory_batch=65_536,
)
QUICK = Sizes(
    texts={"titles": 4, "paragraphs": 2, "long": 1, "mixed": 2},
    batch_sizes=(4,),
    tried=2,
    tokens=256,
    product_rows=(16,),
    product_seconds=0.0,
    copied=2**16,
    batches=((8, 2, 9),),
    pairs=8,
    repeats=1,
    windows={4: Window(1, 2)},
    largest_batch=4,
    memory_batch=4,
)


def sizes_for(options: argparse.Namespace) -> Sizes:
    """The sizes that the command line asks for."""
    return QUICK if options.quick else FULL
