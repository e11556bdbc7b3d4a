"""What a run did, how fast, and what it cost: one plain dictionary, for people and machines."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rayft.score.plan import FilePlan
from rayft.score.span import BatchDone
from rayft.score.stats import LENGTH_EDGES, Stats

_VERSIONS_OF = ("rayft", "torch", "transformers", "tokenizers", "openvino", "pyarrow", "ray")


@dataclass
class Meter:
    """Collects, while a run goes, what its report needs."""

    started: float = field(default_factory=time.monotonic)
    executor: str = "local"
    executor_started: float | None = None
    ready: float | None = None
    first_batch: float | None = None
    this_run: Stats = field(default_factory=Stats)
    before: Stats = field(default_factory=Stats)
    workers: dict[str, Stats] = field(default_factory=dict)
    timeline: dict[int, int] = field(default_factory=dict)
    done: list[FilePlan] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def on_batch(self, batch: BatchDone) -> None:
        now = time.monotonic()
        if self.first_batch is None:
            self.first_batch = now
        second = int(now - self.started)
        self.timeline[second] = self.timeline.get(second, 0) + batch.texts

    def on_span(self, stats: Stats, worker: str) -> None:
        self.this_run.add(stats)
        self.workers.setdefault(worker, Stats()).add(stats)


def process_age() -> float:
    """Return seconds since this process began, interpreter start included; 0 where it cannot be told."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError):
        return 0.0


def versions() -> dict[str, str]:
    """Return the versions of what the scores depend on, without importing any of it."""
    found = {"python": platform.python_version()}
    for name in _VERSIONS_OF:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def peak_rss() -> int:
    """Return the largest resident size of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def build_report(
    meter: Meter,
    *,
    output: str,
    total: Stats,
    files: dict[str, Any],
    engine: dict[str, Any],
    notes: list[str],
    price_per_hour: float | None,
) -> dict[str, Any]:
    """Return the report of a run.

    Args:
        total: of all rows of all outputs of this plan, those that were complete before included.
        files: counts and names of written, complete, failed and skipped files.
        engine: backend, precision, device, executor, model, threads.
    """
    now = time.monotonic()
    run = meter.this_run
    ready = meter.ready if meter.ready is not None else now
    scoring = max(now - ready, 1e-9)
    wall = now - meter.started
    report: dict[str, Any] = {
        "output": output,
        "rows": {
            "total": total.rows,
            "labelled": total.labelled,
            "unlabelled": dict(total.unlabelled),
            "this_run": run.rows,
        },
        "speed": {
            "rows_per_second": run.rows / scoring,
            "tokens_per_second": run.tokens / scoring,
            "scoring_seconds": scoring,
            "start_seconds": ready - meter.started,
            "executor_start_seconds": ready - (meter.executor_started or ready),
            "wall_seconds": wall,
            "process_seconds": max(process_age(), wall),
            "first_batch_seconds": None if meter.first_batch is None else meter.first_batch - meter.started,
        },
        "tokens": {
            "computed": run.tokens,
            "padding": 1 - run.tokens / run.padded_tokens if run.padded_tokens else 0.0,
            "duplicates": 1 - run.texts / run.labelled if run.labelled else 0.0,
            "truncated": total.truncated / total.labelled if total.labelled else 0.0,
        },
        "stages": {name: run.seconds.get(name, 0.0) for name in ("read", "encode", "model", "attach", "write")},
        "labels": dict(total.labels),
        "defects": {"flagged": total.defects, "rate": total.defects / total.labelled if total.labelled else 0.0},
        "lengths": {"edges": list(LENGTH_EDGES), "rows": total.lengths},
        "confidences": total.confidences,
        "files": files,
        "engine": engine,
        "workers": {
            name: {
                "rows": stats.rows,
                "model_seconds": stats.seconds.get("model", 0.0),
                "utilisation": min(1.0, stats.seconds.get("model", 0.0) / scoring),
            }
            for name, stats in sorted(meter.workers.items())
        },
        "timeline": sorted(meter.timeline.items()),
        "peak_rss_bytes": peak_rss(),
        "machine": {"cores": len(os.sched_getaffinity(0)), "system": platform.platform()},
        "versions": versions(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "notes": notes,
    }
    if price_per_hour is not None:
        dollars = price_per_hour * wall / 3600
        per_million = price_per_hour / 3600 * 1e6 / (run.rows / scoring) if run.rows else None
        report["cost"] = {
            "price_per_hour": price_per_hour,
            "this_run_dollars": dollars,
            "dollars_per_million_reviews": per_million,
        }
    return report
