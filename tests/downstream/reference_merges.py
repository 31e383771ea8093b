"""Merge models with the reference: `python reference_merges.py TASKS`, a JSON list of arguments of its `merge`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer

torch.set_num_threads(1)
for task in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
    output = task.pop("output")
    SentenceTransformer.merge(**task).save_pretrained(output, create_model_card=False)
