"""Hard negatives with the reference's arguments, from a data set of Hugging Face to another."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from torch import Tensor

from .. import mining
from ..errors import ConfigError, InputTypeError, shown, warn
from ..mining import MiningModel, PairScorer
from ..similarity import dot_score

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)


def mine_hard_negatives(
    dataset: Dataset,
    model: MiningModel,
    anchor_column_name: str | None = None,
    positive_column_name: str | None = None,
    corpus: list[str] | None = None,
    cross_encoder: PairScorer | None = None,
    range_min: int = 0,
    range_max: int | None = None,
    max_score: float | None = None,
    min_score: float | None = None,
    absolute_margin: float | None = None,
    relative_margin: float | None = None,
    num_negatives: int = 3,
    sampling_strategy: Literal["random", "top"] = "top",
    query_prompt_name: str | None = None,
    query_prompt: str | None = None,
    corpus_prompt_name: str | None = None,
    corpus_prompt: str | None = None,
    include_positives: bool = False,
    output_format: Literal["triplet", "n-tuple", "labeled-pair", "labeled-list"] = "triplet",
    output_scores: bool = False,
    batch_size: int = 32,
    faiss_batch_size: int = 16384,
    use_faiss: bool = False,
    use_multi_process: list[str] | bool = False,
    verbose: bool = True,
    cache_folder: str | None = None,
    as_triplets: bool | None = None,
    margin: float | None = None,
) -> Dataset:
    """Add to pairs of an anchor and a positive the documents most similar to the anchor that are not its positives.

    See `minisbert.util.mine_hard_negatives` for the arguments that it has too. As in the reference, the text of an
    anchor can be its own negative, labels are whole numbers, and "random" draws from Python's own random numbers.

    Args:
        dataset: a data set, or rows in any other form that `minisbert` reads.
        model: as there.
        anchor_column_name: by default, and if there is no such column, the first one.
        positive_column_name: by default, and if there is no such column, the second one.
        corpus: as there, like all up to `batch_size`.
        cross_encoder: as there; of no use, with a warning, without a limit for its scores.
        range_min: as there.
        range_max: as there.
        max_score: as there.
        min_score: as there.
        absolute_margin: as there.
        relative_margin: as there.
        num_negatives: as there.
        sampling_strategy: as there.
        query_prompt_name: as there.
        query_prompt: as there.
        corpus_prompt_name: as there.
        corpus_prompt: as there.
        include_positives: as there; the format is then "n-tuple", with a warning where another is named.
        output_format: as there.
        output_scores: as there.
        batch_size: most texts in one forward pass.
        faiss_batch_size: accepted; it changes nothing.
        use_faiss: compare by dot product, as the index of FAISS does; the package itself is not used.
        use_multi_process: embed in one process for each device, or each of these devices.
        verbose: write a summary to standard error.
        cache_folder: keep embeddings there, and take those that are there already.
        as_triplets: old form of `output_format`: "triplet" or "n-tuple".
        margin: old name of `absolute_margin`.

    Raises:
        ConfigError: an option is impossible, or the package datasets is not installed.
        InputError: the rows are not pairs of texts.
    """
    try:
        from datasets import Dataset
    except ImportError:
        raise ConfigError("mine_hard_negatives needs datasets; expected it installed: pip install datasets") from None
    if faiss_batch_size < 1:
        raise ConfigError(f"got faiss_batch_size={faiss_batch_size}; expected at least 1: pass a larger one")
    if as_triplets is not None:
        output_format = "triplet" if as_triplets else "n-tuple"
        logger.warning("the argument as_triplets is now output_format=%r", output_format)
    if margin is not None:
        absolute_margin = margin
        logger.warning("the argument margin is now called absolute_margin")
    if include_positives and output_format != "n-tuple":
        logger.warning("include_positives keeps the ranking only in output_format='n-tuple', which is used")
        output_format = "n-tuple"
    limits = (max_score, min_score, absolute_margin, relative_margin)
    if cross_encoder is not None and all(limit is None for limit in limits):
        warn(
            "got a cross_encoder without max_score, min_score, absolute_margin or relative_margin, which its scores "
            "would decide about; it is not used"
        )
        cross_encoder = None
    if isinstance(model, str) or not (hasattr(model, "encode") or hasattr(model, "encode_query")):
        raise InputTypeError(f"got model={shown(model)}; expected a SentenceTransformer: load one")
    names: Sequence[str] = getattr(dataset, "column_names", None) or ()
    for option, name in (("anchor", anchor_column_name), ("positive", positive_column_name)):
        if name is not None and names and name not in names:
            warn(f"got {option}_column_name={name!r}, none of {list(names)}: the usual column is taken")
    with ExitStack() as stack:
        wrapped = _Model(model, use_faiss, use_multi_process, cache_folder, stack)
        columns = mining.mine_hard_negatives(
            dataset,
            wrapped,
            anchor_column_name=anchor_column_name if not names or anchor_column_name in names else None,
            positive_column_name=positive_column_name if not names or positive_column_name in names else None,
            corpus=corpus,
            cross_encoder=None if cross_encoder is None else _Scorer(cross_encoder, batch_size),
            range_min=range_min,
            range_max=range_max,
            max_score=max_score,
            min_score=min_score,
            absolute_margin=absolute_margin,
            relative_margin=relative_margin,
            num_negatives=num_negatives,
            sampling_strategy=sampling_strategy,
            query_prompt_name=query_prompt_name,
            query_prompt=query_prompt,
            corpus_prompt_name=corpus_prompt_name,
            corpus_prompt=corpus_prompt,
            include_positives=include_positives,
            output_format=output_format,
            output_scores=output_scores,
            batch_size=batch_size,
            seed=None,
            anchors_too=True,
            verbose=verbose,
        )
    if output_format == "labeled-pair" and not output_scores:
        columns["label"] = [int(label) for label in columns["label"]]
    elif output_format == "labeled-list" and not output_scores:
        columns["labels"] = [[int(label) for label in labels] for labels in columns["labels"]]
    return Dataset.from_dict(columns)


class _Model:
    """A model that embeds in other processes, keeps embeddings in a folder, or compares by dot product."""

    def __init__(
        self,
        model: MiningModel,
        use_faiss: bool,
        devices: list[str] | bool,
        cache_folder: str | Path | None,
        stack: ExitStack,
    ) -> None:
        self.model = model
        self.similarity = dot_score if use_faiss else model.similarity
        self.similarity_pairwise = model.similarity_pairwise
        self._devices = devices
        self._folder = None if cache_folder is None else Path(cache_folder)
        self._stack = stack
        self._pool: Any = None

    def encode_query(self, inputs: list[str], /, **options: Any) -> Any:
        """Embed anchors."""
        return self._encode(self.model.encode_query, "query", inputs, options)

    def encode_document(self, inputs: list[str], /, **options: Any) -> Any:
        """Embed documents."""
        return self._encode(self.model.encode_document, "corpus", inputs, options)

    def _encode(self, encode: Callable[..., Any], kind: str, texts: list[str], options: dict[str, Any]) -> Any:
        path = None
        if self._folder is not None:
            name = getattr(getattr(self.model, "model_card_data", None), "base_model", None) or ""
            key = repr((name, options.get("prompt"), options.get("prompt_name"), texts)).encode()
            path = self._folder / f"{kind}_embeddings_{hashlib.sha256(key).hexdigest()}.npy"
            if path.exists():
                logger.info("embeddings come from %s", path)
                return np.load(path)
        if self._devices:
            options = {**options, "pool": self._started()}
        embeddings = encode(texts, **options)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, embeddings.cpu().numpy() if isinstance(embeddings, Tensor) else embeddings)
        return embeddings

    def _started(self) -> Any:
        """Return the processes, started when they are first needed."""
        if self._pool is None:
            model: Any = self.model
            self._pool = model.start_multi_process_pool(None if self._devices is True else self._devices)
            self._stack.callback(model.stop_multi_process_pool, self._pool)
        return self._pool


class _Scorer:
    """A cross-encoder with the options that the reference calls it with."""

    def __init__(self, cross_encoder: Any, batch_size: int) -> None:
        self._cross_encoder = cross_encoder
        self._batch_size = batch_size

    def predict(self, pairs: list[tuple[str, str]], /) -> Any:
        """Score pairs of texts."""
        return self._cross_encoder.predict(pairs, batch_size=self._batch_size, convert_to_tensor=True)
