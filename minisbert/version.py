"""The version of minisbert and of the libraries it runs on."""

from __future__ import annotations

__version__ = "0.2.0"


def versions() -> dict[str, str]:
    """Return the versions of the libraries that make a model, by their names in model folders."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"minisbert": __version__}
    for key, package in (("transformers", "transformers"), ("pytorch", "torch")):
        try:
            found[key] = version(package)
        except PackageNotFoundError:
            found[key] = "unknown"
    return found
