"""The facts of a model card to its text."""

from __future__ import annotations

from collections.abc import Iterator

from .course import write_emissions, write_hyperparameters, write_logs, write_time
from .datasets import write_datasets
from .description import write_description, write_introduction, write_sources
from .evaluations import write_evaluation
from .facts import CardFacts, Citation
from .front_matter import write_front_matter
from .pictures import write_pictures
from .usage import write_usage

_DIRECT_USE = "### Direct Usage (Transformers)\n\n*How to use the model with transformers alone.*"
_FURTHER_TRAINING = "### Downstream Usage (Sentence Transformers)\n\n*How to train the model further.*"
_MISUSE = "### Out-of-Scope Use\n\n*What the model should not be used for.*"
_LIMITS = "## Bias, Risks and Limitations\n\n*Where the model is known to fail.*"
_ADVICE = "### Recommendations\n\n*What its users should do about that.*"
_WORDS = "## Glossary\n\n*Words that not every reader knows.*"
_AUTHORS = "## Model Card Authors\n\n*Who wrote this card.*"
_CONTACT = "## Model Card Contact\n\n*Whom to write to about it.*"


def render(facts: CardFacts) -> str:
    """The card as Markdown, laid out as sentence-transformers does."""
    return f"---\n{write_front_matter(facts.front_matter)}---\n\n" + "\n\n".join(_blocks(facts))


def _blocks(facts: CardFacts) -> Iterator[str]:
    yield f"# {facts.title}"
    yield write_introduction(facts.description)
    yield "## Model Details"
    yield f"### Model Description\n{write_description(facts.description)}"
    yield "### Model Sources"
    if facts.sources:
        yield write_sources(facts.sources)
    yield "### Full Model Architecture"
    yield "\n".join(["```", *facts.architecture, "```"])
    yield "## Usage"
    yield "### Direct Usage (Sentence Transformers)"
    if facts.usage is not None:
        yield write_usage(facts.usage, facts.description.dimension)
    yield from map(_for_the_author, (_DIRECT_USE, _FURTHER_TRAINING, _MISUSE))
    if facts.evaluations:
        yield "## Evaluation"
        yield "### Metrics"
        yield from map(write_evaluation, facts.evaluations)
    yield from map(_for_the_author, (_LIMITS, _ADVICE))
    yield from _training(facts)
    yield "\n".join(["### Framework Versions", *(f"- {name}: {number}" for name, number in facts.versions.items())])
    if facts.resources:
        yield "## Additional Resources"
        yield "\n".join(f"- [{link.title}]({link.url})" for link in facts.resources)
    yield "## Citation"
    yield "### BibTeX"
    yield from map(_citation, facts.citations)
    yield from map(_for_the_author, (_WORDS, _AUTHORS, _CONTACT))


def _training(facts: CardFacts) -> Iterator[str]:
    yield "## Training Details"
    if facts.training_datasets:
        yield write_datasets(facts.training_datasets, "training")
    if facts.evaluation_datasets:
        yield write_datasets(facts.evaluation_datasets, "evaluation")
    if facts.hyperparameters or facts.non_default_hyperparameters:
        yield write_hyperparameters(facts.non_default_hyperparameters, facts.hyperparameters)
    if facts.logs is not None:
        yield write_logs(facts.logs)
    if facts.front_matter.co2_eq_emissions is not None:
        yield write_emissions(facts.front_matter.co2_eq_emissions)
    if facts.training_time is not None:
        yield write_time(facts.training_time)
    if facts.pictures:
        yield write_pictures(facts.pictures)


def _for_the_author(section: str) -> str:
    """A section to fill in by hand, hidden until then."""
    return f"<!--\n{section}\n-->"


def _citation(citation: Citation) -> str:
    *first, last = citation.names
    title = f"{', '.join(first)} and {last}" if first else last
    return f"#### {title}\n```bibtex\n{citation.bibtex}\n```"
