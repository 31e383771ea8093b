"""Pooling, Dense, Normalize and the other modules after the encoder, by the constructors of the reference."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, ParamSpec

from torch import Tensor, nn

from ... import modules as ours
from ...errors import ConfigError, check_flag, shown
from ...modules.pooling import POOLING_MODES
from ...modules.sentence import ACTIVATION_FUNCTIONS
from ...modules.static import StaticEmbedding as OurStaticEmbedding
from ...storage import dialects
from ..old_names import old_names, refuse_more
from .module import Module, on_features
from .static import StaticEmbedding
from .transformer import Transformer

Options = ParamSpec("Options")

_SENTENCES = "sentence_embedding"
# The switches of older versions, and the modes they stand for, in the order in which results are joined.
_SWITCHES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


def _by_switches(function: Callable[Options, None]) -> Callable[Options, None]:
    """Let a constructor also take the switches of older versions in place of `pooling_mode`."""

    @functools.wraps(function)
    def constructing(*args: Options.args, **options: Options.kwargs) -> None:
        given: dict[str, Any] = options
        switches = {name: given.pop(name) for name in _SWITCHES if name in given}
        if switches and "pooling_mode" not in given:
            given["pooling_mode"] = [mode for name, mode in _SWITCHES.items() if switches.get(name)] or "mean"
        function(*args, **options)

    return constructing


class Pooling(ours.Pooling, Module):
    """Makes a sentence embedding of the token embeddings; see `minisbert.modules.Pooling`.

    Older arguments are taken, too: `word_embedding_dimension`, and `pooling_mode_mean_tokens=True` and the like.

    Args:
        embedding_dimension: size of the token embeddings.
        pooling_mode: one mode or several, whose results are joined.
        include_prompt: if False, the tokens of a prompt are left out.

    Raises:
        ConfigError: an unknown mode, or none.
    """

    POOLING_MODES: ClassVar[tuple[str, ...]] = tuple(POOLING_MODES)
    config_keys: ClassVar[list[str]] = ["embedding_dimension", "pooling_mode", "include_prompt"]
    config_key_renames: ClassVar[dict[str, str]] = {"word_embedding_dimension": "embedding_dimension"}

    @old_names(word_embedding_dimension="embedding_dimension")
    @_by_switches
    def __init__(
        self, embedding_dimension: int, pooling_mode: str | Sequence[str] = "mean", include_prompt: bool = True
    ) -> None:
        super().__init__(embedding_dimension, pooling_mode, include_prompt=include_prompt)

    def forward(self, features: Any, **kwargs: Any) -> Any:
        """Set the sentence embeddings: (texts, dim)."""
        refuse_more("Pooling", kwargs)
        return on_features(super().forward, features)

    @property
    def word_embedding_dimension(self) -> int:
        """Older name of `embedding_dimension`."""
        return self.embedding_dimension

    @property
    def pooling_output_dimension(self) -> int:
        """Size of the sentence embeddings."""
        return self.output_dimension

    def get_embedding_dimension(self) -> int:
        """Size of the sentence embeddings."""
        return self.output_dimension

    get_sentence_embedding_dimension = get_embedding_dimension

    def get_pooling_mode_str(self) -> str:
        """The modes, joined by "+"."""
        return "+".join(self.pooling_mode)

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings that are saved."""
        modes = self.pooling_mode
        return {**super().get_config_dict(), "pooling_mode": modes[0] if len(modes) == 1 else modes}

    @classmethod
    def load_config(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read the settings of a module, as `Module.load_config`; those of older versions are translated."""
        config = super().load_config(*args, **kwargs)
        dimension, modes, include_prompt = dialects.read_pooling(config)
        return {"embedding_dimension": dimension, "pooling_mode": modes, "include_prompt": include_prompt}


def _switch(mode: str) -> property:
    """A property that says if a mode is used, and adds or removes it when it is set."""

    def used(pooling: Pooling) -> bool:
        return mode in pooling.pooling_mode

    def use(pooling: Pooling, value: bool) -> None:
        modes = {*pooling.pooling_mode, mode} if value else {*pooling.pooling_mode} - {mode}
        pooling.pooling_mode = tuple(one for one in _SWITCHES.values() if one in modes)

    return property(used, use, doc=f'True if "{mode}" is one of the modes.')


for _name, _mode in _SWITCHES.items():
    setattr(Pooling, _name, _switch(_mode))


class Dense(ours.Dense, Module):
    """A linear layer and an activation over the sentence embedding.

    Args:
        in_features: size of the embedding it takes.
        out_features: size of the embedding it gives.
        bias: add a bias.
        activation_function: a module of torch's activations without weights; None for none.
        init_weight: weights to begin with, (out, in).
        init_bias: bias to begin with, (out,).
        module_input_name: only "sentence_embedding".
        module_output_name: only "sentence_embedding", which is also the default.
        use_residual: add the embedding to the result, through a linear layer of its own where the sizes differ.

    Raises:
        ConfigError: another activation, or other names.
    """

    config_keys: ClassVar[list[str]] = ["in_features", "out_features", "bias", "activation_function"]

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        activation_function: Callable[[Tensor], Tensor] | None = nn.Tanh(),  # noqa: B008 - it has no state
        init_weight: Tensor | None = None,
        init_bias: Tensor | None = None,
        module_input_name: str = _SENTENCES,
        module_output_name: str | None = None,
        use_residual: bool = False,
    ) -> None:
        _check_names("Dense", module_input_name, module_output_name)
        check_flag(bias, "bias")
        activation = nn.Identity() if activation_function is None else activation_function
        name = (
            activation if isinstance(activation, str) else f"{type(activation).__module__}.{type(activation).__name__}"
        )
        if name not in ACTIVATION_FUNCTIONS:
            raise ConfigError(
                f"got activation_function={activation!r}; expected a module of torch.nn without weights, which a saved "
                f"model can name: one of {', '.join(sorted(key.rpartition('.')[2] for key in ACTIVATION_FUNCTIONS))}"
            )
        super().__init__(in_features, out_features, bias=bias, activation_function=name, use_residual=use_residual)
        if isinstance(activation, nn.Module):
            self.activation = activation
        if init_weight is not None:
            self.linear.weight = _parameter(init_weight, "init_weight", (out_features, in_features))
        if init_bias is not None and bias:
            self.linear.bias = _parameter(init_bias, "init_bias", (out_features,))

    def forward(self, features: Any) -> Any:  # type: ignore[override]  # as in the reference
        """(texts, in) to (texts, out)."""
        return on_features(super().forward, features)

    @property
    def in_features(self) -> int:
        """Size of the embedding it takes."""
        return self.linear.in_features

    @property
    def out_features(self) -> int:
        """Size of the embedding it gives."""
        return self.linear.out_features

    @property
    def bias(self) -> bool:
        """True if a bias is added."""
        return self.linear.bias is not None

    def get_embedding_dimension(self) -> int:
        """Size of the embedding it gives."""
        return self.linear.out_features

    get_sentence_embedding_dimension = get_embedding_dimension

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings that are saved."""
        names = {"module_input_name": _SENTENCES, "module_output_name": _SENTENCES}
        return {**super().get_config_dict(), **names, **({"use_residual": True} if self.use_residual else {})}

    @classmethod
    def load(  # type: ignore[override]  # as in the reference
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        trust_remote_code: bool = False,
        init_defaults: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Dense:
        """Make the module from its folder; see `Module.load`."""
        source = (model_name_or_path, subfolder, token, cache_folder, revision, local_files_only)
        return super().load(*source, init_defaults, **kwargs)


class Normalize(ours.Normalize, Module):
    """Scales every sentence embedding to length 1.

    Args:
        module_input_name: only "sentence_embedding".
        module_output_name: only "sentence_embedding", which is also the default.
    """

    config_keys: ClassVar[list[str]] = ["module_input_name", "module_output_name"]
    module_input_name = module_output_name = _SENTENCES

    def __init__(self, module_input_name: str = _SENTENCES, module_output_name: str | None = None) -> None:
        _check_names("Normalize", module_input_name, module_output_name)
        super().__init__()

    def forward(self, features: Any) -> Any:  # type: ignore[override]  # as in the reference
        """(texts, dim) to (texts, dim)."""
        return on_features(super().forward, features)

    @classmethod
    def load(  # type: ignore[override]  # as in the reference
        cls,
        model_name_or_path: str = "",
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        **kwargs: Any,
    ) -> Normalize:
        """Make the module from its folder; see `Module.load`."""
        source = (model_name_or_path, subfolder, token, cache_folder, revision, local_files_only)
        return super().load(*source, **kwargs) if model_name_or_path else cls()


class LayerNorm(ours.LayerNorm, Module):
    """Layer normalization of the sentence embedding."""

    config_keys: ClassVar[list[str]] = ["dimension"]

    def __init__(self, dimension: int) -> None:
        super().__init__(dimension)

    def forward(self, features: Any) -> Any:  # type: ignore[override]  # as in the reference
        """(texts, dim) to (texts, dim)."""
        return on_features(super().forward, features)

    @property
    def dimension(self) -> int:
        """Size of the embeddings."""
        return self.norm.normalized_shape[0]

    def get_embedding_dimension(self) -> int:
        """Size of the embeddings."""
        return self.dimension

    get_sentence_embedding_dimension = get_embedding_dimension

    @classmethod
    def load(  # type: ignore[override]  # as in the reference
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        **kwargs: Any,
    ) -> LayerNorm:
        """Make the module from its folder; see `Module.load`."""
        source = (model_name_or_path, subfolder, token, cache_folder, revision, local_files_only)
        return super().load(*source, **kwargs)


class Dropout(ours.Dropout, Module):
    """Dropout of the sentence embedding, in training mode."""

    config_keys: ClassVar[list[str]] = ["dropout"]

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__(dropout)

    def forward(self, features: Any) -> Any:  # type: ignore[override]  # as in the reference
        """(texts, dim) to (texts, dim)."""
        return on_features(super().forward, features)


class WeightedLayerPooling(ours.WeightedLayerPooling, Module):
    """Makes token embeddings the weighted mean of what several layers make of the tokens; comes before `Pooling`.

    Args:
        embedding_dimension: size of the token embeddings.
        num_hidden_layers: layers of the encoder.
        layer_start: the first layer that counts.
        layer_weights: a weight for each layer from there to the last.
    """

    config_keys: ClassVar[list[str]] = ["embedding_dimension", "layer_start", "num_hidden_layers"]
    config_key_renames: ClassVar[dict[str, str]] = {"word_embedding_dimension": "embedding_dimension"}

    @old_names(word_embedding_dimension="embedding_dimension")
    def __init__(
        self,
        embedding_dimension: int,
        num_hidden_layers: int = 12,
        layer_start: int = 4,
        layer_weights: Tensor | None = None,
    ) -> None:
        super().__init__(embedding_dimension, num_hidden_layers, layer_start, layer_weights)

    def forward(self, features: Any) -> Any:  # type: ignore[override]  # as in the reference
        """Set the token embeddings."""
        if isinstance(features, dict) and features.get("all_layer_embeddings") is None:
            return features
        return on_features(super().forward, features)

    def get_embedding_dimension(self) -> int:
        """Size of the token embeddings."""
        return self.embedding_dimension

    get_sentence_embedding_dimension = get_word_embedding_dimension = get_embedding_dimension

    @classmethod
    def load(  # type: ignore[override]  # as in the reference
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        **kwargs: Any,
    ) -> WeightedLayerPooling:
        """Make the module from its folder; see `Module.load`."""
        source = (model_name_or_path, subfolder, token, cache_folder, revision, local_files_only)
        return super().load(*source, **kwargs)


_ADOPTED: Mapping[type[nn.Module], type[nn.Module]] = {
    ours.Transformer: Transformer,
    ours.Pooling: Pooling,
    ours.Dense: Dense,
    ours.Normalize: Normalize,
    ours.LayerNorm: LayerNorm,
    ours.Dropout: Dropout,
    ours.WeightedLayerPooling: WeightedLayerPooling,
    OurStaticEmbedding: StaticEmbedding,
}


def adopt(module: nn.Module) -> None:
    """Give a module of minisbert, in place, the methods that the reference has for it; others are left alone."""
    kind = _ADOPTED.get(type(module))
    if kind is not None:
        module.__class__ = kind


def takes_packed(module: nn.Module) -> bool:
    """Return True if a module takes packed `Features`; one of a caller takes the reference's dictionary."""
    package = type(module).forward.__module__ or ""
    return package.split(".")[0] == __name__.split(".")[0]


def _parameter(value: Any, name: str, shape: tuple[int, ...]) -> nn.Parameter:
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.shape != shape:
        got = f"a tensor {tuple(value.shape)} of {value.dtype}" if isinstance(value, Tensor) else shown(value)
        raise ConfigError(f"got {name}={got}; expected a tensor of floats, {shape}: pass one")
    return nn.Parameter(value)


def _check_names(kind: str, taken: str, given: str | None) -> None:
    if taken != _SENTENCES or given not in (None, _SENTENCES):
        raise ConfigError(
            f"got {kind} from {taken} to {given or taken}; expected {_SENTENCES}, which is all that minisbert changes"
        )
