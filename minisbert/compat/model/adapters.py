"""The reference's methods for adapters, over the LoRA adapter of minisbert."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from ...errors import ConfigError, shown
from ...modules.encoder import Encoder
from ...modules.lora import LoraConfig, LoraLinear
from ...sentence_transformer import SentenceTransformer as OurSentenceTransformer
from ..models.transformer import Transformer

_NAME = "default"
_KEPT = ("r", "lora_alpha", "lora_dropout", "target_modules", "bias", "use_rslora")
# Settings of PEFT that say nothing about what an adapter computes, or nothing as long as they have these values.
_DESCRIBING = ("peft_type", "task_type", "inference_mode", "base_model_name_or_path", "revision", "peft_version")
_SPARED = {"fan_in_fan_out": (False,), "init_lora_weights": (True,)}


class AdapterMethods(OurSentenceTransformer):
    """`add_adapter` and its like: a model has one adapter, whose name is "default"."""

    def has_peft_compatible_model(self) -> bool:
        """Return True if the encoder can have an adapter."""
        return isinstance(self.transformer.encoder, Encoder) and not self.transformer.encoder.quantized

    def check_peft_compatible_model(self) -> None:
        """Raise ConfigError if the encoder cannot have an adapter."""
        if not self.has_peft_compatible_model():
            raise ConfigError(
                "got an encoder that cannot have an adapter; expected floats of a native one (BERT, RoBERTa, "
                "DistilBERT, MPNet)"
            )

    def add_adapter(self, *args: Any, **kwargs: Any) -> None:
        """Freeze the encoder, and put a new LoRA adapter on it.

        Args:
            args: `adapter_config`, which is a `LoraConfig` of minisbert or of PEFT, and `adapter_name`, only "default".
            kwargs: the same by name.

        Raises:
            ConfigError: an adapter that is not LoRA, or settings that minisbert has not; see also
                `minisbert.SentenceTransformer.add_adapter`.
        """
        self._add_adapter(*args, **kwargs)

    def _add_adapter(self, adapter_config: Any, adapter_name: str | None = None) -> None:
        _check_name(adapter_name)
        super().add_adapter(adapter_config if isinstance(adapter_config, LoraConfig) else of_peft(adapter_config))

    def load_adapter(self, *args: Any, **kwargs: Any) -> None:
        """Freeze the encoder, and put a saved LoRA adapter on it.

        Args:
            args: `peft_model_id`, the folder of the adapter, and `adapter_name`, only "default".
            kwargs: the same by name, and `is_trainable`: False to freeze the adapter, too.
        """
        self._load_adapter(*args, **kwargs)

    def _load_adapter(
        self, peft_model_id: str | Path, adapter_name: str | None = None, *, is_trainable: bool = True
    ) -> None:
        _check_name(adapter_name)
        super().load_adapter(peft_model_id)
        if not is_trainable:
            for name, parameter in self.transformer.encoder.named_parameters():
                if "lora_" in name:
                    parameter.requires_grad = False

    def active_adapters(self) -> list[str]:
        """Return the names of the adapters that are used.

        Raises:
            ConfigError: there is none.
        """
        if self.transformer.adapter is None:
            raise ConfigError("got a model without an adapter; expected one: call add_adapter first")
        return [_NAME]

    def active_adapter(self) -> str:
        """Return the name of the adapter."""
        return self.active_adapters()[0]

    def set_adapter(self, *args: Any, **kwargs: Any) -> None:
        """Use an adapter, by `adapter_name`: the only one."""
        self._named_adapter(*args, **kwargs)

    def delete_adapter(self, *args: Any, **kwargs: Any) -> None:
        """Take the adapter, by `adapter_names`, off the encoder, whose own weights stay frozen."""
        self._named_adapter(*args, **{name.replace("names", "name"): value for name, value in kwargs.items()})
        transformer = self.transformer
        folder = transformer.weights_folder
        for module in self._adapted():
            nn.init.zeros_(module.lora_B)
        transformer.merge_adapter()
        cast(Transformer, transformer).restore_base(folder)

    def _adapted(self) -> list[LoraLinear]:
        return [module for module in self.transformer.encoder.modules() if isinstance(module, LoraLinear)]

    def _named_adapter(self, adapter_name: str | list[str] | None = None) -> None:
        self.active_adapters()
        _check_name(adapter_name[0] if isinstance(adapter_name, list) and len(adapter_name) == 1 else adapter_name)

    def get_adapter_state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Return the tensors of the adapter, by `adapter_name`, under the names they have in this model."""
        self._named_adapter(*args, **kwargs)
        state = self.transformer.encoder.state_dict()
        return {name: tensor for name, tensor in state.items() if "lora_" in name}

    def disable_adapters(self) -> None:
        """Compute without the adapter until `enable_adapters`."""
        self.active_adapters()
        for module in self._adapted():
            module.scale = 0.0

    def enable_adapters(self) -> None:
        """Compute with the adapter again."""
        self.active_adapters()
        adapter = self.transformer.adapter
        for module in self._adapted():
            module.scale = 0.0 if adapter is None else adapter.scale


def of_peft(config: Any) -> LoraConfig:
    """Return the settings of a LoRA adapter of PEFT as ours.

    Raises:
        ConfigError: it is of another kind, or has settings that minisbert has not.
    """
    kind = getattr(config, "peft_type", None)
    if getattr(kind, "value", kind) != "LORA":
        raise ConfigError(
            f"got {type(config).__name__} as adapter; expected LoRA: pass LoraConfig(r=8, lora_alpha=16) of PEFT or "
            f"minisbert"
        )
    usual = vars(type(config)())
    for name, value in vars(config).items():
        allowed = _SPARED.get(name, (usual.get(name),))
        if name not in (*_KEPT, *_DESCRIBING) and not name.startswith("_") and value and value not in allowed:
            raise ConfigError(f"got {name}={shown(value)} for LoRA; expected {', '.join(_KEPT)} only: leave it out")
    given = {name: getattr(config, name) for name in _KEPT if hasattr(config, name)}
    if isinstance(given.get("target_modules"), set):  # PEFT keeps names without an order
        given["target_modules"] = sorted(given["target_modules"])
    return LoraConfig(**given)


def _check_name(name: Any) -> None:
    if name not in (None, _NAME):
        raise ConfigError(f"got adapter_name={shown(name)}; expected 'default': a model of minisbert has one adapter")
