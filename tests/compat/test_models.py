"""`models.Transformer`, `models.Pooling` and the others: constructors, settings, files, and models made of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from minisbert.compat import models
from minisbert.compat.model import SentenceTransformer
from minisbert.errors import ConfigError, InputTypeError, ModelError
from minisbert.modules import Pooling as OurPooling

TEXTS = ["a cat sat on the mat", "dog", "the sea is blue"]


@pytest.fixture
def folder(tiny: Callable[[str], Path]) -> str:
    return str(tiny("bert"))


@pytest.fixture
def model(folder: str) -> SentenceTransformer:
    return SentenceTransformer(folder, device="cpu")


# ---- Transformer ----------------------------------------------------------------------------------------------------


def test_a_model_of_parts(folder: str, tmp_path: Path) -> None:
    word = models.Transformer(folder, max_seq_length=20)
    pooling = models.Pooling(word.get_word_embedding_dimension(), pooling_mode_mean_tokens=True)
    model = SentenceTransformer(modules=[word, pooling, models.Normalize()], device="cpu")
    expected = SentenceTransformer(folder, device="cpu").encode(TEXTS)
    assert abs(model.encode(TEXTS) - expected).max() < 1e-6
    assert (model.max_seq_length, word.max_seq_length) == (20, 20)
    model.save(str(tmp_path / "saved"))
    assert abs(SentenceTransformer(str(tmp_path / "saved")).encode(TEXTS) - expected).max() < 1e-6


def test_older_forms_of_transformer(folder: str) -> None:
    assert models.Transformer(folder, 10).max_seq_length == 10
    half = models.Transformer(folder, 10, {"torch_dtype": torch.float16}, {"model_max_length": 7})
    assert (half.auto_model.dtype, half.max_seq_length) == (torch.float16, 7)
    old = models.Transformer(folder, model_args={"dtype": "bfloat16"}, tokenizer_args={"use_fast": True}, cache_dir="x")
    assert old.auto_model.dtype == torch.bfloat16
    assert old.max_seq_length == 64
    shown = models.Transformer(folder, config_args={"output_hidden_states": True})
    layers = shown(shown.tokenize(TEXTS))["all_layer_embeddings"]
    assert [layer.shape for layer in layers] == [(3, 8, 32)] * 3


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"backend": "onnx"}, ConfigError, "got backend='onnx'; expected 'torch'"),
        ({"transformer_task": "fill-mask"}, ModelError, "fill-mask"),
        ({"module_output_name": "scores"}, ModelError, "scores"),
        ({"query_length": 3}, ModelError, "query_length"),
        ({"tokenizer_name_or_path": "other"}, ModelError, "tokenizer_name_or_path"),
        ({"model_kwargs": {"quantization_config": 1}}, ConfigError, "got 'quantization_config' in model_kwargs"),
        ({"model_kwargs": {"dtype": "int4"}}, ConfigError, "int4"),
        ({"processor_kwargs": {"vocab_file": "x"}}, ConfigError, "got 'vocab_file' in processor_kwargs"),
        ({"no_such": 1}, TypeError, "no_such"),
    ],
)
def test_refused_options_of_transformer(
    folder: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        models.Transformer(folder, **options)


def test_transformer_is_loaded_with_its_settings(folder: str, tmp_path: Path) -> None:
    module = models.Transformer.load(folder)
    assert module.max_seq_length == 48
    assert models.Transformer.load(folder, processor_kwargs={"model_max_length": 9}).max_seq_length == 9
    (tmp_path / "word").mkdir()
    module.save(str(tmp_path / "word"))
    with pytest.warns(UserWarning, match="safe_serialization=False is ignored"):
        module.save(str(tmp_path / "word"), safe_serialization=False)
    again = models.Transformer.load(str(tmp_path), "word")
    assert again.get_config_dict() == {"max_seq_length": 48, "do_lower_case": False}
    with pytest.raises(ConfigError, match="no such argument here"):
        models.Transformer.load(folder, no_such=1)


def test_texts_of_transformer(model: SentenceTransformer) -> None:
    word = model[0]
    assert isinstance(word, models.Transformer)
    assert isinstance(word, models.InputModule)
    assert word.preprocess([]) == {}
    assert word.modalities == ["text"]
    assert word.get_embedding_dimension() == word.get_sentence_embedding_dimension() == 32
    with pytest.raises(InputTypeError, match="put it in a list"):
        word.tokenize("a cat")
    with pytest.raises(ConfigError, match="got max_length=3 for preprocess"):
        word.preprocess(TEXTS, processing_kwargs={"max_length": 3})
    with pytest.raises(ConfigError, match="got prompts='a' for preprocess"):
        word.tokenize(TEXTS, prompts="a")


# ---- Pooling --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "modes"),
    [
        ({}, ("mean",)),
        ({"pooling_mode": "cls"}, ("cls",)),
        ({"pooling_mode": ["max", "mean"]}, ("max", "mean")),
        ({"pooling_mode_mean_tokens": True}, ("mean",)),
        ({"pooling_mode_cls_token": True}, ("cls",)),
        ({"pooling_mode_mean_tokens": False}, ("mean",)),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, ("max", "mean")),
        ({"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}, ("lasttoken",)),
        ({"pooling_mode_weightedmean_tokens": True, "pooling_mode": "cls"}, ("cls",)),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, ("mean_sqrt_len_tokens",)),
    ],
)
def test_modes_of_pooling(options: dict[str, Any], modes: tuple[str, ...]) -> None:
    pooling = models.Pooling(8, **options)
    assert pooling.pooling_mode == modes
    assert pooling.get_pooling_mode_str() == "+".join(modes)
    assert pooling.pooling_output_dimension == pooling.get_sentence_embedding_dimension() == 8 * len(modes)
    again = models.Pooling(**pooling.get_config_dict())
    assert again.pooling_mode == modes


def test_switches_of_pooling() -> None:
    pooling: Any = models.Pooling(word_embedding_dimension=8)  # type: ignore[call-arg]
    assert (pooling.word_embedding_dimension, pooling.embedding_dimension) == (8, 8)
    assert pooling.pooling_mode_mean_tokens
    assert not pooling.pooling_mode_cls_token
    pooling.pooling_mode_cls_token = True
    assert pooling.pooling_mode == ("cls", "mean")
    pooling.pooling_mode_mean_tokens = False
    assert pooling.pooling_mode == ("cls",)
    with pytest.raises(ConfigError, match="got pooling mode"):
        models.Pooling(8, "middle")
    with pytest.raises(TypeError, match="got embedding_dimension twice"):
        models.Pooling(embedding_dimension=8, word_embedding_dimension=8)  # type: ignore[call-arg]


def test_pooling_of_a_dictionary() -> None:
    tokens = torch.arange(24.0).reshape(2, 3, 4)
    mask = torch.tensor([[1, 1, 0], [0, 1, 1]])
    pooled = models.Pooling(4, ("cls", "lasttoken", "mean"))({"token_embeddings": tokens, "attention_mask": mask})
    expected = torch.cat(
        [tokens[[0, 1], [0, 1]], tokens[[0, 1], [1, 2]], torch.stack([tokens[0, :2].mean(0), tokens[1, 1:].mean(0)])], 1
    )
    torch.testing.assert_close(pooled["sentence_embedding"], expected)
    every = models.Pooling(4)({"token_embeddings": tokens})["sentence_embedding"]
    torch.testing.assert_close(every, tokens.mean(1))
    with pytest.raises(ConfigError, match="for Pooling"):
        models.Pooling(4)({"token_embeddings": tokens}, task="x")


# ---- the others -----------------------------------------------------------------------------------------------------


def test_dense() -> None:
    dense = models.Dense(4, 2, activation_function=nn.Identity(), init_weight=torch.eye(4)[:2], init_bias=torch.ones(2))
    vectors = torch.arange(8.0).reshape(2, 4)
    result = dense({"sentence_embedding": vectors})["sentence_embedding"]
    torch.testing.assert_close(result, vectors[:, :2] + 1)
    assert (dense.in_features, dense.out_features, dense.bias) == (4, 2, True)
    assert dense.get_sentence_embedding_dimension() == 2
    assert dense.get_config_dict() == {
        "in_features": 4,
        "out_features": 2,
        "bias": True,
        "activation_function": "torch.nn.modules.linear.Identity",
        "module_input_name": "sentence_embedding",
        "module_output_name": "sentence_embedding",
    }
    assert models.Dense(4, 2, False, None, use_residual=True).get_config_dict()["use_residual"]
    steep = models.Dense(1, 1, activation_function=nn.LeakyReLU(0.5), init_weight=-torch.ones(1, 1), bias=False)
    assert steep({"sentence_embedding": torch.ones(1, 1)})["sentence_embedding"].item() == -0.5
    assert isinstance(models.Dense(2, 2).activation, nn.Tanh)
    with pytest.raises(ConfigError, match="expected a module of torch.nn without weights"):
        models.Dense(4, 2, activation_function=torch.tanh)
    with pytest.raises(ConfigError, match="got Dense from token_embeddings"):
        models.Dense(4, 2, module_input_name="token_embeddings")


def test_small_modules() -> None:
    vectors = torch.tensor([[3.0, 4.0]])
    normal = models.Normalize()({"sentence_embedding": vectors})["sentence_embedding"]
    torch.testing.assert_close(normal, torch.tensor([[0.6, 0.8]]))
    assert models.Normalize.load("").get_config_dict()["module_input_name"] == "sentence_embedding"
    with pytest.raises(ConfigError, match="got Normalize from"):
        models.Normalize(module_output_name="other")
    norm = models.LayerNorm(2)
    assert (norm.dimension, norm.get_sentence_embedding_dimension(), norm.get_config_dict()) == (2, 2, {"dimension": 2})
    torch.testing.assert_close(norm({"sentence_embedding": vectors})["sentence_embedding"].mean(), torch.tensor(0.0))
    dropout = models.Dropout(0.5).eval()
    assert dropout({"sentence_embedding": vectors})["sentence_embedding"] is vectors
    assert dropout.get_config_dict() == {"dropout": 0.5}


def test_modules_are_saved_and_loaded(tmp_path: Path) -> None:
    for module in (models.Dense(4, 2), models.LayerNorm(3), models.WeightedLayerPooling(8, 4, 2), models.Dropout(0.1)):
        folder = tmp_path / type(module).__name__
        folder.mkdir()
        module.save(str(folder))
        again: Any = type(module).load(str(tmp_path), type(module).__name__)
        assert again.get_config_dict() == module.get_config_dict()
        assert all(torch.equal(a, b) for a, b in zip(again.parameters(), module.parameters(), strict=True))
    tensors = models.Dense.load_torch_weights(str(tmp_path), "Dense")
    assert {name: tuple(value.shape) for name, value in tensors.items()} == {
        "linear.weight": (2, 4),
        "linear.bias": (2,),
    }
    assert models.Module.load_file_path(str(tmp_path), "config.json", "Dense") == str(tmp_path / "Dense/config.json")
    assert models.Module.load_file_path(str(tmp_path), "other.json", "Dense") is None
    assert models.Module.load_dir_path(str(tmp_path), "Other") is None


def test_pooling_is_loaded_from_older_settings(folder: str, tmp_path: Path) -> None:
    assert models.Pooling.load(folder, subfolder="1_Pooling").get_config_dict() == {
        "embedding_dimension": 32,
        "pooling_mode": "mean",
        "include_prompt": True,
    }
    with pytest.raises(ConfigError, match="no such argument"):
        models.Pooling.load(folder, "1_Pooling", no_such=1)
    assert models.Pooling.load(folder, "1_Pooling", trust_remote_code=True).embedding_dimension == 32
    with pytest.warns(UserWarning, match="safe_serialization"):
        models.LayerNorm(2).save(str(tmp_path), safe_serialization=False)


def test_weighted_layers(folder: str) -> None:
    weighted = models.WeightedLayerPooling(word_embedding_dimension=32, num_hidden_layers=2, layer_start=1)  # type: ignore[call-arg]
    assert weighted.get_word_embedding_dimension() == 32
    assert weighted({"token_embeddings": 1}) == {"token_embeddings": 1}
    shown = models.Transformer(folder, config_kwargs={"output_hidden_states": True})
    model = SentenceTransformer(modules=[shown, weighted, models.Pooling(32)], device="cpu")
    layers = shown(shown.tokenize(TEXTS))["all_layer_embeddings"]
    mixed = {**model.tokenize(TEXTS), "token_embeddings": (layers[1] + layers[2]) / 2}
    expected = models.Pooling(32)(mixed)["sentence_embedding"].detach().numpy()
    assert abs(model.encode(TEXTS) - expected).max() < 1e-5
    assert abs(model(model.tokenize(TEXTS))["sentence_embedding"].detach().numpy() - expected).max() < 1e-5
    with pytest.warns(UserWarning, match="WeightedLayerPooling has no effect"):
        plain = SentenceTransformer(modules=[models.Transformer(folder), weighted, models.Pooling(32)], device="cpu")
    unchanged = SentenceTransformer(modules=[models.Transformer(folder), models.Pooling(32)], device="cpu")
    np.testing.assert_allclose(plain.encode(TEXTS), unchanged.encode(TEXTS), atol=1e-6)


def test_modules_one_by_one(model: SentenceTransformer) -> None:
    features: Any = model.tokenize(TEXTS)
    for module in model:
        assert isinstance(module, models.Module)
        features = module(features)
    expected = model.encode(TEXTS, convert_to_tensor=True)
    torch.testing.assert_close(features["sentence_embedding"], expected, atol=1e-6, rtol=0)


def test_our_modules_are_adopted(folder: str) -> None:
    pooling = OurPooling(32)
    model = SentenceTransformer(modules=[models.Transformer(folder), pooling], device="cpu")
    assert model[1] is pooling
    assert isinstance(pooling, models.Pooling)


# ---- modules of callers ---------------------------------------------------------------------------------------------


class Scaled(models.Module):
    config_keys = ["factor"]
    config_key_renames = {"scale": "factor"}

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:  # type: ignore[override]
        features["sentence_embedding"] = features["sentence_embedding"] * self.factor
        return features


class Letters(models.InputModule):
    def forward(self, features: dict[str, Any]) -> dict[str, Any]:  # type: ignore[override]
        return features

    def tokenize(self, texts: list[str], **kwargs: Any) -> dict[str, Any]:
        return {"letters": [list(text) for text in texts]}


def test_a_module_of_a_caller(model: SentenceTransformer, tmp_path: Path) -> None:
    scaled = SentenceTransformer(modules=[*model, Scaled(3.0)], device="cpu")
    assert abs(scaled.encode(TEXTS) - 3 * model.encode(TEXTS)).max() < 1e-6
    Scaled(2.0).save(str(tmp_path))
    assert Scaled.load(str(tmp_path)).factor == 2.0
    (tmp_path / "config.json").write_text(json.dumps({"scale": 4.0}))
    assert Scaled.load(str(tmp_path)).factor == 4.0
    with pytest.raises(ConfigError, match="Scaled.save"):
        Scaled(2.0).save(str(tmp_path), "x")
    with pytest.raises(TypeError, match="abstract"):
        models.Module()  # type: ignore[abstract]


def test_an_input_module_of_a_caller(tmp_path: Path) -> None:
    module = Letters()
    assert module.preprocess(["ab"], prompt="c") == {"letters": [["c", "a", "b"]]}
    assert module.save_in_root
    assert module.get_config_dict() == {}
    module.save_tokenizer(str(tmp_path))
    assert not [*tmp_path.iterdir()]
    with pytest.raises(ConfigError, match="save_tokenizer"):
        module.save_tokenizer(str(tmp_path), indent=1)


class Nothing(models.InputModule):
    def forward(self, features: dict[str, Any]) -> dict[str, Any]:  # type: ignore[override]
        return features


def test_an_input_module_needs_a_method(model: SentenceTransformer, tmp_path: Path) -> None:
    with pytest.raises(NotImplementedError, match="Nothing has no preprocess"):
        Nothing().preprocess(["a"])
    module = Nothing()
    module.tokenizer = model.tokenizer
    module.save_tokenizer(str(tmp_path))
    assert (tmp_path / "tokenizer.json").is_file()
    module.tokenizer = model.tokenizer.backend_tokenizer
    (tmp_path / "tokenizer.json").unlink()
    module.save_tokenizer(str(tmp_path))
    assert (tmp_path / "tokenizer.json").is_file()
