"""Steps per second of minisbert's Trainer and the reference's on the same rows, in fp32 and in bf16."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timing
import workloads
from limits import Rates, share, training_flops
from machine import table

from minisbert import SentenceTransformer, Trainer, TrainingConfig, losses
from minisbert.data.roles import training_rows
from minisbert.evaluation import EmbeddingSimilarityEvaluator
from minisbert.storage.locate import packaged_model

SIDES = ("minisbert fp32", "minisbert bf16", "sentence-transformers fp32", "sentence-transformers bf16")
BASELINE = "sentence-transformers fp32"
WARM_UP = 2  # steps that do not count
SEED = 42
SCORED_STEPS, SCORED_BATCH = 180, 16  # of the runs on STS-B whose results are scored
QUICK_STEPS = 2
PEAK_STEPS = 6  # of a run whose memory is measured


@dataclass(frozen=True)
class Case:
    """What is trained: a loss, rows in a batch, and optimizer steps that are timed."""

    loss: str
    batch_size: int
    steps: int


@dataclass(frozen=True)
class Course:
    """A run: when each step was logged, and its loss; with `log_every` in the settings, every so many steps."""

    ends: list[float]
    losses: list[float]

    @property
    def seconds(self) -> float:
        """Of the steps that count."""
        return self.ends[-1] - self.ends[WARM_UP - 1]


CASES = {
    "MultipleNegativesRanking, batch 64": Case("MultipleNegativesRankingLoss", 64, 4),
    "MultipleNegativesRanking, batch 8": Case("MultipleNegativesRankingLoss", 8, 24),
    "CosineSimilarity, batch 32, titles": Case("CosineSimilarityLoss", 32, 12),
}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Train each way in turn, several times from the same start, and score what STS-B makes of the model."""
    rates = Rates()
    found = {}
    for name, case in CASES.items():
        steps = QUICK_STEPS if options.quick else case.steps
        found[name] = compare(case, columns(case, options.data, steps + WARM_UP), steps, options.rounds, rates)
        for side, one in found[name]["sides"].items():
            if "not_available" not in one:
                one["peak_mb"] = peak(side, name, options)
        print(_case_table(name, found[name]), flush=True)
    return {
        "cases": found,
        "limits": rates.best(),
        "stsb": stsb(options.data, QUICK_STEPS + WARM_UP if options.quick else SCORED_STEPS),
    }


def columns(case: Case, data: Path | None, steps: int) -> dict[str, Any]:
    """As many rows as the steps take, so that each occurs once."""
    count = case.batch_size * steps
    found: dict[str, Any] = (
        workloads.rows(data, count) if "Ranking" in case.loss else workloads.rated_titles(data, count)
    )
    return {name: values[:count] for name, values in found.items()}


def compare(case: Case, rows: dict[str, Any], steps: int, rounds: int, rates: Rates) -> dict[str, Any]:
    """Time the sides in turn; the first steps of each run warm up."""
    settings = {"max_steps": steps + WARM_UP, "batch_size": case.batch_size, "learning_rate": 2e-5, "seed": SEED}
    made: dict[str, list[Course]] = {side: [] for side in SIDES}
    missing: dict[str, str] = {}
    for number in range(rounds):
        for side in timing.order(SIDES, number):
            if side not in missing:
                try:
                    made[side].append(train(side, case.loss, rows, settings)[0])
                except Exception as error:  # the other sides can still be measured
                    missing[side] = f"{type(error).__name__}: {error}".splitlines()[0]
        rates.measure()
    limits = rates.best(last=rounds)
    flops = training_flops(lengths_of(rows)) / (steps + WARM_UP)  # of a step, on average
    result = {}
    for side, courses in made.items():
        if side in missing:
            result[side] = {"not_available": missing[side]}
            continue
        seconds = [course.seconds / steps for course in courses]
        median = timing.spread(seconds)["median"]
        same = f"{BASELINE.split()[0]} {side.split()[-1]}"  # the reference in this precision
        baseline, alike = (
            [course.seconds / steps for course in made[other]] if other not in missing else None
            for other in (BASELINE, same)
        )
        limit = limits.get(side.split()[-1])
        result[side] = {
            "steps_per_second": 1 / median,
            "seconds": [round(value, 4) for value in seconds],
            "times_as_fast": timing.times_as_fast(seconds, baseline) if baseline else None,
            "times_as_fast_in_precision": timing.times_as_fast(seconds, alike) if alike else None,
            "share_of_limit": share(flops, median, limit["gflops"]) if limit else None,
            "first_loss": courses[0].losses[0],
            "last_loss": courses[0].losses[-1],
        }
    lengths = lengths_of(rows)
    return {
        "batch_size": case.batch_size,
        "steps": steps,
        "mean_tokens": round(sum(lengths) / len(lengths), 1),
        "histogram": workloads.histogram(lengths),
        "flops_of_a_step": flops,
        "limits": limits,
        "sides": result,
    }


