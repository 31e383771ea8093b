"""A model folder as plain data: its modules in order, and what is saved about prompts and similarity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ModelError
from . import dialects
from .files import LONGEST_CARD, inside, read_json, read_json_object, write_json


@dataclass(frozen=True)
class ModuleSpec:
    """One entry of modules.json.

    Attributes:
        kind: "Transformer", "Pooling", "Normalize", "Dense", "LayerNorm" or "Dropout".
        folder: where its files are.
        config: its own config.json; for a Transformer, its sentence_bert_config.json or the like.
    """

    kind: str
    folder: Path
    config: dict[str, Any]


@dataclass(frozen=True)
class ModelSettings:
    """What config_sentence_transformers.json says; `other` holds keys that minisbert only hands on."""

    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity_fn_name: str | None = None
    truncate_dim: int | None = None
    other: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelLayout:
    """A model folder that has been read.

    Attributes:
        modules: in order.
        settings: prompts, similarity and the like.
        card: text of README.md, or None.
        pooling: the mode to add to a lone transformer, where the folder names no modules; None where it does.
        note: why it is added, for a warning.
    """

    modules: tuple[ModuleSpec, ...]
    settings: ModelSettings
    card: str | None
    pooling: str | None = None
    note: str = ""


def read_layout(folder: Path) -> ModelLayout:
    """Read what stands in a model folder, weights and tokenizer aside.

    A folder without modules.json is a bare Hugging Face checkpoint, and of a model of another kind, such as a sparse
    encoder, only the checkpoint is of use: both give a transformer with mean pooling, or with last-token pooling if
    it was made to generate text. As in the reference, nothing else is then read.

    Raises:
        ModelError: files are missing, unreadable, or of a kind minisbert does not know.
    """
    if not (folder / "config.json").is_file() and not (folder / "modules.json").is_file():
        raise ModelError(f"{folder} has neither modules.json nor config.json; expected a complete model folder")
    settings_file = folder / "config_sentence_transformers.json"
    saved = read_json_object(settings_file) if settings_file.is_file() else {}
    model_type = saved.get("model_type", dialects.MODEL_TYPE)
    if not (folder / "modules.json").is_file():
        return _bare(folder, f"{folder} says nothing about pooling")
    if model_type != dialects.MODEL_TYPE:
        return _bare(folder, f"{folder} is a {model_type}, not a {dialects.MODEL_TYPE}: its modules are left out")
    readme = folder / "README.md"
    card = readme.read_text(encoding="utf-8", errors="replace") if _is_card(readme) else None
    return ModelLayout(_modules(folder), _settings(saved, settings_file), card)


def write_settings(folder: Path, settings: ModelSettings, *, versions: dict[str, str]) -> None:
    """Write config_sentence_transformers.json."""
    content: dict[str, Any] = {
        "model_type": dialects.MODEL_TYPE,
        "__version__": {"sentence_transformers": dialects.WRITTEN_VERSION, **versions},
        "prompts": settings.prompts,
        "default_prompt_name": settings.default_prompt_name,
        "similarity_fn_name": settings.similarity_fn_name or "cosine",
    }
    if settings.truncate_dim is not None:
        content["truncate_dim"] = settings.truncate_dim
    write_json(folder / "config_sentence_transformers.json", {**content, **settings.other})


def write_modules(folder: Path, kinds: Sequence[str]) -> list[Path]:
    """Write modules.json and make a folder for each module but the first, which stands in the root."""
    entries, folders = [], []
    for index, kind in enumerate(kinds):
        path = f"{index}_{kind}" if index else ""
        entries.append({"idx": index, "name": str(index), "path": path, "type": dialects.WRITTEN_TYPES[kind]})
        folders.append(folder / path)
        folders[-1].mkdir(exist_ok=True)
    write_json(folder / "modules.json", entries)
    return folders


def _is_card(readme: Path) -> bool:
    return readme.is_file() and readme.stat().st_size <= LONGEST_CARD


def _bare(folder: Path, reason: str) -> ModelLayout:
    config = read_json_object(folder / "config.json")
    architectures = config.get("architectures")
    named = str(architectures[0]) if isinstance(architectures, list) and architectures else ""
    causal = named.endswith("ForCausalLM") and bool(config.get("is_causal", True))
    pooling = "lasttoken" if causal else "mean"
    note = f"{reason}: {'last-token' if causal else 'mean'} pooling is used"
    return ModelLayout((ModuleSpec("Transformer", folder, {}),), ModelSettings(), None, pooling, note)


def _modules(folder: Path) -> tuple[ModuleSpec, ...]:
    entries = read_json(folder / "modules.json")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise ModelError(f"{folder / 'modules.json'}: expected a list of modules, each with idx, name, path and type")
    specs = []
    for entry in entries:
        kind = dialects.module_kind(entry.get("type"))
        path = inside(folder, str(entry.get("path", "")))
        specs.append(ModuleSpec(kind, path, _module_config(kind, path)))
    kinds = [spec.kind for spec in specs]
    if kinds[0] != "Transformer" or kinds.count("Transformer") > 1:
        raise ModelError(f"{folder / 'modules.json'}: got {kinds}; expected one Transformer, in first place")
    return tuple(specs)


def _module_config(kind: str, folder: Path) -> dict[str, Any]:
    if kind == "Transformer":
        return _transformer_config(folder)
    if kind == "Normalize" and not (folder / "config.json").is_file():
        return {}  # older versions leave its folder empty, and git and zip then lose it
    return read_json_object(folder / "config.json")


def _transformer_config(folder: Path) -> dict[str, Any]:
    for name in dialects.TRANSFORMER_CONFIGS:
        if (folder / name).is_file() and (config := read_json_object(folder / name)):
            return config
    return {}


def _settings(saved: dict[str, Any], source: Path) -> ModelSettings:
    prompts = saved.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(text, (str, type(None))) for text in prompts.values()):
        raise ModelError(f"{source}: got {prompts!r} for prompts; expected an object of texts")
    dimension = saved.get("truncate_dim")
    if dimension is not None and not dialects.is_count(dimension):
        raise ModelError(f"{source}: got truncate_dim {dimension!r}; expected a number of dimensions, or null")
    return ModelSettings(
        prompts={name: text for name, text in prompts.items() if text is not None},
        default_prompt_name=saved.get("default_prompt_name"),
        similarity_fn_name=saved.get("similarity_fn_name"),
        truncate_dim=dimension,
        other={key: value for key, value in saved.items() if key not in dialects.MODEL_KEYS},
    )
