"""Search among embeddings: nearest neighbours, paraphrases, communities.

Embeddings may be a file: a memory map, or the path of a .npy file, which becomes one. They are read and converted to
float32 in blocks, and so are scores computed. The sizes of chunks and blocks limit the memory; they change at most the
last bits of a score. Among equal scores the lower index comes first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, Protocol, TypeAlias, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from .errors import ConfigError, InputError, InputTypeError, check_count, first_line
from .similarity import Embeddings, check_finite, cos_sim, dot_score, embedding_matrix, is_number, normalize_embeddings
from .text import check_texts

ScoreFunction: TypeAlias = Callable[[Tensor, Tensor], Tensor]
Rows: TypeAlias = Tensor | NDArray[Any]
EmbeddingsOrFile: TypeAlias = Embeddings | str | PathLike[str]

# On a CPU, whatever the chunk sizes: numbers in a block of a corpus, 32 MiB as float32, and scores, 128 MiB.
_BLOCK, _BLOCK_SCORES = 2**23, 2**25
_LEAST_ROWS = 1024  # of a block, so that few of them are merged


class Hit(TypedDict):
    """A corpus row and its score."""

    corpus_id: int
    score: float


class Encodes(Protocol):
    """The part of a model that `paraphrase_mining` uses."""

    def encode(self, inputs: list[str], /, *args: Any, **options: Any) -> Any:
        """Embed texts."""


def semantic_search(
    query_embeddings: EmbeddingsOrFile,
    corpus_embeddings: EmbeddingsOrFile,
    *,
    query_chunk_size: int = 100,
    corpus_chunk_size: int = 500_000,
    top_k: int = 10,
    score_function: ScoreFunction = cos_sim,
) -> list[list[Hit]]:
    """Find the rows of the corpus that are most similar to each query.

    Args:
        query_embeddings: (n, d), or (d,) for one query.
        corpus_embeddings: (m, d).
        query_chunk_size: queries that are compared at the same time.
        corpus_chunk_size: most corpus rows that they are compared with at the same time.
        top_k: most hits for each query.
        score_function: (n, d) and (m, d) tensors to (n, m) scores; larger is more similar.

    Returns:
        For each query its min(top_k, m) best hits, best first: {"corpus_id": row, "score": score}.

    Raises:
        InputError: the embeddings are not matrices of one dimension, or NaN or infinity in them decides a score.
        InputTypeError: `score_function` cannot be called.
        ConfigError: a size or `top_k` is below 1.
    """
    check_count(top_k, "top_k")
    corpus = embedding_rows(corpus_embeddings)
    scores, rows = nearest(
        query_embeddings,
        corpus,
        top_k=top_k,
        score_function=score_function,
        query_chunk_size=query_chunk_size,
        corpus_chunk_size=block_rows(corpus, corpus_chunk_size, query_chunk_size, top_k),
    )
    return [
        [{"corpus_id": row, "score": score} for row, score in zip(query_rows, query_scores, strict=True)]
        for query_rows, query_scores in zip(rows.tolist(), scores.tolist(), strict=True)
    ]


def paraphrase_mining(
    model: Encodes,
    sentences: Sequence[str],
    *,
    show_progress_bar: bool = False,
    batch_size: int | None = None,
    query_chunk_size: int = 5_000,
    corpus_chunk_size: int = 100_000,
    max_pairs: int = 500_000,
    top_k: int = 100,
    score_function: ScoreFunction = cos_sim,
    truncate_dim: int | None = None,
    prompt_name: str | None = None,
    prompt: str | None = None,
    out: NDArray[np.float32] | None = None,
) -> list[list[float | int]]:
    """Find the most similar pairs among texts.

    Args:
        model: anything with the `encode` of a `SentenceTransformer`.
        sentences: the texts.
        show_progress_bar: show one on a terminal while texts are embedded.
        batch_size: passed to `encode`, as are `truncate_dim`, `prompt_name` and `prompt`.
        query_chunk_size: passed to `paraphrase_mining_embeddings`, as are the four arguments below.
        corpus_chunk_size: see there.
        max_pairs: see there.
        top_k: see there.
        score_function: see there.
        truncate_dim: keep only this many leading dimensions.
        prompt_name: name of the prompt to put before each text.
        prompt: the prompt itself.
        out: float32 array or memory map for the embeddings, (texts, dim), so that memory need not hold them.

    Returns:
        [score, i, j] with i < j for each pair, best first.

    Raises:
        InputTypeError: `sentences` is not a list of strings, or the model has no `encode`.
        ConfigError: a size, `max_pairs` or `top_k` is below 1.
    """
    if not hasattr(model, "encode") or isinstance(model, str):
        raise InputTypeError(
            f"got a {type(model).__name__} as model; expected one with encode: pass a SentenceTransformer, or use "
            f"paraphrase_mining_embeddings"
        )
    options = {"batch_size": batch_size, "truncate_dim": truncate_dim, "prompt_name": prompt_name, "prompt": prompt}
    given = {name: value for name, value in {**options, "out": out}.items() if value is not None}
    texts = check_texts(sentences, what="sentences")
    embeddings = model.encode(texts, convert_to_tensor=out is None, show_progress_bar=show_progress_bar, **given)
    return paraphrase_mining_embeddings(
        embeddings,
        query_chunk_size=query_chunk_size,
        corpus_chunk_size=corpus_chunk_size,
        max_pairs=max_pairs,
        top_k=top_k,
        score_function=score_function,
    )


def paraphrase_mining_embeddings(
    embeddings: EmbeddingsOrFile,
    *,
    query_chunk_size: int = 5_000,
    corpus_chunk_size: int = 100_000,
    max_pairs: int = 500_000,
    top_k: int = 100,
    score_function: ScoreFunction = cos_sim,
) -> list[list[float | int]]:
    """Find the most similar pairs among embeddings.

    Args:
        embeddings: (n, d).
        query_chunk_size: rows that are compared at the same time.
        corpus_chunk_size: most rows that they are compared with at the same time.
        max_pairs: most pairs to return.
        top_k: a pair counts when one of its rows is among the `top_k` most similar ones of the other.
        score_function: as in `semantic_search`; should be symmetric.

    Returns:
        [score, i, j] with i < j for each pair, best first, then by i and j.

    Raises:
        InputError: the embeddings are not a matrix.
        ConfigError: a size, `max_pairs` or `top_k` is below 1.
    """
    check_count(query_chunk_size, "query_chunk_size")
    check_count(max_pairs, "max_pairs")
    check_count(top_k, "top_k")
    rows = embedding_rows(embeddings)
    count = len(rows)
    query_chunk_size = max(1, min(query_chunk_size, count))
    corpus_chunk_size = block_rows(rows, corpus_chunk_size, query_chunk_size, top_k)
    pairs, pair_scores = np.empty(0, np.int64), np.empty(0, np.float32)  # a pair is i * count + j
    for start in range(0, count, query_chunk_size):
        nearest_scores, nearest_rows = nearest(
            rows[start : start + query_chunk_size],
            rows,
            top_k=top_k + 1,  # one of them is the row itself
            score_function=score_function,
            query_chunk_size=query_chunk_size,
            corpus_chunk_size=corpus_chunk_size,
            first_query=start,
        )
        others, scores = nearest_rows.cpu().numpy(), nearest_scores.cpu().numpy()
        queries = np.arange(start, start + len(others))[:, None]
        wanted = others != queries
        wanted &= wanted.cumsum(axis=1) <= top_k
        new = (np.minimum(others, queries) * count + np.maximum(others, queries))[wanted]
        # A pair found from both of its rows keeps the score of the first.
        pairs, first = np.unique(np.concatenate([pairs, new]), return_index=True)
        pair_scores = np.concatenate([pair_scores, scores[wanted]])[first]
        best = np.argsort(-pair_scores, kind="stable")[:max_pairs]
        pairs, pair_scores = pairs[best], pair_scores[best]
    columns = pair_scores.tolist(), (pairs // max(count, 1)).tolist(), (pairs % max(count, 1)).tolist()
    return [list(pair) for pair in zip(*columns, strict=True)]


def community_detection(
    embeddings: EmbeddingsOrFile,
    threshold: float = 0.75,
    *,
    min_community_size: int = 10,
    batch_size: int = 1024,
    show_progress_bar: bool = False,
) -> list[list[int]]:
    """Find groups of embeddings around a common centre.

    A group is everything whose cosine similarity to the centre is at least `threshold`. The largest group comes first
    and takes its members; each further one consists of what is left.

    Args:
        embeddings: (n, d).
        threshold: least cosine similarity to the centre.
        min_community_size: least size of a group, its centre included.
        batch_size: rows that are compared with all others at the same time.
        show_progress_bar: show one on a terminal.

    Returns:
        The rows of each group: the centre, then the others from near to far; largest group first.

    Raises:
        InputError: the embeddings are not a matrix of finite numbers.
        ConfigError: a size is below 1, or the threshold is not a number.
    """
    check_count(min_community_size, "min_community_size")
    check_count(batch_size, "batch_size")
    if not is_number(threshold):
        raise ConfigError(f"got threshold={threshold!r}; expected a number: pass a cosine similarity")
    threshold = float(threshold)
    rows = embedding_rows(embeddings)
    count = len(rows)
    batch_size = max(1, min(batch_size, count))
    if count < min_community_size:
        return []
    with torch.no_grad():
        directions = normalize_embeddings(embedding_matrix(rows))
        check_finite(directions, what="embeddings")
        sizes = np.empty(count, np.int64)
        hidden = None if show_progress_bar else True
        with tqdm(total=count, desc="Finding communities", unit="row", disable=hidden) as bar:
            for start in range(0, count, batch_size):
                near = directions[start : start + batch_size] @ directions.T >= threshold
                sizes[start : start + batch_size] = near.sum(dim=1).cpu().numpy()
                bar.update(len(near))
        centres = np.argsort(-sizes, kind="stable")
        centres = centres[sizes[centres] >= min_community_size]
        taken = np.zeros(count, bool)
        communities: list[list[int]] = []
        # Members are searched a second time, for free centres only: to keep those of every row could take as much
        # memory as all scores.
        while len(centres):
            batch = centres[:batch_size]
            for centre, scores in zip(batch.tolist(), directions[batch] @ directions.T, strict=True):
                if taken[centre]:
                    continue
                near = (scores >= threshold).nonzero().flatten()
                members = near[scores[near].argsort(descending=True, stable=True)].cpu().numpy()
                members = members[~taken[members]]
                if len(members) >= min_community_size:
                    community = [centre, *members[members != centre].tolist()]
                    taken[community] = True
                    communities.append(community)
            centres = centres[batch_size:]
            centres = centres[~taken[centres]]
    return sorted(communities, key=len, reverse=True)


def nearest(
    query_embeddings: EmbeddingsOrFile,
    corpus_embeddings: EmbeddingsOrFile,
    *,
    top_k: int,
    score_function: ScoreFunction = cos_sim,
    query_chunk_size: int = 100,
    corpus_chunk_size: int = 500_000,
    first_query: int = 0,
    first_row: int = 0,
) -> tuple[Tensor, Tensor]:
    """Search as `semantic_search` does, and return tensors.

    `first_query` is the number of the first query, for messages, and `first_row` that of the first corpus row.

    Returns:
        Scores and corpus rows (int64), each (n, min(top_k, m)), on the device of the corpus.

    Raises:
        InputError: as for `semantic_search`, or scores have another shape than (n, m).
        InputTypeError: as for `semantic_search`.
        ConfigError: as for `semantic_search`.
    """
    check_count(top_k, "top_k")
    check_count(query_chunk_size, "query_chunk_size")
    check_count(corpus_chunk_size, "corpus_chunk_size")
    if not callable(score_function):
        raise InputTypeError(
            f"got {score_function!r} as score_function; expected a function of two tensors: pass cos_sim, dot_score or "
            f"a function like them"
        )
    queries, corpus = embedding_rows(query_embeddings), embedding_rows(corpus_embeddings)
    query_chunk_size, corpus_chunk_size = min(query_chunk_size, len(queries)), min(corpus_chunk_size, len(corpus))
    if not len(queries) or not len(corpus):
        return torch.empty(len(queries), 0), torch.empty(len(queries), 0, dtype=torch.int64)
    cosine = score_function is cos_sim
    starts = range(0, len(queries), query_chunk_size)
    best: list[tuple[Tensor, Tensor]] = []
    with torch.no_grad():
        for corpus_start in range(0, len(corpus), corpus_chunk_size):
            right = embedding_matrix(corpus[corpus_start : corpus_start + corpus_chunk_size])
            right = normalize_embeddings(right) if cosine else right
            for chunk, start in enumerate(starts):
                left = embedding_matrix(queries[start : start + query_chunk_size]).to(right.device)
                scores = dot_score(normalize_embeddings(left), right) if cosine else score_function(left, right)
                _check_shape(scores, len(left), len(right))
                values, columns = top_scores(scores, top_k)
                if values[:, 0].isnan().any():  # NaN ranks before every number
                    check_finite(right, what="corpus", first=first_row + corpus_start)
                    check_finite(left, what="queries", first=first_query + start)
                    raise InputError("got NaN as a score; expected numbers: check what the score_function returns")
                found = values, columns + (first_row + corpus_start)
                if not corpus_start:
                    best.append(found)
                else:
                    best[chunk] = merge_best(best[chunk], found, top_k)
    return torch.cat([values for values, _ in best]), torch.cat([rows for _, rows in best])


def _check_shape(scores: object, queries: int, rows: int) -> None:
    if not isinstance(scores, Tensor) or scores.shape != (queries, rows):
        got = f"shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else f"type {type(scores).__name__}"
        raise InputError(
            f"got scores of {got} for {queries} queries and {rows} corpus rows; expected a tensor with a number for "
            f"each pair: pass cos_sim, dot_score or a function like them"
        )


def top_scores(scores: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Find the largest scores of each row and their columns, best first, lower columns first among equal ones.

    Args:
        scores: (n, m), m at least 1.
        top_k: number of scores, at least 1; all of them if there are fewer.

    Returns:
        Scores, and int64 columns: (n, min(top_k, m)) each.
    """
    top_k = min(top_k, scores.shape[1])
    values, columns = scores.topk(min(top_k + 1, scores.shape[1]), dim=1)
    last, columns = values[:, top_k - 1], columns[:, :top_k].sort(dim=1).values
    # `topk` picks any of the scores equal to the last one; where it had a choice, take the first of them.
    for row in (values[:, top_k:] == last[:, None]).any(dim=1).nonzero().flatten().tolist():
        above = (scores[row] > last[row]).nonzero().flatten()
        equal = (scores[row] == last[row]).nonzero().flatten()[: top_k - len(above)]
        columns[row] = torch.cat([above, equal]).sort().values
    values, order = scores.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return values, columns.gather(1, order)


