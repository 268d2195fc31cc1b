"""What huggingface_hub asks of the Hub to push and fetch a model, answered on this machine, in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlparse

import yaml

TOKEN = "hf_of_the_test"
LARGE = (".safetensors", ".png")
"""What goes there by the way of large files."""
Files = dict[str, bytes]


class StandIn(ThreadingHTTPServer):
    """Repositories by name, each a list of commits, and a commit the files by path."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.repositories: dict[str, list[Files]] = {}
        self.private: dict[str, bool] = {}
        self.large: dict[str, bytes] = {}
        self.asked: list[str] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def put(self, name: str, files: Files) -> str:
        """Add a commit; its name."""
        self.repositories.setdefault(name, []).append(files)
        return commit(name, len(self.repositories[name]) - 1)

    def at(self, name: str, revision: str) -> tuple[str, Files] | None:
        """The commit that a revision names, and its files."""
        commits = self.repositories[name]
        known = {commit(name, place): files for place, files in enumerate(commits)}
        if revision == "main" and commits:
            return list(known.items())[-1]
        return (revision, known[revision]) if revision in known else None


def commit(name: str, place: int) -> str:
    return hashlib.sha1(f"{name} {place}".encode()).hexdigest()


@contextmanager
def serving() -> Iterator[StandIn]:
    """A stand-in that answers within the block."""
    with StandIn() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


class _Answers(BaseHTTPRequestHandler):
    server: StandIn

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlparse(self.path).path)
        self.server.asked.append(f"{self.command} {path}")
        logged_in = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if self.command == "POST" and not logged_in:
            self._send(401, {"error": "Invalid username or password."})
            return
        for pattern, answer in _ROUTES.items():
            if found := re.fullmatch(pattern, f"{self.command} {path}"):
                getattr(self, answer)(body, *found.groups())
                return
        self._send(404, {"error": f"the stand-in knows no {self.command} {path}"})

    def _send(self, status: int, value: Any = None, content: bytes | None = None, **headers: str) -> None:
        sent = json.dumps(value).encode() if content is None else content
        self.send_response(status)
        for name, text in {"Content-Length": str(len(sent)), "Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(sent)

    def _found(self, name: str, revision: str) -> tuple[str, Files] | None:
        """The commit that is asked for; where it is not there, the answer says so."""
        if name not in self.server.repositories:
            self._send(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
            return None
        found = self.server.at(name, revision)
        if found is None:
            self._send(404, {"error": f"Invalid rev id: {revision}"}, X_Error_Code="RevisionNotFound")
        return found

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        if asked["organization"] != "user":
            self._send(403, {"error": "You don't have the rights to create a model there"})
            return
        name = f"{asked['organization']}/{asked['name']}"
        self.server.private.setdefault(name, asked.get("visibility") == "private" or asked.get("private", False))
        new = name not in self.server.repositories
        self.server.repositories.setdefault(name, [])
        self._send(200 if new else 409, {"url": f"{self.server.endpoint}/{name}"})

    def validate(self, body: bytes) -> None:
        metadata = json.loads(body)["content"].split("---\n")[1]
        sound = isinstance(yaml.safe_load(metadata), dict)
        self._send(200 if sound else 400, {"errors": [] if sound else [{"message": "no metadata"}], "warnings": []})

    def preupload(self, body: bytes, name: str, revision: str) -> None:
        names = [file["path"] for file in json.loads(body)["files"]]
        modes = {path: "lfs" if path.endswith(LARGE) else "regular" for path in names}
        self._send(
            200,
            {"files": [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes.items()]},
        )

    def batch(self, body: bytes, name: str) -> None:
        asked = json.loads(body)["objects"]
        upload = {each["oid"]: {"upload": {"href": f"{self.server.endpoint}/large/{each['oid']}"}} for each in asked}
        self._send(200, {"transfer": "basic", "objects": [each | {"actions": upload[each["oid"]]} for each in asked]})

    def store(self, body: bytes, oid: str) -> None:
        sound = hashlib.sha256(body).hexdigest() == oid
        self.server.large[oid] = body
        self._send(200 if sound else 400, {})

    def commit(self, body: bytes, name: str, revision: str) -> None:
        files: Files = dict(self.server.repositories[name][-1]) if self.server.repositories[name] else {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            if line["key"] == "lfsFile":
                files[value["path"]] = self.server.large[value["oid"]]
        made = self.server.put(name, files)
        self._send(200, {"commitUrl": f"{self.server.endpoint}/{name}/commit/{made}", "commitOid": made})

    def info(self, body: bytes, name: str, revision: str | None) -> None:
        if (found := self._found(name, revision or "main")) is not None:
            siblings = [{"rfilename": path} for path in found[1]]
            self._send(200, {"id": name, "sha": found[0], "siblings": siblings, "tags": [], "downloads": 0})

    def tree(self, body: bytes, name: str, revision: str) -> None:
        if (found := self._found(name, revision)) is not None:
            self._send(200, [_listed(path, content) for path, content in found[1].items()])

    def resolve(self, body: bytes, name: str, revision: str, path: str) -> None:
        if (found := self._found(name, revision)) is None:
            return
        commit, files = found
        if path not in files:
            self._send(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound")
            return
        digest = _listed(path, files[path])["oid"]
        self._send(200, content=files[path], X_Repo_Commit=commit, ETag=f'"{digest}"')


def _listed(path: str, content: bytes) -> dict[str, Any]:
    oid = hashlib.sha1(content).hexdigest()
    listed = {"type": "file", "path": path, "size": len(content), "oid": oid}
    large = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return listed | ({"lfs": large, "oid": large["oid"]} if path.endswith(LARGE) else {})


_NAME = r"(\w+/[\w.-]+)"
_ROUTES = {
    r"POST /api/repos/create": "create",
    r"POST /api/validate-yaml": "validate",
    rf"POST /api/models/{_NAME}/preupload/(\w+)": "preupload",
    rf"POST /{_NAME}\.git/info/lfs/objects/batch": "batch",
    r"PUT /large/(\w+)": "store",
    rf"POST /api/models/{_NAME}/commit/(\w+)": "commit",
    rf"GET /api/models/{_NAME}(?:/revision/(\w+))?": "info",
    rf"GET /api/models/{_NAME}/tree/(\w+)": "tree",
    rf"(?:GET|HEAD) /{_NAME}/resolve/(\w+)/(.+)": "resolve",
}
