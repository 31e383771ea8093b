"""Run any other Hugging Face encoder with the interface of the native one: packed outside, padded inside."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import ConfigError, ModelError
from ..packing import PackedBatch, pad, unpad
from ..storage.dialects import is_count
from ..storage.files import is_file
from ..storage.lora import ADAPTER_CONFIG
from ..storage.weights import FLOATS, read_header, read_weights, two_models, warn_of_unused_layers, weight_files

# Encoder-decoder models, and the class that loads the encoder alone.
_ENCODER_CLASSES: Mapping[str, str] = {
    "t5": "T5EncoderModel",
    "mt5": "MT5EncoderModel",
    "umt5": "UMT5EncoderModel",
    "longt5": "LongT5EncoderModel",
    "switch_transformers": "SwitchTransformersEncoderModel",
}

_LARGEST = 10**9  # of any integer in a configuration
_MOST_PARTS = 1000  # of layers, blocks and the like
_LAYERS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer")
_PARTS = ("layer", "block", "group", "depth", "expert")
_UNSAVED = 20_000_000  # elements that a checkpoint may leave out, such as a pooler and tables of positions


class ForeignConfig(NamedTuple):
    """The sizes of a foreign encoder that its callers need, under the names of `EncoderConfig`.

    Attributes:
        hidden_size: size of the token embeddings.
        max_tokens: tokens of the longest text it has positions for, or None if there is no such limit.
        default_tokens: tokens of the longest text if no other length is asked for, or None if nothing says so.
    """

    hidden_size: int
    max_tokens: int | None
    default_tokens: int | None


class ForeignEncoder(nn.Module):
    """Wraps a model of `transformers` that maps input ids to token embeddings."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        positions = getattr(model.config, "max_position_embeddings", None)
        longest = positions if is_count(positions) else None
        limit = longest if _has_table_of_positions(model) else None
        self.config = ForeignConfig(int(model.config.hidden_size), limit, longest)
        self._compiled: Callable[..., Any] | None = None

    @classmethod
    def load(
        cls, folder: Path, *, changes: Mapping[str, Any] | None = None, dtype: str | None = None
    ) -> ForeignEncoder:
        """Load the model in `folder`, without running code that comes with it.

        Args:
            folder: holds config.json and weights.
            changes: entries that replace those of config.json.
            dtype: dtype to load the weights in; by default that in which they are saved.

        Raises:
            ModelError: transformers does not know the model, or cannot read it.
        """
        import transformers

        local = {"trust_remote_code": False, "local_files_only": True}
        try:
            config = transformers.AutoConfig.from_pretrained(folder, **local, **(changes or {}))
            loader = getattr(transformers, _ENCODER_CLASSES.get(config.model_type, "AutoModel"))
            described = _described(folder, loader, config)
            model = _load(folder, described, config=config, dtype=dtype or "auto", local_files_only=True)
            for tensor in (*model.parameters(), *model.buffers()):
                tensor.data = tensor.data.clone()  # transformers leaves them as a view of the file
            return cls(model)
        except ModelError:
            raise
        except Exception as error:  # for a senseless configuration transformers raises errors of any type
            reason = " ".join(str(error).split())[:300]  # whose first line alone may name a field and no more
            reason = f"KeyError: {reason}" if isinstance(error, KeyError) else reason
            raise ModelError(
                f"transformers cannot load the encoder in {folder} ({reason}); expected a known one: copy it again"
            ) from error

    @property
    def vocabulary(self) -> int | None:
        """Number of token embeddings, or None if the configuration does not say."""
        value = getattr(self.model.config, "vocab_size", None)
        return value if is_count(value) else None

    def get_input_embeddings(self) -> Any:
        """The table of word embeddings."""
        return self.model.get_input_embeddings()

    def resize_token_embeddings(self, new_num_tokens: int | None = None) -> Any:
        """Give the table of word embeddings another number of rows, as transformers does it."""
        return self.model.resize_token_embeddings(new_num_tokens)

    @property
    def token_types(self) -> bool:
        """True if the two texts of a pair are distinguished by the types of their tokens."""
        known = "token_type_ids" in inspect.signature(self.model.forward).parameters
        return known and getattr(self.model.config, "type_vocab_size", 2) > 1

    def forward(self, batch: PackedBatch, layers: list[Tensor] | None = None) -> Tensor:
        """Embed each token of `batch`: (tokens, dim); `layers` is filled as by `Encoder.forward`."""
        input_ids, mask = pad(batch.input_ids, batch)
        types = {} if batch.token_types is None else {"token_type_ids": pad(batch.token_types, batch)[0]}
        every = {} if layers is None else {"output_hidden_states": True}
        output: Any = (self._compiled or self.model)(
            input_ids=input_ids, attention_mask=mask.to(torch.long), **types, **every
        )
        if layers is not None:
            layers += [unpad(layer, batch) for layer in output.hidden_states]
        return unpad(output[0], batch)

    @contextmanager
    def compiled(self) -> Iterator[None]:
        """Run the model through torch.compile for a block of code."""
        self._compiled = torch.compile(self.model, dynamic=True)
        try:
            yield
        finally:
            self._compiled = None

    @contextmanager
    def recomputing(self) -> Iterator[None]:
        """Keep only the inputs of each layer in training, as transformers does it, for a block of code.

        Raises:
            ConfigError: transformers cannot do so for this kind of model.
        """
        if not getattr(self.model, "supports_gradient_checkpointing", False):
            raise ConfigError(
                f"got gradient_checkpointing for {self.model.config.model_type}, for which transformers has none; "
                f"expected False"
            )
        # Its name in newer versions of transformers, which warn of the older one.
        name = "activation" if hasattr(self.model, "activation_checkpointing_enable") else "gradient"
        getattr(self.model, f"{name}_checkpointing_enable")({"use_reentrant": False})
        try:
            yield
        finally:
            getattr(self.model, f"{name}_checkpointing_disable")()

    def save(self, folder: Path) -> None:
        """Write the weights and config.json."""
        self.model.save_pretrained(folder)


