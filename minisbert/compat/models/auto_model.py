"""The encoder as transformers shows it: `model[0].auto_model`, with its tree of modules and its configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ConfigError, InputError
from ...modules.architectures import architecture_of, known
from ...modules.encoder import Encoder
from ...storage.files import write_json
from ...storage.weights import write_weights
from .features import Padding

_NUMBER = re.compile(r"\.(\d+)\.")


class ConfigView(dict[str, Any]):
    """The content of config.json, with attributes as a configuration of transformers has them."""

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        if name.startswith("__") or "model_type" not in self:
            raise AttributeError(name)
        found = architecture_of(self["model_type"])
        if found is not None and found.keys.get(name) in self:  # DistilBERT says "dim" for hidden_size
            return self[found.keys[name]]
        import transformers  # for what config.json leaves to its defaults

        values = {key: value for key, value in self.items() if key != "model_type"}
        return getattr(transformers.AutoConfig.for_model(self["model_type"], **values), name)

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def to_dict(self) -> dict[str, Any]:
        """Return a copy as a dictionary."""
        return dict(self)


@dataclass(frozen=True)
class ModelOutput:
    """The output of the encoder over padded texts; values are also had by name or number, as of transformers.

    Attributes:
        last_hidden_state: (texts, length, dim); zeros where there is padding.
        pooler_output: (texts, dim), or None if the checkpoint has no pooler.
        hidden_states: what each layer makes, (texts, length, dim) each, if asked for.
    """

    last_hidden_state: Tensor
    pooler_output: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None

    def to_tuple(self) -> tuple[Any, ...]:
        """Return the values that are there."""
        return tuple(value for value in vars(self).values() if value is not None)

    def __getitem__(self, key: int | str) -> Any:
        return vars(self)[key] if isinstance(key, str) else self.to_tuple()[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.to_tuple())


class Node(nn.Module):
    """A place in the tree of a model of transformers. Its leaves are the modules of our encoder themselves.

    Args:
        number: that of the layer of our encoder which this is, or None.
    """

    _owners: dict[str, tuple[nn.Module, str]]
    _number: int | None

    def __init__(self, number: int | None = None) -> None:
        super().__init__()
        self.__dict__.update(_owners={}, _number=number)

    def __setattr__(self, name: str, value: Any) -> None:
        """Replace a leaf in our encoder, too."""
        owner = self._owners.get(name)
        if owner is not None and isinstance(value, nn.Module):
            setattr(*owner, value)
        elif isinstance(value, (nn.Module, nn.Parameter)):
            raise ConfigError(
                f"got a {type(value).__name__} as {name}; expected one for {', '.join(self._owners) or 'a leaf'}, all "
                f"that can be replaced here: change it in its place"
            )
        super().__setattr__(name, value)


class _Stack(Node):
    """The part of a model that holds its layers, which can be replaced by some of them."""

    def __init__(self, encoder: Encoder, config: ConfigView) -> None:
        super().__init__()
        self.__dict__.update(_encoder=encoder, _config=config)

    def __setattr__(self, name: str, value: Any) -> None:
        """Replace a leaf in our encoder, too, or leave out layers."""
        if not isinstance(value, nn.ModuleList):
            super().__setattr__(name, value)
            return
        encoder: Encoder = self.__dict__["_encoder"]
        numbers = [layer._number if isinstance(layer, Node) else None for layer in value]
        if not numbers or None in numbers:
            raise ConfigError("got layers that are not the encoder's; expected a ModuleList of some of its own")
        encoder.layers = nn.ModuleList(encoder.layers[number] for number in numbers if number is not None)
        encoder.config = replace(encoder.config, num_hidden_layers=len(numbers))
        config: ConfigView = self.__dict__["_config"]
        config[known(config).key("num_hidden_layers")] = len(numbers)
        for number, layer in enumerate(value):
            layer.__dict__["_number"] = number
        self._modules[name] = value


class AutoModel(Node):
    """Our encoder with the names, and the call, that it has in transformers.

    Modules with weights are those of the encoder: what is done to them (freezing, hooks, other values) is done to it.

    Args:
        encoder: of a model.
        config: content of its config.json.
        extra: tensors of the checkpoint that the encoder has not: a pooler.
    """

    def __init__(self, encoder: Encoder, config: ConfigView, extra: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.__dict__.update(_encoder=encoder, _config=config, _extra=extra)
        self.__dict__["_leaves"] = found = leaves(encoder, config)
        own = dict(encoder.named_modules())
        for name, (path, _) in found.items():
            self._put(own, name, path.split("."))

    def _put(self, own: Mapping[str, nn.Module], name: str, path: list[str]) -> None:
        """Hang one of our modules into the tree."""
        node: nn.Module = self
        for place, part in enumerate(path[:-1]):
            if part not in node._modules:
                node._modules[part] = self._made(path, place)
            node = node.get_submodule(part)
        holder, _, last = name.rpartition(".")
        if isinstance(node, Node):
            node._owners[path[-1]] = (own[holder], last)
        node._modules[path[-1]] = own[name]

    def _made(self, path: list[str], place: int) -> nn.Module:
        """Make the node at a place of a path."""
        if path[place].isdigit():
            return Node(int(path[place]))
        if path[place + 1].isdigit():
            return nn.ModuleList()
        holds_layers = place + 2 < len(path) and path[place + 2].isdigit()
        return _Stack(self.native, self.config) if holds_layers else Node()

    def shows(self, encoder: Encoder, config: ConfigView) -> bool:
        """True if this is the tree of an encoder as it is now, no part of which was replaced."""
        return (
            encoder is self.native
            and config is self.config
            and leaves(encoder, self.config) == self.__dict__["_leaves"]
        )

    @property
    def config(self) -> ConfigView:
        """Content of config.json."""
        config: ConfigView = self.__dict__["_config"]
        return config

    @property
    def native(self) -> Encoder:
        """The encoder itself."""
        encoder: Encoder = self.__dict__["_encoder"]
        return encoder

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.native.embeddings.word.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        return self.native.embeddings.word.weight.dtype

    @property
    def base_model(self) -> AutoModel:
        """The model without a head, which is this one."""
        return self

    def get_input_embeddings(self) -> nn.Module:
        """The table of word embeddings."""
        return self.native.get_input_embeddings()

    def resize_token_embeddings(self, new_num_tokens: int | None = None) -> nn.Module:
        """Give the table of word embeddings another number of rows; see `Encoder.resize_token_embeddings`."""
        table = self.native.resize_token_embeddings(new_num_tokens)
        self.config["vocab_size"] = self.native.vocabulary
        node = self.get_submodule("embeddings")
        node._modules["word_embeddings"] = table
        return table

    def num_parameters(self, only_trainable: bool = False) -> int:
        """Count the weights."""
        return sum(value.numel() for value in self.parameters() if value.requires_grad or not only_trainable)

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: Mapping[str, Any] | None = None) -> None:
        """Keep only the inputs of layers in training, and compute them again in backward."""
        self.native.recompute(True)

    def gradient_checkpointing_disable(self) -> None:
        """Keep what layers make in training."""
        self.native.recompute(False)

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write weights and config.json into a folder, as transformers reads them."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        extra: Mapping[str, Tensor] = self.__dict__["_extra"]
        write_weights(folder, {**self.state_dict(), **{name: value.to(self.dtype) for name, value in extra.items()}})
        write_json(folder / "config.json", self.config, end="\n")

    def train(self, mode: bool = True) -> AutoModel:
        """Set the mode of the encoder."""
        self.native.train(mode)
        self.training = mode
        return self

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        *,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Embed every token of padded texts.

        Args:
            input_ids: (texts, length).
            attention_mask: 0 for padding; by default there is none.
            token_type_ids: text of a pair that each token belongs to.
            output_hidden_states: return what each layer makes, too.
            return_dict: False for a tuple.

        Returns:
            `ModelOutput`; see there.
        """
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        padding = Padding.of(given, self.device)
        wanted = self.config.get("output_hidden_states") if output_hidden_states is None else output_hidden_states
        layers: list[Tensor] | None = [] if wanted else None
        hidden = padding.pad(encode_padded(self.native, padding, layers))
        every = None if layers is None else tuple(map(padding.pad, layers))
        output = ModelOutput(hidden, self._pooled(hidden), every)
        return output.to_tuple() if return_dict is False else output

    def _pooled(self, hidden: Tensor) -> Tensor | None:
        extra: Mapping[str, Tensor] = self.__dict__["_extra"]
        weight, bias = extra.get("pooler.dense.weight"), extra.get("pooler.dense.bias")
        if weight is None or bias is None:
            return None
        first = hidden[:, 0]
        return torch.tanh(nn.functional.linear(first, weight.to(first), bias.to(first)))


