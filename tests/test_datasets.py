"""Data sets and readers of examples: their own rules, and the reference's draws and rows."""

from __future__ import annotations

import gzip
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import WORDS
from torch.utils.data import DataLoader

from minisbert import InputExample, SentenceTransformer, Trainer, datasets, losses, readers
from minisbert.errors import ConfigError, InputError, InputTypeError

TEXTS = [f"{WORDS[number % len(WORDS)]} {number}" for number in range(60)]


class Teacher:
    """Embeds a text as its length."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def encode(self, texts: list[str], **options: Any) -> np.ndarray:
        self.calls += texts
        return np.array([[len(text)] for text in texts], np.float32)


def examples(count: int = 40, *, labels: int = 5) -> list[InputExample]:
    return [InputExample(texts=[TEXTS[number]], label=number % labels) for number in range(count)]


def pairs() -> list[InputExample]:
    draw = np.random.default_rng(0)
    return [InputExample(texts=draw.choice(TEXTS[:30], 2).tolist(), label=1) for _ in range(40)]


def plain(batches: Any) -> list[list[tuple[tuple[str, ...], Any]]]:
    return [[(tuple(example.texts), example.label) for example in batch] for batch in batches]


def seeded(make: Callable[[], Any]) -> Any:
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002  # of the reference's draws
    return make()


# ---- rules ----------------------------------------------------------------------------------------------------------


def test_no_text_twice() -> None:
    loader = datasets.NoDuplicatesDataLoader(pairs(), 4)
    batches = list(loader)
    assert len(batches) == len(loader) == 10
    for batch in batches:
        texts = [text for example in batch for text in set(example.texts)]
        assert len(batch) == 4
        assert len(set(texts)) == len(texts)
    loader.collate_fn = len
    assert set(loader) == {4}
    with pytest.raises(InputError, match="smaller batch_size"):
        list(datasets.NoDuplicatesDataLoader([InputExample(texts=["a", "b"])] * 3, 2))


def test_one_positive_in_each_group() -> None:
    loader = losses.ContrastiveTensionDataLoader(TEXTS, 8, 4)
    batches = list(loader)
    assert len(batches) == len(loader) == 4
    for batch in batches:
        assert [example.label for example in batch] == [1, 0, 0, 0] * 2
        assert all((len(set(example.texts)) == 1) == bool(example.label) for example in batch)
    used = Counter(text for batch in batches for example in batch for text in set(example.texts))
    assert set(used.values()) == {1}


def test_neighbours_of_one_label() -> None:
    few = InputExample(texts=["alone"], label=9)
    for with_replacement in (False, True):
        data = datasets.SentenceLabelDataset([*examples(), few], 4, with_replacement)
        found = list(data)
        assert len(found) == len(data) == 40
        for start in range(0, 40, 4):
            assert len({example.label for example in found[start : start + 4]}) == 1
            assert len({example.texts[0] for example in found[start : start + 4]}) == 4


def test_a_teacher_embeds_each_source_once(tmp_path: Path) -> None:
    teacher = Teacher()
    data = datasets.ParallelSentencesDataset(None, teacher)
    with pytest.raises(InputError, match="call load_data"):
        data[0]
    data.add_dataset([["one", "eins"], ["one", "uno"], ["three", "drei", "x" * 200]], weight=2)
    (tmp_path / "more.tsv.gz").write_bytes(gzip.compress(b"two\tzwei\nfour\tvier\n"))
    data.load_data(tmp_path / "more.tsv.gz", weight=1, max_sentences=1)
    assert len(data) == 5
    found = [data[number] for number in range(12)]
    assert all(example.label == len({"zwei": "two"}.get(example.texts[0], "one")) for example in found)
    assert {example.texts[0] for example in found} == {"one", "eins", "uno", "two", "zwei"}
    assert sorted(teacher.calls) == ["one", "two"]


def test_damaged_texts() -> None:
    data = datasets.DenoisingAutoEncoderDataset(TEXTS, lambda text: text.split()[0])
    assert len(data) == len(TEXTS)
    assert data[3].texts == [TEXTS[3].split()[0], TEXTS[3]]


def test_examples_as_they_are() -> None:
    data = datasets.SentencesDataset(examples(), None)
    assert (len(data), data[4]) == (40, examples()[4])


def test_fit_makes_the_batches_of_the_loader(tiny: Callable[[str], Path]) -> None:
    for loader, loss, sampler in (
        (datasets.NoDuplicatesDataLoader(pairs(), 4), losses.MultipleNegativesRankingLoss(), "no_duplicates"),
        (
            DataLoader(datasets.SentenceLabelDataset(examples()), batch_size=4),
            losses.BatchAllTripletLoss(),
            "group_by_label",
        ),
        (losses.ContrastiveTensionDataLoader(TEXTS, 4, 4), None, "batch_sampler"),
    ):
        model = SentenceTransformer(tiny("bert"), device="cpu")
        loss = loss or losses.ContrastiveTensionLoss(model)
        model.fit(train_objectives=[(loader, loss)], epochs=1, warmup_steps=0, show_progress_bar=False)
        assert model.training_record is not None
        assert model.training_record.settings["batch_sampler"] == sampler
        assert model.training_record.settings["batch_size"] == 4


@pytest.mark.parametrize("kind", [losses.ContrastiveTensionDataLoader, datasets.NoDuplicatesDataLoader])
@pytest.mark.parametrize("by_name", [False, True])
def test_a_trainer_takes_rows_and_not_batches(kind: Any, by_name: bool, tiny: Callable[[str], Path]) -> None:
    model = SentenceTransformer(tiny("bert"), device="cpu")
    loader = kind(TEXTS if kind is losses.ContrastiveTensionDataLoader else pairs(), 8)
    message = rf"got a {kind.__name__}, which gives batches; expected rows: pass \[row for .*\], or call model.fit"
    with pytest.raises(InputTypeError, match=message):
        Trainer(model, {"a": loader, "b": pairs()} if by_name else loader, loss=losses.ContrastiveTensionLoss(model))
    rows = [row for batch in loader for row in batch]
    Trainer(model, rows, loss=losses.ContrastiveTensionLoss(model))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: datasets.NoDuplicatesDataLoader([], 0), "batch_size=0"),
        (lambda: losses.ContrastiveTensionDataLoader(TEXTS, 6, 4), "multiple of pos_neg_ratio"),
        (lambda: losses.ContrastiveTensionDataLoader(TEXTS, 6, 0), "pos_neg_ratio=0"),
        (lambda: readers.STSDataReader("x", min_score=5), "the smaller first"),
        (lambda: readers.STSDataReader("x", s1_col_idx=-1), "got s1_col_idx=-1; expected a whole number of at least 0"),
        (lambda: readers.LabelSentenceReader("x", separator=""), "expected a text"),
        (lambda: readers.PairedFilesReader("x"), "expected several files"),
        (lambda: datasets.SentenceLabelDataset(examples(), 0), "got samples_per_label=0"),
    ],
)
def test_what_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert message in str(caught.value)


# ---- readers --------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of every kind that the readers read."""
    (tmp_path / "labels.tsv").write_text("sport\ta ball\nfood\ta cake\nsport\ta goal\n", encoding="utf-8")
    (tmp_path / "sts.tsv").write_text('a dog\ta "cat"\t2.5\nsun\tmoon\t5\n', encoding="utf-8")
    (tmp_path / "sts.tsv.gz").write_bytes(gzip.compress((tmp_path / "sts.tsv").read_bytes()))
    (tmp_path / "stsb.csv").write_text("x\tx\tx\tx\t1.0\tone\ttwo\n", encoding="utf-8")
    (tmp_path / "triples.tsv").write_text("a\tb\tc\nd\te\tf\n", encoding="utf-8")
    for part, lines in (("s1", "one\ntwo\n"), ("s2", "eins\nzwei\n"), ("labels", "neutral\nEntailment\n")):
        (tmp_path / f"{part}.train.gz").write_bytes(gzip.compress(lines.encode()))
    return tmp_path


