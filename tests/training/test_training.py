"""The loop: order, logs, checkpoints, resume, precision, best weights, fit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from tiny_models import WORDS
from torch.utils.data import DataLoader

from minisbert import InputExample, SentenceTransformer, Trainer, TrainingConfig, losses
from minisbert.data import roles
from minisbert.data.roles import training_rows
from minisbert.errors import ConfigError, InputError
from minisbert.evaluation import EmbeddingSimilarityEvaluator
from minisbert.text import TextTokenizer
from minisbert.training import dataset
from minisbert.training.checkpoint import seal


def scored_pairs(count: int = 24) -> list[dict[str, Any]]:
    draw = np.random.default_rng(3)
    texts = [" ".join(draw.choice(WORDS, draw.integers(1, 9))) for _ in range(2 * count)]
    return [{"a": texts[i], "b": texts[-1 - i], "score": float(draw.random())} for i in range(count)]


@pytest.fixture
def folder(tiny: Callable[[str], Path]) -> Path:
    return tiny("bert")


def load(folder: Path) -> SentenceTransformer:
    return SentenceTransformer(folder, device="cpu")


def train(folder: Path, config: TrainingConfig, *, resume: bool = False, **options: Any) -> SentenceTransformer:
    model = load(folder)
    loss = losses.CosineSimilarityLoss()
    Trainer(model, scored_pairs(), loss=loss, config=config, show_progress_bar=False, **options).train(resume=resume)
    return model


def without_dropout(model: SentenceTransformer) -> SentenceTransformer:
    for module in model.modules():
        for name in ("dropout", "weight_dropout", "output_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return model


def same_weights(a: SentenceTransformer, b: SentenceTransformer) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return all(torch.equal(left[name], right[name]) for name in left)


def evaluator(name: str = "") -> EmbeddingSimilarityEvaluator:
    pairs = scored_pairs()
    return EmbeddingSimilarityEvaluator(
        [row["a"] for row in pairs], [row["b"] for row in pairs], [row["score"] for row in pairs], name=name
    )


def test_training_is_reproducible_and_leaves_the_global_generator_alone(folder: Path) -> None:
    config = TrainingConfig(epochs=1, batch_size=8, learning_rate=1e-3)
    torch.manual_seed(123)
    first = train(folder, config)
    after = torch.rand(1)
    torch.manual_seed(123)
    assert torch.equal(after, torch.rand(1))
    assert same_weights(first, train(folder, config))
    assert not same_weights(first, train(folder, replace(config, seed=1)))
    assert not first.training


def test_log_file_callback_and_history_agree(folder: Path, tmp_path: Path) -> None:
    seen: list[dict[str, float]] = []
    model = load(folder)
    config = TrainingConfig(epochs=2, batch_size=8, log_every=4, eval_every=3)
    trainer = Trainer(
        model,
        scored_pairs(),
        loss=losses.CosineSimilarityLoss(),
        config=config,
        evaluator=evaluator(),
        output_dir=tmp_path,
        on_log=seen.append,
        show_progress_bar=False,
    )
    history = trainer.train()
    lines = [json.loads(line) for line in (tmp_path / "train_log.jsonl").read_text().splitlines()]
    assert lines == seen == history.entries
    assert [(entry["step"], "loss" in entry) for entry in lines] == [(3, False), (4, True), (6, True), (6, False)]
    assert history.steps == 6
    assert history.train_loss == pytest.approx((lines[1]["loss"] * 4 + lines[2]["loss"] * 2) / 6)
    assert lines[1]["epoch"] == pytest.approx(4 / 3)
    assert len((tmp_path / "eval" / "similarity_evaluation_results.csv").read_text().splitlines()) == 3
    assert model.training_record is not None
    assert model.training_record.metrics["spearman_cosine"] == lines[3]["eval_spearman_cosine"]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_resume_is_exact(folder: Path, tmp_path: Path, precision: Any, accumulation: int) -> None:
    config = TrainingConfig(
        epochs=3,
        batch_size=5,
        gradient_accumulation=accumulation,
        learning_rate=1e-3,
        precision=precision,
        save_every=2,
    )
    whole = train(folder, config, output_dir=tmp_path / "whole")
    for checkpoint in (tmp_path / "whole").glob("checkpoint-*"):
        step = int(checkpoint.name.split("-")[1])
        model = load(folder)
        loss = losses.CosineSimilarityLoss()
        trainer = Trainer(
            model,
            scored_pairs(),
            loss=loss,
            config=config,
            output_dir=tmp_path / f"from-{step}",
            show_progress_bar=False,
        )
        history = trainer.train(resume=checkpoint)
        assert same_weights(model, whole), f"resumed from step {step}"
        assert history.steps == config.total_steps(5)


def test_resume_takes_the_newest_checkpoint_and_starts_anew_without_one(folder: Path, tmp_path: Path) -> None:
    config = TrainingConfig(epochs=2, batch_size=8, save_every=2, save_total_limit=2)
    first = train(folder, config, resume=True, output_dir=tmp_path)
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-4", "checkpoint-6"]
    log = (tmp_path / "train_log.jsonl").read_text()
    assert same_weights(first, train(folder, config, resume=True, output_dir=tmp_path))
    assert (tmp_path / "train_log.jsonl").read_text() == log
    with pytest.raises(ConfigError, match="learning_rate was 5e-05 and is 0.1"):
        train(folder, replace(config, learning_rate=0.1), resume=True, output_dir=tmp_path)
    model = load(folder)
    other = Trainer(model, scored_pairs(20), loss=losses.CosineSimilarityLoss(), config=config, output_dir=tmp_path)
    with pytest.raises(ConfigError, match="the rows, their order, or the losses differ"):
        other.train(resume=True)
    with pytest.raises(InputError, match="expected a checkpoint folder"):
        other.train(resume=tmp_path / "nothing")


def test_best_weights_are_kept(folder: Path, tmp_path: Path) -> None:
    config = TrainingConfig(epochs=4, batch_size=8, learning_rate=5e-2, eval_every=1, keep_best=True)
    model = load(folder)
    judge = evaluator("dev")
    judge.scores = -judge.scores  # training on the true scores makes this worse
    trainer = Trainer(
        model,
        scored_pairs(),
        loss=losses.CosineSimilarityLoss(),
        config=config,
        evaluator=judge,
        output_dir=tmp_path,
        show_progress_bar=False,
    )
    history = trainer.train()
    scores = {int(e["step"]): e["eval_dev_spearman_cosine"] for e in history.entries if "loss" not in e}
    assert history.best_metric == max(scores.values())
    assert scores[history.best_step or 0] == history.best_metric != scores[history.steps]
    assert judge(model)["dev_spearman_cosine"] == pytest.approx(history.best_metric, abs=1e-9)
    assert model.training_record is not None
    assert model.training_record.metrics["dev_spearman_cosine"] == history.best_metric


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_follows_fp32_and_keeps_float32_weights(
    folder: Path, precision: Any, without_native: None
) -> None:
    entries: dict[str, list[float]] = {"fp32": [], precision: []}
    for mode, values in entries.items():
        config = TrainingConfig(epochs=2, batch_size=8, learning_rate=1e-4, precision=mode, log_every=1)  # type: ignore[arg-type]
        model = train(folder, config, on_log=lambda entry, values=values: values.append(entry["loss"]))
        assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert entries["fp32"] != entries[precision]
    np.testing.assert_allclose(entries["fp32"], entries[precision], rtol=0.1)


def test_fp16_steps_that_overflow_change_nothing_and_do_not_advance_the_schedule(folder: Path) -> None:
    rates: list[float] = []
    model = load(folder)
    config = TrainingConfig(epochs=2, batch_size=8, precision="fp16", log_every=1)
    trainer = Trainer(
        model,
        scored_pairs(),
        loss=_Overflowing(),
        config=config,
        on_log=lambda entry: rates.append(entry["learning_rate"]),
        show_progress_bar=False,
    )
    history = trainer.train()
    assert history.skipped_steps == 2
    assert rates[0] == rates[1] == rates[2] > rates[3]
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


class _Overflowing(losses.CosineSimilarityLoss):
    """Infinite gradients in the first two steps."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, embeddings: Any, labels: Any = None) -> torch.Tensor:
        self.calls += 1
        return super().forward(embeddings, labels) * (torch.inf if self.calls <= 2 else 1.0)


