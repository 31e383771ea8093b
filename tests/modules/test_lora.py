"""LoRA on native encoders: which layers, what is computed and trained, merging, and values that are refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from minisbert import LoraConfig, SentenceTransformer, kernels, losses
from minisbert.errors import ConfigError, InputError, ModelError
from minisbert.modules.lora import LoraLinear, adapted_layers, linear_layers

TEXTS = ["a cat sat on the mat", "why is the sky blue", "one", ""]
GOLDEN = Path(__file__).parents[1] / "parity" / "golden" / "adapter"
BOUND = 2e-6  # of embeddings of length 1


def adapted(folder: Path, **settings: Any) -> SentenceTransformer:
    """Return a model with an adapter that changes something."""
    model = SentenceTransformer(folder, device="cpu")
    torch.manual_seed(0)
    model.add_adapter(LoraConfig(**{"r": 2, "lora_alpha": 6, **settings}))
    for layer in adapted_layers(model).values():
        torch.nn.init.normal_(layer.lora_B, std=0.3)
    return model


def difference(first: np.ndarray, second: np.ndarray) -> float:
    return float(abs(first - second).max())


# ---- layers ---------------------------------------------------------------------------------------------------------

QUERIES = {"bert": "query", "roberta": "query", "xlm-roberta": "query", "distilbert": "q_lin", "mpnet": "q"}


@pytest.mark.parametrize("architecture", tiny_models.ARCHITECTURES)
@pytest.mark.parametrize("kind", ["default", "name", "expression", "all-linear"])
def test_layers_are_chosen_by_the_names_of_checkpoints(
    architecture: str, kind: str, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    name = QUERIES[architecture]
    targets = {"default": None, "name": [name], "expression": rf".*layer\.1\..*\.{name}", "all-linear": "all-linear"}
    folder = tiny(architecture)
    before = SentenceTransformer(folder, device="cpu").encode(TEXTS)
    model = adapted(folder, target_modules=targets[kind])
    layers = adapted_layers(model.transformer.auto_model)
    names = linear_layers(model.transformer.auto_model, model.transformer.config)
    assert len(layers) == {"default": 4, "name": 2, "expression": 1, "all-linear": 12}[kind]
    assert {f"{names[layer]}.weight" for layer in layers} <= set(load_file(folder / "model.safetensors"))
    assert difference(model.encode(TEXTS), before) > 1e-3

    model.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved" / "model.safetensors").exists()
    again = SentenceTransformer(folder, device="cpu")
    again.load_adapter(tmp_path / "saved")
    assert (again.encode(TEXTS) == model.encode(TEXTS)).all()
    merged = SentenceTransformer(tmp_path / "saved", device="cpu")
    assert difference(merged.encode(TEXTS), model.encode(TEXTS)) < BOUND
    assert (again.merge_and_unload().encode(TEXTS) == merged.encode(TEXTS)).all()


def test_a_new_adapter_changes_nothing_and_is_drawn_as_in_peft(tiny: Callable[[str], Path]) -> None:
    model = SentenceTransformer(tiny("bert"), device="cpu")
    with kernels.use("reference"):
        before = model.encode(TEXTS)
        torch.manual_seed(5)
        model.add_adapter(LoraConfig(r=3, target_modules=["query"]))
        assert (model.encode(TEXTS) == before).all()
    torch.manual_seed(5)
    for layer in adapted_layers(model).values():  # uniform up to 1 / sqrt(in)
        drawn = torch.nn.init.kaiming_uniform_(torch.empty(3, 32), a=5**0.5)
        assert torch.equal(layer.lora_A, drawn)
        assert not layer.lora_B.any()


@pytest.mark.parametrize(("rslora", "scale"), [(False, 3.0), (True, 6 / 2**0.5)])
def test_the_formula(rslora: bool, scale: float) -> None:
    torch.manual_seed(0)
    base = torch.nn.Linear(5, 7).double()
    layer = LoraLinear(base, LoraConfig(r=2, lora_alpha=6, use_rslora=rslora, lora_dropout=0.5))
    torch.nn.init.normal_(layer.lora_B)
    x = torch.randn(4, 5, dtype=torch.float64)
    change = scale * layer.lora_B @ layer.lora_A
    torch.testing.assert_close(layer.eval()(x), x @ (base.weight + change).T + base.bias)
    torch.manual_seed(1)
    got = layer.train()(x)
    torch.manual_seed(1)
    torch.testing.assert_close(got, base(x) + F.dropout(x, 0.5) @ change.T)


def test_only_the_adapter_has_gradients_and_merging_makes_the_encoder_fast_again(tiny: Callable[[str], Path]) -> None:
    model = adapted(tiny("bert"))
    encoder = model.transformer.auto_model
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    assert trained == {name for name, _ in model.named_parameters() if ".lora_" in name}
    assert encoder._native_modules() is None
    assert encoder._bert_attention() is None
    model.merge_and_unload()
    assert encoder._native_modules() is not None
    assert encoder._bert_attention() is not None
    assert not adapted_layers(model)
    assert all(value.requires_grad for value in model.parameters())
    plain = SentenceTransformer(tiny("bert"), device="cpu").state_dict()
    assert plain.keys() == model.state_dict().keys()


# ---- files ----------------------------------------------------------------------------------------------------------


def test_an_adapter_of_peft_is_read_and_written(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    expected = json.loads((GOLDEN / "embeddings.json").read_text())
    model = SentenceTransformer(tiny("bert"), device="cpu")
    model.load_adapter(GOLDEN)
    assert difference(model.encode(list(expected)), np.array(list(expected.values()))) < BOUND
    model.save_pretrained(tmp_path / "saved")
    ours, theirs = (json.loads((place / "adapter_config.json").read_text()) for place in (tmp_path / "saved", GOLDEN))
    assert ours.pop("base_model_name_or_path") == str(tiny("bert"))
    assert ours.pop("inference_mode")
    theirs["init_lora_weights"] = True  # of a new adapter, which the golden one is not
    assert ours == {name: theirs[name] for name in ours}
    written, read = (load_file(place / "adapter_model.safetensors") for place in (tmp_path / "saved", GOLDEN))
    assert written.keys() == read.keys()
    assert all(torch.equal(written[name], read[name]) for name in read)

    folder = shutil.copytree(tiny("bert"), tmp_path / "beside")  # base and adapter in one folder: merged
    for file in GOLDEN.iterdir():
        shutil.copy(file, folder)
    merged = SentenceTransformer(folder, device="cpu")
    assert difference(merged.encode(list(expected)), np.array(list(expected.values()))) < BOUND


def test_an_adapter_is_not_written_beside_other_weights(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    model = adapted(tiny("bert"))
    folder = shutil.copytree(tiny("bert"), tmp_path / "other")
    with pytest.raises(InputError, match=r"model\.safetensors, which would be taken for the base.*choose another"):
        model.save_pretrained(folder)
    model.save_pretrained(tmp_path / "adapter")
    embeddings = model.encode(TEXTS)
    model.merge_and_unload().save_pretrained(tmp_path / "adapter")  # now with all weights, and no adapter beside them
    assert not (tmp_path / "adapter" / "adapter_config.json").exists()
    assert difference(SentenceTransformer(tmp_path / "adapter", device="cpu").encode(TEXTS), embeddings) < BOUND


def test_an_adapter_is_described(tiny: Callable[[str], Path], tmp_path: Path, capsys: Any) -> None:
    from minisbert.cli import main

    adapted(tiny("bert")).save_pretrained(tmp_path / "saved")
    assert main(["inspect", str(tmp_path / "saved")]) in (0, None)
    assert "bert" in capsys.readouterr().out.lower()


@pytest.mark.parametrize("base", ["a\0b", "", None, 3, "x" * 5000, ".", "/", "~nobody/x", {"a": 1}])
def test_bases_that_are_none(base: Any, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    adapted(tiny("bert")).save_pretrained(tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "adapter_config.json").read_text())
    for changes in ({}, {"revision": 3}, {"revision": "main"}):
        saved = {**config, "base_model_name_or_path": base, **changes}
        (tmp_path / "saved" / "adapter_config.json").write_text(json.dumps(saved))
        with pytest.raises(ModelError, match="only an adapter") as caught:
            SentenceTransformer(tmp_path / "saved", device="cpu")
        assert "\n" not in str(caught.value)


def test_an_adapter_that_is_loaded_as_int8_is_saved_merged(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    model = adapted(tiny("bert"))
    model.save_pretrained(tmp_path / "adapter")
    SentenceTransformer(tmp_path / "adapter", device="cpu", dtype="int8").save_pretrained(tmp_path / "merged")
    merged = SentenceTransformer(tmp_path / "merged", device="cpu")
    assert difference(merged.encode(TEXTS), model.encode(TEXTS)) < BOUND


def test_numbers_that_are_not_finite(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(GOLDEN, tmp_path / "adapter")
    tensors = {name: tensor * float("nan") for name, tensor in load_file(folder / "adapter_model.safetensors").items()}
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="numbers that are not finite"):
        SentenceTransformer(tiny("bert"), device="cpu").load_adapter(folder)


def test_an_adapter_whose_base_is_gone(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(tiny("bert"), tmp_path / "base")
    adapted(folder).save_pretrained(tmp_path / "saved")
    shutil.rmtree(folder)
    with pytest.raises(ModelError, match=r"only an adapter .* of .*base; expected the weights of that model too"):
        SentenceTransformer(tmp_path / "saved", device="cpu")


# ---- refused --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"r": 0}, "got r=0; expected a rank from 1"),
        ({"r": 2.0}, r"got r=2\.0; expected a rank"),
        ({"lora_alpha": 0}, "got lora_alpha=0; expected a number above 0"),
        ({"lora_alpha": float("nan")}, "got lora_alpha=nan"),
        ({"lora_dropout": 1}, "got lora_dropout=1; expected a number from 0 to below 1"),
        ({"bias": "all"}, "got bias='all'; expected 'none'"),
        ({"use_rslora": 1}, "got use_rslora=1; expected True or False"),
        ({"target_modules": []}, r"got target_modules=\[\]; expected a list of names"),
        ({"target_modules": [1]}, r"got target_modules=\[1\]; expected a list of names"),
        ({"target_modules": "(query"}, "expected a regular expression, or a list of names"),
        ({"target_modules": ["querry"]}, "got 'querry' in target_modules.*expected a name such as query"),
        ({"target_modules": ["query", "LayerNorm"]}, "got 'LayerNorm' in target_modules.*no linear layer"),
        ({"target_modules": "query"}, r"an expression for whole names; expected a list: pass \['query'\]"),
    ],
)
def test_settings(settings: dict[str, Any], message: str, tiny: Callable[[str], Path]) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        adapted(tiny("bert"), **settings)
    assert "\n" not in str(caught.value)


def test_models_that_cannot_have_an_adapter(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    model = adapted(tiny("bert"))
    with pytest.raises(ConfigError, match="got a model with an adapter; expected none"):
        model.add_adapter(LoraConfig())
    model.merge_and_unload()
    with pytest.raises(ConfigError, match="got a model without an adapter; expected one to merge"):
        model.merge_and_unload()
    changed = SentenceTransformer(tiny("bert"), device="cpu")
    with torch.no_grad():
        changed.transformer.auto_model.embeddings.word.weight += 1
    for other in (model, changed):
        with pytest.raises(ConfigError, match="got weights that are not those in .*save it and load it again"):
            other.add_adapter(LoraConfig())
    with pytest.raises(ConfigError, match="got int8 weights; expected floats"):
        SentenceTransformer(tiny("bert"), device="cpu", dtype="int8").add_adapter(LoraConfig())
    plain = SentenceTransformer(tiny("bert"), device="cpu")
    with pytest.raises(ConfigError, match=r"got builtins\.dict as adapter; expected minisbert's own"):
        plain.add_adapter({"r": 8})  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"has no adapter_config\.json; expected the folder of a LoRA adapter"):
        plain.load_adapter(tmp_path)
    thawed = adapted(tiny("bert"))
    thawed.requires_grad_(True)
    with pytest.raises(ConfigError, match="weights of its base that are not frozen"):
        thawed.save_pretrained(tmp_path / "thawed")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "IA3"}, "IA3.*expected LoRA"),
        ({"use_dora": True}, "DoRA.*expected LoRA"),
        ({"rank_pattern": {"query": 3}}, "rank_pattern"),
        ({"r": 3}, r"has \(2, 32\) .*lora_A.*expected floats of shape \(3, 32\)"),
        ({"r": "2"}, "adapter_config.json: got r='2'; expected a rank"),
        ({"bias": "all"}, "got bias='all'"),
    ],
)
def test_adapters_that_are_refused(
    config: dict[str, Any], message: str, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(GOLDEN, tmp_path / "adapter")
    saved = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**saved, **config}))
    model = SentenceTransformer(tiny("bert"), device="cpu")
    with pytest.raises(ModelError, match=message):
        model.load_adapter(folder)
    assert not adapted_layers(model)
    other = SentenceTransformer(tiny("distilbert"), device="cpu")
    with pytest.raises(ModelError, match=re.escape("base_model.model.encoder.layer.0.attention") + "|expected"):
        other.load_adapter(folder)


def test_a_loss_with_the_model_keeps_its_own_weights_trained(tiny: Callable[[str], Path]) -> None:
    model = adapted(tiny("bert"))
    loss = losses.SoftmaxLoss(model, 32, 3)
    assert all(value.requires_grad for value in loss.parameters())
