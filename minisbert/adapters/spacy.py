"""A model as a component of spaCy, whose factory is called "minisbert"."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._base import PlainEncoder, imported_from

with imported_from("spacy"):
    from spacy.language import Language
    from spacy.tokens import Doc, Span
    from spacy.util import minibatch

_OPTIONS = {
    "model": "all-MiniLM-L6-v2",
    "device": None,
    "dtype": None,
    "revision": None,
    "batch_size": None,
    "normalize_embeddings": False,
    "truncate_dim": None,
    "prompt": None,
    "sentences": False,
}
if not Doc.has_extension("embedding"):
    Doc.set_extension("embedding", default=None)


@dataclass(eq=False, repr=False)
class SentenceVectors(PlainEncoder):
    """Embeds each document of a pipeline: `nlp.add_pipe("minisbert", config={"model": "all-MiniLM-L6-v2"})`.

    `doc._.embedding` and `doc.vector` are the embedding of `doc.text`, the vector of a span that of its text, and
    `similarity` is the model's. A span is embedded when its vector is first read. A document that comes from another
    process or from bytes keeps `doc._.embedding`; `attach` gives it the rest again.

    With a loaded model: `Language.component("vectors", func=SentenceVectors(model))` and `nlp.add_pipe("vectors")`.

    Args:
        model: a loaded model, or the name or folder of one, as of `SentenceTransformer`.
        device: where a model that is named runs.
        dtype: of the weights of a model that is named.
        revision: branch, tag or commit on the Hub.
        batch_size: most texts in one forward pass.
        normalize_embeddings: scale each embedding to length 1.
        truncate_dim: slice embeddings up to this dimension.
        prompt: put before each text; by default the model's default prompt.
        sentences: embed the sentences of a document together with it; a component before this one has to set them.

    Raises:
        ConfigError: this is no model, or options of loading are given with a loaded one.
    """

    sentences: bool = False

    def __call__(self, doc: Doc) -> Doc:
        """Embed one document."""
        return self._set([doc])[0]

    def pipe(self, stream: Iterable[Doc], *, batch_size: int = 1_000) -> Iterator[Doc]:
        """Embed documents, `batch_size` of them at a time."""
        for docs in minibatch(stream, batch_size):
            yield from self._set(docs)

    def attach(self, doc: Doc) -> Doc:
        """Let a document that has `doc._.embedding` answer `vector`, `similarity` and those of its spans by it."""
        self._attach(doc, {})
        return doc

    def _set(self, docs: list[Doc]) -> list[Doc]:
        spans = [list(doc.sents) if self.sentences else [] for doc in docs]
        texts = [part.text for doc, inner in zip(docs, spans, strict=True) for part in (doc, *inner)]
        rows = iter(self.encode(texts))
        for doc, inner in zip(docs, spans, strict=True):
            doc._.embedding = next(rows)
            self._attach(doc, {span.text: next(rows) for span in inner})
        return docs

    def _attach(self, doc: Doc, known: dict[str, NDArray[np.float32]]) -> None:
        def of_doc(doc: Doc) -> NDArray[np.float32]:
            return doc._.embedding

        def of_span(span: Span) -> NDArray[np.float32]:
            if span.text not in known:
                known[span.text] = self.encode([span.text])[0]
            return known[span.text]

        def similarity(one: Any, other: Any) -> float:
            return float(self.load().similarity(one.vector, other.vector))

        for hooks, vector in ((doc.user_hooks, of_doc), (doc.user_span_hooks, of_span)):
            hooks["vector"] = vector
            hooks["vector_norm"] = lambda part: float(np.linalg.norm(part.vector))
            hooks["has_vector"] = lambda part: True
            hooks["similarity"] = similarity


@Language.factory("minisbert", default_config=_OPTIONS, assigns=["doc._.embedding"])
def make_sentence_vectors(
    nlp: Language,
    name: str,
    model: str,
    device: str | None,
    dtype: str | None,
    revision: str | None,
    batch_size: int | None,
    normalize_embeddings: bool,
    truncate_dim: int | None,
    prompt: str | None,
    sentences: bool,
) -> SentenceVectors:
    """Make the component that a pipeline's configuration describes."""
    options: dict[str, Any] = {
        "device": device,
        "dtype": dtype,
        "revision": revision,
        "batch_size": batch_size,
        "normalize_embeddings": normalize_embeddings,
        "truncate_dim": truncate_dim,
        "prompt": prompt,
        "sentences": sentences,
    }
    return SentenceVectors(model, **options)
