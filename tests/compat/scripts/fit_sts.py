"""Graded pairs with `fit`, as in version 2: print the scores during training, and parts of embeddings after it."""

import json
import sys

import torch
from sentence_transformers import InputExample, SentenceTransformer, losses
from sentence_transformers.evaluation import EmbeddingSimilarityEvaluator
from torch.utils.data import DataLoader

ROWS = [
    ("the cat sat on the mat", "a cat sat on a mat", 0.9),
    ("the dog ran fast", "the dog ran slow", 0.6),
    ("the sky is blue", "the sea is blue", 0.5),
    ("how red is the tree", "why is the tree red", 0.8),
    ("one cat and two dog", "the sky is red", 0.0),
    ("three dog ran to the sea", "a dog ran to sea", 0.85),
    ("what is the sky", "how fast is the dog", 0.1),
    ("not the red mat", "the blue mat", 0.4),
    ("a slow cat", "a slow dog", 0.55),
]

model = SentenceTransformer(sys.argv[1], device="cpu")
examples = [InputExample(texts=[one, two], label=score) for one, two, score in ROWS]
torch.manual_seed(3)
loader = DataLoader(examples, shuffle=True, batch_size=4)
loss = losses.CosineSimilarityLoss(model=model)
evaluator = EmbeddingSimilarityEvaluator.from_input_examples(examples, name="dev", write_csv=False)
scores = []

model.fit(
    train_objectives=[(loader, loss)],
    evaluator=evaluator,
    epochs=2,
    evaluation_steps=2,
    warmup_steps=2,
    optimizer_params={"lr": 1e-3},
    callback=lambda score, epoch, steps: scores.append(score),
    show_progress_bar=False,
)
embeddings = model.encode([row[0] for row in ROWS], convert_to_tensor=True)
print(json.dumps([*map(float, scores), *map(float, embeddings[:, :3].flatten())]))
