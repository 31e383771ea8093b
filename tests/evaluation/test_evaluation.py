"""EmbeddingSimilarityEvaluator: metrics by definition and by hand, their names, and CSV files."""

from __future__ import annotations

import csv
import inspect
import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from common import PRECISIONS, scored_pairs
from fixed_model import FixedModel

from minisbert import SentenceTransformer
from minisbert.errors import ConfigError, InputError, InputTypeError, MinisbertError
from minisbert.evaluation import EmbeddingSimilarityEvaluator, Evaluator, SequentialEvaluator
from minisbert.evaluation.evaluator import as_evaluator
from minisbert.similarity import SimilarityFunction, quantize_embeddings

FUNCTIONS = ("cosine", "dot", "euclidean", "manhattan")
FILE = "similarity_evaluation_results.csv"


@pytest.fixture(scope="module")
def folder(tiny: Callable[[str], Path]) -> Path:
    return tiny("bert")


@pytest.fixture(scope="module")
def model(folder: Path) -> SentenceTransformer:
    return SentenceTransformer(folder, device="cpu")


# ---- by definition --------------------------------------------------------------------------------------------------


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's: covariance over the product of the deviations."""
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / math.sqrt((a * a).sum() * (b * b).sum()))


def ranks(values: np.ndarray) -> np.ndarray:
    """How many are smaller, with half of the equal ones."""
    return (values[:, None] > values).sum(axis=1) + (values[:, None] == values).sum(axis=1) / 2


def similarities(function: str, precision: Any) -> np.ndarray:
    """Of the pairs, by `FixedModel`, in float64; binary embeddings count bit by bit."""
    first, second, _ = scored_pairs(60)
    rows = FixedModel(32).encode(
        [*first, *second], normalize_embeddings=precision is not None, precision=None, truncate_dim=None
    )
    rows = rows if precision is None else quantize_embeddings(rows, precision if "int" in precision else "float32")
    rows = rows > 0 if precision in ("binary", "ubinary") else rows
    a, b = rows.astype(np.float64)[:60], rows.astype(np.float64)[60:]
    if function == "cosine":
        a, b = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (a, b))
    if function in ("cosine", "dot"):
        return (a * b).sum(axis=1)
    apart = np.abs(a - b)
    return -np.sqrt((apart**2).sum(axis=1)) if function == "euclidean" else -apart.sum(axis=1)


@pytest.mark.parametrize("functions", [None, ["dot"], ["manhattan", "cosine"], list(FUNCTIONS)])
@pytest.mark.parametrize("name", ["", "sts-dev"])
@pytest.mark.parametrize("precision", [None, *PRECISIONS])
def test_metrics_by_definition(functions: list[str] | None, name: str, precision: Any) -> None:
    evaluator = EmbeddingSimilarityEvaluator(
        *scored_pairs(60), similarity_fn_names=functions, name=name, precision=precision
    )
    expected, scores = {}, np.array(scored_pairs(60)[2])
    for function in functions or ["cosine"]:
        values = similarities(function, precision).round(6)  # equal ones are so whatever the rounding
        expected[f"pearson_{function}"] = correlation(scores, values)
        expected[f"spearman_{function}"] = correlation(ranks(scores), ranks(values))
    if functions and len(functions) > 1:
        for kind in ("pearson", "spearman"):
            expected[f"{kind}_max"] = max(expected[f"{kind}_{function}"] for function in functions)
    prefix = f"{name}_" if name else ""
    got = evaluator(FixedModel(32))
    # Cosines of bits are equal so often that Spearman depends on which of them float32 tells apart.
    tolerance = 1e-3 if precision in ("binary", "ubinary") else 5e-6
    assert got == pytest.approx({prefix + metric: value for metric, value in expected.items()}, rel=0, abs=tolerance)
    assert list(got) == [prefix + metric for metric in expected]
    assert all(type(value) is float for value in got.values())
    primary = "max" if len(functions or []) > 1 else (functions or ["cosine"])[0]
    assert evaluator.primary_metric == f"{prefix}spearman_{primary}"


