"""Hard negatives: documents that are close to an anchor and are none of its positives."""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import fmean
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

from .data.negatives import Mined, layout
from .data.roles import column_texts
from .data.rows import as_table
from .errors import ConfigError, InputError, InputTypeError
from .search import nearest
from .similarity import embedding_matrix, is_real
from .text import check_texts

OutputFormat: TypeAlias = Literal["triplet", "n-tuple", "n-tuple-scores", "labeled-pair", "labeled-list"]
SamplingStrategy: TypeAlias = Literal["top", "random"]
_QUERY_CHUNK, _CORPUS_CHUNK = 1_000, 50_000
_MOST_NEGATIVES = 10_000
_OUT = -float("inf")  # the score of what is no candidate


class MiningModel(Protocol):
    """A model, as far as `mine_hard_negatives` needs one."""

    def encode_query(self, inputs: list[str], /, *args: Any, **options: Any) -> Any:
        """Anchors to embeddings."""

    def encode_document(self, inputs: list[str], /, *args: Any, **options: Any) -> Any:
        """Documents to embeddings."""

    def similarity(self, a: Any, b: Any, /) -> Tensor:
        """Similarities of all pairs."""

    def similarity_pairwise(self, a: Any, b: Any, /) -> Tensor:
        """Similarities row by row."""


class PairScorer(Protocol):
    """A cross-encoder, as far as `mine_hard_negatives` needs one."""

    def predict(self, pairs: list[tuple[str, str]], /) -> Any:
        """One score for each pair of texts."""


