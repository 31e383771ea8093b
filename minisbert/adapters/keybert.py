"""A model as an embedder of KeyBERT.

KeyBERT knows models by the name of their type. It does not know this one and would load another in its place, so it has
to be told: `KeyBERT(Embedder(model))`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ._base import WordEncoder, imported_from

with imported_from("keybert"):
    from keybert.backend import BaseEmbedder


@dataclass(eq=False, repr=False)
class Embedder(WordEncoder, BaseEmbedder):
    """An embedder of KeyBERT, for documents, words and phrases; with a KeyLLM, `KeyBERT(Embedder(model), llm=llm)`.

    Args:
        model: a loaded model, or the name or folder of one, as of `SentenceTransformer`.
        device: where a model that is named runs.
        dtype: of the weights of a model that is named.
        revision: branch, tag or commit on the Hub.
        batch_size: most texts in one forward pass.
        normalize_embeddings: scale each embedding to length 1.
        truncate_dim: slice embeddings up to this dimension.
        prompt: put before each text; by default the model's default prompt.

    Raises:
        ConfigError: this is no model, or options of loading are given with a loaded one.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        BaseEmbedder.__init__(self, embedding_model=self.model)
