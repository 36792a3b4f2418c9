"""A hub on this machine, for tests: it serves the folders under a root as repositories.

`root/models/<owner>/<name>/` and `root/datasets/<owner>/<name>/`, each with one commit, to the
hub's real client through the few endpoints that the client asks.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def local_hub(root: Path) -> Iterator[str]:
    """Serves `root` and yields the address to put in HF_ENDPOINT."""

    class Handler(_Handler):
        repositories = root

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    repositories: Path

    def log_message(self, *args) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        parts = unquote(url.path).strip("/").split("/")
        if parts[0] == "api":
            self._describe(
                *parts[1:4], *parts[4:6], inside="/".join(parts[6:]), deep="recursive=true" in url.query
            )
        else:
            kind = "datasets" if parts[0] == "datasets" else "models"
            owner, name, _, _, *file = parts[parts[0] == "datasets" :]
            self._file(self.repositories / kind / owner / name / "/".join(file))

    def _describe(self, kind, owner, name, what, revision, inside, deep) -> None:
        repository = self.repositories / kind / owner / name
        if not repository.is_dir():
            self._missing("RepoNotFound")
        elif revision not in ("main", COMMIT):
            self._missing("RevisionNotFound")
        elif what == "revision":
            files = [str(file.relative_to(repository)) for file in repository.rglob("*") if file.is_file()]
            siblings = [{"rfilename": file} for file in files]
            self._answer(json.dumps({"id": f"{owner}/{name}", "sha": COMMIT, "siblings": siblings}).encode())
        else:
            folder = repository / inside
            entries = [
                {
                    "type": "directory" if entry.is_dir() else "file",
                    "path": str(entry.relative_to(repository)),
                    "size": entry.stat().st_size,
                    "oid": _digest(str(entry).encode()),
                }
                for entry in sorted(folder.rglob("*") if deep else folder.iterdir())
            ]
            self._answer(json.dumps(entries).encode())

    def _file(self, path: Path) -> None:
        if path.is_file():
            self._answer(path.read_bytes(), ETag=f'"{_digest(path.read_bytes())}"')
        else:
            self._missing("EntryNotFound")

    def _missing(self, code: str) -> None:
        self._answer(b"{}", status=404, **{"X-Error-Code": code})

    def _answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"X-Repo-Commit": COMMIT, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
