"""The first module of every model: a tokenizer and the encoder that embeds its tokens."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import torch
from torch import Tensor, nn

from ..errors import ConfigError, ModelError, warn
from ..kernels import QuantizedLinear
from ..packing import pack
from ..storage.adapters import base_folder, read_adapter, write_adapter
from ..storage.dialects import DTYPES, read_dtype, read_transformer_settings, with_dtype
from ..storage.files import is_file, read_json_object, write_json
from ..storage.lora import ADAPTER_CONFIG
from ..storage.other_forms import quantized_by
from ..storage.tokenizer import TokenizerSource, put_in_lower_case, read_tokenizer
from ..storage.weights import load_into, read_weights, two_models, write_weights
from ..text import TextTokenizer
from .architectures import (
    as_modules,
    canonical,
    checkpoint_names,
    current,
    encoder_config,
    is_native,
    to_checkpoint,
)
from .encoder import Encoder
from .features import Features
from .foreign import ForeignEncoder
from .layers import changed_layers
from .lora import (
    LoraConfig,
    adapted_layers,
    linear_layers,
    matrix_names,
    merge_layers,
    put_adapter,
    read_settings,
    target_layers,
    trains_base,
)

if TYPE_CHECKING:
    from .table import TableEncoder

UNLIMITED = sys.maxsize  # tokens of the longest text, where nothing limits it
AnyEncoder: TypeAlias = "Encoder | ForeignEncoder | TableEncoder"
_DTYPES: Mapping[str, torch.dtype] = {name: getattr(torch, name) for name in DTYPES}


class Transformer(nn.Module):
    """A tokenizer and the encoder that goes with it.

    The encoder is native for the architectures in `architectures/`; any other is run through transformers.
    """

    def __init__(
        self,
        encoder: AnyEncoder,
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
        self.adapter: LoraConfig | None = None
        self._adapter_base: dict[str, str | None] = {}  # the model it was made for, as adapter_config.json has it
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
        if self.max_seq_length <= self.text_tokenizer.special_tokens:
            raise ModelError(
                f"got max_seq_length={self.max_seq_length} and a tokenizer that adds "
                f"{self.text_tokenizer.special_tokens} tokens to each text; expected room for one more: raise it "
                f"in sentence_bert_config.json"
            )

    @property
    def encoder(self) -> AnyEncoder:
        """The encoder, whatever `auto_model` is in a subclass."""
        return cast("AnyEncoder", self._modules["auto_model"])

    @property
    def text_tokenizer(self) -> TextTokenizer:
        """Makes the tokens of texts, whatever `tokenizer` is in a subclass."""
        self._tokenizer.vocabulary = self.encoder.vocabulary  # which resize_token_embeddings changes
        return self._tokenizer

    @property
    def tokenizer(self) -> TextTokenizer:
        """Makes the tokens of texts."""
        return self.text_tokenizer

    @property
    def model(self) -> AnyEncoder:
        """The encoder, under its name in version 6 of the reference."""
        return self.encoder

    @property
    def max_seq_length(self) -> int:
        """Tokens of the longest text, special tokens included; longer texts are truncated."""
        return self.text_tokenizer.max_length

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        least, most = self.text_tokenizer.special_tokens + 1, self.encoder.config.max_tokens
        if value < least or (most is not None and value > most):
            limits = f"at least {least}" if most is None else f"{least} to {most}"
            raise ConfigError(f"got max_seq_length={value}; this model takes {limits} tokens")
        self.text_tokenizer.max_length = value

    @property
    def embedding_dimension(self) -> int:
        """Size of the token embeddings."""
        return self.encoder.config.hidden_size

    @property
    def padding_token(self) -> int:
        """Id of the padding token."""
        token = self.config.get("pad_token_id")
        return token if isinstance(token, int) and token > 0 else 0

    def quantize(self) -> None:
        """Put int8 weights in place of the floats of the linear layers of an encoder that is native."""
        if isinstance(self.encoder, Encoder):
            from .calibration import SENTENCES

            self.encoder.quantize(pack(self.text_tokenizer(list(SENTENCES))))

    def forward(self, features: Features) -> Features:
        """Set the token embeddings, (tokens, dim), and those of every layer if they are asked for."""
        layers = features.layer_embeddings
        arguments = (features.batch,) if layers is None else (features.batch, layers)
        features.token_embeddings = self.encoder(*arguments)
        return features

    @property
    def weights_folder(self) -> Path | None:
        """The folder that the weights were loaded from, or None."""
        return self._weights_folder

    def ask_for_layers(self) -> None:
        """Let config.json say that a module after this one needs the embeddings of every layer."""
        self.config["output_hidden_states"] = True
        if isinstance(self.encoder, ForeignEncoder):
            self.encoder.model.config.output_hidden_states = True

    def checkpoint_parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters of the encoder by the names that they have in a checkpoint."""
        encoder = self.encoder
        if isinstance(encoder, ForeignEncoder):
            return dict(encoder.model.named_parameters())
        own = dict(encoder.named_parameters())
        return {name: own[ours] for ours, name in checkpoint_names(self.config, own).items()}

    def extra_repr(self) -> str:
        """Return the settings to show in `repr`."""
        adapter = "" if self.adapter is None else f", adapter={self.adapter}"
        return f"{self.config.get('model_type')}, max_seq_length={self.max_seq_length}{adapter}"

    # ---- adapters -----------------------------------------------------------------------------------------------

    def add_adapter(self, config: LoraConfig, *, base: str | None = None, revision: str | None = None) -> None:
        """Freeze the encoder, and put a new LoRA adapter on it.

        Args:
            config: of the adapter.
            base: name of the model, for adapter_config.json; by default the folder that the weights are from.
            revision: of that name.

        Raises:
            ConfigError: the encoder cannot have one, or no layer is of a name that is asked for.
        """
        encoder, folder = self._base()
        put_adapter(encoder, target_layers(encoder, self.config, config), config)
        self.adapter = config
        self._adapter_base = {"base_model_name_or_path": base or str(folder), "revision": revision if base else None}

    def load_adapter(self, folder: Path, *, base: str | None = None, revision: str | None = None) -> None:
        """Freeze the encoder, and put a saved LoRA adapter on it.

        Args:
            folder: holds adapter_config.json.
            base: name of the model; see `add_adapter`.
            revision: of that name.

        Raises:
            ConfigError: the encoder cannot have one.
            ModelError: the adapter cannot be read, or does not fit the encoder.
        """
        encoder, own = self._base()
        config, layers, tensors = self._saved_adapter(encoder, folder)
        put_adapter(encoder, layers, config)
        encoder.load_state_dict(tensors, strict=False)
        self.adapter = config
        self._adapter_base = {"base_model_name_or_path": base or str(own), "revision": revision if base else None}

    def merge_adapter(self) -> None:
        """Add the adapter to the weights, which can then be trained again.

        Raises:
            ConfigError: there is no adapter.
        """
        if self.adapter is None or not isinstance(self.encoder, Encoder):
            raise ConfigError("got a model without an adapter; expected one to merge: call add_adapter first")
        merge_layers(self.encoder)
        if self.encoder.embeddings.word.weight.device.type == "cpu":
            self.encoder.align_weights()
        self.adapter, self._weights_folder = None, None

    def adapter_state(self, folder: Path) -> dict[str, Tensor]:
        """Read the tensors of a saved adapter that are to replace those of the present one, by our names.

        Raises:
            ModelError: they cannot be read, or are of another adapter.
        """
        encoder = self.encoder
        if not isinstance(encoder, Encoder) or self.adapter is None:
            raise ConfigError("got a model without an adapter; expected one: call add_adapter first")
        config, layers, tensors = self._saved_adapter(encoder, folder)
        if layers.keys() != adapted_layers(encoder).keys() or replace(config, target_modules=None) != replace(
            self.adapter, target_modules=None
        ):
            raise ModelError(f"the adapter in {folder} is another one; expected that of this model: {self.adapter}")
        return tensors

    def _saved_adapter(self, encoder: Encoder, folder: Path) -> tuple[LoraConfig, dict[str, str], dict[str, Tensor]]:
        """Return the settings, the layers and the tensors (by our names) of a saved adapter."""
        saved, tensors = read_adapter(folder)
        return read_settings(saved, tensors, encoder, linear_layers(encoder, self.config), folder)

    def _base(self) -> tuple[Encoder, Path]:
        """Return the encoder and the folder of its weights, if an adapter can be put on it."""
        encoder, folder = self.encoder, self._weights_folder
        if not isinstance(encoder, Encoder) or encoder.quantized:
            kind = "int8 weights" if isinstance(encoder, Encoder) else f"a {self.config.get('model_type')} encoder"
            raise ConfigError(f"got {kind}; expected floats of a native encoder: see docs/families.md")
        if any(" (" in name for name in checkpoint_names(self.config, encoder.state_dict()).values()):
            raise ConfigError(
                f"got a {self.config.get('model_type')} encoder, whose checkpoints join the layers that an adapter "
                f"changes; expected one with layers of their own: train all weights"
            )
        if self.adapter is not None:
            raise ConfigError("got a model with an adapter; expected none: call merge_and_unload() first")
        changed = folder is None or base_folder(folder) != folder or is_file(folder / ADAPTER_CONFIG)
        if folder is None or changed or not self._as_saved(encoder, folder):
            raise ConfigError(
                f"got weights that are not those in {folder or 'a folder'}, and an adapter is saved without its base; "
                f"expected a model as it was loaded: save it and load it again, then add the adapter"
            )
        return encoder, folder

    def _as_saved(self, encoder: Encoder, folder: Path) -> bool:
        tensors = encoder.state_dict()
        names = checkpoint_names(self.config, tensors)
        saved = _canonical(self.config, read_weights(folder, mapped=True), folder)
        return all(
            (found := saved.get(names[name])) is not None
            and found.shape == tensor.shape
            and torch.equal(found.to(tensor.device, tensor.dtype), tensor)
            for name, tensor in tensors.items()
        )

    def _save_adapter(self, encoder: Encoder, adapter: LoraConfig, folder: Path) -> None:
        if trains_base(encoder):
            raise ConfigError(
                "got an adapter, and weights of its base that are not frozen and would not be saved; expected a frozen "
                "base: call merge_and_unload() first"
            )
        state, linears = encoder.state_dict(), linear_layers(encoder, self.config)
        layers = {ours: linears[ours] for ours in adapted_layers(encoder)}
        names = matrix_names(layers)
        tensors = {theirs: state[ours] for ours, theirs in names.items()}
        write_adapter(folder, tensors, {**adapter.as_json(list(layers.values())), **self._adapter_base})

    # ---- files --------------------------------------------------------------------------------------------------

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
        base = base_folder(folder)
        config = dict(current({**read_json_object(base / "config.json"), **saved.config}))
        if method := quantized_by(config):
            raise ModelError(
                f"the weights in {folder} are quantized ({method}); expected floats: load the model that they were "
                f"made from, with dtype='int8' if it should be small"
            )
        tokenizer = read_tokenizer(folder, config=config, changes=saved.tokenizer)
        encoder: AnyEncoder
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
        """Write weights, configuration and tokenizer; what has not changed is written as it was read.

        With an adapter, its weights and settings are written and those of its base are not.

        Raises:
            ConfigError: there is an adapter, and its base is trained too.
        """
        encoder = self.encoder
        if self.adapter is not None and isinstance(encoder, Encoder):
            self._save_adapter(encoder, self.adapter, folder)
        elif isinstance(encoder, ForeignEncoder):
            encoder.save(folder)
        elif isinstance(encoder, Encoder):
            tensors = self._float_weights(encoder) if encoder.quantized else encoder.state_dict()
            weights = to_checkpoint(self.config, tensors)
            dtype = encoder.embeddings.word.weight.dtype
            extra = {name: tensor.to(dtype) for name, tensor in self.extra_tensors.items()}
            write_weights(folder, {**weights, **extra})
            config = with_dtype(self.config, str(dtype).removeprefix("torch."))
            if encoder.vocabulary != encoder.config.vocab_size:
                config["vocab_size"] = encoder.vocabulary
            config |= changed_layers(encoder.layers, encoder.config, config)
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
            there = folder is not None and folder.is_dir()
            saved = _read(self.config, folder) if folder is not None and there else {}
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
        limit = self.encoder.config.max_tokens
        if saved is None:
            default = self.encoder.config.default_tokens
            limits = [value for value in (default, self._source.max_length) if value is not None]
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
    tensors = _read(config, folder, mapped=True)
    load_into(encoder, tensors, source=folder, names=checkpoint_names(config, encoder.state_dict()))
    name = dtype or read_dtype(config.get("dtype") or config.get("torch_dtype"), f"config.json in {folder}")
    encoder.to(_DTYPES[name] if name else encoder.embeddings.word.weight.dtype)
    encoder.align_weights()
    return encoder, {name: tensor.clone() for name, tensor in tensors.items() if name.startswith("pooler.")}


def _read(config: Mapping[str, Any], folder: Path, *, mapped: bool = False) -> dict[str, Tensor]:
    named = partial(as_modules, config)
    return _canonical(config, read_weights(folder, mapped=mapped, base=base_folder(folder), as_modules=named), folder)


def _canonical(config: Mapping[str, Any], tensors: Mapping[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Give the tensors of a checkpoint the names that transformers now writes for a model without a head.

    Raises:
        ModelError: there are tensors of two models.
    """
    found, prefixes = canonical(config, tensors)
    if len(prefixes) > 1 and "" not in prefixes:
        raise two_models(folder, prefixes)
    return found
