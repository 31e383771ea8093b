"""Distillation: layers that are kept, projections, what the student learns, and its card."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import families
import numpy as np
import pytest
import tiny_models
import torch

from minisbert import LoraConfig, SentenceTransformer, card, recipes
from minisbert.cli import main
from minisbert.errors import ConfigError, InputError, InputTypeError
from minisbert.modules import Dense, Normalize, Pooling
from minisbert.modules.cutting import keep_layers
from minisbert.recipes.distillation import principal_axes

SETTINGS = {"batch_size": 8, "learning_rate": 5e-3, "epochs": 2}


@pytest.fixture(scope="module")
def texts() -> list[str]:
    draw = np.random.default_rng(0)
    return [" ".join(draw.choice(tiny_models.WORDS, size=draw.integers(2, 9))) for _ in range(120)]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.build(tmp_path_factory.mktemp("teacher") / "teacher", "bert", layers=4)


def load(folder: Path) -> SentenceTransformer:
    return SentenceTransformer(folder, device="cpu")


distill = partial(recipes.distill, settings=SETTINGS, device="cpu", show_progress_bar=False)
prepare = partial(recipes.prepare_distillation, settings=SETTINGS, device="cpu", show_progress_bar=False)

# ---- layers ---------------------------------------------------------------------------------------------------------


def by_hand(folder: Path, layers: list[int], texts: list[str]) -> Any:
    """Embed with some layers, called one after the other."""
    model: Any = load(folder)
    model.transformer.auto_model.layers = torch.nn.ModuleList([model.transformer.auto_model.layers[i] for i in layers])
    return model.encode(texts)


@pytest.mark.parametrize("layers", [[0, 2], [3], [2, 0, 1], [0, 1, 2, 3], [0, -1]])
def test_layers_are_kept(teacher: Path, layers: list[int], texts: list[str], tmp_path: Path) -> None:
    model = load(teacher)
    keep_layers(model.transformer, layers)
    expected = by_hand(teacher, [layer % 4 for layer in layers], texts[:9])
    np.testing.assert_allclose(model.encode(texts[:9]), expected, rtol=0, atol=1e-6)
    model.save_pretrained(tmp_path / "cut")
    again = load(tmp_path / "cut")
    assert again.encode(texts[:9]).tolist() == model.encode(texts[:9]).tolist()
    assert json.loads((tmp_path / "cut" / "config.json").read_text())["num_hidden_layers"] == len(layers)


@pytest.mark.parametrize("architecture", ["roberta", "distilbert", "mpnet"])
def test_layers_of_other_architectures(architecture: str, tmp_path: Path, texts: list[str]) -> None:
    folder = tiny_models.build(tmp_path / "whole", architecture, layers=3)
    model = load(folder)
    keep_layers(model.transformer, [0, 2])
    model.save_pretrained(tmp_path / "cut")
    expected = by_hand(folder, [0, 2], texts[:9])
    np.testing.assert_allclose(load(tmp_path / "cut").encode(texts[:9]), expected, rtol=0, atol=1e-6)


def test_layers_counted_by_two_names(tmp_path: Path, texts: list[str]) -> None:
    folder = tiny_models.build(tmp_path / "whole", "distilbert", layers=3)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    model = load(folder)
    keep_layers(model.transformer, [0, 2])
    model.save_pretrained(tmp_path / "cut")
    np.testing.assert_array_equal(load(tmp_path / "cut").encode(texts[:9]), model.encode(texts[:9]))


@pytest.mark.parametrize(
    ("family", "layers", "kept"),
    [
        ("modernbert", [0, 1, 3], True),  # 0 and 3 attend to all tokens, 1 and 2 have a window
        ("modernbert", [1, 2], False),  # the first layer has no norm before attention
        ("nomic_bert", [1, 3], True),
        ("qwen3", [3, 0], True),
        ("gemma3_text", [0, 2], True),
    ],
)
def test_layers_that_differ(family: str, layers: list[int], kept: bool, texts: list[str], tmp_path: Path) -> None:
    folder = families.build_family(tmp_path / "whole", family)
    model = load(folder)
    if not kept:
        before = model.encode(texts[:9])
        with pytest.raises(ConfigError, match="expected layers that compute the same in their new places"):
            keep_layers(model.transformer, layers)
        assert model.encode(texts[:9]).tolist() == before.tolist()
        return
    keep_layers(model.transformer, layers)
    model.save_pretrained(tmp_path / "cut")
    expected = by_hand(folder, layers, texts[:9])
    np.testing.assert_allclose(load(tmp_path / "cut").encode(texts[:9]), expected, rtol=0, atol=1e-6)


def test_layers_that_cannot_be_kept(teacher: Path, tmp_path: Path) -> None:
    model = load(teacher)
    wrong: list[tuple[Any, str]] = [
        ([4], "expected numbers from 0 to 3"),
        ([-5], "expected numbers from 0 to 3"),
        ([True], "expected numbers from 0 to 3"),
        (["0"], "expected numbers from 0 to 3"),
        ([], "expected at least one layer"),
        ([1, 1], "each at most once"),
        ([3, -1], "each at most once"),
    ]
    for layers, message in wrong:
        with pytest.raises(ConfigError, match=message):
            keep_layers(model.transformer, layers)
    assert len(model.transformer.auto_model.layers) == 4  # type: ignore[union-attr,arg-type]
    model.add_adapter(LoraConfig(r=2))
    with pytest.raises(ConfigError, match="an encoder with an adapter; expected floats of a native encoder"):
        keep_layers(model.transformer, [0])


# ---- distillation ---------------------------------------------------------------------------------------------------


def test_a_student_of_layers_comes_closer_to_its_teacher(teacher: Path, texts: list[str], tmp_path: Path) -> None:
    result = distill(teacher, texts, layers=[0, 3])
    assert result.before.keys() == result.after.keys() == {"held-out_mean_cosine", "held-out_negative_mse"}
    assert result.after["held-out_mean_cosine"] > result.before["held-out_mean_cosine"]
    assert result.after["held-out_negative_mse"] > result.before["held-out_negative_mse"]
    assert result.history.steps == 2 * 14  # of 108 texts
    result.student.save_pretrained(tmp_path / "student")
    run = prepare(teacher, texts, layers=[0, 3])
    goal, own = load(teacher).encode(run.evaluator.texts), load(tmp_path / "student").encode(run.evaluator.texts)
    assert run.evaluator.embeddings.tolist() == goal.tolist()
    mean = np.mean([a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(goal, own, strict=True)])
    assert result.after["held-out_mean_cosine"] == pytest.approx(mean, abs=1e-6)
    assert result.after["held-out_negative_mse"] == pytest.approx(-100 * np.square(goal - own).mean(), abs=1e-6)


def test_a_run_of_one_step_learns(teacher: Path, texts: list[str]) -> None:
    """A warm-up of a tenth would be all of it, at a rate of 0."""
    result = distill(teacher, texts, layers=[0, 2], settings={"max_steps": 1, "learning_rate": 1e-2})
    assert result.history.steps == 1
    assert result.after != result.before
    with pytest.warns(UserWarning, match="the only step has a learning rate of 0, since it is the warm-up"):
        same = distill(teacher, texts, layers=[0, 2], settings={"max_steps": 1, "warmup_steps": 1})
    assert same.after == same.before


def test_texts_are_taken_once_and_not_trained_and_held_out(teacher: Path, texts: list[str]) -> None:
    run = prepare(teacher, [*texts, *texts, "", " "], layers=[0])
    different = set(texts)
    trained, kept = run.rows.texts["text"], run.evaluator.texts
    assert len(kept) == len(different) // 10
    assert len(trained) + len(kept) == len(different)
    assert set(trained) | set(kept) == different
    np.testing.assert_allclose(run.rows.labels, load(teacher).encode(trained), rtol=0, atol=1e-6)
    run = prepare(teacher, texts, layers=[0], held_out=[texts[0], "a new text"])
    assert run.evaluator.texts == [texts[0], "a new text"]
    assert texts[0] not in run.rows.texts["text"]
    assert prepare(teacher, texts, layers=[0]).evaluator.texts == prepare(teacher, texts, layers=[0]).evaluator.texts


def test_principal_axes_are_those_of_the_covariance() -> None:
    values = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32) * np.arange(1, 7) + 3
    axes = principal_axes(values.astype(np.float32), 3)
    assert axes.shape == (6, 3)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-6)
    expected = np.linalg.svd(values - values.mean(0), full_matrices=False)[2][:3]
    np.testing.assert_allclose(np.abs(np.sum(expected * axes.T, axis=1)), 1, atol=1e-5)


@pytest.mark.parametrize("normalized", [True, False])
def test_a_narrower_student_learns_a_projection(
    normalized: bool, teacher: Path, texts: list[str], tmp_path: Path
) -> None:
    student = load(tiny_models.build(tmp_path / "student", "bert", layers=1, dim=16))
    if not normalized:
        student = SentenceTransformer(modules=list(student)[:2], device="cpu")
    result = distill(teacher, texts, student=student)
    assert result.student is student
    assert result.after["held-out_mean_cosine"] > result.before["held-out_mean_cosine"]
    run = prepare(teacher, texts, student=student)
    embeddings = load(teacher).encode(run.rows.texts["text"])
    expected = embeddings @ principal_axes(embeddings, 16)
    if normalized:
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(np.abs(run.rows.labels), np.abs(expected), rtol=0, atol=1e-5)
    facts = student.origin
    assert isinstance(facts, card.Origin)
    assert facts.facts["Projection"] == "the teacher's embeddings from 32 to 16 numbers, by PCA"


@pytest.mark.parametrize(("dim", "projection"), [(16, "dense"), (48, None), (48, "dense")])
def test_a_dense_layer_gives_the_student_the_size_of_the_teacher(
    dim: int, projection: Any, teacher: Path, texts: list[str], tmp_path: Path
) -> None:
    student = tiny_models.build(tmp_path / "student", "bert", layers=1, dim=dim)
    result = distill(teacher, texts, student=student, projection=projection)
    kinds = [type(module) for module in result.student]
    assert kinds[1:] == [Pooling, Dense, Normalize]
    assert result.after["held-out_mean_cosine"] > result.before["held-out_mean_cosine"]
    result.student.save_pretrained(tmp_path / "trained")
    again = load(tmp_path / "trained")
    assert again.get_sentence_embedding_dimension() == 32
    np.testing.assert_allclose(again.encode(texts[:5]), result.student.encode(texts[:5]), rtol=0, atol=1e-6)


def test_all_dimensions_are_learned_and_the_prompt_is_put_before_texts(teacher: Path, texts: list[str]) -> None:
    model = SentenceTransformer(
        teacher, device="cpu", truncate_dim=8, prompts={"query": "the red "}, default_prompt_name="query"
    )
    run = prepare(model, texts, layers=[0, 1])
    assert run.rows.labels.shape[1] == 32  # type: ignore[union-attr]
    assert run.trainer.config.prompts == "the red "
    expected = load(teacher).encode([f"the red {text}" for text in run.rows.texts["text"]])
    np.testing.assert_allclose(run.rows.labels, expected, rtol=0, atol=1e-6)
    metrics = run.evaluator(run.student)
    assert run.student.truncate_dim == 8
    assert 0 < metrics["held-out_mean_cosine"] < 1
    before = load(teacher)
    assert all(value.equal(before.state_dict()[name]) for name, value in model.state_dict().items())


def test_what_is_refused(teacher: Path, texts: list[str], tmp_path: Path) -> None:
    small = tiny_models.build(tmp_path / "small", "bert", dim=48)
    wrong: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({}, ConfigError, "got neither layers nor a student"),
        ({"layers": [0], "student": small}, ConfigError, "got layers and a student"),
        ({"layers": 3}, ConfigError, "such as"),
        ({"layers": [9]}, ConfigError, "expected numbers from 0 to 3"),
        ({"layers": [0], "projection": "svd"}, ConfigError, "expected 'pca', 'dense' or None"),
        ({"layers": [0], "projection": "pca"}, ConfigError, "two models of size 32"),
        ({"student": small, "projection": "pca"}, ConfigError, "for a student of size 48 and a teacher of size 32"),
        ({"layers": [0], "settings": {"rate": 1}}, ConfigError, "got the setting 'rate'; expected one of batch"),
        ({"layers": [0], "settings": 3}, ConfigError, "got settings=3; expected fields of TrainingConfig"),
        ({"layers": [0], "held_out": 3}, InputTypeError, "got 3 as held_out"),
        ({"layers": [0], "held_out": "a text"}, InputTypeError, "got one text as held_out"),
        ({"layers": [0], "held_out": []}, InputError, "0 held out"),
    ]
    for options, kind, message in wrong:
        with pytest.raises(kind, match=message):
            distill(teacher, texts, **options)
    with pytest.raises(InputError, match="got 9 different texts; expected at least 10"):
        distill(teacher, list(dict.fromkeys(texts))[:9], layers=[0])
    with pytest.raises(InputTypeError, match="got one text as texts"):
        distill(teacher, "a text", layers=[0])


# ---- card and command -----------------------------------------------------------------------------------------------


def test_the_card_names_the_teacher(minilm: Path, texts: list[str], tmp_path: Path) -> None:
    result = recipes.distill(
        "all-MiniLM-L6-v2", texts, layers=[0], settings={"max_steps": 1}, device="cpu", show_progress_bar=False
    )
    result.student.save_pretrained(tmp_path / "student")
    facts = card.read_card(tmp_path / "student" / "README.md")
    assert facts.origin == card.Origin(
        "Distillation",
        {
            "Teacher": "sentence-transformers/all-MiniLM-L6-v2",
            "Layers": "0 of the teacher's",
            "Texts": "108, and 12 held out to compare on",
        },
    )
    assert facts.front_matter.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert facts.front_matter.base_model_relation == "finetune"
    (evaluation,) = facts.evaluations
    assert [metric.name for metric in evaluation.metrics] == ["mean_cosine", "negative_mse"]
    assert evaluation.datasets == ("held-out",)
    assert evaluation.link is None
    assert evaluation.metrics[0].values == (round(result.after["held-out_mean_cosine"], 4),)
    assert [one.loss.name for one in facts.training_datasets] == ["MSELoss"]
    assert card.parse(card.render(facts)) == facts


def test_the_command(
    teacher: Path, texts: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines, table, kept = Path("lines.txt"), Path("table.tsv"), Path("kept.txt")
    lines.write_text("\n".join(texts[:60]) + "\n")
    rows = zip(texts[60:90], texts[90:], strict=True)
    table.write_text("\n".join(["first\tsecond\tscore", *(f"{first}\t{second}\t1" for first, second in rows)]) + "\n")
    kept.write_text("a cat sat\na red sea\n")
    arguments = ["distill", str(teacher), "--texts", str(lines), str(table), "--device", "cpu", "--batch-size", "16"]
    assert main([*arguments, "--layers", "0,2", "--held-out", str(kept), "--out", "student"]) == 0
    shown = capsys.readouterr()
    assert "held-out_mean_cosine" in shown.out
    assert f"{len(set(texts)):,} texts" in shown.err
    assert main(["inspect", "student"]) == 0
    shown = capsys.readouterr()
    assert "made by     distillation\n              teacher  teacher" in shown.out
    assert len(load(Path("student")).transformer.auto_model.layers) == 2  # type: ignore[union-attr,arg-type]
    tiny_models.build(tmp_path / "other", "bert", layers=1, dim=16)
    assert main([*arguments, "--student", "other", "--output", "second", "--columns", "first"]) == 0
    assert f"{len(set(texts[:90])) - len(set(texts[:90])) // 10:,} texts" in capsys.readouterr().err
    assert "by PCA" in Path("second/README.md").read_text()
    with pytest.raises(SystemExit):
        main([*arguments, "--layers", "0,x", "--output", "third"])
    assert "expected numbers of layers with commas between them" in capsys.readouterr().err
    before = (teacher / "model.safetensors").read_bytes()
    assert main([*arguments, "--layers", "0", "--output", f"{teacher}/."]) == 2
    assert "as teacher and as output, which replaces it" in capsys.readouterr().err
    assert (teacher / "model.safetensors").read_bytes() == before
    only_lines = ["distill", str(teacher), "--texts", str(lines), "--layers", "0", "--output", "third"]
    assert main([*only_lines, "--columns", "first"]) == 2
    assert "got --columns first for lines.txt, which has a text a line" in capsys.readouterr().err
    assert main([*only_lines, "--max-steps", "1", "--quiet"]) == 0
    assert capsys.readouterr().err.startswith("1 step")
