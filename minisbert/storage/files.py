"""Read regular files only, and replace files and directories atomically."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import signal
import stat
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from io import BufferedReader
from pathlib import Path
from types import FrameType
from typing import Any

from safetensors import SafetensorError

from ..errors import InputError, InputTypeError, ModelError, shown

LONGEST_CARD = 5_000_000  # bytes; the cards of runs with thousands of log rows stay far below
_LONGEST_PATH = 200  # characters
LONGEST_REVISION = 200
_LONGEST_JSON = 100_000_000  # bytes; tokenizers, the largest, have some ten million
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"  # the first line of what git has where git-lfs keeps a file
_SAMPLES, _SAMPLE = 64, 65_536  # places of a file that `sampled_digest` covers, and bytes of each
_TEMPORARY = re.compile(r"\.(?P<target>.+)-[0-9a-f]{12}")


# ---- reading --------------------------------------------------------------------------------------------------------
def is_file(path: Path) -> bool:
    """Return True if `path` is a regular file or a link to one, and not a directory, pipe or device."""
    return os.path.isfile(path)  # noqa: PTH113  # Path.is_file raises for names that no file can have


def open_file(path: Path) -> BufferedReader:
    """Open a regular file for reading. A pipe or a device is refused, since reading it might never end.

    Raises:
        OSError: the file cannot be opened, is not a regular file, or only names one that git-lfs has not fetched.
    """
    try:
        mode = path.stat().st_mode
    except ValueError:
        raise OSError(errno.EINVAL, "no file can have this name") from None
    if not stat.S_ISREG(mode):
        category = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise OSError(errno.EINVAL, f"{category}, not a file")
    file = path.open("rb")
    if file.peek(len(_LFS_POINTER)).startswith(_LFS_POINTER):
        file.close()
        raise OSError(errno.EINVAL, "git-lfs left a pointer in place of the file: run git lfs pull")
    return file


def read_json(path: Path) -> Any:
    """Parse a JSON file of a model.

    Raises:
        ModelError: the file is missing, too large, or not JSON.
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


def as_json(value: Any) -> str:
    """Write a value, which may hold dataclasses, as JSON; infinity and NaN, which JSON lacks, become null."""
    return json.dumps(json.loads(json.dumps(value, default=asdict), parse_constant=lambda _: None))


def read_json_object(path: Path, *, optional: bool = False) -> dict[str, Any]:
    """Parse a JSON file whose top level is an object.

    Args:
        path: the file.
        optional: return {} if there is no such file.

    Raises:
        ModelError: as for `read_json`, or the top level is not an object.
    """
    if optional and not is_file(path):
        return {}
    value = read_json(path)
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds a {type(value).__name__}; expected a JSON object: copy the file again")
    return value