def merge_best(before: tuple[Tensor, Tensor], after: tuple[Tensor, Tensor], top_k: int) -> tuple[Tensor, Tensor]:
    """Merge the best scores in two parts of a corpus; rows of `before` come first among equal scores.

    Args:
        before: scores, best first, and rows: (n, k) each.
        after: the same, (n, l) each, for later rows than those of `before`.
        top_k: number to keep.

    Returns:
        Scores and rows: (n, min(top_k, k + l)) each.
    """
    scores, rows = (torch.cat(parts, dim=1) for parts in zip(before, after, strict=True))
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    return scores[:, :top_k], rows.gather(1, order[:, :top_k])


def block_rows(corpus: Rows, corpus_chunk_size: int, query_chunk_size: int, top_k: int) -> int:
    """Return the number of corpus rows to compare at a time: less than a chunk where that needs much memory."""
    if isinstance(corpus, Tensor) and corpus.device.type != "cpu":
        return corpus_chunk_size
    queries = check_count(query_chunk_size, "query_chunk_size")
    most = min(_BLOCK // max(1, corpus.shape[1]), _BLOCK_SCORES // queries)
    return min(check_count(corpus_chunk_size, "corpus_chunk_size"), max(_LEAST_ROWS, 2 * top_k, most))


def embedding_rows(embeddings: EmbeddingsOrFile) -> Rows:
    """Return embeddings as a matrix, (n, d); do not convert one, so that a file is read block by block.

    Raises:
        InputError: they are not rows of numbers, or a file holds none.
        InputTypeError: they are none of a tensor, array, list and path.
    """
    if isinstance(embeddings, (str, PathLike)):
        return _mapped(embeddings)
    if isinstance(embeddings, (Tensor, np.ndarray)):
        dense = isinstance(embeddings, np.ndarray) or (embeddings.layout == torch.strided and not embeddings.is_meta)
        return embeddings if dense and embeddings.ndim == 2 else embedding_matrix(embeddings)
    if not hasattr(embeddings, "__len__"):
        raise InputTypeError(
            f"got {type(embeddings).__name__} as embeddings; expected a tensor, array or list: make one of them"
        )
    return embedding_matrix(embeddings) if len(embeddings) else np.empty((0, 0), np.float32)


def _mapped(path: str | PathLike[str]) -> NDArray[Any]:
    """Open a .npy file of embeddings as a memory map."""
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"cannot read embeddings from {path} ({first_line(error)}); expected a whole .npy file: pass one that "
            f"minisbert encode or np.save wrote"
        ) from None
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.dtype.kind not in "fiu":
        got = f"{rows.dtype} of shape {rows.shape}" if isinstance(rows, np.ndarray) else "several arrays"
        raise InputError(f"got {got} in {path}; expected rows of numbers, (n, d): save what encode returns")
    return rows
