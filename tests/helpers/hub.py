"""A Hub on the loopback: repositories in memory behind the part of its HTTP interface that models are moved with.

It serves what huggingface_hub asks for: names, branches, commits and pull requests, files whole or in part, uploads in
one commit, of small files within it and of large ones through LFS. `faults` break answers, `requests` tells what was
asked.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import json
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

TOKENS = {"hf_me": "me", "hf_you": "you"}  # and whose they are; all may read, and write what is theirs
LARGE = (".safetensors", ".bin")  # kept by LFS, as the .gitattributes of a new repository says
_REPOSITORY = r"(?P<name>[\w.-]+/[\w.-]+)"


def git_hash(data: bytes) -> str:
    """The identity of a file in git."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def is_large(path: str) -> bool:
    """Whether the Hub keeps a file by LFS."""
    return path.endswith(LARGE)


def etag(path: str, data: bytes) -> str:
    """The identity of a file's content, as the Hub states it."""
    return hashlib.sha256(data).hexdigest() if is_large(path) else git_hash(data)


@dataclass
class Repository:
    """Commits, and the branches and pull requests that name them."""

    owner: str
    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, changes: dict[str, bytes], *, branch: str = "main", start: str | None = None) -> str:
        """Add a commit with changed files to a branch, and return its name."""
        files = {**self.commits.get(start or self.branches.get(branch, ""), {}), **changes}
        seed = json.dumps([len(self.commits), sorted((path, git_hash(data)) for path, data in files.items())])
        name = hashlib.sha1(seed.encode()).hexdigest()
        self.commits[name], self.branches[branch] = files, name
        return name

    def find(self, revision: str) -> str | None:
        """The commit that a branch, a pull request, or the whole or the beginning of its own name stands for."""
        if revision in self.branches:
            return self.branches[revision]
        begins = [name for name in self.commits if len(revision) >= 5 and name.startswith(revision)]
        return begins[0] if len(begins) == 1 else None

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """The files at a revision."""
        return self.commits[self.find(revision) or ""]


@dataclass
class Fault:
    """A few answers, to requests whose method and path match, that go wrong.

    Attributes:
        pattern: matches "GET /path".
        status: the status to answer with; None to cut the answer off after half of the body, 0 to hang up at once.
        times: how many requests are left that it happens to.
        body: what to answer with a status.
        headers: of that answer.
    """

    pattern: str
    status: int | None = 500
    times: int = 1
    body: str = "{}"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Request:
    """What was asked."""

    method: str
    path: str
    headers: dict[str, str]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class Hub:
    """The server.

    Attributes:
        repositories: by name.
        renamed: new names of repositories by their old ones.
        content: of large files that were uploaded, by SHA-256.
        storage: another server that large files are downloaded from, by a redirect; None for this one.
        requests: what was asked so far, in order.
        faults: what will go wrong.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.renamed: dict[str, str] = {}
        self.content: dict[str, bytes] = {}
        self.storage: Hub | None = None
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.part: int | None = None  # bytes of the parts that large files are to be uploaded in
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.hub = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()

    def add(self, name: str, folder: Path | None = None, **options: Any) -> Repository:
        """Make a repository with the files of a folder."""
        repository = Repository(owner=name.partition("/")[0], **options)
        self.repositories[name] = repository
        repository.commit({".gitattributes": b"*.safetensors filter=lfs\n", **(read(folder) if folder else {})})
        return repository

    def asked(self, pattern: str = "") -> list[str]:
        """The requests that match, as "GET /path"."""
        return [text for text in map(str, self.requests) if re.search(pattern, text)]

    def environment(self, home: Path) -> dict[str, str]:
        """Variables with which another process uses this Hub, with its own cache and no token."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "SENTENCE_"))}
        return {
            **kept,
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
        }


def read(folder: Path) -> dict[str, bytes]:
    """The files of a folder by their paths in it."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def closed_port() -> int:
    """A port of the loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def use(monkeypatch: pytest.MonkeyPatch, url: str, cache: Path) -> None:
    """Let huggingface_hub of this process talk to `url`, with a cache of its own and no token."""
    from huggingface_hub import constants, file_download

    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "SENTENCE_TRANSFORMERS_HOME", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "ENDPOINT", url)
    for module in (constants, file_download):  # huggingface_hub 0 has it in both
        if hasattr(module, template := "HUGGINGFACE_CO_URL_TEMPLATE"):
            monkeypatch.setattr(module, template, f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache.with_name("no-token")))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name, value in (
        ("HF_HUB_DISABLE_XET", True),
        ("HF_HUB_DISABLE_PROGRESS_BARS", True),
        ("AGENT_HARNESSES_PATH", str(cache.with_name("no-harnesses"))),
    ):
        if hasattr(constants, name):
            monkeypatch.setattr(constants, name, value)


