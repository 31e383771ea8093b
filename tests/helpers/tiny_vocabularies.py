"""Small vocabularies of every algorithm, and texts on which tokenizers differ."""

from __future__ import annotations

import string

WORDS = ["the", "cat", "dog", "sat", "hello", "world", "caf", "naive", "tokens", "Berlin", "covid"]
_LETTERS = [*string.ascii_letters, *string.digits, *"éèäöüßñçÉÀİıſ", *"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", *"。、…–“”"]
_HAN = list("我们爱自然東京都猫がカ한국")
_OTHER = ["ﬁ", "²", "①", "Å", "½", "🙂", "👍", "ا", "и", "\u0301", "٣"]

TEXTS = [
    "",
    " ",
    "hello world",
    "  hello   world  ",
    "hello\tworld\nthe cat\r\nsat",
    "hello\u00a0world\u2003the\u200bcat\ufeff",
    "The CAT sat in Berlin",
    "Café CAFÉ cafe\u0301 naïve Ünïcödé İstanbul ſtraße",
    "我们爱 the 東京都cat 猫がカ 한국",
    "ﬁne ½ x² ① Å ＡＢＣ１２３",
    "🙂👍🏽 hello🙂world",
    "the <mask> cat [MASK] sat<mask>dog  [MASK]  dog",
    "<s>hello</s> [CLS]hello[SEP] <pad> [PAD] <unk> [UNK] [CLS",
    "covid19 COVID19 acovid19b <e1> hello<e1> world <E1>",
    "<s>NOTUSED a </s>NOTUSED <|endoftext|> <|im_end|>",
    "don't stop! it's 12,345.67 e-mail a_b --flag http://x.y/z?q=1#a",
    "a" * 130 + " " + "hello" * 3,
    "\x00\x01control\x7f \ufffd",
    "русский текст اهلا ٣",
    "''quoted`` text\u2581with▁mark",
]


def word_pieces(specials: list[str]) -> dict[str, int]:
    """Return a WordPiece vocabulary."""
    singles = [*_LETTERS, *_HAN, *_OTHER]
    return _numbered([*specials, *WORDS, *singles, *(f"##{one}" for one in singles), "##s", "##19"])


def pieces(first: list[str], last: list[str]) -> list[tuple[str, float]]:
    """Return a Unigram vocabulary, with the given pieces at its ends."""
    middle = ["▁", *(f"▁{word}" for word in WORDS), *WORDS, *_LETTERS, *_HAN, *_OTHER, "▁▁", "▁\t", "19"]
    names = list(dict.fromkeys([*first, *middle, *last]))
    return [(name, 0.0 if name in first or name in last else -2.0 - rank / 100) for rank, name in enumerate(names)]


def byte_pairs(specials: list[str], alphabet: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return a vocabulary and merges of a byte-level BPE."""
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        merges += [*((word[:end], word[end]) for end in range(1, len(word))), ("Ġ", word)]
    merges = list(dict.fromkeys(merges))
    return _numbered([*specials, *alphabet, *("".join(pair) for pair in merges)]), merges


def _numbered(tokens: list[str]) -> dict[str, int]:
    return {token: index for index, token in enumerate(dict.fromkeys(tokens))}
