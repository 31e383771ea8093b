"""Evaluators of pairs and triplets of texts by their similarity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ... import evaluation
from ...errors import InputError, InputTypeError, shown, warn
from ...evaluation.evaluator import Measurement, primary_function
from ...evaluation.metrics import Cuts
from ...similarity import SimilarityFunction
from ..checks import check_list
from .base import EmbeddedBy, TaskEvaluator, check_lengths, function_names, logger

_METRICS = ("accuracy", "accuracy_threshold", "f1", "f1_threshold", "precision", "recall", "ap", "mcc")
_COLUMNS = ("accuracy", "accuracy_threshold", "f1", "precision", "recall", "f1_threshold", "ap", "mcc")
FunctionName = Literal["cosine", "dot", "euclidean", "manhattan"]


class BinaryClassificationEvaluator(TaskEvaluator):
    """Classification of pairs by their similarity; see `minisbert.evaluation.BinaryClassificationEvaluator`.

    If all labels are the same, it warns and gives what is defined.
    """

    def __init__(
        self,
        sentences1: list[str],
        sentences2: list[str],
        labels: list[int],
        name: str = "",
        batch_size: int = 32,
        show_progress_bar: bool = False,
        write_csv: bool = True,
        truncate_dim: int | None = None,
        similarity_fn_names: list[FunctionName] | None = None,
    ) -> None:
        super().__init__(name, batch_size, show_progress_bar, write_csv, truncate_dim)
        check_lengths(sentences1=sentences1, sentences2=sentences2, labels=labels)
        for row, label in enumerate(labels):
            if label not in (0, 1):
                raise InputError(f"labels[{row}] is {label!r}; expected 0 or 1: fix the label")
        self.sentences1, self.sentences2, self.labels = sentences1, sentences2, labels
        self.similarity_fn_names = function_names(similarity_fn_names)
        self.csv_file = self.file_name("binary_classification_evaluation")
        self.csv_headers = ["epoch", "steps"]
        self._append_csv_headers(self.similarity_fn_names)

    @classmethod
    def from_input_examples(cls, examples: list[Any], **kwargs: Any) -> BinaryClassificationEvaluator:
        """Make an evaluator of rows of two texts and a label."""
        first, second = columns_of(examples, 2)
        return cls(first, second, [example.label for example in examples], **kwargs)

    def measure(self, model: Any) -> Measurement:
        """Compute the metrics of `model`."""
        if not self.similarity_fn_names:
            self.similarity_fn_names = [EmbeddedBy(self, model).similarity_fn_name]
        scores = self.compute_metrics(model)
        row = {f"{name}_{metric}": scores[name][metric] for name in scores for metric in _COLUMNS}
        if len(scores) > 1:
            scores["max"] = {metric: max(result[metric] for result in scores.values()) for metric in _METRICS}
        metrics = {f"{name}_{metric}": value for name, result in scores.items() for metric, value in result.items()}
        functions = [SimilarityFunction.of(name) for name in self.similarity_fn_names]
        return Measurement(metrics, f"{primary_function(functions)}_ap", row)

    def compute_metrics(self, model: Any) -> dict[str, dict[str, float]]:
        """Compute the metrics of each similarity function, by its name."""
        names = self.similarity_fn_names or [EmbeddedBy(self, model).similarity_fn_name]
        labels = {int(label) for label in self.labels}
        if len(labels) == 1:
            return self._with_one_class(model, names, positive=1 in labels)
        labels_as_numbers = [int(label) for label in self.labels]
        task = evaluation.BinaryClassificationEvaluator(
            self.sentences1, self.sentences2, labels_as_numbers, similarity_fn_names=names
        )
        row: Mapping[str, Any] = task.measure(EmbeddedBy(self, model)).row  # type: ignore[arg-type]
        return {name: {metric: row[f"{name}_{metric}"] for metric in _METRICS} for name in names}

    compute_metrices = compute_metrics

    def _with_one_class(self, model: Any, names: Sequence[str], *, positive: bool) -> dict[str, dict[str, float]]:
        warn(f"all {len(self.labels)} labels are {int(positive)}; expected both, 0 and 1: the metrics say little")
        columns = (self.sentences1, self.sentences2)
        first, second = (EmbeddedBy(self, model).encode(column, convert_to_tensor=True) for column in columns)
        found: dict[str, dict[str, float]] = {}
        for name in names:
            scores = SimilarityFunction.of(name).pairwise(first, second).cpu().numpy()
            sign = -1 if name in ("euclidean", "manhattan") else 1
            threshold = sign * (scores.min() if positive else np.nextafter(scores.max(), np.inf, dtype=scores.dtype))
            share = float(positive)
            thresholds = {"accuracy_threshold": threshold, "f1_threshold": threshold if positive else 0.0}
            found[name] = {**dict.fromkeys(_METRICS, share), "accuracy": 1.0, **thresholds, "mcc": 0.0}
        return found

    @staticmethod
    def find_best_acc_and_threshold(
        scores: Sequence[float], labels: Sequence[int], high_score_more_similar: bool
    ) -> tuple[float, float]:
        """Find the largest accuracy of a threshold on scores, and that threshold."""
        cuts, sign, positives, rows = _cuts(scores, labels, high_score_more_similar)
        correct = np.append(rows - positives, 2 * cuts.relevant + (rows - positives) - cuts.taken)
        best = int(correct.argmax())
        beyond = np.nextafter(cuts.scores[0], np.inf, dtype=cuts.scores.dtype)
        return float(correct[best] / rows), sign * (cuts.threshold(best - 1) if best else beyond)

    @staticmethod
    def find_best_f1_and_threshold(
        scores: Sequence[float], labels: Sequence[int], high_score_more_similar: bool
    ) -> tuple[float, float, float, float]:
        """Find the largest F1 of a threshold on scores: F1, precision, recall, and that threshold."""
        cuts, sign, positives, _ = _cuts(scores, labels, high_score_more_similar)
        if not positives:
            return 0, 0, 0, 0
        f1 = cuts.f1(positives)
        best = int(f1.argmax())
        recall = float(cuts.relevant[best] / positives)
        return float(f1[best]), float(cuts.precision()[best]), recall, sign * cuts.threshold(best)

    def _append_csv_headers(self, similarity_fn_names: Sequence[str]) -> None:
        added = [f"{name}_{metric}" for name in similarity_fn_names for metric in _COLUMNS]
        self.csv_headers = [*self.csv_headers, *added]


class EmbeddingSimilarityEvaluator(TaskEvaluator):
    """Correlation of similarities with scores; see `minisbert.evaluation.EmbeddingSimilarityEvaluator`."""

    def __init__(
        self,
        sentences1: list[str],
        sentences2: list[str],
        scores: list[float],
        batch_size: int = 16,
        main_similarity: str | SimilarityFunction | None = None,
        similarity_fn_names: list[FunctionName] | None = None,
        name: str = "",
        show_progress_bar: bool = False,
        write_csv: bool = True,
        precision: Literal["float32", "int8", "uint8", "binary", "ubinary"] | None = None,
        truncate_dim: int | None = None,
    ) -> None:
        super().__init__(name, batch_size, show_progress_bar, write_csv, truncate_dim)
        check_lengths(sentences1=sentences1, sentences2=sentences2, scores=scores)
        self.sentences1, self.sentences2, self.scores = sentences1, sentences2, scores
        self.precision = precision
        self.main_similarity = SimilarityFunction.of(main_similarity) if main_similarity else None
        self.similarity_fn_names = function_names(similarity_fn_names, self.main_similarity)
        self.csv_file = self.file_name("similarity_evaluation", f"{f'_{precision}' if precision else ''}_results.csv")
        self.csv_headers = ["epoch", "steps"]
        self._append_csv_headers(self.similarity_fn_names)

    @classmethod
    def from_input_examples(cls, examples: list[Any], **kwargs: Any) -> EmbeddingSimilarityEvaluator:
        """Make an evaluator of rows of two texts and a score."""
        first, second = columns_of(examples, 2)
        return cls(first, second, [example.label for example in examples], **kwargs)

    def measure(self, model: Any) -> Measurement:
        """Compute the correlations of `model`."""
        view = EmbeddedBy(self, model)
        self.similarity_fn_names = self.similarity_fn_names or [view.similarity_fn_name]
        task = evaluation.EmbeddingSimilarityEvaluator(
            self.sentences1,
            self.sentences2,
            self.scores,
            similarity_fn_names=self.similarity_fn_names,
            precision=self.precision,
        )
        measured = task.measure(view)  # type: ignore[arg-type]
        if self.main_similarity is None:
            return measured
        return Measurement(measured.metrics, f"spearman_{self.main_similarity.value}", measured.row)

    def embed_inputs(self, model: Any, sentences: Any, **kwargs: Any) -> Any:
        """Embed texts with the options of the evaluator: (n, d), an array of its precision."""
        options = {"precision": self.precision, "normalize_embeddings": bool(self.precision)}
        return super().embed_inputs(model, sentences, **options, **kwargs)

    @property
    def description(self) -> str:  # type: ignore[override]
        """Title of the task."""
        return "Semantic Similarity"

    def get_config_dict(self) -> dict[str, Any]:
        """Settings for the model card: `truncate_dim` and `precision`, if they are given."""
        return {**super().get_config_dict(), **({"precision": self.precision} if self.precision else {})}

    def _append_csv_headers(self, similarity_fn_names: Sequence[str]) -> None:
        added = [f"{name}_{metric}" for name in similarity_fn_names for metric in ("pearson", "spearman")]
        self.csv_headers = [*self.csv_headers, *added]


class TripletEvaluator(TaskEvaluator):
    """Accuracy of triplets; see `minisbert.evaluation.TripletEvaluator`.

    `main_distance_function` is the old name of `main_similarity_function`.
    """

    def __init__(
        self,
        anchors: Sequence[str],
        positives: Sequence[str],
        negatives: Sequence[str],
        main_similarity_function: str | SimilarityFunction | None = None,
        margin: float | dict[str, float] | None = None,
        name: str = "",
        batch_size: int = 16,
        show_progress_bar: bool = False,
        write_csv: bool = True,
        truncate_dim: int | None = None,
        similarity_fn_names: list[FunctionName] | None = None,
        main_distance_function: str | SimilarityFunction | None = "deprecated",
    ) -> None:
        super().__init__(name, batch_size, show_progress_bar, write_csv, truncate_dim)
        check_lengths(anchors=anchors, positives=positives, negatives=negatives)
        if main_distance_function != "deprecated" and main_similarity_function is None:
            logger.warning("the argument main_distance_function is now called main_similarity_function")
            main_similarity_function = main_distance_function
        main = SimilarityFunction.of(main_similarity_function) if main_similarity_function else None
        self.anchors, self.positives, self.negatives = anchors, positives, negatives
        self.main_similarity_function = main
        self.similarity_fn_names = function_names(similarity_fn_names, main)
        self.margin = evaluation.TripletEvaluator(["a"], ["p"], ["n"], margin=margin).margin
        self.csv_file = self.file_name("triplet_evaluation")
        self.csv_headers = ["epoch", "steps"]
        self._append_csv_headers(self.similarity_fn_names)

    @classmethod
    def from_input_examples(cls, examples: list[Any], **kwargs: Any) -> TripletEvaluator:
        """Make an evaluator of rows of three texts."""
        anchors, positives, negatives = columns_of(examples, 3)
        return cls(anchors, positives, negatives, **kwargs)

    def measure(self, model: Any) -> Measurement:
        """Compute the accuracies of `model`."""
        view = EmbeddedBy(self, model, kinds=True)
        self.similarity_fn_names = self.similarity_fn_names or [view.similarity_fn_name]
        task = evaluation.TripletEvaluator(
            self.anchors,
            self.positives,
            self.negatives,
            margin=self.margin,
            similarity_fn_names=self.similarity_fn_names,
        )
        measured = task.measure(view)  # type: ignore[arg-type]
        main = self.main_similarity_function
        primary = measured.primary if main is None else f"{main.value}_accuracy"
        return Measurement(measured.metrics, primary, measured.row)

    def embed_inputs(self, model: Any, sentences: Any, encode_fn_name: str | None = None, **kwargs: Any) -> Any:
        """Embed texts, as "query" or "document" if `encode_fn_name` says so: (n, d), an array."""
        encode = getattr(model, f"encode_{encode_fn_name}" if encode_fn_name else "encode")
        options = {"batch_size": self.batch_size, "show_progress_bar": self.show_progress_bar}
        return encode(sentences, **options, convert_to_numpy=True, truncate_dim=self.truncate_dim, **kwargs)

    def get_config_dict(self) -> dict[str, Any]:
        """Settings for the model card: `margin` by function unless all are 0, and `truncate_dim` if it is given."""
        margin = {"margin": self.margin} if any(self.margin.values()) else {}
        return {**margin, **super().get_config_dict()}

    def _append_csv_headers(self, similarity_fn_names: Sequence[str]) -> None:
        self.csv_headers = [*self.csv_headers, *(f"accuracy_{name}" for name in similarity_fn_names)]


def columns_of(examples: Sequence[Any], count: int) -> list[list[str]]:
    """Return the first texts of rows as columns.

    Raises:
        InputTypeError: a row is no InputExample.
        InputError: a row has fewer texts.
    """
    check_list(examples, "examples", of="InputExample")
    for row, example in enumerate(examples):
        texts = getattr(example, "texts", None)
        if texts is None or not hasattr(example, "label"):
            raise InputTypeError(f"got examples[{row}]={shown(example)}; expected an InputExample: make one of it")
        if len(texts) < count:
            raise InputError(f"got examples[{row}] with {len(texts)} text(s); expected {count}: drop it or add some")
    return [[example.texts[place] for example in examples] for place in range(count)]


def _cuts(scores: Any, labels: Any, high_is_similar: bool) -> tuple[Cuts, int, int, int]:
    """Return the cuts among scores, the sign of a threshold, and the numbers of positive and of all rows."""
    relevant: NDArray[np.bool_] = np.asarray(labels).astype(bool)
    check_lengths(scores=scores, labels=labels)
    sign = 1 if high_is_similar else -1
    return Cuts.of(sign * np.asarray(scores), relevant), sign, int(relevant.sum()), len(relevant)
