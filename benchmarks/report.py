"""Render the measured tables from the files in results/.

python benchmarks/report.py            # print the tables
python benchmarks/report.py --write    # put the tables into benchmarks/README.md, the headline into README.md,
                                       # the families into docs/families.md
python benchmarks/report.py --picture  # draw the charts in results/ (needs matplotlib)
"""

from __future__ import annotations

import argparse
import json
import math
import re
from pathlib import Path
from typing import Any

from gpu.tables import UNMEASURED, gpu
from parity_table import parity_table
from picture import draw_cached, draw_encode
from scale_tables import draw_scale, scale
from speed_tables import REFERENCE, families_in_short, machine_line
from speed_tables import SECTIONS as ON_THE_CPU
from speed_tables import markdown as _table

RESULTS = Path(__file__).parent / "results"
TABLES = Path(__file__).with_name("README.md")
README = Path(__file__).parents[1] / "README.md"
FAMILIES = Path(__file__).parents[1] / "docs" / "families.md"
OTHER_PROCESSOR = "encode_26_2"
OLDER_GRAPH = "ONNX Runtime and OpenVINO had an older graph of the model there, with fewer operators that they fuse."
SECTIONS = {
    **ON_THE_CPU,
    OTHER_PROCESSOR: lambda result: f"{ON_THE_CPU['encode'](result)}\n\n{OLDER_GRAPH}",
    "scale": scale,
    "gpu": gpu,
}
TITLES = {
    "encode": "Encoding",
    "train": "Training speed",
    "latency": "One short text",
    "memory": "Memory",
    "cached": "Large batches",
    "kernels": "Operations",
    "families": "Model families",
    "static": "Static models",
    OTHER_PROCESSOR: "Encoding on a newer processor",
    "scale": "Scale",
    "gpu": "On a GPU",
}
PICTURES = {
    "encode": "Texts per second by length: minisbert, sentence-transformers, ONNX Runtime, OpenVINO and CTranslate2",
    "cached": "Peak memory and time of a training step by pairs in a batch: plain, and with the gradient cache of both",
    "scale": "Steps per second by ranks, memory by rows of a token store, and titles per second by engine",
}
# The marks are also those of a snippet, by which the documentation includes the tables.
START, END = "<!-- --8<-- [start:measured] -->", "<!-- --8<-- [end:measured] -->"
HEADLINE_START, HEADLINE_END = "<!-- headline: start -->", "<!-- headline: end -->"
FAMILIES_START, FAMILIES_END = "<!-- families: start -->", "<!-- families: end -->"


def render() -> str:
    """Return the tables: the Markdown between the two marks of benchmarks/README.md."""
    startup, stsb, wiki = (_read(name) for name in ("startup", "training_stsb", "training_wiki_title"))
    parity, seeds = _read("parity"), _read("packed_and_replay")
    recipes = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("reproduce_*.json"))]
    parts = ["## The same numbers", parity_table(parity), _seeds(seeds)]
    parts += ["## Results of training", _scores(stsb), _curves(stsb, wiki), machine_line(stsb)]
    parts += ["## Recipes of five model cards", _recipes(recipes), machine_line(recipes[0])] if recipes else []
    parts += ["## Versions", _versions(_read("versions"))]
    parts += ["## Start-up", _startup(startup), machine_line(startup), *_speeds()]
    return "\n\n".join(parts)


def headline() -> str:
    """Return the table of README.md: medians of the ratios to the reference, over all classes of texts."""
    encoded, trained, latency, startup = (_read(name) for name in ("encode", "train", "latency", "startup"))
    machine = encoded["machine"]
    newer = _read(OTHER_PROCESSOR)
    texts, there = ([one["contenders"] for one in result["classes"].values()] for result in (encoded, newer))
    steps = [case["sides"] for case in trained["cases"].values()]
    rows = [
        ("embedding many texts", *_medians(texts, "times_as_fast_as", REFERENCE)),
        ("the same on a newer processor", *_medians(there, "times_as_fast_as", REFERENCE)),
        ("embedding one short text", *_medians([latency["contenders"]], "times_as_fast")),
        ("a training step", *_medians(steps, "times_as_fast")),
    ]
    ours, theirs = (startup["seconds"][f"first embedding, {side}"]["median"] for side in ("minisbert", "reference"))
    version = machine["versions"][REFERENCE]
    elsewhere = _elsewhere(machine, {"Training": trained, "One short text": latency, "the second row": newer})
    return (
        _table((f"times as fast as {REFERENCE} {version}", "float32", "bfloat16", "int8"), rows)
        + f"\n\nMeasured on {machine['threads']} threads of an {machine['cpu']} with the C++ kernels; the "
        f"reference computes in float32. A fresh process has its first embedding after {ours:.1f} s instead of "
        f"{theirs:.1f} s.{elsewhere}"
    )


def _elsewhere(machine: dict[str, Any], others: dict[str, dict[str, Any]]) -> str:
    """Say what was measured on another processor than `machine`, when, and on which."""
    places: dict[tuple[str, str], list[str]] = {}
    for name, result in others.items():
        if (family := result["machine"]["family_model"]) != machine["family_model"]:
            places.setdefault((result["machine"]["date"], family), []).append(name)
    return "".join(
        f" {' and '.join(names)} {'were' if len(names) > 1 else 'was'} measured on {date} on another processor of that "
        f"name (family/model {family}, the others on {machine['family_model']})."
        for (date, family), names in places.items()
    )


