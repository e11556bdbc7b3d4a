"""The Ray Dataset of a scoring run: work cut into read tasks, three stages, and a thread that runs it.

Ray Data's own `write_parquet` and checkpoints are not used: see rayft.score.commit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any, cast

from rayft.score.job import Job, Work
from rayft.score.layout import SLOT, Layout
from rayft.score.plan import FilePlan, Span
from rayft.score.ray_stages import Committed, Failure, ModelStage, commit_stage, from_row, read_stage, to_row

_SPANS_PER_ITEM = 16
_FILES_PER_ITEM = 64
_ITEMS_AT_MOST = 20_000


def make_items(works: Sequence[Work], span_rows: int, readers: int) -> list[list[Work]]:
    """Divide the work into read tasks: each reads a piece of one large file, or several small files.

    A large file is cut between row groups only, where a walk over it can begin without reading what
    another one reads. Items are small enough to keep `readers` tasks busy, and large enough that
    there are no more than about 20,000.
    """
    rows_in_all = sum(span.rows for work in works for span in work.missing)
    share = rows_in_all // (2 * readers)
    target = max(span_rows, min(_SPANS_PER_ITEM * span_rows, share), -(-rows_in_all // _ITEMS_AT_MOST))
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


class Stream:
    """Runs a Dataset in a thread, so that the caller never blocks in it and can stop it at any time."""

    def __init__(self, dataset: Any) -> None:
        # What Dataset.iter_internal_ref_bundles does, but with the executor at hand to shut down.
        self._executor = dataset._create_executor()
        self._dataset = dataset
        self.ended = False
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
                    self.ended = True
                    return
                yield result
                seconds = 0.0

    def stop(self) -> None:
        """Cancel what is running; quick, whatever state it is in."""
        with contextlib.suppress(Exception):
            self._executor.shutdown(force=True)
