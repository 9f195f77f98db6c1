"""As much of the Hugging Face Hub, on this computer, as uploads and downloads of a few files ask for."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub:
    """`repos`: "models/USER/REPO", "spaces/USER/NAME" -> name of each file -> what is in it.

    private: repositories that only TOKEN may see. gated: those that nobody may see yet. made: what was asked to be
    made. asked: all paths. refusal: a status, and a text, for whoever wants to make a repository.
    """

    TOKEN = "hf_" + "x" * 34

    def __init__(self):
        self.repos: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.gated: set[str] = set()
        self.made: list[dict] = []
        self.asked: list[str] = []
        self.refusal: tuple[int, str] | None = None
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Answer,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def reply(self, status: int, body: bytes | dict | list = b"", **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_) -> None:
        pass

    def known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {FakeHub.TOKEN}"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(path)
        if match := re.fullmatch(r"/api/(models|spaces)/([^/]+/[^/]+)/tree/main", path):
            files = self.hub.repos.get(f"{match[1]}/{match[2]}", {})
            return self.reply(
                200,
                [{"type": "file", "path": name, "size": len(data), "oid": "0" * 40} for name, data in files.items()],
            )
        if match := re.fullmatch(r"/api/(models|spaces)/([^/]+/[^/]+)(/revision/main)?", path):
            if f"{match[1]}/{match[2]}" not in self.hub.repos:
                return self.reply(404, X_Error_Code="RepoNotFound")
            return self.reply(200, {"id": match[2], "sha": COMMIT, "siblings": []})
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/main/(.+)", path)
        repo, name = (f"models/{match[1]}", match[2]) if match else ("", "")
        if repo in self.hub.gated:
            return self.reply(403, X_Error_Code="GatedRepo", X_Error_Message="Access to it is restricted")
        if repo not in self.hub.repos or (repo in self.hub.private and not self.known()):
            return self.reply(401 if not self.known() else 404, X_Error_Code="RepoNotFound")
        if name not in self.hub.repos[repo]:
            return self.reply(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
        data = self.hub.repos[repo][name]
        return self.reply(200, data, ETag=f'"{hashlib.sha1(data).hexdigest()}"', X_Repo_Commit=COMMIT)

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or self.read_chunks()
        self.hub.asked.append(path)
        if path == "/api/validate-yaml":
            return self.reply(200, {"errors": [], "warnings": []})
        if not self.known():
            return self.reply(401, {"error": "Invalid username or password."})
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        kind, repo, action = re.fullmatch(r"/api/(models|spaces)/([^/]+/[^/]+)/(preupload|commit)/main", path).groups()
        if action == "preupload":
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            return self.reply(200, {"files": files})
        files = self.hub.repos[f"{kind}/{repo}"]
        for entry in map(json.loads, body.splitlines()):
            if entry["key"] == "file":
                files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            if entry["key"] == "deletedFile":
                del files[entry["value"]["path"]]
        url = f"{self.hub.url}/{repo}/commit/{COMMIT}"
        return self.reply(200, {"success": True, "commitOid": COMMIT, "commitUrl": url, "hookOutput": ""})

    def create(self, wanted: dict) -> None:
        if self.hub.refusal:
            return self.reply(self.hub.refusal[0], {"error": self.hub.refusal[1]})
        kind = f"{wanted.get('type') or 'model'}s"
        repo = f"{wanted['organization']}/{wanted['name']}"
        url = f"{self.hub.url}/{'' if kind == 'models' else f'{kind}/'}{repo}"
        self.hub.made.append(wanted)
        status = 409 if f"{kind}/{repo}" in self.hub.repos else 200
        self.hub.repos.setdefault(f"{kind}/{repo}", {})
        return self.reply(status, {"url": url, "name": repo})

    def read_chunks(self) -> bytes:
        parts = []
        while self.headers.get("Transfer-Encoding") == "chunked" and (size := int(self.rfile.readline(), 16)):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        return b"".join(parts)
