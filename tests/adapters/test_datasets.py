"""datasets: a column of lists of a fixed size, and fingerprints that know the model."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minisbert import SentenceTransformer
from minisbert.errors import ConfigError, InputError, InputTypeError

pytestmark = pytest.mark.filterwarnings("ignore")
datasets = pytest.importorskip("datasets", minversion="4")

from datasets import Dataset, DatasetDict, List, Value

from minisbert.adapters.datasets import ColumnEmbedder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


@pytest.fixture
def dataset(texts: list[str]) -> Dataset:
    return Dataset.from_dict({"text": texts, "number": range(len(texts))})


def test_a_column_is_added(folder: Path, model: SentenceTransformer, texts: list[str], dataset: Dataset) -> None:
    size = model.get_sentence_embedding_dimension()
    for given in (str(folder), model):
        found = ColumnEmbedder(given).add_to(dataset)
        assert found.features["embedding"] == List(Value("float32"), length=size)
        assert str(found.data.schema.field("embedding").type) == f"fixed_size_list<item: float>[{size}]"
        assert np.array_equal(found.with_format("numpy")["embedding"][:], model.encode(texts))
        assert found.remove_columns("embedding")[:] == dataset[:]
    embedder = ColumnEmbedder(model, truncate_dim=3, prompt="p: ", column="other", output="vector")
    renamed = dataset.rename_column("text", "other")
    mapped = renamed.map(embedder, batched=True, features=embedder.features(renamed))
    expected = model.encode(texts, truncate_dim=3, prompt="p: ")
    assert np.array_equal(mapped.with_format("numpy")["vector"][:], expected)


def test_no_rows(model: SentenceTransformer, dataset: Dataset) -> None:
    empty, embedder = dataset.select([]), ColumnEmbedder(model)
    found = embedder.add_to(empty)
    assert len(found) == 0
    assert found.features == embedder.features(empty)
    assert embedder.add_to(DatasetDict({"train": dataset, "test": empty}))["test"].features == found.features


@pytest.mark.parametrize("form", ["arrow", "numpy", "pandas"])
def test_batches_of_other_forms(form: str, model: SentenceTransformer, texts: list[str], dataset: Dataset) -> None:
    found = ColumnEmbedder(model).add_to(dataset.with_format(form)).with_format("numpy")
    assert np.array_equal(found["embedding"][:], model.encode(texts))


def test_splits_and_streams(model: SentenceTransformer, texts: list[str], dataset: Dataset) -> None:
    embedder = ColumnEmbedder(model)
    found = embedder.add_to(DatasetDict({"train": dataset, "test": dataset.select([1])}))
    assert isinstance(found, DatasetDict)
    assert np.array_equal(np.float32(found["test"]["embedding"][:]), model.encode([texts[1]]))
    stream = embedder.add_to(dataset.to_iterable_dataset(), rows=3)
    assert stream.features["embedding"].length == model.get_sentence_embedding_dimension()
    np.testing.assert_allclose([row["embedding"] for row in stream], model.encode(texts), atol=1e-6)


def test_several_processes(folder: Path, model: SentenceTransformer, texts: list[str], dataset: Dataset) -> None:
    found = ColumnEmbedder(folder, device="cpu").add_to(dataset, num_proc=2)
    np.testing.assert_allclose(found.with_format("numpy")["embedding"][:], model.encode(texts), atol=1e-6)


def test_the_fingerprint_knows_the_model(folder: Path, dataset: Dataset, tmp_path: Path) -> None:
    place = tmp_path / "model"
    shutil.copytree(folder, place)
    model = SentenceTransformer(place, device="cpu")

    def prints() -> list[str]:
        added = [ColumnEmbedder(given).add_to(dataset)._fingerprint for given in (place, model)]
        return [*added, dataset.map(ColumnEmbedder(place), batched=True)._fingerprint]

    before = prints()
    model.encode("a text")
    assert prints() == before
    script = f"""
from datasets import Dataset
from minisbert import SentenceTransformer
from minisbert.adapters.datasets import ColumnEmbedder
dataset = Dataset.from_dict({dataset[:]!r})
for given in ({str(place)!r}, SentenceTransformer({str(place)!r}, device="cpu")):
    print(ColumnEmbedder(given).add_to(dataset)._fingerprint)
print(dataset.map(ColumnEmbedder({str(place)!r}), batched=True)._fingerprint)
"""
    there = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True)
    assert there.stdout.split() == before
    assert ColumnEmbedder(model, truncate_dim=3).add_to(dataset)._fingerprint != before[1]
    next(model.parameters()).data.mul_(-1)
    assert ColumnEmbedder(model).add_to(dataset)._fingerprint != before[1]
    model.save_pretrained(place)
    assert not set(before) & set(prints())


def test_wrong_types(model: SentenceTransformer, dataset: Dataset) -> None:
    columns: Any = ["text"]
    with pytest.raises(ConfigError, match="expected the names of two columns"):
        ColumnEmbedder(model, column=columns).add_to(dataset)
    rows: Any = [{"text": "a cat"}]
    with pytest.raises(InputTypeError, match="expected a data set of datasets"):
        ColumnEmbedder(model).add_to(rows)


def test_wrong_columns(model: SentenceTransformer, dataset: Dataset) -> None:
    with pytest.raises(InputError, match="got no column 'texts'; expected its texts: the columns are text"):
        ColumnEmbedder(model, column="texts").add_to(dataset)
    with pytest.raises(InputError, match="got a column 'number' already; expected none: name another output"):
        ColumnEmbedder(model, output="number").add_to(dataset)
    with pytest.raises(InputTypeError, match="is None of type NoneType; expected a string"):
        ColumnEmbedder(model).add_to(Dataset.from_dict({"text": ["a", None]}))
