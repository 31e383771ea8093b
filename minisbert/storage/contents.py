"""Describe a model folder from its small files and the headers of its weights, without torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import dialects
from .adapters import base_folder
from .files import is_file, read_json_object
from .layout import ModelLayout, ModuleSpec, read_layout
from .tokenizer import VOCABULARIES, longest_text, tokenizer_kind
from .weights import SAFETENSORS, Header, read_header, weight_files

# The keys of config.json under which the architectures keep each value.
_KEYS: Mapping[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers", "n_layers", "num_layers", "n_layer"),
    "heads": ("num_attention_heads", "n_heads", "num_heads", "n_head"),
    "hidden_size": ("hidden_size", "dim", "d_model", "n_embd"),
    "vocabulary": ("vocab_size",),
    "positions": ("max_position_embeddings", "n_positions"),
}
# These number positions from the padding id + 1, and have that many fewer for texts.
_POSITIONS_AFTER_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet")
_ROTARY = ("modernbert", "nomic_bert", "gte", "new", "qwen3", "gemma3_text")
_LENGTH_WITHOUT_LIMITS = 512


@dataclass(frozen=True)
class ModuleContents:
    """A module: its kind, and the settings of its file."""

    kind: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class EncoderContents:
    """The encoder as config.json describes it; None for what is not stated.

    Attributes:
        architecture: class name, such as "BertModel", or else the model type.
        layers: number of layers.
        heads: attention heads of a layer.
        hidden_size: size of a token embedding.
        vocabulary: number of tokens.
        positions: tokens of the longest text it has positions for, or was made for if they are rotary.
    """

    architecture: str
    layers: int | None
    heads: int | None
    hidden_size: int | None
    vocabulary: int | None
    positions: int | None


@dataclass(frozen=True)
class TokenizerContents:
    """The tokenizer: its class in transformers, its algorithm in tokenizer.json, and the tokens of its longest text."""

    kind: str
    algorithm: str | None
    max_length: int | None


@dataclass(frozen=True)
class ModelContents:
    """The content of a model folder.

    Attributes:
        modules: in order.
        encoder: of the transformer.
        dimension: size of an embedding, or None if no file states it.
        max_seq_length: tokens of the longest text that encoder and tokenizer allow, or None if nothing limits it.
        similarity: name of the similarity function, or None if none is saved.
        prompts: texts by name.
        default_prompt_name: the prompt used if a call names none.
        truncate_dim: leading dimensions that are kept, or None for all.
        parameters: number of parameters; None without weights, or with weights that are not safetensors.
        dtypes: of the weights, the most frequent first.
        tokenizer: its class and limits.
        versions: of the software that wrote the folder, by name.
        files: size in bytes by path in the folder.
        notes: sentences on what is wrong or assumed.
    """

    modules: tuple[ModuleContents, ...]
    encoder: EncoderContents
    dimension: int | None
    max_seq_length: int | None
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
    """Describe a model folder. Of safetensors only the header is read, of a pickle nothing.

    Raises:
        ModelError: it is not a model folder, or not one that minisbert can read.
    """
    layout = read_layout(folder)
    first = layout.modules[0]
    settings = dialects.read_transformer_settings(first.config, source=first.folder)
    static = first.kind == "StaticEmbedding"
    config = {**read_json_object(base_folder(first.folder) / "config.json", optional=static), **settings.config}
    own = {**read_json_object(first.folder / "tokenizer_config.json", optional=True), **settings.tokenizer}
    weights = [path for spec in layout.modules for path in _weights_of(spec)]
    headers = {path: read_header(path) for path in weights if path.suffix == ".safetensors" and is_file(path)}
    if static:
        encoder = _table(headers.get(first.folder / SAFETENSORS))
        tokenizer = TokenizerContents("Tokenizer", _algorithm(first.folder), _truncation(first.folder))
    else:
        encoder = _encoder(config)
        tokenizer = TokenizerContents(tokenizer_kind(own, config), _algorithm(first.folder), longest_text(own))
    parameters = Counter[str]()
    for header in headers.values():
        parameters.update(header.parameters)
    modules = _modules(layout, encoder)
    dimension, kept = _dimension(modules, encoder.hidden_size), layout.settings.truncate_dim
    length = tokenizer.max_length if settings.max_seq_length is None else settings.max_seq_length
    endless = settings.max_seq_length is not None and _is_rotary(config)
    limits = [limit for limit in (length, None if endless else encoder.positions) if limit is not None]
    return ModelContents(
        modules=modules,
        encoder=encoder,
        dimension=min(dimension, kept or dimension) if dimension else None,
        max_seq_length=min(limits, default=None if static else _LENGTH_WITHOUT_LIMITS),
        similarity=layout.settings.similarity_fn_name,
        prompts=layout.settings.prompts,
        default_prompt_name=layout.settings.default_prompt_name,
        truncate_dim=kept,
        parameters=parameters.total() if headers and all(path.suffix == ".safetensors" for path in weights) else None,
        dtypes=tuple(dtype for dtype, _ in parameters.most_common()),
        tokenizer=tokenizer,
        versions=_versions(folder, config),
        files=_files(folder, layout.modules),
        notes=tuple(_notes(layout, weights, headers)),
    )


def _modules(layout: ModelLayout, encoder: EncoderContents) -> tuple[ModuleContents, ...]:
    modules = [ModuleContents(spec.kind, spec.config) for spec in layout.modules]
    if layout.pooling is not None and encoder.hidden_size is not None:
        settings = {"embedding_dimension": encoder.hidden_size, "pooling_mode": layout.pooling}
        modules.append(ModuleContents("Pooling", settings))
    return tuple(modules)


def _encoder(config: Mapping[str, Any]) -> EncoderContents:
    values = {
        field: next((config[key] for key in keys if dialects.is_count(config.get(key))), None)
        for field, keys in _KEYS.items()
    }
    model_type = str(config.get("model_type", "unknown"))
    if values["positions"] is not None and model_type in _POSITIONS_AFTER_PADDING:
        padding = config.get("pad_token_id")
        values["positions"] -= (padding if isinstance(padding, int) else 1) + 1
    names = config.get("architectures")
    return EncoderContents(str(names[0]) if isinstance(names, list) and names else model_type, **values)


def _is_rotary(config: Mapping[str, Any]) -> bool:
    """Return True if positions are not rows of a table, which has an end."""
    return config.get("model_type") in _ROTARY or bool(config.get("rope_parameters"))


def _table(header: Header | None) -> EncoderContents:
    """The table of a static model."""
    shapes = {} if header is None else header.shapes
    rows, dim = next((shapes[name] for name in dialects.STATIC_TABLES if len(shapes.get(name, ())) == 2), (None, None))
    return EncoderContents("StaticEmbedding", None, None, dim, shapes.get("mapping", (rows,))[0], None)


def _truncation(folder: Path) -> int | None:
    limit = read_json_object(folder / "tokenizer.json", optional=True).get("truncation")
    length = limit.get("max_length") if isinstance(limit, dict) else None
    return length if dialects.is_count(length) else None


def _algorithm(folder: Path) -> str | None:
    model = read_json_object(folder / "tokenizer.json", optional=True).get("model")
    name = model.get("type") if isinstance(model, dict) else None
    return name if isinstance(name, str) else None


def _dimension(modules: Iterable[ModuleContents], hidden_size: int | None) -> int | None:
    width = hidden_size
    for module in modules:
        if module.kind == "Pooling":
            dimension, modes, _ = dialects.read_pooling(module.settings)
            width = dimension * len(modes)
        elif module.kind == "Dense":
            width = module.settings.get("out_features")
    return width if dialects.is_count(width) else None


def _versions(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    saved = read_json_object(folder / "config_sentence_transformers.json", optional=True).get("__version__")
    versions = {"transformers": config.get("transformers_version"), **(saved if isinstance(saved, dict) else {})}
    return {name: str(version) for name, version in versions.items() if version is not None}


def _files(folder: Path, modules: Iterable[ModuleSpec]) -> dict[str, int]:
    """Return the sizes of the files in the folder and in those of its modules, the largest first."""
    root = folder.resolve()
    sizes = {
        str(path.relative_to(root)): path.stat().st_size
        for directory in {root, *(spec.folder.resolve() for spec in modules)}
        if directory.is_dir()
        for path in directory.iterdir()
        if is_file(path) and not path.name.startswith(".")
    }
    return dict(sorted(sizes.items(), key=lambda item: (-item[1], item[0])))


def _weights_of(spec: ModuleSpec) -> tuple[Path, ...]:
    return weight_files(base_folder(spec.folder) if spec.kind == "Transformer" else spec.folder)


def _notes(layout: ModelLayout, weights: Iterable[Path], headers: Mapping[Path, Header]) -> Iterable[str]:
    first = layout.modules[0].folder
    if layout.note:
        yield layout.note
    if not weight_files(base_folder(first)):
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
