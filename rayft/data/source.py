"""Open an input for reading by row ranges, and tell whether it is still the same input.

Parquet is read as it is. CSV and JSONL have no row groups to plan on, so they are rewritten once as
Parquet in the state folder and read from there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from rayft.data.storage import Location
from rayft.errors import InputError

_TAIL_BYTES = 64 << 10
_BATCH_BYTES = 8 << 20
_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True)
class Identity:
    """What tells one version of an input from another: size in bytes and a digest.

    The digest is of the last 64 KB of a Parquet file, which is all of a small one, and of its whole
    footer, which holds the position, size and statistics of every column chunk; or of the whole
    content of a CSV or JSONL file.
    """

    size: int
    digest: str

    def __str__(self) -> str:
        return f"{self.size:,} bytes, {self.digest}"


@dataclass(frozen=True)
class Source:
    """An input ready to be read.

    Attributes:
        location: the Parquet file to read (the input itself or its staged copy).
        identity: of the input as the user knows it.
        row_groups: rows of each row group.
        row_bytes: mean size of a row in memory, in bytes.
        schema: with the file's own metadata.
        footer: the file's key-value metadata.
    """

    location: Location
    identity: Identity
    row_groups: tuple[int, ...]
    row_bytes: float
    schema: pa.Schema
    footer: dict[bytes, bytes]

    @property
    def num_rows(self) -> int:
        return sum(self.row_groups)


def digest_of(*parts: bytes) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of `parts`."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part)
    return sha.hexdigest()[:16]


def parquet_identity(location: Location) -> Identity:
    """Return the identity of a Parquet file from its last bytes.

    Raises:
        InputError: it is missing or does not end as a Parquet file does.
    """
    return location.retrying(lambda: _parquet_identity(location))


def _parquet_identity(location: Location) -> Identity:
    try:
        with location.filesystem.open_input_file(location.path) as stream:
            size = stream.size()
            tail = stream.read_at(min(size, _TAIL_BYTES), max(0, size - _TAIL_BYTES))
            if size < 12 or tail[-4:] != b"PAR1":
                raise InputError(f"{location} is not a complete Parquet file (no footer at its end).")
            length = int.from_bytes(tail[-8:-4], "little")
            if length + 8 > size:
                raise InputError(f"{location} is damaged: its footer is longer than the file.")
            if length + 8 > len(tail):
                tail = stream.read_at(length + 8, size - length - 8)
    except OSError as error:
        raise InputError(f"Cannot read {location}: {error}") from error
    return Identity(size, digest_of(tail))


def open_parquet(location: Location, identity: Identity | None = None) -> Source:
    """Read the footer of a Parquet file.

    Args:
        identity: of the input that `location` is a staged copy of, if it is one.

    Raises:
        InputError: the file cannot be read; the message names it.
    """
    own_identity = parquet_identity(location)
    return location.retrying(lambda: _open_parquet(location, identity or own_identity))


def _open_parquet(location: Location, identity: Identity) -> Source:
    try:
        with location.filesystem.open_input_file(location.path) as stream, pq.ParquetFile(stream) as file:
            meta = file.metadata
            groups = tuple(meta.row_group(i).num_rows for i in range(meta.num_row_groups))
            total = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
            row_bytes = total / max(1, sum(groups))
            return Source(location, identity, groups, row_bytes, file.schema_arrow, meta.metadata or {})
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"Cannot read {location}: {_first_line(error)}") from error


def read_rows(source: Source, start: int, count: int, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Yield rows [start, start + count) in order, in batches of a few megabytes.

    Only the row groups that hold these rows are read, each once, a batch at a time. When an object
    store breaks off, reading goes on behind the last batch.

    Raises:
        InputError: the file cannot be read, or holds other rows than its footer said.
    """
    done = attempt = 0
    while done < count:
        try:
            for batch in _read_rows(source, start + done, count - done, columns):
                yield batch
                done += batch.num_rows
                attempt = 0
            return
        except InputError as error:
            source.location.wait_or_raise(error, attempt)
            attempt += 1


def _read_rows(source: Source, start: int, count: int, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
    groups: list[int] = []
    first_row = skip = 0
    for number, rows in enumerate(source.row_groups):
        if first_row < start + count and first_row + rows > start and rows:
            if not groups:
                skip = start - first_row
            groups.append(number)
        first_row += rows
    if not groups:
        return
    remaining = count
    batch_rows = int(min(4096, max(16, _BATCH_BYTES / max(1.0, source.row_bytes))))
    try:
        with (
            source.location.filesystem.open_input_file(source.location.path) as stream,
            # Without pre_buffer a row group of any size is read in pieces, not whole.
            pq.ParquetFile(stream, pre_buffer=False, buffer_size=_BUFFER_BYTES) as file,
        ):
            if not file.schema_arrow.equals(source.schema):
                raise InputError(f"{source.location} changed: it has other columns than when it was opened.")
            batches = file.iter_batches(
                batch_size=batch_rows, row_groups=groups, columns=None if columns is None else list(columns)
            )
            for batch in batches:
                if skip:
                    dropped = min(skip, batch.num_rows)
                    skip -= dropped
                    batch = batch.slice(dropped)
                if batch.num_rows > remaining:
                    batch = batch.slice(0, remaining)
                if batch.num_rows:
                    remaining -= batch.num_rows
                    yield batch
                if not remaining:
                    return
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"Cannot read {source.location}: {_first_line(error)}") from error
    raise InputError(f"{source.location} ends {remaining} rows early.")


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
