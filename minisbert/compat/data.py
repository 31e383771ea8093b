"""Examples, readers of files as lists of them, and data sets and loaders of them, for `fit`."""

from __future__ import annotations

import csv
import gzip
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .. import datasets, readers
from ..data import loaders
from ..data.rows import InputExample as _Frozen
from ..errors import InputTypeError, shown, warn

__all__ = [
    "DenoisingAutoEncoderDataset",
    "InputExample",
    "LabelSentenceReader",
    "NLIDataReader",
    "NoDuplicatesDataLoader",
    "PairedFilesReader",
    "ParallelSentencesDataset",
    "STSBenchmarkDataReader",
    "STSDataReader",
    "SentenceLabelDataset",
    "SentencesDataset",
    "TripletReader",
]


class InputExample:
    """One training row, which may be changed.

    Args:
        guid: not used.
        texts: the row's texts, in column order.
        label: a number, a list of numbers or an embedding.
    """

    def __init__(self, guid: str = "", texts: list[str] | None = None, label: Any = 0) -> None:
        if isinstance(texts, str):
            warn(f"got texts={shown(texts)}, in which each letter is a text; expected a list of texts: use brackets")
        elif texts is not None and not isinstance(texts, Iterable):
            raise InputTypeError(f"got texts={shown(texts)}; expected a list of texts: use brackets")
        self.guid, self.texts, self.label = guid, texts, label

    def __str__(self) -> str:
        return f"<InputExample> label: {self.label}, texts: {'; '.join(self.texts or [])}"


def _changeable(example: _Frozen) -> InputExample:
    return InputExample(example.guid, list(example.texts), 0 if example.label is None else example.label)


# ---- readers --------------------------------------------------------------------------------------------------------


class LabelSentenceReader(readers.LabelSentenceReader):
    """`minisbert.readers.LabelSentenceReader`, of examples that may be changed."""

    def get_examples(self, filename: str, max_examples: int = 0) -> list[Any]:
        """Read a file, or its first `max_examples` lines; raises InputError with the line that does not fit."""
        return [_changeable(example) for example in super().get_examples(filename, max_examples)]


class NLIDataReader(readers.NLIDataReader):
    """`minisbert.readers.NLIDataReader`, of examples that may be changed; texts keep their line ends."""

    def get_examples(self, filename: str, max_examples: int = 0) -> list[Any]:
        """Read a split, such as "train.gz", or its first `max_examples` rows; raises InputError."""
        examples = super().get_examples(filename, max_examples)
        texts = zip(*(_lines(self.dataset_folder / f"{part}.{filename}") for part in ("s1", "s2")), strict=False)
        return [
            InputExample(example.guid, list(pair), example.label)
            for example, pair in zip(examples, texts, strict=False)
        ]


class PairedFilesReader(readers.PairedFilesReader):
    """`minisbert.readers.PairedFilesReader`, of examples that may be changed; texts keep their line ends."""

    def get_examples(self, max_examples: int = 0) -> list[Any]:
        """Read up to the end of the shortest file, or the first `max_examples` lines; raises InputError."""
        examples = super().get_examples(max_examples)
        texts = zip(*(_lines(path) for path in self.filepaths), strict=False)
        return [InputExample(example.guid, list(row), 1) for example, row in zip(examples, texts, strict=False)]


class STSDataReader(readers.STSDataReader):
    """`minisbert.readers.STSDataReader`, of examples that may be changed."""

    def get_examples(self, filename: str, max_examples: int = 0) -> list[Any]:
        """Read a file, or its first `max_examples` rows; raises InputError with the line that does not fit."""
        return [_changeable(example) for example in super().get_examples(filename, max_examples)]


class STSBenchmarkDataReader(STSDataReader, readers.STSBenchmarkDataReader):
    """`minisbert.readers.STSBenchmarkDataReader`, of examples that may be changed."""

    def __init__(
        self,
        dataset_folder: str | Path,
        s1_col_idx: int = 5,
        s2_col_idx: int = 6,
        score_col_idx: int = 4,
        delimiter: str = "\t",
        quoting: readers.Quoting = csv.QUOTE_NONE,
        normalize_scores: bool = True,
        min_score: float = 0,
        max_score: float = 5,
    ) -> None:
        super().__init__(
            dataset_folder,
            s1_col_idx,
            s2_col_idx,
            score_col_idx,
            delimiter,
            quoting,
            normalize_scores,
            min_score,
            max_score,
        )


