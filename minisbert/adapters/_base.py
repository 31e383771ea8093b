"""A model, or the name of one, with the options by which an adapter embeds."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..embedder import Embedder
from ..errors import ConfigError, InputTypeError, shown
from ..model import EmbeddingModel
from ..model.embedding_model import DType

Embeddings: TypeAlias = NDArray[np.float32]
_LOADING = ("device", "dtype", "revision")


@contextmanager
def imported_from(package: str) -> Iterator[None]:
    """Name the package to install where an import fails.

    Raises:
        ModuleNotFoundError: the package, or something that it needs, is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"got no module {error.name!r}; expected the package {package}, which this adapter is for: "
            f"pip install {package}",
            name=error.name,
        ) from error


@dataclass(eq=False, repr=False)
class TextEncoder:
    """A model that was given, or one that is loaded by its name at first use, and the options of embedding with it.

    All that is loaded in a process by the same name and options is one model. A pickle holds the name.

    Args:
        model: a loaded model, or the name or folder of one, as of `SentenceTransformer`.
        device: where a model that is named runs, as of `SentenceTransformer`.
        dtype: of the weights of a model that is named.
        revision: branch, tag or commit on the Hub.
        batch_size: most texts in one forward pass, as of `encode`.
        normalize_embeddings: scale each embedding to length 1.
        truncate_dim: slice embeddings up to this dimension; by default what the model has.

    Raises:
        ConfigError: this is no model, or options of loading are given with a loaded one.
    """

    model: EmbeddingModel | str | Path
    _: KW_ONLY
    device: str | None = None
    dtype: DType | None = None
    revision: str | None = None
    batch_size: int | None = None
    normalize_embeddings: bool = False
    truncate_dim: int | None = None

    def __post_init__(self) -> None:
        self._named = None
        if isinstance(self.model, EmbeddingModel):
            for name in _LOADING:
                if getattr(self, name) is not None:
                    raise ConfigError(
                        f"got {name}={shown(getattr(self, name))} with a loaded model; expected options of loading "
                        f"with a name only: pass the model's name or folder, or leave {name} out"
                    )
        elif isinstance(self.model, (str, os.PathLike)):
            self._named = Embedder(self.model, device=self.device, dtype=self.dtype, revision=self.revision)
        else:
            raise ConfigError(
                f"got model={shown(self.model)}; expected a minisbert.SentenceTransformer, or the name or folder of one"
            )

    def __repr__(self) -> str:
        model = type(self.model).__name__ if self._named is None else repr(str(self.model))
        changed = {
            one.name: getattr(self, one.name) for one in fields(self)[1:] if getattr(self, one.name) != one.default
        }
        return f"{type(self).__name__}({', '.join([model, *(f'{name}={value!r}' for name, value in changed.items())])})"

    def __getstate__(self) -> dict[str, Any]:
        if self._named is None:
            return self.__dict__
        # As text: the pickle of equal settings is the same in every process, as caches by hashes of it need.
        return {"settings": json.dumps(self.settings(), sort_keys=True), "content": self.content}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "settings" in state:
            self.__init__(**json.loads(state["settings"]))  # type: ignore[misc]
        else:
            self.__dict__.update(state)

    def load(self) -> EmbeddingModel:
        """Return the model, loaded at the first call in this process.

        Raises:
            ModelError: it cannot be found or read.
        """
        return self._named.load() if self._named is not None else self.model  # type: ignore[return-value]

    @property
    def dimension(self) -> int:
        """Size of an embedding; loads the model."""
        model = self.load()
        return model.dimension(model.truncate_dim if self.truncate_dim is None else self.truncate_dim)

    @property
    def content(self) -> str:
        """A digest of what decides the embeddings, or "" for a name on the Hub, which its revision has to pin.

        Of a folder it is that of samples of its files, taken when this was made; of a loaded model that of all its
        weights and settings, as they are now.
        """
        return self._named.content if self._named is not None else model_digest(self.load())

    def settings(self) -> dict[str, Any]:
        """Return the arguments in the types of JSON, to make an equal adapter from.

        Raises:
            ConfigError: the model has no name.
        """
        if self._named is None:
            raise ConfigError(
                f"got a loaded {type(self.model).__name__} to write down; expected its name: save the model, and pass "
                f"the folder"
            )
        return {one.name: getattr(self, one.name) for one in fields(self)} | {"model": str(self.model)}

    def _embed(
        self, encode: Callable[..., Any], texts: Iterable[str], prompt: str | None, *, progress: bool = False
    ) -> Embeddings:
        """Embed texts by a method of the model: float32, (texts, dim).

        Raises:
            InputTypeError: `texts` is one text, or has something that is not a text.
        """
        if isinstance(texts, str):
            raise InputTypeError(f"got one text, {shown(texts)}; expected several: put it in a list")
        embeddings: Embeddings = encode(
            list(texts),
            prompt=prompt,
            batch_size=self.batch_size,
            normalize_embeddings=self.normalize_embeddings,
            truncate_dim=self.truncate_dim,
            show_progress_bar=progress,
        )
        return embeddings


def model_digest(model: EmbeddingModel) -> str:
    """Return a digest of all weights, of the tokenizer, and of the settings that decide a model's embeddings."""
    settings = (model.prompts, model.default_prompt_name, model.truncate_dim, model.similarity_fn_name)
    return hashlib.sha256(f"{settings} {model.digest()}".encode()).hexdigest()[:16]


@dataclass(eq=False, repr=False)
class PlainEncoder(TextEncoder):
    """A `TextEncoder` for texts of one kind.

    Args:
        prompt: put before each text; by default the model's default prompt.
    """

    prompt: str | None = None

    def encode(self, texts: Iterable[str], *, progress: bool = False) -> Embeddings:
        """Embed texts by `encode`: float32, (texts, dim)."""
        return self._embed(self.load().encode, texts, self.prompt, progress=progress)


@dataclass(eq=False, repr=False)
class WordEncoder(PlainEncoder):
    """A `PlainEncoder` with the method by which BERTopic and KeyBERT embed."""

    def embed(self, documents: Sequence[str], verbose: bool = False) -> Embeddings:
        """Embed documents, words or phrases: float32, (texts, dim). `verbose` shows a progress bar."""
        return self.encode(documents, progress=verbose)


@dataclass(eq=False, repr=False)
class RetrievalEncoder(TextEncoder):
    """A `TextEncoder` that tells queries from documents.

    Args:
        query_prompt: put before each query; by default the model's own prompt for queries.
        document_prompt: put before each document; by default the model's own prompt for documents.
    """

    query_prompt: str | None = None
    document_prompt: str | None = None

    def encode_queries(self, texts: Iterable[str]) -> Embeddings:
        """Embed queries by `encode_query`: float32, (texts, dim)."""
        return self._embed(self.load().encode_query, texts, self.query_prompt)

    def encode_documents(self, texts: Iterable[str], *, progress: bool = False) -> Embeddings:
        """Embed documents by `encode_document`: float32, (texts, dim)."""
        return self._embed(self.load().encode_document, texts, self.document_prompt, progress=progress)
