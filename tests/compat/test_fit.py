"""The old `fit` and `old_fit`: what they train, save and report."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from common import scored_pairs
from tiny_models import without_dropout
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from minisbert.compat import losses
from minisbert.compat.data import InputExample, NoDuplicatesDataLoader
from minisbert.compat.evaluation import EmbeddingSimilarityEvaluator
from minisbert.compat.model import SentenceTransformer
from minisbert.compat.samplers import BatchSamplers
from minisbert.compat.training.fit_trainer import read_loader
from minisbert.errors import ConfigError, InputError

FIRST, SECOND, SCORES = scored_pairs(18, seed=9)
GRADED = [InputExample(texts=list(row[:2]), label=row[2]) for row in zip(FIRST, SECOND, SCORES, strict=True)]
PAIRS = [InputExample(texts=list(row)) for row in zip(FIRST, SECOND, strict=True)]
QUICK: dict[str, Any] = {"warmup_steps": 1, "optimizer_params": {"lr": 1e-3}, "show_progress_bar": False}


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model without dropout."""
    return without_dropout(tmp_path_factory.mktemp("still") / "bert")


@pytest.fixture
def model(still: Path) -> SentenceTransformer:
    return SentenceTransformer(str(still), device="cpu")


@pytest.fixture(autouse=True)
def strict() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def loader(examples: Any = None, size: int = 4) -> Any:
    return DataLoader(GRADED if examples is None else examples, batch_size=size)


def evaluator() -> Any:
    return EmbeddingSimilarityEvaluator(FIRST, SECOND, SCORES, write_csv=False)


def test_last_weights_without_evaluator(model: SentenceTransformer, tmp_path: Path) -> None:
    before, batches = model.encode(FIRST), loader()
    collate = batches.collate_fn
    assert (
        model.fit([(batches, losses.CosineSimilarityLoss(model))], output_path=str(tmp_path / "out"), **QUICK) is None
    )
    assert batches.collate_fn is collate
    assert not np.allclose(before, model.encode(FIRST), atol=1e-4)
    again = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    np.testing.assert_allclose(again.encode(FIRST), model.encode(FIRST), atol=1e-6)
    assert not list((tmp_path / "out").glob("checkpoint-*"))
    given = {"checkpoint_path": str(tmp_path / "steps"), "checkpoint_save_steps": 2}
    model.fit([(batches, losses.CosineSimilarityLoss(model))], output_path=str(tmp_path / "out"), **given, **QUICK)
    assert list((tmp_path / "steps").glob("checkpoint-*"))
    assert not list(tmp_path.rglob("train_log.jsonl"))


