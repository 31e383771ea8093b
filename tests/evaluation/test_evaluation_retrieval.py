"""InformationRetrievalEvaluator: values by definition, whatever the chunks, in bounded memory."""

from __future__ import annotations

import gc
import json
import math
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixed_model import FixedModel, scored
from hypothesis import given, settings
from hypothesis import strategies as st

from minisbert import SentenceTransformer
from minisbert.errors import ConfigError, InputError, InputTypeError, MinisbertError
from minisbert.evaluation import InformationRetrievalEvaluator
from minisbert.similarity import cos_sim, dot_score

ALL_K = {
    "mrr_at_k": [1, 3, 50],
    "ndcg_at_k": [1, 4, 50],
    "accuracy_at_k": [1, 2, 50],
    "precision_recall_at_k": [1, 3, 50],
    "map_at_k": [2, 50],
}


def by_definition(ranking: list[str], relevant: set[str]) -> dict[str, float]:
    """The metrics of one query at every k of `ALL_K`."""
    hits = [document in relevant for document in ranking] + [False] * 50
    first = hits.index(True) + 1 if any(hits) else math.inf
    values = {}
    for k in ALL_K["accuracy_at_k"]:
        values[f"accuracy@{k}"] = float(first <= k)
    for k in ALL_K["precision_recall_at_k"]:
        values[f"precision@{k}"] = sum(hits[:k]) / k
        values[f"recall@{k}"] = sum(hits[:k]) / len(relevant)
    for k in ALL_K["ndcg_at_k"]:
        ideal = sum(1 / math.log2(rank + 2) for rank in range(min(k, len(relevant))))
        values[f"ndcg@{k}"] = sum(hit / math.log2(rank + 2) for rank, hit in enumerate(hits[:k])) / ideal
    for k in ALL_K["mrr_at_k"]:
        values[f"mrr@{k}"] = 1 / first if first <= k else 0.0
    for k in ALL_K["map_at_k"]:
        precisions = [sum(hits[: rank + 1]) / (rank + 1) for rank in range(k) if hits[rank]]
        values[f"map@{k}"] = sum(precisions) / min(k, len(relevant))
    return values


@settings(max_examples=40, deadline=None)
@given(
    documents=st.integers(1, 30),
    queries=st.integers(1, 6),
    chunk=st.integers(1, 40),
    seed=st.integers(0, 10_000),
)
def test_metrics_are_their_definitions_whatever_the_chunks(documents: int, queries: int, chunk: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    model = FixedModel(3, whole=True)  # 27 places, so that many scores are equal
    model.similarity_fn_name = "dot"
    corpus = {f"d{number}": f"document {number} of {seed}" for number in draw.permutation(documents)}
    asked = {f"q{number}": f"query {number} of {seed}" for number in range(queries)}
    wanted = {query: set(draw.choice(list(corpus), draw.integers(1, documents + 1))) for query in asked}
    got = InformationRetrievalEvaluator(asked, corpus, wanted, corpus_chunk_size=chunk, **ALL_K)(model)
    expected: dict[str, list[float]] = {}
    for query, text in asked.items():
        ranking = sorted(corpus, key=lambda key: (-float(model.row(corpus[key]) @ model.row(text)), key))
        for name, value in by_definition(ranking, wanted[query]).items():
            expected.setdefault(f"dot_{name}", []).append(value)
    assert got == pytest.approx({name: float(np.mean(values)) for name, values in expected.items()})


def small(**options: Any) -> InformationRetrievalEvaluator:
    """One query; best first: a, b, c, d, of which b and d are relevant."""
    corpus = {name: name for name in "dcba"}
    return InformationRetrievalEvaluator({"1": "q", "2": "no one"}, corpus, {"1": {"b", "d"}, "2": set()}, **options)


def test_values_names_and_order_by_hand(tmp_path: Path) -> None:
    evaluator = small(name="dev", accuracy_at_k=[1, 3], precision_recall_at_k=[1, 3], map_at_k=[3])
    model = scored(a=4, b=3, c=2, d=1)
    assert evaluator.primary_metric is None
    got = evaluator(model, tmp_path / "new", epoch=0.5, steps=3)
    assert list(got.items()) == [
        ("dev_dot_accuracy@1", 0.0),
        ("dev_dot_accuracy@3", 1.0),
        ("dev_dot_precision@1", 0.0),
        ("dev_dot_precision@3", pytest.approx(1 / 3)),
        ("dev_dot_recall@1", 0.0),
        ("dev_dot_recall@3", 0.5),
        ("dev_dot_ndcg@10", pytest.approx((1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3)))),
        ("dev_dot_mrr@10", 0.5),
        ("dev_dot_map@3", 0.25),
    ]
    assert all(type(value) is float for value in got.values())
    assert evaluator.primary_metric == "dev_dot_ndcg@10"
    assert evaluator.description == "Information Retrieval"
    (file,) = (tmp_path / "new").iterdir()
    assert file.name == "Information-Retrieval_evaluation_dev_results.csv"
    header, row, end = file.read_bytes().decode().split("\n")
    assert header == (
        "epoch,steps,dot-Accuracy@1,dot-Accuracy@3,dot-Precision@1,dot-Recall@1,dot-Precision@3,dot-Recall@3,"
        "dot-MRR@10,dot-NDCG@10,dot-MAP@3"
    )
    assert row.split(",")[:4] == ["0.5", "3", "0.0", "1.0"]
    assert end == ""


