"""Tokenize texts and pairs of texts once, without padding.

A `tokenizers.Tokenizer` does the work. Its truncation and padding are switched off when it is taken over, and it is
never configured again, so that one tokenizer may serve several threads. Texts are truncated here, which makes the
number of truncated texts known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .errors import InputError, InputTypeError, ModelError, first_line, shown

if TYPE_CHECKING:
    from tokenizers import Encoding

Pair: TypeAlias = tuple[str, str]
Text: TypeAlias = "str | Pair"

TEXTS_AT_ONCE = 16_384  # to tokenize: what the tokenizer returns for one takes some fifty times the memory of its ids


# ---- the input of `encode` ------------------------------------------------------------------------------------------
def read_inputs(inputs: Any) -> tuple[list[Text], bool]:
    """Return the texts and pairs of `inputs`, and True if it is a single text.

    A string is a single text. Anything with a length and an order holds several entries: lists, tuples, arrays,
    pandas.Series. An entry that is itself a list or tuple of two strings is a pair, to be embedded jointly.

    Raises:
        InputTypeError: `inputs` has no order or no length, or an entry is neither a string nor a pair.
    """
    if isinstance(inputs, str):
        return [inputs], True
    if isinstance(inputs, np.ndarray) and inputs.ndim:
        inputs = inputs.tolist()  # (n,) texts, (n, 2) pairs
    unordered = isinstance(inputs, (bytes, Mapping, Set))
    if unordered or not hasattr(inputs, "__len__") or getattr(inputs, "ndim", 1) != 1:
        raise InputTypeError(
            f"got {type(inputs).__name__} for texts; expected a string or a list of strings: put the texts in a list, "
            f"or pass a stream of them to encode_iter"
        )
    entries = list(inputs)
    for row, entry in enumerate(entries):
        if not isinstance(entry, str):
            entries[row] = _pair(entry, row)
    return entries, False


def _pair(entry: Any, row: int) -> Pair:
    if isinstance(entry, (list, tuple)) and len(entry) == 2 and all(isinstance(text, str) for text in entry):
        return entry[0], entry[1]
    raise InputTypeError(
        f"texts[{row}] is {shown(entry)} of type {type(entry).__name__}; expected a string, or a pair of two strings: "
        f'drop the entry or pass str(value) or ""'
    )


def with_prompt(texts: list[Text], prompt: str) -> list[Text]:
    """Put `prompt` before each text, and before the first text of each pair."""
    if not prompt:
        return texts
    return [prompt + text if isinstance(text, str) else (prompt + text[0], text[1]) for text in texts]


def check_texts(texts: Any, *, what: str = "texts") -> list[str]:
    """Return `texts` as a list of strings.

    Raises:
        InputTypeError: `texts` is not a sequence, or an entry is not a string; the message names the entry.
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
            raise InputTypeError(
                f"{what}[{row}] is {shown(text)} of type {type(text).__name__}; expected a string: drop the entry or "
                f'pass str(value) or ""'
            )
    return result


_TOGETHER = 256  # texts; enough to keep the threads of the tokenizer busy, and few enough to stay in the caches


# ---- tokens ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class TokenizedTexts:
    """Token ids of many texts, concatenated.

    Attributes:
        ids: int32, (tokens,), special tokens included.
        lengths: int64, (texts,).
        truncated: number of texts that were cut to the maximum length.
        types: int32, (tokens,): the text of a pair that a token belongs to, 0 or 1; None if all are 0.
    """

    ids: NDArray[np.int32]
    lengths: NDArray[np.int64]
    truncated: int
    types: NDArray[np.int32] | None = None

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """The start of each text in `ids`, and the end of the last: (texts + 1,)."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.lengths)])

    def lengths_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the lengths of some texts: (rows,)."""
        return self.lengths[rows]

    @staticmethod
    def join(parts: Sequence[TokenizedTexts]) -> TokenizedTexts:
        """Concatenate the texts of several parts."""
        types = None
        if any(part.types is not None for part in parts):
            types = np.concatenate([np.zeros_like(part.ids) if part.types is None else part.types for part in parts])
        return TokenizedTexts(
            ids=np.concatenate([part.ids for part in parts]),
            lengths=np.concatenate([part.lengths for part in parts]),
            truncated=sum(part.truncated for part in parts),
            types=types,
        )


