"""Labels that are lists of numbers, such as embeddings, and labels that are classes."""

from __future__ import annotations

import json
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minisbert import InputExample
from minisbert.data.roles import training_rows
from minisbert.errors import ConfigError, InputError

TEXTS = ["x", "y", "z"]
VECTORS = [[0.5, -1.0], [0.25, 2.0], [1.0, 0.0]]
Row = namedtuple("Row", ["text", "label"])

FORMS: dict[str, Any] = {
    "dicts": [{"text": text, "label": vector} for text, vector in zip(TEXTS, VECTORS, strict=True)],
    "tuples": list(zip(TEXTS, VECTORS, strict=True)),
    "named tuples": [Row(text, vector) for text, vector in zip(TEXTS, VECTORS, strict=True)],
    "examples": [InputExample(texts=[text], label=vector) for text, vector in zip(TEXTS, VECTORS, strict=True)],
    "lists": {"text": TEXTS, "label": VECTORS},
    "array": {"text": TEXTS, "label": np.array(VECTORS)},
    "float16 array": {"text": TEXTS, "labels": np.array(VECTORS, dtype=np.float16)},
    "arrays": {"text": TEXTS, "score": [np.array(vector) for vector in VECTORS]},
    "tensor": {"text": TEXTS, "label": torch.tensor(VECTORS)},
    "bfloat16 tensors": {"text": TEXTS, "label": [torch.tensor(vector).bfloat16() for vector in VECTORS]},
    "another name": {"text": TEXTS, "teacher": VECTORS},
    "tuples of numbers": {"text": TEXTS, "label": [tuple(vector) for vector in VECTORS]},
}


@pytest.mark.parametrize("data", FORMS.values(), ids=FORMS)
def test_lists_of_numbers(data: Any) -> None:
    rows = training_rows(data)
    assert isinstance(rows.labels, np.ndarray)
    assert rows.labels.dtype == np.float32
    assert rows.labels.tolist() == VECTORS
    assert list(rows.texts.values()) == [TEXTS]
    assert (rows.scores, rows.label_type) == (None, "list")
    assert rows.describe().endswith("of 2 numbers")
    chosen = rows.subset([2, 0])
    assert isinstance(chosen.labels, np.ndarray)
    assert chosen.labels.tolist() == [VECTORS[2], VECTORS[0]]


@pytest.mark.parametrize("ending", [".jsonl", ".json"])
def test_lists_of_numbers_in_a_file(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"rows{ending}"
    lines = [json.dumps(row) for row in FORMS["dicts"]]
    file.write_text("\n".join(lines) if ending == ".jsonl" else f"[{','.join(lines)}]", encoding="utf-8")
    rows = training_rows(file)
    assert isinstance(rows.labels, np.ndarray)
    assert rows.labels.tolist() == VECTORS


@pytest.mark.parametrize("form", [None, "torch", "numpy"])
def test_lists_of_numbers_in_a_dataset(form: str | None) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.Sequence(datasets.Value("float32"), length=2)}
    )
    data = datasets.Dataset.from_dict({"text": TEXTS, "label": VECTORS}, features=features)
    labels = training_rows(data.with_format(form)).labels
    assert isinstance(labels, np.ndarray)
    assert labels.tolist() == VECTORS


@pytest.mark.parametrize("package", ["pandas", "polars"])
def test_lists_of_numbers_in_a_frame(package: str) -> None:
    frame = pytest.importorskip(package).DataFrame({"text": TEXTS, "label": VECTORS})
    labels = training_rows(frame).labels
    assert isinstance(labels, np.ndarray)
    assert labels.tolist() == VECTORS


def test_one_list_for_each_column() -> None:
    labels = training_rows([("x", "y", [[1, 2, 3], [4, 5, 6]]), ("z", "w", [[1, 1, 1], [2, 2, 2]])]).labels
    assert isinstance(labels, np.ndarray)
    assert labels.shape == (2, 2, 3)


