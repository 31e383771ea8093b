"""Running a model over many texts: tokenize once, sort, pack by a budget of tokens, forward."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from operator import index
from typing import Any, Literal, Protocol, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from ..ahead import ahead
from ..errors import ConfigError, InputError
from ..kernels.weights import submodules
from ..modules.features import Features
from ..packing import PackedBatch, pack, token_budget_batches
from ..similarity import Precision, normalize_embeddings, quantize_embeddings
from ..text import Text, TextTokenizer, with_prompt
from ..transfer import moved
from .leaving import SideStream, leaving
from .stack import ModuleStack

BLOCK = 16_384  # texts that are tokenized and sorted together; bounds the memory of long inputs
_FIRST_BLOCK = 2_048  # where the device waits for the first block, and computes while the next is tokenized
_PREPARED = 128  # batches; as many as a block has of middling texts, so that the next block is begun early enough
_WORK_BY_THEMSELVES = ("cuda",)  # devices that compute while this process goes on
# On a GPU the widest values of so many tokens, 1,536 columns in half precision, about fill a second-level cache of 50
# to 60 MB. And it is four times 5,632: a product of so many rows and 384 columns has 132 tiles of 128 x 128, one for
# each of 132 multiprocessors.
_TOKENS_PER_FORWARD = {"cpu": 4_096, "cuda": 22_528, "mps": 16_384}

OutputValue: TypeAlias = Literal["sentence_embedding", "token_embeddings"]
# (texts, dim), or one value for each text
Values: TypeAlias = "Tensor | list[Any]"


@dataclass(frozen=True)
class EncodeOptions:
    """What is made of texts, in this process or in another.

    Attributes:
        prompt: put before each text.
        batch_size: most texts in one forward pass, or None to go by tokens alone.
        output_value: which value of a text; None for all in a dictionary.
        normalize: scale each sentence embedding to length 1.
        truncate_dim: slice each sentence embedding up to here.

    Raises:
        ConfigError: an impossible value.
    """

    prompt: str = ""
    batch_size: int | None = None
    output_value: OutputValue | None = "sentence_embedding"
    normalize: bool = False
    truncate_dim: int | None = None

    def __post_init__(self) -> None:
        check_count("batch_size", self.batch_size, otherwise="None to go by tokens")
        if not isinstance(self.prompt, str):
            raise ConfigError(f"got prompt {self.prompt!r}; expected a string, which is put before each text")
        if self.output_value not in ("sentence_embedding", "token_embeddings", None):
            raise ConfigError(
                f"got output_value {self.output_value!r}; expected sentence_embedding, token_embeddings or None"
            )
        _whole("truncate_dim", self.truncate_dim)


class Run(Protocol):
    """Embeds texts while it is iterated: places of some texts, and their values in that order.

    Attributes:
        truncated: how many texts were cut so far.
    """

    truncated: int

    def __iter__(self) -> Iterator[tuple[NDArray[np.int64], Values]]:
        """Do the work."""
        ...


@dataclass(frozen=True)
class EmbeddedBatch:
    """What one forward pass made of some texts.

    Attributes:
        features: the batch after the last module, in packed order.
        token_types: whether the model knows the types of tokens.
    """

    features: Features
    token_types: bool

    def values(self, options: EncodeOptions) -> Values:
        """What `options` asks for, in the caller's order."""
        if options.output_value == "sentence_embedding":
            return self._sentences(options)
        if options.output_value == "token_embeddings":
            tokens = self._split(self._tokens())
            return [tokens[packed] for packed in self.features.batch.restore.tolist()]
        return list(self._everything(options))

    def _sentences(self, options: EncodeOptions) -> Tensor:
        """Embeddings: float32, (texts, dim)."""
        embeddings = self.features.sentences.float()[self.features.batch.restore]
        embeddings = embeddings[:, : options.truncate_dim]
        return normalize_embeddings(embeddings) if options.normalize else embeddings

    def _everything(self, options: EncodeOptions) -> Iterator[dict[str, Tensor]]:
        """For each text its ids, types, mask, token and sentence embeddings, unpadded."""
        batch = self.features.batch
        ids, tokens = self._split(batch.input_ids), self._split(self._tokens())
        types = None if batch.token_types is None else self._split(batch.token_types)
        for packed, sentence in zip(batch.restore.tolist(), self._sentences(options), strict=True):
            values = {"input_ids": ids[packed]}
            if self.token_types:
                values["token_type_ids"] = torch.zeros_like(ids[packed]) if types is None else types[packed]
            values["attention_mask"] = torch.ones_like(ids[packed])
            yield {**values, "token_embeddings": tokens[packed], "sentence_embedding": sentence}

    def _tokens(self) -> Tensor:
        # The copy is an ordinary tensor, where the original belongs to inference mode.
        return self.features.tokens.float().clone()

    def _split(self, values: Tensor) -> Sequence[Tensor]:
        """Rows of a token matrix, text by text."""
        return torch.split(values, self.features.batch.lengths.tolist())


