"""The report on a run: measured before and after training, drawn beside the saved model, named in its card."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..card import Picture, parse, render
from ..data.roles import TrainingRows
from ..errors import MinisbertError, warn
from ..storage.files import replacing_folder
from .drawing import draw_similarity, draw_training, require_matplotlib
from .pairs import PairScores, pair_scores

if TYPE_CHECKING:
    from ..model import EmbeddingModel
    from ..training.history import TrainingHistory

_TRAINING, _SIMILARITY = "training.png", "similarity.png"


class RunReport:
    """Measures a model before training; after it, draws what has changed.

    Args:
        model: before training.
        rows: the pairs whose similarities are compared.
        metrics: results of an evaluator before training, if any.
        role: what the rows are to the run, such as "held-out", for the title.
        limit: largest number of rows to embed, before and after training.

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
        self._metrics = dict(metrics or {})
        self._measure: Callable[[], PairScores] = partial(pair_scores, model, rows, role=role, limit=limit)
        self._before = self._measure()

    def write(self, folder: str | Path, history: TrainingHistory, *, primary: str | None = None) -> None:
        """Draw training.png and similarity.png into the folder of the saved model, and name them in its card.

        If they cannot be drawn, a warning says why: by then the model is trained and saved.

        Args:
            folder: of the model.
            history: of the run.
            primary: name of the evaluator's primary metric, or None without an evaluator.
        """
        try:
            pictures = self._draw(Path(folder), history, primary)
        except Exception as error:  # whatever it is, a picture must not make a run fail
            warn(f"the report could not be drawn: {error}")
            return
        attach(folder, pictures)

    def _draw(self, folder: Path, history: TrainingHistory, primary: str | None) -> tuple[Picture, ...]:
        after = self._measure()
        draw_similarity(self._before, after, folder / _SIMILARITY)
        start = {"step": 0.0, **{f"eval_{name}": value for name, value in self._metrics.items()}}
        entries = [start, *history.entries]
        draw_training(entries, folder / _TRAINING, primary=primary, best_step=history.best_step)
        shown = f"Loss, learning rate and {primary}" if primary else "Loss and learning rate"
        return (
            Picture(f"{shown} over {history.steps:,} training steps", _TRAINING),
            Picture(f"{after.title}, before and after training", _SIMILARITY),
        )


def attach(folder: str | Path, pictures: Sequence[Picture]) -> None:
    """Name pictures in the README.md of a folder, in place of pictures of the same files.

    The card is parsed, changed and written again. A card that would lose words that way, because it was written by hand
    or by other software, is left unchanged, as is one that cannot be read or written: a warning says why.
    """
    path = Path(folder) / "README.md"
    try:
        text = path.read_bytes().decode("utf-8")
        facts = parse(text)
        if render(facts) != text:
            raise ValueError("it was not written by this version of minisbert, and its changes would be lost")
        new = {picture.file: picture for picture in pictures}
        kept = tuple(picture for picture in facts.pictures if picture.file not in new)
        changed = render(replace(facts, pictures=(*kept, *new.values())))
        with replacing_folder(path.parent) as temporary:
            (temporary / path.name).write_text(changed, encoding="utf-8", newline="\n")
    except (MinisbertError, OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        files = ", ".join(picture.file for picture in pictures)
        warn(f"{path} does not name the pictures {files}: {reason}")
