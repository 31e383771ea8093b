"""`SentenceTransformer` of compat: its constructor, `encode` by the reference's arguments, and other methods."""

from __future__ import annotations

import inspect
import logging
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import minisbert
from minisbert.compat import models
from minisbert.compat.model import SentenceTransformer
from minisbert.errors import ConfigError
from minisbert.similarity import SimilarityFunction

TEXTS = ["a cat sat on the mat", "dog", "the sea is blue"]


@pytest.fixture
def folder(tiny: Callable[[str], Path]) -> str:
    return str(tiny("bert"))


@pytest.fixture
def model(folder: str) -> SentenceTransformer:
    return SentenceTransformer(folder, device="cpu")


# ---- the constructor ------------------------------------------------------------------------------------------------

HARMLESS: list[dict[str, Any]] = [
    {"trust_remote_code": True},
    {"backend": "torch"},
    {"model_kwargs": {}},
    {"model_kwargs": {"attn_implementation": "sdpa", "device_map": None}},
    {"tokenizer_kwargs": {"use_fast": True, "padding_side": "left"}},
    {"config_kwargs": {"use_cache": False}},
]


@pytest.mark.parametrize("options", HARMLESS)
def test_harmless_arguments(folder: str, options: dict[str, Any]) -> None:
    expected = minisbert.SentenceTransformer(folder, device="cpu").encode(TEXTS)
    for kind in (SentenceTransformer, minisbert.SentenceTransformer):
        assert (kind(folder, device="cpu", **options).encode(TEXTS) == expected).all()


def test_arguments_that_are_honoured(folder: str) -> None:
    for kind in (SentenceTransformer, minisbert.SentenceTransformer):
        for dtype in ("float16", torch.float16):
            loaded = kind(folder, device="cpu", model_kwargs={"torch_dtype": dtype})
            assert loaded.dtype == torch.float16
        assert kind(folder, device="cpu", model_kwargs={"dtype": "auto"}).dtype == torch.float32
        assert kind(folder, device="cpu", tokenizer_kwargs={"model_max_length": 9}).max_seq_length == 9
        assert kind(folder, device="cpu", processor_kwargs={"model_max_length": 9}).max_seq_length == 9
        changed = kind(folder, device="cpu", config_kwargs={"hidden_dropout_prob": 0.3})
        assert changed.transformer.encoder.config.hidden_dropout_prob == 0.3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "onnx"}, "got backend='onnx'"),
        ({"model_kwargs": {"load_in_8bit": True}}, "got 'load_in_8bit' in model_kwargs"),
        ({"model_kwargs": {"torch_dtype": torch.int8}}, "int8"),
        ({"model_kwargs": "float16"}, "got model_kwargs='float16'; expected a dictionary"),
        ({"processor_kwargs": {"foo": 1}}, "got 'foo' in processor_kwargs"),
    ],
)
def test_arguments_that_are_refused(folder: str, options: dict[str, Any], message: str) -> None:
    for kind in (SentenceTransformer, minisbert.SentenceTransformer):
        with pytest.raises(ConfigError, match=message):
            kind(folder, **options)


def test_arguments_given_twice(folder: str) -> None:
    with pytest.raises(ConfigError, match="both processor_kwargs and tokenizer_kwargs"):
        minisbert.SentenceTransformer(folder, processor_kwargs={"use_fast": 1}, tokenizer_kwargs={"use_fast": 1})
    with pytest.raises(ConfigError, match="both token and use_auth_token"):
        SentenceTransformer(folder, token="a", use_auth_token="b")
    with pytest.raises(TypeError, match="no_such"):
        SentenceTransformer(folder, no_such=1)  # type: ignore[call-arg]


def test_other_forms_of_the_constructor(folder: str, model: SentenceTransformer) -> None:
    build: Any = SentenceTransformer
    assert build(folder, None, "cpu", {"q": "the "}, "q").prompts["q"] == "the "
    assert len(build(None, [*model], "cpu")) == 3
    named = build(modules=OrderedDict(a=model[0], b=model[1]), device="cpu")
    assert len(named) == 2
    assert build(folder, similarity_fn_name=SimilarityFunction.DOT_PRODUCT).similarity_fn_name == "dot"
    assert build(folder, prompts={"q": None}, use_auth_token=False, truncate_dim=3).encode(TEXTS).shape == (3, 3)
    assert SentenceTransformer.load(folder).encode(TEXTS).shape == (3, 32)


class Told(models.Normalize):
    model: Any = None

    def on_model_ready(self, model: torch.nn.Module) -> None:
        self.__dict__["model"] = model


def test_modules_hear_of_the_model(model: SentenceTransformer) -> None:
    told = Told()
    assert SentenceTransformer(modules=[model[0], model[1], told], device="cpu") is told.model