class BatchTokenizer(Protocol):
    """The methods needed of a `tokenizers.Tokenizer`, or of one that transformers has written in Python."""

    def no_truncation(self) -> None:
        """Truncate no text."""

    def no_padding(self) -> None:
        """Pad no text."""

    def get_vocab_size(self) -> int:
        """Return the number of tokens, added ones included."""

    def get_vocab(self) -> dict[str, int]:
        """Return the number of each token, added ones included."""

    def add_tokens(self, tokens: list[Any], /) -> int:
        """Add tokens; return how many were new."""

    def add_special_tokens(self, tokens: list[Any], /) -> int:
        """Add special tokens; return how many were new."""

    def encode_batch_fast(self, texts: list[Any], /) -> Sequence[Any]:
        """Tokenize texts and pairs of texts; the results have the attributes of `tokenizers.Encoding`."""


class TextTokenizer:
    """Tokenizes texts and truncates them to `max_length` tokens, special tokens included.

    Attributes:
        tokenizer: the tokenizer of the `tokenizers` library.
        max_length: tokens of the longest text.
        truncation_side: the end at which texts are truncated, "left" or "right".
        token_types: True if the model distinguishes the two texts of a pair by the types of their tokens.
        vocabulary: number of token embeddings of the model, or None if unknown.
    """

    def __init__(
        self,
        tokenizer: BatchTokenizer,
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
        # While one part is tokenized, outside Python, the ids of the one before are read.
        self._without_lock = type(tokenizer).__module__.partition(".")[0] == "tokenizers"
        (example,) = self._encode(["a"], 0)
        specials = example.special_tokens_mask
        self._prefix, self._suffix = _leading_ones(specials), _leading_ones(specials[::-1])
        self._single_texts_have_types = token_types and any(example.type_ids)

    @property
    def special_tokens(self) -> int:
        """Number of special tokens around a single text."""
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
            ModelError: the tokenizer fails, or gives tokens that the model has no embeddings for.
        """
        pairs = any(not isinstance(text, str) for text in texts)
        with_types = self.token_types and (pairs or self._single_texts_have_types)

        def part(start: int) -> TokenizedTexts:
            return self._part(texts[start : start + _TOGETHER], first + start, with_types=with_types)

        if len(texts) <= _TOGETHER:
            return part(0)
        starts = range(0, len(texts), _TOGETHER)
        if not self._without_lock:
            return TokenizedTexts.join([part(start) for start in starts])
        with ThreadPoolExecutor(2, thread_name_prefix="minisbert-tokenizer") as threads:
            return TokenizedTexts.join(list(threads.map(part, starts)))

    def _part(self, texts: Sequence[Text], first: int, *, with_types: bool) -> TokenizedTexts:
        """Tokenize texts at once."""
        encodings = self._encode(texts, first)
        ids = [encoding.ids for encoding in encodings]
        types = [encoding.type_ids for encoding in encodings] if with_types else []
        truncated = 0
        for row, row_ids in enumerate(ids):
            if len(row_ids) > self.max_length:
                pair = not isinstance(texts[row], str)
                kept = self._kept_of_pair(encodings[row]) if pair else self._kept(len(row_ids))
                ids[row] = [row_ids[index] for index in kept]
                if with_types:
                    types[row] = [types[row][index] for index in kept]
                truncated += 1
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        tokens = int(lengths.sum())
        return TokenizedTexts(
            _concatenate(ids, tokens, below=self.vocabulary),
            lengths,
            truncated,
            _concatenate(types, tokens, below=2) if with_types else None,
        )

    def digest(self) -> str:
        """Return a digest of all that decides the tokens of a text, but for `max_length`, in hexadecimal."""
        written = getattr(self.tokenizer, "to_str", None)  # one that transformers wrote in Python has none
        content = written() if written else f"{type(self.tokenizer)} {sorted(self.tokenizer.get_vocab().items())}"
        return hashlib.sha256(f"{self.truncation_side} {self.token_types} {content}".encode()).hexdigest()

    def __len__(self) -> int:
        """Number of tokens, added ones included."""
        return self.tokenizer.get_vocab_size()

    def add_tokens(self, new_tokens: str | Sequence[str], special_tokens: bool = False) -> int:
        """Add tokens that are never split; return how many were new. The encoder needs as many rows: resize it.

        Args:
            new_tokens: one, or several.
            special_tokens: they are part of no word, and texts are not normalized before they are found.
        """
        tokens = [new_tokens] if isinstance(new_tokens, str) else list(new_tokens)
        add = self.tokenizer.add_special_tokens if special_tokens else self.tokenizer.add_tokens
        return add(tokens)

    def count(self, texts: Sequence[Text]) -> NDArray[np.int64]:
        """Count the tokens of each text before truncation, special tokens included: int64, (texts,)."""
        encodings = self._encode(texts, 0)
        return np.fromiter((len(encoding.ids) for encoding in encodings), np.int64, len(encodings))

    def prompt_length(self, prompt: str) -> int:
        """Count the leading tokens that belong to a prompt: its own and the special tokens before it."""
        return int(self.count([prompt])[0]) - self._suffix

    def _encode(self, texts: Sequence[Text], first: int) -> Sequence[Encoding]:
        batch = list(texts)
        try:
            return self.tokenizer.encode_batch_fast(batch)
        except TypeError:
            raise InputError(_invalid_unicode(batch, first)) from None
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # the Rust library raises plain Exception, and panics are not even that
            reason = first_line(error)
            raise ModelError(
                f"the model's tokenizer failed on texts ({reason}); expected it to take any text: fix its "
                f"tokenizer.json, or copy the model again"
            ) from None

    def _kept(self, length: int) -> list[int]:
        """Return the indices of the tokens of a single text that are kept."""
        room, end = self.max_length - self.special_tokens, length - self._suffix
        body = range(self._prefix, end)
        return [*range(self._prefix), *_side(body, room, self.truncation_side), *range(end, length)]

    def _kept_of_pair(self, encoding: Encoding) -> list[int]:
        """Return the indices of the tokens of a pair that are kept: the longer text is cut first, then both to half."""
        sources = encoding.sequence_ids
        bodies = [[index for index, source in enumerate(sources) if source == number] for number in (0, 1)]
        kept = {index for index, source in enumerate(sources) if source is None}  # the special tokens
        room = self.max_length - len(kept)
        if room < 0:
            raise InputError(
                f"got a pair of texts and max_seq_length={self.max_length}; expected at least {len(kept)}, for the "
                f"special tokens of a pair: raise max_seq_length"
            )
        short, long = sorted(map(len, bodies))
        if 2 * short > room:
            short, long = room // 2, room - room // 2
        else:
            long = room - short
        sizes = (short, long) if len(bodies[0]) <= len(bodies[1]) else (long, short)
        for body, size in zip(bodies, sizes, strict=True):
            kept.update(_side(body, size, self.truncation_side))
        return sorted(kept)


def _concatenate(rows: Sequence[Sequence[int]], count: int, *, below: int | None) -> NDArray[np.int32]:
    """Concatenate `rows`, which hold `count` ids in all, and check that each id is less than `below`."""
    largest = min(2**31, 2**31 if below is None else below) - 1
    ids = np.fromiter(chain.from_iterable(rows), np.int64, count)
    if count and int(ids.max()) > largest:
        raise ModelError(
            f"the model's tokenizer gave the token or type {int(ids.max())}; its encoder has 0 to {largest}: expected "
            f"a tokenizer.json and weights that belong together: copy the whole model again, or after adding tokens "
            f"call model[0].auto_model.resize_token_embeddings(len(model[0].tokenizer))"
        )
    return ids.astype(np.int32)


def _side(indices: Sequence[int], size: int, truncation_side: str) -> Sequence[int]:
    return indices[:size] if truncation_side == "right" else indices[max(len(indices) - size, 0) :]


def _leading_ones(mask: Sequence[int]) -> int:
    return next((index for index, value in enumerate(mask) if not value), len(mask))


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
