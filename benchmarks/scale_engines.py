"""Engines that embed a table with `Embedder`, each in a fresh process, beside a plain loop with the same cores.

The engines are those of the environment that MINISBERT_ENGINES names (tests/engines/environments.py makes it).
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

import timing
import workloads
from commands.memory import watched
from machine import table

TEXTS, QUICK_TEXTS = 100_000, 2_000
BATCH = 8_192  # rows
ROUNDS = 2
DTYPE: Any = "bfloat16"
PLAIN = "plain loop"
TIMED = "the whole job is timed, with the loading of models, and without the start of the engine itself"


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Embed the texts each way in turn, as often as there are rounds."""
    count = QUICK_TEXTS if options.quick else TEXTS
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in JOBS}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "texts.parquet"
        _write(file, workloads.many(options.data, count))
        for number in range(min(options.rounds, ROUNDS)):
            for way in timing.order(list(JOBS), number):
                runs[way].append(_run(way, file, options.threads))
    return {
        "texts": count,
        "dtype": DTYPE,
        "timed": TIMED,
        "ways": {way: _together(several, runs[PLAIN]) for way, several in runs.items()},
    }


def table_of(result: dict[str, Any]) -> str:
    """For people."""
    rows: list[tuple[Any, ...]] = [("", "rows/s", f"x the {PLAIN}", "MB of all processes")]
    for way, one in result["ways"].items():
        if "not_available" in one:
            rows.append((way, f"not available: {one['not_available']}", "", ""))
            continue
        fast = one["times_as_fast"]
        shown = f"{fast['median']:.2f}" if fast else ""
        rows.append((way, f"{result['texts'] / one['seconds']['median']:,.0f}", shown, f"{one['peak_mb']:,.0f}"))
    return table(rows)


def _together(runs: list[dict[str, Any]], plain: list[dict[str, Any]]) -> dict[str, Any]:
    for run in runs:
        if "not_available" in run:
            return run
    seconds = [run["seconds"] for run in runs]
    compared = runs is not plain and not any("not_available" in run for run in plain)
    return {
        "seconds": timing.spread(seconds),
        "times_as_fast": timing.times_as_fast(seconds, [run["seconds"] for run in plain]) if compared else None,
        "peak_mb": max(run["peak_mb"] for run in runs),
    }


def _write(file: Path, texts: list[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": texts}), file)


def _run(way: str, file: Path, cores: int) -> dict[str, Any]:
    """Run a job in a fresh process; return its seconds and the peak of all its processes."""
    environment = os.environ.get("MINISBERT_ENGINES")
    python = str(Path(environment) / "bin" / "python") if environment else sys.executable
    root = Path(__file__).parents[1]
    settings = {
        name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "RAYON_NUM_THREADS")
    }
    settings |= {
        "PYTHONPATH": os.pathsep.join([str(root / "benchmarks"), str(root)]),
        "PYSPARK_PYTHON": python,
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    command = [python, "-m", "scale_engines", way, str(file), str(cores)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=settings, cwd=file.parent
    )
    with watched(lambda: _memory(process.pid), every=1.0) as peak:
        output, errors = process.communicate()
    if process.returncode:
        return {"not_available": (errors.strip().splitlines() or [f"exit status {process.returncode}"])[-1]}
    return {"seconds": json.loads(output.splitlines()[-1])["seconds"], "peak_mb": peak[0]}


def _memory(process: int) -> float:
    """Return the memory of a process and its descendants, shared pages divided among them (Pss), in MB."""
    return round(sum(map(_pss, _family(process))), 1)


def _family(process: int) -> set[int]:
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
    family = {process}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return family


def _pss(process: int) -> float:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1.024e-3 for line in lines if line.startswith("Pss:")), 0.0)


# ---- in the fresh process -------------------------------------------------------------------------------------------


def _plain(file: Path, cores: int) -> Callable[[], int]:
    import pyarrow.parquet as pq
    import torch

    from minisbert import Embedder

    torch.set_num_threads(cores)
    embedder = Embedder("all-MiniLM-L6-v2", dtype=DTYPE, threads=cores)
    return lambda: sum(len(embedder(batch)) for batch in pq.ParquetFile(file).iter_batches(BATCH))


def _ray(file: Path, cores: int) -> Callable[[], int]:
    import pyarrow.parquet as pq
    import ray

    from minisbert import Embedder

    ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False

    def job() -> int:
        found = pq.read_table(file)
        texts = ray.data.from_arrow(found, override_num_blocks=-(-len(found) // BATCH))
        embedded = texts.map_batches(
            Embedder,
            fn_constructor_args=("all-MiniLM-L6-v2",),
            fn_constructor_kwargs={"dtype": DTYPE},
            batch_format="pyarrow",
            batch_size=BATCH,
            concurrency=cores,
        )
        return sum(len(batch) for batch in embedded.iter_batches(batch_format="pyarrow", batch_size=BATCH))

    return job


def _spark(file: Path, cores: int) -> Callable[[], int]:
    from pyspark.sql import SparkSession

    from minisbert import Embedder

    spark = SparkSession.builder.master(f"local[{cores}]").config("spark.ui.enabled", "false").getOrCreate()
    spark.range(1).count()
    embedder = Embedder("all-MiniLM-L6-v2", dtype=DTYPE, fixed_size=False)

    def job() -> int:
        texts = spark.read.parquet(str(file)).repartition(cores)
        embedded = texts.mapInArrow(embedder, "text string, embedding array<float>")
        embedded.write.format("noop").mode("overwrite").save()  # computes all, keeps nothing
        return spark.read.parquet(str(file)).count()

    return job


def _dask(file: Path, cores: int) -> Callable[[], int]:
    import dask
    import pyarrow.parquet as pq

    from minisbert import Embedder

    def job() -> int:
        batches = pq.ParquetFile(file).iter_batches(BATCH)
        parts = [dask.delayed(Embedder("all-MiniLM-L6-v2", dtype=DTYPE))(batch) for batch in batches]
        return sum(len(part) for part in dask.compute(*parts, scheduler="processes", num_workers=cores))

    return job


JOBS: dict[str, Callable[[Path, int], Callable[[], int]]] = {
    PLAIN: _plain,
    "Ray": _ray,
    "Spark": _spark,
    "Dask": _dask,
}


def main() -> None:
    """Do one job, and print its seconds."""
    _, way, file, cores = sys.argv
    job = JOBS[way](Path(file), int(cores))
    start = time.perf_counter()
    rows = job()
    print(json.dumps({"seconds": time.perf_counter() - start, "rows": rows}))


if __name__ == "__main__":
    main()
