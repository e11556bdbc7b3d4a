"""Score on a Ray cluster: a Ray Dataset of spans through three stages, and an eye on its progress.

read and encode (tasks) -> model (a fixed pool of actors) -> attach and commit (tasks); files whose
spans are all committed are finished by tasks of their own. The steps are those of rayft.score.job.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

from rayft.config import ScoreConfig
from rayft.data.storage import locate
from rayft.errors import InputError, RayftError, StoppedError
from rayft.score.cluster import address_of, alive_nodes, check_nodes
from rayft.score.connect import connected
from rayft.score.events import Event, FileDone, FileFailed, SpanDone
from rayft.score.job import Job, Work
from rayft.score.layout import Layout, plan_layout
from rayft.score.plan import FilePlan
from rayft.score.ray_dataset import Stream, build_dataset, make_items
from rayft.score.ray_stages import (
    Committed,
    Failure,
    Tracker,
    finish_task,
)
from rayft.score.span import BatchDone
from rayft.score.state import read_json
from rayft.score.watchdog import Watchdog

_FILES_PER_FINISH = 32
_LOOK_SECONDS = 0.5
_LAST_LOOK_SECONDS = 2.0
_WAIT_SECONDS = 0.1
_RESUMES = "Run the same command again; it resumes."


def run_on_cluster(
    config: ScoreConfig,
    job: Job,
    works: Sequence[Work],
    on_batch: Callable[[BatchDone], None],
    on_actors: Callable[[int, int], None],
) -> Iterator[Event]:
    """Connect to the cluster that `config` means, or start one here, see that it fits, and run.

    Raises:
        UsageError: the cluster is too small for what is asked.
        StoppedError: it cannot be reached, lacks what the run needs, or was lost.
    """
    with connected(address_of(config)):
        nodes = alive_nodes()
        layout = plan_layout(nodes, job.engine.device, config.replicas, config.replicas_per_gpu, config.threads)
        model = locate(job.checkpoint.directory / "config.json")
        check_nodes(nodes, [job.state.plan, model, *(work.plan.source.location for work in works[:3])])
        span_rows = int((read_json(job.state.plan) or {})["span_rows"])
        # Closed here, while the cluster is still there, whatever happens to the caller.
        with contextlib.closing(run_ray(job, works, layout, span_rows, on_batch, on_actors)) as events:
            yield from events


def run_ray(
    job: Job,
    works: Sequence[Work],
    layout: Layout,
    span_rows: int,
    on_batch: Callable[[BatchDone], None],
    on_actors: Callable[[int, int], None],
    watchdog: Watchdog | None = None,
) -> Generator[Event, None, None]:
    """Do `works` on the cluster that this process is connected to; yields what was done as it is committed.

    Args:
        span_rows: rows of a full span; smaller ones travel together up to it.
        on_batch: told twice a second what all actors computed since.
        on_actors: told how many actors have loaded the model, and how many are wanted, when that changes.

    Raises:
        StoppedError: no progress, or the cluster was lost; what is committed stays.
    """
    import ray

    open_files = _OpenFiles(works)
    layout = dataclasses.replace(layout, actors=max(1, min(layout.actors, open_files.left)))
    tracker = start_tracker()
    watchdog = watchdog or Watchdog(layout)
    eye = _Eye(tracker, layout.actors, on_batch, on_actors)
    finishing = _Finishing(job, tracker, layout.committers)
    for work in works:
        if not work.missing:
            finishing.add(work.plan)
    items = make_items([work for work in works if work.missing], span_rows, layout.readers)
    stream = Stream(build_dataset(job, items, layout, span_rows, tracker)) if items else None
    try:
        while open_files.left or finishing.left:
            for result in stream.results(_WAIT_SECONDS) if stream else ():
                yield from open_files.take(result, finishing)
            yield from finishing.events(wait=not open_files.left)
            watchdog.look(eye.look(), open_files.done, open_files.left, finishing.left)
            if stream and stream.ended and open_files.left:
                raise StoppedError(f"Ray Data ended with {open_files.left:,} spans missing. {_RESUMES}")
        eye.look(seconds=_LAST_LOOK_SECONDS)
    except ray.exceptions.RayTaskError:
        raise
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[0]
        raise StoppedError(f"The Ray cluster failed: {reason} {_RESUMES}") from error
    finally:
        if stream:
            stream.stop()
        finishing.stop()
        with contextlib.suppress(Exception):
            ray.kill(tracker)


def start_tracker() -> Any:
    """Start the tracker on this very node: it lives as long as the driver."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    return ray.remote(Tracker).options(num_cpus=0, scheduling_strategy=here, max_restarts=-1).remote()


class _Eye:
    """Asks the tracker twice a second what was done, and does not wait for its answer."""

    def __init__(
        self,
        tracker: Any,
        actors: int,
        on_batch: Callable[[BatchDone], None],
        on_actors: Callable[[int, int], None],
    ) -> None:
        self._tracker = tracker
        self._actors = actors
        self._on_batch = on_batch
        self._on_actors = on_actors
        self._ready = 0
        self._asked: Any = None
        self._next = 0.0

    def look(self, seconds: float = 0.0) -> dict[str, Any] | None:
        """Return the tracker's answer if there is a new one within `seconds`, and pass on what it holds."""
        import ray

        if self._asked is None and (seconds or time.monotonic() >= self._next):
            self._next = time.monotonic() + _LOOK_SECONDS
            self._asked = self._tracker.look.remote()
        if self._asked is None or not ray.wait([self._asked], timeout=seconds)[0]:
            return None
        asked, self._asked = self._asked, None
        try:
            seen: dict[str, Any] = ray.get(asked)
        except ray.exceptions.RayActorError:
            return None  # it is being restarted; if it stays away, nothing counts as progress
        if seen["ready"] != self._ready:
            self._ready = seen["ready"]
            self._on_actors(self._ready, self._actors)
        if seen["sums"][0]:
            self._on_batch(BatchDone(*seen["sums"]))
        return seen


class _OpenFiles:
    """The spans that are still awaited, by file."""

    def __init__(self, works: Sequence[Work]) -> None:
        self._plans = {work.plan.key: work.plan for work in works}
        self._missing = {work.plan.key: set(work.missing) for work in works if work.missing}
        self._actors: dict[str, str] = {}
        self.left = sum(len(spans) for spans in self._missing.values())
        self.done = 0

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
        self.done += 1
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
