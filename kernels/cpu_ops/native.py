"""The whole encoder in C++ for inference, where it is built: `native/encoder.cpp`.

Products are its own too, with weights laid out for them, in float32, or in bfloat16 or int8 where the processor
multiplies those. Everything else is in float32.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from minisbert.errors import ConfigError, InputError
from minisbert.kernels.weights import Affine, EncoderWeights, LayerWeights, Norm
from minisbert.packing import PackedBatch

from . import build
from .int8 import quantize_weight

Kind: TypeAlias = Literal["float32", "bfloat16", "int8"]

_NUMBERS: dict[Kind, int] = {"float32": 1, "bfloat16": 2, "int8": 4}
_POINTER, _INT = ctypes.c_void_p, ctypes.c_int64


def offers(kind: Kind) -> bool:
    """Whether it is built, with such products."""
    library = build.library()
    return library is not None and bool(library.encoder_kinds() & _NUMBERS[kind])


def supports(weights: EncoderWeights, kind: Kind) -> bool:
    """Whether it takes such weights, with such products."""
    if not weights.layers or not offers(kind):
        return False
    dim, inner, heads = weights.word.shape[1], weights.layers[0].up.weight.shape[0], weights.heads
    return dim % heads == 0 and dim // heads % 16 == 0 and inner % 16 == 0 and max(dim, inner) <= 1 << 16


class NativeEncoder:
    """An encoder, laid out for inference.

    Args:
        weights: what to lay out; float32 or bfloat16.
        kind: which products to use.
    """

    def __init__(self, weights: EncoderWeights, kind: Kind) -> None:
        self._kind, self._held = kind, list[Tensor]()
        # All weights stand in one piece, in the order in which they are read.
        words = sum(_words(weight.shape, kind) for layer in weights.layers for weight in _weights(layer))
        self._panels, self._used = torch.empty(words, dtype=torch.int32), 0
        layers = (_Layer * len(weights.layers))(*(self._layer(layer) for layer in weights.layers))
        word, position, token_type = weights.word, weights.position, weights.token_type
        self._dim, self._layers = word.shape[1], layers
        self._encoder = _Encoder(
            *(word.dtype == torch.bfloat16, self._dim, weights.heads, weights.layers[0].up.weight.shape[0]),
            *(len(layers), word.shape[0], position.shape[0], 0 if token_type is None else token_type.shape[0]),
            *(self._hold(word), self._hold(position), None if token_type is None else self._hold(token_type)),
            self._norm(weights.norm),
            layers,
        )
        self._run = build.required().encoder_run

    def __call__(self, ids: Tensor, positions: Tensor, types: Tensor | None, batch: PackedBatch) -> Tensor:
        """Embed tokens: (tokens,) numbers, positions and types, int64, to float32, (tokens, dim)."""
        tokens, offsets = ids.shape[0], batch.offsets
        numbers = [given.contiguous() for given in (ids, positions, types) if given is not None]
        if any(given.shape != (tokens,) or given.dtype != torch.int64 for given in numbers):
            raise ConfigError("got numbers of tokens of several lengths or types; expected int64, one of each a token")
        if offsets.dtype != torch.int32 or int(offsets[-1]) != tokens or int(offsets[0]):
            raise ConfigError(f"got offsets up to {int(offsets[-1])}; expected them to end at the {tokens} tokens")
        out = torch.empty(tokens, self._dim)
        pointers = [given.data_ptr() for given in numbers]
        fine = self._run(
            *(
                _NUMBERS[self._kind],
                ctypes.byref(self._encoder),
                *pointers[:2],
                pointers[2] if types is not None else None,
            ),
            *(offsets.data_ptr(), offsets.shape[0] - 1, torch.get_num_threads(), out.data_ptr()),
        )
        if not fine:
            raise InputError(
                f"got an id, position or type beyond its table; expected ids below {self._encoder.word_rows} and "
                f"positions below {self._encoder.place_rows}: use the tokenizer of the model"
            )
        return out

    def _layer(self, layer: LayerWeights) -> _Layer:
        parts = (layer.query, layer.key, layer.value)
        together = Affine(torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts]))
        return _Layer(  # in the order of the fields, which is that of the weights in memory
            self._product(together),
            self._product(layer.output),
            self._norm(layer.attention_norm),
            self._product(layer.up),
            self._product(layer.down),
            self._norm(layer.output_norm),
        )

    def _product(self, affine: Affine) -> _Product:
        weight, bias = affine.weight.detach().contiguous(), affine.bias.detach().float()
        scales, starts = None, bias
        if self._kind == "int8":
            weight, scales = quantize_weight(weight.float())
            starts = weight.sum(1, dtype=torch.int32) * -128  # inputs have their zero at 128
        panels = self._panels[self._used :]
        self._used += _words(weight.shape, self._kind)
        _lay_out(weight, starts, panels, self._kind)
        return _Product(
            panels.data_ptr(),
            self._hold(bias),
            None if scales is None else self._hold(scales),
        )

    def _norm(self, norm: Norm) -> _Norm:
        return _Norm(self._hold(norm.weight.detach().float()), self._hold(norm.bias.detach().float()), norm.eps)

    def _hold(self, value: Tensor) -> int:
        """Keep a tensor for as long as the encoder stands, and say where it is."""
        self._held.append(value.detach().contiguous())
        return self._held[-1].data_ptr()


def product(weight: Tensor, starts: Tensor, kind: Kind) -> Callable[[Tensor], Tensor]:
    """One product alone, as the encoder has it: to measure what the machine can do.

    Args:
        weight: (out, in), in the type of `kind`.
        starts: what sums start from, (out,): float32, or int32 for int8.
        kind: which product; int8 takes uint8 and gives int32, the others give float32.

    Returns:
        What takes (rows, in) to (rows, out).
    """
    panels = torch.empty(_words(weight.shape, kind), dtype=torch.int32)
    _lay_out(weight, starts, panels, kind)
    (columns, depth), run, number = weight.shape, build.required().encoder_product, _NUMBERS[kind]

    def multiplied(x: Tensor) -> Tensor:
        out = torch.empty(x.shape[0], columns, dtype=starts.dtype)
        pointers = x.data_ptr(), panels.data_ptr()
        run(number, x.shape[0], columns, depth, *pointers, torch.get_num_threads(), out.data_ptr())
        return out

    return multiplied


def _lay_out(weight: Tensor, starts: Tensor, panels: Tensor, kind: Kind) -> None:
    weight, starts = weight.contiguous(), starts.contiguous()
    pointers = (given.data_ptr() for given in (weight, starts, panels))
    build.required().encoder_lay_out(_NUMBERS[kind], *weight.shape, *pointers)


def _weights(layer: LayerWeights) -> list[Tensor]:
    affines = (layer.query, layer.key, layer.value, layer.output, layer.up, layer.down)
    return [affine.weight for affine in affines]


def _words(shape: tuple[int, ...], kind: Kind) -> int:
    """Numbers of 32 bits that a weight, (out, in), takes when it is laid out."""
    return int(build.required().encoder_words(_NUMBERS[kind], *shape))


class _Product(ctypes.Structure):
    _fields_ = (("panels", _POINTER), ("bias", _POINTER), ("scales", _POINTER))


class _Norm(ctypes.Structure):
    _fields_ = (("weight", _POINTER), ("bias", _POINTER), ("eps", ctypes.c_float))


class _Layer(ctypes.Structure):
    _fields_ = (
        *(("qkv", _Product), ("output", _Product), ("attention_norm", _Norm)),
        *(("up", _Product), ("down", _Product), ("output_norm", _Norm)),
    )


class _Encoder(ctypes.Structure):
    _fields_ = (
        *((name, _INT) for name in ("half_tables", "dim", "heads", "inner", "layers")),
        *((name, _INT) for name in ("word_rows", "place_rows", "kind_rows")),
        *((name, _POINTER) for name in ("words", "places", "kinds")),
        ("norm", _Norm),
        ("layer", ctypes.POINTER(_Layer)),
    )
