"""What encode returns for every kind of input and option."""

from __future__ import annotations

import json
import shutil
import threading
import warnings
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minisbert import SentenceTransformer, packing
from minisbert.errors import ConfigError, InputError, InputTypeError, ModelError, TruncationWarning
from minisbert.model import encoding
from minisbert.similarity import PRECISIONS
from minisbert.text import TextTokenizer, TokenizedTexts

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


class Column:
    """Like pandas.Series or a column of `datasets`: a length, an order, and no more."""

    ndim = 1

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def __iter__(self) -> Any:
        return iter(self.texts)


@pytest.mark.parametrize("kind", [tuple, np.array, lambda texts: np.array(texts, dtype=object), Column, deque])
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


def test_out_that_cannot_be_filled(model: SentenceTransformer, tmp_path: Path) -> None:
    shape = (len(TEXTS), 32)
    np.zeros(shape, np.float32).tofile(tmp_path / "array")
    frozen = np.zeros(shape, np.float32)
    frozen.setflags(write=False)
    for out in (frozen, np.memmap(tmp_path / "array", np.float32, "r", shape=shape), np.zeros(shape, np.float32)[::-1]):
        with pytest.raises(InputError, match="cannot be written to"):
            model.encode(TEXTS, out=out)
    wrong: Any
    for wrong in ([0.0], np.zeros(shape), np.zeros((1, 32), np.float32)):
        with pytest.raises(InputError, match=r"expected an array of shape \(5, 32\) and dtype float32"):
            model.encode(TEXTS, out=wrong)
    with pytest.raises(ConfigError, match="block_size"):
        next(model.encode_iter(TEXTS, block_size=0))


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
    with pytest.raises(InputError, match=r"expected an array of shape \(5, 32\) and dtype float32"):
        model.encode(TEXTS, out=np.empty((4, 32), np.float32))


def test_prompts(model: SentenceTransformer) -> None:
    prompted = model.encode(["what is a cat"])
    assert np.array_equal(model.encode(["a cat"], prompt_name="ask"), prompted)
    assert np.array_equal(model.encode(["a cat"], prompt="what is "), prompted)
    assert np.array_equal(model.encode(["a cat"], prompt="what is ", prompt_name="query"), prompted)
    assert np.array_equal(model.encode_query(["a cat"]), model.encode(["how a cat"]))
    assert np.array_equal(model.encode_document(["a cat"]), model.encode(["a cat"]))
    assert np.array_equal(model.encode_query(["a cat"], prompt_name="ask"), prompted)
    with pytest.raises(ConfigError, match="got prompt_name='zz'; expected one of"):
        model.encode(["a cat"], prompt_name="zz")


def test_default_prompt(tiny: Callable[[str], Path]) -> None:
    model = SentenceTransformer(tiny("bert"), device="cpu", prompts={"ask": "what is "}, default_prompt_name="ask")
    assert np.array_equal(model.encode("a cat"), model.encode("what is a cat", prompt=""))
    assert np.array_equal(model.encode_query("a cat"), model.encode("a cat", prompt=""))
    with pytest.raises(ConfigError, match="got prompt_name='zz'"):
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
    alone = model.encode(TEXTS[0], output_value="token_embeddings")
    torch.testing.assert_close(alone, tokens[0], rtol=1e-5, atol=1e-6)  # rows of some BLAS depend on how many there are
    with pytest.raises(ConfigError, match="got output_value='pooled'"):
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
        ({"a", "b"}, "got set for texts"),
        ({"a": 1}.keys(), "got dict_keys for texts"),
        ((text for text in TEXTS), "got generator for texts; .* encode_iter"),
        (iter(TEXTS), "got list_iterator for texts"),
        (np.array("a cat"), "got ndarray for texts"),
        (np.array([1, 2]), r"texts\[0\] is 1 of type int"),
        (np.array([b"a"]), r"texts\[0\] is b'a' of type bytes"),
        (torch.zeros(2, 3), "got Tensor for texts"),
        (range(3), r"texts\[0\] is 0 of type int"),
        (Path("texts.txt"), "got .*Path for texts"),
        (["fine", ("a", "b", "c")], r"texts\[1\] is \('a', 'b', 'c'\) of type tuple; expected a string, or a pair"),
        ([["a"]], r"texts\[0\] is \['a'\] of type list"),
        ([("a", None)], r"texts\[0\] is \('a', None\)"),
        ([[]], r"texts\[0\] is \[\] of type list"),
    ],
)
def test_what_is_not_a_text(bad: Any, message: str, model: SentenceTransformer) -> None:
    with pytest.raises(InputTypeError, match=message):
        model.encode(bad)


