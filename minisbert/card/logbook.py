"""Log entries of a run as the rows of a card's table."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from .facts import TrainingLogs, TrainingTime
from .tables import number_text

_STEPS, _LOSS = ("Epoch", "Step"), "Training Loss"


def training_logs(
    entries: Sequence[Mapping[str, float]],
    *,
    log_every: int | None,
    primary: Collection[str],
    best_step: int | None,
) -> TrainingLogs | None:
    """One row for each step with an entry, or None where there is none.

    Args:
        entries: losses and metrics, the latter with "eval_" before their names.
        log_every: the loss of any other step, which is the last, is left out, as the reference does; None for all.
        primary: the metrics to show.
        best_step: the step of the kept weights, shown in bold.
    """
    rows: list[dict[str, float | int]] = []
    for entry in entries:
        values = {name.removeprefix("eval_"): value for name, value in entry.items() if name.startswith("eval_")}
        shown: dict[str, float] = {name: value for name, value in values.items() if name in primary}
        if "loss" in entry and (log_every is None or entry["step"] % log_every == 0):
            shown[_LOSS] = entry["loss"]
        if not shown:
            continue
        if not rows or rows[-1]["Step"] != entry["step"]:
            rows.append({"Epoch": float(entry["epoch"]), "Step": int(entry["step"])})
        rows[-1].update(shown)
    if not rows:
        return None
    names = list(dict.fromkeys(name for row in rows for name in row if name not in (*_STEPS, _LOSS)))
    losses = [_LOSS] if any(_LOSS in row for row in rows) else []
    columns = (*_STEPS, *losses, *names)
    bold = tuple(place for place, row in enumerate(rows) if row["Step"] == best_step)
    cells = (tuple(_cell(row.get(column), bold=place in bold) for column in columns) for place, row in enumerate(rows))
    return TrainingLogs(columns, tuple(cells), bold)


def _cell(value: float | int | None, *, bold: bool) -> str:
    if value is None:
        return "-"
    return str(round(value, 4)) if bold else number_text(value)


def training_time(seconds: float, evaluation_seconds: float = 0.0) -> TrainingTime:
    """How long a run took; what it spent on evaluations is shown apart."""
    if not evaluation_seconds:
        return TrainingTime(_duration(seconds))
    return TrainingTime(_duration(seconds - evaluation_seconds), _duration(evaluation_seconds), _duration(seconds))


def _duration(seconds: float) -> str:
    """In the largest unit of which it is at least one."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"
