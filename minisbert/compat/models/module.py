"""`Module` and `InputModule`: the base classes of modules, ours and those of callers, over dictionaries of features."""

from __future__ import annotations

import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

import torch
from torch import Tensor, nn

from ...errors import InputTypeError, ModelError, warn
from ...modules.features import Features
from ...storage.files import write_json
from ...storage.weights import load_into, read_weights, write_weights
from ..old_names import refuse_more
from ..util import files
from .features import Padding, check_features, results, take_results

Made = TypeVar("Made", bound="Module")
AnyModule = TypeVar("AnyModule", bound=nn.Module)

# Arguments that the reference hands to each module when it loads a model.
_LOADING = ("trust_remote_code", "model_kwargs", "processor_kwargs", "tokenizer_kwargs", "config_kwargs", "backend")


class Module(nn.Module, ABC):
    """A part of a model: takes a dictionary of features, and returns it with what it has made.

    Attributes:
        config_file_name: file of the module's settings in its folder.
        config_keys: attributes that are saved there.
        config_key_renames: older names of the settings, and those that they have now.
        save_in_root: the first module of a model is saved in the folder of the model itself.
        forward_kwargs: names of arguments of `encode` that `forward` takes.
    """

    config_file_name: ClassVar[str] = "config.json"
    config_keys: ClassVar[list[str]] = []
    config_key_renames: ClassVar[dict[str, str]] = {}
    save_in_root: ClassVar[bool] = False
    forward_kwargs: ClassVar[set[str]] = set()

    @abstractmethod
    def forward(self, features: Any, **kwargs: Any) -> Any:
        """Return the dictionary of features, with what the module makes."""

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings that are saved."""
        return {key: getattr(self, key) for key in self.config_keys}

    def on_model_ready(self, model: nn.Module) -> None:
        """Take note of the model that the module has become a part of; it does nothing here."""

    @classmethod
    def load(
        cls: type[Made],
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        init_defaults: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Made:
        """Make the module from the settings in its folder, and load its weights if it has any.

        Args:
            model_name_or_path: folder or name of a model.
            subfolder: that of the module in it, such as "1_Pooling".
            token: Hub access token.
            cache_folder: Hugging Face cache to use.
            revision: branch, tag or commit on the Hub.
            local_files_only: never ask the Hub.
            init_defaults: settings for what is not saved.
            kwargs: arguments for loading an encoder, which make no difference here.
        """
        refuse_more(f"{cls.__name__}.load", kwargs, known=_LOADING)
        source = (token, cache_folder, revision, local_files_only)
        settings = {**(init_defaults or {}), **cls.load_config(model_name_or_path, subfolder, None, *source)}
        try:
            inspect.signature(cls).bind(**settings)
        except TypeError as error:
            folder = Path(model_name_or_path, subfolder)
            raise ModelError(
                f"{folder / cls.config_file_name} does not fit {cls.__name__} ({error}); expected the settings that "
                f"its constructor takes: copy the model again"
            ) from None
        module = cls(**settings)
        if module.state_dict():
            cls.load_torch_weights(model_name_or_path, subfolder, *source, model=module)
        return module

    @classmethod
    def load_config(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        config_filename: str | None = None,
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> dict[str, Any]:
        """Read the settings of a module, {} if there are none; see `load`."""
        source = (token, cache_folder, revision, local_files_only)
        path = cls.load_file_path(model_name_or_path, config_filename or cls.config_file_name, subfolder, *source)
        if path is None:
            return {}
        config: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        for old, new in cls.config_key_renames.items():
            if old in config:
                config.setdefault(new, config.pop(old))
        return config

    @staticmethod
    def load_file_path(
        model_name_or_path: str,
        filename: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> str | None:
        """Return the path of a file of a model, or None if there is no such file; see `util.load_file_path`."""
        source = (token, cache_folder, revision, local_files_only)
        return files.load_file_path(model_name_or_path, filename, subfolder, *source)

    @staticmethod
    def load_dir_path(
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> str | None:
        """Return the path of a folder of a model, or None if there is no such folder; see `util.load_dir_path`."""
        return files.load_dir_path(model_name_or_path, subfolder, token, cache_folder, revision, local_files_only)

    @classmethod
    def _folder(cls, name: str | Path, subfolder: str, source: tuple[Any, ...]) -> Path:
        """Return the folder of a module, or the name as a path if there is none; `source` is as of `load_dir_path`."""
        return Path(cls.load_dir_path(str(name), subfolder, *source) or name)

    @classmethod
    def load_torch_weights(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        model: AnyModule | None = None,
    ) -> Any:
        """Load the weights in a folder into `model`, and return it; without one, return the tensors by name."""
        source = (token, cache_folder, revision, local_files_only)
        folder = cls._folder(model_name_or_path, subfolder, source)
        tensors = read_weights(folder)
        if model is None:
            return tensors
        load_into(model, tensors, source=folder)
        return model

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Write the settings of the module, and its weights if it has any."""
        refuse_more(f"{type(self).__name__}.save", kwargs, args)
        self.save_config(output_path)
        if self.state_dict():
            self.save_torch_weights(output_path, safe_serialization)

    def save_config(self, output_path: str, filename: str | None = None) -> None:
        """Write the settings of the module into a folder."""
        write_json(Path(output_path) / (filename or self.config_file_name), self.get_config_dict(), indent=4)

    def save_torch_weights(self, output_path: str, safe_serialization: bool = True) -> None:
        """Write the weights of the module into a folder, as safetensors."""
        if not safe_serialization:
            warn_of_pickles()
        write_weights(Path(output_path), self.state_dict(), labelled=False)