@pytest.mark.parametrize(
    ("options", "primary", "expected"),
    [
        ({}, "spearman_cosine", {"pearson_cosine": 0.28190616720326406, "spearman_cosine": 0.3237888828998623}),
        (
            {"main_similarity": "dot"},
            "spearman_dot",
            {"pearson_dot": 0.30783274676283157, "spearman_dot": 0.3319579322066983},
        ),
        (
            {"main_similarity": "euclidean", "similarity_fn_names": ["cosine", "euclidean"]},
            "spearman_euclidean",
            {
                "pearson_cosine": 0.28190616720326406,
                "spearman_cosine": 0.3237888828998623,
                "pearson_euclidean": 0.2585615262894182,
                "spearman_euclidean": 0.2363189263763262,
                "pearson_max": 0.28190616720326406,
                "spearman_max": 0.3237888828998623,
            },
        ),
        (
            {"truncate_dim": 8},
            "spearman_cosine",
            {"pearson_cosine": 0.14590940471904945, "spearman_cosine": 0.13703997000447274},
        ),
        (
            {"truncate_dim": 16, "precision": "ubinary"},
            "spearman_cosine",
            {"pearson_cosine": 0.04400338620627311, "spearman_cosine": 0.0697596906874785},
        ),
    ],
)
def test_metrics_of_the_reference(options: dict[str, Any], primary: str, expected: dict[str, float]) -> None:
    # Written down from sentence-transformers 6.2.0.
    evaluator = EmbeddingSimilarityEvaluator(*scored_pairs(60), **options)
    assert evaluator.description == "Semantic Similarity"
    got = evaluator(FixedModel(32))
    assert got == pytest.approx(expected, rel=0, abs=1e-6)
    assert list(got) == list(expected)
    assert evaluator.primary_metric == primary


@pytest.mark.parametrize("precision", [None, "int8", "ubinary"])
def test_a_model_from_disk(precision: Any, model: SentenceTransformer) -> None:
    first, second, scores = scored_pairs(80)
    got = EmbeddingSimilarityEvaluator(first, second, scores, precision=precision)(model)
    rows = model.encode([*first, *second], normalize_embeddings=precision is not None, precision=precision or "float32")
    rows = np.unpackbits(rows, axis=1) if precision == "ubinary" else rows
    cosines = SimilarityFunction.COSINE.pairwise(rows[:80], rows[80:]).double().numpy()
    assert list(got) == ["pearson_cosine", "spearman_cosine"]
    assert got["pearson_cosine"] == pytest.approx(correlation(np.array(scores), cosines), abs=1e-6)
    assert got["spearman_cosine"] == pytest.approx(correlation(ranks(np.array(scores)), ranks(cosines)), abs=1e-6)


@pytest.mark.filterwarnings("ignore:all 10 scores are 0.5")
@pytest.mark.parametrize("constant", ["scores", "texts"])
@pytest.mark.parametrize("functions", [None, ["cosine", "dot"]])
def test_constant_input_gives_nan(
    constant: str, functions: list[str] | None, model: SentenceTransformer, tmp_path: Path
) -> None:
    first, second, scores = scored_pairs(10)
    if constant == "scores":
        scores = [0.5] * 10
    else:
        first, second = ["a cat"] * 10, ["a dog"] * 10
    evaluator = EmbeddingSimilarityEvaluator(first, second, scores, similarity_fn_names=functions)
    for each in (FixedModel(32), model):
        got = evaluator(each, tmp_path)
        assert len(got) == (6 if functions else 2)
        assert all(math.isnan(value) for value in got.values())
    columns, row = "cosine_pearson,cosine_spearman", "-1,-1,nan,nan"
    if functions:
        columns, row = f"{columns},dot_pearson,dot_spearman", f"{row},nan,nan"
    assert (tmp_path / FILE).read_bytes() == f"epoch,steps,{columns}\r\n{row}\r\n{row}\r\n".encode()


