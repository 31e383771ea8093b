"""Static models: the embedding of a text is the mean of its tokens' rows in one table.

They are made by sentence-transformers (StaticEmbedding) and model2vec, whose folders are read alike. As in
sentence-transformers there are no special tokens, and unknown tokens count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor, nn

from ..errors import ConfigError, ModelError, first_line, shown
from ..storage.dialects import read_transformer_settings
from ..storage.files import is_file, open_file
from ..storage.locate import find_model
from ..storage.tokenizer import TokenizerSource
from ..storage.tokenizer_classes import GENERIC
from ..storage.weights import load_into, read_weights, write_weights
from .features import Features
from .table import TableEncoder
from .transformer import UNLIMITED, Transformer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class StaticEmbedding(Transformer):
    """The first module of a static model: a tokenizer and a table of token embeddings.

    Args:
        tokenizer: of the `tokenizers` library, or a fast one of transformers.
        embedding_weights: (tokens, dim), the table.
        embedding_dim: size of a new table with random rows; for the caller who has none.

    Raises:
        ConfigError: the tokenizer is of another kind, or the table is none.
    """

    def __init__(
        self,
        tokenizer: Any,
        embedding_weights: NDArray[np.floating[Any]] | Tensor | None = None,
        embedding_dim: int | None = None,
    ) -> None:
        source = tokenizer if isinstance(tokenizer, TokenizerSource) else static_tokenizer(tokenizer)
        if embedding_weights is not None:
            try:
                weights = torch.as_tensor(embedding_weights)
            except (TypeError, ValueError, RuntimeError) as error:
                raise ConfigError(
                    f"got embedding_weights={shown(embedding_weights)} ({first_line(error)}); expected floats, one row "
                    f"for each token"
                ) from None
            if weights.ndim != 2 or not weights.is_floating_point():
                raise ConfigError(
                    f"got embedding_weights of shape {tuple(weights.shape)}, {weights.dtype}; expected floats, one row "
                    f"for each token"
                )
            with torch.device("meta"):
                encoder = TableEncoder(*weights.shape)
            encoder.embedding.weight = nn.Parameter(weights.clone())
        elif isinstance(embedding_dim, int) and embedding_dim > 0:
            encoder = TableEncoder(source.tokenizer.get_vocab_size(), embedding_dim)
            nn.init.normal_(encoder.embedding.weight)
        else:
            raise ConfigError(
                f"got no embedding_weights, and embedding_dim={embedding_dim!r}; expected one of them: the table, or "
                f"the size of a new one"
            )
        super().__init__(encoder, config={}, tokenizer=source, max_seq_length=source.max_length or UNLIMITED)

    def forward(self, features: Features) -> Features:
        """Set the sentence embeddings, (texts, dim)."""
        features.sentence_embedding = self.encoder(features.batch)
        return features

    def checkpoint_parameters(self) -> dict[str, nn.Parameter]:
        """Return the table by the name that it has in a checkpoint."""
        return dict(self.encoder.named_parameters())

    def extra_repr(self) -> str:
        """Return the sizes to show in `repr`."""
        return f"{self.encoder.vocabulary} tokens of {self.embedding_dimension}"

    @classmethod
    def load(cls, folder: Path, settings: Mapping[str, Any]) -> StaticEmbedding:
        """Load from a folder of sentence-transformers or model2vec.

        Args:
            folder: holds tokenizer.json and weights.
            settings: what is asked for when loading, such as a dtype.

        Raises:
            ModelError: files are missing or do not fit each other.
        """
        table = _table(read_weights(folder), folder)
        with torch.device("meta"):
            encoder = TableEncoder(*table.shape)
        load_into(encoder, {"embedding.weight": table}, source=folder)
        dtype = read_transformer_settings(settings, source=folder).dtype
        made = cls(_read_source(folder), embedding_weights=encoder.embedding.weight.detach())
        made._weights_folder = folder.absolute()
        return made if dtype is None else made.to(getattr(torch, dtype))

    def save(self, folder: Path) -> None:
        """Write the table and the tokenizer; what has not changed is written as it was read."""
        write_weights(folder, self.encoder.state_dict(), labelled=False)
        limit = self.text_tokenizer.max_length  # which may take over another tokenizer
        files = self._source.written_files()
        if limit != (self._source.max_length or UNLIMITED):  # the tokenizer's own limit was changed
            files["tokenizer.json"] = _with_limit(files["tokenizer.json"], limit)
        for name, content in files.items():
            (folder / name).write_bytes(content)

    @classmethod
    def from_model2vec(cls, model_id_or_path: str | Path) -> StaticEmbedding:
        """Load the table and the tokenizer of a model2vec folder, or of the name of one.

        Raises:
            ModelError: there is none, or it cannot be read.
        """
        return cls.load(find_model(model_id_or_path), {})

    @classmethod
    def from_distillation(cls, model_name: str, **options: object) -> NoReturn:
        """Refuse to make a table out of an encoder: model2vec does that.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "got from_distillation, which minisbert does not do; expected a folder that model2vec has made: save what "
            "its distill() returns, and pass the folder to from_model2vec"
        )


