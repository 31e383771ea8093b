"""Write a model as an ONNX file of standard operators, and compare it with what it was made from."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, InputError
from ..modules.calibration import SENTENCES
from ..modules.encoder import Encoder
from ..modules.table import TableEncoder
from ..packing import pack
from .encoder import EncoderGraph, inputs_of
from .graph import FLOAT, INT64, IR_VERSION, OPSET, Graph
from .modules import after_pooling, mean_of_tokens, sentence_embeddings

if TYPE_CHECKING:
    from ..model import EmbeddingModel

LARGEST = 2**31 - 2**20  # bytes of a file; beyond, weights go into a second one
DTYPES = ("float32", "int8")
_CLOSE = 1e-5  # largest difference of a value of an embedding in float32


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Attributes:
        path: the file.
        bytes: of it, and of the file of weights beside it.
        difference: largest difference of a value from the model's own embeddings of some sentences.
        cosine: the least cosine of an embedding and the model's own.
    """

    path: Path
    bytes: int
    difference: float
    cosine: float


def to_onnx(model: EmbeddingModel, path: str | Path, *, dtype: str = "float32") -> Exported:
    """Write a model as an ONNX file for ONNX Runtime and other tools, and check it.

    Inputs are `input_ids`, `attention_mask` and, where the model has them, `token_type_ids`: int64, (texts, length),
    padded on either side. Outputs are `token_embeddings`, (texts, length, dim), and `sentence_embedding`, (texts, dim).

    Args:
        model: with an encoder that runs natively, or a static model.
        path: of the file; weights beyond two gigabytes go into a second one beside it, "NAME_data".
        dtype: "float32", or "int8" for weights in int8 and inputs quantized as they come.

    Returns:
        The file, its size, and how far its embeddings are from the model's own.

    Raises:
        ConfigError: the model cannot be exported, or onnx or onnxruntime is not installed.
        InputError: the file cannot be written.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"got dtype={dtype!r}; expected one of {', '.join(DTYPES)}")
    _check_packages()
    path = Path(path)
    made = _model(model, quantized=dtype == "int8")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as place:
            size = _save(made, Path(place) / path.name)
            difference, cosine = _compare(model, Path(place) / path.name)
            if dtype == "float32" and not difference <= _CLOSE:
                raise ConfigError(
                    f"the exported model differs by {difference:.1e} from this one; expected at most {_CLOSE:.0e}: "
                    f"report it with the config.json of the model"
                )
            for file in sorted(Path(place).iterdir(), reverse=True):  # weights first
                file.replace(path.parent / file.name)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror}); expected a place for it: choose another"
        ) from None
    return Exported(path, size, difference, cosine)


def _check_packages() -> None:
    missing = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"got no {' and no '.join(missing)}, with which ONNX files are written and checked; expected both to be "
            f"installed: pip install 'minisbert[onnx]'"
        )


def _model(model: EmbeddingModel, *, quantized: bool) -> Any:
    """Return the model as one of the `onnx` library."""
    import onnx

    graph, encoder = Graph(quantized=quantized), model.transformer.encoder
    if isinstance(encoder, TableEncoder):
        inputs = inputs_of(graph)
        tokens = graph.add("Gather", graph.weight(encoder.embedding.weight), "input_ids", output="token_embeddings")
        sentences = after_pooling(graph, list(model)[1:], mean_of_tokens(graph, tokens, inputs))
    elif isinstance(encoder, Encoder):
        _check_floats(model, encoder)
        examples = pack(model.transformer.text_tokenizer(list(SENTENCES))).to(model.device)
        made = EncoderGraph(graph, encoder, encoder.input_factors(examples) if quantized else {})
        tokens = graph.add("Identity", made.token_embeddings(), output="token_embeddings")
        sentences = sentence_embeddings(graph, list(model)[1:], tokens, made.inputs)
    else:
        raise ConfigError(
            f"got an encoder of type {model.transformer.config.get('model_type')}, which runs through transformers; "
            f"expected a native one to export: see docs/families.md"
        )
    if (kept := model.truncate_dim) is not None:
        ends = (graph.constant([value], np.int64) for value in (0, kept, -1))
        sentences = graph.add("Slice", sentences, *ends)
    graph.add("Identity", sentences, output="sentence_embedding")
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if encoder.token_types else [])]
    information = onnx.helper.make_tensor_value_info
    dim = encoder.config.hidden_size
    outputs: dict[str, list[str | int | None]] = {
        "token_embeddings": ["batch", "sequence", dim],
        "sentence_embedding": ["batch", model.dimension(None)],
    }
    return onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            "minisbert",
            [information(name, INT64, ["batch", "sequence"]) for name in names],
            [information(name, FLOAT, shape) for name, shape in outputs.items()],
            graph.constants,
        ),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="minisbert",
    )


def _check_floats(model: EmbeddingModel, encoder: Encoder) -> None:
    if encoder.quantized:
        raise ConfigError("got a model in int8; expected floats to export: load it without dtype='int8'")
    if model.transformer.adapter is not None:
        raise ConfigError("got a model with an adapter; expected none to export: call merge_and_unload() first")


def _save(made: Any, path: Path) -> int:
    """Write a file, and a second one for weights if they are too large for one; return the size of both."""
    import onnx

    data = f"{path.name}_data"
    if sum(len(tensor.raw_data) for tensor in made.graph.initializer) > LARGEST:
        onnx.save(made, path, save_as_external_data=True, location=data, size_threshold=1024)
    else:
        onnx.save(made, path)
    return sum(file.stat().st_size for file in path.parent.iterdir())


def _compare(model: EmbeddingModel, path: Path) -> tuple[float, float]:
    """Largest difference from the model's own embeddings, and least cosine, over texts padded on either side."""
    texts = ["", *SENTENCES]
    expected = np.asarray(model.encode(texts), np.float32)
    difference, cosine = 0.0, 1.0
    for side in ("right", "left"):
        got = run_onnx(path, padded(model, texts, side=side))
        difference = max(difference, float(np.abs(got - expected).max()))
        lengths = np.linalg.norm(got, axis=1) * np.linalg.norm(expected, axis=1)
        near = (got * expected).sum(1) / np.maximum(lengths, 1e-12)
        cosine = min(cosine, float(near[lengths > 0].min(initial=1.0)))
    return difference, cosine


def padded(model: EmbeddingModel, texts: list[str], *, side: str) -> dict[str, NDArray[np.int64]]:
    """Tokenize texts, and pad them on a side: input_ids, attention_mask and token_type_ids, (texts, length)."""
    tokens = model.transformer.text_tokenizer(texts)
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


def run_onnx(path: Path, inputs: dict[str, NDArray[np.int64]]) -> NDArray[np.float32]:
    """Embed padded texts with ONNX Runtime: float32, (texts, dim)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    taken = {one.name: inputs[one.name] for one in session.get_inputs()}
    embeddings: NDArray[np.float32] = session.run(["sentence_embedding"], taken)[0]
    return embeddings
