"""A bucket that is a directory of this machine: gs://bucket for what a test runs.

Our own code, and most of Orbax, reach buckets through etils.epath, whose backend for
gs:// is replaced here. Arrays go through tensorstore, which speaks to a server: the one
below knows as much of Google Cloud Storage's JSON API as that takes, conditional writes
included. Both see the same files, gs://bucket/NAME is DIRECTORY/bucket/NAME.

What this cannot show is how TensorFlow, epath's way to real buckets where it is
installed, behaves: the address of its server is compiled in.
"""

import contextlib
import json
import os
import sys
import threading
import types
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from etils import epath
from etils.epath import backend, gpath


class Bucket:
    """gs://bucket as a test sees it.

    Attributes:
      path: gs://bucket.
      local: the directory behind it.
      forbidden: set to True, the account may do nothing with it.
      cut_off: set to True, the same of arrays alone, which are reached on another way.
    """

    def __init__(self, directory: Path):
        self.path = epath.Path("gs://bucket")
        self.local = directory / "bucket"
        self.local.mkdir(parents=True)
        self.forbidden = self.cut_off = False


@contextlib.contextmanager
def stand_in(directory: Path) -> Iterator[Bucket]:
    """Within it gs://bucket is DIRECTORY/bucket, for this process alone."""
    bucket = Bucket(directory)
    server = ThreadingHTTPServer(("localhost", 0), _Requests)
    server.bucket = bucket
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    address = f"http://localhost:{server.server_port}"
    # Orbax asks what kind of bucket it is, with a package that nothing else needs.
    asked = types.ModuleType("google.cloud.storage")
    asked.Client = lambda: types.SimpleNamespace(get_bucket=lambda name: name)
    local = _Backend(bucket, directory)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TENSORSTORE_GCS_HTTP_URL", address)
        patch.setitem(sys.modules, "google.cloud.storage", asked)
        patch.setitem(gpath._PREFIX_TO_BACKEND, "gs", local)
        patch.setattr(gpath, "_GCS_BACKENDS", {local})
        patch.setattr(gpath, "_is_tf_installed", lambda: False)
        yield bucket
    server.shutdown()
    server.server_close()


class _Backend(backend._OsPathBackend):
    """Buckets have no directories: what a path needs above it is always there."""

    def __init__(self, bucket: Bucket, directory: Path):
        self._bucket, self._directory = bucket, str(directory)

    def _local(self, path) -> str:
        if self._bucket.forbidden:
            raise PermissionError("the caller has no storage.objects access")
        return os.fspath(path).replace("gs:/", self._directory, 1)

    def _remote(self, path: str) -> str:
        return path.replace(self._directory, "gs:/", 1)

    def open(self, path, mode):
        self._make_room(path, mode[0] in "wa")
        return super().open(self._local(path), mode)

    def exists(self, path):
        return super().exists(self._local(path))

    def isdir(self, path):  # as TensorFlow's, which says no when it may not look
        return not self._bucket.forbidden and super().isdir(self._local(path))

    def listdir(self, path):
        return super().listdir(self._local(path))

    def glob(self, path):
        return map(self._remote, super().glob(self._local(path)))

    def walk(self, top, **settings):
        for folder, folders, files in super().walk(self._local(top), **settings):
            yield self._remote(folder), folders, files

    def makedirs(self, path, **settings):
        super().makedirs(self._local(path), **settings)

    def mkdir(self, path, **settings):
        self._make_room(path)
        super().mkdir(self._local(path), **settings)

    def rmtree(self, path):
        super().rmtree(self._local(path))

    def remove(self, path):
        super().remove(self._local(path))

    def rename(self, path, dst):
        self._make_room(dst)
        super().rename(self._local(path), self._local(dst))

    def replace(self, path, dst):
        self._make_room(dst)
        super().replace(self._local(path), self._local(dst))

    def copy(self, path, dst, overwrite):
        self._make_room(dst)
        super().copy(self._local(path), self._local(dst), overwrite)

    def stat(self, path):
        return super().stat(self._local(path))

    def _make_room(self, path, wanted: bool = True):
        if wanted:
            Path(self._local(path)).parent.mkdir(parents=True, exist_ok=True)


class _Requests(BaseHTTPRequestHandler):
    """Reading, writing, deleting and listing objects; a generation is a file's time."""

    protocol_version = "HTTP/1.1"
    _one_at_a_time = threading.Lock()

    def do_GET(self):
        with self._one_at_a_time:
            if not self._name:
                return self._answer(200, {"items": list(self._listed())})
            if not self._file.is_file():
                return self._answer(404)
            if self._query.get("ifGenerationNotMatch") == self._generation:
                return self._answer(304)
            first, last = self._range()
            return self._answer(206, self._file.read_bytes()[first:last])

    def do_POST(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        with self._one_at_a_time:
            if not self._expected:
                return self._answer(412)
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.write_bytes(content)
            return self._answer(200, self._about(self._file))

    def do_DELETE(self):
        with self._one_at_a_time:
            if not self._file.is_file():
                return self._answer(404)
            if not self._expected:
                return self._answer(412)
            self._file.unlink()
            return self._answer(204)

    @property
    def _query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.path).query))

    @property
    def _name(self) -> str:
        """Of the object; empty where a list is asked for."""
        in_path = urlsplit(self.path).path.partition("/b/bucket/o")[2].strip("/")
        return self._query.get("name") or unquote(in_path)

    @property
    def _file(self) -> Path:
        return self.server.bucket.local / self._name

    @property
    def _generation(self) -> str:
        return str(self._file.stat().st_mtime_ns if self._file.is_file() else 0)

    @property
    def _expected(self) -> bool:
        return self._query.get("ifGenerationMatch") in (None, self._generation)

    def _range(self) -> tuple[int, int]:
        size = self._file.stat().st_size
        first, _, last = self.headers.get("Range", "bytes=0-")[6:].partition("-")
        if not first:
            return size - int(last), size
        return int(first), min(int(last or size) + 1, size)

    def _listed(self):
        root, asked = self.server.bucket.local, self._query
        for file in sorted(root.rglob("*")):
            name = str(file.relative_to(root))
            end = asked.get("endOffset", "\U0010ffff")
            inside = asked.get("startOffset", "") <= name < end
            if file.is_file() and inside and name.startswith(asked.get("prefix", "")):
                yield self._about(file)

    def _about(self, file: Path) -> dict[str, str]:
        stat = file.stat()
        name = str(file.relative_to(self.server.bucket.local))
        generation = str(stat.st_mtime_ns)
        return {"name": name, "generation": generation, "size": str(stat.st_size)}

    def _answer(self, code: int, content: bytes | dict = b""):
        if self.server.bucket.forbidden or self.server.bucket.cut_off:
            code, content = 403, {"error": {"code": 403, "message": "no access"}}
        self.send_response(code)
        if code == 206:
            self.send_header("x-goog-generation", self._generation)
            first, last = self._range()
            size = self._file.stat().st_size
            self.send_header("Content-Range", f"bytes {first}-{last - 1}/{size}")
        if isinstance(content, dict):
            content = json.dumps(content).encode()
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if code not in (204, 304):
            self.wfile.write(content)

    def log_message(self, *_):
        """Says nothing."""