def test_equal_scores_are_ranked_by_id() -> None:
    assert small()(scored(a=1, b=1, c=1, d=1))["dot_mrr@10"] == 0.5
    corpus = {10: "x", 9: "x"}  # numbers are ordered as numbers
    assert InformationRetrievalEvaluator({0: "q"}, corpus, {0: [9]})(scored(x=1))["dot_mrr@10"] == 1.0


def test_the_corpus_is_encoded_once_in_chunks_and_queries_without_answers_never() -> None:
    model = scored(a=4, b=3, c=2, d=1)
    functions = {"dot": dot_score, "cosine": cos_sim}
    small(corpus_chunk_size=3, score_functions=functions, truncate_dim=1, batch_size=7)(model)
    assert model.calls == [("query", ["q"]), ("document", ["a", "b", "c"]), ("document", ["d"])]
    assert model.options["truncate_dim"] == 1
    assert model.options["batch_size"] == 7


def test_equal_texts_are_ranked_by_id_though_their_embeddings_differ_in_the_last_bits() -> None:
    class Noisy(FixedModel):
        def encode_document(self, inputs: Any, **options: Any) -> Any:
            rows = super().encode_document(inputs, **options)
            return rows + torch.rand(len(rows), 1, generator=torch.Generator().manual_seed(0)) * 1e-5

    corpus = {str(number): "one text" if number < 30 else f"text {number}" for number in range(100, 0, -1)}
    evaluator = InformationRetrievalEvaluator({"q": "a query"}, corpus, {"q": ["1"]})
    ((_, rows),) = evaluator.search(Noisy(), {"dot": dot_score}).values()
    equal = [key for row in rows[0] if int(key := evaluator.corpus_ids[row]) < 30]
    assert equal == sorted(map(str, range(1, 30)))


def test_one_chunk_of_the_corpus_is_held_at_a_time() -> None:
    alive: list[weakref.ref[torch.Tensor]] = []

    class Watched(FixedModel):
        def encode_document(self, inputs: Any, **options: Any) -> Any:
            gc.collect()
            assert not [chunk for chunk in alive if chunk() is not None]
            chunk = super().encode_document(inputs, **options)
            alive.append(weakref.ref(chunk))
            return chunk

    corpus = {str(number): f"document {number}" for number in range(50)}
    evaluator = InformationRetrievalEvaluator({"q": "query"}, corpus, {"q": ["3"]}, corpus_chunk_size=10)
    evaluator(Watched())
    assert len(alive) == 5


