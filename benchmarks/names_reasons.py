"""Why names of sentence-transformers are missing or different in minisbert.compat, and why tests use some not.

The keys are names or patterns of them (`StaticEmbedding*`); the first that fits counts.
"""

from __future__ import annotations

_ONNX = "models are computed in PyTorch; ONNX and OpenVINO files are not written"
_MODULE = "minisbert has no such module: a model is a Transformer followed by Pooling, Dense, LayerNorm and the like"
_WORDS = "minisbert has no models over whole words"
_CACHE = "the gradient cache is part of minisbert's training loop, not of the losses"

MISSING = {
    "export_*": _ONNX,
    "load_onnx_model": _ONNX,
    "load_openvino_model": _ONNX,
    "save_or_push_to_hub_model": _ONNX,
    "backend_*": _ONNX,
    "_save_pretrained_wrapper": _ONNX,
    "StaticEmbedding*": _MODULE,
    "Asym*": "minisbert has no models with several routes",
    "Router*": "minisbert has no models with several routes",
    "CLIPModel*": "minisbert reads texts only",
    "CNN*": _MODULE,
    "LSTM*": _MODULE,
    "BoW*": _WORDS,
    "WordEmbeddings*": _WORDS,
    "WordWeights*": _WORDS,
    "WordTokenizer*": _WORDS,
    "WhitespaceTokenizer*": _WORDS,
    "PhraseTokenizer*": _WORDS,
    "TransformersTokenizerWrapper*": _WORDS,
    "ENGLISH_STOP_WORDS": _WORDS,
    "CachedLossMixin*": _CACHE,
    "RandContext": _CACHE,
    "uses_gradient_cache": _CACHE,
    "has_static_embedding_input": _MODULE,
    "column_merging_disabled": "columns are packed into one batch always",
}
DIFFERENT: dict[str, str] = {}
UNUSED: dict[str, str] = {}
