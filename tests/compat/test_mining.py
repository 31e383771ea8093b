"""Mining with the reference's arguments: data sets, options of the reference, embeddings that are kept."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import Angles

from minisbert.compat.mining import mine_hard_negatives
from minisbert.errors import ConfigError, InputError

datasets = pytest.importorskip("datasets")
ROWS = {"question": ["0", "90"], "answer": ["10", "95"], "number": [1, 2]}
CORPUS = ["20", "40", "70", "101"]


def mine(model: Any = None, rows: Any = None, **options: Any) -> Any:
    dataset = datasets.Dataset.from_dict(ROWS if rows is None else rows)
    return mine_hard_negatives(
        dataset, Angles() if model is None else model, corpus=CORPUS, **{"verbose": False, **options}
    )


class Pooled(Angles):
    """Notes the processes it is asked for."""

    def __init__(self) -> None:
        self.log: list[Any] = []

    def start_multi_process_pool(self, target_devices: Any = None) -> str:
        self.log.append(target_devices)
        return "pool"

    def stop_multi_process_pool(self, pool: str) -> None:
        self.log.append(f"end of {pool}")

    def embed(self, texts: list[str]) -> Any:
        self.log.append(len(texts))
        return super().embed(texts)


class Judge:
    """A cross-encoder for angles."""

    def __init__(self) -> None:
        self.options: list[dict[str, Any]] = []

    def predict(self, pairs: list[tuple[str, str]], **options: Any) -> Any:
        self.options.append(options)
        return np.array([abs(float(a) - float(b)) for a, b in pairs])


def test_from_data_set_to_data_set() -> None:
    got = mine(num_negatives=2)
    assert isinstance(got, datasets.Dataset)
    assert got[:] == {
        "question": ["0", "0", "90", "90"],
        "answer": ["10", "10", "95", "95"],
        "negative": ["20", "40", "101", "70"],
    }
    pairs = mine(num_negatives=1, output_format="labeled-pair")
    assert pairs["label"][:] == [1, 0, 1, 0]
    lists = mine(num_negatives=1, output_format="labeled-list")
    assert lists["labels"][:] == [[1, 0], [1, 0]]
    assert mine(num_negatives=1, output_format="labeled-list", output_scores=True).column_names[-1] == "scores"


def test_an_anchor_among_its_negatives() -> None:
    rows = {"a": ["0", "40", "90"], "b": ["10", "0", "95"]}
    assert mine(rows=rows, num_negatives=1)["negative"][0] == "0"


def test_draws_from_pythons_own_random_numbers() -> None:
    options = {"sampling_strategy": "random", "num_negatives": 1, "range_max": 5}
    found = []
    for seed in range(8):
        random.seed(seed)
        found.append(tuple(mine(**options)["negative"]))
    assert len(set(found)) > 2


def test_old_arguments(caplog: pytest.LogCaptureFixture) -> None:
    assert mine(as_triplets=False, num_negatives=1).column_names == ["question", "answer", "negative_1"]
    assert mine(as_triplets=True, num_negatives=1).column_names == ["question", "answer", "negative"]
    assert mine(margin=0.1)[:] == mine(absolute_margin=0.1)[:]
    assert mine(output_format="n-tuple-scores", num_negatives=1).column_names[-1] == "scores"
    ranked = mine(include_positives=True, num_negatives=2)
    assert ranked["negative_1"][0] == "10"
    assert [record.message.split()[2] for record in caplog.records[:3]] == ["as_triplets", "as_triplets", "margin"]


def test_columns_that_are_not_there() -> None:
    with pytest.warns(UserWarning, match="column_name='nor?', none of") as said:
        assert mine(anchor_column_name="no", positive_column_name="nor").column_names[:2] == ["question", "answer"]
    assert len(said) == 2
    assert mine(anchor_column_name="answer", positive_column_name="question").column_names[:2] == ["answer", "question"]


def test_options_that_change_nothing() -> None:
    expected = mine()[:]
    assert mine(use_faiss=True, faiss_batch_size=3)[:] == expected
    assert mine(use_multi_process=False, cache_folder=None)[:] == expected


def test_processes() -> None:
    model = Pooled()
    got = mine(model, use_multi_process=["cpu", "cpu"])
    assert got[:] == mine()[:]
    assert model.log == [["cpu", "cpu"], 2, 6, "end of pool"]
    assert model.query_options["pool"] == "pool"
    model = Pooled()
    mine(model, use_multi_process=True)
    assert model.log[0] is None


def test_embeddings_are_kept(tmp_path: Path) -> None:
    model = Pooled()
    expected = mine(model, cache_folder=str(tmp_path / "new"))[:]
    assert expected == mine()[:]
    names = sorted(path.name.split("_")[0] for path in (tmp_path / "new").iterdir())
    assert names == ["corpus", "query"]
    assert mine(model, cache_folder=str(tmp_path / "new"), use_multi_process=True)[:] == expected
    assert model.log == [2, 6]
    mine(model, cache_folder=str(tmp_path / "new"), query_prompt="ask: ")
    assert model.log == [2, 6, 2]


def test_cross_encoders() -> None:
    judge = Judge()
    got = mine(cross_encoder=judge, max_score=60, num_negatives=1, batch_size=5)
    assert got["negative"][:] == ["40", "40"]
    assert all(options == {"batch_size": 5, "convert_to_tensor": True} for options in judge.options)
    with pytest.warns(UserWarning, match="it is not used"):
        assert mine(cross_encoder=judge)[:] == mine()[:]


def test_a_summary(capsys: pytest.CaptureFixture[str]) -> None:
    mine(verbose=True)
    assert "mined 6 rows for 2 anchors" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"faiss_batch_size": 0}, "got faiss_batch_size=0"),
        ({"num_negatives": 0}, "got num_negatives=0"),
        ({"range_min": 5, "range_max": 5}, "range_max"),
        ({"output_format": "pairs"}, "got output_format 'pairs'"),
        ({"rows": {"a": [], "b": []}}, "no rows"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, InputError), match=message):
        mine(**options)
