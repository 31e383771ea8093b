"""`minisbert export`: write a model as a file of another runtime."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .options import Subparsers, add_command, add_device

_FILES = {  # of each format by dtype, as other tools look for them
    "onnx": {
        "float32": "onnx/model.onnx",
        "float16": "onnx/model_fp16.onnx",
        "int8": "onnx/model_quantized.onnx",
    },
    "openvino": {"float32": "openvino/openvino_model.xml", "float16": "openvino/openvino_model_fp16.xml"},
}


def add(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "export",
        run_export,
        example="minisbert export my-model --onnx --dtype int8",
        usage="minisbert export model (--onnx [FILE] | --openvino [FILE]) [options]",
    )
    parser.add_argument("model", nargs="?", help="model folder or name")
    formats = parser.add_mutually_exclusive_group()
    for name, files in _FILES.items():
        file, *others = files.values()
        formats.add_argument(
            f"--{name}",
            type=Path,
            nargs="?",
            const=None,
            default=argparse.SUPPRESS,
            metavar="FILE",
            help=f"write a file of this format (default: {file} in the folder, "
            f"{' or '.join(Path(other).name for other in others)})",
        )
    parser.add_argument(
        "--dtype", choices=tuple(_FILES["onnx"]), default="float32", help="of the weights (default: float32)"
    )
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    add_device(parser)


def run_export(options: argparse.Namespace) -> None:
    """Write a model as a file for ONNX Runtime, OpenVINO, fastembed, transformers.js and others.

    The file is run once, and its embeddings are compared with the model's own.
    """
    from ..errors import InputError
    from ..export import to_onnx, to_openvino
    from ..sentence_transformer import SentenceTransformer

    kind = next((name for name in _FILES if hasattr(options, name)), None)
    if kind is None:
        raise InputError("got no format to export to; expected --onnx or --openvino: add one, with a file or without")
    path, names = getattr(options, kind), _FILES[kind]
    if options.model is None:
        fix = f": put it first, as in minisbert export {path} --{kind}" if path else ""
        raise InputError(f"got no model to export; expected a model folder or name{fix}")
    if options.dtype not in names:
        raise InputError(
            f"got --dtype {options.dtype} with --{kind}; expected {' or '.join(names)}: for int8 write an ONNX file, "
            f"which OpenVINO reads"
        )
    if path is None:
        folder = Path(options.model)
        if not folder.is_dir():
            raise InputError(
                f"got the model {options.model!r}, which is no folder here, and no file; expected a folder, or a file "
                f"to write: check the name, or write one after the format"
            )
        path = folder / names[options.dtype]
    model = SentenceTransformer(options.model, device=options.device, dtype="float32")
    export = {"onnx": to_onnx, "openvino": to_openvino}[kind]
    made = export(model, path, dtype=options.dtype)
    if options.json:
        said = {"path": str(made.path), "bytes": made.bytes, "difference": made.difference, "cosine": made.cosine}
        print(json.dumps(said))
        return
    print(made.path)
    print(
        f"{made.bytes / 1e6:,.1f} MB; beside the model's own embeddings the largest difference is "
        f"{made.difference:.1e}, and the least cosine {made.cosine:.5f}"
    )
