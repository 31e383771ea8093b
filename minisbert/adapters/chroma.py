"""A model as an embedding function of Chroma.

Chroma writes down the name and the options of a collection's embedding function, and makes it again where the
collection is opened: a program that opens one without its embedding function has to import this module first.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from ..errors import ConfigError, nearest, shown
from ._base import RetrievalEncoder, imported_from

with imported_from("chromadb"):
    from chromadb.api.types import Documents, EmbeddingFunction, Embeddings, Space
    from chromadb.utils.embedding_functions import register_embedding_function

_SPACES: dict[str, Space] = {"cosine": "cosine", "dot": "ip", "euclidean": "l2"}
_FIXED = ("normalize_embeddings", "truncate_dim", "query_prompt", "document_prompt")
_TYPES: dict[str, tuple[type, str]] = {
    "batch_size": (int, "a whole number"),
    "truncate_dim": (int, "a whole number"),
    "normalize_embeddings": (bool, "True or False"),
}


@register_embedding_function
@dataclass(eq=False, repr=False)
class MinisbertEmbeddingFunction(RetrievalEncoder, EmbeddingFunction[Documents]):
    """An embedding function of Chroma: documents by `encode_document`, queries by `encode_query`.

    Args:
        model: a loaded model, or the name or folder of one, as of `SentenceTransformer`. A collection that is opened
            again without its embedding function needs a name or folder.
        device: where a model that is named runs.
        dtype: of the weights of a model that is named.
        revision: branch, tag or commit on the Hub.
        batch_size: most texts in one forward pass.
        normalize_embeddings: scale each embedding to length 1.
        truncate_dim: slice embeddings up to this dimension.
        query_prompt: put before each query; by default the model's own prompt for queries.
        document_prompt: put before each document; by default the model's own prompt for documents.

    Raises:
        ConfigError: this is no model, or options of loading are given with a loaded one.
    """

    def __call__(self, input: Documents) -> Embeddings:  # noqa: A002  # Chroma's name
        """Embed documents: a float32 array for each."""
        return list(self.encode_documents(input))

    def embed_query(self, input: Documents) -> Embeddings:  # noqa: A002  # Chroma's name
        """Embed queries: a float32 array for each."""
        return list(self.encode_queries(input))

    @staticmethod
    def name() -> str:
        """Return the name that Chroma writes down."""
        return "minisbert"

    def is_legacy(self) -> bool:
        """Return False, also with a loaded model, so that Chroma asks for the space."""
        return False

    def default_space(self) -> Space:
        """Return "cosine", "ip" or "l2" for a model whose similarity is cosine, dot or euclidean; loads the model.

        Chroma has no space for manhattan: "l2" is nearest.
        """
        return _SPACES.get(self.load().similarity_fn_name, "l2")

    def supported_spaces(self) -> list[Space]:
        """Return all spaces of Chroma."""
        return ["cosine", "l2", "ip"]

    def get_config(self) -> dict[str, Any]:
        """Return the options in the types of JSON.

        Raises:
            ConfigError: the model has no name.
        """
        return self.settings()

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> MinisbertEmbeddingFunction:
        """Make the embedding function that `get_config` wrote down.

        Raises:
            ConfigError: an option is unknown or has an impossible value.
        """
        MinisbertEmbeddingFunction.validate_config(config)
        return MinisbertEmbeddingFunction(**config)

    @staticmethod
    def validate_config(config: dict[str, Any]) -> None:
        """Check options that were written down.

        Raises:
            ConfigError: one is unknown, missing, or of another type.
        """
        names = [field.name for field in fields(MinisbertEmbeddingFunction)]
        for name, value in config.items():
            if name not in names:
                near = nearest(str(name), names, otherwise=names)
                raise ConfigError(f"got {name!r} in the configuration of a collection; expected options such as {near}")
            kind, expected = _TYPES.get(name, (str, "a string"))
            if type(value) is not kind and (value is not None or name in ("model", "normalize_embeddings")):
                raise ConfigError(
                    f"got {name}={shown(value)} in the configuration of a collection; expected {expected}"
                )
        if "model" not in config:
            raise ConfigError("got a configuration without 'model'; expected the name or folder of one")

    def validate_config_update(self, old_config: dict[str, Any], new_config: dict[str, Any]) -> None:
        """Check that new options leave the embeddings comparable; a folder may have moved.

        Raises:
            ConfigError: they change the embeddings.
        """
        self.validate_config(new_config)
        for name in _FIXED:
            if old_config.get(name) != new_config.get(name):
                raise ConfigError(
                    f"got {name}={shown(new_config.get(name))} for a collection with {shown(old_config.get(name))}; "
                    f"expected the same: embed the documents again, in a new collection"
                )
