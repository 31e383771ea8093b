"""`minisbert train --loss` and `minisbert reproduce` with every kind of loss."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minisbert import SentenceTransformer
from minisbert.cli import main
from minisbert.cli.train import _LOSSES
from minisbert.losses import loss_names

TEXTS = ["a cat sat", "the dog ran", "red sky", "blue sea", "one tree", "two trees", "slow cat", "fast dog"]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def rows(**columns: list[Any]) -> Path:
        file = tmp_path / "rows.jsonl"
        lines = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        return file

    return rows


def train(folder: Path, data: Path, loss: str, output: Path, *options: str) -> int:
    fixed = ["--epochs", "1", "--batch-size", "4", "--device", "cpu", "--output", str(output)]
    return main(["train", "--model", str(folder), "--data", str(data), "--loss", loss, *fixed, *options])


def test_every_loss_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert sorted(set(_LOSSES.values())) == sorted(loss_names())
    assert set(loss_names()) <= set(_LOSSES)
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = "".join(capsys.readouterr().out.split())
    assert all(name in text for name in loss_names())


def test_classes_by_name(
    tiny: Callable[[str], Path], write: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A classifier of the classes in the data is trained; the card's recipe trains one again."""
    data = write(premise=TEXTS, hypothesis=TEXTS[::-1], label=["no", "yes", "maybe", "no"] * 2)
    assert train(tiny("bert"), data, "SoftmaxLoss", tmp_path / "out") == 0
    error = capsys.readouterr().err
    assert "label label of 3 classes (0: maybe, 1: no, 2: yes), SoftmaxLoss" in error
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert '"num_labels": 3' in card
    again = ["--data", str(data), "--model", str(tiny("bert")), "--device", "cpu", "--output", str(tmp_path / "again")]
    assert main(["reproduce", str(tmp_path / "out" / "README.md"), *again]) == 0
    assert '"num_labels": 3' in (tmp_path / "again" / "README.md").read_text(encoding="utf-8")


def test_embeddings_of_another_size(tiny: Callable[[str], Path], write: Callable[..., Path], tmp_path: Path) -> None:
    data = write(text=TEXTS, label=[[number / 8, 1.0, 0.5] for number in range(8)])
    assert train(tiny("bert"), data, "MSELoss", tmp_path / "out", "--loss-option", "projection_dim=3") == 0
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert '"projection_dim": 3' in card
    assert "<li>size: 3 elements</li>" in card


def test_a_loss_around_another(tiny: Callable[[str], Path], write: Callable[..., Path], tmp_path: Path) -> None:
    data, folder = write(anchor=TEXTS, positive=TEXTS[::-1]), tiny("bert")
    size = SentenceTransformer(folder, device="cpu").get_sentence_embedding_dimension()
    options = ["loss=MultipleNegativesRankingLoss", f"matryoshka_dims=[{size},8]", "matryoshka_weights=[1,0.5]"]
    arguments = [part for option in options for part in ("--loss-option", option)]
    assert train(folder, data, "MatryoshkaLoss", tmp_path / "out", *arguments) == 0
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "loss:MatryoshkaLoss" in card
    assert "loss:MultipleNegativesRankingLoss" in card
    assert "kusupati2024matryoshka" in card
    assert "oord2019representationlearningcontrastivepredictive" in card


def test_papers_follow_the_directions(tiny: Callable[[str], Path], write: Callable[..., Path], tmp_path: Path) -> None:
    data = write(anchor=TEXTS, positive=TEXTS[::-1])
    options = ["--loss-option", 'directions=["query_to_doc", "doc_to_query"]']
    options += ["--loss-option", "partition_mode=per_direction"]
    assert train(tiny("bert"), data, "mnrl", tmp_path / "out", *options) == 0
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "günther2024jinaembeddings28192token" in card
    assert "oord2019" not in card
    assert "#### MultipleNegativesRankingLoss" in card


@pytest.mark.parametrize(
    ("loss", "options", "message"),
    [
        ("TripletLoss", ["--loss-option", "margin"], "got 'margin'; expected NAME=VALUE, such as scale=30"),
        (
            "TripletLoss",
            ["--loss-option", "margin=1"],
            "got margin=1 for TripletLoss; expected one of its parameters: distance_metric",
        ),
        ("TripletLoss", [], "got 2 text column(s) ['anchor', 'positive']; TripletLoss expects 3"),
        (
            "MatryoshkaLoss",
            [],
            "got no loss for MatryoshkaLoss; expected it among the parameters: add it, or --loss-option loss=",
        ),
        ("AnotherLoss", [], "invalid choice: 'AnotherLoss'"),
        ("MSELoss", ["--loss-option", "projection_dim=3"], "and no labels; MSELoss expects a number or a list"),
    ],
)
def test_refused(
    loss: str,
    options: list[str],
    message: str,
    tiny: Callable[[str], Path],
    write: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = write(anchor=TEXTS, positive=TEXTS[::-1])
    try:
        status = train(tiny("bert"), data, loss, tmp_path / "out", *options)
    except SystemExit as stop:
        status = int(stop.code or 0)
    assert status == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_guide_by_its_name(tiny: Callable[[str], Path], write: Callable[..., Path], tmp_path: Path) -> None:
    data = write(anchor=TEXTS, positive=TEXTS[::-1])
    options = ["--loss-option", f"guide={tiny('roberta')}", "--loss-option", "temperature=0.1"]
    assert train(tiny("bert"), data, "GISTEmbedLoss", tmp_path / "out", *options) == 0
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert '"temperature": 0.1' in card
    assert "solatorio2024gistembed" in card


@pytest.mark.parametrize("name", ["GISTEmbedLoss", "CachedGISTEmbedLoss"])
def test_a_card_with_a_guide_is_reproduced(
    name: str,
    tiny: Callable[[str], Path],
    write: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data, guide = write(anchor=TEXTS, positive=TEXTS[::-1]), f"guide={tiny('roberta')}"
    options = ["--loss-option", guide, "--loss-option", "temperature=0.1"]
    assert train(tiny("bert"), data, name, tmp_path / "out", *options) == 0
    again = ["reproduce", str(tmp_path / "out"), "--model", str(tiny("bert")), "--data", str(data), "--device", "cpu"]
    capsys.readouterr()
    assert main([*again, "--output", str(tmp_path / "without")]) == 2
    error = capsys.readouterr().err
    assert f"the recipe's {name} has a guide, of which it states" in error
    assert "--loss-option guide=MODEL" in error
    assert error.count("\n") == 1
    output = ["--output", str(tmp_path / "with"), "--loss-option", guide, "--loss-option", "margin=0.05"]
    assert main([*again, *output]) == 0
    card = (tmp_path / "with" / "README.md").read_text(encoding="utf-8")
    assert '"temperature": 0.1' in card
    assert '"margin": 0.05' in card


def test_a_copy_inside_another_loss(tiny: Callable[[str], Path], write: Callable[..., Path], tmp_path: Path) -> None:
    data = write(text=TEXTS)
    options = [
        "--loss-option",
        "loss=ContrastiveTensionLossInBatchNegatives",
        "--loss-option",
        "matryoshka_dims=[32,8]",
    ]
    assert train(tiny("bert"), data, "MatryoshkaLoss", tmp_path / "out", *options) == 0
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "loss:ContrastiveTensionLossInBatchNegatives" in card
