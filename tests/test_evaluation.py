"""EmbeddingSimilarityEvaluator gives the reference's metrics, names and CSV files."""

from __future__ import annotations

import csv
import inspect
import math
import warnings
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from minisbert import SentenceTransformer
from minisbert.errors import ConfigError, InputError, InputTypeError, MinisbertError
from minisbert.evaluation import EmbeddingSimilarityEvaluator, Evaluator
from minisbert.similarity import quantize_embeddings

FUNCTIONS = ("cosine", "dot", "euclidean", "manhattan")
PRECISIONS = (None, "float32", "int8", "uint8", "binary", "ubinary")
WORDS = "the a cat dog sat on mat ran fast slow red blue sky sea tree one two three how what is why".split()


def pairs(count: int, *, seed: int = 0) -> tuple[list[str], list[str], list[float]]:
    """Random texts and scores."""
    draw = np.random.default_rng(seed)
    first, second = ([" ".join(draw.choice(WORDS, draw.integers(1, 12))) for _ in range(count)] for _ in range(2))
    return first, second, draw.random(count).round(3).tolist()


class FixedModel:
    """Gives every text an embedding of its own, whatever it is encoded with: for comparisons to the last bit."""

    similarity_fn_name = "cosine"
    model_card_data = SimpleNamespace(set_evaluation_metrics=lambda *arguments: None)

    def encode(
        self,
        texts: Sequence[str],
        *,
        normalize_embeddings: bool,
        precision: Any,
        truncate_dim: int | None,
        batch_size: int | None = None,
        show_progress_bar: bool = False,
        convert_to_numpy: bool = True,
    ) -> np.ndarray:
        rows = [np.random.default_rng(zlib.crc32(text.encode())).normal(size=32) for text in texts]
        values = torch.tensor(np.array(rows), dtype=torch.float32)[:, :truncate_dim]
        values = torch.nn.functional.normalize(values, dim=-1) if normalize_embeddings else values
        return quantize_embeddings(values, precision) if precision else values.numpy()


@pytest.fixture(scope="module")
def reference() -> Any:
    """The reference's evaluator."""
    return pytest.importorskip("sentence_transformers.sentence_transformer.evaluation").EmbeddingSimilarityEvaluator


@pytest.fixture(scope="module")
def folder(tiny: Callable[[str], Path]) -> Path:
    return tiny("bert")


@pytest.fixture(scope="module")
def model(folder: Path) -> SentenceTransformer:
    return SentenceTransformer(folder, device="cpu")


