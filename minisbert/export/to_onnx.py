"""Write a model as an ONNX file of standard operators, and compare it with what it was made from."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..errors import ConfigError, InputError
from ..modules.calibration import SENTENCES
from ..modules.encoder import Encoder
from ..modules.table import TableEncoder
from ..packing import pack
from ..storage.files import output_path, parents_made
from .check import compare, onnx_runner
from .encoder import EncoderGraph, inputs_of
from .graph import FLOAT, INT64, IR_VERSION, OPSET, Graph
from .modules import after_pooling, mean_of_tokens, sentence_embeddings

if TYPE_CHECKING:
    from ..model import EmbeddingModel

LARGEST = 2**31 - 2**20  # bytes of a file; beyond, weights go into a second one
DTYPES = ("float32", "float16", "int8")


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
        path: of the file, "NAME.onnx"; weights beyond two gigabytes go into a second one beside it, "NAME.onnx_data".
        dtype: of the weights: "float32"; "float16", which is computed with in float32; or "int8", for which inputs are
            quantized as they come.

    Returns:
        The file, its size, and how far its embeddings are from the model's own.

    Raises:
        ConfigError: the model cannot be exported, or onnx or onnxruntime is not installed.
        InputError: the file has another ending, or cannot be written.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"got dtype={dtype!r}; expected one of {', '.join(DTYPES)}")
    path = checked_path(path, ".onnx")
    check_packages("onnx", "onnxruntime")
    graph = make_graph(model, dtype)
    with place_beside(path) as place:
        size = save_graph(graph, model, place / path.name)
        difference, cosine = compare(model, onnx_runner(place / path.name), exact=dtype == "float32")
        stale = not (place / _data_file(path).name).exists() and _is_stored_apart(path)
        put(place, path.parent)
    if stale:
        _data_file(path).unlink(missing_ok=True)
    return Exported(path, size, difference, cosine)


def _data_file(path: Path) -> Path:
    """Return the second file of an ONNX file."""
    return path.with_name(f"{path.name}_data")


def _is_stored_apart(path: Path) -> bool:
    """Return True if an ONNX file that is there has its weights in the second file."""
    import onnx

    if not path.is_file() or not _data_file(path).is_file():
        return False
    try:
        tensors = onnx.load(path, load_external_data=False).graph.initializer
    except Exception:  # whatever it is, it is no file of this kind
        return False
    places = {entry.value for one in tensors for entry in one.external_data if entry.key == "location"}
    return _data_file(path).name in places


def checked_path(path: str | Path, ending: str) -> Path:
    """Return where a file is to be written, which must not be what another kind of file is.

    Raises:
        InputError: it has another ending, or is a folder.
        InputTypeError: this is no path.
    """
    path = output_path(path)
    if path.suffix != ending:
        better = path.with_suffix(ending) if path.name else f"model{ending}"
        raise InputError(f"got the file {str(path)!r}; expected a name that ends in {ending}: {better}")
    if path.is_dir():
        raise InputError(f"got {path}, which is a folder; expected the name of a file: choose another")
    return path


@contextmanager
def place_beside(path: Path) -> Iterator[Path]:
    """Make a folder for files until they are put beside `path`; if that fails, no folder is left that was not there.

    Raises:
        InputError: files cannot be written there.
    """
    try:
        with parents_made(path), tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as place:
            yield Path(place)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror}); expected a place for it: choose another"
        ) from None


def check_packages(*names: str) -> None:
    """Check that the packages an export needs are installed.

    Raises:
        ConfigError: one is not.
    """
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        extra, kind = ("openvino", "OpenVINO") if "openvino" in names else ("onnx", "ONNX")
        raise ConfigError(
            f"got no {' and no '.join(missing)}, with which {kind} files are written and checked; expected "
            f"{' and '.join(names)} to be installed: pip install 'minisbert[{extra}]'"
        )


def put(files: Path, folder: Path) -> None:
    """Move files that belong together, the larger ones of weights first."""
    for file in sorted(files.iterdir(), key=lambda file: file.stat().st_size, reverse=True):
        file.replace(folder / file.name)


def make_graph(model: EmbeddingModel, dtype: str) -> Graph:
    """Return the operators and weights of a model.

    Raises:
        ConfigError: the model cannot be exported.
    """
    graph, encoder = Graph(dtype=dtype), model.transformer.encoder
    if (loaded := _half(model)) is not None:
        raise ConfigError(
            f"got a model in {loaded}; expected float32, in which the file computes: load it with dtype='float32'"
        )
    if isinstance(encoder, TableEncoder):
        inputs = inputs_of(graph)
        tokens = graph.add("Gather", graph.weight(encoder.embedding.weight), "input_ids", output="token_embeddings")
        sentences = after_pooling(graph, list(model)[1:], mean_of_tokens(graph, tokens, inputs))
    elif isinstance(encoder, Encoder):
        _check_floats(model, encoder)
        examples = pack(model.transformer.text_tokenizer(list(SENTENCES))).to(model.device)
        made = EncoderGraph(graph, encoder, encoder.input_factors(examples) if graph.quantized else {})
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
    return graph


def _half(model: EmbeddingModel) -> str | None:
    """Return the name of a dtype of 16 bits that weights have."""
    dtypes = {parameter.dtype for parameter in model.parameters()} & {torch.float16, torch.bfloat16}
    return str(dtypes.pop()).removeprefix("torch.") if dtypes else None


def _check_floats(model: EmbeddingModel, encoder: Encoder) -> None:
    if encoder.quantized:
        raise ConfigError("got a model in int8; expected floats to export: load it without dtype='int8'")
    if model.transformer.adapter is not None:
        raise ConfigError("got a model with an adapter; expected none to export: call merge_and_unload() first")


def save_graph(graph: Graph, model: EmbeddingModel, path: Path) -> int:
    """Write a file, and a second one for weights if they are too large for one; return the size of both."""
    import onnx

    encoder = model.transformer.encoder
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if encoder.token_types else [])]
    outputs: dict[str, list[str | int]] = {
        "token_embeddings": ["batch", "sequence", encoder.config.hidden_size],
        "sentence_embedding": ["batch", model.dimension(model.truncate_dim)],
    }
    large = sum(array.nbytes for array in graph.constants.values()) > LARGEST
    information = onnx.helper.make_tensor_value_info
    made = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            "minisbert",
            [information(name, INT64, ["batch", "sequence"]) for name in names],
            [information(name, FLOAT, shape) for name, shape in outputs.items()],
            graph.tensors(_data_file(path) if large else None),
        ),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="minisbert",
    )
    onnx.save(made, path)
    return sum(file.stat().st_size for file in path.parent.iterdir())
