"""A real HTTP server that speaks as much of the Hugging Face Hub's interface as pushing and fetching a model use.

Repositories, commits and large files are kept in memory. Large files (`*.safetensors`) go by the LFS protocol: a batch
request, a PUT of the content, and a line in the commit that names its SHA-256.
"""

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from huggingface_hub import constants

TOKEN = "hf_secret_of_the_test"
START_S = 20


@dataclass
class Commit:
    """A state of a repository."""

    id: str
    title: str
    files: dict[str, bytes]


@dataclass
class Repository:
    """Its commits, the last one last."""

    private: bool
    commits: list[Commit] = field(default_factory=list)

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1].files

    def commit(self, title: str, files: dict[str, bytes]) -> Commit:
        text = f"{len(self.commits)} {title} {sorted(files)}"
        self.commits.append(Commit(hashlib.sha1(text.encode()).hexdigest(), title, files))
        return self.commits[-1]

    def at(self, revision: str) -> Commit | None:
        if revision == "main":
            return self.commits[-1]
        return next((one for one in self.commits if one.id == revision), None)


class Hub:
    """What a test sees: the repositories, and what was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.asked: list[str] = []

    def commit(self, name: str, title: str, **files: bytes) -> None:
        """As somebody else would do in the browser."""
        repository = self.repositories.setdefault(name, Repository(private=False))
        repository.commit(title, {**(repository.files if repository.commits else {}), **files})


def application(hub: Hub) -> FastAPI:
    app = FastAPI()

    @app.middleware("http")
    async def remember(request: Request, call: Any) -> Response:
        hub.asked.append(f"{request.method} {request.url.path}")
        if request.method in ("POST", "DELETE") and request.headers.get("authorization") != f"Bearer {TOKEN}":
            return JSONResponse({"error": "Invalid credentials"}, status_code=401)
        answer: Response = await call(request)
        return answer

    @app.post("/api/repos/create")
    async def create(request: Request) -> Response:
        body = await request.json()
        owner = body.get("organization") or "me"
        name = f"{owner}/{body['name']}"
        if owner == "others":
            return JSONResponse({"error": "You don't have the rights"}, status_code=403)
        if name in hub.repositories:
            return JSONResponse({"error": "exists", "url": f"{hub.url}/{name}"}, status_code=409)
        hub.repositories[name] = Repository(
            private="private" in (body.get("visibility"), body.get("private") and "private")
        )
        hub.repositories[name].commit("initial commit", {".gitattributes": b"*.safetensors filter=lfs\n"})
        return JSONResponse({"url": f"{hub.url}/{name}"})

    @app.post("/api/validate-yaml")
    async def validate(request: Request) -> Response:
        body = await request.json()
        assert body["content"].startswith("---\n")
        return JSONResponse({"errors": [], "warnings": []})

    @app.get("/api/models/{owner}/{name}")
    @app.get("/api/models/{owner}/{name}/revision/{revision}")
    async def info(owner: str, name: str, revision: str = "main") -> Response:
        repository = hub.repositories.get(f"{owner}/{name}")
        commit = repository.at(revision) if repository else None
        if repository is None or commit is None:
            return missing("RepoNotFound" if repository is None else "RevisionNotFound")
        return JSONResponse(
            {
                "_id": "0",
                "id": f"{owner}/{name}",
                "sha": commit.id,
                "private": repository.private,
                "tags": [],
                "downloads": 0,
                "likes": 0,
                "siblings": [{"rfilename": file} for file in commit.files],
            }
        )

    @app.get("/api/models/{owner}/{name}/tree/{revision}")
    async def tree(owner: str, name: str, revision: str) -> Response:
        repository = hub.repositories[f"{owner}/{name}"]
        commit = repository.at(revision)
        assert commit is not None
        listed = [
            {"type": "file", "path": file, "size": len(content), "oid": blob_id(content)}
            for file, content in commit.files.items()
        ]
        return JSONResponse(listed)

    @app.get("/api/models/{owner}/{name}/commits/{revision}")
    async def commits(owner: str, name: str, revision: str) -> Response:
        listed = [
            {"id": one.id, "title": one.title, "message": "", "authors": [], "date": "2026-01-02T03:04:05.000Z"}
            for one in reversed(hub.repositories[f"{owner}/{name}"].commits)
        ]
        return JSONResponse(listed)

    @app.post("/api/models/{owner}/{name}/preupload/{revision}")
    async def preupload(owner: str, name: str, revision: str, request: Request) -> Response:
        body = await request.json()
        known = hub.repositories[f"{owner}/{name}"].files
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
                "oid": blob_id(known[file["path"]]) if file["path"] in known else None,
            }
            for file in body["files"]
        ]
        return JSONResponse({"files": files})

    @app.post("/{owner}/{name}.git/info/lfs/objects/batch")
    async def batch(owner: str, name: str, request: Request) -> Response:
        body = await request.json()
        objects = [
            {**one, "authenticated": True}
            if one["oid"] in hub.large
            else {**one, "actions": {"upload": {"href": f"{hub.url}/lfs/{one['oid']}", "header": {}}}}
            for one in body["objects"]
        ]
        return JSONResponse({"transfer": "basic", "objects": objects})

    @app.put("/lfs/{oid}")
    async def put(oid: str, request: Request) -> Response:
        content = await request.body()
        assert hashlib.sha256(content).hexdigest() == oid
        hub.large[oid] = content
        return Response()

    @app.post("/api/models/{owner}/{name}/commit/{revision}")
    async def commit(owner: str, name: str, revision: str, request: Request) -> Response:
        repository = hub.repositories[f"{owner}/{name}"]
        files, title = dict(repository.files), ""
        for line in (await request.body()).splitlines():
            entry = json.loads(line)
            kind, value = entry["key"], entry["value"]
            if kind == "header":
                title = value["summary"]
                if value.get("parentCommit") not in (None, repository.commits[-1].id):
                    return JSONResponse({"error": "the branch has moved"}, status_code=412)
            elif kind == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif kind == "lfsFile":
                files[value["path"]] = hub.large[value["oid"]]
            else:
                assert kind == "deletedFile", kind
                del files[value["path"]]
        made = repository.commit(title, files)
        return JSONResponse(
            {"commitUrl": f"{hub.url}/{owner}/{name}/commit/{made.id}", "commitOid": made.id, "success": True}
        )

    @app.api_route("/{owner}/{name}/resolve/{revision}/{path:path}", methods=["GET", "HEAD"])
    async def resolve(owner: str, name: str, revision: str, path: str, request: Request) -> Response:
        repository = hub.repositories.get(f"{owner}/{name}")
        found = repository.at(revision) if repository else None
        if found is None or path not in found.files:
            return missing("EntryNotFound")
        content = found.files[path]
        headers = {
            "ETag": f'"{blob_id(content)}"',
            "X-Repo-Commit": found.id,
            "Content-Length": str(len(content)),
        }
        return Response(b"" if request.method == "HEAD" else content, headers=headers)

    return app


def missing(code: str) -> Response:
    return JSONResponse({"error": code}, status_code=404, headers={"X-Error-Code": code})


def blob_id(content: bytes) -> str:
    """As git names it."""
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


@contextmanager
def hub_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The server, with this process's huggingface_hub pointed at it."""
    hub = Hub()
    server = uvicorn.Server(uvicorn.Config(application(hub), host="127.0.0.1", port=0, log_level="critical"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + START_S
    while not server.started:
        assert time.monotonic() < deadline, "the server did not start"
        time.sleep(0.01)
    hub.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    # the content goes over HTTP
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    yield hub
    server.should_exit = True
    thread.join(START_S)
