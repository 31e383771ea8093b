"""Texts to token ids, once, without padding.

A `tokenizers.Tokenizer` does the work. Its truncation and padding are switched off when it is taken over, and it is
never configured again, so one tokenizer may serve several threads. Texts are cut to the model's length here, which
makes the number of cut texts known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError, InputTypeError

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer


@dataclass(frozen=True)
class TokenizedTexts:
    """Token ids of many texts, end to end.

    Attributes:
        ids: int32, (tokens,), special tokens included.
        lengths: int64, (texts,).
        truncated: how many texts were cut to the maximum length.
    """

    ids: NDArray[np.int32]
    lengths: NDArray[np.int64]
    truncated: int

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """Where each text starts in `ids`, and the end of the last: (texts + 1,)."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.lengths)])

    @staticmethod
    def join(parts: Sequence[TokenizedTexts]) -> TokenizedTexts:
        """Put the texts of several parts one after the other."""
        return TokenizedTexts(
            ids=np.concatenate([part.ids for part in parts]),
            lengths=np.concatenate([part.lengths for part in parts]),
            truncated=sum(part.truncated for part in parts),
        )


class TextTokenizer:
    """Turns texts into token ids, cut to `max_length` tokens with the special tokens kept."""

    def __init__(self, tokenizer: Tokenizer, *, max_length: int, truncation_side: str = "right") -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.truncation_side = truncation_side
        specials = tokenizer.encode("a").special_tokens_mask
        self._prefix, self._suffix = _leading_ones(specials), _leading_ones(specials[::-1])

    @property
    def special_tokens(self) -> int:
        """How many special tokens frame a single text."""
        return self._prefix + self._suffix

    def __call__(self, texts: Sequence[str]) -> TokenizedTexts:
        """Tokenize `texts`.

        Raises:
            InputTypeError: an entry is not a string.
            InputError: a string holds characters that are not valid Unicode.
        """
        encodings = self._encode(texts)
        ids = [encoding.ids for encoding in encodings]
        truncated = 0
        for row, row_ids in enumerate(ids):
            if len(row_ids) > self.max_length:
                ids[row] = self._cut(row_ids)
                truncated += 1
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        flat = np.fromiter(chain.from_iterable(ids), np.int32, int(lengths.sum()))
        return TokenizedTexts(flat, lengths, truncated)

    def count(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Tokens of each text before any cut, special tokens included: int64, (texts,)."""
        encodings = self._encode(texts)
        return np.fromiter((len(encoding.ids) for encoding in encodings), np.int64, len(encodings))

    def prompt_length(self, prompt: str) -> int:
        """How many leading tokens a prompt takes up: its own and the special tokens before it."""
        return int(self.count([prompt])[0]) - self._suffix

    def _encode(self, texts: Sequence[str]) -> list[Encoding]:
        batch = list(texts)
        try:
            return self.tokenizer.encode_batch_fast(batch)
        except TypeError:
            raise InputError(_invalid_unicode(batch)) from None

    def _cut(self, ids: list[int]) -> list[int]:
        room = self.max_length - self.special_tokens
        body = ids[self._prefix : len(ids) - self._suffix]
        body = body[:room] if self.truncation_side == "right" else body[-room:]
        return ids[: self._prefix] + body + ids[len(ids) - self._suffix :]


def check_texts(texts: Any, *, what: str = "texts") -> list[str]:
    """Return `texts` as a list of strings, or say which entry is not one.

    Raises:
        InputTypeError: `texts` is not a sequence, or an entry is not a string.
    """
    if isinstance(texts, (str, bytes, dict)) or not hasattr(texts, "__iter__"):
        raise InputTypeError(
            f"got {type(texts).__name__} for {what}; expected a list of strings: put a single text in a list"
        )
    result = list(texts)
    for row, text in enumerate(result):
        if not isinstance(text, str):
            shown = repr(text)[:60]
            raise InputTypeError(
                f"{what}[{row}] is {shown} of type {type(text).__name__}; expected a string: drop the entry or pass "
                f'str(value) or ""'
            )
    return result


def _leading_ones(mask: Sequence[int]) -> int:
    count = 0
    for value in mask:
        if not value:
            break
        count += 1
    return count


def _invalid_unicode(texts: Sequence[str]) -> str:
    for row, text in enumerate(texts):
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            return (
                f"texts[{row}] holds the lone surrogate {text[error.start]!r} at character {error.start}; expected "
                f"valid Unicode: read the text with its true encoding, or use text.encode(errors='replace').decode()"
            )
    return "the tokenizer refused the texts; expected a list of strings"