@pytest.fixture(scope="module")
def their_model(folder: Path) -> Any:
    package = pytest.importorskip("sentence_transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return package.SentenceTransformer(str(folder), device="cpu")


# ---- equal to the reference -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("functions", [None, ["dot"], ["manhattan", "cosine"], list(FUNCTIONS)])
@pytest.mark.parametrize("name", ["", "sts-dev"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_metrics_and_files_are_equal(
    functions: list[str] | None, name: str, precision: Any, reference: Any, tmp_path: Path
) -> None:
    options = {"similarity_fn_names": functions, "name": name, "precision": precision}
    ours, theirs = EmbeddingSimilarityEvaluator(*pairs(60), **options), reference(*pairs(60), **options)
    for epoch, steps in ((-1, -1), (0.5, 20), (1, 40)):
        got = ours(FixedModel(), tmp_path / "ours" / "eval", epoch=epoch, steps=steps)
        expected = theirs(FixedModel(), str(tmp_path / "theirs" / "eval"), epoch=epoch, steps=steps)
        assert got == expected
        assert list(got) == list(expected)
    assert ours.primary_metric == theirs.primary_metric
    assert ours.primary_metric in got
    assert ours.description == theirs.description
    files = {path.name: path.read_bytes() for path in (tmp_path / "ours" / "eval").iterdir()}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "theirs" / "eval").iterdir()}
    assert list(files) == [theirs.csv_file]


@pytest.mark.parametrize(
    "options",
    [
        {"main_similarity": "dot"},
        {"main_similarity": "euclidean", "similarity_fn_names": ["cosine", "euclidean"]},
        {"truncate_dim": 8},
        {"truncate_dim": 16, "precision": "ubinary"},
    ],
)
def test_options_are_equal(options: dict[str, Any], reference: Any) -> None:
    ours, theirs = EmbeddingSimilarityEvaluator(*pairs(60), **options), reference(*pairs(60), **options)
    got, expected = ours(FixedModel()), theirs(FixedModel())
    assert got == expected
    assert ours.primary_metric == theirs.primary_metric
    assert ours.primary_metric in got


@pytest.mark.parametrize(
    ("precision", "tolerance"), [(None, 1e-5), ("int8", 5e-3), ("uint8", 5e-3), ("binary", 1e-5), ("ubinary", 1e-5)]
)
@pytest.mark.parametrize("functions", [None, list(FUNCTIONS)])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_model_from_disk(
    precision: Any,
    tolerance: float,
    functions: list[str] | None,
    model: SentenceTransformer,
    their_model: Any,
    reference: Any,
) -> None:
    options = {"similarity_fn_names": functions, "precision": precision}
    ours, theirs = EmbeddingSimilarityEvaluator(*pairs(80), **options), reference(*pairs(80), **options)
    got, expected = ours(model), theirs(their_model)
    assert list(got) == list(expected)
    assert got == pytest.approx(expected, rel=0, abs=tolerance)
    assert all(type(value) is float for value in got.values())
    assert ours.primary_metric == theirs.primary_metric


@pytest.mark.parametrize("constant", ["scores", "texts"])
@pytest.mark.parametrize("functions", [None, ["cosine", "dot"]])
def test_constant_input_gives_nan(
    constant: str, functions: list[str] | None, reference: Any, model: SentenceTransformer, tmp_path: Path
) -> None:
    first, second, scores = pairs(10)
    if constant == "scores":
        scores = [0.5] * 10
    else:
        first, second = ["a cat"] * 10, ["a dog"] * 10
    got = EmbeddingSimilarityEvaluator(first, second, scores, similarity_fn_names=functions)(
        FixedModel(), tmp_path / "ours"
    )
    assert got
    assert all(math.isnan(value) for value in got.values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = reference(first, second, scores, similarity_fn_names=functions)(
            FixedModel(), str(tmp_path / "theirs")
        )
    assert list(got) == list(expected)
    file = "similarity_evaluation_results.csv"
    assert (tmp_path / "ours" / file).read_bytes() == (tmp_path / "theirs" / file).read_bytes()
    assert all(math.isnan(value) for value in EmbeddingSimilarityEvaluator(first, second, scores)(model).values())


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
    evaluator = EmbeddingSimilarityEvaluator(*pairs(10))
    assert list(evaluator(other)) == ["pearson_manhattan", "spearman_manhattan"]
    other.similarity_fn_name = "dot"
    assert list(evaluator(other)) == ["pearson_dot", "spearman_dot"]
    assert evaluator.primary_metric == "spearman_dot"


def test_file_name_header_and_rows(model: SentenceTransformer, tmp_path: Path) -> None:
    evaluator = EmbeddingSimilarityEvaluator(*pairs(10), name="dev", precision="int8")
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
    evaluator = EmbeddingSimilarityEvaluator(*pairs(5), write_csv=write_csv)
    evaluator(model, tmp_path / "eval" if output else None)
    assert list(tmp_path.iterdir()) == []


def test_evaluating_leaves_random_numbers_and_mode_alone(model: SentenceTransformer) -> None:
    before = torch.get_rng_state()
    evaluator = EmbeddingSimilarityEvaluator(*pairs(10), batch_size=3)
    assert evaluator.primary_metric is None
    first = evaluator(model)
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training
    assert evaluator(model) == first


def test_batch_size_does_not_matter(model: SentenceTransformer) -> None:
    one = EmbeddingSimilarityEvaluator(*pairs(30), batch_size=1)(model)
    assert EmbeddingSimilarityEvaluator(*pairs(30))(model) == pytest.approx(one, rel=0, abs=1e-5)


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


def test_dimensions_that_fill_no_bytes(model: SentenceTransformer) -> None:
    with pytest.raises(InputError, match="12 dimensions.*multiple of 8"):
        EmbeddingSimilarityEvaluator(*pairs(5), precision="binary", truncate_dim=12)(model)


def test_a_place_that_cannot_be_written(model: SentenceTransformer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*file.*similarity_evaluation_results\.csv"):
        EmbeddingSimilarityEvaluator(*pairs(5))(model, tmp_path / "file")


def test_unknown_options() -> None:
    with pytest.raises(TypeError, match="similarity_fn_name"):
        EmbeddingSimilarityEvaluator(A, B, [1, 2, 3], similarity_fn_name="dot")
