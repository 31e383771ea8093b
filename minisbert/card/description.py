"""What the model is: the sections "Model Description", "Model Sources" and "Full Model Architecture"."""

from __future__ import annotations

import re

from ..errors import InputError
from .facts import Description, Link, NamedDataset
from .markdown import links

_SIMILARITIES = {
    "cosine": "Cosine Similarity",
    "dot": "Dot Product",
    "euclidean": "Euclidean Distance",
    "manhattan": "Manhattan Distance",
}
_HUB = "https://huggingface.co"


def read_description(text: str) -> Description:
    """The facts of "Model Description".

    Raises:
        InputError: it is not of a sentence-embedding model.
    """
    if _field(text, "Model Type") != "Sentence Transformer":
        raise InputError(
            f"got the card of a model of type {_field(text, 'Model Type')!r}; expected 'Sentence Transformer': pass "
            f"the card of a sentence-embedding model"
        )
    base, revision = _base_model(_field(text, "Base model") or "")
    length, dimension = _field(text, "Maximum Sequence Length"), _field(text, "Output Dimensionality")
    printed = _field(text, "Similarity Function") or ""
    modalities = _field(text, "Supported Modality") or _field(text, "Supported Modalities")
    language = _field(text, "Language") or _field(text, "Languages")
    return Description(
        dimension=_whole(dimension),
        max_seq_length=float("inf") if length == "inf tokens" else _whole(length),
        similarity=next((name for name, title in _SIMILARITIES.items() if title == printed), printed),
        base_model=base,
        base_model_revision=revision,
        max_query_length=_whole(_field(text, "Maximum Query Length")),
        max_document_length=_whole(_field(text, "Maximum Document Length")),
        modalities=tuple(modalities.split(", ")) if modalities else (),
        training_datasets=_datasets(text),
        language=tuple(language.split(", ")) if language else (),
        license=_field(text, "License"),
    )


def _field(text: str, name: str) -> str | None:
    found = re.search(rf"^ *- \*\*{name}:\*\* (.*)$", text, re.M)
    return found[1] if found else None


def _base_model(text: str) -> tuple[str | None, str | None]:
    """Name and revision from a link, and maybe a comment."""
    link, _, comment = text.partition(" <!-- at revision ")
    name, middle, _ = link.removeprefix("[").partition("](")
    if not (link.startswith("[") and middle and link.endswith(")")) or (comment and not comment.endswith(" -->")):
        return None, None
    return name, comment.removesuffix(" -->") or None


def _whole(text: str | None) -> int | None:
    number = (text or "").split(" ")[0]
    return int(number) if number.isdecimal() else None


def _datasets(text: str) -> tuple[NamedDataset, ...]:
    found = re.search(r"^- \*\*Training Datasets?:\*\*\n((?:    - .*\n?)*)", text, re.M)
    lines = found[1].rstrip("\n").split("\n") if found and found[1] else []
    return tuple(named_dataset(line.removeprefix("    - ")) for line in lines)


def named_dataset(text: str) -> NamedDataset:
    """A data set from its name, which may be a link to the Hub."""
    name, middle, place = text.removeprefix("[").rpartition(f"]({_HUB}/datasets/")
    if text.startswith("[") and name and middle and len(place) > 1 and place.endswith(")"):
        return NamedDataset(name, place.removesuffix(")"))
    return NamedDataset(text)


def dataset_text(dataset: NamedDataset) -> str:
    """A data set as cards name it."""
    return f"[{dataset.name}]({_HUB}/datasets/{dataset.id})" if dataset.id else dataset.name


def write_introduction(facts: Description) -> str:
    """One paragraph on the model."""
    base = f"made from [{facts.base_model}]({_HUB}/{facts.base_model})" if facts.base_model else "for sentences"
    names = [dataset_text(dataset) for dataset in facts.training_datasets]
    trained = ""
    if names:
        listed = ", ".join(names) if len(", ".join(names)) <= 400 else f"{len(names)} data sets"
        trained = f" It was trained on {listed}."
    return (
        f"An embedding model {base}, in the format of [sentence-transformers](https://www.sbert.net).{trained} Each "
        f"text becomes a vector of {facts.dimension} numbers; the closer two vectors, the closer the texts in meaning."
    )


def write_description(facts: Description) -> str:
    """The lines of "Model Description"; what is not known stands in a comment."""
    revision = f" <!-- at revision {facts.base_model_revision} -->" if facts.base_model_revision else ""
    base = f"[{facts.base_model}]({_HUB}/{facts.base_model}){revision}"
    lines = [
        "- **Model Type:** Sentence Transformer",
        f"- **Base model:** {base}" if facts.base_model else f"<!-- - **Base model:** [Unknown]({_HUB}/unknown) -->",
        f"- **Maximum Sequence Length:** {facts.max_seq_length} tokens",
    ]
    if facts.max_query_length is not None:
        lines.append(f"    - **Maximum Query Length:** {facts.max_query_length} tokens")
    if facts.max_document_length is not None:
        lines.append(f"    - **Maximum Document Length:** {facts.max_document_length} tokens")
    lines += [
        f"- **Output Dimensionality:** {facts.dimension} dimensions",
        f"- **Similarity Function:** {_SIMILARITIES.get(facts.similarity, facts.similarity)}",
    ]
    if facts.modalities:
        name = "Supported Modality" if len(facts.modalities) == 1 else "Supported Modalities"
        lines.append(f"- **{name}:** {', '.join(facts.modalities)}")
    if facts.training_datasets:
        lines.append(f"- **Training Dataset{_plural(facts.training_datasets)}:**")
        lines += [f"    - {dataset_text(dataset)}" for dataset in facts.training_datasets]
    else:
        lines.append("<!-- - **Training Dataset:** Unknown -->")
    lines += [
        f"- **Language{_plural(facts.language)}:** {', '.join(facts.language)}"
        if facts.language
        else "<!-- - **Language:** Unknown -->",
        f"- **License:** {facts.license}" if facts.license else "<!-- - **License:** Unknown -->",
    ]
    return "\n".join(lines)


def _plural(things: tuple[object, ...]) -> str:
    return "s" if len(things) > 1 else ""


def read_sources(text: str) -> tuple[Link, ...]:
    """The links of "Model Sources"."""
    return tuple(Link(title, url) for title, url in links(re.sub(r"^- \*\*[^*\n]*:\*\* ", "- ", text, flags=re.M)))


def write_sources(sources: tuple[Link, ...]) -> str:
    """The lines of "Model Sources"."""
    names = ("Documentation", "Repository", "Hugging Face")
    lines = []
    for place, link in enumerate(sources):
        name = f"**{names[place]}:** " if place < len(names) else ""
        lines.append(f"- {name}[{link.title}]({link.url})")
    return "\n".join(lines)
