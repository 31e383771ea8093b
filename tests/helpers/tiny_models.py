"""Small random models of every native architecture, in folders that the reference can load too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from minisbert.modules.architectures import encoder_config, to_checkpoint
from minisbert.modules.encoder import Encoder
from minisbert.storage.weights import write_weights

ARCHITECTURES = ("bert", "roberta", "xlm-roberta", "distilbert", "mpnet")
WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "sat",
    "on",
    "mat",
    "ran",
    "fast",
    "slow",
    "red",
    "blue",
    "sky",
    "sea",
    "tree",
    "one",
    "two",
    "three",
    "how",
    "what",
    "is",
    "why",
    "not",
    "and",
    "of",
    "to",
]
_LETTERS = [chr(code) for code in range(33, 127)]
_HAN = list("我们爱自然语言处理中文句子向量")


def build(folder: Path, architecture: str, *, layers: int = 2, dim: int = 32, max_seq_length: int | None = 48) -> Path:
    """Write a model folder: transformer, mean pooling, normalize."""
    config = _config(architecture, vocabulary=tokenizer_files(folder, architecture), layers=layers, dim=dim)
    _dump(folder / "config.json", config)
    torch.manual_seed(sum(map(ord, architecture)))
    encoder = Encoder(encoder_config(config))
    encoder.reset_parameters()
    for parameter in encoder.parameters():  # larger weights than a fresh model's, so that every part matters
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    tensors = encoder.state_dict()
    write_weights(folder, to_checkpoint(config, tensors) | _pooler(architecture, dim))
    if max_seq_length is not None:
        _dump(folder / "sentence_bert_config.json", {"max_seq_length": max_seq_length, "do_lower_case": False})
    _dump(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
            for i, (path, name) in enumerate(
                [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
            )
        ],
    )
    (folder / "1_Pooling").mkdir()
    _dump(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": dim, "pooling_mode_mean_tokens": True})
    return folder


def tokenizer_files(folder: Path, architecture: str) -> int:
    """Make a folder with a tokenizer, and return its number of tokens."""
    folder.mkdir(parents=True)
    tokenizer, specials = _tokenizer(architecture)
    tokenizer.save(str(folder / "tokenizer.json"))
    kind = {"bert": "BertTokenizer", "distilbert": "DistilBertTokenizer"}.get(architecture, "PreTrainedTokenizerFast")
    _dump(folder / "tokenizer_config.json", {"tokenizer_class": kind, "model_max_length": 64, **specials})
    size: int = tokenizer.get_vocab_size()
    return size


def without_dropout(folder: Path, architecture: str = "bert") -> Path:
    """Write a model folder whose model draws nothing in training."""
    build(folder, architecture)
    config = json.loads((folder / "config.json").read_text())
    _dump(folder / "config.json", {**config, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
    return folder


def _config(architecture: str, *, vocabulary: int, layers: int, dim: int) -> dict[str, Any]:
    names = {
        "bert": "BertModel",
        "roberta": "RobertaModel",
        "xlm-roberta": "XLMRobertaModel",
        "distilbert": "DistilBertModel",
        "mpnet": "MPNetModel",
    }
    common = {"architectures": [names[architecture]], "model_type": architecture, "vocab_size": vocabulary}
    if architecture == "distilbert":
        sizes = {"dim": dim, "n_layers": layers, "n_heads": 4, "hidden_dim": 2 * dim, "max_position_embeddings": 64}
        return {**common, **sizes, "dropout": 0.1, "attention_dropout": 0.1, "activation": "gelu", "pad_token_id": 0}
    padding_first = architecture == "bert"
    config = {
        **common,
        "hidden_size": dim,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "intermediate_size": 2 * dim,
        "max_position_embeddings": 64 if padding_first else 66,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "layer_norm_eps": 1e-12 if padding_first else 1e-5,
        "pad_token_id": 0 if padding_first else 1,
    }
    if architecture == "mpnet":
        return {**config, "relative_attention_num_buckets": 32}
    return {**config, "type_vocab_size": 2 if padding_first else 1}


def _tokenizer(architecture: str) -> tuple[Tokenizer, dict[str, str]]:
    if architecture in ("bert", "distilbert"):
        tokens = [
            "[PAD]",
            "[UNK]",
            "[CLS]",
            "[SEP]",
            "[MASK]",
            *WORDS,
            *_LETTERS,
            *(f"##{c}" for c in _LETTERS),
            *_HAN,
        ]
        tokenizer = _word_piece(list(dict.fromkeys(tokens)), unknown="[UNK]", first="[CLS]", last="[SEP]")
        return tokenizer, {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    names = {
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "cls_token": "<s>",
        "sep_token": "</s>",
        "mask_token": "<mask>",
    }
    if architecture == "mpnet":
        tokens = [*specials, *WORDS, *_LETTERS, *(f"##{c}" for c in _LETTERS), *_HAN]
        tokenizer = _word_piece(list(dict.fromkeys(tokens)), unknown="<unk>", first="<s>", last="</s>")
    elif architecture == "roberta":
        tokens = [*specials, *sorted(pre_tokenizers.ByteLevel.alphabet())]
        tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, [], unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    else:
        pieces = [*specials[:4], "▁", *(f"▁{word}" for word in WORDS), *_LETTERS, *_HAN, "<mask>"]
        scored = [(piece, -float(rank) / 10) for rank, piece in enumerate(dict.fromkeys(pieces))]
        tokenizer = Tokenizer(models.Unigram(scored, unk_id=3))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
        )
    tokenizer.add_special_tokens(specials)
    return tokenizer, names


def _word_piece(tokens: list[str], *, unknown: str, first: str, last: str) -> Tokenizer:
    ids = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token=unknown, max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing((last, ids[last]), (first, ids[first]))
    tokenizer.add_special_tokens([token for token in tokens[:5] if token[0] in "[<"])
    return tokenizer


def _pooler(architecture: str, dim: int) -> dict[str, torch.Tensor]:
    if architecture == "distilbert":
        return {}
    return {"pooler.dense.weight": torch.eye(dim), "pooler.dense.bias": torch.zeros(dim)}


def _dump(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")
