"""Exported folders give their embeddings in other runtimes, by the recipes of docs/runtimes.md."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from families import build_family
from numpy.typing import NDArray
from places import ROOT
from static_models import build_static

from minisbert import SentenceTransformer
from minisbert.export import to_onnx

pytestmark = pytest.mark.engines
PAGE = (ROOT / "docs" / "runtimes.md").read_text(encoding="utf-8")
SECTIONS: dict[str, str] = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S))
NEEDS = {
    "ONNX Runtime": "onnxruntime",
    "OpenVINO": "openvino",
    "fastembed": "fastembed",
    "light-embed": "light_embed",
    "transformers.js": None,
}
TEXTS = ["a cat", "the dog ran fast to the red sea", "a cat sat on the mat and", "one", "why is the sky blue"]
FILES = {
    "float32": ("model.onnx", "fp32"),
    "float16": ("model_fp16.onnx", "fp16"),
    "int8": ("model_quantized.onnx", "q8"),
}
FAMILIES = ("modernbert", "nomic_bert", "gte", "qwen3", "gemma3_text")
MODELS = ("minilm", "bert", "roberta", "mpnet", *FAMILIES, "static")


def test_every_recipe_is_tried() -> None:
    assert list(SECTIONS) == list(NEEDS)


@pytest.fixture(scope="module")
def environment() -> Path | None:
    """The folder of the tools; without it, those that this Python has are tried."""
    folder = os.environ.get("MINISBERT_RUNTIMES")
    return Path(folder) if folder else None


def build(name: str, folder: Path, tiny: Callable[[str], Path], minilm: Callable[[], Path]) -> SentenceTransformer:
    """Write a model, and load it."""
    if name in FAMILIES:
        pooling = "lasttoken" if name == "qwen3" else "mean"
        return SentenceTransformer(build_family(folder, name, pooling=pooling), device="cpu")
    if name == "static":
        return SentenceTransformer(build_static(folder), device="cpu")
    SentenceTransformer(minilm() if name == "minilm" else tiny(name), device="cpu").save_pretrained(folder)
    return SentenceTransformer(folder, device="cpu")


def run(section: str, environment: Path | None, folder: Path, *, replace: dict[str, str]) -> NDArray[np.float32]:
    """Run the recipe of a section in a folder that has my-model."""
    language, snippet = re.findall(r"```(python|javascript)\n(.*?)```", SECTIONS[section], re.S)[0]
    for old, new in replace.items():
        assert old in snippet
        snippet = snippet.replace(old, new)
    (folder / "texts.json").write_text(json.dumps(TEXTS))
    if language == "python":
        python = environment / "bin" / "python" if environment else Path(sys.executable)
        if subprocess.run([python, "-c", f"import {NEEDS[section]}"], capture_output=True).returncode:
            pytest.skip(f"{NEEDS[section]} is not installed: python tests/engines/runtime_environment.py FOLDER")
        before = 'import json\nwith open("texts.json") as file:\n    texts = json.load(file)\n'
        after = 'import numpy\nnumpy.save("embeddings.npy", numpy.array(list(embeddings), numpy.float32))\n'
        (folder / "script.py").write_text(before + snippet + after)
        command = [str(python), "script.py"]
    else:
        node = shutil.which("node")
        if node is None or environment is None or not (environment / "node_modules").is_dir():
            pytest.skip("transformers.js is not installed: python tests/engines/runtime_environment.py FOLDER")
        (folder / "node_modules").symlink_to(environment / "node_modules")
        before = 'import fs from "fs";\nconst texts = JSON.parse(fs.readFileSync("texts.json"));\n'
        after = 'fs.writeFileSync("embeddings.json", JSON.stringify(embeddings));\n'
        (folder / "script.mjs").write_text(before + snippet + after)
        command = [node, "script.mjs"]
    given = {**os.environ, "HF_HUB_OFFLINE": "1"}
    given.pop("PYTHONPATH", None)
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=given, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    if language == "python":
        found: NDArray[np.float32] = np.load(folder / "embeddings.npy")
        return found
    return np.array(json.loads((folder / "embeddings.json").read_text()), np.float32)


@pytest.mark.parametrize("section", NEEDS)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_recipes(
    section: str,
    name: str,
    dtype: str,
    environment: Path | None,
    tiny: Callable[[str], Path],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    if name == "static" and section not in ("ONNX Runtime", "OpenVINO"):
        pytest.skip("the folder of a static model has no files that it asks for")
    model = build(name, tmp_path / "my-model", tiny, lambda: request.getfixturevalue("minilm"))
    file, type_name = FILES[dtype]
    to_onnx(model, tmp_path / "my-model" / "onnx" / file, dtype=dtype)
    replace: dict[str, str] = {}
    if section == "light-embed" and not (asked := tmp_path / "my-model" / "special_tokens_map.json").exists():
        asked.write_text("{}")
    if section == "fastembed":
        replace["dim=384"] = f"dim={model.get_sentence_embedding_dimension()}"
    if name == "static":
        replace["encode_batch(texts)"] = "encode_batch(texts, add_special_tokens=False)"
    if section == "transformers.js":
        replace['dtype: "fp32"'] = f'dtype: "{type_name}"'
    else:
        replace["onnx/model.onnx"] = f"onnx/{file}"
    found, expected = run(section, environment, tmp_path, replace=replace), model.encode(TEXTS)
    assert found.shape == expected.shape
    if dtype == "float32":
        np.testing.assert_allclose(found, expected, atol=1e-5 * max(1.0, float(np.abs(expected).max())), rtol=0)
    cosines = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosines.min() > 0.98, cosines
