"""Train a LoRA adapter, save it alone in PEFT's format, and load it again with its base.

python examples/train_lora.py --output my-adapter
"""

from __future__ import annotations

import argparse
from pathlib import Path

from train_on_pairs import COLUMNS, heldout_evaluator

from minisbert import LoraConfig, SentenceTransformer, Trainer, TrainingConfig, losses
from minisbert.data.packaged import GRADED_ANSWERS_TRAIN


def main() -> None:
    """Train an adapter of rank 8 on the packaged graded answers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, help="stop after this many steps")
    parser.add_argument("--output", type=Path, default=Path("my-adapter"))
    options = parser.parse_args()

    model = SentenceTransformer("all-MiniLM-L6-v2")
    evaluator = heldout_evaluator()
    before = evaluator(model)["spearman_cosine"]
    model.add_adapter(LoraConfig(r=8, lora_alpha=16, lora_dropout=0.1, target_modules=["query", "value"]))
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    every = sum(parameter.numel() for parameter in model.parameters())

    # An adapter takes a higher rate than all weights would.
    config = TrainingConfig(epochs=4, batch_size=16, learning_rate=1e-3, warmup_steps=0.1, max_steps=options.steps)
    loss = losses.CosineSimilarityLoss()
    Trainer(model, GRADED_ANSWERS_TRAIN, loss=loss, config=config, columns=COLUMNS, scale=(0, 5)).train()
    model.save_pretrained(options.output)  # 0.3 MB; model.merge_and_unload() before it saves all weights instead

    # Expect about the gain of training all weights, with less than 1 % of them trained.
    after = evaluator(SentenceTransformer(options.output))["spearman_cosine"]  # finds the base, and merges
    size = (options.output / "adapter_model.safetensors").stat().st_size / 1e6
    print(f"trained {trained:,} of {every:,} parameters; the adapter in {options.output} has {size:.1f} MB")
    print(f"Spearman {before:.4f} before, {after:.4f} after")


if __name__ == "__main__":
    main()
