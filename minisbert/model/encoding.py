"""Embed many texts with one model: tokenize and pack blocks of texts, run the modules, collect the rows in order."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, Protocol, TypeAlias, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from ..errors import ConfigError, InputError, check_count, first_line, warn
from ..modules.features import Features
from ..packing import PackedBatch, pack, token_budget_batches
from ..prefetch import prefetch, to_device
from ..similarity import PRECISIONS, Precision, normalize_embeddings, quantize_embeddings
from ..text import Text, with_prompt
from .devices import copy_to_host, side_stream_copies
from .stack import ModuleStack

OutputValue: TypeAlias = Literal["sentence_embedding", "token_embeddings"]
Rows: TypeAlias = NDArray[np.int64]
# (texts, dim), or one value for each text
Values: TypeAlias = "Tensor | list[Any]"

BLOCK = 16_384  # texts that are tokenized and sorted together; bounds the memory of long inputs
_FIRST_BLOCK = 2_048  # smaller, where the device waits for the first block and computes while the next is tokenized
_PREFETCHED = 128  # batches; about as many as a block has, so that the next block is tokenized early enough
_ASYNCHRONOUS = ("cuda",)  # devices that compute while this process goes on
# On a GPU the widest activations of this many tokens, 1,536 columns in half precision, about fill a second-level cache
# of 50 to 60 MB. It is four times 5,632: a product of that many rows and 384 columns has 132 tiles of 128 x 128, one
# for each of 132 multiprocessors.
_TOKENS_PER_FORWARD = {"cpu": 4_096, "cuda": 22_528, "mps": 16_384}


@dataclass(frozen=True)
class EncodeOptions:
    """Options of one call of `encode`, for this process or for workers.

    Attributes:
        prompt: put before each text.
        batch_size: most texts in one forward pass, or None to limit only the number of tokens.
        output_value: the value to return for a text; None for all of them in a dictionary.
        precision: number format of the embeddings.
        normalize: scale each sentence embedding to length 1.
        truncate_dim: slice each sentence embedding up to here.

    Raises:
        ConfigError: a value is impossible, or values exclude each other.
    """

    prompt: str = ""
    batch_size: int | None = None
    output_value: OutputValue | None = "sentence_embedding"
    precision: Precision = "float32"
    normalize: bool = False
    truncate_dim: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, str):
            raise ConfigError(f"got prompt={self.prompt!r}; expected a string to put before each text")
        if self.batch_size is not None:
            check_count(self.batch_size, "batch_size", otherwise="None to limit only the number of tokens")
        if self.output_value is not None and self.output_value not in get_args(OutputValue):
            raise ConfigError(
                f"got output_value={self.output_value!r}; expected sentence_embedding, token_embeddings or None"
            )
        if not isinstance(self.precision, str) or self.precision not in PRECISIONS:
            raise ConfigError(f"got precision={self.precision!r}; expected {', '.join(PRECISIONS)}")
        if self.precision != "float32" and self.output_value is None:
            raise ConfigError(
                f"got precision={self.precision!r} with output_value=None; expected an output_value to convert"
            )


class Run(Protocol):
    """One pass over texts. Iterate it to do the work: it yields row numbers of texts and their values in that order.

    Attributes:
        device: where the values are.
        truncated: number of texts truncated so far.
    """

    device: torch.device
    truncated: int

    def __iter__(self) -> Iterator[tuple[Rows, Values]]: ...


class EncodingRun:
    """One pass of a model, which is put in evaluation mode, over texts in this process.

    Args:
        model: embeds the texts.
        texts: what to embed.
        options: what to return.
        progress: show a bar on a terminal.
        first: number of the first text, for messages.

    Attributes:
        device: where the values are.
        truncated: number of texts truncated so far.
    """

    def __init__(
        self, model: ModuleStack, texts: list[Text], options: EncodeOptions, *, progress: bool = False, first: int = 0
    ) -> None:
        model.ensure_eval()
        self._model, self._tokenizer = model, model.transformer.text_tokenizer
        self._texts, self._options, self._progress, self._first = texts, options, progress, first
        self.device = model.device
        self.truncated = 0
        self._max_tokens: int | None = None  # of a forward pass, once memory ran out with more
        self._prefetches = self.device.type in _ASYNCHRONOUS and len(texts) > _FIRST_BLOCK

    def __iter__(self) -> Iterator[tuple[Rows, Values]]:
        batches = prefetch(self._batches(), _PREFETCHED) if self._prefetches else self._batches()
        with progress_bar(len(self._texts), show=self._progress) as bar, closing(batches):
            for rows, batch in batches:
                yield rows, self._embed(batch)
                if bar is not None:
                    bar.update(len(rows))

    def _batches(self) -> Generator[tuple[Rows, PackedBatch], None, None]:
        """Tokenize block by block and yield batches of similar lengths, on the CPU, with their row numbers."""
        options, tokenizer = self._options, self._tokenizer
        prompt_length = tokenizer.prompt_length(options.prompt) if options.prompt else 0
        budget = _TOKENS_PER_FORWARD.get(self.device.type, 4_096)
        start, size = 0, _FIRST_BLOCK if self._prefetches else BLOCK
        while start < len(self._texts):
            block = self._texts[start : start + size]
            tokenized = tokenizer(with_prompt(block, options.prompt), first=self._first + start)
            self.truncated += tokenized.truncated
            for rows in token_budget_batches(tokenized.lengths, max_tokens=budget, max_texts=options.batch_size):
                yield rows + start, pack(tokenized, rows, prompt_length=prompt_length)
            start, size = start + size, min(2 * size, BLOCK)

    def _embed(self, batch: PackedBatch) -> Values:
        """Embed a batch, in parts if the device has too little memory for it: values in the caller's order.

        Raises:
            ConfigError: memory does not suffice for a single text.
        """
        while True:
            try:
                if self._max_tokens is None or batch.tokens <= self._max_tokens:
                    return self._forward(batch)
                return _join([self._forward(part) for part in batch.cut(self._max_tokens)], batch.restore)
            except torch.OutOfMemoryError as error:
                reason = first_line(error)
            # Only now: the error keeps alive what was computed before it.
            self._reduce_max_tokens(batch, reason)

    def _forward(self, batch: PackedBatch) -> Values:
        on_device = batch.to(self.device)  # outside inference mode, because ids are handed out
        with torch.inference_mode():
            features = self._model(Features(on_device))
        return _read_values(features, self._options, token_types=self._tokenizer.token_types)

    def _reduce_max_tokens(self, batch: PackedBatch, reason: str) -> None:
        """Halve the tokens of a forward pass, and warn the first time."""
        limit = self._max_tokens or batch.tokens
        if batch.texts == 1 or (limit < batch.tokens and limit <= batch.max_length):  # then a part was a single text
            raise ConfigError(
                f"{self.device} has too little memory for a text of {batch.max_length:,} tokens ({reason}); expected "
                f"enough for one text: lower max_seq_length, or encode on another device"
            )
        if self._max_tokens is None:
            warn(
                f"{self.device} has too little memory for a batch of {batch.tokens:,} tokens: the remaining batches "
                f"are split into smaller ones"
            )
        self._max_tokens = min(limit, batch.tokens) // 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _read_values(features: Features, options: EncodeOptions, *, token_types: bool) -> Values:
    """Read from the output of the last module what `options` ask for, in the caller's order."""
    batch = features.batch

    def split(rows: Tensor) -> list[Tensor]:
        return list(torch.split(rows, batch.lengths.tolist()))  # (tokens, ...) to one tensor for each text

    if options.output_value != "token_embeddings":
        sentences = features.sentences.float()  # (texts, dim)
        if batch.texts > 1 or options.output_value is None:  # then they are handed out, and ordinary tensors
            sentences = sentences[batch.restore]
        if options.truncate_dim is not None:
            sentences = sentences[:, : options.truncate_dim]
        sentences = normalize_embeddings(sentences) if options.normalize else sentences
        if options.output_value == "sentence_embedding":
            return sentences
    tokens = split(features.tokens.float().clone())  # the copy is an ordinary tensor, outside inference mode
    order = batch.restore.tolist()
    if options.output_value == "token_embeddings":
        return [tokens[text] for text in order]
    ids, types = split(batch.input_ids), None if batch.token_types is None else split(batch.token_types)
    values = []
    for text, sentence in zip(order, sentences, strict=True):
        value = {"input_ids": ids[text]}
        if token_types:
            value["token_type_ids"] = torch.zeros_like(ids[text]) if types is None else types[text]
        value["attention_mask"] = torch.ones_like(ids[text])
        values.append({**value, "token_embeddings": tokens[text], "sentence_embedding": sentence})
    return values


