"""Small random models of the architectures with rotary positions, as transformers makes and saves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny_models import tokenizer_files
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

_ROPE = {"rope_type": "default"}
_COMMON = {"num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 40, "max_position_embeddings": 256}
FAMILIES: dict[str, dict[str, Any]] = {
    "modernbert": {
        **{"hidden_size": 48, "local_attention": 16, "global_attn_every_n_layers": 3, "pad_token_id": 0},
        **{"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3},
    },
    "modernbert-biased": {
        **{"hidden_size": 48, "local_attention": 24, "global_attn_every_n_layers": 2, "pad_token_id": 0},
        **{"attention_bias": True, "mlp_bias": True, "norm_bias": True, "hidden_activation": "silu"},
        **{"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3},
    },
    "nomic_bert": {"hidden_size": 48, "type_vocab_size": 2},
    "gte": {"hidden_size": 48, "type_vocab_size": 1, "pad_token_id": 0, "hidden_dropout_prob": 0.0},
    "gte-untyped": {"hidden_size": 48, "type_vocab_size": 0, "pad_token_id": 0, "hidden_dropout_prob": 0.0},
    "qwen3": {"hidden_size": 32, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 16, "pad_token_id": 0},
    "qwen3-windowed": {
        **{"hidden_size": 32, "num_key_value_heads": 1, "head_dim": 8, "pad_token_id": 0, "attention_bias": True},
        **{"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 2},
    },
    "gemma3_text": {
        **{"hidden_size": 36, "num_key_value_heads": 1, "head_dim": 16, "query_pre_attn_scalar": 20},
        **{"sliding_window": 14, "sliding_window_pattern": 3, "use_bidirectional_attention": True},
    },
    "gemma3_text-causal": {
        **{"hidden_size": 36, "num_key_value_heads": 3, "head_dim": 8, "query_pre_attn_scalar": 8},
        **{"sliding_window": 10, "attention_bias": True},
    },
    "electra": {
        **{"hidden_size": 48, "embedding_size": 48},
        **{"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    },
}


def build_family(folder: Path, family: str, *, pooling: str = "mean", dtype: str = "float32", **changes: Any) -> Path:
    """Write a model folder: transformer, pooling, normalize.

    Args:
        folder: is made.
        family: one of `FAMILIES`.
        pooling: "mean", "cls" or "lasttoken".
        dtype: of the weights.
        changes: to the configuration.
    """
    if family.split("-")[0] not in CONFIG_MAPPING_NAMES:
        pytest.skip(f"transformers {transformers.__version__} has no {family}")
    tokens = tokenizer_files(folder, "bert")
    settings = {"vocab_size": tokens, **_COMMON, **FAMILIES[family], **changes}
    config = transformers.AutoConfig.for_model(family.split("-")[0], **settings)
    torch.manual_seed(len(family))
    model = transformers.AutoModel.from_config(config)
    for parameter in model.parameters():  # larger weights than a fresh model's, so that every part matters
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    _dump(folder / "sentence_bert_config.json", {"max_seq_length": 200, "do_lower_case": False})
    parts = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    kinds = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
        for i, (path, name) in enumerate(parts)
    ]
    _dump(folder / "modules.json", kinds)
    (folder / "1_Pooling").mkdir()
    mode = {"mean": "mean_tokens", "cls": "cls_token", "lasttoken": "lasttoken"}[pooling]
    pooled = {"word_embedding_dimension": config.hidden_size, "pooling_mode_mean_tokens": False}
    _dump(folder / "1_Pooling" / "config.json", {**pooled, f"pooling_mode_{mode}": True})
    return folder


def _dump(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")
