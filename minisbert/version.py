"""The version of minisbert, and of what it runs on."""

from __future__ import annotations

__version__ = "0.1.0"


def versions() -> dict[str, str]:
    """Versions of the software that made a model, by the names the format uses."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"minisbert": __version__}
    for key, package in (("transformers", "transformers"), ("pytorch", "torch")):
        try:
            found[key] = version(package)
        except PackageNotFoundError:
            found[key] = "unknown"
    return found
