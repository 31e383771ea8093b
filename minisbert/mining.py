"""Hard negatives: documents that are similar to an anchor but not positives of it."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import reduce
from os import PathLike
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .data.negatives import Mined, Pairs, layout
from .errors import ConfigError, InputError, InputTypeError, first_line
from .search import EmbeddingsOrFile, Rows, block_rows, embedding_rows, merge_best, nearest
from .similarity import embedding_matrix, is_number, normalize_embeddings

OutputFormat: TypeAlias = Literal["triplet", "n-tuple", "n-tuple-scores", "labeled-pair", "labeled-list"]
SamplingStrategy: TypeAlias = Literal["top", "random"]
_QUERY_CHUNK, _CORPUS_CHUNK = 1_000, 50_000
_MOST_NEGATIVES = 10_000
_EXCLUDED = -float("inf")  # the score of documents that are not candidates


class MiningModel(Protocol):
    """The part of a model that `mine_hard_negatives` uses."""

    def encode_query(self, inputs: list[str], /, *args: Any, **options: Any) -> Any:
        """Embed anchors."""

    def encode_document(self, inputs: list[str], /, *args: Any, **options: Any) -> Any:
        """Embed documents."""

    def similarity(self, a: Any, b: Any, /) -> Tensor:
        """Compute the similarities of all pairs."""

    def similarity_pairwise(self, a: Any, b: Any, /) -> Tensor:
        """Compute similarities row by row."""


class PairScorer(Protocol):
    """The part of a cross-encoder that `mine_hard_negatives` uses."""

    def predict(self, pairs: list[tuple[str, str]], /) -> Any:
        """Compute one score for each pair of texts."""


def mine_hard_negatives(
    dataset: Any,
    model: MiningModel,
    *,
    anchor_column_name: str | None = None,
    positive_column_name: str | None = None,
    corpus: Sequence[str] | str | PathLike[str] | None = None,
    corpus_embeddings: EmbeddingsOrFile | None = None,
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
    seed: int | None = 42,
    anchors_too: bool = False,
    verbose: bool = True,
) -> dict[str, list[Any]]:
    """Add to pairs of an anchor and a positive the documents most similar to the anchor that are not its positives.

    All positives of an anchor are those of the rows with the same anchor. Neither the text of a positive nor, unless
    `anchors_too` is set, that of the anchor itself is ever a negative of the anchor.

    Args:
        dataset: rows in any form that `as_table` reads.
        model: embeds anchors with `encode_query` and documents with `encode_document`, and compares them.
        anchor_column_name: by default the first column.
        positive_column_name: by default the second column.
        corpus: documents to choose from, in addition to all positives; or a file: lines of text, or its column
            called text or only column.
        corpus_embeddings: (corpus, d): embeddings of the corpus by the same model, such as a memory map that `encode`
            filled or the path of a .npy file, which is read in blocks; then only other documents are embedded.
        cross_encoder: scores the candidates instead of the model; needs a limit for its scores to decide about.
        range_min: skip this many of the best candidates.
        range_max: ignore the candidates after this many; by default as many as needed, or ten times as many if a limit
            may exclude some.
        max_score: exclude candidates that score higher.
        min_score: exclude candidates that score lower.
        absolute_margin: a negative has to score lower than the worst positive of its anchor by this much.
        relative_margin: the same, as a fraction of the score of that positive.
        num_negatives: most negatives for each anchor.
        sampling_strategy: "top" takes the best candidates, "random" any of them.
        query_prompt_name: name of the prompt before anchors.
        query_prompt: that prompt itself.
        corpus_prompt_name: name of the prompt before documents.
        corpus_prompt: that prompt itself.
        include_positives: let positives be candidates, to rank all documents; only for "n-tuple", then the default.
        output_format: "triplet" (the default), "n-tuple", "labeled-pair" or "labeled-list"; "n-tuple-scores" means
            "n-tuple" with `output_scores`.
        output_scores: add the similarities; they replace labels.
        batch_size: most texts in one forward pass.
        seed: of the choice that "random" makes; None draws from Python's own random numbers.
        anchors_too: let the text of an anchor be a negative of its own where it is a document, as the reference does.
        verbose: write a summary to standard error, and show progress on a terminal.

    Returns:
        Columns by name, which `Trainer` takes. Anchors and positives keep their names, and the others are
        - triplet: negative, each in a row of its own; scores are lists, of the positive and the negative;
        - n-tuple: negative_1 to negative_n, for pairs that have that many; scores are lists, the positive's first;
        - labeled-pair: label 1.0 or 0.0, or score, of a positive or negative in the column of positives;
        - labeled-list: a list of labels or scores for the list in the column of positives, of pairs with any negative.

    Raises:
        InputError: the columns are missing or hold other values than texts; the embeddings do not fit the corpus; the
            cross-encoder's scores are not numbers, one for each pair.
        InputTypeError: the model lacks a method, or the corpus holds other values than texts.
        ConfigError: an option is impossible, alone or in combination.
    """
    arguments = dict(locals())  # every argument above
    for name in ("encode_query", "encode_document", "similarity", "similarity_pairwise"):
        if not hasattr(model, name):
            raise InputTypeError(
                f"got a {type(model).__name__}, which has no {name}; expected a model: pass a SentenceTransformer"
            )
    rules = _Rules(**{rule.name: arguments[rule.name] for rule in fields(_Rules)})
    if isinstance(output_format, str) and output_format == "n-tuple-scores":
        output_format, output_scores = "n-tuple", True
    columns_of = layout(output_format, include_positives=include_positives)
    pairs = Pairs.of(dataset, anchor_column_name, positive_column_name, corpus)
    titles = columns_of.titles(pairs.names, num_negatives, with_scores=output_scores)
    last = rules.last_candidate(pairs.most_positives)

    def embed(encode: Callable[..., Any], texts: list[str], prompt_name: str | None, prompt: str | None) -> Tensor:
        options = {"prompt_name": prompt_name, "prompt": prompt, "batch_size": batch_size}
        given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        given |= {"normalize_embeddings": True, "convert_to_tensor": True, "show_progress_bar": verbose}
        return embedding_matrix(encode(texts, **given))

    anchors = embed(model.encode_query, pairs.anchors, query_prompt_name, query_prompt)
    given = None if corpus_embeddings is None else _given(corpus_embeddings, pairs.corpus_size, anchors.shape[1])
    others = pairs.documents[0 if given is None else len(pairs.corpus_rows) :]
    embedded = embed(model.encode_document, others, corpus_prompt_name, corpus_prompt) if others else anchors[:0]
    documents = _Documents(embedded, given, pairs.corpus_rows)
    with torch.no_grad():
        scores, rows = _candidates(
            model,
            anchors,
            documents,
            pairs,
            last + pairs.most_positives,
            include_positives=include_positives,
            anchors_too=anchors_too,
        )
        if cross_encoder is None:
            positive_scores = _positive_scores(model, anchors, documents, pairs)
        else:
            scores = _rescore(cross_encoder, scores, rows, pairs)
            texts = [(pairs.anchors[row], pairs.documents[index]) for row, index in pairs.indices.tolist()]
            positive_scores = _predict(cross_encoder, texts)
    by_anchor = pairs.by_anchor(positive_scores)
    negatives = rules.choose(scores, rows, torch.tensor([min(own) for own in by_anchor]), last=last)
    mined = [
        Mined(
            anchor,
            [(pairs.documents[row], score) for row, score in zip(own, own_scores, strict=True)],
            [(pairs.documents[row], score) for row, score in chosen],
        )
        for anchor, own, own_scores, chosen in zip(pairs.anchors, pairs.positives, by_anchor, negatives, strict=True)
    ]
    columns = columns_of.columns(mined, titles, num_negatives, with_scores=output_scores)
    if verbose:
        sys.stderr.write(_summary(mined, pairs, columns, num_negatives))
    return columns


@dataclass(frozen=True, kw_only=True)
class _Rules:
    """Rules for the choice of negatives: arguments of `mine_hard_negatives` of the same names."""

    range_min: int
    range_max: int | None
    max_score: float | None
    min_score: float | None
    absolute_margin: float | None
    relative_margin: float | None
    num_negatives: int
    sampling_strategy: SamplingStrategy
    seed: int | None
    cross_encoder: PairScorer | None

    def __post_init__(self) -> None:
        for name in ("range_min", "num_negatives", "range_max", "seed"):
            value = getattr(self, name)
            optional = name in ("range_max", "seed") and value is None
            if not optional and (not isinstance(value, (int, np.integer)) or isinstance(value, bool)):
                raise ConfigError(f"got {name}={value!r}; expected a whole number: pass one")
        for name in ("max_score", "min_score", "absolute_margin", "relative_margin"):
            value = getattr(self, name)
            if value is not None and not is_number(value):
                raise ConfigError(f"got {name}={value!r}; expected a number, or None for no limit: pass one")
        if not 1 <= self.num_negatives <= _MOST_NEGATIVES:
            raise ConfigError(
                f"got num_negatives={self.num_negatives}; expected at least 1, and at most {_MOST_NEGATIVES:,}: pass "
                f"a number between them"
            )
        if self.range_min < 0:
            raise ConfigError(f"got range_min={self.range_min}; expected at least 0: pass 0 to skip none")
        if self.range_max is not None and self.range_max - self.range_min < self.num_negatives:
            raise ConfigError(
                f"got range_min={self.range_min} and range_max={self.range_max}; expected at least num_negatives="
                f"{self.num_negatives} candidates between them: raise range_max"
            )
        if not isinstance(self.sampling_strategy, str) or self.sampling_strategy not in ("top", "random"):
            raise ConfigError(f"got sampling_strategy={self.sampling_strategy!r}; expected top or random: pass one")
        if self.cross_encoder is not None and not self._may_exclude:
            raise ConfigError(
                "got a cross_encoder without a limit for its scores to decide about; expected one of max_score, "
                "min_score, absolute_margin, relative_margin: pass one, or leave the cross_encoder out"
            )

    @property
    def _may_exclude(self) -> bool:
        """True if a limit may exclude the best candidates."""
        min_score = None if self.cross_encoder is None else self.min_score
        limits = [self.max_score, self.absolute_margin, self.relative_margin, min_score]
        return any(limit is not None for limit in limits)

    def last_candidate(self, most_positives: int) -> int:
        """Number of best candidates to look at, where an anchor has up to `most_positives` positives."""
        if self.range_max is not None:
            return self.range_max
        return self.range_min + self.num_negatives * (10 if self._may_exclude else 1) + most_positives

    def choose(
        self, scores: Tensor, rows: Tensor, lowest_positive: Tensor, *, last: int
    ) -> list[list[tuple[int, float]]]:
        """Choose negatives for each anchor: their rows and scores, best first."""
        scores = self._within_limits(scores, lowest_positive[:, None])
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        window = slice(self.range_min, last)
        scores, rows = scores[:, window], rows.gather(1, order)[:, window]
        counts = (scores != _EXCLUDED).sum(dim=1).tolist()
        draw: Any = random if self.seed is None else random.Random(self.seed)  # noqa: S311
        chosen = []
        for anchor_scores, anchor_rows, count in zip(scores.tolist(), rows.tolist(), counts, strict=True):
            indices: Sequence[int] = range(min(count, self.num_negatives))
            if self.sampling_strategy == "random":
                # Always the same number of draws, so that the choice for an anchor does not depend on those before it.
                drawn = draw.sample(range(max(count, self.num_negatives)), self.num_negatives)
                indices = sorted(index for index in drawn if index < count)
            chosen.append([(anchor_rows[index], anchor_scores[index]) for index in indices])
        return chosen

    def _within_limits(self, scores: Tensor, lowest_positive: Tensor) -> Tensor:
        """Set scores outside the limits to `_EXCLUDED`."""
        excluded = torch.zeros_like(scores, dtype=torch.bool)
        if self.absolute_margin is not None:
            excluded |= scores + float(self.absolute_margin) > lowest_positive
        if self.relative_margin is not None:
            excluded |= scores > lowest_positive - lowest_positive.abs() * float(self.relative_margin)
        if self.max_score is not None:
            excluded |= scores > float(self.max_score)
        if self.min_score is not None:
            excluded |= scores < float(self.min_score)
        return scores.masked_fill(excluded, _EXCLUDED)


@dataclass(frozen=True)
class _Documents:
    """Embeddings of documents at length 1: rows of a matrix that may be a file, then those of documents it lacks."""

    embedded: Tensor  # (documents - rows, d)
    given: Rows | None
    rows: NDArray[np.int64]  # of `given`, for each of the first documents

    def __getitem__(self, indices: Tensor) -> Tensor:
        """Return some embeddings: (n, d)."""
        if self.given is None:
            return self.embedded[indices]
        later = indices >= len(self.rows)
        rows = self.rows[indices[~later].numpy()]
        given = embedding_matrix(self.given[rows]).to(self.embedded)
        result = self.embedded.new_empty(len(indices), given.shape[1])
        result[~later] = normalize_embeddings(given)
        result[later] = self.embedded[indices[later] - len(self.rows)]
        return result


def _given(embeddings: EmbeddingsOrFile, texts: int, dim: int) -> Rows:
    """Return embeddings of a corpus as a matrix: (texts, dim)."""
    rows = embedding_rows(embeddings)
    if rows.shape != (texts, dim):
        raise InputError(
            f"got corpus_embeddings of shape {tuple(rows.shape)}; expected {(texts, dim)}: embed the corpus that is "
            f"given, with this model"
        )
    return rows


def _candidates(
    model: MiningModel,
    anchors: Tensor,
    documents: _Documents,
    pairs: Pairs,
    count: int,
    *,
    include_positives: bool,
    anchors_too: bool,
) -> tuple[Tensor, Tensor]:
    """Scores and rows of the `count` documents most similar to each anchor: (anchors, at most count + 1) each.

    Positives and, unless `anchors_too` is set, the anchor's own text score `_EXCLUDED`. The own text is not counted.
    """
    total = len(pairs.documents)
    index_of = {document: index for index, document in enumerate(pairs.documents)}
    own_texts = [
        row * total + index_of[anchor]
        for row, anchor in enumerate(pairs.anchors)
        if not anchors_too and anchor in index_of and index_of[anchor] not in pairs.positives[row]
    ]
    top_k = count + bool(own_texts)
    given, step = documents.given, _CORPUS_CHUNK
    if given is not None:
        step = block_rows(given, step, _QUERY_CHUNK, top_k)
    found = (
        nearest(
            anchors,
            documents[torch.arange(start, min(start + step, total))],
            top_k=top_k,
            score_function=model.similarity,
            query_chunk_size=_QUERY_CHUNK,
            corpus_chunk_size=step,
            first_row=start,
        )
        for start in range(0, total, step)
    )
    scores, rows = reduce(lambda before, after: merge_best(before, after, top_k), found)
    scores, rows = scores.float().cpu(), rows.cpu()
    cells = rows + torch.arange(len(rows))[:, None] * total
    own = torch.isin(cells, torch.tensor(own_texts, dtype=torch.int64))
    excluded = own.clone()
    excluded[~own.any(dim=1), count:] = True
    if not include_positives:
        rows_of_pairs, positives = pairs.indices.unbind(dim=1)
        excluded |= torch.isin(cells, rows_of_pairs * total + positives)
    return scores.masked_fill(excluded, _EXCLUDED), rows


def _positive_scores(model: MiningModel, anchors: Tensor, documents: _Documents, pairs: Pairs) -> Tensor:
    """Similarity of each anchor to each of its positives: float32, (pairs,)."""
    chunks = [chunk.unbind(dim=1) for chunk in torch.split(pairs.indices, _CORPUS_CHUNK)]
    scores = [model.similarity_pairwise(anchors[rows], documents[indices]) for rows, indices in chunks]
    return torch.cat(scores).float().cpu()


def _rescore(cross_encoder: PairScorer, scores: Tensor, rows: Tensor, pairs: Pairs) -> Tensor:
    """Replace the model's scores of all candidates by the cross-encoder's."""
    scores = scores.clone()
    for index, anchor in enumerate(pairs.anchors):
        kept = scores[index] != _EXCLUDED
        texts = [pairs.documents[row] for row in rows[index][kept].tolist()]
        if texts:
            scores[index, kept] = _predict(cross_encoder, [(anchor, text) for text in texts])
    return scores


def _predict(cross_encoder: PairScorer, pairs: list[tuple[str, str]]) -> Tensor:
    """The cross-encoder's score of each pair: float32, (pairs,)."""
    predicted = cross_encoder.predict(pairs)
    try:
        scores = torch.as_tensor(predicted, dtype=torch.float32).cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"got scores that are not numbers ({first_line(error)}); expected one for each pair of texts"
        ) from None
    if scores.isnan().any():
        raise InputError("got NaN as a score of the cross-encoder; expected numbers: check what it predicts")
    if scores.shape not in ((len(pairs),), (len(pairs), 1)):
        raise InputError(
            f"got scores of shape {tuple(scores.shape)} for {len(pairs)} pairs; expected one number for each: use a "
            f"cross-encoder with one output"
        )
    return scores.flatten()


def _summary(mined: Sequence[Mined], pairs: Pairs, columns: Mapping[str, list[Any]], num_negatives: int) -> str:
    rows = len(columns[pairs.names[0]])
    text = f"mined {rows:,} rows for {len(mined):,} anchors among {len(pairs.documents):,} documents"
    positives = [score for one in mined for _, score in one.positives]
    negatives = [score for one in mined for _, score in one.negatives]
    if negatives:
        text += f"; mean score {np.mean(positives):.3f} of positives, {np.mean(negatives):.3f} of negatives"
    short = sum(len(one.negatives) < num_negatives for one in mined)
    if short:
        text += (
            f"; {short:,} anchors have fewer than {num_negatives} negatives: ask for fewer, raise range_max, "
            f"loosen the limits, or add a corpus"
        )
    return text + "\n"
