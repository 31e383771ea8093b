"""The text of a model card to its facts."""

from __future__ import annotations

import re

from ..errors import InputError
from .course import read_fields, read_hyperparameters, read_logs, read_time
from .datasets import read_datasets
from .description import read_description, read_sources
from .evaluations import read_evaluations
from .facts import CardFacts, Citation, Link
from .front_matter import read_front_matter
from .markdown import Section, fenced_code, links, repair, split_card
from .pictures import read_pictures
from .usage import read_usage


def parse(text: str) -> CardFacts:
    """The facts of a card as sentence-transformers 4, 5 and 6 and minisbert generate it.

    A card whose UTF-8 was read as cp1252 on its way is repaired first.

    Raises:
        InputError: the text is no such card.
    """
    front_matter, body = split_card(repair(text))
    description = body.part("Model Description")
    if description is None or not body.parts:
        raise InputError(
            "got a text without the section 'Model Description'; expected the README.md of a model saved by "
            "sentence-transformers 4, 5 or 6 or minisbert: pass its text"
        )
    try:
        return _facts(front_matter, body, description)
    except InputError:
        raise
    except (KeyError, IndexError, ValueError, OverflowError) as error:
        raise InputError(f"got a model card that cannot be read ({error}); expected it as it was generated") from None


def _facts(front_matter: str, body: Section, description: Section) -> CardFacts:
    def text(title: str) -> str:
        section = body.part(title)
        return section.text if section else ""

    metrics = body.part("Metrics")
    details = body.part("Training Details")
    architecture = fenced_code(text("Full Model Architecture"), "")
    return CardFacts(
        title=body.parts[0].title,
        front_matter=read_front_matter(front_matter),
        description=read_description(description.text),
        architecture=tuple(architecture.split("\n")) if architecture else (),
        usage=read_usage(text("Direct Usage (Sentence Transformers)")),
        sources=read_sources(text("Model Sources")),
        evaluations=read_evaluations(metrics) if metrics else (),
        training_datasets=read_datasets(body.part("Training Dataset") or body.part("Training Datasets")),
        evaluation_datasets=read_datasets(body.part("Evaluation Dataset") or body.part("Evaluation Datasets")),
        non_default_hyperparameters=read_hyperparameters(text("Non-Default Hyperparameters")),
        hyperparameters=read_hyperparameters(text("All Hyperparameters")),
        logs=read_logs(text("Training Logs")) if text("Training Logs") else None,
        training_time=read_time(text("Training Time")) if text("Training Time") else None,
        pictures=read_pictures("\n".join(part.text for part in details.parts if part.title == "Pictures"))
        if details
        else (),
        versions=read_fields(text("Framework Versions")),
        resources=tuple(Link(*link) for link in links(text("Additional Resources"))),
        citations=_citations(body.part("BibTeX")),
    )


def _citations(section: Section | None) -> tuple[Citation, ...]:
    return tuple(
        Citation(tuple(re.split(r", | and ", part.title)), fenced_code(part.text, "bibtex") or "")
        for part in (section.parts if section else ())
    )
