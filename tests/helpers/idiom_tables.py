"""Habits of tests/compat/idioms for which minisbert.compat and the reference do not do the same, and why."""

from __future__ import annotations

_POOLING = "the names of modes that versions 2 to 5 have are still there"
_POOLER = "a pooler that no embedding depends on is not among the parameters"
_POSITIONS = "versions 2 to 4 take these arguments by position"
# The reference, in version 6.2, raises an error; compat returns what is meant.
FREER = {
    "pooling": _POOLING,
    "_modules['1']": _POOLING,
    "Pooling(word_embedding_dimension=)": _POOLING,
    "Pooling(32, 'cls')": _POOLING,
    "Pooling(pooling_mode=lasttoken)": _POOLING,
    "SentenceTransformer(Path)": "version 6.2 fails on a Path by mistake",
    "SentenceTransformer(name, None)": _POSITIONS,
    "SentenceTransformer(name, None, 'cpu')": _POSITIONS,
    "encode(S, 32)": "version 2 has the batch size in second place",
    "encode(series)": "versions 2 to 5 take it",
    "load_state_dict by older names": "weights saved with versions 2 to 5 fit, too",
    "fit, class of a loss": "a class of losses is a function that makes one of a model",
}
# Both return something, and it is not the same.
DIFFERENT = {
    "auto_model": "the encoder is minisbert's own, seen through a view",
    "encoder.layer": "the encoder is minisbert's own, seen through a view",
    "freeze layers": _POOLER,
    "freeze by name": _POOLER,
    "weight decay groups": _POOLER,
    "named_parameters": _POOLER,
    "state_dict": _POOLER,
    "number of parameters": _POOLER,
    "max_seq_length above positions": "texts are cut where the positions end, with a warning: longer ones fail",
    "encode([])": "an array of no rows has the width and dtype of embeddings, not none and float64",
    "possible values": "maxsim belongs to multi-vector models",
    "fit, evaluation": "evaluations between the ends of epochs are written to the same file, not to a second folder",
    "Trainer, lists of negatives": "each text of a list is a negative, with a warning, not a half of a pair",
}
# Raised by compat as by the reference.
RAISED = {
    "SentenceTransformer(backend=onnx)": "ConfigError",
    "SentenceTransformer()": "ConfigError",
    "SentenceTransformer(no such folder)": "ModelError",
    "SentenceTransformer(default_prompt_name unknown)": "ConfigError",
    "similarity_fn_name unknown": "ConfigError",
    "encode(generator)": "InputTypeError",
    "encode(set)": "InputTypeError",
    "encode(keys)": "InputTypeError",
    "encode([None])": "InputTypeError",
    "encode(None)": "InputTypeError",
    "encode([1, 2])": "InputTypeError",
    "encode([nan])": "InputTypeError",
    "encode([{'a': x}])": "InputTypeError",
    "encode(S, output_value='x')": "ConfigError",
    "encode(S, precision='x')": "ConfigError",
    "encode(S, tsak=)": "ConfigError",
    "encode(S, prompt_name=unknown)": "ConfigError",
    "EmbeddingSimilarityEvaluator(other lengths)": "InputError",
    "images": "InputTypeError",
    "fit, unknown scheduler": "ConfigError",
    "fit, object as optimizer": "TypeError",
    "Trainer, default loss": "InputError",
    "Trainer, missing text": "InputError",
    "arguments misspelt": "TypeError",
}
# Things that minisbert has not, refused by name; the reference wants files from the network, or a package, for them.
REFUSED = {
    "CrossEncoder": "ConfigError",
    "SparseEncoder": "ConfigError",
    "retrieve and rerank": "ConfigError",
    "CLIPModel": "ConfigError",
    "Trainer, hyperparameter search": "ConfigError",
}
# Habits that need a package which need not be there: in compat, or in the reference only.
WITH_PACKAGES = ("faiss", "adapter of PEFT", "clusters of scikit-learn", "images")
WITH_PACKAGES_THERE = ("fit, TSDAE",)
