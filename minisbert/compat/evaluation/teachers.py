"""Evaluators of students of a teacher, of translations and of classes, with the reference's interface."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ... import evaluation
from ...errors import InputTypeError, shown
from ...evaluation.evaluator import Measurement
from ...evaluation.translation import SHOWN
from .base import EmbeddedBy, TaskEvaluator, check_lengths


class MSEEvaluator(TaskEvaluator):
    """Distance of a student's embeddings from a teacher's; see `minisbert.evaluation.MSEEvaluator`."""

    def __init__(
        self,
        source_sentences: list[str],
        target_sentences: list[str],
        teacher_model: Any = None,
        show_progress_bar: bool = False,
        batch_size: int = 32,
        name: str = "",
        write_csv: bool = True,
        truncate_dim: int | None = None,
    ) -> None:
        super().__init__(name, batch_size, show_progress_bar, write_csv, truncate_dim)
        check_lengths(source_sentences=source_sentences, target_sentences=target_sentences)
        self.target_sentences = target_sentences
        self.csv_file = f"mse_evaluation_{name}_results.csv"
        self.csv_headers = ["epoch", "steps", "MSE"]
        self.primary_metric = "negative_mse"
        teacher = None if teacher_model is None else EmbeddedBy(self, _teacher(teacher_model))
        self._task = evaluation.MSEEvaluator(source_sentences, target_sentences, teacher)
        self.source_embeddings = self._task.source_embeddings

    def measure(self, model: Any) -> Measurement:
        """Compare the embeddings of `model` with those of the teacher."""
        return self._task.measure(EmbeddedBy(self, model))  # type: ignore[arg-type]

    @property
    def description(self) -> str:  # type: ignore[override]
        """Title of the task."""
        return "Knowledge Distillation"


class MSEEvaluatorFromDataFrame(TaskEvaluator):
    """`MSEEvaluator` over pairs of columns of a table; see `minisbert.evaluation.MSEEvaluatorFromDataFrame`."""

    def __init__(
        self,
        dataframe: list[dict[str, str]],
        teacher_model: Any,
        combinations: list[tuple[str, str]],
        batch_size: int = 8,
        name: str = "",
        write_csv: bool = True,
        truncate_dim: int | None = None,
    ) -> None:
        super().__init__(name, batch_size, False, write_csv, truncate_dim)
        self.combinations = combinations
        self.csv_file = self.file_name("mse_evaluation")
        self.csv_headers = ["epoch", "steps", *(f"{source}-{target}" for source, target in combinations)]
        self.primary_metric = "negative_mse"
        self._task = evaluation.MSEEvaluatorFromDataFrame(
            dataframe, EmbeddedBy(self, _teacher(teacher_model)), combinations
        )
        self.data, self.teacher_embeddings = self._task.data, self._task.teacher_embeddings

    def measure(self, model: Any) -> Measurement:
        """Compare the embeddings of `model` with those of the teacher."""
        return self._task.measure(EmbeddedBy(self, model))  # type: ignore[arg-type]

    @property
    def description(self) -> str:  # type: ignore[override]
        """Title of the task."""
        return "Knowledge Distillation"

    def get_config_dict(self) -> dict[str, Any]:
        """Settings for the model card: none."""
        return {}


class TranslationEvaluator(TaskEvaluator):
    """Accuracy of finding a text's translation; see `minisbert.evaluation.TranslationEvaluator`.

    `print_wrong_matches` writes to standard output.
    """

    def __init__(
        self,
        source_sentences: list[str],
        target_sentences: list[str],
        show_progress_bar: bool = False,
        batch_size: int = 16,
        name: str = "",
        print_wrong_matches: bool = False,
        write_csv: bool = True,
        truncate_dim: int | None = None,
    ) -> None:
        super().__init__(name, batch_size, show_progress_bar, write_csv, truncate_dim)
        check_lengths(source_sentences=source_sentences, target_sentences=target_sentences)
        self.source_sentences, self.target_sentences = source_sentences, target_sentences
        self.print_wrong_matches = print_wrong_matches
        self.csv_file = self.file_name("translation_evaluation")
        self.csv_headers = ["epoch", "steps", "src2trg", "trg2src"]
        self.primary_metric = "mean_accuracy"

    def measure(self, model: Any) -> Measurement:
        """Compute the accuracies of `model`."""
        task = _Printing(self.source_sentences, self.target_sentences, print_wrong_matches=self.print_wrong_matches)
        return task.measure(EmbeddedBy(self, model))  # type: ignore[arg-type]

    def embed_inputs(self, model: Any, sentences: Any, **kwargs: Any) -> Any:
        """Embed texts with the options of the evaluator: a list of tensors (d,)."""
        options = {"batch_size": self.batch_size, "show_progress_bar": self.show_progress_bar}
        return model.encode(sentences, **options, convert_to_numpy=False, truncate_dim=self.truncate_dim, **kwargs)


class _Printing(evaluation.TranslationEvaluator):
    """Writes texts that are matched wrongly to standard output."""

    def show(self, number: int, found: int, scores: Tensor) -> None:
        """Write a source, the target found for it, its own, and the most similar ones."""
        texts = self.target_sentences
        lines = [
            f"source {number} is most similar to target {found} instead of target {number}",
            f"source:       {self.source_sentences[number]}",
            f"target found: {texts[found]} ({scores[found]:.4f})",
            f"its own:      {texts[number]} ({scores[number]:.4f})",
        ]
        best = torch.topk(scores, min(SHOWN, len(scores))).indices.tolist()
        lines += [f"    target {other} ({scores[other]:.4f}) {texts[other]}" for other in best]
        sys.stdout.write("\n".join(["", *lines, ""]))


class LabelAccuracyEvaluator(TaskEvaluator):
    """Accuracy of the classes of a `SoftmaxLoss`; see `minisbert.evaluation.LabelAccuracyEvaluator`.

    Its rows are those of the data loader, which need not give batches of features.
    """

    def __init__(self, dataloader: Any, name: str = "", softmax_model: Any = None, write_csv: bool = True) -> None:
        super().__init__(name, 32, False, write_csv, None)
        self.dataloader = dataloader
        self.softmax_model = softmax_model
        self.csv_file = self.file_name("accuracy_evaluation")
        self.csv_headers = ["epoch", "steps", "accuracy"]
        self.primary_metric = "accuracy"

    def measure(self, model: Any) -> Measurement:
        """Compute the accuracy of `model` with the classifier."""
        model.eval()
        rows = _rows(self.dataloader)
        task = evaluation.LabelAccuracyEvaluator(rows, softmax_model=self.softmax_model, batch_size=self.batch_size)
        return task.measure(model)


def _teacher(model: Any) -> Any:
    if isinstance(model, str) or not callable(getattr(model, "encode", None)):
        raise InputTypeError(f"got teacher_model={shown(model)}; expected a model with encode(): load one")
    return model


def _rows(data: Any) -> Any:
    """Return the rows that a data loader draws, or rows in another form as they are."""
    if not isinstance(data, DataLoader):
        return data
    rows: Any = data.dataset
    batches: Sequence[Any] | None = getattr(data, "batch_sampler", None)
    if batches is None or not hasattr(rows, "__getitem__"):
        return list(rows)
    return [rows[index] for batch in batches for index in batch]
