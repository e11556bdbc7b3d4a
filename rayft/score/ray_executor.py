"""Score on a Ray cluster: a Ray Dataset of spans through three stages, and an eye on its progress.

read and encode (tasks) -> model (a fixed pool of actors) -> attach and commit (tasks); files whose
spans are all committed are finished by tasks of their own. The steps are those of rayft.score.job.
"""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, cast

from rayft.config import ScoreConfig
from rayft.errors import InputError, RayftError, StoppedError
from rayft.score.cluster import alive_nodes, check_nodes, connected
from rayft.score.events import Event, FileDone, FileFailed, SpanDone
from rayft.score.job import Job, Work
from rayft.score.layout import SLOT, Layout, plan_layout
from rayft.score.plan import FilePlan, Span
from rayft.score.ray_stages import (
    Committed,
    Failure,
    ModelStage,
    Tracker,
    commit_stage,
    finish_task,
    from_row,
    read_stage,
    to_row,
)
from rayft.score.span import BatchDone
from rayft.score.state import read_json
from rayft.score.watchdog import Watchdog

_SPANS_PER_ITEM = 16
_FILES_PER_ITEM = 64
_ITEMS_AT_MOST = 20_000
_FILES_PER_FINISH = 32
_LOOK_SECONDS = 0.5
_WAIT_SECONDS = 0.1


def run_on_cluster(
    config: ScoreConfig,
    job: Job,
    works: Sequence[Work],
    on_batch: Callable[[BatchDone], None],
    on_ready: Callable[[], None],
) -> Iterator[Event]:
    """Connect to the cluster that `config` means, or start one here, see that it fits, and run.

    Raises:
        UsageError: the cluster is too small for what is asked.
        StoppedError: it cannot be reached, lacks what the run needs, or was lost.
    """
    with connected(config):
        nodes = alive_nodes()
        layout = plan_layout(nodes, job.engine.device, config.replicas, config.replicas_per_gpu, config.threads)
        check_nodes(nodes, job.state.plan)
        span_rows = int((read_json(job.state.plan) or {})["span_rows"])
        # Closed here, while the cluster is still there, whatever happens to the caller.
        with contextlib.closing(run_ray(job, works, layout, span_rows, on_batch, on_ready)) as events:
            yield from events


def run_ray(
    job: Job,
    works: Sequence[Work],
    layout: Layout,
    span_rows: int,
    on_batch: Callable[[BatchDone], None],
    on_ready: Callable[[], None],
    watchdog: Watchdog | None = None,
) -> Generator[Event, None, None]:
    """Do `works` on the cluster that this process is connected to; yields what was done as it is committed.

    Args:
        span_rows: rows of a full span; smaller ones travel together up to it.
        on_batch: told twice a second what all actors computed since.
        on_ready: called once, when the first actor has loaded the model.

    Raises:
        StoppedError: no progress, or the cluster was lost; what is committed stays.
    """
    import ray

    tracker = _start_tracker()
    open_files = _OpenFiles(works)
    finishing = _Finishing(job, tracker, layout.committers)
    watchdog = watchdog or Watchdog(layout)
    for work in works:
        if not work.missing:
            finishing.add(work.plan)
    items = make_items([work for work in works if work.missing], span_rows)
    stream = _Stream(build_dataset(job, items, layout, span_rows, tracker)) if items else None
    looked = 0.0
    try:
        while open_files.left or finishing.left:
            for result in stream.results(_WAIT_SECONDS) if stream else ():
                yield from open_files.take(result, finishing)
            yield from finishing.events(wait=not open_files.left)
            if time.monotonic() - looked > _LOOK_SECONDS:
                looked = time.monotonic()
                _look(tracker, watchdog, on_batch, on_ready, open_files, finishing)
    except ray.exceptions.RayTaskError:
        raise
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[0]
        raise StoppedError(f"The Ray cluster failed: {reason} Run the same command again; it resumes.") from error
    finally:
        if stream:
            stream.stop()
        finishing.stop()
        with contextlib.suppress(Exception):
            ray.kill(tracker)


