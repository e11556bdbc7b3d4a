"""The doctor finds what is wrong, says how to mend it, and leaves nothing behind."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from rayft import __version__
from rayft.doctor import Check, cluster, examine, machine, paths_check
from rayft.doctor.check import size
from rayft.doctor.nodes import NodeFacts, http_status
from tests.helpers import Cli, tiny_checkpoint, write_reviews


def only(checks: list[Check], name: str) -> Check:
    (found,) = [check for check in checks if check.name == name]
    return found


def statuses(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.status for check in checks}


def test_this_machine_and_a_good_model_and_folder(tiny: Path, tmp_path: Path, cli: Cli) -> None:
    path = write_reviews(tmp_path / "in/a.parquet", 5)
    ran = cli("doctor", "-m", tiny, tmp_path, path, tmp_path / "new/out", "--json")
    checks = {check["name"]: check for check in ran.json["checks"]}
    assert ran.code == 0 and ran.json["ok"], ran.json
    assert checks["Python"]["status"] == "ok"
    assert "auto takes " in checks["processor"]["finding"]
    assert "negative, positive" in checks["model"]["finding"]
    assert checks["prediction"]["status"] == "ok"
    assert checks[f"{tmp_path}: writing"]["status"] == "ok"
    assert "readable" in checks[str(path)]["finding"]
    assert checks[f"{tmp_path}/new/out"]["status"] == "warn"
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.parquet", "in"], "nothing stays there"


def test_what_is_broken_is_named_with_its_mend(tmp_path: Path, cli: Cli) -> None:
    model = tiny_checkpoint(tmp_path / "model")
    (model / "model.safetensors").write_bytes(b"not weights")
    empty = tmp_path / "empty"
    empty.mkdir()
    ran = cli("doctor", "-m", model, "s3:///")
    assert ran.code == 1 and "Traceback" not in ran.err
    assert "error  prediction" in ran.out and "Fetch or train the model again" in ran.out
    assert "names no bucket" in ran.out
    assert "2 errors" in ran.out
    ran = cli("doctor", "-m", empty, "--quick")
    assert ran.code == 1 and "has no config.json" in ran.out and "prediction" not in ran.out


def test_a_model_without_a_negative_label_is_a_warning(tmp_path: Path) -> None:
    stars = tiny_checkpoint(tmp_path / "stars", labels=("one", "two", "three"))
    check = only(list(examine(str(stars), quick=True)), "model")
    assert check.status == "warn" and "--negative-label" in check.mend


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder that cannot be written: by its rights, or, for root, by its file system."""
    folder = tmp_path / "fixed"
    folder.mkdir()
    if os.geteuid():
        folder.chmod(0o500)
        yield folder
        folder.chmod(0o700)
        return
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,ro", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("root writes everywhere, and cannot mount a read-only file system here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


def test_a_folder_that_cannot_be_written(read_only: Path) -> None:
    checks = list(paths_check.checks(str(read_only)))
    assert only(checks, str(read_only)).status == "ok"
    writing = only(checks, f"{read_only}: writing")
    assert writing.status == "error" and "Cannot write" in writing.finding and "--output" in writing.mend
    assert list(read_only.iterdir()) == []


def test_a_file_in_the_way_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    checks = list(paths_check.checks(str(tmp_path / "file/out")))
    assert "error" in statuses(checks).values() or "warn" in statuses(checks).values()


@pytest.mark.parametrize(
    ("check", "status", "words"),
    [
        (machine.python_check("3.10.2", ">=3.11"), "error", "needs >=3.11"),
        (machine.python_check("3.12.1", ">=3.11"), "ok", "3.12.1"),
        (machine.packages_check(None, lambda _: None), "warn", "from a folder"),
        (machine.packages_check(["a>=2", 'b>=1; extra == "x"'], lambda _: "1.9"), "error", "a 1.9 (needs >=2)"),
        (machine.packages_check(["a>=2"], lambda _: None), "error", "a is missing"),
        (machine.packages_check(["a>=2"], lambda _: "2.0.1+cpu"), "ok", "torch"),
        (machine.processor_check({"avx2"}, 8, 1.5), "warn", "1.5 of the cores"),
        (machine.processor_check({"avx2", "avx512f"}, 8, None), "ok", "avx2, avx512f"),
        (machine.gpu_check(2, None, 2), "ok", "2 usable"),
        (machine.gpu_check(2, "", 0), "warn", "hidden"),
        (machine.gpu_check(2, "1", 1), "ok", "1 usable"),
        (machine.gpu_check(2, None, 1), "error", "torch sees 1"),
        (machine.gpu_check(1, None, "torch 2 is built without CUDA"), "error", "without CUDA"),
        (machine.memory_check(512 << 20), "error", "512 MiB"),
        (machine.memory_check(3 << 29), "warn", "1.5 GiB"),
        (machine.room_check("temporary folder", "/tmp", 1 << 20, 2, 3 << 20), "error", "1 MiB free"),
        (machine.room_check("x", "/x", 5 << 30, 2, 1), "ok", "5.0 GiB free"),
    ],
)
def test_judgements_of_a_machine(check: Check, status: str, words: str) -> None:
    assert (check.status, words in check.finding) == (status, True), check
    assert bool(check.mend) == (status != "ok"), "what is wrong has a mend, and only that"


