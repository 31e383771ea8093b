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
# Every Python process of an engine writes a line when it opens the list of modules of the model.
WATCH = """
import os, sys
def watch(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, os.PathLike)) and str(arguments[0]).endswith("modules.json"):
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


@pytest.mark.parametrize("engine", ENGINES)
def test_snippets(engine: str, python: str, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    package = NEEDS.get(engine, engine.lower())
    if subprocess.run([python, "-c", f"import {package}"], capture_output=True).returncode:
        pytest.skip(f"{package} is not installed: python tests/engines/environments.py FOLDER")
    if engine == "Spark" and shutil.which("java") is None:
        pytest.skip("Spark needs Java 17")
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
    environment = {
        **{name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"},
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
        "LOADS": str(tmp_path / "loads"),
        "HF_DATASETS_CACHE": str(tmp_path / "cache"),
        "PYSPARK_PYTHON": python,
        "RAY_USAGE_STATS_ENABLED": "0",
    }

    def run() -> None:
        done = subprocess.run(
            [python, "script.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr[-3000:]

    run()
    model = SentenceTransformer(tiny("bert"), device="cpu")
    expected = dict(zip(texts[:4], model.encode(texts[:4]), strict=True))
    found = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert len(found) == len(snippets)
    for rows in found:
        assert Counter(text for text, _ in rows) == Counter(texts)
        for text, row in rows:
            np.testing.assert_allclose(np.array(row), expected[text], atol=1e-6)
    if engine == "datasets":
        run()  # from its cache: a second process that loads would be one too many
    loads = Counter((tmp_path / "loads").read_text().split())
    assert 1 <= len(loads) <= (2 if engine in ("Ray", "Dask", "Spark") else 1), loads
    assert set(loads.values()) == {1}, loads
