"""What a run would do, take and cost, without doing it."""

from __future__ import annotations

import time
from typing import Any

from rayft.config import ScoreConfig
from rayft.score.job import Work, infer_span, read_and_encode
from rayft.score.plan import Span
from rayft.score.run import Prepared, make_job, prepare

_TRIAL_ROWS = 256


def dry_run(config: ScoreConfig) -> dict[str, Any]:
    """Plan a run and time a trial of its first rows; nothing is left behind.

    Raises:
        UsageError: as the run itself would.
    """
    with prepare(config, keep=False) as ready:
        plan = ready.plan
        rows = sum(file.rows for file in plan.files)
        rate = _trial_rate(config, ready) if rows else 0.0
    seconds = rows / rate if rows else 0.0
    price = config.price_per_hour
    return {
        "rows": rows,
        "files": len(plan.files),
        "complete_files": len(plan.complete),
        "failed": {name: reason for name, (reason, _) in plan.failed.items()},
        "skipped": {reason: len(names) for reason, names in plan.listing.skipped.items()},
        "rows_per_second": rate,
        "estimated_seconds": seconds,
        "estimated_dollars": None if price is None else price * seconds / 3600,
        "basis": f"timed on the first {min(_TRIAL_ROWS, rows)} rows on this machine",
        "columns": sorted({str(columns) for columns in plan.guessed}),
        "output": str(ready.output),
    }


def _trial_rate(config: ScoreConfig, ready: Prepared) -> float:
    """Return rows per second of the first rows, the model's start not counted."""
    job = make_job(config, ready.checkpoint, ready.output, ready.state, ready.plan)
    engine = job.build_engine()
    file = next(file for file in ready.plan.files if file.rows)
    trial = Work(file, (Span(file.start, min(_TRIAL_ROWS, file.rows)),))
    started = time.perf_counter()
    for _, encoded, _ in read_and_encode(job, trial, job.encoder()):
        infer_span(job, engine, encoded)
    return min(_TRIAL_ROWS, file.rows) / (time.perf_counter() - started)
