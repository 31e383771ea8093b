"""Classes and entailed pairs with `fit`, an evaluator of the user's own, the best model saved and loaded again."""

import json
import math
import sys
import tempfile

import torch
from sentence_transformers import InputExample, SentenceTransformer, losses, util
from sentence_transformers.datasets import NoDuplicatesDataLoader
from sentence_transformers.evaluation import SentenceEvaluator
from torch.utils.data import DataLoader

LABELS = {"contradiction": 0, "entailment": 1, "neutral": 2}
ROWS = [
    ("the cat sat on the mat", "a cat is on a mat", "entailment"),
    ("the dog ran fast", "the dog is slow", "contradiction"),
    ("the sky is blue", "the sea is red", "neutral"),
    ("one cat and two dog", "three and not two", "neutral"),
    ("three dog ran to the sea", "a dog ran", "entailment"),
    ("what is the sky", "the sky is not", "contradiction"),
    ("the red mat", "a mat is red", "entailment"),
    ("a slow cat", "a fast cat", "contradiction"),
    ("the tree is red", "how is the sea", "neutral"),
]


class Gap(SentenceEvaluator):
    """The similarity of entailed pairs above that of the others."""

    def __call__(self, model, output_path=None, epoch=-1, steps=-1):
        self.primary_metric = "evaluator"
        one, two = (model.encode([row[column] for row in ROWS], convert_to_tensor=True) for column in (0, 1))
        similarities = util.cos_sim(one, two).diagonal()
        entailed = torch.tensor([row[2] == "entailment" for row in ROWS])
        return float(similarities[entailed].mean() - similarities[~entailed].mean())


model = SentenceTransformer(sys.argv[1], device="cpu")
torch.manual_seed(5)
classes = losses.SoftmaxLoss(
    model=model, sentence_embedding_dimension=model.get_sentence_embedding_dimension(), num_labels=len(LABELS)
)
graded = [InputExample(texts=[one, two], label=LABELS[label]) for one, two, label in ROWS]
entailed = [InputExample(texts=[one, two]) for one, two, label in ROWS if label == "entailment"]
loader = DataLoader(graded, shuffle=True, batch_size=3)
ranking = NoDuplicatesDataLoader(entailed * 2, batch_size=3)
scores = []

with tempfile.TemporaryDirectory() as output:
    model.fit(
        train_objectives=[(loader, classes), (ranking, losses.MultipleNegativesRankingLoss(model))],
        evaluator=Gap(),
        epochs=3,
        evaluation_steps=3,
        warmup_steps=math.ceil(len(loader) * 0.1),
        scheduler="WarmupCosineWithHardRestarts",
        optimizer_params={"lr": 2e-3, "betas": (0.9, 0.99)},
        weight_decay=0.1,
        output_path=output,
        callback=lambda score, epoch, steps: scores.append([score, epoch, steps]),
        show_progress_bar=False,
    )
    best = SentenceTransformer(output, device="cpu")

found = [number for score in scores for number in score]
print(json.dumps([*found, Gap()(best), Gap()(model), *best.encode("the cat sat")[:4].tolist()]))
