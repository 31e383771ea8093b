"""Reading and writing of single files and of whole folders, safely."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import InputError, ModelError
from ..opening import open_file

LONGEST_CARD = 5_000_000  # bytes; the cards of runs with thousands of log rows stay far below
_LONGEST_PATH = 200  # characters
_LONGEST_JSON = 100_000_000  # bytes; tokenizers, the largest, have some ten million


def read_json(path: Path) -> Any:
    """Parse a JSON file of a model.

    Raises:
        ModelError: the file is missing or is not JSON.
    """
    try:
        with open_file(path) as file:
            if (size := os.fstat(file.fileno()).st_size) > _LONGEST_JSON:
                raise ValueError(f"{size:,} bytes")
            return json.loads(file.read().decode("utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path} is missing; expected it in a model folder: copy the whole model again") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read ({error}); expected JSON: copy the file again") from None


def read_json_object(path: Path) -> dict[str, Any]:
    """Parse a JSON file whose top level is an object."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds a {type(value).__name__}; expected a JSON object")
    return value


def write_json(path: Path, value: Any, *, indent: int = 2, end: str = "") -> None:
    """Write JSON with the reference's layout: no newline at the end (transformers' has one), keys as they come."""
    path.write_text(json.dumps(value, indent=indent) + end, encoding="utf-8", newline="\n")


def inside(root: Path, relative: str) -> Path:
    """The path `relative` within `root`.

    Raises:
        ModelError: it is absolute, or leads out of `root`.
    """
    try:
        path = (root / relative).resolve() if len(relative) <= _LONGEST_PATH else None
        outside = path is None or not path.is_relative_to(root.resolve())
        if path is not None:
            path.is_dir()  # or the name is too long for a file
    except (OSError, ValueError, RuntimeError):  # a name that no file can have, or a link to itself
        path, outside = None, True
    if path is None or outside or Path(relative).is_absolute():
        raise ModelError(f"got module path {relative[:200]!r} in {root}; expected a folder inside the model")
    return path


@contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """Give a temporary folder to write into; its files come to stand in `target` when the block ends without error.

    A target that does not exist yet appears in one step. In one that exists, files are replaced one by one and files
    of other names stay. After an error, nothing of `target` has changed.

    Raises:
        InputError: `target` cannot be written.
    """
    if target.exists() and not target.is_dir():
        raise InputError(f"{target} is a file; expected a folder to write to: choose another name")
    temporary = target.parent / f".{target.name}-{uuid.uuid4().hex[:12]}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        yield temporary
        if target.exists():
            _move_files(temporary, target)
        else:
            temporary.rename(target)
    except OSError as error:
        raise InputError(
            f"cannot write {target} ({error.strerror or error}); expected a folder that can be written: check its "
            f"rights and the free space, or choose another"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _move_files(source: Path, target: Path) -> None:
    places = {path: target / path.relative_to(source) for path in sorted(source.rglob("*"))}
    for path, place in places.items():
        if place.exists() and place.is_dir() != path.is_dir():
            found, needed = ("folder", "file") if place.is_dir() else ("file", "folder")
            raise InputError(f"{place} is a {found}; expected a {needed} there: remove it, or choose another place")
    for path, place in places.items():
        if path.is_dir():
            place.mkdir(exist_ok=True)
        else:
            os.replace(path, place)  # noqa: PTH105  # Path.replace reads the same; os.replace says that it is atomic
