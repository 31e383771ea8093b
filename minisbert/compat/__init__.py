"""Code written for sentence-transformers 2.x to 6.x, with minisbert.

    from minisbert import compat

    compat.install()
    from sentence_transformers import SentenceTransformer, losses   # both are minisbert's

or, without a change to the code, `python -m minisbert.compat script.py`. The names of sentence-transformers can also be
imported from here: `from minisbert.compat import SentenceTransformer, losses, util`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import finder
from .finder import install, uninstall
from .paths import NAMES

if TYPE_CHECKING:
    from . import evaluation, losses, models, util
    from .data import InputExample, ParallelSentencesDataset, SentencesDataset
    from .mining import mine_hard_negatives
    from .model import SentenceTransformer, SentenceTransformerModelCardData
    from .samplers import DefaultBatchSampler, MultiDatasetDefaultBatchSampler
    from .training.arguments import SentenceTransformerTrainingArguments
    from .training.trainer import SentenceTransformerTrainer
    from .util import LoggingHandler, SimilarityFunction, quantize_embeddings, resolve_ids

__all__ = [
    "DefaultBatchSampler",
    "InputExample",
    "LoggingHandler",
    "MultiDatasetDefaultBatchSampler",
    "ParallelSentencesDataset",
    "SentenceTransformer",
    "SentenceTransformerModelCardData",
    "SentenceTransformerTrainer",
    "SentenceTransformerTrainingArguments",
    "SentencesDataset",
    "SimilarityFunction",
    "evaluation",
    "install",
    "losses",
    "mine_hard_negatives",
    "models",
    "quantize_embeddings",
    "resolve_ids",
    "uninstall",
    "util",
]


__getattr__ = finder.names_of(__name__)


def __dir__() -> list[str]:
    return sorted({*__all__, *NAMES[""]})
