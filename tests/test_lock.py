"""One writer per output."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest
from fsspec.implementations.local import LocalFileSystem
from pyarrow import fs

from rayft.data.storage import Location, locate
from rayft.errors import StoppedError
from rayft.score import lock as lock_module
from rayft.score.lock import is_held, writing

HOLD = """
import sys, time
from rayft.data.storage import locate
from rayft.score.lock import writing
with writing(locate(sys.argv[1]), print):
    print("held", flush=True)
    time.sleep(120)
"""


class Upload(io.BytesIO):
    """What is written appears whole when it is closed, as in object stores."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def close(self) -> None:
        if not self.closed:
            locate(self._path).write_bytes(self.getvalue())
        super().close()


class Store(fs.FSSpecHandler):
    def open_output_stream(self, path: str, metadata: object) -> pa.PythonFile:
        return pa.PythonFile(Upload(path), mode="w")


@pytest.fixture
def lock(tmp_path: Path) -> Location:
    return locate(tmp_path / "out/_rayft/lock")


@pytest.fixture
def lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Location:
    """A lock in what passes for an object store, with leases of one second."""
    monkeypatch.setattr(lock_module, "LEASE_SECONDS", 1.0)
    (tmp_path / "out").mkdir()
    return Location(fs.PyFileSystem(Store(LocalFileSystem())), str(tmp_path / "out/lock"), "mem://")


def leave_lease(lease: Location, renewed: float, seconds: float) -> None:
    holder = {"pid": 4711, "host": "elsewhere", "since": "2024-01-02 03:04:05", "id": "x"}
    lease.write_bytes(json.dumps({**holder, "renewed": renewed, "seconds": seconds}).encode())


def test_the_second_writer_is_told_who_writes(lock: Location) -> None:
    with writing(lock, print):
        with pytest.raises(StoppedError) as stopped, writing(lock, print):
            pytest.fail("two writers")
        assert f"process {os.getpid()} on " in str(stopped.value)
        assert str(lock.parent) in str(stopped.value)
        assert stopped.value.exit_code == 3


def test_a_lock_is_free_before_and_after(lock: Location) -> None:
    assert not is_held(lock)
    for _ in range(2):
        with writing(lock, print):
            assert is_held(lock)
        assert not is_held(lock)
    with pytest.raises(ValueError, match="lost"), writing(lock, print):
        raise ValueError("lost")
    assert not is_held(lock)


def test_asking_does_not_take_or_free_the_lock(lock: Location) -> None:
    with writing(lock, print):
        assert is_held(lock)
        assert is_held(lock)
        with pytest.raises(StoppedError), writing(lock, print):
            pass
    assert not is_held(lock)
    with writing(lock, print):
        pass


def test_a_lock_is_free_at_once_when_its_holder_is_killed(lock: Location) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, lock.path], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert is_held(lock)
        with pytest.raises(StoppedError, match=f"process {holder.pid} on "), writing(lock, print):
            pytest.fail("two writers")
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert not is_held(lock)
    with writing(lock, print):
        assert json.loads(lock.read_bytes())["pid"] == os.getpid()


def test_a_lease_is_held_as_long_as_its_holder_lives(lease: Location) -> None:
    assert not is_held(lease)
    with writing(lease, print):
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            assert is_held(lease)
            time.sleep(0.25)
        assert json.loads(lease.read_bytes())["pid"] == os.getpid()
    assert not is_held(lease)
    assert not lease.is_file()


def test_a_lease_that_is_renewed_stops_the_second_writer(lease: Location) -> None:
    said: list[str] = []
    with writing(lease, print):
        with pytest.raises(StoppedError, match=f"process {os.getpid()} on "), writing(lease, said.append):
            pytest.fail("two writers")
        assert is_held(lease)
    assert len(said) == 1
    assert f"process {os.getpid()} on " in said[0]


def test_a_lease_of_a_dead_run_is_waited_out_visibly(lease: Location) -> None:
    said: list[str] = []
    ends = time.time() + 0.6
    leave_lease(lease, renewed=ends - 5, seconds=5)
    assert is_held(lease)
    with writing(lease, said.append):
        assert time.time() >= ends
        assert json.loads(lease.read_bytes())["pid"] == os.getpid()
    assert len(said) == 1
    assert "process 4711 on elsewhere" in said[0]


def test_a_lease_that_has_ended_is_taken_at_once(lease: Location) -> None:
    said: list[str] = []
    leave_lease(lease, renewed=time.time() - 100, seconds=30)
    assert not is_held(lease)
    with writing(lease, said.append):
        assert is_held(lease)
    assert said == []


def test_a_lease_is_given_back_when_the_run_fails(lease: Location) -> None:
    with pytest.raises(ValueError, match="lost"), writing(lease, print):
        raise ValueError("lost")
    assert not lease.is_file()