def size_and_digest(path: Path) -> dict[str, Any]:
    """Return the number of bytes of a file, and their SHA-256."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            size += len(chunk)
    return {"bytes": size, "sha256": digest.hexdigest()}


def sampled_digest(path: Path) -> str:
    """Return a digest of the size of a file and of samples of its content: one of a terabyte takes no longer.

    Raises:
        OSError: it cannot be read.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        digest = hashlib.sha256(str(size).encode())
        for sample in range(_SAMPLES):
            file.seek(max(0, size - _SAMPLE) * sample // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE))
    return digest.hexdigest()


def inside(root: Path, relative: str) -> Path:
    """Return the path `relative` within `root`, resolved.

    Raises:
        ModelError: it is absolute, leads out of `root`, or cannot exist.
    """
    with contextlib.suppress(OSError, ValueError, RuntimeError):  # a name that no file can have, or a link to itself
        if len(relative) <= _LONGEST_PATH and not Path(relative).is_absolute():
            path = (root / relative).resolve()
            path.is_dir()  # raises if a part of the path is too long for the file system
            if path.is_relative_to(root.resolve()):
                return path
    raise ModelError(f"got module path {relative[:_LONGEST_PATH]!r} in {root}; expected a folder inside the model")


# ---- writing --------------------------------------------------------------------------------------------------------
def write_json(path: Path, value: Any, *, indent: int = 2, end: str = "") -> None:
    """Write JSON as the reference does: keys in their order, no newline at the end (transformers adds one)."""
    path.write_text(json.dumps(value, indent=indent) + end, encoding="utf-8", newline="\n")


def output_path(path: Any, *, name: str = "path") -> Path:
    """Return where the caller wants something written.

    Raises:
        InputTypeError: this is no path.
        InputError: no file can have that name.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise InputTypeError(f"got {name}={shown(path)}; expected where to write: pass a path")
    if not (text := os.fspath(path)) or "\0" in text:
        raise InputError(f"got {text!r} as {name}; expected a name: pass '.' for the current folder")
    try:
        os.fsencode(text)
        Path(path).exists()
    except (OSError, ValueError) as error:  # a name that is too long, or that no file can have
        raise write_error(Path(shown(text)), error) from None
    return Path(path)


def check_no_file(target: Path) -> None:
    """Check that nothing but a folder lies where one is to be written.

    Raises:
        InputError: something does.
    """
    if target.exists() and not target.is_dir():
        raise InputError(f"{target} is a file; expected a folder to write to: choose another name")


@contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """Yield a new folder beside `target`, on the same disk, and remove it afterwards if it is still there."""
    folder = temporary_path(target)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def parents_made(target: Path) -> Iterator[None]:
    """Make the folders above `target`, and remove those that are new and empty after the block.

    Raises:
        OSError: they cannot be made.
    """
    new = [folder for folder in target.parents if not folder.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for folder in new:
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()


@contextmanager
def replacing_folder(target: Path, *, others_stay: bool = True) -> Iterator[Path]:
    """Yield a temporary directory; when the block ends without an error, its files replace those of `target`.

    A `target` that does not exist appears in one step. An existing one is replaced as a whole, or, with `others_stay`,
    file by file, and its files of other names are kept. After an error `target` is unchanged. All data has been
    flushed to the disk when this returns.

    Raises:
        InputError: `target` cannot be written.
    """
    try:
        check_no_file(target)
        with parents_made(target), temporary_folder(target) as temporary:
            yield temporary
            for path in (*temporary.rglob("*"), temporary):
                flush(path)
            if others_stay and target.exists():
                _move_files(temporary, target)
            else:
                if target.exists():
                    remove_folder(target)
                temporary.rename(target)
                flush(target.parent)
    except (OSError, SafetensorError) as error:  # safetensors raises its own where a write fails
        raise write_error(target, error) from error


@contextmanager
def replacing_file(target: Path) -> Iterator[Path]:
    """Yield the path of a temporary file; when the block ends without an error, that file replaces `target`.

    Raises:
        InputError: `target` cannot be written.
    """
    temporary = temporary_path(target)
    try:
        with parents_made(target):
            try:
                yield temporary
                os.replace(temporary, target)  # noqa: PTH105  # as in _move_files
            finally:
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise write_error(target, error) from error


def replace_text(target: Path, text: str) -> None:
    """Replace a text file, in UTF-8. If the process dies, the file holds either its old content or all of `text`.

    Raises:
        InputError: the file cannot be written.
    """
    with replacing_file(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
        flush(temporary)


def remove_folder(folder: Path) -> None:
    """Remove a directory and its content. It is renamed first, so that nobody sees it half removed."""
    aside = folder.rename(temporary_path(folder))
    shutil.rmtree(aside, ignore_errors=True)


def remove_leftovers(folder: Path, targets: str) -> None:
    """Remove temporary files and directories that a killed process left behind.

    Args:
        folder: the directory to search.
        targets: regular expression for the names of the targets that no process is writing now.
    """
    for path in folder.glob(".*-*"):
        name = _target_name(path.name)
        if name != path.name and re.fullmatch(targets, name):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):  # a file that stays takes room and does no other harm
                    path.unlink()


def temporary_path(target: Path) -> Path:
    """Return a new path beside `target`, one that `remove_leftovers` recognizes as belonging to it."""
    return target.parent / f".{target.name}-{uuid.uuid4().hex[:12]}"


def write_error(target: Path, error: Exception) -> InputError:
    """Return the error to raise if `target` cannot be written."""
    reason = getattr(error, "strerror", None) or error
    return InputError(
        f"cannot write {target.parent / _target_name(target.name)} ({reason}); expected a place that can be written: "
        f"check its permissions and the free space, or choose another"
    )


def _move_files(source: Path, target: Path) -> None:
    moves = {path: target / path.relative_to(source) for path in sorted(source.rglob("*"))}
    for path, new in moves.items():
        if new.exists() and new.is_dir() != path.is_dir():
            got, expected = ("folder", "file") if new.is_dir() else ("file", "folder")
            raise InputError(f"{new} is a {got}; expected a {expected} there: remove it, or choose another place")
    with _uninterrupted():
        for path, new in moves.items():
            if path.is_dir():
                new.mkdir(exist_ok=True)
            else:
                os.replace(path, new)  # noqa: PTH105  # os.replace is known to be atomic, Path.replace does not say so
    for folder in {new.parent for new in moves.values()}:
        flush(folder)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back until the end of the block, after which files of two models do not lie in one folder."""
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: received.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if received:
        handler(*received[0])


def _target_name(name: str) -> str:
    """Return the name of the target of a temporary file; a name that is not temporary is returned as it is."""
    while match := _TEMPORARY.fullmatch(name):  # a temporary path may have been made for another
        name = match["target"]
    return name


def flush(path: Path) -> None:
    """Wait until a file, or the list of a directory's entries, is on the disk."""
    if path.is_dir() and os.name == "nt":  # where directories cannot be opened
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system without fsync
            raise
    finally:
        os.close(handle)
