"""Other tools that read an exported folder get the embeddings of its model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from places import ROOT

from minisbert import SentenceTransformer

TEXTS = ["a cat sat on the mat", "How do I read a large file line by line?", "one", "Why is the sky blue? " * 8]


@pytest.mark.engines
@pytest.mark.parametrize("tool", ["openvino", "fastembed", "light_embed", "transformers.js"])
def test_a_tool_gets_the_embeddings_of_the_model(tool: str, minilm: Path, tmp_path: Path) -> None:
    environment = os.environ.get("MINISBERT_EXPORTED")
    if not environment:
        pytest.skip("MINISBERT_EXPORTED names no environment: python tests/engines/export_environment.py FOLDER")
    from minisbert.export import to_onnx

    folder = tmp_path / "model"
    model = SentenceTransformer(minilm, device="cpu")
    model.save_pretrained(folder)
    to_onnx(model, folder / "onnx" / "model.onnx")
    (tmp_path / "texts.json").write_text(json.dumps(TEXTS))
    here, texts, out = ROOT / "tests" / "engines", tmp_path / "texts.json", tmp_path / "out.npy"
    if tool == "transformers.js":
        modules, node = Path(environment) / "node_modules", shutil.which("node")
        if node is None or not modules.is_dir():
            pytest.skip("there is no Node.js, or transformers.js is not installed")
        command = [node, here / "exported.mjs", modules, folder, texts, out]
    else:
        command = [Path(environment) / "bin" / "python", here / "exported.py", tool, folder, texts, out]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        check=False,
        timeout=600,
    )
    if done.returncode == 77:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stderr[-3000:]
    got = json.loads(out.read_text()) if tool == "transformers.js" else np.load(out)
    np.testing.assert_allclose(got, model.encode(TEXTS), atol=1e-5)
