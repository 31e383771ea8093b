"""The Hub: upload a folder to it, and say in one line why it refuses or cannot be reached.

huggingface_hub does the work. Its errors, those of httpx or requests, and those of the system are told apart by their
classes' names and the status of the answer, which are the same in all its versions.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ConfigError, InputError, MinisbertError, ModelError, first_line, shown
from .files import LONGEST_REVISION, is_file

CARD = "README.md"
_NOT_UPLOADED = frozenset({".git", ".cache"})  # folders of git, and of downloads by huggingface_hub
_HOME = "https://huggingface.co"
_LOG_IN = "log in with `hf auth login`, set HF_TOKEN, or pass token="
_NAME = re.compile(r"(?:\w(?:[\w.-]{0,94}\w)?/)?\w(?:[\w.-]{0,94}\w)?(?<!\.git)", re.ASCII)
_CONNECTION = frozenset({"TransportError", "ConnectionError", "ChunkedEncodingError", "Timeout", "TimeoutError"})


class Reason(NamedTuple):
    """Why the Hub could not be used.

    Attributes:
        text: what happened.
        fix: what to do about it.
    """

    text: str
    fix: str


def reason_of(error: BaseException, repository: str, revision: str | None = None) -> Reason:
    """Say why a call of huggingface_hub for `repository` failed; the causes of an error are looked through, too."""
    chain, cause = [error], error.__cause__
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__
    for one in chain:
        reason = _known_reason(one, repository, revision)
        if reason is not None:
            return reason
    said = ": ".join(dict.fromkeys(text for one in chain if (text := " ".join(str(one).split())[:200])))
    return Reason(f"{type(error).__name__}: {said}", "check the name, or the connection")


def _known_reason(error: BaseException, repository: str, revision: str | None) -> Reason | None:
    names = {kind.__name__ for kind in type(error).__mro__}
    status = getattr(getattr(error, "response", None), "status_code", None)
    if "OfflineModeIsEnabled" in names:
        return Reason("HF_HUB_OFFLINE is set", "check the name, or unset it")
    if "HFValidationError" in names:
        return Reason(first_line(error)[:200], "check the name")
    if "LocalTokenNotFoundError" in names:
        return Reason("there is no token", _LOG_IN)
    if "UnicodeEncodeError" in names:  # other texts are checked before
        return Reason("the token has characters that no token has", f"take a valid one: {_LOG_IN}")
    if "RevisionNotFoundError" in names:
        return Reason(f"the Hub has it without a revision {revision!r}", "pass a branch, tag or commit that is there")
    if "GatedRepoError" in names:
        return Reason("its authors give access on request", f"ask at {endpoint()}/{repository}, then {_LOG_IN}")
    if "RepositoryNotFoundError" in names:
        return Reason("the Hub has no such model, or it is private", f"check the name; for a private one {_LOG_IN}")
    if isinstance(error, ValueError) and str(error).startswith("Invalid metadata in README.md"):
        return Reason(" ".join(str(error).split())[:200], "correct the beginning of README.md")
    if "FileMetadataError" in names:
        return Reason(f"{endpoint()} does not answer as the Hub does", "check HF_ENDPOINT, and what is in between")
    if status is not None:
        return _by_status(int(status), _said(error))
    if names & _CONNECTION:
        own = "" if endpoint() == _HOME else " and HF_ENDPOINT"
        text = f"{endpoint()} cannot be reached: {type(error).__name__}: {first_line(error)[:200]}"
        return Reason(text, f"check the name, or the connection{own}")
    return None


def _by_status(status: int, said: str) -> Reason:
    if status == 401:
        return Reason("the Hub does not accept the token", f"take a valid one: {_LOG_IN}")
    if status == 403:
        return Reason(f"the token does not permit this{said}", f"see {_HOME}/settings/tokens, and {_LOG_IN}")
    if status == 429:
        return Reason("the Hub has had too many requests from here", f"wait some minutes, or {_LOG_IN}")
    if status >= 500:
        return Reason(f"the Hub answers with status {status}", "try again later")
    return Reason(f"the Hub answers with status {status}{said}", "check the name")


def _said(error: BaseException) -> str:
    message = getattr(error, "server_message", None)
    return f": {' '.join(str(message).split())[:200]}" if message else ""


def endpoint() -> str:
    """Address of the Hub, which HF_ENDPOINT sets."""
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def repository_folder(cache: str | Path | None, repository: str) -> Path:
    """Return the folder of a model in a cache of the Hub's files, by default in that of huggingface_hub."""
    from huggingface_hub import constants

    return Path(cache or constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"


# ---- uploading ------------------------------------------------------------------------------------------------------


def push(
    repo_id: str,
    files: Path | Callable[[Path, str, bool], None],
    *,
    token: str | None = None,
    private: bool | None = None,
    commit_message: str,
    commit_description: str | None = None,
    exist_ok: bool = False,
    replace_model_card: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
) -> str:
    """Upload files in one commit to a repository, which is made if there is none.

    A README.md that is there stays, unless `replace_model_card` is set. The next model that is loaded by this name is
    looked up on the Hub again, instead of in the cache.

    Args:
        repo_id: name of the repository, with or without its owner, by default the one of the token.
        files: a folder; or a function that writes one, and is given the folder, the full name of the repository, and
            whether a card is wanted.
        token: Hub access token; by default the one that was logged in with.
        private: make a private repository.
        commit_message: of the commit.
        commit_description: of the pull request.
        exist_ok: the repository may be there already.
        replace_model_card: replace README.md.
        revision: the branch, which is made from the main one if there is none.
        create_pr: open a pull request instead of changing the main branch.

    Returns:
        The address of the commit, or of the pull request.

    Raises:
        ConfigError: an argument cannot work, or the repository is there and `exist_ok` is not set.
        InputError: there is no such folder.
        ModelError: there is no token, or the Hub refuses or cannot be reached.
    """
    _check(repo_id, files, revision, create_pr=create_pr)
    with _telling(repo_id, revision):
        from huggingface_hub import CommitOperationAdd, HfApi

        api = HfApi(token=_usable_token(repo_id, token))
        repository = _made(api, repo_id, private=private, exist_ok=exist_ok or create_pr)
        if revision is not None:
            api.create_branch(repo_id=repository, branch=revision, exist_ok=True)
        there = {file.rfilename for file in api.model_info(repository, revision=revision).siblings or ()}
    keeps = CARD in there and not replace_model_card
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder = files if isinstance(files, Path) else Path(temporary)
        if not isinstance(files, Path):
            files(folder, repository, not keeps)
        uploaded = _files(folder, without=CARD if keeps else "")
        with _telling(repository, revision):
            commit = api.create_commit(  # upload_folder, if it takes minutes, makes several
                repository,
                [CommitOperationAdd(name, str(path)) for name, path in uploaded.items()],
                commit_message=commit_message,
                commit_description=commit_description,
                create_pr=create_pr,
                revision=revision,
            )
    if create_pr and commit.pr_url:
        return str(commit.pr_url)
    _forget(repository, revision or "main", commit.oid)
    return str(commit.commit_url)


def _check(repo_id: Any, files: Any, revision: Any, *, create_pr: bool) -> None:
    if not isinstance(repo_id, str) or not _NAME.fullmatch(repo_id) or any(one in repo_id for one in ("--", "..")):
        raise ConfigError(
            f"got repo_id={shown(repo_id)}; expected NAME or OWNER/NAME, of letters, digits and single marks "
            f"(- _ .) between them: change the name"
        )
    if revision is not None and (not isinstance(revision, str) or not revision or len(revision) > LONGEST_REVISION):
        raise ConfigError(f"got revision={shown(revision)}; expected the name of a branch: pass a text, or None")
    if create_pr and revision not in (None, "main"):
        raise ConfigError(
            f"got create_pr=True and revision={revision!r}; expected one of them: a pull request is made for the main "
            f"branch"
        )
    if isinstance(files, Path) and not files.is_dir():
        raise InputError(f"got {shown(str(files))}, which is not a folder; expected that of a saved model")
    if isinstance(files, Path) and not _files(files):
        raise InputError(f"got {shown(str(files))}, a folder without files; expected that of a saved model")


def _files(folder: Path, *, without: str = "") -> dict[str, Path]:
    """Return the files of a folder to upload, by their names in the repository."""
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if is_file(path)}
    return {name: path for name, path in paths.items() if name != without and not _NOT_UPLOADED & {*name.split("/")}}


