"""The page of the documentation that lists the names, from results/names.json."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

TITLES = {
    "": "sentence_transformers",
    "sentence_transformer.losses": "sentence_transformers.losses",
    "sentence_transformer.evaluation": "sentence_transformers.evaluation",
    "sentence_transformer.modules": "sentence_transformers.models",
    "sentence_transformer.modules.tokenizer": "sentence_transformers.models.tokenizer",
    "sentence_transformer.datasets": "sentence_transformers.datasets",
    "sentence_transformer.readers": "sentence_transformers.readers",
}
_SHOWN = 6  # parts of a difference
_START = """# Names

Every name of the dense part of sentence-transformers {version}, and what [`minisbert.compat`](compat.md) has
under it. A name is *same* if it can be imported from the same place, its parameters have the same names, order and
defaults, and the tests run it; *unused* if no test does. A class stands for its constructor.

{counts}

Cross, sparse and multi-vector encoders are not counted. Their names can be imported and are refused when they are used,
as are the missing ones below. This page is written by `python benchmarks/names.py`.
"""


def counts(result: dict[str, Any]) -> str:
    """Return one line: how many names are same, different and missing."""
    names = result["names"].values()
    same = [one for one in names if one["state"] == "same"]
    number = {state: sum(one["state"] == state for one in names) for state in ("different", "missing")}
    unused = sum(not one.get("used") for one in same)
    return (
        f"Of {len(names)} names {len(same) - unused} are the same, {unused} are the same but used by no test, "
        f"{number['different']} are different and {number['missing']} are missing."
    )


def render(result: dict[str, Any]) -> str:
    """Return the page, in Markdown: a table for each module, a row for a class and one for each exception in it."""
    parts = [_START.format(version=result["version"], counts=counts(result))]
    modules: dict[str, dict[str, dict[str, Any]]] = {}
    for key, one in result["names"].items():
        modules.setdefault(one["module"], {})[key] = one
    for module, names in modules.items():
        title = TITLES.get(module, f"sentence_transformers.{module}")
        rows = "\n".join(f"| {' | '.join(row)} |" for row in _rows(names))
        parts.append(f"## {title}\n\n| name | | |\n|---|---|---|\n{rows}\n")
    return "\n".join(parts)


def _rows(names: dict[str, dict[str, Any]]) -> Iterable[tuple[str, str, str]]:
    for key in sorted((key for key in names if "." not in key), key=str.lower):
        members = {name: one for name, one in names.items() if name.startswith(f"{key}.")}
        together = {_state(one) for one in (names[key], *members.values())}
        if len(together) == 1 and not any("how" in one for one in members.values()):
            yield (f"`{key}`{_with(members)}", *_cells(names[key]))
            continue
        yield (f"`{key}`", *_cells(names[key]))
        alike: dict[tuple[str, str], list[str]] = {}
        for name, one in members.items():
            alike.setdefault(_cells(one), []).append(name.partition(".")[2])
        for cells, found in alike.items():
            yield (", ".join(f"`.{name}`" for name in found), *cells)


def _with(members: dict[str, dict[str, Any]]) -> str:
    return f" with `.{'`, `.'.join(name.partition('.')[2] for name in members)}`" if members else ""


def _state(one: dict[str, Any]) -> str:
    return "unused" if one["state"] == "same" and not one.get("used") else one["state"]


def _cells(one: dict[str, Any]) -> tuple[str, str]:
    state = _state(one)
    said = f"**{state}**" if state in ("missing", "different") else state
    parts = one.get("how", "").split(", ")
    how = ", ".join([*parts[:_SHOWN], f"and {len(parts) - _SHOWN} more"] if len(parts) > _SHOWN + 1 else parts)
    return said, "; ".join(filter(None, (how, one.get("why")))).replace("|", "\\|")
