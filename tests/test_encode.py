"""What encode returns for every kind of input and option."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minisbert import SentenceTransformer
from minisbert.errors import ConfigError, InputError, InputTypeError, TruncationWarning

TEXTS = ["a cat sat on the mat", "one", "", "why is the sky blue and the sea not", "one two three"]


@pytest.fixture(scope="module")
def model(tiny: Callable[[str], Path]) -> SentenceTransformer:
    return SentenceTransformer(tiny("bert"), device="cpu", prompts={"ask": "what is ", "query": "how "})


@pytest.fixture(scope="module")
def expected(model: SentenceTransformer) -> np.ndarray:
    return model.encode(TEXTS)


def test_return_types(model: SentenceTransformer, expected: np.ndarray) -> None:
    assert expected.shape == (5, 32)
    assert expected.dtype == np.float32
    tensor = model.encode(TEXTS, convert_to_tensor=True)
    assert isinstance(tensor, torch.Tensor)
    assert not tensor.is_inference()
    assert np.array_equal(tensor.numpy(), expected)
    rows = model.encode(TEXTS, convert_to_numpy=False)
    assert isinstance(rows, list)
    assert np.array_equal(torch.stack(rows).numpy(), expected)
    for single in (TEXTS[0], np.str_(TEXTS[0])):
        assert model.encode(single).shape == (32,)
        assert model.encode(single, convert_to_tensor=True).shape == (32,)
        assert model.encode(single, convert_to_numpy=False).shape == (32,)


@pytest.mark.parametrize("kind", [tuple, np.array, lambda texts: np.array(texts, dtype=object), iter])
def test_kinds_of_input(kind: Callable[[list[str]], Any], model: SentenceTransformer, expected: np.ndarray) -> None:
    assert np.array_equal(model.encode(kind(TEXTS)), expected)


def test_no_texts(model: SentenceTransformer) -> None:
    assert model.encode([]).shape == (0, 32)
    assert model.encode([]).dtype == np.float32
    assert model.encode([], convert_to_tensor=True).shape == (0, 32)
    assert model.encode([], convert_to_numpy=False) == []
    assert model.encode([], output_value="token_embeddings") == []


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), min_size=1, max_size=12),
    batch_size=st.integers(1, 5),
    draw=st.randoms(use_true_random=False),
)
def test_order_and_batch_size_do_not_matter(
    texts: list[str], batch_size: int, draw: Any, model: SentenceTransformer
) -> None:
    one_by_one = np.stack([model.encode(text) for text in texts])
    assert np.abs(model.encode(texts, batch_size=batch_size) - one_by_one).max() <= 1e-6
    order = draw.sample(range(len(texts)), len(texts))
    assert np.abs(model.encode([texts[i] for i in order]) - one_by_one[order]).max() <= 1e-6


def test_out_and_blocks(model: SentenceTransformer, expected: np.ndarray, tmp_path: Path) -> None:
    out = np.lib.format.open_memmap(tmp_path / "out.npy", mode="w+", dtype=np.float32, shape=(5, 32))
    assert model.encode(TEXTS, out=out) is out
    assert np.array_equal(np.load(tmp_path / "out.npy"), expected)
    blocks = list(model.encode_iter((text for text in TEXTS), block_size=2))
    assert [len(block) for block in blocks] == [2, 2, 1]
    assert np.abs(np.concatenate(blocks) - expected).max() <= 1e-6
    with pytest.raises(InputTypeError, match="put it in a list"):
        next(model.encode_iter("abc"))
    assert model.encode(TEXTS, precision=None).dtype == np.float32
    with pytest.raises(InputError, match=r"expected \(5, 32\) float32"):
        model.encode(TEXTS, out=np.empty((4, 32), np.float32))


def test_prompts(model: SentenceTransformer) -> None:
    prompted = model.encode(["what is a cat"])
    assert np.array_equal(model.encode(["a cat"], prompt_name="ask"), prompted)
    assert np.array_equal(model.encode(["a cat"], prompt="what is "), prompted)
    assert np.array_equal(model.encode(["a cat"], prompt="what is ", prompt_name="query"), prompted)
    assert np.array_equal(model.encode_query(["a cat"]), model.encode(["how a cat"]))
    assert np.array_equal(model.encode_document(["a cat"]), model.encode(["a cat"]))
    assert np.array_equal(model.encode_query(["a cat"], prompt_name="ask"), prompted)
    with pytest.raises(ConfigError, match="got prompt name 'zz'; expected one of"):
        model.encode(["a cat"], prompt_name="zz")


def test_default_prompt(tiny: Callable[[str], Path]) -> None:
    model = SentenceTransformer(tiny("bert"), device="cpu", prompts={"ask": "what is "}, default_prompt_name="ask")
    assert np.array_equal(model.encode("a cat"), model.encode("what is a cat", prompt=""))
    assert np.array_equal(model.encode_query("a cat"), model.encode("a cat", prompt=""))
    with pytest.raises(ConfigError, match="got prompt name 'zz'"):
        SentenceTransformer(tiny("bert"), device="cpu", default_prompt_name="zz")


def test_truncated_dimensions(model: SentenceTransformer, expected: np.ndarray) -> None:
    assert np.array_equal(model.encode(TEXTS, truncate_dim=7), expected[:, :7])
    normalized = model.encode(TEXTS, truncate_dim=7, normalize_embeddings=True)
    np.testing.assert_allclose(np.linalg.norm(normalized, axis=1), 1, rtol=1e-6)
    assert model.encode(TEXTS, truncate_dim=99).shape == (5, 32)
    with model.truncate_sentence_embeddings(5):
        assert model.encode(TEXTS).shape == (5, 5)
        assert model.get_sentence_embedding_dimension() == 5
    assert model.get_sentence_embedding_dimension() == 32


def test_token_embeddings_and_everything(model: SentenceTransformer, expected: np.ndarray) -> None:
    tokens = model.encode(TEXTS, output_value="token_embeddings")
    assert [len(value) for value in tokens] == model.count_tokens(TEXTS).tolist()
    rows = model.encode(TEXTS, output_value=None)
    for row, value, embedding in zip(rows, tokens, expected, strict=True):
        assert torch.equal(row["token_embeddings"], value)
        assert np.array_equal(row["sentence_embedding"].numpy(), embedding)
        pooled = torch.nn.functional.normalize(value.mean(0), dim=0)
        torch.testing.assert_close(pooled, row["sentence_embedding"], rtol=1e-5, atol=1e-6)
        assert row["input_ids"].shape == row["attention_mask"].shape == (len(value),)
    assert torch.equal(model.encode(TEXTS[0], output_value="token_embeddings"), tokens[0])
    with pytest.raises(ConfigError, match="got output_value 'pooled'"):
        model.encode(TEXTS, output_value="pooled")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("precision", "dtype", "width"),
    [("int8", np.int8, 32), ("uint8", np.uint8, 32), ("binary", np.int8, 4), ("ubinary", np.uint8, 4)],
)
def test_precisions(precision: Any, dtype: type, width: int, model: SentenceTransformer) -> None:
    got = model.encode(TEXTS, precision=precision)
    assert got.dtype == dtype
    assert got.shape == (5, width)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (None, "got NoneType for texts"),
        (5, "got int for texts"),
        (b"bytes", "got bytes for texts"),
        ({"a": 1}, "got dict for texts"),
        (["fine", None], r"texts\[1\] is None of type NoneType"),
        (["fine", 3.5], r"texts\[1\] is 3.5 of type float"),
    ],
)
def test_what_is_not_a_text(bad: Any, message: str, model: SentenceTransformer) -> None:
    with pytest.raises(InputTypeError, match=message):
        model.encode(bad)


def test_lone_surrogates_are_named(model: SentenceTransformer) -> None:
    with pytest.raises(InputError, match=r"texts\[1\] holds the lone surrogate '\\ud800' at character 3"):
        model.encode(["fine", "abc\ud800"])


def test_unknown_options_are_errors(model: SentenceTransformer) -> None:
    with pytest.raises(TypeError, match="normalise"):
        model.encode(TEXTS, normalise=True)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="got batch_size 0"):
        model.encode(TEXTS, batch_size=0)
    with pytest.raises(ConfigError, match="got precision 'int4'"):
        model.encode(TEXTS, precision="int4")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="got similarity function 'cosin'"):
        model.similarity_fn_name = "cosin"


def test_truncation_is_never_silent(tiny: Callable[[str], Path]) -> None:
    long = ["cat " * 60, "dog", "sea " * 70]
    model = SentenceTransformer(tiny("bert"), device="cpu")
    with pytest.warns(TruncationWarning, match="2 of 3 texts are longer than max_seq_length=48 tokens"):
        cut = model.encode(long)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.encode(long)
    assert model.truncated_texts == 4
    assert np.array_equal(cut[0], model.encode("cat " * 46))
    strict = SentenceTransformer(tiny("bert"), device="cpu", truncation="error")
    with pytest.raises(InputError, match="2 of 3 texts are longer"):
        strict.encode(long)
    with pytest.raises(ConfigError, match="expected warn, error or count"):
        SentenceTransformer(tiny("bert"), device="cpu", truncation="off")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan"])
def test_similarity(name: str, model: SentenceTransformer, expected: np.ndarray) -> None:
    model.similarity_fn_name = name
    matrix = model.similarity(expected, expected)
    assert matrix.shape == (5, 5)
    torch.testing.assert_close(matrix.diagonal(), model.similarity_pairwise(expected, expected), rtol=1e-4, atol=1e-3)
    model.similarity_fn_name = "cosine"


def test_several_threads_get_the_same(model: SentenceTransformer, expected: np.ndarray) -> None:
    results: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: results.append(model.encode(TEXTS))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(np.array_equal(result, expected) for result in results)


def test_kernels_and_definitions_agree(minilm: Path) -> None:
    from minisbert import kernels

    model = SentenceTransformer(minilm, device="cpu")
    fast = model.encode(TEXTS)
    with kernels.use("reference"):
        plain = model.encode(TEXTS)
    assert np.abs(fast - plain).max() <= 1e-6
