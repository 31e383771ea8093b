"""Files of models, and downloads."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterable
from pathlib import Path, PureWindowsPath
from typing import Any

from tqdm import tqdm

from ...errors import ConfigError
from ...storage.locate import find_model, hub_cache, local_folder, repository_name


class disabled_tqdm(tqdm):  # type: ignore[type-arg]  # noqa: N801
    """A progress bar that is never shown."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "disable": True})

    def __delattr__(self, attr: str) -> None:
        """Delete an attribute; huggingface_hub deletes a lock that a hidden bar may not have."""
        try:
            super().__delattr__(attr)
        except AttributeError:
            if attr != "_lock":
                raise


def is_sentence_transformer_model(
    model_name_or_path: str,
    token: bool | str | None = None,
    cache_folder: str | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
) -> bool:
    """Return True if a folder or a model of the Hub has a modules.json."""
    return (
        load_file_path(
            model_name_or_path,
            "modules.json",
            token=token,
            cache_folder=cache_folder,
            revision=revision,
            local_files_only=local_files_only,
        )
        is not None
    )


def load_file_path(
    model_name_or_path: str,
    filename: str | Path,
    subfolder: str = "",
    token: bool | str | None = None,
    cache_folder: str | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
) -> str | None:
    """Return the path of a file of a model, downloaded from the Hub if need be; None if the model has no such file.

    The model is a folder, the installed all-MiniLM-L6-v2, or one of the Hub. Errors of the Hub other than a file that
    is not there are passed on.

    Raises:
        ConfigError: the name leads out of the model.
    """
    _check_inside(subfolder)
    _check_inside(filename)
    if (folder := local_folder(model_name_or_path, revision)) is not None:
        path = folder / subfolder / filename
        return str(path) if path.exists() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError

    try:
        return hf_hub_download(
            repository_name(str(model_name_or_path)),
            Path(subfolder, filename).as_posix(),
            revision=revision,
            token=token,
            cache_dir=hub_cache(cache_folder),
            local_files_only=local_files_only,
        )
    except (EntryNotFoundError, HFValidationError, LocalEntryNotFoundError):
        return None


def load_dir_path(
    model_name_or_path: str,
    subfolder: str,
    token: bool | str | None = None,
    cache_folder: str | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
) -> str | None:
    """Return the path of a folder of a model, downloaded from the Hub if need be; None if the model has no such folder.

    The model is found as `load_file_path` finds it; the folder of the whole model, as `SentenceTransformer` does.

    Raises:
        ConfigError: the name leads out of the model.
        ModelError: the whole model is asked for, and cannot be found.
    """
    _check_inside(subfolder)
    inside = Path(subfolder).as_posix()
    folder = local_folder(model_name_or_path, revision)
    if folder is None and inside == ".":
        folder = find_model(
            model_name_or_path,
            token=token,
            cache_folder=cache_folder,
            revision=revision,
            local_files_only=local_files_only,
        )
    if folder is not None:
        return str(folder / subfolder) if (folder / subfolder).exists() else None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        snapshot = snapshot_download(
            repository_name(str(model_name_or_path)),
            revision=revision,
            allow_patterns=f"{inside}/**",
            token=token,
            cache_dir=hub_cache(cache_folder),
            local_files_only=local_files_only,
            tqdm_class=disabled_tqdm,  # type: ignore[arg-type]  # any kind of tqdm will do
        )
    except (HFValidationError, LocalEntryNotFoundError):
        return None
    path = Path(snapshot, subfolder)
    return str(path) if path.is_dir() else None


def http_get(url: str, path: str) -> None:
    """Download a file, with a progress bar; until it is complete its name ends with "_part".

    Raises:
        ConfigError: the address is not one of http or https.
        OSError: the server does not answer with the file (urllib.error.HTTPError), or it cannot be written.
    """
    from urllib.request import urlopen

    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"got the address {url!r}; expected one that begins with http:// or https://")
    target, part = Path(path), Path(f"{path}_part")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with urlopen(url) as answer, part.open("wb") as file:  # noqa: S310 - checked above
            size = answer.headers.get("Content-Length")
            total = int(size) if size is not None else None
            name = f"Downloading {target.name}"
            with tqdm.wrapattr(answer, "read", total=total, desc=name, leave=False) as source:
                shutil.copyfileobj(source, file)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def append_to_last_row(csv_path: str | Path, additional_data: Iterable[Any]) -> bool:
    """Add cells to the last row of a CSV file; return False if there is none below the header."""
    with Path(csv_path).open(newline="", encoding="utf-8") as file:
        rows: list[list[Any]] = list(csv.reader(file))
    if len(rows) < 2:
        return False
    rows[-1].extend(additional_data)
    with Path(csv_path).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return True


def _check_inside(name: str | Path) -> None:
    path = PureWindowsPath(name)  # which also knows the separators of others
    if path.anchor or ".." in path.parts or "\0" in str(name):
        raise ConfigError(f"got {str(name)!r} as a file of a model; expected a name without .., from its folder on")