def go_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set HF_HUB_OFFLINE for huggingface_hub of this process."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    if hasattr(_http, cache := "_get_session_from_cache"):  # huggingface_hub 0 keeps sessions made while it was unset
        monkeypatch.setattr(_http, cache, functools.cache(lambda **_: _http._default_backend_factory()))


@contextlib.contextmanager
def serving() -> Iterator[Hub]:
    """A Hub for a block of code."""
    hub = Hub()
    try:
        yield hub
    finally:
        forget_connections()
        hub.close()


def forget_connections() -> None:
    """Close connections that huggingface_hub keeps open."""
    from huggingface_hub import utils

    close: Callable[[], None] | None = getattr(utils, "close_session", getattr(utils, "reset_sessions", None))
    if close is None:
        from huggingface_hub.utils import _http

        close = getattr(_http, "close_session", getattr(_http, "reset_sessions", None))
    if close is not None:
        close()


# ---- answers --------------------------------------------------------------------------------------------------------


class _RefusalError(Exception):
    """An answer that is not what was asked for."""

    def __init__(self, status: int, code: str = "", message: str = "", **body: Any) -> None:
        self.status, self.body = status, {**({"error": message or code} if message or code else {}), **body}
        self.headers = {"X-Error-Code": code, "X-Error-Message": message}


