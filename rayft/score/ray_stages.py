"""What runs on the workers of a Ray cluster: the steps of rayft.score.job between rows of a Ray Dataset.

A row holds one span, or several small ones that travel together, as one pickled column: Ray Data
moves rows, and rayft alone knows what is in them. Errors that have an explanation travel as rows too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pickle
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from rayft.errors import InputError, RayftError
from rayft.model.engine import Engine
from rayft.score.commit import read_footer
from rayft.score.job import Job, commit_span, finish_file, infer_span, read_and_encode
from rayft.score.plan import FilePlan, Span
from rayft.score.span import BatchDone, EncodedSpan
from rayft.score.stats import Stats
from rayft.text.encode import Encoder

_SCHEMA = pa.schema({"rows": pa.int64(), "content": pa.large_binary()})
_REPORT_SECONDS = 0.5
_BEAT_SECONDS = 20.0


@dataclass(frozen=True)
class Failure:
    """An error that a person can act on, on its way to the driver; `key` is of the file or None for the run."""

    key: str | None
    error: RayftError


@dataclass(frozen=True)
class Committed:
    """A span that is on disk; `worker` is (node id, actor id) of the model actor."""

    key: str
    span: Span
    stats: Stats
    worker: tuple[str, str]


@dataclass(frozen=True)
class _InFlight:
    """A span between two stages. `plan` knows only what committing needs, `probabilities` come with the model."""

    plan: FilePlan
    span: Span
    encoded: EncodedSpan
    stats: Stats
    probabilities: np.ndarray | None = None
    worker: tuple[str, str] = ("", "")


def to_row(rows: int, content: Sequence[Any]) -> pa.Table:
    """Return a table of one row that carries `content`."""
    return pa.table({"rows": [rows], "content": [pickle.dumps(content, protocol=5)]}, schema=_SCHEMA)


def from_row(table: pa.Table) -> list[Any]:
    """Return what `to_row` was given, of every row of a table."""
    return [item for value in table["content"] for item in pickle.loads(value.as_buffer())]


class Tracker:
    """Counts, in one small actor, what the workers get done between two looks of the driver."""

    def __init__(self) -> None:
        self._batches = self._beats = 0
        self._sums = [0, 0, 0]
        self._loading: set[str] = set()
        self._ready: set[str] = set()
        self._begun: dict[tuple[str, int], int] = {}

    def loading(self, actor: str) -> None:
        self._ready.discard(actor)
        self._loading.add(actor)

    def ready(self, actor: str) -> None:
        self._loading.discard(actor)
        self._ready.add(actor)

    def begin(self, key: str, start: int) -> None:
        """Count that a model actor takes up a span; one that is taken up again and again kills its actors."""
        self._begun[key, start] = self._begun.get((key, start), 0) + 1

    def end(self, key: str, start: int) -> None:
        self._begun.pop((key, start), None)

    def batches(self, count: int, texts: int, tokens: int, padded_tokens: int) -> None:
        self._batches += count
        for i, value in enumerate((texts, tokens, padded_tokens)):
            self._sums[i] += value

    def beat(self) -> None:
        """Count progress that is not a batch: a span was read, a file is being assembled."""
        self._beats += 1

    def look(self) -> dict[str, Any]:
        """Return what there is and count from zero again."""
        most = max(self._begun.items(), key=lambda item: item[1], default=(None, 0))
        seen = {
            "batches": self._batches,
            "beats": self._beats,
            "sums": self._sums,
            "loading": len(self._loading),
            "ready": len(self._ready),
            "most_begun": most,
        }
        self._batches = self._beats = 0
        self._sums = [0, 0, 0]
        return seen


@lru_cache(maxsize=1)
def _encoder(directory: str, max_length: int, truncation: str) -> Encoder:
    """Return the encoder of this process; Ray uses a process for many tasks."""
    return Encoder.from_directory(directory, max_length, truncation)  # type: ignore[arg-type]


def read_stage(items: pa.Table, job: Job, row_rows: int, tracker: Any) -> Iterator[pa.Table]:
    """Stage 1: Work in, encoded spans out; small spans share a row up to `row_rows` reviews."""
    if job.engine.device == "cpu":
        # A reader has a quarter of a CPU; the tokeniser's own threads would take them from the model.
        os.environ.setdefault("RAYON_NUM_THREADS", "1")
    encoder = _encoder(str(job.checkpoint.directory), job.max_length, job.checkpoint.truncation)
    waiting: list[_InFlight | Failure] = []
    rows = 0
    for work in from_row(items):
        thin = _thin(work.plan)
        try:
            for span, encoded, stats in read_and_encode(job, work, encoder):
                tracker.beat.remote()
                if rows and rows + span.rows > row_rows:
                    yield to_row(rows, waiting)
                    waiting, rows = [], 0
                waiting.append(_InFlight(thin, span, encoded, stats))
                rows += span.rows
        except RayftError as error:
            waiting.append(Failure(work.plan.key if isinstance(error, InputError) else None, error))
    if waiting:
        yield to_row(rows, waiting)


def _thin(plan: FilePlan) -> FilePlan:
    """Return the plan without what only reading and assembling need: it travels with every span."""
    source = dataclasses.replace(plan.source, row_groups=(), schema=pa.schema([]), footer={})
    return dataclasses.replace(plan, source=source, settings={}, spans=())


class ModelStage:
    """Stage 2: an actor that holds the engine; encoded spans in, probabilities out."""

    def __init__(self, job: Job, threads: int, tracker: Any) -> None:
        import ray

        context = ray.get_runtime_context()
        self._worker = (context.get_node_id(), context.get_actor_id() or "")
        self._job = dataclasses.replace(job, threads=threads)
        self._tracker = tracker
        self._engine: Engine | None = None
        self._error: RayftError | None = None
        tracker.loading.remote(self._worker[1])
        try:
            self._engine = self._job.build_engine()
        except RayftError as error:  # reaches the driver as a row: Ray would only say that the actor died
            self._error = error
        tracker.ready.remote(self._worker[1])

    def __call__(self, table: pa.Table) -> pa.Table:
        return to_row(table["rows"][0].as_py(), [self._infer(item) for item in from_row(table)])

    def _infer(self, item: _InFlight | Failure) -> _InFlight | Failure:
        if isinstance(item, Failure):
            return item
        if self._engine is None:
            assert self._error is not None
            return Failure(None, self._error)
        reporter = _Reporter(self._tracker)
        self._tracker.begin.remote(item.plan.key, item.span.start)
        probabilities, stats = infer_span(self._job, self._engine, item.encoded, reporter.add)
        reporter.send()
        self._tracker.end.remote(item.plan.key, item.span.start)
        stats.add(item.stats)
        texts = dataclasses.replace(item.encoded.texts, ids=np.zeros(0, np.int32))  # lengths stay
        return dataclasses.replace(
            item,
            encoded=dataclasses.replace(item.encoded, texts=texts),
            stats=stats,
            probabilities=probabilities,
            worker=self._worker,
        )


class _Reporter:
    """Sends the tracker what batches add up to, twice a second at most."""

    def __init__(self, tracker: Any) -> None:
        self._tracker = tracker
        self._sums = [0, 0, 0, 0]
        self._sent = time.monotonic()

    def add(self, batch: BatchDone) -> None:
        for i, value in enumerate((1, batch.texts, batch.tokens, batch.padded_tokens)):
            self._sums[i] += value
        if time.monotonic() - self._sent > _REPORT_SECONDS:
            self.send()

    def send(self) -> None:
        self._tracker.batches.remote(*self._sums)
        self._sums = [0, 0, 0, 0]
        self._sent = time.monotonic()


def commit_stage(table: pa.Table, job: Job) -> pa.Table:
    """Stage 3: attach and commit; only statistics go on to the driver."""
    return to_row(table["rows"][0].as_py(), [_commit(job, item) for item in from_row(table)])


def _commit(job: Job, item: _InFlight | Failure) -> Committed | Failure:
    if isinstance(item, Failure):
        return item
    assert item.probabilities is not None
    try:
        stats = commit_span(job, item.plan, item.span, item.encoded, item.probabilities, item.stats)
    except RayftError as error:
        return Failure(item.plan.key if isinstance(error, InputError) else None, error)
    return Committed(item.plan.key, item.span, stats, item.worker)


def finish_task(job: Job, plans: list[FilePlan], tracker: Any) -> list[tuple[str, Stats | RayftError]]:
    """Assemble files whose spans are all committed; returns what became of each, by key."""
    with _beating(tracker):
        return [(plan.key, _finish(job, plan)) for plan in plans]


def _finish(job: Job, plan: FilePlan) -> Stats | RayftError:
    try:
        return finish_file(job, plan)
    except RayftError as error:
        return error
    except OSError:
        # A worker that died between committing the output and removing its spans left nothing to do.
        footer = read_footer(job.output_of(plan)) if job.output_of(plan).is_file() else None
        if footer and (footer["fingerprint"], footer["identity"]) == (plan.fingerprint, str(plan.source.identity)):
            job.state.spans(plan.key).remove()
            return Stats()
        raise


@contextlib.contextmanager
def _beating(tracker: Any) -> Iterator[None]:
    """Tell the tracker now and then that this task is alive: a large file takes long to assemble."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(_BEAT_SECONDS):
            tracker.beat.remote()

    thread = threading.Thread(target=beat, daemon=True, name="rayft-beat")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
