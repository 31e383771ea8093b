"""Remove the checkpoints of a run that are neither the newest nor the best."""

from __future__ import annotations

from pathlib import Path

from ...errors import InputError
from ...storage.files import remove_folder, write_error
from ...training.checkpoint import Checkpoint


def rotate(output_dir: Path, *, newest: int, keep: int, best: Path | None) -> None:
    """Remove the oldest checkpoints until `keep` are left; the newest and the best always stay.

    Args:
        output_dir: the folder of the run.
        newest: step of the newest checkpoint; those of later steps are of another run, and are left alone.
        keep: number to keep.
        best: the folder of the best checkpoint, or None.

    Raises:
        InputError: the newest cannot be read, or a folder cannot be removed.
    """
    found = [one for one in Checkpoint.all_in(output_dir) if one.step <= newest]
    protected = {one.folder for one in found if one.step == newest or one.folder == best}
    surplus = len(found) - max(keep, len(protected))
    _remove([one for one in found if one.folder not in protected][: max(0, surplus)], newest=found[-1:])


def keep_only(output_dir: Path, *, newest: int, best: Path) -> None:
    """Remove all checkpoints of a run but the best.

    Args:
        output_dir: the folder of the run.
        newest: step of the newest checkpoint.
        best: the folder of the best one.
    """
    found = [one for one in Checkpoint.all_in(output_dir) if one.step <= newest]
    kept = [one for one in found if one.folder == best]
    if kept:
        _remove([one for one in found if one.folder != best], newest=kept)


def _remove(surplus: list[Checkpoint], *, newest: list[Checkpoint]) -> None:
    """Remove checkpoints, after verifying that one that stays can be read."""
    if surplus and (damage := newest[0].damage()):
        raise InputError(f"{damage}; the disk may be failing: resume from {surplus[-1].folder} in another place")
    for checkpoint in surplus:
        try:
            remove_folder(checkpoint.folder)
        except OSError as error:
            raise write_error(checkpoint.folder.parent, error) from error
