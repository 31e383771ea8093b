"""Placeholders for names of sentence-transformers that minisbert has not.

They can be imported, named in annotations, given to isinstance() and used as base classes, so that code which mentions
them runs until it uses one; using one raises ConfigError.
"""

from __future__ import annotations

import functools
from abc import ABCMeta
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from ..errors import ConfigError

_SCOPES = {
    "cross_encoder": "cross encoders are not part of minisbert, which has dense embedding models only",
    "sparse_encoder": "sparse encoders are not part of minisbert, which has dense embedding models only",
    "multi_vector_encoder": "multi-vector encoders are not part of minisbert, which has dense embedding models only",
    "backend": "minisbert computes in PyTorch, and writes ONNX files by `minisbert export MODEL --onnx`",
    "modules": "minisbert's models are a Transformer followed by Pooling, Dense, LayerNorm, Dropout and Normalize",
    "models": "minisbert's models are a Transformer followed by Pooling, Dense, LayerNorm, Dropout and Normalize",
}
_TOP = {"CrossEncoder": "cross_encoder", "SparseEncoder": "sparse_encoder", "MultiVector": "multi_vector_encoder"}


@functools.cache
def placeholder(path: str, name: str) -> Any:
    """Make what stands for a name of a module of sentence-transformers: a class, or a function if it is in lower case.

    Args:
        path: the module without its first part, as "cross_encoder.losses".
        name: the name in it.
    """
    message = (
        f"got {name} of sentence-transformers, expected something that minisbert has: {_scope(path, name)}; "
        f"run this part with sentence-transformers itself (docs/names.md lists every name)"
    )
    module = f"sentence_transformers.{path}".rstrip(".")
    if name.lower() == name:
        return _refusing_function(module, name, message)
    return _Refusing(
        name, (), {"__module__": module, "__doc__": f"Not part of minisbert: {message}.", "_said": message}
    )


def _scope(path: str, name: str) -> str:
    """Return why minisbert has no such name."""
    parts = path.split(".")
    if path == "":
        parts = [next((package for start, package in _TOP.items() if name.startswith(start)), "backend")]
    return next((_SCOPES[part] for part in parts if part in _SCOPES), f"{name} has no counterpart in it")


def _refusing_function(module: str, name: str, message: str) -> Callable[..., NoReturn]:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise ConfigError(message)

    refuse.__module__, refuse.__name__, refuse.__qualname__ = module, name, name
    refuse.__doc__ = f"Not part of minisbert: {message}."
    refuse.__dict__["minisbert_missing"] = True
    return refuse


class _MissingError(ConfigError, AttributeError):
    """An attribute of what minisbert has not; also an AttributeError, so that hasattr() answers False."""


class _Refusing(ABCMeta):
    """The class of placeholder classes: no instances, no class attributes; subclasses are placeholders, too."""

    _said: str
    minisbert_missing = True

    def __call__(cls, *_: Any, **__: Any) -> NoReturn:
        """Refuse to make an instance."""
        raise ConfigError(cls._said)

    def __iter__(cls) -> Iterator[Any]:
        """Refuse to list the members of what may be an enumeration or a collection."""
        raise ConfigError(cls._said)

    def __getattr__(cls, name: str) -> NoReturn:
        """Say what the class stands for when an attribute of it is asked for."""
        raise AttributeError(name) if name.startswith("_") else _MissingError(cls._said)