def test_memory_and_sizes() -> None:
    assert 0 < machine.available_memory() < 1 << 60
    assert [size(n) for n in (12, 2048, 5 << 20, 3 << 30)] == ["12 bytes", "2 KiB", "5 MiB", "3.0 GiB"]


OWN = NodeFacts(
    "a", 4, 0, "{}.{}.{}".format(*sys.version_info[:3]), cluster.ray_version(), __version__, 4, 0, "token", {"/x": True}
)
OPEN = dataclasses.replace(OWN, auth="disabled", listening={6379: ["0.0.0.0"], 8265: ["0.0.0.0"]})


def test_a_good_cluster() -> None:
    nodes = [OWN, dataclasses.replace(OWN, host="b")]
    checks = list(cluster.judge(nodes, "10.0.0.1:6379", "10.0.0.1:8265", 401))
    assert set(statuses(checks).values()) == {"ok"}, checks
    assert not any(check.mend for check in checks)


def test_an_open_job_api_is_an_error() -> None:
    for status in (200, 500, None):
        check = only(list(cluster.judge([OPEN], "10.0.0.1:6379", "10.0.0.1:8265", status)), "dashboard")
        assert check.status == "error" and "CVE-2023-48022" in check.finding and "RAY_AUTH_MODE=token" in check.mend
    # It gives its address as this machine's, and listens everywhere all the same.
    assert statuses(list(cluster.judge([OPEN], "127.0.0.1:6379", "127.0.0.1:8265", 200)))["dashboard"] == "error"
    closed = dataclasses.replace(OPEN, listening={8265: ["127.0.0.1"]})
    assert statuses(list(cluster.judge([closed], "127.0.0.1:6379", "127.0.0.1:8265", 200)))["dashboard"] == "ok"
    assert statuses(list(cluster.judge([OPEN], "10.0.0.1:6379", "10.0.0.1:8265", 401)))["dashboard"] == "ok"


def test_a_cluster_without_tokens_is_a_warning_beyond_one_machine() -> None:
    found = statuses(list(cluster.judge([OPEN], "10.0.0.1:6379", None, None)))
    assert found["tokens"] == "warn" and found["addresses"] == "warn"
    assert statuses(list(cluster.judge([OPEN], "127.0.0.1:6379", None, None)))["tokens"] == "ok"


def test_nodes_that_differ() -> None:
    other = dataclasses.replace(OWN, host="b", rayft="0.0.1", ray="2.50.0", sees={"/x": False}, cpus=8, gpus=1)
    bare = dataclasses.replace(OWN, host="c", rayft=None)
    silent = NodeFacts("d", 2, 0, problem="no answer within 60 s")
    checks = list(cluster.judge([OWN, other, bare, silent], "10.0.0.1:6379", None, None))
    found = statuses(checks)
    assert (found["cluster"], found["versions"], found["/x: on the nodes"], found["fit"]) == (
        "error", "error", "error", "warn",
    )  # fmt: skip
    assert "d (no answer" in only(checks, "cluster").finding
    assert "b has Ray 2.50.0" in only(checks, "versions").finding and "c has rayft missing" in str(checks)
    assert "b offers 8 CPUs and has 4" in only(checks, "fit").finding
    assert list(cluster.judge([silent], "10.0.0.1:6379", None, None))[-1].name == "cluster"
    small = dataclasses.replace(OWN, cpus=0.5)
    assert only(list(cluster.judge([small], "10.0.0.1:6379", None, None)), "fit").status == "error"


@pytest.mark.parametrize(
    ("address", "local"),
    [("127.0.0.1:80", True), ("localhost:80", True), ("[::1]:80", True), ("::1", True), ("0.0.0.0:80", False),
     ("10.1.2.3:80", False), ("head.example:80", False)],
)  # fmt: skip
def test_addresses_of_this_machine_alone(address: str, local: bool) -> None:
    assert cluster.is_local(address) is local


def test_asking_without_a_token() -> None:
    class Guarded(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(401)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Guarded)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        assert http_status(f"http://127.0.0.1:{server.server_port}/api/jobs/") == 401
    finally:
        server.shutdown()
        server.server_close()
    assert http_status(f"http://127.0.0.1:{server.server_port}/api/jobs/") is None


def test_a_real_cluster(ray_address: str, tiny: Path, tmp_path: Path, cli: Cli) -> None:
    ran = cli("doctor", "--address", ray_address, "-m", tiny, "--quick", tmp_path, "--json")
    checks = [Check(**check) for check in ran.json["checks"]]
    found = statuses(checks)
    assert ran.code == 0, checks
    assert (found["cluster"], found["versions"], found[f"{tmp_path}: on the nodes"]) == ("ok", "ok", "ok")
    assert {"tokens", "dashboard", "addresses", "fit"} <= set(found)
    assert __version__ in only(checks, "versions").finding
    assert "head on" in only(checks, "addresses").finding, "the port of the head was found among those listening"
    assert list(tmp_path.iterdir()) == []


def test_no_cluster_at_the_address(tiny: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_gcs_server_request_timeout_seconds", "3")
    ran = cli("doctor", "--address", "ray://127.0.0.1:9", "-m", tiny, "--quick")
    assert ran.code == 1 and "error  cluster" in ran.out and "Ray Client" in ran.out


def test_room_is_that_of_the_disk(tmp_path: Path) -> None:
    check = only(list(paths_check.checks(str(tmp_path))), f"{tmp_path}: room")
    assert size(shutil.disk_usage(tmp_path).free)[-3:] in check.finding