def mine_hard_negatives(
    dataset: Any,
    model: MiningModel,
    *,
    anchor_column_name: str | None = None,
    positive_column_name: str | None = None,
    corpus: Sequence[str] | None = None,
    cross_encoder: PairScorer | None = None,
    range_min: int = 0,
    range_max: int | None = None,
    max_score: float | None = None,
    min_score: float | None = None,
    absolute_margin: float | None = None,
    relative_margin: float | None = None,
    num_negatives: int = 3,
    sampling_strategy: SamplingStrategy = "top",
    query_prompt_name: str | None = None,
    query_prompt: str | None = None,
    corpus_prompt_name: str | None = None,
    corpus_prompt: str | None = None,
    include_positives: bool = False,
    output_format: OutputFormat | None = None,
    output_scores: bool = False,
    batch_size: int | None = None,
    seed: int = 42,
    verbose: bool = True,
) -> dict[str, list[Any]]:
    """Add to pairs of an anchor and a positive the documents most similar to the anchor that are no positives of it.

    Rows with the same anchor are all its positives. Neither the text of a positive nor that of the anchor itself is
    ever a negative of the anchor.

    Args:
        dataset: rows of any shape that `as_table` reads.
        model: embeds anchors with `encode_query` and documents with `encode_document`, and compares them.
        anchor_column_name: by default the first column.
        positive_column_name: by default the second column.
        corpus: documents to choose from, besides all positives.
        cross_encoder: scores the candidates in the model's place; needs a limit for its scores to decide.
        range_min: leave out this many of the best candidates.
        range_max: leave out the candidates after this many; by default as many as are needed, or ten times as many
            where a limit may leave some out.
        max_score: leave out candidates that score higher.
        min_score: leave out candidates that score lower.
        absolute_margin: how much lower than the worst positive of its anchor a negative has to score.
        relative_margin: the same, as a fraction of the score of that positive.
        num_negatives: most negatives for each anchor.
        sampling_strategy: "top" takes the best candidates, "random" any of them.
        query_prompt_name: name of the prompt before anchors.
        query_prompt: that prompt itself.
        corpus_prompt_name: name of the prompt before documents.
        corpus_prompt: that prompt itself.
        include_positives: let positives be candidates, to rank all documents; for "n-tuple", then the default.
        output_format: "triplet" (the default), "n-tuple", "labeled-pair" or "labeled-list"; "n-tuple-scores" stands
            for "n-tuple" with `output_scores`.
        output_scores: add the similarities; they stand in place of labels.
        batch_size: most texts in one forward pass.
        seed: of the choice that "random" makes.
        verbose: say on standard error what was found, and show progress on a terminal.

    Returns:
        Columns by name, which `Trainer` takes. Anchors and positives are under their own names, and beside them
        - triplet: negative, each in a row of its own; scores are lists, of the positive and the negative;
        - n-tuple: negative_1 to negative_n, for pairs with as many; scores are lists, the positive's first;
        - labeled-pair: label 1.0 or 0.0, or score, of a positive or negative that stands among the positives;
        - labeled-list: labels or scores in a list, of the positive and its negatives in a list among the positives;
          for pairs with any negative.

    Raises:
        InputError: the columns are not there or hold something else than texts; the cross-encoder's scores are no
            numbers, one for each pair.
        InputTypeError: the model cannot do what is asked of it, or the corpus holds something else than texts.
        ConfigError: an option that cannot work, alone or beside the others.
    """
    for name in ("encode_query", "encode_document", "similarity", "similarity_pairwise"):
        if not hasattr(model, name):
            raise InputTypeError(
                f"got a {type(model).__name__}, which has no {name}; expected a model: pass a SentenceTransformer"
            )
    _check_options(
        {"range_min": range_min, "num_negatives": num_negatives, "range_max": range_max, "seed": seed},
        {
            "max_score": max_score,
            "min_score": min_score,
            "absolute_margin": absolute_margin,
            "relative_margin": relative_margin,
        },
    )
    if isinstance(output_format, str) and output_format == "n-tuple-scores":
        output_format, output_scores = "n-tuple", True
    columns_of = layout(output_format, include_positives=include_positives)
    may_skip = any(limit is not None for limit in (max_score, absolute_margin, relative_margin))
    if cross_encoder is not None and min_score is not None:
        may_skip = True
    elif cross_encoder is not None and not may_skip:
        raise ConfigError(
            "got a cross_encoder and nothing that its scores could decide; expected one of max_score, min_score, "
            "absolute_margin, relative_margin: pass one, or leave the cross_encoder out"
        )
    pairs = _Pairs.of(dataset, anchor_column_name, positive_column_name, corpus)
    if range_max is None:
        range_max = range_min + num_negatives * (10 if may_skip else 1) + pairs.most_positives
    rules = _Rules(
        range_min=range_min,
        range_max=range_max,
        max_score=_limit(max_score),
        min_score=_limit(min_score),
        absolute_margin=_limit(absolute_margin),
        relative_margin=_limit(relative_margin),
        num_negatives=num_negatives,
        sampling_strategy=sampling_strategy,
    )
    titles = columns_of.titles(pairs.names, num_negatives, with_scores=output_scores)

    encoding = {"normalize_embeddings": True, "convert_to_tensor": True, "show_progress_bar": verbose}
    of_anchors = {"prompt_name": query_prompt_name, "prompt": query_prompt, "batch_size": batch_size}
    of_documents = {"prompt_name": corpus_prompt_name, "prompt": corpus_prompt, "batch_size": batch_size}
    anchors = embedding_matrix(model.encode_query(pairs.anchors, **encoding, **_given(of_anchors)))
    documents = embedding_matrix(model.encode_document(pairs.documents, **encoding, **_given(of_documents)))
    with torch.no_grad():
        scores, places = _candidates(
            model, anchors, documents, pairs, range_max + pairs.most_positives, include_positives=include_positives
        )
        if cross_encoder is None:
            positive_scores = _positive_scores(model, anchors, documents, pairs)
        else:
            scores = _rescored(cross_encoder, scores, places, pairs)
            positive_scores = _predicted(cross_encoder, list(pairs))
    by_anchor = pairs.by_anchor(positive_scores)
    negatives = rules.choose(scores, places, torch.tensor([min(own) for own in by_anchor]), seed=seed)
    mined = [
        Mined(
            anchor,
            [(pairs.documents[place], score) for place, score in zip(own, own_scores, strict=True)],
            [(pairs.documents[place], score) for place, score in others],
        )
        for anchor, own, own_scores, others in zip(pairs.anchors, pairs.positives, by_anchor, negatives, strict=True)
    ]
    columns = columns_of.columns(mined, titles, num_negatives, with_scores=output_scores)
    if verbose:
        sys.stderr.write(_summary(mined, pairs, columns, num_negatives))
    return columns


def _check_options(wholes: Mapping[str, Any], limits: Mapping[str, Any]) -> None:
    """Refuse what is no number; `range_max` and the limits may be None.

    Raises:
        ConfigError: an option is none.
    """
    for name, value in wholes.items():
        if value is None and name == "range_max":
            continue
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
            raise ConfigError(f"got {name} {value!r}; expected a whole number: pass one")
    for name, value in limits.items():
        if value is not None and not is_real(value):
            raise ConfigError(f"got {name} {value!r}; expected a number, or None for no limit: pass one")


def _limit(value: float | None) -> float | None:
    return None if value is None else float(value)


