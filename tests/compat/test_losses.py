"""Losses that hold the model: feature dicts give what their embeddings give, and gradients reach the model."""

from __future__ import annotations

import copy
import inspect
import random
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from common import WORDS
from feature_losses import CALLS, ROWS, Call, labels_of, texts_of, total
from torch import Tensor, nn

import minisbert
from minisbert import Trainer, TrainingConfig, similarity
from minisbert.compat import losses
from minisbert.compat.losses.features import mini_batches, packed
from minisbert.compat.model import SentenceTransformer
from minisbert.compat.training.arguments import SentenceTransformerTrainingArguments
from minisbert.compat.training.trainer import SentenceTransformerTrainer
from minisbert.errors import ConfigError, InputError, InputTypeError
from minisbert.training.checkpoint import Checkpoint
from minisbert.training.naming import load_own_state, own_parameters, own_state

pytest.importorskip("transformers")
DIM = 32
OVER_EMBEDDINGS = [  # whose own `forward` takes the embeddings of each column and labels, and nothing else
    call
    for call in CALLS
    if call.loss
    not in (
        "AdaptiveLayerLoss",
        "CachedGISTEmbedLoss",
        "ContrastiveTensionLoss",
        "ContrastiveTensionLossInBatchNegatives",
        "DenoisingAutoEncoderLoss",
        "GISTEmbedLoss",
        "Matryoshka2dLoss",
    )
    and call.name != "guided"
]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture
def it(tiny: Callable[[str], Path]) -> SimpleNamespace:
    """What the calls are made of."""
    model, guide, other = (SentenceTransformer(str(tiny(name)), device="cpu") for name in ("bert", "bert", "roberta"))
    return SimpleNamespace(
        losses=losses,
        util=similarity,
        model=model.eval(),
        guide=guide.eval(),
        other_guide=other.eval(),
        dim=DIM,
        decoder=str(tiny("roberta")),
    )


def features_of(call: Call, it: SimpleNamespace) -> list[Any]:
    return [it.model.tokenize(texts) for texts in texts_of(call)]


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_gradients_reach_the_model(call: Call, it: SimpleNamespace) -> None:
    loss = call.made(it)
    value = total(loss(iter(features_of(call, it)), labels_of(call, DIM)))
    assert value.shape == ()
    value.backward()
    trained = {name for name, one in it.model.named_parameters() if one.grad is not None and bool(one.grad.any())}
    assert any("attention" in name for name in trained)
    assert {*it.model.parameters()} <= {*loss.parameters()}


@pytest.mark.parametrize("call", OVER_EMBEDDINGS, ids=str)
def test_dicts_give_what_embeddings_give(call: Call, it: SimpleNamespace) -> None:
    loss, features, labels = call.made(it), features_of(call, it), labels_of(call, DIM)
    embeddings = [it.model(dict(texts))["sentence_embedding"] for texts in features]
    random.seed(1)
    value = total(loss(features, labels))
    random.seed(1)
    torch.testing.assert_close(value, total(loss(embeddings, labels)))
    random.seed(1)
    torch.testing.assert_close(value, total(loss(sentence_features=tuple(features), labels=labels)))


