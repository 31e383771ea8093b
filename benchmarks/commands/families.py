"""How fast models of each native family embed texts, with random weights, beside the reference.

Every word is a token. Mixed texts have 64 to 1,024 tokens, as many of each length; equal ones have 256.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timing
from machine import table

from commands.memory import fresh, status

WORDS = 30_000
SMALL = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 6, "intermediate_size": 1536}
_MODERN = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
# Sizes of published models: ettin-encoder-17m and -32m, and ModernBERT-base; others have six layers of 384 dimensions.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "ModernBERT, tiny": (
        "modernbert",
        {
            **{"hidden_size": 256, "num_hidden_layers": 7, "num_attention_heads": 4, "intermediate_size": 384},
            **_MODERN,
        },
    ),
    "ModernBERT, small": (
        "modernbert",
        {
            **{"hidden_size": 384, "num_hidden_layers": 10, "num_attention_heads": 6, "intermediate_size": 576},
            **_MODERN,
        },
    ),
    "ModernBERT, base": (
        "modernbert",
        {
            **{"hidden_size": 768, "num_hidden_layers": 22, "num_attention_heads": 12, "intermediate_size": 1152},
            **_MODERN,
        },
    ),
    "nomic_bert, small": ("nomic_bert", {**SMALL, "intermediate_size": 1024}),
    "gte, small": ("gte", {**SMALL, "intermediate_size": 1024, "pad_token_id": 0}),
    "Qwen3, small": (
        "qwen3",
        {**SMALL, "intermediate_size": 1024, "num_key_value_heads": 2, "head_dim": 64, "pad_token_id": 0},
    ),
    "Gemma 3, small": (
        "gemma3_text",
        {
            **{**SMALL, "num_attention_heads": 3, "intermediate_size": 1024, "num_key_value_heads": 1, "head_dim": 128},
            **{"sliding_window": 512, "use_bidirectional_attention": True, "query_pre_attn_scalar": 128},
        },
    ),
}
MIXED, EQUAL = (64, 128, 256, 512, 1024), (256,)
TEXTS, QUICK_TEXTS = 10, 5
OURS, REFERENCE = "minisbert fp32", "sentence-transformers"
PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "int8": "int8"}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Embed the texts with each model, in each precision that is native, and with the reference."""
    names = list(MODELS)[:1] if options.quick else list(MODELS)
    count = QUICK_TEXTS if options.quick else TEXTS
    measured = {name: _measure(name, count, options.rounds) for name in names}
    return {"texts": count, "models": measured, "long": _long(options)}


def table_of(result: dict[str, Any]) -> str:
    """For people."""
    rows: list[tuple[Any, ...]] = [("model", "lengths", "way", "texts/s", "x reference", "largest difference")]
    for name, lengths in result["models"].items():
        for kind, ways in lengths.items():
            for way, one in ways.items():
                fast = one.get("times_as_fast")
                shown = f"{fast['median']:.2f} ({fast['low']:.2f} - {fast['high']:.2f})" if fast else ""
                off = f"{one['difference']:.1e}" if "difference" in one else ""
                rows.append((name, kind, way, f"{result['texts'] / one['seconds']['median']:.1f}", shown, off))
    long: list[tuple[Any, ...]] = [(f"one text of {result['long']['tokens']} tokens", "seconds", "MB beyond the model")]
    long += [(way, f"{one['seconds']:.1f}", f"{one['MB']:.0f}") for way, one in result["long"]["ways"].items()]
    return f"{table(rows)}\n{table(long)}"


def _long(options: argparse.Namespace) -> dict[str, Any]:
    """Embed one text that is as long as ModernBERT takes, in a process of its own for each way."""
    name, tokens = ("ModernBERT, tiny", 1024) if options.quick else ("ModernBERT, small", 8192)
    with tempfile.TemporaryDirectory() as place:
        folder = build(Path(place) / "model", *MODELS[name], longest=tokens)
        ways = {way: fresh("commands.families", folder, way, tokens, options.threads) for way in (OURS, REFERENCE)}
    return {"model": name, "tokens": tokens, "ways": ways}


def _embed_long(folder: Path, way: str, tokens: int, threads: int) -> dict[str, float]:
    """Seconds, and MB beyond the loaded model."""
    import torch

    torch.set_num_threads(threads)
    if way == OURS:
        from minisbert import SentenceTransformer
    else:
        from sentence_transformers import SentenceTransformer
    model = SentenceTransformer(str(folder), device="cpu")
    model.encode(["w1 w2"])
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak of loading
    start = time.perf_counter()
    model.encode(texts_of((tokens,), 1))
    return {"seconds": time.perf_counter() - start, "MB": status("VmHWM") - before}


def _measure(name: str, count: int, rounds: int) -> dict[str, Any]:
    import sentence_transformers

    from minisbert import SentenceTransformer

    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = build(Path(place) / "model", *MODELS[name])
        models: dict[str, Any] = {
            f"minisbert {short}": SentenceTransformer(folder, device="cpu", dtype=dtype)
            for short, dtype in PRECISIONS.items()
        }
        models[REFERENCE] = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
        return {
            kind: _timed(models, texts_of(lengths, count), rounds)
            for kind, lengths in {"64 to 1,024 tokens": MIXED, "256 tokens": EQUAL}.items()
        }


def _timed(models: dict[str, Any], texts: list[str], rounds: int) -> dict[str, Any]:
    embeddings = {name: np.asarray(model.encode(texts), np.float32) for name, model in models.items()}  # and warms up

    def run(name: str) -> Callable[[], object]:
        return lambda: models[name].encode(texts)

    seconds = timing.interleaved({name: run(name) for name in models}, rounds)
    return {
        name: {
            "seconds": timing.spread(taken),
            **(
                {}
                if name == REFERENCE
                else {
                    "times_as_fast": timing.times_as_fast(taken, seconds[REFERENCE]),
                    "difference": float(np.abs(embeddings[name] - embeddings[REFERENCE]).max()),
                }
            ),
        }
        for name, taken in seconds.items()
    }


def texts_of(lengths: tuple[int, ...], count: int) -> list[str]:
    """Texts of made-up words, with as many of each length, in tokens with the two special ones."""
    draw = random.Random(1)
    texts = [
        " ".join(f"w{draw.randrange(WORDS)}" for _ in range(lengths[number % len(lengths)] - 2))
        for number in range(count)
    ]
    draw.shuffle(texts)
    return texts


def build(folder: Path, model_type: str, sizes: dict[str, Any], *, longest: int = 2048) -> Path:
    """Write a model folder of random weights that both sides load: transformer, mean pooling, normalize."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: number for number, word in enumerate([*special, *(f"w{i}" for i in range(WORDS))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.add_special_tokens(special)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    kept = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=longest, **names)
    kept.save_pretrained(folder)
    config = transformers.AutoConfig.for_model(
        model_type, vocab_size=len(vocabulary), max_position_embeddings=longest, **sizes
    )
    torch.manual_seed(0)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    (folder / "1_Pooling").mkdir()
    parts = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(parts)
    ]
    pooling = {"word_embedding_dimension": config.hidden_size, "pooling_mode_mean_tokens": True}
    contents = {"modules.json": modules, "sentence_bert_config.json": {"max_seq_length": longest}}
    for name, content in {**contents, "1_Pooling/config.json": pooling}.items():
        (folder / name).write_text(json.dumps(content))
    return folder


if __name__ == "__main__":
    given = sys.argv[1:]
    print(json.dumps(_embed_long(Path(given[0]), given[1], int(given[2]), int(given[3]))))
