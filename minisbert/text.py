"""Texts and pairs of texts to token ids, once, without padding.

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

from .errors import InputError, InputTypeError, ModelError
from .inputs import Text

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer


@dataclass(frozen=True)
class TokenizedTexts:
    """Token ids of many texts, end to end.

    Attributes:
        ids: int32, (tokens,), special tokens included.
        lengths: int64, (texts,).
        truncated: how many texts were cut to the maximum length.
        types: int32, (tokens,): which text of a pair a token belongs to; None if every token is of type 0.
    """

    ids: NDArray[np.int32]
    lengths: NDArray[np.int64]
    truncated: int
    types: NDArray[np.int32] | None = None

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """Where each text starts in `ids`, and the end of the last: (texts + 1,)."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.lengths)])

    @staticmethod
    def join(parts: Sequence[TokenizedTexts]) -> TokenizedTexts:
        """Put the texts of several parts one after the other."""
        types = None
        if any(part.types is not None for part in parts):
            types = np.concatenate([np.zeros_like(part.ids) if part.types is None else part.types for part in parts])
        return TokenizedTexts(
            ids=np.concatenate([part.ids for part in parts]),
            lengths=np.concatenate([part.lengths for part in parts]),
            truncated=sum(part.truncated for part in parts),
            types=types,
        )


