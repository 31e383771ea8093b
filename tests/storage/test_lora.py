"""LoRA adapters beside their base, and folders that hold something else than weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from minisbert import SentenceTransformer
from minisbert.errors import ModelError
from minisbert.storage.lora import merge_adapter
from minisbert.storage.weights import read_weights

QUERY = "encoder.layer.1.attention.self.query"
WORDS = "embeddings.word_embeddings"


@pytest.fixture
def folder(tiny: Callable[[str], Path], tmp_path: Path) -> Path:
    return shutil.copytree(tiny("bert"), tmp_path / "model")


def put_adapter(folder: Path, tensors: dict[str, Tensor], **config: Any) -> None:
    settings = {"peft_type": "LORA", "base_model_name_or_path": "acme/base", "r": 4, "lora_alpha": 8}
    (folder / "adapter_config.json").write_text(json.dumps({**settings, **config}))
    save_file(tensors, folder / "adapter_model.safetensors")


def matrices(
    module: str, rows: int = 32, columns: int = 32, *, rank: int = 4, prefix: str = "base_model.model."
) -> Any:
    torch.manual_seed(0)
    a, b = torch.randn(rank, columns), torch.randn(rows, rank)
    return a, b, {f"{prefix}{module}.lora_A.weight": a, f"{prefix}{module}.lora_B.weight": b}


def filled(value: float, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Matrices with the same number everywhere."""
    return {name: torch.full_like(tensor, value, dtype=dtype) for name, tensor in matrices(QUERY)[2].items()}


@pytest.mark.parametrize("prefix", ["base_model.model.", "base_model.model.bert.", "base_model.model.0.auto_model."])
@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({}, 2),
        ({"use_rslora": True}, 4),
        ({"lora_alpha": 1.0}, 0.25),
        ({"alpha_pattern": {"query": 12, "key": 1}}, 3),
        ({"alpha_pattern": {"attention.self.query": 4}}, 1),
        ({"alpha_pattern": {"uery": 4}}, 2),
    ],
)
def test_a_weight_is_changed_by_the_product(prefix: str, config: dict[str, Any], scale: float, folder: Path) -> None:
    base = load_file(folder / "model.safetensors")
    a, b, tensors = matrices(QUERY, prefix=prefix)
    put_adapter(folder, tensors, **config)
    merged = read_weights(folder)
    assert merged.keys() == base.keys()
    torch.testing.assert_close(merged[f"{QUERY}.weight"], base[f"{QUERY}.weight"] + scale * b @ a)
    assert all(torch.equal(merged[name], base[name]) for name in base if name != f"{QUERY}.weight")


def test_embeddings_biases_and_whole_modules(folder: Path) -> None:
    base = load_file(folder / "model.safetensors")
    vocabulary = len(base[f"{WORDS}.weight"])
    a, b = torch.randn(4, vocabulary), torch.randn(32, 4)
    bias, norm = torch.randn(32), torch.randn(32)
    put_adapter(
        folder,
        {
            f"base_model.model.{WORDS}.lora_embedding_A": a,
            f"base_model.model.{WORDS}.lora_embedding_B": b,
            f"base_model.model.{QUERY}.bias": bias,
            "base_model.model.embeddings.LayerNorm.weight": norm,
        },
    )
    merged = read_weights(folder)
    torch.testing.assert_close(merged[f"{WORDS}.weight"], base[f"{WORDS}.weight"] + 2 * (b @ a).T)
    assert torch.equal(merged[f"{QUERY}.bias"], bias)
    assert torch.equal(merged["embeddings.LayerNorm.weight"], norm)


def test_transposed_weights_and_half_precision() -> None:
    a, b, tensors = matrices("layer.c_attn", rows=6, columns=10)
    weights = {"h.layer.c_attn.weight": torch.zeros(10, 6, dtype=torch.float16)}
    place = Path("adapter")
    with pytest.MonkeyPatch.context() as patch:
        settings = {"peft_type": "LORA", "lora_alpha": 4, "fan_in_fan_out": True}
        patch.setattr("minisbert.storage.lora.read_json_object", lambda _: settings)
        merge_adapter(weights, tensors, place)
    assert torch.equal(weights["h.layer.c_attn.weight"], (b @ a).T.half())


