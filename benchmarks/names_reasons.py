"""Why names of sentence-transformers are missing or different in minisbert.compat, and why tests use some not.

The keys are names or patterns of them (`Router*`); the first that fits counts, and none needs one if the
difference is one of ALIKE.
"""

from __future__ import annotations

_ONNX = "minisbert computes in PyTorch; `minisbert export` writes ONNX files"
_MODULE = "minisbert has no such module: a model is a Transformer followed by Pooling, Dense, LayerNorm and the like"
_WORDS = "minisbert has no models over whole words"
_BASE = "what it has in common for several kinds of models is in the classes of dense models"
_LOOP = "minisbert's training loop makes the batches and the loss of a step itself"
_OLD_NAMES = "names of older versions are parameters, too"
_OTHER_KIND = "minisbert has dense embedding models only"
_CACHE = "the gradient cache is part of minisbert's training loop, not of the losses"

MISSING = {
    "export_*": _ONNX,
    "load_onnx_model": _ONNX,
    "load_openvino_model": _ONNX,
    "save_or_push_to_hub_model": _ONNX,
    "backend_*": _ONNX,
    "_save_pretrained_wrapper": _ONNX,
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
    "has_static_embedding_input": _CACHE,
    "column_merging_disabled": "columns are packed into one batch always",
    "BaseModel": _BASE,
    "BaseTrainer": _BASE,
    "PeftAdapterMixin": _BASE,
    "BaseTrainer.*": _LOOP,
    "Cached*Loss.calculate_loss*": _CACHE,
    "CachedGISTEmbedLoss.embed_minibatch*": _CACHE,
    "MegaBatchMarginLoss.*": _CACHE,
    "SentenceTransformerModelCardData.*": "minisbert.card writes the card",
    "Transformer.infer_modalities*": "minisbert reads texts only",
}
DIFFERENT: dict[str, str] = {
    "OnlineContrastiveLoss.forward": "without `size_average`, which the reference does not read; else as other losses",
    "*Loss*.forward": "labels may be left out, and `guided` takes what minisbert's training loop adds for some losses",
    "*SymmetricRankingLoss": "its parameters are named, not handed on",
    "SimilarityFunction": _OTHER_KIND,
    "NanoBEIREvaluator.store_metrics_in_model_card_data": "its parameters are named, not handed on",
    "SentenceTransformerTrainer": _OLD_NAMES,
    "*TrainingArguments": _OLD_NAMES,
    "ORIGINAL_TRANSFORMER_MODELS": "the same models in another order",
}
# Differences that have one reason wherever they are: regular expressions of the whole difference.
ALIKE: dict[str, str] = {
    r"(without `(args|kwargs|processing_kwargs)`(, )?)+": "a misspelt argument is an error, not taken without a word",
}
UNUSED: dict[str, str] = {}
