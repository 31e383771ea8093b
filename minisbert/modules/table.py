"""A table of token embeddings in the place of an encoder, for static models."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import kernels
from ..packing import PackedBatch
from .layers import Embedding


@dataclass(frozen=True)
class TableConfig:
    """The sizes of a table that callers of an encoder need, under the names of `EncoderConfig`."""

    hidden_size: int
    vocab_size: int
    max_tokens: int | None = None
    default_tokens: int | None = None


class TableEncoder(nn.Module):
    """The table of token embeddings of a static model, in the place of an encoder.

    Args:
        rows: number of tokens.
        dim: size of their embeddings.
    """

    token_types = False
    quantized = False

    def __init__(self, rows: int, dim: int) -> None:
        super().__init__()
        self.embedding = Embedding(rows, dim)

    @property
    def config(self) -> TableConfig:
        """Sizes."""
        return TableConfig(self.embedding.embedding_dim, self.embedding.num_embeddings)

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return self.embedding.num_embeddings

    def get_input_embeddings(self) -> nn.Embedding:
        """The table."""
        return self.embedding

    def compiled(self) -> AbstractContextManager[None]:
        """Change nothing for a block of code: there is nothing to compile."""
        return nullcontext()

    def recomputing(self) -> AbstractContextManager[None]:
        """Change nothing for a block of code: nothing is kept for backward."""
        return nullcontext()

    def recompute(self, enabled: bool) -> None:
        """Do nothing: nothing is kept for backward."""

    def forward(self, batch: PackedBatch) -> Tensor:
        """Average the rows of each text's tokens: (texts, dim), in float32 at least; zeros for a text without one."""
        table = self.embedding
        if table.weight.dtype in (torch.float16, torch.bfloat16):
            return kernels.plain.mean_pool(F.embedding(batch.input_ids, table.weight), batch)
        sparse = table.sparse and torch.is_grad_enabled()
        means: Tensor = F.embedding_bag(
            batch.input_ids, table.weight, batch.offsets[:-1].long(), mode="mean", sparse=sparse
        )
        return means
