"""Names of sentence-transformers that minisbert has not: imported, mentioned, and refused when they are used."""

from __future__ import annotations

from abc import ABC

import pytest

from minisbert.compat import beyond, paths
from minisbert.compat.finder import resolve
from minisbert.errors import ConfigError

MISSING = {
    path: missing
    for path, names in paths.NAMES.items()
    if path and (missing := [name for name in names if paths.home(path, name) is None])
}


@pytest.mark.parametrize("path", MISSING)
def test_use_is_refused_by_name(path: str) -> None:
    for name in MISSING[path]:
        with pytest.raises(ConfigError, match=f"^got {name} of sentence-transformers, expected .*minisbert"):
            resolve(path, name)("something", option=1)


def test_the_reason_is_that_of_the_kind() -> None:
    for name, reason in {
        "CrossEncoder": "cross encoders",
        "SparseEncoderTrainer": "sparse encoders",
        "MultiVectorEncoder": "multi-vector encoders",
        "export_optimized_onnx_model": "ONNX",
    }.items():
        with pytest.raises(ConfigError, match=reason):
            resolve("", name)()
    with pytest.raises(ConfigError, match="a Transformer followed by Pooling"):
        resolve("models", "Router")()


def test_it_is_one_thing_wherever_it_is_imported_from() -> None:
    one = resolve("", "CrossEncoder")
    assert one is resolve("cross_encoder", "CrossEncoder") is resolve("cross_encoder.CrossEncoder", "CrossEncoder")
    assert resolve("models", "Router") is resolve("sparse_encoder.modules", "Router")
    assert resolve("cross_encoder.losses", "MSELoss") is not resolve("sparse_encoder.losses", "SparseMSELoss")
    assert paths.home("losses", "MSELoss") == "losses"
    assert paths.home("cross_encoder.losses", "MSELoss") is None


def test_it_can_be_named_and_subclassed() -> None:
    encoder = resolve("", "SparseEncoder")

    class Mine(encoder, ABC):
        def __init__(self) -> None:
            super().__init__("model")

    def function(model: encoder | None = None) -> bool:
        return isinstance(model, (encoder, Mine))

    assert not function()
    assert issubclass(Mine, encoder)
    assert encoder.__module__ == "sentence_transformers.sparse_encoder"
    with pytest.raises(ConfigError, match="^got SparseEncoder"):
        Mine()


def test_members_are_not_there() -> None:
    words = resolve("models.tokenizer", "ENGLISH_STOP_WORDS")
    with pytest.raises(ConfigError, match="^got ENGLISH_STOP_WORDS"):
        list(words)
    with pytest.raises(ConfigError, match="^got SchedulerType of sentence-transformers"):
        _ = resolve("sparse_encoder.callbacks", "SchedulerType").LINEAR
    with pytest.raises(ConfigError, match="^got SparseEncoder of sentence-transformers"):
        resolve("", "SparseEncoder").load("folder")
    assert not hasattr(words, "copy")


def test_old_paths_of_other_models() -> None:
    for old, new in beyond.BEYOND_RENAMED.items():
        assert paths.NAMES[old] == paths.NAMES[new]
