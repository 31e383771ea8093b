"""Examples, readers, data sets, loaders, samplers and collators of compat give what the reference's give."""

from __future__ import annotations

import gzip
import inspect
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, SubsetRandomSampler

from minisbert.compat import collator, data, samplers

pytest.importorskip("sentence_transformers")
datasets = pytest.importorskip("datasets")
base_sampler = pytest.importorskip("sentence_transformers.base.sampler")
base_collator = pytest.importorskip("sentence_transformers.base.data_collator")
readers = pytest.importorskip("sentence_transformers.sentence_transformer.readers")
their_datasets = pytest.importorskip("sentence_transformers.sentence_transformer.datasets")
their_losses = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

READERS = ("LabelSentenceReader", "NLIDataReader", "PairedFilesReader", "STSDataReader", "TripletReader")


def signature(kind: Any) -> list[tuple[str, str, str]]:
    def shown(default: Any) -> str:
        return "function" if callable(default) and default is not inspect.Parameter.empty else repr(default)

    parameters = inspect.signature(kind.__init__).parameters.values()
    return [(one.name, one.kind.name, shown(one.default)) for one in parameters]


@pytest.mark.parametrize("name", data.__all__)
def test_signatures_of_data(name: str) -> None:
    theirs = getattr(readers if hasattr(readers, name) else their_datasets, name)
    assert signature(getattr(data, name)) == signature(theirs)
    for method in ("get_examples", "load_data", "add_dataset"):
        if hasattr(theirs, method):
            ours = inspect.signature(getattr(getattr(data, name), method)).parameters.values()
            expected = inspect.signature(getattr(theirs, method)).parameters.values()
            assert [(one.name, one.default) for one in ours] == [(one.name, one.default) for one in expected]


@pytest.mark.parametrize("name", samplers.__all__)
def test_signatures_of_samplers(name: str) -> None:
    ours, theirs = getattr(samplers, name), getattr(base_sampler, name)
    if name.endswith("Samplers"):
        assert {one.name: one.value for one in ours} == {one.name: one.value for one in theirs}
        assert all(ours(one.value) == one.value for one in theirs)
    else:
        assert signature(ours) == signature(theirs)


def test_signature_of_collator() -> None:
    assert signature(collator.BaseDataCollator) == signature(base_collator.BaseDataCollator)


# ---- examples and readers -------------------------------------------------------------------------------------------


def content(examples: Any) -> list[tuple[Any, ...]]:
    return [(one.guid, one.texts, np.asarray(one.label).tolist(), type(one.label).__name__) for one in examples]


def test_examples() -> None:
    for arguments in ((), ("7", ["a", "b"], 0.5)):
        ours, theirs = data.InputExample(*arguments), readers.InputExample(*arguments)
        assert vars(ours) == vars(theirs)
    assert str(ours) == str(theirs)
    assert ours != data.InputExample("7", ["a", "b"], 0.5)  # as objects, like theirs
    assert len({ours, theirs, data.InputExample()}) == 3


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("count", [0, 2])
def test_readers(name: str, count: int, tmp_path: Path) -> None:
    (tmp_path / "rows.tsv").write_text("1.5\ta b\tc\t 4 \n5\td\te\t0.5\n0\tf \tg\t2", encoding="utf-8")
    for part, lines in (("s1", "a\nb \nc"), ("s2", "d\ne\nf\n"), ("labels", "neutral\nEntailment\n contradiction\n")):
        (tmp_path / f"{part}.dev.gz").write_bytes(gzip.compress(lines.encode()))
    files = [str(tmp_path / "rows.tsv"), str(tmp_path / "s2.dev.gz")]
    results = []
    for library in (data, readers):
        kind = getattr(library, name)
        if name == "PairedFilesReader":
            results.append(content(kind(files).get_examples(count)))
            continue
        options = {
            "LabelSentenceReader": (0, 1),
            "STSDataReader": (1, 2, 3),
            "TripletReader": (0, 1, 2, True),
        }.get(name, ())
        reader = kind(str(tmp_path), *options)
        results.append(content(reader.get_examples("dev.gz" if name == "NLIDataReader" else "rows.tsv", count)))
    assert results[0] == results[1]
    assert len(results[0]) == (count or (2 if name == "TripletReader" else 3))