class _Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    protocol_version = "HTTP/1.1"
    body: bytes

    def log_message(self, *_: Any) -> None:
        pass

    @property
    def hub(self) -> Hub:
        return self.server.hub  # type: ignore[attr-defined, no-any-return]

    def answer(self) -> None:
        """Answer one request."""
        self.path = urlsplit(self.path).path + (f"?{query}" if (query := urlsplit(self.path).query) else "")
        self.body = self._read_body()
        request = Request(self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
        self.hub.requests.append(request)
        fault = next((one for one in self.hub.faults if one.times and re.search(one.pattern, str(request))), None)
        if fault is not None:
            fault.times -= 1
            if fault.status == 0:
                self.close_connection = True
                return
            if fault.status is not None:
                self.send(fault.status, fault.body.encode(), fault.headers)
                return
        try:
            status, body, headers = self._route()
        except _RefusalError as refusal:
            status, body = refusal.status, json.dumps(refusal.body).encode()
            headers = {name: value for name, value in refusal.headers.items() if value}
        self.send(status, body, headers, cut=fault is not None)

    do_GET = do_HEAD = do_POST = do_PUT = answer  # noqa: N815

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None, *, cut: bool = False) -> None:
        """Send an answer, or the first half of it."""
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.wfile.flush()
            self.close_connection = True

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    # ---- who asks for what ------------------------------------------------------------------------------------------

    def _route(self) -> tuple[int, bytes, dict[str, str]]:
        path, _, query = self.path.partition("?")
        for pattern, method in _ROUTES:
            match = re.fullmatch(pattern, f"{self.command} {path}")
            if match is not None:
                found = {name: unquote(text or "") for name, text in match.groupdict().items()}
                name = found.get("name", "")
                if name in self.hub.renamed:
                    target = self.path.replace(name, self.hub.renamed[name], 1)
                    return 307, b"{}", {"Location": target}
                answered = getattr(self, method)(query=query, **found)
                return answered if isinstance(answered, tuple) else (200, json.dumps(answered).encode(), {})
        raise _RefusalError(404, message="Not Found")

    def _user(self) -> str | None:
        given = self.headers.get("Authorization")
        if given is None:
            return None
        user = TOKENS.get(given.removeprefix("Bearer "))
        if user is None:
            raise _RefusalError(401, message="Invalid credentials in Authorization header")
        return user

    def _writer(self, owner: str | None = None) -> str:
        user = self._user()
        if user is None:
            raise _RefusalError(401, message="Invalid username or password.")
        if owner not in (None, user):
            raise _RefusalError(403, message=f"You don't have the rights to write to {owner}")
        return user

    def _repository(self, name: str, *, write: bool = False) -> Repository:
        user, repository = self._user(), self.hub.repositories.get(name)
        if repository is None or (repository.private and user != repository.owner):
            raise _RefusalError(401 if user is None else 404, "RepoNotFound", "Repository not found")
        if write:
            self._writer(repository.owner)
        return repository

    def _commit(self, repository: Repository, revision: str) -> str:
        found = repository.find(revision or "main")
        if found is None:
            raise _RefusalError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return found

    # ---- reading ----------------------------------------------------------------------------------------------------

    def _whoami(self, query: str) -> Any:
        user = self._writer()
        return {"type": "user", "name": user, "fullname": user, "orgs": [], "auth": {"type": "access_token"}}

    def _info(self, query: str, name: str, revision: str = "") -> Any:
        repository = self._repository(name)
        commit = self._commit(repository, revision)
        return {
            "_id": "1",
            "id": name,
            "modelId": name,
            "sha": commit,
            "private": repository.private,
            "gated": "auto" if repository.gated else False,
            "siblings": [{"rfilename": path} for path in repository.commits[commit]],
            "tags": [],
            "downloads": 0,
            "likes": 0,
        }

    def _tree(self, query: str, name: str, revision: str, folder: str = "") -> Any:
        repository = self._repository(name)
        files = repository.commits[self._commit(repository, revision)]
        return [_entry(path, data) for path, data in files.items() if path.startswith(folder)]

    def _refs(self, query: str, name: str) -> Any:
        repository = self._repository(name)
        branches = [(branch, commit) for branch, commit in repository.branches.items() if "/" not in branch]
        return {
            "branches": [{"name": one, "ref": f"refs/heads/{one}", "targetCommit": commit} for one, commit in branches],
            "converts": [],
            "tags": [],
        }

    def _resolve(self, query: str, name: str, revision: str, path: str) -> Any:
        repository = self._repository(name)
        if repository.gated and self._user() != repository.owner:
            status = 401 if self._user() is None else 403
            raise _RefusalError(status, "GatedRepo", f"Access to model {name} is restricted.")
        commit = self._commit(repository, revision)
        data = repository.commits[commit].get(path)
        about = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if data is None:
            refusal = _RefusalError(404, "EntryNotFound", "Entry not found")
            refusal.headers |= about
            raise refusal
        about["ETag"] = f'"{etag(path, data)}"'
        if self.hub.storage is not None and is_large(path):
            self.hub.storage.content[etag(path, data)] = data
            about |= {
                "X-Linked-ETag": about.pop("ETag"),
                "X-Linked-Size": str(len(data)),
                "Location": f"{self.hub.storage.url.replace('127.0.0.1', 'localhost')}/large/{etag(path, data)}",
            }
            return 302, b"", about
        return self._part(data, about)

    def _large(self, query: str, oid: str) -> Any:
        if self.headers.get("Authorization"):  # as the storage of the Hub does, which has its own signatures
            raise _RefusalError(400, message="Only one auth mechanism allowed")
        return self._part(self.hub.content[oid], {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"})

    def _part(self, data: bytes, about: dict[str, str]) -> tuple[int, bytes, dict[str, str]]:
        about = {**about, "Content-Type": "application/octet-stream"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            return 200, data, about
        first, last = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
        about["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        return 206, data[first : last + 1], about

    # ---- writing ----------------------------------------------------------------------------------------------------

    def _create(self, query: str) -> Any:
        asked = json.loads(self.body)
        user = self._writer()
        owner = asked.get("organization") or user
        self._writer(owner)
        name = f"{owner}/{asked['name']}"
        about = {"url": f"{self.hub.url}/{name}", "name": name, "id": "1"}
        if name in self.hub.repositories:
            raise _RefusalError(409, message="You already created this model repo", url=about["url"])
        self.hub.add(name, private=bool(asked.get("private") or asked.get("visibility") == "private"))
        return about

    def _branch(self, query: str, name: str, branch: str) -> Any:
        repository = self._repository(name, write=True)
        if branch.startswith("refs/"):
            raise _RefusalError(400, message=f"Invalid reference for a branch: {branch}")
        if branch in repository.branches:
            raise _RefusalError(409, message=f"Reference already exists: {branch}")
        start = json.loads(self.body or b"{}").get("startingPoint", "main")
        repository.branches[branch] = self._commit(repository, start)
        return {}

    def _validate(self, query: str) -> Any:
        content = json.loads(self.body)["content"]
        if content.startswith("---\nlicense: ["):
            raise _RefusalError(400, errors=[{"message": '"license" must be a string'}], warnings=[])
        return {"errors": [], "warnings": []}

    def _preupload(self, query: str, name: str, revision: str) -> Any:
        repository = self._repository(name, write="create_pr=1" not in query)
        there = repository.commits[self._commit(repository, revision)]
        return {
            "files": [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if is_large(file["path"]) else "regular",
                    "shouldIgnore": False,
                    **({"oid": etag(path, there[path])} if (path := file["path"]) in there else {}),
                }
                for file in json.loads(self.body)["files"]
            ]
        }

    def _batch(self, query: str, name: str) -> Any:
        self._repository(name)
        self._writer()
        objects = []
        for one in json.loads(self.body)["objects"]:
            upload: dict[str, Any] = {"href": f"{self.hub.url}/upload/{one['oid']}"}
            if self.hub.part is not None:
                count = -(-one["size"] // self.hub.part)
                upload["header"] = {"chunk_size": str(self.hub.part)} | {
                    str(part): f"{upload['href']}/{part}" for part in range(1, count + 1)
                }
            there = one["oid"] in self.hub.content
            actions = {"upload": upload, "verify": {"href": f"{self.hub.url}/verify"}}
            objects.append({**one, **({} if there else {"actions": actions})})
        return {"transfer": "basic" if self.hub.part is None else "multipart", "objects": objects}

    def _upload(self, query: str, oid: str, part: str = "") -> Any:
        if self.command == "POST":  # all parts are there
            parts = sorted(int(name.partition("/")[2]) for name in self.hub.content if name.startswith(f"{oid}/"))
            self.hub.content[oid] = b"".join(self.hub.content.pop(f"{oid}/{number}") for number in parts)
        else:
            self.hub.content[f"{oid}/{part}" if part else oid] = self.body
        return 200, b"{}", {"ETag": f'"{git_hash(self.body)}"'}

    def _verify(self, query: str) -> Any:
        self._writer()
        asked = json.loads(self.body)
        data = self.hub.content.get(asked["oid"], b"")
        if (hashlib.sha256(data).hexdigest(), len(data)) != (asked["oid"], asked["size"]):
            raise _RefusalError(422, message="the uploaded file is not what was announced")
        return {}

    def _send(self, query: str, name: str, revision: str) -> Any:
        asks = "create_pr=1" in query
        repository = self._repository(name, write=not asks)
        self._writer()
        changes, start = {}, self._commit(repository, revision)
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                repository.messages.append(f"{value['summary']}\n\n{value['description']}".strip())
            elif entry["key"] == "file":
                changes[value["path"]] = base64.b64decode(value["content"])
            else:
                assert entry["key"] == "lfsFile", entry["key"]
                changes[value["path"]] = self.hub.content[value["oid"]]
        number = 1 + sum(branch.startswith("refs/pr/") for branch in repository.branches)
        branch = f"refs/pr/{number}" if asks else revision
        commit = repository.commit(changes, branch=branch, start=start)
        answer = {"success": True, "commitOid": commit, "commitUrl": f"{self.hub.url}/{name}/commit/{commit}"}
        return {**answer, **({"pullRequestUrl": f"{self.hub.url}/{name}/discussions/{number}"} if asks else {})}


def _entry(path: str, data: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": git_hash(data)}
    if is_large(path):
        entry["lfs"] = {"oid": etag(path, data), "size": len(data), "pointerSize": 130}
    return entry


_ROUTES = (
    (r"GET /api/whoami-v2", "_whoami"),
    (r"POST /api/repos/create", "_create"),
    (r"POST /api/validate-yaml", "_validate"),
    (rf"GET /api/models/{_REPOSITORY}(/revision/(?P<revision>[^/]+))?", "_info"),
    (rf"GET /api/models/{_REPOSITORY}/tree/(?P<revision>[^/]+)(/(?P<folder>.*))?", "_tree"),
    (rf"GET /api/models/{_REPOSITORY}/refs", "_refs"),
    (rf"POST /api/models/{_REPOSITORY}/branch/(?P<branch>[^/]+)", "_branch"),
    (rf"POST /api/models/{_REPOSITORY}/preupload/(?P<revision>[^/]+)", "_preupload"),
    (rf"POST /api/models/{_REPOSITORY}/commit/(?P<revision>[^/]+)", "_send"),
    (rf"POST /{_REPOSITORY}\.git/info/lfs/objects/batch", "_batch"),
    (r"(PUT|POST) /upload/(?P<oid>\w+)(/(?P<part>\d+))?", "_upload"),
    (r"POST /verify", "_verify"),
    (r"GET /large/(?P<oid>\w+)", "_large"),
    (rf"(GET|HEAD) /{_REPOSITORY}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "_resolve"),
)
