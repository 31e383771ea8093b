"""The model card of a model: what it knows of itself, its training, and the similarities of a few texts."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from ..card import ModelFacts, TrainingFacts, compose, render
from ..card.architecture import architecture, normalize_line, pooling_line, transformer_line
from ..card.facts import Usage
from ..modules import Normalize, Pooling, Transformer
from .embedder import Embedder

_PROMPTS = ("query", "document", "passage", "corpus")


def card_text(
    model: Embedder,
    *,
    name: str | None,
    base_model: str | None,
    base_model_revision: str | None,
    training: TrainingFacts | None,
) -> str:
    """README.md of a model.

    Args:
        model: the model.
        name: what the card calls it.
        base_model: name on the Hub of the model it was made from, or None.
        base_model_revision: commit of that, or None.
        training: how it was trained, or None.
    """
    known = ModelFacts(
        name=name,
        base_model=base_model,
        base_model_revision=base_model_revision,
        max_seq_length=model.max_seq_length,
        dimension=model.get_sentence_embedding_dimension(),
        similarity=model.similarity_fn_name,
        architecture=architecture([_line(module) for module in model]),
        has_prompts=any(model.prompts.get(name) for name in _PROMPTS),
    )
    facts = compose(known, training)
    if training is not None and facts.usage is not None:
        facts = replace(facts, usage=replace(facts.usage, similarities=_similarities(model, facts.usage)))
    return render(facts)


def _line(module: nn.Module) -> str:
    if isinstance(module, Transformer):
        return transformer_line(module.config)
    if isinstance(module, Pooling):
        return pooling_line(module.embedding_dimension, module.pooling_mode, include_prompt=module.include_prompt)
    if isinstance(module, Normalize):
        return normalize_line()
    return f"{type(module).__name__}({module.extra_repr()})"


def _similarities(model: Embedder, usage: Usage) -> tuple[tuple[float, ...], ...] | None:
    """What the example prints, or None where the model cannot embed here; a card must not keep a model from a file."""
    texts = list(usage.sentences)
    try:
        with model.quietly():
            queries = model.encode_query(texts[:1]) if usage.has_query else model.encode(texts)
            others = model.encode_document(texts[1:]) if usage.has_query else queries
        found: list[list[float]] = model.similarity(queries, others).tolist()
    except (RuntimeError, ValueError):  # torch's, such as too little memory, and our own
        return None
    return tuple(map(tuple, found))
