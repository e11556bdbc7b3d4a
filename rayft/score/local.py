"""Score in this process: a thread reads and encodes, the caller runs the model, a thread commits."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rayft.errors import InputError
from rayft.model.engine import Engine
from rayft.score.events import Event, FileDone, FileFailed, SpanDone
from rayft.score.job import Job, Work, commit_span, finish_file, infer_span, read_and_encode
from rayft.score.span import BatchDone

_AHEAD = 2  # spans that wait between two stages: enough to overlap, little enough to hold in memory


class _Stage(threading.Thread):
    """A thread that carries its exception to whoever waits for it."""

    def __init__(self, run: Callable[[], None], name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._run = run
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._run()
        except BaseException as error:  # re-raised by the caller
            self.error = error


class _Closed(Exception):  # noqa: N818 (not an error)
    """The run is over; a stage that waits on a queue gives up."""


def run_local(
    job: Job, works: Sequence[Work], engine: Engine | None, on_batch: Callable[[BatchDone], None]
) -> Iterator[Event]:
    """Do `works` in order and yield what was done as it is committed.

    `engine` may be None if no span is missing. A file that cannot be read fails alone. Any other
    error stops the run; what is committed stays.
    """
    closed = threading.Event()
    encoded: queue.Queue[Any] = queue.Queue(_AHEAD)
    scored: queue.Queue[Any] = queue.Queue(_AHEAD)
    events: queue.Queue[Event] = queue.Queue()

    def check_open() -> None:
        if closed.is_set():
            raise _Closed

    def read() -> None:
        encoder = job.encoder()
        for work in works:
            try:
                for item in read_and_encode(job, work, encoder):
                    _put(encoded, (work, item), check_open)
                _put(encoded, (work, None), check_open)
            except InputError as error:
                _put(encoded, (work, error), check_open)
        _put(encoded, None, check_open)

    def commit() -> None:
        while (message := _get(scored, check_open)) is not None:
            work, item = message
            try:
                if isinstance(item, InputError):
                    raise item
                if item is None:
                    done = finish_file(job, work.plan)
                    events.put(FileDone(work.plan, done))
                else:
                    span, texts, probabilities, stats = item
                    events.put(
                        SpanDone(work.plan, span, commit_span(job, work.plan, span, texts, probabilities, stats))
                    )
            except InputError as error:
                events.put(FileFailed(work.plan, str(error)))

    stages = [_Stage(read, "rayft-read"), _Stage(commit, "rayft-commit")]

    def check() -> None:
        for stage in stages:
            if stage.error is not None and not isinstance(stage.error, _Closed):
                raise stage.error

    def committed() -> Iterator[Event]:
        check()
        with contextlib.suppress(queue.Empty):
            while True:
                yield events.get_nowait()

    for stage in stages:
        stage.start()
    try:
        while (message := _get(encoded, check)) is not None:
            work, item = message
            if isinstance(item, tuple) and engine is not None:
                span, texts, stats = item
                probabilities, more = infer_span(job, engine, texts, on_batch)
                stats.add(more)
                item = (span, texts, probabilities, stats)
            _put(scored, (work, item), check)
            yield from committed()
        _put(scored, None, check)
        while stages[-1].is_alive():
            stages[-1].join(timeout=0.1)
            yield from committed()
        yield from committed()
    finally:
        closed.set()
        for stage in stages:
            stage.join()


def _put(to: queue.Queue[Any], item: Any, check: Callable[[], None]) -> None:
    """Put, but give up with the exception that `check` raises once it does."""
    while True:
        check()
        with contextlib.suppress(queue.Full):
            to.put(item, timeout=0.1)
            return


def _get(source: queue.Queue[Any], check: Callable[[], None]) -> Any:
    """Get, but give up with the exception that `check` raises once it does."""
    while True:
        check()
        with contextlib.suppress(queue.Empty):
            return source.get(timeout=0.1)