# ---- encode ---------------------------------------------------------------------------------------------------------


def test_a_number_in_second_place_is_a_batch_size(model: SentenceTransformer) -> None:
    encode: Any = model.encode
    with pytest.warns(UserWarning, match="took it as batch_size"):
        assert np.allclose(encode(TEXTS, 2), model.encode(TEXTS), atol=1e-6)
    with pytest.warns(UserWarning, match="took it as batch_size"), pytest.raises(ConfigError, match="batch_size=0"):
        encode(TEXTS, 0)


def test_arguments_of_encode_by_place(folder: str) -> None:
    model = SentenceTransformer(folder, device="cpu", prompts={"query": "the ", "passage": "a "})
    plain, asked = model.encode(TEXTS), model.encode(TEXTS, None, "the ")
    assert not np.allclose(plain, asked)
    assert np.allclose(model.encode(TEXTS, "query", None, 4, False), asked, atol=1e-6)
    assert np.allclose(model.encode_query(TEXTS, None, None, 4), asked, atol=1e-6)
    assert np.allclose(model.encode_query(sentences=TEXTS, task="x"), asked, atol=1e-6)  # type: ignore[call-arg]
    assert np.allclose(model.encode_document(TEXTS), plain, atol=1e-6)
    assert np.allclose(model.encode_document(TEXTS, prompt_name="passage"), model.encode(TEXTS, "passage"), atol=1e-6)
    assert np.allclose(model.encode([{"text": text} for text in TEXTS]), plain, atol=1e-6)  # type: ignore[arg-type]
    assert np.allclose(model.encode({"text": TEXTS[0]}), plain[0], atol=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["encode_query", "encode_document"])
def test_encode_for_a_prompt_has_the_arguments_of_encode(folder: str, name: str) -> None:
    method = getattr(SentenceTransformer, name)
    assert inspect.signature(method) == inspect.signature(SentenceTransformer.encode)
    assert inspect.getfullargspec(method).args == [*inspect.signature(method).parameters][:-1]
    assert (method.__name__, method.__qualname__) == (name, f"EncodingMethods.{name}")
    model = SentenceTransformer(folder, device="cpu")
    assert next(iter(inspect.signature(getattr(model, name)).parameters)) == "inputs"
    for arguments, options in [((), {}), ((TEXTS, "query"), {"prompt_name": "query"}), ((TEXTS, *range(20)), {})]:
        with pytest.raises(TypeError, match="argument"):
            getattr(model, name)(*arguments, **options)


def test_an_encode_of_a_subclass_gets_every_argument(folder: str) -> None:
    class Own(SentenceTransformer):
        def encode(self, inputs: Any, **options: Any) -> Any:  # type: ignore[override]
            return inputs, options

    inputs, options = Own(folder, device="cpu").encode_query(TEXTS, None, None, 4, task="x")
    assert (inputs, options["batch_size"], options["precision"], options["task"]) == (TEXTS, 4, "float32", "x")
    assert options["prompt_name"] == "query"
    assert {*options} == {*inspect.signature(SentenceTransformer.encode).parameters, "task"} - {
        "self",
        "inputs",
        "kwargs",
    }


def test_other_arguments_of_encode(model: SentenceTransformer, caplog: pytest.LogCaptureFixture) -> None:
    assert model.encode(TEXTS, task="x", processing_kwargs=None).shape == (3, 32)
    for name in ("taskk", "processing_kwargs"):
        with pytest.raises(ConfigError, match=f"got {name}=.* for encode, which has no such argument"):
            model.encode(TEXTS, **{name: {"text": 1}})
        with pytest.raises(ConfigError, match="for encode"):
            model.encode_query(TEXTS, **{name: {"text": 1}})
    out = np.empty((3, 32), np.float32)
    assert model.encode(TEXTS, out=out) is out
    with caplog.at_level(logging.INFO, logger="sentence_transformers"):
        assert model.encode(TEXTS).shape == (3, 32)  # with a bar, on a terminal


def test_embeddings_in_half_precision(model: SentenceTransformer) -> None:
    expected = model.encode(TEXTS)
    model.half()
    assert model.encode(TEXTS).dtype == np.float16
    assert abs(model.encode(TEXTS) - expected).max() < 5e-3
    assert model.encode(TEXTS, convert_to_tensor=True).dtype == torch.float16
    assert model.encode(TEXTS, precision="int8").dtype == np.int8
    assert [one.dtype for one in model.encode(TEXTS, output_value="token_embeddings")] == [torch.float16] * 3
    values = model.encode(TEXTS[0], output_value=None)
    assert (values["sentence_embedding"].dtype, values["input_ids"].dtype) == (torch.float16, torch.long)
    model.bfloat16()
    assert model.encode(TEXTS).dtype == np.float32
    assert [one.dtype for one in model.encode(TEXTS, convert_to_numpy=False)] == [torch.bfloat16] * 3
    assert model.float().encode(TEXTS).dtype == np.float32


