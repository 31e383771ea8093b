"""Runs of several processes that one process repeats: started under torchrun, this file makes them and keeps them.

With gathered embeddings, one process with batches N times as large makes the same steps; without, one process that
accumulates N times as many batches does.
"""

from __future__ import annotations

import copy
import hashlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from minisbert import SentenceTransformer, Trainer, TrainingConfig, distributed, losses
from minisbert.distributed import (
    alone,
    broadcast_object,
    gather_objects,
    gather_rows,
    processes,
    rank,
    sum_in_buckets,
    world_size,
)
from minisbert.errors import MinisbertError
from minisbert.training.checkpoint import seeded

STEPS = 20
Made = Callable[[SentenceTransformer, bool], Any]  # a loss of the model, and of whether it gathers


@dataclass
class Case:
    """A run.

    Attributes:
        loss: makes the loss.
        gathers: it gathers embeddings.
        rows: to train on; the epochs end unevenly.
        settings: of the configuration.
        dtype: of the weights.
        labelled: rows have a score.
        several: two data sets, the second without gathering.
        stored: rows of `pairs.tsv` in the folder, tokenized into a store by the process that comes first.
    """

    loss: Made
    gathers: bool = False
    rows: int = 35
    settings: dict[str, Any] = field(default_factory=dict)
    dtype: str = "float64"
    labelled: bool = False
    several: bool = False
    stored: bool = False


def _named(name: str, **options: Any) -> Made:
    def made(model: SentenceTransformer, gathers: bool) -> Any:
        gathered = {"gather_across_devices": True} if gathers else {}
        return getattr(losses, name)(model, **options, **gathered)

    return made


def _guided(name: str) -> Made:
    def made(model: SentenceTransformer, gathers: bool) -> Any:
        guide = copy.deepcopy(model).eval()
        next(guide.parameters()).data.roll(1, 0)
        return getattr(losses, name)(model, guide, gather_across_devices=gathers)

    return made


def _sized(model: SentenceTransformer, gathers: bool) -> Any:
    return losses.MatryoshkaLoss(model, _RANKING(model, gathers), [32, 16, 8], n_dims_per_step=2)


def _layers(model: SentenceTransformer, gathers: bool) -> Any:
    return losses.AdaptiveLayerLoss(model, _RANKING(model, gathers))


def _classes(model: SentenceTransformer, gathers: bool) -> Any:
    return losses.SoftmaxLoss(model, model.get_sentence_embedding_dimension(), 2).double()


ALL: Any = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
_RANKING, _CACHED = _named("MultipleNegativesRankingLoss"), "CachedMultipleNegativesRankingLoss"
_HARD = {"directions": ALL, "hardness_mode": "in_batch_negatives", "hardness_strength": 5.0}
_TWICE = {"gradient_accumulation": 2}
CASES = {
    "scores": Case(_named("CosineSimilarityLoss"), labelled=True),
    "scores twice": Case(_named("CosineSimilarityLoss"), settings=_TWICE, labelled=True),
    "scores in float32": Case(_named("CosineSimilarityLoss"), dtype="float32", labelled=True),
    "order": Case(_named("CoSENTLoss"), labelled=True),
    "classes": Case(_classes, labelled=True),
    "terms": Case(_named("GlobalOrthogonalRegularizationLoss")),
    "ranking": Case(_RANKING),
    "ranking, no duplicates": Case(_RANKING, settings={"batch_sampler": "no_duplicates"}),
    "cached": Case(_named(_CACHED, mini_batch_size=3), settings=_TWICE),
    "gathered": Case(_RANKING, gathers=True),
    "gathered in float32": Case(_RANKING, gathers=True, dtype="float32"),
    "gathered to a single row": Case(_RANKING, gathers=True, rows=33),
    "gathered, no duplicates": Case(_RANKING, gathers=True, settings={"batch_sampler": "no_duplicates"}),
    "gathered, every direction": Case(_named("MultipleNegativesRankingLoss", **_HARD), gathers=True, settings=_TWICE),
    "gathered, symmetric": Case(_named("MultipleNegativesSymmetricRankingLoss"), gathers=True),
    "gathered, cached": Case(_named(_CACHED, mini_batch_size=3), gathers=True),
    "gathered, cached, every direction": Case(_named(_CACHED, mini_batch_size=3, **_HARD), gathers=True),
    "gathered, guided": Case(_guided("GISTEmbedLoss"), gathers=True),
    "gathered, guided, cached": Case(_guided("CachedGISTEmbedLoss"), gathers=True),
    "gathered, some sizes": Case(_sized, gathers=True, rows=33),
    "gathered, a layer": Case(_layers, gathers=True, rows=33),
    "gathered, stored": Case(_RANKING, gathers=True, settings={"batch_sampler": "no_duplicates"}, stored=True),
    "a copy": Case(_named("ContrastiveTensionLoss")),
    "some frozen": Case(
        _RANKING, settings={"weight_decay": 0.1, "gradient_checkpointing": True, "freeze": ["embeddings"]}
    ),
    "gathered, two data sets": Case(_RANKING, gathers=True, rows=32, several=True),
}
OF_FOUR = ("scores twice", "order", "gathered to a single row", "gathered, cached, every direction")


def rows(case: Case) -> dict[str, list[Any]]:
    """Texts of different lengths, some of them repeated, with a score if the case wants one."""
    words = "the a cat dog sat on mat ran fast slow red blue sky sea tree one two three how what is why".split()
    count = range(case.rows)
    made: dict[str, list[Any]] = {
        "anchor": [" ".join(words[(i % 20 * 7 + k * 3) % len(words)] for k in range(2 + i % 20 % 6)) for i in count],
        "positive": [" ".join(words[(i * 5 + k) % len(words)] for k in range(1 + i % 4)) + f" {i}" for i in count],
    }
    if case.labelled:
        made["label"] = [i % 2 for i in count]
    return made


