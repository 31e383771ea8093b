"""Embed the texts of a file with one tool that reads an exported folder; run in an environment of its own.

    python exported.py TOOL FOLDER TEXTS.json OUT.npy

It exits with 77 if the tool is not installed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def openvino(folder: Path, texts: list[str]) -> Any:
    """The graph itself, with texts padded by the tokenizer of the folder."""
    import openvino as ov
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding()
    encoded = tokenizer.encode_batch(texts)
    ids, mask = (np.array([getattr(one, name) for one in encoded], np.int64) for name in ("ids", "attention_mask"))
    values = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = ov.Core().compile_model(folder / "onnx" / "model.onnx", "CPU", hint)
    taken = {one.get_any_name(): values[one.get_any_name()] for one in compiled.inputs}
    return compiled(taken)["sentence_embedding"]


def fastembed(folder: Path, texts: list[str]) -> Any:
    """As a custom model, which pools and normalizes the first output itself."""
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    size = json.loads((folder / "config.json").read_text())["hidden_size"]
    TextEmbedding.add_custom_model(
        model="mine/model",
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf="mine/model"),
        dim=size,
        model_file="onnx/model.onnx",
    )
    return list(TextEmbedding("mine/model", specific_model_path=str(folder)).embed(texts))


def light_embed(folder: Path, texts: list[str]) -> Any:
    """As a local folder."""
    from light_embed import TextEmbedding

    return TextEmbedding(str(folder), model_config={"onnx_file": "onnx/model.onnx"}).encode(texts)


TOOLS: dict[str, Callable[[Path, list[str]], Any]] = {
    "openvino": openvino,
    "fastembed": fastembed,
    "light_embed": light_embed,
}


def main(tool: str, folder: str, texts: str, out: str) -> None:
    """Embed with a tool, and keep the embeddings."""
    try:
        __import__(tool)
    except ImportError as error:
        print(f"{tool} is not installed: {error}")
        sys.exit(77)
    embeddings = TOOLS[tool](Path(folder), json.loads(Path(texts).read_text()))
    np.save(out, np.asarray(embeddings, np.float32))


if __name__ == "__main__":
    main(*sys.argv[1:])
