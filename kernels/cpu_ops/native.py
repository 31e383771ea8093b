"""The whole encoder in C++ for inference, where its library runs: `native/encoder.cpp`.

It reads the layers as data: `EncoderModules` says what it computes, and anything else is `Unsupported`.

Products are in the dtype of the weights, float32, or bfloat16 or int8 if the processor multiplies those; everything
else is in float32. The weights are read where the modules keep them, so that no copy can go stale. Only their addresses
are kept from one forward pass to the next, and checked before each.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Collection
from contextlib import suppress
from itertools import chain
from operator import attrgetter, is_
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from minisbert.errors import ConfigError, InputError
from minisbert.packing import PackedBatch

from ..operations.plain import rotary_frequencies
from ..operations.protocol import ACTIVATION_NAMES, AttentionSettings, as_built
from ..operations.quantized import QuantizedLinear, packed_shape
from . import library
from .library import check, check_texts, pointer

_DTYPE = attrgetter("dtype")
NUMBERS = {torch.float32: 1, torch.bfloat16: 2, torch.int8: 4}  # of the dtypes of products in the C++
_EVERYWHERE = 1 << 40  # tokens, more than any text has
_POINTER, _INT = ctypes.c_void_p, ctypes.c_int64


class LayerModules(NamedTuple):
    """The modules of one layer that have weights, and what it computes with them.

    Norms may be `nn.LayerNorm`, `nn.RMSNorm`, or `nn.Identity` for none.

    Attributes:
        gate: multiplies the activation, or None.
        activation: "gelu", "gelu_tanh", "relu" or "silu".
        attention: None for BERT's.
    """

    query: nn.Module
    key: nn.Module
    value: nn.Module
    output: nn.Module
    attention_norm: nn.Module
    up: nn.Module
    down: nn.Module
    output_norm: nn.Module
    gate: nn.Module | None = None
    activation: str = "gelu"
    attention: AttentionSettings | None = None


class EncoderModules(NamedTuple):
    """The modules of an encoder that have weights.

    Attributes:
        position: None for no table of positions.
        token_type: None for no token types.
        last_norm: normalizes the result of layers whose blocks normalize their input; None if blocks normalize their
            output.
        relative: the table of the bias of attention scores, (rows, heads), or None.
        buckets: rows of it for the distances from -reach to reach, and beyond: int32, (2 * reach + 1,).
    """

    word: nn.Module
    position: nn.Module | None
    token_type: nn.Module | None
    norm: nn.Module
    layers: tuple[LayerModules, ...]
    heads: int
    last_norm: nn.Module | None = None
    relative: nn.Module | None = None
    buckets: Tensor | None = None


class Unsupported(Exception):  # noqa: N818  # an answer more than an error
    """The C++ does not compute what some modules do."""


def available(dtype: torch.dtype) -> bool:
    """Return True if the encoder runs on this machine, with products in `dtype`."""
    found = library.functions()
    return found is not None and bool(found.dtypes & NUMBERS.get(dtype, 0))


class NativeEncoder:
    """An encoder in C++ over the weights of modules.

    Args:
        modules: those with weights.

    Raises:
        Unsupported: a module is of another class or has hooks, or a weight is missing or of another shape, dtype or
            layout than the C++ reads.
    """

    def __init__(self, modules: EncoderModules) -> None:
        self._modules, up = modules, modules.layers[0].up if modules.layers else None
        word, quantized = _tensor(modules.word, "weight"), isinstance(up, QuantizedLinear)
        self._product, self._float = torch.int8 if quantized else word.dtype, word.dtype
        self._dim, heads = word.shape[-1], modules.heads
        self._inner = up.out_features if isinstance(up, QuantizedLinear) else _tensor(up, "weight").shape[0]
        dim, inner = self._dim, self._inner
        if (
            not available(self._product)
            or (quantized and self._float != torch.float32)
            or not (dim % heads == 0 and dim // heads % 16 == 0 and inner % 16 == 0 and max(dim, inner) <= 1 << 16)
        ):
            raise Unsupported
        # What the C++ reads beside the weights is kept here: zeros for biases that are missing, and rotary frequencies.
        self._zeros = torch.zeros(max(dim, inner), dtype=self._float, device="cpu")
        attention = [layer.attention or AttentionSettings(heads) for layer in modules.layers]
        self._bases = sorted({settings.rotary_base for settings in attention if settings.rotary_base is not None})
        turns = [rotary_frequencies(dim // heads, base, torch.device("cpu")) for base in self._bases]
        self._frequencies = torch.cat(turns) if turns else None
        tables = [self._table(table) for table in modules[:3]]
        layers = (_Layer * len(modules.layers))(*map(self._layer, modules.layers, attention))
        self._encoder = _Encoder(
            *(dim, heads, inner, len(layers), modules.last_norm is not None),
            *(rows for rows, _ in tables),
            *(address for _, address in tables),
            *(self._norm(modules.norm), self._norm(modules.last_norm)),
            *(len(turns), pointer(self._frequencies), *self._relative(), layers),
        )
        self._run = library.required().encoder_run

    def __call__(self, ids: Tensor, positions: Tensor, types: Tensor | None, batch: PackedBatch) -> Tensor:
        """Embed tokens: ids, positions and types, int64, (tokens,), to float32, (tokens, dim).

        Positions are rows of their table, and do not matter if there is none.

        Raises:
            InputError: an id, position or type is beyond its table.
        """
        tokens, offsets = ids.shape[0], batch.offsets.contiguous()
        numbers = [None if value is None else value.contiguous() for value in (ids, positions, types)]
        if any(value is not None and (value.shape != (tokens,) or value.dtype != torch.int64) for value in numbers):
            raise ConfigError(
                "got ids, positions or types of other sizes or dtypes; expected int64, one for each token"
            )
        check("offsets", offsets, None, None, torch.int32)
        out = torch.empty(tokens, self._dim, dtype=torch.float32, device="cpu")
        done = self._run(
            *(NUMBERS[self._product], ctypes.byref(self._encoder), *map(pointer, numbers)),
            *(offsets.data_ptr(), offsets.shape[0] - 1, tokens, torch.get_num_threads(), out.data_ptr()),
        )
        if not done:
            check_texts(offsets, tokens)
            places = self._encoder.position_rows
            raise InputError(
                f"got an id, position or type beyond its table; expected ids below {self._encoder.word_rows}"
                f"{f' and positions below {places}' if places else ''}: use the tokenizer of the model"
            )
        return out

    def _table(self, module: nn.Module | None) -> tuple[int, int | None]:
        """Rows of an embedding table, and its address."""
        if module is None:
            return 0, None
        rows = _tensor(module, "weight").shape[0]
        return rows, self._address(module, nn.Embedding, "weight", rows, self._dim)

    def _relative(self) -> tuple[int, int | None, int | None]:
        """Largest distance of the bias of attention scores, and addresses of its buckets and its table."""
        table, buckets = self._modules.relative, self._modules.buckets
        if table is None or buckets is None:
            return 0, None, None
        rows = _tensor(table, "weight").shape[0]
        if buckets.dtype != torch.int32 or not bool(((buckets >= 0) & (buckets < rows)).all()):
            raise Unsupported
        address = self._address(table, nn.Embedding, "weight", rows, self._modules.heads)
        return buckets.shape[0] // 2, buckets.data_ptr(), address

    def _layer(self, layer: LayerModules, attention: AttentionSettings) -> _Layer:
        dim, inner, heads = self._dim, self._inner, self._modules.heads
        key_heads = attention.key_value_heads or heads
        window = _EVERYWHERE if attention.window is None else attention.window
        known = isinstance(window, int) and window >= 0 and layer.activation in ACTIVATION_NAMES
        if attention.heads != heads or heads % key_heads or not known:
            raise Unsupported
        width = dim // heads * key_heads
        return _Layer(
            (_Linear * 3)(
                self._linear(layer.query, dim, dim),
                *(self._linear(part, width, dim) for part in (layer.key, layer.value)),
            ),
            self._linear(layer.output, dim, dim),
            self._norm(layer.attention_norm),
            self._linear(layer.up, inner, dim),
            _Linear() if layer.gate is None else self._linear(layer.gate, inner, dim),
            self._linear(layer.down, dim, inner),
            self._norm(layer.output_norm),
            *(ACTIVATION_NAMES.index(layer.activation), key_heads),
            *(window, 0 if attention.causal else window),
            -1 if attention.rotary_base is None else self._bases.index(attention.rotary_base),
        )

    def _linear(self, module: nn.Module, columns: int, depth: int) -> _Linear:
        kind = QuantizedLinear if self._product == torch.int8 else nn.Linear
        bias = self._bias(module, kind, columns)
        if self._product != torch.int8:
            return _Linear(self._address(module, kind, "weight", columns, depth), bias, None)
        return _Linear(
            self._address(module, kind, "packed", *packed_shape(columns, depth), dtype=torch.int32),
            bias,
            self._address(module, kind, "factors", depth),
        )

    def _norm(self, module: nn.Module | None) -> _Norm:
        """A norm as the C++ reads it; without a weight it does nothing."""
        if module is None or as_built(module, nn.Identity):
            return _Norm()
        if as_built(module, nn.RMSNorm) and module.eps is not None:
            weight = self._address(module, nn.RMSNorm, "weight", self._dim)
            return _Norm(weight, self._zeros.data_ptr(), module.eps, 1)
        weight = self._address(module, nn.LayerNorm, "weight", self._dim)
        return _Norm(weight, self._bias(module, nn.LayerNorm, self._dim), module.eps, 0)

    def _bias(self, module: nn.Module, kind: type[nn.Module], size: int) -> int:
        """Address of a bias, or of zeros if the module has none."""
        if getattr(module, "bias", None) is None:
            return self._zeros.data_ptr()
        return self._address(module, kind, "bias", size)

    def _address(
        self, module: nn.Module, kind: type[nn.Module], name: str, *shape: int, dtype: torch.dtype | None = None
    ) -> int:
        value = _tensor(module, name)
        regular = value.layout == torch.strided and value.device.type == "cpu" and value.is_contiguous()
        regular = regular and value.untyped_storage().nbytes() >= value.nbytes  # its memory may have been given back
        if not as_built(module, kind) or value.shape != shape or value.dtype != (dtype or self._float) or not regular:
            raise Unsupported
        return value.data_ptr()


class Binding:
    """The encoder in C++ of a module, found again whenever the module has changed. A copy of it starts unbound.

    Args:
        settings: names of the attributes, of the module's parts, that change what they compute.
    """

    def __init__(self, *settings: str) -> None:
        self._settings = settings
        self._bound: tuple[Watch, NativeEncoder | None] | None = None  # replaced as one, since threads may share it

    def __reduce__(self) -> tuple[type[Binding], tuple[str, ...]]:
        return Binding, self._settings

    def __call__(self, root: nn.Module, modules: Callable[[], EncoderModules | None]) -> NativeEncoder | None:
        """Return the encoder in C++, or None if it does not run here or does not compute what the modules do.

        Args:
            root: the encoder.
            modules: gives those of its modules that have weights, or None if it computes something else.
        """
        if library.functions() is None:
            return None
        bound = self._bound
        if bound is None or not bound[0].holds():
            watch, found, encoder = Watch(root, self._settings), modules(), None
            with suppress(Unsupported):
                encoder = None if found is None else NativeEncoder(found)
            bound = self._bound = (watch, encoder)
        return bound[1]


class Watch:
    """Tells if a module still computes the same, from weights at the same addresses.

    All of it counts but the values of the weights: its parts and their classes, hooks, methods put in place of
    `forward`, tensors with their addresses, dtypes and shapes, and some settings. The check takes about 25 microseconds
    for six layers.

    Args:
        root: the module; its own class, hooks and attributes do not count.
        settings: names of attributes of its parts.
    """

    def __init__(self, root: nn.Module, settings: Collection[str]) -> None:
        self._parts = parts = submodules(root)[1:]
        self._attributes = [vars(part) for part in parts]
        children = [part._modules for part in (root, *parts) if part._modules]
        named = [named for part in parts for named in (part._parameters, part._buffers) if named]
        self._holders: list[dict[str, Any]] = [*children, *named]
        self._hooks = [hooks for part in parts for hooks in (part._forward_hooks, part._forward_pre_hooks)]
        self._settings = [(values, name) for values in self._attributes for name in settings if name in values]
        self._held = self._objects()
        self._tensors = [value for value in self._held if isinstance(value, Tensor)]
        self._seen = self._state()

    def holds(self) -> bool:
        """Return True if nothing has changed."""
        found = self._objects()
        same = len(found) == len(self._held) and all(map(is_, found, self._held))
        overridden = any(self._hooks) or any("forward" in values for values in self._attributes)
        return same and not overridden and self._state() == self._seen

    def _objects(self) -> list[Any]:
        """Parts, parameters and buffers."""
        return list(chain.from_iterable(map(dict.values, self._holders)))

    def _state(self) -> list[object]:
        """Classes of the parts, settings, and addresses, dtypes and shapes of tensors; which are contiguous."""
        return [
            list(map(type, self._parts)),
            [values.get(name) for values, name in self._settings],
            list(map(Tensor.data_ptr, self._tensors)),
            list(map(_DTYPE, self._tensors)),
            list(map(Tensor.size, self._tensors)),
            list(map(Tensor.is_contiguous, self._tensors)),
        ]


def submodules(module: nn.Module) -> list[nn.Module]:
    """Return a module and all its parts, as `list(module.modules())` does ten times slower; shared ones repeat."""
    found = [module]
    for part in found:  # which grows meanwhile
        if children := part._modules:
            found += [child for child in children.values() if child is not None]
    return found


def linear(x: Tensor, module: nn.Linear | QuantizedLinear) -> Tensor:
    """One product of the encoder alone, to test and to measure: (rows, in) to float32, (rows, out).

    Args:
        x: in the dtype of the weight; float32 for int8.
        module: with a bias; its sizes are multiples of 16.
    """
    columns, depth, rows = module.out_features, module.in_features, x.shape[0]
    dtype = torch.int8 if isinstance(module, QuantizedLinear) else module.weight.dtype
    floats = torch.float32 if dtype == torch.int8 else dtype
    check("x", x, rows, depth, floats)
    if module.bias is None or columns % 16 or depth % 16:
        raise ConfigError(f"got {module}; expected a bias, and sizes that 16 divides")
    check("bias", module.bias, columns, None, floats)
    if isinstance(module, QuantizedLinear):
        check("packed", module.packed, *packed_shape(columns, depth), torch.int32)
        check("factors", module.factors, depth, None, floats)
        layer = _Linear(module.packed.data_ptr(), module.bias.data_ptr(), module.factors.data_ptr())
    else:
        check("weight", module.weight, columns, depth, dtype)
        layer = _Linear(module.weight.data_ptr(), module.bias.data_ptr(), None)
    out = torch.empty(rows, columns, dtype=torch.float32, device="cpu")
    library.required().encoder_product(
        *(NUMBERS[dtype], rows, columns, depth, x.data_ptr(), ctypes.byref(layer)),
        *(torch.get_num_threads(), out.data_ptr()),
    )
    return out


def _tensor(module: nn.Module | None, name: str) -> Tensor:
    """A parameter or buffer of a module; an ordinary one, not of a subclass."""
    value = None if module is None else module._parameters.get(name, module._buffers.get(name))
    if value is None or type(value) not in (nn.Parameter, Tensor):
        raise Unsupported
    return value


class _Linear(ctypes.Structure):
    _fields_ = (("weight", _POINTER), ("bias", _POINTER), ("factors", _POINTER))


class _Norm(ctypes.Structure):
    _fields_ = (("weight", _POINTER), ("bias", _POINTER), ("eps", ctypes.c_float), ("rms", ctypes.c_int32))


class _Layer(ctypes.Structure):
    _fields_ = (
        *(("qkv", _Linear * 3), ("output", _Linear), ("attention_norm", _Norm)),
        *(("up", _Linear), ("gate", _Linear), ("down", _Linear), ("output_norm", _Norm)),
        *((name, _INT) for name in ("activation", "key_value_heads", "before", "after", "rotation")),
    )


class _Encoder(ctypes.Structure):
    _fields_ = (
        *((name, _INT) for name in ("dim", "heads", "inner", "layers", "norm_first")),
        *((name, _INT) for name in ("word_rows", "position_rows", "type_rows")),
        *((name, _POINTER) for name in ("words", "positions", "types")),
        *(("norm", _Norm), ("last_norm", _Norm)),
        *(("rotations", _INT), ("frequencies", _POINTER)),
        *(("reach", _INT), ("buckets", _POINTER), ("relative", _POINTER), ("layer", ctypes.POINTER(_Layer))),
    )