class EmbeddingRun:
    """One pass of a model over texts; iterating it does the work, batch by batch.

    Args:
        forward: runs a packed batch through all modules.
        tokenizer: of the model.
        device: where the model is.
        texts: what to embed.
        options: what to make of them.
        progress: show a bar on a terminal.
        first: number of the first text, for messages.

    Attributes:
        truncated: how many texts were cut so far.
    """

    def __init__(
        self,
        forward: Callable[[Features], Features],
        tokenizer: TextTokenizer,
        device: torch.device,
        texts: list[Text],
        options: EncodeOptions,
        *,
        progress: bool = False,
        first: int = 0,
    ) -> None:
        self._forward, self._tokenizer, self._device = forward, tokenizer, device
        self._texts, self._options, self._progress, self._first = texts, options, progress, first
        self.truncated = 0
        self._most_tokens: int | None = None  # of a forward pass, where memory ran out with more

    def __iter__(self) -> Iterator[tuple[NDArray[np.int64], Values]]:
        prepared = self._prepared()
        if self._in_thread:
            prepared = ahead(prepared, _PREPARED)
        with progress_bar(len(self._texts), show=self._progress) as bar, closing(prepared):
            for rows, batch in prepared:
                yield rows, self._embedded(batch)
                bar.update(len(rows))

    def _embedded(self, batch: PackedBatch) -> Values:
        """What the options ask for, in the caller's order; where memory runs out, of some texts at a time.

        Raises:
            ConfigError: it does not suffice for one text.
        """
        while True:
            try:
                if self._most_tokens is None or batch.tokens <= self._most_tokens:
                    return self._values(batch)
                return _joined([self._values(piece) for piece in batch.cut(self._most_tokens)], batch.restore)
            except torch.OutOfMemoryError as error:
                reason = str(error).strip().split("\n")[0]
            # Not before the error is gone, which holds on to what was made until then.
            self._make_room(batch, reason)

    def _values(self, batch: PackedBatch) -> Values:
        there = batch.to(self._device)  # not in inference mode: ids are handed out
        with torch.inference_mode():
            features = self._forward(Features(there))
        return EmbeddedBatch(features, self._tokenizer.token_types).values(self._options)

    def _make_room(self, batch: PackedBatch, reason: str) -> None:
        """Go on in smaller pieces."""
        most = self._most_tokens or batch.tokens
        if batch.texts == 1 or (most < batch.tokens and most <= batch.max_length):  # then a piece was a single text
            raise ConfigError(
                f"{self._device} has too little memory for a text of {batch.max_length:,} tokens ({reason}); expected "
                f"room for it: lower max_seq_length, or encode on another device"
            )
        if self._most_tokens is None:
            warnings.warn(
                f"{self._device} has too little memory for a batch of {batch.tokens:,} tokens: from now on batches are "
                f"cut smaller",
                stacklevel=2,
            )
        self._most_tokens = min(most, batch.tokens) // 2
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @property
    def _in_thread(self) -> bool:
        """Whether batches are prepared in a thread; of few texts there is nothing to prepare meanwhile."""
        return self._device.type in _WORK_BY_THEMSELVES and len(self._texts) > _FIRST_BLOCK

    def _prepared(self) -> Generator[tuple[NDArray[np.int64], PackedBatch], None, None]:
        """Places of some texts, and these texts tokenized and packed, on the CPU."""
        options = self._options
        prompt_length = self._tokenizer.prompt_length(options.prompt) if options.prompt else 0
        budget = _TOKENS_PER_FORWARD.get(self._device.type, 4_096)
        for start, texts in self._blocks():
            tokenized = self._tokenizer(with_prompt(texts, options.prompt), first=self._first + start)
            self.truncated += tokenized.truncated
            for rows in token_budget_batches(tokenized.lengths, max_tokens=budget, max_texts=options.batch_size):
                yield rows + start, pack(tokenized, rows, prompt_length=prompt_length)

    def _blocks(self) -> Iterator[tuple[int, list[Text]]]:
        """Texts to be tokenized together, and the place of the first; small blocks first where a device waits."""
        start, size = 0, min(_FIRST_BLOCK, BLOCK) if self._in_thread else BLOCK
        while start < len(self._texts):
            yield start, self._texts[start : start + size]
            start, size = start + size, min(2 * size, BLOCK)


