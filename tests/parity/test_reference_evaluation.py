"""EmbeddingSimilarityEvaluator gives the reference's metrics, names and CSV files."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from common import PRECISIONS, difference, scored_pairs
from fixed_model import FixedModel

from minisbert import SentenceTransformer
from minisbert.evaluation import EmbeddingSimilarityEvaluator

package = pytest.importorskip("sentence_transformers")
reference = pytest.importorskip("sentence_transformers.sentence_transformer.evaluation").EmbeddingSimilarityEvaluator
pytestmark = pytest.mark.parity

FUNCTIONS = ["cosine", "dot", "euclidean", "manhattan"]


def files_that_differ(ours: Path, theirs: Path) -> tuple[int, int]:
    """Files that are not in both folders with the same bytes; and how many there are."""
    left, right = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in (ours, theirs))
    assert right
    return sum(left.get(name) != right.get(name) for name in {*left, *right}), len(right)


def same_names(ours: Any, theirs: Any, got: dict[str, float], expected: dict[str, float]) -> None:
    """Metrics in the reference's order, and its primary one."""
    assert list(got) == list(expected)
    assert ours.primary_metric == theirs.primary_metric
    assert ours.primary_metric in got


@pytest.mark.parametrize("functions", [None, ["dot"], ["manhattan", "cosine"], FUNCTIONS])
@pytest.mark.parametrize("name", ["", "sts-dev"])
@pytest.mark.parametrize("precision", [None, *PRECISIONS])
def test_metrics_and_files(
    functions: list[str] | None, name: str, precision: Any, compare: Callable[..., None], tmp_path: Path
) -> None:
    options = {"similarity_fn_names": functions, "name": name, "precision": precision}
    ours = EmbeddingSimilarityEvaluator(*scored_pairs(60), **options)
    theirs = reference(*scored_pairs(60), **options)
    for epoch, steps in ((-1, -1), (0.5, 20), (1, 40)):
        got = ours(FixedModel(32), tmp_path / "ours" / "eval", epoch=epoch, steps=steps)
        expected = theirs(FixedModel(32), str(tmp_path / "theirs" / "eval"), epoch=epoch, steps=steps)
        same_names(ours, theirs, got, expected)
        largest = difference(list(got.values()), list(expected.values()))
        compare("EmbeddingSimilarityEvaluator: metrics", largest, 0, cases=len(got))
    assert ours.description == theirs.description
    differing, files = files_that_differ(tmp_path / "ours" / "eval", tmp_path / "theirs" / "eval")
    compare("EmbeddingSimilarityEvaluator: CSV files", differing, 0, cases=files)


@pytest.mark.parametrize(
    "options",
    [
        {"main_similarity": "dot"},
        {"main_similarity": "euclidean", "similarity_fn_names": ["cosine", "euclidean"]},
        {"truncate_dim": 8},
        {"truncate_dim": 16, "precision": "ubinary"},
    ],
)
def test_options(options: dict[str, Any], compare: Callable[..., None]) -> None:
    ours = EmbeddingSimilarityEvaluator(*scored_pairs(60), **options)
    theirs = reference(*scored_pairs(60), **options)
    got, expected = ours(FixedModel(32)), theirs(FixedModel(32))
    same_names(ours, theirs, got, expected)
    largest = difference(list(got.values()), list(expected.values()))
    compare("EmbeddingSimilarityEvaluator: metrics", largest, 0, cases=len(got))


@pytest.mark.parametrize("precision", [None, "int8", "uint8", "binary", "ubinary"])
@pytest.mark.parametrize("functions", [None, FUNCTIONS])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_model_from_disk(
    precision: Any, functions: list[str] | None, tiny: Callable[[str], Path], compare: Callable[..., None]
) -> None:
    options = {"similarity_fn_names": functions, "precision": precision}
    ours = EmbeddingSimilarityEvaluator(*scored_pairs(80), **options)
    theirs = reference(*scored_pairs(80), **options)
    got = ours(SentenceTransformer(tiny("bert"), device="cpu"))
    expected = theirs(package.SentenceTransformer(str(tiny("bert")), device="cpu"))
    same_names(ours, theirs, got, expected)
    # A difference in the last bits of an embedding can move one of its numbers by one of 256 steps.
    steps = precision in ("int8", "uint8")
    compare(
        f"EmbeddingSimilarityEvaluator: metrics of own models{', 8 bits' if steps else ''}",
        difference(list(got.values()), list(expected.values())),
        5e-3 if steps else 1e-5,
        cases=len(got),
    )


@pytest.mark.filterwarnings("ignore:all 10 scores are 0.5")
@pytest.mark.parametrize("constant", ["scores", "texts"])
@pytest.mark.parametrize("functions", [None, ["cosine", "dot"]])
def test_constant_input_gives_nan(
    constant: str, functions: list[str] | None, compare: Callable[..., None], tmp_path: Path
) -> None:
    first, second, scores = scored_pairs(10)
    if constant == "scores":
        scores = [0.5] * 10
    else:
        first, second = ["a cat"] * 10, ["a dog"] * 10
    options = {"similarity_fn_names": functions}
    got = EmbeddingSimilarityEvaluator(first, second, scores, **options)(FixedModel(32), tmp_path / "ours")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy's, of constant input
        expected = reference(first, second, scores, **options)(FixedModel(32), str(tmp_path / "theirs"))
    assert list(got) == list(expected)
    assert all(math.isnan(value) for value in [*got.values(), *expected.values()])
    differing, files = files_that_differ(tmp_path / "ours", tmp_path / "theirs")
    compare("EmbeddingSimilarityEvaluator: CSV files", differing, 0, cases=files)
