"""The reference's methods for adapters, over the LoRA adapter of minisbert."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import ConfigError, shown
from ..modules.encoder import Encoder
from ..modules.lora import LoraConfig
from ..sentence_transformer import SentenceTransformer as OurSentenceTransformer

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

    def add_adapter(self, adapter_config: Any, adapter_name: str | None = None) -> None:
        """Freeze the encoder, and put a new LoRA adapter on it.

        Args:
            adapter_config: `LoraConfig` of minisbert, or of PEFT.
            adapter_name: only "default".

        Raises:
            ConfigError: an adapter that is not LoRA, or settings that minisbert has not; see also
                `minisbert.SentenceTransformer.add_adapter`.
        """
        _check_name(adapter_name)
        super().add_adapter(adapter_config if isinstance(adapter_config, LoraConfig) else of_peft(adapter_config))

    def load_adapter(
        self, peft_model_id: str | Path, adapter_name: str | None = None, is_trainable: bool = True
    ) -> None:
        """Freeze the encoder, and put a saved LoRA adapter on it.

        Args:
            peft_model_id: folder of the adapter.
            adapter_name: only "default".
            is_trainable: False to freeze the adapter, too.
        """
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

    def set_adapter(self, adapter_name: str | list[str]) -> None:
        """Use an adapter: the only one."""
        self.active_adapters()
        _check_name(adapter_name[0] if isinstance(adapter_name, list) and len(adapter_name) == 1 else adapter_name)

    def get_adapter_state_dict(self, adapter_name: str | None = None) -> dict[str, Tensor]:
        """Return the tensors of the adapter, by the names they have in this model."""
        _check_name(adapter_name)
        self.active_adapters()
        state = self.transformer.encoder.state_dict()
        return {name: tensor for name, tensor in state.items() if "lora_" in name}

    def disable_adapters(self) -> None:
        """Refuse: an adapter is part of the layers.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("got disable_adapters(); expected a model to use as it is: load the base model beside it")

    def enable_adapters(self) -> None:
        """Use the adapters, which are never disabled."""
        self.active_adapters()


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
