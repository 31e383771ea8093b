"""Data sets of a run: columns, statistics, samples, loss."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from ..errors import InputError
from .description import dataset_text, named_dataset
from .facts import ColumnStatistics, DatasetFacts, LossFacts, NamedDataset
from .markdown import Section, between
from .parameters import read_class, read_parameters, write_class, write_parameters
from .tables import read_table, write_table

_UNNAMED = "Unnamed Dataset"
_STATISTICS = "* Approximate statistics based on the first "
_LOSS = "* Loss: "
_FOLDED_FROM = 4


def read_datasets(section: Section | None) -> tuple[DatasetFacts, ...]:
    """All data sets of a section."""
    return tuple(map(_dataset, section.parts)) if section else ()


def _dataset(section: Section) -> DatasetFacts:
    text = section.text
    fields = dict(re.findall(r"^\* ([^:\n]+?): (.*)$", text, re.M))
    named, revision = NamedDataset(""), None
    if "Dataset" in fields:
        place, _, tree = fields["Dataset"].partition(" at [")
        if "/tree/" in tree.partition("](")[2] and tree.endswith(")"):
            named, revision = named_dataset(place), tree.removesuffix(")").rpartition("/tree/")[2]
        else:
            named = named_dataset(fields["Dataset"])
    statistics = text.partition("\n" + _STATISTICS)[2]
    samples = text.partition("\n* Samples:\n")[2]
    loss_at = text.rfind("\n" + _LOSS) + 1
    loss = text[loss_at + len(_LOSS) :]
    columns = tuple(between(fields.get("Columns", ""), "<code>", "</code>"))
    size = fields.get("Size")
    shown = tuple(tuple(map(_sample, row)) for row in read_table(samples)[1]) if samples else ()
    if any(len(row) != len(columns) for row in shown):
        raise InputError(f"got a model card with samples of other columns than {columns}; expected it as generated")
    rows = statistics.split(" ", 1)[0]
    return DatasetFacts(
        name=named.name,
        loss=LossFacts(*read_class(loss), read_parameters(loss)),
        columns=columns,
        size=int(size.split(" ")[0].replace(",", "")) if size else None,
        id=named.id,
        revision=revision,
        statistics_rows=int(rows) if rows.isdecimal() else None,
        statistics=_statistics(statistics) if statistics else (),
        samples=shown,
    )


def _statistics(text: str) -> tuple[ColumnStatistics, ...]:
    header, rows = read_table(text)
    by_name = {row[0]: row[1:] for row in rows}
    return tuple(
        ColumnStatistics(
            column,
            by_name["type"][place],
            by_name["modality"][place] if "modality" in by_name else None,
            tuple(_detail(item) for item in between(by_name["details"][place], "<li>", "</li>")),
        )
        for place, column in enumerate(header[1:])
    )


def _detail(item: str) -> tuple[str, str]:
    name, _, value = item.rpartition(": ")
    return name, value


def _sample(cell: str) -> str:
    text = cell.removeprefix("<code>").removesuffix("</code>") if cell.startswith("<code>") else cell
    return text.replace("<br>", "\n").replace("\\|", "|")


def write_datasets(datasets: Sequence[DatasetFacts], kind: Literal["training", "evaluation"]) -> str:
    """The whole section; more than three data sets are folded away, each by itself."""
    blocks = [f"### {kind.title()} Dataset{'s' if len(datasets) > 1 else ''}"]
    for dataset in datasets:
        block = _write(dataset, kind)
        title = dataset.name or _UNNAMED
        if len(datasets) >= _FOLDED_FROM:
            blocks.append(f"<details><summary>{title}</summary>\n\n{block}\n</details>")
        else:
            blocks.append(f"\n{block}")
    return "\n".join(blocks)


def _write(facts: DatasetFacts, kind: str) -> str:
    lines = [f"#### {facts.name or _UNNAMED}", ""]
    if facts.name:
        name = dataset_text(NamedDataset(facts.name, facts.id))
        tree = f"https://huggingface.co/datasets/{facts.id}/tree/{facts.revision}"
        lines.append(f"* Dataset: {name}" + (f" at [{facts.revision[:7]}]({tree})" if facts.revision else ""))
    if facts.size is not None:
        lines.append(f"* Size: {facts.size:,} {kind} samples")
    lines.append(f"* Columns: {_listed([f'<code>{column}</code>' for column in facts.columns])}")
    if facts.statistics:
        lines += [f"{_STATISTICS}{facts.statistics_rows} samples:", _statistics_table(facts.statistics)]
    if facts.samples:
        rows = [[f"<code>{_escaped(cell)}</code>" for cell in row] for row in facts.samples]
        lines += ["* Samples:", write_table(facts.columns, rows, margin="  ")]
    loss = facts.loss
    lines.append(_LOSS + write_class(loss.name, loss.link) + write_parameters(loss.parameters))
    return "\n".join(lines)


def _listed(names: Sequence[str]) -> str:
    if len(names) > 2:
        return ", ".join(names[:-1]) + f", and {names[-1]}"
    return " and ".join(names)


def _escaped(text: str) -> str:
    return text.replace("\n", "<br>").replace("|", "\\|")


def _statistics_table(columns: Sequence[ColumnStatistics]) -> str:
    rows = [["type", *(column.type for column in columns)]]
    if any(column.modality is not None for column in columns):
        rows.append(["modality", *(column.modality or "" for column in columns)])
    rows.append(["details", *(_details(column) for column in columns)])
    return write_table(["", *(column.column for column in columns)], rows, margin="  ")


def _details(column: ColumnStatistics) -> str:
    items = "".join(f"<li>{name}: {value}</li>" for name, value in column.details)
    return f"<ul>{items}</ul>" if items else ""