def test_no_files_without_paths(model: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model.fit([(loader(), losses.CosineSimilarityLoss(model))], evaluator(), **QUICK)
    assert list(tmp_path.iterdir()) == []


def test_best_is_saved_and_last_is_kept(model: SentenceTransformer, tmp_path: Path) -> None:
    scores: list[tuple[float, float, int]] = []
    model.fit(
        [(loader(), losses.CosineSimilarityLoss(model))],
        evaluator(),
        3,
        evaluation_steps=2,
        output_path=str(tmp_path / "out"),
        callback=lambda *report: scores.append(report),
        **{**QUICK, "optimizer_params": {"lr": 0.03}},
    )
    steps = [step for _, _, step in scores]
    assert steps == [2, 4, 5, 6, 8, 10, 10, 12, 14, 15, 15]
    assert [epoch for _, epoch, _ in scores][-1] == 3.0
    best = max(score for score, _, _ in scores)
    saved = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    assert evaluator()(saved)["spearman_cosine"] == pytest.approx(best)
    assert evaluator()(model)["spearman_cosine"] == pytest.approx(scores[-1][0])


def test_schedule_counts_full_batches(model: SentenceTransformer, still: Path) -> None:
    model.fit([(loader(), losses.CosineSimilarityLoss(model))], epochs=1, **QUICK)
    other = SentenceTransformer(str(still), device="cpu")
    given = {**QUICK, "optimizer_params": {"lr": 1e-3, "eps": 1e-8, "betas": (0.9, 0.999)}}
    other.fit([(loader(), losses.CosineSimilarityLoss(other))], steps_per_epoch=4, **given)
    np.testing.assert_allclose(model.encode(FIRST), other.encode(FIRST), atol=1e-6)  # the fifth step is at rate 0


def test_old_fit_is_alike(model: SentenceTransformer, still: Path, tmp_path: Path) -> None:
    scores: list[float] = []
    other = SentenceTransformer(str(still), device="cpu")
    for one, fit in ((model, model.fit), (other, other.old_fit)):
        examples = GRADED[:4]  # one full batch, so that the order of rows does not matter
        fit(
            [(loader(examples), losses.CosineSimilarityLoss(one))],
            evaluator(),
            epochs=3,
            scheduler="warmupcosine",
            output_path=str(tmp_path / type(one).__name__),
            callback=lambda score, epoch, steps: scores.append(score),
            **QUICK,
        )
    np.testing.assert_allclose(model.encode(FIRST), other.encode(FIRST), atol=1e-5)
    np.testing.assert_allclose(scores[:3], scores[3:], atol=1e-6)


def test_old_fit_counts_epochs_of_its_own(model: SentenceTransformer, tmp_path: Path) -> None:
    model.old_fit(
        [
            (loader(), losses.CosineSimilarityLoss(model)),
            (loader(PAIRS, 9), losses.MultipleNegativesRankingLoss(model)),
        ],
        epochs=2,
        steps_per_epoch=3,
        evaluation_steps=2,
        output_path=str(tmp_path / "out"),
        checkpoint_path=str(tmp_path / "steps"),
        checkpoint_save_steps=2,
        checkpoint_save_total_limit=2,
        **QUICK,
    )
    assert sorted(folder.name for folder in (tmp_path / "steps").iterdir()) == ["4", "6"]
    assert (tmp_path / "out" / "modules.json").is_file()
    with pytest.raises(ConfigError, match="'linear'"):
        model.old_fit([(loader(), losses.CosineSimilarityLoss(model))], scheduler="linear")
    with pytest.raises(ConfigError, match="'linear'"):
        model._get_scheduler(torch.optim.SGD(model.parameters(), lr=1.0), "linear", 1, 2)


def test_resume(model: SentenceTransformer, still: Path, tmp_path: Path) -> None:
    given = {**QUICK, "checkpoint_path": str(tmp_path), "checkpoint_save_steps": 3, "checkpoint_save_total_limit": 1}
    with pytest.warns(UserWarning, match="starting anew"):
        model.fit([(loader(), losses.CosineSimilarityLoss(model))], resume_from_checkpoint=True, **given)
    assert [folder.name for folder in tmp_path.glob("checkpoint-*")] == ["checkpoint-5"]
    again = SentenceTransformer(str(still), device="cpu")
    again.fit([(loader(), losses.CosineSimilarityLoss(again))], resume_from_checkpoint=True, **given)
    np.testing.assert_allclose(again.encode(FIRST), model.encode(FIRST), atol=1e-6)


def test_several_batch_sizes(model: SentenceTransformer) -> None:
    ranking = losses.MultipleNegativesRankingLoss(model)
    with pytest.warns(UserWarning, match=r"batch sizes \[4, 6\]: all data sets are trained with 6"):
        model.fit([(loader(), losses.CosineSimilarityLoss(model)), (loader(PAIRS, 6), ranking)], **QUICK)


def test_steps_of_several_epochs_are_ignored(model: SentenceTransformer) -> None:
    with pytest.warns(UserWarning, match="an epoch has all batches"):
        model.fit([(loader(PAIRS, 9), losses.MultipleNegativesRankingLoss(model))], None, 2, 1, **QUICK)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_optimizers(model: SentenceTransformer, kind: type[torch.optim.Optimizer]) -> None:
    before = model.encode(FIRST)
    given = {**QUICK, "optimizer_params": {"lr": 0.01}}
    model.fit([(loader(), losses.CosineSimilarityLoss(model))], optimizer_class=kind, scheduler="ConstantLR", **given)
    assert not np.allclose(before, model.encode(FIRST), atol=1e-4)


def testread_loader() -> None:
    torch.manual_seed(0)
    shuffled = read_loader(DataLoader(GRADED, shuffle=True, batch_size=4))  # type: ignore[arg-type]
    assert list(shuffled.columns) == ["sentence_0", "sentence_1", "label"]
    assert shuffled.columns["sentence_0"] != FIRST
    assert sorted(shuffled.columns["sentence_0"]) == sorted(FIRST)
    assert list(read_loader(loader(PAIRS)).columns) == [
        "sentence_0",
        "sentence_1",
    ]  # labels that are all 0 count as none
    assert read_loader(NoDuplicatesDataLoader(PAIRS, 4)).batch_sampler is BatchSamplers.NO_DUPLICATES
    own = DataLoader(GRADED, batch_sampler=BatchSampler(SequentialSampler(GRADED), 3, False))  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="batch_sampler, whose batches are not kept"):
        read = read_loader(own)
    assert read.batch_size == 3
    with pytest.raises(InputError, match="got str from a data loader"):
        read_loader(DataLoader(FIRST))  # type: ignore[arg-type]


def test_collate(model: SentenceTransformer) -> None:
    columns, labels = model.smart_batching_collate(GRADED[:3])
    assert [len(column["input_ids"]) for column in columns] == [3, 3]
    assert labels.tolist() == pytest.approx(SCORES[:3])
    vectors = [InputExample(texts=["a"], label=np.ones(4, np.float32))]  # type: ignore[arg-type]
    assert model.smart_batching_collate(vectors)[1].shape == (1, 4)


@pytest.mark.parametrize(
    ("objectives", "options", "message"),
    [
        ([], {}, "no train objectives"),
        ([None], {}, "NoneType as an objective"),
        ([(None, None)], {"scheduler": "linear"}, "scheduler 'linear'"),
    ],
)
def test_refused(model: SentenceTransformer, objectives: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        model.fit(objectives, **options)
