"""Pictures named in the card of a saved model."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..card import Picture, parse, render
from ..errors import MinisbertError
from ..storage.files import replacing_folder


def attach(folder: str | Path, pictures: Sequence[Picture]) -> None:
    """Name pictures in the README.md of a folder, instead of those of the same files that it names.

    The card is read, changed and written anew. One that would lose words on that way, because it was written by hand
    or by other software, is left as it is, and so is one that cannot be read or written: a warning says why.
    """
    path = Path(folder) / "README.md"
    try:
        text = path.read_bytes().decode("utf-8")
        facts = parse(text)
        if render(facts) != text:
            raise ValueError("it is not as minisbert wrote it, and would lose what was changed")
        new = {picture.file: picture for picture in pictures}
        kept = tuple(picture for picture in facts.pictures if picture.file not in new)
        changed = render(replace(facts, pictures=(*kept, *new.values())))
        with replacing_folder(path.parent) as place:
            (place / path.name).write_text(changed, encoding="utf-8", newline="\n")
    except (MinisbertError, OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        warnings.warn(
            f"{path} does not name the pictures {', '.join(picture.file for picture in pictures)}: {reason}",
            stacklevel=2,
        )