def train(
    side: str,
    loss: str,
    rows: dict[str, Any],
    settings: dict[str, Any],
    *,
    device: str = "cpu",
    loss_options: dict[str, Any] | None = None,
) -> tuple[Course, Any]:
    """One run from the packaged model: its course, and the trained model."""
    library, precision = side.split()
    run: Callable[..., tuple[Course, Any]] = _minisbert if library == "minisbert" else _reference
    return run(loss, rows, {"log_every": 1, **settings}, precision, device, loss_options or {})


def _minisbert(
    loss: str, rows: dict[str, Any], settings: dict[str, Any], precision: Any, device: str, loss_options: dict[str, Any]
) -> tuple[Course, Any]:
    model = SentenceTransformer(packaged_model(), device=device, truncation="count")
    clock, ends = timing.clock_of(device), list[float]()
    config = TrainingConfig(**settings, precision=precision)
    trainer = Trainer(
        model,
        rows,
        loss=getattr(losses, loss)(**loss_options),
        config=config,
        on_log=lambda entry: ends.append(clock()),
        show_progress_bar=False,
    )
    logged = [entry["loss"] for entry in trainer.train().entries if "loss" in entry]
    return Course(ends[: len(logged)], logged), model


def _reference(
    loss: str, rows: dict[str, Any], settings: dict[str, Any], precision: str, device: str, loss_options: dict[str, Any]
) -> tuple[Course, Any]:
    import sentence_transformers as reference
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback

    clock, ends = timing.clock_of(device), list[float]()

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
            if "loss" in logs:
                ends.append(clock())

    model = reference.SentenceTransformer(str(packaged_model()), device=device)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = reference.SentenceTransformerTrainer(
            model=model,
            args=reference.SentenceTransformerTrainingArguments(
                output_dir=folder,
                max_steps=settings["max_steps"],
                per_device_train_batch_size=settings["batch_size"],
                learning_rate=settings["learning_rate"],
                seed=settings["seed"],
                bf16=precision == "bf16",
                fp16=precision == "fp16",
                logging_steps=settings["log_every"],
                save_strategy="no",
                report_to="none",
                use_cpu=device == "cpu",
                ddp_backend="gloo" if device == "cpu" and "WORLD_SIZE" in os.environ else None,
                disable_tqdm=True,
                dataloader_pin_memory=device != "cpu",
            ),
            train_dataset=Dataset.from_dict(rows),
            loss=getattr(reference.sentence_transformer.losses, loss)(model, **loss_options),
            callbacks=[Clock()],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return Course(ends, [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]), model


def stsb(data: Path | None, steps: int) -> dict[str, Any]:
    """Spearman on STS-B dev after training on STS-B train, in fp32 and bf16, where the data is at hand."""
    if data is None or not (data / "stsb/stsb_train.tsv.gz").is_file():
        return {}
    rows = training_rows(data / "stsb/stsb_train.tsv.gz", scale=(0, 5))
    dev = training_rows(data / "stsb/stsb_dev.tsv.gz")
    first, second = dev.texts.values()
    evaluator = EmbeddingSimilarityEvaluator(first, second, dev.labels or [])
    settings = {"max_steps": steps, "batch_size": SCORED_BATCH, "learning_rate": 5e-5, "seed": SEED}
    scores = {"before": evaluator(SentenceTransformer(packaged_model(), device="cpu"))["spearman_cosine"]}
    for side in SIDES:
        _, model = train(side, "CosineSimilarityLoss", {**rows.texts, "label": rows.labels}, settings)
        if not isinstance(model, SentenceTransformer):
            with tempfile.TemporaryDirectory() as folder:  # scored by one and the same code
                model.save_pretrained(folder)
                model = SentenceTransformer(folder, device="cpu")
        scores[side] = evaluator(model)["spearman_cosine"]
    return {"steps": steps, "batch_size": SCORED_BATCH, "spearman": scores}


def table_of(result: dict[str, Any]) -> str:
    """What comes after the tables of the cases."""
    scored = result["stsb"]
    if not scored:
        return "no STS-B at hand: nothing is scored"
    title = f"STS-B dev Spearman after {scored['steps']} steps of {scored['batch_size']} pairs"
    return table([(title, ""), *scored["spearman"].items()])


def peak(side: str, name: str, options: argparse.Namespace) -> float | None:
    """Peak memory of a process that trains for a few steps, in MB; None if it fails."""
    command = [sys.executable, "-m", "commands.train", side, name, str(options.threads), str(options.data or "")]
    root = Path(__file__).parents[1]
    path = os.pathsep.join([str(root), str(root.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    return None if done.returncode else float(done.stdout.splitlines()[-1])


def _train_alone(side: str, name: str, threads: int, data: Path | None) -> float:
    """Train in this process, and return its peak memory in MB."""
    import torch

    torch.set_num_threads(threads)
    case = CASES[name]
    settings = {"max_steps": PEAK_STEPS, "batch_size": case.batch_size, "learning_rate": 2e-5, "seed": SEED}
    train(side, case.loss, columns(case, data, PEAK_STEPS), settings)
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(round(int(line.split()[1]) * 1.024e-3, 1) for line in lines if line.startswith("VmHWM:"))


def lengths_of(rows: dict[str, Any]) -> list[int]:
    """Tokens of all texts."""
    model = SentenceTransformer(packaged_model(), device="cpu", truncation="count")
    texts = [text for name, values in rows.items() if name != "label" for text in values]
    found: list[int] = model.transformer.tokenizer(texts).lengths.tolist()
    return found


def _case_table(name: str, found: dict[str, Any]) -> str:
    rows: list[tuple[Any, ...]] = [("", "steps/s", "x reference", "low", "high", "of limit", "first loss", "last loss")]
    for side, one in found["sides"].items():
        if "not_available" in one:
            rows.append((side, f"not available: {one['not_available']}", *[""] * 6))
            continue
        fast = one["times_as_fast"] or {}
        rows.append(
            (
                side,
                f"{one['steps_per_second']:.2f}",
                *(f"{fast[part]:.2f}" if fast else "" for part in ("median", "low", "high")),
                f"{one['share_of_limit']:.0%}" if one["share_of_limit"] else "",
                one["first_loss"],
                one["last_loss"],
            )
        )
    shape = ", ".join(f"{span}: {count}" for span, count in found["histogram"].items())
    return f"{name}: mean {found['mean_tokens']} tokens a text ({shape})\n{table(rows)}\n"


if __name__ == "__main__":
    _, _side, _name, _threads, _data = sys.argv
    print(_train_alone(_side, _name, int(_threads), Path(_data) if _data else None))
