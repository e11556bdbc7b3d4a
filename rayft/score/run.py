"""Score: plan, do what is missing, commit, report. The one entry for the CLI, jobs and Python."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from pyarrow import fs

from rayft.config import ScoreConfig
from rayft.data.inputs import list_inputs
from rayft.data.storage import Location
from rayft.errors import RayftError, UsageError
from rayft.model.checkpoint import Checkpoint, load_checkpoint
from rayft.model.engine import why_not_openvino
from rayft.score.cluster import wants_ray
from rayft.score.commit import finished_spans, read_footer, read_span_stats
from rayft.score.events import Event, FileDone, SpanDone
from rayft.score.job import Job, Work
from rayft.score.lock import writing
from rayft.score.plan import FilePlan
from rayft.score.planning import Plan, make_plan, output_of, plan_record
from rayft.score.report import Meter, build_report
from rayft.score.span import BatchDone, ScoreSettings
from rayft.score.state import State, read_json, state_of, this_process, write_json
from rayft.score.stats import Stats

_PROGRESS_SECONDS = 2.0
_THREADS = 32


class Progress(Protocol):
    """Shows a run as it goes. All methods are called from one thread."""

    def begin(self, rows: int, done: int, failed: int) -> None: ...
    def say(self, message: str) -> None: ...
    def actors(self, ready: int, wanted: int) -> None: ...
    def batch(self, batch: BatchDone) -> None: ...
    def event(self, event: Event) -> None: ...
    def end(self) -> None: ...


class Silent:
    """Shows nothing."""

    def begin(self, rows: int, done: int, failed: int) -> None:
        pass

    def say(self, message: str) -> None:
        pass

    def actors(self, ready: int, wanted: int) -> None:
        pass

    def batch(self, batch: BatchDone) -> None:
        pass

    def event(self, event: Event) -> None:
        pass

    def end(self) -> None:
        pass


@dataclass(frozen=True)
class Prepared:
    """A request that was checked and planned."""

    checkpoint: Checkpoint
    output: Location
    state: State
    plan: Plan


@contextlib.contextmanager
def prepare(config: ScoreConfig, keep: bool = True) -> Iterator[Prepared]:
    """Check the request and plan it for the block.

    Folders that planning made are removed again if the request is refused, or unless `keep`.

    Raises:
        UsageError: it cannot be carried out as given.
    """
    if not 0.0 <= config.threshold <= 1.0:
        raise UsageError(f"--threshold is a probability between 0 and 1, not {config.threshold}.")
    checkpoint = load_checkpoint(config.model, config.truncation)
    longest = checkpoint.config.get("max_position_embeddings", 512)
    if config.max_length is not None and not 8 <= config.max_length <= longest:
        raise UsageError(f"--max-length must be between 8 and {longest} tokens for this model.")
    checkpoint.negative_index(config.negative_label)
    output = output_of(config)
    state = state_of(output)
    made = [folder for folder in (state.folder, output) if folder.info().type == fs.FileType.NotFound]
    try:
        plan = make_plan(config, checkpoint, output, state)
    except UsageError:
        _remove(made)
        raise
    try:
        yield Prepared(checkpoint, output, state, plan)
    finally:
        if not keep:
            _remove(made)


def _remove(folders: list[Location]) -> None:
    for folder in folders:
        folder.remove()


def score(config: ScoreConfig, progress: Progress | None = None) -> dict[str, Any]:
    """Score the inputs and return the report; what was complete before is left alone.

    Raises:
        UsageError: refused before any work (exit code 2).
        StoppedError: stopped; the same call resumes (exit code 3).
    """
    progress = progress or Silent()
    meter = Meter()
    with prepare(config) as ready, writing(ready.state.lock, progress.say):
        checkpoint, output, state, plan = ready.checkpoint, ready.output, ready.state, ready.plan
        job = make_job(config, checkpoint, output, state, plan)
        write_json(state.plan, plan_record(config, checkpoint, plan))
        meter.failed = {name: reason for name, (reason, _) in plan.failed.items()}
        works = list(missing_work(state, plan.files, meter.before))
        for file in plan.complete:
            meter.before.add(_stats_of(job.output_of(file)))
        rows = sum(file.rows for file in plan.files + plan.complete)
        progress.begin(rows, meter.before.rows, len(meter.failed))
        try:
            _execute(config, job, works, meter, progress, state)
        finally:
            progress.end()
        _write_failures(state, plan, meter)
        report = _report(config, job, plan, meter)
        _clean_up(state, plan)
        _write_manifest(state, job, plan, meter)
        write_json(state.report, report)
    return report


def make_job(config: ScoreConfig, checkpoint: Checkpoint, output: Location, state: State, plan: Plan) -> Job:
    """Return what the workers of a planned run need to know."""
    footer = {
        "model": {"name": checkpoint.name, "digest": checkpoint.digest, "labels": list(checkpoint.labels)},
        "columns": {own: f.name for own, f in plan.appended.items()},
    }
    negative = checkpoint.negative_index(config.negative_label)
    return Job(
        checkpoint=checkpoint,
        engine=plan.engine,
        settings=ScoreSettings(checkpoint.labels, negative, config.threshold),
        state=state,
        output=output,
        max_length=config.max_length or checkpoint.max_length,
        batch_tokens=config.batch_tokens or plan.engine.batch_tokens,
        appended=plan.appended,
        footer=footer,
        threads=config.threads,
    )


def missing_work(state: State, files: list[FilePlan], before: Stats) -> Iterator[Work]:
    """Yield each file with its spans that are not committed; add those that are to `before`."""
    started = {info.base_name for info in (state.folder / "spans").listing()}
    with ThreadPoolExecutor(_THREADS) as pool:
        for file in files:
            folder = state.spans(file.key)
            done = finished_spans(folder) if file.key in started else set()
            for stats in pool.map(lambda span, at=folder: read_span_stats(at, span), done & set(file.spans)):
                before.add(stats)
            yield Work(file, tuple(span for span in file.spans if span not in done))


def _stats_of(output: Location) -> Stats:
    footer = read_footer(output) or {}
    return Stats.from_json(json.dumps(footer["stats"]))


def _execute(config: ScoreConfig, job: Job, works: list[Work], meter: Meter, progress: Progress, state: State) -> None:
    if not works:
        meter.ready = time.monotonic()
        return
    shown = 0.0
    # Closed at once when the caller is interrupted: a Ray cluster would otherwise go on computing.
    with contextlib.closing(_events(config, job, works, meter, progress)) as events:
        for event in events:
            if isinstance(event, SpanDone):
                meter.on_span(event.stats, event.worker)
            elif isinstance(event, FileDone):
                meter.this_run.add(event.stats)
                meter.done.append(event.plan)
            else:
                meter.failed[event.plan.name] = event.reason
            progress.event(event)
            if time.monotonic() - shown > _PROGRESS_SECONDS:
                shown = time.monotonic()
                write_json(state.progress, _progress_record(meter, works))


def _progress_record(meter: Meter, works: list[Work]) -> dict[str, Any]:
    seconds = time.monotonic() - (meter.ready or meter.started)
    return {
        **this_process(),
        "updated": time.time(),
        "rows_done": meter.before.rows + meter.this_run.rows,
        "rows_per_second": meter.this_run.rows / max(seconds, 1e-9),
        "files_done": len(meter.done),
        "files": len(works),
        "failed": meter.failed,
    }


def _events(
    config: ScoreConfig, job: Job, works: list[Work], meter: Meter, progress: Progress
) -> Generator[Event, None, None]:
    """Run the works on the executor that fits and pass on its events."""

    def on_batch(batch: BatchDone) -> None:
        meter.on_batch(batch)
        progress.batch(batch)

    def on_actors(ready: int, wanted: int) -> None:
        meter.ready = meter.ready or time.monotonic()
        progress.actors(ready, wanted)

    meter.executor_started = time.monotonic()
    todo = any(work.missing for work in works)
    if todo and wants_ray(config):
        from rayft.score.ray_executor import run_on_cluster

        meter.executor = "ray"
        yield from run_on_cluster(config, job, works, on_batch, on_actors)
        return
    from rayft.score.local import run_local

    engine = job.build_engine() if todo else None
    on_actors(1, 1)
    yield from run_local(job, works, engine, on_batch)


def _write_failures(state: State, plan: Plan, meter: Meter) -> None:
    if not meter.failed:
        state.failures.remove()
        return
    known = {name: identity for name, (_, identity) in plan.failed.items()}
    record = {
        name: {"reason": reason.split(" (not tried again")[0], "identity": known.get(name, "changed")}
        for name, reason in meter.failed.items()
    }
    write_json(state.failures, record)


def _report(config: ScoreConfig, job: Job, plan: Plan, meter: Meter) -> dict[str, Any]:
    total = Stats()
    total.add(meter.before)
    total.add(meter.this_run)
    late: set[str] = set()
    notes = [f"Reading {columns}." for columns in sorted(plan.guessed, key=str)[:3]]
    with contextlib.suppress(RayftError):  # inputs that are gone by now were scored all the same
        now = {file.name for file in list_inputs(config.inputs, job.output).files}
        late = now - {file.name for file in plan.listing.files}
    if late:
        notes.append(
            f"{len(late)} files appeared after planning ({', '.join(sorted(late)[:3])}): run again to score them."
        )
    on_torch = config.engine_backend == "auto" and job.engine.backend == "torch" and job.engine.device == "cpu"
    if on_torch and (reason := why_not_openvino(job.checkpoint.config)):
        notes.append(f"Scored with torch, the slower engine on CPUs: {reason}.")
    if job.settings.negative is None:
        notes.append("The model has no label that means negative: the defect columns are null (see --negative-label).")
    files = {
        "written": len(meter.done),
        "complete_before": len(plan.complete),
        "failed": meter.failed,
        "skipped": {reason: len(names) for reason, names in plan.listing.skipped.items()},
    }
    engine = {
        **vars(job.engine),
        "executor": meter.executor,
        "threads": job.threads,
        "batch_tokens": job.batch_tokens,
        "max_length": job.max_length,
        "model": job.checkpoint.name,
        "model_digest": job.checkpoint.digest,
    }
    return build_report(
        meter,
        output=str(job.output),
        total=total,
        files=files,
        engine=engine,
        notes=notes,
        price_per_hour=config.price_per_hour,
    )


def _clean_up(state: State, plan: Plan) -> None:
    """Remove what only an unfinished run needs: spans of other plans, staged copies, progress."""
    if not plan.failed:
        (state.folder / "spans").remove()
        state.staged.remove()
    state.progress.remove()


def _write_manifest(state: State, job: Job, plan: Plan, meter: Meter) -> None:
    """Record every output that is there, those of earlier runs over other inputs included."""
    known = (read_json(state.manifest) or {}).get("outputs", {})
    for file in plan.complete + meter.done:
        known[file.output] = {
            "input": file.name,
            "identity": str(file.source.identity),
            "rows": file.rows,
            "fingerprint": file.fingerprint,
        }
    write_json(state.manifest, {"outputs": known, "model": job.footer["model"], "columns": job.footer["columns"]})
