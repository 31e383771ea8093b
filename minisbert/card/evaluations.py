"""Results of evaluators: the section "Metrics"."""

from __future__ import annotations

import re

from .facts import Evaluation, Metric
from .markdown import Section
from .parameters import read_class, read_parameters, write_class, write_parameters
from .tables import number, read_table, write_table

_EVALUATED = "* Evaluated with "


def read_evaluations(metrics: Section) -> tuple[Evaluation, ...]:
    """All evaluations of the section."""
    return tuple(map(_evaluation, metrics.parts))


def _evaluation(section: Section) -> Evaluation:
    named = re.search(r"^\* Datasets?: (.*)$", section.text, re.M)
    line = next((line for line in section.lines if line.startswith(_EVALUATED)), _EVALUATED)
    evaluator, link = read_class(line.removeprefix(_EVALUATED))
    header, rows = read_table(section.text)
    datasets = tuple(re.findall(r"`(.*?)`", named[1])) if named else ()
    if len(header) > 2:
        datasets = header[1:]
    return Evaluation(
        section.title, evaluator, link, datasets, read_parameters(section.text), tuple(map(_metric, rows))
    )


def _metric(row: tuple[str, ...]) -> Metric:
    name, *values = row
    primary = name.startswith("**") and name.endswith("**")
    bare = [cell[2:-2] if cell.startswith("**") and cell.endswith("**") else cell for cell in (name, *values)]
    return Metric(bare[0], tuple(map(number, bare[1:])), primary)


def write_evaluation(facts: Evaluation) -> str:
    """The heading, the evaluator and the table of one evaluation."""
    lines = [f"#### {facts.description}", ""]
    if facts.datasets:
        lines.append(f"* Dataset{'s' if len(facts.datasets) > 1 else ''}: {_listed(facts.datasets)}")
    lines += [_EVALUATED + write_class(facts.evaluator, facts.link) + write_parameters(facts.parameters), ""]
    header = ("Metric", *(facts.datasets if len(facts.datasets) > 1 else ("Value",)))
    return "\n".join([*lines, write_table(header, [_row(metric) for metric in facts.metrics])])


def _row(metric: Metric) -> list[str]:
    cells = [metric.name, *(str(value) for value in metric.values)]
    return [f"**{cell}**" for cell in cells] if metric.primary else cells


def _listed(names: tuple[str, ...]) -> str:
    quoted = [f"`{name}`" for name in names]
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]]) if len(quoted) > 1 else quoted[0]
