"""Reading and writing of single files and of whole folders, safely."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
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
_TEMPORARY = re.compile(r"\.(?P<target>.+)-[0-9a-f]{12}")


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
def replacing_folder(target: Path, *, others_stay: bool = True) -> Iterator[Path]:
    """Give a temporary folder to write into; its files come to stand in `target` when the block ends without error.

    A target that does not exist yet appears in one step. In one that exists, files are replaced one by one and files
    of other names stay; or it is replaced as a whole. After an error, nothing of `target` has changed. What stands in
    `target` is on the disk, and not only on its way there.

    Raises:
        InputError: `target` cannot be written.
    """
    if target.exists() and not target.is_dir():
        raise InputError(f"{target} is a file; expected a folder to write to: choose another name")
    temporary = beside(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        yield temporary
        _flush_folder(temporary)
        if others_stay and target.exists():
            _move_files(temporary, target)
        else:
            if target.exists():
                remove_folder(target)
            temporary.rename(target)
            _flush(target.parent)
    except Exception as error:
        if isinstance(error, OSError) or _is_of_safetensors(error):
            raise cannot_write(target, error) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def replacing_file(target: Path) -> Iterator[Path]:
    """Give the name of a temporary file to write; it takes the place of `target` when the block ends without error.

    Raises:
        InputError: `target` cannot be written.
    """
    temporary = beside(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, target)  # noqa: PTH105  # as in _move_files
    except OSError as error:
        raise cannot_write(target, error) from error
    finally:
        if temporary.exists():
            temporary.unlink()


def replace_text(target: Path, text: str) -> None:
    """Write a text file, in UTF-8; whenever the process ends, it holds all that it held before, or all of `text`.

    Raises:
        InputError: it cannot be written.
    """
    with replacing_file(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
        _flush(temporary)


def remove_folder(folder: Path) -> None:
    """Remove a folder with all that is in it; it is never to be seen with a part of it."""
    aside = folder.rename(beside(folder))
    shutil.rmtree(aside, ignore_errors=True)


def remove_leftovers(folder: Path, targets: str) -> None:
    """Remove what stands in `folder` of writing and removing that was cut short by the end of a process.

    Args:
        folder: where it may stand.
        targets: regular expression of the names of files and folders that nobody writes now.
    """
    for path in folder.glob(".*-*"):
        name = _meant(path.name)
        if name != path.name and re.fullmatch(targets, name):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):  # what cannot be removed takes room, and nothing else
                    path.unlink()


def beside(target: Path) -> Path:
    """A new name beside `target`, which `remove_leftovers` knows as one of `target`'s."""
    return target.parent / f".{target.name}-{uuid.uuid4().hex[:12]}"


def cannot_write(target: Path, error: Exception) -> InputError:
    """What to raise where `target` cannot be written."""
    reason = getattr(error, "strerror", None) or error
    return InputError(
        f"cannot write {target.parent / _meant(target.name)} ({reason}); expected a place that can be written: check "
        f"its rights and the free space, or choose another"
    )


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
    for folder in {place.parent for place in places.values()}:
        _flush(folder)


def _meant(name: str) -> str:
    """The name that something is to have whose temporary one is `name`; others are what they are."""
    while found := _TEMPORARY.fullmatch(name):  # one may have been made beside another
        name = found["target"]
    return name


def _flush_folder(folder: Path) -> None:
    """Wait until a folder is on the disk with all that is in it."""
    for path in folder.rglob("*"):
        _flush(path)
    _flush(folder)


def _flush(path: Path) -> None:
    if path.is_dir() and os.name == "nt":  # where folders cannot be opened
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that knows no such thing
            raise
    finally:
        os.close(handle)


def _is_of_safetensors(error: Exception) -> bool:
    """Whether it is what safetensors raises in place of an OSError."""
    from safetensors import SafetensorError

    return isinstance(error, SafetensorError)
