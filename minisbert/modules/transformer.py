"""The first module of every model: a tokenizer and the encoder that embeds its tokens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError, ModelError, warn
from ..kernels import QuantizedLinear
from ..packing import pack
from ..storage.dialects import DTYPES, read_dtype, read_transformer_settings
from ..storage.files import read_json_object, write_json
from ..storage.other_forms import quantized_by
from ..storage.tokenizer import TokenizerSource, put_in_lower_case, read_tokenizer
from ..storage.weights import load_into, read_weights, two_models, write_weights
from ..text import TextTokenizer
from .architectures import checkpoint_names, encoder_config, is_native
from .calibration import SENTENCES
from .encoder import Encoder
from .features import Features
from .foreign import ForeignEncoder

_DTYPES: Mapping[str, torch.dtype] = {name: getattr(torch, name) for name in DTYPES}
_WORD_EMBEDDINGS = "embeddings.word_embeddings.weight"  # in every architecture of the BERT family


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
        weights_folder: Path | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            encoder: native or foreign.
            config: the Hugging Face configuration, saved again as it is.
            tokenizer: as read from the model folder.
            max_seq_length: tokens of the longest text; by default what tokenizer and encoder allow.
            do_lower_case: lower-case texts before they are tokenized.
            extra_tensors: tensors of the checkpoint that embeddings do not need (BERT's pooler), saved again.
            weights_folder: where the weights were loaded from; an int8 model is saved with the floats from there.

        Raises:
            ModelError: `max_seq_length` leaves no room for a token beside the special ones.
        """
        super().__init__()
        self.auto_model = encoder
        self.config = dict(config)
        self.do_lower_case = do_lower_case or tokenizer.drops_lower_case
        self.extra_tensors = dict(extra_tensors or {})
        self._weights_folder = weights_folder
        self._source = tokenizer
        if do_lower_case:
            put_in_lower_case(tokenizer.tokenizer)
        self._tokenizer = TextTokenizer(
            tokenizer.tokenizer,
            max_length=self._initial_length(max_seq_length),
            truncation_side=tokenizer.truncation_side,
            token_types=encoder.token_types and tokenizer.token_types,
            vocabulary=encoder.vocabulary,
        )
        if self.max_seq_length <= self.tokenizer.special_tokens:
            raise ModelError(
                f"got max_seq_length={self.max_seq_length} and a tokenizer that adds {self.tokenizer.special_tokens} "
                f"tokens to each text; expected room for one more: raise it in sentence_bert_config.json"
            )

    @property
    def tokenizer(self) -> TextTokenizer:
        """Makes the tokens of texts."""
        self._tokenizer.vocabulary = self.auto_model.vocabulary  # which resize_token_embeddings changes
        return self._tokenizer

    @property
    def model(self) -> Encoder | ForeignEncoder:
        """The encoder, under its name in version 6 of the reference."""
        return self.auto_model

    @property
    def max_seq_length(self) -> int:
        """Tokens of the longest text, special tokens included; longer texts are truncated."""
        return self.tokenizer.max_length

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        least, most = self.tokenizer.special_tokens + 1, self.auto_model.config.max_tokens or value
        if not least <= value <= most:
            raise ConfigError(f"got max_seq_length={value}; this model takes {least} to {most} tokens")
        self.tokenizer.max_length = value

    @property
    def embedding_dimension(self) -> int:
        """Size of the token embeddings."""
        return self.auto_model.config.hidden_size

    @property
    def padding_token(self) -> int:
        """Id of the padding token."""
        token = self.config.get("pad_token_id")
        return token if isinstance(token, int) and token > 0 else 0

    def quantize(self) -> None:
        """Put int8 weights in place of the floats of the linear layers of an encoder that is native."""
        if isinstance(self.auto_model, Encoder):
            self.auto_model.quantize(pack(self.tokenizer(list(SENTENCES))))

    def forward(self, features: Features) -> Features:
        """Set the token embeddings: (tokens, dim)."""
        features.token_embeddings = self.auto_model(features.batch)
        return features

    def extra_repr(self) -> str:
        """Return the settings to show in `repr`."""
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
        saved = read_transformer_settings(settings, source=folder)
        config = {**read_json_object(folder / "config.json"), **saved.config}
        if method := quantized_by(config):
            raise ModelError(
                f"the weights in {folder} are quantized ({method}); expected floats: load the model that they were "
                f"made from, with dtype='int8' if it should be small"
            )
        tokenizer = read_tokenizer(folder, config=config, changes=saved.tokenizer)
        encoder: Encoder | ForeignEncoder
        if is_native(config):
            encoder, extra = _native_encoder(folder, config, dtype=saved.dtype)
        else:
            encoder, extra = ForeignEncoder.load(folder, changes=saved.config, dtype=saved.dtype), {}
        return cls(
            encoder,
            config=config,
            tokenizer=tokenizer,
            max_seq_length=saved.max_seq_length,
            do_lower_case=saved.do_lower_case,
            extra_tensors=extra,
            weights_folder=folder.absolute(),
        )

    def save(self, folder: Path) -> None:
        """Write weights, configuration and tokenizer; what has not changed is written as it was read."""
        encoder = self.auto_model
        if isinstance(encoder, ForeignEncoder):
            encoder.save(folder)
        else:
            tensors = self._float_weights(encoder) if encoder.quantized else encoder.state_dict()
            names = checkpoint_names(self.config, tensors)
            weights = {names[name]: tensor for name, tensor in tensors.items()}
            dtype = encoder.embeddings.word.weight.dtype
            extra = {name: tensor.to(dtype) for name, tensor in self.extra_tensors.items()}
            write_weights(folder, {**weights, **extra})
            config = _with_dtype(self.config, dtype)
            if encoder.vocabulary != encoder.config.vocab_size:
                config["vocab_size"] = encoder.vocabulary
            write_json(folder / "config.json", config, end="\n")
        for name, content in self._source.written_files().items():
            (folder / name).write_bytes(content)
        write_json(
            folder / "sentence_bert_config.json",
            {"max_seq_length": self.max_seq_length, "do_lower_case": self.do_lower_case},
            indent=4,
        )

    def _float_weights(self, encoder: Encoder) -> dict[str, Tensor]:
        """Return the state of an int8 encoder with the floats its weights were quantized from, read again.

        Raises:
            ModelError: the folder they were loaded from is gone, or has other weights now.
        """
        folder = self._weights_folder
        state: dict[str, Tensor] = encoder.state_dict()
        try:
            saved = _canonical(read_weights(folder), folder) if folder is not None and folder.is_dir() else {}
        except ModelError:
            saved = {}
        for prefix, module in encoder.named_modules():
            if not isinstance(module, QuantizedLinear):
                continue
            name = f"{prefix}.weight"
            weight = saved.get(checkpoint_names(self.config, [name])[name])
            if weight is None or not module.quantized_from(weight):
                raise ModelError(
                    f"got an int8 model and no floats that it was quantized from in {folder or 'a folder'}; expected "
                    f"to read them again: put them back, or load the model with dtype='float32' before you save it"
                )
            state[name] = weight.to(encoder.embeddings.word.weight.dtype)
            for own in ("packed", "factors"):
                del state[f"{prefix}.{own}"]
        return state

    def _initial_length(self, saved: int | None) -> int:
        limit = self.auto_model.config.max_tokens
        if saved is None:
            limits = [value for value in (limit, self._source.max_length) if value is not None]
            return min(limits, default=512)
        if limit is not None and saved > limit:
            warn(
                f"max_seq_length is {saved}, but the model has positions for {limit} tokens: texts are truncated there"
            )
            return limit
        return saved


