"""Triplets and labelled pairs: values by hand, files, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixed_model import FixedModel, PlacedModel, scored

from minisbert.errors import ConfigError, InputError, InputTypeError, MinisbertError
from minisbert.evaluation import BinaryClassificationEvaluator, EmbeddingSimilarityEvaluator, TripletEvaluator

# ---- triplets -------------------------------------------------------------------------------------------------------


def test_share_of_triplets_in_the_right_order() -> None:
    model = scored(near=3, far=1, same=1)
    evaluator = TripletEvaluator(["q"] * 4, ["near", "near", "far", "far"], ["far", "near", "near", "same"])
    assert evaluator.primary_metric is None
    assert evaluator(model) == {"dot_accuracy": 0.25}  # equal ones are not closer
    assert evaluator.primary_metric == "dot_accuracy"
    assert evaluator.description == "Triplet"
    assert [kind for kind, _ in model.calls] == ["query", "document"]


@pytest.mark.parametrize(
    ("margin", "accuracy"), [(None, 1.0), (1.9, 1.0), (2, 0.0), ({"dot": 2}, 0.0), ({"cosine": 2}, 1.0), (-1, 1.0)]
)
def test_margin(margin: Any, accuracy: float) -> None:
    assert TripletEvaluator(["q"], ["near"], ["far"], margin=margin)(scored(near=3, far=1)) == {
        "dot_accuracy": accuracy
    }


def test_each_function_of_triplets_by_hand(tmp_path: Path) -> None:
    # The positive points the same way but is far off; the negative is close, in another direction.
    model = PlacedModel({"a": [1, 0], "p": [9, 0], "n": [1, 1]})
    names = ["cosine", "dot", "euclidean", "manhattan"]
    evaluator = TripletEvaluator(["a"], ["p"], ["n"], similarity_fn_names=names, name="dev")
    values = evaluator(model, tmp_path / "new", epoch=1.0, steps=7)
    assert values == {
        "dev_cosine_accuracy": 1.0,
        "dev_dot_accuracy": 1.0,
        "dev_euclidean_accuracy": 0.0,
        "dev_manhattan_accuracy": 0.0,
        "dev_max_accuracy": 1.0,
    }
    assert evaluator.primary_metric == "dev_max_accuracy"
    assert (tmp_path / "new" / "triplet_evaluation_dev_results.csv").read_bytes() == (
        b"epoch,steps,accuracy_cosine,accuracy_dot,accuracy_euclidean,accuracy_manhattan\r\n1.0,7,1.0,1.0,0.0,0.0\r\n"
    )


def test_main_function_of_triplets() -> None:
    evaluator = TripletEvaluator(
        ["q"], ["near"], ["far"], main_similarity_function="euclidean", similarity_fn_names=["dot", "euclidean"]
    )
    evaluator(scored(near=3, far=1))
    assert evaluator.primary_metric == "euclidean_accuracy"
    alone = TripletEvaluator(["q"], ["near"], ["far"], main_similarity_function="manhattan")
    assert list(alone(scored(near=3, far=1))) == ["manhattan_accuracy"]


def test_the_function_of_triplets_is_the_models_own() -> None:
    evaluator = TripletEvaluator(["q"], ["near"], ["far"])
    assert list(evaluator(FixedModel())) == ["cosine_accuracy"]
    assert list(evaluator(scored(near=3, far=1))) == ["dot_accuracy"]


@pytest.mark.parametrize(
    ("options", "config"),
    [
        ({}, {}),
        ({"margin": 0}, {}),
        ({"margin": 0.5}, {"margin": {"cosine": 0.5, "dot": 0.5, "manhattan": 0.5, "euclidean": 0.5}}),
        (
            {"margin": {"dot": 1}, "truncate_dim": 4},
            {"margin": {"cosine": 0, "dot": 1, "manhattan": 0, "euclidean": 0}, "truncate_dim": 4},
        ),
    ],
)
def test_what_the_card_says_of_triplets(options: dict[str, Any], config: dict[str, Any]) -> None:
    assert TripletEvaluator(["a"], ["b"], ["c"], **options).get_config_dict() == config


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "parts"),
    [
        ((["a"], ["b"], []), {}, InputError, ["1 anchors, 1 positives, 0 negatives", "the same number"]),
        (([], [], []), {}, InputError, ["no anchors", "at least one"]),
        ((["a"], [None], ["c"]), {}, InputTypeError, ["positives[0] is None"]),
        (("a", ["b"], ["c"]), {}, InputTypeError, ["str for anchors"]),
        ((["a"], ["b"], ["c"]), {"margin": "wide"}, ConfigError, ["'wide'", "finite number"]),
        ((["a"], ["b"], ["c"]), {"margin": math.nan}, ConfigError, ["nan", "finite number"]),
        ((["a"], ["b"], ["c"]), {"margin": {"cos": 1}}, ConfigError, ["'cos'", "cosine, dot"]),
        ((["a"], ["b"], ["c"]), {"similarity_fn_names": ["cos"]}, ConfigError, ["'cos'", "cosine, dot"]),
        ((["a"], ["b"], ["c"]), {"similarity_fn_names": "dot"}, InputTypeError, ["'dot'", "list"]),
        (
            (["a"], ["b"], ["c"]),
            {"main_similarity_function": "dot", "similarity_fn_names": ["cosine"]},
            ConfigError,
            ["'dot'", "cosine"],
        ),
    ],
)
def test_triplets_that_cannot_be_evaluated(
    arguments: tuple[Any, ...], options: dict[str, Any], kind: type[MinisbertError], parts: list[str]
) -> None:
    with pytest.raises(kind) as caught:
        TripletEvaluator(*arguments, **options)
    assert "\n" not in str(caught.value)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


# ---- labelled pairs -------------------------------------------------------------------------------------------------


def test_pairs_by_hand(tmp_path: Path) -> None:
    # From the best score down: 1 1 0 1 0 0.
    model = scored(a=9, b=8, c=6, d=5, e=2, f=1)
    evaluator = BinaryClassificationEvaluator(["q"] * 6, list("fedcba"), [0, 0, 1, 0, 1, 1], name="dev")
    values = evaluator(model, tmp_path)
    assert values == pytest.approx(
        {
            "dev_dot_accuracy": 5 / 6,
            "dev_dot_accuracy_threshold": 7.0,  # the first of two equally good ones
            "dev_dot_f1": 6 / 7,
            "dev_dot_f1_threshold": 3.5,
            "dev_dot_precision": 3 / 4,
            "dev_dot_recall": 1.0,
            "dev_dot_ap": (1 + 1 + 3 / 4) / 3,
            "dev_dot_mcc": (3 * 2 - 1 * 0) / math.sqrt(4 * 3 * 2 * 3),
        }
    )
    assert list(values)[:4] == ["dev_dot_accuracy", "dev_dot_accuracy_threshold", "dev_dot_f1", "dev_dot_f1_threshold"]
    assert all(type(value) is float for value in values.values())
    assert evaluator.primary_metric == "dev_dot_ap"
    assert evaluator.description == "Binary Classification"
    file = tmp_path / "binary_classification_evaluation_dev_results.csv"
    header, row, _ = file.read_bytes().decode().split("\r\n")
    columns = "accuracy accuracy_threshold f1 precision recall f1_threshold ap mcc".split()
    assert header.split(",") == ["epoch", "steps", *(f"dot_{column}" for column in columns)]
    assert row.split(",")[:2] == ["-1", "-1"]
    assert [float(cell) for cell in row.split(",")[2:]] == pytest.approx([values[f"dev_dot_{c}"] for c in columns])


def test_each_text_is_encoded_once_and_as_a_text() -> None:
    model = scored(a=9, b=1)
    BinaryClassificationEvaluator(["q", "q", "q"], ["a", "b", "a"], [1, 0, 1])(model)
    assert model.calls == [("text", ["q", "a", "b"])]


def test_thresholds_of_distances_are_distances() -> None:
    model = PlacedModel({"o": [0.0, 0.0], "near": [3.0, 4.0], "far": [6.0, 8.0]})
    names = ["euclidean", "manhattan", "cosine"]
    values = BinaryClassificationEvaluator(["o", "o"], ["near", "far"], [1, 0], similarity_fn_names=names)(model)
    assert values["euclidean_accuracy_threshold"] == values["euclidean_f1_threshold"] == 7.5
    assert values["manhattan_accuracy_threshold"] == values["manhattan_f1_threshold"] == 10.5
    assert values["max_accuracy"] == values["max_ap"] == 1.0
    assert values["max_f1_threshold"] == 10.5


def test_the_best_may_be_to_take_no_pair() -> None:
    model = scored(a=2, b=1)
    values = BinaryClassificationEvaluator(["q", "q", "q"], ["a", "a", "b"], [0, 0, 1])(model)
    assert values["dot_accuracy"] == pytest.approx(2 / 3)
    assert values["dot_accuracy_threshold"] == float(np.nextafter(np.float32(2), np.float32(3)))
    assert values["dot_f1"] == pytest.approx(0.5)
    assert values["dot_mcc"] == 0.0


@pytest.mark.parametrize(
    ("arguments", "kind", "parts"),
    [
        ((["a", "b"], ["c"], [0, 1]), InputError, ["2 sentences1, 1 sentences2", "the same number"]),
        ((["a", "b"], ["c", "d"], [1]), InputError, ["2 pairs and 1 labels"]),
        (([], [], []), InputError, ["no sentences1", "at least one"]),
        ((["a", "b"], ["c", "d"], [0, 2]), InputError, ["labels[1] is 2", "0 or 1"]),
        ((["a", "b"], ["c", "d"], [0, 0.5]), InputError, ["labels[1] is 0.5", "0 or 1"]),
        ((["a", "b"], ["c", "d"], ["0", "1"]), InputError, ["labels[0] is '0'", "0 or 1"]),
        ((["a", "b"], ["c", "d"], [1, 1]), InputError, ["only the label 1", "both"]),
        ((["a", "b"], ["c", "d"], [0, 0]), InputError, ["only the label 0", "both"]),
        ((["a", 3], ["c", "d"], [0, 1]), InputTypeError, ["sentences1[1] is 3"]),
    ],
)
def test_pairs_that_cannot_be_evaluated(
    arguments: tuple[Any, ...], kind: type[MinisbertError], parts: list[str]
) -> None:
    with pytest.raises(kind) as caught:
        BinaryClassificationEvaluator(*arguments)
    assert "\n" not in str(caught.value)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


@pytest.mark.parametrize("labels", [[True, False], np.array([1, 0]), [1.0, 0.0], (1, 0)])
def test_labels_of_every_kind(labels: Any) -> None:
    assert BinaryClassificationEvaluator(["q", "q"], ["a", "b"], labels)(scored(a=2, b=1))["dot_ap"] == 1.0


def test_what_the_card_says_of_pairs() -> None:
    assert BinaryClassificationEvaluator(["a", "b"], ["c", "d"], [0, 1]).get_config_dict() == {}
    cut = BinaryClassificationEvaluator(["a", "b"], ["c", "d"], [0, 1], truncate_dim=8)
    assert cut.get_config_dict() == {"truncate_dim": 8}
    graded = EmbeddingSimilarityEvaluator(["a", "b"], ["c", "d"], [0, 1], precision="int8")
    assert graded.get_config_dict() == {"precision": "int8"}


def test_no_file_unless_asked_for(tmp_path: Path) -> None:
    TripletEvaluator(["q"], ["near"], ["far"], write_csv=False)(scored(near=3, far=1), tmp_path / "a")
    BinaryClassificationEvaluator(["q", "q"], ["a", "b"], [1, 0], write_csv=False)(scored(a=2, b=1), tmp_path / "b")
    assert not list(tmp_path.iterdir())