def leaves(encoder: Encoder, config: Mapping[str, Any]) -> dict[str, tuple[str, nn.Module]]:
    """The modules with weights, by their names: the places they have in transformers, and the modules themselves."""
    names = known(config).names
    found = {}
    for name, module in encoder.named_modules():
        pattern, number = _NUMBER.sub(".{}.", name), _NUMBER.search(name)
        if pattern in names and " (" not in names[pattern]:  # a part of a tensor has no module of its own
            found[name] = names[pattern].format(number.group(1) if number else ""), module
    return found


def encode_padded(encoder: Any, padding: Padding, layers: list[Tensor] | None = None) -> Tensor:
    """Run an encoder over the tokens of padded texts: (tokens, dim); `layers` is filled as by `Encoder.forward`.

    Raises:
        InputError: there are more columns than the encoder has positions, and padding on the left.
    """
    batch = padding.batch
    absolute = (
        isinstance(encoder, Encoder) and encoder.embeddings.position is not None and not encoder.embeddings.offset
    )
    if absolute and padding.on_left:
        if padding.width > encoder.config.max_tokens:
            raise InputError(
                f"got {padding.width} columns; this model has positions for {encoder.config.max_tokens}: truncate"
            )
        batch = padding.with_columns()
    hidden: Tensor = encoder(batch) if layers is None else encoder(batch, layers)
    return hidden
