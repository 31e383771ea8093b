"""The gradient cache: the gradients of one batch, the same dropout twice, flat memory, and whole runs."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import WORDS
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from training_cases import log

from minisbert import SentenceTransformer, Trainer, TrainingConfig, losses
from minisbert.data.roles import training_rows
from minisbert.errors import ConfigError, InputError
from minisbert.packing import PackedBatch
from minisbert.training.dataset import TrainingBatch, TrainingDataset
from minisbert.training.gradient_cache import GradientCache
from minisbert.training.loop import Engine
from minisbert.training.schedules import make_schedule

BOUND = 1e-6  # of the largest element
SIZES: tuple[dict[str, Any], ...] = (
    {"mini_batch_size": 1},
    {"mini_batch_size": 4},
    {"mini_batch_size": 7},
    {"mini_batch_size": 1000},
    {"mini_batch_num_tokens": 1},
    {"mini_batch_num_tokens": 25},
)
NAMES = ("MultipleNegativesRankingLoss", "MultipleNegativesSymmetricRankingLoss", "GISTEmbedLoss")


def load(folder: Path, *, dropout: bool = True) -> SentenceTransformer:
    model = SentenceTransformer(folder, device="cpu")
    if not dropout:
        for module in model.modules():
            for name in ("dropout", "weight_dropout", "output_dropout"):
                if isinstance(getattr(module, name, None), float):
                    setattr(module, name, 0.0)
    return model.train()


def rows_of(count: int, columns: int = 2) -> list[tuple[str, ...]]:
    draw = np.random.default_rng(3)
    return [tuple(" ".join(draw.choice(WORDS, draw.integers(1, 9))) for _ in range(columns)) for _ in range(count)]


def batch_of(model: SentenceTransformer, count: int, columns: int = 2) -> TrainingBatch:
    rows = TrainingDataset(training_rows(rows_of(count, columns)), model.transformer.tokenizer)
    return rows.batch(np.arange(count))


def engine(model: SentenceTransformer, *of: losses.Loss, precision: Any = "fp32") -> Engine:
    schedule = make_schedule("linear", highest=1e-3, warmup=0, total=1)
    return Engine(model, of, [], schedule, TrainingConfig(precision=precision))


def made(name: str, model: SentenceTransformer, **options: Any) -> losses.Loss:
    guided = {"guide": copy.deepcopy(model).eval(), "temperature": 0.1} if "GIST" in name else {}
    loss: losses.Loss = getattr(losses, name)(model, **guided, **options)
    return loss


def step(run: Engine, batches: Sequence[TrainingBatch]) -> tuple[Tensor, list[Tensor]]:
    """Return the loss of a step from seed 1, and the gradients of all parameters, which are dropped."""
    torch.manual_seed(1)
    value = run.backward(batches)
    gradients = [parameter.grad.to_dense() for parameter in run.parameters if parameter.grad is not None]
    for parameter in run.parameters:
        parameter.grad = None
    return value.detach(), gradients


def share(got: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Largest difference as a share of the largest element."""
    left, right = (torch.cat([part.float().flatten() for part in parts]) for parts in (got, expected))
    return float((left - right).abs().max() / right.abs().max())


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Embed each mini-batch once, with all that backward needs: the definition."""

    def embed(self: GradientCache, mini: Sequence[PackedBatch]) -> Tensor:
        return torch.cat([self.embed(texts) for texts in mini])

    return lambda: monkeypatch.setattr(GradientCache, "__call__", embed)


# ---- value and gradients --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", SIZES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_the_plain_loss(name: str, options: dict[str, Any], tiny: Callable[[str], Path]) -> None:
    """Without dropout; pairs and hard negatives, an odd number of rows, two batches with one loss each."""
    model = load(tiny("bert"), dropout=False)
    for columns in (2, 3):
        batches = [batch_of(model, 11, columns), batch_of(model, 5, columns)._replace(dataset=1)]
        plain, cached = made(name, model), made(f"Cached{name}", model, **options)
        value, gradients = step(engine(model, cached, copy.copy(cached)), batches)
        expected, wanted = step(engine(model, plain, copy.copy(plain)), batches)
        assert share([value], [expected]) <= BOUND
        assert share(gradients, wanted) <= BOUND


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("options", SIZES, ids=str)
@pytest.mark.parametrize("architecture", ["bert", "mpnet", "distilbert"])
def test_dropout_is_drawn_again(
    architecture: str, options: dict[str, Any], precision: str, tiny: Callable[[str], Path], once: Callable[[], None]
) -> None:
    """The second embedding has the dropout of the first, and the generator goes on after the first."""
    model = load(tiny(architecture))
    run = engine(model, losses.CachedMultipleNegativesRankingLoss(**options), precision=precision)
    batches = [batch_of(model, 9, 3), batch_of(model, 4, 3)]
    value, gradients = step(run, batches)
    state = torch.get_rng_state()
    once()
    expected, wanted = step(run, batches)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(value, expected)
    assert share(gradients, wanted) <= (BOUND if precision == "fp32" else 2e-2)  # bf16 sums in another order


def test_a_frozen_part(tiny: Callable[[str], Path]) -> None:
    """Gradients go to the parameters that are trained, and to no others."""
    model = load(tiny("bert"), dropout=False)
    for parameter in model.transformer.auto_model.embeddings.parameters():
        parameter.requires_grad = False
    batch = [batch_of(model, 6)]
    value, gradients = step(engine(model, losses.CachedMultipleNegativesRankingLoss(mini_batch_size=4)), batch)
    expected, wanted = step(engine(model, losses.MultipleNegativesRankingLoss()), batch)
    assert len(gradients) == len(wanted)
    assert share([value, *gradients], [expected, *wanted]) <= BOUND


def test_sparse_gradients_stay_small(tiny: Callable[[str], Path]) -> None:
    """The word table's gradient has not more entries than rows and a mini-batch's tokens, however many texts."""
    model = load(tiny("bert"), dropout=False)
    table = model.transformer.auto_model.embeddings.word
    batch = batch_of(model, 128)
    run = engine(model, losses.CachedMultipleNegativesRankingLoss(mini_batch_size=4))
    _, wanted = step(run, [batch])
    table.sparse = True
    run.backward([batch])
    assert table.weight.grad._nnz() <= len(table.weight) < batch.tokens
    assert share([table.weight.grad.to_dense()], [wanted[0]]) <= BOUND


# ---- memory ---------------------------------------------------------------------------------------------------------


class Live(TorchDispatchMode):
    """Count the bytes of tensors that live at a time, of those that operations make."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.peak = 0, 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for one in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(one, Tensor) and not one.is_sparse:
                self._add(one.untyped_storage())
        return result

    def _add(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


def peak(run: Engine, batch: TrainingBatch) -> int:
    gc.collect()
    with Live() as live:
        step(run, [batch])
    return live.peak


def test_memory_does_not_grow_with_the_batch(tiny: Callable[[str], Path]) -> None:
    """512 pairs take what a mini-batch takes, beside embeddings, random states and a tile's row of scores."""
    model = load(tiny("bert"))
    cached = engine(model, losses.CachedMultipleNegativesRankingLoss(mini_batch_size=8))
    plain = engine(model, losses.MultipleNegativesRankingLoss())
    small, large = batch_of(model, 16), batch_of(model, 512)
    few, many = peak(cached, small), peak(cached, large)
    states = (2 * 512 // 8) * 5056
    embeddings = 2 * 512 * 32 * 4
    assert many - few <= states + 12 * embeddings + 24 * large.tokens
    assert peak(plain, large) >= 4 * many


# ---- runs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", [f"Cached{name}" for name in NAMES])
def test_resume_is_bitwise(name: str, precision: Any, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    """Two data sets, accumulated gradients, an evaluation; a run that is resumed ends with the same weights."""
    data = {"first": rows_of(16, 3), "second": rows_of(12)}
    config = TrainingConfig(
        epochs=4, batch_size=4, gradient_accumulation=2, precision=precision, save_every=5, learning_rate=1e-3
    )

    def run(output: Path, *, resume: bool) -> list[Tensor]:
        model = load(tiny("bert"))
        torch.manual_seed(0)
        loss = made(name, load(tiny("bert")), mini_batch_size=3)
        trainer = Trainer(
            model, data, loss=loss, config=config, eval_data=rows_of(7), output_dir=output, show_progress_bar=False
        )
        history = trainer.train(resume=resume)
        assert np.isfinite([entry["loss"] for entry in history.entries if "loss" in entry]).all()
        return [parameter.detach() for parameter in model.parameters()]

    whole = run(tmp_path / "whole", resume=False)
    (tmp_path / "part").mkdir()
    (tmp_path / "whole" / "checkpoint-5").rename(tmp_path / "part" / "checkpoint-5")
    resumed = run(tmp_path / "part", resume=True)
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))
    assert log(tmp_path / "whole")


def test_a_run_is_that_of_the_plain_loss(tiny: Callable[[str], Path]) -> None:
    """Twelve steps without dropout have the same losses, up to rounding that the steps before have added up."""

    def trained(loss: losses.Loss) -> list[float]:
        config = TrainingConfig(max_steps=12, batch_size=13, learning_rate=1e-3, log_every=1)
        run = Trainer(load(tiny("bert"), dropout=False), rows_of(40), loss=loss, config=config, show_progress_bar=False)
        return [entry["loss"] for entry in run.train().entries if "loss" in entry]

    cached = trained(losses.CachedMultipleNegativesRankingLoss(mini_batch_size=5))
    assert cached == pytest.approx(trained(losses.MultipleNegativesRankingLoss()), rel=1e-4)
    assert len(cached) == 12


@pytest.mark.parametrize("version", ["5.1", "6.2"])
def test_a_replay_embeds_twice_with_the_same_dropout(version: Any, tiny: Callable[[str], Path]) -> None:
    """With one mini-batch for each column, the gradients and random draws are those of the plain loss."""

    def trained(loss: losses.Loss) -> tuple[list[float], Tensor]:
        torch.manual_seed(3)
        model = load(tiny("bert")).double()
        config = TrainingConfig(max_steps=6, batch_size=5, learning_rate=1e-3, log_every=1, replay=version)
        run = Trainer(model, rows_of(20), loss=loss, config=config, show_progress_bar=False).train()
        return [entry["loss"] for entry in run.entries if "loss" in entry], weights(model)

    def weights(model: SentenceTransformer) -> Tensor:
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    cached, after = trained(losses.CachedMultipleNegativesRankingLoss(mini_batch_size=5))
    plain, expected = trained(losses.MultipleNegativesRankingLoss())
    assert cached == pytest.approx(plain, rel=1e-9)
    torch.testing.assert_close(after, expected, rtol=0, atol=1e-8)


def test_a_replay_refuses_a_guide_with_other_tokens(tiny: Callable[[str], Path]) -> None:
    guide = load(tiny("bert"))
    config = TrainingConfig(replay="6.2", max_steps=1, batch_size=4)
    loss = losses.CachedGISTEmbedLoss(None, guide)
    Trainer(load(tiny("bert")), rows_of(8), loss=loss, config=config, show_progress_bar=False).train()
    guide.max_seq_length = 5
    for one in (loss, losses.MatryoshkaLoss(None, loss, [32])):
        with pytest.raises(ConfigError, match=f"with {type(one).__name__} and a guide with another vocab") as caught:
            Trainer(load(tiny("bert")), rows_of(8), loss=one, config=config)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({"mini_batch_num_tokens": 9}, "mini_batch_num_tokens"),
        ({"directions": ("query_to_doc", "doc_to_query")}, "directions or hardness_mode"),
        ({"hardness_mode": "hard_negatives", "hardness_strength": 1.0}, "directions or hardness_mode"),
    ],
)
def test_a_replay_of_5_1_refuses_what_that_does_not_have(
    options: dict[str, Any], shown: str, tiny: Callable[[str], Path]
) -> None:
    loss = losses.CachedMultipleNegativesRankingLoss(**options)
    for one in (loss, losses.MatryoshkaLoss(None, loss, [32])):
        with pytest.raises(ConfigError, match=f"and {shown}, which 5.1 does not have; expected replay='6.2'"):
            Trainer(load(tiny("bert")), rows_of(8), loss=one, config=TrainingConfig(replay="5.1"))
        Trainer(load(tiny("bert")), rows_of(8), loss=one, config=TrainingConfig(replay="6.2"))


