"""Distance of the embeddings of a student from those of its teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, InputTypeError, shown
from .evaluator import Measurement, TaskEvaluator, check_rows

if TYPE_CHECKING:
    from ..model import EmbeddingModel

Teacher = Any  # whatever has `encode`


class MSEEvaluator(TaskEvaluator):
    """Mean squared difference of a student's embeddings from those of a teacher, times 100.

    The metric is `negative_mse`, as larger is better; the CSV file has it without the sign. The teacher embeds the
    source texts at once, the model the target texts in each call.

    Args:
        source_sentences: texts for the teacher.
        target_sentences: texts for the model, such as their translations.
        teacher_model: a model with the same size of embeddings.
        show_progress_bar: show one on a terminal.
        batch_size: most texts in one forward pass; by default only the number of tokens is limited.
        name: put before the metric's name and into the file name.
        write_csv: append to a CSV file where an output path is given.
        truncate_dim: compare only the leading dimensions.

    Raises:
        InputError: the lists differ in length or are empty.
        InputTypeError: the teacher has no `encode`.
    """

    description = "Knowledge Distillation"

    def __init__(
        self,
        source_sentences: Sequence[str],
        target_sentences: Sequence[str],
        teacher_model: Teacher = None,
        *,
        show_progress_bar: bool = False,
        batch_size: int | None = None,
        name: str = "",
        write_csv: bool = True,
        truncate_dim: int | None = None,
    ) -> None:
        super().__init__(name, batch_size, show_progress_bar, write_csv, truncate_dim)
        sources, self.target_sentences = check_rows(
            source_sentences=source_sentences, target_sentences=target_sentences
        )
        _check_teacher(teacher_model)
        self.source_embeddings: NDArray[np.float32] = self.embed(teacher_model.encode, sources)
        self.csv_file = f"mse_evaluation_{name}_results.csv"  # "_" without a name too

    def measure(self, model: EmbeddingModel) -> Measurement:
        """Compare the embeddings of `model` with those of the teacher."""
        value = _mse(self.source_embeddings, self.embed(model.encode, self.target_sentences)).item()
        return Measurement({"negative_mse": -value}, "negative_mse", {"MSE": value})


class MSEEvaluatorFromDataFrame(TaskEvaluator):
    """`MSEEvaluator` over pairs of columns, such as languages, of a table.

    The metric is `negative_mse`, the mean over the pairs; the CSV file has a column for each. Rows with an empty text
    in either column of a pair are left out of it.

    Args:
        dataframe: rows by column name, each a dict of texts; or a DataFrame.
        teacher_model: embeds the first column of each pair.
        combinations: pairs of names of columns.
        batch_size: most texts in one forward pass; by default only the number of tokens is limited.
        name: put before the metric's name and into the file name.
        write_csv: append to a CSV file where an output path is given.
        truncate_dim: compare only the leading dimensions.

    Raises:
        InputError: there is no pair, a column is missing, or a pair has no rows.
        InputTypeError: the teacher has no `encode`, or a text is none.
    """

    description = "Knowledge Distillation"

    def __init__(
        self,
        dataframe: Any,
        teacher_model: Teacher,
        combinations: Sequence[tuple[str, str]],
        *,
        batch_size: int | None = None,
        name: str = "",
        write_csv: bool = True,
        truncate_dim: int | None = None,
    ) -> None:
        super().__init__(name, batch_size, False, write_csv, truncate_dim)
        _check_teacher(teacher_model)
        self.combinations = _combinations(combinations)
        rows = dataframe.to_dict("records") if hasattr(dataframe, "to_dict") else dataframe
        if not isinstance(rows, (list, tuple)) or not all(isinstance(row, Mapping) for row in rows):
            got = type(dataframe).__name__
            raise InputTypeError(f"got {got} as dataframe; expected rows by column name: pass a list of dicts")
        self.data = {pair: _pairs(rows, *pair) for pair in self.combinations}
        sources = list(dict.fromkeys(text for texts, _ in self.data.values() for text in texts))
        self.teacher_embeddings = dict(zip(sources, self.embed(teacher_model.encode, sources), strict=True))
        self.csv_file = self.file_name("mse_evaluation")

    def get_config_dict(self) -> dict[str, Any]:
        """Settings for the model card: none, as in the reference."""
        return {}

    def measure(self, model: EmbeddingModel) -> Measurement:
        """Compare the embeddings of `model` with those of the teacher."""
        row: dict[str, Any] = {}
        for (source, target), (sources, targets) in self.data.items():
            wanted = np.asarray([self.teacher_embeddings[text] for text in sources])
            row[f"{source}-{target}"] = _mse(wanted, self.embed(model.encode, targets))
        return Measurement({"negative_mse": -np.mean(list(row.values())).item()}, "negative_mse", row)


def _mse(expected: NDArray[np.float32], got: NDArray[np.float32]) -> np.float32:
    if expected.shape != got.shape:
        raise InputError(
            f"got embeddings of {got.shape[1]} dimensions for a teacher's of {expected.shape[1]}; expected equal "
            f"sizes: pass truncate_dim"
        )
    value: np.float32 = ((np.asarray(expected) - np.asarray(got)) ** 2).mean() * 100
    return value


def _combinations(pairs: Any) -> list[tuple[str, str]]:
    """Return pairs of names of columns, after checking them."""
    found = list(pairs) if isinstance(pairs, (list, tuple)) else [pairs]
    for pair in found:
        names = isinstance(pair, (list, tuple)) and len(pair) == 2 and all(isinstance(name, str) for name in pair)
        if not names:
            raise InputTypeError(
                f'got {shown(pair)} in combinations; expected pairs of columns, such as [("en", "de")]: pass some'
            )
    if not found:
        raise InputError('got no combinations; expected pairs of columns, such as [("en", "de")]: pass some')
    return [(source, target) for source, target in found]


def _check_teacher(teacher: object) -> None:
    if isinstance(teacher, str) or not callable(getattr(teacher, "encode", None)):
        raise InputTypeError(
            f"got {type(teacher).__name__} as teacher_model; expected a model: pass a SentenceTransformer"
        )


def _pairs(rows: Sequence[Mapping[str, str]], source: str, target: str) -> tuple[list[str], list[str]]:
    """Return the texts of two columns, without rows in which one is empty."""
    for name in (source, target):
        for number, row in enumerate(rows):
            if name not in row:
                raise InputError(f"row {number} has no column {name!r}; expected all of combinations: fix the names")
            if not isinstance(row[name], str):
                raise InputTypeError(f"row {number} has {row[name]!r} as {name!r}; expected a text, or an empty one")
    kept = [(row[source], row[target]) for row in rows if row[source].strip() and row[target].strip()]
    if not kept:
        raise InputError(
            f"got no row with texts in both {source!r} and {target!r}; expected at least one: leave them out"
        )
    sources, targets = zip(*kept, strict=True)
    return list(sources), list(targets)
