"""Folders that say something else, or say it in another way: read here and by sentence-transformers 6.2.0."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from model_folders import add_module, edit, load, read
from safetensors.torch import load_file, save_file

reference = pytest.importorskip("sentence_transformers")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

TEXTS = [
    "a cat sat on the mat",
    "one",
    "Why IS the Sky blue, and the sea not?",
    "",
    "the dog ran fast to " * 20 + "the sea",
    "[SEP] <mask> x1-y2",
    "naïve ÀÉ 我们 ΟΔΟΣ",
]
BOUND = 1e-6


Edit = Callable[[Path], Any]
CLASSES = {"bert": "BertTokenizer", "distilbert": "DistilBertTokenizer", "mpnet": "MPNetTokenizer"}
CLASSES |= {"roberta": "RobertaTokenizer"}


def settings(**changes: Any) -> Edit:
    return lambda folder: edit(folder / "sentence_bert_config.json", **changes)


def tokenizer(**changes: Any) -> Edit:
    return lambda folder: edit(folder / "tokenizer_config.json", **changes)


def normalizer(**changes: Any) -> Edit:
    def change(folder: Path) -> None:
        content = read(folder / "tokenizer.json")
        edit(folder / "tokenizer.json", normalizer={**content["normalizer"], **changes})

    return change


def without(*names: str) -> Edit:
    return lambda folder: [(folder / name).unlink() for name in names]


def both(*edits: Edit) -> Edit:
    return lambda folder: [change(folder) for change in edits]


def bare(**config: Any) -> Edit:
    return both(without("modules.json"), lambda folder: edit(folder / "config.json", **config))


def dense(**config: Any) -> Edit:
    """Put a Dense of 32 to 8, or as given, behind the pooling."""

    def change(folder: Path) -> None:
        full = {"in_features": 32, "out_features": 8, "bias": True, **config}
        torch.manual_seed(0)
        size = full["out_features"]
        tensors = {"linear.weight": torch.randn(size, 32) / 10, "linear.bias": torch.randn(size)}
        if config.get("use_residual") and size != 32:
            tensors["residual.weight"] = torch.randn(size, 32) / 10
        add_module(folder, "Dense", full, tensors)

    return change


def weights(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Edit:
    def rewrite_weights(folder: Path) -> None:
        tensors = change(load_file(folder / "model.safetensors"))
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return rewrite_weights


def shards(kind: str) -> Edit:
    """Spread the checkpoint over two files."""

    def change(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        places = {}
        for number in (1, 2):
            part = {name: tensor for i, (name, tensor) in enumerate(tensors.items()) if i % 2 == number - 1}
            name = f"model-{number}-of-2.safetensors" if kind == "model.safetensors" else f"{kind[:-4]}-{number}.bin"
            places |= dict.fromkeys(part, name)
            if kind == "model.safetensors":
                save_file(part, folder / name, metadata={"format": "pt"})
            else:
                torch.save(part, folder / name)
        edit(folder / f"{kind}.index.json", metadata={}, weight_map=places)

    return change


def with_head(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    named = {
        f"bert.{name}".replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in tensors.items()
    }
    return {**named, "cls.predictions.bias": torch.zeros(3), "bert.embeddings.position_ids": torch.arange(64)[None]}


CHANGES: dict[str, list[tuple[str, Edit]]] = {
    "sentence_bert_config.json": [
        ("bert", settings(tokenizer_args={"model_max_length": 12, "truncation_side": "left", "do_lower_case": False})),
        ("roberta", settings(processor_kwargs={"add_prefix_space": True}, max_seq_length=20)),
        ("bert", settings(config_args={"hidden_act": "relu", "trust_remote_code": True, "use_cache": True})),
        ("bert", settings(model_args={"attn_implementation": "eager", "add_pooling_layer": False})),
        ("bert", settings(processing_kwargs={"text": {"max_length": 9}, "common": {"padding": "max_length"}})),
        ("bert", settings(max_seq_length=None, unpad_inputs=False, query_length=None)),
        ("bert", lambda folder: (folder / "sentence_bert_config.json").rename(folder / "sentence_xlnet_config.json")),
    ],
    "tokenizers as configured": [
        *((name, tokenizer(tokenizer_class=kind)) for name, kind in CLASSES.items()),
        *((name, tokenizer(tokenizer_class=None)) for name in CLASSES),
        *((name, tokenizer(tokenizer_class=CLASSES[name], do_lower_case=False)) for name in CLASSES),
        *((name, tokenizer(tokenizer_class=CLASSES[name], add_prefix_space=True)) for name in CLASSES),
        *((name, without("tokenizer_config.json")) for name in ("bert", "distilbert", "roberta")),
        *((name, normalizer(lowercase=False, strip_accents=True)) for name in ("bert", "distilbert", "mpnet")),
        ("bert", tokenizer(tokenizer_class="PreTrainedTokenizerFast", do_lower_case=False)),
        ("mpnet", tokenizer(tokenizer_class="MPNetTokenizer", strip_accents=False, tokenize_chinese_chars=False)),
        ("bert", tokenizer(truncation_side="left", extra_special_tokens=["the"])),
        ("xlm-roberta", lambda folder: edit(folder / "tokenizer.json", truncation=TRUNCATION, padding=PADDING)),
    ],
    "bare checkpoints": [
        *((name, bare()) for name in tiny_models.ARCHITECTURES if name != "mpnet"),
        ("bert", bare(architectures=["BertForCausalLM"])),
        ("bert", bare(architectures=["BertForCausalLM"], is_causal=False)),
        (
            "bert",
            lambda folder: edit(
                folder / "config_sentence_transformers.json",
                model_type="SparseEncoder",
                prompts={"query": "x"},
                default_prompt_name="query",
            ),
        ),
    ],
    "checkpoints": [
        ("bert", weights(with_head)),
        ("bert", shards("model.safetensors")),
        ("bert", shards("pytorch_model.bin")),
    ],
    "Dense": [
        ("bert", dense()),
        ("bert", dense(activation_function="torch.nn.modules.linear.Identity", unknown=1)),
        ("bert", dense(module_input_name="sentence_embedding", module_output_name="sentence_embedding")),
        ("bert", dense(use_residual=True)),
        ("bert", dense(use_residual=True, out_features=32)),
    ],
}
TRUNCATION = {"direction": "Left", "max_length": 5, "strategy": "OnlySecond", "stride": 1}
PADDING = {
    "strategy": {"Fixed": 20},
    "direction": "Right",
    "pad_to_multiple_of": 8,
    "pad_id": 1,
    "pad_type_id": 0,
    "pad_token": "<pad>",
}


def theirs(folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return reference.SentenceTransformer(str(folder), device="cpu")


def largest(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> float:
    return max(float(np.abs(got - expected).max()) for got, expected in pairs)


@pytest.mark.filterwarnings(
    "ignore:.*pooling is used:UserWarning",
    "ignore:.*unknown left out:UserWarning",
    "ignore:a new tokenizer.json is saved:UserWarning",
)
@pytest.mark.parametrize("group", CHANGES)
def test_changed_folders(group: str, tiny: Callable[[str], Path], tmp_path: Path, compare: Callable[..., None]) -> None:
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    for number, (base, change) in enumerate(CHANGES[group]):
        folder = shutil.copytree(tiny(base), tmp_path / str(number))
        change(folder)
        pairs.append((load(folder).encode(TEXTS), theirs(folder).encode(TEXTS)))
        assert pairs[-1][0].shape == pairs[-1][1].shape
        saved = tmp_path / f"{number}, saved"
        load(folder).save_pretrained(saved, create_model_card=False)
        assert np.array_equal(load(saved).encode(TEXTS), pairs[-1][0])
        pairs.append((theirs(saved).encode(TEXTS), pairs[-1][1]))
    compare(f"{group}: read here and by 6.2.0", largest(pairs), BOUND, cases=len(pairs))


@pytest.mark.filterwarnings("ignore:.*pooling is used:UserWarning")
@pytest.mark.parametrize("kind", ["causal", "bidirectional", "t5"])
def test_other_encoders(kind: str, tiny: Callable[[str], Path], tmp_path: Path, compare: Callable[..., None]) -> None:
    transformers = pytest.importorskip("transformers")
    vocabulary = read(tiny("roberta") / "config.json")["vocab_size"]
    folder = tmp_path / "model"
    torch.manual_seed(0)
    if kind == "t5":
        config = transformers.T5Config(vocab_size=vocabulary, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
        transformers.T5Model(config).save_pretrained(folder)
    else:
        config = transformers.LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=64,
        )
        transformers.LlamaModel(config).save_pretrained(folder)
        edit(folder / "config.json", architectures=["LlamaForCausalLM"], is_causal=kind == "causal")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny("roberta") / name, folder)
    model, expected = load(folder), theirs(folder).encode(TEXTS)
    assert model[1].pooling_mode == (("lasttoken",) if kind == "causal" else ("mean",))
    model.save_pretrained(tmp_path / "saved")
    if kind != "t5":  # of which only the encoder is kept
        assert (tmp_path / "saved" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    again = theirs(tmp_path / "saved").encode(TEXTS)
    pairs = [(model.encode(TEXTS), expected), (load(tmp_path / "saved").encode(TEXTS), expected), (again, expected)]
    compare("encoders that run through transformers", largest(pairs), BOUND * float(np.abs(expected).max()), cases=3)
