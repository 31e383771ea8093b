"""Checkpoints: the names, files and number types in which weights are found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from model_folders import add_module, edit, files, load, read
from safetensors.torch import load_file, save_file

from minisbert.errors import ModelError
from minisbert.storage.layout import read_layout

TEXTS = ["a cat sat on the mat", "one", "why is the sky blue and the sea not"]
WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tiny: Callable[[str], Path], tmp_path: Path) -> Path:
    return shutil.copytree(tiny("bert"), tmp_path / "model")


def change(folder: Path, how: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    save_file(how(load_file(folder / WEIGHTS)), folder / WEIGHTS, metadata={"format": "pt"})


def number_type(model: Any) -> list[torch.dtype]:
    return sorted({parameter.dtype for parameter in model.parameters()}, key=str)


@pytest.mark.parametrize("architecture", tiny_models.ARCHITECTURES)
@pytest.mark.parametrize("prefix", ["own", "model.", "0.auto_model.", "0.model.bert."])
def test_names_before_the_names(architecture: str, prefix: str, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    """With a head, and from a wrapper's state: the encoder is found, the rest left out, a copy is clean."""
    folder = shutil.copytree(tiny(architecture), tmp_path / "model")
    expected, original = load(folder).encode(TEXTS), (folder / WEIGHTS).read_bytes()
    own = {"xlm-roberta": "roberta."}.get(architecture, f"{architecture}.")
    start = own if prefix == "own" else prefix
    head = {"cls.predictions.bias": torch.zeros(3), "classifier.weight": torch.zeros(2, 2)}
    position_ids = {f"{start}embeddings.position_ids": torch.arange(64)[None]}
    change(folder, lambda tensors: {start + name: value for name, value in tensors.items()} | head | position_ids)
    model = load(folder)
    assert np.array_equal(model.encode(TEXTS), expected)
    model.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / WEIGHTS).read_bytes() == original


def test_two_models_in_one_file(folder: Path) -> None:
    """The reference takes bert.*, and takes names as they are before those with a prefix."""
    expected = load(folder).encode(TEXTS)
    other = {name: tensor + 1 for name, tensor in load_file(folder / WEIGHTS).items()}
    change(folder, lambda tensors: tensors | {f"zz.{name}": tensor for name, tensor in other.items()})
    assert np.array_equal(load(folder).encode(TEXTS), expected)
    change(folder, lambda tensors: {n if n.startswith("zz.") else f"bert.{n}": t for n, t in tensors.items()})
    with pytest.raises(ModelError, match=r"are of two models, bert\.\* and zz\.\*; expected one: remove the other"):
        load(folder)


