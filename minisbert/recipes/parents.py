"""The models that a merge is made of: whether they are alike, and their tensors, read one by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from ..errors import ConfigError, InputTypeError, ModelError, shown
from ..modules.calibration import SENTENCES
from ..modules.encoder import Encoder
from ..modules.foreign import ForeignEncoder
from ..modules.persistence import module_config
from ..sentence_transformer import SentenceTransformer
from ..storage.files import is_file
from ..storage.layout import read_layout
from ..storage.locate import find_model, repository_name
from ..storage.lora import ADAPTER_CONFIG
from ..storage.weights import FLOATS, Header, read_header, weight_files

# What says nothing about embeddings: where a configuration comes from, and settings of training.
_ELSEWHERE = ("architectures", "transformers_version", "torch_dtype", "dtype")
_OF_TRAINING = ("dropout", "initializer_range")


class Parent(NamedTuple):
    """A model to merge: what the caller gave, and its names in messages and in the card."""

    given: str | Path | SentenceTransformer
    name: str
    card_name: str
    repository: str | None


@dataclass(frozen=True)
class Traits:
    """The properties that models must have in common to be merged.

    Attributes:
        settings: of the architecture and of each module, by what a message calls them.
        vocabulary: number of each token.
        ids: tokens of a few sentences.
    """

    settings: Mapping[str, Any]
    vocabulary: Mapping[str, int]
    ids: tuple[tuple[int, ...], ...]


def parents_of(models: Sequence[Any], names: Sequence[str]) -> list[Parent]:
    """Name the models; `names` are shown for those that have none.

    Raises:
        InputTypeError: one is neither a folder or name nor a model.
    """
    found = []
    for given, name in zip(models, names, strict=True):
        if isinstance(given, SentenceTransformer):
            found.append(Parent(given, name, given.base_model or name, given.base_model))
        elif not isinstance(given, (str, Path)):
            raise InputTypeError(
                f"got {shown(given)} as a model to merge; expected a folder, a name or a SentenceTransformer: pass one"
            )
        elif Path(given).expanduser().is_dir():
            path = Path(given).expanduser().resolve()
            found.append(Parent(given, str(given), path.name, None))
        else:
            repository = repository_name(str(given))
            found.append(Parent(given, str(given), repository, repository))
    return found


def load_parent(parent: Parent) -> SentenceTransformer:
    """Load a model in the dtype of its weights, if it is not loaded.

    Raises:
        ModelError: it cannot be found or read.
        ConfigError: it has an adapter beside its weights.
    """
    given = parent.given
    if not isinstance(given, SentenceTransformer):
        return SentenceTransformer(given, device="cpu")
    if given.transformer.adapter is not None:
        raise ConfigError(f"got {parent.name} with an adapter; expected it in the weights: call merge_and_unload()")
    return given


# ---- alike ----------------------------------------------------------------------------------------------------------


def traits_of(model: SentenceTransformer) -> Traits:
    """Describe a model."""
    transformer, kinds = model.transformer, [type(module).__name__ for module in model]
    settings: dict[str, Any] = {"the modules": kinds, "the architecture": transformer.config.get("model_type")}
    settings |= {f"{name} of the encoder": value for name, value in _encoder_settings(transformer.encoder).items()}
    for number, (module, kind) in enumerate(zip(model, kinds, strict=True)):
        if number:
            settings |= {f"{name} of module {number}, a {kind},": one for name, one in module_config(module).items()}
    tokenizer = transformer.text_tokenizer.tokenizer
    ids = tuple(tuple(one.ids) for one in tokenizer.encode_batch_fast(list(SENTENCES)))
    return Traits(settings, tokenizer.get_vocab(), ids)


def _encoder_settings(encoder: Any) -> dict[str, Any]:
    if isinstance(encoder, Encoder):
        config = {field.name: getattr(encoder.config, field.name) for field in fields(encoder.config)}
        config |= {"vocab_size": encoder.vocabulary, "num_hidden_layers": len(encoder.layers)}
        return {name: value for name, value in config.items() if not any(part in name for part in _OF_TRAINING)}
    if isinstance(encoder, ForeignEncoder):
        config = encoder.model.config.to_dict()
        return {
            name: value
            for name, value in config.items()
            if name not in _ELSEWHERE and not name.startswith("_") and not any(part in name for part in _OF_TRAINING)
        }
    return {"vocab_size": encoder.vocabulary, "hidden_size": encoder.config.hidden_size}


def check_alike(one: Traits, other: Traits, *, names: tuple[str, str]) -> None:
    """Refuse models that differ in what they must have in common.

    Raises:
        ModelError: they do; the message says in what.
    """
    problem = next(_differences(one, other, names), None)
    if problem is not None:
        raise ModelError(f"{problem}; expected models of one architecture and tokenizer, as trained from one base")


def _differences(one: Traits, other: Traits, names: tuple[str, str]) -> Iterator[str]:
    first, second = names
    for what in dict.fromkeys([*one.settings, *other.settings]):
        values = one.settings.get(what), other.settings.get(what)
        if values[0] != values[1]:
            yield f"got {what} {shown(values[1])} in {second} and {shown(values[0])} in {first}"
    if one.vocabulary != other.vocabulary:
        for token in [*one.vocabulary, *other.vocabulary]:
            numbers = one.vocabulary.get(token), other.vocabulary.get(token)
            if numbers[0] != numbers[1]:
                yield f"got the token {shown(token)} as {numbers[1]} in {second} and {numbers[0]} in {first}"
    for text, mine, theirs in zip(SENTENCES, one.ids, other.ids, strict=True):
        if mine != theirs:
            yield f"got other tokens for {shown(text)} in {second} than in {first}"


# ---- tensors --------------------------------------------------------------------------------------------------------


def read_headers(folder: Path) -> dict[str, tuple[str, tuple[int, ...]]] | None:
    """Return dtype and shape of each tensor in the safetensors files of a folder; None if it has other files."""
    files = weight_files(folder)
    if any(path.suffix != ".safetensors" for path in files):
        return None
    headers: list[Header] = [read_header(path) for path in files]
    return {name: (header.dtypes[name], header.shapes[name]) for header in headers for name in header.dtypes}


def folders_to_read(
    parent: Parent, model: SentenceTransformer, needed: Sequence[Mapping[str, tuple[str, tuple[int, ...]]]]
) -> list[Path] | None:
    """Return the folders of the modules of a parent if their files hold the tensors as they are needed.

    They do not where they are in pickles, have other names, are part of larger ones or need an adapter, or are loaded
    in another dtype.

    Args:
        parent: the model as it was given.
        model: the same, loaded.
        needed: dtype and shape of each tensor of each module, by name.
    """
    if isinstance(parent.given, SentenceTransformer):
        return None
    folders = [spec.folder for spec in read_layout(find_model(parent.given)).modules]
    dtype = str(model.dtype).removeprefix("torch.")
    adapted = model.transformer.weights_folder is None or is_file(folders[0] / ADAPTER_CONFIG)
    if adapted or len(folders) != len(needed):
        return None
    for folder, wanted in zip(folders, needed, strict=True):
        found = read_headers(folder) if wanted else {}
        if found is None or not wanted.keys() <= found.keys():
            return None
        if any(FLOATS.get(found[name][0], dtype) != dtype or found[name][1] != wanted[name][1] for name in wanted):
            return None
    return folders


class TensorFiles:
    """The tensors in the safetensors files of a folder, read when they are asked for."""

    def __init__(self, folder: Path, opened: ExitStack) -> None:
        self._files: dict[str, Any] = {}
        for path in weight_files(folder):
            file = opened.enter_context(safe_open(path, framework="pt"))
            self._files |= dict.fromkeys(file.keys(), file)

    def read(self, name: str) -> Tensor | None:
        """Return a tensor, or None if there is none of that name."""
        file = self._files.get(name)
        tensor: Tensor | None = None if file is None else file.get_tensor(name)
        return tensor


def check_tensors(name: str, tensors: Sequence[Tensor], parents: Sequence[Parent]) -> None:
    """Refuse tensors that cannot be merged.

    Raises:
        ModelError: their shapes differ, they hold NaN or infinity, or they are integers that differ.
    """
    first = tensors[0]
    for tensor, parent in zip(tensors, parents, strict=True):
        if tensor.shape != first.shape:
            raise ModelError(
                f"got {name} of shape {tuple(tensor.shape)} in {parent.name} and {tuple(first.shape)} in "
                f"{parents[0].name}; expected models of one architecture"
            )
        if tensor.is_floating_point():
            if not torch.isfinite(tensor).all():
                raise ModelError(f"got {name} with NaN or infinity in {parent.name}; expected numbers: train it again")
        elif not torch.equal(tensor, first):
            raise ModelError(
                f"got other integers as {name} in {parent.name} than in {parents[0].name}; expected the same: integers "
                f"are not merged"
            )