# ---- by hand --------------------------------------------------------------------------------------------------------


class ListedModel(FixedModel):
    """Pairs whose similarities are 1, 0 and -1."""

    def encode(self, texts: Sequence[str], **options: Any) -> np.ndarray:
        vectors = {"x": [1.0, 0.0], "y": [0.0, 1.0], "-x": [-1.0, 0.0]}
        return np.array([vectors[text] for text in texts], np.float32)


@pytest.mark.parametrize(
    ("scores", "pearson", "spearman"),
    [
        ([5, 4, 3], 1.0, 1.0),
        ([0, 1, 2], -1.0, -1.0),
        ([3, 0, 0], math.sqrt(0.75), math.sqrt(0.75)),
        ([10, 1, 0], 10 / math.sqrt(364 / 3), 1.0),
        ([True, False, False], math.sqrt(0.75), math.sqrt(0.75)),
        (np.array([1.0, 0.5, 0.0]), 1.0, 1.0),
    ],
)
def test_values_by_hand(scores: Any, pearson: float, spearman: float) -> None:
    got = EmbeddingSimilarityEvaluator(["x", "x", "x"], ["x", "y", "-x"], scores)(ListedModel())
    assert got == pytest.approx({"pearson_cosine": pearson, "spearman_cosine": spearman}, abs=1e-6)


def test_two_pairs_are_enough() -> None:
    got = EmbeddingSimilarityEvaluator(["x", "x"], ["x", "y"], [1, 0])(ListedModel())
    assert got == pytest.approx({"pearson_cosine": 1.0, "spearman_cosine": 1.0})


# ---- how it behaves -------------------------------------------------------------------------------------------------


def test_the_similarity_is_the_models_own(folder: Path) -> None:
    other = SentenceTransformer(folder, device="cpu", similarity_fn_name="manhattan")
    evaluator = EmbeddingSimilarityEvaluator(*scored_pairs(10))
    assert list(evaluator(other)) == ["pearson_manhattan", "spearman_manhattan"]
    other.similarity_fn_name = "dot"
    assert list(evaluator(other)) == ["pearson_dot", "spearman_dot"]
    assert evaluator.primary_metric == "spearman_dot"


def test_file_name_header_and_rows(model: SentenceTransformer, tmp_path: Path) -> None:
    evaluator = EmbeddingSimilarityEvaluator(*scored_pairs(10), name="dev", precision="int8")
    first = evaluator(model, tmp_path / "new" / "eval", epoch=0.25, steps=3)
    evaluator(model, tmp_path / "new" / "eval")
    (file,) = (tmp_path / "new" / "eval").iterdir()
    assert file.name == "similarity_evaluation_dev_int8_results.csv"
    assert file.read_bytes().count(b"\r\n") == 3
    with file.open(newline="", encoding="utf-8") as opened:
        header, row, last = csv.reader(opened)
    assert header == ["epoch", "steps", "cosine_pearson", "cosine_spearman"]
    assert row == ["0.25", "3", str(first["dev_pearson_cosine"]), str(first["dev_spearman_cosine"])]
    assert last[:2] == ["-1", "-1"]


@pytest.mark.parametrize(("write_csv", "output"), [(False, True), (True, False)])
def test_no_file_unless_asked_for(write_csv: bool, output: bool, model: SentenceTransformer, tmp_path: Path) -> None:
    evaluator = EmbeddingSimilarityEvaluator(*scored_pairs(5), write_csv=write_csv)
    evaluator(model, tmp_path / "eval" if output else None)
    assert list(tmp_path.iterdir()) == []


