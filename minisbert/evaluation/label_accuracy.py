"""Accuracy of the classes that a classifier over two embeddings gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader

from ..data.roles import TrainingRows, training_rows
from ..errors import ConfigError, InputError
from ..losses import SoftmaxLoss
from .evaluator import Measurement, TaskEvaluator

if TYPE_CHECKING:
    from ..model import EmbeddingModel


class LabelAccuracyEvaluator(TaskEvaluator):
    """Share of rows to which the classifier of a `SoftmaxLoss` gives their class.

    The metric is `accuracy`.

    Args:
        dataloader: rows of two texts and a class, in any form that `Trainer` takes, or a DataLoader over such rows.
        name: put before the metric's name and into the file name.
        softmax_model: the loss that the model is trained with.
        write_csv: append to a CSV file where an output path is given.
        batch_size: most texts in one forward pass; by default only the number of tokens is limited.
        show_progress_bar: show one on a terminal.

    Raises:
        ConfigError: `softmax_model` is no SoftmaxLoss.
        InputError: the rows do not fit it, or name their classes and not all occur, which leaves their numbers open.
    """

    description = "Label Accuracy"

    def __init__(
        self,
        dataloader: Any,
        *,
        name: str = "",
        softmax_model: SoftmaxLoss | None = None,
        write_csv: bool = True,
        batch_size: int | None = None,
        show_progress_bar: bool = False,
    ) -> None:
        super().__init__(name, batch_size, show_progress_bar, write_csv, None)
        if not isinstance(softmax_model, SoftmaxLoss):
            raise ConfigError(
                f"got {type(softmax_model).__name__} as softmax_model; expected the SoftmaxLoss that is trained"
            )
        data = dataloader.dataset if isinstance(dataloader, DataLoader) else dataloader
        rows = training_rows(data, classes=True)
        softmax_model.check_rows(tuple(rows.texts), rows.labels)
        _check_names(rows, softmax_model.num_labels)
        self.softmax_model = softmax_model
        self.columns = [list(texts) for texts in rows.texts.values()]
        self.labels = torch.as_tensor(rows.labels).long()
        self.csv_file = self.file_name("accuracy_evaluation")

    def measure(self, model: EmbeddingModel) -> Measurement:
        """Compute the accuracy of `model` with the classifier."""
        embeddings = [self.embed(model.encode, column, convert_to_tensor=True) for column in self.columns]
        loss = self.softmax_model.to(embeddings[0].device)
        with torch.no_grad():
            predicted = loss.scores(embeddings).argmax(dim=1).cpu()
        accuracy = float((predicted == self.labels).double().mean())
        return Measurement({"accuracy": accuracy}, "accuracy", {"accuracy": accuracy})


def _check_names(rows: TrainingRows, classes: int) -> None:
    if rows.classes and len(rows.classes) != classes:
        raise InputError(
            f"got rows with {len(rows.classes)} names of classes for a classifier of {classes}; expected all names, or "
            f"the numbers that they have in training: number the classes"
        )
