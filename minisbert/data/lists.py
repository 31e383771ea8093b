"""Rows whose columns hold lists of positives and negatives, expanded to rows of one text for each column.

The forms are those of FlagEmbedding (`query`, `pos`, `neg`), of Tevatron (`positive_passages`, `negative_passages`,
whose entries have a title and a text), and any column of lists. The rule: a row becomes one row for each of its
positives, and every row gets the same number of negatives, that of the row with the most, but at most seven (what both
take by default): a row with more gives its first, one with fewer repeats its own. So every row fills every column.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..errors import InputError, shown, warn
from .rows import Table

MOST_NEGATIVES = 7
LEFT_OUT = ("pos_scores", "neg_scores", "pos_id", "neg_id", "prompt", "type", "query_id")  # of both


def expand_lists(
    table: Table, *, numbers: Collection[str], chosen: bool = False, like: Collection[str] | None = None
) -> Table:
    """Expand columns of lists; a table without any is returned as it is.

    Args:
        table: of any columns.
        numbers: columns that hold labels, which are left as they are.
        chosen: all columns are wanted, also those that beside lists are usually scores and ids.
        like: the columns that earlier rows of the same source were expanded to, of which each list fills its own.

    Raises:
        InputError: a list is empty, or a row has a text where others have lists.
    """
    candidates = {name: values for name, values in table.columns.items() if name not in numbers}
    lists = [name for name, values in candidates.items() if all(map(_is_list, values))]
    mixed = [name for name, values in candidates.items() if name not in lists and any(map(_is_list, values))]
    if mixed:
        row = next(row for row, value in enumerate(table.columns[mixed[0]]) if not _is_list(value))
        raise table.error(
            row, f"column {mixed[0]} holds no list as other rows do; expected one in each row: fix the row"
        )
    if not lists:
        return table
    left_out = [name for name in table.columns if name in LEFT_OUT and not chosen]
    texts = {
        name: [[_text(entry) for entry in value] for value in table.columns[name]]
        for name in lists
        if name not in left_out
    }
    for name, entries in texts.items():
        if (empty := next((row for row, value in enumerate(entries) if not value), None)) is not None:
            raise table.error(empty, f"column {name} holds an empty list; expected at least one text: drop the row")
        wrong = ((row, one) for row, value in enumerate(entries) for one in value if not isinstance(one, str))
        for row, one in wrong:
            raise table.error(row, f"column {name} holds a list with {shown(one)}; expected texts: choose columns")
    positives = next((name for name in texts if name.lower().startswith("pos")), None)
    widths = {name: _width(name, values, like) for name, values in texts.items() if name != positives}
    expanded: dict[str, list[Any]] = {}
    order = [row for row in range(len(table)) for _ in (texts[positives][row] if positives else (0,))]
    for name, values in table.columns.items():
        if name in left_out:
            continue
        if name == positives:
            expanded[name] = [text for row in texts[name] for text in row]
        elif name in texts:
            for place in range(widths[name]):
                column = name if widths[name] == 1 else f"{name}_{place + 1}"
                if column != name and column in table.columns:
                    raise InputError(
                        f"{table.source} has a column {column} beside the lists of {name}, which take that name; "
                        f"expected another one: rename it"
                    )
                expanded[column] = [texts[name][row][place % len(texts[name][row])] for row in order]
        else:
            expanded[name] = [values[row] for row in order]
    _report(table, texts, widths, left_out, repeated=len(order) - len(table), quiet=like is not None)
    return replace(table, columns=expanded, lines=None if table.lines is None else [table.lines[row] for row in order])


def _width(name: str, lists: Sequence[Sequence[str]], like: Collection[str] | None) -> int:
    """Return the number of columns that lists fill, or filled among the columns `like`."""
    if like is None:
        return min(max(map(len, lists)), MOST_NEGATIVES)
    return max(1, sum(f"{name}_{place}" in like for place in range(1, MOST_NEGATIVES + 1)))


def _report(
    table: Table,
    texts: Mapping[str, Sequence[Sequence[str]]],
    widths: Mapping[str, int],
    left_out: Sequence[str],
    *,
    repeated: int,
    quiet: bool,
) -> None:
    """Warn of what is left out, and of rows that share their anchor, unless earlier rows had a warning."""
    unused = sum(max(len(row) - width, 0) for name, width in widths.items() for row in texts[name])
    notes = [f"the columns {', '.join(left_out)} are left out"] if left_out else []
    if unused:
        notes.append(f"{unused:,} negatives beyond the first {MOST_NEGATIVES} of a row are left out")
    if repeated:
        notes.append(
            f"{repeated:,} rows share their anchor with another one: train on them with "
            f'batch_sampler="no_duplicates", or the positive of one is a negative of the other'
        )
    if notes and not quiet:
        warn(f"{table.source}: {'; '.join(notes)}")


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple)) or (hasattr(value, "tolist") and getattr(value, "ndim", 0) == 1)


def _text(entry: Any) -> Any:
    """The text of an entry; Tevatron's have a title before it."""
    if not isinstance(entry, Mapping) or not isinstance(entry.get("text"), str):
        return entry
    title = entry.get("title") or ""
    return f"{title} {entry['text']}".strip() if isinstance(title, str) else entry
