"""`minisbert inspect` shows model folders and cards without loading a model."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model_folders import add_module, edit, load
from places import HELPERS, ROOT
from safetensors.torch import load_file
from tiny_models import ARCHITECTURES, build

from minisbert import SentenceTransformer, Trainer, TrainingConfig, losses
from minisbert.card import parse, read_card
from minisbert.card.parsing import comes_from_fit, read_parameters
from minisbert.cli import main
from minisbert.cli.inspect import card_summary
from minisbert.errors import InputError, ModelError
from minisbert.storage.contents import read_contents
from minisbert.storage.weights import read_header

CARDS = ROOT.parent / "shared" / "cards"
SMALL = HELPERS / "card_small.md"


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run the command: what it prints."""

    def run(*arguments: Any) -> str:
        status = main(["inspect", *map(str, arguments)])
        captured = capsys.readouterr()
        assert (status, captured.err) == (0, "")
        return captured.out

    return run


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run the command on what it cannot read: the one line it says."""

    def run(*arguments: Any) -> str:
        status = main(["inspect", *map(str, arguments)])
        captured = capsys.readouterr()
        assert (status, captured.out) == (2, "")
        assert re.fullmatch(r"minisbert: error: .+\n", captured.err)
        return captured.err

    return run


@pytest.fixture
def folder(tiny: Callable[[str], Path], tmp_path: Path) -> Path:
    """A model folder to change."""
    return Path(shutil.copytree(tiny("bert"), tmp_path / "model"))


def row(text: str, name: str) -> str:
    """What stands behind a name, the lines under it included."""
    found = re.search(rf"^{name} +(.*(?:\n  .*)*)", text, re.MULTILINE)
    assert found, f"{name!r} is not in:\n{text}"
    return " ".join(found[1].split())


# ---- cards ----------------------------------------------------------------------------------------------------------


def test_card(told: Callable[..., str]) -> None:
    assert told(SMALL).splitlines() == [
        "SentenceTransformer based on some/base",
        "",
        "base model  some/base at c9745ed",
        "dimension   384",
        "max tokens  128",
        "similarity  cosine",
        "modules     Transformer BertModel",
        "trained on  489,640 rows",
        "              sentence_0  string  min: 5 tokens, mean: 16.07 tokens",
        "              label       float   min: 0.0, mean: 0.52",
        "            with CosineSimilarityLoss: loss_fct MSELoss",
        "settings    num_train_epochs  1",
        "logs        Training Loss    0.1015 at step 500, 0.016 at step 1000",
        "            spearman_cosine  0.8486 at step 500",
        "            the weights of step 500 were saved",
        "results     Semantic Similarity  spearman_cosine  0.8486",
        "versions    Python 3.12.3, Sentence Transformers 4.0.1",
    ]


@pytest.mark.parametrize(
    ("old", "new", "name", "shown"),
    [
        ("at revision c9745ed", "at revision " + "0123456789" * 4, "base model", "some/base at 0123456"),
        ("384 dimensions", "12 dimensions", "dimension", "12"),
        ("128 tokens", "64 tokens", "max tokens", "64"),
        ("128 tokens", "inf tokens", "max tokens", "no limit"),
        ("Cosine Similarity\n", "Dot Product\n", "similarity", "dot"),
        ("\n)\n", "\n  (1): Pooling({'word_embedding_dimension': 8, 'pooling_mode_cls_token': True})\n)\n",
         "modules", "Transformer BertModel Pooling cls, 8"),
        ("\n)\n", "\n  (1): Dense({'in_features': 8, 'out_features': 4, 'activation_function': 'a.Tanh'})\n)\n",
         "modules", "Transformer BertModel Dense 8 to 4, Tanh"),
        ("\n)\n", "\n  (1): Odd({'broken': )\n)\n", "modules", "Transformer BertModel Odd"),
        ("489,640 training", "3 training", "trained on", "3 rows sentence_0"),
        ("<li>mean: 16.07 tokens</li>", "<li>mean: 16.07 tokens</li><li>max: 87 tokens</li>",
         "trained on", "mean 16.07 tokens (5 to 87)"),
        ("torch.nn.modules.loss.MSELoss", "other.Thing", "trained on", "loss_fct other.Thing"),
        ("- `num_train_epochs`: 1\n\n#", "- `num_train_epochs`: 7\n\n#", "settings", "num_train_epochs 7"),
        ("- `num_train_epochs`: 1\n- `mp", "- `learning_rate`: 5e-05\n- `num_train_epochs`: 1\n- `mp",
         "settings", "num_train_epochs 1 learning_rate 5e-05 default"),
        ("| 0.0654     | 1000    | 0.016         | -               |",
         "| 0.0654     | 1000    | 0.016         | 0.9             |",
         "logs", "spearman_cosine 0.9 at step 1000, the best"),
        ("| **0.8486** |\n\n## Train", "| **nan**    |\n\n## Train",
         "results", "Semantic Similarity spearman_cosine nan"),
        ("### Framework", "### Training Time\n- **Training**: 2.5 hours\n\n### Framework", "time", "2.5 hours"),
        ("Python: 3.12.3", "Python: 3.99", "versions", "Python 3.99,"),
    ],
)  # fmt: skip
def test_a_fact_that_changes_is_told(
    old: str, new: str, name: str, shown: str, told: Callable[..., str], tmp_path: Path
) -> None:
    text = SMALL.read_text(encoding="utf-8")
    assert text.count(old) == 1
    (tmp_path / "card.md").write_text(text.replace(old, new), encoding="utf-8")
    assert shown in row(told(tmp_path / "card.md"), name)
    if name != "time":
        assert shown not in row(told(SMALL), name)


def test_card_as_json(told: Callable[..., str]) -> None:
    found = json.loads(told(SMALL, "--json"))
    assert found.keys() == {"path", "model", "card"}
    assert (found["path"], found["model"]) == (str(SMALL), None)
    facts = parse(SMALL.read_text(encoding="utf-8"))
    assert found["card"] == json.loads(json.dumps(dataclasses.asdict(facts)))


def test_json_has_no_infinity(told: Callable[..., str], tmp_path: Path) -> None:
    text = SMALL.read_text(encoding="utf-8").replace("128 tokens", "inf tokens").replace("16.07 tokens", "nan tokens")
    (tmp_path / "card.md").write_text(text, encoding="utf-8")

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    found = json.loads(told(tmp_path / "card.md", "--json"), parse_constant=refuse)
    assert found["card"]["description"]["max_seq_length"] is None


def test_a_card_that_was_decoded_twice_is_repaired(told: Callable[..., str], tmp_path: Path) -> None:
    text = SMALL.read_text(encoding="utf-8").replace("some/base\n\nA para", "söme/base\n\nA para")
    (tmp_path / "right.md").write_text(text, encoding="utf-8")
    (tmp_path / "twice.md").write_text(text.encode().decode("cp1252", "replace"), encoding="utf-8")
    assert told(tmp_path / "twice.md") == told(tmp_path / "right.md")
    assert "söme/base" in told(tmp_path / "twice.md")


def test_line_ends_of_windows(told: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "card.md").write_bytes(SMALL.read_bytes().replace(b"\n", b"\r\n"))
    assert told(tmp_path / "card.md") == told(SMALL)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"- `max_grad_norm`: 1\n": "- `max_grad_norm`: 1.0\n"}, False),
        ({"#### Unnamed Dataset\n": "#### name\n\n* Dataset: name\n"}, False),
        ({"sentence_0": "sentence1"}, False),
        ({"sentence_0": "anchor"}, False),
    ],
)
def test_a_card_of_fit_is_told_by_its_signs(changes: dict[str, str], expected: bool) -> None:
    rates = "- `max_grad_norm`: 1\n- `learning_rate`: 5e-05\n"
    text = SMALL.read_text(encoding="utf-8").replace("- `mp_parameters`", f"{rates}- `mp_parameters`")
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    facts = parse(text)
    assert comes_from_fit(facts) is expected
    summary = card_summary(facts)
    assert ("trained by fit: the card does not state" in summary) is expected
    assert ("learning_rate" in row(summary, "settings")) is not expected


def test_several_data_sets_and_long_values() -> None:
    facts = parse(SMALL.read_text(encoding="utf-8"))
    (one,) = facts.training_datasets
    counts = tuple((str(label), "~10.00%") for label in range(10))
    label = dataclasses.replace(one.statistics[1], type="int", details=counts)
    other = dataclasses.replace(
        one,
        name="other",
        size=None,
        statistics=(label,),
        loss=dataclasses.replace(one.loss, name="MatryoshkaLoss", parameters="{not json}"),
    )
    summary = card_summary(dataclasses.replace(facts, training_datasets=(one, other), evaluation_datasets=(one,)))
    assert "other: a stream of rows" in summary
    assert "label       int  0: ~10.00%, 1: ~10.00%, 2: ~10.00%, 3: ~10.00%, 6 more" in summary
    assert "with MatryoshkaLoss: {not json}" in summary
    assert row(summary, "eval data") == "489,640 rows"


def test_card_of_an_untrained_model(folder: Path, tmp_path: Path, told: Callable[..., str]) -> None:
    load(folder).save_pretrained(tmp_path / "saved")
    text = told(tmp_path / "saved" / "README.md")
    for name in ("trained on", "settings", "logs", "results", "time"):
        assert not re.search(rf"^{name}", text, re.MULTILINE)


@pytest.mark.data
@pytest.mark.skipif(not CARDS.is_dir(), reason="the real cards are not beside the repository")
def test_real_cards(told: Callable[..., str]) -> None:
    cards = sorted(CARDS.glob("*.md"))
    assert len(cards) == 5
    for card in cards:
        facts = read_card(card)
        text = told(card)
        assert max(map(len, text.splitlines())) <= 110
        assert comes_from_fit(facts)
        assert "trained by fit: the card does not state" in text
        assert f"{facts.training_datasets[0].size:,} rows" in row(text, "trained on")
        assert row(text, "base model") == "sentence-transformers/all-MiniLM-L6-v2 at c9745ed"
        assert row(text, "max tokens") == f"{facts.description.max_seq_length:g}"
        assert facts.training_datasets[0].loss.name in row(text, "trained on")
        assert json.loads(told(card, "--json"))["card"]["title"] == facts.title


# ---- folders --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*ARCHITECTURES, "minilm"])
def test_contents_are_those_of_the_loaded_model(name: str, model_folder: Callable[[str], Path]) -> None:
    place = model_folder(name)
    contents, model = read_contents(place), load(place)
    encoder = model.transformer.auto_model.config
    assert [module.kind for module in contents.modules] == [type(module).__name__ for module in model]
    assert contents.dimension == model.get_sentence_embedding_dimension()
    assert contents.max_seq_length == model.max_seq_length
    assert contents.encoder.layers == encoder.num_hidden_layers
    assert contents.encoder.heads == encoder.num_attention_heads
    assert contents.encoder.hidden_size == encoder.hidden_size
    assert contents.encoder.vocabulary == encoder.vocab_size
    assert contents.encoder.positions == encoder.max_tokens
    floats = [t for t in load_file(place / "model.safetensors").values() if t.is_floating_point()]
    assert contents.parameters == sum(tensor.numel() for tensor in floats)
    assert contents.dtypes == ("float32",)
    assert contents.files["model.safetensors"] == (place / "model.safetensors").stat().st_size
    assert contents.files["1_Pooling/config.json"] == (place / "1_Pooling" / "config.json").stat().st_size
    assert contents.tokenizer.algorithm == {"roberta": "BPE", "xlm-roberta": "Unigram"}.get(name, "WordPiece")
    assert contents.notes == ()


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize(("tokenizer", "asked"), [(None, None), (20, None), (10**30, None), (20, 30), (20, 64)])
def test_longest_text_is_that_of_the_loaded_model(
    name: str, tokenizer: int | None, asked: int | None, tmp_path: Path
) -> None:
    place = build(tmp_path / "model", name, max_seq_length=asked)
    edit(place / "tokenizer_config.json", model_max_length=tokenizer)
    assert read_contents(place).max_seq_length == load(place).max_seq_length


def test_folder(folder: Path, told: Callable[..., str]) -> None:
    text = told(folder)
    assert text.startswith(f"{folder}\n\nmodules     Transformer BertModel\n            Pooling mean, 32\n")
    assert row(text, "encoder").startswith("2 layers, 4 heads, hidden size 32, vocabulary ")
    assert row(text, "weights") == f"{read_contents(folder).parameters:,} parameters, float32"
    assert row(text, "max tokens") == "48"
    assert row(text, "similarity") == "cosine (not set)"
    assert row(text, "prompts") == "none"
    assert row(text, "tokenizer") == "BertTokenizer (WordPiece)"
    assert "model.safetensors" in row(text, "files")
    assert "README" not in text


def test_what_changes_in_a_folder_is_told(folder: Path, told: Callable[..., str]) -> None:
    edit(
        folder / "config_sentence_transformers.json",
        __version__={"sentence_transformers": "9.9"},
        prompts={"query": "find: ", "document": ""},
        default_prompt_name="query",
        similarity_fn_name="dot",
        truncate_dim=4,
    )
    edit(folder / "config.json", transformers_version="8.8")
    edit(folder / "sentence_bert_config.json", max_seq_length=20, do_lower_case=True)
    edit(folder / "tokenizer_config.json", tokenizer_class="MPNetTokenizerFast")
    edit(folder / "1_Pooling" / "config.json", pooling_mode_max_tokens=True)
    add_module(folder, "Dense", {"in_features": 64, "out_features": 8, "bias": True}, {"linear.bias": torch.zeros(8)})
    text = told(folder)
    assert row(text, "modules") == "Transformer BertModel lower-cased Pooling max + mean, 32 Dense 64 to 8, Tanh"
    assert row(text, "dimension") == "4 (truncate_dim 4)"
    assert row(text, "max tokens") == "20"
    assert row(text, "similarity") == "dot"
    assert row(text, "prompts") == "query 'find: ' default"
    assert row(text, "written by") == "transformers 8.8, sentence_transformers 9.9"
    assert row(text, "tokenizer") == "MPNetTokenizer (WordPiece)"
    assert "2_Dense/pytorch_model.bin" in row(text, "files")
    assert row(text, "weights") == "in a pickle, not counted"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_number_type_of_the_weights(folder: Path, tmp_path: Path, dtype: Any) -> None:
    load(folder, dtype=dtype).save_pretrained(tmp_path / "half")
    assert read_contents(tmp_path / "half").dtypes == (dtype,)


def test_weights_are_not_read(folder: Path, told: Callable[..., str]) -> None:
    whole = told(folder)
    weights = folder / "model.safetensors"
    size, content = weights.stat().st_size, weights.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    weights.write_bytes(content[:header])
    with pytest.raises(ModelError):
        load(folder)
    cut = told(folder)
    assert row(cut, "weights") == row(whole, "weights")
    assert row(cut, "note") == f"model.safetensors has {header:,} of {size:,} bytes: it is not complete, copy it again"


def test_weights_may_be_larger_than_memory(folder: Path) -> None:
    size = 2**43  # of which nothing is on the disk
    header = json.dumps({"a": {"dtype": "BF16", "shape": [size // 2], "data_offsets": [0, size]}}).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)
    contents = read_contents(folder)
    assert (contents.parameters, contents.dtypes, contents.notes) == (size // 2, ("bfloat16",), ())


def test_inspecting_does_not_wait_for_torch(folder: Path) -> None:
    code = f"""
