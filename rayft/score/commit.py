"""Put finished spans on disk, and finished files together, so that each appears whole or not at all.

Ray Data's `write_parquet` is not used for this: on Ray 2.60 a rerun under `append` doubles rows, and
with `checkpoint_config` a rerun can write none and report success. docs/scoring.md has the measurement.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from rayft.data.source import Source, parquet_identity, read_rows
from rayft.data.storage import Location
from rayft.errors import InputError
from rayft.score.plan import FilePlan, Span
from rayft.score.stats import Stats

#: Key of rayft's entry in the Parquet footer of every output.
FOOTER_KEY = b"rayft"
_STATS_KEY = b"rayft.stats"
_ROW_GROUP_ROWS = 128 << 10
_ROW_GROUP_BYTES = 64 << 20


def write_span(folder: Location, span: Span, columns: pa.Table, stats: Stats) -> None:
    """Commit the appended columns of one span, with its statistics in the schema's metadata."""
    if columns.num_rows != span.rows:
        raise AssertionError(f"span {span.name} has {columns.num_rows} rows")
    table = columns.replace_schema_metadata({_STATS_KEY: stats.to_json()})
    buffer = io.BytesIO()
    with pa.ipc.new_file(buffer, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    (folder / span.name).write_bytes(buffer.getvalue())


def read_span(folder: Location, span: Span) -> tuple[pa.Table, Stats]:
    """Return what `write_span` wrote."""
    with pa.ipc.open_file(pa.BufferReader((folder / span.name).read_bytes())) as reader:
        table = reader.read_all()
    return table, Stats.from_json(table.schema.metadata[_STATS_KEY])


def read_span_stats(folder: Location, span: Span) -> Stats:
    """Return the statistics of a committed span without decoding its columns."""
    with pa.ipc.open_file(pa.BufferReader((folder / span.name).read_bytes())) as reader:
        return Stats.from_json(reader.schema.metadata[_STATS_KEY])


def finished_spans(folder: Location) -> set[Span]:
    """Return the spans committed in `folder`; half-written ones have other names."""
    return {Span.from_name(info.base_name) for info in folder.listing() if info.base_name.endswith(".arrow")}


def assemble(
    plan: FilePlan, spans: Location, output: Location, appended: Mapping[str, pa.Field], footer: Mapping[str, Any]
) -> Stats:
    """Write one output file: every column of the input, then the appended columns, in the input's order.

    Streams: a batch of the input and a span of scores are in memory at a time. The input's identity
    is checked before and after reading.

    Args:
        spans: the folder of the file's finished spans.
        appended: column of SCORE_FIELDS -> field in the output.

    Returns:
        The merged statistics of the file's spans.

    Raises:
        InputError: the input changed since it was planned, or cannot be read.
    """
    source = plan.source
    schema = source.schema
    for field in appended.values():
        schema = schema.append(field)
    merged = Stats()
    _check_unchanged(source)
    with output.replacing() as stream:
        with pq.ParquetWriter(stream, schema, compression="zstd", write_page_index=True) as writer:
            rows = 0
            pending: list[pa.RecordBatch] = []
            pending_rows = pending_bytes = 0
            room = _DictionaryRoom(schema)
            for batch in _joined(plan, spans, list(appended), schema, merged):
                full = pending_rows >= _ROW_GROUP_ROWS or pending_bytes >= _ROW_GROUP_BYTES
                if (not room.takes(batch) or full) and pending:
                    writer.write_table(pa.Table.from_batches(pending, schema), row_group_size=pending_rows)
                    pending, pending_rows, pending_bytes = [], 0, 0
                pending.append(batch)
                pending_rows += batch.num_rows
                pending_bytes += batch.nbytes
                rows += batch.num_rows
            if pending:
                writer.write_table(pa.Table.from_batches(pending, schema), row_group_size=pending_rows)
            entry = {**footer, "rows": rows, "stats": json.loads(merged.to_json())}
            writer.add_key_value_metadata({FOOTER_KEY.decode(): json.dumps(entry, sort_keys=True)})
        if rows != plan.rows:
            raise AssertionError(f"{output}: {rows} rows written of {plan.rows}")
        _check_unchanged(source)
    return merged


class _DictionaryRoom:
    """Tells when a row group is full because of a dictionary column with small indices.

    Readers rebuild one dictionary per row group. Row groups of the input that are put together may
    have more distinct values than int8 or int16 can count, and nobody could read the output.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._values: dict[int, set[object]] = {}
        self._most: dict[int, int] = {}
        for i, kind in enumerate(schema.types):
            if pa.types.is_dictionary(kind) and kind.index_type.bit_width < 32:
                self._values[i] = set()
                self._most[i] = 2 ** (kind.index_type.bit_width - pa.types.is_signed_integer(kind.index_type))

    def takes(self, batch: pa.RecordBatch) -> bool:
        """Return whether `batch` fits in the row group; if not, begin to count the next with it."""
        new = {i: set(batch.column(i).dictionary.cast(pa.large_binary()).to_pylist()) for i in self._values}
        fits = all(len(self._values[i] | values) <= self._most[i] for i, values in new.items())
        self._values = {i: self._values[i] | values for i, values in new.items()} if fits else new
        return fits


def _joined(
    plan: FilePlan, spans: Location, names: list[str], schema: pa.Schema, merged: Stats
) -> Iterator[pa.RecordBatch]:
    """Yield the input's batches with the appended columns, cut at span borders."""
    batches = read_rows(plan.source, plan.start, plan.rows)
    batch: pa.RecordBatch | None = None
    for span in plan.spans:
        columns, stats = read_span(spans, span)
        merged.add(stats)
        columns = columns.select(names).combine_chunks()
        done = 0
        while done < span.rows:
            if batch is None or not batch.num_rows:
                batch = next(batches)
            take = min(batch.num_rows, span.rows - done)
            arrays = batch.slice(0, take).columns + [c.chunk(0).slice(done, take) for c in columns.columns]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)
            batch = batch.slice(take)
            done += take


def _check_unchanged(source: Source) -> None:
    """Raise if the file that is read is not the one that was planned (staged copies never change)."""
    if source.location.path.endswith(".staged"):
        return
    now = parquet_identity(source.location)
    if now != source.identity:
        raise InputError(
            f"{source.location} changed while it was scored ({source.identity} before, {now} now). "
            "Run the same command again with --overwrite to score the new version."
        )


def read_footer(location: Location) -> dict[str, Any] | None:
    """Return rayft's entry in the footer of a Parquet file, or None if it has none.

    Raises:
        InputError: the file is not Parquet.
    """
    return location.retrying(lambda: _read_footer(location))


def _read_footer(location: Location) -> dict[str, Any] | None:
    try:
        with location.filesystem.open_input_file(location.path) as stream:
            metadata = pq.read_metadata(stream).metadata or {}
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"Cannot read {location}: {str(error).splitlines()[0]}") from error
    return parse_footer(metadata)


def parse_footer(metadata: Mapping[bytes, bytes]) -> dict[str, Any] | None:
    """Return rayft's entry in Parquet key-value metadata, or None."""
    if FOOTER_KEY not in metadata:
        return None
    entry: dict[str, Any] = json.loads(metadata[FOOTER_KEY])
    return entry