def test_all_values(model: SentenceTransformer) -> None:
    names = {"input_ids", "attention_mask", "token_type_ids", "token_embeddings", "sentence_embedding", "modality"}
    (first, *_), single = model.encode(TEXTS, output_value=None), model.encode("a", output_value=None)
    assert first.keys() == single.keys() == names


def test_prompts(model: SentenceTransformer) -> None:
    plain = model.encode(TEXTS)
    model.default_prompt_name = "gone"
    with pytest.warns(UserWarning, match="the default prompt 'gone' is none of"):
        assert np.allclose(model.encode(TEXTS), plain, atol=1e-6)
    with pytest.raises(ConfigError, match="got prompt_name='zz'"):
        model.encode(TEXTS, "zz")


def test_several_processes(model: SentenceTransformer) -> None:
    pool = model.start_multi_process_pool(["cpu"])
    try:
        embeddings = model.encode_multi_process(TEXTS, pool, None, None, 2, 2, normalize_embeddings=True)
    finally:
        model.stop_multi_process_pool(pool)
    assert np.allclose(embeddings, model.encode(TEXTS), atol=1e-6)


def test_similarities(model: SentenceTransformer) -> None:
    vectors = model.encode(TEXTS)
    assert torch.equal(model.similarity(embeddings1=vectors, embeddings2=vectors), model.similarity(vectors, vectors))
    pairs = model.similarity_pairwise(embeddings1=vectors, embeddings2=vectors)
    torch.testing.assert_close(pairs, torch.ones(3))


# ---- other methods --------------------------------------------------------------------------------------------------


def test_small_methods(model: SentenceTransformer) -> None:
    assert model._first_module() is model[0] is model.transformer
    assert model._last_module() is model[2]
    assert model._target_device == torch.device("cpu")
    model._target_device = "cpu"  # type: ignore[assignment]
    assert (model.get_backend(), model.get_model_kwargs(), model.modalities) == ("torch", [], ["text"])
    assert model.supports("text")
    assert not model.supports(("text", "image"))
    assert [model.is_singular_input(one) for one in ("a", ["a"], ("a", "b"), {"text": "a"}, None)] == [
        *(True, False, False, True, True)
    ]
    assert model.get_sentence_embedding_dimension() == model.get_embedding_dimension() == 32
    with model.truncate_sentence_embeddings(4):
        assert model.encode(TEXTS).shape == (3, 4)
    with pytest.raises(AttributeError, match="get_sentence_features"):
        model.get_sentence_features([1])
    model.clear_placement_cache()


def test_recomputing_layers(model: SentenceTransformer) -> None:
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    model.transformer.encoder.eval()
    model(model.tokenize(TEXTS))["sentence_embedding"][0, 0].backward()
    recomputed = [parameter.grad for parameter in model.parameters()]
    model.transformer.encoder.recompute(False)
    model.zero_grad()
    model(model.tokenize(TEXTS))["sentence_embedding"][0, 0].backward()
    for one, parameter in zip(recomputed, model.parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad)
    with pytest.raises(ConfigError, match="gradient_checkpointing_enable"):
        model.gradient_checkpointing_enable(foo=1)
    with pytest.raises(ConfigError, match="for the model"):
        model(model.tokenize(TEXTS), foo=1)


def test_training_by_hand(model: SentenceTransformer) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model.train()
    losses = []
    for _ in range(5):
        a, b = (model(model.tokenize(texts))["sentence_embedding"] for texts in (TEXTS, TEXTS[::-1]))
        loss = torch.nn.functional.mse_loss(a, b)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_evaluate(model: SentenceTransformer, tmp_path: Path) -> None:
    def count(model: Any, output_path: str | None = None) -> float:
        return float(len(model.encode(TEXTS)))

    assert model.evaluate(count, str(tmp_path / "there")) == 3


def test_compile(model: SentenceTransformer) -> None:
    before = model.encode(TEXTS)
    model.compile(dynamic=True)
    assert (model.encode(TEXTS) == before).all()


def test_a_model_in_double_precision_gives_such_embeddings(model: SentenceTransformer) -> None:
    found = model.double().encode(TEXTS)
    assert found.dtype == np.float64
    assert model.encode(TEXTS, convert_to_tensor=True).dtype == torch.float64


def test_an_unknown_default_prompt_is_refused(folder: str) -> None:
    with pytest.raises(ConfigError, match="'z'; expected one of .*'q'"):
        SentenceTransformer(folder, prompts={"q": "the "}, default_prompt_name="z")