import sys
from minisbert.cli import main
assert main(["inspect", {str(folder)!r}]) == main(["inspect", {str(SMALL)!r}]) == 0
print([name for name in ("torch", "numpy", "transformers", "tokenizers") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_pickle_is_named_with_its_size(folder: Path, told: Callable[..., str]) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80 no pickle at all" * 1000)
    text = told(folder)
    assert row(text, "weights") == "in a pickle, not counted"
    assert "pytorch_model.bin 18.0 kB" in row(text, "files")


def test_weights_in_several_files(folder: Path, tmp_path: Path) -> None:
    whole = read_contents(folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    places = dict.fromkeys(tensors, "model-00001-of-00002.safetensors") | {"extra": "model-00002-of-00002.safetensors"}
    edit(folder / "model.safetensors.index.json", weight_map=places)
    contents = read_contents(folder)
    assert contents.parameters == whole.parameters
    assert contents.notes == ("model-00002-of-00002.safetensors is missing",)


def test_shards_may_be_links_as_in_the_cache(folder: Path, tmp_path: Path) -> None:
    expected = load(folder).encode(["a cat"])
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(tmp_path / "blob")
    (folder / "model-1.safetensors").symlink_to(tmp_path / "blob")
    edit(folder / "model.safetensors.index.json", weight_map=dict.fromkeys(tensors, "model-1.safetensors"))
    assert read_contents(folder).notes == ()
    assert (load(folder).encode(["a cat"]) == expected).all()


def test_a_bare_checkpoint(folder: Path, told: Callable[..., str]) -> None:
    (folder / "modules.json").unlink()
    text = told(folder)
    assert "Pooling mean, 32" in row(text, "modules")
    assert row(text, "note").endswith("says nothing about pooling: mean pooling is used")


def test_missing_parts_are_noted(folder: Path, told: Callable[..., str]) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "tokenizer.json").unlink()
    assert row(told(folder), "note") == "there are no weights there is no tokenizer"


def test_folder_with_its_card(folder: Path, tmp_path: Path, told: Callable[..., str]) -> None:
    model = load(folder)
    rows = [("a cat", "a dog", 0.5), ("the sea", "the sky", 0.25)]
    loss = losses.CosineSimilarityLoss(model)
    config = TrainingConfig(epochs=3, learning_rate=1e-3)
    Trainer(model, rows, loss=loss, config=config, show_progress_bar=False).train()
    model.save_pretrained(tmp_path / "out")
    text = told(tmp_path / "out")
    model_part, card_part = text.split("\n\nSentenceTransformer\n\n")
    assert "sentence_transformers 4.0.1, minisbert " in row(model_part, "written by")
    assert row(card_part, "trained on").startswith("2 rows column_0 string mean 4.0 tokens (4 to 4)")
    assert row(card_part, "settings").startswith("learning_rate 0.001 num_train_epochs 3 default ")
    assert card_part.endswith(told(tmp_path / "out" / "README.md").split("\n\n")[1])
    found = json.loads(told(tmp_path / "out", "--json"))
    assert found["model"]["files"]["README.md"] == (tmp_path / "out" / "README.md").stat().st_size
    assert found["card"]["hyperparameters"]["learning_rate"] == "0.001"


def test_a_card_written_by_hand_is_said_to_be_one(folder: Path, told: Callable[..., str]) -> None:
    (folder / "README.md").write_text("# A model\n\nIt is good.\n")
    assert (
        told(folder)
        .rstrip()
        .endswith("was not generated by sentence-transformers 4, 5 or 6 or minisbert: open it to read it")
    )
    assert json.loads(told(folder, "--json"))["card"] is None


def test_name_of_the_installed_model(minilm: Path, told: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(minilm / "none"))
    found = json.loads(told("all-MiniLM-L6-v2", "--json"))
    assert found["path"] == str(minilm)
    assert found["model"]["parameters"] == 22_713_216


# ---- what cannot be inspected ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nope", "nope.md", "./nope", "a/b/c", "", "/dev/null"])
def test_nothing_there(name: str, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert f"got {name!r}; expected a model card, a model folder, or the name of a model" in refused(name)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "without front matter"),
        (b"# A model\n\nIt is good.\n", "without front matter"),
        (b"---\nlicense: mit\n---\n\n# A model\n", "without the section 'Model Description'"),
        (b"\x80\x81\x82", "is not text"),
        (b"---\n\0\n---\n", "is not text"),
        (SMALL.read_bytes().replace(b"tags:\n", b"tags: [\n"), "got"),
        (SMALL.read_bytes().partition(b"|:--------|")[0] + b"\n", "got a model card without an expected table"),
    ],
)  # fmt: skip
def test_no_card(content: bytes, part: str, refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "file.md").write_bytes(content)
    line = refused(tmp_path / "file.md")
    assert str(tmp_path / "file.md") in line
    assert part in line