def _medians(groups: list[dict[str, Any]], *keys: str) -> list[str]:
    """Return the smallest and largest median ratio among groups of contenders, for each precision."""
    shown = []
    for precision in ("fp32", "bf16", "int8"):
        medians = []
        for contenders in groups:
            ratio = contenders.get(f"minisbert {precision}", {})
            for key in keys:
                ratio = ratio.get(key, {})
            medians += [f"{ratio['median']:.1f}"] if ratio else []
        low, high = min(medians, key=float, default=""), max(medians, key=float, default="")
        shown.append(low if low == high else f"{low} to {high}")
    return shown


def _speeds() -> list[str]:
    """Return the sections of `run.py`, those that have results."""
    found = {name: _read(name) for name in SECTIONS if (RESULTS / f"{name}.json").is_file()}
    parts = [
        part
        for name, result in found.items()
        for part in (f"## {TITLES[name]}", SECTIONS[name](result), *_picture(name), machine_line(result))
    ]
    return parts if "gpu" in found else [*parts, "## On a GPU", UNMEASURED]


def _picture(name: str) -> list[str]:
    drawn = name in PICTURES and (RESULTS / f"{name}.svg").is_file()
    return [f"![{PICTURES[name]}](results/{name}.svg)"] if drawn else []


def _seeds(result: dict[str, Any]) -> str:
    scores, last = result["spearman"], result["losses"][-1]
    rows = []
    for name, values in (("STS-B dev Spearman", scores), ("mean loss of the last window", last)):
        both = (f"{values[layout]:.4f} ± {values[f'{layout}_spread']:.4f}" for layout in ("packed", "replay"))
        rows.append((name, *both, f"{values['difference']:+.4f} ± {values['standard_error']:.4f}"))
    steps = result["settings"]["max_steps"]
    return (
        f"Packed training against replay of the reference, both with dropout: {steps} steps on "
        f"STS-B, {result['seeds']} seeds, mean ± standard deviation, and the mean difference of equal seeds ± its "
        f"standard error (`benchmarks/packed_and_replay.py`):\n\n"
        + _table(("", "packed", "replay", "difference"), rows)
    )


def _recipes(results: list[dict[str, Any]]) -> str:
    rows = []
    for recipe in results:
        runs = recipe["runs"]
        last = (f"{runs[way]['losses'][-1][1]:.4f}" for way in ("reference", "packed"))
        scores = (f"{runs[way]['metric']:.4f}" for way in ("reference", "packed"))
        seconds = (f"{runs[way]['seconds']:.0f} s" for way in ("reference", "packed"))
        difference = recipe["replay_largest_difference"]
        replayed = f"{difference:.1e}" if difference else "0"
        metric = f"{recipe['metric'].removeprefix('cosine_')}, from {recipe['before']:.4f}"
        rows.append((recipe["recipe"], recipe["batches"], replayed, *last, metric, *scores, *seconds))
    header = (
        "recipe",
        "steps",
        "replay: difference",
        "loss, reference",
        "minisbert",
        "metric, from the untrained model",
    )
    return (
        "The recipes of five published model cards, followed on real rows that stand in for their own by the "
        "reference's `fit` and by minisbert, with the same rows, seed and settings (`benchmarks/reproduce.py` prints "
        "the losses along the way, and every card fact that differs). The replay repeats the reference's losses: the "
        "largest difference of any batch. The other columns are of packed training; losses are means of the last "
        "eighth of the run, times are from loaded model to saved model:\n\n"
        + _table((*header, "reference", "minisbert", "time, reference", "minisbert"), rows)
    )


def _versions(result: dict[str, Any]) -> str:
    """Return what was tried, and what came of it."""
    tried = [one for one in result["tried"] if one["outcome"] != "skipped"]
    names = list(tried[0]["versions"])
    rows = []
    for one in tried:
        tests = ", ".join(re.findall(r"\d+ (?:passed|failed)", one["detail"])) or one["detail"]
        rows.append((f"{one['python']}, {one['set']}", *(one["versions"].get(name, "") for name in names), tests))
    return (
        "The wheel, made from the source distribution, installed in clean environments with the lowest and the newest "
        "versions, and the tests of models, losses, modules, files, training, evaluation and cards run there "
        f"(`benchmarks/versions.py`, {result['machine']['date']}):\n\n" + _table(("Python", *names, "tests"), rows)
    )


def _startup(result: dict[str, Any]) -> str:
    rows = [
        (name, f"{values['median']:.2f} s", f"{values['min']:.2f} to {values['max']:.2f} s", result["modules"][name])
        for name, values in result["seconds"].items()
    ]
    over = 1000 * result["over_torch_median"]
    return (
        f"Importing, and the first embedding of a fresh process (`benchmarks/run.py startup`, {result['runs']} runs, "
        f"interleaved). In a process that has imported torch, all of minisbert takes another {over:.0f} ms.\n\n"
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


def _read(name: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--picture", action="store_true")
    options = parser.parse_args()
    if options.picture:
        print(draw_encode(_read("encode"), RESULTS / "encode.svg"))
        print(draw_cached(_read("cached"), RESULTS / "cached.svg"))
        print(draw_scale(_read("scale"), RESULTS / "scale.svg"))
        return
    if not options.write:
        print(render())
        return
    _replace(TABLES, START, render(), END)
    _replace(README, HEADLINE_START, headline(), HEADLINE_END)
    _replace(FAMILIES, FAMILIES_START, families_in_short(_read("families")), FAMILIES_END)


def _replace(path: Path, start: str, text: str, end: str) -> None:
    """Put `text` between two marks of a file."""
    before, rest = path.read_text(encoding="utf-8").split(start)
    path.write_text(f"{before}{start}\n\n{text}\n\n{end}{rest.split(end)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
