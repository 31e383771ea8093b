"""The reference's `StaticEmbedding`: a tokenizer and a table of token embeddings, over ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor, nn

from ...errors import ConfigError, InputTypeError
from ...modules.features import Features
from ...modules.static import StaticEmbedding as OurStaticEmbedding
from ...modules.static import static_tokenizer
from ...modules.table import TableEncoder
from ...modules.transformer import UNLIMITED
from ...packing import PackedBatch
from ...storage.locate import find_model
from ...text import Text, TextTokenizer, read_inputs, with_prompt
from ..old_names import refuse_more
from .features import Padding, flat_batch, flat_features
from .module import InputModule, warn_of_pickles

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_OURS, _THEIRS = "auto_model.embedding.", "embedding."


class StaticEmbedding(OurStaticEmbedding, InputModule):
    """The first module of a static model; see `minisbert.modules.StaticEmbedding`.

    Args:
        tokenizer: of the `tokenizers` library, or a fast one of transformers.
        embedding_weights: (tokens, dim), the table.
        embedding_dim: size of a new table with random rows; for the caller who has none.
        kwargs: `base_model`, the name of the model that the table was made of.

    Raises:
        ConfigError: the tokenizer is of another kind, or the table is none.
    """

    base_model: str | None = None
    embedding: nn.Embedding

    def __init__(
        self,
        tokenizer: Any,
        embedding_weights: NDArray[np.floating[Any]] | Tensor | None = None,
        embedding_dim: int | None = None,
        **kwargs: Any,
    ) -> None:
        refuse_more("StaticEmbedding", kwargs, known=("base_model",))
        super().__init__(tokenizer, embedding_weights, embedding_dim)
        self.base_model = kwargs.get("base_model")

    # ---- the table --------------------------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        """Return the table as `embedding`; see `torch.nn.Module` for other names."""
        return self.encoder.get_input_embeddings() if name == "embedding" else super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; another `embedding` gives its rows."""
        if name == "embedding":
            weights = getattr(value, "weight", None)
            if not isinstance(weights, nn.Parameter) or weights.ndim != 2:
                raise ConfigError(
                    f"got a {type(value).__name__} as embedding; expected one with a weight (tokens, dim)"
                )
            with torch.device("meta"):
                table = TableEncoder(*weights.shape)
            table.embedding.weight = weights
            name, value = "auto_model", table
        super().__setattr__(name, value)

    @property
    def num_embeddings(self) -> int:
        """Number of tokens."""
        return self.embedding.num_embeddings

    @property
    def embedding_dim(self) -> int:
        """Size of the embeddings."""
        return self.embedding.embedding_dim

    def get_embedding_dimension(self) -> int:
        """Size of the embeddings."""
        return self.embedding.embedding_dim

    get_word_embedding_dimension = get_sentence_embedding_dimension = get_embedding_dimension

    def forward(self, features: Any, **kwargs: Any) -> Any:
        """Set the sentence embeddings, (texts, dim): of packed `Features`, or of the dictionary of `preprocess`."""
        refuse_more("StaticEmbedding", kwargs)
        if isinstance(features, Features):
            return super().forward(features)
        made, _ = self.run_on(features, self.embedding.weight.device)
        features["sentence_embedding"] = made.sentence_embedding
        return features

    def run_on(self, features: Mapping[str, Any], device: torch.device) -> tuple[Features, Padding]:
        """Embed the texts of a dictionary on a device; return also the places that tokens would have with padding."""
        batch = flat_batch(features, device)
        return super().forward(Features(batch)), Padding.around(batch)

    def features_of(self, batch: PackedBatch) -> dict[str, Any]:
        """Return packed texts as a dictionary of features, in the order of the rows."""
        return flat_features(batch)

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """Yield the module and its table by the reference's names."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        name = f"{prefix}.{_THEIRS}" if prefix else _THEIRS
        yield from self.embedding.named_modules(memo, name[:-1], remove_duplicate)

    def state_dict(self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        """Return the table by the reference's name; see `torch.nn.Module.state_dict`."""
        found = super().state_dict(*args, destination=destination, prefix=prefix, keep_vars=keep_vars)
        for name in [name for name in found if name.startswith(prefix + _OURS)]:
            found[prefix + _THEIRS + name.removeprefix(prefix + _OURS)] = found.pop(name)
        return found

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Let the table have the reference's name or ours."""
        for name in [name for name in state_dict if name.startswith(prefix + _THEIRS)]:
            state_dict[prefix + _OURS + name.removeprefix(prefix + _THEIRS)] = state_dict.pop(name)
        super()._load_from_state_dict(state_dict, prefix, *args)

    # ---- texts ------------------------------------------------------------------------------------------------------

    @property
    def text_tokenizer(self) -> TextTokenizer:
        """Makes the tokens of texts, with what was done to `tokenizer`."""
        shown = self.__dict__.get("_shown")
        if shown is not None and (state := _state(shown)) != self.__dict__["_state"]:
            self._use(shown)
            self.__dict__["_state"] = state
        return super().text_tokenizer

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the `tokenizers` library. What is added to it or set is taken over by the model."""
        if "_shown" not in self.__dict__:
            from tokenizers import Tokenizer

            limit, side = self.text_tokenizer.max_length, self.text_tokenizer.truncation_side
            shown = Tokenizer.from_buffer(self._source.written_files()["tokenizer.json"])
            shown.no_padding()
            if limit == UNLIMITED:
                shown.no_truncation()
            else:
                shown.enable_truncation(limit, direction=side)
            self.__dict__.update(_shown=shown, _state=_state(shown))
        return self.__dict__["_shown"]

    @tokenizer.setter
    def tokenizer(self, value: Any) -> None:
        value = getattr(value, "backend_tokenizer", value)  # of transformers
        self._use(value)
        value.no_padding()
        self.__dict__.update(_shown=value, _state=_state(value))

    def _use(self, tokenizer: Any) -> None:
        """Make tokens with a copy of a tokenizer."""
        self._source = static_tokenizer(tokenizer)
        self._tokenizer = TextTokenizer(
            self._source.tokenizer,
            max_length=self._source.max_length or UNLIMITED,
            truncation_side=self._source.truncation_side,
            vocabulary=self.encoder.vocabulary,
        )

    @property
    def max_seq_length(self) -> Any:
        """Tokens of the longest text, infinite unless the tokenizer truncates; longer texts are truncated."""
        length = self.text_tokenizer.max_length
        return inf if length == UNLIMITED else length

    @max_seq_length.setter
    def max_seq_length(self, value: int | None) -> None:
        if value is not None and value != inf and (not hasattr(value, "__index__") or value < 1):
            raise ConfigError(f"got max_seq_length={value!r}; expected a whole number of tokens, or None for any")
        shown = self.tokenizer
        if value is None or value == inf:
            shown.no_truncation()
        else:
            shown.enable_truncation(int(value))

    def preprocess(self, inputs: Sequence[Text], prompt: str | None = None, **kwargs: Any) -> dict[str, Any]:
        """Return the features of texts: "input_ids", int64, (tokens,), and where each begins, "offsets", (texts,).

        Args:
            inputs: several texts.
            prompt: put before each of them.
            kwargs: `task`, which makes no difference.
        """
        refuse_more("preprocess", kwargs, known=("task",))
        texts, single = read_inputs(inputs)
        if single:
            raise InputTypeError("got one text to tokenize; expected several: put it in a list")
        if not texts:
            return {}
        tokenized = self.text_tokenizer(with_prompt(texts, prompt or ""))
        return {
            "input_ids": torch.from_numpy(tokenized.ids).long(),
            "offsets": torch.from_numpy(tokenized.offsets[:-1]),
        }

    def tokenize(self, texts: Sequence[Text], **kwargs: Any) -> dict[str, Any]:
        """Return the features of texts: the older name of `preprocess`."""
        return self.preprocess(texts, **kwargs)

    # ---- files ------------------------------------------------------------------------------------------------------

    @classmethod
    def load(  # type: ignore[override]  # the reference's arguments; ours are for a folder alone
        cls,
        model_name_or_path: str | Path,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        **kwargs: Any,
    ) -> StaticEmbedding:
        """Load the module from the folder of a model; see `Module.load`."""
        refuse_more("StaticEmbedding.load", kwargs, known=("trust_remote_code", "backend"))
        source = (token, cache_folder, revision, local_files_only)
        folder = cls._folder(model_name_or_path, subfolder, source)
        return cls._of(folder)

    @classmethod
    def _of(cls, folder: Path) -> StaticEmbedding:
        module: Any = OurStaticEmbedding.load(folder, {})
        module.__class__ = cls
        made: StaticEmbedding = module
        return made

    def save(  # type: ignore[override]  # the reference's names
        self, output_path: str | Path, *args: Any, safe_serialization: bool = True, **kwargs: Any
    ) -> None:
        """Write the table and the tokenizer."""
        refuse_more("StaticEmbedding.save", kwargs, args)
        if not safe_serialization:
            warn_of_pickles()
        super().save(Path(output_path))

    @classmethod
    def from_model2vec(cls, model_id_or_path: str | Path) -> StaticEmbedding:
        """Load the table and the tokenizer of a model2vec folder, or of the name of one; model2vec is not needed.

        Raises:
            ModelError: there is none, or it cannot be read.
        """
        made = cls._of(find_model(model_id_or_path))
        made.base_model = str(model_id_or_path)
        return made

    @classmethod
    def from_distillation(  # type: ignore[override]  # the reference's arguments
        cls,
        model_name: str,
        vocabulary: list[str] | None = None,
        device: str | None = None,
        pca_dims: int | None = 256,
        apply_zipf: bool = True,
        sif_coefficient: float | None = 1e-4,
        token_remove_pattern: str | None = r"\[unused\d+\]",  # noqa: S107 - it is none
        quantize_to: str = "float32",
        use_subword: bool = True,
        **kwargs: Any,
    ) -> NoReturn:
        """Refuse to make a table out of an encoder: model2vec does that.

        Raises:
            ConfigError: always.
        """
        super().from_distillation(model_name)


def _state(tokenizer: Any) -> tuple[Any, ...]:
    """Return what shows that a tokenizer makes other tokens now."""
    parts = (tokenizer.truncation, tokenizer.normalizer, tokenizer.pre_tokenizer)
    return tokenizer.get_vocab_size(), *map(repr, parts)