def make_items(works: Sequence[Work], span_rows: int) -> list[list[Work]]:
    """Divide the work into read tasks: each reads a piece of one large file, or several small files.

    A large file is cut between row groups only, where a walk over it can begin without reading what
    another one reads. No item is so small that there would be more than about 20,000.
    """
    spans = sum(len(work.missing) for work in works)
    target = span_rows * max(_SPANS_PER_ITEM, -(-spans // _ITEMS_AT_MOST))
    files = max(_FILES_PER_ITEM, -(-len(works) // _ITEMS_AT_MOST))
    items: list[list[Work]] = []
    item: list[Work] = []
    rows = 0
    for work in works:
        for piece in _pieces(work, target):
            size = sum(span.rows for span in piece.missing)
            if item and (rows + size > target or len(item) >= files):
                items.append(item)
                item, rows = [], 0
            item.append(piece)
            rows += size
    if item:
        items.append(item)
    return items


def _pieces(work: Work, target: int) -> Iterator[Work]:
    """Cut a file's missing spans at row-group borders into pieces of about `target` rows."""
    plan = dataclasses.replace(work.plan, spans=(), settings={})
    borders = _borders(work.plan)
    piece: list[Span] = []
    rows = 0
    for span in work.missing:
        if rows >= target and span.start in borders:
            yield Work(plan, tuple(piece))
            piece, rows = [], 0
        piece.append(span)
        rows += span.rows
    if piece:
        yield Work(plan, tuple(piece))


def _borders(plan: FilePlan) -> set[int]:
    borders, row = set(), 0
    for group in plan.source.row_groups:
        borders.add(row)
        row += group
    return borders


def build_dataset(job: Job, items: Sequence[Sequence[Work]], layout: Layout, span_rows: int, tracker: Any) -> Any:
    """Return the Dataset, not yet running: three stages that differ in resources and so are never fused."""
    from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy, from_arrow

    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.enable_auto_log_stats = False
    context.execution_no_progress_timeout_s = -1  # the watchdog knows better what progress is
    context.target_max_block_size = 1  # bytes: every row is a block of its own and goes on at once
    context.max_consecutive_actor_init_deaths = 10  # a node may die while its actor loads the model
    tables = [to_row(sum(s.rows for work in item for s in work.missing), item) for item in items]
    with DataContext.current(context):
        return (
            from_arrow(tables)
            .map_batches(
                cast(Any, read_stage),
                batch_size=None,
                batch_format="pyarrow",
                fn_kwargs={"job": job, "row_rows": span_rows, "tracker": tracker},
                compute=TaskPoolStrategy(size=layout.readers),
                num_cpus=SLOT,
            )
            .map_batches(
                ModelStage,
                batch_size=1,
                batch_format="pyarrow",
                fn_constructor_kwargs={"job": job, "threads": layout.threads, "tracker": tracker},
                compute=ActorPoolStrategy(size=layout.actors),
                num_cpus=layout.cpus,
                num_gpus=layout.gpus,
            )
            .map_batches(
                cast(Any, commit_stage),
                batch_size=1,
                batch_format="pyarrow",
                fn_kwargs={"job": job},
                compute=TaskPoolStrategy(size=layout.committers),
                num_cpus=SLOT,
            )
        )


def _start_tracker() -> Any:
    """Start the tracker on this very node: it lives as long as the driver."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    return ray.remote(Tracker).options(num_cpus=0, scheduling_strategy=here, max_restarts=-1).remote()


class _Stream:
    """Runs a Dataset in a thread, so that the caller never blocks in it and can stop it at any time."""

    def __init__(self, dataset: Any) -> None:
        # What Dataset.iter_internal_ref_bundles does, but with the executor at hand to shut down.
        self._executor = dataset._create_executor()
        self._dataset = dataset
        self._rows: queue.Queue[Any] = queue.Queue()
        self._thread = threading.Thread(target=self._run, daemon=True, name="rayft-stream")
        self._thread.start()

    def _run(self) -> None:
        import ray

        try:
            for bundle in self._dataset._build_bundle_iterator(self._executor):
                for entry in bundle.blocks:
                    for result in from_row(ray.get(entry.ref)):
                        self._rows.put(result)
            self._rows.put(None)
        except BaseException as error:  # raised again where the rows are taken
            self._rows.put(error)

    def results(self, seconds: float) -> Iterator[Committed | Failure]:
        """Yield what has arrived; if nothing has, wait a little for the first."""
        with contextlib.suppress(queue.Empty):
            while True:
                result = self._rows.get(timeout=seconds) if seconds else self._rows.get_nowait()
                if isinstance(result, BaseException):
                    raise result
                if result is None:
                    return
                yield result
                seconds = 0.0

    def stop(self) -> None:
        """Cancel what is running; quick, whatever state it is in."""
        with contextlib.suppress(Exception):
            self._executor.shutdown(force=True)


class _OpenFiles:
    """The spans that are still awaited, by file."""

    def __init__(self, works: Sequence[Work]) -> None:
        self._plans = {work.plan.key: work.plan for work in works}
        self._missing = {work.plan.key: set(work.missing) for work in works if work.missing}
        self._actors: dict[str, str] = {}
        self.spans = sum(len(spans) for spans in self._missing.values())
        self.left = self.spans

    def take(self, result: Committed | Failure, finishing: _Finishing) -> Iterator[Event]:
        """Turn a result of the last stage into events; results that a retry repeats are passed over."""
        if isinstance(result, Failure):
            if result.key is None:
                raise result.error
            if spans := self._missing.pop(result.key, None):
                self.left -= len(spans)
                yield FileFailed(self._plans[result.key], str(result.error))
            return
        waiting = self._missing.get(result.key)
        if waiting is None or result.span not in waiting:
            return
        waiting.remove(result.span)
        self.left -= 1
        yield SpanDone(self._plans[result.key], result.span, result.stats, self._name(*result.worker))
        if not waiting:
            del self._missing[result.key]
            finishing.add(self._plans[result.key])

    def _name(self, node: str, actor: str) -> str:
        """Return a short name of a model actor: its node and its number."""
        number = self._actors.setdefault(actor, str(len(self._actors)))
        return f"{node[:8]}/{number}"


class _Finishing:
    """Files whose outputs are to be assembled, a bounded number of tasks at a time."""

    def __init__(self, job: Job, tracker: Any, tasks: int) -> None:
        import ray

        self._job = ray.put(job)
        self._tracker = tracker
        self._tasks = tasks
        # No CPU is reserved: assembling a huge file must not keep a commit from its slot for minutes.
        self._remote = ray.remote(num_cpus=0, max_retries=-1)(finish_task)
        self._ready: deque[FilePlan] = deque()
        self._running: dict[Any, list[FilePlan]] = {}

    @property
    def left(self) -> int:
        return len(self._ready) + sum(len(plans) for plans in self._running.values())

    def add(self, plan: FilePlan) -> None:
        self._ready.append(plan)

    def events(self, wait: bool) -> Iterator[Event]:
        """Start what there is room for and yield what has ended."""
        import ray

        while self._ready and len(self._running) < self._tasks:
            share = min(_FILES_PER_FINISH, -(-len(self._ready) // self._tasks))
            plans = [self._ready.popleft() for _ in range(share)]
            self._running[self._remote.remote(self._job, plans, self._tracker)] = plans
        if not self._running:
            return
        done, _ = ray.wait(list(self._running), num_returns=1, timeout=_WAIT_SECONDS if wait else 0)
        for ref in done:
            by_key = {plan.key: plan for plan in self._running.pop(ref)}
            for key, result in ray.get(ref):
                if isinstance(result, InputError):
                    yield FileFailed(by_key[key], str(result))
                elif isinstance(result, RayftError):
                    raise result
                else:
                    yield FileDone(by_key[key], result)

    def stop(self) -> None:
        import ray

        for ref in self._running:
            with contextlib.suppress(Exception):
                ray.cancel(ref, force=True)


def _look(
    tracker: Any,
    watchdog: Watchdog,
    on_batch: Callable[[BatchDone], None],
    on_ready: Callable[[], None],
    open_files: _OpenFiles,
    finishing: _Finishing,
) -> None:
    """Ask the tracker what was done since the last look, pass it on, and judge it."""
    import ray

    try:
        seen = ray.get(tracker.look.remote(), timeout=10.0)
    except (ray.exceptions.GetTimeoutError, ray.exceptions.ActorUnavailableError):
        seen = None
    if seen and seen["ready"] and not watchdog.ready:
        on_ready()
    if seen and seen["sums"][0]:
        on_batch(BatchDone(*seen["sums"]))
    watchdog.look(seen, open_files.spans - open_files.left, open_files.left, finishing.left)