def _native_encoder(folder: Path, config: Mapping[str, Any], *, dtype: str | None) -> tuple[Encoder, dict[str, Tensor]]:
    """Load the encoder, and the tensors of the checkpoint that it does not need but a saved copy should have."""
    with torch.device("meta"):
        encoder = Encoder(encoder_config(config))
    tensors = _canonical(read_weights(folder, mapped=True), folder)
    load_into(encoder, tensors, source=folder, names=checkpoint_names(config, encoder.state_dict()))
    name = dtype or read_dtype(config.get("dtype") or config.get("torch_dtype"), f"config.json in {folder}")
    encoder.to(_DTYPES[name] if name else encoder.embeddings.word.weight.dtype)
    encoder.align_weights()
    return encoder, {name: tensor.clone() for name, tensor in tensors.items() if name.startswith("pooler.")}


def _canonical(tensors: Mapping[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Rename the tensors of a checkpoint to the names that transformers now writes for a model without a head.

    In a checkpoint with a head, names have the architecture as prefix ("bert."), and more if a wrapper around the model
    was saved ("0.auto_model."). The name of the word embeddings shows the prefix.

    Raises:
        ModelError: there are several prefixes, and all tensors have one.
    """
    prefixes = {name.removesuffix(_WORD_EMBEDDINGS) for name in tensors if name.endswith(_WORD_EMBEDDINGS)}
    if len(prefixes) > 1 and "" not in prefixes:
        raise two_models(folder, prefixes)
    prefix = min(prefixes, key=len, default="")
    return {
        name.removeprefix(prefix)
        .replace("LayerNorm.gamma", "LayerNorm.weight")
        .replace("LayerNorm.beta", "LayerNorm.bias"): tensor
        for name, tensor in tensors.items()
    }


def _with_dtype(config: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """Return the configuration with its dtype replaced; a missing one stands for float32."""
    name = str(dtype).removeprefix("torch.")
    keys = [key for key in ("dtype", "torch_dtype") if key in config]
    if not keys and name != "float32":
        keys = ["torch_dtype"]
    return {**config, **dict.fromkeys(keys, name)}
