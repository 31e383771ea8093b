"""Build tokenizers as the classes of transformers 5.23 do, without transformers.

A class keeps the vocabulary of tokenizer.json, and takes normalizer, pre-tokenizer, post-processor, the settings of the
model and the added tokens from tokenizer_config.json and its own defaults. The generic class keeps all of the file
and adds tokens. What a tokenizer already has is changed in place: loading a vocabulary twice would take twice as long.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer

_SIMPLE_VALUE = re.compile(rb"\s*:\s*(\w+)")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
Settings: TypeAlias = Mapping[str, Any]
# Makes the normalizer and the pre-tokenizer from the settings and those of the file.
Parts: TypeAlias = "Callable[[Settings, Any], tuple[Any, Any]]"

_SPACE = "▁"
_QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


# ---- normalizers and pre-tokenizers ---------------------------------------------------------------------------------
def _basic_words(settings: Settings, _: Any) -> tuple[Any, Any]:
    from tokenizers import normalizers, pre_tokenizers

    normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=bool(settings.get("tokenize_chinese_chars", True)),
        strip_accents=settings.get("strip_accents"),
        lowercase=bool(settings.get("do_lower_case", True)),
    )
    return normalizer, pre_tokenizers.BertPreTokenizer()


def _bytes(settings: Settings, _: Any) -> tuple[Any, Any]:
    from tokenizers import pre_tokenizers

    return None, pre_tokenizers.ByteLevel(add_prefix_space=bool(settings.get("add_prefix_space", False)))


def _bytes_of_qwen(settings: Settings, _: Any) -> tuple[Any, Any]:
    from tokenizers import Regex, normalizers, pre_tokenizers

    words = pre_tokenizers.Split(Regex(_QWEN_WORDS), behavior="isolated", invert=False)
    prefix = bool(settings.get("add_prefix_space") or False)
    letters = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=False)
    return normalizers.NFC(), pre_tokenizers.Sequence([words, letters])


def _pieces(settings: Settings, normalizer: Any) -> tuple[Any, Any]:
    from tokenizers import normalizers, pre_tokenizers

    precompiled = next((step for step in steps(normalizer) if step["type"] == "Precompiled"), None)
    scheme = "always" if settings.get("add_prefix_space", True) else "never"
    return (
        normalizers.Precompiled(base64.b64decode(precompiled["precompiled_charsmap"])) if precompiled else None,
        pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(_SPACE, prepend_scheme=scheme)]
        ),
    )


def _pieces_of_deberta(settings: Settings, _: Any) -> tuple[Any, Any]:
    from tokenizers import Regex, normalizers, pre_tokenizers

    lower = [normalizers.Lowercase()] if settings.get("do_lower_case") else []
    spaces = normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " ")
    normalizer = normalizers.Sequence([*lower, spaces, normalizers.NFC(), normalizers.Strip(left=False, right=True)])
    scheme = "always" if settings.get("add_prefix_space", True) else "first"
    marks = [pre_tokenizers.Punctuation(behavior="isolated")] if settings.get("split_by_punct") else []
    return normalizer, pre_tokenizers.Sequence([*marks, pre_tokenizers.Metaspace(_SPACE, prepend_scheme=scheme)])


def _pieces_of_gemma(settings: Settings, _: Any) -> tuple[Any, Any]:
    from tokenizers import normalizers, pre_tokenizers

    # No space is left to split at, so a text is one word.
    return normalizers.Replace(" ", _SPACE), pre_tokenizers.Split(" ", behavior="merged_with_previous", invert=False)


def steps(normalizer: Any) -> list[dict[str, Any]]:
    """Return the steps of a normalizer, as tokenizer.json has them."""
    state: Any = json.loads(normalizer.__getstate__()) if normalizer else {"type": "Sequence", "normalizers": []}
    found: list[dict[str, Any]] = state["normalizers"] if state["type"] == "Sequence" else [state]
    return found


# ---- the table ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Recipe:
    """The way in which a class builds its tokenizer.

    Attributes:
        model: the class of the vocabulary in `tokenizers`; None if any will do.
        parts: makes normalizer and pre-tokenizer; None if those of the file stay.
        specials: its special tokens, where no file names others.
        ends: the special tokens before and after a text; None if the post-processor of the file stays.
        doubled: True if the last token stands twice between the texts of a pair, and all their types are 0.
        token_types: True if the types of tokens are given to the encoder.
        fresh: False if normalizer, pre-tokenizer and added tokens of the file stay.
    """

    model: str | None = None
    parts: Parts | None = None
    specials: Settings = field(default_factory=dict)
    ends: tuple[str, str] | None = ("cls_token", "sep_token")
    doubled: bool = False
    token_types: bool = False
    fresh: bool = True


_BERT = {name: f"[{name[:-6].upper()}]" for name in ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token")}
_ROBERTA = {
    **{"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>"},
    **{"unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"},
}
_GEMMA = {f"{name}_token": f"<{name}>" for name in ("bos", "eos", "unk", "pad", "mask")}
_QWEN = dict.fromkeys(("unk_token", "eos_token", "pad_token"), "<|endoftext|>")

RECIPES: Mapping[str, Recipe] = {
    "TokenizersBackend": Recipe(ends=None, fresh=False),
    "BertTokenizer": Recipe("WordPiece", _basic_words, _BERT, token_types=True),
    "DistilBertTokenizer": Recipe("WordPiece", _basic_words, _BERT),
    "ConvBertTokenizer": Recipe("WordPiece", _basic_words, _BERT, token_types=True, fresh=False),
    "MPNetTokenizer": Recipe("WordPiece", _basic_words, {**_ROBERTA, "unk_token": "[UNK]"}, doubled=True),
    "RobertaTokenizer": Recipe("BPE", _bytes, _ROBERTA, doubled=True),
    "XLMRobertaTokenizer": Recipe("Unigram", _pieces, _ROBERTA, ends=("bos_token", "eos_token"), doubled=True),
    "CamembertTokenizer": Recipe("Unigram", _pieces, _ROBERTA, ends=("bos_token", "eos_token"), doubled=True),
    "DebertaV2Tokenizer": Recipe(
        "Unigram",
        _pieces_of_deberta,
        {"bos_token": "[CLS]", "eos_token": "[SEP]", **_BERT},
        token_types=True,
    ),
    "Qwen2Tokenizer": Recipe("BPE", _bytes_of_qwen, _QWEN, ends=None),
    "GemmaTokenizer": Recipe("BPE", _pieces_of_gemma, _GEMMA, ends=None),
}
# True if the mask is a special token before it is added.
_MASK_TAKES_SPACE: Mapping[str, bool] = {"MPNetTokenizer": False, "CamembertTokenizer": True}
_EXTRA_OF_CAMEMBERT = ("<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED")
# What the classes give to the constructors of `tokenizers`, beside the vocabulary.
_MODEL_SETTINGS: Mapping[str, Settings] = {
    "WordPiece": {"continuing_subword_prefix": "##", "max_input_chars_per_word": 100},
    "BPE": {
        **{"dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None},
        **{"fuse_unk": False, "byte_fallback": False, "ignore_merges": False},
    },
    "Unigram": {},
}


# ---- what the files say ----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class TokenSettings:
    """The settings of a class in tokenizer_config.json, special_tokens_map.json, added_tokens.json and tokenizer.json.

    Attributes:
        settings: the arguments of the class.
        added: tokens to add, by id in ascending order.
        more_named: special tokens under names that are not among `NAMED_TOKENS`.
        extra: special tokens without a name, or None.
    """

    settings: Settings
    added: Mapping[int, AddedToken]
    more_named: Mapping[str, Any]
    extra: Sequence[Any] | None


def read_token_settings(
    own: Settings, others: Mapping[str, Settings], in_file: Mapping[int, AddedToken] | None
) -> TokenSettings:
    """Put the settings of the files together.

    Args:
        own: content of tokenizer_config.json.
        others: content of special_tokens_map.json and added_tokens.json, which count where that has no
            `added_tokens_decoder`, by name.
        in_file: the added tokens of tokenizer.json, or None if there is no such file.
    """
    settings = {name: _token(value) for name, value in own.items() if name != "added_tokens_decoder"}
    if in_file is not None:
        settings = {name: value for name, value in settings.items() if name not in ("add_bos_token", "add_eos_token")}
    if not settings.get("extra_special_tokens") and "additional_special_tokens" in settings:
        settings["extra_special_tokens"] = settings.pop("additional_special_tokens")
    added: dict[int, Any] = {}
    if "added_tokens_decoder" in own:
        added = {int(index): _token(token, plain=True) for index, token in own["added_tokens_decoder"].items()}
    else:
        for name, value in others.get("special_tokens_map.json", {}).items():
            tokens = _token(value, plain=True, special=True)
            if name == "extra_special_tokens" and isinstance(tokens, list):
                known = settings.get(name) or []
                tokens = [*known, *(token for token in tokens if token not in known)]
            settings[name] = tokens
        extra = settings.get("extra_special_tokens") or ()
        special = {str(settings[name]) for name in NAMED_TOKENS if settings.get(name)} | {str(token) for token in extra}
        for token, index in others.get("added_tokens.json", {}).items():
            added[int(index)] = _token({"content": token, "special": token in special}, plain=True)
        added.update(in_file or {})
    by_content = {token.content: token for token in added.values()}
    more = settings.pop("model_specific_special_tokens", None) or {}
    extra = settings.get("extra_special_tokens", settings.get("additional_special_tokens"))
    if isinstance(extra, Mapping):
        more, extra = {**more, **extra}, None
    others_named = {
        name: value
        for name, value in settings.items()
        if name.endswith("_token") and name not in NAMED_TOKENS and not isinstance(value, (bool, type(None)))
    }
    for name in NAMED_TOKENS:
        if settings.get(name) is not None:
            settings[name] = by_content.get(str(settings[name]), settings[name])
    return TokenSettings(settings, dict(sorted(added.items())), {**others_named, **more}, extra)


def _token(value: Any, *, plain: bool = False, special: bool = False) -> Any:
    """Return a JSON value with the tokens in it in the form of `tokenizers`.

    An object stands for a token if it says so with `__type`, or anywhere if `plain`; all are special if `special`.
    """
    from tokenizers import AddedToken

    if isinstance(value, list):
        return [_token(item, plain=plain, special=special) for item in value]
    if not isinstance(value, dict) or not (plain or value.get("__type") == "AddedToken"):
        return value
    flags = {name: bool(value[name]) for name in _FLAGS if value.get(name) is not None}
    return AddedToken(value["content"], **{**flags, **({"special": True} if special else {})})


# ---- building -------------------------------------------------------------------------------------------------------
def build(kind: str, tokens: TokenSettings, tokenizer: Tokenizer, content: bytes) -> Tokenizer:
    """Return the tokenizer that a class makes.

    Args:
        kind: a key of `RECIPES`.
        tokens: settings and added tokens of the files.
        tokenizer: of the file, or with a vocabulary alone; without truncation and padding.
        content: of tokenizer.json, or empty.
    """
    recipe, settings = RECIPES[kind], tokens.settings
    specials = {**recipe.specials, **{name: settings[name] for name in NAMED_TOKENS if settings.get(name) is not None}}
    anew = recipe.parts is not None and (recipe.fresh or not content)
    if anew:
        tokenizer = _with_model_settings(kind, tokens, str(specials["unk_token"]), tokenizer, content)
    if recipe.parts and anew:
        tokenizer.normalizer, tokenizer.pre_tokenizer = recipe.parts(settings, tokenizer.normalizer)
    _add_tokens(kind, specials, tokens, tokenizer, known={} if anew else tokenizer.get_added_tokens_decoder())
    _set_ends(recipe, specials, settings, tokenizer)
    tokenizer.encode_special_tokens = bool(settings.get("split_special_tokens", False))
    return tokenizer


def _with_model_settings(
    kind: str, tokens: TokenSettings, unknown: str, tokenizer: Tokenizer, content: bytes
) -> Tokenizer:
    """Set what the class sets on its model, and take away the added tokens of the file that it does not get."""
    model: Any = tokenizer.model
    algorithm = str(RECIPES[kind].model)
    changes: dict[str, Any] = {}
    if algorithm == "Unigram":
        index = _unknown_id(kind, tokens.settings, unknown, model, content)
        if (_value("unk_id", content), _value("byte_fallback", content) or False) != (index, False):
            changes = {"unk_id": index, "byte_fallback": False}
    if content and (changes or not _same_new_tokens(tokenizer, tokens.added)):
        document = json.loads(content)
        document["added_tokens"] = []
        document["model"].update(changes)
        tokenizer = type(tokenizer).from_str(json.dumps(document))
        model = tokenizer.model
    wanted = {**_MODEL_SETTINGS[algorithm]}
    if algorithm == "WordPiece" or kind == "GemmaTokenizer":
        wanted["unk_token"] = unknown
    if kind == "GemmaTokenizer":
        wanted |= {"fuse_unk": True, "byte_fallback": True}
    for name, value in wanted.items():
        if hasattr(model, name) and (getattr(model, name) or None) != (value or None):
            setattr(model, name, value)
    return tokenizer


def _unknown_id(kind: str, settings: Settings, unknown: str, model: Any, content: bytes) -> int:
    """Return the id of the unknown token that a class sets in a Unigram vocabulary."""
    if kind == "XLMRobertaTokenizer":
        return 3
    index: int | None = model.token_to_id(unknown)
    if kind == "CamembertTokenizer":
        return index or 0
    # DeBERTa's has a score of zero; the file is looked into only if it names another.
    if index is None or (index != _value("unk_id", content) and json.loads(content)["model"]["vocab"][index][1] != 0):
        return int(settings.get("unk_id", 1))
    return index


def _value(key: str, content: bytes) -> Any:
    """Return a number or a truth value of tokenizer.json, which may be large, or None."""
    name = f'"{key}"'.encode()
    start = content.find(name)
    while start > 0 and content[start - 1 : start] == b"\\":  # in a string, where a quote has a backslash
        start = content.find(name, start + 1)
    match = _SIMPLE_VALUE.match(content, start + len(name)) if start >= 0 else None
    return json.loads(match[1]) if match else None


def _same_new_tokens(tokenizer: Tokenizer, added: Mapping[int, AddedToken]) -> bool:
    """Return True if adding tokens to the vocabulary alone would give those of the file the ids that they have."""
    model: Any = tokenizer.model
    present = {index: token.content for index, token in sorted(tokenizer.get_added_tokens_decoder().items())}
    wanted = [token.content for token in added.values()]
    new = {index: token for index, token in present.items() if model.token_to_id(token) is None}
    size = tokenizer.get_vocab_size(with_added_tokens=False)
    return (
        set(present.values()) <= set(wanted)
        and list(new) == list(range(size, size + len(new)))
        and list(new.values()) == [token for token in wanted if model.token_to_id(token) is None][: len(new)]
    )


def _add_tokens(
    kind: str,
    specials: Mapping[str, Any],
    tokens: TokenSettings,
    tokenizer: Tokenizer,
    *,
    known: Mapping[int, AddedToken],
) -> None:
    """Add the tokens of the files in the order of their ids, then the special tokens that are not among them."""
    from tokenizers import AddedToken

    named, extra = {**specials, **tokens.more_named}, tokens.extra
    if kind == "CamembertTokenizer" and extra is None:
        extra = _EXTRA_OF_CAMEMBERT
    if kind in _MASK_TAKES_SPACE and isinstance(named["mask_token"], str):
        named["mask_token"] = AddedToken(named["mask_token"], lstrip=True, special=_MASK_TAKES_SPACE[kind])
    special = [named[name] for name in (*NAMED_TOKENS, *tokens.more_named) if name in named] + list(extra or ())
    result: list[Any] = list(tokens.added.values())
    present = {token.content for token in (*known.values(), *result)}
    for token in special:
        if str(token) not in present and token not in result:
            result.append(token)
    names = {str(token) for token in named.values()}
    for index, token in enumerate(result):
        if isinstance(token, str):
            result[index] = AddedToken(token, special=True)
        elif str(token) in names:
            token.special = True
    tokenizer.add_tokens(result)
    if kind == "Qwen2Tokenizer":
        tokenizer.add_tokens([AddedToken(str(token), special=True) for token in special])


def _set_ends(recipe: Recipe, specials: Mapping[str, Any], settings: Settings, tokenizer: Tokenizer) -> None:
    """Set the post-processor, unless that of the file stays or has the same effect."""
    from tokenizers.processors import TemplateProcessing

    present = tokenizer.post_processor
    if recipe.ends is not None:
        first, last = (str(specials[name]) for name in recipe.ends)
    elif present is None:
        first, last = (
            str(specials.get(f"{name}_token") or "") if settings.get(f"add_{name}_token") else ""
            for name in ("bos", "eos")
        )
    else:
        return
    before = applied_ends(tokenizer)
    single = [f"{first}:0", "$A:0", f"{last}:0"]
    if recipe.doubled:
        second = [f"{last}:0", "$B:0", f"{last}:0"]
    else:
        second = [f"{first if recipe.ends is None else ''}:1", "$B:1", f"{last}:1"]
    tokenizer.post_processor = TemplateProcessing(
        single=[piece for piece in single if piece[0] != ":"],
        pair=[piece for piece in single + second if piece[0] != ":"],
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in {first, last} if token],
    )
    types_count = recipe.token_types or "token_type_ids" in (settings.get("model_input_names") or ())
    after = applied_ends(tokenizer)
    if after == before or (not types_count and [ids for ids, _ in after] == [ids for ids, _ in before]):
        tokenizer.post_processor = present


def applied_ends(tokenizer: Tokenizer) -> list[tuple[list[int], list[int]]]:
    """Return the ids and types that the post-processor makes of a text and of a pair."""
    letter = tokenizer.encode("a", add_special_tokens=False)
    results = (tokenizer.post_process(letter), tokenizer.post_process(letter, letter))
    return [(result.ids, result.type_ids) for result in results]
