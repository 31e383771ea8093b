"""Read a model card as a recipe, train again as it says, and compare the two cards.

python examples/reproduce_card.py my-model --output my-next-model  # my-model is that of train_on_pairs.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

from minisbert import card, recipes
from minisbert.data.packaged import GRADED_ANSWERS_TRAIN


def main() -> None:
    """Print the recipe, follow it on other rows, and print the facts that differ between the cards."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a model folder with a card")
    parser.add_argument("--data", type=Path, default=GRADED_ANSWERS_TRAIN)
    parser.add_argument("--columns", default="reference,answer,score", help="the columns to use, in order")
    parser.add_argument("--scale", type=float, nargs=2, default=(0, 5), help="the labels that stand for 0 and 1")
    parser.add_argument("--steps", type=int, help="stop after this many steps")
    parser.add_argument("--output", type=Path, default=Path("my-next-model"))
    options = parser.parse_args()

    recipe = recipes.read_recipe(options.model)
    print(recipes.write_recipe(recipe))
    run = recipes.prepare(
        recipe,
        options.data,
        columns=options.columns.split(","),
        scale=tuple(options.scale),
        settings={"max_steps": options.steps} if options.steps else {},
    )
    history = run.trainer.train()
    run.trainer.model.save_pretrained(options.output)
    print(f"{history.steps} steps, mean loss {history.train_loss:.4f}; the model is in {options.output}")

    before, after = (
        card.parse((folder / "README.md").read_text(encoding="utf-8")) for folder in (options.model, options.output)
    )
    for difference in card.differences(before, after):
        print(difference)


if __name__ == "__main__":
    main()