def test_sts_benchmark(tmp_path: Path) -> None:
    (tmp_path / "sts.csv").write_text("a\tb\tc\td\t2.5\tone\ttwo\n" * 2, encoding="utf-8")
    ours, theirs = (one.STSBenchmarkDataReader(str(tmp_path)).get_examples("sts.csv") for one in (data, readers))
    assert content(ours) == content(theirs)


# ---- data sets and loaders ------------------------------------------------------------------------------------------


def examples(kind: Any) -> list[Any]:
    draw = np.random.default_rng(0)
    return [kind(str(row), [f"t{draw.integers(9)}", f"u{row}"], int(draw.integers(4))) for row in range(23)]


class Teacher:
    def encode(self, texts: list[str], **options: Any) -> np.ndarray:
        return np.array([[len(text), ord(text[0])] for text in texts], dtype=np.float32)


def made(library: Any, name: str) -> Any:
    """Make a data set or a loader, with the draws that its constructor makes."""
    random.seed(1)
    np.random.seed(2)  # noqa: NPY002
    kind = data.InputExample if library is data else readers.InputExample
    if name == "NoDuplicatesDataLoader":
        return getattr(library, name)(examples(kind), 4)
    if name == "DenoisingAutoEncoderDataset":
        return getattr(library, name)(["a b", "c d e"], lambda text: text.upper())
    if name == "SentenceLabelDataset":
        return getattr(library, name)(examples(kind), 3)
    if name == "ParallelSentencesDataset":
        parallel = getattr(library, name)(None, Teacher(), 2)
        parallel.add_dataset([["one text", "un texte"], ["two", "deux"], ["three"]], weight=2)
        parallel.add_dataset([["four", "vier"]], weight=1)
        return parallel
    return getattr(library, name)(examples(kind), None)


NAMES = ("SentencesDataset", "DenoisingAutoEncoderDataset", "SentenceLabelDataset", "NoDuplicatesDataLoader")


@pytest.mark.parametrize("name", NAMES)
def test_datasets(name: str) -> None:
    if name == "DenoisingAutoEncoderDataset":
        pytest.importorskip("nltk")  # the reference asks for it even where it is not used
    results = []
    for library in (data, their_datasets):
        dataset = made(library, name)
        rows = (
            [dataset[index] for index in range(len(dataset))]
            if name.startswith(("Sentences", "Denoising"))
            else list(dataset)
        )
        flat = [one for row in rows for one in (row if isinstance(row, list) else [row])]
        results.append((len(dataset), content(flat)))
    assert results[0] == results[1]


def test_parallel_sentences() -> None:
    """The reference keeps the texts of a row in a set, whose order differs from run to run."""
    results = []
    for library in (data, their_datasets):
        dataset = made(library, "ParallelSentencesDataset")
        random.seed(3)
        results.append((len(dataset), sorted(content([dataset[index] for index in range(6)]))))
    assert results[0] == results[1]


def test_a_loader_shuffles_the_list_it_is_given() -> None:
    lists = []
    for library, kind in ((data, data.InputExample), (their_datasets, readers.InputExample)):
        rows = examples(kind)
        random.seed(5)
        library.NoDuplicatesDataLoader(rows, 4)
        lists.append(content(rows))
    assert lists[0] == lists[1]


def test_contrastive_tension_loader() -> None:
    from minisbert.compat import losses

    results = []
    for library in (losses, their_losses):
        texts = [f"text {number}" for number in range(40)]
        random.seed(5)
        loader = library.ContrastiveTensionDataLoader(texts, 8, 4)
        batches = [content(batch) for _ in range(2) for batch in loader]
        results.append((len(loader), texts, [[one[1:3] for one in batch] for batch in batches]))
    assert results[0] == results[1]


# ---- samplers -------------------------------------------------------------------------------------------------------


def rows(count: int, *, values: int, seed: int = 0) -> Any:
    draw = np.random.default_rng(seed)
    return datasets.Dataset.from_dict(
        {
            "anchor": [f"text {number}" for number in draw.integers(0, values, count)],
            "positive": [[f"text {number}" for number in draw.integers(0, values, 2)] for _ in range(count)],
            "label": draw.integers(0, 5, count).tolist(),
        }
    )


