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
from common import WORDS
from tiny_models import build
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
        layer = encoder.get_submodule(prefix)
        weight = value / layer.factors
        assert layer.packed.nbytes < 0.45 * value.nbytes  # this small, scales and what fills up vectors count
        assert bool(((layer.weight() - weight).abs() <= weight.abs().amax(1, keepdim=True) / 127 * 0.5001).all())
    parts = {f"{name}.{part}" for name in products for part in ("packed", "factors")}
    assert set(state) == (set(float_state) - {f"{name}.weight" for name in products}) | parts
    assert not any(isinstance(module, nn.Linear) for module in encoder.modules())


@torch.no_grad()
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("inputs", "outputs"), [(24, 10), (96, 16), (1, 1), (97, 17), (384, 48), (300, 40)])
def test_a_quantized_layer(inputs: int, outputs: int, bias: bool) -> None:
    """Against the quantization of each block by itself, in float64."""
    torch.manual_seed(inputs)
    layer, factors = nn.Linear(inputs, outputs, bias=bias), torch.rand(inputs) + 0.5
    x, quantized = torch.randn(7, inputs), QuantizedLinear.of(layer, factors)

    def rounded(values: torch.Tensor) -> torch.Tensor:
        blocks = []
        for block in values.split(96, dim=1):
            step = block.abs().amax(1, keepdim=True).double() / 127
            blocks.append((block * (127 / block.abs().amax(1, keepdim=True))).round().double() * step)
        return torch.cat(blocks, dim=1)

    weight, taken = rounded(layer.weight.detach() / factors), rounded(x * factors)
    torch.testing.assert_close(quantized.weight().double(), weight, rtol=1e-6, atol=0)
    torch.testing.assert_close(quantized.quantized_input(x).double(), taken, rtol=1e-6, atol=0)
    expected = taken @ weight.T if layer.bias is None else taken @ weight.T + layer.bias.double()
    torch.testing.assert_close(quantized(x).double(), expected, rtol=1e-5, atol=1e-5)
    assert float((quantized(x) - layer(x)).norm() / layer(x).norm()) < 0.02
    assert quantized.quantized_from(layer.weight)
    assert not quantized.quantized_from(layer.weight * 1.01)
    assert repr(quantized) == f"QuantizedLinear(in_features={inputs}, out_features={outputs}, bias={bias})"


def test_layers_and_inputs_of_zeros() -> None:
    layer = nn.Linear(24, 10)
    assert torch.equal(QuantizedLinear.of(layer)(torch.zeros(2, 24)), layer.bias.expand(2, 10))
    layer.weight.data.zero_()
    assert torch.equal(QuantizedLinear.of(layer)(torch.randn(2, 24)), layer.bias.expand(2, 10))


def test_layers_with_the_same_inputs_share_factors(tiny: Callable[[str], Path]) -> None:
    for layer in load(tiny("bert")).transformer.auto_model.layers:
        attention = layer.attention
        assert attention.query.factors is attention.key.factors is attention.value.factors
        assert not torch.equal(attention.query.factors, attention.output.factors)


def test_quality(minilm: Path, way: str) -> None:
    """Of texts unlike the sentences by which the weights are scaled."""
    texts = [*TEXTS, *WORDS[:40], "Why is the sky blue in the day and red when the sun goes down over the sea?"]
    floats = load(minilm, dtype="float32").encode(texts)
    cosines = (load(minilm).encode(texts) * floats).sum(1)
    assert cosines.min() > 0.996
    assert cosines.mean() > 0.999


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


def test_one_text_and_many(way: str, minilm: Path) -> None:
    model = load(minilm)
    many = model.encode(TEXTS)
    alone = np.stack([model.encode(text) for text in TEXTS])
    if way == "native":
        assert np.array_equal(alone, many)
    assert (alone * many).sum(1).min() > 0.999  # sums in another order are rounded to other whole numbers
    with kernels.use("reference"):
        plain = model.encode(TEXTS)
    assert (plain * many).sum(1).min() > 0.999


def test_processes(tmp_path: Path) -> None:
    model = load(build(tmp_path / "model", "bert", dim=64))  # which the C++ takes, whose rows depend on no other ones
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int64])
def test_a_state_that_was_cast_is_refused(dtype: torch.dtype, tiny: Callable[[str], Path]) -> None:
    model = load(tiny("bert"))
    with pytest.raises(RuntimeError, match=r"packed in torch.*; expected torch.int32"):
        model.load_state_dict({name: value.to(dtype) for name, value in model.state_dict().items()})


@pytest.mark.parametrize("scale", [0.0, 1e-38, 1e-30])
def test_tiny_inputs_and_weights(scale: float) -> None:
    layer, x = nn.Linear(96, 16), torch.randn(3, 96) * scale
    quantized = QuantizedLinear.of(layer)
    torch.testing.assert_close(quantized(x), layer.bias.expand(3, 16), rtol=0, atol=1e-6)
    layer.weight.data *= scale
    assert bool(QuantizedLinear.of(layer)(torch.randn(3, 96)).isfinite().all())


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
    # Quantized anew, for other inputs.
    assert (load(tmp_path).encode(TEXTS) * model.encode(TEXTS)).sum(1).min() > 0.999


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
        model.transformer.auto_model.layers[1].feed_forward.down.packed[0, 0] += 1
    else:
        model.transformer._weights_folder = None
    with pytest.raises(ModelError, match="got an int8 model and no floats that .* in .*dtype='float32'"):
        model.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved" / "model.safetensors").exists()
