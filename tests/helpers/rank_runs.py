"""What processes of a run do together, checked in the processes themselves: under torchrun this file does its acts.

python rank_runs.py FOLDER ACT ...; in a block of `alone` a process is the only one of a run.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from common import scored_pairs
from training_cases import log

from minisbert import SentenceTransformer, Trainer, TrainingConfig, losses
from minisbert.compat.losses import CosineSimilarityLoss
from minisbert.compat.model import SentenceTransformer as CompatModel
from minisbert.compat.training.arguments import SentenceTransformerTrainingArguments
from minisbert.compat.training.trainer import SentenceTransformerTrainer
from minisbert.distributed import alone, gather_objects, processes, rank, sharing, world_size
from minisbert.errors import ConfigError, DivergenceError, InputError, PoolError, TrainingTerminated
from minisbert.evaluation import EmbeddingSimilarityEvaluator
from minisbert.model.encoding import EncodingRun
from minisbert.training import watch
from minisbert.training.checkpoint import Checkpoint
from minisbert.training.dataset import TrainingDataset
from minisbert.training.history import TrainingHistory

ROWS = 35
SETTINGS: dict[str, Any] = {"epochs": 2, "batch_size": 4, "learning_rate": 1e-3, "log_every": 1}


def trainer(folder: Path, output: Path | None = None, *, dropout: bool = False, **given: Any) -> Trainer:
    first, second, scores = scored_pairs(ROWS, seed=1)
    data = {"a": first, "b": second, "label": scores}
    loss = given.pop("loss", None) or losses.CosineSimilarityLoss()
    if not loss.takes_labels:
        del data["label"]
        data["b"] = [f"{text} {number}" for number, text in enumerate(second)]
    options = {name: given.pop(name) for name in ("evaluator", "eval_data") if name in given}
    model = SentenceTransformer(folder / ("dropping" if dropout else "model"), device="cpu")
    config = TrainingConfig(**{**SETTINGS, **given})
    return Trainer(model, data, loss=loss, config=config, output_dir=output, show_progress_bar=False, **options)


def weights(of: Trainer) -> torch.Tensor:
    return torch.cat([one.detach().flatten() for one in of.model.parameters()])


def of_losses(entries: list[dict[str, float]]) -> list[float]:
    return [entry["loss"] for entry in entries]


def same_in_all(value: Any) -> None:
    first, *others = gather_objects(value)
    assert all(other == first for other in others)


@contextmanager
def taken_rows() -> Any:
    """The rows of each batch that this process makes."""
    taken: list[list[int]] = []
    batch = TrainingDataset.batch

    def noted(self: TrainingDataset, rows: Any, *, dataset: int = 0) -> Any:
        taken.append(rows.tolist())
        return batch(self, rows, dataset=dataset)

    TrainingDataset.batch = noted  # type: ignore[method-assign]
    try:
        yield taken
    finally:
        TrainingDataset.batch = batch  # type: ignore[method-assign]


# ---- acts -----------------------------------------------------------------------------------------------------------


def encode(folder: Path) -> None:
    model = SentenceTransformer(folder / "model", device="cpu")
    texts: list[Any] = [*scored_pairs(36, seed=2)[0], ("a cat", "a dog")]
    plain = model.encode(texts)
    for options in ({}, {"convert_to_tensor": True}, {"out": np.empty_like(plain)}, {"batch_size": 5}):
        with sharing():
            found = model.encode(texts, **options)
        assert np.abs(np.asarray(found) - plain).max() < 1e-6
        same_in_all(np.asarray(found).tobytes())
    with sharing():
        assert (
            np.abs(model.encode(texts, precision="int8").astype(int) - model.encode(texts, precision="int8")).max() == 0
        )
        assert np.abs(model.encode(texts[0]) - plain[0]).max() < 1e-6
        assert len(model.encode(texts, output_value="token_embeddings")) == len(texts)
        assert model.encode([]).shape == (0,) or len(model.encode([])) == 0
    assert len(model.encode(texts[: 3 + rank()])) == 3 + rank()  # of this process alone
    with sharing(), pytest.raises(ConfigError, match="with processes that have 3, 4"):
        model.encode(texts[: 3 + rank()])
    strict = SentenceTransformer(folder / "model", device="cpu", truncation="error")
    with sharing(), pytest.raises(InputError, match="1 of 4 texts are longer"):  # in the first part
        strict.encode(["the " * 200, "a", "b", "c"])
    embed = EncodingRun._embed
    if rank() == 1:
        EncodingRun._embed = full
    with sharing(), pytest.raises(InputError, match="the disk is full"):  # in all, if one has it
        model.encode(texts)
    EncodingRun._embed = embed
    limited = SentenceTransformer(folder / "model", device="cpu", truncation="count")
    with sharing():
        limited.encode(["the " * 200, "a", "b", "the " * 200])
    assert limited.truncated_texts == 2


def evaluate(folder: Path) -> None:
    first, second, scores = scored_pairs(23, seed=4)
    held_out = {"a": first, "b": second, "label": scores}

    def run(output: Path, **given: Any) -> tuple[Trainer, TrainingHistory]:
        made = trainer(
            folder,
            output,
            eval_data=held_out,
            evaluator=EmbeddingSimilarityEvaluator(first, second, scores),
            eval_every=2,
            eval_batch_size=4,
            keep_best=True,
            metric_for_best_model="eval_loss",
            early_stopping_patience=2,
            early_stopping_threshold=1e-4,
            **given,
        )
        return made, made.train()

    together, other = run(folder / "together")
    with alone():
        single, one = run(folder / f"single-{rank_of_all()}", gradient_accumulation=world_size_of_all())
    assert [entry.keys() for entry in other.entries] == [entry.keys() for entry in one.entries]
    for entry, expected in zip(other.entries, one.entries, strict=True):
        for name in entry.keys() - {"tokens_per_second"}:
            assert entry[name] == pytest.approx(expected[name], abs=2e-5), name
    assert (other.best_step, other.stopped_early) == (one.best_step, one.stopped_early)
    assert torch.allclose(weights(together), weights(single), atol=1e-5)
    same_in_all(weights(together).numpy().tobytes())
    same_in_all(str([{**entry, "tokens_per_second": 0} for entry in other.entries]))
    (written,) = (folder / "together" / "eval").glob("*.csv")
    (expected_file,) = (folder / "single-0" / "eval").glob("*.csv")
    assert len(written.read_text().splitlines()) == len(expected_file.read_text().splitlines())
    assert log(folder / "together") == [{k: v for k, v in e.items() if k != "tokens_per_second"} for e in other.entries]

    # A metric that differs decides the same in all, as that of the first process counts; and so do terms.
    generator = np.random.default_rng(rank())
    ended = trainer(folder, evaluator=lambda model: generator.random(), eval_every=1, early_stopping_patience=2)
    same_in_all(ended.train().steps)
    terms = trainer(folder, loss=losses.GlobalOrthogonalRegularizationLoss(), eval_data=held_out_texts(held_out))
    with alone():
        expected_terms = trainer(
            folder,
            loss=losses.GlobalOrthogonalRegularizationLoss(),
            eval_data=held_out_texts(held_out),
            gradient_accumulation=world_size_of_all(),
        ).train()
    found = terms.train().entries[-1]
    for name, value in expected_terms.entries[-1].items():
        assert found[name] == pytest.approx(value, abs=1e-5)


def held_out_texts(held_out: dict[str, Any]) -> dict[str, Any]:
    return {"a": held_out["a"], "b": held_out["b"]}


def world_size_of_all() -> int:
    return int(os.environ["WORLD_SIZE"])


def resume(folder: Path) -> None:
    ranks = world_size()
    # As many processes: bit for bit, with dropout; the log too.
    whole = trainer(folder, folder / "whole", dropout=True, save_every=3)
    whole.train()
    if rank() == 0:
        (folder / "again").mkdir()
        shutil.copytree(folder / "whole" / "checkpoint-3", folder / "again" / "checkpoint-3")
    gather_objects(0)
    again = trainer(folder, folder / "again", dropout=True, save_every=3)
    again.train(resume=True)
    assert torch.equal(weights(again), weights(whole))
    assert log(folder / "again") == log(folder / "whole")
    state = Checkpoint(folder / "whole" / "checkpoint-3", 3).state()
    assert len(state["other_processes"]) == ranks - 1
    assert not torch.equal(state["rng"], state["other_processes"][0]["rng"])

    # Other numbers of processes, without dropout.
    scores, ranking = losses.CosineSimilarityLoss(), losses.MultipleNegativesRankingLoss(gather_across_devices=True)
    for name, loss in (("scores", scores), ("gathered", ranking)):
        together = trainer(folder, folder / name, loss=loss, save_every=3)
        entries = together.train().entries
        same = {"batch_size": 4 * ranks} if name == "gathered" else {"gradient_accumulation": ranks}
        with alone():
            output = copy(folder / name / "checkpoint-3", folder / f"{name}-{rank_of_all()}-same")
            fewer = trainer(folder, output, loss=loss, save_every=3, **same)
            history = fewer.train(resume=True)
            assert of_losses(history.entries) == pytest.approx(of_losses(entries), abs=1e-5)
            # A global batch of another size goes on with the rows that are left.
            output = copy(folder / name / "checkpoint-3", folder / f"{name}-{rank_of_all()}-other")
            other = trainer(folder, output, loss=loss, save_every=3)
            with taken_rows() as taken:
                history = other.train(resume=True)
            done = 3 * 4 * ranks  # of 35 in the first epoch
            first = [row for batch in taken for row in batch][: ROWS - done]
            second = [row for batch in taken for row in batch][ROWS - done :]
            assert len(set(first)) == ROWS - done
            assert sorted(second) == list(range(ROWS))
            assert history.steps == 3 + -(-(ROWS - done) // 4) + -(-ROWS // 4)
            assert history.entries[-1]["epoch"] == 2
            assert history.entries[-1]["learning_rate"] == pytest.approx(1e-3 / (history.steps), rel=1e-6)
            # That run, interrupted once more, ends as it did.
            twice = copy(output / "checkpoint-6", folder / f"{name}-{rank_of_all()}-twice")
            last = trainer(folder, twice, loss=loss, save_every=3)
            last.train(resume=True)
            assert torch.equal(weights(last), weights(other))
    # From one process to several.
    with alone():
        single = trainer(folder, folder / f"single-run-{rank_of_all()}", save_every=4, gradient_accumulation=ranks)
        entries = single.train().entries
    output = folder / "several"
    if rank() == 0:
        copy(folder / "single-run-0" / "checkpoint-4", output)
    gather_objects(0)
    history = trainer(folder, output, save_every=4).train(resume=True)
    assert of_losses(history.entries) == pytest.approx(of_losses(entries), abs=1e-5)
    # Batches of another size cannot be made of the rest of this epoch.
    with pytest.raises(ConfigError, match="batch_size was 4 and is 2"):
        trainer(folder, folder / "whole", dropout=True, save_every=3, batch_size=2).train(resume=True)
    apart = {"loss": ranking, "save_every": 3, "batch_sampler": "no_duplicates"}
    trainer(folder, folder / "apart", **apart).train()
    with alone(), pytest.raises(ConfigError, match=f"so that the processes have {4 * ranks} rows together"):
        trainer(folder, copy(folder / "apart" / "checkpoint-3", folder / f"apart-{rank_of_all()}"), **apart).train(
            resume=True
        )


def copy(checkpoint: Path, output: Path) -> Path:
    output.mkdir()
    shutil.copytree(checkpoint, output / checkpoint.name)
    return output


def ends(folder: Path) -> None:
    """The processes end together, whatever ends one of them."""

    def at(step: int, what: Any) -> Any:
        calls = iter(range(1, 100))

        def evaluator(model: Any) -> float:
            if next(calls) == step:
                what()
            return 0.0

        return evaluator

    def only(number: int, what: Any) -> Any:
        return what if rank() == number else lambda: None

    received = only(1, lambda: signal.raise_signal(signal.SIGTERM))
    stopped = trainer(folder, folder / "stopped", dropout=True, eval_every=1, evaluator=at(3, received))
    with pytest.raises(TrainingTerminated, match="stopped after step 3 of 10") as error:
        stopped.train()
    assert error.value.checkpoint == folder / "stopped" / "checkpoint-3"
    again = trainer(folder, folder / "stopped", dropout=True, eval_every=1, evaluator=at(0, received))
    again.train(resume=True)
    whole = trainer(folder, dropout=True)
    whole.train()
    assert torch.equal(weights(again), weights(whole))

    with pytest.raises(ConfigError, match="holds checkpoints of an earlier run") as told:
        trainer(folder, folder / "stopped").train()
    assert told.value.told == (rank() > 0)
    diverges = trainer(folder, loss=Diverging(), max_steps=20)
    with pytest.raises(DivergenceError, match="the gradients of 10 steps in a row") as diverged:
        diverges.train()
    same_in_all(str(diverged.value))
    assert diverged.value.told == (rank() > 0)

    save = Checkpoint.save
    if rank() == 0:
        Checkpoint.save = full  # type: ignore[method-assign,assignment]
    with pytest.raises(InputError, match="the disk is full"):
        trainer(folder, folder / "full", save_every=2).train()
    Checkpoint.save = save  # type: ignore[method-assign]

    def fails() -> None:
        raise ValueError("the evaluator failed")

    trainer_ = trainer(folder, eval_every=1, evaluator=at(2, only(1, fails)))
    if rank() == 1:
        trainer_.train()  # and its process ends
    with pytest.raises(PoolError, match=r"got no answer from rank 1 \(ValueError: the evaluator failed\)"):
        trainer_.train()
    sys.stdout.write("rank 0 was told\n")


def full(*arguments: Any, **options: Any) -> Any:
    raise InputError("the disk is full")


class Diverging(losses.CosineSimilarityLoss):
    """Its value is NaN in the first process, which has a batch in every step."""

    def forward(self, embeddings: Any, labels: Any = None) -> Any:
        return super().forward(embeddings, labels) * (1.0 if rank_of_all() else float("nan"))


def rank_of_all() -> int:
    return int(os.environ["RANK"])


def dies(folder: Path) -> None:
    """Rank 1 is killed at step 5 of its first life; torchrun starts both again, which go on."""
    first_life = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    calls = iter(range(1, 100))

    def evaluator(model: Any) -> float:
        if next(calls) == 5 and rank() == 1 and first_life:
            os.kill(os.getpid(), getattr(signal, os.environ.get("HOW", "SIGKILL")))
        return 0.0

    made = trainer(folder, folder / "killed", dropout=True, save_every=2, eval_every=1, evaluator=evaluator)
    try:
        made.train(resume=True)
    except PoolError as error:
        sys.stdout.write(f"rank {rank()}: {error}\n")
        raise
    whole = trainer(folder, dropout=True)
    whole.train()
    assert torch.equal(weights(made), weights(whole))
    sys.stdout.write(f"rank {rank()} ends as if nothing had been\n")


class Steps:
    """A callback that notes each step with its epoch, and that of the start."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, float]] = []

    def on_init_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        assert state.is_world_process_zero == state.is_local_process_zero == (rank_of_all() == 0)

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        assert state.is_world_process_zero == (rank_of_all() == 0)
        self.seen.append((state.global_step, round(state.epoch, 6)))

    on_step_end = on_train_begin


