"""A model folder as plain data: its modules in order, and the settings for prompts and similarity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import ConfigError, ModelError, nearest, shown
from . import dialects
from .files import LONGEST_CARD, inside, is_file, open_file, read_json, read_json_object, write_json
from .lora import ADAPTER_CONFIG
from .other_forms import other_form

_SETTINGS = "config_sentence_transformers.json"
_MOST_MODULES = 100
FIRST = ("Transformer", "StaticEmbedding")  # modules that take texts
_DTYPE = frozenset({"dtype", "torch_dtype"})  # its two names


@dataclass(frozen=True)
class ModuleSpec:
    """One entry of modules.json.

    Attributes:
        kind: "Transformer", "StaticEmbedding", "Pooling", "Normalize", "Dense", "LayerNorm", "Dropout" or
            "WeightedLayerPooling".
        folder: the folder of its files.
        config: its own config.json; for a Transformer, its sentence_bert_config.json or the like.
    """

    kind: str
    folder: Path
    config: dict[str, Any]


@dataclass(frozen=True)
class ModelSettings:
    """The content of config_sentence_transformers.json; `other` holds keys that are only saved again."""

    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity_fn_name: str | None = None
    truncate_dim: int | None = None
    other: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelLayout:
    """The content of a model folder, weights and tokenizer aside.

    Attributes:
        modules: in order.
        settings: prompts, similarity and the like.
        card: text of README.md, or None.
        pooling: the mode to add to a transformer in a folder that names no modules; None if the folder names them.
        note: the reason for adding it, for a warning.
    """

    modules: tuple[ModuleSpec, ...]
    settings: ModelSettings
    card: str | None
    pooling: str | None = None
    note: str = ""


# ---- reading --------------------------------------------------------------------------------------------------------
def read_layout(folder: Path) -> ModelLayout:
    """Read a model folder, weights and tokenizer aside.

    A folder without modules.json is a bare Hugging Face checkpoint, and of a model of another kind, such as a sparse
    encoder, only the checkpoint is of use: both give a transformer with mean pooling, or with last-token pooling if
    it was made to generate text. As in the reference, nothing else is then read.

    Raises:
        ModelError: files are missing, unreadable, or of a kind minisbert does not know.
    """
    adapted = is_file(folder / "modules.json") and is_file(folder / ADAPTER_CONFIG)  # its base has the rest
    if not is_file(folder / "config.json") and not adapted and (form := other_form(folder)):
        raise ModelError(f"{folder} has {form}")
    if not is_file(folder / "config.json") and not is_file(folder / "modules.json"):
        raise ModelError(
            f"{folder} has neither modules.json nor config.json; expected a complete model folder: check its name"
        )
    saved = read_json_object(folder / _SETTINGS, optional=True)
    model_type = saved.get("model_type", dialects.MODEL_TYPE)
    if not is_file(folder / "modules.json"):
        return _bare(folder, f"{folder} says nothing about pooling")
    if model_type != dialects.MODEL_TYPE:
        return _bare(
            folder, f"{folder} is a {str(model_type)[:100]}, not a {dialects.MODEL_TYPE}: its modules are left out"
        )
    return ModelLayout(_modules(folder), _settings(saved, folder / _SETTINGS), _card(folder / "README.md"))


def _bare(folder: Path, reason: str) -> ModelLayout:
    config = read_json_object(folder / "config.json")
    if config.get("model_type") == "model2vec":
        kinds = ("StaticEmbedding", *(["Normalize"] if config.get("normalize") else []))
        return ModelLayout(tuple(ModuleSpec(kind, folder, {}) for kind in kinds), ModelSettings(), None)
    architectures = config.get("architectures")
    name = str(architectures[0]) if isinstance(architectures, list) and architectures else ""
    causal = name.endswith("ForCausalLM") and bool(config.get("is_causal", True))
    pooling = "lasttoken" if causal else "mean"
    note = f"{reason}: {'last-token' if causal else 'mean'} pooling is used"
    return ModelLayout((ModuleSpec("Transformer", folder, {}),), ModelSettings(), None, pooling, note)


def _modules(folder: Path) -> tuple[ModuleSpec, ...]:
    file = folder / "modules.json"
    entries = read_json(file)
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise ModelError(f"{file}: expected a list of modules, each with a path and a type: copy the file again")
    if len(entries) > _MOST_MODULES:
        raise ModelError(f"{file}: got {len(entries):,} modules; expected at most {_MOST_MODULES}")
    specs = []
    for entry in entries:
        kind = dialects.module_kind(entry.get("type"))
        relative = entry.get("path", "")
        if not isinstance(relative, str):
            raise dialects.unusable(file, "path", relative, "a folder inside the model")
        path = inside(folder, relative)
        specs.append(ModuleSpec(kind, path, _module_config(kind, path)))
    kinds = [spec.kind for spec in specs]
    if kinds[0] not in FIRST or any(kind in FIRST for kind in kinds[1:]):
        raise ModelError(
            f"{file}: got {kinds}; expected one Transformer or StaticEmbedding, in first place: copy the file again"
        )
    return tuple(specs)


def _module_config(kind: str, folder: Path) -> dict[str, Any]:
    if kind == "Transformer":
        contents = (read_json_object(folder / name, optional=True) for name in dialects.TRANSFORMER_CONFIGS)
        return next(filter(None, contents), {})
    if kind == "StaticEmbedding":  # which has no settings; a config.json beside it is of model2vec
        return {}
    # Older versions leave the folder of a Normalize empty, and git and zip then lose it.
    return read_json_object(folder / "config.json", optional=kind == "Normalize")


def _settings(saved: dict[str, Any], source: Path) -> ModelSettings:
    prompts = saved.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(text is None or _is_text(text) for text in prompts.values()):
        raise dialects.unusable(source, "prompts", prompts, "an object of texts")
    default = saved.get("default_prompt_name")
    if default is not None and not _is_text(default):
        raise dialects.unusable(source, "default_prompt_name", default, "the name of a prompt, or null")
    dimension = saved.get("truncate_dim")
    if dimension is not None and not dialects.is_count(dimension):
        raise dialects.unusable(source, "truncate_dim", dimension, "a number of dimensions, or null")
    return ModelSettings(
        prompts={name: text for name, text in prompts.items() if text is not None},
        default_prompt_name=default,
        similarity_fn_name=saved["similarity_fn_name"] if _is_text(saved.get("similarity_fn_name")) else None,
        truncate_dim=dimension,
        other={key: value for key, value in saved.items() if key not in dialects.MODEL_KEYS},
    )


def _is_text(value: Any) -> bool:
    """Return True for a text that can be written as UTF-8: not for one with a lone surrogate."""
    return isinstance(value, str) and value.encode("utf-8", "replace").decode("utf-8") == value


def _card(readme: Path) -> str | None:
    try:
        with open_file(readme) as file:
            content = file.read(LONGEST_CARD + 1)
    except OSError:
        return None
    return content.decode("utf-8", errors="replace") if len(content) <= LONGEST_CARD else None


# ---- arguments for loading, as of the reference: those that minisbert honours, or that change nothing ----------------
def check_loading(
    *,
    backend: str = "torch",
    model_kwargs: Mapping[str, Any] | None = None,
    processor_kwargs: Mapping[str, Any] | None = None,
    tokenizer_kwargs: Mapping[str, Any] | None = None,
    config_kwargs: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Return the arguments that are given, with dtypes by name, as a saved model has them.

    Args:
        backend: only "torch".
        model_kwargs: `dtype` or `torch_dtype`, and what makes no difference to embeddings.
        processor_kwargs: entries in place of those of tokenizer_config.json.
        tokenizer_kwargs: older name of `processor_kwargs`.
        config_kwargs: entries in place of those of config.json.

    Raises:
        ConfigError: an argument asks for something that minisbert does not do.
    """
    if backend != "torch":
        raise ConfigError(f"got backend={shown(backend)}; expected 'torch', in which minisbert computes: leave it out")
    if processor_kwargs and tokenizer_kwargs:
        raise ConfigError("got both processor_kwargs and tokenizer_kwargs; expected one of them: they are the same")
    groups = {
        "model_kwargs": model_kwargs,
        "processor_kwargs": processor_kwargs or tokenizer_kwargs,
        "config_kwargs": config_kwargs,
    }
    given: dict[str, dict[str, Any]] = {}
    for group, values in groups.items():
        if values is not None and not isinstance(values, Mapping):
            raise ConfigError(f"got {group}={shown(values)}; expected a dictionary: pass names and values")
        known = dialects.LOADING_KEYS.get(group)
        for name in values or {}:
            if known is not None and name not in known:
                raise ConfigError(
                    f"got {name!r} in {group}; expected one that minisbert knows, such as "
                    f"{nearest(str(name), known, otherwise=sorted(known))}: leave it out"
                )
        if values:
            given[group] = {name: _plain(name, value) for name, value in values.items()}
    return given


