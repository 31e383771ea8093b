"""Two objectives of different batch sizes with `fit`, positional arguments, another schedule: print embeddings."""

import json
import sys

import torch
from sentence_transformers import InputExample, SentenceTransformer, losses
from torch.utils.data import DataLoader

PAIRS = [
    ("how is the sky", "the sky is blue"),
    ("what ran fast", "the dog ran fast"),
    ("why is the cat slow", "the cat sat on the mat"),
    ("how red is the sea", "the sea is not red"),
    ("what is on the tree", "a cat is on the tree"),
    ("one or two", "two and three"),
]
TRIPLETS = [
    ("the cat sat", "a cat sat on a mat", "the dog ran"),
    ("the dog ran", "a fast dog", "the slow cat"),
    ("blue sky", "the sky is blue", "the red tree"),
    ("red tree", "a tree", "the sea"),
    ("the sea", "blue sea", "the mat"),
]

model = SentenceTransformer(sys.argv[1], device="cpu")
pairs = DataLoader([InputExample(texts=list(row)) for row in PAIRS], batch_size=3)
triplets = DataLoader([InputExample(texts=list(row)) for row in TRIPLETS], batch_size=2)

model.fit(
    [
        (pairs, losses.MultipleNegativesRankingLoss(model)),
        (triplets, losses.TripletLoss(model, losses.TripletDistanceMetric.COSINE, 0.5)),
    ],
    None,
    2,
    None,
    "warmupcosine",
    1,
    torch.optim.AdamW,
    {"lr": 1e-3, "eps": 1e-6},
    0.01,
    show_progress_bar=False,
)
print(json.dumps(model.encode([row[0] for row in PAIRS])[:, :4].flatten().tolist()))
