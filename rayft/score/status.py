"""How far a run is, read from its state folder."""

from __future__ import annotations

import time
from typing import Any

from rayft.data.storage import locate
from rayft.errors import UsageError
from rayft.score.lock import is_held
from rayft.score.plan import Span
from rayft.score.state import read_json, state_of


def read_status(output: str) -> dict[str, Any]:
    """Return rows, spans and files done and in all, the rate of a running process, and failures.

    `state` is `running`, `stopped` (the same command resumes) or `finished`.

    Raises:
        UsageError: there is no run for this output.
    """
    location = locate(output)
    state = state_of(location)
    plan = read_json(state.plan)
    if plan is None:
        raise UsageError(f"There is no scoring run for {location} (no {state.plan}).")
    rows = spans = files = 0
    for file in plan["files"]:
        target = location if location.path.endswith(".parquet") else location / file["output"]
        names = [i.base_name for i in state.spans(file["key"]).listing() if i.base_name.endswith(".arrow")]
        if names:
            rows += sum(Span.from_name(name).rows for name in names)
            spans += len(names)
        elif target.is_file():
            rows, spans, files = rows + file["rows"], spans + file["spans"], files + 1
    report = read_json(state.report) or {}
    failures = {name: entry["reason"] for name, entry in (read_json(state.failures) or {}).items()}
    progress = read_json(state.progress) or {}
    running = is_held(state.lock)
    unfinished = files + len(failures) < len(plan["files"])
    return {
        "state": "running" if running else "stopped" if unfinished else "finished",
        "rows": plan["rows"],
        "rows_done": plan["rows_complete"] + rows,
        "spans": plan["spans"],
        "spans_done": plan["spans_complete"] + spans,
        "files": len(plan["files"]) + plan["complete"],
        "files_done": plan["complete"] + files,
        "rows_per_second": progress.get("rows_per_second") if running else None,
        "updated_seconds_ago": time.time() - progress["updated"] if running and progress else None,
        "failed": failures,
        "finished": report.get("finished") if not running else None,
    }
