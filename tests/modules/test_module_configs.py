"""Configurations of the modules behind the encoder: every form that is read, and what is refused."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_folders import add_module, load, read
from torch import nn

from minisbert import SentenceTransformer, modules
from minisbert.errors import ConfigError, ModelError
from minisbert.modules.features import Features
from minisbert.modules.sentence import ACTIVATION_FUNCTIONS
from minisbert.storage import dialects

TEXTS = ["A cat sat on the mat", "one", "why is the sky blue and the sea not"]


@pytest.fixture
def folder(tiny: Callable[[str], Path], tmp_path: Path) -> Path:
    return shutil.copytree(tiny("bert"), tmp_path / "model")


# ---- pooling -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "modes"),
    [
        ({"embedding_dimension": 32, "pooling_mode": "mean_sqrt_len_tokens"}, ("mean_sqrt_len_tokens",)),
        (
            {"embedding_dimension": 32, "pooling_mode": ["lasttoken", "cls"], "include_prompt": False},
            ("lasttoken", "cls"),
        ),
        ({"word_embedding_dimension": 32, "pooling_mode": ["max", "max"]}, ("max", "max")),
        ({"word_embedding_dimension": 32, **dict.fromkeys(dialects.POOLING_KEYS, False)}, ("mean",)),
        (
            {"word_embedding_dimension": 32, **dict.fromkeys(dialects.POOLING_KEYS, True)},
            ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"),
        ),
        ({"embedding_dimension": 32, "pooling_mode": "cls", "pooling_mode_mean_tokens": True}, ("cls",)),
    ],
)
def test_pooling_configurations(config: dict[str, Any], modes: tuple[str, ...], folder: Path, tmp_path: Path) -> None:
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))
    model = load(folder)
    assert model[1].pooling_mode == modes
    assert model[1].include_prompt == config.get("include_prompt", True)
    model.save_pretrained(tmp_path / "saved")
    assert np.array_equal(load(tmp_path / "saved").encode(TEXTS), model.encode(TEXTS))
    written = read(tmp_path / "saved" / "1_Pooling" / "config.json")
    assert ("pooling_mode" in written) == (modes in {("lasttoken", "cls"), ("max", "max")})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"word_embedding_dimension": "32"}, "got word_embedding_dimension='32'"),
        ({"word_embedding_dimension": 16}, "Pooling takes 16 values; expected 32"),
        ({"word_embedding_dimension": 32, "pooling_mode": []}, r"got pooling_mode=\[\]"),
        (
            {"word_embedding_dimension": 32, "pooling_mode": {"a": 1}},
            "got pooling_mode=.*; expected one or up to 20 of",
        ),
        ({"word_embedding_dimension": 32, "pooling": "mean"}, "got key 'pooling'"),
    ],
)
def test_pooling_that_cannot_be_read(config: dict[str, Any], message: str, folder: Path) -> None:
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=message):
        load(folder)


# ---- Dense and its like --------------------------------------------------------------------------------------------
DENSE = {"in_features": 32, "out_features": 8, "bias": True}
LINEAR = {"linear.weight": torch.eye(8, 32), "linear.bias": torch.zeros(8)}


def sentences(module: nn.Module, values: torch.Tensor) -> torch.Tensor:
    return module(Features(batch=None, sentence_embedding=values)).sentences  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ACTIVATION_FUNCTIONS)
def test_activations_are_those_of_their_names(name: str) -> None:
    place, _, kind = name.rpartition(".")
    options = {"dim": -1} if "oftm" in kind else {}
    expected = getattr(importlib.import_module(place), kind)(**options).eval()
    values = torch.linspace(-9, 9, 24).view(3, 8)
    module = modules.Dense(8, 8, activation_function=name).eval()
    module.load_state_dict({"linear.weight": torch.eye(8), "linear.bias": torch.zeros(8)})
    assert torch.equal(sentences(module, values), expected(values))
    assert not list(expected.parameters())


@pytest.mark.parametrize("name", ["os.system", "torch.nn.Module", "transformers.activations.Foo", None, ["x"], "tanh"])
def test_other_activations_are_refused(name: Any, folder: Path) -> None:
    add_module(folder, "Dense", {**DENSE, "activation_function": name}, LINEAR)
    with pytest.raises(ModelError, match="got activation function .*; expected one of .*activation.Tanh"):
        load(folder)
    with pytest.raises(ConfigError):
        modules.Dense(8, 8, activation_function=name)


def test_residual_by_hand(folder: Path, tmp_path: Path) -> None:
    embedding = torch.tensor([[3.0, 4.0]])
    same = modules.Dense(2, 2, activation_function="torch.nn.modules.activation.ReLU", use_residual=True)
    same.load_state_dict({"linear.weight": -torch.eye(2), "linear.bias": torch.tensor([5.0, 0.0])})
    assert sentences(same, embedding).tolist() == [[2.0 + 3.0, 0.0 + 4.0]]
    residual = {"residual.weight": torch.full((8, 32), 0.5)}
    add_module(folder, "Dense", {**DENSE, "use_residual": True}, {**LINEAR, **residual})
    model = load(folder)
    pooled = torch.from_numpy(SentenceTransformer(modules=list(model)[:2], device="cpu").encode(TEXTS))
    by_hand = pooled[:, :8].tanh() + pooled.sum(1, keepdim=True) / 2
    assert np.abs(model.encode(TEXTS) - by_hand.numpy()).max() < 1e-6
    model.save_pretrained(tmp_path / "saved")
    assert np.array_equal(load(tmp_path / "saved").encode(TEXTS), model.encode(TEXTS))
    assert read(tmp_path / "saved" / "2_Dense" / "config.json")["use_residual"] is True


@pytest.mark.parametrize(
    ("kind", "config", "tensors", "message"),
    [
        ("Dense", {"out_features": 8}, LINEAR, "it has no 'in_features'"),
        ("Dense", {**DENSE, "in_features": "32"}, LINEAR, "got in_features='32'"),
        ("Dense", {**DENSE, "in_features": 16}, {**LINEAR, "linear.weight": torch.eye(8, 16)}, "takes 16 values"),
        ("Dense", {**DENSE, "bias": False}, LINEAR, "hold linear.bias, which the Dense of its config.json lacks"),
        ("Dense", DENSE, {"linear.weight": torch.eye(8, 32)}, "lack 1 of 2 tensors, first linear.bias"),
        ("Dense", DENSE, None, "has no weights"),
        ("Dense", {**DENSE, "use_residual": True}, LINEAR, "lack 1 of 3 tensors, first residual.weight"),
        (
            "Dense",
            {**DENSE, "module_input_name": "token_embeddings"},
            LINEAR,
            "module_input_name='token_embeddings'",
        ),
        ("Normalize", {"module_output_name": "x"}, None, "got module_output_name='x'"),
        ("LayerNorm", {}, None, "it has no 'dimension'"),
        ("LayerNorm", {"dimension": 8}, {"norm.weight": torch.ones(8), "norm.bias": torch.ones(8)}, "takes 8 values"),
    ],
)
def test_modules_that_cannot_be_read(
    kind: str, config: dict[str, Any], tensors: Any, message: str, folder: Path
) -> None:
    add_module(folder, kind, config, tensors)
    with pytest.raises(ModelError, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_unknown_keys_of_dense_are_named(folder: Path) -> None:
    add_module(folder, "Dense", {**DENSE, "colour": "red"}, LINEAR)
    with pytest.warns(UserWarning, match="colour left out"):
        assert load(folder).encode(TEXTS).shape == (3, 8)


def test_layer_norm_and_dropout_from_pickled_weights(folder: Path) -> None:
    add_module(
        folder, "LayerNorm", {"dimension": 32}, {"norm.weight": torch.full((32,), 2.0), "norm.bias": torch.ones(32)}
    )
    embeddings = load(folder).encode(TEXTS)
    assert np.abs(embeddings.mean(1) - 1).max() < 1e-5
    assert np.abs(embeddings.std(1) - 2).max() < 1e-2