READS: dict[str, tuple[Callable[[Any, Path], Any], list[tuple[list[str], Any]]]] = {
    "labels": (
        lambda library, folder: library.LabelSentenceReader(folder).get_examples("labels.tsv"),
        [(["a ball"], 0), (["a cake"], 1), (["a goal"], 0)],
    ),
    "sts": (
        lambda library, folder: library.STSDataReader(folder).get_examples("sts.tsv"),
        [(["a dog", 'a "cat"'], 0.5), (["sun", "moon"], 1.0)],
    ),
    "packed": (
        lambda library, folder: library.STSDataReader(folder, normalize_scores=False).get_examples("sts.tsv.gz", 1),
        [(["a dog", 'a "cat"'], 2.5)],
    ),
    "benchmark": (
        lambda library, folder: library.STSBenchmarkDataReader(folder).get_examples("stsb.csv"),
        [(["one", "two"], 0.2)],
    ),
    "triples": (
        lambda library, folder: library.TripletReader(folder, has_header=True).get_examples("triples.tsv"),
        [(["d", "e", "f"], None)],
    ),
    "nli": (
        lambda library, folder: library.NLIDataReader(folder).get_examples("train.gz"),
        [(["one", "eins"], 2), (["two", "zwei"], 1)],
    ),
    "files": (
        lambda library, folder: library.PairedFilesReader(
            [str(folder / "labels.tsv"), str(folder / "s1.train.gz")]
        ).get_examples(1),
        [(["sport\ta ball", "one"], 1)],
    ),
}


