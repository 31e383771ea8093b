"""The example of use: the section "Direct Usage"."""

from __future__ import annotations

import ast
import json
import re

from .facts import Usage
from .markdown import fenced_code

_NUMBER = re.compile(r"-?(?:\d+\.?\d*(?:e[+-]?\d+)?|inf|nan)")


def read_usage(text: str) -> Usage | None:
    """The example, or None where there is no code with texts."""
    code = fenced_code(text, "python")
    loaded = re.search(r'^model = SentenceTransformer\("(.*)"\)$', code, re.M) if code else None
    if code is None or loaded is None:
        return None
    queries, sentences = _texts(code, "queries"), _texts(code, "documents") or _texts(code, "sentences")
    if not sentences:
        return None
    return Usage(loaded[1], (*queries, *sentences), bool(queries), _similarities(code))


def _texts(code: str, name: str) -> tuple[str, ...]:
    lines = code.split("\n")
    try:
        start = lines.index(f"{name} = [")
        end = lines.index("]", start)
    except ValueError:
        return ()
    return tuple(_text(line.strip(" ").removesuffix(",")) for line in lines[start + 1 : end])


def _text(literal: str) -> str:
    # A query can be written as JSON, where a character beyond the basic plane is a pair of escapes.
    for read in (json.loads, ast.literal_eval):
        try:
            return str(read(literal))
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return literal


def _similarities(code: str) -> tuple[tuple[float, ...], ...] | None:
    found = re.search(r"^print\(similarities\)\n((?:#.*\n?)+)", code, re.M)
    rows = re.findall(r"\[([^\[\]]+)\]", found[1]) if found else []
    return tuple(tuple(map(float, _NUMBER.findall(row))) for row in rows) or None


def write_usage(facts: Usage, dimension: int | None) -> str:
    """How to install and how to use the model, with sentence-transformers and with minisbert."""
    return "\n".join(
        [
            "Either of two libraries loads the model:",
            "",
            "```bash",
            "pip install sentence-transformers",
            "pip install minisbert",
            "```",
            "",
            "With the first:",
            "```python",
            *_code(facts, dimension),
            "```",
            "",
            "With the second, the first line is another and the rest stays:",
            "```python",
            "from minisbert import SentenceTransformer",
            "```",
        ]
    )


def _code(facts: Usage, dimension: int | None) -> list[str]:
    count = len(facts.sentences)
    lines = [
        "from sentence_transformers import SentenceTransformer",
        "",
        f'model = SentenceTransformer("{facts.model_id}")',
    ]
    if facts.has_query:
        lines += [
            *_listed("queries", facts.sentences[:1]),
            *_listed("documents", facts.sentences[1:]),
            "query_embeddings = model.encode_query(queries)",
            "document_embeddings = model.encode_document(documents)",
            "print(query_embeddings.shape, document_embeddings.shape)",
            f"# [1, {dimension}] [{count - 1}, {dimension}]",
            "",
            "similarities = model.similarity(query_embeddings, document_embeddings)",
        ]
    else:
        lines += [
            *_listed("sentences", facts.sentences),
            "embeddings = model.encode(sentences)",
            "print(embeddings.shape)",
            f"# [{count}, {dimension}]",
            "",
            "similarities = model.similarity(embeddings, embeddings)",
        ]
    if facts.similarities is None:
        return [
            *lines,
            "print(similarities.shape)",
            f"# [1, {count - 1}]" if facts.has_query else f"# [{count}, {count}]",
        ]
    return [*lines, "print(similarities)", *_tensor(facts.similarities)]


def _listed(name: str, texts: tuple[str, ...]) -> list[str]:
    return [f"{name} = [", *(f"    {text!r}," for text in texts), "]"]


def _tensor(rows: tuple[tuple[float, ...], ...]) -> list[str]:
    cells = [[f"{value:.4f}" for value in row] for row in rows]
    width = max(len(cell) for row in cells for cell in row)
    shown = [f"[{', '.join(cell.rjust(width) for cell in row)}]" for row in cells]
    return [
        f"# {'tensor([' if place == 0 else ' ' * 8}{row}{'])' if place == len(shown) - 1 else ','}"
        for place, row in enumerate(shown)
    ]
