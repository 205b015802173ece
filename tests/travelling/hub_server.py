"""A local server with the part of the Hub's API that pushing and loading a model requires, and its failures."""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

TOKEN = "hf_test"
NOT_FOUND = {"X-Error-Code": "RepoNotFound"}
MODEL = r"/api/models/([^/]+/[^/]+?)"


@dataclass
class Repository:
    """A repository: the files of each commit, and the commit of each branch and tag."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    tags: set[str] = field(default_factory=set)

    def __post_init__(self):
        self.refs["main"] = self.add({}, None)

    def add(self, files: dict[str, bytes], parent: str | None) -> str:
        """Add a commit and return its hash."""
        commit = hashlib.sha1(repr((sorted(files.items()), parent)).encode()).hexdigest()
        self.commits[commit] = files
        return commit

    def commit_of(self, revision: str) -> str | None:
        """The commit of a branch, a tag or a hash."""
        return self.refs.get(revision) or (revision if revision in self.commits else None)


@dataclass
class Failure:
    """An answer in place of the right one.

    Args:
        path: Pattern of the paths that it answers.
        status: HTTP status; 0 closes the connection after a part of the request was read.
        times: Number of requests that it answers.
        headers: Headers of the answer.
    """

    path: str
    status: int
    times: int = 10**6
    headers: dict[str, str] = field(default_factory=dict)


class Hub:
    """A server.

    Attributes:
        repositories: Repositories by name.
        blobs: Large files by SHA-256, which are uploaded before the commit that names them.
        failures: Failures on demand; the first that matches a request answers it.
        requests: Method and path of every request.
        large: Pattern of files that are uploaded as large files.
    """

    def __init__(self, large=r"$^"):
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.failures: list[Failure] = []
        self.requests: list[tuple[str, str]] = []
        self.large = large
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_GET(self):
                self._handle(lambda path, body: hub.get(path, self._may_read))

            def do_POST(self):
                self._handle(lambda path, body: hub.post(path, body, self._authorization))

            def do_PUT(self):
                self._handle(lambda path, body: hub.put(path, body))

            do_HEAD = do_GET

            @property
            def _authorization(self):
                return self.headers.get("Authorization")

            @property
            def _may_read(self):
                return self._authorization == f"Bearer {TOKEN}"

            def _handle(self, answer):
                path, length = unquote(self.path.split("?")[0]), int(self.headers.get("Content-Length", 0))
                hub.requests.append((self.command, path))
                failure = hub.failure(path)
                if failure and not failure.status:
                    self.rfile.read(length // 2)
                    self.close_connection = True
                    return self.connection.close()
                body = self.rfile.read(length)
                self._answer(*((failure.status, b"", failure.headers) if failure else answer(path, body)))

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
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def files(self) -> dict[str, dict[str, bytes]]:
        """The files on the main branch of each repository."""
        return {name: each.commits[each.refs["main"]] for name, each in self.repositories.items()}

    def publish(self, name, files):
        """Make a repository with one commit of files."""
        self.repositories[name] = repository = Repository()
        repository.refs["main"] = repository.add(files, None)

    def fail(self, path, status, times=10**6, **headers):
        """Answer requests whose path matches with a failure; see `Failure`."""
        self.failures.append(Failure(path, status, times, headers))

    def failure(self, path):
        for failure in self.failures:
            if failure.times and re.search(failure.path, path):
                failure.times -= 1
                return failure
        return None

    def _known(self, name, may_read):
        repository = self.repositories.get(name)
        return repository if repository and (may_read or not repository.private) else None

    def get(self, path, may_read):
        if path == "/api/whoami-v2":
            user = {"name": "me", "type": "user", "orgs": [], "auth": {"accessToken": {"role": "write"}}}
            return (200, user) if may_read else (401, b"")
        if path == "/api/agent-harnesses":
            return 200, {}
        if match := re.fullmatch(rf"{MODEL}(?:/(revision|tree|refs)(?:/(.*))?)?", path):
            repository, kind = self._known(match[1], may_read), match[2]
            if repository is None:
                return (404 if may_read else 401), b"", NOT_FOUND
            if kind == "refs":
                items = {"branches": repository.refs.keys() - repository.tags, "tags": repository.tags}
                return 200, {
                    group: [{"name": n, "ref": n, "targetCommit": repository.refs[n]} for n in names]
                    for group, names in items.items()
                } | {"converts": []}
            return self._describe(match[1], repository, kind, match[3] or "main")
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            repository = self._known(match[1], may_read)
            if repository is None:
                return (404 if may_read else 401), b"", NOT_FOUND
            commit = repository.commit_of(match[2])
            if commit is None:
                return 404, b"", {"X-Error-Code": "RevisionNotFound"}
            data = repository.commits[commit].get(match[3])
            if data is None:
                return 404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}
            return 200, data, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": commit}
        return 404, b""

    def _describe(self, name, repository, kind, place):
        revision, _, folder = place.partition("/")
        commit = repository.commit_of(revision)
        if commit is None:
            return 404, b"", {"X-Error-Code": "RevisionNotFound"}
        files = repository.commits[commit]
        if kind == "tree":
            if folder:
                return 404, b"", {"X-Error-Code": "EntryNotFound"}
            return 200, [
                {"type": "file", "path": n, "size": len(d), "oid": hashlib.sha1(d).hexdigest()}
                for n, d in files.items()
            ]
        siblings = [{"rfilename": n} for n in files]
        return 200, {"id": name, "sha": commit, "siblings": siblings, "tags": [], "private": repository.private}

    def post(self, path, body, authorization):
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if authorization != f"Bearer {TOKEN}":
            wrong = {"X-Error-Message": "Invalid credentials in Authorization header"} if authorization else {}
            return 401, b"", wrong
        if path == "/api/repos/create":
            ask = json.loads(body)
            name = f"{ask.get('organization') or 'me'}/{ask['name'].split('/')[-1]}"
            known = name in self.repositories
            if not known:
                private = ask.get("private") or ask.get("visibility") == "private"
                self.repositories[name] = Repository(private=bool(private))
            return (409 if known else 200), {"url": f"{self.url}/{name}", "name": name, "id": name}
        if match := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            return self._lfs_batch(json.loads(body))
        if match := re.fullmatch(rf"{MODEL}/(preupload|commit|tag|branch)/(.+)", path):
            repository = self.repositories.get(match[1])
            if repository is None:
                return 404, b"", NOT_FOUND
            return getattr(self, f"_{match[2]}")(match[1], repository, match[3], body)
        return 404, b""

    def put(self, path, body):
        digest = path.rpartition("/")[2]
        if hashlib.sha256(body).hexdigest() != digest:
            return 400, b""
        self.blobs[digest] = body
        return 200, b""

    def _lfs_batch(self, ask):
        objects = []
        for each in ask["objects"]:
            known = each["oid"] in self.blobs
            actions = {} if known else {"actions": {"upload": {"href": f"{self.url}/blobs/{each['oid']}"}}}
            objects.append({"oid": each["oid"], "size": each["size"], **actions})
        return 200, {"transfer": "basic", "objects": objects}

    def _preupload(self, name, repository, revision, body):
        modes = [
            (f["path"], "lfs" if re.search(self.large, f["path"]) else "regular") for f in json.loads(body)["files"]
        ]
        return 200, {"files": [{"path": n, "uploadMode": mode, "shouldIgnore": False} for n, mode in modes]}

    def _commit(self, name, repository, revision, body):
        parent = repository.commit_of(revision)
        if parent is None:
            return 404, b"", {"X-Error-Code": "RevisionNotFound"}
        files = dict(repository.commits[parent])
        for line in filter(None, body.splitlines()):
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                if value["oid"] not in self.blobs:
                    return 400, b""
                files[value["path"]] = self.blobs[value["oid"]]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
        repository.refs[revision] = commit = repository.add(files, parent)
        return 200, {"success": True, "commitOid": commit, "commitUrl": f"{self.url}/{name}/commit/{commit}"}

    def _tag(self, name, repository, revision, body):
        tag = json.loads(body)["tag"]
        if tag in repository.refs:
            return 409, b""
        repository.refs[tag] = repository.commit_of(revision)
        repository.tags.add(tag)
        return 200, b""

    def _branch(self, name, repository, branch, body):
        if branch in repository.refs:
            return 409, b""
        start = json.loads(body or b"{}").get("startingPoint") or "main"
        repository.refs[branch] = repository.commit_of(start)
        return 200, b""