@pytest.mark.parametrize("name", READS)
def test_readers(name: str, folder: Path) -> None:
    read, expected = READS[name]
    assert [(list(example.texts), example.label) for example in read(readers, folder)] == expected


def test_a_line_that_does_not_fit(folder: Path) -> None:
    for make, message in (
        (lambda: readers.STSDataReader(folder, score_col_idx=7).get_examples("sts.tsv"), "line 1: got 3 columns"),
        (lambda: readers.STSDataReader(folder, score_col_idx=0).get_examples("sts.tsv"), "'a dog' as score"),
        (lambda: readers.TripletReader(folder).get_examples("nowhere.tsv"), "there is no file"),
        (lambda: readers.NLIDataReader(folder).map_label("maybe"), "got the label 'maybe'"),
    ):
        with pytest.raises(InputError, match=message):
            make()
    assert readers.NLIDataReader(folder).get_num_labels() == 3


# ---- beside the reference -------------------------------------------------------------------------------------------


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_the_reference_draws_the_same() -> None:
    theirs = pytest.importorskip("sentence_transformers.sentence_transformer.datasets")
    their_losses = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
    for ours, other in (
        (
            lambda: list(datasets.NoDuplicatesDataLoader(pairs(), 4)),
            lambda: list(theirs.NoDuplicatesDataLoader(pairs(), 4)),
        ),
        (
            lambda: list(losses.ContrastiveTensionDataLoader(list(TEXTS), 8, 4)),
            lambda: list(their_losses.ContrastiveTensionDataLoader(list(TEXTS), 8, 4)),
        ),
        *(
            (
                lambda again=again: [list(datasets.SentenceLabelDataset(examples(), 3, again))],
                lambda again=again: [list(theirs.SentenceLabelDataset(examples(), 3, again))],
            )
            for again in (False, True)
        ),
    ):
        assert plain(seeded(ours)) == plain(seeded(other))


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", READS)
def test_the_reference_reads_the_same(name: str, folder: Path) -> None:
    theirs = pytest.importorskip("sentence_transformers.sentence_transformer.readers")
    read, _ = READS[name]
    ours, other = read(readers, folder), read(theirs, folder)
    assert [[text.rstrip("\n") for text in example.texts] for example in other] == [list(one.texts) for one in ours]
    assert [example.label or 0 for example in other] == [example.label or 0 for example in ours]
    if name not in ("triples", "files"):
        assert [example.guid for example in other] == [example.guid for example in ours]
