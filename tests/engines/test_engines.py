"""Each engine embeds by the snippets of docs/engines.md as the model does, and loads once in each process."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from places import ROOT

from minisbert import SentenceTransformer

pytestmark = pytest.mark.engines
NEEDS = {"Arrow": "pyarrow", "Ray": "ray", "Spark": "pyspark", "Dask": "dask"}
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", (ROOT / "docs/engines.md").read_text(), re.M | re.S))
ENGINES = [name for name, text in SECTIONS.items() if "```python" in text]
# Every Python process of an engine writes a line when it opens the list of modules of the model, but not to digest it.
WATCH = """
import os, sys
def watch(event, arguments):
    if event != "open" or not isinstance(arguments[0], (str, os.PathLike)):
        return
    frame, callers = sys._getframe(), set()
    while frame := frame.f_back:
        callers.add(frame.f_code.co_name)
    if str(arguments[0]).endswith("modules.json") and "sampled_digest" not in callers:
        number = os.open(os.environ["LOADS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(number, f"{os.getpid()}\\n".encode())
sys.addaudithook(watch)
"""
REPORT = """
    import json, numpy as np
    def rows(found):
        if isinstance(found, tuple): return [row for part in found for row in rows(part)]
        if hasattr(found, "column_names") and hasattr(found, "to_pylist"): return found.to_pylist()
        if hasattr(found, "to_dicts"): return found.to_dicts()
        return found.to_dict("records") if hasattr(found, "iloc") else list(found)
    values = [(row["text"], np.asarray(row["embedding"], float).tolist()) for row in rows(embedded)]
    with open("found.jsonl", "a") as file: file.write(json.dumps(values) + "\\n")
"""


@pytest.fixture(scope="module")
def python() -> str:
    """The Python of the environment that holds the engines; this one's own for those that are here."""
    folder = os.environ.get("MINISBERT_ENGINES")
    return str(Path(folder) / "bin" / "python") if folder else sys.executable


def environment_of(python: str, folder: Path) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"},
        "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
        "LOADS": str(folder / "loads"),
        "HF_DATASETS_CACHE": str(folder / "cache"),
        "PYSPARK_PYTHON": python,
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def skip_without(engine: str, python: str) -> None:
    package = NEEDS.get(engine, engine.lower())
    if subprocess.run([python, "-c", f"import {package}"], capture_output=True).returncode:
        pytest.skip(f"{package} is not installed: python tests/engines/environments.py FOLDER")
    if engine == "Spark" and shutil.which("java") is None:
        pytest.skip("Spark needs Java 17")


def run_script(python: str, folder: Path) -> None:
    done = subprocess.run(
        [python, "script.py"],
        cwd=folder,
        env=environment_of(python, folder),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("engine", ENGINES)
def test_snippets(engine: str, python: str, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    skip_without(engine, python)
    shutil.copytree(tiny("bert"), tmp_path / "all-MiniLM-L6-v2")
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    texts = ["a cat", "a dog", "rain", "wet weather"] * 8
    write = (
        f"import pyarrow as pa, pyarrow.parquet as pq; pq.write_table(pa.table({{'text': {texts}}}), 'texts.parquet')"
    )
    subprocess.run([python, "-c", write], check=True, cwd=tmp_path)
    snippets = re.findall(r"```python\n(.*?)```", SECTIONS[engine], re.S)
    report = "\nif __name__ == '__main__':" + REPORT
    (tmp_path / "script.py").write_text("".join(snippet + report for snippet in snippets))
    run_script(python, tmp_path)
    model = SentenceTransformer(tiny("bert"), device="cpu")
    expected = dict(zip(texts[:4], model.encode(texts[:4]), strict=True))
    found = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert len(found) == len(snippets)
    for rows in found:
        assert Counter(text for text, _ in rows) == Counter(texts)
        for text, row in rows:
            np.testing.assert_allclose(np.array(row), expected[text], atol=1e-6)
    if engine == "datasets":
        run_script(python, tmp_path)  # from its cache: a second process that loads would be one too many
    loads = Counter((tmp_path / "loads").read_text().split())
    assert 1 <= len(loads) <= (2 if engine in ("Ray", "Dask", "Spark") else 1), loads
    assert set(loads.values()) == {1}, loads


# An embedder that notes its process and the threads it embeds with, and waits for a second process where it should.
NOTING = """
import json, os, sys, time
from pathlib import Path
import pyarrow as pa
import torch
from minisbert import Embedder

class Noting:
    def __init__(self, folder, processes, **given):
        self.folder, self.processes = Path(folder).absolute(), processes
        self.embedder = Embedder(self.folder / "all-MiniLM-L6-v2", **given)

    def __call__(self, batch):
        model = self.embedder.load()
        encode = type(model).encode

        def noted(*texts, **options):
            (self.folder / f"process-{os.getpid()}").write_text(str(torch.get_num_threads()))
            return encode(model, *texts, **options)

        model.encode = noted
        found = self.embedder(batch)
        end = time.monotonic() + 60
        while len(list(self.folder.glob("process-*"))) < self.processes and time.monotonic() < end:
            time.sleep(0.01)
        return found

TEXTS = ["a cat", "a dog", "rain", "wet weather"] * 8
if __name__ == "__main__":
    sys.path.insert(0, "")
    texts = pa.table({"text": TEXTS})
"""
IN_PROCESSES = {
    "Ray": """
    import ray
    ray.init(num_cpus=2, include_dashboard=False)
    data = ray.data.from_arrow(texts, override_num_blocks=8)
    given = {"fn_constructor_args": (".", 2), "batch_format": "pyarrow", "batch_size": 4, "concurrency": 2}
    assert data.map_batches(Noting, **given).count() == 32
""",
    "Ray with two CPUs": """
    import ray
    ray.init(num_cpus=2, include_dashboard=False)
    data = ray.data.from_arrow(texts, override_num_blocks=8)
    given = {"fn_constructor_args": (".", 1), "batch_format": "pyarrow", "batch_size": 4, "concurrency": 1}
    assert data.map_batches(Noting, num_cpus=2, **given).count() == 32
""",
    "Dask": """
    import dask
    parts = [dask.delayed(Noting(".", 2))(batch) for batch in texts.to_batches(max_chunksize=4)]
    assert sum(map(len, dask.compute(*parts, scheduler="processes", num_workers=2))) == 32
""",
    "Dask in threads": """
    import dask
    parts = [dask.delayed(Noting(".", 1))(batch) for batch in texts.to_batches(max_chunksize=4)]
    assert sum(map(len, dask.compute(*parts, scheduler="threads", num_workers=2))) == 32
""",
    "Spark": """
    from pyspark.sql import SparkSession
    spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    data = spark.createDataFrame([(text,) for text in TEXTS], "text string").repartition(8)
    noting = Noting(".", 2, fixed_size=False)
    found = data.mapInArrow(lambda batches: map(noting, batches), "text string, embedding array<float>")
    assert len(found.collect()) == 32
""",
    "datasets": """
    from datasets import Dataset
    Noting(".", 1)(TEXTS)  # as after a first look, before the processes are forked
    [one.unlink() for one in Path(".").glob("process-*")]
    found = Dataset(texts).map(Noting(".", 2), batched=True, batch_size=4, num_proc=2)
    assert len(found["embedding"]) == 32
""",
    "Arrow": """
    assert Noting(".", 1)(texts).num_rows == 32
""",
    "Polars": """
    import polars
    assert len(Noting(".", 1)(polars.from_arrow(texts))) == 32
""",
}
# Processes, and the threads of each; None for those of torch.
EXPECTED: dict[str, tuple[int, int | None]] = {
    **dict.fromkeys(("Ray", "Dask", "Spark", "datasets"), (2, 1)),
    "Ray with two CPUs": (1, 2),
    **dict.fromkeys(("Dask in threads", "Arrow", "Polars"), (1, None)),
}


@pytest.mark.parametrize("engine", IN_PROCESSES)
def test_processes_and_their_threads(engine: str, python: str, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    skip_without(engine.split()[0], python)
    shutil.copytree(tiny("bert"), tmp_path / "all-MiniLM-L6-v2")
    (tmp_path / "script.py").write_text(NOTING + IN_PROCESSES[engine])
    run_script(python, tmp_path)
    count, threads = EXPECTED[engine]
    noted = [int(path.read_text()) for path in tmp_path.glob("process-*")]
    usual = [python, "-c", "import torch; print(torch.get_num_threads())"]
    wanted = threads or int(
        subprocess.run(usual, env=environment_of(python, tmp_path), capture_output=True, check=True).stdout
    )
    assert noted == [wanted] * count
