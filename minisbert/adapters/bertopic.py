"""A model as an embedder of BERTopic.

BERTopic knows models by the name of their type. It does not know this one and would load another in its place, so it
has to be told: `BERTopic(embedding_model=Embedder(model))`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ._base import WordEncoder, imported_from

with imported_from("bertopic"):
    from bertopic.backend import BaseEmbedder


@dataclass(eq=False, repr=False)
class Embedder(WordEncoder, BaseEmbedder):
    """An embedder of BERTopic, for documents and words.

    BERTopic saves it with serialization="pickle" only, by the name of its model. Give it to what is loaded from another
    form: `BERTopic.load(folder, embedding_model=Embedder(model))`.

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
