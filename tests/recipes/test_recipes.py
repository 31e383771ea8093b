"""Recipes: from cards, to files and back, and followed on other rows."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from card_cases import pairs, scored
from places import HELPERS, ROOT

from minisbert import SentenceTransformer, losses, recipes
from minisbert.card import CardFacts, DatasetFacts, LossFacts, TrainingLogs, parse, render
from minisbert.cli import main
from minisbert.errors import ConfigError, InputError, ModelError
from minisbert.losses import loss_by_name
from minisbert.modules import Normalize, Pooling
from minisbert.recipes import Recipe
from minisbert.recipes.reproduce import FIT_LEARNING_RATE, FIT_WARMUP, FIT_WEIGHT_DECAY

CARDS = ROOT.parent / "shared" / "cards"
SMALL = HELPERS / "card_small.md"


@pytest.fixture
def facts(tiny: Callable[[str], Path]) -> CardFacts:
    """A card of `fit` on scored pairs, of a model without Normalize."""
    read = parse(SMALL.read_text(encoding="utf-8"))
    lines = (
        "SentenceTransformer(",
        "  (0): Transformer({'max_seq_length': 64, 'do_lower_case': False}) with Transformer model: BertModel ",
        "  (1): Pooling({'word_embedding_dimension': 32, 'pooling_mode_cls_token': True, "
        "'pooling_mode_mean_tokens': False})",
        ")",
    )
    data = DatasetFacts("", LossFacts("CosineSimilarityLoss"), ("sentence_0", "sentence_1", "label"), 24)
    return dataclasses.replace(
        read,
        front_matter=dataclasses.replace(read.front_matter, base_model=str(tiny("bert"))),
        description=dataclasses.replace(
            read.description, max_seq_length=16, similarity="dot", base_model=None, base_model_revision=None
        ),
        architecture=lines,
        evaluations=(),
        training_datasets=(data,),
        evaluation_datasets=(),
        hyperparameters={
            "per_device_train_batch_size": "4",
            "learning_rate": "5e-05",
            "max_grad_norm": "1",
            "num_train_epochs": "2",
            "seed": "7",
            "fp16": "True",
            "multi_dataset_batch_sampler": "round_robin",
        },
        non_default_hyperparameters={"per_device_train_batch_size": "4", "fp16": "True"},
        logs=None,
    )


def with_settings(facts: CardFacts, **settings: str) -> CardFacts:
    return dataclasses.replace(
        facts,
        hyperparameters={**facts.hyperparameters, **settings},
        non_default_hyperparameters={**facts.non_default_hyperparameters, **settings},
    )


@pytest.fixture
def card(facts: CardFacts, tmp_path: Path) -> Path:
    path = tmp_path / "card.md"
    path.write_text(render(facts), encoding="utf-8")
    return path


def test_recipe_of_a_card(facts: CardFacts, tiny: Callable[[str], Path]) -> None:
    assert recipes.recipe_of(facts) == Recipe(
        base_model=str(tiny("bert")),
        modules=("Transformer", "Pooling"),
        pooling_mode=("cls",),
        max_seq_length=16,
        similarity="dot",
        loss="CosineSimilarityLoss",
        trained_with="fit",
        settings={
            "epochs": 2,
            "batch_size": 4,
            "seed": 7,
            "precision": "fp16",
            "multi_dataset_batch_sampler": "round_robin",
        },
        rows=24,
        texts=("sentence_0", "sentence_1"),
        label="label",
    )


def test_recipe_of_a_trainers_card(facts: CardFacts) -> None:
    """Its learning rate is the true one, and logs tell how often it evaluated."""
    logs = TrainingLogs(
        ("Epoch", "Step", "Training Loss", "spearman_cosine"),
        (("0.1", "50", "-", "0.5"), ("0.2", "100", "0.1", "0.6"), ("0.4", "200", "0.1", "0.6")),
    )
    evaluations = parse(SMALL.read_text(encoding="utf-8")).evaluations
    other = with_settings(
        facts,
        max_grad_norm="1.0",
        learning_rate="3e-05",
        warmup_ratio="0.1",
        weight_decay="0.1",
        lr_scheduler_type="SchedulerType.COSINE",
        lr_scheduler_kwargs="{'num_cycles': 1.5}",
        learning_rate_mapping="{'embeddings': 1e-05}",
        prompts="{'sentence_0': 'why: ', 'sentence_1': 'text: '}",
        freeze="['encoder.layer.0']",
        early_stopping_patience="3",
        adam_beta1="0.8",
        batch_sampler="BatchSamplers.NO_DUPLICATES_HASHED",
        load_best_model_at_end="True",
        dataloader_num_workers="4",
    )
    recipe = recipes.recipe_of(dataclasses.replace(other, logs=logs, evaluations=evaluations))
    assert recipe.trained_with == "trainer"
    assert recipe.settings == {
        "epochs": 2,
        "batch_size": 4,
        "seed": 7,
        "precision": "fp16",
        "batch_sampler": "no_duplicates",
        "multi_dataset_batch_sampler": "round_robin",
        "learning_rate": 3e-05,
        "lr_scheduler_type": "cosine",
        "lr_scheduler_kwargs": {"num_cycles": 1.5},
        "learning_rate_mapping": {"embeddings": 1e-05},
        "prompts": {"sentence_0": "why: ", "sentence_1": "text: "},
        "freeze": ["encoder.layer.0"],
        "early_stopping_patience": 3,
        "warmup_steps": 0.1,
        "weight_decay": 0.1,
        "log_every": 100,
        "eval_every": 50,
        "keep_best": True,
    }
    assert recipe.not_followed == ("adam_beta1=0.8",)
    assert recipe.evaluator == evaluations[0].evaluator


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"training_datasets": ()}, "0 training data sets; expected one"),
        ({"architecture": ("SentenceTransformer(", "  (0): what", ")")}, "module '(0): what'"),
        ({"hyperparameters": {"seed": "many"}}, "seed as 'many'; expected a number"),
        ({"hyperparameters": {}, "non_default_hyperparameters": {}}, "no hyperparameters; expected those of its"),
        ({"architecture": ("S(", f"  (0): Pooling({'-' * 50_000}1)", ")")}, "expected settings of Pooling"),
        ({"architecture": ()}, "does not print the whole model"),
        ({"architecture": ("SentenceTransformer(", "  (0): Transformer({})")}, "does not print the whole model"),
        ({"logs": TrainingLogs(("Epoch",), (("1",),))}, "logs without the column 'Step'; expected one of ['Epoch']"),
        (
            {"logs": TrainingLogs(("Epoch", "Step"), (("1", "many"),))},
            "'Step' (could not convert string to float: 'many'",
        ),
    ],
)
def test_cards_that_tell_no_recipe(facts: CardFacts, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        recipes.recipe_of(dataclasses.replace(facts, **change))
    assert message in str(caught.value)


@pytest.mark.parametrize("step", ["nan", "inf", "-5", "0"])
def test_steps_that_are_none_say_nothing(facts: CardFacts, step: str) -> None:
    logs = TrainingLogs(("Epoch", "Step", "Training Loss"), (("0.1", step, "0.2"), ("0.2", "8", "0.1")))
    assert recipes.recipe_of(dataclasses.replace(facts, logs=logs)).settings["log_every"] == 8


def test_settings_of_a_card_that_lists_only_some(facts: CardFacts) -> None:
    few = dataclasses.replace(facts, hyperparameters={}, non_default_hyperparameters={"num_train_epochs": "5"})
    assert recipes.recipe_of(few).settings["epochs"] == 5


def test_recipe_without_base_model(facts: CardFacts, tiny: Callable[[str], Path]) -> None:
    nameless = dataclasses.replace(facts, front_matter=dataclasses.replace(facts.front_matter, base_model=None))
    recipe = recipes.recipe_of(nameless)
    with pytest.raises(ConfigError, match="without a base model; expected one: say which"):
        recipes.starting_model(recipe, device="cpu")
    assert recipes.starting_model(recipe, base_model=tiny("bert"), device="cpu").max_seq_length == 16


def test_files_hold_recipes(facts: CardFacts, card: Path, tmp_path: Path) -> None:
    recipe = recipes.recipe_of(facts)
    (tmp_path / "r.yaml").write_text(recipes.write_recipe(recipe), encoding="utf-8")
    assert recipes.read_recipe(tmp_path / "r.yaml") == recipe
    assert recipes.read_recipe(card) == recipe
    (tmp_path / "model").mkdir()
    card.rename(tmp_path / "model" / "README.md")
    assert recipes.read_recipe(tmp_path / "model") == recipe


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "got a list; expected the fields base_model"),
        ("base_model: x", "has no field 'loss'"),
        ("{base_model: 7, loss: y}", "7 for base_model; expected a text (in quotes)"),
        ("{base_model: x, loss: y, lr: 1}", "the field 'lr'; expected one of base_model"),
        ("{base_model: x, loss: y, rows: many}", "'many' for rows; expected a number above 0"),
        ("{base_model: x, loss: y, modules: Pooling}", "'Pooling' for modules; expected a list of names"),
        ("{base_model: x, loss: y, settings: [1]}", "[1] for settings; expected values by name"),
        ("{base_model: x, loss: y, trained_with: magic}", "'magic' for trained_with; expected one of fit, trainer"),
        ("a: [", "expected a recipe in YAML"),
        ("{base_model: x, loss: y, rows: !!bool many}", "a value is not what its tag says"),
        (f"{{base_model: x, loss: y, rows: 0x{'f' * 5000}}}", "a number of 5,002 digits"),
        ("&a {base_model: x, loss: y, settings: *a}", "an alias contains itself"),
        ("a: &a0 [x, x]\n" + "".join(f"b{i}: &a{i} [{f'*a{i - 1}, ' * 10}]\n" for i in range(1, 9)), "100,000 values"),
        ("a: &a0 {x: 1}\n" + "".join(f"b{i}: &a{i} {{<<: [{f'*a{i - 1}, ' * 10}]}}\n" for i in range(1, 9)), "values"),
        ("[" * 2000, "nested too deeply"),
        ("# " * 300_000, "at most 500,000 are read"),
    ],
)
def test_bad_recipe_files(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        recipes.read_recipe(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value).split("; expected a recipe")[0] or "YAML" in message
    assert str(path) in str(caught.value)


def test_numbers_in_recipes(tmp_path: Path) -> None:
    """An exponent without a point makes a number too, which YAML takes for a text."""
    recipe = recipes.parse_recipe(
        "{base_model: x, loss: y, settings: {learning_rate: 2e-5, warmup_steps: 1.E+1}, loss_parameters: {scale: 2e1}}"
    )
    assert recipe.settings == {"learning_rate": 2e-5, "warmup_steps": 10.0}
    assert recipe.loss_parameters == {"scale": 20.0}


def test_recipes_in_the_repository() -> None:
    found = sorted((ROOT / "benchmarks" / "recipes").glob("*.yaml"))
    assert len(found) == 5
    for path in found:
        recipe = recipes.read_recipe(path)
        assert path.read_text(encoding="utf-8") == recipes.write_recipe(recipe)
        if CARDS.is_dir():
            assert recipe == recipes.read_recipe(CARDS / f"{path.stem}.md")
    second = recipes.read_recipe(found[2])
    assert second.modules == ("Transformer", "Pooling")
    assert (second.max_seq_length, second.settings["precision"]) == (128, "fp16")


def test_starting_model(facts: CardFacts, tiny: Callable[[str], Path]) -> None:
    recipe = recipes.recipe_of(facts)
    model = recipes.starting_model(recipe, device="cpu")
    base = SentenceTransformer(tiny("bert"), device="cpu")
    assert [type(module).__name__ for module in model] == ["Transformer", "Pooling"]
    assert isinstance(model[1], Pooling)
    assert model[1].pooling_mode == ("cls",)
    assert (model.max_seq_length, model.similarity_fn_name) == (16, "dot")
    assert all(a.equal(b) for a, b in zip(model.parameters(), base.parameters(), strict=True))
    longer = dataclasses.replace(recipe, modules=("Transformer", "Pooling", "Normalize"))
    assert isinstance(recipes.starting_model(longer, device="cpu")[2], Normalize)
    with pytest.raises(ConfigError, match="the module Dense; expected one of Transformer, Pooling, Normalize, as"):
        recipes.starting_model(dataclasses.replace(recipe, modules=("Transformer", "Pooling", "Dense")), device="cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modules": ()}, r"the modules \[\]; expected one Transformer, first"),
        ({"modules": ("Pooling",)}, "expected one Transformer, first"),
        ({"modules": ("Transformer", "Pooling", "Transformer")}, "expected one Transformer, first"),
        ({"modules": ("Transformer", "Normalize")}, "expected Pooling among them"),
        ({"evaluator": "EmbeddingSimilarityEvaluator", "settings": {"seed": "many"}}, "seed='many'; expected a whole"),
        ({"evaluator": "EmbeddingSimilarityEvaluator", "settings": {"seed": -1}}, "seed=-1; expected a whole number"),
        ({"settings": {"learning_rate": 10**400}}, "expected a number from 0"),
        ({"settings": {"learning_rate": True}}, "learning_rate=True; expected a number from 0"),
        ({"settings": {"eval_each_epoch": "no"}}, "eval_each_epoch='no'; expected True or False"),
        ({"settings": {"compile": 1}}, "compile=1; expected True or False"),
    ],
)
def test_recipes_that_cannot_be_followed(facts: CardFacts, change: dict[str, Any], message: str) -> None:
    recipe = dataclasses.replace(recipes.recipe_of(facts), **change)
    with pytest.raises(ConfigError, match=message):
        recipes.prepare(recipe, scored(40), device="cpu", show_progress_bar=False)


def test_triplets_with_a_number_hold_nothing_out(facts: CardFacts) -> None:
    """Only pairs make an EmbeddingSimilarityEvaluator."""
    recipe = dataclasses.replace(
        recipes.recipe_of(facts),
        loss="MultipleNegativesRankingLoss",
        texts=(),
        evaluator="EmbeddingSimilarityEvaluator",
    )
    rows = {**pairs(40, third=[f"n {i}" for i in range(40)]), "label": [0.5] * 40}
    ready = recipes.prepare(recipe, rows, device="cpu", show_progress_bar=False)
    assert ready.held_out is None
    assert "EmbeddingSimilarityEvaluator is left out" in ready.notes[0]


def test_what_fit_does_not_state_is_assumed_and_said(facts: CardFacts) -> None:
    recipe = recipes.recipe_of(facts)
    ready = recipes.prepare(recipe, scored(40), device="cpu", show_progress_bar=False)
    config = ready.trainer.config
    assert (config.learning_rate, config.weight_decay) == (FIT_LEARNING_RATE, FIT_WEIGHT_DECAY)
    assert config.warmup_steps == 2  # of 20
    assert config.precision == "fp32"
    assert [note.split(":")[0].split(" ")[0] for note in ready.notes] == ["fp16", "the"]
    assert "assumed: learning_rate=2e-05, weight_decay=0.01, warmup_steps=2 (a tenth of the run)" in ready.notes[1]
    settings = {"learning_rate": 1e-3, "warmup_steps": 0.5, "weight_decay": 0.0, "max_steps": 10**6}
    told = recipes.prepare(recipe, scored(40), device="cpu", settings=settings, show_progress_bar=False)
    assert told.trainer.config.learning_rate == 1e-3
    assert len(told.notes) == 1
    long = recipes.prepare(recipe, scored(40), device="cpu", settings={"max_steps": 10**6}, show_progress_bar=False)
    assert long.trainer.config.warmup_steps == FIT_WARMUP


def test_prompts_follow_the_columns(facts: CardFacts) -> None:
    recipe = dataclasses.replace(
        recipes.recipe_of(facts), settings={"prompts": {"sentence_1": "text: "}, "freeze": ["embeddings"]}
    )
    assert recipes.parse_recipe(recipes.write_recipe(recipe)) == recipe
    ready = recipes.prepare(recipe, scored(40), device="cpu", show_progress_bar=False)
    assert ready.trainer.config.prompts == {list(scored(40))[1]: "text: "}
    assert recipes.recipe_of(with_settings(facts, max_grad_norm="1.0", prompts="why: ")).settings["prompts"] == "why: "
    for name in ("learning_rate_mapping", "freeze"):
        with pytest.raises(InputError, match=f"the card prints {name} as 'x'; expected a "):
            recipes.recipe_of(with_settings(facts, max_grad_norm="1.0", **{name: "x"}))


def test_the_loss_on_held_out_rows(facts: CardFacts, tmp_path: Path) -> None:
    """A card with an evaluation data set says how often its loss was computed, and over how many rows at once."""
    logs = TrainingLogs(
        ("Epoch", "Step", "Training Loss", "Validation Loss"),
        (("0.1", "5", "-", "0.5"), ("0.2", "10", "0.1", "0.6")),
    )
    trained = with_settings(facts, max_grad_norm="1.0", per_device_eval_batch_size="32")
    stated = dataclasses.replace(trained, logs=logs, evaluation_datasets=facts.training_datasets, evaluations=())
    recipe = recipes.recipe_of(stated)
    assert recipe.settings["eval_every"] == 5
    assert recipe.settings["eval_batch_size"] == 32
    plain = recipes.recipe_of(dataclasses.replace(stated, evaluation_datasets=()))
    assert "eval_every" not in plain.settings
    assert "eval_batch_size" not in plain.settings
    ready = recipes.prepare(
        recipe, scored(40), eval_data=scored(8), device="cpu", output_dir=tmp_path, show_progress_bar=False
    )
    history = ready.trainer.train()
    assert [entry["step"] for entry in history.entries if "eval_loss" in entry][:2] == [5, 10]


def test_rows_are_held_out_for_the_evaluation(facts: CardFacts, tmp_path: Path) -> None:
    recipe = dataclasses.replace(
        recipes.recipe_of(facts), evaluator="EmbeddingSimilarityEvaluator", settings={"eval_every": 5}
    )
    rows = scored(40)
    ready = recipes.prepare(recipe, rows, device="cpu", output_dir=tmp_path, show_progress_bar=False)
    assert ready.held_out is not None
    assert (len(ready.rows), len(ready.held_out)) == (36, 4)
    both = sorted(zip(*ready.rows.texts.values(), ready.rows.labels or [], strict=True)) + sorted(
        zip(*ready.held_out.texts.values(), ready.held_out.labels or [], strict=True)
    )
    assert sorted(both) == sorted(zip(*rows.values(), strict=True))
    assert ready.trainer.config.eval_every == 5
    assert ready.trainer.config.keep_best
    again = recipes.prepare(recipe, rows, device="cpu", show_progress_bar=False)
    assert again.held_out == ready.held_out
    assert not again.trainer.config.keep_best  # nowhere to keep it
    with pytest.raises(InputError, match="got 12 rows; expected at least 20"):
        recipes.prepare(recipe, scored(12), device="cpu", show_progress_bar=False)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (pairs(8, third=["x"] * 8), "text columns ['anchor', 'positive', 'third']; the recipe has 2"),
        (pairs(8), "expects a number for each row"),
        ({"a": ["x"] * 4, "b": ["y"] * 4, "label": [5, 4, 3, 2]}, "--scale=0-5"),
    ],
)
def test_rows_that_do_not_fit(facts: CardFacts, rows: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        recipes.prepare(recipes.recipe_of(facts), rows, device="cpu", show_progress_bar=False)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("header", "row", "options"),
    [
        (("reference", "answer", "score"), ("a cat", "the cat", "4.5"), ["--scale", "0-5"]),
        (("title", "other_title", "is_duplicate"), ("a cat", "the dog", "1"), []),
        (("id", "first", "grade", "second"), ("9", "a cat", "80", "the dog"), ["--columns", "first,second,grade"]),
    ],
)
def test_reproduce(
    card: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    header: tuple[str, ...],
    row: tuple[str, ...],
    options: list[str],
) -> None:
    """Scores on a scale, 0/1 under a name of its own, and columns that are not texts."""
    data = tmp_path / "rows.tsv"
    lines = [header, *([row] * 8)]
    data.write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")
    if "grade" in header:
        options = [*options, "--scale", "0-100"]
    output = tmp_path / "out"
    command = ["reproduce", str(card), "--data", str(data), "--output", str(output), "--device", "cpu", *options]
    assert main([*command, "--epochs", "1"]) == 0
    out, err = capsys.readouterr()
    assert "assumed: learning_rate=2e-05" in err
    assert "_dataset_1" not in err
    assert "2 steps" in err
    assert out.splitlines()[1].split() == ["rows", "24", "8"]
    facts = parse((output / "README.md").read_text(encoding="utf-8"))
    assert facts.description.max_seq_length == 16
    assert facts.description.similarity == "dot"
    assert facts.training_datasets[0].size == 8
    assert facts.hyperparameters["num_train_epochs"] == "1"
    assert facts.hyperparameters["learning_rate"] == "2e-05"
    assert [entry["type"] for entry in json.loads((output / "modules.json").read_text())] == [
        "sentence_transformers.models.Transformer",
        "sentence_transformers.models.Pooling",
    ]
    assert SentenceTransformer(output, device="cpu").max_seq_length == 16


def test_reproduce_into_the_folder_of_the_card(
    facts: CardFacts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run writes its own card over the one it is compared with."""
    evaluations = parse(SMALL.read_text(encoding="utf-8")).evaluations[:1]
    cosine = dataclasses.replace(facts.description, similarity="cosine")
    data, card = tmp_path / "rows.tsv", tmp_path / "README.md"
    data.write_text("a\tb\tscore\nx\ty\t1\nx\tz\t0\n", encoding="utf-8")
    card.write_text(render(dataclasses.replace(facts, description=cosine, evaluations=evaluations)), encoding="utf-8")
    command = ["reproduce", str(card), "--data", str(data), "--eval", str(data), "--output", str(tmp_path)]
    assert main([*command, "--device", "cpu"]) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert shown[1:3] == [["rows", "24", "2"], ["steps", "12", "2"]]
    stated = {metric.name: metric.values[0] for metric in evaluations[0].metrics}
    assert shown[-1][:2] == ["spearman_cosine", f"{stated['spearman_cosine']:.4f}"]
    assert parse(card.read_text(encoding="utf-8")).training_datasets[0].size == 2


