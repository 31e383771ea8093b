"""Train with each loss, from rows to weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import WORDS

from minisbert import InputExample, SentenceTransformer, Trainer, TrainingConfig, losses
from minisbert.errors import InputError

ROWS, STEPS = 12, 12


def texts(count: int, columns: int) -> list[list[str]]:
    draw = np.random.default_rng(3)
    return [[" ".join(draw.choice(WORDS, draw.integers(1, 9))) for _ in range(columns)] for _ in range(count)]


def rows_of(columns: int, label: Callable[[int], Any] | None) -> list[Any]:
    rows = texts(ROWS, columns)
    return [tuple(row) if label is None else (*row, label(number)) for number, row in enumerate(rows)]


def vector(*shape: int) -> Callable[[int], Any]:
    return lambda number: np.random.default_rng(number).normal(size=shape).round(3).tolist()


Make = Callable[[SentenceTransformer], losses.Loss]
RUNS: dict[str, tuple[Make, int, Callable[[int], Any] | None]] = {
    "CoSENTLoss": (losses.CoSENTLoss, 2, lambda number: number / ROWS),
    "AnglELoss": (losses.AnglELoss, 2, lambda number: number / ROWS),
    "AnglELoss of triples": (losses.AnglELoss, 3, None),
    "MultipleNegativesRankingLoss": (
        lambda model: losses.MultipleNegativesRankingLoss(
            model,
            directions=("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"),
            hardness_mode="all_negatives",
            hardness_strength=2.0,
        ),
        3,
        None,
    ),
    "MultipleNegativesSymmetricRankingLoss": (losses.MultipleNegativesSymmetricRankingLoss, 2, None),
    "MegaBatchMarginLoss": (losses.MegaBatchMarginLoss, 2, None),
    "TripletLoss": (losses.TripletLoss, 3, None),
    "ContrastiveLoss": (losses.ContrastiveLoss, 2, lambda number: number % 2),
    "OnlineContrastiveLoss": (losses.OnlineContrastiveLoss, 2, lambda number: number % 2),
    "MSELoss": (losses.MSELoss, 1, vector(32)),
    "MSELoss of each column": (losses.MSELoss, 2, vector(2, 32)),
    "MSELoss of another size": (lambda model: losses.MSELoss(model, projection_dim=5), 2, vector(5)),
    "EmbedDistillLoss": (losses.EmbedDistillLoss, 2, vector(32)),
    "MarginMSELoss": (losses.MarginMSELoss, 3, lambda number: number / 4),
    "MarginMSELoss of scores": (losses.MarginMSELoss, 4, vector(3)),
    "DistillKLDivLoss": (losses.DistillKLDivLoss, 4, vector(3)),
    "BatchAllTripletLoss": (losses.BatchAllTripletLoss, 1, lambda number: number % 3),
    "BatchHardTripletLoss": (losses.BatchHardTripletLoss, 1, lambda number: ["red", "green"][number % 2]),
    "BatchHardSoftMarginTripletLoss": (losses.BatchHardSoftMarginTripletLoss, 1, lambda number: number % 3),
    "BatchSemiHardTripletLoss": (losses.BatchSemiHardTripletLoss, 1, lambda number: number % 3),
    "SoftmaxLoss": (
        lambda model: losses.SoftmaxLoss(model, model.get_sentence_embedding_dimension(), 3),
        2,
        lambda number: ["entailment", "neutral", "contradiction"][number % 3],
    ),
    "ContrastiveTensionLossInBatchNegatives": (losses.ContrastiveTensionLossInBatchNegatives, 1, None),
    "ContrastiveTensionLoss": (losses.ContrastiveTensionLoss, 2, lambda number: number % 2),
    "ContrastiveTensionLoss without labels": (losses.ContrastiveTensionLoss, 2, None),
    "DenoisingAutoEncoderLoss": (losses.DenoisingAutoEncoderLoss, 2, None),
    "AdaptiveLayerLoss": (
        lambda model: losses.AdaptiveLayerLoss(model, losses.CoSENTLoss(model)),
        2,
        lambda number: number / ROWS,
    ),
    "Matryoshka2dLoss": (
        lambda model: losses.Matryoshka2dLoss(model, losses.MultipleNegativesRankingLoss(model), [32, 8]),
        3,
        None,
    ),
    "GISTEmbedLoss": (lambda model: losses.GISTEmbedLoss(model, model, temperature=0.1), 3, None),
    "CachedMultipleNegativesRankingLoss": (
        lambda model: losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=5),
        3,
        None,
    ),
    "CachedMultipleNegativesSymmetricRankingLoss": (
        lambda model: losses.CachedMultipleNegativesSymmetricRankingLoss(model, mini_batch_num_tokens=20),
        2,
        None,
    ),
    "CachedGISTEmbedLoss": (
        lambda model: losses.CachedGISTEmbedLoss(model, model, temperature=0.1, mini_batch_size=7),
        2,
        None,
    ),
    "GlobalOrthogonalRegularizationLoss": (losses.GlobalOrthogonalRegularizationLoss, 1, None),
    "MatryoshkaLoss": (
        lambda model: losses.MatryoshkaLoss(model, losses.MultipleNegativesRankingLoss(model), [32, 8]),
        2,
        None,
    ),
}


def load(folder: Path) -> SentenceTransformer:
    return SentenceTransformer(folder, device="cpu")


@pytest.mark.parametrize("name", RUNS)
def test_the_loss_falls(name: str, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    make, columns, label = RUNS[name]
    model = load(tiny("bert"))
    torch.manual_seed(0)
    loss = make(model)
    config = TrainingConfig(epochs=STEPS, batch_size=ROWS, learning_rate=5e-3, log_every=1, save_every=6)
    before = [parameter.detach().clone() for parameter in loss.parameters()]
    history = Trainer(
        model, rows_of(columns, label), loss=loss, config=config, output_dir=tmp_path, show_progress_bar=False
    ).train()
    values = [entry["loss"] for entry in history.entries if "loss" in entry]
    assert len(values) == STEPS
    assert values[-1] < values[0]
    assert all(not torch.equal(a, b) for a, b in zip(before, loss.parameters(), strict=True))  # trained with the model
    model.save_pretrained(tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert f"losses.html#{name.split()[0].lower()}" in card


def test_a_classifier_is_resumed(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    """The layers of a loss are in the checkpoint: a run that is resumed ends with the same ones."""
    make, columns, label = RUNS["SoftmaxLoss"]
    config = TrainingConfig(epochs=4, batch_size=6, learning_rate=1e-3, save_every=4)

    def run(output: Path, *, resume: bool) -> tuple[torch.Tensor, torch.Tensor]:
        model = load(tiny("bert"))
        torch.manual_seed(0)
        loss = make(model)
        data = rows_of(columns, label)
        Trainer(model, data, loss=loss, config=config, output_dir=output, show_progress_bar=False).train(resume=resume)
        assert isinstance(loss, losses.SoftmaxLoss)
        return loss.classifier.weight.detach(), next(model.parameters()).detach()

    whole = run(tmp_path / "whole", resume=False)
    (tmp_path / "part").mkdir()
    (tmp_path / "whole" / "checkpoint-4").rename(tmp_path / "part" / "checkpoint-4")
    resumed = run(tmp_path / "part", resume=True)
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))


def test_a_card_shows_lists(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    model = load(tiny("bert"))
    data = {"text": [row[0] for row in texts(ROWS, 1)], "label": [vector(32)(number) for number in range(ROWS)]}
    config = TrainingConfig(epochs=1, batch_size=6)
    Trainer(model, data, loss=losses.MSELoss(model), config=config, show_progress_bar=False).train()
    model.save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "<li>size: 32 elements</li>" in card
    assert str(data["label"][0])[:40] in card


def test_fit_takes_lists(tiny: Callable[[str], Path]) -> None:
    model = load(tiny("bert"))
    examples = [InputExample(texts=row, label=vector(32)(number)) for number, row in enumerate(texts(ROWS, 1))]
    model.fit(train_objectives=[(examples, losses.MSELoss(model))], epochs=1, warmup_steps=0, show_progress_bar=False)
    assert model.training_record is not None
    assert model.training_record.datasets[0].loss == "MSELoss"


@pytest.mark.parametrize(
    ("make", "rows", "message"),
    [
        (losses.CosineSimilarityLoss, [("a", "b", [0.5, 1.0])], "labels of 2 numbers each"),
        (losses.MSELoss, [("a", 1.0)], "labels of one number"),
        (losses.MSELoss, [("a", "b")], "no labels"),
        (losses.BatchAllTripletLoss, [("a", 0.5)], "row 0 has the label 0.5"),
        (losses.TripletLoss, [("a", "b")], "TripletLoss expects 3"),
    ],
)
def test_rows_that_do_not_fit(
    make: Callable[[], losses.Loss], rows: list[Any], message: str, tiny: Callable[[str], Path]
) -> None:
    with pytest.raises(InputError) as caught:
        Trainer(load(tiny("bert")), rows * 2, loss=make(), show_progress_bar=False)
    assert message in str(caught.value)


def test_fit_takes_classes(tiny: Callable[[str], Path]) -> None:
    model = load(tiny("bert"))
    examples = [InputExample(texts=row, label=["a", "b"][number % 2]) for number, row in enumerate(texts(ROWS, 1))]
    loss = losses.BatchAllTripletLoss(model)
    model.fit(train_objectives=[(examples, loss)], epochs=1, warmup_steps=0, show_progress_bar=False)
    assert model.training_record is not None
    assert model.training_record.datasets[0].loss == "BatchAllTripletLoss"


def test_a_guide_reads_its_own_tokens_and_is_not_changed(tiny: Callable[[str], Path]) -> None:
    """The guide embeds the texts of each batch as its `encode` does, although its tokenizer is another one."""
    model, guide = load(tiny("bert")), load(tiny("roberta"))
    seen: list[tuple[list[torch.Tensor], list[torch.Tensor]]] = []

    class Watched(losses.GISTEmbedLoss):
        def forward(self, embeddings: Any, labels: Any = None, guided: Any = ()) -> torch.Tensor:
            seen.append((list(embeddings), list(guided)))
            return super().forward(embeddings, labels, guided)

    weights = [parameter.detach().clone() for parameter in guide.parameters()]
    rows, config = rows_of(2, None), TrainingConfig(epochs=1, batch_size=ROWS, weight_decay=0.1)
    Trainer(model, rows, loss=Watched(model, guide, temperature=0.1), config=config, show_progress_bar=False).train()
    (_, guided), *_ = seen
    assert not any(part.requires_grad for part in guided)
    for column, part in enumerate(guided):
        expected = torch.from_numpy(guide.encode([row[column] for row in rows]))
        distances = torch.cdist(part, expected).min(dim=1).values  # rows are shuffled
        assert distances.max() < 1e-4
    assert all(torch.equal(a, b) for a, b in zip(weights, guide.parameters(), strict=True))


def test_gradients_of_a_loss_that_overflow_change_nothing(tiny: Callable[[str], Path]) -> None:
    """In fp16 a decoder's gradients are scaled too, and may overflow where those of the model do not."""
    model = load(tiny("bert"))
    torch.manual_seed(1)
    loss = losses.DenoisingAutoEncoderLoss(model)
    config = TrainingConfig(max_steps=8, batch_size=4, precision="fp16", log_every=1)
    rows = rows_of(2, None)
    history = Trainer(model, rows, loss=loss, config=config, show_progress_bar=False).train()
    assert all(parameter.isfinite().all() for parameter in loss.parameters())
    assert history.skipped_steps < 8