@pytest.mark.filterwarnings("ignore")  # torch.compile warns of its own doings
def test_compiled_layers_give_the_same_run(folder: Path) -> None:
    config = TrainingConfig(max_steps=3, batch_size=8, learning_rate=1e-3, eval_every=1)
    still = without_dropout(load(folder))
    weights = {name: value.clone() for name, value in still.state_dict().items()}
    results = []
    for compiled in (False, True):
        still.load_state_dict(weights)
        torch._dynamo.utils.counters.clear()
        settings = replace(config, compile=compiled)
        Trainer(
            still,
            scored_pairs(),
            loss=losses.CosineSimilarityLoss(),
            config=settings,
            eval_data=scored_pairs(10),
            evaluator=evaluator(),
            show_progress_bar=False,
        ).train()
        # What stands before attention and after it, in training and in evaluation, for all layers and batches.
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == (4 if compiled else 0)
        results.append(still.encode(["a cat", "the dog ran"]))
    np.testing.assert_allclose(results[0], results[1], atol=1e-5)


@pytest.mark.parametrize("as_loader", [True, False])
def test_fit(folder: Path, tmp_path: Path, as_loader: bool) -> None:
    examples = [InputExample(texts=[row["a"], row["b"]], label=row["score"]) for row in scored_pairs()]
    data: Any = DataLoader(examples, batch_size=6, shuffle=True) if as_loader else examples  # type: ignore[arg-type]
    calls: list[tuple[float, float, int]] = []
    model = load(folder)
    history = model.fit(
        [(data, losses.CosineSimilarityLoss(model))],
        evaluator=evaluator(),
        epochs=2,
        warmup_steps=1,
        output_path=tmp_path / "model",
        callback=lambda score, epoch, steps: calls.append((score, epoch, steps)),
        show_progress_bar=False,
    )
    per_epoch = 4 if as_loader else 3
    assert [(epoch, steps) for _, epoch, steps in calls] == [(1, per_epoch), (2, 2 * per_epoch)]
    assert history.best_metric == max(score for score, _, _ in calls)
    assert np.array_equal(load(tmp_path / "model").encode("a cat"), model.encode("a cat"))