def _load(folder: Path, described: nn.Module, **options: Any) -> nn.Module:
    """Load a model of transformers with all of its weights.

    transformers draws at random, with no more than a note, what it does not find in the files.

    Raises:
        ModelError: the files lack weights, whatever prefix is taken from their names, or the weights are not floats.
    """
    files = weight_files(folder)
    # transformers would look elsewhere for the base of an adapter, and read a file without a header a second time.
    read_here = is_file(folder / ADAPTER_CONFIG) or any(file.suffix != ".safetensors" for file in files)
    tensors = read_weights(folder) if read_here else {}
    dtypes = {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in tensors.items()}
    dtypes = dtypes or {name: dtype for file in files for name, dtype in read_header(file).dtypes.items()}
    names = described.state_dict()
    _check_floats(folder, names, dtypes)
    prefix = _prefix(folder, names, dtypes) if names.keys().isdisjoint(dtypes) else ""
    warn_of_unused_layers(folder, (name.removeprefix(prefix) for name in dtypes), names)
    if not tensors:
        model, missing = _attempt(type(described), folder, **options)
        if not missing:
            return model
        tensors = read_weights(folder)
    state = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    model, missing = _attempt(type(described), None, state_dict=state, **options)
    if missing:
        raise ModelError(
            f"the weights in {folder} lack {len(missing):,} tensors, {missing[0]} among them; expected all of a "
            f"{type(model).__name__}: copy the whole model again"
        )
    return model


