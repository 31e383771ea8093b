"""How a model was trained: hyperparameters, logs, time, emissions."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .facts import Emissions, TrainingLogs, TrainingTime
from .tables import read_table, write_table

_MOST_LOG_ROWS = 100
_SETTING = re.compile(r"- `(\w+)`: (.*)")
_FIELD = re.compile(r"- \*?\*?([^*:]+?)\*?\*?: (.*)")


def read_hyperparameters(text: str) -> dict[str, str]:
    """Values as printed by name."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in text.split("\n"):
        if setting := _SETTING.fullmatch(line):
            name = setting[1]
            found[name] = [setting[2]]
        elif line == "</details>":
            break
        elif name:  # a value of several lines
            found[name].append(line)
    return {name: "\n".join(lines).rstrip("\n") for name, lines in found.items()}


def write_hyperparameters(non_default: Mapping[str, str], everything: Mapping[str, str]) -> str:
    """The whole section."""
    lines = ["### Training Hyperparameters"]
    if non_default:
        lines += ["#### Non-Default Hyperparameters", "", _settings(non_default), ""]
    lines += ["#### All Hyperparameters", "<details><summary>Click to expand</summary>", ""]
    return "\n".join([*lines, _settings(everything), "", "</details>"])


def _settings(values: Mapping[str, str]) -> str:
    return "\n".join(f"- `{name}`: {value}" for name, value in values.items())


def read_logs(text: str) -> TrainingLogs:
    """The table of logs."""
    header, rows = read_table(text)
    bold = tuple(place for place, row in enumerate(rows) if all(re.fullmatch(r"\*\*.*\*\*", cell) for cell in row))
    plain = (tuple(cell[2:-2] for cell in row) if place in bold else row for place, row in enumerate(rows))
    return TrainingLogs(header, tuple(plain), bold)


def write_logs(logs: TrainingLogs) -> str:
    """The whole section; a long table is folded away."""
    rows = [[f"**{cell}**" for cell in row] if place in logs.bold_rows else row for place, row in enumerate(logs.rows)]
    table = write_table(logs.columns, rows, centred=True)
    if logs.bold_rows:
        table += "\n\n* The row in bold is of the saved checkpoint."
    if len(rows) > _MOST_LOG_ROWS:
        table = f"<details><summary>Click to expand</summary>\n\n{table}\n\n</details>"
    return f"### Training Logs\n{table}\n"


def read_fields(text: str) -> dict[str, str]:
    """Lines such as "- **Training**: 3.1 seconds" by name."""
    return {field[1]: field[2] for line in text.split("\n") if (field := _FIELD.fullmatch(line))}


def read_time(text: str) -> TrainingTime:
    """The durations."""
    fields = read_fields(text)
    return TrainingTime(fields["Training"], fields.get("Evaluation"), fields.get("Total"))


def write_time(time: TrainingTime) -> str:
    """The whole section."""
    fields = {"Training": time.training, "Evaluation": time.evaluation, "Total": time.total}
    lines = [f"- **{name}**: {value}" for name, value in fields.items() if value is not None]
    return "\n".join(["### Training Time", *lines])


def write_emissions(cost: Emissions) -> str:
    """The sections on emissions and hardware."""
    lines = [
        "### Environmental Impact",
        "[CodeCarbon](https://github.com/mlco2/codecarbon) measured what the training cost.",
        f"- **Energy Consumed**: {cost.energy_consumed:.3f} kWh",
        f"- **Carbon Emitted**: {cost.emissions / 1000:.3f} kg of CO2",
        *([f"- **Hours Used**: {cost.hours_used} hours"] if cost.hours_used is not None else []),
        "",
        "### Training Hardware",
        f"- **On Cloud**: {'Yes' if cost.on_cloud else 'No'}",
        f"- **GPU Model**: {cost.hardware_used or 'No GPU used'}",
        f"- **CPU Model**: {cost.cpu_model}",
        f"- **RAM Size**: {cost.ram_total_size:.2f} GB",
    ]
    return "\n".join(lines)