def test_a_card_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*: check the path"):
        read_card(tmp_path)
    with (tmp_path / "large.md").open("wb") as file:
        file.truncate(30_000_000)
    with pytest.raises(InputError, match="is not text"):
        read_card(tmp_path / "large.md")


def test_no_model_folder(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(SMALL.read_bytes())
    assert "has neither modules.json nor config.json" in refused(tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "part"),
    [
        ("config.json", b"{", "cannot be read"),
        ("config.json", b"[]", "holds a list"),
        ("modules.json", b'[{"type": "os.system"}]', "got module type 'os.system'"),
        ("1_Pooling/config.json", b"{}", "word_embedding_dimension"),
        ("sentence_bert_config.json", b'{"odd": 1}', "got key 'odd'"),
        ("tokenizer.json", b"{", "cannot be read"),
        ("model.safetensors", b"", "got no list of tensors"),
        ("model.safetensors", b"\xff" * 100, "got no list of tensors"),
        ("model.safetensors", b"\x02" + b"\0" * 7 + b"[]", "got no list of tensors"),
        ("model.safetensors", b"\x09" + b"\0" * 7 + b'{"a": {}}', "got no list of tensors"),
        ("model.safetensors", b"\x20" + b"\0" * 7 + b"{" * 32, "expected safetensors"),
        ("model.safetensors.index.json", b'{"weight_map": {"a": "../x.safetensors"}}', "expected a weight_map"),
    ],
)
def test_broken_folder(file: str, content: bytes, part: str, folder: Path, refused: Callable[..., str]) -> None:
    if file.endswith("index.json"):
        (folder / "model.safetensors").unlink()
    (folder / file).write_bytes(content)
    assert part in refused(folder)


