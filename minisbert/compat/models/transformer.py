"""The reference's `Transformer`: a tokenizer and an encoder as transformers shows them, over ours."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, ParamSpec

import numpy as np
import torch
from torch import nn

from ... import modules as ours
from ...errors import ConfigError, InputTypeError, check_count, check_flag, warn
from ...modules.encoder import Encoder
from ...modules.features import Features
from ...modules.foreign import ForeignEncoder
from ...packing import PackedBatch
from ...storage.files import read_json_object
from ...storage.layout import check_loading, merge_loading
from ...storage.locate import find_model
from ...text import Text, TextTokenizer, read_inputs, with_prompt
from ..old_names import old_names, refuse_more
from .auto_model import AutoModel, ConfigView, encode_padded
from .features import Padding, padded_features, results
from .module import InputModule, warn_of_pickles
from .parameter_names import ParameterNames
from .tokenizer import TokenizerView

Options = ParamSpec("Options")

_UNLIMITED = 1_000_000  # tokens; where neither encoder nor tokenizer has a limit
_MADE_LATER = ("_view", "_tokens")


def _with_cache_dir(function: Callable[Options, None]) -> Callable[Options, None]:
    """Let a constructor also take `cache_dir`, as older versions did, and put it among the arguments for the model."""

    @functools.wraps(function)
    def constructing(*args: Options.args, **options: Options.kwargs) -> None:
        given: dict[str, Any] = options
        if (cache := given.pop("cache_dir", None)) is not None:
            key = "model_args" if "model_args" in given else "model_kwargs"
            given[key] = {**(given.get(key) or {}), "cache_dir": cache}
        function(*args, **options)

    return constructing


class Transformer(ParameterNames, ours.Transformer, InputModule):
    """The first module of a model, by the name or folder of an encoder.

    Arguments of older versions are taken by their names, too: `model_args`, `tokenizer_args`, `config_args` and
    `cache_dir`.

    Args:
        model_name_or_path: folder, or name on the Hub.
        max_seq_length: tokens of the longest text; by default what tokenizer and encoder allow.
        transformer_task: only "feature-extraction".
        model_kwargs: `dtype` (or `torch_dtype`), and what makes no difference to embeddings.
        processor_kwargs: entries in place of those of tokenizer_config.json.
        config_kwargs: entries in place of those of config.json.
        processing_kwargs: `max_length`, and what makes no difference to embeddings.
        backend: only "torch".
        modality_config: only texts.
        module_output_name: only "token_embeddings".
        unpad_inputs: makes no difference: nothing is ever padded.
        query_length: only None.
        document_length: only None.
        query_expansion: only None.
        do_lower_case: lower-case texts before they are tokenized.
        tokenizer_name_or_path: only None: the tokenizer lies with the encoder.

    Raises:
        ModelError: the model cannot be found or read, or an argument asks for what minisbert does not do.
        ConfigError: another backend.
    """

    config: ConfigView = ConfigView()
    unpad_inputs: bool | None = None  # nothing is ever padded
    query_expansion: None = None
    config_file_name: ClassVar[str] = "sentence_bert_config.json"
    config_keys: ClassVar[list[str]] = ["max_seq_length", "do_lower_case"]
    modality_config: ClassVar[Mapping[str, Any]] = {
        "text": {"method": "forward", "method_output_name": "last_hidden_state"}
    }

    @_with_cache_dir
    @old_names(
        *("max_seq_length", "model_kwargs", "processor_kwargs", "config_kwargs"),
        model_args="model_kwargs",
        tokenizer_args="processor_kwargs",
        config_args="config_kwargs",
    )
    def __init__(
        self,
        model_name_or_path: str | Path,
        *,
        transformer_task: str = "feature-extraction",
        model_kwargs: dict[str, Any] | None = None,
        processor_kwargs: dict[str, Any] | None = None,
        config_kwargs: dict[str, Any] | None = None,
        processing_kwargs: dict[str, Any] | None = None,
        backend: str = "torch",
        modality_config: dict[str, Any] | None = None,
        module_output_name: str | None = None,
        unpad_inputs: bool | None = None,
        query_length: int | None = None,
        document_length: int | None = None,
        query_expansion: dict[str, Any] | None = None,
        max_seq_length: int | None = None,
        do_lower_case: bool = False,
        tokenizer_name_or_path: str | None = None,
    ) -> None:
        loading = check_loading(
            backend=backend, model_kwargs=model_kwargs, processor_kwargs=processor_kwargs, config_kwargs=config_kwargs
        )
        if max_seq_length is not None:
            check_count(max_seq_length, "max_seq_length", otherwise="None for the model's own")
        check_flag(do_lower_case, "do_lower_case")
        settings = {
            "max_seq_length": max_seq_length,
            "transformer_task": transformer_task,
            "processing_kwargs": processing_kwargs,
            "modality_config": modality_config,
            "module_output_name": module_output_name,
            "query_length": query_length,
            "document_length": document_length,
            "query_expansion": query_expansion,
            "do_lower_case": do_lower_case,
            "tokenizer_name_or_path": tokenizer_name_or_path,
        }
        given_source = model_kwargs or {}
        folder = find_model(
            model_name_or_path,
            revision=given_source.get("revision"),
            cache_folder=given_source.get("cache_dir"),
            token=given_source.get("token"),
        )
        given = {name: value for name, value in settings.items() if value is not None}
        self._become(ours.Transformer.load(folder, {**given, **loading}))
        if config_kwargs and "output_hidden_states" in config_kwargs:  # which no embedding depends on
            self.config["output_hidden_states"] = config_kwargs["output_hidden_states"]

    def _become(self, loaded: ours.Transformer) -> None:
        """Take all that a module of ours has."""
        nn.Module.__init__(self)
        self.__dict__.update(loaded.__dict__)

    @classmethod
    def load(  # type: ignore[override]  # the reference's arguments; ours are for a folder alone
        cls,
        model_name_or_path: str | Path,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        trust_remote_code: bool = False,
        model_kwargs: dict[str, Any] | None = None,
        processor_kwargs: dict[str, Any] | None = None,
        config_kwargs: dict[str, Any] | None = None,
        backend: str = "torch",
        init_defaults: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Transformer:
        """Load the module from the folder of a model, with the settings saved there; see `Module.load`."""
        refuse_more("Transformer.load", {**kwargs, **(init_defaults or {})})
        loading = check_loading(
            backend=backend, model_kwargs=model_kwargs, processor_kwargs=processor_kwargs, config_kwargs=config_kwargs
        )
        source = (token, cache_folder, revision, local_files_only)
        folder = cls._folder(model_name_or_path, subfolder, source)
        settings = read_json_object(folder / cls.config_file_name, optional=True)
        module = cls.__new__(cls)
        module._become(ours.Transformer.load(folder, merge_loading(settings, loading)))
        return module

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; the encoder cannot be replaced by something that is not one of minisbert."""
        if name in ("auto_model", "model") and "auto_model" in self.__dict__.get("_modules", {}):
            if value is self.__dict__.get("_view"):
                return
            if not isinstance(value, (Encoder, ForeignEncoder)):
                raise ConfigError(
                    f"got a {type(value).__name__} as {name}; expected minisbert's own encoder: change it in "
                    f"place, and use model.add_adapter for LoRA"
                )
            name = "auto_model"
        super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        self.text_tokenizer  # noqa: B018 - takes over what was done to the tokenizer's view
        return {name: value for name, value in self.__dict__.items() if name not in _MADE_LATER}

    # ---- the encoder ------------------------------------------------------------------------------------------------

    @property
    def auto_model(self) -> Any:  # type: ignore[override]  # it is read only here
        """The encoder as transformers shows it."""
        encoder = self.encoder
        self.set_config(self.config)
        if isinstance(encoder, ForeignEncoder):
            return encoder.model
        if not isinstance(encoder, Encoder):
            return encoder
        view: AutoModel | None = self.__dict__.get("_view")
        if view is None or not view.shows(encoder, self.config):
            view = AutoModel(encoder, self.config, self.extra_tensors)
            self.__dict__["_view"] = view
        return view

    @property
    def model(self) -> Any:
        """The encoder as transformers shows it, under its name in version 6."""
        return self.auto_model

    def set_config(self, config: Any) -> None:
        """Show a configuration as `ConfigView`: a dictionary, or one of transformers."""
        self.config = config if isinstance(config, ConfigView) else ConfigView(_content(config))

    def on_model_ready(self, model: nn.Module) -> None:
        """Let the configuration have attributes."""
        self.set_config(self.config)

    def forward(self, features: Any, **kwargs: Any) -> Any:
        """Set the token embeddings: (tokens, dim), or (texts, length, dim) in a dictionary."""
        refuse_more("Transformer", kwargs)
        if isinstance(features, Features):
            return super().forward(features)
        made, padding = self.run_on(features, self.encoder_device)
        features.update(results(made, padding))
        return features

    def run_on(self, features: Mapping[str, Any], device: torch.device) -> tuple[Features, Padding]:
        """Embed the tokens of a dictionary on a device; return also the places that they have there."""
        padding = Padding.of(features, device)
        return self.run_padded(padding), padding

    def features_of(self, batch: PackedBatch) -> dict[str, Any]:
        """Return packed texts as a dictionary of features, in the order of the rows."""
        return padded_features(batch, padding=self.padding_token)

    def run_padded(self, padding: Padding) -> Features:
        """Embed the tokens of padded texts, as the encoder of the reference does."""
        every_layer = self.config.get("output_hidden_states") is True
        made = Features(padding.batch, layer_embeddings=[] if every_layer else None)
        made.token_embeddings = encode_padded(self.encoder, padding, made.layer_embeddings)
        return made

    def restore_base(self, folder: Path | None) -> None:
        """Take the weights for those of a folder again, and freeze them."""
        self._weights_folder = folder
        self.encoder.requires_grad_(False)

    @property
    def encoder_device(self) -> torch.device:
        """Device of the weights."""
        return next(self.encoder.parameters()).device

    def get_embedding_dimension(self) -> int:
        """Size of the token embeddings."""
        return self.embedding_dimension

    get_word_embedding_dimension = get_sentence_embedding_dimension = get_embedding_dimension

    # ---- texts ------------------------------------------------------------------------------------------------------

    @property
    def text_tokenizer(self) -> TextTokenizer:
        """Makes the tokens of texts, with what was done to `tokenizer`."""
        tokenizer = super().text_tokenizer
        shown: TokenizerView | None = self.__dict__.get("_tokens")
        if shown is not None:
            shown.take_over(tokenizer, self.within_positions)
        return tokenizer

    @property
    def tokenizer(self) -> Any:
        """The tokenizer as transformers has it. What is added to it or set is taken over by the model."""
        tokenizer = self.text_tokenizer
        shown: TokenizerView | None = self.__dict__.get("_tokens")
        if shown is None:
            shown = self.__dict__["_tokens"] = TokenizerView.of(self._source, self.config, tokenizer)
        return shown.tokenizer

    @tokenizer.setter
    def tokenizer(self, value: Any) -> None:
        if self.__dict__.get("_tokens") is not None and value is self.tokenizer:
            return
        backend = getattr(value, "backend_tokenizer", None)
        if backend is None:
            raise ConfigError(
                f"got a {type(value).__name__} as tokenizer; expected a fast one of transformers "
                f"(PreTrainedTokenizerFast)"
            )
        shown = TokenizerView(value)
        self._source = replace(self._source, tokenizer=shown.copy(), truncation_side=value.truncation_side)
        self._tokenizer = TextTokenizer(
            self._source.tokenizer,
            max_length=self.within_positions(value.model_max_length),
            truncation_side=value.truncation_side,
            token_types=self.encoder.token_types and "token_type_ids" in value.model_input_names,
        )
        value.model_max_length = self._tokenizer.max_length
        self.__dict__["_tokens"] = TokenizerView(value)

    @property
    def processor(self) -> Any:
        """`tokenizer`, under its name in version 6."""
        return self.tokenizer

    @property
    def max_seq_length(self) -> int:
        """Tokens of the longest text, special tokens included; longer texts are truncated."""
        return self.text_tokenizer.max_length

    @max_seq_length.setter
    def max_seq_length(self, value: int | None) -> None:
        tokenizer = self.text_tokenizer
        if value is not None and (not hasattr(value, "__index__") or value <= tokenizer.special_tokens):
            raise ConfigError(
                f"got max_seq_length={value!r}; expected a whole number of tokens above {tokenizer.special_tokens}"
            )
        tokenizer.max_length = self.within_positions(value)
        if (shown := self.__dict__.get("_tokens")) is not None:
            shown.set_length(tokenizer.max_length)

    def within_positions(self, value: int | None) -> int:
        """Return a length of texts that the encoder has positions for; the reference lets it fail on longer texts."""
        most = self.encoder.config.max_tokens
        if value is None or (most is not None and value > most):
            if most is not None and (value is None or value < _UNLIMITED):
                warn(f"max_seq_length={value} is set to {most}, the number of positions that the model has")
            return _UNLIMITED if most is None else most
        return value

    def preprocess(
        self,
        inputs: Sequence[Text],
        prompt: str | None = None,
        processing_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return the features of texts and pairs: "input_ids" and others, int64, (texts, longest), padded on the right.

        Args:
            inputs: several texts.
            prompt: put before each of them.
            processing_kwargs: only None.
            kwargs: `task`, which makes no difference.
        """
        refuse_more("preprocess", {**kwargs, **dict(processing_kwargs or {})}, known=("task",))
        texts, single = read_inputs(inputs)
        if single:
            raise InputTypeError("got one text to tokenize; expected several: put it in a list")
        if not texts:
            return {}
        tokenizer = self.text_tokenizer
        tokenized = tokenizer(with_prompt(texts, prompt or ""))
        mask = np.arange(tokenized.lengths.max()) < tokenized.lengths[:, None]  # (texts, longest)
        values = {"input_ids": np.full(mask.shape, self.padding_token, np.int64)}
        values["input_ids"][mask] = tokenized.ids
        if tokenizer.token_types:
            values["token_type_ids"] = types = np.zeros_like(values["input_ids"])
            types[mask] = 0 if tokenized.types is None else tokenized.types
        values["attention_mask"] = mask.astype(np.int64)
        features: dict[str, Any] = {name: torch.from_numpy(value) for name, value in values.items()}
        if prompt:
            features["prompt_length"] = tokenizer.prompt_length(prompt)
        return {**features, "modality": "text"}

    def tokenize(self, texts: Sequence[Text], **kwargs: Any) -> dict[str, Any]:
        """Return the features of texts: the older name of `preprocess`."""
        return self.preprocess(texts, **kwargs)

    def save(  # type: ignore[override]  # the reference's names
        self, output_path: str | Path, *args: Any, safe_serialization: bool = True, **kwargs: Any
    ) -> None:
        """Write weights, configuration and tokenizer; see `minisbert.modules.Transformer.save`."""
        refuse_more("Transformer.save", kwargs, args)
        if not safe_serialization:
            warn_of_pickles()
        self.text_tokenizer  # noqa: B018 - takes over what was done to the tokenizer's view
        super().save(Path(output_path))


def _content(config: Any) -> dict[str, Any]:
    return dict(config) if isinstance(config, Mapping) else dict(config.to_dict())
