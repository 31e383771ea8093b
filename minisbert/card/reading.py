"""A model card from a file, and where the run it tells of came from."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import InputError
from ..storage.files import LONGEST_CARD, open_file
from .facts import CardFacts, DatasetFacts
from .parsing import parse


def read_card(path: str | Path) -> CardFacts:
    """The facts of the card in a file.

    Raises:
        InputError: the file cannot be read, or holds no card that was generated.
    """
    try:
        with open_file(Path(path)) as file:
            content = file.read(LONGEST_CARD + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {path} ({reason}); expected a model card: check the path") from None
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text or len(content) > LONGEST_CARD:
        raise InputError(f"{path} is no text; expected a model card, such as the README.md of a model")
    try:
        return parse(text)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def comes_from_fit(card: CardFacts) -> bool:
    """Whether the reference's `fit` made the card.

    Its optimizer and schedule are its own, so that learning rate, weight decay and warm-up stand in such a card as
    defaults that were not used. Cards of minisbert's `fit` state the true ones. The sign is that it prints a whole
    number where the Trainer has 1.0; a `fit` with a `max_grad_norm` of its own cannot be told.
    """
    unnamed = bool(card.training_datasets) and all(map(_made_of_examples, card.training_datasets))
    return unnamed and card.hyperparameters.get("max_grad_norm") == "1"


def _made_of_examples(dataset: DatasetFacts) -> bool:
    texts = [column for column in dataset.columns if column != "label"]
    return not dataset.name and all(re.fullmatch(r"sentence_\d+", column) for column in texts)
