"""Targets in a model folder."""

from __future__ import annotations

import io
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests" / "helpers"))

import tiny_models  # noqa: E402
import torch  # noqa: E402

from minisbert import SentenceTransformer  # noqa: E402
from minisbert.cli.inspect import model_summary  # noqa: E402
from minisbert.storage.contents import read_contents  # noqa: E402
from minisbert.storage.layout import read_layout  # noqa: E402
from minisbert.storage.weights import read_header, read_weights  # noqa: E402

from .changes import Mutation, change_bytes  # noqa: E402
from .harness import Target  # noqa: E402
from .trees import change_json, change_safetensors  # noqa: E402


def _model(folder: Path) -> Path:
    """A tiny model with everything that a folder can have."""
    place = tiny_models.build(folder / "model", "bert", layers=1, dim=16)
    dense = {
        "in_features": 16,
        "out_features": 8,
        "bias": True,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    modules = json.loads((place / "modules.json").read_text())
    modules.append({"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"})
    (place / "modules.json").write_text(json.dumps(modules))
    (place / "3_Dense").mkdir()
    (place / "3_Dense" / "config.json").write_text(json.dumps(dense))
    tensors = {"linear.weight": torch.zeros(8, 16), "linear.bias": torch.zeros(8)}
    torch.save(tensors, place / "3_Dense" / "pytorch_model.bin")
    settings = {
        "prompts": {"query": "q: ", "document": ""},
        "default_prompt_name": None,
        "similarity_fn_name": "cosine",
        "truncate_dim": None,
        "__version__": {"sentence_transformers": "6.2.0"},
    }
    (place / "config_sentence_transformers.json").write_text(json.dumps(settings))
    return place


def _load(folder: Path) -> None:
    """Load and describe the model of a folder, and embed with it."""
    model = SentenceTransformer(folder, device="cpu", truncation="count")
    model.encode(["a cat sat", "", "naïve 我们 zzz", ("one", "two")])
    model_summary(read_contents(folder))


def _describe(folder: Path) -> None:
    read_layout(folder)
    model_summary(read_contents(folder))


def _in_model(name: str, read: Callable[[Path], None], change: Mutation = change_json) -> Target:
    """A file of a model folder, which is otherwise as it should be."""

    def seeds() -> list[bytes]:
        with tempfile.TemporaryDirectory() as folder:
            return [(_model(Path(folder)) / name).read_bytes()]

    def feed(folder: Path, content: bytes) -> None:
        place = folder / "model"
        (place / name).write_bytes(content)
        read(place)

    return Target(seeds, change, feed, _model)


def _bert_settings() -> list[bytes]:
    settings = [
        {"max_seq_length": 48, "do_lower_case": False},
        {"max_seq_length": 20, "model_args": {"dtype": "float16"}, "tokenizer_args": {"model_max_length": 9}},
        {
            "processing_kwargs": {"text": {"max_length": 12, "truncation": True}},
            "transformer_task": "feature-extraction",
        },
        {"modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}},
    ]
    return [json.dumps(one).encode() for one in settings]


def _index_seeds() -> list[bytes]:
    return [json.dumps({"metadata": {"total_size": 64}, "weight_map": {"a": "one.safetensors"}}).encode()]


def _index_folder(folder: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(16)}, folder / "one.safetensors")


def _feed_index(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors.index.json").write_bytes(content)
    read_weights(folder)


def _feed_header(folder: Path, content: bytes) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(content)
    try:
        read_header(path)
    finally:
        read_weights(folder)


def _header_seeds() -> list[bytes]:
    from safetensors.torch import save

    tensors = {
        "a": torch.zeros(2, 3),
        "b": torch.zeros(4, dtype=torch.bfloat16),
        "c": torch.zeros(1, dtype=torch.int64),
    }
    return [save(tensors), save({"a": torch.zeros(1)}, metadata={"format": "pt"})]


def _pickle_seeds() -> list[bytes]:
    found = []
    for new in (True, False):
        file = io.BytesIO()
        torch.save({"a": torch.zeros(2, 3)}, file, _use_new_zipfile_serialization=new)
        found.append(file.getvalue())
    return found


def _feed_pickle(folder: Path, content: bytes) -> None:
    (folder / "pytorch_model.bin").write_bytes(content)
    read_weights(folder)


_SENTENCE_BERT = _in_model("sentence_bert_config.json", _load)
TARGETS: dict[str, Target] = {
    "safetensors": Target(_header_seeds, change_safetensors, _feed_header),
    "safetensors index": Target(_index_seeds, change_json, _feed_index, _index_folder),
    "pickled weights": Target(_pickle_seeds, change_bytes, _feed_pickle),
    "modules.json": _in_model("modules.json", _describe),
    "config.json": _in_model("config.json", _load),
    "sentence_bert_config.json": Target(_bert_settings, change_json, _SENTENCE_BERT.feed, _model),
    "config_sentence_transformers.json": _in_model("config_sentence_transformers.json", _load),
    "pooling": _in_model("1_Pooling/config.json", _load),
    "dense": _in_model("3_Dense/config.json", _load),
    "tokenizer.json": _in_model("tokenizer.json", _load),
    "tokenizer_config.json": _in_model("tokenizer_config.json", _load),
}