def _check_floats(folder: Path, expected: Mapping[str, Tensor], dtypes: Mapping[str, str]) -> None:
    """Raise ModelError if weights are of a dtype from which transformers would cast them."""
    floats = [name for name, tensor in expected.items() if tensor.is_floating_point()]
    for found, dtype in dtypes.items():
        if dtype not in {*FLOATS, *FLOATS.values()} and any(f".{found}".endswith(f".{name}") for name in floats):
            raise ModelError(
                f"the weights in {folder} are {dtype} for {found}; expected floats: save the model without quantization"
            )


def _prefix(folder: Path, names: Collection[str], tensors: Iterable[str]) -> str:
    """Return what comes before `names` in the names of `tensors`.

    Raises:
        ModelError: two prefixes fit, as of a teacher and a student.
    """
    counts = Counter(
        found.removesuffix(name) for name in names for found in tensors if found.endswith(f".{name}")
    ).most_common(2)
    if len(counts) == 2 and counts[1][1] * 2 > len(names):
        raise two_models(folder, (prefix for prefix, _ in counts))
    return counts[0][0] if counts else ""


def _has_table_of_positions(model: nn.Module) -> bool:
    """Return True if positions are rows of a table, which has an end, and not rotary or relative."""
    names = (name.lower() for name, module in model.named_modules() if isinstance(module, nn.Embedding))
    return any(mark in name for name in names for mark in ("pos", "wpe"))


def _attempt(loader: Any, folder: Path | None, **options: Any) -> tuple[nn.Module, list[str]]:
    """Load a model; also return the names of the weights that were not found, its pooler aside, which is not used."""
    model, found = loader.from_pretrained(folder, output_loading_info=True, ignore_mismatched_sizes=True, **options)
    for one in sorted(found["mismatched_keys"]):  # of transformers 4 names alone
        name, got = (one, "another shape") if isinstance(one, str) else (one[0], f"shape {tuple(one[1])}")
        expected = tuple(model.state_dict()[name].shape)
        raise ModelError(
            f"the weights have {got} for {name}; config.json asks for {expected}: copy the whole model again"
        )
    return model, sorted(name for name in found["missing_keys"] if not name.startswith("pooler."))


def _check_positions(folder: Path, model: nn.Module, kind: Any) -> None:
    """Raise ModelError if the position embeddings of a configuration are of a kind that `model` leaves out."""
    source = Path(inspect.getfile(type(model))).read_text(encoding="utf-8")
    if kind not in (None, "absolute") and not ("position_embedding_type" in source and f'"{kind}"' in source):
        raise ModelError(
            f"config.json in {folder}: got position_embedding_type={kind!r}, which transformers does not compute for "
            f"{type(model).__name__}; expected absolute: use a model of another kind"
        )


def _described(folder: Path, loader: Any, config: Any) -> nn.Module:
    """Return the model that a configuration describes, without memory for its weights.

    Raises:
        ModelError: it is larger than the weights, or has position embeddings that transformers leaves out.
    """
    for name, number in _integers(config.to_dict()):
        most = _MOST_PARTS if any(part in name for part in _PARTS) else _LARGEST
        if abs(number) > most or (number < 0 and name in _LAYERS):
            limits = f"at most {most}{', and no negative number' if name in _LAYERS else ''}"
            raise ModelError(f"config.json in {folder}: got {number} for {name}; expected {limits}")
    with torch.device("meta"):
        model: nn.Module = getattr(loader, "from_config", loader)(config)
    _check_positions(folder, model, getattr(config, "position_embedding_type", None))
    elements = sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
    size = sum(path.stat().st_size for path in weight_files(folder))
    if elements > size + _UNSAVED:  # an element takes at least a byte
        raise ModelError(
            f"config.json in {folder} describes {elements:,} numbers, and the weights have {size:,} bytes; expected "
            f"those that belong to it: copy the whole model again"
        )
    return model


def _integers(value: Any, name: str = "") -> Iterator[tuple[str, int]]:
    """Yield each integer of a configuration with its key."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _integers(item, str(key))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _integers(item, name)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield name, value
