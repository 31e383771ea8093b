"""Facts to the text of README.md: front matter as the Hub reads it, then prose and tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from .facts import CardFacts, DatasetFacts, TrainingFacts, versions

_SIMILARITIES = {
    "cosine": "Cosine Similarity",
    "dot": "Dot Product",
    "euclidean": "Euclidean Distance",
    "manhattan": "Manhattan Distance",
}


def render_card(facts: CardFacts) -> str:
    """The card as Markdown."""
    import yaml

    front_matter = yaml.dump(_front_matter(facts), sort_keys=False, allow_unicode=True)
    sections = [_description(facts), _usage(facts)]
    if facts.training is not None:
        sections += [_evaluation(facts.training), _training(facts.training)]
    sections.append(_framework())
    return f"---\n{front_matter}---\n\n" + "\n\n".join(section for section in sections if section) + "\n"


def _front_matter(facts: CardFacts) -> dict[str, Any]:
    training = facts.training
    tags = ["sentence-transformers", "sentence-similarity", "feature-extraction", "dense"]
    if training is not None:
        losses = dict.fromkeys(f"loss:{dataset.loss}" for dataset in training.datasets)
        tags += ["generated_from_trainer", f"dataset_size:{sum(d.rows for d in training.datasets)}", *losses]
    matter: dict[str, Any] = {"tags": tags}
    if facts.base_model is not None:
        matter["base_model"] = _hub_name(facts.base_model)
    matter["pipeline_tag"] = "sentence-similarity"
    matter["library_name"] = "sentence-transformers"
    if training is not None and training.metrics:
        matter["metrics"] = list(training.metrics)
        matter["model-index"] = [_model_index(facts, training)]
    return matter


def _model_index(facts: CardFacts, training: TrainingFacts) -> dict[str, Any]:
    return {
        "name": _title(facts),
        "results": [
            {
                "task": {"type": training.evaluated.lower().replace(" ", "-"), "name": training.evaluated},
                "dataset": {"name": "Unknown", "type": "unknown"},
                "metrics": [
                    {"type": name, "value": value, "name": name.replace("_", " ").title()}
                    for name, value in training.metrics.items()
                ],
            }
        ],
    }


def _description(facts: CardFacts) -> str:
    made_from = f", fine-tuned from {_hub_name(facts.base_model)}" if facts.base_model and facts.training else ""
    return "\n".join(
        [
            f"# {_title(facts)}",
            "",
            f"A sentence-embedding model{made_from}. It turns a text into a vector of {facts.dimension} numbers; texts "
            f"of like meaning get vectors that lie close together.",
            "",
            "## Model Details",
            "",
            "- **Model Type:** Sentence Transformer",
            *([f"- **Base model:** {_hub_name(facts.base_model)}"] if facts.base_model else []),
            f"- **Maximum Sequence Length:** {facts.max_seq_length} tokens",
            f"- **Output Dimensionality:** {facts.dimension} dimensions",
            f"- **Similarity Function:** {_SIMILARITIES[facts.similarity]}",
            "",
            "### Full Model Architecture",
            "",
            "```",
            facts.architecture,
            "```",
        ]
    )


def _usage(facts: CardFacts) -> str:
    name = facts.model_name or "path/to/this/model"
    return f"""## Usage

With minisbert (`pip install minisbert`):

```python
from minisbert import SentenceTransformer

model = SentenceTransformer({name!r})
embeddings = model.encode(["How do plants make sugar?", "Photosynthesis turns light into sugar."])
print(model.similarity(embeddings, embeddings))
```

The same lines work with sentence-transformers after `from sentence_transformers import SentenceTransformer`."""


def _evaluation(training: TrainingFacts) -> str:
    if not training.metrics:
        return ""
    rows = [(name, f"{value:.4f}") for name, value in training.metrics.items()]
    return f"## Evaluation\n\n#### {training.evaluated}\n\n" + _table(("Metric", "Value"), rows)


def _training(training: TrainingFacts) -> str:
    lines = [
        "## Training Details",
        "",
        "### Training Dataset",
        "",
        *(line for dataset in training.datasets for line in _dataset(dataset)),
        "### Training Hyperparameters",
        "",
        *(f"- `{name}`: {value}" for name, value in training.settings.items()),
    ]
    log = "\n".join(_log_rows(training))
    return "\n".join(lines) + (f"\n\n### Training Logs\n\n{log}" if log else "")


def _dataset(dataset: DatasetFacts) -> list[str]:
    label = f" and the label {dataset.label_column}" if dataset.label_column else ""
    parameters = json.dumps(dict(dataset.loss_parameters), indent=4)
    return [
        *([f"#### {dataset.name}", ""] if dataset.name else []),
        f"{dataset.rows:,} rows with the text columns {', '.join(dataset.text_columns)}{label}.",
        "",
        f"Loss: {dataset.loss} with these parameters:",
        "",
        f"```json\n{parameters}\n```",
        "",
    ]


def _log_rows(training: TrainingFacts) -> Iterator[str]:
    names = ["epoch", "step", "loss"]
    names += sorted({name for entry in training.log for name in entry if name.startswith("eval_")})
    merged: dict[float, dict[str, float]] = {}
    for entry in training.log:
        merged.setdefault(entry["step"], {}).update(entry)
    if merged:
        rows = [tuple(_cell(entry.get(name)) for name in names) for entry in merged.values()]
        yield _table(tuple(name.removeprefix("eval_") for name in names), rows)


def _framework() -> str:
    rows = "\n".join(f"- {name}: {number}" for name, number in versions().items())
    return f"### Framework Versions\n\n{rows}"


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.4f}"


def _title(facts: CardFacts) -> str:
    if facts.model_name:
        return facts.model_name
    return f"SentenceTransformer based on {_hub_name(facts.base_model)}" if facts.base_model else "SentenceTransformer"


def _hub_name(name: str) -> str:
    return name if "/" in name else f"sentence-transformers/{name}"