def test_reproduce_evaluates_on_a_file(facts: CardFacts, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluated = dataclasses.replace(
        facts,
        description=dataclasses.replace(facts.description, similarity="cosine"),
        evaluations=parse(SMALL.read_text(encoding="utf-8")).evaluations[:1],
    )
    assert evaluated.evaluations[0].evaluator == "EmbeddingSimilarityEvaluator"
    card, data = tmp_path / "card.md", tmp_path / "rows.tsv"
    card.write_text(render(evaluated), encoding="utf-8")
    rows = scored(20)
    lines = ["\t".join(rows), *("\t".join(map(str, row)) for row in zip(*rows.values(), strict=True))]
    data.write_text("\n".join(lines), encoding="utf-8")
    command = ["reproduce", str(card), "--data", str(data), "--eval", str(data), "--device", "cpu", "--epochs", "1"]
    assert main([*command, "--output", str(tmp_path / "out")]) == 0
    out, err = capsys.readouterr()
    assert "held out" not in err
    shown = next(line for line in out.splitlines() if line.startswith("spearman_cosine"))
    stated = {metric.name: metric.values[0] for metric in evaluated.evaluations[0].metrics}
    assert shown.split()[1] == f"{stated['spearman_cosine']:.4f}"
    assert -1 <= float(shown.split()[3]) <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.md"], "cannot read nowhere.md"),
        (["{card}", "--eval-columns", "a,b"], "--eval-columns without --eval"),
        (["{card}", "--learning-rate", "-1"], "learning_rate=-1.0; expected a number from 0"),
        (["{data}"], "expected"),
    ],
)
def test_wrong_use(
    card: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    data = tmp_path / "rows.tsv"
    data.write_text("a\tb\tscore\nx\ty\t1\nx\tz\t0\n", encoding="utf-8")
    given = [argument.format(card=card, data=data) for argument in arguments]
    command = ["reproduce", *given, "--data", str(data), "--output", str(tmp_path / "out"), "--device", "cpu"]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1 or "assumed" in error


def test_losses_by_name() -> None:
    for loss in (
        losses.CosineSimilarityLoss(),
        losses.MultipleNegativesRankingLoss(scale=5.0),
    ):
        made = loss_by_name(type(loss).__name__, loss.get_config_dict())
        assert type(made) is type(loss)
        assert made.get_config_dict() == loss.get_config_dict()
    made = loss_by_name("CosineSimilarityLoss", {"loss_fct": "torch.nn.modules.loss.L1Loss"})
    assert made.get_config_dict()["loss_fct"] == "torch.nn.modules.loss.L1Loss"
    assert made.label_range is None
    assert loss_by_name("MultipleNegativesRankingLoss", {"similarity_fct": "dot_score"})


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("OtherLoss", {}, "the loss OtherLoss; expected one of CosineSimilarityLoss"),
        ("CosineSimilarityLoss", {"loss_fct": "os.system"}, "loss_fct='os.system'; expected one of torch.nn"),
        ("CosineSimilarityLoss", {"margin": 1}, "margin=1 for CosineSimilarityLoss; expected one of its parameters"),
        ("MultipleNegativesRankingLoss", {"scale": 10**400}, "expected a positive number"),
        ("MultipleNegativesRankingLoss", {"scale": "much"}, "scale='much'; expected a number"),
        ("MultipleNegativesRankingLoss", {"similarity_fct": "mine"}, "similarity_fct='mine'; expected one of cos_sim"),
        ("MultipleNegativesRankingLoss", {"partition_mode": "split"}, "partition_mode='split'"),
    ],
)
def test_losses_that_are_not_there(name: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loss_by_name(name, parameters)
    assert message in str(caught.value)


def test_a_label_of_any_name(
    card: Path, tiny: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The card of a model whose label column is called otherwise is followed like any other."""
    base = str(tiny("bert"))
    data = tmp_path / "rows.tsv"
    data.write_text("a\tb\tgrade\n" + "".join(f"cat {n}\tdog\t{n % 6}\n" for n in range(8)), encoding="utf-8")
    options = [
        "--model",
        base,
        "--data",
        str(data),
        "--columns",
        "a,b,grade",
        "--scale",
        "0-5",
        "--device",
        "cpu",
        "--epochs",
        "1",
    ]
    for recipe, output in ((card, tmp_path / "first"), (tmp_path / "first", tmp_path / "second")):
        assert main(["reproduce", str(recipe), "--output", str(output), *options]) == 0
    recipe = recipes.read_recipe(tmp_path / "second")
    assert (recipe.texts, recipe.label) == (("a", "b"), "grade")
    assert capsys.readouterr().err.count("the model is in") == 2


def test_held_out_rows_are_named_in_the_card(facts: CardFacts, tmp_path: Path) -> None:
    recipe = dataclasses.replace(recipes.recipe_of(facts), evaluator="EmbeddingSimilarityEvaluator")
    run = recipes.prepare(recipe, scored(40), device="cpu", output_dir=tmp_path / "run", show_progress_bar=False)
    run.trainer.train()
    run.trainer.model.save_pretrained(tmp_path / "out")
    written = parse((tmp_path / "out" / "README.md").read_text(encoding="utf-8"))
    assert written.evaluations[0].datasets == ("held-out",)


def test_a_commit_that_is_not_at_hand_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    recipe = Recipe(base_model="sentence-transformers/all-MiniLM-L6-v2", base_model_revision="0" * 40, loss="x")
    with pytest.raises(ModelError, match="all-MiniLM-L6-v2"):
        recipes.starting_model(recipe, device="cpu")
