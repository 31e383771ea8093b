"""`minisbert push`: upload a model folder to the Hub."""

from __future__ import annotations

import argparse
from pathlib import Path

from .options import Subparsers, add_command


def add(commands: Subparsers) -> None:
    """Declare the command."""
    parser = add_command(commands, "push", run, example="minisbert push my-model me/my-model --private")
    parser.add_argument("folder", help="folder of a saved model")
    parser.add_argument("repository", help="OWNER/NAME on the Hub, or NAME for one of your own")
    parser.add_argument("--private", action="store_true", default=None, help="make a private repository")
    parser.add_argument("--exist-ok", action="store_true", help="add a commit if the repository is there already")
    parser.add_argument("--replace-card", action="store_true", help="replace the README.md that is there")
    parser.add_argument("--revision", metavar="BRANCH", help="branch to upload to, made if there is none")
    parser.add_argument("--create-pr", action="store_true", help="open a pull request instead")
    parser.add_argument("--message", help="of the commit (default: Add a sentence-embedding model)")


def run(options: argparse.Namespace) -> None:
    """Upload a model folder to the Hub, and print the address of the commit or pull request.

    The token is that of `hf auth login`, or of the environment's HF_TOKEN.
    """
    from ..errors import InputError
    from ..storage.contents import read_contents
    from ..storage.hub import push

    folder = Path(options.folder)
    if not folder.is_dir():
        raise InputError(
            f"got {options.folder!r}, which is not a folder; expected that of a saved model: save the model first"
        )
    read_contents(folder)  # refuses what is no model
    print(
        push(
            options.repository,
            folder,
            private=options.private,
            commit_message=options.message or "Add a sentence-embedding model",
            exist_ok=options.exist_ok,
            replace_model_card=options.replace_card,
            revision=options.revision,
            create_pr=options.create_pr,
        )
    )
