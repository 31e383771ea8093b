"""The tokenizer of a model folder: read as the reference reads it, and written back unchanged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelError
from .dialects import unusable
from .files import is_file, open_file, read_json_object

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_JSON, _CONFIG = "tokenizer.json", "tokenizer_config.json"
# Files that transformers can make a tokenizer from.
VOCABULARIES = ("vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model")
TOKENIZER_FILES = (_JSON, _CONFIG, "special_tokens_map.json", "added_tokens.json", "merges.txt", *VOCABULARIES)

# The class of transformers for a model type, if no file names one.
_CLASSES: Mapping[str, str] = {
    "bert": "BertTokenizer",
    "distilbert": "DistilBertTokenizer",
    "mpnet": "MPNetTokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "camembert": "CamembertTokenizer",
}
# Classes whose BertNormalizer is configured by tokenizer_config.json, whatever tokenizer.json says.
_BERT_LIKE = ("BertTokenizer", "DistilBertTokenizer", "MPNetTokenizer")
# transformers 5 gives this name to fast tokenizers without a class of their own; older versions do not know it.
_NEW_GENERIC, _GENERIC = "TokenizersBackend", "PreTrainedTokenizerFast"


@dataclass(frozen=True)
class TokenizerSource:
    """A tokenizer and the files it was read from.

    Attributes:
        tokenizer: ready to encode.
        config: tokenizer_config.json, or {}, with entries replaced by those of the model's settings.
        files: name to content of every tokenizer file of the folder.
        kind: its class in transformers, without "Fast".
        truncation_side: the end at which long texts are cut, "left" or "right".
    """

    tokenizer: Tokenizer
    config: dict[str, Any]
    files: dict[str, bytes]
    kind: str
    truncation_side: str

    @property
    def max_length(self) -> int | None:
        """Tokens of the longest text that the tokenizer's configuration allows."""
        return longest_text(self.config)

    @cached_property
    def drops_lower_case(self) -> bool:
        """True if texts are lower-cased by a step that transformers 5 does not read back.

        Version 6 of the reference writes that step into tokenizer.json, but for these classes transformers 5 builds
        the normalizer again from tokenizer_config.json.
        """
        return self.kind in _CLASSES.values() and _JSON in self.files and _steps(self.tokenizer)[:1] == ["Lowercase"]

    def written_files(self) -> dict[str, bytes]:
        """Return the files to save: unchanged, except for what older versions of transformers cannot read."""
        config = dict(self.config)
        if config.get("tokenizer_class") == _NEW_GENERIC:
            config["tokenizer_class"] = _GENERIC
        if isinstance(config.get("extra_special_tokens"), list):  # the form of version 5; older ones expect an object
            extra, known = config.pop("extra_special_tokens"), config.get("additional_special_tokens")
            config["additional_special_tokens"] = [*(known if isinstance(known, list) else []), *extra]
        if config == (json.loads(self.files[_CONFIG]) if _CONFIG in self.files else {}):
            return self.files
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        return {**self.files, _CONFIG: text.encode("utf-8")}


def read_tokenizer(
    folder: Path, *, config: Mapping[str, Any], changes: Mapping[str, Any] | None = None
) -> TokenizerSource:
    """Read the tokenizer of a model.

    tokenizer.json is used if it exists; a vocab.txt alone is enough for BERT and DistilBERT; anything else is
    converted by transformers.

    Args:
        folder: of the model.
        config: content of its config.json.
        changes: entries that replace those of tokenizer_config.json.

    Raises:
        ModelError: there is no tokenizer, or it cannot be read.
    """
    from tokenizers import Tokenizer

    files = {name: _content(folder / name) for name in TOKENIZER_FILES if is_file(folder / name)}
    own = {**read_json_object(folder / _CONFIG, optional=True), **(changes or {})}
    kind = tokenizer_kind(own, config)
    try:
        if _JSON in files:
            tokenizer = Tokenizer.from_buffer(files[_JSON])
            _apply_config(tokenizer, kind, own)
        elif "vocab.txt" in files and str(config.get("model_type")) in ("bert", "distilbert"):
            tokenizer = _word_piece(folder / "vocab.txt", own)
        elif any(name in files for name in VOCABULARIES):
            tokenizer = _converted(folder, changes or {})
        else:
            raise ModelError(f"{folder} has no tokenizer; expected tokenizer.json: copy the whole model again")
    except (ModelError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the Rust library raises plain Exception or panics, and transformers many types
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"the tokenizer of {folder} cannot be read ({reason}); expected tokenizer.json, or files that transformers "
            f"can convert: copy them again, or save the tokenizer once with save_pretrained"
        ) from None
    # Of the truncation and padding saved in tokenizer.json, only the side of the truncation is used.
    side = own.get("truncation_side") or str((tokenizer.truncation or {}).get("direction", "right")).lower()
    if side not in ("left", "right"):
        raise unusable(folder / _CONFIG, "truncation_side", side, "left or right")
    return TokenizerSource(tokenizer, own, files, kind, side)


