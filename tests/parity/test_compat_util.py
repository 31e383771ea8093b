"""The util and the mining of compat have the reference's signatures, and give its values."""

from __future__ import annotations

import functools
import inspect
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import torch
from common import PRECISIONS, SIMILARITIES, Angles, difference, vectors

from minisbert.compat import mining, util

pytestmark = pytest.mark.parity
functions = pytest.importorskip("sentence_transformers.util")
datasets = pytest.importorskip("datasets")
NAMES = sorted(functions.__all__)
PAIRWISE = [f"pairwise_{name}" for name in (*SIMILARITIES, "angle_sim")]


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    """Name, kind and default of each parameter; functions as defaults by name."""
    found = inspect.signature(function).parameters.values()
    return [(one.name, one.kind, getattr(one.default, "__name__", one.default)) for one in found]


@pytest.mark.parametrize("name", NAMES)
def test_names_and_signatures(name: str) -> None:
    ours, theirs = getattr(util, name), getattr(functions, name)
    assert callable(ours) == callable(theirs)
    if inspect.isfunction(theirs):
        assert parameters(ours) == parameters(theirs)


def test_models_without_owners() -> None:
    assert sorted(util.ORIGINAL_TRANSFORMER_MODELS) == sorted(functions.ORIGINAL_TRANSFORMER_MODELS)


@pytest.mark.parametrize("name", [*SIMILARITIES, *PAIRWISE, "pytorch_cos_sim"])
def test_similarities(name: str, compare: Callable[..., None]) -> None:
    ours, theirs = getattr(util, name), getattr(functions, name)
    a, b = vectors(20), vectors(20, seed=1)
    forms: list[tuple[Any, Any]] = [
        (a, b),
        (torch.tensor(a), torch.tensor(b)),
        (a.tolist(), list(b)),
        (torch.tensor(a).half(), torch.tensor(b).bfloat16()),
    ]
    if name != "pairwise_angle_sim":
        forms.append((a[0], b[0]))
    if name in PAIRWISE[:-1]:
        forms += [(torch.tensor(a).reshape(4, 5, 16), torch.tensor(b).reshape(4, 5, 16)), (torch.tensor(a), b[0])]
    for left, right in forms:
        got, expected = ours(left, right), theirs(left, right)
        assert got.shape == expected.shape
        compare(f"compat {name}", difference(got, expected), 2e-6)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_quantization(precision: str, caplog: pytest.LogCaptureFixture) -> None:
    rows, ranges = vectors(40), np.stack([-np.ones(16), np.ones(16)])
    cases: list[tuple[Any, ...]] = [
        (rows,),
        (torch.tensor(rows),),
        (list(rows),),
        (rows, ranges),
        (rows, None, rows * 2),
    ]
    cases += [(rows[0], ranges), ([rows[:7], rows[7:9]],), ([rows[:7], rows[7:9]], ranges), ([],)]
    for embeddings, *others in cases:
        got = util.quantize_embeddings(embeddings, precision, *others)  # type: ignore[arg-type]
        expected = functions.quantize_embeddings(embeddings, precision, *others)
        assert type(got) is type(expected)
        for one, other in zip(got, expected, strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
    assert ("ranges of" in caplog.text) == ("int8" in precision)


@pytest.mark.parametrize("chunks", [(), (7, 30, 4), (100, 500_000, 1)])
def test_search(chunks: tuple[int, ...], compare: Callable[..., None]) -> None:
    queries, corpus = vectors(20), vectors(90, seed=1)
    for score in ("cos_sim", "dot_score"):
        got, expected = (
            library.semantic_search(queries, corpus, *chunks, score_function=getattr(library, score))
            for library in (util, functions)
        )
        assert [[hit["corpus_id"] for hit in hits] for hits in got] == [
            [hit["corpus_id"] for hit in hits] for hits in expected
        ]
        largest = max(
            abs(a["score"] - b["score"]) for x, y in zip(got, expected, strict=True) for a, b in zip(x, y, strict=True)
        )
        compare("compat semantic_search", largest, 2e-6)
    assert util.information_retrieval(queries, corpus, top_k=2) == util.semantic_search(queries, corpus, top_k=2)


def test_paraphrases_and_communities() -> None:
    rows = torch.tensor(vectors(80, dim=4))
    got = util.paraphrase_mining_embeddings(rows, 30, 25, 200, 5)
    expected = functions.paraphrase_mining_embeddings(rows, 30, 25, 200, 5)
    assert [pair[1:] for pair in got] == [pair[1:] for pair in expected]
    assert util.community_detection(rows, 0.9, 3, 16) == functions.community_detection(rows, 0.9, 3, 16)


def token_embeddings(lengths: list[int], *, seed: int) -> list[torch.Tensor]:
    return [torch.tensor(vectors(length, 8, seed=seed + place)) for place, length in enumerate(lengths)]


@pytest.mark.parametrize("name", ["maxsim", "maxsim_pairwise", "mean_maxsim", "mean_maxsim_pairwise"])
def test_late_interaction(name: str, compare: Callable[..., None]) -> None:
    ours, theirs = getattr(util, name), getattr(functions, name)
    queries, documents = token_embeddings([3, 5, 1], seed=0), token_embeddings([7, 2, 4], seed=9)
    pad = functools.partial(torch.nn.utils.rnn.pad_sequence, batch_first=True)
    weights = [torch.rand(len(query)) for query in queries]
    masks = [torch.arange(len(document)) != 1 for document in documents]
    empty = [documents[0], torch.zeros(0, 8), documents[2]]
    for arguments, options in [
        ((queries, documents), {}),
        ((pad(queries), pad(documents)), {"chunk_elements": 1}),
        ((queries, documents), {"length_normalize": True}),
        ((queries, documents, weights, masks), {}),
        ((queries, documents, None, pad(masks)), {}),
        ((queries, empty), {}),
        ((queries[:1], documents[0] if "pair" in name else documents[0].numpy()), {}),
        ((pad(queries).half(), pad(documents).half()), {}),
    ]:
        got, expected = ours(*arguments, **options), theirs(*arguments, **options)
        assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
        compare(f"compat {name}", difference(got / 1e3, expected / 1e3), 1e-6)


def test_tensors() -> None:
    rows = torch.tensor(vectors(6, 9))
    for count in (1, 4, 20, None):
        assert torch.equal(util.select_max_active_dims(rows, count), functions.select_max_active_dims(rows, count))
    sparse = util.select_max_active_dims(rows, 3).to_sparse()  # type: ignore[union-attr]
    for tensor in (sparse, sparse.to_dense(), rows[0]):
        got, expected = util.compute_count_vector(tensor), functions.compute_count_vector(tensor)
        assert got.dtype == expected.dtype
        assert torch.equal(got, expected)
    np.testing.assert_array_equal(util.to_scipy_coo(sparse).toarray(), functions.to_scipy_coo(sparse).toarray())
    parts = [torch.rand(2, 3, 4), torch.rand(2, 5, 4)]
    masks = [torch.ones(2, 3), torch.ones(2, 5)]
    for name in ("stack_padded_token_embeddings", "cat_padded_token_embeddings"):
        for got, expected in zip(
            getattr(util, name)(parts, masks), getattr(functions, name)(parts, masks), strict=True
        ):
            assert torch.equal(got, expected)
    flat = {
        "token_embeddings": torch.rand(1, 9, 4),
        "input_ids": torch.arange(9)[None],
        "cu_seq_lens_q": torch.tensor([0, 4, 5, 9]),
        "max_length_q": 4,
    }
    got, expected = util.repad_flattened_features(dict(flat)), functions.repad_flattened_features(dict(flat))
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[key], expected[key]) for key in got)
    assert torch.equal(util.truncate_embeddings(rows, -2), functions.truncate_embeddings(rows, -2))


