"""The loop of version 2, with epochs of a number of steps and a batch sampler: print embeddings."""

import json
import sys

import torch
from sentence_transformers import InputExample, SentenceTransformer, losses
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

ROWS = [
    ("the cat sat on the mat", "a cat sat on a mat", 0.9),
    ("the dog ran fast", "the dog ran slow", 0.6),
    ("the sky is blue", "the sea is blue", 0.5),
    ("how red is the tree", "why is the tree red", 0.8),
    ("one cat and two dog", "the sky is red", 0.0),
    ("three dog ran to the sea", "a dog ran to sea", 0.85),
    ("what is the sky", "how fast is the dog", 0.1),
]

model = SentenceTransformer(sys.argv[1], device="cpu")
graded = [InputExample(texts=[one, two], label=score) for one, two, score in ROWS]
pairs = [InputExample(texts=[one, two]) for one, two, _ in ROWS]
torch.manual_seed(2)
first = DataLoader(graded, shuffle=True, batch_size=3)
second = DataLoader(pairs, batch_sampler=BatchSampler(SequentialSampler(pairs), 4, drop_last=False))

model.old_fit(
    train_objectives=[(first, losses.CoSENTLoss(model)), (second, losses.MultipleNegativesRankingLoss(model))],
    epochs=2,
    steps_per_epoch=4,
    warmup_steps=2,
    optimizer_params={"lr": 1e-4},
    show_progress_bar=False,
)
print(json.dumps(model.encode([row[0] for row in ROWS])[:, :4].flatten().tolist()))
