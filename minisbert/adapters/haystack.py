"""A model as the embedders of Haystack."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ..errors import ConfigError, InputTypeError, shown
from ._base import RetrievalEncoder, imported_from

with imported_from("haystack-ai"):
    from haystack import Document, component, default_from_dict, default_to_dict


AnyComponent = TypeVar("AnyComponent", bound="_Component")


@dataclass(eq=False, repr=False)
class _Component(RetrievalEncoder):
    """The methods that both embedders have."""

    def warm_up(self) -> None:
        """Load the model."""
        self.load()

    def to_dict(self) -> dict[str, Any]:
        """Return the component in Haystack's form."""
        return default_to_dict(self, **self.settings())

    @classmethod
    def from_dict(cls: type[AnyComponent], data: dict[str, Any]) -> AnyComponent:
        """Make the component that `to_dict` wrote down."""
        return default_from_dict(cls, data)


@component
@dataclass(eq=False, repr=False)
class MinisbertTextEmbedder(_Component):
    """Embeds queries in a pipeline of Haystack.

    Args:
        model: a loaded model, or the name or folder of one, as of `SentenceTransformer`. A pipeline that is written
            down needs a name or folder.
        device: where a model that is named runs.
        dtype: of the weights of a model that is named.
        revision: branch, tag or commit on the Hub.
        batch_size: most texts in one forward pass.
        normalize_embeddings: scale each embedding to length 1.
        truncate_dim: slice embeddings up to this dimension.
        query_prompt: put before each text; by default the model's own prompt for queries.
        document_prompt: not used here, so that both embedders take the same arguments.

    Raises:
        ConfigError: this is no model, or options of loading are given with a loaded one.
    """

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, Any]:
        """Embed a query as `encode_query` does: {"embedding": list of floats}.

        Raises:
            InputTypeError: not a text.
        """
        if not isinstance(text, str):
            raise InputTypeError(
                f"got {shown(text)} as text; expected a string: embed documents with MinisbertDocumentEmbedder"
            )
        return {"embedding": self.encode_queries([text])[0].tolist()}


@component
@dataclass(eq=False, repr=False)
class MinisbertDocumentEmbedder(_Component):
    """Embeds documents in a pipeline of Haystack.

    Args:
        model: a loaded model, or the name or folder of one, as of `SentenceTransformer`. A pipeline that is written
            down needs a name or folder.
        device: where a model that is named runs.
        dtype: of the weights of a model that is named.
        revision: branch, tag or commit on the Hub.
        batch_size: most texts in one forward pass.
        normalize_embeddings: scale each embedding to length 1.
        truncate_dim: slice embeddings up to this dimension.
        query_prompt: not used here, so that both embedders take the same arguments.
        document_prompt: put before each text; by default the model's own prompt for documents.
        meta_fields_to_embed: names of fields in a document's meta whose values are embedded before its content.
        embedding_separator: put between these values and the content.
        progress_bar: show one on a terminal.

    Raises:
        ConfigError: this is no model, options of loading are given with a loaded one, or the names are no list.
    """

    meta_fields_to_embed: list[str] | None = None
    embedding_separator: str = "\n"
    progress_bar: bool = False

    def __post_init__(self) -> None:
        _Component.__post_init__(self)  # not super(): @component makes another class of this one
        if isinstance(self.meta_fields_to_embed, str):
            raise ConfigError(
                f"got meta_fields_to_embed={shown(self.meta_fields_to_embed)}; expected names of fields: put it in a "
                f"list"
            )

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """Embed documents as `encode_document` does: {"documents": copies of them that have an embedding}.

        A document without content is embedded as "".

        Raises:
            InputTypeError: not a list of documents.
        """
        if not isinstance(documents, list) or not all(isinstance(one, Document) for one in documents):
            raise InputTypeError(
                f"got {shown(documents)} as documents; expected a list of haystack.Document: embed a query with "
                f"MinisbertTextEmbedder"
            )
        embeddings = self.encode_documents(map(self._text, documents), progress=self.progress_bar).tolist()
        pairs = zip(documents, embeddings, strict=True)
        return {"documents": [replace(document, embedding=embedding) for document, embedding in pairs]}

    def _text(self, document: Document) -> str:
        fields = (document.meta.get(name) for name in self.meta_fields_to_embed or ())
        values = [str(value) for value in fields if value is not None]
        return self.embedding_separator.join([*values, document.content or ""])
