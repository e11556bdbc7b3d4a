"""Reader of Parquet sources."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rayft.data.storage import Location
from rayft.errors import InputError
from rayft.prepare.columns import Columns
from rayft.prepare.labels import class_names, label_strings, named
from rayft.prepare.rows import ROW_SCHEMA, split_of

_BATCH_ROWS = 4096


def parquet_schema(location: Location) -> pa.Schema:
    """Return the schema of a Parquet file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with location.filesystem.open_input_file(location.path) as stream:
            return pq.read_schema(stream)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"Cannot read {location}: {str(error).splitlines()[0]}") from error


def parquet_rows(
    location: Location, columns: Columns, names: Sequence[str] | None = None, escaped_newlines: bool = False
) -> Iterator[pa.Table]:
    r"""Yield the rows of a Parquet file.

    Args:
        names: class names by class number; those in the file's own metadata go first.
        escaped_newlines: line breaks are written as `\n`, two characters.
    """
    try:
        with (
            location.filesystem.open_input_file(location.path) as stream,
            pq.ParquetFile(stream, pre_buffer=False, buffer_size=1 << 20) as file,
        ):
            if columns.label is not None:
                names = class_names(file.schema_arrow, columns.label) or names
            wanted = [name for name in columns.names if name is not None]
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=wanted):
                yield _raw(pa.Table.from_batches([batch]), columns, names, escaped_newlines)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"Cannot read {location}: {str(error).splitlines()[0]}") from error


def _raw(table: pa.Table, columns: Columns, names: Sequence[str] | None, escaped_newlines: bool) -> pa.Table:
    nothing = pa.chunked_array([pa.nulls(table.num_rows, pa.string())])

    def text(name: str | None) -> pa.ChunkedArray:
        if name is None:
            return nothing
        column = table[name].cast(pa.string())
        return pc.replace_substring(column, "\\n", " ") if escaped_newlines else column

    label = nothing if columns.label is None else label_strings(table[columns.label])
    if names is not None:
        label = named(label, names)
    split = nothing
    if columns.split is not None:
        words = table[columns.split].cast(pa.string()).to_pylist()
        split = pa.chunked_array([pa.array([split_of(word) for word in words], pa.string())])
    return pa.table([text(columns.title), text(columns.text), label, split, nothing], schema=ROW_SCHEMA)
