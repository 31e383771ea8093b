"""JSON and safetensors changed a little, at random: values and keys anywhere in the tree."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Sequence
from typing import Any

from .changes import change_bytes

_NUMBERS = (0, -1, 1, 2, 3, 7, 64, 2**31, 2**63 - 1, 2**63, -(2**63), 10**12, 10**30, 0.5, -0.0, 1e308, 1e-320)
_NOT_FINITE = (float("nan"), float("inf"), float("-inf"))
_TEXTS = (
    "",
    " ",
    "0",
    "-1",
    "nan",
    "many",
    "true",
    "\0",
    "a\0b",
    "\ud800",
    "\n",
    "..",
    "../..",
    "../1_Pooling",
    "/etc",
    "/dev/zero",
    "~",
    "1_Pooling/.",
    "é" * 150,
    "x" * 5000,
    "auto",
    "float16",
    "os.system",
    "__import__('os').getpid",
    "torch.nn.Module",
    "torch.nn.modules.activation.ReLU",
    "sentence_transformers.models.Dense",
    "sentence_transformers.models.Transformer",
    "BertModel",
    "bert",
    "roberta",
    "mpnet",
    "left",
    "[UNK]",
    "F64",
    "I8",
    "BOOL",
)
_FILLED: tuple[Any, ...] = ([], {}, [[]], [1, 2], {"a": 1}, [None], ["a", "a"], {"": ""}, [{}])


def change_json(content: bytes, draw: random.Random) -> bytes:
    """One to three changes to values or keys, anywhere in the tree; at times to the bytes instead."""
    if draw.random() < 0.15:
        return change_bytes(content, draw)
    value = json.loads(content)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        value = _changed_value(value, draw)
    text = json.dumps(value)
    if draw.random() < 0.02:
        text = "[" * 100_000 + text
    return text.encode("utf-8")


def _changed_value(value: Any, draw: random.Random) -> Any:
    """`value` with one change in one place, which may be the root."""
    value = copy.deepcopy(value)
    places = list(_places(value))
    if not places or draw.random() < 0.02:
        return hostile(draw)
    within, key = draw.choice(places)
    kind = draw.random()
    if kind < 0.6:
        within[key] = hostile(draw)
    elif kind < 0.7:
        within.pop(key)
    elif kind < 0.8 and isinstance(within, dict):
        within[str(hostile(draw))[:300]] = within.pop(key)
    elif kind < 0.85 and isinstance(within, dict):
        within[draw.choice(_TEXTS)] = hostile(draw)
    elif kind < 0.9 and isinstance(within, list):
        within.extend([within[key]] * draw.choice((1, 3, 300)))
    else:
        other, name = draw.choice(places)
        within[key] = copy.deepcopy(other[name])
    return value


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every place of the tree, as a container and a key; of a long container some."""
    found: list[tuple[Any, Any]] = []
    waiting = [value] if isinstance(value, (dict, list)) else []
    while waiting:
        within = waiting.pop()
        keys: Sequence[Any] = list(within) if isinstance(within, dict) else range(len(within))
        for key in keys[:40]:
            found.append((within, key))
            if isinstance(within[key], (dict, list)):
                waiting.append(within[key])
    return found


def hostile(draw: random.Random) -> Any:
    """A value of any kind that JSON has, likely one that nobody thought of."""
    kind = draw.random()
    if kind < 0.35:
        return draw.choice(_NUMBERS)
    if kind < 0.45:
        return draw.choice(_NOT_FINITE)
    if kind < 0.55:
        return draw.choice((True, False, None))
    if kind < 0.8:
        return draw.choice(_TEXTS)
    if kind < 0.98:
        return copy.deepcopy(draw.choice(_FILLED))
    return [draw.choice(_NUMBERS)] * 10_000


# ---- safetensors ----------------------------------------------------------------------------------------------------


def change_safetensors(content: bytes, draw: random.Random) -> bytes:
    """The header changed as JSON, its length, or the bytes of the file."""
    length = int.from_bytes(content[:8], "little")
    kind = draw.random()
    if kind < 0.15:
        return change_bytes(content, draw)
    if kind < 0.3:
        wrong = draw.choice((0, 1, length - 1, length + 1, len(content), 10**8, 10**8 + 1, 2**63, 2**64 - 1))
        return max(0, wrong).to_bytes(8, "little") + content[8:]
    header = change_json(content[8 : 8 + length], draw)
    return len(header).to_bytes(8, "little") + header + content[8 + length :]
