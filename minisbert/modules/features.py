"""The data that the modules of a model pass on to each other."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..errors import ModelError
from ..packing import PackedBatch


@dataclass
class Features:
    """A batch on its way through the modules.

    Attributes:
        batch: the packed token ids.
        token_embeddings: (tokens, dim), set by the transformer.
        layer_embeddings: a list for what every layer of the transformer makes of the tokens, (tokens, dim) each: first
            the embeddings of words, last those that are the token embeddings; None if that is not asked for.
        sentence_embedding: (texts, dim) in packed order, set by pooling and changed by what follows it.
    """

    batch: PackedBatch
    token_embeddings: Tensor | None = None
    layer_embeddings: list[Tensor] | None = None
    sentence_embedding: Tensor | None = None

    @property
    def tokens(self) -> Tensor:
        """The token embeddings; an error if no module has made them."""
        if self.token_embeddings is None:
            raise ModelError(
                "the model makes no embeddings of tokens, or has a pooling module with no transformer before it; "
                "expected a Transformer first"
            )
        return self.token_embeddings

    @property
    def sentences(self) -> Tensor:
        """The sentence embeddings; an error if no module has made them."""
        if self.sentence_embedding is None:
            raise ModelError("the model makes no sentence embeddings; expected a Pooling module after the Transformer")
        return self.sentence_embedding
