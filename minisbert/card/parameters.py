"""Parameters of a loss or an evaluator, and the class they belong to."""

from __future__ import annotations

import json
import re

from .facts import Parameters
from .markdown import fenced_code

_CLASS = re.compile(r"(?:\[<code>(?P<linked>[^<]*)</code>\]\((?P<url>[^\s)]*)\)|<code>(?P<plain>[^<]*)</code>)")


def read_class(text: str) -> tuple[str, str | None]:
    """Name and documentation of the class that `text` begins with."""
    found = _CLASS.match(text)
    return (found["linked"] or found["plain"], found["url"]) if found else (text.split(" ")[0], None)


def write_class(name: str, link: str | None) -> str:
    """A class as cards name it."""
    return f"[<code>{name}</code>]({link})" if link else f"<code>{name}</code>"


def read_parameters(text: str) -> Parameters | None:
    """What the block of JSON in `text` holds, or None where there is no block."""
    code = fenced_code(text, "json")
    if code is None:
        return None
    try:
        values = json.loads(code)
        return values if isinstance(values, dict) and json.dumps(values, indent=4) == code else code
    except (ValueError, RecursionError):
        return code


def write_parameters(parameters: Parameters | None) -> str:
    """The end of the line that names the class, and the block after it."""
    if parameters is None:
        return ""
    code = parameters if isinstance(parameters, str) else json.dumps(dict(parameters), indent=4)
    block = "\n".join(f"  {line}" if line.strip() else line for line in f"```json\n{code}\n```".split("\n"))
    return f" with these parameters:\n{block}"
