"""Parameters that are frozen or have a learning rate of their own, and prompts by column."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from training_cases import pairs

from minisbert import SentenceTransformer, Trainer, TrainingConfig, losses
from minisbert.errors import ConfigError
from minisbert.training import builder, gpu
from minisbert.training.naming import named_parameters

WORD = "embeddings.word_embeddings.weight"
QUERY = "encoder.layer.0.attention.self.query.weight"


@pytest.fixture
def folder(tiny: Callable[[str], Path]) -> Path:
    return tiny("bert")


def trainer(folder: Path, **options: Any) -> Trainer:
    model = options.pop("model", None) or SentenceTransformer(folder, device="cpu")
    options = {"loss": losses.CosineSimilarityLoss(), "show_progress_bar": False, **options}
    config = TrainingConfig(**{"batch_size": 6, "max_steps": 3, "learning_rate": 1e-3, **options.pop("config", {})})
    return Trainer(model, options.pop("data", None) or pairs(), config=config, **options)


def changes(folder: Path, place: Path, **settings: Any) -> dict[str, float]:
    """The largest change of each tensor in the saved weights."""
    made = trainer(folder, config=settings)
    made.train()
    made.model.save_pretrained(place)
    before, after = (load_file(one / "model.safetensors") for one in (folder, place))
    return {name: float((after[name] - before[name]).abs().max()) for name in after if not name.startswith("pooler")}


@pytest.mark.parametrize("architecture", ["bert", "roberta", "xlm-roberta", "distilbert", "mpnet"])
def test_names_are_those_of_the_saved_weights(architecture: str, tiny: Callable[[str], Path]) -> None:
    names = {one.name for one in named_parameters(SentenceTransformer(tiny(architecture), device="cpu"))}
    saved = set(load_file(tiny(architecture) / "model.safetensors"))
    assert names == {name for name in saved if not name.startswith("pooler")}


@pytest.mark.parametrize(
    ("freeze", "expected"),
    [
        (["embeddings"], lambda name: name.startswith("embeddings.")),
        (["encoder.layer.0"], lambda name: ".layer.0." in name),
        (["encoder.layer.0."], lambda name: ".layer.0." in name),
        ([r"encoder\.layer\.[01]"], lambda name: ".layer." in name),
        ([".*bias"], lambda name: name.endswith("bias")),
        ([WORD, "encoder"], lambda name: name == WORD or ".layer." in name),
        (["model.0.auto_model.embeddings"], lambda name: name.startswith("embeddings.")),
    ],
)
@pytest.mark.parametrize("replay", [None, "6.2"])
def test_freeze(freeze: list[str], expected: Callable[[str], bool], replay: Any, folder: Path, tmp_path: Path) -> None:
    changed = changes(folder, tmp_path, freeze=freeze, replay=replay, weight_decay=0.1)
    assert {name for name, change in changed.items() if not change} == set(filter(expected, changed))


@pytest.mark.parametrize("make", [losses.ContrastiveTensionLoss, losses.ContrastiveTensionLossInBatchNegatives])
def test_the_trained_copy_of_a_loss_is_frozen_too(make: Any, folder: Path) -> None:
    model = SentenceTransformer(folder, device="cpu")
    loss = make(model)
    before = {name: parameter.detach().clone() for name, parameter in loss.copied.named_parameters()}
    rows = [("a cat", "a cat"), ("a dog", "the cat")] if loss.max_columns == 2 else [("a cat",), ("a dog",)]
    config = TrainingConfig(epochs=2, batch_size=2, learning_rate=1e-2, freeze=["embeddings"])
    Trainer(model, rows, loss=loss, config=config, show_progress_bar=False).train()
    for name, parameter in loss.copied.named_parameters():
        assert torch.equal(before[name], parameter.detach()) == (".embeddings." in name), name
        assert parameter.requires_grad


def test_freezing_lasts_for_the_run(folder: Path) -> None:
    made = trainer(folder, config={"freeze": ["embeddings"]})
    made.train()
    assert all(parameter.requires_grad for parameter in made.model.parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"freeze": ["encoder.layers.0"]}, "got 'encoder.layers.0' in freeze, which no .* such as encoder.layer.0"),
        ({"freeze": ["embedding"]}, r"expected a name such as embeddings(,|$)"),
        ({"freeze": ["embeddings", "encoder"]}, "which are all parameters; expected some to train"),
        ({"freeze": "embeddings"}, "expected a list of names"),
        ({"freeze": ["("]}, "expected regular expressions, and '\\(' is none"),
        (
            {"learning_rate_mapping": {"layer.7": 1e-3}},
            "got 'layer.7' in learning_rate_mapping, which no .* such as enc",
        ),
        ({"learning_rate_mapping": {"layer": -1}}, "expected numbers from 0 by name"),
        ({"learning_rate_mapping": {"[": 1e-3}}, "expected regular expressions"),
        (
            {"batch_sampler": "group_by_label", "batch_size": 5},
            "got batch_size=5 with .*; expected an even number from 4",
        ),
        ({"batch_sampler": "group_by_label", "eval_batch_size": 2}, "got eval_batch_size=2 with .*even number from 4"),
        ({"batch_sampler": "group_by_label", "replay": "5.1"}, "which 6.2 changed; expected replay='6.2'"),
        ({"prompts": 3}, "expected a text, or texts by the names of columns"),
        ({"prompts": {"a": ["x"]}}, "expected a text, or texts by the names of columns"),
        ({"prompts": {"c": "x"}}, "got prompts for 'c'; expected one of 'a', 'b'"),
        ({"prompts": {"a": {"b": "x"}}}, "got prompts for 'a'; expected one of 'a', 'b'"),
    ],
)
def test_what_is_refused(settings: dict[str, Any], message: str, folder: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        trainer(folder, config=settings)


def test_prompts_of_data_sets_that_are_refused(folder: Path) -> None:
    data = {"one": pairs(), "two": pairs(9)}
    for prompts, message in (
        ({"three": "x"}, "got prompts for 'three'; expected one of 'one', 'two', 'a', 'b'"),
        ({"one": {"c": "x"}}, "got prompts for 'c' of data set 'one'; expected one of 'a', 'b'"),
    ):
        with pytest.raises(ConfigError, match=message):
            trainer(folder, data=data, config={"prompts": prompts})


@pytest.mark.parametrize("settings", [{}, {"replay": "6.2"}, {"weight_decay": 0.1}, {"precision": "bf16"}], ids=str)
def test_rates_by_name(settings: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    """The first step of AdamW moves a weight by its rate, or by less if its gradient is tiny."""
    rates = {"embeddings": 1e-2, "word_embeddings": 1e-4, r"model\.0\.model\.encoder\.layer\.0": 0.0}
    settings = {"max_steps": 1, "lr_scheduler_type": "constant", **settings}
    changed = changes(folder, tmp_path, learning_rate_mapping=rates, **settings)
    decayed = 1 + settings.get("weight_decay", 0) * 4  # the largest weights are below 4
    assert changed[WORD] == pytest.approx(1e-4, rel=0.05 * decayed + decayed - 1)
    assert changed["embeddings.position_embeddings.weight"] == pytest.approx(1e-2, rel=0.05 * decayed + decayed - 1)
    assert changed["encoder.layer.1.output.dense.weight"] == pytest.approx(1e-3, rel=0.05 * decayed + decayed - 1)
    assert changed[QUERY] == 0


class Scaled(losses.CosineSimilarityLoss):
    """A loss with a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.ones(()))

    def forward(self, embeddings: Any, labels: Any = None) -> torch.Tensor:
        return super().forward(embeddings, labels) * self.factor


