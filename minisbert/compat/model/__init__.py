"""`SentenceTransformer` with the reference's arguments and methods, and the data of its model card."""

from .card import SentenceTransformerModelCardData as SentenceTransformerModelCardData
from .sentence_transformer import SentenceTransformer as SentenceTransformer