@dataclass(frozen=True)
class _Source(TokenizerSource):
    """The tokenizer of a static model: tokenizer.json alone, without the special tokens around a text.

    Attributes:
        size: number of its tokens when it was read.
        limit: tokens of the longest text, or None.
    """

    size: int = 0
    limit: int | None = None

    @property
    def max_length(self) -> int | None:
        """Tokens of the longest text."""
        return self.limit

    def written_files(self) -> dict[str, bytes]:
        """Return tokenizer.json, as it was read unless tokens were added since."""
        tokenizer: Any = self.tokenizer
        if tokenizer.get_vocab_size() == self.size:
            return dict(self.files)
        return {"tokenizer.json": tokenizer.to_str(pretty=True).encode("utf-8")}


def _with_limit(content: bytes, limit: int) -> bytes:
    """Return the content of a tokenizer.json that truncates texts to so many tokens, or not at all."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_buffer(content)
    if limit == UNLIMITED:
        tokenizer.no_truncation()
    else:
        tokenizer.enable_truncation(limit, direction=(tokenizer.truncation or {}).get("direction", "right"))
    return tokenizer.to_str(pretty=True).encode("utf-8")


def _read_source(folder: Path) -> _Source:
    from tokenizers import Tokenizer

    file = folder / "tokenizer.json"
    if not is_file(file):
        raise ModelError(f"{folder} has no tokenizer.json; expected that of a static model: copy the whole model again")
    with open_file(file) as opened:
        content = opened.read()
    try:
        return static_tokenizer(Tokenizer.from_buffer(content), content)
    except Exception as error:  # the Rust library raises plain Exception
        raise ModelError(f"{file} cannot be read ({first_line(error)}); expected a tokenizer: copy it again") from None


def static_tokenizer(given: Any, content: bytes | None = None) -> _Source:
    """Take over a tokenizer; `content` is that of its file.

    Raises:
        ConfigError: it is no tokenizer of the `tokenizers` library.
    """
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing

    fast = getattr(given, "backend_tokenizer", given)  # of transformers
    if not isinstance(fast, Tokenizer):
        raise ConfigError(
            f"got a {type(given).__name__}; expected a Tokenizer of the tokenizers library, such as "
            f"Tokenizer.from_file('tokenizer.json')"
        )
    own = Tokenizer.from_str(fast.to_str())
    limit = own.truncation or {}
    own.post_processor = TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])
    if content is None:
        fast = Tokenizer.from_str(fast.to_str())
        fast.no_padding()
        content = fast.to_str(pretty=True).encode("utf-8")
    return _Source(
        tokenizer=own,
        config={},
        files={"tokenizer.json": content},
        kind=GENERIC,
        truncation_side=limit.get("direction", "right"),
        token_types=False,
        kept=False,
        drops_lower_case=False,
        in_file=None,
        loaded=None,
        size=own.get_vocab_size(),
        limit=limit.get("max_length"),
    )


def _table(tensors: Mapping[str, Tensor], folder: Path) -> Tensor:
    """Return the table of a checkpoint, that of model2vec with its mapping and the weights of tokens multiplied in.

    Raises:
        ModelError: there is none.
    """
    if "embedding.weight" in tensors:
        table = tensors["embedding.weight"]
    elif "embeddings" in tensors:
        table = tensors["embeddings"]
        if (rows := tensors.get("mapping")) is not None:
            fits = rows.ndim == 1 and not rows.is_floating_point() and bool(((rows >= 0) & (rows < len(table))).all())
            if not fits:
                raise ModelError(
                    f"the weights in {folder} have a mapping that is no list of rows below {len(table)}; expected one: "
                    f"copy the model again"
                )
            table = table[rows.long()]
        if (factors := tensors.get("weights")) is not None:
            if factors.shape != table.shape[:1]:
                raise ModelError(
                    f"the weights in {folder} have {tuple(factors.shape)} factors of {len(table)} tokens; expected one "
                    f"for each: copy the model again"
                )
            table = table.to(torch.promote_types(table.dtype, torch.float32))
            table = (table * factors[:, None]).to(table.dtype)
    else:
        raise ModelError(
            f"the weights in {folder} have neither embedding.weight nor embeddings; expected the table of a static "
            f"model: copy the whole model again"
        )
    if table.ndim != 2:
        raise ModelError(f"the weights in {folder} have shape {tuple(table.shape)}; expected a table: copy it again")
    return table
