"""Loaders of batches of `InputExample` for `fit`, with the random draws of the reference's."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..errors import ConfigError, InputError, check_count
from ..text import check_texts
from .rows import InputExample, check_examples


class ExampleLoader:
    """Base of the loaders: an iterable of batches of examples.

    Attributes:
        batch_size: examples in a batch.
        collate_fn: makes something else of each batch, or None.
    """

    def __init__(self, batch_size: int) -> None:
        self.batch_size = check_count(batch_size, "batch_size")
        self.collate_fn: Callable[[list[InputExample]], Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        for batch in self.batches():
            yield batch if self.collate_fn is None else self.collate_fn(batch)

    def batches(self) -> Iterator[list[InputExample]]:
        """Yield the batches of one pass."""
        raise NotImplementedError


class NoDuplicatesDataLoader(ExampleLoader):
    """Batches in which no text occurs twice, whatever its case and the white space around it.

    An example that would repeat a text is passed over. With `Trainer`, `batch_sampler="no_duplicates"` does the same.

    Args:
        train_examples: the examples; shuffled with Python's `random`, at the start and whenever all have been seen.
        batch_size: examples in a batch.

    Raises:
        ConfigError: the batch size is no whole number of at least 1.
        InputTypeError: the examples are no list of examples.
    """

    def __init__(self, train_examples: Sequence[InputExample], batch_size: int) -> None:
        super().__init__(batch_size)
        self.train_examples = check_examples(train_examples, what="train_examples")
        self.data_pointer = 0
        random.shuffle(self.train_examples)

    def batches(self) -> Iterator[list[InputExample]]:
        """Yield the batches of one pass.

        Raises:
            InputError: no batch of this size without a text twice can be made.
        """
        for _ in range(len(self)):
            batch: list[InputExample] = []
            seen: set[str] = set()
            passed = 0  # examples in a row that did not fit
            while len(batch) < self.batch_size:
                example = self.train_examples[self.data_pointer]
                texts = {str(text).strip().lower() for text in example.texts}
                if seen.isdisjoint(texts):
                    batch.append(example)
                    seen |= texts
                    passed = 0
                elif (passed := passed + 1) > 2 * len(self.train_examples):
                    raise InputError(
                        f"got batches of {self.batch_size}, and at most {len(batch)} examples with no text in common; "
                        f"expected a smaller batch_size"
                    )
                self.data_pointer += 1
                if self.data_pointer >= len(self.train_examples):
                    self.data_pointer = 0
                    random.shuffle(self.train_examples)
            yield batch

    def __len__(self) -> int:
        return len(self.train_examples) // self.batch_size


class ContrastiveTensionDataLoader(ExampleLoader):
    """Pairs of texts for `ContrastiveTensionLoss`: of each `pos_neg_ratio`, the first is a text twice, labelled 1.

    The others are two different texts, labelled 0.

    Args:
        sentences: the texts; shuffled with Python's `random` at the start of each pass.
        batch_size: pairs in a batch.
        pos_neg_ratio: see above.

    Raises:
        ConfigError: the batch size is not a multiple of the ratio.
        InputTypeError: the sentences are no list of texts.
    """

    def __init__(self, sentences: Sequence[str], batch_size: int, pos_neg_ratio: int = 8) -> None:
        super().__init__(batch_size)
        self.pos_neg_ratio = check_count(pos_neg_ratio, "pos_neg_ratio")
        if batch_size % pos_neg_ratio:
            raise ConfigError(f"got batch_size={batch_size}; expected a multiple of pos_neg_ratio, {pos_neg_ratio}")
        self.sentences = check_texts(sentences, what="sentences")

    def batches(self) -> Iterator[list[InputExample]]:
        """Yield the batches of one pass."""
        random.shuffle(self.sentences)
        sentences = iter(self.sentences)
        for _ in range(len(self)):
            batch = []
            for number in range(self.batch_size):
                first, same = next(sentences), number % self.pos_neg_ratio == 0
                batch.append(InputExample(texts=[first, first if same else next(sentences)], label=int(same)))
            yield batch

    def __len__(self) -> int:
        return len(self.sentences) // (2 * self.batch_size - self.batch_size // self.pos_neg_ratio)
