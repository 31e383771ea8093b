"""Data sets of `InputExample` for `fit`, under the reference's names, with its random draws."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset, IterableDataset

from .data.loaders import NoDuplicatesDataLoader
from .data.readers import read_lines
from .data.rows import InputExample, check_examples
from .errors import ConfigError, InputError, InputTypeError, check_count, check_flag, shown
from .text import check_texts

__all__ = [
    "DenoisingAutoEncoderDataset",
    "NoDuplicatesDataLoader",
    "ParallelSentencesDataset",
    "SentenceLabelDataset",
    "SentencesDataset",
]


_LARGEST_WEIGHT = 1_000_000  # rows of a source in turn, each of which is embedded before the next source


class SentencesDataset(Dataset[InputExample]):
    """A list of examples, as it is.

    Args:
        examples: the examples.
        model: not used.

    Raises:
        InputTypeError: the examples are no list of examples.
    """

    def __init__(self, examples: Sequence[InputExample], model: object = None) -> None:
        self.examples = check_examples(examples)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, item: int) -> InputExample:
        return self.examples[item]


class DenoisingAutoEncoderDataset(Dataset[InputExample]):
    """Pairs of a damaged text and the text, for `DenoisingAutoEncoderLoss`.

    Args:
        sentences: the texts.
        noise_fn: damages a text; by default `delete`, which needs the package nltk.

    Raises:
        ConfigError: the noise is no function, or nltk is missing.
        InputTypeError: the sentences are no list of texts.
    """

    def __init__(self, sentences: Sequence[str], noise_fn: Callable[[str], str] | None = None) -> None:
        self.sentences = check_texts(sentences, what="sentences")
        if noise_fn is None:
            _nltk()
        elif not callable(noise_fn):
            raise ConfigError(f"got noise_fn={shown(noise_fn)}; expected a function that damages a text: pass one")
        self.noise_fn = noise_fn or self.delete

    def __len__(self) -> int:
        return len(self.sentences)

    def __getitem__(self, item: int) -> InputExample:
        text = self.sentences[item]
        return InputExample(texts=[self.noise_fn(text), text])

    @staticmethod
    def delete(text: str, del_ratio: float = 0.6) -> str:
        """Leave out words, each with the same probability; one is always left."""
        tokenize, detokenize = _nltk()
        words = tokenize(text)
        if not words:
            return text
        kept = np.random.rand(len(words)) > del_ratio  # noqa: NPY002
        if not kept.any():
            kept[np.random.choice(len(words))] = True  # noqa: NPY002
        return str(detokenize([word for word, keep in zip(words, kept, strict=True) if keep]))


def _nltk() -> tuple[Callable[[str], list[str]], Callable[[list[str]], str]]:
    """Return what splits a text into words, and what joins them.

    Raises:
        ConfigError: nltk is not installed, or lacks its data.
    """
    try:
        from nltk import word_tokenize
        from nltk.tokenize.treebank import TreebankWordDetokenizer

        word_tokenize("a text")
    except (ImportError, LookupError) as error:
        lacks, command = "package nltk", "pip install nltk"
        if isinstance(error, LookupError):
            lacks, command = "data of nltk, punkt_tab", "python -m nltk.downloader punkt_tab"
        raise ConfigError(
            f"got no {lacks}; DenoisingAutoEncoderDataset deletes words with it: run {command}, or pass noise_fn"
        ) from None
    return word_tokenize, TreebankWordDetokenizer().detokenize


class SentenceLabelDataset(IterableDataset[InputExample]):
    """Examples in an order in which `samples_per_label` neighbours have one label, for the batch triplet losses.

    One label after the other, in a random order, gives examples drawn at random; one that has too few left is passed
    over. Labels with fewer examples are left out. With `Trainer`, `batch_sampler="group_by_label"` does the like.

    Args:
        examples: texts with a label each.
        samples_per_label: see above.
        with_replacement: draw from all examples of a label each time.

    Raises:
        ConfigError: the number is no whole number of at least 1.
        InputError: a label is no number or name.
        InputTypeError: the examples are no list of examples.
    """

    def __init__(
        self, examples: Sequence[InputExample], samples_per_label: int = 2, with_replacement: bool = False
    ) -> None:
        super().__init__()
        samples_per_label = check_count(samples_per_label, "samples_per_label")
        self.samples_per_label = samples_per_label
        self.with_replacement = check_flag(with_replacement, "with_replacement")
        by_label: dict[Any, list[InputExample]] = {}
        for row, example in enumerate(check_examples(examples)):
            if not isinstance(example.label, Hashable):
                raise InputError(
                    f"examples[{row}] has the label {shown(example.label)}; expected a number or a name: give each one"
                )
            by_label.setdefault(example.label, []).append(example)
        self._groups = [group for group in by_label.values() if len(group) >= samples_per_label]
        self._order = np.arange(len(self._groups))
        np.random.shuffle(self._order)  # noqa: NPY002

    def __len__(self) -> int:
        return sum(map(len, self._groups))

    def __iter__(self) -> Iterator[InputExample]:
        starts = np.cumsum([0, *map(len, self._groups)])
        every = [example for group in self._groups for example in group]
        place = count = 0
        seen: dict[int, set[int]] = {}
        while count < len(self):
            label = int(self._order[place])
            rows = np.arange(starts[label], starts[label + 1])
            if not self.with_replacement:
                rows = rows[[row not in seen.get(label, ()) for row in rows.tolist()]]
            if len(rows) >= self.samples_per_label:
                for row in np.random.choice(rows, self.samples_per_label, replace=False).tolist():  # noqa: NPY002
                    count += 1
                    seen.setdefault(label, set()).add(row)
                    yield every[row]
            place += 1
            if place >= len(self._order):
                place, seen = 0, {}
                np.random.shuffle(self._order)  # noqa: NPY002


class ParallelSentencesDataset(Dataset[InputExample]):
    """Texts in several languages with a teacher's embedding of the first, for `MSELoss`.

    Each text of a row, the first included, is an example with that embedding as label. With several sources, each gives
    as many rows as its weight in turn.

    Args:
        student_model: not used.
        teacher_model: whatever has `encode`.
        batch_size: texts in one forward pass of the teacher.
        use_embedding_cache: embed each text once.

    Raises:
        ConfigError: the teacher has no `encode`, or the batch size is no whole number of at least 1.
    """

    def __init__(
        self, student_model: object, teacher_model: Any, batch_size: int = 8, use_embedding_cache: bool = True
    ) -> None:
        if isinstance(teacher_model, str) or not callable(getattr(teacher_model, "encode", None)):
            raise ConfigError(
                f"got {type(teacher_model).__name__} as teacher_model; expected what has encode: pass a "
                f"SentenceTransformer"
            )
        self.teacher_model = teacher_model
        self.use_embedding_cache = check_flag(use_embedding_cache, "use_embedding_cache")
        self.batch_size = check_count(batch_size, "batch_size")
        self._sources: list[list[tuple[str, list[str]]]] = []
        self._next: list[int] = []
        self._turns: list[int] = []
        self._ready: list[InputExample] = []
        self._embeddings: dict[str, Any] = {}
        self._count = 0

    def load_data(
        self, filepath: str | Path, weight: int = 100, max_sentences: int | None = None, max_sentence_length: int = 128
    ) -> None:
        """Add a file of texts separated by tabs, a row on each line; plain or gzipped.

        Args:
            filepath: its name.
            weight: see above.
            max_sentences: most rows to read.
            max_sentence_length: characters of the longest text; rows with a longer one are left out.

        Raises:
            ConfigError: a number is not valid, or the name is none.
            InputError: there is no such file, or it cannot be read.
        """
        if not isinstance(filepath, (str, Path)):
            raise ConfigError(f"got filepath={shown(filepath)}; expected the name of a file: pass one")
        rows = [line.strip().split("\t") for line in read_lines(Path(filepath))]
        self.add_dataset(rows, weight=weight, max_sentences=max_sentences, max_sentence_length=max_sentence_length)

    def add_dataset(
        self,
        parallel_sentences: Sequence[Sequence[str]],
        weight: int = 100,
        max_sentences: int | None = None,
        max_sentence_length: int = 128,
    ) -> None:
        """Add rows of texts, with the arguments of `load_data`.

        Raises:
            ConfigError: a number is not valid.
            InputError: a row is no list of texts.
            InputTypeError: there are no rows.
        """
        check_count(weight, "weight", most=_LARGEST_WEIGHT)
        for name, most in (("max_sentences", max_sentences), ("max_sentence_length", max_sentence_length)):
            if most is not None:
                check_count(most, name, least=0, otherwise="None for no limit")
        if isinstance(parallel_sentences, (str, bytes)) or not isinstance(parallel_sentences, Iterable):
            got = type(parallel_sentences).__name__
            raise InputTypeError(f"got {got} as parallel_sentences; expected rows of texts: pass a list of lists")
        found: dict[str, dict[str, None]] = {}
        for texts in parallel_sentences:
            rows = isinstance(texts, Sequence) and not isinstance(texts, str)
            if not rows or not texts or not all(isinstance(text, str) for text in texts):
                raise InputError(f"got the row {shown(texts)}; expected several texts: put those of a row in a list")
            if max_sentence_length and max(map(len, texts)) > max_sentence_length:
                continue
            found.setdefault(texts[0], {}).update(dict.fromkeys(texts))
            if max_sentences and len(found) >= max_sentences:
                break
        if found:
            self._turns += [len(self._sources)] * weight
            self._sources.append([(source, list(texts)) for source, texts in found.items()])
            self._next.append(0)
            self._count += sum(map(len, found.values()))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, item: int) -> InputExample:
        if not self._ready:
            self._fill()
        return self._ready.pop()

    def _fill(self) -> None:
        """Embed the next rows of each source."""
        if not self._sources:
            raise InputError("got no rows; expected some: call load_data or add_dataset first")
        rows = [self._next_row(source) for source in self._turns]
        embedded = self._embed([source for source, _ in rows])
        for (_, texts), embedding in zip(rows, embedded, strict=True):
            self._ready += [InputExample(texts=[text], label=embedding) for text in texts]
        random.shuffle(self._ready)

    def _next_row(self, source: int) -> tuple[str, list[str]]:
        rows = self._sources[source]
        row = rows[self._next[source]]
        self._next[source] += 1
        if self._next[source] >= len(rows):
            self._next[source] = 0
            random.shuffle(rows)
        return row

    def _embed(self, texts: list[str]) -> list[Any]:
        known = self._embeddings if self.use_embedding_cache else {}
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            made = self.teacher_model.encode(
                new, batch_size=self.batch_size, show_progress_bar=False, convert_to_numpy=True
            )
            rows = None if getattr(made, "ndim", 1) == 0 or not hasattr(made, "__len__") else len(made)
            if rows != len(new):
                got = type(made).__name__ if rows is None else f"{rows} embeddings"
                raise InputError(
                    f"got {got} for {len(new)} texts from the teacher; expected one for each: check its encode"
                )
            known.update(zip(new, made, strict=True))
        return [known[text] for text in texts]