class InputModule(Module):
    """The first part of a model, which makes features of texts."""

    save_in_root: ClassVar[bool] = True
    tokenizer: Any

    @property
    def modalities(self) -> list[str]:
        """Kinds of inputs: texts."""
        return ["text"]

    def preprocess(self, inputs: Any, prompt: str | None = None, **kwargs: Any) -> dict[str, Any]:
        """Return the features of texts.

        Raises:
            NotImplementedError: a subclass has neither this method nor `tokenize`.
        """
        if type(self).tokenize is InputModule.tokenize:
            raise NotImplementedError(f"{type(self).__name__} has no preprocess(); expected one that returns features")
        return self.tokenize([prompt + text for text in inputs] if prompt else inputs, **kwargs)

    def tokenize(self, texts: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the features of texts: the older name of `preprocess`."""
        return self.preprocess(texts, **kwargs)

    def save_tokenizer(self, output_path: str, **kwargs: Any) -> None:
        """Write the tokenizer into a folder."""
        refuse_more("save_tokenizer", kwargs)
        tokenizer: Any = getattr(self, "tokenizer", None)
        if hasattr(tokenizer, "save_pretrained"):
            tokenizer.save_pretrained(output_path)
        elif hasattr(tokenizer, "save"):
            tokenizer.save(str(Path(output_path) / "tokenizer.json"))


def on_features(forward: Callable[[Features], Features], features: Any) -> Any:
    """Run the `forward` of one of our modules, which is for packed features, on them or on a dictionary.

    Args:
        forward: changes the features.
        features: packed; or a dictionary, which may be without ids, or without everything but the sentence embeddings,
            as that of a static model is to the modules after it.

    Returns:
        The features; a dictionary has what was made.

    Raises:
        InputTypeError: the dictionary has no embeddings.
    """
    if isinstance(features, Features):
        return forward(features)
    check_features(features)
    tokens, sentences = (features.get(name) for name in ("token_embeddings", "sentence_embedding"))
    devices = [value.device for value in (tokens, sentences) if isinstance(value, Tensor)]
    if not devices:
        raise InputTypeError(
            f"got features with the keys {', '.join(map(str, features)) or '(none)'}; expected a tensor "
            f"token_embeddings or sentence_embedding among them: run the modules before this one"
        )
    if tokens is None and ("input_ids" not in features or "offsets" in features):  # rows in the order of the caller
        made = forward(Features(cast(Any, None), sentence_embedding=features["sentence_embedding"]))
        features["sentence_embedding"] = made.sentence_embedding
        return features
    known = features
    if "input_ids" not in features:
        known = {**features, "input_ids": torch.zeros(tokens.shape[:2], dtype=torch.long, device=tokens.device)}
    padding = Padding.of(known, devices[0])
    features.update(results(forward(take_results(Features(padding.batch), features, padding)), padding))
    return features


def warn_of_pickles() -> None:
    """Say that weights are not written in the format that was asked for."""
    warn("safe_serialization=False is ignored: weights are written as safetensors, which every reader of them loads")
