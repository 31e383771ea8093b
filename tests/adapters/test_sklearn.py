"""scikit-learn: pipelines, clones, searches over parameters, columns, caches and scikit-learn's own checks."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from minisbert import SentenceTransformer
from minisbert.errors import ConfigError, InputError, InputTypeError, ModelError

pytestmark = pytest.mark.filterwarnings("ignore")
pytest.importorskip("sklearn", minversion="1.6")

import joblib
from sklearn.base import BaseEstimator, clone
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.utils import estimator_checks
from sklearn.utils.validation import check_is_fitted

from minisbert.adapters.sklearn import SentenceEmbedder

LABELS = [0, 1, 0, 1] * 3
CHECKS = """check_estimator_cloneable check_estimator_tags_renamed check_valid_tag_types check_estimator_repr
    check_no_attributes_set_in_init check_do_not_raise_errors_in_init_or_set_params check_mixin_order
    check_parameters_default_constructible check_get_params_invariance check_set_params""".split()


@pytest.fixture
def rows(texts: list[str]) -> list[str]:
    return [f"{text} {number}" for number in range(3) for text in texts]


def test_embeddings_are_those_of_the_model(folder: Path, model: SentenceTransformer, texts: list[str]) -> None:
    pandas = pytest.importorskip("pandas")
    expected = model.encode(texts)
    for given in (model, str(folder)):
        embedder = SentenceEmbedder(given)
        series = pandas.Series(texts, index=range(5, 5 + len(texts)))
        for rows in (texts, tuple(texts), np.array(texts), np.array(texts, object)[:, None], series, series.to_frame()):
            assert np.array_equal(embedder.transform(rows), expected)
        assert np.array_equal(embedder.fit_transform(texts, LABELS[:4]), expected)
        assert embedder.transform([]).shape == (0, expected.shape[1])
        check_is_fitted(embedder)
    options = {"prompt": "x: ", "normalize_embeddings": True, "truncate_dim": 3, "batch_size": 2}
    assert np.array_equal(SentenceEmbedder(model, **options).transform(texts), model.encode(texts, **options))


def test_a_pipeline_predicts_and_pickles_by_name(folder: Path, model: SentenceTransformer, rows: list[str]) -> None:
    pipeline = make_pipeline(SentenceEmbedder(folder, device="cpu"), LogisticRegression()).fit(rows, LABELS)
    head = LogisticRegression().fit(model.encode(rows), LABELS)
    assert np.array_equal(pipeline.predict_proba(rows), head.predict_proba(model.encode(rows)))
    data = pickle.dumps(pipeline)
    assert len(data) < 10_000
    assert np.array_equal(pickle.loads(data).predict_proba(rows), pipeline.predict_proba(rows))
    loaded = make_pipeline(SentenceEmbedder(model), head)
    assert np.array_equal(pickle.loads(pickle.dumps(loaded)).predict_proba(rows), loaded.predict_proba(rows))


def test_clones_share_the_model(folder: Path, model: SentenceTransformer, texts: list[str]) -> None:
    embedder = SentenceEmbedder(model, truncate_dim=4)
    copied = clone(embedder)
    assert copied is not embedder
    assert copied.model is model
    assert copied.get_params() == embedder.get_params()
    assert clone(make_pipeline(embedder, LogisticRegression()))[0].model is model
    assert clone(SentenceEmbedder(folder))._encoder().load() is SentenceEmbedder(folder)._encoder().load()
    assert np.array_equal(copied.set_params(truncate_dim=2).transform(texts), model.encode(texts, truncate_dim=2))


def test_a_search_over_parameters_of_the_head_and_of_the_embedder(model: SentenceTransformer, rows: list[str]) -> None:
    pipeline = make_pipeline(SentenceEmbedder(model), LogisticRegression())
    dims, strengths = [2, 8, None], [0.1, 10.0]
    grid = {"sentenceembedder__truncate_dim": dims, "logisticregression__C": strengths}
    search = GridSearchCV(pipeline, grid, cv=3, error_score="raise").fit(rows, LABELS)
    points = search.cv_results_["params"]
    assert len(points) == 6
    for point, score in zip(points, search.cv_results_["mean_test_score"], strict=True):
        values = model.encode(rows, truncate_dim=point["sentenceembedder__truncate_dim"])
        head = LogisticRegression(C=point["logisticregression__C"])
        assert score == pytest.approx(cross_val_score(head, values, LABELS, cv=3).mean())
    assert search.best_estimator_[0].model is model


def test_columns_and_names(model: SentenceTransformer, texts: list[str]) -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"text": texts, "number": range(len(texts))})
    embedder = SentenceEmbedder(model, truncate_dim=3)
    names = ["sentenceembedder0", "sentenceembedder1", "sentenceembedder2"]
    assert embedder.get_feature_names_out().tolist() == names
    for column in ("text", ["text"]):
        columns = ColumnTransformer([("text", embedder, column)], remainder="passthrough")
        found = columns.set_output(transform="pandas").fit_transform(table)
        assert found.columns.tolist() == [*(f"text__{name}" for name in names), "remainder__number"]
        assert np.array_equal(found.iloc[:, :3].to_numpy(np.float32), model.encode(texts, truncate_dim=3))
    series = pandas.Series(texts, index=list("abcd"))
    framed = clone(embedder).set_output(transform="pandas").fit_transform(series)
    assert framed.columns.tolist() == names
    assert framed.index.tolist() == list("abcd")
    joined = FeatureUnion([("a", embedder), ("b", embedder)]).fit(texts)
    assert len(joined.get_feature_names_out()) == joined.transform(texts).shape[1] == 6


def test_hashes_of_caches_know_the_weights(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "model"
    shutil.copytree(folder, place)
    before = joblib.hash(SentenceEmbedder(place))
    assert joblib.hash(SentenceEmbedder(place)) == before
    model = SentenceTransformer(place, device="cpu")
    next(model.parameters()).data.mul_(-1)
    model.save_pretrained(place)
    assert joblib.hash(SentenceEmbedder(place)) != before
    loaded = joblib.hash(SentenceEmbedder(model))
    next(model.parameters()).data.mul_(-1)
    assert joblib.hash(SentenceEmbedder(model)) != loaded


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_of_scikit_learn_that_needs_no_table_of_numbers(name: str, folder: Path) -> None:
    estimator = SentenceEmbedder(str(folder))
    assert isinstance(estimator, BaseEstimator)
    getattr(estimator_checks, name)("SentenceEmbedder", estimator)


def test_wrong_input(model: SentenceTransformer, texts: list[str]) -> None:
    embedder = SentenceEmbedder(model)
    with pytest.raises(InputTypeError, match="got one text, 'a cat'; expected several: put it in a list"):
        embedder.transform("a cat")
    with pytest.raises(InputTypeError, match="got nan in row 1; expected a text: fill or drop it"):
        embedder.fit(["a", float("nan")])
    with pytest.raises(InputError, match=r"got an array of shape \(4, 2\); expected texts: choose one column"):
        embedder.transform(np.array([texts, texts]).T)
    with pytest.raises(ModelError, match="expected a model folder or a name"):
        SentenceEmbedder("./nowhere").fit(texts)
    with pytest.raises(ConfigError, match="got device='cpu' with a loaded model"):
        SentenceEmbedder(model, device="cpu").fit(texts)
    with pytest.raises(ValueError, match="Invalid parameter 'truncate'"):
        embedder.set_params(truncate=3)
