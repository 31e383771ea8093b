"""The modules of a model, printed as version 6 of the reference prints them, and read back."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_MODULE = re.compile(r"\s*\(\d+\): (\w+)\((.*?)\)(?: with Transformer model: (\w+) ?)?")
_TEXT = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}


def architecture(modules: Sequence[str]) -> tuple[str, ...]:
    """All lines, from each module's own."""
    lines = (f"  ({place}): {module}" for place, module in enumerate(modules))
    return ("SentenceTransformer(", *lines, ")")


def transformer_line(config: Mapping[str, Any]) -> str:
    """The first module, from its Hugging Face configuration."""
    named = (config.get("architectures") or [f"{str(config.get('model_type', '')).title()}Model"])[0]
    settings = {
        "transformer_task": "feature-extraction",
        "modality_config": _TEXT,
        "module_output_name": "token_embeddings",
        "architecture": re.sub(r"(For[A-Z]\w+|LMHeadModel)$", "Model", named),
    }
    return f"Transformer({settings})"


def pooling_line(dimension: int, modes: Sequence[str], *, include_prompt: bool) -> str:
    """Pooling, from its settings."""
    mode = modes[0] if len(modes) == 1 else list(modes)
    return f"Pooling({ {'embedding_dimension': dimension, 'pooling_mode': mode, 'include_prompt': include_prompt} })"


def normalize_line() -> str:
    """Scaling to length 1."""
    name = "sentence_embedding"
    return f"Normalize({ {'module_input_name': name, 'module_output_name': name} })"


def read_module(line: str) -> tuple[str, str, str] | None:
    """Kind, settings and the transformer's class, as printed ("" where they are not); None for any other line."""
    found = _MODULE.fullmatch(line)
    return (found[1], found[2], found[3] or "") if found else None