def _joined(parts: list[Values], restore: Tensor) -> Values:
    """Values of pieces of a batch, from packed order to the caller's."""
    if isinstance(parts[0], Tensor):
        return torch.cat(cast("list[Tensor]", parts))[restore.to(parts[0].device)]
    together = list(chain.from_iterable(parts))
    return [together[place] for place in restore.tolist()]


def start_run(
    model: ModuleStack, texts: list[Text], options: EncodeOptions, *, progress: bool = False, first: int = 0
) -> EmbeddingRun:
    """A pass of `model`, in evaluation mode, over texts."""
    if any(module.training for module in submodules(model)):
        model.eval()
    return EmbeddingRun(
        model, model.transformer.tokenizer, model.device, texts, options, progress=progress, first=first
    )


def room_for(
    model: ModuleStack,
    texts: int,
    options: EncodeOptions,
    *,
    device: torch.device,
    out: NDArray[np.float32] | None = None,
) -> Values:
    """Where the values of a run go, that is into `out` if it is given.

    Raises:
        InputError: `out` does not fit.
    """
    if options.output_value != "sentence_embedding":
        return [None] * texts
    shape = (texts, model.dimension(options.truncate_dim))
    if out is None:
        return torch.empty(shape, device=device)
    if not isinstance(out, np.ndarray) or out.shape != shape or out.dtype != np.float32:
        got = f"shape {out.shape} and type {out.dtype}" if isinstance(out, np.ndarray) else type(out).__name__
        raise InputError(f"got out of {got}; expected an array of {shape} float32")
    if not out.flags.writeable or min(out.strides, default=0) < 0:
        raise InputError("got out that cannot be written to; expected an array or a memory map opened for writing")
    row, column = out.strides
    if out.size > 1 and not ((column >= 4 and row >= column * shape[1]) or (row >= 4 and column >= row * shape[0])):
        raise InputError("got out whose elements share memory; expected an array with a place for each")
    return torch.from_numpy(out)


def collect(run: Run, values: Values) -> Values:
    """Put what a run yields into `values`, each at its place."""
    if not isinstance(values, Tensor):
        for rows, found in run:
            for row, value in zip(rows.tolist(), found, strict=True):
                values[row] = value
        return values
    embeddings = cast("Iterable[tuple[NDArray[np.int64], Tensor]]", run)
    if values.device.type == "cpu":
        embeddings = leaving(embeddings, SideStream())
    for rows, found in embeddings:
        (places,) = moved([torch.from_numpy(rows)], values.device)
        values[places] = found.to(values.device)
    return values


def quantized(values: Values, precision: Precision) -> Values:
    """Sentence embeddings, or the token embeddings of all texts together, in fewer bits.

    Token embeddings become one array for each text, as in the reference.
    """
    if isinstance(values, Tensor):
        return torch.from_numpy(quantize_embeddings(values, precision))
    if not values:
        return []
    together = quantize_embeddings(torch.cat(values), precision)
    return np.split(together, np.cumsum([len(tokens) for tokens in values])[:-1])


def check_count(name: str, value: object, *, otherwise: str) -> None:
    """Refuse an option that is neither None nor a whole number from 1 on.

    Raises:
        ConfigError: it is neither.
    """
    number = _whole(name, value)
    if number is not None and number < 1:
        raise ConfigError(f"got {name} {value!r}; expected at least 1, or {otherwise}")


def _whole(name: str, value: Any) -> int | None:
    """An option that is None or a whole number of any type.

    Raises:
        ConfigError: it is neither.
    """
    try:
        return None if value is None else index(value)
    except TypeError:
        raise ConfigError(f"got {name} {value!r}; expected a whole number: pass one, or leave it out") from None


class _NoBar:
    """Shows nothing. A bar of tqdm, though disabled, makes a lock, and a worker that is ended would leak it."""

    def __enter__(self) -> _NoBar:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def update(self, texts: int) -> None:
        """Count."""


def progress_bar(texts: int, *, show: bool) -> tqdm[Any] | _NoBar:
    """What counts texts: a bar on a terminal, or nothing."""
    return tqdm(total=texts, desc="Encoding", unit="text", disable=None) if show else _NoBar()
