"""Search among embeddings, with the reference's positional arguments."""

from __future__ import annotations

from typing import Any

from ... import search
from ...search import Encodes, Hit, ScoreFunction
from ...similarity import Embeddings, cos_sim


def semantic_search(
    query_embeddings: Embeddings,
    corpus_embeddings: Embeddings,
    query_chunk_size: int = 100,
    corpus_chunk_size: int = 500000,
    top_k: int = 10,
    score_function: ScoreFunction = cos_sim,
) -> list[list[Hit]]:
    """Find the rows of the corpus most similar to each query; see `minisbert.util.semantic_search`."""
    return search.semantic_search(
        query_embeddings,
        corpus_embeddings,
        query_chunk_size=query_chunk_size,
        corpus_chunk_size=corpus_chunk_size,
        top_k=top_k,
        score_function=score_function,
    )


def information_retrieval(*args: Any, **kwargs: Any) -> list[list[Hit]]:
    """Call `semantic_search`, of which this is an old name."""
    return semantic_search(*args, **kwargs)


def paraphrase_mining(
    model: Encodes,
    sentences: list[str],
    show_progress_bar: bool = False,
    batch_size: int = 32,
    query_chunk_size: int = 5000,
    corpus_chunk_size: int = 100000,
    max_pairs: int = 500000,
    top_k: int = 100,
    score_function: ScoreFunction = cos_sim,
    truncate_dim: int | None = None,
    prompt_name: str | None = None,
    prompt: str | None = None,
) -> list[list[float | int]]:
    """Find the most similar pairs among texts; see `minisbert.util.paraphrase_mining`."""
    return search.paraphrase_mining(
        model,
        sentences,
        show_progress_bar=show_progress_bar,
        batch_size=batch_size,
        query_chunk_size=query_chunk_size,
        corpus_chunk_size=corpus_chunk_size,
        max_pairs=max_pairs,
        top_k=top_k,
        score_function=score_function,
        truncate_dim=truncate_dim,
        prompt_name=prompt_name,
        prompt=prompt,
    )


def paraphrase_mining_embeddings(
    embeddings: Embeddings,
    query_chunk_size: int = 5000,
    corpus_chunk_size: int = 100000,
    max_pairs: int = 500000,
    top_k: int = 100,
    score_function: ScoreFunction = cos_sim,
) -> list[list[float | int]]:
    """Find the most similar pairs among embeddings; see `minisbert.util.paraphrase_mining_embeddings`."""
    return search.paraphrase_mining_embeddings(
        embeddings,
        query_chunk_size=query_chunk_size,
        corpus_chunk_size=corpus_chunk_size,
        max_pairs=max_pairs,
        top_k=top_k,
        score_function=score_function,
    )


def community_detection(
    embeddings: Embeddings,
    threshold: float = 0.75,
    min_community_size: int = 10,
    batch_size: int = 1024,
    show_progress_bar: bool = False,
) -> list[list[int]]:
    """Find groups of embeddings around a common centre; see `minisbert.util.community_detection`."""
    return search.community_detection(
        embeddings,
        threshold,
        min_community_size=min_community_size,
        batch_size=batch_size,
        show_progress_bar=show_progress_bar,
    )
