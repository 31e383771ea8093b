"""`minisbert evaluate` on each kind of data gives what the evaluator gives on the same rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minisbert import SentenceTransformer
from minisbert.cli import main
from minisbert.evaluation import (
    BinaryClassificationEvaluator,
    InformationRetrievalEvaluator,
    ParaphraseMiningEvaluator,
    RerankingEvaluator,
    TripletEvaluator,
)

PAIRS = [("a cat", "the cat", 1), ("a cat", "blue sky", 0), ("red sea", "the sea", 1), ("one tree", "two dog", 0)]


@pytest.fixture
def evaluated(model: str, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, dict[str, float]]]:
    """Run the command; returns its rows and metrics, the same from the table and as JSON."""

    def evaluated(*arguments: object) -> tuple[int, dict[str, float]]:
        command = ["evaluate", model, *map(str, arguments), "--device", "cpu"]
        assert main([*command, "--json"]) == 0
        printed = json.loads(capsys.readouterr().out)
        assert printed.pop("model") == model
        assert printed.pop("data") == str(arguments[1])
        rows = printed.pop("rows")
        assert main(command) == 0
        header, *lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert header == ["metric", "value"]
        assert {name: float(value) for name, value in lines} == pytest.approx(printed, abs=6e-7)
        return rows, printed

    return evaluated


def write(path: Path, *rows: tuple[object, ...]) -> Path:
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows), encoding="utf-8")
    return path


def expected(evaluator: Any, model: str) -> dict[str, float]:
    values: dict[str, float] = evaluator(SentenceTransformer(model, device="cpu"))
    return values


def test_binary(evaluated: Callable[..., Any], model: str, tmp_path: Path) -> None:
    file = write(tmp_path / "pairs.tsv", ("one", "other", "label"), *PAIRS)
    first, second, labels = zip(*PAIRS, strict=True)
    assert evaluated("--binary", file) == (
        4,
        expected(BinaryClassificationEvaluator(list(first), list(second), list(labels)), model),
    )


def test_triplets(evaluated: Callable[..., Any], model: str, tmp_path: Path) -> None:
    rows = [("a cat", "the cat", "blue sky"), ("red sea", "the sea", "a dog"), ("one", "two dog", "one tree")]
    file = write(tmp_path / "rows.tsv", ("id", "far", "anchor", "near"), *((7, c, a, b) for a, b, c in rows))
    assert evaluated("--triplets", file, "--columns", "anchor,near,far") == (
        3,
        expected(TripletEvaluator(*map(list, zip(*rows, strict=True))), model),
    )


@pytest.mark.parametrize("labelled", [True, False])
def test_paraphrases(labelled: bool, evaluated: Callable[..., Any], model: str, tmp_path: Path) -> None:
    rows = [*PAIRS, ("a cat", "a cat", 1)] if labelled else [row[:2] for row in PAIRS if row[2]]
    file = write(tmp_path / "pairs.tsv", ("a", "b", "label")[: 3 if labelled else 2], *rows)
    texts = list(dict.fromkeys(text for row in rows for text in row[:2]))
    pairs = [row[:2] for row in PAIRS if row[2]]
    count, values = evaluated("--paraphrases", file)
    assert count == len(texts)
    assert values == expected(ParaphraseMiningEvaluator({text: text for text in texts}, pairs), model)


def test_reranking(evaluated: Callable[..., Any], model: str, tmp_path: Path) -> None:
    rows = [
        ("a cat", "the cat", 2),
        ("red", "sky", 0),
        ("a cat", "blue sky", 0),
        ("red", "the red sea", 1),
        ("x", "y", 1),
    ]
    long = write(tmp_path / "long.tsv", ("query", "passage", "score"), *rows)
    samples = [
        {"query": "a cat", "positive": ["the cat"], "negative": ["blue sky"]},
        {"query": "red", "positive": ["the red sea"], "negative": ["sky"]},
    ]
    lists = tmp_path / "lists.jsonl"
    lists.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    values = expected(RerankingEvaluator(samples), model)
    assert evaluated("--reranking", long) == (2, values)
    assert evaluated("--reranking", lists) == (2, values)


def test_retrieval(evaluated: Callable[..., Any], model: str, tmp_path: Path) -> None:
    corpus = {"d1": ("the", "cat sat"), "d2": ("", "blue sky"), "d3": ("red", "sea")}
    lines = [json.dumps({"_id": key, "title": title, "text": text}) for key, (title, text) in corpus.items()]
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines))
    (tmp_path / "queries.jsonl").write_text('{"_id": "q1", "text": "a cat"}\n{"_id": "q2", "text": "why"}\n')
    (tmp_path / "qrels").mkdir()
    for split, document in (("test", "d1"), ("dev", "d2")):
        write(tmp_path / "qrels" / f"{split}.tsv", ("query-id", "corpus-id", "score"), ("q1", document, 1))
    texts = {"d1": "the cat sat", "d2": "blue sky", "d3": "red sea"}
    evaluator = InformationRetrievalEvaluator({"q1": "a cat"}, texts, {"q1": ["d1"]})
    assert evaluated("--retrieval", tmp_path) == (1, expected(evaluator, model))
    plain = InformationRetrievalEvaluator(
        {"q1": "a cat"}, {key: text for key, (_, text) in corpus.items()}, {"q1": ["d2"]}
    )
    rows, values = evaluated("--retrieval", tmp_path, "--split", "dev", "--no-titles")
    assert (rows, values) == (1, expected(plain, model))


@pytest.mark.parametrize("name", ["qrels/test.tsv", "qrels/test.txt", "qrels.trec"])
def test_qrels_of_trec_and_queries_that_are_documents(
    name: str, evaluated: Callable[..., Any], model: str, tmp_path: Path
) -> None:
    texts = {"d1": "the cat sat on the mat", "d2": "the cat sat", "d3": "red sea", "d4": "the red sea is blue"}
    lines = [json.dumps({"_id": key, "title": "", "text": text}) for key, text in texts.items()]
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines))
    queries = {key: texts[key] for key in ("d1", "d3")}
    (tmp_path / "queries.jsonl").write_text(
        "\n".join(json.dumps({"_id": key, "text": text}) for key, text in queries.items())
    )
    (tmp_path / "qrels").mkdir()
    (tmp_path / name).write_text("d1 0 d2 1\nd1 0 d3 0\nd3\tQ0\td4\t2\n")
    relevant = {"d1": {"d2"}, "d3": {"d4"}}
    plain, other = (
        InformationRetrievalEvaluator(queries, texts, relevant, ignore_same_id=same) for same in (False, True)
    )
    rows, values = evaluated("--retrieval", tmp_path)
    assert (rows, values) == (2, expected(plain, model))
    assert values["cosine_accuracy@1"] == 0
    rows, values = evaluated("--retrieval", tmp_path, "--ignore-same-id")
    assert (rows, values) == (2, expected(other, model))
    assert values["cosine_accuracy@1"] == 1
    assert values["cosine_mrr@10"] == 1


@pytest.mark.parametrize(
    ("arguments", "content", "parts"),
    [
        (["--binary", "rows.tsv"], "a\tb\tlabel\nx\ty\t1\nx\tz\t2\n", ["row 1 of", "label 2", "0 or 1"]),
        (["--binary", "rows.tsv"], "a\tb\nx\ty\n", ["['a', 'b'] and no label", "--columns"]),
        (["--binary", "rows.tsv"], "a\tb\tlabel\nx\ty\t1\nx\tz\t1\n", ["only the label 1"]),
        (["--triplets", "rows.tsv"], "a\tb\nx\ty\n", ["['a', 'b']", "anchor, positive and negative"]),
        (["--paraphrases", "rows.tsv"], "a\tb\tc\nx\ty\tz\n", ["['a', 'b', 'c']", "two texts"]),
        (["--paraphrases", "rows.tsv"], "a\tb\tlabel\nx\ty\t0\n", ["no duplicates"]),
        (
            ["--reranking", "rows.tsv"],
            "a\tb\tgrade\nx\ty\tgood\n",
            ["['a', 'b', 'grade']", "query, document and label"],
        ),
        (["--reranking", "rows.tsv"], "a\tb\tlabel\nx\ty\t1\n", ["1 samples, none with both"]),
        (["--retrieval", "."], "", ["no relevance file"]),
        (["--retrieval", ".", "--columns", "a,b"], "", ["--columns with --retrieval"]),
        (["--binary", "rows.tsv", "--split", "dev"], "", ["--split", "--binary"]),
    ],
)
def test_bad_data_is_said_before_a_model_is_loaded(
    arguments: list[str],
    content: str,
    parts: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.tsv").write_text(content)
    assert main(["evaluate", "no-such-model", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert all(part in err for part in parts), err


@pytest.mark.parametrize("kinds", [[], ["--sts", "a.tsv", "--binary", "b.tsv"]])
def test_exactly_one_kind(kinds: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["evaluate", "m", *kinds])
    assert caught.value.code == 2
    assert "--sts" in capsys.readouterr().err
