"""Models with int8 weights: what they hold, compute, copy and save."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from common import WORDS
from minisbert.kernels.cpu_ops import onednn
from torch import nn

from minisbert import SentenceTransformer, Trainer, kernels, losses
from minisbert.errors import ConfigError, ModelError
from minisbert.kernels import QuantizedLinear

TEXTS = [" ".join(WORDS[i : i + 1 + i % 7]) for i in range(20)]


def load(folder: Path, **options: Any) -> SentenceTransformer:
    return SentenceTransformer(folder, device="cpu", **{"dtype": "int8", **options})


@pytest.fixture(params=["native", "onednn", "reference"])
def way(request: pytest.FixtureRequest) -> Any:
    request.getfixturevalue("with_native" if request.param == "native" else "without_native")
    with kernels.use("reference" if request.param == "reference" else "auto"):
        yield request.param


def test_the_state_has_int8_weights_and_no_floats_of_them(tiny: Callable[[str], Path]) -> None:
    encoder, floats = (load(tiny("bert"), dtype=dtype).transformer.auto_model for dtype in ("int8", "float32"))
    state, float_state = encoder.state_dict(), floats.state_dict()
    products = {name for name, module in floats.named_modules() if isinstance(module, nn.Linear)}
    assert len(products) == 12
    for name, value in float_state.items():
        prefix, _, kind = name.rpartition(".")
        if prefix not in products or kind == "bias":
            assert torch.equal(state[name], value)
            continue
        assert state[name].dtype == torch.int8
        dequantized = state[name].float() * state[f"{prefix}.scale"][:, None]
        assert bool(((dequantized - value).abs() <= value.abs().amax(1, keepdim=True) / 127 * 0.5001).all())
    assert set(state) == set(float_state) | {f"{name}.scale" for name in products}
    assert not any(isinstance(module, nn.Linear) for module in encoder.modules())


def test_definition(tiny: Callable[[str], Path]) -> None:
    """The plain mode multiplies with the dequantized weights."""
    model, dequantized = load(tiny("bert")), load(tiny("bert"), dtype="float32")
    for mine, other in zip(
        model.transformer.auto_model.modules(), dequantized.transformer.auto_model.modules(), strict=True
    ):
        if isinstance(mine, QuantizedLinear):
            other.weight.data = mine.weight.float() * mine.scale[:, None]
    with kernels.use("reference"):
        assert np.array_equal(model.encode(TEXTS), dequantized.encode(TEXTS))


@pytest.mark.parametrize("bias", [True, False])
def test_a_quantized_layer(bias: bool) -> None:
    layer = nn.Linear(24, 10, bias=bias)
    x, quantized = torch.randn(7, 24), QuantizedLinear.of(layer)
    weight = quantized.weight.float() * quantized.scale[:, None]
    assert torch.equal(quantized(x), F.linear(x, weight, layer.bias))
    assert repr(quantized) == f"QuantizedLinear(in_features=24, out_features=10, bias={bias})"
    zero = QuantizedLinear.of(nn.Linear(24, 10))
    zero.weight.zero_()
    assert torch.equal(zero(x), zero.bias.expand(7, 10))


def test_copies(way: str, tiny: Callable[[str], Path]) -> None:
    model = load(tiny("bert"))
    expected = model.encode(TEXTS)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.transformer.auto_model.quantized
        assert np.array_equal(other.encode(TEXTS), expected)
    new = load(tiny("bert"))
    for buffer in new.transformer.auto_model.buffers():
        buffer.zero_()
    new.load_state_dict(model.state_dict())
    assert np.array_equal(new.encode(TEXTS), expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_another_dtype_of_the_floats(dtype: str, way: str, tiny: Callable[[str], Path]) -> None:
    model = load(tiny("bert"))
    expected = model.encode(TEXTS)
    assert np.abs(model.to(getattr(torch, dtype)).encode(TEXTS) - expected).max() < 0.05


@pytest.mark.skipif(not onednn.int8_available(), reason="this torch has no products in int8")
def test_one_text_and_many(way: str, minilm: Path) -> None:
    model = load(minilm)
    many = model.encode(TEXTS)
    assert max(np.abs(model.encode(text) - row).max() for text, row in zip(TEXTS, many, strict=True)) <= 1e-6
    with kernels.use("reference"):
        plain = model.encode(TEXTS)
    assert (plain * many).sum(1).min() > 0.97


def test_processes(tiny: Callable[[str], Path]) -> None:
    model = load(tiny("bert"))
    pool = model.start_multi_process_pool(["cpu"])
    try:
        assert np.abs(model.encode(TEXTS, pool=pool) - model.encode(TEXTS)).max() <= 1e-6
    finally:
        model.stop_multi_process_pool(pool)


def test_floats_are_not_loaded_into_it(tiny: Callable[[str], Path]) -> None:
    model, floats = load(tiny("bert")), load(tiny("bert"), dtype="float32")
    for strict in (True, False):
        with pytest.raises(RuntimeError, match="expected torch.int8: load the model with dtype='float32'"):
            model.load_state_dict(floats.state_dict(), strict=strict)
    assert np.array_equal(model.encode(TEXTS), load(tiny("bert")).encode(TEXTS))


def test_it_is_not_trained(tiny: Callable[[str], Path]) -> None:
    with pytest.raises(ConfigError, match="dtype 'int8'; training needs float32"):
        Trainer(load(tiny("bert")), [("a", "b")], loss=losses.MultipleNegativesRankingLoss())


# ---- saving ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "mpnet"])
def test_it_is_saved_in_float32(name: str, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    load(tiny(name)).save_pretrained(tmp_path / "int8")
    load(tiny(name), dtype="float32").save_pretrained(tmp_path / "float32")
    written = [(tmp_path / dtype / "model.safetensors").read_bytes() for dtype in ("int8", "float32")]
    assert written[0] == written[1]


def test_a_copy_is_saved_too_with_changed_floats(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    model = pickle.loads(pickle.dumps(load(tiny("bert"))))
    model.transformer.auto_model.embeddings.word.weight.data.mul_(2)
    model.save_pretrained(tmp_path)
    assert np.array_equal(load(tmp_path).encode(TEXTS), model.encode(TEXTS))


def test_it_is_saved_over_its_own_folder(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    load(tiny("bert"), dtype="float32").save_pretrained(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    model = load(tmp_path)
    for _ in range(2):
        model.save_pretrained(tmp_path)
        assert (tmp_path / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("change", ["gone", "no weights", "other weights", "other int8 weights", "by hand"])
def test_it_is_not_saved_without_its_floats(change: str, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    floats = load(tiny("bert"), dtype="float32")
    floats.save_pretrained(folder)
    model = load(folder)
    if change == "gone":
        folder.rename(tmp_path / "elsewhere")
    elif change == "no weights":
        (folder / "model.safetensors").unlink()
    elif change == "other weights":
        floats.transformer.auto_model.layers[1].feed_forward.down.weight.data[0, 0] += 1
        floats.save_pretrained(folder)
    elif change == "other int8 weights":
        model.transformer.auto_model.layers[1].feed_forward.down.weight[0, 0] += 1
    else:
        model.transformer._weights_folder = None
    with pytest.raises(ModelError, match="got an int8 model whose float weights are no longer in .*dtype='float32'"):
        model.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved" / "model.safetensors").exists()
