"""The BERT family: absolute positions, full attention, and layers that normalize their output.

BERT, RoBERTa (with XLM-RoBERTa and CamemBERT), DistilBERT, MPNet and ELECTRA differ in a few switches and in what their
checkpoints call things.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .architecture import Architecture

_BERT_NAMES = {
    "embeddings.word": "embeddings.word_embeddings",
    "embeddings.position": "embeddings.position_embeddings",
    "embeddings.token_type": "embeddings.token_type_embeddings",
    "embeddings.norm": "embeddings.LayerNorm",
    "layers.{}.attention.query": "encoder.layer.{}.attention.self.query",
    "layers.{}.attention.key": "encoder.layer.{}.attention.self.key",
    "layers.{}.attention.value": "encoder.layer.{}.attention.self.value",
    "layers.{}.attention.output": "encoder.layer.{}.attention.output.dense",
    "layers.{}.attention.norm": "encoder.layer.{}.attention.output.LayerNorm",
    "layers.{}.feed_forward.up": "encoder.layer.{}.intermediate.dense",
    "layers.{}.feed_forward.down": "encoder.layer.{}.output.dense",
    "layers.{}.feed_forward.norm": "encoder.layer.{}.output.LayerNorm",
}
_MPNET_NAMES = {
    **{ours: theirs for ours, theirs in _BERT_NAMES.items() if ours != "embeddings.token_type"},
    "layers.{}.attention.query": "encoder.layer.{}.attention.attn.q",
    "layers.{}.attention.key": "encoder.layer.{}.attention.attn.k",
    "layers.{}.attention.value": "encoder.layer.{}.attention.attn.v",
    "layers.{}.attention.output": "encoder.layer.{}.attention.attn.o",
    "layers.{}.attention.norm": "encoder.layer.{}.attention.LayerNorm",
    "relative_attention_bias": "encoder.relative_attention_bias",
}
_DISTILBERT_NAMES = {
    "embeddings.word": "embeddings.word_embeddings",
    "embeddings.position": "embeddings.position_embeddings",
    "embeddings.norm": "embeddings.LayerNorm",
    "layers.{}.attention.query": "transformer.layer.{}.attention.q_lin",
    "layers.{}.attention.key": "transformer.layer.{}.attention.k_lin",
    "layers.{}.attention.value": "transformer.layer.{}.attention.v_lin",
    "layers.{}.attention.output": "transformer.layer.{}.attention.out_lin",
    "layers.{}.attention.norm": "transformer.layer.{}.sa_layer_norm",
    "layers.{}.feed_forward.up": "transformer.layer.{}.ffn.lin1",
    "layers.{}.feed_forward.down": "transformer.layer.{}.ffn.lin2",
    "layers.{}.feed_forward.norm": "transformer.layer.{}.output_layer_norm",
}
_DISTILBERT_KEYS = {
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
    "hidden_act": "activation",
    "hidden_dropout_prob": "dropout",
    "attention_probs_dropout_prob": "attention_dropout",
}
_SIZES = {  # what Hugging Face assumes for BERT, RoBERTa and MPNet where a configuration leaves a size out
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
}


def _absolute(config: Mapping[str, Any]) -> bool:
    """Return True for an encoder with a table of positions, or relative ones beside it."""
    return config.get("position_embedding_type", "absolute") == "absolute" and not config.get("is_decoder", False)


def _as_wide(config: Mapping[str, Any]) -> bool:
    """Return True if the embeddings of ELECTRA have the size of its layers, so that nothing projects them."""
    size = config.get("embedding_size", 128)
    return _absolute(config) and size == config.get("hidden_size", 256)


BERT = Architecture(_BERT_NAMES, {}, _SIZES, {}, native=_absolute)
ROBERTA = Architecture(
    _BERT_NAMES,
    {},
    {**_SIZES, "vocab_size": 50265, "pad_token_id": 1},
    {},
    native=_absolute,
    positions_after_padding=True,
)
DISTILBERT = Architecture(
    _DISTILBERT_NAMES,
    _DISTILBERT_KEYS,
    {**_SIZES, "num_hidden_layers": 6},
    {"type_vocab_size": 0, "layer_norm_eps": 1e-12, "attention_output_dropout": 0.0},
    native=_absolute,
    aliases=frozenset({"hidden_size", "num_attention_heads", "num_hidden_layers"}),
)
MPNET = Architecture(
    _MPNET_NAMES,
    {"relative_attention_buckets": "relative_attention_num_buckets"},
    {**_SIZES, "vocab_size": 30527, "pad_token_id": 1, "relative_attention_buckets": 32},
    {"type_vocab_size": 0},
    native=_absolute,
    positions_after_padding=True,
)
ELECTRA = Architecture(
    _BERT_NAMES,
    {},
    {**_SIZES, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024},
    {},
    native=_as_wide,
)
