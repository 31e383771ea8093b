"""Embeddings equal the reference's, for every native architecture and the real model."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_models

from minisbert import SentenceTransformer

reference = pytest.importorskip("sentence_transformers")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]


@pytest.mark.parametrize("architecture", tiny_models.ARCHITECTURES)
def test_varied_texts(architecture: str, tiny: Callable[[str], Path], varied_texts: list[str]) -> None:
    folder = tiny(architecture)
    ours = SentenceTransformer(folder, device="cpu", truncation="count")
    theirs = reference.SentenceTransformer(str(folder), device="cpu")
    expected = theirs.encode(varied_texts)
    got = ours.encode(varied_texts)
    assert got.dtype == np.float32
    assert np.abs(got - expected).max() <= 1e-6
    assert ours.truncated_texts > 0


def test_varied_texts_with_real_weights(minilm: Path, varied_texts: list[str]) -> None:
    ours = SentenceTransformer(minilm, device="cpu", truncation="count")
    theirs = reference.SentenceTransformer(str(minilm), device="cpu")
    assert np.abs(ours.encode(varied_texts) - theirs.encode(varied_texts)).max() <= 1e-6


@pytest.mark.parametrize("mode", ["cls", "max", "mean", "mean_sqrt_len", "weightedmean", "lasttoken"])
@pytest.mark.parametrize("include_prompt", [True, False])
def test_pooling(mode: str, include_prompt: bool, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(tiny("bert"), tmp_path / "model")
    keys = {"cls": "cls_token", "max": "max_tokens", "mean": "mean_tokens", "lasttoken": "lasttoken"}
    key = f"pooling_mode_{keys.get(mode, f'{mode}_tokens')}"
    config = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": False, key: True}
    config["include_prompt"] = include_prompt
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))
    texts = ["a cat", "the dog ran fast to the sea", "one", "why is the sky blue and the tree red"]
    ours = SentenceTransformer(folder, device="cpu").encode(texts, prompt="what is: ")
    theirs = reference.SentenceTransformer(str(folder), device="cpu").encode(texts, prompt="what is: ")
    assert np.abs(ours - theirs).max() <= 1e-6


def test_max_seq_length_and_truncate_dim(minilm: Path) -> None:
    texts = ["one two three four five six seven eight nine ten", "short"]
    ours = SentenceTransformer(minilm, device="cpu", truncation="count", truncate_dim=64)
    theirs = reference.SentenceTransformer(str(minilm), device="cpu", truncate_dim=64)
    ours.max_seq_length = theirs.max_seq_length = 6
    for options in ({}, {"normalize_embeddings": True}, {"truncate_dim": 10}):
        assert np.abs(ours.encode(texts, **options) - theirs.encode(texts, **options)).max() <= 1e-6
    assert ours.truncated_texts == 3


def test_other_encoders_run_through_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    folder = tiny_models.build(tmp_path / "albert", "bert")
    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    config = transformers.AlbertConfig(
        vocab_size=vocabulary,
        embedding_size=16,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    transformers.AlbertModel(config).save_pretrained(folder)
    texts = ["a cat sat on the mat", "one", "the dog ran to the sea and the sky is blue"]
    expected = reference.SentenceTransformer(str(folder), device="cpu").encode(texts)
    model = SentenceTransformer(folder, device="cpu")
    assert np.abs(model.encode(texts) - expected).max() <= 1e-6
    model.save_pretrained(tmp_path / "saved")
    assert np.abs(SentenceTransformer(tmp_path / "saved", device="cpu").encode(texts) - expected).max() <= 1e-6


def test_saved_models_load_in_the_reference_without_warning(
    minilm: Path, tmp_path: Path, varied_texts: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    model = SentenceTransformer(minilm, device="cpu", truncation="count")
    model.max_seq_length = 32
    model.save_pretrained(tmp_path / "ours")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        theirs = reference.SentenceTransformer(str(tmp_path / "ours"), device="cpu")
    texts = varied_texts[:100]
    assert np.abs(model.encode(texts) - theirs.encode(texts)).max() <= 1e-6
    assert "warning" not in capfd.readouterr().err.lower()


def test_models_saved_by_the_reference_load_here(minilm: Path, tmp_path: Path, varied_texts: list[str]) -> None:
    theirs = reference.SentenceTransformer(str(minilm), device="cpu", prompts={"query": "question: "})
    theirs.max_seq_length = 24
    theirs.save_pretrained(str(tmp_path / "theirs"))
    model = SentenceTransformer(tmp_path / "theirs", device="cpu", truncation="count")
    assert model.max_seq_length == 24
    assert model.prompts["query"] == "question: "
    texts = varied_texts[:100]
    assert np.abs(model.encode_query(texts) - theirs.encode_query(texts)).max() <= 1e-6