def test_several_data_sets_each_with_its_loss(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = load(folder)
    pairs = [{"a": row["a"], "b": row["b"]} for row in scored_pairs(10)]
    trainer = Trainer(
        model,
        {"scored": scored_pairs(24), "pairs": pairs},
        loss={"pairs": losses.MultipleNegativesRankingLoss(), "scored": losses.CosineSimilarityLoss()},
        config=TrainingConfig(epochs=2, batch_size=8, learning_rate=1e-3),
    )
    history = trainer.train()
    assert history.steps == 2 * (3 + 2)
    assert model.training_record is not None
    facts = model.training_record.datasets
    assert [(d.name, d.rows, d.loss) for d in facts] == [
        ("scored", 24, "CosineSimilarityLoss"),
        ("pairs", 10, "MultipleNegativesRankingLoss"),
    ]
    announced = capsys.readouterr().err
    assert "scored: 24 rows" in announced
    assert "pairs: 10 rows" in announced


def test_resume_over_several_data_sets_is_exact(folder: Path, tmp_path: Path) -> None:
    def run(output: Path | None, config: TrainingConfig, *, resume: bool = False) -> SentenceTransformer:
        model = load(folder)
        data = {"one": scored_pairs(20), "two": scored_pairs(9)}
        loss = losses.CosineSimilarityLoss()
        trainer = Trainer(model, data, loss=loss, config=config, output_dir=output, show_progress_bar=False)
        trainer.train(resume=resume)
        return model

    config = TrainingConfig(epochs=2, batch_size=8, learning_rate=1e-3, batch_sampler="no_duplicates", save_every=3)
    straight = run(tmp_path / "run", config)
    for step in (6, 9):
        shutil.rmtree(tmp_path / "run" / f"checkpoint-{step}")
    assert same_weights(straight, run(tmp_path / "run", config, resume=True))


def test_checkpoints_of_another_run_are_left_alone(folder: Path, tmp_path: Path) -> None:
    config = TrainingConfig(epochs=1, batch_size=8, save_every=2, save_total_limit=1)
    train(folder, config, output_dir=tmp_path)
    with pytest.raises(ConfigError, match="checkpoints of an earlier run, up to checkpoint-2"):
        train(folder, config, output_dir=tmp_path)
    with pytest.raises(ConfigError, match="no output_dir"):
        train(folder, config, resume=True)


@pytest.mark.parametrize("damage", ["no key", "no dict", "wrong type", "step too far"])
def test_a_checkpoint_that_does_not_fit_changes_nothing(damage: str, folder: Path, tmp_path: Path) -> None:
    config = TrainingConfig(epochs=1, batch_size=8, learning_rate=1e-2, save_every=2)
    train(folder, config, output_dir=tmp_path)
    path = tmp_path / "checkpoint-2" / "training_state.pt"
    state = torch.load(path, weights_only=True)
    damaged: dict[str, Any] = {
        "no key": {name: value for name, value in state.items() if name != "rng"},
        "no dict": [1],
        "wrong type": {**state, "rng": "5"},
        "step too far": {**state, "step": 10**9},
    }
    torch.save(damaged[damage], path)
    seal(path.parent)
    model = load(folder)
    loss = losses.CosineSimilarityLoss()
    trainer = Trainer(model, scored_pairs(), loss=loss, config=config, output_dir=tmp_path, show_progress_bar=False)
    with pytest.raises(InputError, match="resume from an earlier"):
        trainer.train(resume=True)
    assert same_weights(model, load(folder))


def test_resume_is_of_the_same_loss_and_model(folder: Path, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    config = TrainingConfig(epochs=1, batch_size=8, save_every=2)
    train(folder, config, output_dir=tmp_path)
    other_loss, other_model = losses.MultipleNegativesRankingLoss(), tiny("mpnet")
    for place, loss in ((folder, other_loss), (other_model, losses.CosineSimilarityLoss())):
        trainer = Trainer(
            load(place), scored_pairs(), loss=loss, config=config, output_dir=tmp_path, show_progress_bar=False
        )
        with pytest.raises(ConfigError, match="losses differ|of another model"):
            trainer.train(resume=True)


def test_what_is_no_loss(folder: Path) -> None:
    wrong: Any
    for wrong in (None, "cosine", torch.nn.MSELoss(), losses.CosineSimilarityLoss):
        with pytest.raises(ConfigError, match="expected a loss"):
            Trainer(load(folder), scored_pairs(), loss=wrong)


@pytest.mark.parametrize("wrong", ["all-MiniLM-L6-v2", None, torch.nn.Linear(2, 2)])
def test_what_is_no_model(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="got model of type .*; expected a SentenceTransformer: load one"):
        Trainer(wrong, scored_pairs(), loss=losses.CosineSimilarityLoss())


def test_rows_left_out_of_an_epoch_are_told_of(folder: Path) -> None:
    rows = [("a cat", "the cat sat")] * 10 + [("red", "blue")]
    config = TrainingConfig(epochs=1, batch_size=4, batch_sampler="no_duplicates")
    trainer = Trainer(
        load(folder), rows, loss=losses.MultipleNegativesRankingLoss(), config=config, show_progress_bar=False
    )
    with pytest.warns(UserWarning, match="about 7 of 11 rows are left out of each epoch"):
        trainer.train()


def test_errors_name_the_data_set(folder: Path) -> None:
    for data, message in (
        ({"good": scored_pairs(), "bad": [("x", "y", "no number")]}, "data set 'bad'"),
        ({"good": scored_pairs(), "bad": [("x", "y", 5.0)]}, "data set 'bad': got labels from 5"),
    ):
        with pytest.raises(InputError, match=message):
            Trainer(load(folder), data, loss=losses.CosineSimilarityLoss())
    for scale in (5, (0, 1, 2), {"a": (0, 5)}):
        with pytest.raises(ConfigError, match="expected two finite numbers"):
            Trainer(load(folder), scored_pairs(), loss=losses.CosineSimilarityLoss(), scale=scale)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "names", "message"),
    [
        (scored_pairs(), ("a",), "expected one loss"),
        ({"a": scored_pairs(), "b": scored_pairs()}, ("a", "c"), "expected the same names"),
        ({"a": scored_pairs(), "b": [("x", "y")]}, ("a", "b"), "no labels"),
    ],
)
def test_losses_that_do_not_go_with_the_data(folder: Path, data: Any, names: tuple[str, ...], message: str) -> None:
    loss = {name: losses.CosineSimilarityLoss() for name in names}
    with pytest.raises((ConfigError, InputError), match=message):
        Trainer(load(folder), data, loss=loss)


