"""Ends a run that does not get on, and says what it waits for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rayft.errors import StoppedError
from rayft.score.layout import Layout

#: Without one more batch for that long, a run that has begun is stuck.
STALL_SECONDS = 120.0
#: Until the first batch, and while actors load their model.
START_SECONDS = 600.0
#: A span that this many actors took up and none brought to an end kills its actors.
_ATTEMPTS = 8


@dataclass
class Watchdog:
    """Judges progress by batches, not by spans: a span may take long, a batch may not.

    Reading a span or assembling a file counts as progress as well: on slow storage a run may wait
    for nothing else.

    Attributes:
        stall_seconds, start_seconds: see the constants of this module.
    """

    layout: Layout
    stall_seconds: float = STALL_SECONDS
    start_seconds: float = START_SECONDS
    clock: Callable[[], float] = time.monotonic
    _ready: int = 0
    _loading: int = 0
    _began: bool = False
    _done: tuple[int, int] = (0, 0)
    _last: float = field(default=0.0)

    def __post_init__(self) -> None:
        self._last = self.clock()

    def look(self, seen: dict[str, Any] | None, done: int, spans: int, files: int) -> None:
        """Judge what the tracker saw since the last look.

        Args:
            seen: what `Tracker.look` returned, None if there is no answer yet.
            done: spans committed; `spans` are still to do, and `files` to be assembled.

        Raises:
            StoppedError: there was no progress for too long, or one span kills every actor.
        """
        now = self.clock()
        if seen is not None:
            self._ready, self._loading = seen["ready"], seen["loading"]
            self._began = self._began or seen["batches"] > 0
            if seen["batches"] or seen["beats"]:
                self._last = now
            (span, attempts) = seen["most_begun"]
            if attempts >= _ATTEMPTS:
                raise StoppedError(
                    f"The span at row {span[1]:,} of a file was begun {attempts} times and its model worker died every "
                    "time, most likely for want of memory. Use smaller batches (--batch-tokens) or fewer --replicas, "
                    "then run the same command again; it resumes."
                )
        if (done, files) != self._done:
            self._done, self._last = (done, files), now
        starting = not self._began or self._loading > 0
        limit = self.start_seconds if starting and spans else self.stall_seconds
        if now - self._last > limit:
            raise StoppedError(self._message(now - self._last, spans, files))

    def _message(self, waited: float, spans: int, files: int) -> str:
        what = "No batch was finished" if self._ready else "No model actor was ready"
        layout = self.layout
        return (
            f"{what} for {waited:.0f} s. {spans:,} spans wait for the model and {files:,} files to be assembled; "
            f"{self._ready} of {layout.actors} model actors (each {layout.cpus:g} CPUs, {layout.gpus:g} GPUs) "
            f"have loaded it. {_resources()} Run the same command again; it resumes."
        )


def _resources() -> str:
    """Say what the cluster has and what of it is free."""
    try:
        import ray

        there, free = ray.cluster_resources(), ray.available_resources()
        words = [f"{free.get(kind, 0.0):g} of {there[kind]:g} {kind}s" for kind in ("CPU", "GPU") if kind in there]
        alive = sum(1 for node in ray.nodes() if node["Alive"])
        return f"Free on the {alive} nodes of the cluster: {', '.join(words) or 'nothing'}."
    except Exception as error:
        return f"The cluster does not answer ({error})."
