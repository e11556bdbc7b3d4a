"""Real clusters, real processes and real kills for the tests of the Ray executor."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[1]
MODEL_ACTOR = "ray::MapWorker(MapBatches(ModelStage))"


def wait_for(condition: Callable[[], Any], seconds: float = 90.0, what: str = "") -> Any:
    """Return the first true value of `condition`, asked every 50 ms."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"did not come about within {seconds} s: {what or condition}")


def descendants(pid: int) -> dict[int, str]:
    """Return the process ids below `pid` with their command lines, zombies left out."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, parent = (folder / "stat").read_text().rsplit(")", 1)[1].split()[:2]
            if state != "Z":
                children.setdefault(int(parent), []).append(int(folder.name))
    found: dict[int, str] = {}
    todo = [pid]
    while todo:
        for child in children.get(todo.pop(), []):
            with contextlib.suppress(OSError):
                found[child] = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            todo.append(child)
    return found


def without_agents(processes: dict[int, str]) -> dict[int, str]:
    """Leave out the two agents of a raylet: they tell a GCS that is gone of its death for a minute or two."""
    return {
        pid: name for pid, name in processes.items() if not name.startswith(("ray::DashboardA", "ray::RuntimeEnvA"))
    }


def wait_for_end(processes: dict[int, str], seconds: float = 30.0) -> None:
    """Wait until none of the processes runs any more."""

    def running() -> dict[int, str]:
        found = {}
        for pid, name in processes.items():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                    found[pid] = name[:80]
        return found

    end = time.monotonic() + seconds
    while left := running():
        assert time.monotonic() < end, f"still running after {seconds} s: {left}"
        time.sleep(0.1)


def model_actors(pid: int | None = None) -> list[int]:
    """Return the processes of model actors below `pid`, this process if None."""
    return [p for p, name in descendants(pid or os.getpid()).items() if name.startswith(MODEL_ACTOR)]


def start(source: Path, output: Path, model: Path, *options: object) -> subprocess.Popen[str]:
    """Start `rayft score` in a process group of its own."""
    command = [sys.executable, ROOT / "cli.py", "score", source, "-o", output, "-m", model, "--precision", "fp32"]
    return subprocess.Popen(
        [str(part) for part in (*command, *options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"},
    )


@contextlib.contextmanager
def started(source: Path, output: Path, model: Path, *options: object) -> Iterator[subprocess.Popen[str]]:
    """`start`, and leave nothing of it behind."""
    process = start(source, output, model, *options)
    try:
        yield process
    finally:
        below = descendants(process.pid)
        for pid in (process.pid, *below):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()


def spans_done(output: Path) -> int:
    """Count the finished spans that lie in the state folder."""
    return len(list(output.glob("_rayft/spans/*/[0-9]*.arrow")))


def assert_same_rows(expected: Path, found: Path) -> None:
    """Assert that two output folders hold the same files, columns and rows in order, floats within 1e-3."""
    names = sorted(p.relative_to(expected) for p in expected.rglob("*.parquet"))
    assert names == sorted(p.relative_to(found) for p in found.rglob("*.parquet"))
    assert names
    for name in names:
        a, b = pq.read_table(expected / name), pq.read_table(found / name)
        assert a.schema.equals(b.schema), name
        assert a.num_rows == b.num_rows, name
        for field in a.schema:
            x, y = a[field.name], b[field.name]
            if pa.types.is_floating(field.type):
                assert x.is_null().equals(y.is_null()), (name, field.name)
                x, y = (c.drop_null().to_numpy() for c in (x, y))
                assert np.allclose(x, y, atol=1e-3), (name, field.name)
            else:
                assert x.equals(y), (name, field.name)