@pytest.mark.parametrize("pattern", ["^factor$", "factor"])
def test_the_rate_of_a_parameter_of_the_loss(pattern: str, folder: Path) -> None:
    loss = Scaled()
    config = {"learning_rate_mapping": {pattern: 1e-2}, "max_steps": 1, "lr_scheduler_type": "constant"}
    trainer(folder, loss=loss, config=config).train()
    assert float(loss.factor.detach()) == pytest.approx(1 - 1e-2, abs=1e-6)


def test_data_sets_by_weight(folder: Path) -> None:
    data = {"one": pairs(), "two": pairs(9)}
    history = trainer(folder, data=data, config={"dataset_weights": {"one": 1, "two": 2.5}, "max_steps": 9}).train()
    assert history.steps == 9
    for weights, message in (
        ({"one": 1}, "expected a number above 0 for each of several data sets: 'one', 'two'"),
        ({"one": 1, "two": 0}, "expected a number above 0 for each"),
        ([1, 2], "expected numbers from 0 by name"),
    ):
        with pytest.raises(ConfigError, match=message):
            trainer(folder, data=data, config={"dataset_weights": weights})
    with pytest.raises(ConfigError, match="pass train_data by name"):
        trainer(folder, config={"dataset_weights": {"one": 1}})
    with pytest.raises(ConfigError, match="which the reference does not have"):
        TrainingConfig(dataset_weights={"one": 1}, replay="6.2")


def loss_on(model: SentenceTransformer, rows: dict[str, Any], first: str, second: str) -> float:
    left, right = model.encode(rows["a"], prompt=first), model.encode(rows["b"], prompt=second)
    scores = model.similarity_pairwise(left, right).double()
    return float((scores - torch.tensor(rows["label"], dtype=torch.float64)).square().mean())


