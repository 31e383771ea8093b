"""Evaluators of students, translations, classes and NanoBEIR against their definitions, and what they refuse."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixed_model import FixedModel, PlacedModel
from nano import nano_beir

from minisbert import InputExample, SentenceTransformer, evaluation, losses
from minisbert.errors import ConfigError, InputError, InputTypeError

TEXTS = ["one", "two", "three", "four"]
STUDENT: Any = FixedModel(4, whole=True)
PLACES = {"a": [1.0, 0.0], "b": [0.0, 1.0], "A": [0.9, 0.1], "B": [0.8, 0.2]}


def test_mse() -> None:
    teacher = FixedModel(4)
    evaluator = evaluation.MSEEvaluator(TEXTS, TEXTS[::-1], teacher, name="dev")
    got = evaluator(STUDENT)
    pairs = zip(teacher.encode(TEXTS), STUDENT.encode(TEXTS[::-1]), strict=True)
    expected = -100 * np.mean([(one - other) ** 2 for one, other in pairs])
    assert got == {"dev_negative_mse": pytest.approx(expected, rel=1e-6)}
    assert evaluator.primary_metric == "dev_negative_mse"


def test_mse_of_a_frame() -> None:
    pandas = pytest.importorskip("pandas")
    rows = [{"en": "one", "de": "two"}, {"en": "three", "de": ""}, {"en": "four", "de": "one"}]
    teacher = FixedModel(4)
    plain = evaluation.MSEEvaluator(["one", "four"], ["two", "one"], teacher)(STUDENT)["negative_mse"]
    for frame in (rows, pandas.DataFrame(rows)):
        evaluator = evaluation.MSEEvaluatorFromDataFrame(frame, teacher, [("en", "de")])
        assert evaluator(STUDENT) == {"negative_mse": pytest.approx(plain, rel=1e-6)}


def test_translations(caplog: pytest.LogCaptureFixture) -> None:
    """The best target of "a" is its own, that of "b" is another one; from the targets all are nearest to "a"."""
    model: Any = PlacedModel(PLACES)
    evaluator = evaluation.TranslationEvaluator(["a", "b"], ["A", "B"], print_wrong_matches=True)
    with caplog.at_level(logging.INFO):
        got = evaluator(model)
    assert got == {"src2trg_accuracy": 1.0, "trg2src_accuracy": 0.5, "mean_accuracy": 0.75}
    with caplog.at_level(logging.INFO):
        swapped = evaluation.TranslationEvaluator(["b", "a"], ["A", "B"], print_wrong_matches=True)(model)
    assert swapped == {"src2trg_accuracy": 0.0, "trg2src_accuracy": 0.5, "mean_accuracy": 0.25}
    assert "source 0 'b': found target 1 'B'" in caplog.text
    equal = evaluation.TranslationEvaluator(["a", "a"], ["A", "A"])(model)  # the text counts, not its place
    assert equal["mean_accuracy"] == 1.0


def test_classes(tiny: Callable[[str], Path]) -> None:
    model = SentenceTransformer(tiny("bert"), device="cpu")
    loss = losses.SoftmaxLoss(model, 32, 3)
    rows = [InputExample(texts=[first, second], label=number) for number, (first, second) in enumerate(pairwise(TEXTS))]
    loader = torch.utils.data.DataLoader(rows, batch_size=2)  # type: ignore[arg-type]
    for data in (rows, loader):
        evaluator = evaluation.LabelAccuracyEvaluator(data, name="dev", softmax_model=loss)
        with torch.no_grad():
            columns = [model.encode(list(texts), convert_to_tensor=True) for texts in (TEXTS[:3], TEXTS[1:])]
            expected = (loss.scores(columns).argmax(1) == torch.arange(3)).double().mean()
        assert evaluator(model) == {"dev_accuracy": float(expected)}


def test_nano_beir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = nano_beir(tmp_path / "data")
    evaluator = evaluation.NanoBEIREvaluator(["NQ", "scifact"], str(folder), write_csv=False)
    got = evaluator(FixedModel())  # type: ignore[arg-type]
    assert evaluator.primary_metric == "NanoBEIR_mean_cosine_ndcg@10"
    each = [got[f"{name}_cosine_ndcg@10"] for name in ("NanoNQ", "NanoSciFact")]
    assert got["NanoBEIR_mean_cosine_ndcg@10"] == pytest.approx(np.mean(each))
    assert set(evaluator.metric_names) == set(got)
    with pytest.raises(InputError, match="cannot load NanoMSMARCO .* expected a README.md there that names the files"):
        evaluation.NanoBEIREvaluator(["msmarco"], str(folder))
    with pytest.raises(InputError, match="expected a folder or the name of a data set on the Hub.*: check the name"):
        evaluation.NanoBEIREvaluator(["msmarco"], str(tmp_path / "none"))


@pytest.mark.parametrize("error", [ConnectionError("Couldn't reach the Hub"), RuntimeError("anything")], ids=repr)
def test_nano_beir_that_cannot_be_loaded(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*arguments: Any, **options: Any) -> Any:
        raise error

    monkeypatch.setattr(pytest.importorskip("datasets"), "load_dataset", load_dataset)
    advice = "a connection to the Hub, or a copy" if isinstance(error, ConnectionError) else "check the name"
    with pytest.raises(InputError, match=f"cannot load NanoMSMARCO .*{error}.*{advice}"):
        evaluation.NanoBEIREvaluator(["msmarco"])


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: evaluation.MSEEvaluator(["a"], ["a", "b"], STUDENT), InputError, "the same number"),
        (lambda: evaluation.MSEEvaluator(["a"], ["a"]), InputTypeError, "expected a model"),
        (lambda: evaluation.MSEEvaluator(["a"], ["a"], FixedModel(3))(STUDENT), InputError, "expected equal sizes"),
        (lambda: evaluation.MSEEvaluatorFromDataFrame([], STUDENT, []), InputError, "no combinations"),
        (
            lambda: evaluation.MSEEvaluatorFromDataFrame([{"a": "x"}], STUDENT, [("a", "b")]),
            InputError,
            "no column 'b'",
        ),
        (
            lambda: evaluation.MSEEvaluatorFromDataFrame([{"a": "x", "b": 3}], STUDENT, [("a", "b")]),
            InputTypeError,
            "expected a text",
        ),
        (
            lambda: evaluation.MSEEvaluatorFromDataFrame([{"a": "x", "b": ""}], STUDENT, [("a", "b")]),
            InputError,
            "no row with texts",
        ),
        (lambda: evaluation.TranslationEvaluator([], []), InputError, "at least one"),
        (lambda: evaluation.LabelAccuracyEvaluator([("a", "b", 1)]), ConfigError, "expected the SoftmaxLoss"),
        (
            lambda: evaluation.LabelAccuracyEvaluator(
                [("a", "b", 3)] * 2, softmax_model=losses.SoftmaxLoss(None, 4, 3)
            ),
            InputError,
            "expects 0 to 2",
        ),
        (
            lambda: evaluation.LabelAccuracyEvaluator(
                [("a", "b", "yes"), ("a", "b", "no")], softmax_model=losses.SoftmaxLoss(None, 4, 3)
            ),
            InputError,
            "2 names of classes",
        ),
        (lambda: evaluation.NanoBEIREvaluator(["nowhere"]), ConfigError, "got the data set 'nowhere'"),
        (lambda: evaluation.NanoBEIREvaluator("nq"), ConfigError, "put it in a list"),
        (lambda: evaluation.NanoBEIREvaluator([]), ConfigError, "at least one"),
        (lambda: evaluation.NanoBEIREvaluator(["nq"], query_prompts={"fever": ""}), ConfigError, "without 'nq'"),
    ],
)
def test_what_is_refused(make: Callable[[], Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        make()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