@pytest.mark.parametrize("options", [{"mini_batch_size": 3}, {"mini_batch_num_tokens": 100}])
def test_a_replay_refuses_mini_batches_that_are_embedded_twice(
    options: dict[str, Any], tiny: Callable[[str], Path]
) -> None:
    config = TrainingConfig(replay="6.2", batch_size=4)
    with pytest.raises(ConfigError, match="with MegaBatchMarginLoss in mini-batches.* at least batch_size=4, or"):
        Trainer(load(tiny("bert")), rows_of(8), loss=losses.MegaBatchMarginLoss(**options), config=config)
    for loss in (
        losses.MegaBatchMarginLoss(mini_batch_size=4),
        losses.MegaBatchMarginLoss(use_mini_batched_version=False, **options),
    ):
        Trainer(load(tiny("bert")), rows_of(8), loss=loss, config=config)


def test_rows_that_do_not_fit(tiny: Callable[[str], Path]) -> None:
    with pytest.raises(InputError, match="CachedMultipleNegativesRankingLoss expects at least 2"):
        Trainer(
            load(tiny("bert")),
            [("a",), ("b",)],
            loss=losses.CachedMultipleNegativesRankingLoss(),
            config=TrainingConfig(),
        )
    with pytest.raises(InputError, match="CachedGISTEmbedLoss expects"):
        losses.CachedGISTEmbedLoss(None, load(tiny("bert"))).check_rows(("a", "b", "c", "d"), None)