@dataclass(frozen=True)
class _Pairs:
    """Each anchor and each document once.

    Attributes:
        names: of the two columns.
        anchors: texts, in the order they first appear in.
        documents: the corpus and then the positives.
        positives: for each anchor the places of its positives among the documents.
        most_positives: most rows of one anchor.
    """

    names: tuple[str, str]
    anchors: list[str]
    documents: list[str]
    positives: list[list[int]]
    most_positives: int

    @classmethod
    def of(cls, dataset: Any, anchor: str | None, positive: str | None, corpus: Sequence[str] | None) -> _Pairs:
        table = as_table(dataset)
        if len(table.columns) < 2:
            raise InputError(f"{table.source} has the columns {list(table.columns)}; expected anchors and positives")
        first, second = islice(table.columns, 2)
        table = table.select([first if anchor is None else anchor, second if positive is None else positive])
        texts, positives = (column_texts(table, name) for name in table.columns)
        documents = list(dict.fromkeys([*check_texts([] if corpus is None else corpus, what="corpus"), *positives]))
        place_of = {document: place for place, document in enumerate(documents)}
        places: dict[str, dict[int, None]] = {text: {} for text in texts}
        for text, document in zip(texts, positives, strict=True):
            places[text][place_of[document]] = None
        names = list(table.columns)
        return cls(
            (names[0], names[1]), list(places), documents, [list(own) for own in places.values()], _most_common(texts)
        )

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Each anchor with each of its positives."""
        for anchor, own in zip(self.anchors, self.positives, strict=True):
            for place in own:
                yield anchor, self.documents[place]

    def by_anchor(self, values: Tensor) -> list[list[float]]:
        """One value for each pair as lists, one for each anchor."""
        stream = iter(values.tolist())
        return [list(islice(stream, len(own))) for own in self.positives]


def _most_common(texts: Sequence[str]) -> int:
    return max(Counter(texts).values())


def _candidates(
    model: MiningModel, anchors: Tensor, documents: Tensor, pairs: _Pairs, count: int, *, include_positives: bool
) -> tuple[Tensor, Tensor]:
    """Scores and places of the `count` documents most similar to each anchor: (anchors, at most count + 1) each.

    Positives and the anchor's own text score `_OUT`. The own text is not counted.
    """
    total = len(pairs.documents)
    place_of = {document: place for place, document in enumerate(pairs.documents)}
    itself = [
        row * total + place_of[anchor]
        for row, anchor in enumerate(pairs.anchors)
        if anchor in place_of and place_of[anchor] not in pairs.positives[row]
    ]
    scores, places = nearest(
        anchors,
        documents,
        top_k=count + bool(itself),
        score_function=model.similarity,
        query_chunk_size=_QUERY_CHUNK,
        corpus_chunk_size=_CORPUS_CHUNK,
    )
    scores, places = scores.float().cpu(), places.cpu()
    cells = places + torch.arange(len(places))[:, None] * total
    own = torch.isin(cells, torch.tensor(itself, dtype=torch.int64))
    out = own.clone()
    out[~own.any(dim=1), count:] = True
    if not include_positives:
        taken = [row * total + place for row, places_of in enumerate(pairs.positives) for place in places_of]
        out |= torch.isin(cells, torch.tensor(taken))
    return scores.masked_fill(out, _OUT), places


def _positive_scores(model: MiningModel, anchors: Tensor, documents: Tensor, pairs: _Pairs) -> Tensor:
    """Similarity of each anchor to each of its positives: float32, (pairs,)."""
    rows = np.repeat(np.arange(len(pairs.anchors)), [len(own) for own in pairs.positives])
    places = np.concatenate([np.asarray(own) for own in pairs.positives])
    parts = [
        model.similarity_pairwise(
            anchors[rows[start : start + _CORPUS_CHUNK]], documents[places[start : start + _CORPUS_CHUNK]]
        )
        for start in range(0, len(rows), _CORPUS_CHUNK)
    ]
    return torch.cat(parts).float().cpu()


def _rescored(cross_encoder: PairScorer, scores: Tensor, places: Tensor, pairs: _Pairs) -> Tensor:
    """The cross-encoder's scores of all candidates in place of the model's."""
    scores = scores.clone()
    for row, anchor in enumerate(pairs.anchors):
        kept = scores[row] != _OUT
        texts = [pairs.documents[place] for place in places[row][kept].tolist()]
        if texts:
            scores[row, kept] = _predicted(cross_encoder, [(anchor, text) for text in texts])
    return scores


def _predicted(cross_encoder: PairScorer, pairs: list[tuple[str, str]]) -> Tensor:
    """The cross-encoder's score of each pair: float32, (pairs,)."""
    predicted = cross_encoder.predict(pairs)
    try:
        scores = torch.as_tensor(predicted, dtype=torch.float32).cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).split("\n")[0]
        raise InputError(f"got scores that are no numbers ({reason}); expected one for each pair of texts") from None
    if scores.isnan().any():
        raise InputError("got NaN as a score of the cross-encoder; expected numbers: look at what it predicts")
    if scores.shape not in ((len(pairs),), (len(pairs), 1)):
        raise InputError(
            f"got scores of shape {tuple(scores.shape)} for {len(pairs)} pairs; expected one number for each: use a "
            f"cross-encoder with one output"
        )
    return scores.flatten()