def test_the_model_is_saved_merged(folder: Path, tmp_path: Path) -> None:
    plain = SentenceTransformer(folder, device="cpu").encode(["a cat"])
    put_adapter(folder, matrices(QUERY)[2])
    model = SentenceTransformer(folder, device="cpu")
    assert abs(model.encode(["a cat"]) - plain).max() > 1e-3
    model.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved" / "adapter_config.json").exists()
    again = SentenceTransformer(tmp_path / "saved", device="cpu")
    assert again.encode(["a cat"]).tolist() == model.encode(["a cat"]).tolist()
    SentenceTransformer(folder, device="cpu", dtype="int8").save_pretrained(tmp_path / "from int8")
    assert (
        load_file(tmp_path / "from int8" / "model.safetensors").keys()
        == load_file(tmp_path / "saved" / "model.safetensors").keys()
    )


@pytest.mark.parametrize(
    ("tensors", "config", "parts"),
    [
        (matrices(QUERY)[2], {"peft_type": "IA3"}, ["IA3", "expected LoRA", "merge_and_unload"]),
        (matrices(QUERY)[2], {"use_dora": True}, ["DoRA", "expected LoRA"]),
        (matrices(QUERY)[2], {"init_lora_weights": "pissa_niter_4"}, ["pissa", "expected LoRA"]),
        (matrices(QUERY)[2], {"lora_alpha": "8"}, ["lora_alpha", "'8'", "a number above 0"]),
        (matrices(QUERY)[2], {"lora_alpha": 0}, ["lora_alpha", "a number above 0"]),
        (matrices(QUERY)[2], {"lora_alpha": -8}, ["lora_alpha", "-8", "a number above 0"]),
        (matrices(QUERY)[2], {"lora_alpha": 10**40}, ["lora_alpha", "a number above 0"]),
        (matrices(QUERY)[2], {"lora_alpha": float("nan")}, ["lora_alpha", "nan", "a number above 0"]),
        (matrices(QUERY)[2], {"alpha_pattern": {"query": float("inf")}}, ["inf", "a number above 0"]),
        (matrices(QUERY, rank=0)[2], {}, ["no two matrices", QUERY]),
        (filled(float("nan")), {}, ["not finite", f"{QUERY}.lora_A.weight", "finite floats"]),
        (filled(float("inf")), {}, ["not finite", f"{QUERY}.lora_A.weight", "finite floats"]),
        (filled(1e30), {"lora_alpha": 1e20}, ["not finite", f"{QUERY}.weight", "acme/base"]),
        (filled(1, torch.int8), {}, ["torch.int8", f"{QUERY}.lora_A.weight", "finite floats"]),
        ({**filled(1), f"base_model.model.{QUERY}.lora_A": torch.ones(4, 32)}, {}, [f"{QUERY} twice", "one pair"]),
        (filled(1, torch.bool), {}, ["torch.bool", "finite floats"]),
        (filled(1, torch.complex64), {}, ["torch.complex64", "finite floats"]),
        ({**matrices(QUERY)[2], **matrices(QUERY, prefix="")[2]}, {}, [f"{QUERY}.weight twice", "one of them"]),
        (matrices(QUERY)[2], {"alpha_pattern": {"(a+)+": 1}}, ["alpha_pattern", "names of modules"]),
        (matrices("encoder.layer.7.other")[2], {}, ["encoder.layer.7.other", "acme/base"]),
        (matrices(QUERY, rows=16)[2], {}, ["(16, 32)", "(32, 32)", "acme/base"]),
        ({f"base_model.model.{QUERY}.lora_A.weight": torch.ones(4, 32)}, {}, ["no two matrices", QUERY]),
        ({f"base_model.model.{QUERY}.lora_magnitude_vector": torch.ones(32)}, {}, ["lora_magnitude_vector", "PEFT"]),
    ],
)
def test_other_adapters_are_refused(
    tensors: dict[str, Tensor], config: dict[str, Any], parts: list[str], folder: Path
) -> None:
    if parts[0] == "torch.complex64" and version("safetensors").startswith("0.4."):
        pytest.skip("safetensors 0.4 writes no complex numbers")
    put_adapter(folder, tensors, **config)
    with pytest.raises(ModelError) as caught:
        SentenceTransformer(folder, device="cpu")
    assert "\n" not in str(caught.value)
    assert [part for part in parts if part not in str(caught.value)] == []


