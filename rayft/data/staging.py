"""Rewrite CSV and JSONL inputs as Parquet, with explicit types, a block at a time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from rayft.data.inputs import InputFile, suffix_of
from rayft.data.source import Identity, Source, open_parquet
from rayft.data.storage import Location
from rayft.errors import InputError

_BLOCK_BYTES = 16 << 20
_BLOCK_ROWS = 10_000
_DEEPEST = 30


class _DoesNotFitError(Exception):
    """A value is not of the type that its column was given: the column becomes text."""

    def __init__(self, column: str) -> None:
        super().__init__(column)
        self.column = column


def content_identity(location: Location) -> Identity:
    """Return the identity of a file whose whole content counts."""
    sha = hashlib.sha256()
    size = 0
    try:
        with location.filesystem.open_input_stream(location.path, compression=None) as stream:
            while chunk := stream.read(_BLOCK_BYTES):
                sha.update(chunk)
                size += len(chunk)
    except OSError as error:
        raise InputError(f"Cannot read {location}: {error}") from error
    return Identity(size, sha.hexdigest()[:16])


def stage(file: InputFile, folder: Location, infer_types: bool) -> Source:
    """Return `file` as a Parquet source in `folder`; one that was staged before is used again.

    CSV columns stay strings unless `infer_types`, so that a product id `0041` keeps its zeros.
    JSONL columns get the narrowest Arrow type that holds every line's value, or become JSON text.

    Raises:
        InputError: the file is not UTF-8, has rows of differing width, or a line that is not JSON.
    """
    identity = file.location.retrying(lambda: content_identity(file.location))
    target = folder / f"{identity.digest}{'.typed' if infer_types else ''}.{file.format}.staged"
    if not target.is_file():
        write = _stage_csv if file.format == "csv" else _stage_jsonl
        file.location.retrying(lambda: write(file.location, target, infer_types))
    return open_parquet(target, identity)


def _open(location: Location) -> pa.NativeFile:
    zipped = location.name.lower().endswith(".gz")
    return location.filesystem.open_input_stream(location.path, compression="gzip" if zipped else None)


def _stage_csv(location: Location, target: Location, infer_types: bool) -> None:
    delimiter = "\t" if suffix_of(location.name).startswith(".tsv") else ","
    read = pacsv.ReadOptions(block_size=_BLOCK_BYTES)
    parse = pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    try:
        types: dict[str, pa.DataType] = {}
        if infer_types:
            with _open(location) as stream:
                types = {f.name: f.type for f in pacsv.read_csv(stream, read, parse).schema}
            if binary := [name for name, kind in types.items() if pa.types.is_binary(kind)]:
                raise _not_utf8(location, f"column '{binary[0]}'")
        else:
            with _open(location) as stream:
                header = pacsv.open_csv(stream, read, parse)
                types = {name: pa.string() for name in header.schema.names}
        convert = pacsv.ConvertOptions(column_types=types, strings_can_be_null=False)
        with (
            _open(location) as stream,
            pacsv.open_csv(stream, read, parse, convert) as reader,
        ):
            _write(target, reader.schema, iter(reader))
    except UnicodeDecodeError as error:
        raise _not_utf8(location, "column names") from error
    except pa.ArrowInvalid as error:
        reason = str(error).split("\n")[0]
        if "UTF8" in reason.upper().replace("-", ""):
            raise _not_utf8(location, reason) from error
        if "Empty CSV" in reason:
            raise InputError(f"{location} is empty: not even a header line.") from error
        raise InputError(f"Cannot read {location}: {reason[:300]}") from error
    except OSError as error:
        raise InputError(f"Cannot read {location}: {error}") from error


def _not_utf8(location: Location, where: str) -> InputError:
    return InputError(f"{location} is not UTF-8 ({where}). Convert it first, e.g. iconv -f latin1 -t utf-8.")


def _stage_jsonl(location: Location, target: Location, infer_types: bool) -> None:
    schema: pa.Schema | None = None
    texts: set[str] = set()
    for rows in _json_blocks(location):
        names = list(dict.fromkeys(name for row in rows for name in row))
        for name in names:
            if name in texts:
                continue
            kind = _arrow_type([row.get(name) for row in rows])
            known = schema.field(name).type if schema is not None and name in schema.names else pa.null()
            merged = _wider(known, kind)
            if merged is None:
                texts.add(name)
                merged = pa.string()
            schema = _with_type(schema, name, merged)
    if schema is None:
        raise InputError(f"{location} is empty: not a single line.")
    texts.update(f.name for f in schema if not _fits_parquet(f.type))
    while True:
        schema = pa.schema([f.with_type(pa.string()) if f.name in texts else f for f in schema])
        try:
            return _write(target, schema, (_json_batch(rows, schema, texts) for rows in _json_blocks(location)))
        except _DoesNotFitError as error:  # a number of one block that a wider type of another cannot hold
            texts.add(error.column)


def _json_batch(rows: list[dict[str, Any]], schema: pa.Schema, texts: set[str]) -> pa.RecordBatch:
    columns = []
    for field in schema:
        values = [row.get(field.name) for row in rows]
        if field.name in texts:
            values = [v if v is None or isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in values]
        try:
            columns.append(pa.array(values, type=field.type))
        except (pa.ArrowException, OverflowError) as error:
            raise _DoesNotFitError(field.name) from error
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _json_blocks(location: Location) -> Iterator[list[dict[str, Any]]]:
    """Yield the objects of a JSONL file in blocks; lone surrogates become U+FFFD."""
    rows: list[dict[str, Any]] = []
    try:
        with _open(location) as stream:
            for number, line in enumerate(_lines(stream.read), start=1):
                if line.isspace() or not line:
                    continue
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise InputError(f"{location}, line {number}: not JSON ({error}).") from error
                if not isinstance(row, dict):
                    raise InputError(f"{location}, line {number}: a JSON object was expected, not {line[:40]!r}.")
                rows.append(_storable(row))
                if len(rows) == _BLOCK_ROWS:
                    yield rows
                    rows = []
    except OSError as error:
        raise InputError(f"Cannot read {location}: {error}") from error
    if rows:
        yield rows


def _lines(read: Callable[[int], bytes]) -> Iterator[bytes]:
    rest = b""
    while chunk := read(_BLOCK_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    if rest:
        yield rest


def _storable(value: Any) -> Any:
    """Replace what JSON can say and UTF-8 cannot: half of a surrogate pair."""
    if isinstance(value, str):
        try:
            value.encode("utf-8")
            return value
        except UnicodeEncodeError:
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_storable(item) for item in value]
    if isinstance(value, dict):
        return {_storable(key): _storable(item) for key, item in value.items()}
    return value


def _arrow_type(values: list[Any]) -> pa.DataType | None:
    try:
        return pa.array(values).type
    except (pa.ArrowException, OverflowError):
        return None


def _wider(a: pa.DataType, b: pa.DataType | None) -> pa.DataType | None:
    """Return a type that holds both, or None."""
    if b is None:
        return None
    fields = [pa.schema([pa.field("x", kind)]) for kind in (a, b)]
    try:
        return pa.unify_schemas(fields, promote_options="permissive").field("x").type
    except pa.ArrowException:
        return None


def _fits_parquet(kind: pa.DataType, depth: int = 0) -> bool:
    """Tell whether Parquet can hold a type that JSON led to; a column of nulls is more useful as text."""
    if pa.types.is_struct(kind):
        inner = [kind.field(i).type for i in range(kind.num_fields)]
        return bool(inner) and depth < _DEEPEST and all(_fits_parquet(i, depth + 1) for i in inner)
    if pa.types.is_list(kind):
        return depth < _DEEPEST and (pa.types.is_null(kind.value_type) or _fits_parquet(kind.value_type, depth + 1))
    return depth > 0 or not pa.types.is_null(kind)


def _with_type(schema: pa.Schema | None, name: str, kind: pa.DataType) -> pa.Schema:
    if schema is None:
        return pa.schema([pa.field(name, kind)])
    if name in schema.names:
        return schema.set(schema.get_field_index(name), pa.field(name, kind))
    return schema.append(pa.field(name, kind))


def _write(target: Location, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
    with target.replacing() as stream, pq.ParquetWriter(stream, schema, compression="zstd") as writer:
        for batch in batches:
            if batch.num_rows:
                writer.write_batch(batch)