def test_evaluating_leaves_random_numbers_and_mode_alone(model: SentenceTransformer) -> None:
    before = torch.get_rng_state()
    evaluator = EmbeddingSimilarityEvaluator(*scored_pairs(10), batch_size=3)
    assert evaluator.primary_metric is None
    first = evaluator(model)
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training
    assert evaluator(model) == first


def test_batch_size_does_not_matter(model: SentenceTransformer) -> None:
    one = EmbeddingSimilarityEvaluator(*scored_pairs(30), batch_size=1)(model)
    assert EmbeddingSimilarityEvaluator(*scored_pairs(30))(model) == pytest.approx(one, rel=0, abs=1e-5)


def test_an_evaluator_of_ones_own(model: SentenceTransformer) -> None:
    class Dimension(Evaluator):
        def __call__(
            self, model: SentenceTransformer, output_path: Any = None, epoch: float = -1, steps: int = -1
        ) -> dict[str, float]:
            return self.named({"dim": float(model.get_sentence_embedding_dimension())}, primary="dim")

    evaluator = Dimension("own")
    assert evaluator(model) == {"own_dim": 32.0}
    assert evaluator.primary_metric == "own_dim"
    assert inspect.isabstract(Evaluator)


# ---- bad input ------------------------------------------------------------------------------------------------------