def test_header_of_a_file_with_whole_numbers(tmp_path: Path) -> None:
    tensors = {
        "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "F16", "shape": [], "data_offsets": [24, 26]},
        "c": {"dtype": "I64", "shape": [5], "data_offsets": [26, 66]},
        "__metadata__": {"format": "pt"},
    }
    content = json.dumps(tensors).encode()
    (tmp_path / "x.safetensors").write_bytes(len(content).to_bytes(8, "little") + content)
    header = read_header(tmp_path / "x.safetensors")
    assert header.parameters == {"float32": 6, "float16": 1}
    assert header.bytes == 8 + len(content) + 66


def test_cards_with_absurd_values(tmp_path: Path, told: Callable[..., str]) -> None:
    """A number beyond floats is shown as it is."""
    text = SMALL.read_text(encoding="utf-8")
    limit = re.search(r"Length:\*\* (\S+) tokens", text)
    assert limit is not None
    text = text.replace(limit[0], f"Length:** {10**400} tokens")
    (tmp_path / "card.md").write_text(text, encoding="utf-8")
    assert str(10**400) in told(tmp_path / "card.md")


def test_parameters_too_deep_to_read() -> None:
    code = "[" * 5000 + "]" * 5000
    assert read_parameters(f"```json\n{code}\n```") == code