def test_names() -> None:
    for thing in (str, 3, torch.nn.Linear, torch.nn.Linear(1, 1)):
        assert util.fullname(thing) == functions.fullname(thing)
    for function in (util.cos_sim, functools.partial(util.cos_sim), functools.partial(util.cos_sim, b=1)):
        assert util.similarity_fct_name(function) == functions.similarity_fct_name(function)
    for name in ("torch.nn.Linear", "collections.abc.Mapping"):
        assert util.import_from_string(name) is functions.import_from_string(name)
    for package in ("torch", "datasets", "nothing-like-this", "python"):
        assert util.get_installed_version(package) == functions.environment.get_installed_version(package)
    assert util.get_device_name() == functions.get_device_name()
    assert util.is_datasets_available() == functions.is_datasets_available()
    assert util.is_accelerate_available() == functions.is_accelerate_available()


def test_ids(tmp_path: Path) -> None:
    make = datasets.Dataset.from_dict
    queries = make({"query_id": [3, 1], "query": ["three", "one"]})
    documents = make({"id": ["a", "b", "c"], "text": ["A", "B", "C"], "title": ["x", "y", "z"]})
    rows = {
        "query_id": [1, 3, 1],
        "document_ids": [["a", "b"], ["c", "a"], ["b", "c"]],
        "scores": ["[1, 2]", "[3, 4]", "[5, 6]"],
        "other": [0, 0, 0],
    }
    lookups = {"query_id": queries, "document_ids": (documents, "id", "text")}
    for options in ({}, {"max_list_length": 1}, {"output_format": "lists"}, {"keep_columns": ["other"]}):
        got, expected = (library.resolve_ids(lookups, **options)(rows) for library in (util, functions))
        assert list(got.items()) == list(expected.items())
    mapped = make(rows).map(util.resolve_ids(lookups), batched=True, remove_columns=list(lookups))
    assert mapped[0]["document_2"] == "B"
    again = pickle.loads(pickle.dumps(util.resolve_ids(lookups)))
    assert again(rows) == functions.resolve_ids(lookups)(rows)