@pytest.mark.parametrize("include_prompt", [True, False])
@pytest.mark.parametrize(
    ("prompts", "first", "second"),
    [
        ("the sky: ", "the sky: ", "the sky: "),
        ({"a": "why is: "}, "why is: ", ""),
        ({"a": "why: ", "b": "the sea is "}, "why: ", "the sea is "),
        ({"dev": {"b": "why is: "}, "a": "no"}, "", "why is: "),
        ({"dev": "one: "}, "one: ", "one: "),
        ({}, "", ""),
    ],
)
def test_prompts(prompts: Any, first: str, second: str, include_prompt: bool, folder: Path) -> None:
    model = SentenceTransformer(folder, device="cpu")
    model.set_pooling_include_prompt(include_prompt)
    held_out, config = {"dev": pairs(13)}, {"prompts": prompts, "max_steps": 1}
    (entry,) = [
        entry
        for entry in trainer(folder, model=model, data={"x": pairs()}, eval_data=held_out, config=config)
        .train()
        .entries
        if "eval_dev_loss" in entry
    ]
    assert entry["eval_dev_loss"] == pytest.approx(loss_on(model, held_out["dev"], first, second), rel=1e-5)


def test_prompts_decide_what_is_trained(folder: Path) -> None:
    found = set()
    for prompts in (None, "why: ", {"a": "why: "}, {"a": "why: ", "b": "why: "}):
        made = trainer(folder, config={"prompts": prompts})
        found.add(round(made.train().train_loss, 12))
    assert len(found) == 3


def test_statistics_are_of_the_texts_alone(folder: Path) -> None:
    model = SentenceTransformer(folder, device="cpu")
    trainer(folder, model=model, config={"prompts": {"a": "why is the sky: "}}).train()
    assert model.training_record is not None
    (data,) = model.training_record.datasets
    counts = model.count_tokens(pairs()["a"])
    assert data.statistics[0].range == (counts.min(), counts.mean(), counts.max())


def test_a_replay_of_prompts_that_pooling_leaves_out(folder: Path) -> None:
    model = SentenceTransformer(folder, device="cpu")
    model.set_pooling_include_prompt(False)
    with pytest.raises(ConfigError, match="a model whose pooling leaves them out, which is not repeated"):
        trainer(folder, model=model, config={"prompts": "x", "replay": "6.2"})


# ---- the engine for GPUs --------------------------------------------------------------------------------------------


def options_run(folder: Path, *, include_prompt: bool, device: str = "cpu") -> list[dict[str, float]]:
    """The log of a run with most options, without dropout."""
    model = SentenceTransformer(folder, device=device)
    model.set_pooling_include_prompt(include_prompt)
    for module in model.modules():
        for name in ("dropout", "weight_dropout", "output_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    config = {
        "max_steps": 6,
        "log_every": 1,
        "lr_scheduler_type": "cosine_with_restarts",
        "lr_scheduler_kwargs": {"num_cycles": 2},
        "warmup_steps": 1,
        "weight_decay": 0.1,
        "freeze": ["embeddings.LayerNorm"],
        "learning_rate_mapping": {"layer.1": 1e-4, "layer.0.output": 0.0},
        "prompts": {"a": "why: "},
        "eval_every": 2,
    }
    return trainer(folder, model=model, eval_data=pairs(9), config=config).train().entries


def check_same(some: list[dict[str, float]], others: list[dict[str, float]], bound: float) -> None:
    for one, other in zip(some, others, strict=True):
        for name in {"loss", "eval_loss", "learning_rate"} & one.keys():
            assert one[name] == pytest.approx(other[name], abs=bound)


@pytest.mark.parametrize("include_prompt", [True, False])
def test_its_steps_uncaptured(include_prompt: bool, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU, where it computes the same without CUDA graphs."""
    expected = options_run(folder, include_prompt=include_prompt)
    monkeypatch.setattr(gpu, "CudaGraphs", lambda device: None)
    monkeypatch.setattr(gpu, "Recorded", lambda work, record: work)
    monkeypatch.setattr(gpu, "_is_capturable", lambda model, losses: False)
    monkeypatch.setattr(builder, "Engine", gpu.CapturedEngine)
    check_same(options_run(folder, include_prompt=include_prompt), expected, 1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("include_prompt", [True, False])
def test_its_steps_on_a_gpu(include_prompt: bool, folder: Path) -> None:
    expected = options_run(folder, include_prompt=include_prompt)
    check_same(options_run(folder, include_prompt=include_prompt, device="cuda"), expected, 1e-3)


def test_one_step_at_a_rate_of_zero_is_told(folder: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"max_steps": 1, "warmup_steps": 1}
    with pytest.warns(UserWarning, match="the only step has a learning rate of 0, since it is the warm-up"):
        assert changes(folder, tmp_path / "linear", **settings)[QUERY] == 0
    assert changes(folder, tmp_path / "constant", lr_scheduler_type="constant", **settings)[QUERY] > 0  # without one
