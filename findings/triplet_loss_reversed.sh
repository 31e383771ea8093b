#!/usr/bin/env bash
# sentence-transformers 5.1.2 (transformers 4.57.6) and 6.2.0 (transformers 5.23.0), torch 2.13.0 (CPU), Python 3.11.
#
# TripletLoss with its default metric, the Euclidean distance, has the opposite sign in 5.1.2: the "distance" is minus
# the distance, so that the loss grows when the positive is nearer than the negative, and training moves positives away.
# The same with the Manhattan distance; only the cosine distance is right. 6.2.0 is right with all three. Anchor (0, 0)
# and margin 5; the loss should be max(0, d(anchor, positive) - d(anchor, negative) + 5).
#
# Output seen (loss with the positive at distance 1 and the negative at 4 | the other way round):
#   5.1.2, EUCLIDEAN: 8 | 2
#   5.1.2, MANHATTAN: 8 | 2
#   6.2.0, EUCLIDEAN: 2 | 8
#   6.2.0, MANHATTAN: 2 | 8
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 TRANSFORMERS_VERBOSITY=error
cat > loss.py <<'PY'
import sys

import torch
from sentence_transformers import __version__, losses

anchor, near, far = (torch.tensor([[distance, 0.0]]) for distance in (0.0, 1.0, 4.0))
results = []
for metric in ("EUCLIDEAN", "MANHATTAN"):
    function = getattr(losses.TripletDistanceMetric, metric)
    loss = losses.TripletLoss(torch.nn.Identity(), distance_metric=function, triplet_margin=5)
    good = loss.compute_loss_from_embeddings([anchor, near, far], None).item()
    bad = loss.compute_loss_from_embeddings([anchor, far, near], None).item()
    print(f"{__version__}, {metric}: {good:.0f} | {bad:.0f}")
    results.append((round(good), round(bad)))
same = results == [(8, 2) if __version__ == "5.1.2" else (2, 8)] * 2
sys.exit(None if same else "the behaviour has changed")
PY
for versions in 5.1.2:4.57.6 6.2.0:5.23.0; do
    python3 -m venv venv
    venv/bin/pip install --quiet torch==2.13.0 "sentence-transformers==${versions%:*}" "transformers==${versions#*:}"
    venv/bin/python -W ignore loss.py
    rm -r venv
done
