"""Training on a token store: the same to the bit as in memory, in memory that does not grow with the rows."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_cases import pairs

from minisbert import SentenceTransformer, Trainer, TrainingConfig, losses
from minisbert.cli import main
from minisbert.data import stored_rows as module
from minisbert.data.stored_rows import StoredRows, stored_rows, tokenization
from minisbert.data.token_store import StoreWriter
from minisbert.errors import ConfigError, InputTypeError
from minisbert.text import TokenizedTexts


@pytest.fixture
def folder(tiny: Callable[[str], Path]) -> Path:
    return tiny("bert")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 10)


def written(path: Path, columns: dict[str, Any]) -> Path:
    rows = zip(*columns.values(), strict=True)
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in [tuple(columns), *rows]), encoding="utf-8")
    return path


def trained(folder: Path, data: Any, loss: Any, *, settings: Any = None, **options: Any) -> tuple[list[Any], Any]:
    """Losses of the steps and the weights."""
    model = SentenceTransformer(folder, device="cpu")
    made = loss(model) if isinstance(loss, type(lambda: None)) else loss()
    config = TrainingConfig(**{"epochs": 2, "batch_size": 4, "log_every": 1, "learning_rate": 1e-3, **(settings or {})})
    history = Trainer(model, data, loss=made, config=config, show_progress_bar=False, **options).train()
    assert model.training_record is not None
    return [entry["loss"] for entry in history.entries], model


PAIRS = {**pairs(), "label": [round(label, 3) for label in pairs()["label"]]}
CLASSES = {"a": [*pairs()["a"]], "label": [f"class {row * 7 % 5}" for row in range(24)]}
TWICE = {"a": [text for text in pairs()["a"][:12] for _ in range(2)], "b": pairs()["b"]}
CASES: dict[str, tuple[dict[str, Any], Any, dict[str, Any]]] = {
    "scores": (PAIRS, losses.CosineSimilarityLoss, {}),
    "prompts": (PAIRS, losses.CoSENTLoss, {"prompts": {"a": "why "}}),
    "no duplicates": (TWICE, losses.MultipleNegativesRankingLoss, {"batch_sampler": "no_duplicates"}),
    "labels": (CLASSES, losses.BatchAllTripletLoss, {"batch_sampler": "group_by_label"}),
    "equal texts": ({**TWICE, "b": TWICE["a"]}, lambda model: losses.ContrastiveTensionLoss(model), {}),
    "replay": (PAIRS, losses.CoSENTLoss, {"replay": "6.2"}),
    "guide": (TWICE, lambda model: losses.GISTEmbedLoss(model, model), {}),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore:about")
def test_a_store_trains_as_rows_in_memory(name: str, folder: Path, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    columns, loss, settings = CASES[name]
    if name == "guide":  # of another tokenizer, for which the rows get a store too
        guide = SentenceTransformer(tiny("roberta"), device="cpu")
        loss = lambda model: losses.GISTEmbedLoss(model, guide)  # noqa: E731
    path = written(tmp_path / "rows.tsv", columns)
    expected, plain = trained(folder, path, loss, settings=settings)
    got, model = trained(folder, path, loss, settings=settings, token_store=tmp_path / "cache")
    assert got == expected
    for name_of, tensor in plain.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name_of]), name_of
    record, wanted = model.training_record.datasets[0], plain.training_record.datasets[0]
    assert (record.rows, record.columns, record.samples) == (wanted.rows, wanted.columns, wanted.samples)
    assert (record.counted, wanted.counted) == (10, 24)
    assert len(list((tmp_path / "cache").iterdir())) == (2 if name == "guide" else 1)


@pytest.mark.parametrize(
    "settings",
    [{}, {"multi_dataset_batch_sampler": "round_robin"}, {"dataset_weights": {"one": 1, "two": 3}}],
    ids=["proportional", "round robin", "weighted"],
)
def test_several_stores_and_a_resumed_run(settings: Any, folder: Path, tmp_path: Path) -> None:
    paths = {name: written(tmp_path / f"{name}.tsv", pairs(rows)) for name, rows in (("one", 20), ("two", 13))}
    expected, _ = trained(folder, paths, losses.CoSENTLoss, settings=settings)
    store = tmp_path / "cache"
    got, model = trained(folder, paths, losses.CoSENTLoss, settings=settings, token_store=store)
    assert got == expected
    assert [record.rows for record in model.training_record.datasets] == [20, 13]
    model.save_pretrained(tmp_path / "model")
    assert re.search("first 10 samples", (tmp_path / "model" / "README.md").read_text())
    run = tmp_path / "run"
    stopped, _ = trained(
        folder,
        paths,
        losses.CoSENTLoss,
        settings={**settings, "save_every": 4},
        token_store=store,
        output_dir=tmp_path / "run",
    )
    for late in run.glob("checkpoint-*"):
        if late.name != "checkpoint-4":
            late.rename(tmp_path / late.name)
    model = SentenceTransformer(folder, device="cpu")
    config = TrainingConfig(epochs=2, batch_size=4, log_every=1, learning_rate=1e-3, save_every=4, **settings)
    made = Trainer(model, paths, loss=losses.CoSENTLoss(), config=config, output_dir=run, token_store=store)
    assert [entry["loss"] for entry in made.train(resume=True).entries] == stopped == expected


def test_a_folder_of_a_store_is_train_data(folder: Path, tmp_path: Path) -> None:
    path = written(tmp_path / "rows.tsv", pairs())
    expected, _ = trained(folder, path, losses.CoSENTLoss, token_store=tmp_path / "cache")
    (store,) = (tmp_path / "cache").iterdir()
    path.unlink()
    assert trained(folder, store, losses.CoSENTLoss)[0] == expected
    assert trained(folder, {"rows": store}, losses.CoSENTLoss)[0]
    with pytest.raises(ConfigError, match="was made with another prompts; expected what is trained with"):
        trained(folder, store, losses.CoSENTLoss, settings={"prompts": "x "})
    with pytest.raises(InputTypeError, match="data set 'rows': got list for a token store"):
        trained(folder, {"rows": [("a", "b", 1.0)]}, losses.CoSENTLoss, token_store=tmp_path / "cache")


def test_commands(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, cache = written(tmp_path / "rows.tsv", pairs()), tmp_path / "cache"
    stored = ["--token-store", str(cache), "--prompts", "why ", "--max-seq-length", "12", "--device", "cpu"]
    assert main(["tokenize", str(folder), str(path), *stored]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert Path(printed[0]).parent == cache
    assert re.fullmatch(r"24 rows of .*: texts a \+ b, label label; \d+ tokens, \d+ texts cut", printed[1])
    train = ["train", "--model", str(folder), "--data", str(path), "--loss", "CoSENTLoss", "--epochs", "1", *stored]
    assert main([*train, "--output", str(tmp_path / "model")]) == 0
    assert len(list(cache.iterdir())) == 1
    assert SentenceTransformer(tmp_path / "model", device="cpu").max_seq_length == 12
    of_store = ["--data", printed[0], "--prompts", "why ", "--max-seq-length", "12", "--device", "cpu"]
    assert main([*train[:3], *of_store, *train[5:9], "--output", str(tmp_path / "other")]) == 0
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("model", "other")]
    assert weights[0] == weights[1]


# ---- memory ---------------------------------------------------------------------------------------------------------


def made_up(folder: Path, rows: int, model: SentenceTransformer) -> StoredRows:
    """Write a store of pairs of random ids, six tokens a text in the mean."""
    draw, block = np.random.default_rng(0), min(rows, 2_000_000)
    tokenizer = model.transformer.text_tokenizer
    with StoreWriter(folder, columns=["a", "b"], vocabulary=len(tokenizer)) as writer:
        for _ in range(rows // block):
            lengths = draw.integers(3, 10, 2 * block)
            ids = draw.integers(5, len(tokenizer), int(lengths.sum()), dtype=np.int32)
            hashes = draw.integers(0, 2**63, (block, 2), dtype=np.uint64)
            labels = draw.integers(0, 1000, block).astype(np.float32)
            writer.add(TokenizedTexts(ids, lengths, 0), hashes, labels)
        label = {"name": "label", "type": "int", "index": 2}
        texts = {name: [f"{name} {row}" for row in range(100)] for name in "ab"}
        made_of = {**tokenization(tokenizer, {}), "source": "made up", "label": label, "texts": texts}
        writer.finish({"made_of": made_of})
    return stored_rows(folder, tokenizer, cache=None)


def anonymous() -> float:
    """Anonymous memory of this process, in MB."""
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("the operating system does not say how much memory is anonymous")
    return int(re.findall(r"RssAnon:\s+(\d+) kB", status.read_text())[0]) / 1024


def most_memory(rows: StoredRows, model: SentenceTransformer, sampling: str, steps: int) -> float:
    """The most anonymous memory of a run beyond that before it, in MB."""
    before, seen = anonymous(), [0.0]

    def watch(_: object) -> None:
        seen.append(anonymous() - before)

    config = TrainingConfig(max_steps=steps, batch_size=64, log_every=1, batch_sampler=sampling)
    loss = losses.MultipleNegativesRankingLoss()
    Trainer(
        model,
        rows,
        loss=loss,
        config=config,
        show_progress_bar=False,
        on_log=watch,
    ).train()
    assert len(seen) > steps
    return max(*seen, anonymous() - before)


@pytest.mark.parametrize("sampling", ["batch_sampler", "group_by_label"])
@pytest.mark.filterwarnings("ignore:MultipleNegativesRankingLoss takes the texts", "ignore:about")
def test_a_million_rows_take_little_memory(sampling: str, folder: Path, tmp_path: Path) -> None:
    model = SentenceTransformer(folder, device="cpu")
    rows = made_up(tmp_path / "store", 1_000_000, model)
    most_memory(made_up(tmp_path / "small", 10_000, model), model, sampling, 10)  # what torch keeps of a first run
    assert most_memory(rows, model, sampling, 10) < 120


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:MultipleNegativesRankingLoss takes the texts")
def test_fifty_million_rows_take_less_than_a_gigabyte_and_a_half(folder: Path, tmp_path: Path) -> None:
    model = SentenceTransformer(folder, device="cpu")
    rows = made_up(tmp_path / "store", 50_000_000, model)
    most = most_memory(rows, model, "batch_sampler", 200)
    shutil.rmtree(tmp_path / "store")  # three gigabytes
    assert most < 1_500
