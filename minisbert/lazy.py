"""Import the public names of a package when they are first used."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def attributes(
    package: str, names: Sequence[str], modules: Mapping[str, str], *, otherwise: str | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the `__getattr__` and `__dir__` of a package.

    Args:
        package: its name.
        names: its public names.
        modules: name to the module that defines it.
        otherwise: the module of every other name; None if each of those is a module itself.
    """

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = modules.get(name, otherwise)
        module = importlib.import_module(f".{home or name}", package)
        return getattr(module, name) if home else module

    return get, lambda: sorted(names)
