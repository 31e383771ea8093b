"""Embeddings equal the reference's, for every native architecture and the real model."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
from references import run_in

from minisbert import SentenceTransformer
from minisbert.errors import MinisbertError

reference = pytest.importorskip("sentence_transformers")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]


@pytest.mark.parametrize("architecture", tiny_models.ARCHITECTURES)
def test_varied_texts(
    architecture: str, tiny: Callable[[str], Path], varied_texts: list[str], compare: Callable[..., None]
) -> None:
    folder = tiny(architecture)
    ours = SentenceTransformer(folder, device="cpu", truncation="count")
    theirs = reference.SentenceTransformer(str(folder), device="cpu")
    expected = theirs.encode(varied_texts)
    got = ours.encode(varied_texts)
    assert got.dtype == np.float32
    assert ours.truncated_texts > 0
    compare(f"encode: varied texts, {architecture}", difference(got, expected), 1e-6, cases=len(varied_texts))


@pytest.mark.long
def test_varied_texts_with_real_weights(minilm: Path, varied_texts: list[str], compare: Callable[..., None]) -> None:
    ours = SentenceTransformer(minilm, device="cpu", truncation="count")
    theirs = reference.SentenceTransformer(str(minilm), device="cpu")
    largest = difference(ours.encode(varied_texts), theirs.encode(varied_texts))
    compare("encode: varied texts, all-MiniLM-L6-v2", largest, 1e-6, cases=len(varied_texts))


@pytest.mark.parametrize("mode", ["cls", "max", "mean", "mean_sqrt_len", "weightedmean", "lasttoken"])
@pytest.mark.parametrize("include_prompt", [True, False])
def test_pooling(
    mode: str, include_prompt: bool, tiny: Callable[[str], Path], tmp_path: Path, compare: Callable[..., None]
) -> None:
    folder = shutil.copytree(tiny("bert"), tmp_path / "model")
    keys = {"cls": "cls_token", "max": "max_tokens", "mean": "mean_tokens", "lasttoken": "lasttoken"}
    key = f"pooling_mode_{keys.get(mode, f'{mode}_tokens')}"
    config = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": False, key: True}
    config["include_prompt"] = include_prompt
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))
    texts = ["a cat", "the dog ran fast to the sea", "one", "why is the sky blue and the tree red"]
    ours = SentenceTransformer(folder, device="cpu").encode(texts, prompt="what is: ")
    theirs = reference.SentenceTransformer(str(folder), device="cpu").encode(texts, prompt="what is: ")
    compare("encode: pooling, with and without prompt", difference(ours, theirs), 1e-6, cases=len(texts))


def test_max_seq_length_and_truncate_dim(minilm: Path) -> None:
    texts = ["one two three four five six seven eight nine ten", "short"]
    ours = SentenceTransformer(minilm, device="cpu", truncation="count", truncate_dim=64)
    theirs = reference.SentenceTransformer(str(minilm), device="cpu", truncate_dim=64)
    ours.max_seq_length = theirs.max_seq_length = 6
    for options in ({}, {"normalize_embeddings": True}, {"truncate_dim": 10}):
        assert np.abs(ours.encode(texts, **options) - theirs.encode(texts, **options)).max() <= 1e-6
    assert ours.truncated_texts == 3


def encoder_of_transformers(folder: Path, kind: str, **settings: Any) -> Path:
    """A small model folder with an encoder that has no native form."""
    transformers = pytest.importorskip("transformers")
    tiny_models.build(folder, "bert")
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=json.loads((folder / "config.json").read_text())["vocab_size"],
        embedding_size=16,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        **settings,
    )
    getattr(transformers, f"{kind}Model")(config).save_pretrained(folder)
    return folder


def test_other_encoders_run_through_transformers(tmp_path: Path, compare: Callable[..., None]) -> None:
    folder = encoder_of_transformers(tmp_path / "albert", "Albert")
    texts = ["a cat sat on the mat", "one", "the dog ran to the sea and the sky is blue"]
    expected = reference.SentenceTransformer(str(folder), device="cpu").encode(texts)
    model = SentenceTransformer(folder, device="cpu")
    model.save_pretrained(tmp_path / "saved")
    for again in (model, SentenceTransformer(tmp_path / "saved", device="cpu")):
        compare("encode: an encoder of transformers", difference(again.encode(texts), expected), 1e-6, cases=3)


def test_saved_models_load_in_the_reference_without_warning(
    minilm: Path, tmp_path: Path, varied_texts: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    model = SentenceTransformer(minilm, device="cpu", truncation="count")
    model.max_seq_length = 32
    model.save_pretrained(tmp_path / "ours")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        theirs = reference.SentenceTransformer(str(tmp_path / "ours"), device="cpu")
    texts = varied_texts[:100]
    assert np.abs(model.encode(texts) - theirs.encode(texts)).max() <= 1e-6
    assert "warning" not in capfd.readouterr().err.lower()


def test_models_saved_by_the_reference_load_here(minilm: Path, tmp_path: Path, varied_texts: list[str]) -> None:
    theirs = reference.SentenceTransformer(str(minilm), device="cpu", prompts={"query": "question: "})
    theirs.max_seq_length = 24
    theirs.save_pretrained(str(tmp_path / "theirs"))
    model = SentenceTransformer(tmp_path / "theirs", device="cpu", truncation="count")
    assert model.max_seq_length == 24
    assert model.prompts["query"] == "question: "
    texts = varied_texts[:100]
    assert np.abs(model.encode_query(texts) - theirs.encode_query(texts)).max() <= 1e-6


# ---- every form of call ---------------------------------------------------------------------------------------

PAIR = ("a cat sat on the mat", "the dog ran fast")
LIST = ["a cat sat on the mat", "one", "", "why is the sky blue and the sea not", "one two three"]
INPUTS: dict[str, Any] = {
    "list": LIST,
    "tuple": tuple(LIST),
    "array": np.array(LIST),
    "array of objects": np.array(LIST, dtype=object),
    "one": LIST[0],
    "np.str_": np.str_(LIST[0]),
    "empty text": "",
    "list of empty text": [""],
    "pair": [PAIR],
    "pair as list": [list(PAIR)],
    "array of pairs": np.array([PAIR, PAIR[::-1]]),
    "texts and pairs": [*LIST, PAIR, ("", "one"), ("one", "")],
    "tuple of two": PAIR,
    "white space": ["  leading", "trailing\n", "\t", "  "],
}
CONVERSIONS: list[dict[str, Any]] = [
    {},
    {"convert_to_tensor": True},
    {"convert_to_numpy": False},
    {"convert_to_tensor": True, "convert_to_numpy": False},
]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"normalize_embeddings": True},
    *({"truncate_dim": dim} for dim in (1, 8, -1, -5, 32, 99)),
    {"truncate_dim": 8, "normalize_embeddings": True},
    {"output_value": "token_embeddings"},
    {"output_value": "token_embeddings", "normalize_embeddings": True, "truncate_dim": 4},
    {"output_value": None},
    {"prompt": ""},
    {"prompt": "what is "},
    {"prompt_name": "ask"},
    {"prompt": "what is ", "prompt_name": "nowhere"},
    {"batch_size": 1},
    {"batch_size": 2},
    {"device": "cpu"},
    {"precision": None},
    *({"precision": precision} for precision in ("float32", "int8", "uint8", "binary", "ubinary")),
    {"precision": "int8", "output_value": "token_embeddings"},
    {"precision": "ubinary", "output_value": "token_embeddings"},
    {"precision": "ubinary", "truncate_dim": 16},
    {"chunk_size": 3},
]
ERRORS: list[tuple[Any, dict[str, Any]]] = [
    (None, {}),
    (3, {}),
    ([None], {}),
    (["a", None], {}),
    (["a", 3], {}),
    ([("a", "b", "c")], {}),
    ([["a"]], {}),
    ([[]], {}),
    ({"a": 1}, {}),
    ({"a", "b"}, {}),
    (b"a", {}),
    (np.array([1, 2]), {}),
    (np.array("a"), {}),
    (iter(LIST), {}),
    (LIST, {"batch_size": 0}),
    (LIST, {"batch_size": -1}),
    (LIST, {"batch_size": 1.5}),
    (LIST, {"precision": "int4"}),
    (LIST, {"precision": ""}),
    (LIST, {"prompt_name": "nowhere"}),
    (LIST, {"normalise": True}),
    (LIST, {"truncate_dim": 2.0}),
    (LIST, {"prompt": 5}),
    (LIST, {"device": "nowhere"}),
    (LIST, {"device": []}),
    (LIST[0], {"precision": "int8"}),
    (LIST, {"precision": "binary", "truncate_dim": 7, "output_value": None}),
]


@pytest.fixture(scope="module")
def both(tiny: Callable[[str], Path]) -> tuple[Any, Any]:
    """One model in both libraries, without its Normalize, so that `normalize_embeddings` shows."""
    prompts = {"ask": "what is ", "query": "how ", "passage": "of "}
    ours = SentenceTransformer(tiny("bert"), device="cpu", prompts=prompts)
    theirs = reference.SentenceTransformer(str(tiny("bert")), device="cpu", prompts=prompts)
    del ours[2], theirs[2]
    return ours, theirs


def difference(ours: Any, theirs: Any) -> float:
    """Largest difference, after types, number types and shapes were found the same."""
    if isinstance(theirs, dict):
        theirs = {name: value for name, value in theirs.items() if name != "modality"}
        length = int(theirs["attention_mask"].sum())
        assert list(ours) == list(theirs)
        return max(
            difference(ours[name], value if name == "sentence_embedding" else value[:length])  # theirs is padded
            for name, value in theirs.items()
        )
    assert type(ours) is type(theirs)
    if isinstance(theirs, list):
        assert len(ours) == len(theirs)
        return max((difference(one, other) for one, other in zip(ours, theirs, strict=True)), default=0.0)
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    a, b = (np.asarray(value).astype(np.float64) for value in (ours, theirs))
    return float(np.abs(a - b).max(initial=0.0))


def test_every_form_of_call(both: tuple[Any, Any], compare: Callable[..., None]) -> None:
    ours, theirs = both
    largest: dict[bool, list[float]] = {True: [], False: []}
    for kind, inputs in INPUTS.items():
        several = isinstance(inputs, (list, tuple, np.ndarray)) and len(inputs) > 1
        for options in OPTIONS:
            precision = options.get("precision")
            if precision in ("int8", "uint8") and "output_value" not in options and not several:
                continue  # an error in both
            if options and kind not in ("list", "one", "texts and pairs"):
                continue
            for conversion in CONVERSIONS if kind != "texts and pairs" else CONVERSIONS[:1]:
                expected = theirs.encode(inputs, **options, **conversion)
                got = ours.encode(inputs, **options, **conversion)
                try:
                    largest[precision in (None, "float32")].append(difference(got, expected))
                except AssertionError as error:
                    raise AssertionError(f"{kind}, {options}, {conversion}") from error
    compare("encode: every form of call", max(largest[True]), 1e-6, cases=len(largest[True]))
    # A value that falls on the border of two levels may take either.
    compare("encode: levels of fewer bits", max(largest[False]), 1, cases=len(largest[False]))


@pytest.mark.parametrize(("inputs", "options"), ERRORS)
def test_errors_in_both(inputs: Any, options: dict[str, Any], both: tuple[Any, Any]) -> None:
    ours, theirs = both
    with pytest.raises(Exception):  # noqa: B017, PT011  # theirs is of many kinds
        theirs.encode(inputs, **options)
    with pytest.raises((MinisbertError, TypeError)) as caught:
        ours.encode(inputs, **options)
    assert "\n" not in str(caught.value)


def test_roles_and_older_names(both: tuple[Any, Any], compare: Callable[..., None]) -> None:
    ours, theirs = both
    differences = []
    for default in (None, "ask"):
        ours.default_prompt_name = theirs.default_prompt_name = default
        for options in ({}, {"prompt": "of "}, {"prompt": ""}, {"prompt_name": "ask"}, {"convert_to_tensor": True}):
            differences.append(difference(ours.encode_query(LIST, **options), theirs.encode_query(LIST, **options)))
            for prompts in (
                ours.prompts,
                {"passage": "of ", "ask": "q "},
                {"document": "", "passage": "of ", "ask": ""},
            ):
                before = ours.prompts, theirs.prompts
                ours.prompts = theirs.prompts = prompts
                documents = ours.encode_document(LIST, **options), theirs.encode_document(LIST, **options)
                ours.prompts, theirs.prompts = before
                differences.append(difference(*documents))
        differences.append(difference(ours.encode(sentences=LIST), theirs.encode(sentences=LIST)))
    ours.default_prompt_name = theirs.default_prompt_name = None
    compare("encode_query and encode_document", max(differences), 1e-6, cases=len(differences))


@pytest.mark.parametrize("architecture", tiny_models.ARCHITECTURES)
def test_pairs_and_tokens(
    architecture: str, tiny: Callable[[str], Path], varied_texts: list[str], compare: Callable[..., None]
) -> None:
    ours = SentenceTransformer(tiny(architecture), device="cpu", truncation="count")
    theirs = reference.SentenceTransformer(str(tiny(architecture)), device="cpu")
    texts = [text for text in varied_texts if len(text) < 300]  # what it cuts off costs theirs quadratic time
    pairs: list[Any] = [*zip(texts[:60], texts[60:120][::-1], strict=True), *texts[:20]]
    pairs += [(a, b) for a in texts[8:12] for b in texts[:12]]
    differences = []
    for length in (48, 17, 8, 5, 4):
        ours.max_seq_length = theirs.max_seq_length = length
        differences.append(difference(ours.encode(pairs), theirs.encode(pairs)))
        expected = {name: value for name, value in theirs.preprocess(pairs).items() if name != "modality"}
        got = ours.preprocess(pairs)
        assert list(got) == list(expected)
        assert all(np.array_equal(got[name], value) for name, value in expected.items())
    assert ours.truncated_texts > 50
    compare("encode: joint pairs", max(differences), 1e-6, cases=len(pairs) * len(differences))


def test_pairs_of_another_encoder(tmp_path: Path) -> None:
    folder = encoder_of_transformers(tmp_path / "electra", "Electra", initializer_range=0.3)
    inputs = [*LIST, PAIR, PAIR[::-1]]
    ours = SentenceTransformer(folder, device="cpu")
    expected = reference.SentenceTransformer(str(folder), device="cpu").encode(inputs)
    assert np.abs(ours.encode(inputs) - expected).max() <= 1e-6
    ours.transformer.tokenizer.token_types = False
    assert np.abs(ours.encode(inputs) - expected).max() > 1e-3


def test_other_names_of_the_model(both: tuple[Any, Any]) -> None:
    ours, theirs = both
    for name in ("device", "dtype", "similarity_fn_name", "max_seq_length", "prompts", "default_prompt_name"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.get_max_seq_length() == theirs.get_max_seq_length()
    assert ours.get_embedding_dimension() == theirs.get_embedding_dimension()
    for prompt in (None, "what is "):
        expected = theirs.preprocess([*LIST, PAIR], prompt=prompt)
        for name, value in ours.preprocess([*LIST, PAIR], prompt=prompt).items():
            assert np.array_equal(value, expected[name])
    for include in (False, True):
        for model in both:
            model.set_pooling_include_prompt(include)
        got, expected = (model.encode([*LIST, PAIR], prompt="what is ") for model in both)
        assert np.abs(got - expected).max() <= 1e-6
    with ours.truncate_embeddings(5), theirs.truncate_embeddings(5):
        assert np.abs(ours.encode(LIST) - theirs.encode(LIST)).max() <= 1e-6
        assert ours.get_embedding_dimension() == theirs.get_embedding_dimension() == 5


def test_older_versions_embed_pairs_alike(
    tiny: Callable[[str], Path], tmp_path: Path, compare: Callable[..., None]
) -> None:
    inputs = [PAIR, PAIR[::-1], ("one", "")]
    ours = SentenceTransformer(tiny("bert"), device="cpu").encode(inputs)
    code = """
import json, sys
from sentence_transformers import SentenceTransformer
pairs = [tuple(pair) for pair in json.loads(sys.argv[2])]
print(json.dumps(SentenceTransformer(sys.argv[1], device="cpu").encode(pairs).tolist()))
"""
    for version in ("5.1.2", "4.0.1"):
        theirs = np.array(run_in(version, code, tiny("bert"), json.dumps(inputs)), np.float32)
        compare(f"encode: joint pairs, {version}", float(np.abs(ours - theirs).max()), 1e-6, cases=len(inputs))
