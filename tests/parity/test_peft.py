"""LoRA adapters against PEFT: outputs and gradients of training, folders written here read there, and the other way."""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch

from minisbert import LoraConfig, SentenceTransformer
from minisbert.modules.features import Features
from minisbert.modules.lora import adapted_layers, linear_layers
from minisbert.packing import pack

pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed: pip install peft"),
    pytest.mark.filterwarnings("ignore"),
]
TEXTS = ["a cat sat on the mat", "one", "Why IS the Sky blue, and the sea not?", "the dog ran fast"]
BOUND = 1e-6
GRADIENTS = 1e-6
TARGETS = {
    "bert": [["query", "value"], ["query", "dense"], r".*layer\.1\..*\.(key|dense)", "all-linear", None],
    "roberta": [["key"], "all-linear"],
    "xlm-roberta": [None],
    "distilbert": [["q_lin", "lin2"], "all-linear"],
    "mpnet": [["q", "o"], "all-linear"],
}
CASES = [(name, targets) for name in tiny_models.ARCHITECTURES for targets in TARGETS[name]]


def reference(folder: Path) -> Any:
    import sentence_transformers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sentence_transformers.SentenceTransformer(str(folder), device="cpu")


def mean_pooled(encoder: Any, folder: Path) -> np.ndarray:
    """Embed with an encoder of transformers and PEFT alone."""
    tokens = reference(folder).tokenize(TEXTS)
    with torch.no_grad():
        hidden = encoder.eval()(**{name: tokens[name] for name in ("input_ids", "attention_mask")}).last_hidden_state
    mask = tokens["attention_mask"][..., None]
    return np.asarray(torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1))


@pytest.mark.parametrize(("architecture", "targets"), CASES, ids=str)
@pytest.mark.parametrize("rslora", [False, True])
def test_ours_is_read_by_peft_and_the_reference(
    architecture: str, targets: Any, rslora: bool, tiny: Callable[[str], Path], tmp_path: Path, compare: Any
) -> None:
    import peft
    import transformers

    folder = tiny(architecture)
    model = SentenceTransformer(folder, device="cpu")
    torch.manual_seed(0)
    model.add_adapter(LoraConfig(r=3, lora_alpha=7, target_modules=targets, use_rslora=rslora))
    for layer in adapted_layers(model).values():
        torch.nn.init.normal_(layer.lora_B, std=0.2)
    expected = model.encode(TEXTS)
    model.save_pretrained(tmp_path / "ours")
    compare("embeddings with a LoRA adapter", abs(reference(tmp_path / "ours").encode(TEXTS) - expected).max(), BOUND)
    base = transformers.AutoModel.from_pretrained(str(folder))
    theirs = peft.PeftModel.from_pretrained(base, str(tmp_path / "ours"))
    names = [name for name, _ in theirs.named_parameters() if ".lora_A." in name]
    assert len(names) == len(adapted_layers(model))
    compare("embeddings with a LoRA adapter", abs(mean_pooled(theirs, folder) - expected).max(), BOUND)


@pytest.mark.parametrize(("architecture", "targets"), [case for case in CASES if isinstance(case[1], list)], ids=str)
def test_theirs_is_read_and_trained_as_there(
    architecture: str, targets: Any, tiny: Callable[[str], Path], tmp_path: Path, compare: Any
) -> None:
    import peft

    folder = tiny(architecture)
    torch.manual_seed(0)
    theirs = reference(folder)
    theirs.add_adapter(peft.LoraConfig(r=3, lora_alpha=7, target_modules=targets, init_lora_weights=False))
    theirs.save_pretrained(str(tmp_path / "theirs"))
    config = json.loads((tmp_path / "theirs" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(folder)
    expected = theirs.encode(TEXTS)
    merged = SentenceTransformer(tmp_path / "theirs", device="cpu")  # there are no weights beside the adapter
    compare("embeddings with a LoRA adapter", abs(merged.encode(TEXTS) - expected).max(), BOUND)
    model = SentenceTransformer(folder, device="cpu")
    if any(".pooler." in name for name, _ in theirs.named_parameters() if "lora" in name):
        return  # the pooler's adapter has no place here
    model.load_adapter(tmp_path / "theirs")
    compare("embeddings with a LoRA adapter", abs(model.encode(TEXTS) - expected).max(), BOUND)

    ours = model.transformer.auto_model
    features = theirs.tokenize(TEXTS)
    embeddings = theirs.eval()(dict(features))["sentence_embedding"]
    (embeddings[0] @ embeddings[1]).backward()
    gradients = {name: value.grad for name, value in theirs.named_parameters() if value.grad is not None}
    packed = pack(model.transformer.tokenizer(TEXTS))
    rows = model(Features(packed)).sentences[packed.restore]
    (rows[0] @ rows[1]).backward()
    names = linear_layers(ours, model.transformer.config)
    assert len(gradients) == 2 * len(adapted_layers(ours))
    for name, layer in adapted_layers(ours).items():
        for matrix in ("lora_A", "lora_B"):
            (found,) = [value for key, value in gradients.items() if f".{names[name]}.{matrix}." in key]
            compare("gradients of a LoRA adapter", abs(getattr(layer, matrix).grad - found).max(), GRADIENTS)


def test_a_new_adapter_is_drawn_as_there(tiny: Callable[[str], Path]) -> None:
    import peft

    theirs, ours = reference(tiny("bert")), SentenceTransformer(tiny("bert"), device="cpu")
    torch.manual_seed(3)
    theirs.add_adapter(peft.LoraConfig(r=4, target_modules=["query", "value"]))
    torch.manual_seed(3)
    ours.add_adapter(LoraConfig(r=4, target_modules=["query", "value"]))
    drawn = [value for name, value in theirs.named_parameters() if ".lora_A." in name]
    ours_drawn = [layer.lora_A for layer in adapted_layers(ours).values()]
    assert {tuple(value.shape) for value in drawn} == {tuple(value.shape) for value in ours_drawn}
    for value in (*drawn, *ours_drawn):  # uniform up to 1 / sqrt(in)
        assert 0.8 / 32**0.5 < abs(value).max() <= 1 / 32**0.5
    assert not any(value.any() for name, value in theirs.named_parameters() if ".lora_B." in name)
