"""Tokenizers of model folders: every form is read, and saved as it was unless a reader could not take it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_folders import edit, files, load, read
from tokenizers import Tokenizer

from minisbert.errors import ModelError
from minisbert.storage.tokenizer import TOKENIZER_FILES, put_in_lower_case

TEXTS = ["A cat sat on the mat", "one", "why is the sky blue and the sea not"]
CONFIG = "tokenizer_config.json"
LOWER = {"type": "Lowercase"}


@pytest.fixture
def copy(tiny: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    return lambda architecture: shutil.copytree(tiny(architecture), tmp_path / "model")


def cased(folder: Path) -> None:
    """Make the tokenizer tell upper from lower case."""
    normalizer = read(folder / "tokenizer.json")["normalizer"]
    edit(folder / "tokenizer.json", normalizer={**normalizer, "lowercase": False})
    edit(folder / CONFIG, do_lower_case=False)


def saved(model: Any, tmp_path: Path) -> Path:
    model.save_pretrained(tmp_path / "saved", create_model_card=False)
    return tmp_path / "saved"


@pytest.mark.parametrize("side", ["Right", "Left"])
@pytest.mark.parametrize("padding", [{"Fixed": 20}, "BatchLongest"])
def test_saved_cutting_and_padding_do_not_count(
    side: str, padding: Any, copy: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = copy("bert")
    plain = load(folder).encode(TEXTS)
    edit(
        folder / "tokenizer.json",
        truncation={"direction": side, "max_length": 3, "strategy": "OnlySecond", "stride": 1},
        padding={
            "strategy": padding,
            "direction": side,
            "pad_to_multiple_of": 8,
            "pad_id": 1,
            "pad_type_id": 1,
            "pad_token": "[X]",
        },
    )
    model = load(folder)
    assert np.array_equal(model.encode(TEXTS), plain)
    model.max_seq_length = 4
    ids = model.transformer.tokenizer(["one two three cat"]).ids.tolist()
    kept = ["[CLS]", "one", "two", "[SEP]"] if side == "Right" else ["[CLS]", "three", "cat", "[SEP]"]
    assert [model.tokenizer.id_to_token(i) for i in ids] == kept  # of all that, the side of the cut remains
    after = files(saved(model, tmp_path))
    assert {name: after[name] for name in TOKENIZER_FILES if name in after} == {
        name: content for name, content in files(folder).items() if name in TOKENIZER_FILES
    }


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        ({}, ["cat", "a"]),
        ({"do_lower_case": True}, ["cat", "a"]),
        ({"do_lower_case": False}, ["C", "##A", "##T", "[UNK]"]),
        ({"strip_accents": False}, ["cat", "[UNK]"]),
        ({"tokenizer_class": "BertTokenizerFast", "do_lower_case": False}, ["C", "##A", "##T", "[UNK]"]),
        ({"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": False}, ["cat", "a"]),
        ({"tokenizer_class": "TokenizersBackend", "strip_accents": False}, ["cat", "a"]),
    ],
)
def test_configuration_sets_the_normalizer_of_bert_classes(
    config: dict[str, Any], tokens: list[str], copy: Callable[[str], Path]
) -> None:
    folder = copy("bert")
    edit(folder / CONFIG, **config)
    assert load(folder).tokenizer.encode("CAT á").tokens[1:-1] == tokens
    if "Fast" in config.get("tokenizer_class", "") or "Backend" in config.get("tokenizer_class", ""):
        return
    vocabulary = read(folder / "tokenizer.json")["model"]["vocab"]
    (folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.get)))
    (folder / "tokenizer.json").unlink()
    assert load(folder).tokenizer.encode("CAT á").tokens[1:-1] == tokens


def test_class_follows_from_the_encoder(copy: Callable[[str], Path]) -> None:
    folder = copy("roberta")
    assert load(folder).tokenizer.encode("a").tokens == ["<s>", "a", "</s>"]
    edit(folder / CONFIG, add_prefix_space=True)
    assert load(folder).tokenizer.encode("a").tokens == ["<s>", "a", "</s>"]  # a generic class
    content = read(folder / CONFIG)
    del content["tokenizer_class"]
    (folder / CONFIG).write_text(json.dumps(content))
    assert load(folder).tokenizer.encode("a").tokens == ["<s>", "Ġ", "a", "</s>"]
    edit(folder / "config.json", tokenizer_class="PreTrainedTokenizerFast")
    assert load(folder).tokenizer.encode("a").tokens == ["<s>", "a", "</s>"]


@pytest.mark.filterwarnings("ignore:a new tokenizer.json is saved:UserWarning")
@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize("architecture", ["bert", "xlm-roberta"])
def test_tokenizer_json_needs_no_other_file(
    name: str, architecture: str, copy: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = copy(architecture)
    expected = load(folder).encode(TEXTS)
    (folder / CONFIG).unlink()
    if name != CONFIG:
        edit(folder / name, pad_token="[PAD]")
    model = load(folder)
    assert np.array_equal(model.encode(TEXTS), expected)
    assert sorted(set(files(saved(model, tmp_path))) & set(TOKENIZER_FILES)) == sorted(
        {"tokenizer.json", name} - {CONFIG}
    )


@pytest.mark.filterwarnings("ignore:a new tokenizer.json is saved:UserWarning")
def test_what_older_transformers_cannot_read_is_put_in_their_words(copy: Callable[[str], Path], tmp_path: Path) -> None:
    folder = copy("bert")
    edit(
        folder / CONFIG, tokenizer_class="TokenizersBackend", extra_special_tokens=["cat"], backend="tokenizers", é="é"
    )
    before = read(folder / CONFIG)
    model = load(folder)
    after = read(saved(model, tmp_path) / CONFIG)
    assert after == {
        **{key: value for key, value in before.items() if key != "extra_special_tokens"},
        "tokenizer_class": "PreTrainedTokenizerFast",
        "additional_special_tokens": ["cat"],
    }
    load(tmp_path / "saved").save_pretrained(tmp_path / "again", create_model_card=False)
    assert files(tmp_path / "again") == files(tmp_path / "saved")


# ---- lower case ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["bert", "roberta", "xlm-roberta"])
def test_lower_case_of_either_dialect(architecture: str, copy: Callable[[str], Path], tmp_path: Path) -> None:
    """As a setting (versions 4 and 5), or as a step of tokenizer.json (6): the same, and once, however often saved."""
    folder = copy(architecture)
    if architecture == "bert":
        cased(folder)
    upper, lower = load(folder).encode("THE CAT"), load(folder).encode("the cat")
    assert np.abs(upper - lower).max() > 1e-3
    edit(folder / "sentence_bert_config.json", do_lower_case=True)
    old = load(folder)
    assert np.array_equal(old.encode("THE CAT"), lower)
    normalizer = read(folder / "tokenizer.json")["normalizer"]
    edit(folder / "sentence_bert_config.json", do_lower_case=False)
    steps = [LOWER, *([normalizer] if normalizer else [])]
    edit(folder / "tokenizer.json", normalizer={"type": "Sequence", "normalizers": steps})
    new = load(folder)
    for number, model in enumerate((old, new)):
        assert np.array_equal(model.encode("THE CAT"), lower)
        first, second = tmp_path / f"{number}", tmp_path / f"{number}, again"
        model.save_pretrained(first, create_model_card=False)
        load(first).save_pretrained(second, create_model_card=False)
        assert files(first) == files(second)
        assert np.array_equal(load(second).encode("THE CAT"), lower)
        # tokenizer.json stays as it is; where transformers 5 would lose its first step, the setting says it again.
        keeps_the_step = number == 1 and architecture != "bert"
        assert read(first / "sentence_bert_config.json")["do_lower_case"] is not keeps_the_step
    assert (tmp_path / "1" / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=12))
def test_lower_case_is_that_of_the_tokenizers_library(tiny: Callable[[str], Path], text: str) -> None:
    """Letter by letter, special tokens left alone: one normalizer more and no other change, and never a second."""
    folder = tiny("xlm-roberta")
    plain, lowered = (Tokenizer.from_file(str(folder / "tokenizer.json")) for _ in range(2))
    put_in_lower_case(lowered)
    once = lowered.to_str()
    put_in_lower_case(lowered)
    assert lowered.to_str() == once
    by_letter = "".join(letter.lower() for letter in text)
    assert lowered.encode(text).ids == plain.encode(by_letter).ids
    assert lowered.encode("<mask>").ids == plain.encode("<mask>").ids


# ---- damage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "expected tokenizer.json"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer; expected tokenizer.json"),
        (lambda folder: edit(folder / CONFIG, truncation_side="both"), "got truncation_side='both'"),
        (lambda folder: (folder / CONFIG).write_text("[]"), "expected a JSON object"),
        (
            lambda folder: (folder / "tokenizer.json").rename(folder / "sentencepiece.bpe.model"),
            "tokenizer of .* cannot be read .*; expected tokenizer.json",
        ),
    ],
)
def test_damaged_tokenizers_are_named(damage: Callable[[Path], Any], message: str, copy: Callable[[str], Path]) -> None:
    folder = copy("xlm-roberta")
    damage(folder)
    with pytest.raises(ModelError, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
