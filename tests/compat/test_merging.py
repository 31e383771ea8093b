"""`merge` with the reference's arguments gives what `minisbert.recipes.merge` writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import minisbert
from minisbert import recipes
from minisbert.compat import SentenceTransformer
from minisbert.errors import ConfigError, InputError, InputTypeError, ModelError


@pytest.fixture
def three(tiny: Callable[[str], Path], tmp_path: Path) -> list[str]:
    """Three models with weights of their own."""
    found = []
    for seed in range(3):
        model = SentenceTransformer(str(tiny("bert")), device="cpu", prompts={"ask": f"{seed}: "})
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor += 0.05 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(seed + len(name)))
        model.save(str(tmp_path / f"model-{seed}"))
        found.append(str(tmp_path / f"model-{seed}"))
    return found


CASES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"parameters": {"weight": [0.6, 0.3, 0.1]}}, {"weights": [0.6, 0.3, 0.1]}),
    ({"parameters": {"weight": {2: 0.1, 0: 0.6, 1: 0.3}}}, {"weights": [0.6, 0.3, 0.1]}),
    ({"method": "slerp", "of": 2, "parameters": {"t": 0.3}}, {"t": 0.3}),
    ({"method": "slerp", "of": 2, "base_model": 1}, {}),
    ({"method": "task_arithmetic", "base_model": 0, "parameters": {"weight": {1: 2.0, 2: -1}}}, {"weights": [2.0, -1]}),
    (
        {"method": "ties", "base_model": 1, "parameters": {"weight": 0.5, "density": [0.3, 0.8]}},
        {"weights": 0.5, "density": [0.3, 0.8]},
    ),
    ({"method": "ties", "of": 2, "base_model": 2, "parameters": {"density": 0.4}}, {"density": 0.4}),
]


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize(("options", "expected"), CASES, ids=lambda value: str(value)[:60])
def test_merge(
    options: dict[str, Any], expected: dict[str, Any], loaded: bool, three: list[str], tmp_path: Path
) -> None:
    options = {**options}
    count = options.pop("of", 3)
    given: list[Any] = [SentenceTransformer(one, device="cpu") if loaded else one for one in three]
    ours: dict[str, Any] = {**expected, "method": options.get("method", "linear")}
    if "base_model" in options:
        ours["base"] = three[options["base_model"]]
        options["base_model"] = given[options["base_model"]]
    right = load_file(recipes.merge(three[:count], tmp_path / "right", **ours) / "model.safetensors")
    merged = SentenceTransformer.merge(given[:count], **options)
    assert type(merged) is SentenceTransformer
    assert not merged.training
    assert merged.prompts["ask"] == "0: "
    merged.save(str(tmp_path / "saved"))
    got = load_file(tmp_path / "saved" / "model.safetensors")
    assert got.keys() == right.keys()
    assert all(torch.equal(got[name], right[name]) for name in right)
    assert "Merge" in (tmp_path / "saved" / "README.md").read_text()


def test_dtypes(three: list[str], tmp_path: Path) -> None:
    """Tensors of half models are merged in float32, and rounded only if that is asked for."""
    half = []
    for number, one in enumerate(three):
        model = SentenceTransformer(one, device="cpu").bfloat16()
        model.save(str(tmp_path / f"half-{number}"))
        half.append(model)
    name = "encoder.layer.0.output.dense.weight"
    tensors = [load_file(tmp_path / f"half-{number}" / "model.safetensors")[name].float() for number in range(3)]
    expected = sum(tensors) / 3
    for given in (half, [str(tmp_path / f"half-{number}") for number in range(3)]):
        merged = SentenceTransformer.merge(given)
        assert merged.dtype == torch.float32
        merged.save(str(tmp_path / "merged"))
        torch.testing.assert_close(load_file(tmp_path / "merged" / "model.safetensors")[name], expected)
        assert SentenceTransformer.merge(given, out_dtype="bfloat16", dtype=None).dtype == torch.bfloat16
    assert half[0].dtype == torch.bfloat16


def test_what_cannot_be_merged(three: list[str]) -> None:
    def refuse(kind: type[Exception], message: str, models: Any = None, **options: Any) -> None:
        with pytest.raises(kind, match=message):
            SentenceTransformer.merge(three if models is None else models, **options)

    refuse(ConfigError, "got method='dare_ties'; expected one of linear", method="dare_ties")
    refuse(ConfigError, "got the parameter 'weights'; expected weight", parameters={"weights": 1})
    refuse(ConfigError, "got the parameter 'int8_mask'; expected weight, density, t", parameters={"int8_mask": True})
    refuse(ConfigError, "expected a number for model 1, too", parameters={"weight": {0: 1.0, 2: 1.0}})
    refuse(ConfigError, "got dtype=torch.float16; expected float32, in which", dtype=torch.float16)
    refuse(ConfigError, "got out_dtype='int8'; expected float16, bfloat16", out_dtype="int8")
    refuse(InputError, "got 1 model to merge", three[:1])
    refuse(InputError, "got 1 model to merge", three[0])
    refuse(InputTypeError, "got 3 as a model to merge", [three[0], 3])
    with pytest.raises(TypeError, match="unheard"):
        SentenceTransformer.merge(three, unheard=1)


def test_what_was_wrong_with_arguments(three: list[str], tmp_path: Path) -> None:
    loaded: list[Any] = [SentenceTransformer(one, device="cpu") for one in three]

    def refuse(kind: type[Exception], message: str, **options: Any) -> None:
        with pytest.raises(kind, match=message):
            SentenceTransformer.merge(loaded, **options)

    for wrong in ("weight", [1], 0, []):
        refuse(ConfigError, "got parameters=.*; expected numbers by name", parameters=wrong)
    refuse(ConfigError, "got the parameter 1; expected", parameters={1: 2})
    refuse(ConfigError, "got dtype=.*; expected float16", dtype=torch.ones(2))
    refuse(ConfigError, "got truncate_dim with loaded models; expected folders", truncate_dim=16)
    huge = {"weight": 1e9}
    refuse(
        ModelError, "out_dtype", method="task_arithmetic", base_model=loaded[2], parameters=huge, out_dtype="float16"
    )
    # One folder under two names is one model, and arrays are numbers.
    again = Path(three[1]).parent / "." / ".." / Path(three[1]).parent.name / Path(three[1]).name
    merged = SentenceTransformer.merge(
        three, "task_arithmetic", base_model=str(again), parameters={"weight": torch.tensor([0.5, 2.0])}
    )
    right = recipes.merge(three, tmp_path / "right", method="task_arithmetic", base=three[1], weights=[0.5, 2.0])
    merged.save(str(tmp_path / "saved"))
    got, expected = (load_file(Path(one) / "model.safetensors") for one in (tmp_path / "saved", right))
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    card = (tmp_path / "saved" / "README.md").read_text()
    assert "model-0 (weight 0.5), model-2 (weight 2)" in card


def test_halves_of_our_own_class(three: list[str]) -> None:
    ours: list[Any] = [minisbert.SentenceTransformer(one, device="cpu").bfloat16() for one in three]
    copies: list[Any] = [SentenceTransformer(one, device="cpu").bfloat16() for one in three]
    first, second = SentenceTransformer.merge(ours).state_dict(), SentenceTransformer.merge(copies).state_dict()
    assert all(torch.equal(value, second[name]) for name, value in first.items())
