"""Names of a package that are imported when they are first used."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def attributes(
    package: str, names: Sequence[str], homes: Mapping[str, str], *, otherwise: str | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package.

    Args:
        package: its name.
        names: all that it offers.
        homes: the module of a name.
        otherwise: the module of every other name; None where those are modules themselves.
    """

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = homes.get(name, otherwise)
        module = importlib.import_module(f".{home or name}", package)
        return getattr(module, name) if home else module

    return find, lambda: sorted(names)