def test_lone_surrogates_are_named(model: SentenceTransformer) -> None:
    with pytest.raises(InputError, match=r"texts\[1\] holds the lone surrogate '\\ud800' at character 3"):
        model.encode(["fine", "abc\ud800"])


def test_many_texts_are_tokenized_in_order(model: SentenceTransformer) -> None:
    tokenizer = model.transformer.text_tokenizer
    texts = [" ".join(["cat", "dog", "sea", "sky"][: 1 + row % 4] * (1 + row % 3)) for row in range(1_500)]
    together, apart = tokenizer(texts), [tokenizer([text]) for text in texts]
    assert together.lengths.tolist() == [len(one.ids) for one in apart]
    np.testing.assert_array_equal(together.ids, np.concatenate([one.ids for one in apart]))
    texts[900] += "\ud800"
    texts[1_400] += "\ud801"
    with pytest.raises(InputError, match=r"texts\[910\] holds the lone surrogate '\\ud800'"):
        tokenizer(texts, first=10)


def test_unknown_options_are_errors(model: SentenceTransformer) -> None:
    with pytest.raises(TypeError, match="normalise"):
        model.encode(TEXTS, normalise=True)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="got batch_size=0"):
        model.encode(TEXTS, batch_size=0)
    with pytest.raises(ConfigError, match="got precision='int4'"):
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


PAIR = ("a cat sat", "the dog ran fast")


@pytest.mark.parametrize("architecture", tiny_models.ARCHITECTURES)
def test_pairs_are_embedded_jointly(architecture: str, tiny: Callable[[str], Path]) -> None:
    model = SentenceTransformer(tiny(architecture), device="cpu")
    joint = model.encode([PAIR])
    assert joint.shape == (1, 32)
    assert np.array_equal(model.encode([list(PAIR)]), joint)
    assert np.array_equal(model.encode(np.array([PAIR])), joint)
    assert np.abs(model.encode([PAIR[::-1]]) - joint).max() > 1e-4
    mixed = model.encode(["a cat", PAIR, "one two three", PAIR])
    assert np.abs(mixed[[1, 3]] - joint).max() <= 1e-6
    assert np.abs(mixed[0] - model.encode("a cat")).max() <= 1e-6
    assert np.array_equal(model.encode([PAIR], prompt="what "), model.encode([("what a cat sat", PAIR[1])]))
    assert model.encode(PAIR).shape == (2, 32)  # a tuple of texts is two texts
    assert model.count_tokens([PAIR])[0] == len(model.encode([PAIR], output_value="token_embeddings")[0])


