"""MTEB: tasks on local data with the scores that the reference's model gets, prompts, and a cache of results."""

from __future__ import annotations

import csv
import gzip
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from places import DATA

from minisbert import SentenceTransformer
from minisbert.data.packaged import GRADED_ANSWERS_TRAIN
from minisbert.errors import ConfigError

pytestmark = [pytest.mark.downstream, pytest.mark.filterwarnings("ignore")]
mteb = pytest.importorskip("mteb", minversion="2.20")
reference = pytest.importorskip("sentence_transformers")

from datasets import Dataset
from mteb.abstasks import AbsTaskPairClassification, AbsTaskRetrieval, AbsTaskSTS
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.cache import ResultCache
from mteb.models.models_protocols import EncoderProtocol

from minisbert.adapters.mteb import MinisbertEncoder

FOUR_DIGITS = 5e-5  # and not equality after rounding: values of 0.8463455 and 0.8463510 are as equal as others


def described(name: str, category: str, score: str) -> TaskMetadata:
    return TaskMetadata(
        name=name,
        type=category,
        main_score=score,
        description="Texts in this repository.",
        dataset={"path": "local/data", "revision": "1"},
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
    )


class Graded(AbsTaskSTS):
    metadata = described("MinisbertGraded", "STS", "cosine_spearman")
    min_score, max_score = 0, 5
    rows: list[tuple[str, str, float]] = []

    def load_data(self, num_proc: int | None = None, **options: Any) -> None:
        first, second, scores = (list(column) for column in zip(*self.rows, strict=True))
        columns = {"sentence1": first, "sentence2": second, "score": scores}
        self.dataset, self.data_loaded = {"test": Dataset.from_dict(columns)}, True


class Answers(AbsTaskRetrieval):
    metadata = described("MinisbertAnswers", "Retrieval", "ndcg_at_10")
    corpus: dict[str, tuple[str, str]] = {}
    queries: dict[str, str] = {}
    relevant: dict[str, dict[str, int]] = {}

    def load_data(self, num_proc: int | None = None, **options: Any) -> None:
        documents = [{"id": key, "title": title, "text": text} for key, (title, text) in self.corpus.items()]
        split = {
            "corpus": Dataset.from_list(documents),
            "queries": Dataset.from_list([{"id": key, "text": text} for key, text in self.queries.items()]),
            "relevant_docs": self.relevant,
            "top_ranked": None,
        }
        self.dataset, self.data_loaded = {"default": {"test": split}}, True


class Duplicates(AbsTaskPairClassification):
    metadata = described("MinisbertDuplicates", "PairClassification", "max_ap")
    rows: list[tuple[str, str, int]] = []

    def load_data(self, num_proc: int | None = None, **options: Any) -> None:
        first, second, labels = (list(column) for column in zip(*self.rows, strict=True))
        columns = {"sentence1": first, "sentence2": second, "labels": labels}
        self.dataset, self.data_loaded = {"test": Dataset.from_dict(columns)}, True


def packaged_tasks() -> list[Any]:
    """An STS and a retrieval task of the packaged answers to questions: good answers are what is looked for."""
    with GRADED_ANSWERS_TRAIN.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    graded, answers = Graded(), Answers()
    graded.rows = [(row["reference"], row["answer"], float(row["score"])) for row in rows]
    ids = {text: f"d{number}" for number, text in enumerate(dict.fromkeys(row["answer"] for row in rows))}
    answers.corpus = {key: ("An answer" if key[-1] == "3" else "", text) for text, key in ids.items()}
    questions = {text: f"q{number}" for number, text in enumerate(dict.fromkeys(row["question"] for row in rows))}
    answers.queries = {key: text for text, key in questions.items()}
    answers.relevant = {key: {} for key in answers.queries}
    for row in rows:
        if float(row["score"]) > 2:
            answers.relevant[questions[row["question"]]][ids[row["answer"]]] = 1
    return [graded, answers]


def scores(model: Any, tasks: list[Any], cache: ResultCache | None = None) -> dict[str, float]:
    found = mteb.evaluate(
        model, tasks, cache=cache, show_progress_bar=False, encode_kwargs={"show_progress_bar": False}
    )
    return {result.task_name: result.get_score() for result in found.task_results}


def all_scores(model: Any, tasks: list[Any]) -> dict[str, dict[str, float]]:
    found = mteb.evaluate(model, tasks, cache=None, show_progress_bar=False)
    numbers = {result.task_name: result.scores["test"][0] for result in found.task_results}
    return {
        task: {name: value for name, value in values.items() if isinstance(value, float)}
        for task, values in numbers.items()
    }


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_scores_are_those_of_the_reference(folder: Path, similarity: str) -> None:
    tasks = packaged_tasks()
    expected = all_scores(
        reference.SentenceTransformer(str(folder), device="cpu", similarity_fn_name=similarity), tasks
    )
    found = all_scores(
        MinisbertEncoder(SentenceTransformer(folder, device="cpu", similarity_fn_name=similarity)), tasks
    )
    assert set(found) == {"MinisbertGraded", "MinisbertAnswers"}
    for task, values in expected.items():
        assert len(values) > 8
        assert found[task] == pytest.approx(values, abs=FOUR_DIGITS, nan_ok=True), task


def test_scores_of_the_real_model_are_those_of_the_reference(minilm: Path) -> None:
    tasks = packaged_tasks()
    expected = scores(reference.SentenceTransformer(str(minilm), device="cpu"), tasks)
    found = scores(MinisbertEncoder(minilm, device="cpu"), tasks)
    assert found == pytest.approx(expected, abs=FOUR_DIGITS)
    assert found["MinisbertGraded"] > 0.3