def test_evaluation_after_each_epoch(folder: Path) -> None:
    config = TrainingConfig(epochs=2, batch_size=8, eval_every=2, eval_each_epoch=True)
    model = load(folder)
    loss = losses.CosineSimilarityLoss()
    trainer = Trainer(model, scored_pairs(), loss=loss, config=config, evaluator=evaluator(), show_progress_bar=False)
    history = trainer.train()
    assert [entry["step"] for entry in history.entries if "eval_spearman_cosine" in entry] == [2, 3, 4, 6]


@pytest.mark.parametrize(
    "kind",
    [
        losses.CosineSimilarityLoss,
        losses.MultipleNegativesRankingLoss,
        partial(losses.CachedMultipleNegativesRankingLoss, mini_batch_size=3),
        partial(losses.CachedMultipleNegativesSymmetricRankingLoss, mini_batch_size=3),
    ],
)
def test_without_dropout_packed_training_is_replay(folder: Path, kind: Callable[[], losses.Loss]) -> None:
    """In float64, where only what is computed can make a difference, and not its rounding."""
    results = []
    for replay in (None, "6.2", "5.1"):
        model = without_dropout(load(folder)).double()
        config = TrainingConfig(max_steps=50, batch_size=8, learning_rate=1e-3, log_every=1, replay=replay)
        history = Trainer(model, scored_pairs(), loss=kind(), config=config, show_progress_bar=False).train()
        weights = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
        results.append(([entry["loss"] for entry in history.entries], weights))
    (packed, weights), *others = results
    for losses_of_replay, weights_of_replay in others:
        np.testing.assert_allclose(packed, losses_of_replay, rtol=0, atol=1e-9)
        assert float((weights - weights_of_replay).abs().max()) <= 1e-6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scheduler": "cosine"}, "expected one of constantlr, .*warmupcosine"),
        ({"optimizer_params": {"betas": 1}}, "expected only 'lr'"),
        ({"replay": "6.2", "steps_per_epoch": 2, "epochs": 2}, "reference ignores over several epochs"),
    ],
)
def test_fit_refuses_what_it_does_not_do(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(folder).fit([(scored_pairs(), losses.CosineSimilarityLoss())], **options)


def test_fit_takes_turns_between_objectives(folder: Path) -> None:
    model = load(folder)
    examples = [InputExample(texts=[row["a"], row["b"]], label=row["score"]) for row in scored_pairs()]
    pairs = [InputExample(texts=[row["a"], row["b"]]) for row in scored_pairs(12)]
    history = model.fit(
        [
            (DataLoader(examples, batch_size=6), losses.CosineSimilarityLoss(model)),  # type: ignore[arg-type]
            (DataLoader(pairs, batch_size=6), losses.MultipleNegativesRankingLoss(model)),  # type: ignore[arg-type]
        ],
        epochs=2,
        warmup_steps=1,
        show_progress_bar=False,
    )
    assert history.steps == 2 * 2 * 2
    assert model.training_record is not None
    assert [d.text_columns for d in model.training_record.datasets] == [("sentence_0", "sentence_1")] * 2


def test_fit_trains_the_rows_that_the_sampler_gives(folder: Path) -> None:
    examples: Any = [InputExample(texts=[row["a"], row["b"]], label=row["score"]) for row in scored_pairs()]
    for loader in (
        DataLoader(torch.utils.data.Subset(examples, range(10)), batch_size=4, shuffle=True),
        DataLoader(examples, batch_size=4, sampler=range(10)),
        DataLoader(examples, batch_sampler=[[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]),
    ):
        model = load(folder)
        state = torch.get_rng_state()
        model.fit([(loader, losses.CosineSimilarityLoss())], warmup_steps=0, show_progress_bar=False)
        assert torch.equal(state, torch.get_rng_state())
        assert model.training_record is not None
        assert model.training_record.datasets[0].rows == 10


def test_fit_refuses_batches_of_different_sizes(folder: Path) -> None:
    loss = losses.CosineSimilarityLoss()
    objectives = [(DataLoader(scored_pairs(), batch_size=size), loss) for size in (4, 6)]  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="expected one for all objectives"):
        load(folder).fit(objectives)
    with pytest.raises(ConfigError, match="no train objectives"):
        load(folder).fit([])


def test_fit_warns_of_a_warm_up_that_never_ends(folder: Path) -> None:
    with pytest.warns(UserWarning, match="never reaches its full value"):
        load(folder).fit([(scored_pairs(), losses.CosineSimilarityLoss())], show_progress_bar=False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"batch_size": 2.5}, "batch_size=2.5"),
        ({"learning_rate": float("nan")}, "learning_rate=nan"),
        ({"precision": "int4"}, "expected one of 'fp32', 'fp16', 'bf16'"),
        ({"warmup_steps": 1.5}, "whole steps"),
        ({"max_steps": 0}, "max_steps=0"),
    ],
)
def test_impossible_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainingConfig(**settings)


