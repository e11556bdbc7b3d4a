"""Killed at any moment, the same command gives the same rows; interrupted, it says how to go on."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import rayft.score.job as job_module
import rayft.score.planning as planning
from rayft.config import ScoreConfig
from rayft.data.storage import locate
from rayft.errors import StoppedError
from rayft.score.events import SpanDone
from rayft.score.run import Silent, score
from rayft.score.state import state_of
from tests.helpers import Cli, write_reviews

# Small spans so that a small input has many moments to be killed at.
_SCRIPT = """
import rayft.score.planning as planning
planning.rows_per_span = lambda *_: 50
from rayft.cli import main
main()
"""


@pytest.fixture
def small_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "rows_per_span", lambda *_: 50)


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    for name, rows, group in (("a", 700, 200), ("sub/b", 333, 1000), ("c", 40, 7)):
        write_reviews(tmp_path / f"in/{name}.parquet", rows, seed=rows, row_group_size=group)
    return tmp_path / "in"


def config(dump: Path, output: Path, tiny: Path) -> ScoreConfig:
    return ScoreConfig((str(dump),), output=str(output), model=str(tiny), precision="fp32", engine="local")


def outputs(folder: Path) -> dict[str, bytes]:
    """The rows of every output, as bytes; the footers differ in their times."""
    found = {}
    for path in sorted(folder.rglob("*.parquet")):
        sink = pq.read_table(path).replace_schema_metadata(None)
        found[str(path.relative_to(folder))] = repr(sink.to_pydict()).encode()
    return found


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


@pytest.mark.usefixtures("small_spans")
def test_resumed_runs_equal_an_undisturbed_one_wherever_they_stopped(dump: Path, tmp_path: Path, tiny: Path) -> None:
    whole = score(config(dump, tmp_path / "whole", tiny))
    expected = outputs(tmp_path / "whole")
    rng = random.Random(7)
    for trial in range(6):
        out = tmp_path / f"out{trial}"
        done = 0
        for _ in range(rng.randint(1, 3)):
            try:
                score(config(dump, out, tiny), StopAfter(rng.randint(0, 8)))
            except _Stop:
                done += 1
        report = score(config(dump, out, tiny))
        assert outputs(out) == expected
        assert report["rows"]["total"] == 1073
        assert report["labels"] == whole["labels"]
        if done:
            assert report["rows"]["this_run"] < 1073, "finished spans were not used"
        assert not (out / "_rayft/spans").exists()


def _run(dump: Path, out: Path, tiny: Path) -> subprocess.Popen[str]:
    arguments = ["score", str(dump), "-o", str(out), "-m", str(tiny), "--precision", "fp32"]
    return subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, *arguments], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _wait_for_spans(out: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if len(list(out.glob("_rayft/spans/*/*.arrow"))) + 3 * len(list(out.rglob("*.parquet"))) >= count:
            return
        time.sleep(0.002)


def test_kill_9_and_the_same_command_again(dump: Path, tmp_path: Path, tiny: Path) -> None:
    undisturbed = _run(dump, tmp_path / "whole", tiny)
    assert undisturbed.wait(120) == 0
    out = tmp_path / "out"
    for spans in (0, 3):
        process = _run(dump, out, tiny)
        _wait_for_spans(out, spans, process)
        process.kill()
        assert process.wait(60) == -signal.SIGKILL
        for path in out.rglob("*.parquet"):
            pq.read_table(path)  # whatever is visible is whole
    last = _run(dump, out, tiny)
    _, err = last.communicate(timeout=120)
    assert last.returncode == 0, err
    assert outputs(out) == outputs(tmp_path / "whole")
    assert not [p for p in out.rglob("*") if p.name.endswith(".tmp") and "spans" not in str(p)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_says_how_to_go_on(dump: Path, tmp_path: Path, tiny: Path, number: signal.Signals) -> None:
    out = tmp_path / "out"
    process = _run(dump, out, tiny)
    _wait_for_spans(out, 1, process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (0, 130)  # 0 if it was done just then
    if process.returncode == 130:
        assert "the same command goes on" in err and "Traceback" not in err


@pytest.mark.usefixtures("small_spans")
def test_a_second_writer_is_refused_and_status_shows_the_first(
    dump: Path, tmp_path: Path, tiny: Path, cli: Cli
) -> None:
    seen = {}

    class Look(Silent):
        def event(self, event: object) -> None:
            if not seen and isinstance(event, SpanDone):
                with pytest.raises(StoppedError, match=f"written by process {os.getpid()}"):
                    score(config(dump, tmp_path / "out", tiny))
                seen["status"] = cli("status", tmp_path / "out", "--json").json

    score(config(dump, tmp_path / "out", tiny), Look())
    assert seen["status"]["state"] == "running"
    assert 0 < seen["status"]["rows_done"] <= 1073
    assert cli("status", tmp_path / "out", "--json").json["state"] == "finished"


@pytest.mark.usefixtures("small_spans")
def test_status_of_a_crashed_run(dump: Path, tmp_path: Path, tiny: Path, cli: Cli) -> None:
    with pytest.raises(_Stop):
        score(config(dump, tmp_path / "out", tiny), StopAfter(5))
    status = cli("status", tmp_path / "out", "--json").json
    assert status["state"] == "stopped" and status["spans_done"] >= 5
    assert "Run the same command again" in cli("status", tmp_path / "out").out


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 2 MB, where mounting is allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("cannot mount a small file system here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


@pytest.mark.usefixtures("small_spans")
@pytest.mark.parametrize("room", [25_000, 80_000], ids=["while spans are written", "while files are put together"])
def test_disk_full_stops_cleanly_and_resumes_after_room_is_made(
    tmp_path: Path, tiny: Path, small_disk: Path, cli: Cli, room: int
) -> None:
    write_reviews(tmp_path / "in/a.parquet", 600, words=60)
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * (2 * 2**20 - room))
    arguments = ("score", tmp_path / "in", "-o", small_disk / "out", "-m", tiny, "--precision", "fp32")
    full = cli(*arguments)
    assert full.code == 3, full
    assert "No space left" in full.err and "the same command again" in full.err and "Traceback" not in full.err
    assert not list(small_disk.rglob("*.parquet"))
    assert (small_disk / "out/_rayft/plan.json").exists()
    assert not list(small_disk.rglob("*.tmp"))
    ballast.unlink()
    assert cli(*arguments).code == 0
    assert pq.read_metadata(small_disk / "out/a.parquet").num_rows == 600


@pytest.mark.usefixtures("small_spans")
def test_an_input_that_changes_while_it_is_scored_fails_and_the_rest_is_complete(
    dump: Path, tmp_path: Path, tiny: Path
) -> None:
    class Change(Silent):
        done = False

        def event(self, event: object) -> None:
            if not self.done and isinstance(event, SpanDone):
                self.done = True
                write_reviews(dump / "a.parquet", 701, seed=99)

    report = score(config(dump, tmp_path / "out", tiny), Change())
    assert list(report["files"]["failed"]) == ["a.parquet"]
    assert not (tmp_path / "out/a.parquet").exists()
    assert (tmp_path / "out/c.parquet").exists()
    again = score(config(dump, tmp_path / "out", tiny))
    assert not again["files"]["failed"]
    assert pq.read_metadata(tmp_path / "out/a.parquet").num_rows == 701


@pytest.mark.usefixtures("small_spans")
def test_an_error_in_the_model_stops_the_run_and_keeps_what_is_done(
    dump: Path, tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = job_module.infer_span, iter(range(100))

    def failing(*args: object) -> object:
        if next(calls) == 4:
            raise OSError(errno.EIO, "bad luck")
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr("rayft.score.local.infer_span", failing)
    with pytest.raises(OSError, match="bad luck"):
        score(config(dump, tmp_path / "out", tiny))
    monkeypatch.undo()
    spans = state_of(locate(tmp_path / "out")).folder / "spans"
    assert [i for i in spans.listing(recursive=True) if i.path.endswith(".arrow")]
