"""Embedding by engines: rows per second and memory of Ray, Spark, Dask, Polars, DuckDB and datasets on two cores.

Each run is a fresh process, with the Python of the environment that MINISBERT_ENGINES names, and embeds a Parquet file
of short texts. The job that is timed follows one of a few texts, in which engines start their workers and these load
the model; Ray starts anew for every job, and its time begins with the first batch of a loaded actor. A plain loop in
one process has two threads; of two workers each has one. Memory is that of all processes together, each shared page
counted once, at its highest.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timing
import workloads
from machine import table

from minisbert import Embedder
from minisbert.storage.locate import packaged_model

CORES = 2
TEXTS, QUICK_TEXTS, FIRST_TEXTS = 100_000, 2_000, 256
PLAIN = "plain loop"
Job = Callable[[str, int], tuple[int, float]]  # of a file, and rows in a batch: rows embedded, and when it began


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run each engine in turn, at most three times."""
    count = QUICK_TEXTS if options.quick else TEXTS
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in ENGINES}
    for number in range(min(options.rounds, 3)):
        for name in timing.order(list(ENGINES), number):
            if not any("not_available" in run for run in runs[name]):
                runs[name].append(_run(name, count, options.data))
    return {
        "texts": count,
        "cores": CORES,
        "engines": {name: _together(one, runs[PLAIN]) for name, one in runs.items()},
    }


def table_of(result: dict[str, Any]) -> str:
    """For people."""
    rows: list[tuple[Any, ...]] = [("two cores", "rows/s", f"x {PLAIN}", "MB, all processes", "s before")]
    for name, one in result["engines"].items():
        if "not_available" in one:
            rows.append((name, f"not available: {one['not_available']}", "", "", ""))
            continue
        ratio = one.get("times_as_fast_as_plain")
        times = f"{ratio['median']:.2f} ({ratio['low']:.2f} - {ratio['high']:.2f})" if ratio else ""
        speed = f"{one['rows_per_second']['median']:,.0f}"
        rows.append((name, speed, times, f"{one['peak_mb']:,.0f}", f"{one['first_seconds']:.1f}"))
    return table(rows)


def _together(runs: list[dict[str, Any]], plain: list[dict[str, Any]]) -> dict[str, Any]:
    for run in runs:
        if "not_available" in run:
            return run
    seconds = [run["seconds"] for run in runs]
    found = {
        "rows_per_second": timing.spread([run["rows"] / run["seconds"] for run in runs]),
        "first_seconds": timing.spread([run["first_seconds"] for run in runs])["median"],
        "peak_mb": max(run["peak_mb"] for run in runs),
        "processes": max(run["processes"] for run in runs),
    }
    if runs is not plain and not any("not_available" in run for run in plain):
        found["times_as_fast_as_plain"] = timing.times_as_fast(seconds, [run["seconds"] for run in plain])
    return found


def _run(name: str, count: int, data: Path | None) -> dict[str, Any]:
    """Embed in a fresh process; return what it found, or its last message as "not_available"."""
    folder_of_engines = os.environ.get("MINISBERT_ENGINES")
    python = str(Path(folder_of_engines).absolute() / "bin" / "python") if folder_of_engines else sys.executable
    root = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **{name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"},
            "PYTHONPATH": os.pathsep.join([str(root / "benchmarks"), str(root), os.environ.get("PYTHONPATH", "")]),
            "HF_DATASETS_CACHE": f"{folder}/cache",
            "PYSPARK_PYTHON": python,
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        command = [
            python,
            "-m",
            "scale_engines",
            name,
            str(count),
            str(packaged_model()),
            str(Path(data).absolute() if data else ""),
        ]
        most, processes = 0.0, 0
        with Path(folder, "errors").open("w+") as errors, Path(folder, "output").open("w") as output:
            started = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=errors)
            while started.poll() is None:
                megabytes, together = _memory(started.pid)
                most, processes = max(most, megabytes), max(processes, together)
                time.sleep(0.3)
            errors.seek(0)
            last = (errors.read().strip().splitlines() or [f"exit status {started.returncode}"])[-1]
        file = Path(folder, "found.json")
        if started.returncode or not file.exists():
            return {"not_available": last}
        return {**json.loads(file.read_text()), "peak_mb": most, "processes": processes}


