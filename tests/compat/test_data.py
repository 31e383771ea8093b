"""Examples that may be changed, readers and data sets of them, and the batches that collators make."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from minisbert import Trainer, TrainingConfig
from minisbert.compat import losses
from minisbert.compat.collator import SentenceTransformerDataCollator, smart_batching_collate
from minisbert.compat.data import (
    DenoisingAutoEncoderDataset,
    InputExample,
    LabelSentenceReader,
    NLIDataReader,
    NoDuplicatesDataLoader,
    PairedFilesReader,
    ParallelSentencesDataset,
    SentenceLabelDataset,
    SentencesDataset,
    STSBenchmarkDataReader,
    STSDataReader,
    TripletReader,
)
from minisbert.compat.model import SentenceTransformer
from minisbert.errors import ConfigError, InputError


def test_examples_change() -> None:
    example = InputExample(texts=["a", "b"])
    assert (example.guid, example.label) == ("", 0)
    example.label, example.texts = 0.5, [*example.texts, "c"]
    assert str(example) == "<InputExample> label: 0.5, texts: a; b; c"
    assert example in {example}
    assert example != InputExample(texts=["a", "b", "c"], label=0.5)


def test_trainer_reads_examples(tiny: Callable[[str], Path]) -> None:
    model = SentenceTransformer(str(tiny("bert")), device="cpu")
    before = model.encode("the cat")
    rows = [InputExample(texts=["the cat", "a dog"], label=score / 4) for score in range(4)]
    config = TrainingConfig(epochs=1, batch_size=2, learning_rate=1e-3)
    Trainer(model, rows, loss=losses.CosineSimilarityLoss(model), config=config, show_progress_bar=False).train()
    assert not np.array_equal(before, model.encode("the cat"))


def test_readers(tmp_path: Path) -> None:
    (tmp_path / "sts.tsv").write_text("0\t0\t0\t0\t2.5\tone\ttwo\n", encoding="utf-8")
    (tmp_path / "rows.tsv").write_text("x\ta\tb\ny\tc\td\nx\te\tf", encoding="utf-8")
    for part, lines in (("s1", "a\nb\n"), ("s2", "c\nd"), ("labels", "neutral\ncontradiction\n")):
        (tmp_path / f"{part}.dev.gz").write_bytes(gzip.compress(lines.encode()))

    def content(found: list[InputExample]) -> list[Any]:
        return [(one.guid, one.texts, one.label) for one in found]

    assert content(STSBenchmarkDataReader(tmp_path).get_examples("sts.tsv")) == [("sts.tsv0", ["one", "two"], 0.5)]
    assert content(STSDataReader(tmp_path, 5, 6, 4, max_score=10).get_examples("sts.tsv"))[0][2] == 0.25
    labels = LabelSentenceReader(str(tmp_path))
    assert [one[1:] for one in content(labels.get_examples("rows.tsv"))] == [(["a"], 0), (["c"], 1), (["e"], 0)]
    assert labels.label_map == {"x": 0, "y": 1}
    triplets = TripletReader(tmp_path, has_header=True).get_examples("rows.tsv", 1)
    assert content(triplets) == [("", ["y", "c", "d"], 0)]
    nli = NLIDataReader(str(tmp_path))
    assert content(nli.get_examples("dev.gz")) == [("dev.gz-0", ["a\n", "c\n"], 2), ("dev.gz-1", ["b\n", "d"], 0)]
    paired = PairedFilesReader([str(tmp_path / "s1.dev.gz"), str(tmp_path / "rows.tsv")]).get_examples()
    assert content(paired) == [("0", ["a\n", "x\ta\tb\n"], 1), ("1", ["b\n", "y\tc\td\n"], 1)]
    with pytest.raises(InputError, match="expected a finite number"):
        STSDataReader(tmp_path, 0, 1, 2).get_examples("rows.tsv")


def test_datasets() -> None:
    rows = [InputExample(texts=[f"text {row}"], label=row % 3) for row in range(12)]
    assert SentencesDataset(rows, None)[3] is rows[3]
    damaged = DenoisingAutoEncoderDataset(["a b"], lambda text: text[0])[0]
    damaged.label = 1
    assert damaged.texts == ["a", "a b"]
    grouped = list(SentenceLabelDataset(rows, 2))
    assert [one.label for one in grouped[::2]] == [one.label for one in grouped[1::2]]

    class Teacher:
        def encode(self, texts: list[str], **options: Any) -> np.ndarray:
            return np.ones((len(texts), 2))

    parallel = ParallelSentencesDataset(None, Teacher())
    parallel.add_dataset([["one", "un"]], weight=1)
    assert isinstance(parallel[0], InputExample)
    parallel.generate_data()
    assert parallel.next_entry(0) == ("one", ["one", "un"])
    assert len(parallel.get_embeddings(["one", "two"])) == 2


def test_a_loader_of_batches(tiny: Callable[[str], Path]) -> None:
    random.seed(0)
    rows = [InputExample(texts=[f"text {row // 2}", "an answer " + "a" * row], label=row) for row in range(8)]
    given = list(rows)
    loader = NoDuplicatesDataLoader(rows, 2)
    assert rows != given  # shuffled in place
    assert all(len({one.texts[0] for one in batch}) == 2 for batch in loader)
    model = SentenceTransformer(str(tiny("bert")), device="cpu")
    plain: Any = DataLoader(given, batch_size=4, collate_fn=lambda batch: smart_batching_collate(model, batch))
    for features, labels in plain:
        assert [texts["input_ids"].shape[0] for texts in features] == [4, 4]
        assert labels.dtype == torch.int64
    embeddings = [InputExample(texts=["a"], label=np.ones(3, np.float32))] * 2
    assert smart_batching_collate(model, embeddings)[1].shape == (2, 3)


# ---- collators ------------------------------------------------------------------------------------------------------


def tokens(texts: list[str], *, prompt: str | None = None, task: str | None = None) -> dict[str, Any]:
    return {"input_ids": torch.tensor([[len((prompt or "") + text)] for text in texts])}


ROWS = [{"query": "a", "answer": "bcd", "score": 0.5}, {"query": "ef", "answer": "g", "score": 1.0}]


def test_collator() -> None:
    batch = SentenceTransformerDataCollator(tokens, prompts={"query": "q: "}, router_mapping={"query": "query"})(ROWS)
    assert list(batch) == ["label", "query_input_ids", "query_task", "answer_input_ids"]
    assert batch["query_input_ids"].tolist() == [[4], [5]]
    assert batch["label"].tolist() == [0.5, 1.0]
    named = [{**row, "dataset_name": "one"} for row in ROWS]
    batch = SentenceTransformerDataCollator(tokens, prompts={"one": {"answer": "+"}, "two": {"query": "+"}})(named)
    assert batch["dataset_name"] == "one"
    assert batch["answer_input_ids"].tolist() == [[4], [2]]
    with pytest.raises(ConfigError, match="leave out the names of data sets"):
        SentenceTransformerDataCollator(tokens, prompts={"one": {"answer": "+"}})(ROWS)


def test_collator_of_older_versions() -> None:
    collator = SentenceTransformerDataCollator(tokenize_fn=lambda texts: tokens(texts), prompts={"query": "q: "})
    assert collator(ROWS)["query_input_ids"].tolist() == [[4], [5]]
    assert SentenceTransformerDataCollator(tokenize_fn=tokens, router_mapping={"query": "query"})(ROWS)["query_task"]


def test_collator_warns_of_the_order_of_columns() -> None:
    collator = SentenceTransformerDataCollator(tokens)
    rows = [{"positive": "a", "anchor": "b"}]
    with pytest.warns(UserWarning, match="got 'anchor' as column 1"):
        collator(rows)
    collator(rows)  # no second warning


def test_letters_are_not_taken_for_texts_silently() -> None:
    with pytest.warns(UserWarning, match="each letter is a text"):
        assert InputExample(texts="abc").texts == "abc"
