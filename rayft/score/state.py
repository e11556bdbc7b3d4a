"""The state folder of an output: plan, finished spans, failures, progress, and who is writing.

    _rayft/plan.json          the resolved settings and the size of spans, reused when a run is resumed
    _rayft/spans/<file key>/  finished spans of files that are not yet complete
    _rayft/staged/            CSV and JSONL inputs rewritten as Parquet
    _rayft/failures.json      inputs that failed, with reason and identity
    _rayft/progress.json      what the running process has done so far, for `rayft status`
    _rayft/manifest.json      every output with its input, rows and digest; written last but one
    _rayft/report.json        the report of the last run; written last
    _rayft/lock               held while a run writes

No name in it ends in `.parquet`, so that readers of the output folder never take it for data.
"""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import dataclass
from typing import Any, cast

from rayft.data.storage import Location


@dataclass(frozen=True)
class State:
    """Names of everything in a state folder."""

    folder: Location

    @property
    def plan(self) -> Location:
        return self.folder / "plan.json"

    @property
    def staged(self) -> Location:
        return self.folder / "staged"

    @property
    def failures(self) -> Location:
        return self.folder / "failures.json"

    @property
    def progress(self) -> Location:
        return self.folder / "progress.json"

    @property
    def manifest(self) -> Location:
        return self.folder / "manifest.json"

    @property
    def report(self) -> Location:
        return self.folder / "report.json"

    @property
    def lock(self) -> Location:
        return self.folder / "lock"

    def spans(self, key: str) -> Location:
        """Return the folder of the finished spans of one file."""
        return self.folder / "spans" / key


def state_of(output: Location) -> State:
    """Return the state folder of an output file (`x.parquet.rayft/`) or folder (`_rayft/`)."""
    if output.path.endswith(".parquet"):
        return State(output.parent / f"{output.name}.rayft")
    return State(output / "_rayft")


def read_json(location: Location) -> dict[str, Any] | None:
    """Return the object in a JSON file, or None if there is no such file."""
    try:
        return cast(dict[str, Any], json.loads(location.read_bytes()))
    except FileNotFoundError:
        return None


def write_json(location: Location, value: dict[str, Any]) -> None:
    """Replace a JSON file atomically."""
    location.write_bytes(json.dumps(value, indent=1, sort_keys=True, default=str).encode())


def this_process() -> dict[str, Any]:
    """Return who is writing, for messages to others."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
