"""The report on a run, from before the training to the card of the saved model."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..card import Picture
from ..data.roles import TrainingRows
from .attaching import attach
from .canvas import require_matplotlib
from .curves import draw_training
from .distributions import draw_similarity, pair_scores

if TYPE_CHECKING:
    from ..model import EmbeddingModel
    from ..training.history import TrainingHistory

_TRAINING, _SIMILARITY = "training.png", "similarity.png"


class RunReport:
    """Measures a model before training; after it, draws what has changed.

    Args:
        model: before training.
        rows: the pairs whose similarities are compared.
        metrics: what an evaluator found before training, or nothing.
        role: what the rows are to the run, such as "held-out", for the title.
        limit: most rows to embed, twice in all.

    Raises:
        ConfigError: matplotlib is not installed.
        InputError: the rows hold one text each.
    """

    def __init__(
        self,
        model: EmbeddingModel,
        rows: TrainingRows,
        *,
        metrics: Mapping[str, float] | None = None,
        role: str = "",
        limit: int = 1000,
    ) -> None:
        require_matplotlib()
        self._model, self._rows, self._role, self._limit = model, rows, role, limit
        self._metrics = dict(metrics or {})
        self._before = pair_scores(model, rows, role=role, limit=limit)

    def write(self, folder: str | Path, history: TrainingHistory, *, primary: str | None = None) -> None:
        """Draw training.png and similarity.png into the folder of the saved model, and name them in its card.

        What cannot be drawn is told in a warning: by then the model is trained and saved.

        Args:
            folder: where the model is.
            history: of the run.
            primary: name of the evaluator's primary metric, or None without an evaluator.
        """
        try:
            pictures = self._draw(Path(folder), history, primary)
        except Exception as error:  # whatever it is, a picture must not make a failure of a run
            warnings.warn(f"the report could not be drawn: {error}", stacklevel=2)
            return
        attach(folder, pictures)

    def _draw(self, folder: Path, history: TrainingHistory, primary: str | None) -> tuple[Picture, ...]:
        after = pair_scores(self._model, self._rows, role=self._role, limit=self._limit)
        draw_similarity(self._before, after, folder / _SIMILARITY)
        start = {"step": 0.0, **{f"eval_{name}": value for name, value in self._metrics.items()}}
        entries = [start, *history.entries]
        draw_training(entries, folder / _TRAINING, primary=primary, best_step=history.best_step)
        shown = f"Loss, learning rate and {primary}" if primary else "Loss and learning rate"
        similarity = f"{after.what}, before and after training"
        course = f"{shown} over {history.steps:,} training steps"
        return Picture(course, _TRAINING), Picture(similarity, _SIMILARITY)
