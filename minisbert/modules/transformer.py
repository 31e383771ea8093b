"""The first module of every model: texts to token ids to token embeddings."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError, ModelError
from ..storage.dialects import DTYPES, read_dtype, read_transformer_settings
from ..storage.files import read_json_object, write_json
from ..storage.tokenizer import TokenizerSource, put_in_lower_case, read_tokenizer
from ..storage.weights import load_into, read_weights, write_weights
from ..text import TextTokenizer
from .architectures import checkpoint_names, encoder_config, is_native
from .encoder import Encoder
from .features import Features
from .foreign import ForeignEncoder

_INPUTS = ("input_ids", "token_type_ids", "attention_mask")  # where tokenizer_config.json names none
_DTYPES: Mapping[str, torch.dtype] = {name: getattr(torch, name) for name in DTYPES}
_WORDS = "embeddings.word_embeddings.weight"  # in every architecture of the BERT family


class Transformer(nn.Module):
    """A tokenizer and the encoder that goes with it.

    The encoder is native for the BERT family (see `architectures.py`); any other is run through transformers.
    """

    def __init__(
        self,
        encoder: Encoder | ForeignEncoder,
        *,
        config: Mapping[str, Any],
        tokenizer: TokenizerSource,
        max_seq_length: int | None = None,
        do_lower_case: bool = False,
        extra_tensors: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            encoder: native or foreign.
            config: the Hugging Face configuration, saved again as it is.
            tokenizer: as read from the model folder.
            max_seq_length: longest text in tokens; by default what tokenizer and encoder allow.
            do_lower_case: whether texts are put in lower case before the tokenizer sees them.
            extra_tensors: tensors of the checkpoint that embeddings do not need (BERT's pooler), saved again.
        """
        super().__init__()
        self.auto_model = encoder
        self.config = dict(config)
        self.do_lower_case = do_lower_case or tokenizer.drops_lower_case
        self.extra_tensors = dict(extra_tensors or {})
        self._source = tokenizer
        if do_lower_case:
            put_in_lower_case(tokenizer.tokenizer)
        inputs = tokenizer.config.get("model_input_names")
        self.tokenizer = TextTokenizer(
            tokenizer.tokenizer,
            max_length=self._initial_length(max_seq_length),
            truncation_side=tokenizer.truncation_side,
            token_types=encoder.token_types and "token_type_ids" in (inputs if isinstance(inputs, list) else _INPUTS),
            vocabulary=encoder.vocabulary,
        )
        if self.max_seq_length <= self.tokenizer.special_tokens:
            raise ModelError(
                f"got max_seq_length {self.max_seq_length} and a tokenizer that adds {self.tokenizer.special_tokens} "
                f"tokens to each text; expected room for one more"
            )

    @property
    def model(self) -> Encoder | ForeignEncoder:
        """The encoder, under the name that version 6 of the reference has for it."""
        return self.auto_model

    @property
    def max_seq_length(self) -> int:
        """Longest text in tokens, special tokens included; what is beyond is cut off."""
        return self.tokenizer.max_length

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        least, most = self.tokenizer.special_tokens + 1, self._position_limit() or value
        if not least <= value <= most:
            raise ConfigError(f"got max_seq_length {value}; this model takes {least} to {most} tokens")
        self.tokenizer.max_length = value

    @property
    def embedding_dimension(self) -> int:
        """Size of the token embeddings."""
        encoder = self.auto_model
        return encoder.hidden_size if isinstance(encoder, ForeignEncoder) else encoder.config.hidden_size

    @property
    def padding_token(self) -> int:
        """Id of the token that fills up shorter texts where something has to be padded."""
        token = self.config.get("pad_token_id")
        return token if isinstance(token, int) and token > 0 else 0

    def forward(self, features: Features) -> Features:
        """Set the token embeddings: (tokens, dim)."""
        features.token_embeddings = self.auto_model(features.batch)
        return features

    def extra_repr(self) -> str:
        """The settings, for `repr`."""
        return f"{self.config.get('model_type')}, max_seq_length={self.max_seq_length}"

    @classmethod
    def load(cls, folder: Path, settings: Mapping[str, Any]) -> Transformer:
        """Load from a model folder.

        Args:
            folder: holds config.json, weights and tokenizer.
            settings: content of sentence_bert_config.json.

        Raises:
            ModelError: files are missing or do not fit each other.
        """
        asked = read_transformer_settings(settings, source=folder)
        config = {**read_json_object(folder / "config.json"), **asked.config}
        tokenizer = read_tokenizer(folder, config=config, changes=asked.tokenizer)
        encoder: Encoder | ForeignEncoder
        if is_native(config):
            encoder, extra = _native_encoder(folder, config, dtype=asked.dtype)
        else:
            encoder, extra = ForeignEncoder.load(folder, changes=asked.config, dtype=asked.dtype), {}
        return cls(
            encoder,
            config=config,
            tokenizer=tokenizer,
            max_seq_length=asked.max_seq_length,
            do_lower_case=asked.do_lower_case,
            extra_tensors=extra,
        )

    def save(self, folder: Path) -> None:
        """Write weights, configuration and tokenizer; what was not changed is written as it was read."""
        encoder = self.auto_model
        if isinstance(encoder, ForeignEncoder):
            encoder.save(folder)
        else:
            tensors = encoder.state_dict()
            names = checkpoint_names(self.config, tensors)
            weights = {names[name]: tensor for name, tensor in tensors.items()}
            dtype = encoder.embeddings.word.weight.dtype
            extra = {name: tensor.to(dtype) for name, tensor in self.extra_tensors.items()}
            write_weights(folder, {**weights, **extra})
            write_json(folder / "config.json", _with_dtype(self.config, dtype), end="\n")
        for name, content in self._source.written_files().items():
            (folder / name).write_bytes(content)
        write_json(
            folder / "sentence_bert_config.json",
            {"max_seq_length": self.max_seq_length, "do_lower_case": self.do_lower_case},
            indent=4,
        )

    def _position_limit(self) -> int | None:
        encoder = self.auto_model
        return encoder.max_tokens if isinstance(encoder, ForeignEncoder) else encoder.config.max_tokens

    def _initial_length(self, asked: int | None) -> int:
        limit = self._position_limit()
        if asked is None:
            known = [value for value in (limit, self._source.max_length) if value is not None]
            return min(known, default=512)
        if limit is not None and asked > limit:
            warnings.warn(
                f"max_seq_length is {asked}, but the model has positions for {limit} tokens: texts are cut there",
                stacklevel=9,
            )
            return limit
        return asked


