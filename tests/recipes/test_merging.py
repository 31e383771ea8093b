"""Merging: each method by its definition, what is refused, and the folder and card that are written."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import families
import pytest
import static_models
import tiny_models
import torch
from model_folders import edit, files
from safetensors.torch import load_file, save_file

from minisbert import LoraConfig, SentenceTransformer, card, recipes
from minisbert.cli import main
from minisbert.errors import ConfigError, InputError, InputTypeError, ModelError
from minisbert.modules import Dense
from minisbert.recipes.merge_methods import combine, linear, read_settings, slerp, ties, trim
from minisbert.storage.weights import rewrite_weights

SHAPES = [(), (1,), (7,), (3, 5), (2, 3, 4), (0, 4), (33, 65)]


def draw(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# ---- methods, by definitions written out element by element ---------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_linear_is_the_weighted_mean(shape: tuple[int, ...]) -> None:
    tensors, weights = [draw(shape, seed) for seed in range(3)], (0.5, -0.2, 1.3)
    result = linear(tensors, weights)
    expected = sum(weight * tensor.double() for weight, tensor in zip(weights, tensors, strict=True)) / sum(weights)
    assert result.shape == shape
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), expected, rtol=1e-6, atol=1e-6)


def slerp_by_hand(a: list[float], b: list[float], t: float) -> list[float]:
    lengths = [math.sqrt(sum(x * x for x in one)) for one in (a, b)]
    directions = [[x / (length or 1) for x in one] for one, length in zip((a, b), lengths, strict=True)]
    cosine = max(-1.0, min(1.0, sum(x * y for x, y in zip(*directions, strict=True))))
    if abs(cosine) > 0.9995:
        return [(1 - t) * x + t * y for x, y in zip(a, b, strict=True)]
    angle = math.acos(cosine)
    start, end = math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)
    return [start * x + end * y for x, y in zip(a, b, strict=True)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_slerp_follows_the_arc(shape: tuple[int, ...], t: float) -> None:
    start, end = draw(shape, 1), draw(shape, 2)
    expected = torch.tensor(slerp_by_hand(start.flatten().tolist(), end.flatten().tolist(), t)).reshape(shape)
    torch.testing.assert_close(slerp(start, end, t), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("start", "end", "middle"),
    [
        ([1.0, 0.0], [0.0, 1.0], [math.sqrt(0.5), math.sqrt(0.5)]),  # a right angle: the length stays
        ([0.0, 0.0], [2.0, 4.0], [math.sqrt(2), 2 * math.sqrt(2)]),  # no direction: as at a right angle
        ([0.0, 0.0], [0.0, 0.0], [0.0, 0.0]),
        ([1.0, 2.0], [2.0, 4.0], [1.5, 3.0]),  # parallel: a line
        ([1.0, 2.0], [-1.0, -2.0], [0.0, 0.0]),  # opposite: a line, through 0
        ([3.0], [1.0], [2.0]),  # one element is always parallel
    ],
)
def test_slerp_without_an_arc(start: list[float], end: list[float], middle: list[float]) -> None:
    torch.testing.assert_close(slerp(torch.tensor(start), torch.tensor(end), 0.5), torch.tensor(middle))


def test_slerp_on_both_sides_of_the_border_to_a_line() -> None:
    for cosine in (0.9994, 0.9996):
        start, end = [1.0, 0.0], [cosine, math.sqrt(1 - cosine**2)]
        expected = torch.tensor(slerp_by_hand(start, end, 0.25))
        torch.testing.assert_close(slerp(torch.tensor(start), torch.tensor(end), 0.25), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_task_arithmetic_adds_weighted_changes(shape: tuple[int, ...]) -> None:
    base, tensors = draw(shape, 0), [draw(shape, 1), draw(shape, 2)]
    settings = read_settings("task_arithmetic", 2, has_base=True, weights=(0.7, -0.4), density=None, t=None)
    expected = base + 0.7 * (tensors[0] - base) - 0.4 * (tensors[1] - base)
    torch.testing.assert_close(combine(settings, tensors, base), expected, rtol=1e-6, atol=1e-6)


def ties_by_hand(base: float, changes: list[float], weights: list[float]) -> float:
    """One element, after trimming."""
    weighted = [weight * change for weight, change in zip(weights, changes, strict=True)]
    sign = 1 if sum(weighted) >= 0 else -1
    chosen = [index for index, change in enumerate(weighted) if change * sign > 0]
    total = sum(weights[index] for index in chosen)
    return base + sum(weighted[index] for index in chosen) / (total or 1)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("density", [1.0, 0.4, 1e-6])
def test_ties_keeps_the_largest_changes_of_the_elected_sign(shape: tuple[int, ...], density: float) -> None:
    base, weights = draw(shape, 0), [1.0, 0.5, 0.25]
    tensors = [draw(shape, seed) for seed in (1, 2, 3)]
    kept = []
    for tensor in tensors:
        change = (tensor - base).flatten().tolist()
        count = max(1, int(density * len(change)))
        largest = sorted(range(len(change)), key=lambda index: -abs(change[index]))[:count]
        kept.append([value if index in largest else 0.0 for index, value in enumerate(change)])
    each = [
        ties_by_hand(b, list(c), weights) for b, c in zip(base.flatten().tolist(), zip(*kept, strict=True), strict=True)
    ]
    result = ties(tensors, base, weights, [density] * 3)
    torch.testing.assert_close(result, torch.tensor(each).reshape(shape), rtol=1e-5, atol=1e-6)


def test_ties_of_one_sign_is_the_mean_and_of_two_that_cancel_out_the_positive_one() -> None:
    base = torch.zeros(3)
    result = ties([torch.tensor([2.0, -1.0, 3.0]), torch.tensor([4.0, -5.0, -3.0])], base, [1.0, 1.0], [1.0, 1.0])
    assert result.tolist() == [3.0, -3.0, 3.0]


def test_ties_leaves_what_no_model_changed() -> None:
    base = torch.tensor([1.0, 2.0])
    assert ties([base.clone(), base.clone()], base, [1.0, 1.0], [0.5, 0.5]).equal(base)


def test_trim_keeps_at_least_one_element() -> None:
    change = torch.tensor([[0.1, -3.0], [0.2, 0.3]])
    trim(change, 1e-9)
    assert change.tolist() == [[0.0, -3.0], [0.0, 0.0]]


NO = {"weights": None, "density": None, "t": None}


@pytest.mark.parametrize(
    ("method", "others", "has_base", "given", "expected"),
    [
        ("mean", 2, False, {}, "expected one of linear, slerp, task_arithmetic, ties"),
        ("linear", 2, True, {}, "expected models alone"),
        ("ties", 2, False, {}, "give it as base"),
        ("linear", 2, False, {"t": 0.5}, "got 0.5 as t for linear, which has none; expected weights"),
        ("ties", 2, True, {"t": 0.5}, "expected weights and density"),
        ("task_arithmetic", 2, True, {"density": 0.5}, "got 0.5 as density"),
        ("slerp", 1, True, {"weights": 1.0}, "got 1.0 as weights for slerp"),
        ("slerp", 2, True, {}, "got 3 models for slerp; expected two"),
        ("slerp", 1, True, {"t": 1.5}, "got t=1.5"),
        ("slerp", 1, True, {"t": math.nan}, "got t=nan"),
        ("slerp", 1, True, {"t": "half"}, "got t='half'"),
        ("linear", 2, False, {"weights": (1, -1)}, "whose sum is 0"),
        ("linear", 2, False, {"weights": 0}, "whose sum is 0"),
        ("linear", 2, False, {"weights": (1e308, 1e308)}, "whose sum is inf"),
        ("linear", 2, False, {"weights": (1, math.nan)}, "expected finite numbers"),
        ("linear", 2, False, {"weights": math.inf}, "expected finite numbers"),
        ("linear", 2, False, {"weights": "1"}, "expected finite numbers"),
        ("linear", 2, False, {"weights": (1, 2, 3)}, "got 3 numbers as weights for 2 models"),
        ("ties", 1, True, {"weights": (1, 2)}, "got 2 numbers as weights for 1 model (a base has none)"),
        ("ties", 2, True, {"density": 0}, "got density=0.0"),
        ("ties", 2, True, {"density": (0.5, 1.5)}, "got density=1.5"),
    ],
)
def test_numbers_are_checked(method: Any, others: int, has_base: bool, given: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_settings(method, others, has_base=has_base, **{**NO, **given})
    assert expected in str(error.value)


# ---- folders --------------------------------------------------------------------------------------------------------


def change(folder: Path, target: Path, seed: int, *, dtype: torch.dtype = torch.float32, **edits: Any) -> Path:
    """Copy a model folder with other weights."""
    shutil.copytree(folder, target)
    tensors = load_file(folder / "model.safetensors")
    changed = {
        name: (tensor + 0.05 * draw(tuple(tensor.shape), seed)).to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }
    save_file(changed, target / "model.safetensors", metadata={"format": "pt"})
    if edits:
        edit(target / "config.json", **edits)
    return target


@pytest.fixture
def trio(tiny: Callable[[str], Path], tmp_path: Path) -> tuple[Path, Path, Path]:
    """A base and two models trained from it."""
    base = tiny("bert")
    return base, change(base, tmp_path / "one", 1), change(base, tmp_path / "two", 2)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("linear", {"weights": (0.6, 0.4)}),
        ("slerp", {"t": 0.3}),
        ("task_arithmetic", {"weights": (1.0, -0.5)}),
        ("ties", {"density": 0.3}),
    ],
)
def test_every_tensor_is_merged(trio: tuple[Path, ...], tmp_path: Path, method: Any, options: dict[str, Any]) -> None:
    base, one, two = trio
    with_base = method in ("task_arithmetic", "ties")
    folder = recipes.merge([one, two], tmp_path / "merged", method=method, base=base if with_base else None, **options)
    settings = read_settings(method, 1 if method == "slerp" else 2, has_base=method != "linear", **{**NO, **options})
    merged, bases, ones, twos = map(weights_of, (folder, base, one, two))
    for name, tensor in merged.items():
        if method == "slerp":
            expected = combine(settings, [twos[name]], ones[name])
        else:
            expected = combine(settings, [ones[name], twos[name]], bases[name] if with_base else None)
        assert tensor.equal(expected), name
    assert merged.keys() == {name for name in ones if not name.endswith("position_ids")}
    model = SentenceTransformer(folder, device="cpu")
    assert model.encode("a cat sat").shape == (32,)
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two", "merged"}  # nothing is left behind


def test_merging_a_model_with_itself_changes_nothing(trio: tuple[Path, ...], tmp_path: Path) -> None:
    _, one, _ = trio
    merged = weights_of(recipes.merge([one, one], tmp_path / "merged", method="slerp"))
    assert all(tensor.equal(merged[name]) for name, tensor in weights_of(one).items() if name in merged)


def test_the_base_may_be_one_of_the_models(trio: tuple[Path, ...], tmp_path: Path) -> None:
    base, one, two = trio
    among = recipes.merge([one, base, two], tmp_path / "among", method="ties", base=base, weights=(1, 2))
    beside = recipes.merge([one, two], tmp_path / "beside", method="ties", base=base, weights=(1, 2))
    assert among.joinpath("model.safetensors").read_bytes() == beside.joinpath("model.safetensors").read_bytes()
    second = recipes.merge([one, two], tmp_path / "second", method="slerp", base=two, t=0.25)
    first = recipes.merge([one, two], tmp_path / "first", method="slerp", t=0.75)
    for name, tensor in weights_of(second).items():
        torch.testing.assert_close(tensor, weights_of(first)[name], rtol=1e-6, atol=1e-7)


def test_one_model_beside_a_base(trio: tuple[Path, ...], tmp_path: Path) -> None:
    base, one, _ = trio
    merged = weights_of(recipes.merge([one], tmp_path / "merged", method="task_arithmetic", base=base, weights=0.5))
    for name, tensor in merged.items():
        torch.testing.assert_close(tensor, (weights_of(base)[name] + weights_of(one)[name]) / 2, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_dtype_of_the_first_is_kept(trio: tuple[Path, ...], tmp_path: Path, dtype: torch.dtype) -> None:
    base, one, two = trio
    half = change(base, tmp_path / "half", 3, dtype=dtype)
    merged = weights_of(recipes.merge([half, one, two], tmp_path / "merged"))
    for name, tensor in merged.items():
        assert tensor.dtype == dtype
        values = [weights_of(folder)[name].float() for folder in (half, one, two)]
        assert tensor.equal(linear(values, (1.0, 1.0, 1.0)).to(dtype))


def test_names_and_files_of_older_checkpoints(trio: tuple[Path, ...], tmp_path: Path) -> None:
    _, one, two = trio
    expected = weights_of(recipes.merge([one, two], tmp_path / "expected"))
    pickled = tmp_path / "pickled"
    shutil.copytree(two, pickled)
    tensors = {f"bert.{name}": tensor for name, tensor in weights_of(two).items()}
    torch.save(tensors | {"bert.embeddings.position_ids": torch.arange(9)}, pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    for first, second in ((one, pickled), (pickled, one)):
        merged = weights_of(recipes.merge([first, second], tmp_path / "merged"))
        assert merged.keys() == expected.keys()
        assert all(tensor.equal(expected[name]) for name, tensor in merged.items())


def test_models_that_are_not_found_leave_nothing(trio: tuple[Path, ...], tmp_path: Path) -> None:
    there = sorted(tmp_path.iterdir())
    with pytest.raises(ModelError, match="expected a model folder or a name"):
        recipes.merge([trio[0], "./no-such"], tmp_path / "new" / "er" / "merged")
    for output in (None, 3):
        with pytest.raises(InputTypeError, match=f"got output={output}; expected where to write"):
            recipes.merge(trio, output)  # type: ignore[arg-type]
    assert sorted(tmp_path.iterdir()) == there


def test_models_in_memory(trio: tuple[Path, ...], tmp_path: Path) -> None:
    _, one, two = trio
    models = [SentenceTransformer(folder, device="cpu") for folder in (one, two)]
    before = files(one)
    merged = recipes.merge(models, tmp_path / "merged")
    assert weights_of(merged).keys() == weights_of(recipes.merge([one, two], tmp_path / "again")).keys()
    assert all(weights_of(merged)[name].equal(tensor) for name, tensor in weights_of(tmp_path / "again").items())
    assert files(one) == before
    card_text = (merged / "README.md").read_text()
    assert "model 1 (weight 1), model 2 (weight 1)" in card_text


def state(folder: Path) -> dict[str, torch.Tensor]:
    model: Any = SentenceTransformer(folder, device="cpu")
    values: dict[str, torch.Tensor] = model.state_dict()
    return values


@pytest.mark.parametrize(
    "build",
    [
        *(partial(tiny_models.build, architecture=one) for one in ("roberta", "xlm-roberta", "distilbert", "mpnet")),
        *(partial(families.build_family, family=one) for one in ("modernbert", "nomic_bert", "gte", "qwen3")),
        partial(static_models.build_static, form="reference"),
        partial(static_models.build_static, form="model2vec"),
    ],
    ids=lambda build: next(iter(build.keywords.values())),
)
def test_other_architectures(build: Callable[[Path], Path], tmp_path: Path) -> None:
    first = build(tmp_path / "first")
    second = change(first, tmp_path / "second", 5)
    merged = state(recipes.merge([first, second], tmp_path / "merged"))
    states = state(first), state(second)
    for name, tensor in merged.items():
        torch.testing.assert_close(tensor, (states[0][name] + states[1][name]) / 2, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["DebertaV2", "T5"])
def test_encoders_of_transformers(kind: str, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    first = Path(shutil.copytree(tiny("bert"), tmp_path / "first"))
    (first / "model.safetensors").unlink()
    words = json.loads((first / "config.json").read_text())["vocab_size"]
    if kind == "T5":
        config = transformers.T5Config(vocab_size=words, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2)
        transformers.T5EncoderModel(config).save_pretrained(first)
    else:
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        config = transformers.DebertaV2Config(vocab_size=words, **sizes)
        transformers.AutoModel.from_config(config).save_pretrained(first)
    second = change(first, tmp_path / "second", 5)
    merged = state(recipes.merge([first, second], tmp_path / "merged", weights=(1, 3)))
    states = state(first), state(second)
    for name, tensor in merged.items():
        torch.testing.assert_close(tensor, (states[0][name] + 3 * states[1][name]) / 4, rtol=1e-6, atol=1e-6)
    edit(second / "config.json", **{"layer_norm_epsilon" if kind == "T5" else "layer_norm_eps": 1e-3})
    with pytest.raises(ModelError, match=r"layer_norm_\w+ of the encoder 0\.001 in"):
        recipes.merge([first, second], tmp_path / "other")


def test_dense_layers_are_merged(trio: tuple[Path, ...], tmp_path: Path) -> None:
    _, one, two = trio
    for folder in (one, two):
        model = SentenceTransformer(folder, device="cpu")
        dense = Dense(32, 8, activation_function="torch.nn.modules.linear.Identity")
        SentenceTransformer(modules=[model[0], model[1], dense], device="cpu").save_pretrained(folder)
    merged = state(recipes.merge([one, two], tmp_path / "merged"))
    assert merged["2.linear.weight"].equal(
        linear([state(one)["2.linear.weight"], state(two)["2.linear.weight"]], (1, 1))
    )


def test_a_saved_adapter_is_merged_with_its_base_first(trio: tuple[Path, ...], tmp_path: Path) -> None:
    _, one, two = trio
    model = SentenceTransformer(one, device="cpu")
    model.add_adapter(LoraConfig(r=2))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data = draw(tuple(parameter.shape), len(name))
    with pytest.raises(ConfigError, match=r"got model 1 with an adapter; .* call merge_and_unload\(\)"):
        recipes.merge([model, two], tmp_path / "merged")
    model.save_pretrained(tmp_path / "adapter")
    merged = state(recipes.merge([two, tmp_path / "adapter"], tmp_path / "merged"))
    states = state(two), state(tmp_path / "adapter")
    assert any(not tensor.equal(state(one)[name]) for name, tensor in states[1].items())
    for name, tensor in merged.items():
        torch.testing.assert_close(tensor, (states[0][name] + states[1][name]) / 2, rtol=1e-6, atol=1e-6)


def test_a_pooler_that_only_one_has_is_kept(trio: tuple[Path, ...], tmp_path: Path) -> None:
    _, one, two = trio
    tensors = {name: tensor for name, tensor in weights_of(two).items() if not name.startswith("pooler.")}
    save_file(tensors, two / "model.safetensors", metadata={"format": "pt"})
    with pytest.warns(UserWarning, match=r"pooler\.dense\.\w+ is not in all models"):
        merged = weights_of(recipes.merge([one, two], tmp_path / "merged"))
    assert merged["pooler.dense.weight"].equal(weights_of(one)["pooler.dense.weight"])
    assert "pooler.dense.weight" not in weights_of(recipes.merge([two, one], tmp_path / "other"))


# ---- refused --------------------------------------------------------------------------------------------------------


def test_other_architectures_tokens_and_numbers_are_refused(
    trio: tuple[Path, ...], tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    _, one, two = trio

    def refused(*models: Any, kind: type[Exception] = ModelError, **options: Any) -> str:
        with pytest.raises(kind) as error:
            recipes.merge(list(models), tmp_path / "merged", **options)
        assert not (tmp_path / "merged").exists()
        return str(error.value)

    message = refused(one, tiny("roberta"))
    assert "got the architecture 'roberta' in" in message
    assert "'bert' in" in message
    smaller = tiny_models.build(tmp_path / "smaller", "bert", layers=1)
    assert "num_hidden_layers of the encoder 1 in" in refused(one, smaller)
    wider = tiny_models.build(tmp_path / "wider", "bert", dim=64)
    assert "hidden_size of the encoder 64" in refused(one, wider)
    assert "layer_norm_eps" in refused(one, change(one, tmp_path / "other-eps", 1, layer_norm_eps=1e-5))

    max_pooling = change(one, tmp_path / "max", 1)
    edit(max_pooling / "1_Pooling" / "config.json", pooling_mode_mean_tokens=False, pooling_mode_max_tokens=True)
    assert "of module 1, a Pooling," in refused(one, max_pooling)
    bare = change(one, tmp_path / "bare", 1)
    entries = json.loads((bare / "modules.json").read_text())
    (bare / "modules.json").write_text(json.dumps(entries[:2]))
    assert "got the modules ['Transformer', 'Pooling']" in refused(one, bare)

    other_words = change(one, tmp_path / "words", 1)
    text = (other_words / "tokenizer.json").read_text()
    (other_words / "tokenizer.json").write_text(text.replace('"cat"', '"kat"'))
    assert "got the token 'cat' as None in" in refused(one, other_words) or "'kat'" in refused(one, other_words)

    broken = change(one, tmp_path / "broken", 1)
    tensors = weights_of(broken)
    name = next(name for name in tensors if "LayerNorm.weight" in name)
    tensors[name][0] = math.nan
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    assert f"got {name} with NaN or infinity in {broken}" in refused(one, broken)

    assert "got 1 model to merge" in refused(one, kind=InputError)
    assert "got 0 models to merge" in refused(kind=InputError)
    assert "expected a folder, a name or" in refused(one, 3, kind=InputTypeError)
    assert "which is not a folder" in refused(one, tmp_path / "missing")
    with pytest.raises(InputTypeError, match="put them in a list"):
        recipes.merge(str(one), tmp_path / "merged")  # type: ignore[arg-type]
    before = files(one)
    with pytest.raises(InputError, match="expected two folders"):
        recipes.merge([one, two], one)
    assert files(one) == before


def test_rewriting_a_file_keeps_its_header(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    tensors = {
        "a": torch.ones(2, 3),
        "b": torch.arange(5),
        "c": torch.zeros(0),
        "d": torch.ones(3, dtype=torch.float16),
    }
    save_file(tensors, path, metadata={"format": "pt", "more": "x"})
    save_file(
        {name: tensor * 3 for name, tensor in tensors.items()},
        tmp_path / "expected",
        metadata={"format": "pt", "more": "x"},
    )
    rewrite_weights(path, lambda name: tensors[name] * 3)
    assert load_file(path)["b"].tolist() == [0, 3, 6, 9, 12]
    assert sorted(path.read_bytes()) == sorted((tmp_path / "expected").read_bytes())  # entries of metadata in any order
    with pytest.raises(ValueError, match="a has 8 bytes, not 24"):
        rewrite_weights(path, lambda name: torch.ones(2) if name == "a" else tensors[name])
    assert load_file(path)["b"].tolist() == [0, 3, 6, 9, 12]


# ---- card and command -----------------------------------------------------------------------------------------------


def test_the_card_names_models_and_numbers(trio: tuple[Path, ...], minilm: Path, tmp_path: Path) -> None:
    base, one, two = trio
    folder = recipes.merge([one, two], tmp_path / "merged", method="ties", base=base, weights=(1, 0.5), density=0.25)
    facts = card.read_card(folder / "README.md")
    assert facts.origin == card.Origin(
        "Merge",
        {"Method": "ties", "Base": base.name, "Models": "one (weight 1, density 0.25), two (weight 0.5, density 0.25)"},
    )
    assert facts.front_matter.base_model is None  # folders are not on the Hub
    assert "merge" in facts.front_matter.tags
    assert card.parse(card.render(facts)) == facts
    copy = SentenceTransformer(minilm, device="cpu")
    copy.base_model = "somebody/else"
    folder = recipes.merge(["all-MiniLM-L6-v2", copy], tmp_path / "hub", method="slerp", t=0.2, model_name="me/merged")
    text = (folder / "README.md").read_text()
    facts = card.parse(text)
    assert facts.front_matter.base_model == ("sentence-transformers/all-MiniLM-L6-v2", "somebody/else")
    assert facts.front_matter.base_model_relation == "merge"
    assert (
        "base_model:\n- sentence-transformers/all-MiniLM-L6-v2\n- somebody/else\nbase_model_relation: merge\n" in text
    )
    assert facts.title == "me/merged"
    assert facts.origin is not None
    assert facts.origin.facts["t"] == "0.2"
    assert card.parse(card.render(facts)) == facts


def test_a_result_that_is_not_finite_is_not_saved(trio: tuple[Path, ...], tmp_path: Path) -> None:
    base, one, two = trio
    with pytest.raises(ModelError, match="with numbers that are not finite; expected a model that can be used"):
        recipes.merge([one, two], tmp_path / "merged", method="task_arithmetic", base=base, weights=1e39)
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two"}  # nothing half-written


def test_a_base_that_is_no_model(trio: tuple[Path, ...], tmp_path: Path) -> None:
    wrong: Any = 3
    with pytest.raises(InputTypeError, match="got 3 as a model to merge"):
        recipes.merge(trio[1:], tmp_path / "merged", method="ties", base=wrong)


def test_the_command(trio: tuple[Path, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, one, two = map(str, trio)
    output = str(tmp_path / "merged")
    assert main(["merge", one, two, "--weight", "0.6", "0.4", "--out", output]) == 0
    assert capsys.readouterr().out == f"{output}\n"
    expected = recipes.merge([one, two], tmp_path / "expected", weights=(0.6, 0.4))
    assert files(Path(output)) == files(expected)
    arguments = ["merge", one, two, "--method", "ties", "--base", base, "--density", "0.5", "--output", output]
    assert main(arguments) == 0
    assert f"{output} holds a model, which is replaced at the end" in capsys.readouterr().err
    assert main(["inspect", output]) == 0
    shown = capsys.readouterr().out
    assert "made by     merge\n              method  ties" in shown
    (tmp_path / "a-file").write_text("mine")
    assert main(["merge", one, two, "--output", str(tmp_path / "a-file")]) == 2
    assert "a-file is a file; expected a folder to write to" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="got 1 names for 2 models"):
        recipes.merge([one, two], output, names=["one"])
    assert main(["merge", one, "--output", output]) == 2
    assert "expected at least two" in capsys.readouterr().err