def test_lists_of_one_number_are_that_number() -> None:
    rows = training_rows([("x", [0.5]), ("y", [2])])
    assert (rows.labels, rows.scores) == ([0.5, 2.0], [0.5, 2.0])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            [("x", [1, 2]), ("y", [1, 2, 3])],
            "row 1 of the data: column column_1 holds 3 numbers; expected 2, as in the",
        ),
        ([{"a": "x", "label": [1, 2]}, {"a": "y", "label": 3}], "row 1 of the data: column label holds 1 numbers"),
        ([{"a": "x", "label": 3}, {"a": "y", "label": [1, 2]}], "row 1 of the data: column label holds 2 numbers"),
        (
            [{"a": "x", "label": [1, 2]}, {"a": "y", "label": []}],
            "row 1 of the data: column label holds []; expected a",
        ),
        ([{"a": "x", "label": [1, 2]}, {"a": "y", "label": None}], "row 1 of the data: column label holds None"),
        ([{"a": "x", "label": [1, 2]}, {"a": "y", "label": [1, None]}], "holds [1, None]; expected a list of finite"),
        ([{"a": "x", "label": [1, 1e300]}], "row 0 of the data"),
        ([{"a": "x", "label": [[1, 2], [3]]}], "holds [[1, 2], [3]]; expected a list of finite numbers"),
        ([{"a": "x", "label": []}], "row 0 of the data: column label holds []"),
    ],
)
def test_lists_that_do_not_fit(data: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        training_rows(data)
    assert message in str(caught.value)


def test_a_scale_is_for_numbers() -> None:
    with pytest.raises(ConfigError, match="got a scale for the label label, which holds lists of numbers"):
        training_rows(FORMS["dicts"], scale=(0, 5))
    with pytest.raises(ConfigError, match="got a scale for the label column_1, which holds classes"):
        training_rows([("x", 1)], scale=(0, 5), classes=True)


# ---- classes --------------------------------------------------------------------------------------------------------


def test_names_are_numbered_in_sorted_order() -> None:
    rows = training_rows([("x", "spam"), ("y", "ham"), ("z", "spam"), ("w", "Ham")], classes=True)
    assert (rows.labels, rows.classes) == ([2.0, 1.0, 2.0, 0.0], ("Ham", "ham", "spam"))
    assert rows.texts == {"column_0": ["x", "y", "z", "w"]}
    assert rows.describe().endswith("label column_1 of 3 classes (0: Ham, 1: ham, 2: spam)")
    assert rows.label_type == "int"


def test_many_classes_are_not_all_shown() -> None:
    rows = training_rows([("x", f"c{number:02}") for number in range(12)], classes=True)
    assert rows.describe().endswith(
        "of 12 classes (0: c00, 1: c01, 2: c02, 3: c03, 4: c04, 5: c05, 6: c06, 7: c07, 8: c08, 9: c09, ...)"
    )


@pytest.mark.parametrize("values", [[2, 0, 7], [2.0, 0.0, 7.0], ["2", "0", "7"], np.array([2, 0, 7])])
def test_numbers_of_classes_are_taken_as_they_are(values: Any) -> None:
    rows = training_rows({"text": TEXTS, "label": values}, classes=True)
    assert (rows.labels, rows.classes) == ([2.0, 0.0, 7.0], ())


def test_classes_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "rows.tsv"
    file.write_text("text\tkind\nx\tb\ny\ta\n", encoding="utf-8")
    rows = training_rows(file, classes=True)
    assert (rows.labels, rows.classes, rows.label_name) == ([1.0, 0.0], ("a", "b"), "kind")


def test_names_are_no_labels_of_other_losses() -> None:
    with pytest.raises(InputError, match="'high'; expected a finite number as label"):
        training_rows([{"a": "x", "label": "high"}])
    with pytest.raises(InputError, match="row 0 of the data: column label holds 'a'; expected classes, all numbers or"):
        training_rows([{"a": "x", "label": "a"}, {"a": "y", "label": 1}], classes=True)
    assert training_rows([("x", "y")]).labels is None


@pytest.mark.parity
def test_the_order_is_that_of_datasets() -> None:
    datasets = pytest.importorskip("datasets")
    names = ["spam", "ham", "Ham", "ähm", "10", "9", "z"]
    data = datasets.Dataset.from_dict({"text": names, "label": names})
    rows = training_rows(data, classes=True)
    encoded = data.class_encode_column("label")
    assert rows.labels == encoded["label"][:]
    assert list(rows.classes) == encoded.features["label"].names
    assert training_rows(encoded, classes=True).labels == rows.labels
