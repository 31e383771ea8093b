"""Encoders with rotary positions equal the reference's, in embeddings and gradients, from and to files."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from families import FAMILIES, build_family
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from minisbert import SentenceTransformer, Trainer, TrainingConfig, kernels, losses
from minisbert.modules.architectures import canonical, checkpoint_names
from minisbert.modules.encoder import Encoder
from minisbert.modules.features import Features
from minisbert.packing import pack

reference = pytest.importorskip("sentence_transformers")
reference_losses = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]


def texts_of(*lengths: int) -> list[str]:
    draw = random.Random(7)
    return [" ".join(draw.choices(tiny_models.WORDS, k=length)) for length in lengths]


# Shorter and longer than a window, at its edges, at those of the blocks that attend together, and longer than all.
TEXTS = texts_of(1, 2, 5, 6, 7, 8, 13, 14, 15, 16, 17, 25, 60, 61, 62, 63, 64, 65, 126, 127, 130, 190, 198, 199, 250)


def both(folder: Path) -> tuple[SentenceTransformer, Any]:
    ours = SentenceTransformer(folder, device="cpu", truncation="count")
    assert isinstance(ours.transformer.encoder, Encoder)
    return ours, reference.SentenceTransformer(str(folder), device="cpu")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("operations", ["auto", "reference"])
def test_embeddings(family: str, operations: str, tmp_path: Path, compare: Callable[..., None]) -> None:
    pooling = "lasttoken" if family.startswith("qwen3") else "mean"
    ours, theirs = both(build_family(tmp_path / "model", family, pooling=pooling))
    with kernels.use(operations):
        got = ours.encode([*TEXTS, ""])
    expected = theirs.encode([*TEXTS, ""])
    compare(f"encode: {family}", float(abs(got - expected).max()), 1e-6, cases=len(TEXTS))
    assert got.std() > 1e-3


WINDOWS = {"layer_types": ["full_attention", "sliding_attention"] * 2, "use_sliding_window": True}


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("modernbert", {"max_position_embeddings": 20}),
        ("modernbert", {"pad_token_id": None}),
        ("modernbert", {"sliding_window": 4}),
        ("modernbert", {"rope_scaling": {"rope_theta": 700.0}}),
        ("modernbert", {"rope_parameters": {"full_attention": {"rope_theta": 700.0}}}),
        ("nomic_bert", {"max_position_embeddings": 20}),
        ("nomic_bert", {"n_layer": 4, "n_embd": 7}),
        ("gte", {"max_position_embeddings": 20}),
        ("gte", {"rope_scaling": {"rope_theta": 700.0, "type": "default"}}),
        ("qwen3", {"max_position_embeddings": 20}),
        ("qwen3", {"is_causal": False}),
        ("qwen3", {"is_causal": False, "sliding_window": 7, **WINDOWS}),
        ("qwen3", {"rope_scaling": {"rope_theta": 700.0, "rope_type": "default"}}),
        ("qwen3", {"use_sliding_window": True, "sliding_window": None, "max_window_layers": 1, "layer_types": None}),
        ("gemma3_text", {"max_position_embeddings": 20}),
        ("gemma3_text", {"is_causal": False}),
        ("gemma3_text-causal", {"is_causal": False}),
        ("gemma3_text-causal", {"rope_scaling": {"rope_theta": 700.0}}),
    ],
)
def test_configurations(family: str, changes: dict[str, Any], tmp_path: Path, compare: Callable[..., None]) -> None:
    folder = build_family(tmp_path / "model", family)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    ours, theirs = both(folder)
    largest = float(abs(ours.encode(TEXTS) - theirs.encode(TEXTS)).max())
    compare("encode: unusual configurations", largest, 1e-6, cases=len(TEXTS))


@pytest.mark.parametrize("family", ["qwen3", "gemma3_text", "modernbert"])
def test_scaling_beside_the_settings_that_transformers_writes(
    family: str, tmp_path: Path, compare: Callable[..., None]
) -> None:
    """As model cards tell their readers to add it for long texts; transformers lets it count, and computes it."""
    folder = build_family(tmp_path / "model", family)
    config = json.loads((folder / "config.json").read_text())
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "rope_theta": 1e4}
    (folder / "config.json").write_text(json.dumps({**config, "rope_scaling": scaling}))
    ours = SentenceTransformer(folder, device="cpu", truncation="count")
    theirs = reference.SentenceTransformer(str(folder), device="cpu")
    assert not isinstance(ours.transformer.encoder, Encoder)
    assert ours.max_seq_length == 200
    largest = float(abs(ours.encode(TEXTS) - theirs.encode(TEXTS)).max())
    compare("encode: unusual configurations", largest, 1e-6, cases=len(TEXTS))


def test_windows_have_a_size_if_none_is_given(tmp_path: Path, compare: Callable[..., None]) -> None:
    for family in ("qwen3-windowed", "gemma3_text"):
        folder = build_family(tmp_path / family, family)
        config = json.loads((folder / "config.json").read_text())
        del config["sliding_window"]
        (folder / "config.json").write_text(json.dumps(config))
        ours, theirs = both(folder)
        largest = float(abs(ours.encode(TEXTS) - theirs.encode(TEXTS)).max())
        compare("encode: unusual configurations", largest, 1e-6, cases=len(TEXTS))


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_some_layers_of_a_model(family: str, listed: bool, tmp_path: Path, compare: Callable[..., None]) -> None:
    """A saved copy has the kinds of attention of the layers that are left."""
    folder = build_family(tmp_path / "model", family)
    config = json.loads((folder / "config.json").read_text())
    if not listed:  # they follow from a pattern then
        config.pop("layer_types", None)
        (folder / "config.json").write_text(json.dumps(config))
    model = SentenceTransformer(folder, device="cpu", truncation="count")
    encoder: Any = model.transformer.encoder
    encoder.layers = torch.nn.ModuleList([encoder.layers[layer] for layer in (0, 2, 3)])
    expected = model.encode(TEXTS)
    model.save_pretrained(tmp_path / "saved")
    ours, theirs = both(tmp_path / "saved")
    assert (ours.encode(TEXTS) == expected).all()
    largest = float(abs(expected - theirs.encode(TEXTS)).max())
    compare("encode: some layers of a model", largest, 1e-6, cases=len(TEXTS))


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients(family: str, tmp_path: Path, compare: Callable[..., None]) -> None:
    ours, theirs = both(build_family(tmp_path / "model", family))
    weights = torch.randn(len(TEXTS), ours.get_sentence_embedding_dimension() or 0)
    ours.train()
    theirs.train()
    features = Features(pack(ours.transformer.text_tokenizer(TEXTS)))
    got = ours(features).sentences[features.batch.restore]
    (got * weights).sum().backward()
    expected = theirs(theirs.tokenize(TEXTS))["sentence_embedding"]
    (expected * weights).sum().backward()
    compare(f"embeddings in training: {family}", float((got - expected).abs().max()), 1e-6, cases=len(TEXTS))
    grads = {name: value.grad for name, value in ours.transformer.encoder.named_parameters() if value.grad is not None}
    names = checkpoint_names(ours.transformer.config, grads)
    found = {names[name]: grad for name, grad in grads.items()}
    named = theirs[0].auto_model.named_parameters()
    wanted, _ = canonical(ours.transformer.config, {name: one.grad for name, one in named if one.grad is not None})
    assert found.keys() == wanted.keys()
    largest = max(float(grad.abs().max()) for grad in wanted.values())
    worst = max(float((grad - wanted[name]).abs().max()) for name, grad in found.items())
    compare(f"gradients: {family}", worst / largest, 1e-5, cases=len(found))


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_folders_are_as_the_reference_saves_them(family: str, tmp_path: Path) -> None:
    folder = build_family(tmp_path / "model", family)
    ours, theirs = both(folder)
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(str(tmp_path / "theirs"))
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert (tmp_path / "ours" / name).read_bytes() == (folder / name).read_bytes(), name
    assert (folder / "model.safetensors").read_bytes() == (tmp_path / "theirs" / "model.safetensors").read_bytes()
    again = reference.SentenceTransformer(str(tmp_path / "ours"), device="cpu")
    assert (again.encode(TEXTS) == theirs.encode(TEXTS)).all()
    assert (SentenceTransformer(tmp_path / "theirs", device="cpu").encode(TEXTS) == ours.encode(TEXTS)).all()


@pytest.mark.parametrize("family", ["modernbert", "gemma3_text", "qwen3", "nomic_bert", "gte"])
def test_training(family: str, tmp_path: Path, compare: Callable[..., None]) -> None:
    folder = build_family(tmp_path / "model", family)
    pairs = [(TEXTS[i], TEXTS[-1 - i]) for i in range(8)]
    ours, theirs = both(folder)
    config = TrainingConfig(epochs=1, batch_size=8, learning_rate=1e-3, warmup_steps=0, seed=1)
    loss = losses.MultipleNegativesRankingLoss(ours)
    history = Trainer(ours, pairs, loss=loss, config=config, output_dir=tmp_path / "run").train()
    theirs_loss = reference_losses.MultipleNegativesRankingLoss(theirs)
    features = [theirs.tokenize([pair[column] for pair in pairs]) for column in range(2)]
    expected = float(theirs_loss(features, None))
    assert history.entries[0]["loss"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision(family: str, dtype: str, tmp_path: Path) -> None:
    ours, theirs = both(build_family(tmp_path / "model", family, dtype=dtype))
    assert ours.dtype == getattr(torch, dtype)
    exact = SentenceTransformer(tmp_path / "model", device="cpu", dtype="float32").encode(TEXTS)
    ours_off = float(abs(ours.encode(TEXTS) - exact).max())
    theirs_off = float(abs(theirs.encode(TEXTS).astype("float32") - exact).max())
    assert ours_off < max(2 * theirs_off, 1e-3)
    ours.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "model.safetensors").read_bytes() == (
        tmp_path / "model" / "model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("prefix", ["", "model.", "0.auto_model.", "encoder.model."])
@pytest.mark.parametrize("family", ["modernbert", "nomic_bert", "gte", "qwen3", "gemma3_text"])
def test_every_prefix(family: str, prefix: str, tmp_path: Path) -> None:
    folder = build_family(tmp_path / "model", family)
    expected = SentenceTransformer(folder, device="cpu").encode(TEXTS)
    tensors = load_file(folder / "model.safetensors")
    renamed = {f"{prefix}{name}": value.clone() for name, value in tensors.items()}
    save_file({**renamed, "head.dense.weight": torch.ones(2, 2)}, folder / "model.safetensors", {"format": "pt"})
    assert (SentenceTransformer(folder, device="cpu").encode(TEXTS) == expected).all()


@pytest.mark.parametrize("mode", ["lasttoken", "mean_tokens", "max_tokens", "weightedmean_tokens", "cls_token"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", ["qwen3", "gemma3_text"])
def test_padding_on_either_side(
    family: str, side: str, mode: str, tmp_path: Path, compare: Callable[..., None]
) -> None:
    folder = build_family(tmp_path / "model", family)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "padding_side": side}))
    pooling = {"word_embedding_dimension": 32 if family == "qwen3" else 36, "pooling_mode_mean_tokens": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({**pooling, f"pooling_mode_{mode}": True}))
    ours, theirs = both(folder)
    assert theirs.tokenizer.padding_side == side
    got, alone, together = ours.encode(TEXTS), theirs.encode(TEXTS, batch_size=1), theirs.encode(TEXTS)
    compare(f"encode: {family}, padding on the {side}", float(abs(got - alone).max()), 1e-6, cases=len(TEXTS))
    # Padding on the left moves the positions, and with them the rounding of all angles in the reference.
    assert float(abs(got - together).max()) <= 1e-6 + float(abs(alone - together).max())


@pytest.mark.parametrize("mode", ["lasttoken", "mean_tokens", "weightedmean_tokens"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_texts_without_tokens(side: str, mode: str, tmp_path: Path, compare: Callable[..., None]) -> None:
    """Of a tokenizer that adds no special token."""
    folder = build_family(tmp_path / "model", "qwen3")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.post_processor = TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    changed = {**config, "padding_side": side, "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(changed))
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": False, f"pooling_mode_{mode}": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    ours, theirs = both(folder)
    texts = ["a cat", "", "the dog ran", ""]
    largest = float(abs(ours.encode(texts) - theirs.encode(texts)).max())
    compare("encode: varied, texts without tokens", largest, 1e-6, cases=len(texts))
    assert ours.encode([""]).shape == (1, 32)