def _join(parts: list[Values], restore: Tensor) -> Values:
    """Join values of the parts of a batch, and put them from packed order into the caller's."""
    if isinstance(parts[0], Tensor):
        return torch.cat(cast("list[Tensor]", parts))[restore.to(parts[0].device)]
    values = list(chain.from_iterable(parts))
    return [values[text] for text in restore.tolist()]


def allocate(
    shape: tuple[int, int], options: EncodeOptions, *, device: torch.device, out: NDArray[np.float32] | None = None
) -> Values:
    """Return what `collect` writes the values of a run to.

    Args:
        shape: (texts, dim) of the sentence embeddings.
        options: of the run.
        device: where to put the sentence embeddings.
        out: use this array instead.

    Raises:
        ConfigError: `out` is given for other values than sentence embeddings.
        InputError: `out` has another shape or dtype, or cannot be written to.
    """
    if options.output_value != "sentence_embedding":
        if out is not None:
            raise ConfigError(f"got out with output_value={options.output_value!r}; expected sentence_embedding")
        return [None] * shape[0]
    if out is None:
        return torch.empty(shape, dtype=torch.float32, device=device)
    if not isinstance(out, np.ndarray) or out.shape != shape or out.dtype != np.float32:
        got = f"shape {out.shape} and dtype {out.dtype}" if isinstance(out, np.ndarray) else f"a {type(out).__name__}"
        raise InputError(f"got out with {got}; expected an array of shape {shape} and dtype float32")
    if not out.flags.writeable or min(out.strides, default=0) < 0:
        raise InputError("got out that cannot be written to; expected an array or a memory map opened for writing")
    row, column = out.strides
    if out.size > 1 and not ((column >= 4 and row >= column * shape[1]) or (row >= 4 and column >= row * shape[0])):
        raise InputError("got out whose elements share memory; expected an array with separate memory for each")
    return torch.from_numpy(out)


