"""Training in several processes: the steps of one process, rows that none loses, and one that writes and prints."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import zip_longest
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rank_cases
import tiny_models
import torch
from launch import launch
from places import HELPERS
from rank_cases import CASES, OF_FOUR

from minisbert import SentenceTransformer, Trainer, TrainingConfig, distributed, losses
from minisbert.cli import main
from minisbert.data.roles import training_rows
from minisbert.data.sampling import EpochSampler
from minisbert.distributed import launched
from minisbert.errors import ConfigError, PoolError
from minisbert.losses import base
from minisbert.training import dataset
from minisbert.training.dataset import TrainingBatch, TrainingBatches

# ---- the environment ------------------------------------------------------------------------------------------------

MEETING = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (
            {"RANK": "0", "WORLD_SIZE": "two", **MEETING},
            "got WORLD_SIZE='two' in the environment; expected a whole number",
        ),
        (
            {"RANK": "0", "WORLD_SIZE": "0", **MEETING},
            "got WORLD_SIZE='0' in the environment; expected a whole number from 1",
        ),
        ({"RANK": "", "WORLD_SIZE": "2", **MEETING}, "got RANK='' in the environment; expected a whole number from 0"),
        ({"RANK": "2", "WORLD_SIZE": "2", **MEETING}, "got RANK=2 and WORLD_SIZE=2; expected a rank below it"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "got WORLD_SIZE=2 and no MASTER_ADDR in the environment; expected both"),
        ({"RANK": "0", "WORLD_SIZE": "2", **MEETING, "MASTER_PORT": "a"}, "got MASTER_PORT='a' in the environment"),
    ],
)
def test_an_environment_that_no_launcher_sets(
    environment: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE", *MEETING):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"{message}.*: start it with torchrun, or unset WORLD_SIZE"):
        launched()


def test_a_variable_alone_is_no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv("RANK", raising=False)
        monkeypatch.delenv("WORLD_SIZE", raising=False)
        monkeypatch.setenv(name, "2")
        assert not launched()


def test_processes_that_do_not_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    monkeypatch.setattr(distributed, "TIMEOUT", timedelta(seconds=1))
    with (
        pytest.raises(
            PoolError, match=r"rank 1 of 2 has not met the others at 127.0.0.1:1 \(.*\); expected all of them"
        ),
        distributed.processes(torch.device("cpu")),
    ):
        pass


# ---- which rows a process gets --------------------------------------------------------------------------------------


class _Rows:
    """Takes the place of a data set: a batch has its rows as labels, and a row has one token."""

    def batch(self, rows: np.ndarray, *, dataset: int) -> TrainingBatch:
        return TrainingBatch(dataset, (), (), torch.from_numpy(rows), len(rows))

    def tokens_of(self, rows: np.ndarray) -> int:
        return len(rows)


def _steps(
    monkeypatch: pytest.MonkeyPatch, processes: int, *, rows: int, seed: int = 1, shared: bool, accumulation: int
) -> Iterator[list[Any]]:
    """Yield for each step what each process computes of it, after checking that all count the same steps."""
    data = training_rows({"a": [f"a {i}" for i in range(rows)], "b": [f"b {i}" for i in range(rows)]})
    sampler = EpochSampler([data], batch_size=2 * (processes if shared else 1), seed=seed)
    of_each = []
    for number in range(processes):
        monkeypatch.setattr(dataset, "rank", lambda number=number: number)
        monkeypatch.setattr(dataset, "world_size", lambda: processes)
        batches = TrainingBatches(
            [_Rows()],  # type: ignore[list-item]
            [""],
            sampler,
            accumulation=accumulation,
            shared=shared,
            on_epoch_start=lambda: None,
        )
        of_each.append(list(batches.steps(0, batches.steps_per_epoch)))
    yield from (list(steps) for steps in zip_longest(*of_each))


@pytest.mark.parametrize("rows", [11, 9, 16, 1])
@pytest.mark.parametrize("processes", [1, 2, 3, 4])
@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("shared", [False, True])
def test_every_row_is_in_one_process(
    monkeypatch: pytest.MonkeyPatch, rows: int, processes: int, accumulation: int, shared: bool
) -> None:
    """An epoch has every row once, in whichever process; the shares of a step add up to 1, and rows count alike."""
    steps = list(_steps(monkeypatch, processes, rows=rows, shared=shared, accumulation=accumulation))
    seen = [row for step in steps for own in step for batch in own.batches for row in batch.labels.tolist()]
    assert sorted(seen) == list(range(rows))
    for step in steps:
        batches = [batch for own in step for batch in own.batches]
        assert sum(1 / batch.divisor for batch in batches) == pytest.approx(1)
        assert {own.tokens for own in step} == {sum(batch.tokens for batch in batches)}
        if shared:
            assert len({round(len(batch.labels) * batch.divisor, 9) for batch in batches}) <= accumulation
            assert len({sum(batch.shared for batch in own.batches) for own in step}) == 1


def test_batches_in_turn_and_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    (step, *_) = _steps(monkeypatch, 2, rows=8, shared=False, accumulation=2)
    order = EpochSampler([training_rows({"a": list("abcdefgh"), "b": list("ijklmnop")})], batch_size=2, seed=1)
    first = [batch.rows.tolist() for batch in order.epoch(0)]
    assert [[batch.labels.tolist() for batch in own.batches] for own in step] == [first[::2], first[1::2]]
    (step, *_) = _steps(monkeypatch, 2, rows=8, shared=True, accumulation=1)
    assert [[batch.labels.tolist() for batch in own.batches] for own in step] == [[first[0]], [first[1]]]


def test_gathered_rows_follow_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss of two halves that gather is that of the whole; without gradients, and in one process, none gather."""
    torch.manual_seed(0)
    columns = [torch.randn(6, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    for kind in (losses.MultipleNegativesRankingLoss, losses.CachedMultipleNegativesRankingLoss):
        options = {"directions": rank_cases.ALL, "hardness_mode": "all_negatives", "hardness_strength": 2.0}
        whole, half = kind(**options), kind(**options, gather_across_devices=True)
        assert half.get_config_dict()["gather_across_devices"] is True
        expected = whole(columns)
        assert half(columns).item() == pytest.approx(expected.item(), rel=1e-12)
        values = []
        for own, others in ((slice(3), slice(3, 6)), (slice(3, 6), slice(3))):
            with monkeypatch.context() as patch:
                patch.setattr(base, "world_size", lambda: 2)
                gathered = torch.cat([torch.cat([part[own], part[others]]) for part in columns], dim=1)
                patch.setattr(base, "gather_rows", lambda _, gathered=gathered, **__: gathered)
                values.append(half([part[own] for part in columns]))
                with torch.no_grad():
                    assert half([part[own] for part in columns]) == whole([part[own] for part in columns])
        assert (sum(values) / 2).item() == pytest.approx(expected.item(), rel=1e-12)
        got, wanted = (torch.autograd.grad(value, columns) for value in (sum(values) / 2, expected))
        for one, other in zip(got, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


# ---- processes ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    tiny_models.without_dropout(folder / "model")
    columns = rank_cases.rows(CASES["gathered, stored"])
    lines = ["\t".join(row) for row in (list(columns), *zip(*columns.values(), strict=True))]
    (folder / "pairs.tsv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def of(place: Path) -> Callable[[int], SimpleNamespace]:
    """What so many processes made of the cases: runs, digests of weights and observations, by process."""
    found: dict[int, SimpleNamespace] = {}

    def made(processes: int) -> SimpleNamespace:
        if processes not in found:
            launch(HELPERS / "rank_cases.py", place, *(OF_FOUR if processes == 4 else ()), processes=processes).check()
            runs, digests, observed = torch.load(place / f"runs-{processes}.pt")
            found[processes] = SimpleNamespace(runs=runs, digests=digests, observed=observed)
        return found[processes]

    return made


@pytest.mark.ranks
@pytest.mark.parametrize(("name", "processes"), [*((name, 2) for name in CASES), *((name, 4) for name in OF_FOUR)])
def test_they_train_as_one(name: str, processes: int, of: Callable[[int], SimpleNamespace], place: Path) -> None:
    """Losses, norms, rates and weights of 20 steps, of epochs that end unevenly."""
    entries, weights = of(processes).runs[name]
    expected_entries, expected = rank_cases.train(CASES[name], place, times=processes)
    exact = CASES[name].dtype == "float64"
    assert len(entries) == len(expected_entries) >= rank_cases.STEPS
    for entry, other in zip(entries, expected_entries, strict=True):
        assert entry.keys() == other.keys()
        for key in entry.keys() - {"tokens_per_second"}:
            if exact or key == "loss":
                assert entry[key] == pytest.approx(other[key], abs=1e-9 if exact else 1e-5, rel=1e-9 if exact else 0), (
                    key
                )
    if exact:
        assert max(float((weights[key] - expected[key]).abs().max()) for key in expected) <= 1e-9
    assert len({of_one[name] for of_one in of(processes).digests}) == 1  # the same bits in all processes


@pytest.mark.ranks
def test_what_the_processes_see(of: Callable[[int], SimpleNamespace], place: Path) -> None:
    first, second = of(2).observed
    for seen in (first, second):
        assert "replay='6.2' in 2 processes; expected one" in seen["replay"]
        assert "got other rows, losses or settings" in seen["other rows"]
        assert "got other rows, losses or settings" in seen["other settings"]
        assert seen["skipped"] == 1  # in both, as the loss of one is not finite
    assert first["weights"] == second["weights"]
    assert first["twice"] == second["twice"]
    assert first["twice"][0][0] > first["twice"][0][1] > 0
    assert not first["twice"][1]  # what a run has joined, it leaves
    assert first["drawn"] != second["drawn"]  # dropout
    assert [entry["step"] for entry in first["entries"]] == [1, 2, 3, 4]
    assert not second["entries"]
    assert len((place / "out" / "train_log.jsonl").read_text().splitlines()) == 4


@pytest.mark.ranks
def test_what_they_exchange(of: Callable[[int], SimpleNamespace]) -> None:
    first, second = of(2).observed
    for seen in (first, second):
        assert seen["sums"] == [[3, 3], 2, [[1, 1], [1, 1]]]
        assert seen["rows"] == [10, 11]  # the first process has none
        assert seen["alone"] == [0, 1, 0, 1, 2]
        assert seen["first"] == "of 0"
    assert second["gradients"] == [3, 3, 0]  # what both losses ask of a row


@pytest.mark.ranks
def test_the_command(place: Path, tmp_path: Path) -> None:
    """It prints once, and trains and saves as one process with batches twice as large does."""
    data = tmp_path / "rows.jsonl"
    rows = rank_cases.rows(CASES["gathered"])
    lines = [json.dumps(dict(zip(rows, row, strict=True))) for row in zip(*rows.values(), strict=True)]
    data.write_text("\n".join(lines))

    def arguments(output: str, batch_size: int) -> list[str]:
        fixed = ["--model", str(place / "model"), "--data", str(data), "--loss", "mnrl", "--device", "cpu"]
        size = ["--batch-size", str(batch_size), "--output", str(tmp_path / output)]
        return ["train", *fixed, *size, "--epochs", "2", "--log-every", "1", "--gather-across-devices"]

    ended = launch("-m", "minisbert", *arguments("two", 4)).check()
    assert ended.output.count("starting: 35 rows") == 1
    assert ended.output.count("the model is in") == 1
    assert main(arguments("one", 8)) == 0
    two, one = (
        [json.loads(line) for line in (tmp_path / name / "train_log.jsonl").read_text().splitlines()]
        for name in ("two", "one")
    )
    assert len(two) == len(one) == 10
    assert max(abs(a["loss"] - b["loss"]) for a, b in zip(two, one, strict=True)) <= 1e-5
    assert (tmp_path / "two" / "model.safetensors").is_file()
    assert main(["train", *arguments("no", 8)[1:], "--loss", "cosine"]) == 2


@pytest.mark.ranks
def test_the_command_that_evaluates(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two processes share the texts, and one prints what a process alone does."""
    data = tmp_path / "pairs.tsv"
    data.write_text("".join(f"the cat {'is red ' * (n % 5)}\ta dog {n}\t{n % 7}\n" for n in range(40)))
    arguments = ["evaluate", str(place / "model"), "--sts", str(data), "--json", "--device", "cpu"]
    data.write_text("a\tb\tscore\n" + data.read_text())
    ended = launch("-m", "minisbert", *arguments).check()
    (line,) = (line for line in ended.output.splitlines() if line.startswith("{"))
    assert main(arguments) == 0
    alone = json.loads(capsys.readouterr().out)
    assert json.loads(line) == pytest.approx(alone, abs=1e-5)


@pytest.fixture(scope="module")
def theirs(place: Path) -> Path:
    """What two processes of the reference write."""
    launch(HELPERS / "reference_ranks.py", place).check()
    return place


@pytest.mark.ranks
@pytest.mark.parity
def test_the_reference_loses_rows(theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 11 rows in batches of 2, two processes of it leave out 3 in an epoch; here both go on, to the last row."""
    its = [json.loads((theirs / f"reference-{number}.json").read_text()) for number in range(2)]
    steps = list(_steps(monkeypatch, 2, rows=11, seed=42, shared=False, accumulation=1))
    ours = [[batch.labels.tolist() for step in steps for batch in step[number].batches] for number in range(2)]
    assert [[len(batch) for batch in batches] for batches in its] == [[2, 2], [2, 2]]
    assert [[len(batch) for batch in batches] for batches in ours] == [[2, 2, 2], [2, 2, 1]]
    assert [batches[:2] for batches in ours] == its  # the same rows in the same processes, as far as its go


@pytest.mark.ranks
@pytest.mark.parity
def test_the_reference_gathers_to_the_same_weights(theirs: Path) -> None:
    """Two processes of it that gather learn what one process here learns from batches twice as large."""
    texts = [f"a {i}" for i in range(12)]
    model = SentenceTransformer(str(theirs / "model"), device="cpu")
    before = model.encode(texts)
    config = TrainingConfig(epochs=1, batch_size=4, learning_rate=1e-3)
    data = {"anchor": texts, "positive": [f"b {i}" for i in range(12)]}
    Trainer(model, data, loss=losses.MultipleNegativesRankingLoss(), config=config, show_progress_bar=False).train()
    expected = np.load(theirs / "reference.npy")
    assert np.abs(before - expected).max() > 0.02
    assert np.abs(model.encode(texts) - expected).max() < 1e-4