def test_output_that_cannot_be_written(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write .*train_log.jsonl"):
        train(folder, TrainingConfig(epochs=1), output_dir=tmp_path / "file")


def test_half_weights_are_not_trained(folder: Path) -> None:
    model = SentenceTransformer(folder, device="cpu", dtype="bfloat16")
    with pytest.raises(ConfigError, match="load the model with dtype='float32'"):
        Trainer(model, scored_pairs(), loss=losses.CosineSimilarityLoss())


def test_contradicting_settings(folder: Path) -> None:
    with pytest.raises(ConfigError, match="save_every and no output_dir"):
        train(folder, TrainingConfig(save_every=1))
    with pytest.raises(ConfigError, match="needs an evaluator"):
        train(folder, TrainingConfig(keep_best=True))
    with pytest.raises(TypeError, match="learn_rate"):
        TrainingConfig(learn_rate=1e-3)  # type: ignore[call-arg]


def test_rows_labelled_0_are_named_to_a_loss_that_takes_all(folder: Path) -> None:
    rows = {"a": ["x", "y", "z"], "b": ["x", "y", "z"], "label": [1, 0, -1]}
    model = SentenceTransformer(folder, device="cpu")
    with pytest.warns(UserWarning, match="2 of 3 are labelled 0 or below: leave them out"):
        Trainer(model, rows, loss=losses.MultipleNegativesRankingLoss())


@pytest.mark.parametrize("block", [1, 5, 24])
def test_texts_are_tokenized_in_blocks(block: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = SentenceTransformer(folder, device="cpu")
    model.max_seq_length = 6
    with pytest.warns(UserWarning, match="1 text.s. of column a are empty, the first at row 24 of the data"):
        rows = training_rows([*scored_pairs(), {"a": "", "b": "a cat " * 9, "score": 0.5}])
    tokenizer, sizes = model.transformer.tokenizer, list[int]()

    def tokenize(texts: list[str], **options: Any) -> Any:
        sizes.append(len(texts))
        return tokenizer(texts, **options)

    whole = dataset.TrainingDataset(rows, tokenizer)
    monkeypatch.setattr(roles, "TEXTS_AT_ONCE", block)
    cut = dataset.TrainingDataset(rows, cast(TextTokenizer, tokenize))
    assert max(sizes) == block
    assert sum(sizes) == 50
    assert cut.fingerprint() == whole.fingerprint()
    assert cut.truncated == whole.truncated > 0
    assert np.array_equal(cut.token_counts, whole.token_counts)
    some = np.array([24, 3, 11])
    assert torch.equal(cut.batch(some).texts[0].input_ids, whole.batch(some).texts[0].input_ids)
    for one, other in zip(cut.columns(some), whole.columns(some), strict=True):
        assert all(map(np.array_equal, one, other))


def test_a_bad_text_of_a_later_block_keeps_its_number(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roles, "TEXTS_AT_ONCE", 2)
    rows = training_rows([("fine", "fine")] * 4)
    list(rows.texts.values())[1][3] = "\ud800"  # which reading the rows would have refused
    with pytest.raises(InputError, match=r"texts\[3\]"):
        dataset.TrainingDataset(rows, load(folder).transformer.tokenizer)


def test_numbers_of_numpy_are_python_s() -> None:
    config = TrainingConfig(
        epochs=np.int64(2), learning_rate=np.float32(0.5), warmup_steps=np.int32(7), max_steps=np.uint8(9)
    )
    assert config == TrainingConfig(epochs=2, learning_rate=0.5, warmup_steps=7, max_steps=9)
    assert [type(value) for value in (config.epochs, config.learning_rate, config.warmup_steps)] == [int, float, int]


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": np.float64(2)},
        {"epochs": np.array([2])},
        {"learning_rate": np.float32("nan")},
        {"precision": np.array(["fp32", "fp16"])},
        {"keep_best": np.bool_(True)},
        {"replay": ["6.2"]},
    ],
)
def test_settings_of_other_kinds(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"got {next(iter(wrong))}="):
        TrainingConfig(**wrong)