def collect(run: Run, values: Values) -> Values:
    """Do the work of a run, and write each value to its row of `values`."""
    if not isinstance(values, Tensor):
        for rows, batch_values in run:
            for row, value in zip(rows.tolist(), batch_values, strict=True):
                values[row] = value
        return values
    batches = cast("Iterable[tuple[Rows, Tensor]]", run)
    if run.device.type == "cuda" and not values.is_cuda:
        batches = copy_to_host(batches, side_stream_copies(run.device))
    for rows, embeddings in batches:
        if len(values) == 1:
            values.copy_(embeddings)
            continue
        targets = torch.from_numpy(rows)
        if values.is_cuda:
            (targets,) = to_device([targets], values.device)
        values[targets] = embeddings.to(values.device)
    return values


def quantize(values: Values, precision: Precision) -> Values:
    """Convert sentence embeddings, or the token embeddings of all texts together, to another number format.

    Token embeddings become one array for each text, as in the reference.
    """
    if isinstance(values, Tensor):
        return torch.from_numpy(quantize_embeddings(values, precision))
    if not values:
        return []
    together = quantize_embeddings(torch.cat(values), precision)
    return np.split(together, np.cumsum([len(tokens) for tokens in values])[:-1])


def progress_bar(texts: int, *, show: bool) -> AbstractContextManager[tqdm[Any] | None]:
    """Return a bar on a terminal that counts texts, or None to show nothing.

    Even a disabled bar makes a lock, which a worker that is terminated would leak.
    """
    return tqdm(total=texts, desc="Encoding", unit="text", disable=None) if show else nullcontext()
