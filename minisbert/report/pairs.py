"""Similarities of pairs of texts, grouped by label or role: measured to be drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..data.roles import TrainingRows
from ..errors import InputError
from ..similarity import SimilarityFunction

if TYPE_CHECKING:
    from ..model import EmbeddingModel

Groups = Mapping[str, NDArray[np.float64]]

_MOST_GROUPS = 5
_LARGEST_PLAIN = 1e6  # labels from here on are written with an exponent
_NAMES = {
    "cosine": "Cosine similarity",
    "dot": "Dot product",
    "euclidean": "Negative euclidean distance",
    "manhattan": "Negative manhattan distance",
}


@dataclass(frozen=True, eq=False)
class PairScores:
    """Similarities of pairs of texts.

    Attributes:
        groups: float64 similarities by name of the group, in the order shown.
        title: the measure and the rows.
    """

    groups: Groups
    title: str

    @property
    def pairs(self) -> int:
        """Number of pairs in all groups."""
        return sum(map(len, self.groups.values()))


def pair_scores(
    model: EmbeddingModel, rows: TrainingRows, *, role: str = "", limit: int = 2000, seed: int = 42
) -> PairScores:
    """Compute the similarity of the texts of each row, in groups.

    Rows of two texts with different labels are grouped by label: by value if there are up to five, else in five ranges
    of equal width. Other rows are an anchor, its positive and possibly negatives: the groups are "own positive",
    "another row's positive", drawn from rows with other texts, and "hard negative".

    Args:
        model: left unchanged; truncated texts are not counted.
        rows: the pairs.
        role: what the rows are to the run, such as "held-out", for the title.
        limit: largest number of rows to embed.
        seed: of the choice of rows and of other rows' positives.

    Raises:
        InputError: the rows hold one text each.
    """
    columns = list(rows.texts.values())
    if len(columns) < 2:
        raise InputError(
            f"got the text columns {list(rows.texts)} of {rows.source} for a report; expected at least two texts in "
            f"each row: add a column"
        )
    draw = np.random.default_rng(seed)
    chosen = np.arange(len(rows))
    if len(rows) > limit:
        chosen = np.sort(draw.choice(len(rows), limit, replace=False))
    if rows.scores is not None and len(columns) == 2 and len(set(rows.scores)) > 1:
        members = _by_label(np.array(rows.scores), chosen)
        pairs = {name: [(columns[0][i], columns[1][i]) for i in found] for name, found in members.items()}
    else:
        pairs = _by_role(columns, chosen, draw)
    function = SimilarityFunction.of(model.similarity_fn_name)
    kind = f"{role} rows" if role else "rows"
    many = f"{len(rows):,} {kind}" if len(chosen) == len(rows) else f"{len(chosen):,} of {len(rows):,} {kind}"
    title = f"{_NAMES[function.value]} in {many} of {Path(rows.source).name}"
    return PairScores(_scores(model, function, pairs), title)


def _by_label(labels: NDArray[np.float64], chosen: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """Group the chosen rows; the groups are those of all rows."""
    values = np.unique(labels)
    if len(values) <= _MOST_GROUPS:
        groups = {f"label {value:g}": chosen[labels[chosen] == value] for value in values}
    else:
        low, width = values[0], values[-1] / _MOST_GROUPS - values[0] / _MOST_GROUPS
        # A label on a border belongs to the range above it, and rounding must not move it below.
        with np.errstate(over="ignore"):  # an infinite quotient is in the last range
            places = np.minimum((labels[chosen] - low) / width + 1e-9, _MOST_GROUPS - 1).astype(np.int64)
        shares = (place / _MOST_GROUPS for place in range(_MOST_GROUPS + 1))
        edges = _edges([low * (1 - share) + values[-1] * share for share in shares])
        groups = {f"{edges[i]}–{edges[i + 1]}": chosen[places == i] for i in range(_MOST_GROUPS)}
    return {name: found for name, found in groups.items() if len(found)}


def _edges(values: Sequence[float]) -> list[str]:
    """Print numbers with the fewest decimals that tell them apart, at least one."""
    for decimals in range(1, 7) if max(map(abs, values)) < _LARGEST_PLAIN else ():
        texts = [f"{value:.{decimals}f}" for value in values]
        if np.allclose([float(text) for text in texts], values, rtol=0, atol=(values[1] - values[0]) / 100):
            return texts
    return [f"{value:g}" for value in values]


def _by_role(
    columns: Sequence[Sequence[str]], chosen: NDArray[np.int64], draw: np.random.Generator
) -> dict[str, list[tuple[str, str]]]:
    anchors, positives, *negatives = columns
    own: dict[str, set[str]] = {anchors[row]: {anchors[row]} for row in chosen}
    for anchor, positive in zip(anchors, positives, strict=True):
        if anchor in own:
            own[anchor].add(positive)
    others = []
    for row in chosen:
        anchor = anchors[row]
        other = next((positives[i] for i in draw.permutation(chosen) if positives[i] not in own[anchor]), None)
        if other is not None:
            others.append((anchor, other))
    groups = {
        "own positive": [(anchors[row], positives[row]) for row in chosen],
        "another row's positive": others,
        "hard negative": [(anchors[row], column[row]) for column in negatives for row in chosen],
    }
    return {name: pairs for name, pairs in groups.items() if pairs}


def _scores(
    model: EmbeddingModel, function: SimilarityFunction, groups: Mapping[str, Sequence[tuple[str, str]]]
) -> dict[str, NDArray[np.float64]]:
    """The similarity of each pair; each text is embedded once."""
    pairs = [pair for group in groups.values() for pair in group]
    places = {text: place for place, text in enumerate(dict.fromkeys(text for pair in pairs for text in pair))}
    with model.quietly():
        embeddings = model.encode(list(places), convert_to_tensor=True)
    first, second = ([places[pair[side]] for pair in pairs] for side in (0, 1))
    scores = function.pairwise(embeddings[first], embeddings[second]).cpu().double().numpy()
    ends = np.cumsum([len(group) for group in groups.values()])[:-1]
    return dict(zip(groups, np.split(scores, ends), strict=True))