class TextTokenizer:
    """Turns texts into token ids, cut to `max_length` tokens with the special tokens kept.

    Attributes:
        token_types: whether the model tells the two texts of a pair apart by the types of their tokens.
        vocabulary: how many tokens the model has embeddings for, or None where that is not known.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        max_length: int,
        truncation_side: str = "right",
        token_types: bool = False,
        vocabulary: int | None = None,
    ) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.truncation_side = truncation_side
        self.token_types = token_types
        self.vocabulary = vocabulary
        (example,) = self._encode(["a"], 0)
        specials = example.special_tokens_mask
        self._prefix, self._suffix = _leading_ones(specials), _leading_ones(specials[::-1])
        self._single_texts_have_types = token_types and any(example.type_ids)

    @property
    def special_tokens(self) -> int:
        """How many special tokens frame a single text."""
        return self._prefix + self._suffix

    def __call__(self, texts: Sequence[Text], *, first: int = 0) -> TokenizedTexts:
        """Tokenize `texts`.

        Args:
            texts: strings and pairs.
            first: number of the first text, for messages.

        Raises:
            InputTypeError: an entry is not a string.
            InputError: a string holds characters that are not valid Unicode, or the maximum length is too small for
                a pair.
            ModelError: the tokenizer fails, or gives tokens that the model has not.
        """
        encodings = self._encode(texts, first)
        ids = [encoding.ids for encoding in encodings]
        pairs = {row for row, text in enumerate(texts) if not isinstance(text, str)}
        with_types = self.token_types and (bool(pairs) or self._single_texts_have_types)
        types = [encoding.type_ids for encoding in encodings] if with_types else []
        truncated = 0
        for row, row_ids in enumerate(ids):
            if len(row_ids) > self.max_length:
                kept = self._kept_of_pair(encodings[row]) if row in pairs else self._kept(len(row_ids))
                ids[row] = [row_ids[place] for place in kept]
                if with_types:
                    types[row] = [types[row][place] for place in kept]
                truncated += 1
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        tokens = int(lengths.sum())
        return TokenizedTexts(
            _numbers(ids, tokens, below=self.vocabulary),
            lengths,
            truncated,
            _numbers(types, tokens, below=2) if with_types else None,
        )

    def count(self, texts: Sequence[Text]) -> NDArray[np.int64]:
        """Tokens of each text before any cut, special tokens included: int64, (texts,)."""
        encodings = self._encode(texts, 0)
        return np.fromiter((len(encoding.ids) for encoding in encodings), np.int64, len(encodings))

    def prompt_length(self, prompt: str) -> int:
        """How many leading tokens a prompt takes up: its own and the special tokens before it."""
        return int(self.count([prompt])[0]) - self._suffix

    def _encode(self, texts: Sequence[Text], first: int) -> list[Encoding]:
        batch = list(texts)
        try:
            return self.tokenizer.encode_batch_fast(batch)
        except TypeError:
            raise InputError(_invalid_unicode(batch, first)) from None
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # the Rust library raises plain Exception, and panics are not even that
            reason = str(error).strip().split("\n")[0]
            raise ModelError(
                f"the model's tokenizer failed on texts ({reason}); expected it to take any: mend its tokenizer.json"
            ) from None

    def _kept(self, length: int) -> list[int]:
        """Places of the tokens of a single text that stay."""
        room, end = self.max_length - self.special_tokens, length - self._suffix
        body = range(self._prefix, end)
        return [*range(self._prefix), *_side(body, room, self.truncation_side), *range(end, length)]

    def _kept_of_pair(self, encoding: Encoding) -> list[int]:
        """Places of the tokens of a pair that stay: the longer text is cut first, then both to about a half."""
        sources = encoding.sequence_ids
        bodies = [[place for place, source in enumerate(sources) if source == number] for number in (0, 1)]
        specials = {place for place, source in enumerate(sources) if source is None}
        room = self.max_length - len(specials)
        if room < 0:
            raise InputError(
                f"got a pair of texts and max_seq_length={self.max_length}; expected at least {len(specials)}, for the "
                f"special tokens of a pair: raise max_seq_length"
            )
        short, long = sorted(map(len, bodies))
        if 2 * short > room:
            short, long = room // 2, room - room // 2
        else:
            long = room - short
        sizes = (short, long) if len(bodies[0]) <= len(bodies[1]) else (long, short)
        for body, size in zip(bodies, sizes, strict=True):
            specials.update(_side(body, size, self.truncation_side))
        return sorted(specials)


def check_texts(texts: Any, *, what: str = "texts") -> list[str]:
    """Return `texts` as a list of strings, or say which entry is not one.

    Raises:
        InputTypeError: `texts` is not a sequence, or an entry is not a string.
    """
    if isinstance(texts, (str, bytes, dict)) or not hasattr(texts, "__iter__"):
        raise InputTypeError(
            f"got {type(texts).__name__} for {what}; expected a list of strings: put a single text in a list"
        )
    if getattr(texts, "ndim", 1) != 1:
        raise InputTypeError(f"got {what} in {texts.ndim} dimensions; expected a list of strings: pass one")
    result = list(texts)
    for row, text in enumerate(result):
        if not isinstance(text, str):
            shown = repr(text)[:60]
            raise InputTypeError(
                f"{what}[{row}] is {shown} of type {type(text).__name__}; expected a string: drop the entry or pass "
                f'str(value) or ""'
            )
    return result


def _numbers(rows: Sequence[Sequence[int]], count: int, *, below: int | None) -> NDArray[np.int32]:
    """All numbers of `rows`, of which there are `count`, end to end."""
    most = min(2**31, 2**31 if below is None else below) - 1
    numbers = np.fromiter(chain.from_iterable(rows), np.int64, count)
    if count and int(numbers.max()) > most:
        raise ModelError(
            f"the model's tokenizer gave the token or type {int(numbers.max())}; its encoder has 0 to {most}: expected "
            f"a tokenizer.json and weights that belong together"
        )
    return numbers.astype(np.int32)


def _side(places: Sequence[int], size: int, truncation_side: str) -> Sequence[int]:
    return places[:size] if truncation_side == "right" else places[max(len(places) - size, 0) :]


def _leading_ones(mask: Sequence[int]) -> int:
    count = 0
    for value in mask:
        if not value:
            break
        count += 1
    return count


def _invalid_unicode(texts: Sequence[Text], first: int) -> str:
    for row, entry in enumerate(texts, start=first):
        for text in (entry,) if isinstance(entry, str) else entry:
            try:
                text.encode("utf-8")
            except UnicodeEncodeError as error:
                return (
                    f"texts[{row}] holds the lone surrogate {text[error.start]!r} at character {error.start}; expected "
                    f"valid Unicode: read the text with its true encoding, or use "
                    f"text.encode(errors='replace').decode()"
                )
    return "the tokenizer refused the texts; expected a list of strings"