def test_token_types_of_pairs_matter_where_the_model_has_them(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    model = SentenceTransformer(tiny("bert"), device="cpu")
    (row,) = model.encode([PAIR], output_value=None)
    assert row["token_type_ids"].tolist() == [0] * 5 + [1] * 5
    assert list(row) == ["input_ids", "token_type_ids", "attention_mask", "token_embeddings", "sentence_embedding"]
    folder = shutil.copytree(tiny("bert"), tmp_path / "model")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["model_input_names"] = ["input_ids", "attention_mask"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    without = SentenceTransformer(folder, device="cpu")
    assert "token_type_ids" not in without.encode([PAIR], output_value=None)[0]
    assert np.abs(without.encode([PAIR]) - model.encode([PAIR])).max() > 1e-4
    assert np.array_equal(without.encode(TEXTS), model.encode(TEXTS))


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [(10, 3, (6, 3)), (3, 10, (3, 6)), (9, 9, (4, 5)), (6, 5, (5, 4)), (5, 6, (4, 5)), (1, 12, (1, 8)), (4, 4, (4, 4))],
)
def test_the_longer_text_of_a_pair_is_cut_first(
    first: int, second: int, kept: tuple[int, int], tiny: Callable[[str], Path]
) -> None:
    model = SentenceTransformer(tiny("bert"), device="cpu", truncation="count")
    model.max_seq_length = 12  # 9 for the texts
    words = tiny_models.WORDS
    pair = (" ".join(words[:first]), " ".join(words[:second]))
    (row,) = model.encode([pair], output_value=None)
    ids = [model.tokenizer.token_to_id(word) for word in words]
    assert row["input_ids"].tolist() == [2, *ids[: kept[0]], 3, *ids[: kept[1]], 3]
    assert row["token_type_ids"].tolist() == [0] * (kept[0] + 2) + [1] * (kept[1] + 1)
    assert model.truncated_texts == (first + second > 9)
    model.max_seq_length = 3
    assert len(model.encode([pair], output_value="token_embeddings")[0]) == 3


def test_too_little_room_for_a_pair(tiny: Callable[[str], Path]) -> None:
    model = SentenceTransformer(tiny("xlm-roberta"), device="cpu", truncation="count")
    model.max_seq_length = 3
    with pytest.raises(InputError, match=r"got a pair of texts and max_seq_length=3; expected at least 4"):
        model.encode([PAIR])


def test_older_names_and_single_pairs(model: SentenceTransformer, expected: np.ndarray) -> None:
    assert np.array_equal(model.encode(sentences=TEXTS), expected)
    assert np.array_equal(model.encode_query(sentences=TEXTS), model.encode_query(TEXTS))
    assert np.array_equal(model.encode_document(sentences=TEXTS), expected)
    with pytest.raises(ConfigError, match="got both inputs and sentences"):
        model.encode(TEXTS, sentences=TEXTS)
    with pytest.raises(InputTypeError, match="got NoneType for texts"):
        model.encode()
    assert model.get_max_seq_length() == model.max_seq_length == 48
    assert model[0].model is model[0].auto_model
    assert model.dtype == torch.float32


def test_impossible_options(model: SentenceTransformer) -> None:
    for options, message in [
        ({"batch_size": -1}, "got batch_size=-1; expected a whole number of at least 1"),
        ({"batch_size": 1.5}, "got batch_size=1.5"),
        ({"batch_size": "8"}, "got batch_size='8'"),
        ({"truncate_dim": 2.0}, "got truncate_dim=2.0"),
        ({"prompt": 5}, "got prompt=5"),
        ({"precision": ""}, "got precision=''"),
        ({"precision": "int8", "output_value": None}, "with output_value=None"),
        ({"output_value": "token_embeddings", "out": np.empty((5, 32), np.float32)}, "got out with output_value"),
        ({"device": "nowhere"}, "got device='nowhere'"),
        ({"chunk_size": 0}, "got chunk_size=0"),
    ]:
        with pytest.raises(ConfigError, match=message):
            model.encode(TEXTS, **options)
    with pytest.raises(InputError, match="got 1 embedding"):
        model.encode("a cat", precision="int8")
    for encode in (model.encode_query, model.encode_document):
        with pytest.raises(TypeError, match="normalise"):
            encode(TEXTS, normalise=True)
    with pytest.raises(ConfigError, match="got max_seq_length=None"):
        model.max_seq_length = None  # type: ignore[assignment]


@pytest.mark.parametrize(("dim", "width"), [(-1, 31), (-31, 1), (5, 5), (99, 32), (np.int64(3), 3)])
def test_truncate_dim_is_a_slice(dim: int, width: int, model: SentenceTransformer, expected: np.ndarray) -> None:
    got = model.encode(TEXTS, truncate_dim=dim)
    assert got.shape == (5, width)
    assert np.array_equal(got, expected[:, :dim])
    with model.truncate_embeddings(dim):
        assert model.get_embedding_dimension() == width
        assert np.array_equal(model.encode(TEXTS), got)
        assert model.encode(TEXTS, truncate_dim=7).shape == (5, 7)


def test_token_embeddings_in_fewer_bits(model: SentenceTransformer) -> None:
    tokens = model.encode(TEXTS, output_value="token_embeddings")
    rows = model.encode(TEXTS, output_value="token_embeddings", precision="uint8")
    assert [row.shape for row in rows] == [tuple(value.shape) for value in tokens]
    together = np.concatenate(rows)
    assert together.dtype == np.uint8
    assert (together.min(0) == 0).all()  # one range over the tokens of all texts
    assert (together.max(0) >= 254).all()
    assert model.encode([], output_value="token_embeddings", precision="int8") == []


def test_tensors_are_ordinary_ones(model: SentenceTransformer) -> None:
    (row,) = model.encode(TEXTS[:1], output_value=None)
    tensors = [
        *row.values(),
        model.encode(TEXTS, convert_to_tensor=True),
        *model.encode(TEXTS, convert_to_numpy=False),
        *model.encode(TEXTS, output_value="token_embeddings"),
    ]
    assert not any(tensor.is_inference() for tensor in tensors)
    weight = torch.ones(32, requires_grad=True)
    (tensors[-1] @ weight).sum().backward()
    assert weight.grad is not None


def test_preprocess(model: SentenceTransformer, tiny: Callable[[str], Path]) -> None:
    features = model.tokenize(["a cat", PAIR])
    assert features["input_ids"].shape == (2, 10)
    assert features["input_ids"][0].tolist()[4:] == [0] * 6
    assert features["attention_mask"].sum(1).tolist() == model.count_tokens(["a cat", PAIR]).tolist() == [4, 10]
    assert features["token_type_ids"].tolist() == [[0] * 10, [0] * 5 + [1] * 5]
    prompted = model.preprocess(["cat"], prompt="what is ")
    assert torch.equal(prompted["input_ids"], model.preprocess(["what is cat"])["input_ids"])
    assert model.preprocess([]) == {}
    with pytest.raises(InputTypeError, match="put it in a list"):
        model.preprocess("a cat")
    mpnet = SentenceTransformer(tiny("mpnet"), device="cpu").preprocess(["a cat", "one"])
    assert list(mpnet) == ["input_ids", "attention_mask"]
    assert mpnet["input_ids"][1].tolist()[3:] == [1]


def test_prompt_tokens_in_pooling(tiny: Callable[[str], Path]) -> None:
    model = SentenceTransformer(tiny("bert"), device="cpu")
    with_prompt = model.encode(["a cat"], prompt="what is ")
    model.set_pooling_include_prompt(False)
    without = model.encode(["a cat"], prompt="what is ")
    assert np.abs(with_prompt - without).max() > 1e-4
    tokens = model.encode(["a cat"], prompt="what is ", output_value="token_embeddings")[0]
    expected = torch.nn.functional.normalize(tokens[3:].mean(0), dim=0)
    torch.testing.assert_close(torch.from_numpy(without[0]), expected, rtol=1e-5, atol=1e-6)
    bare = SentenceTransformer(modules=[model[0]], device="cpu")
    with pytest.raises(ModelError, match="the model has no Pooling module"):
        bare.set_pooling_include_prompt(True)


def test_role_prompts(tiny: Callable[[str], Path]) -> None:
    model = SentenceTransformer(tiny("bert"), device="cpu", prompts={"passage": "of "}, default_prompt_name="passage")
    assert np.array_equal(model.encode_query(["a cat"]), model.encode(["a cat"], prompt=""))
    assert np.array_equal(model.encode_document(["a cat"]), model.encode(["a cat"], prompt=""))  # "document" is empty
    assert np.array_equal(model.encode(["a cat"]), model.encode(["of a cat"], prompt=""))
    model.prompts = {"passage": "of ", "corpus": "in "}
    assert np.array_equal(model.encode_document(["a cat"]), model.encode(["of a cat"], prompt=""))
    del model.prompts["passage"]
    model.default_prompt_name = None
    assert np.array_equal(model.encode_document(["a cat"]), model.encode(["in a cat"], prompt=""))
    model.prompts, model.default_prompt_name = {"passage": "of "}, "passage"
    assert np.array_equal(model.encode_query(["a cat"]), model.encode(["a cat"]))


@pytest.mark.parametrize(("change", "bound"), [("half", 5e-3), ("bfloat16", 5e-2), ("double", 1e-6), ("float", 0)])
def test_other_number_types_give_float32(change: str, bound: float, tiny: Callable[[str], Path]) -> None:
    model = SentenceTransformer(tiny("bert"), device="cpu")
    expected = model.encode(TEXTS)
    changed = getattr(model, change)()
    assert changed is model
    for got in (model.encode(TEXTS), model.encode(TEXTS, convert_to_tensor=True).numpy()):
        assert got.dtype == np.float32
        assert np.abs(got - expected).max() <= bound
    assert model.encode(TEXTS, output_value="token_embeddings")[0].dtype == torch.float32
    assert np.abs(model.float().encode(TEXTS) - expected).max() <= bound


def test_evaluate(model: SentenceTransformer, tmp_path: Path) -> None:
    calls: list[Any] = []

    def evaluator(got: SentenceTransformer, output_path: Path | None) -> dict[str, float]:
        calls.append((got, output_path))
        return {"score": 1.0}

    assert model.evaluate(evaluator, tmp_path / "a" / "b") == {"score": 1.0}
    assert (tmp_path / "a" / "b").is_dir()
    model.evaluate(evaluator)
    assert calls == [(model, tmp_path / "a" / "b"), (model, None)]
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot make the folder"):
        model.evaluate(evaluator, tmp_path / "file" / "x")


unicode_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
unicode_inputs = st.lists(st.one_of(unicode_texts, st.tuples(unicode_texts, unicode_texts)), min_size=1, max_size=8)


@pytest.fixture(scope="module")
def reloaded(model: SentenceTransformer, tmp_path_factory: pytest.TempPathFactory) -> SentenceTransformer:
    folder = tmp_path_factory.mktemp("saved") / "model"
    model.save_pretrained(folder)
    return SentenceTransformer(folder, device="cpu")


@settings(max_examples=12, deadline=None)
@given(inputs=unicode_inputs)
def test_a_reloaded_model_is_the_same(inputs: Any, model: SentenceTransformer, reloaded: SentenceTransformer) -> None:
    assert np.array_equal(model.encode(inputs), reloaded.encode(inputs))


@settings(max_examples=12, deadline=None)
@given(inputs=unicode_inputs, prompt=unicode_texts)
def test_a_prompt_is_text_put_before(inputs: Any, prompt: str, model: SentenceTransformer) -> None:
    before = [prompt + text if isinstance(text, str) else (prompt + text[0], text[1]) for text in inputs]
    assert np.array_equal(model.encode(inputs, prompt=prompt), model.encode(before))


@settings(max_examples=12, deadline=None)
@given(
    inputs=unicode_inputs,
    dim=st.integers(-31, 40).filter(bool),
    size=st.integers(1, 3),
    precision=st.sampled_from(PRECISIONS),
)
def test_conversions_agree(inputs: Any, dim: int, size: int, precision: Any, model: SentenceTransformer) -> None:
    options: dict[str, Any] = {"truncate_dim": dim, "batch_size": size, "precision": precision}
    width = len(range(32)[:dim])
    if len(inputs) < 2 and "int8" in precision:
        with pytest.raises(InputError, match="got 1 embedding"):
            model.encode(inputs, **options)
        return
    array = model.encode(inputs, **options)
    assert array.shape == (len(inputs), -(-width // 8) if "binary" in precision else width)
    assert np.array_equal(model.encode(inputs, convert_to_tensor=True, **options).numpy(), array)
    rows = model.encode(inputs, convert_to_numpy=False, **options)
    assert np.array_equal(np.stack([row.numpy() for row in rows]), array)


# ---- batches prepared in a thread, as for a GPU ---------------------------------------------------------------------


@pytest.fixture
def in_a_thread(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """Take the CPU for a device that works by itself, with small blocks; the threads that pack are written down."""
    threads = []

    def pack(*args: Any, **options: Any) -> Any:
        threads.append(threading.current_thread())
        return packing.pack(*args, **options)

    monkeypatch.setattr(encoding, "_ASYNCHRONOUS", ("cpu",))
    monkeypatch.setattr(encoding, "_FIRST_BLOCK", 4)
    monkeypatch.setattr(encoding, "BLOCK", 16)
    monkeypatch.setattr(encoding, "_PREFETCHED", 3)
    monkeypatch.setattr(encoding, "_TOKENS_PER_FORWARD", {"cpu": 30})
    monkeypatch.setattr(encoding, "pack", pack)
    return threads


@pytest.mark.parametrize("output_value", ["sentence_embedding", "token_embeddings", None])
def test_the_same_in_a_thread(
    output_value: Any, model: SentenceTransformer, in_a_thread: list[threading.Thread]
) -> None:
    inputs: list[Any] = [*TEXTS * 8, ("a cat", "the dog"), "a cat " * 15, *TEXTS]
    options: Any = {"output_value": output_value, "prompt_name": "ask", "convert_to_numpy": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "_ASYNCHRONOUS", ())
        expected = model.encode(inputs, **options)
    here = threading.current_thread()
    assert set(in_a_thread) == {here}
    in_a_thread.clear()
    got = model.encode(inputs, **options)
    assert len(set(in_a_thread)) == 1
    assert here not in in_a_thread
    assert threading.enumerate().count(in_a_thread[0]) == 0
    torch.testing.assert_close(got, expected, rtol=0, atol=2e-6)


def test_few_texts_need_no_thread(model: SentenceTransformer, in_a_thread: list[threading.Thread]) -> None:
    model.encode(TEXTS[:4])
    assert set(in_a_thread) == {threading.current_thread()}


@pytest.mark.usefixtures("in_a_thread")
def test_blocks_grow_where_a_device_waits(model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, blocks = TEXTS * 10, list[tuple[int, list[str]]]()
    tokenize = TextTokenizer.__call__

    def recorded(self: TextTokenizer, block: list[str], *, first: int) -> TokenizedTexts:
        blocks.append((first, block))
        return tokenize(self, block, first=first)

    monkeypatch.setattr(TextTokenizer, "__call__", recorded)
    model.encode(texts)
    assert [(start, len(block)) for start, block in blocks] == [(0, 4), (4, 8), (12, 16), (28, 16), (44, 6)]
    assert [text for _, block in blocks for text in block] == texts


def test_a_thread_counts_what_is_cut(
    tiny: Callable[[str], Path], in_a_thread: list[threading.Thread], tmp_path: Path
) -> None:
    model = SentenceTransformer(tiny("bert"), device="cpu", truncation="count")
    model.max_seq_length = 5
    expected = np.stack([model.encode(text) for text in TEXTS])
    before = model.truncated_texts
    out = np.memmap(tmp_path / "out", np.float32, "w+", shape=(50, 32))
    assert model.encode(TEXTS * 10, out=out) is out
    assert model.truncated_texts - before == 10 * before > 0
    assert np.abs(out - np.tile(expected, (10, 1))).max() <= 1e-6


def test_an_error_in_a_thread_numbers_the_text(model: SentenceTransformer, in_a_thread: list[threading.Thread]) -> None:
    before = threading.active_count()
    with pytest.raises(InputError, match=r"texts\[41\]"):
        model.encode([*TEXTS * 8, "fine", "\ud800"])
    assert threading.active_count() == before


def test_a_run_that_is_left_ends_its_thread(model: SentenceTransformer, in_a_thread: list[threading.Thread]) -> None:
    run = iter(encoding.EncodingRun(model, TEXTS * 20, encoding.EncodeOptions()))
    rows, _ = next(run)
    assert len(rows)
    assert in_a_thread[0].is_alive()
    run.close()  # type: ignore[attr-defined]
    assert not in_a_thread[0].is_alive()


def test_a_failing_model_ends_its_thread(
    model: SentenceTransformer, in_a_thread: list[threading.Thread], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(encoding, "Features", fail)
    with pytest.raises(MemoryError) as caught:
        model.encode(TEXTS * 20)
    assert caught.tb is not None  # which holds on to every frame
    assert not in_a_thread[0].is_alive()


@pytest.mark.parametrize("truncate_dim", [0, -32, -(10**30), "4", 1.5, torch.zeros(2)])
def test_a_slice_that_leaves_nothing(truncate_dim: Any, tiny: Callable[[str], Path]) -> None:
    model = SentenceTransformer(tiny("bert"), device="cpu")
    with pytest.raises(ConfigError, match="got truncate_dim"):
        model.encode(["a"], truncate_dim=truncate_dim)
    assert model.encode(["a"], truncate_dim=-30).shape == (1, 2)


def test_batches_and_blocks_of_any_size(tiny: Callable[[str], Path]) -> None:
    model = SentenceTransformer(tiny("bert"), device="cpu")
    expected = model.encode(["a cat", "a dog"])
    np.testing.assert_array_equal(model.encode(["a cat", "a dog"], batch_size=10**30), expected)
    (block,) = model.encode_iter(["a cat", "a dog"], block_size=10**30, batch_size=10**30)
    np.testing.assert_array_equal(block, expected)
    with pytest.raises(ConfigError, match="got batch_size"):
        model.encode(["a"], batch_size="8")  # type: ignore[arg-type]
    with pytest.raises(InputTypeError, match="to embed in blocks; expected texts"):
        list(model.encode_iter(5))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "meta"}, "got device='meta', which cannot be used here .it stores no numbers."),
        ({"device": 10**30}, "cannot be used here"),
        ({"dtype": torch.bfloat16}, "got dtype=torch.bfloat16; expected one of the strings 'float32', 'bfloat16'"),
        ({"dtype": ["float32"]}, "expected one of the strings"),
        ({"prompts": ["query"]}, "expected strings by name"),
        ({"default_prompt_name": ["query"]}, "got default_prompt_name"),
        ({"similarity_fn_name": 5}, "got similarity_fn_name=5"),
    ],
)
def test_options_of_other_kinds(options: dict[str, Any], message: str, tiny: Callable[[str], Path]) -> None:
    with pytest.raises(ConfigError, match=message):
        SentenceTransformer(tiny("bert"), **options)


@pytest.mark.parametrize("name", [5, b"model", ["a"]])
def test_names_of_models_that_are_none(name: Any) -> None:
    with pytest.raises(ModelError, match="expected a model folder or name: pass a text"):
        SentenceTransformer(name)


# ---- what the caller has set in torch -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that the encoder in C++ takes."""
    return tiny_models.build(tmp_path_factory.mktemp("wide") / "bert", "bert", dim=64)


@pytest.mark.parametrize("kernels_of", ["with_native", "without_native"])
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_defaults_of_torch_change_nothing(
    dtype: Any, kernels_of: str, wide: Path, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(kernels_of)
    model = SentenceTransformer(wide, device="cpu", dtype=dtype)
    expected, alone = model.encode(TEXTS * 20), model.encode(TEXTS[0])
    before = torch.get_default_dtype()
    try:
        for default in (torch.float64, torch.bfloat16, torch.float16):
            torch.set_default_dtype(default)
            assert np.array_equal(model.encode(TEXTS * 20), expected)
            assert np.array_equal(model.encode(TEXTS[0]), alone)
    finally:
        torch.set_default_dtype(before)
    with torch.device("meta"):
        assert np.array_equal(model.encode(TEXTS[0]), alone)
    with torch.inference_mode():
        assert np.array_equal(model.encode(TEXTS[0]), alone)
    assert np.array_equal(model.encode(TEXTS[0]), alone)


def test_memory_of_a_weight_that_was_given_back(wide: Path) -> None:
    model = SentenceTransformer(wide, device="cpu")
    weight = model.transformer.auto_model.layers[0].attention.output.weight
    weight.data = weight.data.clone()
    model.encode(TEXTS)
    weight.untyped_storage().resize_(0)
    with pytest.raises(RuntimeError):  # torch's own
        model.encode(TEXTS)
