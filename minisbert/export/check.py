"""Compare an exported file with the model it was made from, in the runtime that reads it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..modules.calibration import SENTENCES

if TYPE_CHECKING:
    from ..model import EmbeddingModel

_CLOSE = 1e-5  # largest difference in float32, of a value of an embedding whose values are at most 1

Inputs: TypeAlias = dict[str, NDArray[np.int64]]
Runner: TypeAlias = Callable[[Inputs], NDArray[np.float32]]  # padded texts to embeddings, (texts, dim)


def compare(model: EmbeddingModel, run: Runner, *, exact: bool) -> tuple[float, float]:
    """Embed texts padded on either side, some of them longer than the windows of attention.

    Args:
        model: that the file was made from.
        run: runs the file.
        exact: expect the model's own embeddings, but for rounding.

    Returns:
        The largest difference of a value from the model's own embeddings, and the least cosine.

    Raises:
        ConfigError: embeddings are not finite, or they differ and `exact` is True.
    """
    expected, got = [], []
    for texts in (["", *SENTENCES], [SENTENCES[0], " ".join(SENTENCES)]):
        with model.quietly():
            own = np.asarray(model.encode(texts, prompt=""), np.float32)
        for side in ("right", "left"):
            expected.append(own)
            got.append(run(padded(model, texts, side=side)))
    a, b = np.concatenate(expected), np.concatenate(got)
    for values, name in ((a, "this model"), (b, "the exported file")):
        if not np.isfinite(values).all():
            raise ConfigError(f"got embeddings from {name} that are not finite; expected numbers: check its weights")
    difference, lengths = float(np.abs(a - b).max()), np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines = (a * b).sum(1)[lengths > 0] / lengths[lengths > 0]
    bound = _CLOSE * max(1.0, float(np.abs(a).max()))
    if exact and difference > bound:
        raise ConfigError(
            f"the exported model differs by {difference:.1e} from this one; expected at most {bound:.0e}: report it "
            f"with the config.json of the model"
        )
    return difference, float(cosines.min(initial=1.0))


def padded(model: EmbeddingModel, texts: Sequence[str], *, side: str) -> Inputs:
    """Tokenize texts, and pad them on a side: input_ids, attention_mask and token_type_ids, (texts, length)."""
    tokens = model.transformer.text_tokenizer(list(texts))
    width = max(1, int(tokens.lengths.max()))
    shape = (len(texts), width)
    ids = np.full(shape, model.transformer.padding_token, np.int64)
    mask, types = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for row, (start, length) in enumerate(zip(tokens.offsets[:-1], tokens.lengths, strict=True)):
        place = slice(0, length) if side == "right" else slice(width - length, width)
        ids[row, place], mask[row, place] = tokens.ids[start : start + length], 1
        if tokens.types is not None:
            types[row, place] = tokens.types[start : start + length]
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def onnx_runner(path: Path) -> Runner:
    """Open a file in ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]

    def run(inputs: Inputs) -> NDArray[np.float32]:
        embeddings: NDArray[np.float32] = session.run(["sentence_embedding"], {name: inputs[name] for name in names})[0]
        return embeddings

    return run


def openvino_runner(path: Path) -> Runner:
    """Open a file in OpenVINO, which computes in float32."""
    import openvino

    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = [one.any_name for one in compiled.inputs]

    def run(inputs: Inputs) -> NDArray[np.float32]:
        embeddings: NDArray[np.float32] = compiled({name: inputs[name] for name in names})["sentence_embedding"]
        return embeddings

    return run
