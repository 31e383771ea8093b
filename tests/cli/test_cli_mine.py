"""`minisbert mine`: rows that `minisbert train` takes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from minisbert import SentenceTransformer
from minisbert.cli import main
from minisbert.mining import mine_hard_negatives

ANCHORS = ["the cat sat", "a red sky", "the sea", "one tree", "two dogs ran"]
POSITIVES = ["a cat on the mat", "the sky is red", "blue sea", "a tree", "dogs ran fast"]
CORPUS = ["a slow dog", "three trees", "the mat", "sky and sea"]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    file = tmp_path / "pairs.tsv"
    rows = zip(ANCHORS, POSITIVES, strict=True)
    lines = [f"{number}\t{anchor}\t{positive}\n" for number, (anchor, positive) in enumerate(rows)]
    file.write_text("".join(["id\tanchor\tpositive\n", *lines]))
    return file


def test_triplets_are_trained_on(model: str, pairs: Path, tmp_path: Path) -> None:
    corpus, vectors, out = tmp_path / "corpus.txt", tmp_path / "corpus.npy", tmp_path / "triplets.jsonl"
    corpus.write_text("\n".join(CORPUS) + "\n")
    encoder = SentenceTransformer(model, device="cpu")
    np.save(vectors, encoder.encode_document(CORPUS, normalize_embeddings=True))
    command = ["mine", model, str(pairs), "--device", "cpu", "--columns", "anchor,positive", "--corpus", str(corpus)]
    command += ["--corpus-embeddings", str(vectors), "--num-negatives", "2", "--range-min", "1", "--output", str(out)]
    assert main(command) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    expected = mine_hard_negatives(
        {"anchor": ANCHORS, "positive": POSITIVES}, encoder, corpus=CORPUS, num_negatives=2, range_min=1, verbose=False
    )
    assert {name: [row[name] for row in rows] for name in expected} == expected
    assert len(rows) == 10
    trained = ["--output", str(tmp_path / "trained"), "--epochs", "1", "--loss", "mnrl", "--device", "cpu"]
    assert main(["train", "--model", model, "--data", str(out), *trained]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output", "triplets.tsv"], "expected the name of a .jsonl file"),
        (["--output", "out.jsonl", "--columns", "anchor"], "expected the names of the anchor and the positive"),
        (["--output", "out.jsonl", "--columns", "anchor,other"], "other"),
        (
            ["--output", "out.jsonl", "--columns", "anchor,positive", "--min-score", "2"],
            "found too few negatives for any row",
        ),
        (["--output", "folder.jsonl"], "folder.jsonl is a folder; expected the name of a file to write"),
    ],
)
def test_wrong_use(
    options: list[str],
    message: str,
    model: str,
    pairs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.jsonl").mkdir()
    assert main(["mine", model, str(pairs), "--device", "cpu", *options]) == 2
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.jsonl", "pairs.tsv"]
