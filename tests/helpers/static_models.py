"""Small random static models, as sentence-transformers and model2vec save them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tiny_models import tokenizer_files

STATIC, NORMALIZE = "sentence_transformers.models.StaticEmbedding", "sentence_transformers.models.Normalize"


def build_static(
    folder: Path,
    *,
    dim: int = 48,
    form: str = "reference",
    normalize: bool = True,
    dtype: torch.dtype = torch.float32,
    modules: bool = True,
) -> Path:
    """Write a model folder.

    Args:
        folder: is made.
        dim: size of the embeddings.
        form: "reference", or "model2vec" with a mapping and weights of tokens.
        normalize: add a Normalize.
        dtype: of the table.
        modules: write modules.json.
    """
    tokens = tokenizer_files(folder, "bert")
    (folder / "tokenizer_config.json").unlink()
    draw = torch.Generator().manual_seed(dim)
    if form == "reference":
        tensors = {"embedding.weight": torch.randn(tokens, dim, generator=draw).to(dtype)}
    else:
        table = torch.randn(50, dim, generator=draw).to(dtype)
        mapping = torch.randint(50, (tokens,), generator=draw)
        tensors = {"embeddings": table, "mapping": mapping, "weights": torch.rand(tokens, generator=draw)}
        settings = {"model_type": "model2vec", "architectures": ["StaticModel"], "normalize": normalize}
        (folder / "config.json").write_text(json.dumps(settings))
    save_file(tensors, folder / "model.safetensors")
    entries = [{"idx": 0, "name": "0", "path": ".", "type": STATIC}]
    if normalize:
        entries.append({"idx": 1, "name": "1", "path": "1_Normalize", "type": NORMALIZE})
    if modules:
        (folder / "modules.json").write_text(json.dumps(entries))
    return folder