@pytest.mark.parametrize("kept", [1, 0])
@pytest.mark.parametrize("architecture", tiny_models.ARCHITECTURES)
def test_layers_that_are_left_unused(kept: int, architecture: str, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(tiny(architecture), tmp_path / "model")
    key = "n_layers" if architecture == "distilbert" else "num_hidden_layers"
    number = read(folder / "config.json")[key]
    edit(folder / "config.json", **{key: kept})
    with pytest.warns(
        UserWarning, match=rf"{number - kept} layers of the weights are left unused, since config"
    ) as caught:
        model = load(folder)
    assert len(caught) == 1
    model.save_pretrained(tmp_path / "saved")
    assert np.array_equal(load(tmp_path / "saved").encode(TEXTS), model.encode(TEXTS))


def test_oldest_names_of_layer_norms(folder: Path, tmp_path: Path) -> None:
    expected, original = load(folder).encode(TEXTS), (folder / WEIGHTS).read_bytes()
    renames = (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta"))

    def rename(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        for new, old in renames:
            tensors = {name.replace(new, old): tensor for name, tensor in tensors.items()}
        return tensors

    change(folder, rename)
    assert not any("LayerNorm.weight" in name for name in load_file(folder / WEIGHTS))
    model = load(folder)
    assert np.array_equal(model.encode(TEXTS), expected)
    model.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / WEIGHTS).read_bytes() == original


def spread(folder: Path, form: str) -> None:
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    places = {name: f"part-{number % 3}.{form.rpartition('.')[2]}" for number, name in enumerate(tensors)}
    for file in set(places.values()):
        part = {name: tensor for name, tensor in tensors.items() if places[name] == file}
        save_file(part, folder / file) if form == WEIGHTS else torch.save(part, folder / file)
    edit(folder / f"{form}.index.json", metadata={"total_size": 1}, weight_map=places)


@pytest.mark.parametrize("form", [WEIGHTS, "pytorch_model.bin"])
def test_checkpoints_over_several_files(form: str, folder: Path, tmp_path: Path) -> None:
    expected, original = load(folder).encode(TEXTS), (folder / WEIGHTS).read_bytes()
    spread(folder, form)
    model = load(folder)
    assert np.array_equal(model.encode(TEXTS), expected)
    model.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / WEIGHTS).read_bytes() == original
    index, part = folder / f"{form}.index.json", next(folder.glob("part-1.*"))
    content = part.read_bytes()
    part.unlink()
    with pytest.raises(ModelError, match="part-1.* cannot be read"):
        load(folder)
    for places, message in (
        ({"a": "../part-1.bin"}, "expected a weight_map from tensors to files beside it"),
        ({"a": 3}, "expected a weight_map"),
        ([], "expected a weight_map"),
    ):
        part.write_bytes(content)
        index.write_text(json.dumps({"weight_map": places}))
        with pytest.raises(ModelError, match=message):
            load(folder)


def test_which_of_several_checkpoints(folder: Path) -> None:
    """In the order in which transformers looks for them."""
    expected = load(folder).encode(TEXTS)
    (folder / "pytorch_model.bin").write_bytes(b"other")
    (folder / f"{WEIGHTS}.index.json").write_text("other")
    assert np.array_equal(load(folder).encode(TEXTS), expected)


@pytest.mark.parametrize(
    ("config", "stored", "model_args", "asked", "expected"),
    [
        ({}, torch.float32, {}, None, torch.float32),
        ({}, torch.bfloat16, {}, None, torch.bfloat16),
        ({"torch_dtype": "float32"}, torch.bfloat16, {}, None, torch.float32),
        ({"dtype": "bfloat16"}, torch.float32, {}, None, torch.bfloat16),
        ({"torch_dtype": "float16", "dtype": "bfloat16"}, torch.float32, {}, None, torch.bfloat16),
        ({"torch_dtype": "auto"}, torch.float16, {}, None, torch.float16),
        ({"dtype": "float32"}, torch.float32, {"torch_dtype": "bfloat16"}, None, torch.bfloat16),
        ({"dtype": "bfloat16"}, torch.bfloat16, {"dtype": "auto"}, None, torch.bfloat16),
        ({"dtype": "bfloat16"}, torch.bfloat16, {"dtype": "float16"}, "float32", torch.float32),
    ],
)
def test_number_type(
    config: dict[str, str],
    stored: torch.dtype,
    model_args: dict[str, str],
    asked: Any,
    expected: torch.dtype,
    folder: Path,
    tmp_path: Path,
) -> None:
    """The argument goes before the settings, these before config.json, and that before what is stored."""
    edit(folder / "config.json", **config)
    edit(folder / "sentence_bert_config.json", model_args=model_args)
    change(folder, lambda tensors: {name: tensor.to(stored) for name, tensor in tensors.items()})
    norm = {"norm.weight": torch.ones(32), "norm.bias": torch.zeros(32)}
    add_module(folder, "LayerNorm", {"dimension": 32}, norm)
    model = load(folder, dtype=asked)
    assert number_type(model) == [expected]  # all modules in that of the first
    assert model.encode(TEXTS).dtype == np.float32
    model.save_pretrained(tmp_path / "saved")
    assert {tensor.dtype for tensor in load_file(tmp_path / "saved" / WEIGHTS).values()} == {expected}
    assert number_type(load(tmp_path / "saved")) == [expected]
    written = read(tmp_path / "saved" / "config.json")
    said = {written[key] for key in ("dtype", "torch_dtype") if key in written}
    assert said == ({str(expected).removeprefix("torch.")} if config or expected != torch.float32 else set())


def test_impossible_number_type(folder: Path) -> None:
    edit(folder / "config.json", dtype="int7")
    with pytest.raises(ModelError, match="config.json in .*: got dtype='int7'; expected float32"):
        load(folder)


@pytest.mark.parametrize("architecture", tiny_models.ARCHITECTURES)
def test_a_rewrite_keeps_every_byte(architecture: str, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    source = tiny(architecture)
    load(source).save_pretrained(tmp_path / "first")
    load(tmp_path / "first").save_pretrained(tmp_path / "second")
    first = files(tmp_path / "first")
    assert files(tmp_path / "second") == first
    for name in (WEIGHTS, "tokenizer.json", "tokenizer_config.json"):
        assert first[name] == files(source)[name]
    assert read(tmp_path / "first" / "config.json") == read(source / "config.json")
    assert first["config.json"].endswith(b"}\n")


@pytest.mark.parametrize(
    ("architectures", "is_causal", "mode"),
    [
        (["BertForCausalLM"], None, "lasttoken"),
        (["BertForCausalLM"], False, "mean"),
        (["BertModel", "BertForCausalLM"], None, "mean"),
        (None, None, "mean"),
    ],
)
def test_bare_checkpoints(architectures: Any, is_causal: bool | None, mode: str, folder: Path) -> None:
    """Nothing but config.json, weights and tokenizer is looked at."""
    (folder / "modules.json").unlink()
    edit(folder / "config.json", architectures=architectures, **({} if is_causal is None else {"is_causal": is_causal}))
    edit(folder / "config_sentence_transformers.json", prompts={"query": "q: "}, truncate_dim=3)
    (folder / "README.md").write_text("the card of another model")
    with pytest.warns(UserWarning, match=f"says nothing about pooling: {'last-token' if mode != 'mean' else 'mean'}"):
        model = load(folder)
    assert [type(module).__name__ for module in model] == ["Transformer", "Pooling"]
    assert model[1].pooling_mode == (mode,)
    assert (model.max_seq_length, model.prompts, model.truncate_dim) == (64, {"query": "", "document": ""}, None)


def test_bare_checkpoints_that_are_causal(folder: Path) -> None:
    """Their pooling is by the last token; BERT itself is not computed so, as transformers would."""
    (folder / "modules.json").unlink()
    edit(folder / "config.json", architectures=["BertForCausalLM"], is_causal=True)
    assert read_layout(folder).pooling == "lasttoken"
    with pytest.raises(ModelError, match="got is_causal=True for an encoder, in which every token sees all others"):
        load(folder)


def test_models_of_another_kind_lose_their_modules(folder: Path, tmp_path: Path) -> None:
    edit(folder / "config_sentence_transformers.json", model_type="SparseEncoder", default_prompt_name="x", prompts={})
    entries = read(folder / "modules.json")
    entries[1]["type"] = "sentence_transformers.sparse_encoder.models.SpladePooling"
    (folder / "modules.json").write_text(json.dumps(entries))
    with pytest.warns(
        UserWarning, match="is a SparseEncoder, not a SentenceTransformer: its modules are left out: mean"
    ):
        model = load(folder)
    assert [type(module).__name__ for module in model] == ["Transformer", "Pooling"]
    model.save_pretrained(tmp_path / "saved")
    assert np.array_equal(load(tmp_path / "saved").encode(TEXTS), model.encode(TEXTS))


def test_a_transformer_in_a_folder_of_its_own(folder: Path, tmp_path: Path) -> None:
    """As the oldest versions saved it."""
    expected = load(folder).encode(TEXTS)
    entries = read(folder / "modules.json")
    entries[0]["path"] = "0_Transformer"
    (folder / "modules.json").write_text(json.dumps(entries))
    (folder / "0_Transformer").mkdir()
    for name in ("config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json", "sentence_bert_config.json"):
        (folder / name).rename(folder / "0_Transformer" / name)
    model = load(folder)
    assert model.max_seq_length == 48
    model.save_pretrained(tmp_path / "saved")
    assert np.array_equal(load(tmp_path / "saved").encode(TEXTS), expected)
    assert read(tmp_path / "saved" / "modules.json")[0]["path"] == ""
