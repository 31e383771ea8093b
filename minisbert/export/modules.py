"""Pooling and the modules after it as a graph."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from torch import nn

from ..errors import ConfigError
from ..modules import Dense, Dropout, LayerNorm, Normalize, Pooling
from .encoder import Inputs
from .graph import FLOAT, Graph

# Activations of Dense by their class in torch.
_ACTIVATIONS = {"Identity": "Identity", "Tanh": "Tanh", "ReLU": "Relu", "Sigmoid": "Sigmoid"}


def sentence_embeddings(graph: Graph, modules: Iterable[nn.Module], tokens: str, inputs: Inputs) -> str:
    """Run the modules after the transformer: (texts, length, dim) to (texts, dim).

    Raises:
        ConfigError: one of them cannot be exported.
    """
    pooling, *others = (module for module in modules if not isinstance(module, Dropout))
    if not isinstance(pooling, Pooling):
        raise _unknown(pooling)
    return after_pooling(graph, others, _pooled(graph, pooling, tokens, inputs))


def after_pooling(graph: Graph, modules: Iterable[nn.Module], sentences: str) -> str:
    """Run the modules after pooling: (texts, dim) to the same, or to another size.

    Raises:
        ConfigError: one of them cannot be exported.
    """
    for module in modules:
        if isinstance(module, Dropout):
            continue
        if isinstance(module, Normalize):
            norm = graph.add("ReduceL2", sentences, axes=[-1], keepdims=1)
            sentences = graph.add("Div", sentences, graph.add("Max", norm, _number(graph, 1e-12)))
        elif isinstance(module, Dense):
            sentences = _dense(graph, module, sentences)
        elif isinstance(module, LayerNorm):
            sentences = graph.layer_norm(sentences, module.norm.weight, module.norm.bias, module.norm.eps)
        else:
            raise _unknown(module)
    return sentences


def mean_of_tokens(graph: Graph, tokens: str, inputs: Inputs) -> str:
    """Average the tokens that are not padding: (texts, length, dim) to (texts, dim)."""
    weights = graph.cast(inputs.mask, FLOAT)
    return _weighted(graph, tokens, weights, graph.total(weights, 1, keep=True))


def _pooled(graph: Graph, pooling: Pooling, tokens: str, inputs: Inputs) -> str:
    if not pooling.include_prompt:
        raise ConfigError(
            "got a Pooling with include_prompt=False; expected one that takes all tokens, since a graph does not know "
            "which are of the prompt: call model.set_pooling_include_prompt(True) if no prompt is used"
        )
    parts = [_mode(graph, mode, tokens, inputs) for mode in pooling.pooling_mode]
    return parts[0] if len(parts) == 1 else graph.add("Concat", *parts, axis=-1)


def _mode(graph: Graph, mode: str, tokens: str, inputs: Inputs) -> str:
    mask = graph.cast(inputs.mask, FLOAT)  # (texts, length)
    count = graph.total(mask, 1, keep=True)  # (texts, 1)
    if mode == "mean":
        return _weighted(graph, tokens, mask, count)
    if mode == "mean_sqrt_len_tokens":
        return _weighted(graph, tokens, mask, graph.add("Sqrt", count))
    place = graph.add("Mul", graph.add("Add", graph.cast(inputs.places, FLOAT), _number(graph, 1.0)), mask)  # from 1
    if mode == "weightedmean":
        return _weighted(graph, tokens, place, graph.total(place, 1, keep=True))
    if mode == "max":
        lowest = graph.constant(float(np.finfo(np.float32).min), np.float32)
        seen = graph.add("Where", graph.unsqueeze(inputs.mask, 2), tokens, lowest)
        largest = graph.add("ReduceMax", seen, axes=[1], keepdims=0)
        return graph.add("Where", graph.add("Greater", count, _number(graph, 0.0)), largest, _number(graph, 0.0))
    wanted = _number(graph, 1.0) if mode == "cls" else count
    chosen = graph.add("And", graph.add("Equal", place, wanted), inputs.mask)
    return _weighted(graph, tokens, graph.cast(chosen, FLOAT), None)


def _weighted(graph: Graph, tokens: str, weights: str, divisor: str | None) -> str:
    """Sum the tokens by weights, (texts, length), over a divisor, (texts, 1)."""
    product = graph.add("MatMul", graph.unsqueeze(weights, 1), tokens)  # (texts, 1, dim)
    total = graph.add("Squeeze", product, graph.constant([1], np.int64))
    if divisor is None:
        return total
    return graph.add("Div", total, graph.add("Max", divisor, _number(graph, 1e-9)))


def _number(graph: Graph, value: float) -> str:
    return graph.constant(value, np.float32)


def _dense(graph: Graph, dense: Dense, sentences: str) -> str:
    name = type(dense.activation).__name__
    result = graph.linear(sentences, dense.linear.weight, dense.linear.bias)
    if name == "GELU":
        result = graph.activation(result, "gelu")
    elif name in _ACTIVATIONS:
        result = graph.add(_ACTIVATIONS[name], result)
    else:
        raise ConfigError(f"got a Dense with {name}; expected one of {', '.join((*_ACTIVATIONS, 'GELU'))} to export it")
    if not dense.use_residual:
        return result
    residual = sentences if dense.residual is None else graph.linear(sentences, dense.residual.weight, None)
    return graph.add("Add", result, residual)


def _unknown(module: nn.Module) -> ConfigError:
    return ConfigError(
        f"got the module {type(module).__name__}; expected Pooling, Normalize, Dense, LayerNorm or Dropout after the "
        f"Transformer to export a model"
    )