def _memory(root: int) -> tuple[float, int]:
    """Megabytes of a process and its descendants, a shared page counted once, and their number."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):  # it ended meanwhile
            continue
    found, waiting = 0.0, [root]
    family = []
    while waiting:
        family.append(one := waiting.pop())
        waiting += [child for child, parent in parents.items() if parent == one]
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        found += sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:"))
    return found, len(family)


# ---- in the fresh process: each makes its workers, and returns the job ----------------------------------------------


def _plain(model: str) -> Job:
    import pyarrow.parquet as pq

    embedder = Embedder(model, threads=CORES)

    def job(file: str, rows: int) -> tuple[int, float]:
        began = time.time()
        found = [embedder.embed_table(batch) for batch in pq.read_table(file).to_batches(max_chunksize=rows)]
        return sum(map(len, found)), began

    return job


class _Actor:
    """An embedder that has loaded, and adds to each batch when it began."""

    def __init__(self, model: str) -> None:
        self.embedder = Embedder(model)
        self.embedder(["first"])

    def __call__(self, batch: Any) -> Any:
        import pyarrow as pa

        began = time.time()
        return self.embedder(batch).append_column("began", pa.array([began] * len(batch)))


def _ray(model: str) -> Job:
    import pyarrow.parquet as pq
    import ray

    ray.init(num_cpus=CORES, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False

    def job(file: str, rows: int) -> tuple[int, float]:
        texts = ray.data.from_arrow(pq.read_table(file), override_num_blocks=4 * CORES)
        mapped = texts.map_batches(
            _Actor, fn_constructor_args=(model,), batch_format="pyarrow", batch_size=rows, concurrency=CORES
        )
        found = list(mapped.iter_batches(batch_format="pyarrow", batch_size=None))
        return sum(map(len, found)), min(min(one["began"].to_pylist()) for one in found)

    return job


def _spark(model: str) -> Job:
    from pyspark.sql import SparkSession

    if shutil.which("java") is None:
        raise RuntimeError("Java 17 is not installed")
    spark = SparkSession.builder.master(f"local[{CORES}]").config("spark.ui.enabled", "false").getOrCreate()
    embedder = Embedder(model, fixed_size=False)

    def job(file: str, rows: int) -> tuple[int, float]:
        began = time.time()
        spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", str(rows))
        texts = spark.read.parquet(file).repartition(CORES)
        return len(texts.mapInArrow(embedder, "text string, embedding array<float>").toArrow()), began

    return job


def _dask(model: str) -> Job:
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    import dask
    import pyarrow.parquet as pq

    pool = ProcessPoolExecutor(CORES, get_context("spawn"))  # `compute` would start processes for every job

    def job(file: str, rows: int) -> tuple[int, float]:
        began = time.time()
        embed = dask.delayed(Embedder(model))
        parts = [embed(batch) for batch in pq.read_table(file).to_batches(max_chunksize=rows)]
        return sum(map(len, dask.compute(*parts, scheduler="processes", pool=pool, chunksize=1))), began

    return job


def _polars(model: str) -> Job:
    import polars as pl

    embedder = Embedder(model, threads=CORES)

    def job(file: str, rows: int) -> tuple[int, float]:
        began = time.time()
        return len(pl.concat(map(embedder, pl.read_parquet(file).iter_slices(rows)))), began

    return job


def _duckdb(model: str) -> Job:
    import duckdb

    embedder = Embedder(model, threads=CORES)

    def job(file: str, rows: int) -> tuple[int, float]:
        began = time.time()
        texts = duckdb.sql(f"SELECT text FROM '{file}'").to_arrow_table()
        return sum(len(embedder.embed_table(batch)) for batch in texts.to_batches(max_chunksize=rows)), began

    return job


def _datasets(model: str) -> Job:
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    embedder = Embedder(model, threads=CORES)

    def job(file: str, rows: int) -> tuple[int, float]:
        texts, began = Dataset.from_parquet(file), time.time()
        return len(texts.map(embedder, batched=True, batch_size=rows)), began

    return job


ENGINES: dict[str, Callable[[str], Job]] = {
    PLAIN: _plain,
    "Ray": _ray,
    "Spark": _spark,
    "Dask": _dask,
    "Polars": _polars,
    "DuckDB": _duckdb,
    "datasets": _datasets,
}


def _embed(name: str, count: int, model: str, data: Path | None) -> None:
    """Write the files and embed them; write what was found to found.json."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = workloads.many(data, count)
    pq.write_table(pa.table({"text": texts[:FIRST_TEXTS]}), "first.parquet")
    pq.write_table(pa.table({"text": texts}), "texts.parquet")
    del texts
    start = time.time()
    job = ENGINES[name](model)
    job("first.parquet", FIRST_TEXTS // (4 * CORES))
    first = time.time() - start
    rows, began = job("texts.parquet", 1_000)
    found = {"rows": rows, "seconds": time.time() - began, "first_seconds": first}
    if rows != count:
        raise RuntimeError(f"{name} gave {rows} rows of {count}")
    Path("found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    _, _name, _count, _model, _data = sys.argv
    _embed(_name, int(_count), _model, Path(_data) if _data else None)
