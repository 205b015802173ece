"""A local server with the part of the Hub's API that pushing and loading a model requires."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hub:
    """A server; `files` are `{repository: {path: bytes}}`."""

    def __init__(self):
        self.files: dict[str, dict[str, bytes]] = {}
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_GET(self):
                self._answer(*hub.get(self.path.split("?")[0]))

            do_HEAD = do_GET

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self._answer(*hub.post(self.path.split("?")[0], body))

            def _answer(self, status, body=b"", headers=None):
                if not isinstance(body, bytes):
                    body, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def sha(self, repository):
        return hashlib.sha1(repr(sorted(self.files[repository].items())).encode()).hexdigest()

    def get(self, path):
        if path == "/api/whoami-v2":
            return 200, {"name": "me", "type": "user", "orgs": [], "auth": {"accessToken": {"role": "write"}}}
        if path == "/api/agent-harnesses":
            return 200, {}
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+?)(?:/(revision|tree)/(.*))?", path):
            repository, kind = match[1], match[2]
            if repository not in self.files:
                return 404, b"", {"X-Error-Code": "RepoNotFound"}
            if kind == "tree":
                if "/" in match[3]:
                    return 404, b"", {"X-Error-Code": "EntryNotFound"}
                items = self.files[repository].items()
                return 200, [
                    {"type": "file", "path": n, "size": len(d), "oid": self.sha(repository)} for n, d in items
                ]
            siblings = [{"rfilename": name} for name in self.files[repository]]
            return 200, {
                "id": repository,
                "sha": self.sha(repository),
                "siblings": siblings,
                "tags": [],
                "private": False,
            }
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            data = self.files.get(match[1], {}).get(match[2])
            if data is None:
                return 404, b"", {"X-Error-Code": "EntryNotFound"}
            etag = hashlib.sha1(data).hexdigest()
            return 200, data, {"ETag": f'"{etag}"', "X-Repo-Commit": self.sha(match[1])}
        return 404, b""

    def post(self, path, body):
        if path == "/api/repos/create":
            ask = json.loads(body)
            name = f"{ask.get('organization') or 'me'}/{ask['name'].split('/')[-1]}"
            known = name in self.files
            self.files.setdefault(name, {})
            return (409 if known else 200), {"url": f"{self.url}/{name}", "name": name, "id": name}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/.+", path):
            names = [file["path"] for file in json.loads(body)["files"]]
            return 200, {"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]}
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/.+", path):
            for line in filter(None, body.splitlines()):
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.files[match[1]][entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            sha = self.sha(match[1])
            return 200, {"success": True, "commitOid": sha, "commitUrl": f"{self.url}/{match[1]}/commit/{sha}"}
        return 404, b""