A, B = ["x", "y", "x"], ["y", "y", "-x"]


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "parts"),
    [
        ((A, B[:2], [1, 2, 3]), {}, InputError, ["3 and 2 sentences", "3 scores"]),
        ((A, B, [1, 2]), {}, InputError, ["3 and 3 sentences", "2 scores"]),
        ((A[:1], B[:1], [1]), {}, InputError, ["1 pair", "at least 2"]),
        (([], [], []), {}, InputError, ["0 pair", "at least 2"]),
        ((A, B, [1, math.nan, 3]), {}, InputError, ["scores[1] is nan", "finite number"]),
        ((A, B, [1, 2, math.inf]), {}, InputError, ["scores[2] is inf", "finite number"]),
        ((A, B, [1, None, 3]), {}, InputError, ["scores[1]", "finite number"]),
        ((A, B, ["1", "high", "3"]), {}, InputError, ["scores[1] is 'high'", "finite number"]),
        ((A, B, [[1], [2], [3]]), {}, InputError, ["scores", "number"]),
        ((["x", None, "x"], B, [1, 2, 3]), {}, InputTypeError, ["sentences1[1] is None", "expected a string"]),
        ((A, ["x", "y", 3], [1, 2, 3]), {}, InputTypeError, ["sentences2[2] is 3", "expected a string"]),
        (("xyz", B, [1, 2, 3]), {}, InputTypeError, ["sentences1", "str", "list of strings"]),
        ((None, B, [1, 2, 3]), {}, InputTypeError, ["sentences1", "NoneType", "list of strings"]),
        ((A, B, [1, 2, 3]), {"similarity_fn_names": ["cosine", "cos"]}, ConfigError, ["'cos'", "cosine, dot"]),
        ((A, B, [1, 2, 3]), {"main_similarity": "jaccard"}, ConfigError, ["'jaccard'", "cosine, dot"]),
        (
            (A, B, [1, 2, 3]),
            {"main_similarity": "dot", "similarity_fn_names": ["cosine"]},
            ConfigError,
            ["'dot'", "cosine"],
        ),
        ((A, B, [1, 2, 3]), {"precision": "int4"}, ConfigError, ["'int4'", "float32, int8, uint8, binary"]),
    ],
)
def test_what_cannot_be_evaluated(
    arguments: tuple[Any, ...], options: dict[str, Any], kind: type[MinisbertError], parts: list[str]
) -> None:
    with pytest.raises(kind) as caught:
        EmbeddingSimilarityEvaluator(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_scores_that_are_all_equal(model: SentenceTransformer) -> None:
    first, second, _ = scored_pairs(5)
    with pytest.warns(
        UserWarning, match="all 5 scores are 3; expected different ones: .* every metric is NaN"
    ) as caught:
        evaluator = EmbeddingSimilarityEvaluator(first, second, [3] * 5)
    assert caught[0].filename == __file__
    assert all(map(math.isnan, evaluator(model).values()))


def test_scores_are_logged(model: SentenceTransformer, caplog: pytest.LogCaptureFixture) -> None:
    evaluator = EmbeddingSimilarityEvaluator(*scored_pairs(5), name="dev")
    with caplog.at_level(logging.INFO, logger="minisbert"):
        metrics = SequentialEvaluator([evaluator])(model, epoch=1, steps=20)
    names = ("pearson_cosine", "spearman_cosine")
    scores = [f"dev_{name}: {metrics[f'dev_{name}']:.4f}" for name in names]
    title = f"{evaluator.description} on dev, epoch 1, step 20"
    last = f"sequential_score: {metrics['sequential_score']:.4f}"
    assert caplog.messages == [title, *scores, "Sequential, epoch 1, step 20", last]


def test_scores_of_functions_are_logged(model: SentenceTransformer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="minisbert"):
        as_evaluator(share)(model, epoch=1, steps=20)
    assert caplog.messages == ["share, epoch 1, step 20", "score: 1.0000"]


def test_dimensions_that_fill_no_bytes(model: SentenceTransformer) -> None:
    pairs = scored_pairs(5)
    scores = [
        EmbeddingSimilarityEvaluator(*pairs, precision=precision, truncate_dim=12)(model)
        for precision in ("binary", "ubinary")
    ]
    assert all(-1 <= value <= 1 for score in scores for value in score.values())


def test_a_place_that_cannot_be_written(model: SentenceTransformer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*file.*similarity_evaluation_results\.csv"):
        EmbeddingSimilarityEvaluator(*scored_pairs(5))(model, tmp_path / "file")


def test_unknown_options() -> None:
    with pytest.raises(TypeError, match="similarity_fn_name"):
        EmbeddingSimilarityEvaluator(A, B, [1, 2, 3], similarity_fn_name="dot")


# ---- functions as evaluators ----------------------------------------------------------------------------------------


def share(model: Any) -> float:
    return float(len(model.encode(["a cat"])))


def several(model: Any, output_path: Any, epoch: float, steps: int) -> dict[str, Any]:
    return {"epoch": epoch, "steps": np.int64(steps), "path": torch.tensor(output_path is None)}


class Named:
    primary_metric = "b"

    def __call__(self, model: Any) -> dict[str, float]:
        return {"a": 1.0, "b": 2.0}


@pytest.mark.filterwarnings("ignore:several evaluators have the metric score")
@pytest.mark.parametrize(
    ("function", "metrics", "primary"),
    [
        (share, {"score": 1.0}, "score"),
        (lambda model, scale=2: np.float32(scale), {"score": 2.0}, "score"),
        (several, {"epoch": 1.5, "steps": 7.0, "path": 1.0}, "epoch"),
        (Named(), {"a": 1.0, "b": 2.0}, "b"),
    ],
)
def test_a_function_is_an_evaluator(
    function: Any, metrics: dict[str, float], primary: str, model: SentenceTransformer
) -> None:
    evaluator = as_evaluator(function)
    assert evaluator(model, None, epoch=1.5, steps=7) == metrics
    assert evaluator.primary_metric == primary
    both = as_evaluator([function, share])
    assert both(model, None, epoch=1.5, steps=7)["sequential_score"] == 1.0


@pytest.mark.parametrize("value", [3, "spearman", EmbeddingSimilarityEvaluator, None])
def test_what_is_no_evaluator(value: Any) -> None:
    with pytest.raises(ConfigError, match="as evaluator; expected one, or a function of the model"):
        as_evaluator(value)


def test_a_function_that_takes_no_model() -> None:
    with pytest.raises(ConfigError, match="the evaluator lambda, which cannot be called with a model alone"):
        as_evaluator(lambda model, other: 1.0)


@pytest.mark.parametrize(
    "result",
    [
        *(None, "0.5 or so", {}, {"a": None}, [1.0], torch.ones(2), 10**400),
        *(np.complex64(1), {"a": np.complex64(1)}, {"a": 1.0, "b": np.complex64(1)}),
    ],
)
def test_a_function_that_returns_no_numbers(result: Any, model: SentenceTransformer) -> None:
    with pytest.raises(ConfigError, match="from the evaluator .*; expected a number or numbers by name: fix"):
        as_evaluator(lambda model: result)(model)


@pytest.mark.parametrize("result", [{1: 0.5, "1": 0.25}, {1.0: 0.5, "1.0": 0.25, "x": 1}])
def test_metrics_whose_names_are_one_as_text(result: Any, model: SentenceTransformer) -> None:
    for evaluator in (lambda model: result, [lambda model: result]):
        with pytest.raises(
            ConfigError, match="got metrics named .* from the evaluator lambda; expected each name once"
        ):
            as_evaluator(evaluator)(model)
    assert as_evaluator(lambda model: {1: 0.5, 2: 0.25})(model) == {"1": 0.5, "2": 0.25}


@pytest.mark.parametrize("primary", [3, ("score",), True])
def test_a_primary_metric_is_a_name(primary: Any) -> None:
    class Wrong(Named):
        primary_metric = primary

    for evaluator in (Wrong(), [share, Wrong()]):
        with pytest.raises(ConfigError, match="as primary_metric of Wrong; expected the name of a metric"):
            as_evaluator(evaluator)


def test_evaluate_takes_functions_too(model: SentenceTransformer, tmp_path: Path) -> None:
    assert model.evaluate(share) == {"score": 1.0}
    assert model.evaluate(lambda model, folder: folder, tmp_path) == tmp_path
    assert model.evaluate(lambda model, output_path=None: output_path, tmp_path) == tmp_path
    assert model.evaluate(lambda model, scale=2: scale, tmp_path) == {"score": 2.0}
    assert model.evaluate([share]) == {"score": 1.0, "sequential_score": 1.0}
    with pytest.raises(ConfigError, match="as evaluator; expected one"):
        model.evaluate("spearman")


def test_evaluate_calls_a_function_as_its_signature_allows(model: SentenceTransformer, tmp_path: Path) -> None:
    assert model.evaluate(lambda model, *, output_path=None: 1.0, tmp_path) == {"score": 1.0}
    assert model.evaluate(partial(lambda model, output_path: output_path, output_path=3)) == {"score": 3.0}
    assert model.evaluate(lambda model, **options: len(options)) == {"score": 0.0}
    assert model.evaluate(lambda *given, **options: len(given), tmp_path) == 2
    assert model.evaluate(lambda model, folder, epoch, steps: epoch + steps) == {"score": -2.0}
    for wrong in (lambda model, *, z: 1, lambda model, folder, z: 1):
        with pytest.raises(ConfigError, match="the evaluator lambda, which cannot be called with a model alone"):
            model.evaluate(wrong)
    with pytest.raises(ConfigError, match="as evaluator; expected one"):
        model.evaluate(model)
    circle: list[Any] = [share]
    circle.append(circle)
    with pytest.raises(ConfigError, match="got a list of evaluators that holds itself"):
        model.evaluate(circle)


@pytest.mark.parametrize("path", [5, b"x", "a\0b"])
def test_evaluate_into_what_is_no_folder(path: Any, model: SentenceTransformer) -> None:
    with pytest.raises(InputError, match="cannot make the folder .*; expected a path that can be written"):
        model.evaluate(share, path)


@pytest.mark.parametrize("evaluators", [None, share, 3])
def test_a_sequence_of_evaluators_is_a_list(evaluators: Any) -> None:
    with pytest.raises(ConfigError, match="as evaluators; expected several: put it in a list"):
        SequentialEvaluator(evaluators)
