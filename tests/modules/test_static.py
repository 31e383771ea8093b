"""Static models: a text is the mean of its tokens' rows in a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from static_models import build_static
from tokenizers import Tokenizer

from minisbert import SentenceTransformer, Trainer, TrainingConfig, losses
from minisbert.errors import ConfigError, ModelError
from minisbert.modules import Dense, Normalize, StaticEmbedding
from minisbert.modules.lora import LoraConfig
from minisbert.storage.locate import missing_files

TEXTS = ["a cat", "", "the dog ran fast to the sea", "one one two", "[CLS] zzz €", "  "]


def by_hand(folder: Path, texts: list[str], *, normalize: bool = True) -> np.ndarray[Any, Any]:
    tokenizer, tensors = Tokenizer.from_file(str(folder / "tokenizer.json")), load_file(folder / "model.safetensors")
    if "mapping" in tensors:
        table = tensors["embeddings"][tensors["mapping"]] * tensors["weights"][:, None]
    else:
        table = tensors["embedding.weight"]
    rows = []
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        rows.append(table[ids].double().mean(0) if ids else torch.zeros(table.shape[1]).double())
    values = torch.stack(rows)
    return (torch.nn.functional.normalize(values) if normalize else values).numpy()


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("form", ["reference", "model2vec"])
@pytest.mark.parametrize("modules", [True, False])
def test_embeddings(form: str, normalize: bool, modules: bool, tmp_path: Path) -> None:
    if form == "reference" and not modules:
        pytest.skip("only model2vec's config.json says what it is")
    folder = build_static(tmp_path / "model", form=form, normalize=normalize, modules=modules)
    model = SentenceTransformer(folder, device="cpu")
    got = model.encode(TEXTS)
    np.testing.assert_allclose(got, by_hand(folder, TEXTS, normalize=normalize), atol=1e-6)
    assert (model.encode(TEXTS, batch_size=1) == got).all()
    assert model.get_sentence_embedding_dimension() == 48
    assert (model.encode(TEXTS, truncate_dim=5).shape) == (6, 5)
    assert model.encode("a cat", prompt="the ").tolist() == model.encode("the a cat").tolist()


def test_files_are_written_as_they_were(tmp_path: Path) -> None:
    folder = build_static(tmp_path / "model")
    model = SentenceTransformer(folder, device="cpu")
    model.save_pretrained(tmp_path / "saved")
    for name in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / "saved" / name).read_bytes() == (folder / name).read_bytes()
    assert not (tmp_path / "saved" / "config.json").exists()
    assert (SentenceTransformer(tmp_path / "saved", device="cpu").encode(TEXTS) == model.encode(TEXTS)).all()
    assert "inf tokens" in (tmp_path / "saved" / "README.md").read_text()


def test_a_model2vec_folder_is_saved_as_a_table(tmp_path: Path) -> None:
    folder = build_static(tmp_path / "model", form="model2vec")
    model = SentenceTransformer(folder, device="cpu")
    model.save_pretrained(tmp_path / "saved")
    assert list(load_file(tmp_path / "saved" / "model.safetensors")) == ["embedding.weight"]
    assert (SentenceTransformer(tmp_path / "saved", device="cpu").encode(TEXTS) == model.encode(TEXTS)).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halves(dtype: str, tmp_path: Path) -> None:
    folder = build_static(tmp_path / "model", dtype=getattr(torch, dtype))
    model = SentenceTransformer(folder, device="cpu")
    assert model.dtype == getattr(torch, dtype)
    wide = SentenceTransformer(folder, device="cpu", dtype="float32").encode(TEXTS)
    np.testing.assert_allclose(model.encode(TEXTS), wide, atol=2e-2)


def test_length_of_the_tokenizer_counts(tmp_path: Path) -> None:
    folder = build_static(tmp_path / "model")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(2)
    tokenizer.save(str(folder / "tokenizer.json"))
    model = SentenceTransformer(folder, device="cpu", truncation="count")
    assert model.max_seq_length == 2
    assert model.encode("the dog ran").tolist() == model.encode("the dog").tolist()
    assert model.truncated_texts == 1
    model.max_seq_length = 3
    model.save_pretrained(tmp_path / "saved")
    assert SentenceTransformer(tmp_path / "saved", device="cpu").max_seq_length == 3
    np.testing.assert_allclose(
        model.encode(["the dog ran"]), by_hand(folder_without_limit(folder), ["the dog ran"]), atol=1e-6
    )


def folder_without_limit(folder: Path) -> Path:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("loss", [losses.MultipleNegativesRankingLoss, losses.CosineSimilarityLoss])
def test_training_moves_the_rows_that_occur(loss: Any, tmp_path: Path) -> None:
    folder = build_static(tmp_path / "model")
    model = SentenceTransformer(folder, device="cpu")
    before = model[0].encoder.embedding.weight.detach().clone()
    rows = [("a cat", "the dog", 0.5), ("one two", "three", 0.1)]
    data = [row[:2] for row in rows] if loss is losses.MultipleNegativesRankingLoss else rows
    config = TrainingConfig(epochs=3, batch_size=2, learning_rate=1e-2, warmup_steps=0)
    Trainer(model, data, loss=loss(model), config=config, output_dir=tmp_path / "run").train()
    moved = (model[0].encoder.embedding.weight != before).any(1).nonzero()[:, 0].tolist()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    used = {
        number for row in rows for text in row[:2] for number in tokenizer.encode(text, add_special_tokens=False).ids
    }
    assert set(moved) == used


def test_made_by_hand(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(build_static(tmp_path / "model") / "tokenizer.json"))
    torch.manual_seed(1)
    first = StaticEmbedding(tokenizer, embedding_dim=12)
    model = SentenceTransformer(modules=[first, Dense(12, 6), Normalize()], device="cpu")
    model.save_pretrained(tmp_path / "saved")
    assert (SentenceTransformer(tmp_path / "saved", device="cpu").encode(TEXTS) == model.encode(TEXTS)).all()
    again = StaticEmbedding(tokenizer, embedding_weights=first.encoder.embedding.weight.detach().numpy())
    other = SentenceTransformer(modules=[again, model[1], model[2]], device="cpu")
    assert (other.encode(TEXTS) == model.encode(TEXTS)).all()
    first.tokenizer.add_tokens(["kitten"])
    with pytest.raises(ModelError, match="gave the token or type 233; its encoder has 0 to 232"):
        model.encode("kitten")


def test_refused(tmp_path: Path) -> None:
    folder = build_static(tmp_path / "model")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    with pytest.raises(ConfigError, match="got no embedding_weights, and embedding_dim=None; expected one of them"):
        StaticEmbedding(tokenizer)
    with pytest.raises(ConfigError, match="got a str; expected a Tokenizer of the tokenizers library"):
        StaticEmbedding("bert", embedding_dim=3)
    with pytest.raises(ConfigError, match="expected floats, one row for each token"):
        StaticEmbedding(tokenizer, embedding_weights=np.zeros(4))
    with pytest.raises(ConfigError, match="got dtype='int8' for TableEncoder"):
        SentenceTransformer(folder, device="cpu", dtype="int8")
    model = SentenceTransformer(folder, device="cpu")
    with pytest.raises(ConfigError, match="expected floats of a native encoder"):
        model.add_adapter(LoraConfig())
    with pytest.raises(ModelError, match="makes no embeddings of tokens"):
        model.encode("a cat", output_value="token_embeddings")
    with pytest.raises(ConfigError, match="number 1 does not fit: a Dense takes 7 values; expected 48"):
        SentenceTransformer(modules=[model[0], Dense(7, 3)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: {"other": tensors["embeddings"]}, "have neither embedding.weight nor embeddings"),
        (lambda tensors: {**tensors, "mapping": tensors["mapping"] + 1000}, "no list of rows below 50"),
        (lambda tensors: {**tensors, "weights": tensors["weights"][:-1].clone()}, "factors of 233 tokens"),
        (lambda tensors: {"embeddings": tensors["embeddings"].to(torch.int8)}, "are torch.int8 for embedding.weight"),
        (lambda tensors: {"embeddings": tensors["embeddings"][0].clone()}, "expected a table"),
    ],
)
def test_bad_weights(change: Any, message: str, tmp_path: Path) -> None:
    folder = build_static(tmp_path / "model", form="model2vec")
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors")
    with pytest.raises(ModelError, match=message):
        SentenceTransformer(folder, device="cpu")


def test_bad_folders(tmp_path: Path) -> None:
    folder = build_static(tmp_path / "model")
    entries = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps([entries[1], entries[0]]))
    with pytest.raises(ModelError, match="expected one Transformer or StaticEmbedding, in first place"):
        SentenceTransformer(folder, device="cpu")
    (folder / "modules.json").write_text(json.dumps(entries))
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="tokenizer.json cannot be read"):
        SentenceTransformer(folder, device="cpu")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="has no tokenizer.json; expected that of a static model"):
        SentenceTransformer(folder, device="cpu")


def test_from_model2vec(tmp_path: Path) -> None:
    folder = build_static(tmp_path / "model", form="model2vec", normalize=False)
    model = SentenceTransformer(modules=[StaticEmbedding.from_model2vec(folder)], device="cpu")
    np.testing.assert_allclose(model.encode(TEXTS), by_hand(folder, TEXTS, normalize=False), atol=1e-6)
    with pytest.raises(ConfigError, match="expected a folder that model2vec has made"):
        StaticEmbedding.from_distillation("all-MiniLM-L6-v2", pca_dims=64)


def test_files_that_a_snapshot_lacks(tmp_path: Path) -> None:
    folder = build_static(tmp_path / "model")
    assert missing_files(folder) == []
    (folder / "tokenizer.json").unlink()
    (folder / "model.safetensors").unlink()
    assert [name.removeprefix("./") for name in missing_files(folder)] == ["model.safetensors", "tokenizer.json"]
