"""The tokenizer of a model folder: read as it is, and written back as it was."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelError
from .files import read_json_object

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
)
_VOCABULARIES = ("vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model")


@dataclass(frozen=True)
class TokenizerSource:
    """A tokenizer and the files it came from.

    Attributes:
        tokenizer: ready to encode.
        config: tokenizer_config.json, or {}.
        files: name to content of every tokenizer file of the folder, to be saved again unchanged.
    """

    tokenizer: Tokenizer
    config: dict[str, Any]
    files: dict[str, bytes]

    @property
    def max_length(self) -> int | None:
        """Longest text in tokens, as the tokenizer's configuration has it."""
        value = self.config.get("model_max_length")
        return int(value) if isinstance(value, (int, float)) and 0 < value < 10**9 else None


def read_tokenizer(folder: Path, *, model_type: str) -> TokenizerSource:
    """Read the tokenizer of a model.

    tokenizer.json is taken where it stands; a vocab.txt alone is enough for BERT and DistilBERT; for anything else
    transformers converts what is there.

    Raises:
        ModelError: there is no tokenizer, or it cannot be read.
    """
    from tokenizers import Tokenizer

    files = {name: (folder / name).read_bytes() for name in TOKENIZER_FILES if (folder / name).is_file()}
    config = read_json_object(folder / "tokenizer_config.json") if "tokenizer_config.json" in files else {}
    try:
        if "tokenizer.json" in files:
            tokenizer = Tokenizer.from_buffer(files["tokenizer.json"])
        elif "vocab.txt" in files and model_type in ("bert", "distilbert"):
            tokenizer = _word_piece(folder / "vocab.txt", config)
        elif any(name in files for name in _VOCABULARIES):
            tokenizer = _converted(folder)
        else:
            raise ModelError(f"{folder} has no tokenizer; expected tokenizer.json: copy the whole model again")
    except ModelError:
        raise
    except Exception as error:  # the Rust library raises plain Exception
        raise ModelError(f"the tokenizer of {folder} cannot be read ({error}); copy its files again") from None
    return TokenizerSource(tokenizer, config, files)


def _word_piece(vocabulary: Path, config: dict[str, Any]) -> Tokenizer:
    from tokenizers.implementations import BertWordPieceTokenizer  # type: ignore[attr-defined]

    wrapped = BertWordPieceTokenizer(
        str(vocabulary),
        clean_text=True,
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
        strip_accents=config.get("strip_accents"),
        lowercase=config.get("do_lower_case", True),
    )
    return wrapped._tokenizer


def _converted(folder: Path) -> Tokenizer:
    from transformers import AutoTokenizer

    tokenizer: Tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True).backend_tokenizer
    return tokenizer
