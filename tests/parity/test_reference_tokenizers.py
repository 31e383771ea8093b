"""Token ids of every tokenizer class that is built here, as the reference's loader gives them."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from model_folders import edit, read
from tiny_vocabularies import TEXTS, WORDS, byte_pairs, pieces, word_pieces
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers

from minisbert.errors import ModelError
from minisbert.storage.tokenizer import TokenizerSource, read_tokenizer
from minisbert.storage.tokenizer_classes import FOREIGN, NATIVE, tokenizer_class
from minisbert.text import TextTokenizer

pytest.importorskip("sentence_transformers")
transformers = pytest.importorskip("transformers", minversion="5.0")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

CONFIG, JSON = "tokenizer_config.json", "tokenizer.json"
PAIRS = [("hello world", "the  cat"), ("Café", "<mask> 我们")]
BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
GEMMA = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
QWEN = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CAMEMBERT = ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED"]


def nothing(_: Path) -> None:
    """Leave the folder as the class saved it."""


def config(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / CONFIG, **changes)


def file(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / JSON, **changes)


def model(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / JSON, model={**read(folder / JSON)["model"], **changes})


def added(*names: str, normalized: bool = False, special: bool = True, gap: int = 0) -> Callable[[Path], None]:
    """Put tokens behind the vocabulary of tokenizer.json."""

    def change(folder: Path) -> None:
        size = Tokenizer.from_file(str(folder / JSON)).get_vocab_size()
        present = read(folder / JSON)["added_tokens"]
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": normalized, "special": special}
        new = [{"id": size + gap + number, "content": name, **flags} for number, name in enumerate(names)]
        edit(folder / JSON, added_tokens=[*present, *new])

    return change


def decoder(*names: str, reverse: bool = False, **flags: bool) -> Callable[[Path], None]:
    """List the tokens of tokenizer.json and more in tokenizer_config.json."""

    def change(folder: Path) -> None:
        size = Tokenizer.from_file(str(folder / JSON)).get_vocab_size()
        present = {str(token.pop("id")): token for token in read(folder / JSON)["added_tokens"]}
        new = {str(size + number): {"content": name, **flags} for number, name in enumerate(names)}
        entries = {**present, **new}
        edit(folder / CONFIG, added_tokens_decoder=dict(reversed(entries.items())) if reverse else entries)

    return change


def legacy_added(folder: Path) -> None:
    size = Tokenizer.from_file(str(folder / JSON)).get_vocab_size()
    (folder / "added_tokens.json").write_text(json.dumps({"covid19": size, "<e1>": size + 1}))


def without(*names: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / name).unlink() for name in names if (folder / name).exists()] and None


def both(*changes: Callable[[Path], None]) -> Callable[[Path], None]:
    return lambda folder: [change(folder) for change in changes] and None


def special_map(**tokens: Any) -> Callable[[Path], None]:
    return lambda folder: (folder / "special_tokens_map.json").write_text(json.dumps(tokens)) and None


def part(value: Any) -> Any:
    return json.loads(value.__getstate__())


COLLAPSED = part(normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]))
CHANGES: dict[str, Callable[[Path], None]] = {
    "as saved": nothing,
    "no config": without(CONFIG),
    "no class": config(tokenizer_class=None),
    **{
        f"{key}={value}": config(**{key: value})
        for key in ("do_lower_case", "strip_accents")
        for value in (True, False)
    },
    "tokenize_chinese_chars=False": config(tokenize_chinese_chars=False),
    **{f"add_prefix_space={value}": config(add_prefix_space=value) for value in (True, False)},
    "split_by_punct": config(split_by_punct=True),
    "split_special_tokens": config(split_special_tokens=True),
    **{f"legacy={value}": config(legacy=value) for value in (True, False)},
    "bos and eos": config(add_bos_token=True, add_eos_token=True),
    "other class name": config(tokenizer_class="SomethingTokenizer"),
    "generic": config(tokenizer_class="PreTrainedTokenizerFast"),
    "generic, lower case": config(tokenizer_class="TokenizersBackend", do_lower_case=True),
    "python": config(tokenizer_class="PreTrainedTokenizer"),
    "additional special": config(additional_special_tokens=["<e1>", "covid19"]),
    "extra special": config(extra_special_tokens=["<e1>", "hello"]),
    "extra named": config(extra_special_tokens={"start_token": "<e1>"}),
    "named": config(start_token="<e1>"),
    "flagged": config(
        mask_token={"__type": "AddedToken", "content": "<e1>", "lstrip": True, "rstrip": True, "normalized": False}
    ),
    "other names": config(sep_token="<e1>", cls_token="covid19", bos_token="the", eos_token="cat"),
    "other unknown": config(unk_token="the"),
    "special map": special_map(
        additional_special_tokens=["<e1>"],
        mask_token={"content": "dog", "lstrip": True, "rstrip": False, "single_word": False, "normalized": False},
    ),
    "added_tokens.json": legacy_added,
    "added, special": added("<e1>", "covid19"),
    "added, normalized": added("covid19", "<E1>", normalized=True, special=False),
    "added, with a gap": added("covid19", "<e1>", gap=7),
    "added_tokens_decoder": decoder("covid19", "<e1>", special=True),
    "added_tokens_decoder, plain": decoder("COVID19", "<e1>", special=False, normalized=True, lstrip=True),
    "added_tokens_decoder, reversed": decoder("covid19", "<e1>", reverse=True),
    "added_tokens_decoder, shorter": both(decoder(), added("covid19", "<e1>")),
    "added_tokens_decoder, other": both(decoder("<e1>", "covid19"), added("covid19", "<e1>")),
    "no normalizer": file(normalizer=None),
    "other normalizer": file(normalizer=COLLAPSED),
    "other pre-tokenizer": file(pre_tokenizer=part(pre_tokenizers.WhitespaceSplit())),
    "newer conversion": file(pre_tokenizer=part(pre_tokenizers.Metaspace())),
    "no post-processor": file(post_processor=None),
    "padding": file(
        padding={
            **{"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": 8, "pad_id": 0, "pad_type_id": 0},
            "pad_token": "hello",
        }
    ),
    "model": model(unk_token="the", max_input_chars_per_word=4, fuse_unk=True, byte_fallback=True),
    "unknown id": model(unk_id=7),
    "no tokenizer.json": without(JSON),
    "no tokenizer.json, lower case": both(without(JSON), config(do_lower_case=True, add_prefix_space=True)),
    "no tokenizer.json, added": both(legacy_added, without(JSON)),
    "no tokenizer.json, added_tokens_decoder": both(decoder("covid19", "<e1>", special=True), without(JSON)),
    "vocabulary alone": without(JSON, CONFIG),
}


def _word_piece(name: str, specials: list[str]) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        vocabulary = word_pieces(specials)
        getattr(transformers, name)(vocab=vocabulary).save_pretrained(folder)
        (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")

    return save


def _bytes(name: str, specials: list[str], **options: Any) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        vocabulary, merges = byte_pairs(specials, sorted(pre_tokenizers.ByteLevel.alphabet()))
        getattr(transformers, name)(vocab=vocabulary, merges=merges, **options).save_pretrained(folder)
        (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
        (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")

    return save


def _bytes_and_words(name: str, specials: list[str], **options: Any) -> Callable[[Path], None]:
    """Pairs of letters and "▁" for a space, and bytes for letters that are not in the vocabulary."""

    def save(folder: Path) -> None:
        bytes_ = [f"<0x{number:02X}>" for number in range(256)]
        found, pairs = byte_pairs([*specials, *bytes_], ["Ġ", *map(chr, range(33, 127))])
        vocabulary = {token.replace("Ġ", "▁"): index for token, index in found.items()}
        merges = [(first.replace("Ġ", "▁"), second) for first, second in pairs]
        getattr(transformers, name)(vocab=vocabulary, merges=merges, **options).save_pretrained(folder)

    return save


def _pieces(name: str, first: list[str], last: list[str]) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        getattr(transformers, name)(vocab=pieces(first, last)).save_pretrained(folder)

    return save


# Class and model type.
CLASSES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "BertTokenizer": ("bert", _word_piece("BertTokenizer", BERT)),
    "DistilBertTokenizer": ("distilbert", _word_piece("DistilBertTokenizer", BERT)),
    "MobileBertTokenizer": ("mobilebert", _word_piece("MobileBertTokenizer", BERT)),
    "ElectraTokenizer": ("electra", _word_piece("ElectraTokenizer", BERT)),
    "ConvBertTokenizer": ("convbert", _word_piece("ConvBertTokenizer", BERT)),
    "BertTokenizer of nomic": ("nomic_bert", _word_piece("BertTokenizer", BERT)),
    "MPNetTokenizer": ("mpnet", _word_piece("MPNetTokenizer", [*ROBERTA, "[UNK]"])),
    "RobertaTokenizer": ("roberta", _bytes("RobertaTokenizer", ROBERTA)),
    "Qwen2Tokenizer": ("qwen3", _bytes("Qwen2Tokenizer", QWEN)),
    "GemmaTokenizer": ("gemma3_text", _bytes_and_words("GemmaTokenizer", GEMMA)),
    "XLMRobertaTokenizer": ("xlm-roberta", _pieces("XLMRobertaTokenizer", ROBERTA[:4], ["<mask>"])),
    "CamembertTokenizer": ("camembert", _pieces("CamembertTokenizer", CAMEMBERT, ["<mask>"])),
    "DebertaV2Tokenizer": ("deberta-v2", _pieces("DebertaV2Tokenizer", [BERT[0], *BERT[2:4], BERT[1]], ["[MASK]"])),
    "TokenizersBackend of ModernBERT": ("modernbert", _bytes("RobertaTokenizer", ROBERTA)),
    "TokenizersBackend of another": ("llama", _bytes("Qwen2Tokenizer", QWEN)),
}


@cache
def _saved(name: str, place: Path) -> Path:
    model_type, save = {**CLASSES, **FOREIGN_CLASSES}[name]
    folder = place / name
    folder.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizers")


def theirs(folder: Path) -> Callable[[Any], tuple[list[int], list[int]]] | None:
    """Return what makes ids and types, or None if the reference cannot load the tokenizer."""
    try:
        tokenizer = transformers.AutoProcessor.from_pretrained(folder)
    except Exception:
        return None

    def encode(text: Any) -> tuple[list[int], list[int]]:
        result = tokenizer(*((text,) if isinstance(text, str) else text))
        return result["input_ids"], result.get("token_type_ids", [0] * len(result["input_ids"]))

    return encode


def ours(folder: Path) -> tuple[TokenizerSource, Callable[[Any], tuple[list[int], list[int]]]]:
    source = read_tokenizer(folder, config=read(folder / "config.json"))
    tokenizer = TextTokenizer(source.tokenizer, max_length=10_000, token_types=source.token_types)

    def encode(text: Any) -> tuple[list[int], list[int]]:
        result = tokenizer([text])
        return result.ids.tolist(), ([0] * len(result.ids) if result.types is None else result.types.tolist())

    return source, encode


def alone(folder: Path, source: TokenizerSource) -> Callable[[Any], tuple[list[int], list[int]]]:
    """Return what tokenizer.json alone makes."""
    tokenizer = Tokenizer.from_file(str(folder / JSON))
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = source.tokenizer.encode_special_tokens  # type: ignore[union-attr]

    def encode(text: Any) -> tuple[list[int], list[int]]:
        result = tokenizer.encode(*((text,) if isinstance(text, str) else text))
        return result.ids, result.type_ids if source.token_types else [0] * len(result.ids)

    return encode


def hold(folder: Path, change: str, saved: Path) -> None:
    """Hold the ids of a changed folder, and of what is saved, to those of the reference."""
    CHANGES[change](folder)
    reference = theirs(folder)
    if not any((folder / name).exists() for name in (JSON, "vocab.txt", "vocab.json")):
        with pytest.raises(
            ModelError, match="has no tokenizer|cannot be read"
        ):  # the reference makes one of five tokens
            ours(folder)
        return
    if reference is None:
        pytest.skip("the reference cannot load it")
    source, encode = ours(folder)
    for text in (*TEXTS, *PAIRS):
        assert encode(text) == reference(text), text
    saved.mkdir()
    shutil.copy(folder / "config.json", saved)
    for file_name, content in source.written_files().items():
        (saved / file_name).write_bytes(content)
    again, other, single = ours(saved)[1], theirs(saved), alone(saved, source)
    assert other is not None
    for text in (*TEXTS, *PAIRS):
        assert again(text) == encode(text)
        assert other(text) == encode(text)
        assert single(text) == encode(text)


@pytest.mark.filterwarnings("ignore:a new tokenizer.json is saved:UserWarning")
@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("change", CHANGES)
def test_ids_of_classes_that_are_built_here(name: str, change: str, place: Path, tmp_path: Path) -> None:
    hold(shutil.copytree(_saved(name, place), tmp_path / "model"), change, tmp_path / "saved")


NAMES = [None, "RobertaTokenizer", "XLMRobertaTokenizerFast", "PreTrainedTokenizerFast", "UnheardTokenizer"]


def test_the_class_is_chosen_as_the_reference_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = transformers.PreTrainedTokenizerBase
    monkeypatch.setattr(base, "from_pretrained", classmethod(lambda cls, *_, **__: cls))
    model_types = {one for table in (NATIVE, FOREIGN) for types in table.values() for one in types}
    needs_sentencepiece = {"bert-generation", "gpt-sw3", "m2m_100", "marian", "plbart", "siglip"}
    for model_type in sorted({*model_types, "llama", "unheard-of"} - needs_sentencepiece):
        for name in NAMES:
            own = {} if name is None else {"tokenizer_class": name}
            (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
            (tmp_path / CONFIG).write_text(json.dumps(own))
            found = transformers.AutoTokenizer.from_pretrained(tmp_path).__name__
            assert tokenizer_class(own, {"model_type": model_type}) == found, (model_type, name)


# ---- classes that transformers builds --------------------------------------------------------------------------------
T5 = ["<pad>", "</s>", "<unk>"]
FOREIGN_CLASSES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "AlbertTokenizer": ("albert", _pieces("AlbertTokenizer", ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"], [])),
    "BigBirdTokenizer": ("big_bird", _pieces("BigBirdTokenizer", T5, ["[CLS]", "[SEP]", "[MASK]"])),
    "BlenderbotTokenizer": ("blenderbot", _bytes("BlenderbotTokenizer", ROBERTA)),
    "CohereTokenizer": ("cohere", _bytes("CohereTokenizer", ["<PAD>", "<UNK>", "<CLS>"])),
    "DPRQuestionEncoderTokenizer": ("dpr", _word_piece("DPRQuestionEncoderTokenizer", BERT)),
    "DebertaTokenizer": ("deberta", _bytes("DebertaTokenizer", ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"])),
    "FunnelTokenizer": ("funnel", _word_piece("FunnelTokenizer", ["<pad>", "<unk>", "<cls>", "<sep>", "<mask>"])),
    "GPT2Tokenizer": ("gpt2", _bytes("GPT2Tokenizer", ["<|endoftext|>"])),
    "GPTNeoXTokenizer": ("gpt_neox", _bytes("GPTNeoXTokenizer", ["<|endoftext|>"])),
    "MBartTokenizer": ("mbart", _pieces("MBartTokenizer", ROBERTA[:4], ["<mask>"])),
    "PegasusTokenizer": ("pegasus", _pieces("PegasusTokenizer", T5, ["<mask_1>", "<mask_2>"])),
    "Qwen3_5Tokenizer": ("qwen3_5", _bytes("Qwen3_5Tokenizer", QWEN)),
    "RemBertTokenizer": ("rembert", _pieces("RemBertTokenizer", ["<pad>", "<unk>", "[CLS]", "[SEP]"], ["[MASK]"])),
    "SplinterTokenizer": ("splinter", _word_piece("SplinterTokenizer", [*BERT, "[QUESTION]"])),
    "T5Tokenizer": ("t5", _pieces("T5Tokenizer", T5, [])),
    "XGLMTokenizer": ("xglm", _pieces("XGLMTokenizer", ROBERTA[:4], [])),
    "XLNetTokenizer": (
        "xlnet",
        _pieces("XLNetTokenizer", ["<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>"], ["<mask>"]),
    ),
}


def _python(name: str, vocabulary: dict[str, str]) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        for file_name, content in vocabulary.items():
            (folder / file_name).write_text(content, encoding="utf-8")
        edit(folder / CONFIG, tokenizer_class=name, model_max_length=256)

    return save


_PHOBERT = {
    "vocab.txt": "".join(
        f"{word} {100 - rank}\n" for rank, word in enumerate(["hello", "the", "cat", "a@@", "b", "h@@"])
    ),
    "bpe.codes": "#version: 0.2\nh e 100\nhe l 90\nt h 80\nth e</w> 70\n",
}
_CHARACTERS = "\n".join([*BERT, *"東京都に住んでいる私は猫が好きです。雨降る", *"hello worldthecat"])
PYTHON_CLASSES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "PhobertTokenizer": ("roberta", _python("PhobertTokenizer", _PHOBERT)),
    "BertweetTokenizer": ("roberta", _python("BertweetTokenizer", _PHOBERT)),
    "CanineTokenizer": ("canine", _python("CanineTokenizer", {})),
    "ByT5Tokenizer": ("t5", _python("ByT5Tokenizer", {})),
    "EsmTokenizer": ("esm", _python("EsmTokenizer", {"vocab.txt": "<cls>\n<pad>\n<eos>\n<unk>\nA\nL\nG\n<mask>"})),
    "BertJapaneseTokenizer": ("bert", _python("BertJapaneseTokenizer", {"vocab.txt": _CHARACTERS})),
}


@pytest.mark.filterwarnings("ignore:a new tokenizer.json is saved:UserWarning")
@pytest.mark.parametrize("change", ["as saved", "no class", "added, special", "extra special", "no tokenizer.json"])
@pytest.mark.parametrize("name", FOREIGN_CLASSES)
def test_ids_of_classes_that_transformers_builds(name: str, change: str, place: Path, tmp_path: Path) -> None:
    hold(shutil.copytree(_saved(name, place), tmp_path / "model"), change, tmp_path / "saved")


@pytest.mark.parametrize("name", PYTHON_CLASSES)
def test_ids_of_classes_written_in_python(name: str, tmp_path: Path) -> None:
    model_type, save = PYTHON_CLASSES[name]
    folder, saved = tmp_path / "model", tmp_path / "saved"
    folder.mkdir()
    save(folder)
    if name == "BertJapaneseTokenizer":  # the other ways of splitting words need packages
        edit(folder / CONFIG, word_tokenizer_type="basic", subword_tokenizer_type="character", do_lower_case=False)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    source, encode = ours(folder)
    reference = theirs(folder)
    assert reference is not None
    for text in (*TEXTS, *PAIRS):
        assert encode(text) == reference(text), text
    saved.mkdir()
    shutil.copy(folder / "config.json", saved)
    for file_name, content in source.written_files().items():
        (saved / file_name).write_bytes(content)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }


# Class: model type, name of the file, and the options that sentencepiece is trained with.
_UNIGRAM = {"model_type": "unigram", "vocab_size": 150}
_BPE = {"model_type": "bpe", "vocab_size": 400, "byte_fallback": True}
SENTENCEPIECE_CLASSES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "XLMRobertaTokenizer": ("xlm-roberta", "sentencepiece.bpe.model", _UNIGRAM),
    "CamembertTokenizer": ("camembert", "sentencepiece.bpe.model", _UNIGRAM),
    "DebertaV2Tokenizer": ("deberta-v2", "spm.model", {**_UNIGRAM, "control_symbols": ["[CLS]", "[SEP]", "[PAD]"]}),
    "AlbertTokenizer": ("albert", "spiece.model", {**_UNIGRAM, "control_symbols": ["[CLS]", "[SEP]", "<pad>"]}),
    "T5Tokenizer": ("t5", "spiece.model", _UNIGRAM),
    "XLNetTokenizer": ("xlnet", "spiece.model", _UNIGRAM),
    "LlamaTokenizer": ("llama", "tokenizer.model", _BPE),
    "GemmaTokenizer": ("gemma", "tokenizer.model", _BPE),
    "PreTrainedTokenizerFast": ("mistral", "tokenizer.model", _BPE),
}


@pytest.mark.parametrize("change", ["as saved", "no config", "legacy=False", "extra special"])
@pytest.mark.parametrize("name", SENTENCEPIECE_CLASSES)
def test_ids_of_sentencepiece_models(name: str, change: str, tmp_path: Path) -> None:
    """Of folders without a tokenizer.json, which is then saved."""
    sentencepiece = pytest.importorskip("sentencepiece")
    pytest.importorskip("google.protobuf")
    model_type, file_name, options = SENTENCEPIECE_CLASSES[name]
    folder = tmp_path / "model"
    folder.mkdir()
    with (folder / file_name).open("wb") as writer:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([*TEXTS, *(f"{one} {two}" for one in WORDS for two in WORDS)]),
            model_writer=writer,
            minloglevel=2,
            hard_vocab_limit=False,
            **options,
        )
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    edit(folder / CONFIG, tokenizer_class=name)
    CHANGES[change](folder)
    reference = theirs(folder)
    assert reference is not None
    source, encode = ours(folder)
    saved = tmp_path / "saved"
    saved.mkdir()
    shutil.copy(folder / "config.json", saved)
    for saved_name, content in source.written_files().items():
        (saved / saved_name).write_bytes(content)
    for other in (reference, ours(saved)[1], theirs(saved), alone(saved, source)):
        assert other is not None
        for text in (*TEXTS, *PAIRS):
            assert encode(text) == other(text), text
