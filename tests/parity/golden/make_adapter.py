"""Write the golden adapter: what PEFT 0.21 saves for a tiny BERT, and the embeddings of the reference with it.

    python tests/parity/golden/make_adapter.py

It needs peft. The adapter is drawn, so that both of its matrices have numbers.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import torch

GOLDEN = Path(__file__).parent
sys.path[:0] = [str(GOLDEN.parents[1] / "helpers"), str(GOLDEN.parents[2])]

import tiny_models  # noqa: E402

TEXTS = ["a cat sat on the mat", "why is the sky blue", "one"]


def main() -> None:
    """Write the folder adapter/ beside this file."""
    import peft
    import sentence_transformers as reference

    with tempfile.TemporaryDirectory() as scratch:
        base = tiny_models.build(Path(scratch) / "base", "bert")
        model = reference.SentenceTransformer(str(base), device="cpu")
        torch.manual_seed(0)
        targets = ["query", "attention.output.dense"]
        model.add_adapter(peft.LoraConfig(r=2, lora_alpha=6, target_modules=targets, init_lora_weights=False))
        model.save_pretrained(str(Path(scratch) / "adapted"))
        (GOLDEN / "adapter").mkdir(exist_ok=True)
        config = json.loads((Path(scratch) / "adapted" / "adapter_config.json").read_text(encoding="utf-8"))
        config |= {"base_model_name_or_path": "acme/tiny-bert", "target_modules": sorted(config["target_modules"])}
        (GOLDEN / "adapter" / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        saved = (Path(scratch) / "adapted" / "adapter_model.safetensors").read_bytes()
        (GOLDEN / "adapter" / "adapter_model.safetensors").write_bytes(saved)
        embeddings = {text: model.encode(text).tolist() for text in TEXTS}
    (GOLDEN / "adapter" / "embeddings.json").write_text(json.dumps(embeddings) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