def test_shapes_are_compared_before_the_product_is_made(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_adapter(folder, matrices(QUERY, rows=50, columns=60)[2])
    monkeypatch.setattr(Tensor, "__matmul__", lambda *_: pytest.fail("multiplied"))
    with pytest.raises(ModelError, match=r"has shape \(50, 60\) for .*, the weights \(32, 32\)"):
        read_weights(folder)


def test_an_adapter_without_tensors(folder: Path) -> None:
    put_adapter(folder, {})
    (folder / "adapter_model.safetensors").unlink()
    torch.save({}, folder / "adapter_model.bin")
    with pytest.raises(ModelError, match="has no tensors; expected those of LoRA: copy it again"):
        read_weights(folder)


def test_an_adapter_without_its_weights(folder: Path) -> None:
    put_adapter(folder, {})
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has adapter_config\.json and no adapter_model\.safetensors; expected both"):
        SentenceTransformer(folder, device="cpu")


@pytest.mark.parametrize("config", [True, False])
def test_an_adapter_without_its_base_names_it(config: bool, folder: Path) -> None:
    put_adapter(folder, matrices(QUERY)[2])
    (folder / "model.safetensors").unlink()
    if not config:
        (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"only an adapter \(adapter_model.safetensors\) of acme/base"):
        SentenceTransformer(folder, device="cpu")


@pytest.mark.parametrize(
    ("file", "what"),
    [
        ("onnx/model.onnx", "an ONNX model"),
        ("model_quantized.onnx", "an ONNX model"),
        ("small.Q8_0.gguf", "a GGUF model"),
        ("tf_model.h5", "TensorFlow weights"),
        ("flax_model.msgpack", "Flax weights"),
        ("openvino/openvino_model.xml", "an OpenVINO model"),
        ("rust_model.ot", "weights of rust-bert"),
        ("model.bin", "a CTranslate2 model"),
    ],
)
@pytest.mark.parametrize("bare", [True, False])
def test_other_forms_are_named(file: str, what: str, bare: bool, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    if bare:
        (folder / "config.json").unlink()
        (folder / "modules.json").unlink()
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_bytes(b"...")
    with pytest.raises(ModelError, match=rf"has only {what}.*\({file}\); expected model\.safetensors") as caught:
        SentenceTransformer(folder, device="cpu")
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="a file; expected the folder"):
        SentenceTransformer(folder / file)


@pytest.mark.parametrize(
    ("config", "method"),
    [
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "bitsandbytes, 4 bits"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq, 4"),
        ({"quantization": {"group_size": 32, "bits": 4}}, "MLX, 4 bits"),
        ({"quantization_config": "4 bits"}, "quantization_config='4 bits'"),
    ],
)
@pytest.mark.parametrize("model_type", ["bert", "electra"])
def test_quantized_weights_are_refused(config: dict[str, Any], method: str, model_type: str, folder: Path) -> None:
    saved = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**saved, **config, "model_type": model_type}))
    with pytest.raises(ModelError, match=rf"quantized \({method}\); expected floats"):
        SentenceTransformer(folder, device="cpu")


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json", "1_Pooling/config.json"])
def test_pointers_of_git_lfs(file: str, folder: Path) -> None:
    (folder / file).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:53aa\nsize 90868376\n")
    with pytest.raises(ModelError, match="git-lfs left a pointer in place of the file: run git lfs pull"):
        SentenceTransformer(folder, device="cpu")


def test_a_file_that_is_written_over_changes_no_loaded_model(folder: Path) -> None:
    model = SentenceTransformer(folder, device="cpu")
    before = model.encode(["a cat"])
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    with file.open("r+b") as opened:
        opened.seek(len(content) // 2)
        opened.write(bytes(len(content) - len(content) // 2))
    assert model.encode(["a cat"]).tolist() == before.tolist()