def test_names_too_long(refused: Callable[..., str]) -> None:
    assert "expected" in refused("x" * 5000)


@pytest.mark.parametrize(
    "shape",
    ["9" * 5000, ", ".join(["9" * 4000] * 50), ", ".join(["9"] * 50_000)],
)
def test_headers_with_absurd_sizes(tmp_path: Path, shape: str) -> None:
    content = f'{{"a": {{"dtype": "F32", "shape": [{shape}], "data_offsets": [0, 4]}}}}'.encode()
    (tmp_path / "model.safetensors").write_bytes(len(content).to_bytes(8, "little") + content)
    with pytest.raises(ModelError, match=r"expected safetensors|expected a list of tensors"):
        read_header(tmp_path / "model.safetensors")


@pytest.mark.parametrize("named", [-1, True, {"a": 1}, [], "BertModel"])
def test_architectures_of_another_kind(tiny: Callable[[str], Path], tmp_path: Path, named: Any) -> None:
    shutil.copytree(tiny("bert"), tmp_path / "model")
    edit(tmp_path / "model" / "config.json", architectures=named)
    assert read_contents(tmp_path / "model").encoder.architecture == "bert"


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "", "../a.safetensors"])
def test_shards_that_are_no_files(
    tiny: Callable[[str], Path], tmp_path: Path, refused: Callable[..., str], name: str
) -> None:
    folder = shutil.copytree(tiny("bert"), tmp_path / "model")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}), encoding="utf-8")
    assert "expected a weight_map" in refused(folder)