@pytest.mark.parametrize(
    ("package", "precision"),
    [("faiss", kind) for kind in ("float32", "uint8", "ubinary")]
    + [("usearch", kind) for kind in ("float32", "int8", "binary", "ubinary")],
)
@pytest.mark.filterwarnings("ignore:numpy.core:DeprecationWarning")
def test_indexes(package: str, precision: Any) -> None:
    pytest.importorskip(package)
    queries, corpus = vectors(9), vectors(60, seed=1)
    ranges = np.stack([corpus.min(axis=0), corpus.max(axis=0)])
    quantized = util.quantize_embeddings(corpus, precision, ranges)
    small = util.quantize_embeddings(queries, precision, ranges)
    name = f"semantic_search_{package}"
    ours, theirs = getattr(util, name), getattr(functions, name, None) or getattr(functions.quantization, name)
    for given, options in [
        (queries, {"ranges": ranges}),
        (queries, {"calibration_embeddings": corpus, "rescore_multiplier": 4, "top_k": 3}),
        (queries, {"rescore": False}),
        (small, {"rescore": False, "top_k": 70}),
        (queries, {"top_k": 50}),
    ]:
        shared = {"corpus_precision": precision, **options}
        got, seconds, index = ours(given, quantized, output_index=True, **shared)
        expected, *_ = theirs(given, corpus_index=index, **shared)  # one index, as bits give many equal distances
        assert seconds >= 0
        assert [[hit["score"] for hit in hits] for hits in got] == [
            pytest.approx([hit["score"] for hit in hits], abs=1e-5) for hits in expected
        ]
        again, *_ = ours(given, corpus_index=index, **shared)
        assert again == got
    assert parameters(ours) == parameters(theirs)


# ---- mining ---------------------------------------------------------------------------------------------------------


class Digests:
    """A cross-encoder with a score of its own for any two texts."""

    def predict(self, pairs: list[tuple[str, str]], **_: Any) -> torch.Tensor:
        return torch.tensor([crc32(f"{a}, {b}".encode()) / 2**32 for a, b in pairs])


MINING: list[dict[str, Any]] = [
    {},
    {"output_format": "n-tuple", "output_scores": True, "range_min": 1, "range_max": 9},
    {"output_format": "labeled-pair", "num_negatives": 2, "relative_margin": 0.1},
    {"output_format": "labeled-list", "max_score": 0.8},
    {"output_format": "n-tuple-scores", "margin": 0.05},
    {"as_triplets": False, "min_score": 0.2},
    {"as_triplets": True, "sampling_strategy": "random", "range_max": 12},
    {"include_positives": True, "num_negatives": 6},
    {"cross_encoder": Digests(), "absolute_margin": 0.2, "output_scores": True},
    {"cross_encoder": Digests()},
    {"anchor_column_name": "answer", "positive_column_name": "query"},
    {"anchor_column_name": "neither", "positive_column_name": "nor"},
]


@pytest.mark.parametrize("options", MINING)
@pytest.mark.filterwarnings("ignore:got a cross_encoder", "ignore:got .*_column_name")
def test_mining(options: dict[str, Any], compare: Callable[..., None]) -> None:
    draw = random.Random(0)
    angles = [str(draw.uniform(0, 360)) for _ in range(90)]
    anchors = angles[:25]
    rows = {
        "query": [*anchors, *anchors[:6]],
        "answer": angles[40:65] + anchors[4:10],  # some anchors are documents too
        "number": list(range(31)),
    }
    corpus = angles[65:]
    for documents in (None, corpus):
        results = []
        for function in (mining.mine_hard_negatives, functions.mine_hard_negatives):
            random.seed(3)
            results.append(
                function(datasets.Dataset.from_dict(rows), Angles(), corpus=documents, verbose=False, **options)
            )
        got, expected = results
        assert got.column_names == expected.column_names
        for name in got.column_names:
            if name in ("score", "scores"):
                largest = max(np.abs(np.subtract(a, b)).max() for a, b in zip(got[name], expected[name], strict=True))
                compare("compat mine_hard_negatives: scores", largest, 1e-6)
            else:
                assert got[name] == expected[name]
                assert got.features[name] == expected.features[name]
