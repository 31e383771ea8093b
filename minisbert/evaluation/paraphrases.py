"""How well a model finds the paraphrases among many texts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from itertools import chain, combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..search import check_sizes, paraphrase_mining
from .base import Evaluator, check_texts_by_id
from .metrics import Cuts

if TYPE_CHECKING:
    from ..model import EmbeddingModel


class ParaphraseMiningEvaluator(Evaluator):
    """Average precision of the most similar pairs among texts, and their best F1.

    Metrics `average_precision`, the primary one; `f1` at the best threshold, with `precision` and `recall` there; and
    that `threshold`. Paraphrases that are not among the pairs found count as missed.

    Args:
        sentences_map: texts by id.
        duplicates_list: pairs of ids of paraphrases.
        duplicates_dict: the same as {id: {id: True}}; one direction is enough.
        add_transitive_closure: what paraphrases the same text is a paraphrase too.
        query_chunk_size: as in `paraphrase_mining`, like the three arguments below.
        corpus_chunk_size: see there.
        max_pairs: see there.
        top_k: see there.
        show_progress_bar: show one on a terminal.
        batch_size: most texts in one forward pass; by default only tokens are bounded.
        name: put before metric names and into the file name.
        write_csv: append to a CSV file where an output path is given.
        truncate_dim: evaluate only the leading dimensions.

    Raises:
        InputError: there are no paraphrases, or one has an unknown id.
        ConfigError: a size, `max_pairs` or `top_k` below 1.
        InputTypeError: something is no text.
    """

    description = "Paraphrase Mining"

    def __init__(
        self,
        sentences_map: Mapping[Any, str],
        duplicates_list: Iterable[tuple[Any, Any]] | None = None,
        duplicates_dict: Mapping[Any, Mapping[Any, bool]] | None = None,
        *,
        add_transitive_closure: bool = False,
        query_chunk_size: int = 5_000,
        corpus_chunk_size: int = 100_000,
        max_pairs: int = 500_000,
        top_k: int = 100,
        show_progress_bar: bool = False,
        batch_size: int | None = None,
        name: str = "",
        write_csv: bool = True,
        truncate_dim: int | None = None,
    ) -> None:
        super().__init__(
            name,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            write_csv=write_csv,
            truncate_dim=truncate_dim,
        )
        texts = check_texts_by_id(sentences_map, what="sentences_map")
        self.ids, self.sentences = list(texts), list(texts.values())
        pairs = list(duplicates_list or ())
        for first, others in (duplicates_dict or {}).items():
            pairs += [(first, second) for second, same in others.items() if same]
        self.duplicates = _row_pairs(pairs, {key: row for row, key in enumerate(self.ids)})
        if add_transitive_closure:
            self.duplicates = _closure(self.duplicates)
        if not self.duplicates:
            raise InputError(
                "got no duplicates; expected at least one pair of ids to find: pass duplicates_list or duplicates_dict"
            )
        check_sizes(
            query_chunk_size=query_chunk_size, corpus_chunk_size=corpus_chunk_size, max_pairs=max_pairs, top_k=top_k
        )
        self.add_transitive_closure = add_transitive_closure
        self.query_chunk_size = query_chunk_size
        self.corpus_chunk_size = corpus_chunk_size
        self.max_pairs = max_pairs
        self.top_k = top_k
        self.csv_file = f"paraphrase_mining_evaluation{'_' + name if name else ''}_results.csv"

    def __call__(
        self,
        model: EmbeddingModel,
        output_path: str | Path | None = None,
        epoch: float = -1,
        steps: int = -1,
    ) -> dict[str, float]:
        """Evaluate `model`: metric names, with the evaluator's name before them, to values."""
        pairs = paraphrase_mining(
            model,
            self.sentences,
            show_progress_bar=self.show_progress_bar,
            batch_size=self.batch_size,
            query_chunk_size=self.query_chunk_size,
            corpus_chunk_size=self.corpus_chunk_size,
            max_pairs=self.max_pairs,
            top_k=self.top_k,
            truncate_dim=self.truncate_dim,
        )
        total = len(self.duplicates)
        same = [(first, second) in self.duplicates for _, first, second in pairs]
        cuts = Cuts.of(np.array([score for score, _, _ in pairs]), np.array(same))
        f1, precision = cuts.f1(total), cuts.precision()
        best = int(f1.argmax())
        found = np.diff(cuts.relevant, prepend=0)
        metrics = {
            "average_precision": float((precision * found).cumsum()[-1] / total),
            "f1": float(f1[best]),
            "precision": float(precision[best]),
            "recall": float(cuts.relevant[best] / total),
            "threshold": float(cuts.threshold(best)) if f1[best] else 0.0,
        }
        columns = ("precision", "recall", "f1", "threshold", "average_precision")
        self.write_row(output_path, {column: metrics[column] for column in columns}, epoch=epoch, steps=steps)
        return self.named(metrics, primary="average_precision")

    def get_config_dict(self) -> dict[str, Any]:
        """How pairs are chosen, and `truncate_dim` where it is given."""
        return {
            "add_transitive_closure": self.add_transitive_closure,
            "max_pairs": self.max_pairs,
            "top_k": self.top_k,
            **super().get_config_dict(),
        }


def _row_pairs(pairs: Iterable[tuple[Hashable, Hashable]], rows: Mapping[Any, int]) -> set[tuple[int, int]]:
    """Pairs of ids as pairs of rows, the lower row first."""
    found = set()
    for pair in pairs:
        if len(pair) != 2 or pair[0] == pair[1]:
            raise InputError(f"got the duplicates {pair!r}; expected two different ids: drop the pair")
        for key in pair:
            if key not in rows:
                raise InputError(
                    f"got the duplicates {pair!r}, and {key!r} is not in sentences_map; expected ids of sentences: "
                    f"drop the pair or add the sentence"
                )
        first, second = sorted(rows[key] for key in pair)
        found.add((first, second))
    return found


def _closure(pairs: Iterable[tuple[int, int]]) -> set[tuple[int, int]]:
    """All pairs of rows that a chain of pairs joins."""
    neighbours: dict[int, list[int]] = defaultdict(list)
    for first, second in pairs:
        neighbours[first].append(second)
        neighbours[second].append(first)
    groups, seen = [], set[int]()
    for start in neighbours:
        if start in seen:
            continue
        seen.add(start)
        group, waiting = [], [start]
        while waiting:
            row = waiting.pop()
            group.append(row)
            fresh = [other for other in neighbours[row] if other not in seen]
            waiting += dict.fromkeys(fresh)
            seen.update(fresh)
        groups.append(sorted(group))
    return set(chain.from_iterable(combinations(group, 2) for group in groups))
