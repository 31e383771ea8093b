"""The facts of a model card to its text, through the template card.md.jinja."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from .facts import CardFacts, ColumnStatistics, DatasetFacts, Evaluation, NamedDataset, Parameters, TrainingLogs
from .front_matter import write_front_matter
from .markdown import write_table

if TYPE_CHECKING:
    import jinja2

HUB = "https://huggingface.co"
SIMILARITIES = {
    "cosine": "Cosine Similarity",
    "dot": "Dot Product",
    "euclidean": "Euclidean Distance",
    "manhattan": "Manhattan Distance",
}
_MARKUP = re.compile(r"[\\\[\]`*_<>&!$]")


def render(facts: CardFacts) -> str:
    """The card as Markdown, laid out as sentence-transformers does."""
    return _template().render(facts=facts, similarities=SIMILARITIES)


@cache
def _template() -> jinja2.Template:
    import jinja2

    environment = jinja2.Environment(  # noqa: S701 (Markdown: `escaped` does what is needed)
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "code": _code,
        "escaped": _escaped,
        "hub_link": _hub_link,
        "json_block": _json_block,
        "listed": _listed,
        "log_table": _log_table,
        "metric_table": _metric_table,
        "python_list": _python_list,
        "quoted": lambda file: quote(file, safe=""),
        "sample_table": _sample_table,
        "statistics_table": _statistics_table,
        "tensor": _tensor,
        "yaml": write_front_matter,
    }
    return environment.get_template("card.md.jinja")


# ---- words ----------------------------------------------------------------------------------------------------------


def _code(name: str, link: str | None) -> str:
    return f"[<code>{name}</code>]({link})" if link else f"<code>{name}</code>"


def _escaped(title: str) -> str:
    """A title on one line, without Markdown."""
    return _MARKUP.sub(r"\\\g<0>", title).replace("\n", "&#10;").replace("\r", "&#13;")


def _hub_link(dataset: NamedDataset | DatasetFacts) -> str:
    return f"[{dataset.name}]({HUB}/datasets/{dataset.id})" if dataset.id else dataset.name


def _listed(names: Sequence[str], before: str = "", after: str = "", *, oxford: bool = False) -> str:
    """Names with "and" before the last, each between two marks."""
    marked = [f"{before}{name}{after}" for name in names]
    if len(marked) < 2:
        return "".join(marked)
    return f"{', '.join(marked[:-1])}{',' if oxford and len(marked) > 2 else ''} and {marked[-1]}"


# ---- code -----------------------------------------------------------------------------------------------------------


def _json_block(parameters: Parameters) -> str:
    code = parameters if isinstance(parameters, str) else json.dumps(dict(parameters), indent=4)
    return "\n".join(f"  {line}" if line.strip() else line for line in f"```json\n{code}\n```".split("\n"))


def _python_list(texts: Sequence[str]) -> str:
    return "\n".join(["[", *(f"    {text!r}," for text in texts), "]"])


def _tensor(rows: Sequence[Sequence[float]]) -> str:
    """A matrix as torch prints it, in comments."""
    cells = [[f"{value:.4f}" for value in row] for row in rows]
    width = max(len(cell) for row in cells for cell in row)
    lines = ",\n".join(f"#         [{', '.join(cell.rjust(width) for cell in row)}]" for row in cells)
    return f"# tensor([{lines[10:]}])"


# ---- tables ---------------------------------------------------------------------------------------------------------


def _bold(cells: Sequence[str], *, when: bool) -> list[str]:
    return [f"**{cell}**" if when else cell for cell in cells]


def _statistics_table(columns: Sequence[ColumnStatistics]) -> str:
    rows = [["type", *(column.type for column in columns)]]
    if any(column.modality is not None for column in columns):
        rows.append(["modality", *(column.modality or "" for column in columns)])
    items = ["".join(f"<li>{name}: {value}</li>" for name, value in column.details) for column in columns]
    rows.append(["details", *(f"<ul>{item}</ul>" if item else "" for item in items)])
    return write_table(["", *(column.column for column in columns)], rows, margin="  ")


def _sample_table(dataset: DatasetFacts) -> str:
    samples = [[cell.replace("\n", "<br>").replace("|", "\\|") for cell in row] for row in dataset.samples]
    return write_table(dataset.columns, [[_code(cell, None) for cell in row] for row in samples], margin="  ")


def _metric_table(evaluation: Evaluation) -> str:
    header = ("Metric", *(evaluation.datasets if len(evaluation.datasets) > 1 else ("Value",)))
    rows = [_bold([metric.name, *map(str, metric.values)], when=metric.primary) for metric in evaluation.metrics]
    return write_table(header, rows)


def _log_table(logs: TrainingLogs) -> str:
    rows = [_bold(row, when=index in logs.bold_rows) for index, row in enumerate(logs.rows)]
    return write_table(logs.columns, rows, centred=True)
