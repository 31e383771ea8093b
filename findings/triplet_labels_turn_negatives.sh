#!/usr/bin/env bash
# sentence-transformers 6.2.0, torch 2.13.0, Python 3.11.
#
# AnglELoss accepts rows of anchor, positive and negative. Without labels a positive counts as 1 and a negative as 0. A
# label y, however, counts for the positive, and 1 - y for the negative: a row whose label says that its positive is
# only a little similar (0.3) thereby says that its negative is rather similar (0.7), and trains it above the positive.
#
# Output seen:
#   without labels, negatives count as 0: True
#   with labels, negatives count as 0: False
#   with labels, negatives count as 1 - label: True
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet sentence-transformers==6.2.0 transformers==5.23.0 torch==2.13.0
venv/bin/python -W ignore - <<'PY'
import sys

import torch
from sentence_transformers.losses import AnglELoss
from sentence_transformers.util import pairwise_angle_sim


class Given(torch.nn.Module):
    """Embeddings that are given."""

    def forward(self, features):
        return {"sentence_embedding": features["x"]}


torch.manual_seed(0)
anchor, positive, negative = (torch.randn(4, 8) for _ in range(3))
loss = AnglELoss(Given())


def of_pairs(labels, labels_of_negatives):
    """The loss as a ranking of all pairs by their labels."""
    scores = 20 * torch.cat([pairwise_angle_sim(anchor, other) for other in (positive, negative)])
    values = torch.cat([labels, labels_of_negatives])
    gaps = (scores[:, None] - scores[None, :])[values[:, None] < values[None, :]]
    return torch.cat([torch.zeros(1), gaps]).logsumexp(0)


def equal(labels, labels_of_negatives, given):
    found = loss([{"x": part} for part in (anchor, positive, negative)], given)
    return abs(float(found - of_pairs(labels, labels_of_negatives))) < 1e-4


ones, labels = torch.ones(4), torch.tensor([0.9, 0.6, 0.8, 0.3])
seen = [equal(ones, 0 * ones, None), equal(labels, 0 * labels, labels), equal(labels, 1 - labels, labels)]
print("without labels, negatives count as 0:", seen[0])
print("with labels, negatives count as 0:", seen[1])
print("with labels, negatives count as 1 - label:", seen[2])
sys.exit(seen != [True, False, True])
PY
