"""Models as ONNX files give their embeddings, in ONNX Runtime, whichever side texts are padded on."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from families import FAMILIES, build_family
from static_models import build_static

from minisbert import LoraConfig, SentenceTransformer
from minisbert.cli import main
from minisbert.errors import ConfigError, InputError
from minisbert.export import to_onnx, to_openvino
from minisbert.export.check import onnx_runner, openvino_runner, padded
from minisbert.export.graph import Graph
from minisbert.modules import Dense, LayerNorm, Normalize, Pooling, WeightedLayerPooling

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
LONG = " ".join(tiny_models.WORDS * 2)[:190]
TEXTS = ["a cat", "", "one", "the dog ran fast to the sea", LONG, "why is the sky blue [PAD] <pad>"]


def hold(model: SentenceTransformer, path: Path) -> None:
    expected, run = model.encode(TEXTS), openvino_runner(path) if path.suffix == ".xml" else onnx_runner(path)
    for side in ("left", "right"):
        given = padded(model, TEXTS, side=side)
        given["input_ids"][given["attention_mask"] == 0] = 3  # padding is what the mask says it is
        np.testing.assert_allclose(run(given), expected, atol=1e-5, rtol=0)
        np.testing.assert_allclose(run(padded(model, TEXTS, side=side)), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("architecture", tiny_models.ARCHITECTURES)
def test_bert_family(architecture: str, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    model = SentenceTransformer(tiny(architecture), device="cpu", truncation="count")
    made = to_onnx(model, tmp_path / "model.onnx")
    assert made.difference < 1e-5
    assert made.bytes == (tmp_path / "model.onnx").stat().st_size
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    hold(model, made.path)


@pytest.mark.parametrize("family", FAMILIES)
def test_families(family: str, tmp_path: Path) -> None:
    model = SentenceTransformer(build_family(tmp_path / "model", family, pooling="lasttoken"), device="cpu")
    hold(model, to_onnx(model, tmp_path / "onnx" / "model.onnx").path)


@pytest.mark.parametrize("mode", ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"])
def test_modules(mode: str, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    first = SentenceTransformer(tiny("mpnet"), device="cpu")[0]
    gelu = "torch.nn.modules.activation.GELU"
    modules = [
        *(first, Pooling(32, [mode, "mean"]), LayerNorm(64), Dense(64, 24)),
        *(Dense(24, 24, activation_function=gelu, use_residual=True), Dense(24, 8, use_residual=True), Normalize()),
    ]
    model = SentenceTransformer(modules=modules, device="cpu", truncate_dim=5)
    hold(model, to_onnx(model, tmp_path / "model.onnx").path)


@pytest.mark.parametrize("form", ["reference", "model2vec"])
def test_static_models(form: str, tmp_path: Path) -> None:
    model = SentenceTransformer(build_static(tmp_path / "model", form=form), device="cpu")
    hold(model, to_onnx(model, tmp_path / "model.onnx").path)


def test_int8(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    model = SentenceTransformer(tiny("bert"), device="cpu")
    large, small = (to_onnx(model, tmp_path / f"{dtype}.onnx", dtype=dtype) for dtype in ("float32", "int8"))
    assert small.bytes < large.bytes
    assert small.cosine > 0.998
    assert small.difference > 1e-5
    assert {"MatMulInteger", "DynamicQuantizeLinear"} <= {node.op_type for node in onnx.load(small.path).graph.node}


def test_float16(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    model = SentenceTransformer(tiny("mpnet"), device="cpu")
    large, small = (to_onnx(model, tmp_path / f"{dtype}.onnx", dtype=dtype) for dtype in ("float32", "float16"))
    assert small.bytes < 0.7 * large.bytes
    assert 1e-6 < small.difference < 2e-3
    assert small.cosine > 0.99999


def test_onnx_runtime_finds_its_fused_operators(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    model = SentenceTransformer(tiny("bert"), device="cpu")
    path, faster = to_onnx(model, tmp_path / "model.onnx").path, tmp_path / "faster.onnx"
    config = model.transformer.auto_model.config
    optimizer = pytest.importorskip("onnxruntime.transformers.optimizer")
    options = pytest.importorskip("onnxruntime.transformers.fusion_options").FusionOptions("bert")
    options.use_raw_attention_mask()
    given = {"num_heads": config.num_attention_heads, "hidden_size": config.hidden_size, "opt_level": 0}
    fused = optimizer.optimize_model(str(path), model_type="bert", optimization_options=options, **given)
    fused.save_model_to_file(str(faster))
    found = Counter(node.op_type for node in onnx.load(faster).graph.node)
    layers = config.num_hidden_layers
    assert {name: found[name] for name in ("Attention", "BiasGelu", "Softmax", "Erf")} == {
        **dict.fromkeys(("Attention", "BiasGelu"), layers),
        **dict.fromkeys(("Softmax", "Erf"), 0),
    }
    hold(model, faster)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_only_standard_operators(dtype: str, tmp_path: Path) -> None:
    model = SentenceTransformer(build_family(tmp_path / "model", "modernbert"), device="cpu")
    graph = onnx.load(to_onnx(model, tmp_path / "model.onnx", dtype=dtype).path)
    assert [(one.domain, one.version) for one in graph.opset_import] == [("", 17)]
    assert {node.domain for node in graph.graph.node} == {""}
    onnx.checker.check_model(graph, full_check=True)
    assert [one.name for one in graph.graph.input] == ["input_ids", "attention_mask"]
    assert [one.name for one in graph.graph.output] == ["token_embeddings", "sentence_embedding"]


def test_large_models_have_a_second_file(
    tiny: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["minisbert.export.to_onnx"], "LARGEST", 10_000)
    model = SentenceTransformer(tiny("bert"), device="cpu")
    made = to_onnx(model, tmp_path / "model.onnx")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.onnx", "model.onnx_data"]
    assert made.bytes == sum(file.stat().st_size for file in tmp_path.iterdir())
    onnx.checker.check_model(str(made.path), full_check=True)
    tensors = onnx.load(made.path, load_external_data=False).graph.initializer
    offsets = [int(entry.value) for one in tensors for entry in one.external_data if entry.key == "offset"]
    assert len(offsets) == sum(one.data_location == onnx.TensorProto.EXTERNAL for one in tensors) > 10
    assert not any(offset % 4096 for offset in offsets)  # may be mapped into memory
    hold(model, made.path)
    monkeypatch.undo()
    hold(model, to_onnx(model, tmp_path / "model.onnx").path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    (tmp_path / "model.onnx_data").write_text("mine")  # which the file does not name
    to_onnx(model, tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx_data").read_text() == "mine"


def test_refused(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"

    def refuse(model: SentenceTransformer, message: str, **options: Any) -> None:
        with pytest.raises(ConfigError, match=message):
            to_onnx(model, path, **options)
        assert not path.exists()

    model = SentenceTransformer(tiny("bert"), device="cpu")
    refuse(model, "got dtype='int4'; expected one of float32, float16, int8", dtype="int4")
    refuse(SentenceTransformer(tiny("bert"), device="cpu", dtype="int8"), "got a model in int8; expected floats")
    model.set_pooling_include_prompt(False)
    refuse(model, "got a Pooling with include_prompt=False")
    model = SentenceTransformer(tiny("bert"), device="cpu")
    model.add_adapter(LoraConfig())
    refuse(model, "got a model with an adapter; expected none to export")
    first = SentenceTransformer(tiny("bert"), device="cpu")[0]
    refuse(SentenceTransformer(modules=[first, WeightedLayerPooling(32, 2, 0), Pooling(32)]), "WeightedLayerPooling")
    mish = Dense(32, 3, activation_function="torch.nn.modules.activation.Mish")
    refuse(SentenceTransformer(modules=[first, Pooling(32), mish]), "got a Dense with Mish; expected one of Identity")
    with pytest.raises(InputError, match="cannot be written"):
        to_onnx(SentenceTransformer(tiny("bert"), device="cpu"), tiny("bert") / "config.json" / "model.onnx")


def test_settings_of_a_model_do_not_disturb_the_check(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    prompts = {"query": "search: "}
    model = SentenceTransformer(
        tiny("bert"), device="cpu", prompts=prompts, default_prompt_name="query", truncation="error"
    )
    model.max_seq_length = 6
    model.train()
    assert to_onnx(model, tmp_path / "model.onnx").difference < 1e-5
    assert model.training
    assert (model.truncation, model.truncated_texts) == ("error", 0)


def test_the_check_allows_for_the_size_of_embeddings(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    model = SentenceTransformer(modules=[SentenceTransformer(tiny("bert"), device="cpu")[0], Pooling(32)])
    with torch.no_grad():
        model.transformer.auto_model.layers[-1].feed_forward.norm.weight.mul_(10_000)
    made = to_onnx(model, tmp_path / "model.onnx")
    assert 1e-4 < made.difference < 0.1
    assert made.cosine > 0.99999


def test_the_check_finds_what_differs(
    tiny: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = SentenceTransformer(tiny("bert"), device="cpu")
    monkeypatch.setattr(Graph, "layer_norm", lambda self, x, *others: x)
    with pytest.raises(ConfigError, match="the exported model differs by .*; expected at most 1e-05: report it"):
        to_onnx(model, tmp_path / "model.onnx")
    monkeypatch.undo()
    monkeypatch.setattr(Graph, "layer_norm", lambda self, x, *others: self.add("Log", self.add("Neg", x)))
    with pytest.raises(ConfigError, match="got embeddings from the exported file that are not finite"):
        to_onnx(model, tmp_path / "model.onnx", dtype="int8")
    monkeypatch.undo()
    with torch.no_grad():
        model.transformer.auto_model.embeddings.word.weight[5:] = float("nan")
    with pytest.raises(ConfigError, match="got embeddings from this model that are not finite"):
        to_onnx(model, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_weights_of_16_bits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = build_family(tmp_path / "model", "qwen3", dtype="bfloat16")
    with pytest.raises(ConfigError, match="got a model in bfloat16; expected float32, in which the file computes: "):
        to_onnx(SentenceTransformer(folder, device="cpu"), tmp_path / "model.onnx")
    assert main(["export", str(folder), "--onnx", "--device", "cpu"]) == 0  # loads it in float32
    hold(SentenceTransformer(folder, device="cpu", dtype="float32"), folder / "onnx" / "model.onnx")


@pytest.mark.parametrize("architecture", ["bert", "roberta"])
def test_more_tokens_than_positions_are_an_error(
    architecture: str, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    model = SentenceTransformer(tiny(architecture), device="cpu")
    run = onnx_runner(to_onnx(model, tmp_path / "model.onnx").path)
    most = model.transformer.auto_model.config.max_tokens
    for length, fits in ((most, True), (most + 1, False)):
        row = np.full((1, length), 7)
        given = {"input_ids": row, "attention_mask": np.ones_like(row), "token_type_ids": np.zeros_like(row)}
        if fits:
            assert np.isfinite(run(given)).all()
            continue
        with pytest.raises(Exception, match="indices element out of data bounds"):
            run(given)


@pytest.mark.parametrize("family", ["modernbert", "gte", "qwen3-windowed", "gemma3_text"])
def test_families_in_int8(family: str, tmp_path: Path) -> None:
    model = SentenceTransformer(build_family(tmp_path / "model", family), device="cpu")
    made = to_onnx(model, tmp_path / "model.onnx", dtype="int8")
    assert made.cosine > 0.99
    run = onnx_runner(made.path)
    left, right = (run(padded(model, TEXTS, side=side)) for side in ("left", "right"))
    np.testing.assert_allclose(left, right, atol=1e-5)


# As docs/export.md has them.
@pytest.mark.parametrize(
    ("dtype", "megabytes", "cosine"), [("float32", 90, 0.999999), ("float16", 45, 0.99999), ("int8", 59, 0.99)]
)
def test_all_minilm(dtype: str, megabytes: int, cosine: float, minilm: Path, tmp_path: Path) -> None:
    model = SentenceTransformer(minilm, device="cpu")
    made = to_onnx(model, tmp_path / "model.onnx", dtype=dtype)
    assert round(made.bytes / 1e6) == megabytes
    assert made.cosine > cosine
    assert dtype != "float32" or made.difference < 1e-6


@pytest.mark.parametrize("family", ["bert", "nomic_bert"])
def test_pairs_of_texts(family: str, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tiny("bert") if family == "bert" else build_family(tmp_path / "model", family)
    model = SentenceTransformer(folder, device="cpu")
    pairs: Any = [("a cat", "the dog ran"), ("one", "the red sea and the sky"), "rain"]
    given = padded(model, pairs, side="left")
    assert given["token_type_ids"].any()
    run = onnx_runner(to_onnx(model, tmp_path / "model.onnx").path)
    np.testing.assert_allclose(run(given), model.encode(pairs), atol=1e-5)
    alike = run({**given, "token_type_ids": np.zeros_like(given["input_ids"])})
    assert np.abs(alike[:2] - run(given)[:2]).max() > 1e-3


@pytest.mark.parametrize("missing", [["onnx"], ["onnxruntime"], ["onnx", "onnxruntime"]])
def test_missing_packages_are_named(
    missing: list[str], tiny: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, found = sys.modules["minisbert.export.to_onnx"], find_spec
    monkeypatch.setattr(module, "find_spec", lambda name: None if name in missing else found(name))
    message = f"got no {' and no '.join(missing)}, with which .*: pip install 'minisbert\\[onnx\\]'"
    with pytest.raises(ConfigError, match=message):
        to_onnx(SentenceTransformer(tiny("bert"), device="cpu"), tmp_path / "model.onnx")


def test_a_foreign_encoder_is_refused(tmp_path: Path) -> None:
    folder = build_family(tmp_path / "model", "electra", embedding_size=16)
    with pytest.raises(ConfigError, match="got an encoder of type electra, which runs through transformers"):
        to_onnx(SentenceTransformer(folder, device="cpu"), tmp_path / "model.onnx")


@pytest.mark.parametrize("name", ["model.safetensors", "other", "model.bin", "", "."])
@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_only_files_of_their_own_ending_are_written(
    form: str, name: str, tiny: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    SentenceTransformer(tiny("bert"), device="cpu").save_pretrained(folder)
    before = (folder / "model.safetensors").read_bytes()
    assert main(["export", str(folder), f"--{form}", str(folder / name) if name else ""]) == 2
    ending = ".onnx" if form == "onnx" else ".xml"
    assert f"expected a name that ends in {ending}" in capsys.readouterr().err
    assert (folder / "model.safetensors").read_bytes() == before
    assert not list(tmp_path.glob(f"**/*{ending}"))


def test_weights_of_openvino_are_not_written_over_others(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    model = SentenceTransformer(tiny("bert"), device="cpu")
    (tmp_path / "pytorch_model.bin").write_bytes(b"weights")
    with pytest.raises(InputError, match="whose weights would be written over .*pytorch_model.bin; expected a name"):
        to_openvino(model, tmp_path / "pytorch_model.xml")
    assert (tmp_path / "pytorch_model.bin").read_bytes() == b"weights"
    for _ in range(2):  # its own may be
        to_openvino(model, tmp_path / "own.xml")


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_a_failed_export_leaves_what_was_there(form: str, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    pytest.importorskip(form)
    export, name = (to_onnx, "model.onnx") if form == "onnx" else (to_openvino, "model.xml")
    model = SentenceTransformer(tiny("bert"), device="cpu")
    with torch.no_grad():
        model.transformer.encoder.get_input_embeddings().weight[5] = torch.nan
    (tmp_path / "there").mkdir()
    for folder, left in (("there", ["there"]), ("new/deep", ["there"])):
        with pytest.raises(ConfigError, match="that are not finite; expected numbers: check its weights"):
            export(model, tmp_path / folder / name)
        assert [str(path.relative_to(tmp_path)) for path in tmp_path.glob("**/*")] == left
    (tmp_path / "there" / name).write_text("old")
    with pytest.raises(ConfigError, match="not finite"):
        export(model, tmp_path / "there" / name)
    assert [path.read_text() for path in (tmp_path / "there").iterdir()] == ["old"]
    (tmp_path / f"folder{Path(name).suffix}").mkdir()
    with pytest.raises(InputError, match="which is a folder; expected the name of a file"):
        export(model, tmp_path / f"folder{Path(name).suffix}")


def test_command(tiny: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "model"
    SentenceTransformer(tiny("bert"), device="cpu").save_pretrained(folder)
    assert main(["export", str(folder), "--onnx", "--device", "cpu"]) == 0
    assert (folder / "onnx" / "model.onnx").is_file()
    assert "largest difference" in capsys.readouterr().out
    assert main(["export", str(folder), "--dtype", "int8", "--json", "--onnx"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["path"] == str(folder / "onnx" / "model_quantized.onnx")
    assert said["cosine"] > 0.99
    assert main(["export", str(folder), "--dtype", "float16", "--onnx"]) == 0
    assert (folder / "onnx" / "model_fp16.onnx").is_file()
    assert main(["export", str(folder), "--onnx", str(tmp_path / "other.onnx")]) == 0
    assert (tmp_path / "other.onnx").is_file()
    assert main(["export", str(folder)]) == 2
    assert "expected --onnx or --openvino" in capsys.readouterr().err
    assert main(["export", "--onnx", str(folder)]) == 2
    fix = f"expected a model folder or name: put it first, as in minisbert export {folder} --onnx"
    assert fix in capsys.readouterr().err
    assert main(["export", "--onnx"]) == 2
    assert "got no model to export; expected a model folder or name\n" in capsys.readouterr().err
    assert main(["export", str(folder / "no"), "--onnx"]) == 2
    assert "which is no folder here, and no file; expected a folder, or a file" in capsys.readouterr().err


@pytest.mark.parametrize("family", [*FAMILIES, "static"])
def test_openvino(family: str, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    if family == "static":
        model = SentenceTransformer(build_static(tmp_path / "model"), device="cpu")
    else:
        model = SentenceTransformer(build_family(tmp_path / "model", family, pooling="lasttoken"), device="cpu")
    made = to_openvino(model, tmp_path / "openvino" / "openvino_model.xml")
    assert made.difference < 1e-5 * max(1, float(np.abs(model.encode(TEXTS)).max()))
    files = list((tmp_path / "openvino").iterdir())
    assert sorted(file.name for file in files) == ["openvino_model.bin", "openvino_model.xml"]
    assert made.bytes == sum(file.stat().st_size for file in files)
    hold(model, made.path)


def test_openvino_in_half(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    model = SentenceTransformer(tiny("bert"), device="cpu")
    whole, half = (to_openvino(model, tmp_path / f"{dtype}.xml", dtype=dtype) for dtype in ("float32", "float16"))
    assert half.cosine > 0.9999
    assert (tmp_path / "float16.bin").stat().st_size < 0.6 * (tmp_path / "float32.bin").stat().st_size
    assert half.bytes < whole.bytes
    with pytest.raises(ConfigError, match="got dtype='int8'; expected float32 or float16"):
        to_openvino(model, tmp_path / "int8.xml", dtype="int8")
    with pytest.raises(InputError, match=r"expected a name that ends in \.xml"):
        to_openvino(model, tmp_path / "model.onnx")


def test_openvino_command(
    tiny: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    SentenceTransformer(tiny("bert"), device="cpu").save_pretrained(folder)
    assert main(["export", str(folder), "--openvino", "--dtype", "int8"]) == 2
    assert "got --dtype int8 with --openvino; expected float32 or float16" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["export", str(folder), "--openvino", "--onnx"])
    module, found = sys.modules["minisbert.export.to_onnx"], find_spec
    with monkeypatch.context() as context:
        context.setattr(module, "find_spec", lambda name: None if name == "openvino" else found(name))
        assert main(["export", str(folder), "--openvino"]) == 2
    assert "pip install 'minisbert[openvino]'" in capsys.readouterr().err
    assert not (folder / "openvino").exists()
    pytest.importorskip("openvino")
    assert main(["export", str(folder), "--openvino"]) == 0
    assert (folder / "openvino" / "openvino_model.bin").is_file()