@pytest.mark.parametrize("loss", ["MultipleNegativesRankingLoss", "CoSENTLoss", "SoftmaxLoss", "MSELoss"])
def test_trainer_trains_it_as_it_trains_ours(loss: str, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    """The same weights, the same optimizer state, and no second copy of the model in a checkpoint."""
    draw = np.random.default_rng(0)
    columns = [[" ".join(draw.choice(WORDS, 6)) for _ in range(16)] for _ in range(2)]
    data: dict[str, Any] = {"anchor": columns[0], "positive": columns[1]}
    options: dict[str, Any] = {}
    if loss == "MSELoss":
        data["label"] = draw.normal(size=(16, 6)).tolist()
        options = {"projection_dim": 6}
    elif loss != "MultipleNegativesRankingLoss":
        data["label"] = draw.integers(0, 2, 16).tolist()
        options = {"embedding_dimension": DIM, "num_labels": 2} if loss == "SoftmaxLoss" else {}
    config = TrainingConfig(epochs=1, batch_size=4, learning_rate=1e-3, save_every=2)
    weights, states = [], []
    for number, (kind, library) in enumerate(
        [(minisbert.SentenceTransformer, minisbert.losses), (SentenceTransformer, losses)]
    ):
        model = kind(str(tiny("bert")), device="cpu")
        torch.manual_seed(3)
        made = getattr(library, loss)(model, **options)
        folder = tmp_path / str(number)
        torch.manual_seed(4)
        trainer = Trainer(model, data, loss=made, config=config, output_dir=folder, show_progress_bar=False)
        trainer.train()
        weights.append(
            [*model.parameters(), *(one for name, one in made.named_parameters() if not name.startswith("model."))]
        )
        states.append(Checkpoint.all_in(folder)[-1].state())
    for ours, theirs in zip(*weights, strict=True):
        assert torch.equal(ours, theirs)
    assert list(states[0]["losses"]) == list(states[1]["losses"])
    assert len(states[0]["optimizer"]) == len(states[1]["optimizer"]) == 2  # one of them for the word embeddings


def test_a_run_goes_on(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    """Though the model that the loss holds counts the texts that it cut."""
    data = {"a": ["the cat sat " * 20] * 8, "b": ["a dog"] * 8, "label": [0, 1] * 4}
    config = TrainingConfig(epochs=1, batch_size=2, learning_rate=1e-3, save_every=1)
    weights = []
    for _ in range(2):
        model = SentenceTransformer(str(tiny("bert")), device="cpu")
        model.encode(["the " * 90] * len(weights))
        torch.manual_seed(3)
        loss = losses.SoftmaxLoss(model, DIM, 2)
        trainer = Trainer(model, data, loss=loss, config=config, output_dir=tmp_path, show_progress_bar=False)
        trainer.train(resume=bool(weights))
        weights.append([one.clone() for one in loss.parameters()])
        for checkpoint in Checkpoint.all_in(tmp_path)[2:]:
            shutil.rmtree(checkpoint.folder)
    assert all(map(torch.equal, *weights))


def test_own_state(it: SimpleNamespace) -> None:
    made = [losses.SoftmaxLoss(it.model, DIM, count) for count in (2, 3)]
    both = nn.ModuleList([losses.MatryoshkaLoss(it.model, made[0], [DIM]), made[1]])
    state = {name: torch.ones_like(tensor) for name, tensor in own_state(both, it.model).items()}
    assert list(state) == [f"{name}.classifier.{kind}" for name in ("0.loss", "1") for kind in ("weight", "bias")]
    before = [one.clone() for one in it.model.parameters()]
    load_own_state(both, it.model, state)
    assert all(map(torch.equal, before, it.model.parameters()))
    assert all(bool((one == 1).all()) for one in own_parameters(both, it.model))
    assert len(own_parameters(both, it.model)) == 4
    with pytest.raises(RuntimeError, match="Missing key"):
        load_own_state(both, it.model, {"1.classifier.bias": torch.ones(3)})


def test_a_loop_by_hand(it: SimpleNamespace) -> None:
    """`loss.parameters()` has the model's, `loss.train()` and `loss.to` reach it."""
    loss = losses.SoftmaxLoss(it.model, DIM, 3)
    call = Call("SoftmaxLoss", 2, "class")
    optimizer = torch.optim.AdamW(loss.parameters(), lr=1e-2)
    loss.train()
    assert it.model.training
    loss.eval()
    values = []
    for _ in range(8):
        value = loss(features_of(call, it), labels_of(call, DIM))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert values[-1] < values[0]
    embeddings, scores = loss(features_of(call, it), None)
    assert len(embeddings) == 2
    assert scores.shape == (ROWS, 3)
    assert loss.to("cpu").model is it.model
    assert "model.0.model.embeddings.word_embeddings.weight" in loss.state_dict()
    assert copy.deepcopy(loss).model is not it.model


def test_gradient_cache_gives_the_gradients_of_the_batch(it: SimpleNamespace) -> None:
    call = Call("MultipleNegativesRankingLoss", 3)
    found = []
    for loss in (
        losses.MultipleNegativesRankingLoss(it.model),
        losses.CachedMultipleNegativesRankingLoss(it.model, mini_batch_size=2),
        losses.CachedMultipleNegativesRankingLoss(it.model, mini_batch_num_tokens=11),
    ):
        it.model.zero_grad()
        loss(features_of(call, it), None).backward()
        found.append(torch.cat([one.grad.flatten() for one in it.model.parameters() if one.grad is not None]))
    for gradient in found[1:]:
        torch.testing.assert_close(gradient, found[0], rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        assert not losses.CachedMultipleNegativesRankingLoss(it.model)(features_of(call, it), None).requires_grad


def test_mini_batches(it: SimpleNamespace) -> None:
    texts = it.model.tokenize([" ".join(["a"] * count) for count in (4, 2, 7, 1, 1)])
    lengths = [[int(one) for one in part["attention_mask"].sum(1)] for part in mini_batches(texts, size=2, tokens=None)]
    assert lengths == [[6, 4], [9, 3], [3]]
    lengths = [[int(one) for one in part["attention_mask"].sum(1)] for part in mini_batches(texts, size=2, tokens=10)]
    assert lengths == [[6, 4], [9], [3, 3]]
    assert packed(texts).tokens == 25
    with pytest.raises(InputError, match="expected input_ids"):
        mini_batches({"attention_mask": torch.ones(2, 2)}, size=2, tokens=None)


def test_rows_that_only_make_little_sense_are_warned_of(it: SimpleNamespace) -> None:
    pair, triple = ("a", "b"), ("a", "b", "c")
    dubious: tuple[tuple[Any, tuple[str, ...], Any, str], ...] = (
        (losses.CosineSimilarityLoss(it.model), pair, [0.0, 5.0], "got labels from 0 to 5"),
        (losses.CosineSimilarityLoss(it.model), triple, [0.0, 1.0], "reads the first 2"),
        (losses.OnlineContrastiveLoss(it.model), triple, [0.0, 1.0], "reads the first 2"),
        (losses.ContrastiveLoss(it.model), pair, [0.0, 2.0], "got labels from 0 to 2"),
        (losses.BatchAllTripletLoss(it.model), pair, [0, 1], "reads the first 1"),
        (losses.BatchHardTripletLoss(it.model), ("a",), [-1, 0.5], "no whole numbers"),
    )
    for loss, texts, labels, message in dubious:
        with pytest.warns(UserWarning, match=message):
            loss.check_rows(texts, labels)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loss.check_rows(texts, labels)  # once
    with pytest.warns(UserWarning, match="neither 0 nor 1; ContrastiveLoss weights"):
        losses.ContrastiveLoss(it.model)([torch.ones(2, 4)] * 2, torch.tensor([0.0, 0.5]))


def test_what_is_refused(it: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="embedding_dimension"):
        losses.SoftmaxLoss(it.model, sentence_embedding_dimension=DIM, embedding_dimension=DIM, num_labels=2)
    with pytest.raises(TypeError):
        losses.CoSENTLoss(it.model, scales=3)
    with pytest.raises(InputError, match="ContrastiveLoss expects 2"):
        losses.ContrastiveLoss(it.model).check_rows(("a", "b", "c"), [0, 1])
    with pytest.raises(InputError, match="label 1.67772e\\+07"):
        losses.BatchHardTripletLoss(it.model).check_rows(("a",), [0, 2**24 + 1])
    with pytest.raises(ConfigError, match="without a projection"):
        losses.MSELoss(it.model).save_projection(tmp_path / "projection.safetensors")
    with pytest.raises(InputError, match="cannot be read"):
        losses.MSELoss(it.model).load_projection(tmp_path / "none.safetensors")


def test_projection_is_saved_and_loaded(it: SimpleNamespace, tmp_path: Path) -> None:
    file = tmp_path / "projection.safetensors"
    saved, fresh = losses.EmbedDistillLoss(it.model, projection_dim=6), losses.MSELoss(it.model)
    saved.save_projection(file)
    fresh.load_projection(file)
    assert torch.equal(saved.projection.weight, fresh.projection.weight)
    assert fresh.projection_dim == 6
    with pytest.raises(ConfigError, match="from 32 to 6 dimensions; expected from 32 to 5"):
        losses.MSELoss(it.model, 5).load_projection(file)


def test_settings_may_change(it: SimpleNamespace) -> None:
    """A callback may change the strength during training."""
    parts = [torch.randn(4, 8) for _ in range(3)]
    loss = losses.MultipleNegativesRankingLoss(it.model, hardness_mode="all_negatives", hardness_strength=1.0)
    loss.hardness_strength = 0.0
    assert torch.equal(loss(parts), losses.MultipleNegativesRankingLoss(it.model)(parts))
    assert loss.temperature == 0.05


def test_a_subclass_of_a_user(it: SimpleNamespace) -> None:
    class Doubled(losses.CosineSimilarityLoss):
        def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None) -> Any:
            return 2 * super().compute_loss_from_embeddings(embeddings, labels)

    class Other(losses.CoSENTLoss):
        def forward(self, sentence_features: Any, labels: Tensor | None = None, guided: Any = ()) -> Any:
            return super().forward(sentence_features, labels) + 1

    call = Call("", 2, "score")
    features, labels = features_of(call, it), labels_of(call, DIM)
    doubled, plain = Doubled(it.model), losses.CosineSimilarityLoss(it.model)
    torch.testing.assert_close(doubled(features, labels), 2 * plain(features, labels))
    parts = [torch.randn(ROWS, 4) for _ in range(2)]
    torch.testing.assert_close(doubled(parts, labels), 2 * plain(parts, labels))
    other = Other(it.model)
    assert other.rewritten
    assert not doubled.rewritten
    torch.testing.assert_close(other(features, labels), losses.CoSENTLoss(it.model)(features, labels) + 1)
    assert other.citation == losses.CoSENTLoss(it.model).citation != ""
    assert isinstance(losses.AnglELoss(it.model), losses.CoSENTLoss)
    assert isinstance(losses.BatchHardSoftMarginTripletLoss(it.model), losses.BatchHardTripletLoss)


class Written(nn.Module):
    """A loss as users write them."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.weight = nn.Parameter(torch.tensor(2.0))

    def forward(self, sentence_features: Any, labels: Tensor) -> Tensor:
        first, second = (self.model(texts)["sentence_embedding"] for texts in sentence_features)
        return ((self.weight * torch.cosine_similarity(first, second) - labels) ** 2).mean()


def test_trainer_gives_features_to_a_loss_with_a_forward_of_its_own(it: SimpleNamespace, tmp_path: Path) -> None:
    """Which knows nothing of embeddings."""
    data = {"a": ["the cat", "a dog"] * 4, "b": ["the sky", "the sea"] * 4, "label": [0.0, 1.0] * 4}
    arguments = SentenceTransformerTrainingArguments(output_dir=str(tmp_path), max_steps=2, save_strategy="no")
    loss, before = ByHand(it.model), it.model.encode("the cat")
    SentenceTransformerTrainer(model=it.model, args=arguments, train_dataset=data, loss=loss).train()
    assert loss.calls == 2
    assert not np.array_equal(before, it.model.encode("the cat"))


class ByHand(losses.CosineSimilarityLoss):
    calls = 0

    def forward(self, sentence_features: Any, labels: Tensor | None = None) -> Any:  # type: ignore[override]
        self.calls += 1
        first, second = (self.model(texts)["sentence_embedding"] for texts in sentence_features)
        return nn.functional.mse_loss(torch.cosine_similarity(first, second), labels)


def test_a_loss_of_a_user_in_several_sizes_and_layers(it: SimpleNamespace) -> None:
    call = Call("", 2, "score")
    features, labels = features_of(call, it), labels_of(call, DIM)
    halves = [losses.CosineSimilarityLoss(it.model, cos_score_transformation=Twice()), Written(it.model)]
    for wrap in (losses.MatryoshkaLoss, losses.Matryoshka2dLoss):
        values = []
        for loss in halves:
            wrapped = wrap(it.model, loss, [DIM, 8])
            assert wrapped.get_config_dict()["matryoshka_dims"] == (DIM, 8)
            random.seed(0)
            values.append(wrapped(features, labels))
        torch.testing.assert_close(*values)
        assert type(wrapped.innermost).__name__ == "Written"
        values[1].backward()
        assert halves[1].weight.grad is not None
    assert "sentence_embedding" in it.model(dict(features[0]))  # it embeds again
    layered = losses.AdaptiveLayerLoss(it.model, halves[1], n_layers_per_step=-1)
    plain = losses.AdaptiveLayerLoss(it.model, halves[0], n_layers_per_step=-1)
    torch.testing.assert_close(layered(features, labels), plain(features, labels))
    rewritten = losses.MatryoshkaLoss(it.model, Rewritten(it.model), [DIM])
    torch.testing.assert_close(rewritten(features, labels), Rewritten(it.model)(features, labels))
    with pytest.raises(ConfigError, match="expected a loss"):
        losses.MatryoshkaLoss(it.model, "CoSENTLoss", [DIM])


class Twice(nn.Module):
    def forward(self, scores: Tensor) -> Tensor:
        return 2 * scores


class Rewritten(losses.CosineSimilarityLoss):
    def forward(self, sentence_features: Any, labels: Tensor | None = None, guided: Any = ()) -> Any:
        first, second = (self.model(texts)["sentence_embedding"] for texts in sentence_features)
        return (first * second).sum()


def test_distances_and_helpers(it: SimpleNamespace) -> None:
    labels = torch.tensor([0, 0, 1])
    masks = losses.BatchHardTripletLoss
    assert masks.get_triplet_mask(labels).nonzero().tolist() == [[0, 1, 2], [1, 0, 2]]
    assert masks.get_anchor_positive_triplet_mask(labels).nonzero().tolist() == [[0, 1], [1, 0]]
    assert masks.get_anchor_negative_triplet_mask(labels).nonzero().tolist() == [[0, 2], [1, 2], [2, 0], [2, 1]]
    loss, texts = losses.BatchHardTripletLoss(it.model), torch.randn(3, 4)
    assert torch.equal(loss.batch_hard_triplet_loss(labels, texts), loss([texts], labels))
    assert loss.triplet_margin == 5
    assert loss.sentence_embedder is it.model
    layered = losses.AdaptiveLayerLoss(it.model, losses.CoSENTLoss(it.model), layer_weighting="linear")
    assert layered.get_layer_weight(3) == 0.25
    first, second = losses.GlobalOrthogonalRegularizationLoss(it.model).compute_gor(texts)
    assert first.shape == second.shape == ()
    decoding = losses.DenoisingAutoEncoderLoss(it.model, it.decoder, False)
    again = decoding.retokenize(it.model.tokenize(["the cat", "a"]))
    assert again["input_ids"].shape == again["attention_mask"].shape
    tension = losses.ContrastiveTensionLoss(it.model)
    assert tension.model2 is it.model is not tension.model1


LOSSES = [name for name in losses.__all__ if isinstance(getattr(losses, name), type) and name.endswith("Loss")]


@pytest.mark.parametrize("name", LOSSES)
def test_a_name_is_no_model(name: str) -> None:
    needed = inspect.signature(getattr(losses, name)).parameters.values()
    others = {one.name: 3 for one in needed if one.default is one.empty}
    others.pop(next(iter(others), ""), None)
    inner = {"loss": SimpleNamespace(), "guide": nn.Linear(2, 2), "matryoshka_dims": [3]}
    with pytest.raises((InputTypeError, ConfigError), match="expected|pass it first"):
        getattr(losses, name)("all-MiniLM-L6-v2", **{**others, **{key: inner[key] for key in inner if key in others}})
