"""Accuracy of finding a text's translation among all translations."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..similarity import normalize_embeddings
from .evaluator import Measurement, TaskEvaluator, check_rows

if TYPE_CHECKING:
    from ..model import EmbeddingModel

_logger = logging.getLogger(__name__)
_SCORES_AT_ONCE = 2**24  # 64 MiB of scores
SHOWN = 5  # best texts for one that is matched wrongly


class TranslationEvaluator(TaskEvaluator):
    """Share of texts whose most similar text among all translations, by cosine, is their own.

    Metrics `src2trg_accuracy` from source to target, `trg2src_accuracy` back, and `mean_accuracy`, the primary one.
    A translation counts as found if its text is equal.

    Args:
        source_sentences: texts.
        target_sentences: their translations, in the same order.
        show_progress_bar: show one on a terminal.
        batch_size: most texts in one forward pass; by default only the number of tokens is limited.
        name: put before metric names and into the file name.
        print_wrong_matches: log the texts that are matched wrongly, at INFO, with the most similar ones.
        write_csv: append to a CSV file where an output path is given.
        truncate_dim: evaluate only the leading dimensions.

    Raises:
        InputError: the lists differ in length or are empty.
    """

    description = "Translation"

    def __init__(
        self,
        source_sentences: Sequence[str],
        target_sentences: Sequence[str],
        *,
        show_progress_bar: bool = False,
        batch_size: int | None = None,
        name: str = "",
        print_wrong_matches: bool = False,
        write_csv: bool = True,
        truncate_dim: int | None = None,
    ) -> None:
        super().__init__(name, batch_size, show_progress_bar, write_csv, truncate_dim)
        self.source_sentences, self.target_sentences = check_rows(
            source_sentences=source_sentences, target_sentences=target_sentences
        )
        self.print_wrong_matches = print_wrong_matches
        self.csv_file = self.file_name("translation_evaluation")

    def measure(self, model: EmbeddingModel) -> Measurement:
        """Compute the accuracies of `model`."""
        columns = (self.source_sentences, self.target_sentences)
        sources, targets = (
            normalize_embeddings(torch.as_tensor(self.embed(model.encode, texts, convert_to_tensor=True)).float())
            for texts in columns
        )
        there = self._accuracy(sources, targets, self.target_sentences, shown=self.print_wrong_matches)
        back = self._accuracy(targets, sources, self.source_sentences, shown=False)
        metrics = {"src2trg_accuracy": there, "trg2src_accuracy": back, "mean_accuracy": (there + back) / 2}
        return Measurement(metrics, "mean_accuracy", {"src2trg": there, "trg2src": back})

    def _accuracy(self, queries: Tensor, candidates: Tensor, texts: Sequence[str], *, shown: bool) -> float:
        """Return the share of queries whose best candidate has the text of their own."""
        correct, step = 0, max(1, _SCORES_AT_ONCE // len(candidates))
        for start in range(0, len(queries), step):
            scores = queries[start : start + step] @ candidates.T  # (queries, candidates)
            for number, found in enumerate(scores.argmax(dim=1).tolist(), start):
                right = texts[found] == texts[number]
                correct += right
                if shown and not right:
                    self.show(number, found, scores[number - start])
        return correct / len(queries)

    def show(self, number: int, found: int, scores: Tensor) -> None:
        """Log a source, the target found for it, its own, and the most similar ones."""
        _logger.info(
            "source %d %r: found target %d %r (%.4f) instead of target %d %r (%.4f)",
            number,
            self.source_sentences[number],
            found,
            self.target_sentences[found],
            scores[found],
            number,
            self.target_sentences[number],
            scores[number],
        )
        for other in torch.topk(scores, min(SHOWN, len(scores))).indices.tolist():
            _logger.info("    target %d (%.4f) %r", other, scores[other], self.target_sentences[other])