# ---- evaluators of any kind -----------------------------------------------------------------------------------------


def test_a_function_is_called_on_the_way(folder: Path, tmp_path: Path) -> None:
    model = SentenceTransformer(folder, device="cpu")
    called: list[int] = []

    def evaluate(model: SentenceTransformer) -> float:
        called.append(len(model.encode(["a cat"])))
        return float(len(called))

    config = TrainingConfig(batch_size=8, max_steps=4, eval_every=2, keep_best=True)
    trainer = Trainer(
        model,
        scored_pairs(),
        loss=losses.CosineSimilarityLoss(),
        config=config,
        evaluator=evaluate,
        output_dir=tmp_path,
    )
    history = trainer.train()
    assert (history.best_metric, history.best_step) == (2.0, 4)
    assert [entry["eval_score"] for entry in history.entries if "eval_score" in entry] == [1.0, 2.0]
    model.save_pretrained(tmp_path / "saved")
    assert "score" in (tmp_path / "saved" / "README.md").read_text()


@pytest.mark.parametrize("evaluator", [3, "spearman", lambda: 1.0])
def test_what_is_no_evaluator_is_refused_before_training(evaluator: Any, folder: Path) -> None:
    model = SentenceTransformer(folder, device="cpu")
    with pytest.raises(ConfigError, match="evaluator"):
        Trainer(model, scored_pairs(), loss=losses.CosineSimilarityLoss(), evaluator=evaluator)


def test_a_metric_that_is_always_nan(folder: Path, tmp_path: Path) -> None:
    model = SentenceTransformer(folder, device="cpu")
    config = TrainingConfig(batch_size=8, max_steps=4, eval_every=2, keep_best=True)
    trainer = Trainer(
        *(model, scored_pairs()),
        loss=losses.CosineSimilarityLoss(),
        config=config,
        evaluator=lambda model: {"spearman": float("nan")},
        output_dir=tmp_path,
    )
    with pytest.warns(
        UserWarning, match="keep_best kept nothing, because the metric was NaN in every evaluation: .* 4"
    ):
        history = trainer.train()
    assert history.best_step is None
    assert not (tmp_path / "best").exists()
    lines = (tmp_path / "train_log.jsonl").read_text().splitlines()

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    metrics = [json.loads(line, parse_constant=refuse) for line in lines]
    assert [entry["eval_spearman"] for entry in metrics if "eval_spearman" in entry] == [None, None]
