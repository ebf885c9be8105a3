"""A hub in a thread: the few addresses by which repositories are made, filled and fetched.

Files are kept in memory, a commit is a number, and every commit holds all files of its branch. Like
the real one it hides private repositories, refuses unknown tokens, and answers errors with the
`X-Error-Code` that huggingface_hub reads.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_tiny_hub"


@dataclass
class Repository:
    """Branches name commits, commits hold files."""

    private: bool
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: dict[str, bytes], message: str) -> str:
        name = hashlib.sha1(f"{len(self.commits)}".encode()).hexdigest()
        self.commits[name] = self.commits.get(self.branches.get(branch, ""), {}) | files
        self.branches[branch] = name
        self.messages.append(message)
        return name


class TinyHub(ThreadingHTTPServer):
    """The server and its repositories, by user/name."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.repositories: dict[str, Repository] = {}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def tiny_hub() -> Iterator[TinyHub]:
    """The hub while the context is open."""
    hub = TinyHub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


class _Answers(BaseHTTPRequestHandler):
    server: TinyHub

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    @property
    def known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(urlsplit(self.path).path)
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if not self.known:
            return self._error(401, "", "Invalid credentials in Authorization header")
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        match = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit|branch)/(.+)", path)
        if match is None or match[1] not in self.server.repositories:
            return self._error(404, "RepoNotFound", "Repository not found")
        repository, branch = self.server.repositories[match[1]], match[3]
        if match[2] == "preupload":
            files = [file["path"] for file in json.loads(body)["files"]]
            mode = {"uploadMode": "regular", "shouldIgnore": False}
            return self._json({"files": [{"path": file} | mode for file in files]})
        if match[2] == "branch":
            repository.branches[branch] = repository.branches["main"]
            return self._json({})
        lines = [json.loads(line) for line in body.splitlines()]
        added = {
            line["value"]["path"]: base64.b64decode(line["value"]["content"])
            for line in lines
            if line["key"] == "file"
        }
        oid = repository.commit(branch, added, lines[0]["value"]["summary"])
        self._json(
            {"commitUrl": f"{self.server.address}/{match[1]}/commit/{oid}", "commitOid": oid}
        )

    def _create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted['organization']}/{wanted['name']}"
        url = {"url": f"{self.server.address}/{name}"}
        if name in self.server.repositories:
            return self._json(url, 409)
        repository = Repository(private=wanted.get("visibility") == "private")
        repository.commit("main", {".gitattributes": b""}, "initial commit")
        self.server.repositories[name] = repository
        self._json(url)

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        listing = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/(.+))?", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        name = (listing or file or [None, ""])[1]
        repository = self.server.repositories.get(name)
        if repository is None or (repository.private and not self.known):
            return self._error(404 if self.known else 401, "RepoNotFound", "Repository not found")
        revision = (listing[3] if listing else file[2]) or "main"  # type: ignore[index]
        commit = repository.branches.get(revision, revision)
        if commit not in repository.commits:
            return self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        files = repository.commits[commit]
        if file is not None:
            return self._file(files.get(file[3]), commit)
        assert listing is not None
        if listing[2] == "tree":
            entries = [
                {"type": "file", "path": path, "size": len(data), "oid": _oid(data)}
                for path, data in files.items()
            ]
            return self._json(entries)
        siblings = [{"rfilename": path} for path in files]
        self._json({"id": name, "sha": commit, "private": repository.private, "siblings": siblings})

    do_HEAD = do_GET

    def _file(self, data: bytes | None, commit: str) -> None:
        if data is None:
            return self._error(404, "EntryNotFound", "Entry not found")
        self._send(200, data, {"ETag": f'"{_oid(data)}"', "X-Repo-Commit": commit})

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str, message: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": message})

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _oid(data: bytes) -> str:
    """As git names a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
