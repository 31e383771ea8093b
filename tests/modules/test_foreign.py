"""Encoders that run through transformers have all of their weights, or are refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from places import TRANSFORMERS
from safetensors.torch import load_file, save_file

from minisbert import SentenceTransformer
from minisbert.errors import ModelError

transformers = pytest.importorskip("transformers")

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
TEXTS = ["a cat sat on the mat", "red sea"]


@pytest.fixture(params=["MegatronBert", "Electra", "DebertaV2", "T5"])
def folder(request: pytest.FixtureRequest, tiny: Callable[[str], Path], tmp_path: Path) -> Path:
    """A model of another architecture with the tokenizer of a small BERT."""
    torch.manual_seed(0)
    folder = shutil.copytree(tiny("bert"), tmp_path / "model")
    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    (folder / "model.safetensors").unlink()
    if request.param == "T5":
        config = transformers.T5Config(vocab_size=vocabulary, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2)
        transformers.T5EncoderModel(config).save_pretrained(folder)
    else:
        kind = f"{request.param}Config"
        special = {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
        config = getattr(transformers, kind)(vocab_size=vocabulary, **SIZES, **special)
        transformers.AutoModel.from_config(config).save_pretrained(folder)
    return folder


def rename(folder: Path, change: Callable[[str], str | None]) -> None:
    """Rename tensors, or remove those for which `change` gives None."""
    tensors = load_file(folder / "model.safetensors")
    renamed = {new: tensor.contiguous() for name, tensor in tensors.items() if (new := change(name)) is not None}
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "0.auto_model.", "model.encoder."])
def test_wrapped_names_are_found(prefix: str, folder: Path) -> None:
    right = SentenceTransformer(folder, device="cpu").encode(TEXTS)
    rename(folder, lambda name: prefix + name)
    assert SentenceTransformer(folder, device="cpu").encode(TEXTS).tolist() == right.tolist()


@pytest.mark.parametrize("table", [True, False])
@pytest.mark.filterwarnings("ignore:max_seq_length is 48")
def test_only_a_table_of_positions_has_an_end(table: bool, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(tiny("bert"), tmp_path / "model")
    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    sizes = {**SIZES, "vocab_size": vocabulary, "max_position_embeddings": 40, "max_relative_positions": 20}
    config = transformers.DebertaV2Config(**sizes, relative_attention=True, position_biased_input=table)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    model = SentenceTransformer(folder, device="cpu", truncation="count")
    assert model.max_seq_length == (40 if table else 48)  # of sentence_bert_config.json
    assert model.encode("cat " * 60).shape == (32,)


@pytest.mark.parametrize(
    ("value", "reason"), [("foo", "KeyError: 'foo'"), (3, "field 'hidden_act': TypeError: .* expected str, got int")]
)
def test_reasons_of_transformers_are_quoted(
    value: object, reason: str, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny("bert"), tmp_path / "model")
    if value == 3 and TRANSFORMERS < 5:
        pytest.skip("transformers 4 checks no kinds of values")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_act": value}))
    with pytest.raises(ModelError, match=f"{reason}.*; expected a known one: copy it again") as caught:
        SentenceTransformer(folder, device="cpu")
    assert "\n" not in str(caught.value)


def test_two_models_in_one_file_are_named(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    both = {f"{prefix}.{name}": tensor.clone() for prefix in ("teacher", "student") for name, tensor in tensors.items()}
    save_file(both, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"of two models, student\.\* and teacher\.\*; expected one: remove"):
        SentenceTransformer(folder, device="cpu")


def test_a_model_beside_the_one_that_transformers_takes_is_named(folder: Path) -> None:
    own = transformers.AutoModel.from_pretrained(folder).base_model_prefix
    tensors = load_file(folder / "model.safetensors")
    both = {f"{prefix}.{name}": tensor.clone() for prefix in (own, "zz") for name, tensor in tensors.items()}
    save_file(both, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=rf"of two models, {own}\.\* and zz\.\*; expected one: remove the other"):
        SentenceTransformer(folder, device="cpu")


@pytest.mark.parametrize("prefix", ["", "0.auto_model."])
@pytest.mark.parametrize("pickled", [True, False])
def test_layers_that_are_left_unused(pickled: bool, prefix: str, folder: Path) -> None:
    rename(folder, lambda name: prefix + name)
    if pickled:
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    config = json.loads((folder / "config.json").read_text())
    key = "num_layers" if config["model_type"] == "t5" else "num_hidden_layers"
    config.pop("layer_types", None)
    (folder / "config.json").write_text(json.dumps({**config, key: 1}))
    with pytest.warns(UserWarning, match="1 layers of the weights are left unused, since config.json") as caught:
        SentenceTransformer(folder, device="cpu")
    assert len(caught) == 1


@pytest.mark.parametrize("folder", ["Electra", "T5"], indirect=True)
def test_no_layer_and_a_negative_number_of_them(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    key = "num_layers" if config["model_type"] == "t5" else "num_hidden_layers"
    (folder / "config.json").write_text(json.dumps({**config, key: -1}))
    with pytest.raises(ModelError, match=f"got -1 for {key}; expected at most 1000, and no negative number"):
        SentenceTransformer(folder, device="cpu")
    if config["model_type"] == "t5" and TRANSFORMERS < 5:
        pytest.skip("transformers 4 makes no T5 without layers")
    (folder / "config.json").write_text(json.dumps({**config, key: 0}))
    with pytest.warns(UserWarning, match="2 layers of the weights are left unused, since config.json") as caught:
        model = SentenceTransformer(folder, device="cpu")
    assert len(caught) == 1
    model.save_pretrained(tmp_path / "saved")
    assert SentenceTransformer(tmp_path / "saved", device="cpu").encode(TEXTS).tolist() == model.encode(TEXTS).tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("prefix", ["", "0.auto_model."])
def test_pickled_weights_are_read_once(
    dtype: torch.dtype, prefix: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(folder / "model.safetensors").items()}
    config = json.loads((folder / "config.json").read_text())
    config = {name: value for name, value in config.items() if name not in ("dtype", "torch_dtype")}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    model = SentenceTransformer(folder, device="cpu")
    right = model.encode(TEXTS)
    torch.save({prefix + name: tensor for name, tensor in tensors.items()}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    loaded, load = [], torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **options: loaded.append(args[0]) or load(*args, **options))
    again = SentenceTransformer(folder, device="cpu")
    assert loaded == [folder / "pytorch_model.bin"]
    assert [parameter.dtype for parameter in again.parameters()] == [
        parameter.dtype for parameter in model.parameters()
    ]
    assert again.encode(TEXTS).tolist() == right.tolist()


@pytest.mark.parametrize("pickled", [True, False])
def test_weights_that_are_not_floats_are_refused(pickled: bool, folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in sorted(tensors) if ".0." in name)
    tensors[name] = tensors[name].to(torch.int8)
    if pickled:
        (folder / "model.safetensors").unlink()
        torch.save(tensors, folder / "pytorch_model.bin")
    else:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=rf"are (I8|int8) for {name}; expected floats: save the model without"):
        SentenceTransformer(folder, device="cpu")


def test_a_weight_of_another_shape_is_named(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in sorted(tensors) if ".0." in name)
    right = tuple(tensors[name].shape)
    tensors[name] = torch.zeros(7, 7)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    got = "shape (7, 7)" if TRANSFORMERS >= 5 else "another shape"
    message = f"have {got} for {name}; config.json asks for {right}"
    with pytest.raises(ModelError, match=re.escape(message)):
        SentenceTransformer(folder, device="cpu")


def test_missing_weights_are_named(folder: Path) -> None:
    rename(folder, lambda name: None if ".1." in name else name)
    with pytest.raises(
        ModelError, match=r"lack \d+ tensors, .*\.1\..* among them; expected all of a \w+Model"
    ) as caught:
        SentenceTransformer(folder, device="cpu")
    assert "\n" not in str(caught.value)


def test_one_missing_weight_is_named(folder: Path) -> None:
    gone = next(name for name in sorted(load_file(folder / "model.safetensors")) if ".0." in name)
    rename(folder, lambda name: None if name == gone else name)
    with pytest.raises(ModelError, match=rf"lack 1 tensors, {gone} among them"):
        SentenceTransformer(folder, device="cpu")


def test_an_adapter_is_merged(folder: Path) -> None:
    right = SentenceTransformer(folder, device="cpu").encode(TEXTS)
    tensors = load_file(folder / "model.safetensors")
    module = next(n for n in sorted(tensors) if ".0." in n and tensors[n].ndim == 2).removesuffix(".weight")
    rows, columns = tensors[f"{module}.weight"].shape
    a, b = torch.randn(4, columns), torch.randn(rows, 4)
    adapter = {f"base_model.model.{module}.lora_A.weight": a, f"base_model.model.{module}.lora_B.weight": b}
    save_file(adapter, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "lora_alpha": 4, "r": 4}))
    beside = SentenceTransformer(folder, device="cpu").encode(TEXTS)
    (folder / "adapter_config.json").unlink()
    save_file(
        {**tensors, f"{module}.weight": tensors[f"{module}.weight"] + b @ a},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    by_hand = SentenceTransformer(folder, device="cpu").encode(TEXTS)
    assert abs(beside - by_hand).max() < 1e-6
    assert abs(beside - right).max() > 1e-4


@pytest.mark.parametrize("kind", ["alibi", "relative_key", "relative_key_query", "rotary"])
def test_position_embeddings_that_would_be_dropped(kind: str, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(tiny("bert"), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "position_embedding_type": kind}))
    if kind.startswith("relative") and TRANSFORMERS < 5:
        pytest.skip("transformers 4 computes these")
    with pytest.raises(ModelError, match=rf"position_embedding_type='{kind}', which transformers does not compute"):
        SentenceTransformer(folder, device="cpu")


def test_a_file_that_is_written_over_changes_no_loaded_model(folder: Path) -> None:
    model = SentenceTransformer(folder, device="cpu")
    before = model.encode(TEXTS)
    file = folder / "model.safetensors"
    size = file.stat().st_size
    with file.open("r+b") as opened:
        opened.seek(size // 2)
        opened.write(bytes(size - size // 2))
    assert model.encode(TEXTS).tolist() == before.tolist()


def test_weights_that_are_no_floats_are_refused(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in sorted(tensors) if name.endswith(".weight"))
    save_file({**tensors, name: tensors[name].to(torch.int8)}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"are I8 for {name}; expected floats: save the model without quantization"):
        SentenceTransformer(folder, device="cpu")
