"""Running a model over many texts: tokenize once, sort, pack by a budget of tokens, forward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from .errors import ConfigError
from .modules.features import Features
from .packing import pack, token_budget_batches
from .similarity import normalize_embeddings
from .text import TextTokenizer

BLOCK = 16_384  # texts that are tokenized and sorted together; bounds the memory of long inputs
_TOKENS_PER_FORWARD = {"cpu": 4_096, "cuda": 65_536, "mps": 16_384}


@dataclass(frozen=True)
class EmbeddedBatch:
    """What one forward pass made of some texts.

    Attributes:
        rows: int64, (texts,): their places among all texts.
        features: the batch after the last module, in packed order.
    """

    rows: NDArray[np.int64]
    features: Features

    def sentences(self, truncate_dim: int | None, *, normalize: bool) -> Tensor:
        """Embeddings in the order of `rows`: float32, (texts, dim)."""
        embeddings = self.features.sentences.float()[self.features.batch.restore]
        embeddings = embeddings[:, :truncate_dim] if truncate_dim is not None else embeddings
        return normalize_embeddings(embeddings) if normalize else embeddings

    def texts(self, truncate_dim: int | None, *, normalize: bool) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """For each text its place among all texts, and its ids, mask, token and sentence embeddings, unpadded."""
        batch = self.features.batch
        lengths = batch.lengths.tolist()
        tokens = torch.split(self.features.tokens.float().clone(), lengths)  # each (tokens of the text, dim)
        ids = torch.split(batch.input_ids, lengths)
        sentences = self.sentences(truncate_dim, normalize=normalize)
        for row, packed in enumerate(batch.restore.tolist()):
            yield (
                int(self.rows[row]),
                {
                    "input_ids": ids[packed],
                    "attention_mask": torch.ones_like(ids[packed]),
                    "token_embeddings": tokens[packed],
                    "sentence_embedding": sentences[row],
                },
            )


class EmbeddingRun:
    """One pass of a model over texts; iterating it does the work, batch by batch.

    Args:
        forward: runs a packed batch through all modules.
        tokenizer: of the model.
        device: where the model is.
        texts: what to embed.
        prompt: put before each text.
        batch_size: most texts in one forward pass, or None to go by tokens alone.
        progress: show a bar on a terminal.

    Attributes:
        truncated: how many texts were cut so far.

    Raises:
        ConfigError: the batch size is below 1.
    """

    def __init__(
        self,
        forward: Callable[[Features], Features],
        tokenizer: TextTokenizer,
        device: torch.device,
        texts: Sequence[str],
        *,
        prompt: str = "",
        batch_size: int | None = None,
        progress: bool = False,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise ConfigError(f"got batch_size {batch_size}; expected at least 1, or None to go by tokens")
        self._forward, self._tokenizer, self._device = forward, tokenizer, device
        self._texts, self._prompt, self._batch_size, self._progress = texts, prompt, batch_size, progress
        self.truncated = 0

    def __iter__(self) -> Iterator[EmbeddedBatch]:
        prompt = self._prompt
        prompt_length = self._tokenizer.prompt_length(prompt) if prompt else 0
        budget = _TOKENS_PER_FORWARD.get(self._device.type, 4_096)
        bar = tqdm(total=len(self._texts), desc="Encoding", unit="text", disable=None if self._progress else True)
        with bar:
            for start in range(0, len(self._texts), BLOCK):
                block = self._texts[start : start + BLOCK]
                tokenized = self._tokenizer([prompt + text for text in block] if prompt else block)
                self.truncated += tokenized.truncated
                for rows in token_budget_batches(tokenized.lengths, max_tokens=budget, max_texts=self._batch_size):
                    batch = pack(tokenized, rows, prompt_length=prompt_length).to(self._device)
                    with torch.inference_mode():
                        features = self._forward(Features(batch))
                    yield EmbeddedBatch(rows + start, features)
                    bar.update(len(rows))


def per_text(run: EmbeddingRun, texts: int, key: str | None, truncate_dim: int | None, *, normalize: bool) -> list[Any]:
    """One of the values of `EmbeddedBatch.texts` for each text in order, or with no `key` all of them."""
    values: list[Any] = [None] * texts
    for batch in run:
        for row, found in batch.texts(truncate_dim, normalize=normalize):
            values[row] = found if key is None else found[key]
    return values
