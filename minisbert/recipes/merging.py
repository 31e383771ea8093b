"""Merge the weights of models that were trained from one base into one model, tensor by tensor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..card.composing import compose
from ..card.facts import CardFacts, Origin
from ..card.rendering import render
from ..errors import ConfigError, InputError, InputTypeError, ModelError, warn
from ..sentence_transformer import SentenceTransformer
from ..storage.adapters import remove_adapter
from ..storage.files import output_path, replacing_folder, temporary_folder
from ..storage.layout import read_layout
from ..storage.weights import rewrite_weights, weight_files
from .merge_methods import MergeMethod, MergeSettings, combine, read_settings
from .parents import (
    Parent,
    TensorFiles,
    Traits,
    check_alike,
    check_tensors,
    folders_to_read,
    load_parent,
    parents_of,
    read_headers,
    traits_of,
)

Mergeable = str | Path | SentenceTransformer


@torch.no_grad()
def merge(
    models: Sequence[Mergeable],
    output: str | Path,
    *,
    method: MergeMethod = "linear",
    weights: float | Sequence[float] | None = None,
    base: Mergeable | None = None,
    density: float | Sequence[float] | None = None,
    t: float | None = None,
    model_name: str | None = None,
    names: Sequence[str] | None = None,
) -> Path:
    """Merge models into one and save it, with a card that names them.

    Modules, tokenizer, prompts and dtype are those of the first model. Tensors are read and merged one by one, in
    float32: no more than one model is in memory at once.

    Args:
        models: two or more folders, names or models of the same architecture and tokenizer; one is enough beside a
            separate base.
        output: folder to write; files of other names in it stay.
        method: "linear", the weighted mean; "slerp", the arc between two models; "task_arithmetic", the base and the
            weighted sum of what each model changed of it; "ties", the base and the mean of the largest changes that
            agree in sign.
        weights: one for each model, or one for all; by default 1. A base has none.
        base: the model that the others were trained from, for "task_arithmetic" and "ties"; it may be one of them. For
            "slerp" the model that `t` counts from, by default the first.
        density: share of the elements of each tensor of changes that "ties" keeps, of each model or of all; by default
            1.
        t: place from 0, the base, to 1, the other model, for "slerp"; by default 0.5.
        model_name: the name the card shows.
        names: those of models in memory on the card, one for each model, and for a base that is none of them; by
            default "model 1" and so on.

    Returns:
        The folder.

    Raises:
        ConfigError: the method is unknown, or a number is impossible or of no use to it.
        InputError: there are too few models, or the folder cannot be written or is that of one of them.
        ModelError: a model cannot be read, or differs from the first in architecture, tokenizer or shapes, or the
            result is not finite.
    """
    if isinstance(models, (str, Path)) or not isinstance(models, Sequence):
        raise InputTypeError("got one model to merge; expected several: put them in a list")
    given, base_index = _with_base(models, base, method)
    settings = read_settings(
        method,
        len(given) - (base_index is not None),
        has_base=base_index is not None,
        weights=weights,
        density=density,
        t=t,
    )
    numbered = [f"model {number}" for number in range(1, len(given) + 1)]
    if names is not None and len(names) != len(given):
        raise ConfigError(f"got {len(names)} names for {len(given)} models; expected one for each")
    parents = parents_of(given, names or numbered)
    target = output_path(output, name="output")
    folders = [Path(one).expanduser() for one in given if not isinstance(one, SentenceTransformer)]
    if any(one.resolve() == target.resolve() for one in folders):
        raise InputError(f"got {output} as a model and as output; expected two folders: choose another output")
    with replacing_folder(target) as folder, temporary_folder(target) as scratch:
        sources, card = _read_parents(parents, folder, scratch)
        _merge_weights(settings, parents, sources, base_index)
        facts = _with_origin(card, settings, parents, base_index, name=model_name)
        (folder / "README.md").write_text(render(facts), encoding="utf-8", errors="replace", newline="\n")
        remove_adapter(target)
    return target


def _with_base(models: Sequence[Mergeable], base: Mergeable | None, method: str) -> tuple[list[Mergeable], int | None]:
    """Return all models, and the index of the base among them; a base that is one of them is not counted twice."""
    given = list(models)
    index = 0 if method == "slerp" and given else None
    if base is not None:
        index = next((number for number, model in enumerate(given) if same_model(model, base)), len(given))
        given += [base] if index == len(given) else []
    if len(given) < 2:
        raise InputError(f"got {len(given)} model{'' if given else 's'} to merge; expected at least two: name another")
    return given, index


def same_model(one: Any, other: Any) -> bool:
    """Return True if two models to merge are the same one: in memory, or by name, or as a folder."""
    if isinstance(one, SentenceTransformer) or isinstance(other, SentenceTransformer):
        return one is other
    if not isinstance(one, (str, Path)) or not isinstance(other, (str, Path)):
        return False  # `parents_of` refuses it
    return str(one) == str(other) or (Path(one).is_dir() and Path(one).resolve() == Path(other).resolve())


# ---- models ---------------------------------------------------------------------------------------------------------


def _read_parents(parents: Sequence[Parent], folder: Path, scratch: Path) -> tuple[list[list[Path]], CardFacts]:
    """Load the models one after the other, and compare them with the first.

    Args:
        parents: the models.
        folder: the first is written there.
        scratch: those are written there whose own files do not hold the tensors as the first has them.

    Returns:
        The folders of the modules of each model, and the card of the first.
    """
    sources: list[list[Path]] = []
    needed: list[dict[str, tuple[str, tuple[int, ...]]]] = []  # as the first has them, by module
    traits: Traits | None = None
    for number, parent in enumerate(parents):
        model, place = load_parent(parent), scratch / str(number)
        found, own = traits_of(model), None
        if traits is None:
            traits, card, place = found, compose(model, None), folder
        else:
            check_alike(traits, found, names=(parents[0].name, parent.name))
            own = folders_to_read(parent, model, needed)
        if own is None:
            place.mkdir(exist_ok=True)
            model.write_into(place)
            own = [spec.folder for spec in read_layout(place).modules]
        sources.append(own)
        needed = needed or [read_headers(one) or {} for one in own]
        del model  # before the next is loaded
    return sources, card


def _merge_weights(
    settings: MergeSettings, parents: Sequence[Parent], sources: Sequence[Sequence[Path]], base_index: int | None
) -> None:
    """Write merged tensors over those of the first model."""
    for folders in zip(*sources, strict=True):
        for path in weight_files(folders[0]):
            with ExitStack() as opened:
                files = [TensorFiles(folder, opened) for folder in folders]
                rewrite_weights(path, lambda name, files=files: _merged(name, files, settings, parents, base_index))  # type: ignore[misc]


def _merged(
    name: str, files: Sequence[TensorFiles], settings: MergeSettings, parents: Sequence[Parent], base_index: int | None
) -> Tensor:
    tensors = [tensor for one in files if (tensor := one.read(name)) is not None]
    first = tensors[0]
    if len(tensors) < len(files):
        if not name.startswith("pooler."):
            raise ModelError(
                f"got {name} in {parents[0].name} and not in all others; expected models of the same tensors"
            )
        warn(f"{name} is not in all models, and embeddings do not need it: that of {parents[0].name} is kept")
        return first
    check_tensors(name, tensors, parents)
    if not first.is_floating_point():
        return first
    values = [tensor.float() for tensor in tensors]
    base = None if base_index is None else values.pop(base_index)
    merged = combine(settings, values, base).to(first.dtype)
    if not merged.isfinite().all():
        raise ModelError(
            f"got {name} with numbers that are not finite; expected a model that can be used: choose smaller weights, "
            f"or check the models"
        )
    return merged


# ---- card -----------------------------------------------------------------------------------------------------------


def _with_origin(
    card: CardFacts, settings: MergeSettings, parents: Sequence[Parent], base_index: int | None, *, name: str | None
) -> CardFacts:
    """Return the card of the first model as that of the merged one."""
    names = _card_names(parents)
    others = [one for number, one in enumerate(names) if number != base_index]
    facts: dict[str, str] = {"Method": settings.method}
    if base_index is not None:
        facts["Base"] = names[base_index]
    numbers = {"weight": settings.weights, "density": settings.densities}
    shown = []
    for number, other in enumerate(others):
        own = [f"{what} {values[number]:g}" for what, values in numbers.items() if values]
        shown.append(f"{other} ({', '.join(own)})" if own else other)
    facts["Models"] = ", ".join(shown)
    if settings.method == "slerp":
        facts["t"] = f"{settings.t:g}"
    on_hub = tuple(dict.fromkeys(parent.repository for parent in parents if parent.repository))
    matter = card.front_matter
    return replace(
        card,
        title=name or f"SentenceTransformer merged from {', '.join(names)}",
        front_matter=replace(
            matter,
            tags=(*matter.tags, "merge"),
            base_model=on_hub or None,
            base_model_relation="merge" if on_hub else None,
        ),
        description=replace(card.description, base_model=None, base_model_revision=None),
        usage=replace(card.usage, model_id=name) if card.usage is not None and name else card.usage,
        origin=Origin("Merge", facts),
    )


def _card_names(parents: Sequence[Parent]) -> list[str]:
    """Return the names for the card; folders of one name get that of their parent folder before it."""
    counts = Counter(parent.card_name for parent in parents)
    return [
        f"{Path(parent.given).resolve().parent.name}/{parent.card_name}"
        if counts[parent.card_name] > 1 and parent.repository is None and isinstance(parent.given, (str, Path))
        else parent.card_name
        for parent in parents
    ]
