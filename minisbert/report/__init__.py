"""Pictures of a training run, beside the saved model and in its card. Drawing needs the extra `report` (matplotlib).

Names are imported when they are first used: `import minisbert.report` loads nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import attributes

if TYPE_CHECKING:
    from .canvas import require_matplotlib
    from .curves import draw_training
    from .distributions import PairScores, draw_similarity, pair_scores
    from .run import RunReport, attach

__all__ = [
    "PairScores",
    "RunReport",
    "attach",
    "draw_similarity",
    "draw_training",
    "pair_scores",
    "require_matplotlib",
]

_HOMES = {
    "PairScores": "distributions",
    "RunReport": "run",
    "attach": "run",
    "draw_similarity": "distributions",
    "draw_training": "curves",
    "pair_scores": "distributions",
    "require_matplotlib": "canvas",
}

__getattr__, __dir__ = attributes(__name__, __all__, _HOMES)
