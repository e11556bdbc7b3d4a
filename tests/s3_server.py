"""A real S3 protocol server (moto) in a process of its own, and a proxy before it that misbehaves on purpose."""

from __future__ import annotations

import contextlib
import http.client
import random
import socket
import subprocess
import sys
import threading
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

# Ends when its standard input does, so that it never outlives a test run that was killed.
_SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class Server:
    """A running server."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def check_credentials(self, wanted: bool) -> None:
        """Refuse unknown access keys from now on, or let everybody in again."""
        request = urllib.request.Request(f"{self.url}/moto-api/reset-auth", b"0" if wanted else b"inf")
        request.add_header("Content-Type", "text/plain")
        urllib.request.urlopen(request, timeout=30).close()

    def new_bucket(self) -> Bucket:
        bucket = Bucket(self, f"b-{uuid.uuid4().hex[:12]}")
        bucket.client.create_bucket(Bucket=bucket.name)
        return bucket


@dataclass(frozen=True)
class Bucket:
    """A bucket, seen through boto3: what others would see of what rayft wrote."""

    server: Server
    name: str

    @property
    def client(self) -> Any:
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.server.url,
            region_name="us-east-1",
            aws_access_key_id="tester",
            aws_secret_access_key="secret",
        )

    def uri(self, key: str = "") -> str:
        return f"s3://{self.name}/{key}"

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=data)

    def get(self, key: str) -> bytes:
        data: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return data

    def put_folder(self, folder: Path, prefix: str) -> None:
        for path in folder.rglob("*"):
            if path.is_file():
                self.put(f"{prefix}/{path.relative_to(folder)}", path.read_bytes())

    def keys(self, prefix: str = "") -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def table(self, key: str) -> pa.Table:
        return pq.read_table(pa.BufferReader(self.get(key)))


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """Run a server while the block runs."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield Server(int(process.stdout.readline()))
    finally:
        process.kill()
        process.communicate(timeout=30)


#: method, path with query -> name of a fault, or None
Judge = Callable[[str, str], str | None]


def shares(seed: int = 0, **share: float) -> Judge:
    """Return a judge that gives each fault its share of the requests."""
    rng, lock = random.Random(seed), threading.Lock()

    def judge(_method: str, _path: str) -> str | None:
        with lock:
            return rng.choices([*share, None], [*share.values(), 1 - sum(share.values())])[0]

    return judge


class FaultyProxy:
    """Passes requests on to a server, except those that a judge names a fault for.

    Faults: `slow_down` and `internal_error` (503, 500), `drop` (the connection ends unanswered, the
    request is not passed on), `forget` (it is passed on, and the connection ends unanswered), `cut`
    (half of the answer's body).
    """

    def __init__(self, server: Server, judge: Judge) -> None:
        self.counts: Counter[str] = Counter()
        self._judge = judge
        proxy, target = self, server.port

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                proxy._handle(self, target)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> FaultyProxy:
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def _handle(self, request: BaseHTTPRequestHandler, target: int) -> None:
        body = _body(request)
        fault = self._judge(request.command, request.path)
        self.counts[fault or "passed"] += 1
        if fault == "drop":
            return _hang_up(request)
        if fault in ("slow_down", "internal_error"):
            status, code = (503, "SlowDown") if fault == "slow_down" else (500, "InternalError")
            text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
            return _answer(request, status, {"Content-Type": "application/xml"}, text)
        passed_on = http.client.HTTPConnection("127.0.0.1", target, timeout=60)
        try:
            headers = {name: value for name, value in request.headers.items() if name.lower() != "expect"}
            passed_on.request(request.command, request.path, body, headers)
            answer = passed_on.getresponse()
            content = answer.read()
        finally:
            passed_on.close()
        if fault == "forget":
            return _hang_up(request)
        _answer(request, answer.status, dict(answer.getheaders()), content, cut=fault == "cut")


def _body(request: BaseHTTPRequestHandler) -> bytes:
    """Read a request's body; one that is sent in chunks stays in chunks."""
    if request.headers.get("Transfer-Encoding", "").lower() != "chunked":
        return request.rfile.read(int(request.headers.get("Content-Length") or 0))
    parts: list[bytes] = []
    length = 1
    while length:
        parts.append(request.rfile.readline())
        length = int(parts[-1].split(b";")[0], 16)
        parts.append(request.rfile.read(length + 2))
    return b"".join(parts)


def _answer(
    request: BaseHTTPRequestHandler, status: int, headers: dict[str, str], content: bytes, cut: bool = False
) -> None:
    with contextlib.suppress(ConnectionError):
        request.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                request.send_header(name, value)
        head = request.command == "HEAD"
        length = next((v for n, v in headers.items() if n.lower() == "content-length"), "0") if head else len(content)
        request.send_header("Content-Length", str(length))
        request.end_headers()
        if head:
            return
        if cut and len(content) > 1:
            request.wfile.write(content[: len(content) // 2])
            return _hang_up(request)
        request.wfile.write(content)


def _hang_up(request: BaseHTTPRequestHandler) -> None:
    request.close_connection = True
    with contextlib.suppress(OSError):
        request.connection.shutdown(socket.SHUT_RDWR)