@dataclass(frozen=True, kw_only=True)
class _Rules:
    """Which candidates become negatives; the fields are the arguments of `mine_hard_negatives`."""

    range_min: int
    range_max: int
    max_score: float | None
    min_score: float | None
    absolute_margin: float | None
    relative_margin: float | None
    num_negatives: int
    sampling_strategy: SamplingStrategy

    def __post_init__(self) -> None:
        if not 1 <= self.num_negatives <= _MOST_NEGATIVES:
            raise ConfigError(
                f"got num_negatives {self.num_negatives}; expected at least 1, and at most {_MOST_NEGATIVES:,}: ask "
                f"for one"
            )
        if self.range_min < 0:
            raise ConfigError(f"got range_min {self.range_min}; expected at least 0: pass 0 to leave out none")
        if self.range_max - self.range_min < self.num_negatives:
            raise ConfigError(
                f"got range_min {self.range_min} and range_max {self.range_max}; expected room for num_negatives, "
                f"{self.num_negatives}, between them: raise range_max"
            )
        if not isinstance(self.sampling_strategy, str) or self.sampling_strategy not in ("top", "random"):
            raise ConfigError(f"got sampling_strategy {self.sampling_strategy!r}; expected top or random: pass one")

    def choose(
        self, scores: Tensor, places: Tensor, lowest_positive: Tensor, *, seed: int
    ) -> list[list[tuple[int, float]]]:
        """Places and scores of the negatives of each anchor, best first."""
        scores = self._within_limits(scores, lowest_positive[:, None])
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        window = slice(self.range_min, self.range_max)
        scores, places = scores[:, window], places.gather(1, order)[:, window]
        counts = (scores != _OUT).sum(dim=1).tolist()
        draw = random.Random(seed)  # noqa: S311
        chosen = []
        for row_scores, row_places, count in zip(scores.tolist(), places.tolist(), counts, strict=True):
            picked: Sequence[int] = range(min(count, self.num_negatives))
            if self.sampling_strategy == "random":
                # Always the same number of draws, so that the choice for one anchor does not hang on those before it.
                drawn = draw.sample(range(max(count, self.num_negatives)), self.num_negatives)
                picked = sorted(place for place in drawn if place < count)
            chosen.append([(row_places[place], row_scores[place]) for place in picked])
        return chosen

    def _within_limits(self, scores: Tensor, lowest_positive: Tensor) -> Tensor:
        """Scores, with `_OUT` for those beyond a limit."""
        out = torch.zeros_like(scores, dtype=torch.bool)
        if self.absolute_margin is not None:
            out |= scores + self.absolute_margin > lowest_positive
        if self.relative_margin is not None:
            out |= scores > lowest_positive - lowest_positive.abs() * self.relative_margin
        if self.max_score is not None:
            out |= scores > self.max_score
        if self.min_score is not None:
            out |= scores < self.min_score
        return scores.masked_fill(out, _OUT)


def _summary(mined: Sequence[Mined], pairs: _Pairs, columns: Mapping[str, list[Any]], num_negatives: int) -> str:
    rows = len(columns[pairs.names[0]])
    text = f"mined {rows:,} rows for {len(mined):,} anchors among {len(pairs.documents):,} documents"
    positives = [score for found in mined for _, score in found.positives]
    negatives = [score for found in mined for _, score in found.negatives]
    if negatives:
        text += f"; mean score {fmean(positives):.3f} of positives, {fmean(negatives):.3f} of negatives"
    short = sum(len(found.negatives) < num_negatives for found in mined)
    if short:
        text += (
            f"; {short:,} anchors have fewer than {num_negatives} negatives: raise range_max, loosen the limits, or "
            f"add a corpus"
        )
    return text + "\n"


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
