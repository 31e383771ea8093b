"""Models with embeddings that are known beforehand, for evaluators of both libraries."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from minisbert.similarity import quantize_embeddings


class FixedModel:
    """Gives every text an embedding of its own, whatever it is encoded with: for comparisons to the last bit.

    `calls` notes kind and texts of each call, `options` what else it was given; of these it follows `truncate_dim`,
    `normalize_embeddings`, `precision` and `convert_to_tensor`. With `whole`, embeddings are small whole numbers, so
    that scores are exact and often equal.
    """

    similarity_fn_name = "cosine"
    model_card_data = SimpleNamespace(set_evaluation_metrics=lambda *arguments: None)

    def __init__(self, dim: int = 16, *, whole: bool = False) -> None:
        self.dim, self.whole = dim, whole
        self.calls: list[tuple[str, list[str]]] = []
        self.options: dict[str, Any] = {}

    def eval(self) -> FixedModel:
        return self

    def row(self, text: str) -> np.ndarray:
        draw = np.random.default_rng(zlib.crc32(text.encode()))
        return draw.integers(-1, 2, self.dim) if self.whole else draw.normal(size=self.dim)

    def encode(self, inputs: Sequence[str], **options: Any) -> Any:
        return self._encode("text", inputs, options)

    def encode_query(self, inputs: Sequence[str], **options: Any) -> Any:
        return self._encode("query", inputs, options)

    def encode_document(self, inputs: Sequence[str], **options: Any) -> Any:
        return self._encode("document", inputs, options)

    def similarity(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(a, dim=-1) @ torch.nn.functional.normalize(b, dim=-1).T

    def _encode(self, kind: str, texts: Sequence[str], options: dict[str, Any]) -> Any:
        self.calls.append((kind, list(texts)))
        self.options = options
        rows = np.array([self.row(text) for text in texts], np.float32)[:, : options.get("truncate_dim")]
        values = torch.from_numpy(rows)
        if options.get("normalize_embeddings"):
            values = torch.nn.functional.normalize(values, dim=-1)
        if options.get("precision"):
            return quantize_embeddings(values, options["precision"])
        if options.get("convert_to_tensor"):
            return values
        return values.numpy() if options.get("convert_to_numpy", True) else list(values)


class PlacedModel(FixedModel):
    """Texts are where they are put."""

    def __init__(self, places: Mapping[str, Sequence[float]], *, similarity: str = "cosine") -> None:
        super().__init__(len(next(iter(places.values()))))
        self.places = places
        self.similarity_fn_name = similarity

    def row(self, text: str) -> np.ndarray:
        return np.array(self.places[text])


def scored(**scores: float) -> PlacedModel:
    """A model whose dot product of the text "q" with each named text is its score."""
    return PlacedModel({"q": [1.0], **{name: [score] for name, score in scores.items()}}, similarity="dot")