def _native_encoder(folder: Path, config: Mapping[str, Any], *, dtype: str | None) -> tuple[Encoder, dict[str, Tensor]]:
    """The encoder with its weights, and the checkpoint's tensors that it does not need but a copy should have."""
    with torch.device("meta"):
        encoder = Encoder(encoder_config(config))
    tensors = _canonical(read_weights(folder))
    load_into(encoder, tensors, source=folder, names=checkpoint_names(config, encoder.state_dict()))
    name = dtype or read_dtype(config.get("dtype") or config.get("torch_dtype"), f"config.json in {folder}")
    encoder.to(_DTYPES[name] if name else encoder.embeddings.word.weight.dtype)
    return encoder, {name: tensor for name, tensor in tensors.items() if name.startswith("pooler.")}


def _canonical(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by the names of a checkpoint without a head, as transformers now writes them.

    With a head, names begin with that of the architecture ("bert."), and with more where a wrapper around the model
    was saved ("0.auto_model."). The word embeddings tell what it is.
    """
    prefixes = sorted((name.removesuffix(_WORDS) for name in tensors if name.endswith(_WORDS)), key=len)
    prefix = prefixes[0] if prefixes else ""
    renamed = {}
    for name, tensor in tensors.items():
        plain = name.removeprefix(prefix)
        for old, new in (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")):
            plain = plain.replace(old, new)
        renamed[plain] = tensor
    return renamed


def _with_dtype(config: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    name = str(dtype).removeprefix("torch.")
    result = dict(config)
    for key in ("dtype", "torch_dtype"):
        if key in result:
            result[key] = name
    if name != "float32" and "dtype" not in result and "torch_dtype" not in result:
        result["torch_dtype"] = name
    return result