@pytest.mark.parametrize("path", ["x" * 5000, "a\0b"])
def test_module_paths_that_are_none(
    tiny: Callable[[str], Path], tmp_path: Path, refused: Callable[..., str], path: str
) -> None:
    folder = shutil.copytree(tiny("bert"), tmp_path / "model")
    entries = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    entries[1]["path"] = path
    (folder / "modules.json").write_text(json.dumps(entries), encoding="utf-8")
    assert "expected a folder inside the model" in refused(folder)


def test_files_far_too_large(
    tiny: Callable[[str], Path], tmp_path: Path, refused: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A card is not shown then; a configuration is refused. The files are sparse."""
    folder = Path(shutil.copytree(tiny("bert"), tmp_path / "model"))
    with (folder / "README.md").open("wb") as file:
        file.truncate(5 * 10**9)
    assert main(["inspect", str(folder)]) == 0
    capsys.readouterr()
    with (folder / "config.json").open("wb") as file:
        file.truncate(3 * 10**9)
    assert "3,000,000,000 bytes" in refused(folder)


# ---- runs and token stores ------------------------------------------------------------------------------------------


@pytest.fixture
def run_folder(folder: Path, tmp_path: Path) -> Path:
    """The folder of a run with two checkpoints and no model."""
    rows = [(f"cat {number}", f"dog {number}", number / 8) for number in range(8)]
    config = TrainingConfig(epochs=1, batch_size=2, save_every=2, log_every=2)
    model = SentenceTransformer(folder, device="cpu")
    Trainer(
        model,
        rows,
        loss=losses.CosineSimilarityLoss(),
        config=config,
        output_dir=tmp_path / "run",
        show_progress_bar=False,
    ).train()
    return tmp_path / "run"


def test_a_checkpoint(run_folder: Path, told: Callable[..., str], refused: Callable[..., str]) -> None:
    text = told(run_folder / "checkpoint-2")
    assert row(text, "checkpoint").startswith("step 2, last logged loss")
    assert "batch_size 2, learning_rate 5e-05, epochs 1, seed 42, precision fp32" in text
    assert row(text, "modules").startswith("Transformer BertModel")
    facts = json.loads(told(run_folder / "checkpoint-4", "--json"))
    assert facts["checkpoint"]["step"] == 4
    assert facts["checkpoint"]["epoch"] == 1.0
    assert facts["model"]["dimension"] == 32
    (run_folder / "checkpoint-4" / "config.json").write_text("{}")
    assert "config.json is damaged: it is not what was saved" in refused(run_folder / "checkpoint-4")
    shutil.copytree(run_folder / "checkpoint-2", run_folder / "another")
    assert "so it has been renamed; give it its old name" in refused(run_folder / "another")


def test_a_run_without_a_model(run_folder: Path, told: Callable[..., str]) -> None:
    (run_folder / "checkpoint-4" / "config.json").write_text("{}")
    text = told(run_folder)
    assert "no model yet; checkpoint-2, checkpoint-4: go on from checkpoint-2 with --resume" in text
    assert "config.json is damaged" in text
    assert json.loads(told(run_folder, "--json"))["run"]["newest"] == "checkpoint-2"


def test_token_stores(folder: Path, tmp_path: Path, told: Callable[..., str], refused: Callable[..., str]) -> None:
    (tmp_path / "pairs.tsv").write_text("first\tsecond\tscore\n" + "a cat\tthe dog ran\t0.5\n" * 12)
    cache = tmp_path / "cache"
    prompts = '{"first": "query: "}'
    assert (
        main(["tokenize", str(folder), str(tmp_path / "pairs.tsv"), "--token-store", str(cache), "--prompts", prompts])
        == 0
    )
    (store,) = cache.iterdir()
    text = told(store)
    assert "12 rows of" in row(text, "token store")
    assert "texts in first, second: " in text
    assert "labels in score: float" in text
    assert "prompt of first: 'query: '" in text
    assert store.name in told(cache)
    facts = json.loads(told(cache, "--json"))["stores"][store.name]
    assert (facts["rows"], facts["columns"], facts["complete"]) == (12, ["first", "second"], True)
    ids = (store / "ids.bin").read_bytes()
    (store / "ids.bin").write_bytes(ids[:-1])
    assert "ids.bin is missing or damaged; expected a token store" in refused(store)
    (store / "ids.bin").unlink()
    assert "ids.bin is missing or damaged; expected a token store" in refused(cache)
    (store / "ids.bin").write_bytes(ids)
    (store / "header.json").write_text((store / "header.json").read_text().replace('"rows": 12', '"rows": 13'))
    assert "header.json is missing or damaged; expected a token store" in refused(store)
    (store / "header.json").rename(store / "progress.json")
    assert "not complete: run the same command again" in told(store)
