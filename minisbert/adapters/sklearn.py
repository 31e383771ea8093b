"""A model as a transformer of scikit-learn."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, InputTypeError, shown
from ..model import EmbeddingModel
from ..model.embedding_model import DType
from ._base import Embeddings, PlainEncoder, imported_from

with imported_from("scikit-learn"):
    from sklearn.base import BaseEstimator, TransformerMixin


class SentenceEmbedder(TransformerMixin, BaseEstimator):
    """A transformer of scikit-learn that makes embeddings of texts: `make_pipeline(SentenceEmbedder(), head)`.

    It learns nothing from texts, and `transform` works without `fit`. Clones share a model that was given, and models
    of one name; a pickle holds the name. What is cached by it, as with a pipeline's `memory`, depends on the weights.

    Args:
        model: a loaded model, or the name or folder of one, as of `SentenceTransformer`.
        device: where a model that is named runs.
        dtype: of the weights of a model that is named.
        revision: branch, tag or commit on the Hub.
        prompt: put before each text; by default the model's default prompt.
        batch_size: most texts in one forward pass.
        normalize_embeddings: scale each embedding to length 1.
        truncate_dim: slice embeddings up to this dimension.
    """

    def __init__(
        self,
        model: EmbeddingModel | str | Path = "all-MiniLM-L6-v2",
        *,
        device: str | None = None,
        dtype: DType | None = None,
        revision: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
    ) -> None:
        self.model = model
        self.device = device
        self.dtype = dtype
        self.revision = revision
        self.prompt = prompt
        self.batch_size = batch_size
        self.normalize_embeddings = normalize_embeddings
        self.truncate_dim = truncate_dim

    def fit(self, X: Iterable[str], y: Any = None) -> SentenceEmbedder:
        """Check the texts and load the model, so that what is wrong is said here.

        Args:
            X: texts, as of `transform`.
            y: not used.

        Raises:
            ConfigError: an argument has an impossible value.
            ModelError: the model cannot be found or read.
        """
        _texts(X)
        self._encoder().load()
        return self

    def transform(self, X: Iterable[str]) -> Embeddings:
        """Embed texts as `encode` does: float32, (texts, dim).

        Args:
            X: a list, a tuple, an array or a column of texts; or a table of one column.

        Raises:
            InputTypeError: something is not a text.
            InputError: there is more than one column.
        """
        return self._encoder().encode(_texts(X))

    def get_feature_names_out(self, input_features: Any = None) -> Any:
        """Return the names of the dimensions: sentenceembedder0, sentenceembedder1 and so on; loads the model."""
        name = type(self).__name__.lower()
        return np.array([f"{name}{number}" for number in range(self._encoder().dimension)], dtype=object)

    def _encoder(self) -> PlainEncoder:
        return PlainEncoder(**self.get_params(deep=False))

    def __sklearn_clone__(self) -> SentenceEmbedder:
        """Return the same with the same model: scikit-learn would copy its weights for every fold."""
        return type(self)(**self.get_params(deep=False))

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array, tags.input_tags.string = False, True
        tags.transformer_tags.preserves_dtype = []
        return tags

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        named = not isinstance(self.model, EmbeddingModel)
        return {**state, "_content": self._encoder().content} if named else state  # for hashes of this


def _texts(rows: Any) -> list[str]:
    """Return texts of any form as a list."""
    if isinstance(rows, str):
        raise InputTypeError(f"got one text, {shown(rows)}; expected several: put it in a list")
    values = np.asarray(rows, dtype=object)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise InputError(f"got an array of shape {values.shape}; expected texts: choose one column of texts")
    for row, text in enumerate(values):
        if not isinstance(text, str):
            raise InputTypeError(f"got {shown(text)} in row {row}; expected a text: fill or drop it")
    return values.tolist()