def test_scores_are_computed_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minisbert.evaluation.retrieval._SCORES_AT_ONCE", 12)
    shapes = []

    def watched(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        shapes.append((len(a), len(b)))
        return a @ b.T

    queries = {str(number): f"query {number}" for number in range(10)}
    corpus = {str(number): f"document {number}" for number in range(8)}
    wanted = {key: ["1"] for key in queries}
    options = {"score_functions": {"mine": watched}, "corpus_chunk_size": 4}
    got = InformationRetrievalEvaluator(queries, corpus, wanted, **options)(FixedModel(whole=True))
    assert set(shapes) == {(3, 4), (1, 4)}
    monkeypatch.undo()
    assert InformationRetrievalEvaluator(queries, corpus, wanted, **options)(FixedModel(whole=True)) == got


@pytest.mark.parametrize("documents", [4, 30])
def test_the_document_with_the_id_of_the_query_is_left_out(documents: int, tmp_path: Path) -> None:
    corpus = {str(number): f"document {number}" for number in range(documents)}
    queries = {**{key: corpus[key] for key in ("1", "2")}, "other": "query 5"}
    relevant = {"1": ["2", "1"], "2": ["3"], "other": ["1"]}
    model = FixedModel()
    options = {
        "precision_recall_at_k": [1, 3],
        "ndcg_at_k": [3],
        "mrr_at_k": [3],
        "map_at_k": [3],
        "accuracy_at_k": [1],
    }
    evaluator = InformationRetrievalEvaluator(
        queries, corpus, relevant, ignore_same_id=True, write_predictions=True, corpus_chunk_size=3, **options
    )
    got = evaluator(model, tmp_path)
    lines = (tmp_path / evaluator.predictions_file.replace(".jsonl", "_cosine.jsonl")).read_text().splitlines()
    ranked = {line["query_id"]: [hit["corpus_id"] for hit in line["results"]] for line in map(json.loads, lines)}
    for key, text in queries.items():
        query, rows = model.encode_query([text]), model.encode_document(list(corpus.values()))
        scores = cos_sim(query, rows)[0]
        order = sorted((doc for doc in corpus if doc != key), key=lambda doc: (-float(scores[int(doc)]), doc))
        assert ranked[key] == order[:3]
    hits = [sum(doc in relevant[key] for doc in ranked[key]) / len(relevant[key]) for key in queries]
    assert got["cosine_recall@3"] == pytest.approx(sum(hits) / 3)
    assert evaluator.get_config_dict() == {"ignore_same_id": True}


def test_prompts_reach_the_texts(tiny: Callable[[str], Path]) -> None:
    model = SentenceTransformer(
        tiny("bert"), device="cpu", prompts={"query": "how ", "document": "the ", "other": "not "}
    )
    corpus = {"1": "cat", "2": "dog sat", "3": "red sea"}
    plain = SentenceTransformer(tiny("bert"), device="cpu")

    def ranked(model: Any, query: str, texts: dict[str, str], tmp_path: Path | None = None, **options: Any) -> Any:
        evaluator = InformationRetrievalEvaluator({"q": query}, texts, {"q": ["1"]}, **options)
        ((scores, _),) = evaluator.search(model, {"cosine": cos_sim}).values()
        return scores

    with_prompts = ranked(model, "tree", corpus)
    by_hand = ranked(plain, "how tree", {key: "the " + text for key, text in corpus.items()})
    assert torch.allclose(with_prompts, by_hand, atol=1e-6)
    named = ranked(model, "tree", corpus, query_prompt_name="other", corpus_prompt="why ")
    by_hand = ranked(plain, "not tree", {key: "why " + text for key, text in corpus.items()})
    assert torch.allclose(named, by_hand, atol=1e-6)
    assert not torch.allclose(named, with_prompts, atol=1e-3)


def backwards(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return -(a @ b.T)


def test_the_primary_metric_is_of_the_best_function_at_first_and_stays() -> None:
    functions = {"dot": dot_score, "back": backwards}
    evaluator = small(score_functions=functions)
    evaluator(scored(a=1, b=2, c=3, d=4))
    assert evaluator.primary_metric == "dot_ndcg@10"
    evaluator(scored(a=4, b=3, c=2, d=1))
    assert evaluator.primary_metric == "dot_ndcg@10"
    other = small(score_functions=functions, ndcg_at_k=[3, 5])
    other(scored(a=4, b=3, c=2, d=1))
    assert other.primary_metric == "back_ndcg@5"
    chosen = small(score_functions=functions, main_score_function="dot")
    chosen(scored(a=4, b=3, c=2, d=1))
    assert chosen.primary_metric == "dot_ndcg@10"


def test_the_function_is_the_models_own_or_the_main_one() -> None:
    evaluator = small(ndcg_at_k=[1])
    models = scored(a=1, b=2, c=3, d=4), FixedModel()
    for model, name in zip(models, ("dot", "cosine"), strict=True):
        assert {metric.split("_")[0] for metric in evaluator(model)} == {name}
        assert evaluator.primary_metric == f"{name}_ndcg@1"
    main = small(main_score_function="euclidean")
    assert {metric.split("_")[0] for metric in main(scored(a=1, b=2, c=3, d=4))} == {"euclidean"}


def test_predictions(tmp_path: Path) -> None:
    evaluator = small(name="dev", write_predictions=True, score_functions={"mine": dot_score}, write_csv=False)
    for _ in range(2):  # the last call's are kept
        evaluator(scored(a=4, b=3, c=2, d=1), tmp_path / "new")
    (file,) = (tmp_path / "new").iterdir()
    assert file.name == "Information-Retrieval_evaluation_dev_predictions_mine.jsonl"
    (line,) = file.read_text().splitlines()
    assert json.loads(line) == {
        "query_id": "1",
        "query": "q",
        "results": [{"corpus_id": name, "score": score} for name, score in zip("abcd", (4, 3, 2, 1), strict=True)],
    }


def test_what_the_card_says() -> None:
    assert small().get_config_dict() == {}
    options = {"query_prompt": "q: ", "corpus_prompt_name": "passage", "truncate_dim": 16}
    assert small(**options).get_config_dict() == options
    assert next(iter(small(**options).get_config_dict())) == "truncate_dim"


QUERIES, CORPUS, WANTED = {"1": "q"}, {"a": "x", "b": "y"}, {"1": {"a"}}


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "parts"),
    [
        (({}, CORPUS, WANTED), {}, InputError, ["no queries", "at least one"]),
        ((QUERIES, {}, WANTED), {}, InputError, ["no corpus", "at least one"]),
        ((["q"], CORPUS, WANTED), {}, InputTypeError, ["list for queries", "{id: text}"]),
        (({"1": None}, CORPUS, WANTED), {}, InputTypeError, ["queries['1'] is None", "string"]),
        ((QUERIES, {"a": "x", "b": 5}, WANTED), {}, InputTypeError, ["corpus['b'] is 5", "string"]),
        ((QUERIES, {"a": "x", 2: "y"}, WANTED), {}, InputTypeError, ["without an order", "one type"]),
        ((QUERIES, CORPUS, {"1": {"c"}}), {}, InputError, ["relevant_docs['1']", "document 'c'", "drop it"]),
        ((QUERIES, CORPUS, {"1": [["a"]]}), {}, InputError, ["relevant_docs['1']", "document ['a']", "drop it"]),
        ((QUERIES, CORPUS, {"2": {"a"}}), {}, InputError, ["query '2'", "drop it"]),
        ((QUERIES, CORPUS, {1: {"a"}}), {}, InputError, ["query 1"]),
        ((QUERIES, CORPUS, {"1": "a"}), {}, InputTypeError, ["relevant_docs['1'] is a str", "set"]),
        ((QUERIES, CORPUS, [("1", "a")]), {}, InputTypeError, ["list for relevant_docs", "dict"]),
        ((QUERIES, CORPUS, {}), {}, InputError, ["1 queries, none with relevant documents"]),
        ((QUERIES, CORPUS, {"1": []}), {}, InputError, ["1 queries, none with relevant documents"]),
        ((QUERIES, CORPUS, WANTED), {"mrr_at_k": [0]}, ConfigError, ["mrr_at_k=0", "at least 1"]),
        ((QUERIES, CORPUS, WANTED), {"map_at_k": [2.5]}, ConfigError, ["map_at_k=2.5", "whole"]),
        ((QUERIES, CORPUS, WANTED), {"ndcg_at_k": []}, ConfigError, ["no ndcg_at_k", "primary"]),
        ((QUERIES, CORPUS, WANTED), {"corpus_chunk_size": 0}, ConfigError, ["corpus_chunk_size=0", "at least 1"]),
        ((QUERIES, CORPUS, WANTED), {"score_functions": {}}, ConfigError, ["score functions []"]),
        (
            (QUERIES, CORPUS, WANTED),
            {"score_functions": {"dot": dot_score}, "main_score_function": "cosine"},
            ConfigError,
            ["['dot']", "'cosine'"],
        ),
        ((QUERIES, CORPUS, WANTED), {"main_score_function": "cos"}, ConfigError, ["'cos'", "cosine, dot"]),
    ],
)
def test_what_cannot_be_evaluated(
    arguments: tuple[Any, ...], options: dict[str, Any], kind: type[MinisbertError], parts: list[str]
) -> None:
    with pytest.raises(kind) as caught:
        InformationRetrievalEvaluator(*arguments, **options)
    assert "\n" not in str(caught.value)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


