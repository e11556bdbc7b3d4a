"""Hub datasets through the real client, against a local server that speaks the Hub's protocol."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayft.errors import InputError, UsageError
from rayft.prepare.config import PrepareConfig
from rayft.prepare.hub import CONVERTED, open_hub

SHA = "0123456789abcdef0123456789abcdef01234567"
CONVERTED_SHA = "89abcdef0123456789abcdef0123456789abcdef"


@dataclass
class Hub:
    """Datasets by id: {revision: {file: content}}; `gated` ids answer 403."""

    url: str = ""
    datasets: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    fetched: list[str] = field(default_factory=list)


def parquet(columns: dict[str, list], names: list[str] | None = None) -> bytes:
    """Return a Parquet file as the `datasets` library writes it, with class names in its metadata."""
    table = pa.table(columns)
    if names:
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0].replace("%2F", "/")
        if match := re.fullmatch(r"/api/datasets/([\w.-]+/[\w.-]+|[\w.-]+)(?:/revision/(.+))?", path):
            self._info(match[1], match[2] or "main")
        elif match := re.fullmatch(r"/datasets/([\w.-]+/[\w.-]+)/resolve/([0-9a-f]{40})/(.+)", path):
            self._file(*match.groups())
        else:
            self._error(404, "EntryNotFound")

    def _info(self, name: str, revision: str) -> None:
        if name in self.hub.gated:
            return self._error(403, "GatedRepo")
        if name not in self.hub.datasets:
            return self._error(401, "RepoNotFound")
        revisions = self.hub.datasets[name]
        if revision not in revisions:
            return self._error(404, "RevisionNotFound")
        sha = SHA if revision == "main" else CONVERTED_SHA
        siblings = [{"rfilename": file} for file in revisions[revision]]
        body = {"id": name, "sha": sha, "siblings": siblings, "tags": [], "private": False, "gated": False}
        self._send(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _file(self, name: str, sha: str, file: str) -> None:
        content = self.hub.datasets[name]["main" if sha == SHA else CONVERTED].get(file)
        if content is None:
            return self._error(404, "EntryNotFound")
        if self.command == "GET":
            self.hub.fetched.append(f"{name}/{file}")
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        self._send(200, content, {"ETag": etag, "X-Repo-Commit": sha, "Accept-Ranges": "bytes"})

    def _error(self, status: int, code: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    state = Hub()
    handler = type("BoundHandler", (Handler,), {"hub": state})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    yield state
    server.shutdown()
    server.server_close()


def config(**options: object) -> PrepareConfig:
    return PrepareConfig(sources=("x",), output="x", **options)  # type: ignore[arg-type]


def read(hub: Hub, name: str, **options: object) -> list[dict]:
    source = open_hub(name, config(**options), hub.url)
    return [row for part in source.parts for table in part.read() for row in table.to_pylist()]


def test_amazon_polarity(hub: Hub) -> None:
    train = parquet({"label": [1, 0], "title": ["Great", "Bad"], "content": ["It works.", "It\\nbroke."]},
                    ["negative", "positive"])  # fmt: skip
    test = parquet({"label": [0], "title": ["Meh"], "content": ["No."]}, ["negative", "positive"])
    hub.datasets["fancyzhx/amazon_polarity"] = {
        "main": {
            "README.md": b"#",
            "amazon_polarity/test-00000-of-00001.parquet": test,
            "amazon_polarity/train-00000-of-00004.parquet": train,
        }
    }
    rows = read(hub, "fancyzhx/amazon_polarity")
    assert [(r["title"], r["text"], r["label"], r["split"]) for r in rows] == [
        ("Meh", "No.", "negative", "test"),
        ("Great", "It works.", "positive", "train"),
        ("Bad", "It broke.", "negative", "train"),
    ]


def test_imdb_without_names_in_the_file(hub: Hub) -> None:
    hub.datasets["stanfordnlp/imdb"] = {
        "main": {
            "plain_text/train-00000-of-00001.parquet": parquet({"text": ["Good", "Bad"], "label": [1, 0]}),
            "plain_text/unsupervised-00000-of-00001.parquet": parquet({"text": ["What"], "label": [-1]}),
        }
    }
    rows = read(hub, "stanfordnlp/imdb")
    assert [(r["label"], r["split"]) for r in rows] == [
        ("positive", "train"),
        ("negative", "train"),
        (None, "unlabelled"),
    ]


def test_any_dataset_by_columns_from_the_converted_revision(hub: Hub) -> None:
    file = parquet({"review_body": ["a", "b"], "mood": ["happy", "sad"], "n": [1, 2]})
    hub.datasets["somebody/moods"] = {
        "main": {"data.csv": b"x"},
        CONVERTED: {"default/train/0000.parquet": file, "default/validation/0000.parquet": file},
    }
    source = open_hub("somebody/moods", config(text_column="review_body", label_column="mood"), hub.url)
    assert CONVERTED in source.kind
    rows = read(hub, "somebody/moods", text_column="review_body", label_column="mood")
    assert [(r["text"], r["label"], r["split"]) for r in rows] == [
        ("a", "happy", "train"), ("b", "sad", "train"), ("a", "happy", "validation"), ("b", "sad", "validation"),
    ]  # fmt: skip
    with pytest.raises(UsageError, match=r"no column 'nope'; it has: review_body, mood, n"):
        read(hub, "somebody/moods", label_column="nope")


def test_subsets_must_be_chosen(hub: Hub) -> None:
    file = parquet({"text": ["a"], "label": ["x"]})
    hub.datasets["a/b"] = {"main": {"en/train.parquet": file, "de/train.parquet": file}}
    with pytest.raises(UsageError, match=r"several subsets: de, en. Choose with --subset"):
        open_hub("a/b", config(), hub.url)
    assert len(read(hub, "a/b", subset="de")) == 1
    with pytest.raises(UsageError, match=r"no subset 'fr'; it has: de, en"):
        open_hub("a/b", config(subset="fr"), hub.url)


def test_what_the_hub_refuses(hub: Hub) -> None:
    hub.datasets["a/b"] = {"main": {"x.csv": b""}}
    hub.gated.add("a/gated")
    with pytest.raises(UsageError, match="no such dataset on the Hub"):
        open_hub("a/missing", config(), hub.url)
    with pytest.raises(UsageError, match="is gated: accept its terms"):
        open_hub("a/gated", config(), hub.url)
    with pytest.raises(UsageError, match="has no revision 'v9'"):
        open_hub("a/b", config(revision="v9"), hub.url)
    with pytest.raises(UsageError, match="holds no Parquet"):
        open_hub("a/b", config(), hub.url)
    with pytest.raises(UsageError, match="Cannot reach the Hub"):
        open_hub("a/b", config(), "http://127.0.0.1:9")


def test_a_file_that_vanishes(hub: Hub) -> None:
    hub.datasets["a/b"] = {"main": {"train.parquet": parquet({"text": ["a"], "label": ["x"]})}}
    source = open_hub("a/b", config(), hub.url)
    hub.datasets["a/b"]["main"].clear()
    with pytest.raises(InputError, match=r"Cannot fetch train.parquet of dataset a/b"):
        list(source.parts[0].read())


def test_the_command_with_hf_endpoint(hub: Hub, tmp_path: Path) -> None:
    words = ["good", "bad", "kettle", "lid", "broke", "works", "well", "fine", "poor", "great", "cable", "pump"]
    texts = [" ".join(words[(i * k) % 12] for k in range(1, 9)) + f" {i}" for i in range(60)]
    file = parquet({"text": texts, "label": [i % 2 for i in range(60)]}, ["neg", "pos"])
    hub.datasets["stanfordnlp/imdb"] = {"main": {"plain_text/train-00000-of-00001.parquet": file}}
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    script, store = Path(__file__).parents[1] / "cli.py", tmp_path / "store"
    command = [sys.executable, script, "prepare", "stanfordnlp/imdb", "-o", store, "--check-labels", "0", "--json"]
    for _ in range(2):  # the second run finds both the files and the store
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["already"]
    assert report["labels"] == ["negative", "positive"]
    assert sum(split["rows"] for split in report["splits"].values()) == 60
    assert len(hub.fetched) == 1
