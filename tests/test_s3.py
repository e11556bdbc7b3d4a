"""Object stores: the same rows as on a local disk, whatever the store or the machine does in between."""

from __future__ import annotations

import dataclasses
import gc
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

import rayft.score.lock as lock
import rayft.score.planning as planning
from rayft.config import ScoreConfig
from rayft.data import object_store
from rayft.data.storage import locate
from rayft.errors import StoppedError, UsageError
from rayft.score.events import SpanDone
from rayft.score.run import Silent, score
from tests.helpers import Cli, reviews, write_reviews

pytest.importorskip("moto.server", reason="moto[server] is not installed: no S3 server to test with")
pytest.importorskip("boto3", reason="boto3 is not installed: nobody to look at the buckets")

from tests.s3_server import Bucket, FaultyProxy, Server, serving, shares

_SCRIPT = """
import rayft.score.lock as lock
import rayft.score.planning as planning
lock.LEASE_SECONDS = 4.0
planning.rows_per_span = lambda *_: 60
from rayft.cli import main
main()
"""

#: Names that S3 allows and that some code somewhere takes for something else.
_NAMES = {
    "a.parquet": (400, 120),
    "date=2026-11-22 10:00/ü+b%20#1.parquet": (133, 1000),
    "date=2026-11-23/c [x] 100%.parquet": (40, 7),
}
_ROWS = 573


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture
def bucket(server: Server, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A new bucket, and the environment of somebody who uses it."""
    for name in [n for n in os.environ if n.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tester")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    return server.new_bucket()


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Spans of 40 to 60 rows, so that there is something to interrupt, and short waits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "rows_per_span", lambda *_: 60)
        patch.setattr(lock, "LEASE_SECONDS", 12.0)
        patch.setattr(object_store, "FIRST_WAIT", 0.05)
        yield


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dump")
    for name, (rows, group) in _NAMES.items():
        write_reviews(folder / name, rows, seed=rows, row_group_size=group)
    return folder


@pytest.fixture(scope="module")
def expected(quick: None, dump: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, pa.Table]:
    """The outputs of an undisturbed run on a local disk."""
    out = tmp_path_factory.mktemp("expected")
    score(config(dump, out, tiny))
    return {name: bare(pq.read_table(out / name, partitioning=None)) for name in _NAMES}


def config(source: object, output: object, model: Path) -> ScoreConfig:
    return ScoreConfig((str(source),), output=str(output), model=str(model), precision="fp32", threads=1)


def _options(model: Path) -> tuple[str, ...]:
    return ("-m", str(model), "--precision", "fp32", "--threads", "1")


def bare(table: pa.Table) -> pa.Table:
    """A table without its metadata, in which runs differ by their times."""
    return table.replace_schema_metadata(None)


def check_rows(bucket: Bucket, prefix: str, expected: dict[str, pa.Table]) -> None:
    found = {key.removeprefix(prefix) for key in bucket.keys(prefix) if key.endswith(".parquet")}
    assert found == set(expected)
    for name, table in expected.items():
        assert bare(bucket.table(prefix + name)).equals(table), name


class _Stop(Exception):  # noqa: N818 (stands for a crash)
    pass


class StopAfter(Silent):
    """Ends a run as a crash would, after a number of spans."""

    def __init__(self, spans: int) -> None:
        self.left = spans

    def event(self, event: object) -> None:
        if isinstance(event, SpanDone):
            self.left -= 1
            if self.left < 0:
                raise _Stop


class Heard(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


def test_folder_to_folder_from_disk_and_back(
    bucket: Bucket, dump: Path, tmp_path: Path, tiny: Path, expected: dict[str, pa.Table], cli: Cli
) -> None:
    bucket.put_folder(dump, "in")
    options = _options(tiny)
    assert cli("score", bucket.uri("in"), "-o", bucket.uri("out/"), *options).code == 0
    check_rows(bucket, "out/", expected)
    state = [key for key in bucket.keys("out/_rayft") if not key.endswith("/")]
    assert state == [f"out/_rayft/{name}.json" for name in ("manifest", "plan", "report")]
    status = cli("status", bucket.uri("out"), "--json").json
    assert status["state"] == "finished" and status["rows_done"] == _ROWS
    again = cli("score", bucket.uri("in"), "-o", bucket.uri("out"), *options, "--json").json
    assert again["rows"]["this_run"] == 0 and again["files"]["complete_before"] == 3

    assert cli("score", dump, "-o", bucket.uri("up"), *options).code == 0
    check_rows(bucket, "up/", expected)
    assert cli("score", bucket.uri("in"), "-o", tmp_path / "down", *options).code == 0
    for name, table in expected.items():
        assert bare(pq.read_table(tmp_path / "down" / name, partitioning=None)).equals(table)


def test_globs_and_single_files(
    bucket: Bucket, dump: Path, tiny: Path, expected: dict[str, pa.Table], cli: Cli, server: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    bucket.put_folder(dump, "in")
    options = _options(tiny)
    assert cli("score", bucket.uri("in/date=*/?*.parquet"), "-o", bucket.uri("dated"), *options).code == 0
    check_rows(bucket, "dated/", {name: table for name, table in expected.items() if "/" in name})
    odd = "date=2026-11-22 10:00/ü+b%20#1.parquet"
    assert cli("score", bucket.uri(f"in/{odd}"), "-o", bucket.uri("one file.parquet"), *options).code == 0
    assert bare(bucket.table("one file.parquet")).equals(expected[odd])
    assert bucket.keys("one file.parquet.rayft/report.json")
    assert cli("score", bucket.uri("in/a.parquet"), *options).code == 0
    assert bare(bucket.table("in/a.scored.parquet")).equals(expected["a.parquet"])

    # Everything in the address, nothing in the environment.
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    query = f"?endpoint_override=127.0.0.1:{server.port}&scheme=http&region=us-east-1"
    address = f"s3://tester:secret@{bucket.name}"
    source, output = f"{address}/in/**/c*.parquet{query}", f"{address}/by address{query}"
    ran = cli("score", source, "-o", output, *options)
    assert ran.code == 0, ran
    assert "secret" not in ran.out + ran.err
    assert bare(bucket.table("by address/date=2026-11-23/c [x] 100%.parquet")).num_rows == 40
    assert cli("status", output, "--json").json["state"] == "finished"
    ran = cli("score", f"{address}/missing{query}", "-o", output, *options)
    assert ran.code == 2 and "There is no file or directory" in ran.err and "secret" not in ran.err


def test_csv_is_staged_in_the_bucket_and_cleared_away(bucket: Bucket, tiny: Path, cli: Cli) -> None:
    sink = io.BytesIO()
    pacsv.write_csv(reviews(90, seed=3).drop_columns(["id"]).slice(0, 15), sink)
    bucket.put("in/x.csv", sink.getvalue())
    ran = cli("score", bucket.uri("in"), "-o", bucket.uri("out"), *_options(tiny))
    assert ran.code == 0, ran
    assert bucket.table("out/x.parquet").column("text").to_pylist() == reviews(90, seed=3)["text"].to_pylist()[:15]
    assert not [key for key in bucket.keys("out/_rayft/staged/") if not key.endswith("/")]


def test_a_crashed_run_is_resumed(bucket: Bucket, dump: Path, tiny: Path, expected: dict[str, pa.Table]) -> None:
    bucket.put_folder(dump, "in")
    request = config(bucket.uri("in"), bucket.uri("out"), tiny)
    for spans in (0, 6):
        with pytest.raises(_Stop):
            score(request, StopAfter(spans))
    assert not bucket.keys("out/_rayft/lock"), "the run ended, and so did its lease"
    report = score(request)
    check_rows(bucket, "out/", expected)
    assert report["rows"]["total"] == _ROWS
    assert report["rows"]["this_run"] <= _ROWS - 6 * 40, "finished spans were not used"


def test_kill_9_then_the_lease_is_waited_out(
    bucket: Bucket, dump: Path, tiny: Path, expected: dict[str, pa.Table], cli: Cli
) -> None:
    bucket.put_folder(dump, "in")
    arguments = ["score", bucket.uri("in"), "-o", bucket.uri("out"), *_options(tiny)]
    process = subprocess.Popen([sys.executable, "-c", _SCRIPT, *arguments], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if len([key for key in bucket.keys("out/_rayft/spans/") if key.endswith(".arrow")]) >= 3:
            break
        time.sleep(0.01)
    process.kill()
    _, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, err
    for key in bucket.keys("out/"):
        if key.endswith(".parquet"):
            assert bare(bucket.table(key)).equals(expected[key.removeprefix("out/")]), "what is visible is whole"
    # It was renewed by a clock that is ahead, just before the end: however slow this machine is, it is waited for.
    left = json.loads(bucket.get("out/_rayft/lock"))
    assert left["pid"] == process.pid
    bucket.put("out/_rayft/lock", json.dumps({**left, "renewed": time.time() + 600}).encode())
    heard = Heard()
    report = score(config(bucket.uri("in"), bucket.uri("out"), tiny), heard)
    assert any(f"process {process.pid} on" in line and "waiting up to" in line for line in heard.said)
    assert report["rows"]["this_run"] < _ROWS
    check_rows(bucket, "out/", expected)


def test_a_second_writer_is_refused_while_the_first_is_alive(
    bucket: Bucket, dump: Path, tiny: Path, expected: dict[str, pa.Table], cli: Cli
) -> None:
    bucket.put_folder(dump, "in")
    request = config(bucket.uri("in"), bucket.uri("out"), tiny)
    seen = {}

    class Look(Silent):
        def event(self, event: object) -> None:
            if not seen and isinstance(event, SpanDone):
                with pytest.raises(StoppedError, match=f"written by process {os.getpid()}"):
                    score(request)
                seen["status"] = cli("status", bucket.uri("out"), "--json").json

    score(request, Look())
    assert seen["status"]["state"] == "running"
    check_rows(bucket, "out/", expected)


def test_a_lease_by_a_clock_that_is_ahead_ends_as_well(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = {"host": "elsewhere", "pid": 1, "since": "", "id": "x", "renewed": time.time() + 9999, "seconds": 1.0}
    bucket.put("out/_rayft/lock", json.dumps(held).encode())
    said: list[str] = []
    started = time.monotonic()
    with lock.writing(locate(bucket.uri("out/_rayft/lock")), said.append):
        assert b'"elsewhere"' not in bucket.get("out/_rayft/lock")
    assert "process 1 on elsewhere" in said[0]
    assert time.monotonic() - started < 60


def test_missing_buckets_and_wrong_credentials_are_one_line(
    bucket: Bucket, server: Server, dump: Path, tiny: Path, cli: Cli
) -> None:
    bucket.put_folder(dump, "in")
    options = _options(tiny)
    requests = {
        "There is no file or directory s3://no-such-bucket/in": ("s3://no-such-bucket/in", bucket.uri("out")),
        "There is no bucket 'no-such-bucket'": (dump, "s3://no-such-bucket/out"),
        "names no bucket": (dump, "s3:///out"),
    }
    server.check_credentials(True)
    try:
        denied = cli("score", bucket.uri("in"), "-o", bucket.uri("out"), *options)
        denied_output = cli("score", dump, "-o", bucket.uri("out"), *options)
        denied_status = cli("status", bucket.uri("out"))
    finally:
        server.check_credentials(False)
    for ran in (denied, denied_output, denied_status):
        assert ran.code == 2 and "is denied" in ran.err and "AWS_ACCESS_KEY_ID" in ran.err, ran
        assert ran.err.count("\n") == 1, ran.err
    for message, (source, output) in requests.items():
        ran = cli("score", source, "-o", output, *options)
        assert ran.code == 2 and message in ran.err, ran
        assert ran.err.count("\n") == 1, ran.err
    assert not bucket.keys("out")


def test_a_store_that_is_gone_stops_the_run_and_it_resumes(
    bucket: Bucket, server: Server, dump: Path, tiny: Path, expected: dict[str, pa.Table],
    monkeypatch: pytest.MonkeyPatch, cli: Cli,
) -> None:  # fmt: skip
    monkeypatch.setattr(object_store, "ATTEMPTS", 2)
    monkeypatch.setattr(object_store, "_REQUEST_ATTEMPTS", 1)
    spans = iter(range(1000))

    def after_some_spans(method: str, path: str) -> str | None:
        down = "/spans/" in path and method == "PUT" and next(spans) >= 4
        return "slow_down" if down else None

    with FaultyProxy(server, after_some_spans) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        ran = cli("score", dump, "-o", bucket.uri("out"), *_options(tiny))
    assert ran.code == 3 and "does not answer" in ran.err and "it resumes" in ran.err, ran
    assert "Traceback" not in ran.err
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    report = cli("score", dump, "-o", bucket.uri("out"), *_options(tiny), "--json").json
    assert report["rows"]["this_run"] == _ROWS - 4 * 60
    check_rows(bucket, "out/", expected)


@pytest.mark.parametrize("attempts", [4, 1], ids=["requests are repeated", "only operations are repeated"])
def test_a_store_that_throttles_fails_and_hangs_up_changes_no_row(
    bucket: Bucket, server: Server, dump: Path, tiny: Path, expected: dict[str, pa.Table],
    monkeypatch: pytest.MonkeyPatch, attempts: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(object_store, "_REQUEST_ATTEMPTS", attempts)
    monkeypatch.setattr(object_store, "ATTEMPTS", 12)
    monkeypatch.setattr(object_store, "FIRST_WAIT", 0.01)
    bucket.put_folder(dump, "in")
    share = 0.025 if attempts == 4 else 0.006  # one operation may be thirty requests, and all must succeed
    judge = shares(seed=attempts, slow_down=share, internal_error=share, drop=share, forget=share, cut=share)
    with FaultyProxy(server, judge) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        report = score(config(bucket.uri("in"), bucket.uri("out"), tiny))
    assert not report["files"]["failed"]
    check_rows(bucket, "out/", expected)
    faults = {name: count for name, count in proxy.counts.items() if name != "passed"}
    assert len(faults) >= (3 if attempts == 4 else 1), "faults were met"


class _BreaksOff(io.BytesIO):
    """Data that cannot be read to its end."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() >= 8 << 20:
            raise MemoryError
        return super().read(size)


_EXIT = """
from tests.test_s3 import _BreaksOff
from rayft.data import object_store
from rayft.data.storage import locate
import sys
target = locate(sys.argv[1])
try:
    object_store.upload(target.filesystem, target.path, "x", _BreaksOff(b"x" * (20 << 20)))
except MemoryError:
    print("broke off")
"""


def test_an_upload_that_breaks_off_never_appears(bucket: Bucket, server: Server) -> None:
    target = locate(bucket.uri("out.parquet"))
    with pytest.raises(MemoryError):
        object_store.upload(target.filesystem, target.path, str(target), _BreaksOff(b"x" * (20 << 20)))
    with pytest.raises(ZeroDivisionError), target.replacing() as stream:
        stream.write(b"half a file" * (1 // 0))
    gc.collect()
    assert bucket.keys() == []
    ran = subprocess.run(
        [sys.executable, "-c", _EXIT, bucket.uri("out.parquet")],
        capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert (ran.returncode, ran.stdout) == (0, "broke off\n"), ran.stderr
    assert bucket.keys() == [], "nor when the process ends"


def test_an_upload_of_which_one_part_is_refused_never_appears(
    bucket: Bucket, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "ATTEMPTS", 2)
    monkeypatch.setattr(object_store, "_REQUEST_ATTEMPTS", 1)
    with FaultyProxy(server, lambda _, path: "internal_error" if "partNumber=2" in path else None) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        with pytest.raises(StoppedError, match="does not answer"):
            locate(bucket.uri("out.parquet")).write_bytes(b"x" * (24 << 20))
        gc.collect()
        assert bucket.keys() == []


def test_ctrl_c_during_an_upload_leaves_a_whole_object_or_none(bucket: Bucket, server: Server) -> None:
    data = os.urandom(1 << 20) * 12
    timer = threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    try:
        locate(bucket.uri("out.parquet")).write_bytes(data)
        timer.join()
        time.sleep(0.1)
    except KeyboardInterrupt:
        pass
    finally:
        timer.cancel()
    gc.collect()
    assert bucket.keys() in ([], ["out.parquet"])
    if bucket.keys():
        assert bucket.get("out.parquet") == data


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        ("AWS Error SLOW_DOWN during PutObject operation: Please reduce", True),
        ("AWS Error UNKNOWN (HTTP status 503) during HeadObject operation: No response body.", True),
        ("AWS Error UNKNOWN (HTTP status 429) during HeadObject operation: No response body.", True),
        ("AWS Error NETWORK_CONNECTION during GetObject operation: curlCode: 52", True),
        ("AWS Error NO_SUCH_UPLOAD during UploadPart operation", True),
        ("google::cloud::Status(UNAVAILABLE: try again)", True),
        ("AWS Error ACCESS_DENIED during HeadObject operation: No response body.", False),
        ("AWS Error NO_SUCH_BUCKET during PutObject operation", False),
        ("AWS Error UNKNOWN (HTTP status 400) during HeadObject operation: No response body.", False),
        ("Parquet magic bytes not found in footer.", False),
    ],
)
def test_what_is_tried_again(error: str, transient: bool) -> None:
    assert object_store.is_transient(OSError(error)) is transient


def test_expired_access_stops_a_run_that_can_be_resumed() -> None:
    def expired() -> None:
        raise OSError("AWS Error EXPIRED_TOKEN during PutObject operation: The provided token has expired.")

    with pytest.raises(StoppedError, match="has expired"):
        object_store.retrying("s3://b/x", expired)


def test_addresses(bucket: Bucket) -> None:
    for address, path in {
        "s3://b//x///y/": "b/x/y",
        "s3://b": "b",
        "s3://b/year=202?/*.parquet": "b/year=202?/*.parquet",
        "s3://b/100%/[ab]/{c}?endpoint_override=localhost:9&scheme=http": "b/100%/[ab]/{c}",
    }.items():
        location = locate(address)
        assert (location.path, str(location)) == (path, f"s3://{path}")
    with pytest.raises(UsageError, match="Known: paths, s3://"):
        locate("ftp://b/x")
    assert object_store.without_secrets("s3://key:secret@b/x") == "s3://b/x"
    assert dataclasses.replace(locate("s3://b/x"), path="b/y").name == "y"