def with_loading(layout: ModelLayout, given: Mapping[str, Mapping[str, Any]]) -> ModelLayout:
    """Put the arguments that `check_loading` returned before those that a model was saved with."""
    if not given:
        return layout
    first, *others = layout.modules
    return replace(layout, modules=(replace(first, config=merge_loading(first.config, given)), *others))


def merge_loading(saved: Mapping[str, Any], given: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Put arguments before those in the content of a sentence_bert_config.json."""
    config = dict(saved)
    for group, values in given.items():
        before = next((config.pop(key) for key in dialects.LOADING_GROUPS[group] if key in config), None) or {}
        if not _DTYPE.isdisjoint(values):
            before = {name: value for name, value in before.items() if name not in _DTYPE}
        config[group] = {**before, **values}
    return config


def _plain(name: str, value: Any) -> Any:
    if name not in _DTYPE:
        return value
    try:
        return dialects.read_dtype(None if value is None else str(value).removeprefix("torch."), name)
    except ModelError as error:
        raise ConfigError(str(error)) from None


# ---- writing --------------------------------------------------------------------------------------------------------
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
    write_json(folder / _SETTINGS, {**content, **settings.other})


def write_modules(folder: Path, kinds: Sequence[str]) -> list[Path]:
    """Write modules.json, and make and return a folder for each module; that of the first is `folder` itself.

    Args:
        folder: of the model.
        kinds: names of modules of the format, or of classes of the caller's with their Python modules, "mine.Decay".

    Raises:
        ConfigError: the format has no such module.
    """
    entries, folders = [], []
    for index, kind in enumerate(kinds):
        own = "." in kind
        if kind not in dialects.WRITTEN_TYPES and not own:
            raise ConfigError(
                f"got a module of type {kind}; expected one of {', '.join(dialects.WRITTEN_TYPES)}: only a model of "
                f"these can be saved"
            )
        path = f"{index}_{kind.rpartition('.')[2]}" if index else ""
        written = kind if own else dialects.WRITTEN_TYPES[kind]
        entries.append({"idx": index, "name": str(index), "path": path, "type": written})
        folders.append(folder / path)
        folders[-1].mkdir(exist_ok=True)
    write_json(folder / "modules.json", entries)
    return folders
