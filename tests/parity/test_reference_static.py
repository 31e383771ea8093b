"""Static models equal the reference's, in embeddings, training and files, and model2vec's where both agree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from static_models import build_static
from tokenizers import Tokenizer

from minisbert import SentenceTransformer, Trainer, TrainingConfig, losses
from minisbert.modules import StaticEmbedding

reference = pytest.importorskip("sentence_transformers")
modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
their_losses = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]


@pytest.mark.parametrize("form", ["reference", "model2vec"])
@pytest.mark.parametrize("normalize", [True, False])
def test_embeddings(
    form: str, normalize: bool, tmp_path: Path, varied_texts: list[str], compare: Callable[..., None]
) -> None:
    folder = build_static(tmp_path / "model", form=form, normalize=normalize)
    ours = SentenceTransformer(folder, device="cpu")
    theirs = reference.SentenceTransformer(str(folder), device="cpu")
    texts = [*varied_texts, "", " "]
    largest = float(abs(ours.encode(texts) - theirs.encode(texts)).max())
    compare(f"encode: static models, form of {form}", largest, 1e-6, cases=len(texts))
    ours.save_pretrained(tmp_path / "ours")
    again = reference.SentenceTransformer(str(tmp_path / "ours"), device="cpu")
    assert (again.encode(texts) == theirs.encode(texts)).all()
    theirs.save_pretrained(str(tmp_path / "theirs"))
    for name in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / "ours" / name).stat().st_size == (tmp_path / "theirs" / name).stat().st_size
    back = SentenceTransformer(tmp_path / "theirs", device="cpu")
    assert (back.encode(texts) == ours.encode(texts)).all()


@pytest.mark.parametrize("name", ["MultipleNegativesRankingLoss", "CosineSimilarityLoss"])
def test_a_step_of_training(name: str, tmp_path: Path, compare: Callable[..., None]) -> None:
    folder = build_static(tmp_path / "model")
    rows = [("a cat sat", "the dog ran", 0.4), ("one two", "three", 0.9), ("red sky", "blue sea", 0.1)]
    pairs = [row if name == "CosineSimilarityLoss" else row[:2] for row in rows]
    ours = SentenceTransformer(folder, device="cpu")
    config = TrainingConfig(epochs=1, batch_size=3, learning_rate=1e-3, warmup_steps=0, weight_decay=0.0)
    loss = getattr(losses, name)(ours)
    history = Trainer(ours, pairs, loss=loss, config=config, output_dir=tmp_path / "run").train()
    theirs = reference.SentenceTransformer(str(folder), device="cpu")
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=1e-3, weight_decay=0.0)
    features = [theirs.preprocess([row[column] for row in rows]) for column in range(2)]
    labels = torch.tensor([row[2] for row in rows]) if name == "CosineSimilarityLoss" else None
    expected = getattr(their_losses, name)(theirs)(features, labels)
    expected.backward()
    torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
    optimizer.step()
    first = history.entries[0]["loss"]
    compare(f"{name}: static models", abs(first - float(expected)), 1e-6)
    moved = ours[0].encoder.embedding.weight.detach() - theirs[0].embedding.weight.detach()
    compare(f"{name}: static models, weights after a step", float(moved.abs().max()), 1e-6)


def test_a_module_made_by_hand(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(build_static(tmp_path / "model") / "tokenizer.json"))
    weights = np.random.default_rng(1).normal(size=(tokenizer.get_vocab_size(), 16)).astype(np.float32)
    ours = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=weights)], device="cpu")
    first = modules.StaticEmbedding(tokenizer, embedding_weights=weights)
    theirs = reference.SentenceTransformer(modules=[first], device="cpu")
    texts = ["a cat", "the dog", ""]
    np.testing.assert_allclose(ours.encode(texts), theirs.encode(texts), atol=1e-6)
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(str(tmp_path / "theirs"))
    for name in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes()


def test_model2vec_itself(tmp_path: Path, compare: Callable[..., None]) -> None:
    """It leaves unknown tokens out and cuts long texts by characters first, which neither of the others does."""
    model2vec: Any = pytest.importorskip("model2vec")
    tokenizer = Tokenizer.from_file(str(build_static(tmp_path / "model") / "tokenizer.json"))
    vectors = np.random.default_rng(1).normal(size=(tokenizer.get_vocab_size(), 16)).astype(np.float32)
    theirs = model2vec.StaticModel(vectors, tokenizer, normalize=True)
    theirs.save_pretrained(tmp_path / "saved")
    ours = SentenceTransformer(tmp_path / "saved", device="cpu")
    texts = ["a cat", "the dog ran", "", "a " * 600]
    largest = float(abs(ours.encode(texts) - theirs.encode(texts)).max())
    compare("encode: static models, beside model2vec", largest, 1e-6, cases=len(texts))
    assert abs(ours.encode("a €") - theirs.encode(["a €"])[0]).max() > 1e-3


def test_the_module_of_compat(tmp_path: Path, compare: Callable[..., None]) -> None:
    from minisbert.compat import models
    from minisbert.compat.model import SentenceTransformer as CompatSentenceTransformer

    texts = ["a cat sat", "", "the dog ran fast to the sea"]
    folder = build_static(tmp_path / "model")
    ours, theirs = (
        kind(str(folder), device="cpu") for kind in (CompatSentenceTransformer, reference.SentenceTransformer)
    )
    mine, yours = (model.preprocess(texts, prompt="the ") for model in (ours, theirs))
    assert {name: value.tolist() for name, value in mine.items()} == {n: value.tolist() for n, value in yours.items()}
    largest = float((ours(mine)["sentence_embedding"] - theirs(yours)["sentence_embedding"]).abs().max())
    compare("features of static models", largest, 1e-6, cases=len(texts))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert dict(ours.named_modules()).keys() == dict(theirs.named_modules()).keys()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    torch.manual_seed(3)
    new = models.StaticEmbedding(tokenizer, embedding_dim=8).embedding.weight
    torch.manual_seed(3)
    assert torch.equal(new, modules.StaticEmbedding(tokenizer, embedding_dim=8).embedding.weight)
