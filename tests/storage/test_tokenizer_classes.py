"""Tokenizer classes: the tokens that each makes of what the files of a folder say, and what is refused."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from model_folders import edit, read
from places import ROOT, TRANSFORMERS
from tiny_vocabularies import byte_pairs, pieces, word_pieces
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

from minisbert.errors import ModelError
from minisbert.storage import tokenizer_classes, tokenizer_foreign
from minisbert.storage.tokenizer import TokenizerSource, read_tokenizer
from minisbert.storage.tokenizer_classes import FOREIGN, GENERIC, NATIVE, REFUSED, tokenizer_class
from minisbert.storage.tokenizer_recipes import RECIPES

CONFIG, JSON = "tokenizer_config.json", "tokenizer.json"
BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROBERTA = ["<s>", "<pad>", "</s>", "<unk>"]
TEXT = "Hello\tCAFÉ  我们"


def wordpiece(folder: Path, kind: str = "BertTokenizer", model_type: str = "bert") -> Path:
    """Write a tokenizer.json that has a vocabulary and nothing else."""
    return write(folder, Tokenizer(models.WordPiece(word_pieces(BERT), unk_token="[UNK]")), kind, model_type)


def unigram(folder: Path, kind: str = "XLMRobertaTokenizer", model_type: str = "xlm-roberta") -> Path:
    """Write a tokenizer.json as newer conversions of sentencepiece models have it."""
    tokenizer = Tokenizer(models.Unigram(pieces(ROBERTA, ["<mask>"]), unk_id=3))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Strip(left=False), normalizers.Replace(Regex(" {2,}"), "▁")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return write(folder, tokenizer, kind, model_type)


def bytes_bpe(folder: Path, kind: str = "RobertaTokenizer", model_type: str = "roberta") -> Path:
    vocabulary, merges = byte_pairs([*ROBERTA, "<mask>"], sorted(pre_tokenizers.ByteLevel.alphabet()))
    return write(folder, Tokenizer(models.BPE(vocabulary, merges)), kind, model_type)


def write(folder: Path, tokenizer: Tokenizer, kind: str, model_type: str) -> Path:
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / JSON))
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    (folder / CONFIG).write_text(json.dumps({"tokenizer_class": kind} if kind else {}))
    return folder


def source(folder: Path) -> TokenizerSource:
    return read_tokenizer(folder, config=read(folder / "config.json"))


def tokens(folder: Path, text: str = TEXT) -> list[str]:
    return source(folder).tokenizer.encode(text).tokens


def saved(folder: Path, place: Path) -> Path:
    place.mkdir()
    (place / "config.json").write_bytes((folder / "config.json").read_bytes())
    for name, content in source(folder).written_files().items():
        (place / name).write_bytes(content)
    return place


# ---- native classes -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["BertTokenizer", "BertTokenizerFast", "ElectraTokenizer", "MobileBertTokenizer", ""])
def test_bert_takes_the_vocabulary_alone(kind: str, tmp_path: Path) -> None:
    folder = wordpiece(tmp_path / "model", kind)
    assert tokens(folder) == ["[CLS]", "hello", "caf", "##e", "我", "们", "[SEP]"]
    edit(folder / CONFIG, do_lower_case=False, tokenize_chinese_chars=False)
    assert tokens(folder) == [
        *("[CLS]", "H", "##e", "##l", "##l", "##o", "C", "##A", "##F", "##É", "我", "##们", "[SEP]"),
    ]
    edit(folder / CONFIG, do_lower_case=True, strip_accents=False)
    assert tokens(folder, "CAFÉ") == ["[CLS]", "caf", "##é", "[SEP]"]
    pair = source(folder).tokenizer.encode("cat", "dog")  # type: ignore[union-attr]
    assert (pair.tokens, pair.type_ids) == (["[CLS]", "cat", "[SEP]", "dog", "[SEP]"], [0, 0, 0, 1, 1])


def test_generic_class_takes_the_file_as_it_is(tmp_path: Path) -> None:
    folder = wordpiece(tmp_path / "model", "PreTrainedTokenizerFast")
    edit(folder / CONFIG, do_lower_case=False)
    assert tokens(folder, "cat") == ["cat"]
    assert source(folder).written_files()[JSON] == (folder / JSON).read_bytes()


def test_sentencepiece_classes_split_at_every_space(tmp_path: Path) -> None:
    folder = unigram(tmp_path / "model")
    assert tokens(folder, "hello\tworld\n  the cat ") == ["<s>", "▁hello", "▁world", "▁the", "▁cat", "</s>"]
    assert tokens(folder, "①") == ["<s>", "▁", "①", "</s>"]  # the class has no NFKC if the file has no precompiled map
    edit(folder / CONFIG, add_prefix_space=False)
    assert tokens(folder, "hello  cat") == ["<s>", "hello", "cat", "</s>"]
    edit(folder / CONFIG, tokenizer_class="PreTrainedTokenizerFast")
    assert tokens(folder, "hello ①") == ["▁hello", "▁", "1"]


def test_camembert_has_tokens_that_are_not_used(tmp_path: Path) -> None:
    first = ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>"]
    tokenizer = Tokenizer(models.Unigram(pieces(first, ["<mask>"]), unk_id=0))
    folder = write(tmp_path / "model", tokenizer, "CamembertTokenizer", "camembert")
    encoding = source(folder).tokenizer.encode("cat ☃ <s>NOTUSED")
    assert encoding.tokens == ["<s>", "▁cat", "▁", "☃", "<s>NOTUSED", "</s>"]
    assert encoding.ids[3] == 3  # the unknown token is looked up by its name


def test_deberta_lower_cases_and_splits_marks_if_asked(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.Unigram(pieces(["[PAD]", "[CLS]", "[SEP]", "[UNK]"], ["[MASK]"]), unk_id=0))
    folder = write(tmp_path / "model", tokenizer, "DebertaV2Tokenizer", "deberta-v2")
    assert tokens(folder, "hello\n\ncat ") == ["[CLS]", "▁hello", "▁cat", "[SEP]"]
    edit(folder / CONFIG, do_lower_case=True, split_by_punct=True)
    assert tokens(folder, "HELLO,cat") == ["[CLS]", "▁hello", "▁", ",", "▁cat", "[SEP]"]


def test_byte_level_classes(tmp_path: Path) -> None:
    folder = bytes_bpe(tmp_path / "model")
    assert tokens(folder, "hello cat") == ["<s>", "hello", "Ġcat", "</s>"]
    edit(folder / CONFIG, add_prefix_space=True)
    assert tokens(folder, "hello cat") == ["<s>", "Ġhello", "Ġcat", "</s>"]
    assert source(folder).tokenizer.encode("cat", "dog").tokens == ["<s>", "Ġcat", "</s>", "</s>", "Ġdog", "</s>"]  # type: ignore[union-attr]
    edit(folder / CONFIG, tokenizer_class="Qwen2Tokenizer", add_prefix_space=False)
    edit(folder / "config.json", model_type="qwen3")
    assert tokens(folder, "hello cat12") == ["hello", "Ġcat", "1", "2"]


@pytest.mark.parametrize("without", [False, True])
def test_vocabulary_files_of_native_classes(without: bool, tmp_path: Path) -> None:
    """Without tokenizer.json, the tokens are the same, and the one that is saved makes them too."""
    for build in (wordpiece, bytes_bpe):
        folder = build(tmp_path / f"{build.__name__}")
        expected = tokens(folder)
        model = read(folder / JSON)["model"]
        if build is wordpiece:
            (folder / "vocab.txt").write_text("\n".join(model["vocab"]) + "\n", encoding="utf-8")
        else:
            (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
            (folder / "merges.txt").write_text("\n".join(" ".join(pair) for pair in model["merges"]))
        (folder / JSON).unlink()
        if without:
            (folder / CONFIG).unlink()
        assert tokens(folder) == expected
        copy = saved(folder, tmp_path / f"{build.__name__}, saved")
        assert Tokenizer.from_file(str(copy / JSON)).encode(TEXT).tokens == expected


# ---- added tokens ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("added_tokens.json", {"covid19": "size"}, ["covid19", "the", "covid19"]),
        (CONFIG, {"additional_special_tokens": ["covid19"]}, ["covid19", "the", "covid", "##19"]),
        (CONFIG, {"extra_special_tokens": ["COVID19"]}, ["covid", "##19", "the", "COVID19"]),
        (CONFIG, {"extra_special_tokens": {"virus_token": "COVID19"}}, ["covid", "##19", "the", "COVID19"]),
        ("special_tokens_map.json", {"mask_token": "COVID19"}, ["covid", "##19", "the", "COVID19"]),
        (
            CONFIG,
            {"added_tokens_decoder": {"900": {"content": "COVID19", "lstrip": False, "special": False}}},
            ["covid19", "the", "covid19"],  # as the normalizer makes it
        ),
    ],
)
def test_added_tokens_of_every_file(name: str, content: dict[str, Any], expected: list[str], tmp_path: Path) -> None:
    folder = wordpiece(tmp_path / "model")
    size = Tokenizer.from_file(str(folder / JSON)).get_vocab_size()
    edit(folder / name, **{key: size if value == "size" else value for key, value in content.items()})
    found = source(folder).tokenizer.encode("covid19 the COVID19")
    assert found.tokens[1:-1] == expected
    assert size in found.ids  # behind the vocabulary, whatever id the file says


def test_added_tokens_that_the_class_is_not_given_are_gone(tmp_path: Path) -> None:
    folder = wordpiece(tmp_path / "model")
    tokenizer = Tokenizer.from_file(str(folder / JSON))
    tokenizer.add_tokens([AddedToken("zz", special=True)])
    tokenizer.save(str(folder / JSON))
    assert tokens(folder, "zz")[1:-1] == ["zz"]
    edit(folder / CONFIG, added_tokens_decoder={})
    assert tokens(folder, "zz")[1:-1] == ["z", "##z"]


# ---- what is saved --------------------------------------------------------------------------------------------------
def test_saved_file_makes_the_tokens_that_were_used(tmp_path: Path) -> None:
    folder = unigram(tmp_path / "model")
    text = "hello\tworld  ①"
    with pytest.warns(UserWarning, match="a new tokenizer.json is saved"):
        copy = saved(folder, tmp_path / "saved")
    assert Tokenizer.from_file(str(copy / JSON)).encode(text).tokens == tokens(folder, text) == tokens(copy, text)
    again = saved(copy, tmp_path / "again")  # and now nothing changes
    assert (again / JSON).read_bytes() == (copy / JSON).read_bytes()


def test_equal_post_processors_keep_the_file(tmp_path: Path) -> None:
    folder = wordpiece(tmp_path / "model")
    with pytest.warns(UserWarning, match="a new tokenizer.json is saved"):
        copy = saved(folder, tmp_path / "saved")
    ends = {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}
    edit(copy / JSON, post_processor=ends)
    assert source(copy).written_files()[JSON] == (copy / JSON).read_bytes()


# ---- contradictions -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("kind", "model_type"),
    [("", "bert"), ("BertTokenizer", "bert"), ("RobertaTokenizer", "xlm-roberta"), ("GPT2Tokenizer", "xlm-roberta")],
)
def test_a_vocabulary_that_its_class_would_destroy_is_kept(kind: str, model_type: str, tmp_path: Path) -> None:
    folder = unigram(tmp_path / "model", kind, model_type)
    expected = Tokenizer.from_file(str(folder / JSON)).encode("hello world").ids
    if kind == "GPT2Tokenizer" and TRANSFORMERS < 5:
        pytest.skip("transformers 4 takes any tokenizer.json as it is")
    with pytest.warns(
        UserWarning, match=r"tokenizer_config.json asks for \w+, which has no Unigram vocabulary"
    ) as caught:
        found = source(folder)
    assert found.tokenizer.encode("hello world").ids == expected
    assert len(caught) == 1
    files = found.written_files()
    assert json.loads(files[CONFIG])["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert files[JSON] == (folder / JSON).read_bytes()


@pytest.mark.parametrize(
    ("own", "config", "expected"),
    [
        ({}, {"model_type": "bert"}, "BertTokenizer"),
        ({}, {"model_type": "xlm-roberta"}, "XLMRobertaTokenizer"),
        ({}, {"model_type": "modernbert"}, GENERIC),
        ({}, {"model_type": "unheard-of"}, GENERIC),
        ({}, {"model_type": "bert", "tokenizer_class": "BertJapaneseTokenizer"}, "BertJapaneseTokenizer"),
        ({"tokenizer_class": "XLMRobertaTokenizerFast"}, {"model_type": "bert"}, "XLMRobertaTokenizer"),
        ({"tokenizer_class": "BertTokenizer"}, {"model_type": "modernbert"}, GENERIC),  # the known wrong names
        ({"tokenizer_class": "GPT2Tokenizer"}, {"model_type": "qwen2"}, "Qwen2Tokenizer"),
        ({"tokenizer_class": "UnheardTokenizer"}, {"model_type": "bert"}, GENERIC),
        ({"tokenizer_class": "PreTrainedTokenizer"}, {"model_type": "bert"}, GENERIC),
        ({"tokenizer_class": "BertTokenizer", "auto_map": {"AutoTokenizer": ["a.B", None]}}, {}, "BertTokenizer"),
    ],
)
def test_choice_of_the_class(own: dict[str, Any], config: dict[str, Any], expected: str) -> None:
    assert tokenizer_class(own, config) == expected


def test_byte_level_llama_is_generic() -> None:
    own = {"tokenizer_class": "LlamaTokenizerFast"}
    assert tokenizer_class(own, {"model_type": "llama"}, b'{"type": "ByteLevel"}') == GENERIC
    assert tokenizer_class(own, {"model_type": "llama"}, b"{}") == "LlamaTokenizer"


def test_tables_do_not_overlap() -> None:
    assert set(NATIVE) == set(RECIPES)
    names = [*NATIVE, *FOREIGN, *REFUSED]
    assert len(set(names)) == len(names)
    types_ = [one for table in (NATIVE, FOREIGN, REFUSED) for entry in table.values() for one in entry]
    assert len(set(types_)) == len(types_)
    assert all(isinstance(entry, tuple) for table in (NATIVE, FOREIGN, REFUSED) for entry in table.values())


def test_documentation_has_every_class() -> None:
    page = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")
    for name in (*NATIVE, *FOREIGN, *REFUSED, *tokenizer_classes.ALIASES):
        assert f"`{name.removesuffix('Tokenizer')}`" in page, name


# ---- refused --------------------------------------------------------------------------------------------------------
def test_classes_without_plain_texts_are_refused(tmp_path: Path) -> None:
    folder = wordpiece(tmp_path / "model", "LayoutLMv2Tokenizer", "layoutlmv2")
    with pytest.raises(ModelError, match="has a LayoutLMv2Tokenizer; expected one that takes plain texts"):
        source(folder)


def test_code_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = wordpiece(tmp_path / "model", "OwnTokenizer", "own")
    edit(folder / CONFIG, auto_map={"AutoTokenizer": ["own.OwnTokenizer", None]})
    with pytest.raises(ModelError, match="minisbert runs no code from a model folder"):
        source(folder)


@pytest.mark.parametrize("kind", ["XLMRobertaTokenizer", "BertTokenizer", "AlbertTokenizer"])
def test_missing_vocabularies_are_named(kind: str, tmp_path: Path) -> None:
    folder = wordpiece(tmp_path / "model", kind, "bert")
    (folder / JSON).unlink()
    expected = r"has no tokenizer; expected (tokenizer.json|spiece.model)"
    if kind == "AlbertTokenizer" and TRANSFORMERS < 5:  # which raises an error, and 5 makes an empty tokenizer
        expected = r"cannot be read as AlbertTokenizer \(.*\); expected tokenizer.json, or files that transformers can"
    with pytest.raises(ModelError, match=expected):
        source(folder)


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = wordpiece(tmp_path / "model", "XLMRobertaTokenizer", "xlm-roberta")
    (folder / JSON).rename(folder / "sentencepiece.bpe.model")
    monkeypatch.setattr(tokenizer_foreign, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="pip install sentencepiece protobuf"):
        source(folder)


def test_an_old_transformers_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transformers = pytest.importorskip("transformers")
    if TRANSFORMERS < 5:
        pytest.skip("transformers 4 cannot read this tokenizer")
    folder = wordpiece(tmp_path / "model", "FunnelTokenizer", "funnel")
    monkeypatch.setattr(transformers, "__version__", "4.57.6")
    with pytest.warns(UserWarning, match=r"FunnelTokenizer of .* is built by transformers 4.57.6"):
        source(folder)


def test_native_classes_need_no_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = types.ModuleType("transformers")
    monkeypatch.setitem(sys.modules, "transformers", broken)  # any use of it fails
    build: Callable[..., Path]
    for kind, build in (
        *((name, wordpiece) for name in ("BertTokenizer", "DistilBertTokenizer", "MPNetTokenizer")),
        *((name, unigram) for name in ("XLMRobertaTokenizer", "CamembertTokenizer", "DebertaV2Tokenizer")),
        *((name, bytes_bpe) for name in ("RobertaTokenizer", "Qwen2Tokenizer", "PreTrainedTokenizerFast")),
    ):
        assert "cat" in "".join(tokens(build(tmp_path / kind, kind, "unheard-of"), "a cat"))