def test_terms_of_a_loss_are_logged(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    """Each is a mean over the batches since the last entry; a resumed run has the same ones, and the card none."""
    rows = [tuple(row) for row in texts(ROWS, 2)]
    config = TrainingConfig(epochs=2, batch_size=4, eval_batch_size=6, log_every=4, save_every=2, eval_every=4)

    def run(output: Path, *, resume: bool) -> list[dict[str, float]]:
        model = load(tiny("bert"))
        loss = losses.GlobalOrthogonalRegularizationLoss(model)
        trainer = Trainer(
            model, rows, loss=loss, config=config, eval_data=rows, output_dir=output, show_progress_bar=False
        )
        entries = trainer.train(resume=resume).entries
        model.save_pretrained(output / "final")
        assert "gor" not in (output / "final" / "README.md").read_text(encoding="utf-8").partition("## Citation")[0]
        return entries

    entries = run(tmp_path / "whole", resume=False)
    assert [entry["step"] for entry in entries] == [4, 4, 6, 6]
    for entry in entries:
        start = "" if "loss" in entry else "eval_"
        terms = [entry[f"{start}gor_mean"], entry[f"{start}gor_second_moment"]]
        assert sum(terms) == pytest.approx(entry[f"{start}loss"], rel=1e-5)
    (tmp_path / "part").mkdir()
    (tmp_path / "whole" / "checkpoint-2").rename(tmp_path / "part" / "checkpoint-2")
    resumed = run(tmp_path / "part", resume=True)
    assert [named(entry) for entry in resumed] == [named(entry) for entry in entries]


def named(entry: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in entry.items() if "gor" in name}
