"""Files of models, cards and rows that are wrong on purpose: what was found by fuzzing, and what is known to hurt."""

from __future__ import annotations

import gzip
import importlib
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from model_folders import add_module, edit, load, read
from places import HELPERS, ROOT

from minisbert.card import read_card
from minisbert.data.readers import read_columns
from minisbert.data.roles import training_rows
from minisbert.errors import InputError, ModelError
from minisbert.storage.weights import read_header, read_weights


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "robustness"))
    return importlib.import_module("fuzz.harness")


@pytest.fixture
def folder(tiny: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny("bert"), tmp_path / "model"))


CONFIGS: dict[str, Any] = {
    "num_hidden_layers": [10**12, -1, 1.5, "2", True, float("nan"), [2], {}],
    "hidden_size": [10**30, 0, -4, float("inf"), "32", 10**8],
    "vocab_size": [10**30, 0, 10**8],
    "max_position_embeddings": [10**30, 0],
    "num_attention_heads": [0, 10**12, 5],
    "intermediate_size": [10**30, 0],
    "type_vocab_size": [10**30, -1],
    "layer_norm_eps": [float("nan"), float("-inf"), "x"],
    "hidden_dropout_prob": [2, -0.5, float("nan")],
    "pad_token_id": [10**12, -1],
    "model_type": [[[]], {"a": 1}, "no-such-model", None],
    "hidden_act": [{"a": 1}, "os.system"],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in CONFIGS.items() for value in values])
def test_impossible_configurations(key: str, value: Any, folder: Path) -> None:
    edit(folder / "config.json", **{key: value})
    with pytest.raises(ModelError):
        load(folder)


def test_sizes_of_a_foreign_encoder(folder: Path) -> None:
    edit(folder / "config.json", model_type="electra", num_hidden_layers=10**9)
    with pytest.raises(ModelError, match="got 1000000000 for num_hidden_layers; expected at most 1000"):
        load(folder)
    edit(folder / "config.json", num_hidden_layers=900, hidden_size=4096, intermediate_size=4096)
    with pytest.raises(ModelError, match=r"describes [\d,]+ numbers, and the weights have"):
        load(folder)


@pytest.mark.parametrize("buckets", [1, 3, 512])
def test_impossible_buckets(buckets: int, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    place = Path(shutil.copytree(tiny("mpnet"), tmp_path / "model"))
    edit(place / "config.json", relative_attention_num_buckets=buckets)
    with pytest.raises(ModelError, match="relative"):
        load(place)


def test_what_only_the_architecture_decides_is_not_read(folder: Path) -> None:
    before = load(folder).encode("a cat")
    edit(folder / "config.json", position_offset=3, attention_output_dropout=False, relative_attention_buckets=32)
    assert (load(folder).encode("a cat") == before).all()


@pytest.mark.parametrize("path", ["..", "/etc", "é" * 150, "\ud800", "a\0b", "../model2", 5, None, ["x"], "loop/x"])
def test_module_paths(path: Any, folder: Path) -> None:
    (folder / "loop").symlink_to(folder / "loop")
    entries = read(folder / "modules.json")
    entries[1]["path"] = path
    (folder / "modules.json").write_text(json.dumps(entries))
    with pytest.raises(ModelError):
        load(folder)


def test_too_many_modules(folder: Path) -> None:
    entries = read(folder / "modules.json")
    (folder / "modules.json").write_text(json.dumps([*entries, *[entries[2]] * 1000]))
    with pytest.raises(ModelError, match="got 1,003 modules; expected at most 100"):
        load(folder)


@pytest.mark.parametrize("value", [{"a": 1}, [[]], 5, True, "\ud800"])
def test_default_prompt_names_that_are_none(value: Any, folder: Path) -> None:
    edit(folder / "config_sentence_transformers.json", default_prompt_name=value)
    with pytest.raises(ModelError, match="got default_prompt_name=.*; expected the name of a prompt"):
        load(folder)


def test_a_prompt_that_cannot_be_written(folder: Path) -> None:
    edit(folder / "config_sentence_transformers.json", prompts={"query": "\ud800"})
    with pytest.raises(ModelError, match="got prompts=.*; expected an object of texts"):
        load(folder)


def test_tokens_beyond_the_vocabulary(folder: Path) -> None:
    tokenizer = read(folder / "tokenizer.json")
    tokenizer["model"]["vocab"]["cat"] = 2**31
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    model = load(folder)
    with pytest.raises(ModelError, match="tokenizer gave the token or type 2147483648; its encoder has 0 to"):
        model.encode(["a cat"])
    assert model.encode(["a dog"]).shape == (1, 32)


def test_a_tokenizer_that_fails_on_texts(folder: Path) -> None:
    tokenizer = read(folder / "tokenizer.json")
    tokenizer["model"]["unk_token"] = "[NONE]"
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert load(folder).encode(["☃"]).shape == (1, 32)  # BertTokenizer names its own unknown token
    edit(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    model = load(folder)
    with pytest.raises(ModelError, match="tokenizer failed on texts"):
        model.encode(["☃"])


def test_a_length_without_room_for_a_token(folder: Path) -> None:
    edit(folder / "sentence_bert_config.json", max_seq_length=2)
    with pytest.raises(ModelError, match="got max_seq_length=2 and a tokenizer that adds 2 tokens"):
        load(folder)


def write_header(path: Path, header: bytes, *, length: int | None = None) -> None:
    path.write_bytes((len(header) if length is None else length).to_bytes(8, "little") + header + bytes(64))


@pytest.mark.parametrize(
    "header",
    [
        b'{"a": {"dtype": "F32", "shape": [1000000, 1000000], "data_offsets": [0, 64]}}',
        b'{"a": {"dtype": "F32", "shape": [true], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}}',
        b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}}',
        b'{"a": {"dtype": 5, "shape": [4], "data_offsets": [0, 16]}}',
        b"[" * 100_000,
        b'{"__metadata__": {}}',
        b"",
    ],
)
def test_headers(header: bytes, tmp_path: Path) -> None:
    write_header(tmp_path / "model.safetensors", header)
    for read_it in (lambda: read_header(tmp_path / "model.safetensors"), lambda: read_weights(tmp_path)):
        with pytest.raises(ModelError, match=r"model\.safetensors cannot be read"):
            read_it()


