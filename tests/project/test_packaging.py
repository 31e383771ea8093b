"""The package as others see it: names, imports, layout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

import minisbert

tomllib = pytest.importorskip("tomllib")  # Python 3.11
FORBIDDEN = ("transformers", "scipy", "sentence_transformers", "accelerate", "datasets", "sklearn", "pandas", "PIL")
LATER = ("tokenizers", "safetensors.torch", "huggingface_hub", "jinja2", "matplotlib", "filelock", "requests", "httpx")
LATER += ("sympy", "torch._dynamo", "decimal", "fractions", "statistics")


def run(code: str, *, cwd: Path = ROOT) -> str:
    result = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_public_names() -> None:
    assert minisbert.__all__ == sorted(minisbert.__all__, key=lambda name: (name.islower(), name))
    for name in minisbert.__all__:
        assert getattr(minisbert, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'Transformers'"):
        minisbert.Transformers  # noqa: B018
    assert set(dir(minisbert)) == {*minisbert.__all__, "__version__"}


def test_version_stands_in_one_form() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == minisbert.__version__
    assert f"## {minisbert.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_every_package_is_shipped() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    ours = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "minisbert").rglob("__init__.py")}
    fast = {f"minisbert.kernels.{path.parent.name}" for path in (ROOT / "kernels").glob("*/__init__.py")}
    assert listed == ours | fast
    assert (ROOT / "minisbert" / "py.typed").is_file()


def test_every_data_file_is_shipped() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    ours = [path for path in (ROOT / "minisbert").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    assert {"card.md.jinja", "citations.bib"} <= {path.name for path in ours}
    for path in ours:
        package = ".".join(path.parent.relative_to(ROOT).parts)
        assert any(path.match(pattern) for pattern in patterns[package]), f"{path} is not in the wheel"


def test_kernels_folder_is_no_package_of_its_own() -> None:
    assert not (ROOT / "kernels" / "__init__.py").exists()
    assert (
        run("import minisbert.kernels.cpu_ops.onednn as l; print(l.__name__)") == "minisbert.kernels.cpu_ops.onednn\n"
    )


def test_transformers_can_be_imported_from_the_repository_root() -> None:
    pytest.importorskip("transformers")
    code = "import transformers.integrations.hub_kernels, transformers; transformers.AutoModel; print('fine')"
    assert run(code) == "fine\n"


def test_import_is_light() -> None:
    assert run("import sys, minisbert; print('torch' in sys.modules)") == "False\n"
    code = f"""
import sys
import torch
before = len(sys.modules)
from minisbert import SentenceTransformer, Trainer, TrainingConfig, losses, evaluation, util
print(len(sys.modules) - before, [name for name in {(*FORBIDDEN, *LATER)} if name in sys.modules])
"""
    modules, heavy = run(code).split(maxsplit=1)
    assert heavy.strip() == "[]"
    assert int(modules) < 120


def test_importing_does_not_search_for_garbage() -> None:
    """After torch there is much to search; and the collector is as it was, also after an import that fails."""
    code = """
import gc, torch, minisbert
searches = []
gc.collect()
gc.set_threshold(50, 1, 1)
gc.callbacks.append(lambda phase, info: searches.append(phase))
from minisbert import SentenceTransformer, Trainer, TrainingConfig, losses, evaluation, util
print(searches.count("start") <= 6, gc.isenabled())  # between the names; importing itself would cause 278
gc.disable()
from minisbert import recipes
print(gc.isenabled())
gc.enable()
minisbert._HOMES["InputExample"] = "data.absent"
try:
    minisbert.InputExample
except ImportError:
    print(gc.isenabled())
"""
    assert run(code).split() == ["True", "True", "False", "True"]


def test_encoding_needs_no_heavy_package(minilm: Path) -> None:
    code = f"""
import sys
from minisbert import SentenceTransformer
SentenceTransformer({str(minilm)!r}, device="cpu").encode(["a text"])
print([name for name in {(*FORBIDDEN, "sympy")} if name in sys.modules])  # sympy: torch's compiler
"""
    assert run(code) == "[]\n"


def test_loading_encoding_and_training_know_nothing_of_cards(minilm: Path, tmp_path: Path) -> None:
    """Nor of recipes and reports; a checkpoint and the best weights of a run have no card either."""
    code = f"""
import sys
from minisbert import SentenceTransformer, Trainer, TrainingConfig, evaluation, losses
model = SentenceTransformer({str(minilm)!r}, device="cpu")
model.encode(["a text"])
rows = [("a cat", "a dog", 0.5), ("the sea", "the sky", 0.25)]
config = TrainingConfig(epochs=1, eval_every=1, save_every=1, keep_best=True)
evaluator = evaluation.EmbeddingSimilarityEvaluator(["a cat", "the sea"], ["a dog", "the sky"], [0.5, 0.25])
Trainer(model, rows, loss=losses.CosineSimilarityLoss(), config=config, evaluator=evaluator,
        output_dir={str(tmp_path)!r}, show_progress_bar=False).train()
assert model.training_record.metrics
above = tuple("minisbert." + name for name in ("card", "recipes", "report"))
print([name for name in sys.modules if name.startswith(above)])
"""
    assert run(code) == "[]\n"
    assert (tmp_path / "best" / "model.safetensors").is_file()
    assert not list(tmp_path.rglob("README.md"))


def test_no_socket_is_opened_for_a_local_or_packaged_model(minilm: Path) -> None:
    code = f"""
import socket
def refuse(*arguments, **options): raise RuntimeError("a socket was opened")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from minisbert import SentenceTransformer
print(SentenceTransformer({str(minilm)!r}).encode("a").shape, SentenceTransformer("all-MiniLM-L6-v2").encode("a").shape)
"""
    assert run(code) == "(384,) (384,)\n"


def test_files_stay_small() -> None:
    for path in [*(ROOT / "minisbert").rglob("*.py"), *(ROOT / "kernels").rglob("*.py")]:
        lines = len(path.read_text().splitlines())
        assert lines <= 560, f"{path.relative_to(ROOT)} has {lines} lines: does it hold one idea?"