def train(case: Case, folder: Path, *, times: int = 1) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    """Train a model, in `times` processes or as they would; return the entries of the log and the weights."""
    alone = times // world_size()  # 1 under torchrun
    settings = {"batch_size": 4, "max_steps": STEPS, "log_every": 1, "learning_rate": 1e-3, **case.settings}
    if case.gathers:
        settings["batch_size"] *= alone
    else:
        settings["gradient_accumulation"] = alone * settings.get("gradient_accumulation", 1)
    model = SentenceTransformer(str(folder / "model"), device="cpu").to(getattr(torch, case.dtype))
    torch.manual_seed(5 + rank())  # for the weights of the loss; those of process 0 count
    loss, data = case.loss(model, case.gathers), rows(case)
    if rank():
        torch.nn.init.zeros_(next(model.parameters()))
    if case.several:
        loss, data = {"a": loss, "b": loss}, {"a": data, "b": rows(replace(case, rows=16))}
    stored = {"token_store": folder / "stores"} if case.stored else {}
    data = str(folder / "pairs.tsv") if case.stored else data
    config = TrainingConfig(**settings)
    history = Trainer(model, data, loss=loss, config=config, show_progress_bar=False, **stored).train()
    assert history.steps == STEPS
    return history.entries, model.state_dict()


# ---- what else is seen in a process ---------------------------------------------------------------------------------


class _Unlucky(losses.CosineSimilarityLoss):
    """Returns NaN in the third batch of the second process."""

    calls = 0

    def forward(self, embeddings: Any, labels: Any = None) -> torch.Tensor:
        self.calls += 1
        value = super().forward(embeddings, labels)
        return value * (float("nan") if os.environ["RANK"] == "1" and self.calls == 3 else 1)


def _message(work: Callable[[], Any]) -> str:
    try:
        work()
    except MinisbertError as error:
        return str(error)
    return ""


def _observations(folder: Path) -> dict[str, Any]:
    """Return what a process sees of errors, of a step that is skipped, and of the files and messages of a run."""
    model, labelled = SentenceTransformer(str(folder / "model"), device="cpu"), rows(Case(_RANKING, labelled=True))

    def trainer(data: Any = labelled, loss: Any = None, **settings: Any) -> Trainer:
        config = TrainingConfig(**{"batch_size": 4, "max_steps": 5, **settings})
        return Trainer(model, data, loss=loss or losses.CosineSimilarityLoss(), config=config, show_progress_bar=False)

    own = {name: column[rank() :] for name, column in labelled.items()}
    seen: dict[str, Any] = {
        "replay": _message(trainer(replay="6.2").train),
        "other rows": _message(trainer(own).train),
        "other settings": _message(trainer(learning_rate=1e-3 + rank()).train),
        "skipped": trainer(loss=_Unlucky()).train().skipped_steps,
        "entries": [],
    }
    out = folder / "out"
    Trainer(
        model,
        labelled,
        loss=losses.CosineSimilarityLoss(),
        config=TrainingConfig(batch_size=4, max_steps=4, log_every=1),
        output_dir=out,
        on_log=seen["entries"].append,
    ).train()
    with seeded(7, model.device):
        seen["drawn"] = torch.rand(2).tolist()
    return seen | {"weights": _digest(model.state_dict())} | _exchanged()


def _exchanged() -> dict[str, Any]:
    """Return what a process gets of tensors of all: sums in buckets, uneven rows with gradients, objects."""
    distributed._BUCKET = 3
    sums = [torch.full((2,), rank() + 1.0), torch.ones((), dtype=torch.float64), torch.full((2, 2), 0.5).T]
    sum_in_buckets(sums)
    rows = torch.arange(3.0, requires_grad=True)
    gathered = gather_rows(rows[: 2 * rank()] + 10 * rank(), own_first=True)
    (gathered * (rank() + 1)).sum().backward()
    with alone():
        by_itself = [rank(), world_size(), *gather_rows(rows).tolist()]
    return {
        "sums": [tensor.tolist() for tensor in sums],
        "rows": gathered.tolist(),
        "gradients": [] if rows.grad is None else rows.grad.tolist(),
        "alone": by_itself,
        "first": broadcast_object(f"of {rank()}"),
    }


def _digest(weights: dict[str, torch.Tensor]) -> str:
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in weights.values())).hexdigest()


def _twice(folder: Path) -> tuple[list[float], bool]:
    """Return the losses of two runs, each of which joins the processes, and whether they are joined afterwards."""
    model = SentenceTransformer(str(folder / "model"), device="cpu")
    config = TrainingConfig(batch_size=4, max_steps=3)
    runs = [
        Trainer(model, rows(CASES["ranking"]), loss=losses.MultipleNegativesRankingLoss(), config=config).train()
        for _ in range(2)
    ]
    return [run.train_loss for run in runs], torch.distributed.is_initialized()


if __name__ == "__main__":
    torch.set_num_threads(1)
    place, names = Path(sys.argv[1]), sys.argv[2:]
    twice = None if names else _twice(place)
    with processes(torch.device("cpu")):
        made = {name: train(CASES[name], place, times=world_size()) for name in names or CASES}
        digests = gather_objects({name: _digest(weights) for name, (_, weights) in made.items()})
        observed = gather_objects({} if names else _observations(place) | {"twice": twice})
        if rank() == 0:
            torch.save((made, digests, observed), place / f"runs-{world_size()}.pt")