def test_a_huge_header_is_not_read(tmp_path: Path) -> None:
    write_header(tmp_path / "model.safetensors", b"{}", length=50_000_000)
    with pytest.raises(ModelError, match="got no list of tensors"):
        read_header(tmp_path / "model.safetensors")


@pytest.mark.parametrize("name", ["\n", "on\ud800e.safetensors", "../x.safetensors", "a/b", "/etc/passwd", "", 5])
def test_names_in_an_index(name: Any, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ModelError, match="expected a weight_map from tensors to files beside it"):
        read_weights(tmp_path)


class Stranger:
    def __reduce__(self) -> Any:
        return os.system, ("true",)


@pytest.mark.parametrize(
    "value",
    [
        {"a": torch.zeros(1).expand(10**6, 10**6)},
        {"a": torch.zeros(2, 2).to_sparse()},
        {"a": torch.zeros(2, device="meta")},
        {1: torch.zeros(2)},
        {"a": 5},
        [torch.zeros(2)],
        {"a" * 100_000: torch.zeros(2)},
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_that_are_no_plain_tensors(value: Any, zipped: bool, tmp_path: Path) -> None:
    torch.save(value, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match="expected safetensors"):
        read_weights(tmp_path)


def test_a_pickle_of_code(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Stranger()))
    with pytest.raises(ModelError, match="expected safetensors"):
        read_weights(tmp_path)


def test_a_compressed_archive(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1_000_000)}, tmp_path / "plain.bin")
    with (
        zipfile.ZipFile(tmp_path / "plain.bin") as plain,
        zipfile.ZipFile(tmp_path / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    with pytest.raises(ModelError, match="it is compressed"):
        read_weights(tmp_path)


def test_weights_that_are_no_floats(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = {name: tensor.to(torch.int8) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"are torch\.int8 for .*; expected one of torch\.float32"):
        load(folder)


@pytest.mark.parametrize(
    "config", [{"in_features": 10**12, "out_features": 10**12}, {"in_features": 32, "out_features": 2**63}]
)
def test_sizes_of_a_dense_layer_take_no_memory(config: dict[str, Any], folder: Path, harness: ModuleType) -> None:
    add_module(folder, "Dense", config, {"linear.weight": torch.zeros(8, 32), "linear.bias": torch.zeros(8)})
    before = harness.peak()
    with pytest.raises(ModelError):
        load(folder)
    assert harness.peak() - before < 100_000_000


@pytest.mark.parametrize("dropout", ["x", -1, 2, float("nan"), True, None])
def test_shares_that_are_none(dropout: Any, folder: Path) -> None:
    add_module(folder, "Dropout", {"dropout": dropout})
    with pytest.raises(ModelError, match="does not describe a Dropout"):
        load(folder)


@pytest.mark.parametrize("name", ["modules.json", "config.json", "tokenizer.json", "model.safetensors", "README.md"])
def test_pipes_are_not_waited_for(name: str, folder: Path) -> None:
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    if name in ("README.md", "modules.json"):  # the model can do without
        with pytest.warns(UserWarning, match="pooling") if name == "modules.json" else nullcontext():
            assert load(folder).encode("a").shape == (32,)
    else:
        with pytest.raises(ModelError):
            load(folder)


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_cards_and_data_are_files(kind: str, tmp_path: Path) -> None:
    for name, read_it in {"README.md": read_card, "rows.tsv": read_columns}.items():
        path = tmp_path / name
        os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
        with pytest.raises(InputError, match="cannot read|there is no file"):
            read_it(path)


DATA = {
    "zero bytes": ("rows.tsv", b"a\tb\nx\ty\nx\0\ty\n", "line 3: got a zero byte; expected a text in UTF-8"),
    "UTF-16": ("rows.tsv", "a\tb\nx\ty\n".encode("utf-16-le"), "line 1: got a zero byte"),
    "UTF-16 with its mark": ("rows.csv", "a,b\né,y\n".encode("utf-16"), "line 1: got"),
    "latin-1": ("rows.csv", "a,b\nx,y\né,z\n".encode("latin-1"), "line 3: got bytes that are not UTF-8"),
    "a lone surrogate": (
        "rows.jsonl",
        b'{"a": "x", "b": "y"}\n{"a": "x", "b": "z\\ud800"}\n',
        r"line 2: column b holds the lone surrogate '\\ud800' at character 1",
    ),
    "a label that is NaN": ("rows.tsv", b"a\tb\tscore\nx\ty\t1\nx\ty\tnan\n", "line 3: column score holds 'nan'"),
    "JSON's NaN": (
        "rows.jsonl",
        b'{"a": "x", "score": 1}\n\n{"a": "x", "score": NaN}\n',
        "line 3: column score holds nan; expected a finite number",
    ),
    "a number without end": (
        "rows.jsonl",
        b'{"a": "x", "score": ' + b"9" * 4000 + b"}\n",
        "line 1: column score holds 999.*; expected a finite number",
    ),
    "mixed types": (
        "rows.jsonl",
        b'{"a": "x", "score": 1}\n{"a": 5, "score": 1}\n',
        "line 2: column a holds 5 of type",
    ),
    "a long name": ("rows.tsv", b"a" * 10**6 + b"\t" + b"a" * 10**6 + b"\n", "line 1: got the column names"),
    "a bomb": ("rows.tsv.gz", gzip.compress(bytes(60_000_000)), "unpack to more than 50,000,000"),
}


@pytest.mark.parametrize(("name", "content", "message"), DATA.values(), ids=DATA)
def test_rows_that_cannot_be_read(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as raised:
        training_rows(tmp_path / name)
    assert name in str(raised.value)
    assert len(str(raised.value)) < 2100


def test_ten_million_empty_lines(tmp_path: Path, harness: ModuleType) -> None:
    (tmp_path / "rows.tsv").write_bytes(b"a\tscore\n" + b"\n" * 3_000_000 + b"x\t1\n")
    before = harness.peak()
    assert read_columns(tmp_path / "rows.tsv") == ({"a": ["x"], "score": ["1"]}, [3_000_002])
    assert harness.peak() - before < 150_000_000


CARD = (HELPERS / "card_small.md").read_text(encoding="utf-8")
LONG = {
    "links": ("### Model Sources", "- [" + "](" * 200_000),
    "fields": ("### Model Sources", "- **" * 200_000),
    "base model": ("- **Base model:** ", "- **Base model:** [" + "](" * 200_000),
    "fences": ("#### Semantic Similarity", "```json\n" * 100_000),
    "revisions": ("* Loss: ", "* Dataset: " + " at [](/tree/" * 30_000 + "\n* Loss: "),
    "columns": ("* Columns: ", "* Columns: " + "<code>" * 100_000),
    "settings": ("#### All Hyperparameters", "#### All Hyperparameters\n- `a`: b" + "\n" * 500_000),
    "rows": ("### Training Logs", "### Training Logs\n| a |\n|:" + "-" * 500_000 + ":|\n" + "| |\n" * 100_000),
    "pictures": ("### Training Hyperparameters", "### Pictures\n" + "![\n" * 200_000),
    "headings": ("### Model Sources", "# [[\n" * 100_000),
}


@pytest.mark.parametrize(("place", "instead"), LONG.values(), ids=LONG)
def test_long_cards_take_no_longer_than_their_length(
    place: str, instead: str, tmp_path: Path, harness: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert place in CARD
    content = CARD.replace(place, f"{place}\n{instead}" if not instead.startswith(place) else instead, 1).encode()
    target = harness.Target(
        lambda: [CARD.encode()], lambda card, draw: content, importlib.import_module("fuzz.texts").feed_card
    )
    assert harness.run(target, inputs=2).failures == []
