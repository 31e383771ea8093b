"""The README's tables from the files in results/.

python benchmarks/report.py           # print them
python benchmarks/report.py --write   # put them into README.md
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parents[1] / "README.md"
START, END = "<!-- measured: start -->", "<!-- measured: end -->"


def render() -> str:
    """The Markdown between the two marks."""
    startup, stsb, wiki = (_read(name) for name in ("startup", "training_stsb", "training_wiki_title"))
    return "\n\n".join([_startup(startup), _scores(stsb), _curves(stsb, wiki), _machine(startup)])


def _startup(result: dict[str, Any]) -> str:
    rows = [
        (name, f"{values['median']:.2f} s", f"{values['min']:.2f} to {values['max']:.2f} s", result["modules"][name])
        for name, values in result["seconds"].items()
    ]
    over = 1000 * result["over_torch_median"]
    return (
        f"Importing, and the first embedding of a fresh process (`benchmarks/startup.py`, {result['runs']} runs, "
        f"interleaved). All of minisbert costs {over:.0f} ms over `import torch`.\n\n"
        + _table(("", "median", "range", "modules"), rows)
    )


def _scores(result: dict[str, Any]) -> str:
    rows = [
        ("before", f"{result['before']:.4f}"),
        ("after, minisbert", f"{result['minisbert']['spearman']:.4f}"),
        ("after, sentence-transformers", f"{result['reference']['spearman']:.4f}"),
    ]
    steps = result["minisbert"]["steps"][-1]
    return (
        f"Fine-tuning all-MiniLM-L6-v2 on STS-B train, CosineSimilarityLoss, {steps} steps of "
        f"{result['settings']['batch_size']} pairs, same rows, order and settings (`benchmarks/training.py`):\n\n"
        + _table(("", "STS-B dev Spearman"), rows)
    )


def _curves(stsb: dict[str, Any], wiki: dict[str, Any]) -> str:
    rows = []
    for name, result in (("STS-B, CosineSimilarityLoss", stsb), ("wiki_title, MultipleNegativesRankingLoss", wiki)):
        logged = zip(
            result["minisbert"]["steps"], result["minisbert"]["losses"], result["reference"]["losses"], strict=True
        )
        known = [row for row in logged if not math.isnan(row[2])]
        for step, ours, theirs in known[:: max(1, len(known) // 4)]:
            rows.append((name, step, f"{ours:.4f}", f"{theirs:.4f}"))
    return (
        "Mean training loss up to a step. Dropout is on and drawn differently on the two sides, so the curves agree as "
        "two seeds do:\n\n" + _table(("data and loss", "step", "minisbert", "sentence-transformers"), rows)
    )


def _machine(result: dict[str, Any]) -> str:
    machine = result["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items() if name != "minisbert")
    return (
        f"Measured on {machine['date']} with {machine['threads']} threads of an {machine['cpu']} (family/model "
        f"{machine['family_model']}, {machine['instructions']}), Python {machine['python']}, {versions}."
    )


def _table(header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _read(name: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    if not parser.parse_args().write:
        print(render())
        return
    before, rest = README.read_text(encoding="utf-8").split(START)
    after = rest.split(END)[1]
    README.write_text(f"{before}{START}\n\n{render()}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
