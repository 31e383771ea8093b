"""Pictures of a training run, beside the saved model and in its card. Drawing needs the extra `report` (matplotlib).

Names are imported when they are first used: `import minisbert.report` loads nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .drawing import draw_similarity, draw_training, require_matplotlib
    from .pairs import PairScores, pair_scores
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


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import run  # which imports all of them

    return getattr(run, name)


def __dir__() -> list[str]:
    return sorted(__all__)
