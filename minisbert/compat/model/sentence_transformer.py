"""The reference's `SentenceTransformer`, over ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import nn

from ...errors import ConfigError, shown, warn
from ...modules.features import Features
from ...similarity import SimilarityFunction
from ...text import Text
from ..models.features import results, run_on_dictionary
from ..models.module import Module
from ..models.parts import WeightedLayerPooling, adopt, takes_packed
from ..models.transformer import Transformer
from ..old_names import old_names, refuse_more
from ..training.fit import FitMixin
from .adapters import AdapterMethods
from .card import SentenceTransformerModelCardData
from .encoding import EncodingMethods
from .hub import HubMethods
from .merging import MergingMethods


class _Recognized(type):
    """Shows the class with the package whose place it takes, by which KeyBERT and BERTopic know a model."""

    def __repr__(cls) -> str:
        return f"<class '{cls.__module__}.{cls.__qualname__}' for sentence_transformers>"


class SentenceTransformer(  # type: ignore[misc]  # whose fit it is
    FitMixin, EncodingMethods, HubMethods, AdapterMethods, MergingMethods, metaclass=_Recognized
):
    """A sentence-embedding model with the reference's arguments, methods and feature dictionaries.

    Args:
        model_name_or_path: a model folder, or a name.
        modules: build the model from these instead.
        device: where it runs.
        prompts: texts by name that are put before inputs.
        default_prompt_name: the prompt used where a call names none.
        cache_folder: Hugging Face cache to use.
        trust_remote_code: makes no difference: no code of a model is run.
        revision: branch, tag or commit on the Hub.
        local_files_only: never ask the Hub.
        token: Hub access token.
        use_auth_token: older name of `token`.
        model_kwargs: `dtype` or `torch_dtype`, and what makes no difference to embeddings.
        processor_kwargs: entries in place of those of tokenizer_config.json; `tokenizer_kwargs` is an older name.
        config_kwargs: entries in place of those of config.json.
        model_card_data: entries for the model card.
        backend: only "torch".
        similarity_fn_name: "cosine", "dot", "euclidean" or "manhattan".
        truncate_dim: keep only this many leading dimensions of each embedding.

    Raises:
        ModelError: the model cannot be found or read.
        ConfigError: an argument has an impossible value.
    """

    SUPPORTED_SIMILARITY_FN_NAMES = ("cosine", "dot", "euclidean", "manhattan")
    backend: Literal["torch"] = "torch"

    @old_names("modules", "device", "prompts", "default_prompt_name", tokenizer_kwargs="processor_kwargs")
    def __init__(
        self,
        model_name_or_path: str | Path | None = None,
        *,
        modules: Iterable[nn.Module] | Mapping[str, nn.Module] | None = None,
        device: str | torch.device | None = None,
        prompts: dict[str, str] | None = None,
        default_prompt_name: str | None = None,
        cache_folder: str | None = None,
        trust_remote_code: bool = False,
        revision: str | None = None,
        local_files_only: bool = False,
        token: bool | str | None = None,
        use_auth_token: bool | str | None = None,
        model_kwargs: dict[str, Any] | None = None,
        processor_kwargs: dict[str, Any] | None = None,
        config_kwargs: dict[str, Any] | None = None,
        model_card_data: SentenceTransformerModelCardData | None = None,
        backend: Literal["torch"] = "torch",
        similarity_fn_name: str | SimilarityFunction | None = None,
        truncate_dim: int | None = None,
    ) -> None:
        if token is not None and use_auth_token is not None:
            raise ConfigError("got both token and use_auth_token; expected one of them: they are the same")
        values: Any = modules.values() if isinstance(modules, Mapping) else modules
        known: Any = prompts
        if isinstance(prompts, Mapping):
            known = {name: text or "" for name, text in prompts.items()}
        if not isinstance(model_card_data, SentenceTransformerModelCardData | None):
            raise ConfigError(
                f"got model_card_data={shown(model_card_data)}; expected a SentenceTransformerModelCardData: make one"
            )
        super().__init__(
            model_name_or_path,
            modules=list(values) if isinstance(values, Iterable) and not isinstance(values, str) else values,
            device=device,
            prompts=known,
            default_prompt_name=default_prompt_name,
            similarity_fn_name=getattr(similarity_fn_name, "value", similarity_fn_name),
            truncate_dim=truncate_dim,
            cache_folder=cache_folder,
            revision=revision,
            local_files_only=local_files_only,
            token=use_auth_token if token is None else token,
            trust_remote_code=trust_remote_code,
            backend=backend,
            model_kwargs=model_kwargs,
            processor_kwargs=processor_kwargs,
            config_kwargs=config_kwargs,
        )
        for module in self:
            adopt(module)
        if config_kwargs and "output_hidden_states" in config_kwargs:
            self.transformer.config["output_hidden_states"] = config_kwargs["output_hidden_states"]
        self._check_layers()
        self.model_card_data = model_card_data or SentenceTransformerModelCardData()
        self.model_card_data.register_model(self)
        for module in self:
            if isinstance(module, Module):
                module.on_model_ready(self)

    def _check_layers(self) -> None:
        """Leave WeightedLayerPooling out, as the reference does in silence, if the encoder shows no layers."""
        for module in self:
            if isinstance(module, WeightedLayerPooling):
                module.used = self.transformer.config.get("output_hidden_states") is True
                if not module.used:
                    warn(
                        "WeightedLayerPooling has no effect, as in the reference, since config.json does not ask for "
                        "hidden states: pass config_kwargs={'output_hidden_states': True}"
                    )

    # ---- the modules ------------------------------------------------------------------------------------------------

    if TYPE_CHECKING:  # a module has attributes that its base class does not

        def __getitem__(self, idx: int | slice) -> Any: ...

    @property
    def transformer(self) -> Transformer:
        """The first module: tokenizer and encoder."""
        return cast(Transformer, super().transformer)

    def forward(self, input: Any, **kwargs: Any) -> Any:  # type: ignore[override]  # noqa: A002 - the reference's name
        """Run features through all modules.

        Args:
            input: the reference's dictionary ("input_ids", "attention_mask" and others: int64, (texts, length)), or
                packed `Features`.
            kwargs: `task`, which makes no difference.

        Returns:
            The dictionary, to which "token_embeddings", (texts, length, dim), and "sentence_embedding", (texts, dim),
            are added; or the `Features`.
        """
        refuse_more("the model", kwargs, known=("task",))
        if not isinstance(input, Mapping):
            return super().forward(input)
        given = input if isinstance(input, dict) else dict(input)
        features, padding = self.transformer.run_on(given, self.device)
        for module in islice(self, 1, None):
            own = takes_packed(module)
            features = module(features) if own else run_on_dictionary(module, features, padding, given)
        given.update(results(features, padding))
        return given

    def after_transformer(self, features: Features) -> Features:
        """Run token embeddings through the modules after the first."""
        for module in islice(self, 1, None):
            features = module(features) if takes_packed(module) else run_on_dictionary(module, features)
        return features

    def _first_module(self) -> nn.Module:
        return next(iter(self))

    def _last_module(self) -> nn.Module:
        return list(self)[-1]

    def get_sentence_features(self, *features: Any) -> Any:
        """Return what the first module's method of this name does; the modules of minisbert have none."""
        method: Any = getattr(self._first_module(), "get_sentence_features")  # noqa: B009 - an attribute of callers
        return method(*features)

    @property
    def transformers_model(self) -> Any:
        """The encoder as transformers shows it, or None for a static model."""
        return self.transformer.auto_model if isinstance(self.transformer, Transformer) else None

    @property
    def config(self) -> Any:
        """The configuration of the encoder, or None for a static model."""
        return getattr(self.transformers_model, "config", None)

    @config.setter
    def config(self, value: Any) -> None:
        self.transformer.set_config(value)

    @property
    def _target_device(self) -> torch.device:
        return self.device

    @_target_device.setter
    def _target_device(self, device: str | torch.device) -> None:
        self.to(device)

    def get_backend(self) -> Literal["torch"]:
        """The library that computes: PyTorch."""
        return "torch"

    def get_model_kwargs(self) -> list[str]:
        """Names of arguments of `encode` that modules take: none."""
        return []

    @property
    def modalities(self) -> list[str]:
        """Kinds of inputs: texts."""
        return ["text"]

    def supports(self, modality: str | tuple[str, ...]) -> bool:
        """Return True for a kind of inputs that the model takes."""
        return modality in self.modalities

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: embeddings do not depend on it, and packed batches run through kernels of their own.

        Args:
            args: as of `torch.compile`.
            kwargs: as of `torch.compile`.
        """

    def clear_placement_cache(self) -> None:
        """Do nothing: the places of weights are never kept."""

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Keep only the inputs of layers in training, and compute them again in backward."""
        refuse_more("gradient_checkpointing_enable", kwargs)
        shown = self.transformers_model
        newer = getattr(shown, "activation_checkpointing_enable", None)  # its name in newer versions of transformers
        (newer or shown.gradient_checkpointing_enable)(gradient_checkpointing_kwargs)

    # ---- texts ------------------------------------------------------------------------------------------------------

    @property
    def tokenizer(self) -> Any:
        """The tokenizer as transformers has it."""
        return self.transformer.tokenizer

    @tokenizer.setter
    def tokenizer(self, value: Any) -> None:
        self.transformer.tokenizer = value

    @property
    def processor(self) -> Any:
        """`tokenizer`, under its name in version 6."""
        return self.tokenizer

    @property
    def max_seq_length(self) -> int:
        """Most tokens of a text, special tokens included; longer texts are truncated."""
        return self.transformer.max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, value: int | None) -> None:
        self.transformer.max_seq_length = value

    def preprocess(self, inputs: Sequence[Text], prompt: str | None = None, **kwargs: Any) -> dict[str, Any]:
        """Return the features of texts; see `Transformer.preprocess`."""
        return self.transformer.preprocess(inputs, prompt, **kwargs)

    def tokenize(self, texts: Sequence[Text], **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return the features of texts: the older name of `preprocess`."""
        return self.preprocess(texts, **kwargs)

    def is_singular_input(self, inputs: Any) -> bool:
        """Return True if this is one input and not several."""
        return isinstance(inputs, (str, Mapping)) or not hasattr(inputs, "__len__")

    @staticmethod
    def load(input_path: str) -> SentenceTransformer:
        """Load a model from a folder."""
        return SentenceTransformer(input_path)
