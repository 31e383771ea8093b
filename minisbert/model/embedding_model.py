"""`EmbeddingModel`: find, load, run and save a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from torch import nn

from ..errors import ConfigError, InputError
from ..modules.encoder import Encoder
from ..modules.persistence import read_modules, write_module
from ..similarity import SimilarityFunction
from ..storage.files import replacing_folder
from ..storage.layout import ModelSettings, read_layout, write_modules, write_settings
from ..storage.locate import find_model, repository_name
from ..version import versions
from .devices import usable_device
from .embedder import Embedder
from .stack import Truncation

DType: TypeAlias = Literal["float32", "bfloat16", "float16", "int8"]
_DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": torch.float32,  # of all weights but those of the linear layers, and of a saved model
}


class EmbeddingModel(Embedder):
    """Loads, runs and saves a sentence-embedding model.

    Args:
        model_name_or_path: a model folder, or a name such as "all-MiniLM-L6-v2", looked up in the Hugging Face cache,
            among installed packages, and then on the Hub.
        modules: build the model from these instead.
        device: where it runs; by default CUDA, then Apple's MPS, then the CPU.
        prompts: texts by name that are put before inputs; they replace the saved ones of the same names.
        default_prompt_name: the prompt used where a call names none.
        similarity_fn_name: "cosine", "dot", "euclidean" or "manhattan".
        truncate_dim: keep only this many leading dimensions of each embedding.
        cache_folder: Hugging Face cache to use.
        revision: branch, tag or commit on the Hub.
        local_files_only: never ask the Hub.
        token: Hub access token.
        dtype: "float32", "bfloat16" or "float16"; by default that of the saved weights. "int8" quantizes the linear
            layers of a native encoder, on the CPU, for inference. To save such a model, the folder it was loaded from
            must still be there.
        truncation: what to do when texts are longer than `max_seq_length`: "warn" once, raise an "error", or only
            "count" them in `truncated_texts`.

    Raises:
        ModelError: the model cannot be found or read.
        ConfigError: an argument has an impossible value.
    """

    training_record: object = None  # set by `Trainer`, for the model card

    def __init__(
        self,
        model_name_or_path: str | Path | None = None,
        *,
        modules: Sequence[nn.Module] | None = None,
        device: str | torch.device | None = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        similarity_fn_name: str | None = None,
        truncate_dim: int | None = None,
        cache_folder: str | Path | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        dtype: DType | None = None,
        truncation: Truncation = "warn",
    ) -> None:
        if dtype is not None and (not isinstance(dtype, str) or dtype not in _DTYPES):
            raise ConfigError(f"got dtype={dtype!r}; expected one of the strings {', '.join(map(repr, _DTYPES))}")
        names = {"default_prompt_name": default_prompt_name, "similarity_fn_name": similarity_fn_name}
        for option, name in names.items():
            if name is not None and not isinstance(name, str):
                raise ConfigError(f"got {option}={name!r}; expected a string: pass a name")
        if prompts is not None and not isinstance(prompts, Mapping):
            raise ConfigError(f"got prompts={prompts!r}; expected strings by name: pass a dict")
        settings = ModelSettings()
        self._card = base_model = base_revision = None
        if modules is None and model_name_or_path is not None:
            folder = find_model(
                model_name_or_path,
                revision=revision,
                cache_folder=cache_folder,
                local_files_only=local_files_only,
                token=token,
            )
            layout = read_layout(folder)
            modules, settings, self._card = read_modules(layout), layout.settings, layout.card
            if not Path(model_name_or_path).expanduser().is_dir():
                base_model = repository_name(str(model_name_or_path))
                base_revision = folder.name if folder.parent.name == "snapshots" else None
        elif modules is None or model_name_or_path is not None:
            got = "neither a model nor modules" if modules is None else "both a model and modules"
            raise ConfigError(f"got {got}; expected either the name or folder of a model, or modules=[...]")
        super().__init__(
            modules,
            prompts={**settings.prompts, **(prompts or {})},
            default_prompt_name=default_prompt_name or settings.default_prompt_name,
            similarity_fn_name=similarity_fn_name or _known_similarity(settings.similarity_fn_name),
            truncate_dim=truncate_dim if truncate_dim is not None else settings.truncate_dim,
            truncation=truncation,
        )
        self.base_model, self.base_model_revision = base_model, base_revision
        self._other_settings = settings.other
        self.to(device=usable_device(device), dtype=_DTYPES[dtype] if dtype else None)
        self.eval()
        encoder = self.transformer.auto_model
        if dtype == "int8":
            self._quantize()
        elif model_name_or_path is not None and isinstance(encoder, Encoder) and self.device.type == "cpu":
            encoder.align_weights()

    def _quantize(self) -> None:
        encoder = self.transformer.auto_model
        if not isinstance(encoder, Encoder) or self.device.type != "cpu":
            got = f"an encoder on {self.device}" if isinstance(encoder, Encoder) else type(encoder).__name__
            raise ConfigError(f"got dtype='int8' for {got}; expected a native encoder on the CPU: choose another dtype")
        encoder.quantize()

    def save_pretrained(
        self, path: str | Path, *, model_name: str | None = None, create_model_card: bool = True
    ) -> None:
        """Write the model in the layout that sentence-transformers 4, 5 and 6 read.

        Args:
            path: the folder to write; files of other names in it stay.
            model_name: the name the model card shows, such as "me/my-model".
            create_model_card: write README.md. A loaded model that was not trained keeps its own.

        Raises:
            InputError: the folder cannot be written.
        """
        if not str(path):
            raise InputError("got '' as path; expected the name of a folder: pass '.' for the current one")
        with replacing_folder(Path(path)) as folder:
            self.write_into(folder)
            card = self._model_card(model_name) if create_model_card else None
            if card is not None:
                (folder / "README.md").write_text(card, encoding="utf-8", errors="replace", newline="\n")

    save = save_pretrained

    def write_into(self, folder: Path) -> None:
        """Write modules and settings, but no card, file by file into an existing folder."""
        folders = write_modules(folder, [type(module).__name__ for module in self])
        for module, module_folder in zip(self, folders, strict=True):
            write_module(module, module_folder)
        settings = ModelSettings(
            self.prompts, self.default_prompt_name, self.similarity_fn_name, self.truncate_dim, self._other_settings
        )
        write_settings(folder, settings, versions=versions())

    def _model_card(self, model_name: str | None) -> str | None:
        """Text of README.md, or None for none; here the text that the model was loaded with."""
        return self._card


def _known_similarity(saved: str | None) -> str:
    return saved if saved in SimilarityFunction.possible_values() else SimilarityFunction.COSINE.value
