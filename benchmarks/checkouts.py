"""Time two checkouts of minisbert against each other, interleaved, with equal threads.

    python benchmarks/checkouts.py OLD [NEW] [--data FOLDER] [--rounds N] [--plain] [--only TEXT]

OLD and NEW (this checkout by default) are roots of checkouts. Each runs in a process of its own that stays alive; the
tasks of both take turns, and the process that waits sleeps. A ratio above 1 says that NEW is faster. `--plain` leaves
the compiled kernels out; otherwise they are built for both first.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[2] / "shared" / "data"
SHORT = ["How do I read a large file line by line?"]
CALLS = 40  # of one short text, whose median is one time
DTYPES = ("float32", "bfloat16", "int8")
TRAINING = {
    "MultipleNegativesRanking, batch 64": ("MultipleNegativesRankingLoss", 64, 3),
    "MultipleNegativesRanking, batch 8": ("MultipleNegativesRankingLoss", 8, 12),
    "CosineSimilarity, batch 32, titles": ("CosineSimilarityLoss", 32, 6),
}
WARM_UP = 2  # steps of a training run that do not count
TASKS = (
    *(f"encode titles, {dtype}" for dtype in DTYPES),
    *(f"encode paragraphs, {dtype}" for dtype in DTYPES),
    *(f"one short text, {dtype}" for dtype in DTYPES),
    *(f"train {name}, {precision}" for name in TRAINING for precision in ("fp32", "bf16")),
)


class Tasks:
    """The tasks, in the process of one checkout."""

    def __init__(self, data: Path | None) -> None:
        self._data = data
        self._models: dict[str, Any] = {}

    def seconds(self, task: str) -> float:
        """Run a task once, and return how long it took."""
        if task.startswith("train "):
            name, precision = task.removeprefix("train ").rsplit(", ", 1)
            return self._training(*TRAINING[name], precision)
        job, dtype = task.rsplit(", ", 1)
        model = self._model(dtype)
        if job == "one short text":
            return median_of(lambda: model.encode(SHORT))
        texts = self._texts(job.removeprefix("encode "))
        start = time.perf_counter()
        model.encode(texts)
        return time.perf_counter() - start

    def _model(self, dtype: str) -> Any:
        from minisbert import SentenceTransformer

        if dtype not in self._models:
            model = SentenceTransformer("all-MiniLM-L6-v2", device="cpu", dtype=dtype, truncation="count")
            self._models[dtype] = model
        return self._models[dtype]

    def _texts(self, kind: str) -> list[str]:
        import workloads

        return workloads.texts(self._data, kind, {"titles": 1_000, "paragraphs": 300}[kind])

    def _training(self, loss: str, batch_size: int, steps: int, precision: str) -> float:
        import workloads

        from minisbert import SentenceTransformer, Trainer, TrainingConfig, losses

        count = batch_size * (steps + WARM_UP)
        columns = workloads.rows if "Ranking" in loss else workloads.rated_titles
        rows = {name: values[:count] for name, values in columns(self._data, count).items()}
        ends: list[float] = []
        Trainer(
            SentenceTransformer("all-MiniLM-L6-v2", device="cpu", truncation="count"),
            rows,
            loss=getattr(losses, loss)(),
            config=TrainingConfig(batch_size=batch_size, max_steps=steps + WARM_UP, log_every=1, precision=precision),
            on_log=lambda _: ends.append(time.perf_counter()),
            show_progress_bar=False,
        ).train()
        return (ends[steps + WARM_UP - 1] - ends[WARM_UP - 1]) / steps


def median_of(call: Callable[[], object]) -> float:
    """Median time of many calls."""
    taken = []
    for _ in range(CALLS):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return sorted(taken)[CALLS // 2]


class Checkout:
    """The process of one checkout."""

    def __init__(self, root: Path, options: argparse.Namespace, home: Path) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": str(root),
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": str(options.threads),
            "RAYON_NUM_THREADS": str(options.threads),
        }
        if options.plain:
            environment["MINISBERT_ISA"] = "none"
        else:
            in_package, on_demand = ["setup.py", "build_ext", "--inplace"], ["-m", "minisbert", "kernels", "--build"]
            build = [sys.executable, *(in_package if (root / "setup.py").is_file() else on_demand)]
            subprocess.run(build, env=environment, cwd=root, check=True, capture_output=True)
        command = [sys.executable, __file__, str(root), "--serve"]
        if options.data is not None:
            command += ["--data", str(options.data)]
        self._process = subprocess.Popen(
            command, env=environment, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def seconds(self, task: str) -> float:
        """Run a task in the checkout."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(task + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("{"):
                return float(json.loads(line)["seconds"])
        raise SystemExit(f"the process of a checkout ended with status {self._process.wait()} in {task!r}")

    def end(self) -> None:
        """End the process."""
        self._process.communicate()


def serve(data: Path | None) -> None:
    """Answer the names of tasks on standard input with their times."""
    tasks = Tasks(data)
    for line in sys.stdin:
        print(json.dumps({"seconds": tasks.seconds(line.strip())}), flush=True)


def main() -> None:
    """Time, print a table, then one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path, metavar="OLD")
    parser.add_argument("new", nargs="?", type=Path, default=Path(__file__).parents[1], metavar="NEW")
    parser.add_argument("--data", type=Path, default=DATA if DATA.is_dir() else None, metavar="FOLDER")
    parser.add_argument("--rounds", type=int, default=7, metavar="N")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, metavar="N")
    parser.add_argument("--plain", action="store_true", help="leave the compiled kernels out")
    parser.add_argument("--only", default="", metavar="TEXT", help="only tasks whose names hold this")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.data)
        return
    for root in (options.old, options.new):
        if not (root / "minisbert").is_dir():
            parser.error(f"got {root}; expected a checkout with a folder minisbert/")

    import timing
    from machine import table

    print(timing.warning(timing.load()) or "the machine is quiet", flush=True)
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as home:
        sides = {
            name: Checkout(root.resolve(), options, Path(home) / name)
            for name, root in (("old", options.old), ("new", options.new))
        }
        rows: list[tuple[Any, ...]] = [("task", "old", "new", "new is faster by", "low", "high")]
        for task in (name for name in TASKS if options.only in name):
            for side in sides.values():
                side.seconds(task)  # warms up
            seconds: dict[str, list[float]] = {name: [] for name in sides}
            for number in range(options.rounds):
                for name in timing.order(list(sides), number):
                    seconds[name].append(sides[name].seconds(task))
            ratio = timing.times_as_fast(seconds["new"], seconds["old"])
            result[task] = {"seconds": seconds, "ratio": ratio}
            medians = (f"{timing.spread(seconds[name])['median'] * 1000:.2f} ms" for name in sides)
            rows.append((task, *medians, *(f"{ratio[part]:.3f}" for part in ("median", "low", "high"))))
            print("  ".join(map(str, rows[-1])), flush=True)
        for side in sides.values():
            side.end()
    print(table(rows))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
