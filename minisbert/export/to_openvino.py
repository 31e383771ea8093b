"""Write a model in OpenVINO's own format, by way of its ONNX graph, and compare it with what it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError, InputError
from .check import compare, openvino_runner
from .to_onnx import Exported, check_packages, checked_path, make_graph, place_beside, put, save_graph

if TYPE_CHECKING:
    from ..model import EmbeddingModel

DTYPES = ("float32", "float16")


def to_openvino(model: EmbeddingModel, path: str | Path, *, dtype: str = "float32") -> Exported:
    """Write a model as an OpenVINO file of its graph, and one of its weights beside it, and check them.

    Inputs and outputs are those of `to_onnx`.

    Args:
        model: with an encoder that runs natively, or a static model.
        path: of the graph, "NAME.xml"; the weights are in "NAME.bin".
        dtype: of the weights: "float32", or "float16", which OpenVINO turns into the format it computes in.

    Returns:
        The file, the size of both, and how far embeddings are from the model's own, computed in float32.

    Raises:
        ConfigError: the model cannot be exported, or onnx or openvino is not installed.
        InputError: the file has another ending, the second one is of something else, or they cannot be written.
    """
    if dtype not in DTYPES:
        raise ConfigError(
            f"got dtype={dtype!r}; expected {' or '.join(DTYPES)}: for int8 write an ONNX file, which OpenVINO reads"
        )
    path = checked_path(path, ".xml")
    if (weights := path.with_suffix(".bin")).exists() and not path.exists():
        raise InputError(
            f"got the file {path}, whose weights would be written over {weights}; expected a name without such a file: "
            f"choose another"
        )
    check_packages("onnx", "openvino")
    import openvino

    graph = make_graph(model, "float32")
    with place_beside(path) as source, place_beside(path) as place:
        save_graph(graph, model, source / "model.onnx")
        made = openvino.Core().read_model(source / "model.onnx")
        openvino.save_model(made, place / path.name, compress_to_fp16=dtype == "float16")
        difference, cosine = compare(model, openvino_runner(place / path.name), exact=dtype == "float32")
        size = sum(file.stat().st_size for file in place.iterdir())
        put(place, path.parent)
    return Exported(path, size, difference, cosine)
