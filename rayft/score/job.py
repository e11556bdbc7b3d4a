"""One scoring job as every worker sees it, and the steps of a span as the executors call them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from rayft.data.columns import ReviewColumns
from rayft.data.source import Source, read_rows
from rayft.data.storage import Location
from rayft.model.checkpoint import Checkpoint
from rayft.model.engine import Engine, EngineSpec, build_engine
from rayft.score.commit import assemble, write_span
from rayft.score.plan import FilePlan, Span
from rayft.score.span import BatchDone, EncodedSpan, ScoreSettings, attach, encode, infer, strings
from rayft.score.state import State
from rayft.score.stats import Stats, span_stats
from rayft.text.encode import Encoder


@dataclass(frozen=True)
class Job:
    """Everything that a worker needs, picklable.

    Attributes:
        output: the output file, or the folder that file outputs are named in.
        appended: columns of SCORE_FIELDS to write -> their fields in the output.
        footer: what every output's footer says of the run.
    """

    checkpoint: Checkpoint
    engine: EngineSpec
    settings: ScoreSettings
    state: State
    output: Location
    max_length: int
    batch_tokens: int
    appended: dict[str, pa.Field]
    footer: dict[str, Any]
    threads: int | None = None

    def encoder(self) -> Encoder:
        return self.checkpoint.encoder(self.max_length)

    def build_engine(self) -> Engine:
        return build_engine(self.checkpoint, self.engine, self.threads)

    def output_of(self, plan: FilePlan) -> Location:
        if self.output.path.endswith(".parquet"):
            return self.output
        return self.output / plan.output


@dataclass(frozen=True)
class Work:
    """The spans of one file that are still to be done; none if only its output is missing."""

    plan: FilePlan
    missing: tuple[Span, ...]


def read_and_encode(job: Job, work: Work, encoder: Encoder) -> Iterator[tuple[Span, EncodedSpan, Stats]]:
    """Read a file once from its first to its last missing span and yield these spans encoded.

    Spans that follow each other are read in one walk, so that a row group is decoded once however
    many of its spans are missing.
    """
    for run in _neighbours(work.missing):
        first, last = run[0], run[-1]
        rows = _review_rows(work.plan.source, work.plan.columns, first.start, last.start + last.rows - first.start)
        titles: list[str | None] = []
        texts: list[str | None] = []
        for span in run:
            started = time.perf_counter()
            while len(texts) < span.rows:
                batch_titles, batch_texts = next(rows)
                titles += batch_titles
                texts += batch_texts
            read = time.perf_counter()
            own_titles = titles[: span.rows] if work.plan.columns.title else None
            encoded = encode(own_titles, texts[: span.rows], encoder, job.checkpoint.join_format)
            titles, texts = titles[span.rows :], texts[span.rows :]
            stats = Stats()
            stats.spend("read", read - started)
            stats.spend("encode", time.perf_counter() - read)
            yield span, encoded, stats


def _neighbours(spans: tuple[Span, ...]) -> Iterator[list[Span]]:
    run: list[Span] = []
    for span in spans:
        if run and run[-1].start + run[-1].rows != span.start:
            yield run
            run = []
        run.append(span)
    if run:
        yield run


def _review_rows(
    source: Source, columns: ReviewColumns, start: int, count: int
) -> Iterator[tuple[list[str | None], list[str | None]]]:
    wanted = [columns.text] + ([columns.title] if columns.title else [])
    for batch in read_rows(source, start, count, wanted):
        texts = strings(batch.column(columns.text))
        yield (strings(batch.column(columns.title)) if columns.title else []), texts


def infer_span(
    job: Job, engine: Engine, encoded: EncodedSpan, on_batch: Callable[[BatchDone], None] | None = None
) -> tuple[np.ndarray, Stats]:
    """Return the probabilities of a span's distinct texts, and what computing them took."""
    started = time.perf_counter()
    stats = Stats()

    def count(batch: BatchDone) -> None:
        stats.tokens += batch.tokens
        stats.padded_tokens += batch.padded_tokens
        if on_batch is not None:
            on_batch(batch)

    probabilities = infer(engine, encoded.texts, len(job.settings.labels), job.batch_tokens, count)
    stats.spend("model", time.perf_counter() - started)
    return probabilities, stats


def commit_span(
    job: Job, plan: FilePlan, span: Span, encoded: EncodedSpan, probabilities: np.ndarray, so_far: Stats
) -> Stats:
    """Attach the columns and commit the span; returns its statistics, complete."""
    started = time.perf_counter()
    columns = attach(encoded, probabilities, job.settings)
    stats = span_stats(encoded, columns)
    stats.add(so_far)
    attached = time.perf_counter()
    stats.spend("attach", attached - started)
    write_span(job.state.spans(plan.key), span, columns, stats)
    stats.spend("write", time.perf_counter() - attached)
    return stats


def finish_file(job: Job, plan: FilePlan) -> Stats:
    """Assemble and commit the output of a file whose spans are all done, then drop its spans."""
    started = time.perf_counter()
    footer = {
        **job.footer,
        "input": plan.name,
        "identity": str(plan.source.identity),
        "settings": plan.settings,
        "fingerprint": plan.fingerprint,
    }
    assemble(plan, job.state.spans(plan.key), job.output_of(plan), job.appended, footer)
    job.state.spans(plan.key).remove()
    stats = Stats()
    stats.spend("write", time.perf_counter() - started)
    return stats
