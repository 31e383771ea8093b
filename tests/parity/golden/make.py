"""Write the golden vectors: what sentence-transformers 6.2.0 and 5.1.2 compute, for tests that run without them.

    MINISBERT_REFERENCES=/path/to/5.1.2/environment python tests/parity/golden/make.py

Training and losses are computed in float64, so that another processor's rounding stays far below the bound.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

GOLDEN = Path(__file__).parent
sys.path[:0] = [str(GOLDEN.parents[1] / "helpers"), str(GOLDEN.parents[2])]

import golden_inputs as inputs  # noqa: E402
import tiny_models  # noqa: E402
from replay_cases import CASES, VERSIONS, their_runs  # noqa: E402

from minisbert.storage.locate import packaged_model  # noqa: E402


def main() -> None:
    """Write embeddings.npz, losses.npz and replay.json beside this file."""
    import sentence_transformers as reference

    assert reference.__version__ == VERSIONS["6.2"]
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)

        def folder(name: str) -> Path:
            place = root / name
            if name == "minilm":
                return packaged_model() or place
            return place if place.exists() else tiny_models.build(place, name)

        np.savez_compressed(GOLDEN / "embeddings.npz", **_embeddings(reference, folder, root))
        np.savez_compressed(GOLDEN / "losses.npz", **_losses(reference.sentence_transformer.losses))
        replay = {}
        for name, version in VERSIONS.items():
            (root / version).mkdir()
            runs = their_runs(version, root / version, folder, CASES, dtype="float64")
            replay[name] = {
                case: {"losses": values, "weights": inputs.summary(saved)} for case, (values, saved) in runs.items()
            }
    (GOLDEN / "replay.json").write_text(json.dumps(replay, indent=1) + "\n", encoding="utf-8")


def _embeddings(reference: Any, folder: Any, root: Path) -> dict[str, np.ndarray]:
    found = {}
    for name in inputs.MODELS:
        model = reference.SentenceTransformer(str(folder(name)), device="cpu")
        found[name] = model.encode(inputs.TEXTS)
    for mode in inputs.POOLING_MODES:
        place = inputs.with_pooling(folder("bert"), root / f"pooling-{mode}", mode)
        model = reference.SentenceTransformer(str(place), device="cpu")
        found[f"pooling {mode}"] = model.encode(inputs.TEXTS, prompt=inputs.PROMPT)
    return found


def _losses(losses: Any) -> dict[str, np.ndarray]:
    found = {}
    for name, (kind, columns) in inputs.LOSSES.items():
        embeddings = [torch.from_numpy(values).requires_grad_() for values in inputs.columns(columns)]
        given = iter(embeddings)
        loss = getattr(losses, kind)(lambda features, given=given: {"sentence_embedding": next(given)})
        value = loss([{}] * columns, torch.from_numpy(inputs.labels()))
        value.backward()
        found[name] = np.array(value.item())
        found[f"{name}, gradients"] = np.stack([part.grad.numpy() for part in embeddings])
    return found


if __name__ == "__main__":
    main()
