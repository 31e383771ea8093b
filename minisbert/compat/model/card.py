"""Entries for the card of a model, by the reference's names."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ...errors import warn
from ..checks import check_list, check_mapping

if TYPE_CHECKING:
    from ...card.facts import CardFacts
    from ...sentence_transformer import SentenceTransformer

_TASK = "semantic textual similarity, semantic search, paraphrase mining, classification, clustering, and more"
_TAGS = ("sentence-transformers", "sentence-similarity", "feature-extraction", "dense")


@dataclass
class SentenceTransformerModelCardData:
    """Entries for the card of a model.

    Attributes:
        language: one code or several, such as "en".
        license: name of the license, such as "apache-2.0".
        model_name: heading of the card.
        model_id: the name on the Hub, with its owner; the example on the card loads it.
        train_datasets: data sets that the model was trained on: "name" and "id" of each.
        eval_datasets: data sets that it was evaluated on.
        task_name: not shown: the sentence that the reference makes of it has no place on minisbert's card.
        tags: of the card.
        local_files_only: makes no difference: a card is made without the Hub.
        generate_widget_examples: show examples from the data in the widget.
        base_model: name of the model that this one was trained from.
        base_model_revision: commit of that model.
    """

    language: str | list[str] | None = field(default_factory=list)
    license: str | None = None
    model_name: str | None = None
    model_id: str | None = None
    train_datasets: list[dict[str, str]] = field(default_factory=list)
    eval_datasets: list[dict[str, str]] = field(default_factory=list)
    task_name: str = _TASK
    tags: list[str] = field(default_factory=lambda: list(_TAGS))
    local_files_only: bool = False
    generate_widget_examples: bool = True
    base_model: str | None = field(default=None, init=False)
    base_model_revision: str | None = field(default=None, init=False)
    model: SentenceTransformer | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.language, str):
            self.language = [self.language]
        self.train_datasets = _named(self.train_datasets, "train_datasets")
        self.eval_datasets = _named(self.eval_datasets, "eval_datasets")
        if self.model_id and self.model_id.count("/") != 1:
            warn(f"got model_id={self.model_id!r} without an owner, as in 'me/my-model'; the card shows none")
            self.model_id = None
        if self.task_name != _TASK:
            warn("task_name is not shown on the card: the sentence that names the task is always the same")

    def register_model(self, model: SentenceTransformer) -> None:
        """Take note of the model that the card is of."""
        self.model = model

    def set_model_id(self, model_id: str) -> None:
        """Set the name on the Hub."""
        self.model_id = model_id

    def set_base_model(self, model_id: str, revision: str | None = None) -> bool:
        """Set the model that this one was trained from; it is not looked up on the Hub."""
        self.base_model, self.base_model_revision = model_id, revision
        return True

    def set_language(self, language: str | list[str]) -> None:
        """Set the language, or languages."""
        self.language = [language] if isinstance(language, str) else language

    def set_license(self, license: str) -> None:  # noqa: A002 - the reference's name
        """Set the license."""
        self.license = license

    def add_tags(self, tags: str | list[str]) -> None:
        """Add tags that are not there yet."""
        self.tags += [tag for tag in ([tags] if isinstance(tags, str) else tags) if tag not in self.tags]

    def to_dict(self) -> dict[str, Any]:
        """Return the entries by name."""
        return {name: value for name, value in vars(self).items() if name != "model"}

    def of(self, facts: CardFacts) -> CardFacts:
        """Return the facts of a card with these entries in their places."""
        from ...card.facts import NamedDataset

        language, base = tuple(self.language or ()), self.base_model or facts.description.base_model
        datasets = tuple(NamedDataset(one.get("name") or one["id"], one.get("id")) for one in self.train_datasets)
        ids = tuple(one["id"] for one in self.train_datasets if one.get("id"))
        front, about = facts.front_matter, facts.description
        title = self.model_name or (f"SentenceTransformer based on {base}" if base else "SentenceTransformer")
        return replace(
            facts,
            title=title,
            front_matter=replace(
                front,
                language=language,
                license=self.license,
                tags=tuple(dict.fromkeys([*self.tags, *(tag for tag in front.tags if tag not in _TAGS)])),
                base_model=base,
                datasets=ids or front.datasets,
                widget=front.widget if self.generate_widget_examples else (),
                model_index=tuple(replace(one, name=title) for one in front.model_index),
            ),
            description=replace(
                about,
                base_model=base,
                base_model_revision=self.base_model_revision or about.base_model_revision,
                training_datasets=datasets or about.training_datasets,
                language=language,
                license=self.license,
            ),
        )


def _named(datasets: list[dict[str, str]] | None, option: str) -> list[dict[str, str]]:
    """Return the entries that have a name or an id."""
    for place, one in enumerate(check_list(datasets or [], option, of="dicts with a name or an id")):
        check_mapping(one, f"{option}[{place}]", of="a name or an id")
        if not one.get("name") and not one.get("id"):
            warn(f"got the data set {one!r} without a name or an id; it is not shown on the card")
    return [one for one in datasets or [] if one.get("name") or one.get("id")]