def _usable_token(repo_id: str, token: Any) -> str:
    from huggingface_hub import get_token

    if not isinstance(token, (str, bool, type(None))):
        raise ConfigError(f"got a token of type {type(token).__name__}; expected a text: pass the token, or None")
    if token is None or token is True:
        token = get_token()
    if not isinstance(token, str) or not token:
        raise ModelError(f"{repo_id} cannot be uploaded (there is no token): {_LOG_IN}")
    return token


def _made(api: Any, repo_id: str, *, private: bool | None, exist_ok: bool) -> str:
    try:
        return str(api.create_repo(repo_id=repo_id, private=private, exist_ok=exist_ok).repo_id)
    except OSError as error:
        if getattr(getattr(error, "response", None), "status_code", None) == 409 and not exist_ok:
            raise ConfigError(
                f"got {repo_id!r}, a repository that is there already; expected a new one: choose another name, or "
                f"pass exist_ok=True to change it"
            ) from error
        raise


@contextlib.contextmanager
def _telling(repository: str, revision: str | None) -> Iterator[None]:
    try:
        yield
    except MinisbertError:
        raise
    except Exception as error:  # the Hub client raises errors of its own, of httpx, of requests and of the OS
        reason = reason_of(error, repository, revision)
        raise ModelError(f"{repository} cannot be uploaded ({reason.text}): {reason.fix}") from error


def _forget(repository: str, branch: str, commit: str) -> None:
    """Remove from the caches that `branch` is another commit than this one."""
    for cache in (None, os.environ.get("SENTENCE_TRANSFORMERS_HOME")):
        reference = repository_folder(cache, repository) / "refs" / branch
        with contextlib.suppress(OSError, ValueError):
            if is_file(reference) and reference.read_text(encoding="utf-8").strip() != commit:
                reference.unlink()
