"""`minisbert export`: write a model as a file of another runtime."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .options import Subparsers, add_command, add_device

_NAMES = {
    "float32": "model.onnx",
    "float16": "model_fp16.onnx",
    "int8": "model_quantized.onnx",
}  # as other tools look for them


def add(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(commands, "export", run_export, example="minisbert export my-model --onnx --dtype int8")
    parser.add_argument("model", help="model folder or name")
    parser.add_argument(
        "--onnx",
        type=Path,
        nargs="?",
        const=None,
        default=argparse.SUPPRESS,
        metavar="FILE",
        help="write an ONNX file (default: onnx/model.onnx in the folder, model_fp16.onnx or model_quantized.onnx)",
    )
    parser.add_argument("--dtype", choices=tuple(_NAMES), default="float32", help="of the weights (default: float32)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    add_device(parser)


def run_export(options: argparse.Namespace) -> None:
    """Write a model as an ONNX file for ONNX Runtime, OpenVINO, fastembed, transformers.js and others.

    The file is run once, and its embeddings are compared with the model's own.
    """
    from ..errors import InputError
    from ..export import to_onnx
    from ..sentence_transformer import SentenceTransformer

    if not hasattr(options, "onnx"):
        raise InputError("got no format to export to; expected --onnx: add it, with a file or without")
    model = SentenceTransformer(options.model, device=options.device, dtype="float32")
    path = options.onnx
    if path is None:
        folder = Path(options.model)
        if not folder.is_dir():
            raise InputError(
                f"got the name {options.model!r} and no file; expected a file, since the model is in no folder of "
                f"yours: write --onnx FILE"
            )
        path = folder / "onnx" / _NAMES[options.dtype]
    made = to_onnx(model, path, dtype=options.dtype)
    if options.json:
        said = {"path": str(made.path), "bytes": made.bytes, "difference": made.difference, "cosine": made.cosine}
        print(json.dumps(said))
        return
    print(made.path)
    print(
        f"{made.bytes / 1e6:,.1f} MB; beside the model's own embeddings the largest difference is "
        f"{made.difference:.1e}, and the least cosine {made.cosine:.5f}"
    )
