"""Tokenizers that only transformers can build, and those that it has written in Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, ModelError, warn
from .files import is_file

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_FIRST_VERSION = 5  # of transformers, that builds tokenizers as 5.23 does


@dataclass(frozen=True)
class ForeignTokenizer:
    """A tokenizer that transformers made of a folder.

    Attributes:
        tokenizer: ready to encode.
        token_types: True if the encoder is given the types of tokens.
        files: the names of the files of its class that are in the folder.
        settings: what a sentencepiece model says, to be saved with a tokenizer.json, which does not.
    """

    tokenizer: Tokenizer | PythonTokenizer
    token_types: bool
    files: list[str]
    settings: dict[str, Any]


def load_with_transformers(folder: Path, kind: str, changes: Mapping[str, Any]) -> ForeignTokenizer:
    """Let transformers build a tokenizer.

    Args:
        folder: of the model.
        kind: name of its class.
        changes: settings that replace those of tokenizer_config.json.

    Raises:
        ModelError: a package or a file that the class needs is missing.
    """
    import transformers

    if int(transformers.__version__.split(".")[0]) < _FIRST_VERSION:
        warn(
            f"the {kind} of {folder} is built by transformers {transformers.__version__}, whose tokens may differ from "
            f"those of 5.23: pip install 'transformers>=5'"
        )
    missing = not (_installed("sentencepiece") and _installed("google.protobuf"))
    if missing and any(folder.glob("*.model")) and not is_file(folder / "tokenizer.json"):
        raise ModelError(
            f"the tokenizer of {folder} cannot be read without sentencepiece and protobuf, as a {kind} of a "
            f"sentencepiece model; expected tokenizer.json or the two packages: pip install sentencepiece protobuf"
        )
    loaded = transformers.AutoTokenizer.from_pretrained(
        folder, use_fast=True, local_files_only=True, trust_remote_code=False, **changes
    )
    expected = sorted({name for name in type(loaded).vocab_files_names.values() if name})
    names = [name for name in dict.fromkeys((*expected, "tokenizer.json", "tokenizer.model")) if is_file(folder / name)]
    if expected and not names:  # of which transformers makes a tokenizer without a vocabulary
        raise ModelError(f"{folder} has no tokenizer; expected {' or '.join(expected)}: copy the whole model again")
    extra = getattr(loaded, "additional_special_tokens", None) or getattr(loaded, "extra_special_tokens", None)
    extra = [str(token) for token in extra] if isinstance(extra, (list, tuple)) else []
    settings = {"additional_special_tokens": extra or None, "unk_id": loaded.init_kwargs.get("unk_id")}
    return ForeignTokenizer(
        loaded.backend_tokenizer if loaded.is_fast else PythonTokenizer(loaded),
        "token_type_ids" in loaded.model_input_names,
        names,
        {name: value for name, value in settings.items() if value is not None} if loaded.is_fast else {},
    )


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # of the package above
        return False


@dataclass(frozen=True)
class PythonEncoding:
    """The tokens of a text or a pair, with the attributes of `tokenizers.Encoding` that are used here."""

    ids: list[int]
    type_ids: list[int]
    special_tokens_mask: list[int]
    sequence_ids: list[int | None]
    tokens: list[str]


class PythonTokenizer:
    """A tokenizer of transformers that is written in Python, behind the methods of `tokenizers.Tokenizer` used here.

    Attributes:
        lower_case: True if texts are lower-cased first.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.lower_case = False

    def encode(self, sequence: str, pair: str | None = None) -> PythonEncoding:
        """Tokenize a text or a pair of texts."""
        first, second = (text.lower() if self.lower_case and text else text for text in (sequence, pair))
        result = self._tokenizer(
            first, second, return_token_type_ids=True, return_special_tokens_mask=True, return_attention_mask=False
        )
        ids, mask = list(result["input_ids"]), list(result["special_tokens_mask"])
        length = len(ids) if second is None else len(self._tokenizer(first, add_special_tokens=False)["input_ids"])
        sources: list[int | None] = []
        position = 0
        for special in mask:
            sources.append(None if special else int(position >= length))
            position += not special
        return PythonEncoding(
            ids, list(result["token_type_ids"]), mask, sources, self._tokenizer.convert_ids_to_tokens(ids)
        )

    def encode_batch_fast(self, texts: Sequence[str | tuple[str, str]]) -> list[PythonEncoding]:
        """Tokenize texts and pairs of texts.

        Raises:
            TypeError: an entry is not a text.
        """
        return [self.encode(text) if isinstance(text, str) else self.encode(*text) for text in texts]

    def no_truncation(self) -> None:
        """Do nothing: texts are not truncated."""

    def no_padding(self) -> None:
        """Do nothing: texts are not padded."""

    def get_vocab(self) -> dict[str, int]:
        """Return the number of each token, added ones included."""
        vocabulary: dict[str, int] = self._tokenizer.get_vocab()
        return vocabulary

    def get_vocab_size(self) -> int:
        """Return the number of tokens, added ones included."""
        return len(self._tokenizer)

    def add_tokens(self, tokens: Sequence[Any]) -> int:
        """Refuse to add tokens, which the files of such a tokenizer cannot hold.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            f"got {len(tokens)} token(s) to add to a {type(self._tokenizer).__name__}, which is written in Python; "
            f"expected a tokenizer with a tokenizer.json: add them with transformers, and save it"
        )

    add_special_tokens = add_tokens

    def token_to_id(self, token: str) -> int | None:
        """Return the id of a token, or None if there is no such token."""
        index: int | None = self.get_vocab().get(token)
        return index

    def id_to_token(self, index: int) -> str | None:
        """Return the token of an id."""
        token: str | None = self._tokenizer.convert_ids_to_tokens(index)
        return token