def batches(library: Any, name: str, dataset: Any, size: int, drop_last: bool, *, shared: Any = None) -> list[Any]:
    generator = torch.Generator() if shared is None else shared
    kind = getattr(library, name)
    if name == "DefaultBatchSampler":
        dataset = SubsetRandomSampler(range(len(dataset)), generator=generator)
    sampler = kind(dataset, size, drop_last, ["label"], generator, 11)
    return [(len(sampler), [sampler.set_epoch(epoch) or list(sampler) for epoch in (0, 1, 5)])]


@pytest.mark.parametrize("name", ["DefaultBatchSampler", "NoDuplicatesBatchSampler", "GroupByLabelBatchSampler"])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(("count", "size", "values"), [(50, 4, 1000), (50, 8, 30), (47, 6, 12), (33, 10, 7)])
def test_batches(name: str, drop_last: bool, count: int, size: int, values: int) -> None:
    dataset = rows(count, values=values)
    ours, theirs = (
        batches(library, name, dataset, size, drop_last, shared=torch.Generator().manual_seed(3))
        for library in (samplers, base_sampler)
    )
    assert ours == theirs


@pytest.mark.parametrize("name", ["RoundRobinBatchSampler", "ProportionalBatchSampler"])
@pytest.mark.parametrize("inner", ["DefaultBatchSampler", "NoDuplicatesBatchSampler", "GroupByLabelBatchSampler"])
def test_batches_of_several(name: str, inner: str) -> None:
    parts = [rows(30, values=500), rows(13, values=9, seed=1), rows(41, values=20, seed=2)]
    results = []
    for library in (samplers, base_sampler):
        generator = torch.Generator()
        given = [
            SubsetRandomSampler(range(len(part)), generator=generator) if inner == "DefaultBatchSampler" else part
            for part in parts
        ]
        below = [getattr(library, inner)(part, 6, False, ["label"], generator, 11) for part in given]
        sampler = getattr(library, name)(ConcatDataset(parts), below, generator, 11)
        results.append((len(sampler), [sampler.set_epoch(epoch) or list(sampler) for epoch in (0, 1)]))
    assert results[0] == results[1]


# ---- collators ------------------------------------------------------------------------------------------------------


def tokens(texts: list[Any], prompt: str | None = None, task: str | None = None, max_length: int = 9) -> dict[str, Any]:
    """Some tensors that tell what was passed."""
    ids = [[len(str(text)), len(prompt or ""), len(task or ""), max_length] for text in texts]
    return {"input_ids": torch.tensor(ids), "prompt_length": len(prompt or "")}


OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"prompts": "query: "},
    {"prompts": {"anchor": "query: "}, "router_mapping": {"anchor": "query", "positive": "document"}},
    {"prompts": {"one": {"positive": "doc: "}, "two": {"anchor": "x"}}, "max_length": 5},
    {"router_mapping": {"one": {"anchor": "query"}}, "max_length": {"query": 4}},
    {"valid_label_columns": ["score", "label"]},
)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("label", [0.5, 1, [0.1, 0.2], "tensor"], ids=str)
def test_collator(options: dict[str, Any], label: Any) -> None:
    given = torch.tensor([1.0, 2.0]) if label == "tensor" else label
    named = {"dataset_name": "one"}
    features = [{"anchor": "a" * n, "positive": "bb", "label": given, "score": 2.0, **named} for n in (1, 2, 3)]
    ours, theirs = (one.BaseDataCollator(tokens, **options)(features) for one in (collator, base_collator))
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        if isinstance(value, torch.Tensor):
            assert value.dtype == ours[name].dtype
            assert torch.equal(value, ours[name])
        else:
            assert value == ours[name]
    assert collator.BaseDataCollator(tokens)([]) == {}


def test_smart_batching(tiny: Callable[[str], Path]) -> None:
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(str(tiny("bert")), device="cpu")
    for label in (1, 0.5, [0.1, 0.2], np.ones(3, np.float32)):
        batch = [
            data.InputExample(texts=["a cat", "the dog sat"], label=label),
            data.InputExample("", ["on", "a"], label),
        ]
        (got, labels), (expected, wanted) = (
            collator.smart_batching_collate(theirs, batch),
            theirs.smart_batching_collate(batch),
        )
        assert torch.equal(labels, wanted)
        assert labels.dtype == wanted.dtype
        for ours, column in zip(got, expected, strict=True):
            assert torch.equal(ours["input_ids"], column["input_ids"])
