"""What a model folder holds, read from its small files and the heads of its weights. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..opening import is_file
from . import dialects
from .files import read_json_object
from .headers import Header, read_header, weight_files
from .layout import ModelLayout, ModuleSpec, read_layout
from .tokenizer import VOCABULARIES, longest_text, tokenizer_kind
from .transformer_settings import read_transformer_settings

# What the families call the same thing in config.json.
_NAMES: Mapping[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers", "n_layers", "num_layers", "n_layer"),
    "heads": ("num_attention_heads", "n_heads", "num_heads", "n_head"),
    "hidden_size": ("hidden_size", "dim", "d_model", "n_embd"),
    "vocabulary": ("vocab_size",),
    "positions": ("max_position_embeddings", "n_positions"),
}
# These count positions from the padding id + 1, and have so many fewer for texts.
_POSITIONS_AFTER_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet")
_LENGTH_WITHOUT_LIMITS = 512


@dataclass(frozen=True)
class ModuleContents:
    """A module: its kind, and its settings as its file has them."""

    kind: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class EncoderContents:
    """The encoder as config.json describes it; None for what that leaves out.

    Attributes:
        architecture: class name, such as "BertModel"; the model type where none is named.
        layers: number of layers.
        heads: attention heads of a layer.
        hidden_size: size of a token embedding.
        vocabulary: number of tokens.
        positions: longest text in tokens that it has positions for.
    """

    architecture: str
    layers: int | None
    heads: int | None
    hidden_size: int | None
    vocabulary: int | None
    positions: int | None


@dataclass(frozen=True)
class TokenizerContents:
    """The tokenizer: its class in transformers, its algorithm where tokenizer.json tells it, and its longest text."""

    kind: str
    algorithm: str | None
    max_length: int | None


@dataclass(frozen=True)
class ModelContents:
    """What a model folder holds.

    Attributes:
        modules: in order.
        encoder: the transformer's.
        dimension: size of an embedding, or None where no file says it.
        max_seq_length: longest text in tokens, after what encoder and tokenizer allow.
        similarity: name of the similarity function, or None where none is saved.
        prompts: texts by name.
        default_prompt_name: the one that is used where a call names none.
        truncate_dim: leading dimensions that are kept, or None for all.
        parameters: numbers in all weights; None where there are none, or others than safetensors.
        dtypes: of the weights, the most frequent first.
        tokenizer: what it is.
        versions: of the software that wrote the folder, by name.
        files: bytes of each file by its path in the folder.
        notes: what is wrong or has to be assumed, in sentences.
    """

    modules: tuple[ModuleContents, ...]
    encoder: EncoderContents
    dimension: int | None
    max_seq_length: int
    similarity: str | None
    prompts: dict[str, str]
    default_prompt_name: str | None
    truncate_dim: int | None
    parameters: int | None
    dtypes: tuple[str, ...]
    tokenizer: TokenizerContents
    versions: dict[str, str]
    files: dict[str, int]
    notes: tuple[str, ...]


def read_contents(folder: Path) -> ModelContents:
    """Describe a model folder. Of safetensors only the head is read, of a pickle nothing.

    Raises:
        ModelError: it is no model folder, or one that minisbert cannot read.
    """
    layout = read_layout(folder)
    first = layout.modules[0]
    asked = read_transformer_settings(first.config, source=first.folder)
    config = {**read_json_object(first.folder / "config.json"), **asked.config}
    own = {**_optional(first.folder / "tokenizer_config.json"), **asked.tokenizer}
    encoder = _encoder(config)
    tokenizer = TokenizerContents(tokenizer_kind(own, config), _algorithm(first.folder), longest_text(own))
    weights = [path for spec in layout.modules for path in weight_files(spec.folder)]
    headers = {path: read_header(path) for path in weights if path.suffix == ".safetensors" and is_file(path)}
    modules = _modules(layout, encoder)
    dimension = _dimension(modules, encoder.hidden_size)
    length = tokenizer.max_length if asked.max_seq_length is None else asked.max_seq_length
    limits = [limit for limit in (length, encoder.positions) if limit is not None]
    counts = _parameters(headers.values())
    return ModelContents(
        modules=modules,
        encoder=encoder,
        dimension=min(dimension, layout.settings.truncate_dim or dimension) if dimension else None,
        max_seq_length=min(limits, default=_LENGTH_WITHOUT_LIMITS),
        similarity=layout.settings.similarity_fn_name,
        prompts=layout.settings.prompts,
        default_prompt_name=layout.settings.default_prompt_name,
        truncate_dim=layout.settings.truncate_dim,
        parameters=sum(counts.values()) if headers and all(path.suffix == ".safetensors" for path in weights) else None,
        dtypes=tuple(counts),
        tokenizer=tokenizer,
        versions=_versions(folder, config),
        files=_files(folder, layout.modules),
        notes=tuple(_notes(layout, weights, headers)),
    )


def _modules(layout: ModelLayout, encoder: EncoderContents) -> tuple[ModuleContents, ...]:
    found = [ModuleContents(spec.kind, spec.config) for spec in layout.modules]
    if layout.pooling is not None and encoder.hidden_size is not None:
        settings = {"embedding_dimension": encoder.hidden_size, "pooling_mode": layout.pooling}
        found.append(ModuleContents("Pooling", settings))
    return tuple(found)


def _encoder(config: Mapping[str, Any]) -> EncoderContents:
    found = {
        field: next((config[name] for name in names if dialects.is_count(config.get(name))), None)
        for field, names in _NAMES.items()
    }
    model_type = str(config.get("model_type", "unknown"))
    if found["positions"] is not None and model_type in _POSITIONS_AFTER_PADDING:
        padding = config.get("pad_token_id")
        found["positions"] -= (padding if isinstance(padding, int) else 1) + 1
    named = config.get("architectures")
    return EncoderContents(str(named[0]) if isinstance(named, list) and named else model_type, **found)


def _algorithm(folder: Path) -> str | None:
    model = _optional(folder / "tokenizer.json").get("model")
    kind = model.get("type") if isinstance(model, dict) else None
    return kind if isinstance(kind, str) else None


def _dimension(modules: Iterable[ModuleContents], hidden_size: int | None) -> int | None:
    width = hidden_size
    for module in modules:
        if module.kind == "Pooling":
            dimension, modes, _ = dialects.read_pooling(module.settings)
            width = dimension * len(modes)
        elif module.kind == "Dense":
            width = module.settings.get("out_features")
    return width if dialects.is_count(width) else None


def _parameters(headers: Iterable[Header]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for header in headers:
        for dtype, number in header.parameters.items():
            counts[dtype] = counts.get(dtype, 0) + number
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _versions(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    saved = _optional(folder / "config_sentence_transformers.json").get("__version__")
    found = {"transformers": config.get("transformers_version"), **(saved if isinstance(saved, dict) else {})}
    return {name: str(version) for name, version in found.items() if version is not None}


def _files(folder: Path, modules: Iterable[ModuleSpec]) -> dict[str, int]:
    """Everything in the folder and in those of its modules, the largest first."""
    places = dict.fromkeys([folder.resolve(), *(spec.folder.resolve() for spec in modules)])
    found = {
        str(path.relative_to(folder.resolve())): path.stat().st_size
        for place in places
        if place.is_dir()
        for path in place.iterdir()
        if is_file(path) and not path.name.startswith(".")
    }
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _notes(layout: ModelLayout, weights: Iterable[Path], headers: Mapping[Path, Header]) -> Iterable[str]:
    first = layout.modules[0].folder
    if layout.note:
        yield layout.note
    if not weight_files(first):
        yield "there are no weights"
    if not any(is_file(first / name) for name in ("tokenizer.json", *VOCABULARIES)):
        yield "there is no tokenizer"
    for path in weights:
        if not is_file(path):
            yield f"{path.name} is missing"
    for path, header in headers.items():
        size = path.stat().st_size
        if size != header.bytes:
            yield f"{path.name} has {size:,} of {header.bytes:,} bytes: it is not complete, copy it again"


def _optional(path: Path) -> dict[str, Any]:
    return read_json_object(path) if is_file(path) else {}