def compat(folder: Path) -> None:
    first, second, scores = scored_pairs(ROWS, seed=1)
    output = folder / "compat"

    def run(**given: Any) -> tuple[SentenceTransformerTrainer, Steps]:
        steps, model = Steps(), CompatModel(str(folder / "model"), device="cpu")
        made = SentenceTransformerTrainer(
            model,
            SentenceTransformerTrainingArguments(str(output), 4, 2, save_steps=3, logging_steps=1, **given),
            {"a": first, "b": second, "label": scores},
            loss=CosineSimilarityLoss(model),
            callbacks=[steps],
        )
        return made, steps

    made, steps = run()
    made.train()
    # As in the reference: 9 batches are 5 for each of two processes, and callbacks are called in both.
    assert steps.seen == [(step, step / 5) for step in range(11)]
    same_in_all([steps.seen, made.state.log_history[:-1]])
    assert made.state.num_train_epochs == 2
    with alone():  # 24 rows of the first epoch are done
        output = copy(folder / "compat" / "checkpoint-3", folder / f"compat-{rank_of_all()}")
        made, steps = run()
        made.train(resume_from_checkpoint=True)
        assert made.state.num_train_epochs == 2
        epochs = [6, 7, 8, *range(9, 19)]  # in batches of 9 a pass
        assert steps.seen == [(3 + at, round(batches / 9, 6)) for at, batches in enumerate(epochs)]


if __name__ == "__main__":
    torch.set_num_threads(1)
    watch._EVERY = float(os.environ.get("LOOK", watch._EVERY))
    with processes(torch.device("cpu")):
        for act in sys.argv[2:]:
            globals()[act](Path(sys.argv[1]))