@pytest.mark.parametrize("options", [{}, {"write_csv": False, "write_predictions": True}])
def test_a_place_that_cannot_be_written(options: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        small(**options)(scored(a=4, b=3, c=2, d=1), tmp_path / "file")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ignore_same_id": "no"}, "got ignore_same_id='no'; expected True or False"),
        ({"ndcg_at_k": 5}, "got ndcg_at_k=5; expected a list of whole numbers"),
        ({"ndcg_at_k": [10**30]}, "expected a whole number of at least 1 and at most 2147483647"),
        ({"relevant_docs": {"1": None}}, r"relevant_docs\['1'\] is a NoneType; expected a set of document ids"),
    ],
)
def test_options_that_cannot_work(options: dict[str, Any], message: str) -> None:
    arguments = {"queries": {"1": "a"}, "corpus": {"2": "b"}, "relevant_docs": {"1": ["2"]}, **options}
    with pytest.raises((ConfigError, InputTypeError), match=message):
        InformationRetrievalEvaluator(**arguments)


def test_predictions_with_ids_of_numpy(tmp_path: Path) -> None:
    queries, corpus = {np.int64(1): "a"}, {np.int64(2): "b", np.int64(3): "c"}
    evaluator = InformationRetrievalEvaluator(queries, corpus, {np.int64(1): {np.int64(2)}}, write_predictions=True)
    evaluator(FixedModel(), tmp_path)
    (file,) = tmp_path.glob("*_predictions_cosine.jsonl")
    assert json.loads(file.read_text())["query_id"] == 1