def tokenizer_kind(own: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Return the class of a tokenizer in transformers, without "Fast".

    Args:
        own: content of tokenizer_config.json, or {}.
        config: content of config.json.
    """
    default = _CLASSES.get(str(config.get("model_type")), _GENERIC)
    return str(own.get("tokenizer_class") or config.get("tokenizer_class") or default).removesuffix("Fast")


def longest_text(own: Mapping[str, Any]) -> int | None:
    """Return the most tokens that tokenizer_config.json allows, or None if it sets no limit."""
    value = own.get("model_max_length")
    return int(value) if isinstance(value, (int, float)) and 0 < value < 10**9 else None


def put_in_lower_case(tokenizer: Tokenizer) -> None:
    """Make `tokenizer` lower-case texts before anything else, as version 6 does, unless it does so already."""
    from tokenizers.normalizers import Lowercase, Sequence

    if "Lowercase" not in _steps(tokenizer):
        present = tokenizer.normalizer
        tokenizer.normalizer = Sequence([Lowercase(), *([present] if present else [])])


def _content(path: Path) -> bytes:
    try:
        with open_file(path) as file:
            return file.read()
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}); expected a file: copy it again") from None


def _steps(tokenizer: Tokenizer) -> list[str]:
    """Return the names of the steps of the normalizer."""
    normalizer: Any = tokenizer.normalizer
    state: Any = json.loads(normalizer.__getstate__()) if normalizer else {"type": "Sequence", "normalizers": []}
    return [step["type"] for step in (state["normalizers"] if state["type"] == "Sequence" else [state])]


def _apply_config(tokenizer: Tokenizer, kind: str, config: Mapping[str, Any]) -> None:
    """Set what every version of transformers takes from tokenizer_config.json, not from tokenizer.json."""
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import ByteLevel

    normalizer, pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    if kind in _BERT_LIKE and isinstance(normalizer, BertNormalizer):
        normalizer.lowercase = bool(config.get("do_lower_case", True))
        normalizer.strip_accents = config.get("strip_accents")
        normalizer.handle_chinese_chars = bool(config.get("tokenize_chinese_chars", True))
        tokenizer.normalizer = normalizer
    if kind == "RobertaTokenizer" and isinstance(pre_tokenizer, ByteLevel):
        pre_tokenizer.add_prefix_space = bool(config.get("add_prefix_space", False))
        tokenizer.pre_tokenizer = pre_tokenizer


def _word_piece(vocabulary: Path, config: Mapping[str, Any]) -> Tokenizer:
    from tokenizers.implementations import BertWordPieceTokenizer  # type: ignore[attr-defined]

    wrapper = BertWordPieceTokenizer(
        str(vocabulary),
        clean_text=True,
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
        strip_accents=config.get("strip_accents"),
        lowercase=config.get("do_lower_case", True),
    )
    return wrapper._tokenizer


def _converted(folder: Path, changes: Mapping[str, Any]) -> Tokenizer:
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(
        folder, use_fast=True, local_files_only=True, trust_remote_code=False, **changes
    )
    tokenizer: Tokenizer = loaded.backend_tokenizer
    return tokenizer