@pytest.mark.data
def test_scores_on_real_data_are_those_of_the_reference(minilm: Path) -> None:
    def rows(name: str) -> list[dict[str, str]]:
        with gzip.open(DATA / name, "rt", encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))

    graded, duplicates = Graded(), Duplicates()
    graded.rows = [(row["sentence1"], row["sentence2"], float(row["score"])) for row in rows("stsb/stsb_dev.tsv.gz")]
    duplicates.rows = [(row["question1"], row["question2"], int(row["label"])) for row in rows("mqp/mqp.tsv.gz")[:1000]]
    expected = scores(reference.SentenceTransformer(str(minilm), device="cpu"), [graded, duplicates])
    found = scores(MinisbertEncoder(minilm, device="cpu"), [graded, duplicates])
    assert found == pytest.approx(expected, abs=FOUR_DIGITS)
    assert found["MinisbertGraded"] > 0.85


class Recorder(SentenceTransformer):
    """A model that notes the prompts it is called with."""

    def encode(self, inputs: Any = None, **options: Any) -> Any:
        self.__dict__.setdefault("calls", []).append((options["prompt"], len(inputs)))
        return super().encode(inputs, **options)


def test_prompts_by_task_and_type(folder: Path) -> None:
    tasks = packaged_tasks()
    model = Recorder(folder, device="cpu")
    scores(MinisbertEncoder(model), tasks)
    queries, documents = len(tasks[1].queries), len(tasks[1].corpus)
    assert [prompt for prompt, _ in model.calls[:-2]] == [None] * (len(model.calls) - 2)  # pairs are neither
    assert sorted(model.calls[-2:]) == sorted([("question: ", queries), ("a text: ", documents)])
    prompts = {
        "MinisbertAnswers-query": "1: ",
        "MinisbertAnswers": "2: ",
        "Retrieval-document": "3: ",
        "query": "4: ",
        "STS": "5: ",
    }
    model.calls.clear()
    scores(MinisbertEncoder(model, prompts=prompts), tasks)
    assert {prompt for prompt, _ in model.calls[:-2]} == {"5: "}
    assert sorted(model.calls[-2:]) == sorted([("1: ", queries), ("2: ", documents)])
    encoder = MinisbertEncoder(model, prompts={"Retrieval-document": "3: ", "query": "4: "})
    assert [encoder._prompt("A", "Retrieval", kind) for kind in ("document", "query", None)] == ["3: ", "4: ", None]


def test_the_cache_knows_the_weights(folder: Path, tmp_path: Path) -> None:
    cache, tasks = ResultCache(tmp_path / "cache"), packaged_tasks()[:1]
    place = tmp_path / "my-model"
    shutil.copytree(folder, place)
    first = MinisbertEncoder(place, device="cpu")
    assert isinstance(first, EncoderProtocol)
    assert first.mteb_model_meta.name == "local/my-model"
    before = scores(first, tasks, cache)
    model = SentenceTransformer(place, device="cpu")
    weight = next(model.parameters()).data
    weight += torch.from_numpy(np.random.default_rng(0).normal(size=weight.shape).astype(np.float32))
    model.save_pretrained(place)
    second = MinisbertEncoder(place, device="cpu")
    assert second.mteb_model_meta.revision != first.mteb_model_meta.revision
    assert MinisbertEncoder(place).mteb_model_meta.revision == second.mteb_model_meta.revision
    assert scores(second, tasks, cache) != before
    loaded = MinisbertEncoder(model, name="me/mine")
    assert loaded.mteb_model_meta.name == "me/mine"
    revision = loaded.mteb_model_meta.revision
    assert revision == second.mteb_model_meta.revision
    weight *= -1
    assert loaded.mteb_model_meta.revision != revision
    cut = MinisbertEncoder(place, device="cpu", truncate_dim=4)
    assert cut.mteb_model_meta.experiment_kwargs == {"truncate_dim": 4}
    assert scores(cut, tasks, cache) != scores(second, tasks, cache)
    kept = scores(second, tasks, cache)
    second.encode = None  # type: ignore[method-assign,assignment]  # what is in the cache is not computed again
    assert scores(second, tasks, cache) == kept


def test_what_mteb_is_told(minilm: Path) -> None:
    meta = MinisbertEncoder("all-MiniLM-L6-v2", device="cpu").mteb_model_meta
    assert meta.name == "sentence-transformers/all-MiniLM-L6-v2"
    assert (meta.embed_dim, meta.max_tokens, meta.n_parameters) == (384, 256, 22_565_376)
    assert meta.similarity_fn_name.value == "cosine"
    assert meta.use_instructions is False
    assert meta.experiment_kwargs is None


def test_precision_is_that_of_the_reference(folder: Path, model: SentenceTransformer) -> None:
    options: dict[str, Any] = {"cache": None, "show_progress_bar": False, "encode_kwargs": {"precision": "int8"}}
    both = (MinisbertEncoder(model), reference.SentenceTransformer(str(folder), device="cpu"))
    found = [mteb.evaluate(one, packaged_tasks()[:1], **options).task_results[0].get_score() for one in both]
    assert found[0] == pytest.approx(found[1], abs=2e-3)  # a value on the edge of two integers may fall on either


def test_wrong_arguments(model: SentenceTransformer) -> None:
    with pytest.raises(ConfigError, match="got name='mine'; expected two parts as on the Hub"):
        MinisbertEncoder(model, name="mine")
    with pytest.raises(ConfigError, match="expected texts by names of tasks or types of text"):
        MinisbertEncoder(model, prompts={"query": None})  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match="got revision='x' with a loaded model"):
        MinisbertEncoder(model, revision="x")