class TripletReader(readers.TripletReader):
    """`minisbert.readers.TripletReader`, of examples that may be changed."""

    def get_examples(self, filename: str, max_examples: int = 0) -> list[Any]:
        """Read a file, or its first `max_examples` rows; raises InputError with the line that does not fit."""
        return [_changeable(example) for example in super().get_examples(filename, max_examples)]


def _lines(path: str | Path) -> Iterator[str]:
    """Yield the lines of a text file, plain or gzipped, with their ends."""
    gzipped = str(path).endswith(".gz")
    with gzip.open(path, "rt", encoding="utf-8") if gzipped else Path(path).open(encoding="utf-8") as file:
        yield from file


# ---- data sets and loaders ------------------------------------------------------------------------------------------


class SentencesDataset(datasets.SentencesDataset):
    """A list of examples, as it is.

    Args:
        examples: the examples.
        model: not used.
    """

    def __init__(self, examples: Sequence[Any], model: Any) -> None:
        super().__init__(examples, model)


def _delete(text: str) -> str:
    return DenoisingAutoEncoderDataset.delete(text)


class DenoisingAutoEncoderDataset(datasets.DenoisingAutoEncoderDataset):
    """Pairs of a damaged text and the text, for `DenoisingAutoEncoderLoss`.

    Args:
        sentences: the texts.
        noise_fn: damages a text; by default it leaves out words, which needs the package nltk.
    """

    def __init__(self, sentences: Sequence[str], noise_fn: Callable[[str], str] = _delete) -> None:
        super().__init__(sentences, None if noise_fn is _delete else noise_fn)

    def __getitem__(self, item: int) -> Any:
        return _changeable(super().__getitem__(item))


class SentenceLabelDataset(datasets.SentenceLabelDataset):
    """Examples in an order in which `samples_per_label` neighbours have one label.

    Args:
        examples: texts with a label each.
        samples_per_label: see above.
        with_replacement: draw from all examples of a label each time.
    """

    def __init__(self, examples: Sequence[Any], samples_per_label: int = 2, with_replacement: bool = False) -> None:
        super().__init__(examples, samples_per_label, with_replacement)


class ParallelSentencesDataset(datasets.ParallelSentencesDataset):
    """Texts in several languages with a teacher's embedding of the first, as examples that may be changed.

    Args:
        student_model: not used.
        teacher_model: whatever has `encode`.
        batch_size: texts in one forward pass of the teacher.
        use_embedding_cache: embed each text once.
    """

    def __init__(
        self, student_model: Any, teacher_model: Any, batch_size: int = 8, use_embedding_cache: bool = True
    ) -> None:
        super().__init__(student_model, teacher_model, batch_size, use_embedding_cache)
        self.student_model = student_model

    def generate_data(self) -> None:
        """Embed the next rows of each file, for the examples that follow."""
        self._fill()

    def next_entry(self, data_idx: int) -> tuple[str, list[str]]:
        """Return the next row of a file: its first text, and all its texts."""
        return self._next_row(data_idx)

    def get_embeddings(self, sentences: list[str]) -> list[Any]:
        """Embed texts with the teacher."""
        return self._embed(sentences)

    def __getitem__(self, item: int) -> Any:
        return _changeable(super().__getitem__(item))


class NoDuplicatesDataLoader(loaders.NoDuplicatesDataLoader):
    """Batches in which no text occurs twice, whatever its case and the white space around it.

    Args:
        train_examples: the examples; this list is shuffled with Python's `random`, now and whenever all were seen.
        batch_size: examples in a batch.
    """

    def __init__(self, train_examples: list[Any], batch_size: int) -> None:
        loaders.ExampleLoader.__init__(self, batch_size)
        self.train_examples, self.data_pointer = train_examples, 0
        random.shuffle(train_examples)
