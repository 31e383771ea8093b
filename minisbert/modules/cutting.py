"""Take layers out of an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch

from ..errors import ConfigError, ModelError
from .architectures import encoder_config, number_of_layers
from .encoder import Encoder
from .layers import EncoderLayer
from .transformer import Transformer


def keep_layers(transformer: Transformer, layers: Sequence[int]) -> None:
    """Keep some layers of a native encoder, in the order that they are given in; the others are removed, in place.

    Args:
        transformer: tokenizer and encoder.
        layers: their numbers, counted from 0; a negative number counts from the end.

    Raises:
        ConfigError: there is no such layer, one is given twice, the encoder is not native or has an adapter, or a layer
            would compute something else in the place that it gets.
    """
    encoder = transformer.encoder
    if not isinstance(encoder, Encoder) or encoder.quantized or transformer.adapter is not None:
        raise ConfigError(
            f"got layers to keep of {_description(transformer)}; expected floats of a native encoder: load the model "
            f"in float32 and merge its adapter, or remove the layers with transformers"
        )
    count = len(encoder.layers)
    numbers = [layer + count if isinstance(layer, int) and layer < 0 else layer for layer in layers]
    if any(isinstance(layer, bool) or not isinstance(layer, int) or not 0 <= layer < count for layer in numbers):
        raise ConfigError(f"got layers={list(layers)}; expected numbers from 0 to {count - 1}, of the encoder's layers")
    if not numbers or len(set(numbers)) < len(numbers):
        raise ConfigError(f"got layers={list(layers)}; expected at least one layer, and each at most once")
    kept = cast("list[EncoderLayer]", [encoder.layers[layer] for layer in numbers])
    config = {**transformer.config, **number_of_layers(transformer.config, len(kept))}
    if isinstance(kinds := config.get("layer_types"), list):
        config["layer_types"] = [kinds[layer] for layer in numbers if layer < len(kinds)]
    state = {
        new: tensor.detach().clone()
        for name, tensor in encoder.state_dict().items()
        if (new := _new_name(name, numbers)) is not None
    }
    try:
        with torch.device("meta"):
            cut = Encoder(encoder_config(config))
    except ModelError as error:
        raise ConfigError(f"got layers={list(layers)}, with which its config.json cannot be written: {error}") from None
    attention = [layer.attention.settings for layer in cast("list[EncoderLayer]", list(cut.layers))]
    if cut.state_dict().keys() != state.keys() or attention != [layer.attention.settings for layer in kept]:
        raise ConfigError(
            f"got layers={list(layers)}; expected layers that compute the same in their new places, where this "
            f"architecture has others (a first layer of its own, or windows in some): keep the first, and the order of "
            f"layers with and without a window"
        )
    cut.load_state_dict(state, assign=True)
    cut.requires_grad_(True).train(encoder.training)
    if cut.embeddings.word.weight.device.type == "cpu":
        cut.align_weights()
    transformer.auto_model, transformer.config = cut, config
    transformer._weights_folder = None  # whose weights are others now


def _new_name(name: str, numbers: Sequence[int]) -> str | None:
    """Return the name of a tensor with the new number of its layer; None if the layer is removed."""
    part, _, rest = name.partition(".")
    if part != "layers":
        return name
    number, _, rest = rest.partition(".")
    return f"layers.{numbers.index(int(number))}.{rest}" if int(number) in numbers else None


def _description(transformer: Transformer) -> str:
    if transformer.adapter is not None:
        return "an encoder with an adapter"
    native = isinstance(transformer.encoder, Encoder)
    return "int8 weights" if native else f"a {transformer.config.get('model_type') or 'static'} encoder"
