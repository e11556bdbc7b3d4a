"""Readers of line-based sources: fastText, CSV with and without header, JSONL; plain or compressed."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import re
import tarfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, cast

import pyarrow as pa

from rayft.data.storage import Location
from rayft.errors import InputError
from rayft.prepare.columns import Columns
from rayft.prepare.rows import RowBuilder, is_valid, split_of

#: A longer CSV field means a quote that is never closed.
_FIELD_BYTES = 16 << 20
_LABEL = re.compile(rb"__label__(\S+)[ \t]*")

Open = Callable[[], BinaryIO]


def open_binary(location: Location) -> BinaryIO:
    """Open a file and undo gzip or bzip2, which are told by the first bytes, not by the name."""
    try:
        stream = location.filesystem.open_input_file(location.path)
        head = stream.read(4)
        stream.seek(0)
    except OSError as error:
        raise InputError(f"Cannot read {location}: {error}") from error
    if head[:2] == b"\x1f\x8b":
        return io.BufferedReader(cast(Any, gzip.GzipFile(fileobj=stream)), 1 << 20)
    if head[:3] == b"BZh":
        return io.BufferedReader(cast(Any, bz2.BZ2File(stream)), 1 << 20)
    return io.BufferedReader(stream, 1 << 20)


def tar_members(location: Location) -> dict[str, str]:
    """Return {file name: path in the archive} of a tar file; an archive's folders do not matter."""
    with open_binary(location) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
        return {info.name.rsplit("/", 1)[-1]: info.name for info in archive if info.isfile()}


def open_member(location: Location, member: str) -> BinaryIO:
    """Open one file of a tar archive, reading the archive from its start."""
    archive = tarfile.open(fileobj=open_binary(location), mode="r:")  # noqa: SIM115 (the member reads from it)
    for info in archive:
        if info.name == member and (content := archive.extractfile(info)) is not None:
            return cast(BinaryIO, content)
    raise InputError(f"{location} has no {member}.")


def fasttext_rows(open_file: Open, where: str, encoding: str) -> Iterator[pa.Table]:
    """Yield `__label__<class> <text>` lines; the label stays as it is written after `__label__`.

    In Amazon Polarity's fastText files title and text are one, `title: text`, which is already the
    layout of the model's input.
    """
    rows = RowBuilder()
    for line in _guarded(open_file, where):
        line = line.strip(b"\r\n")
        match = _LABEL.match(line)
        if not line:
            continue
        if match is None:
            rows.add_problem("line without __label__")
        elif _LABEL.match(line, match.end()):
            rows.add_problem("several labels")
        else:
            try:
                rows.add(None, line[match.end() :].decode(encoding), match[1].decode(encoding), None)
            except UnicodeDecodeError:
                rows.add_problem(f"not {encoding.upper()}")
        if rows.full:
            yield rows.take()
    yield rows.take()


def class_csv_rows(open_file: Open, where: str, encoding: str) -> Iterator[pa.Table]:
    r"""Yield rows of a CSV without header: class, [title,] text (Zhang et al. 2015, arXiv:1509.01626).

    Its quotes are doubled and its line breaks written as `\n`, two characters.
    """
    rows = RowBuilder()
    for fields in _csv_rows(open_file, where, encoding, ","):
        if len(fields) not in (2, 3):
            rows.add_problem(f"{len(fields)} fields instead of 2 or 3")
        elif not is_valid("".join(fields)):
            rows.add_problem(f"not {encoding.upper()}")
        else:
            label, *texts = (field.replace("\\n", " ") for field in fields)
            rows.add(texts[0] if len(texts) == 2 else None, texts[-1], label, None)
        if rows.full:
            yield rows.take()
    yield rows.take()


def csv_rows(open_file: Open, where: str, encoding: str, delimiter: str, columns: Columns) -> Iterator[pa.Table]:
    """Yield rows of a CSV with header."""
    rows = RowBuilder()
    lines = _csv_rows(open_file, where, encoding, delimiter)
    header = next(lines, [])
    text, title, label, split = (None if n is None else header.index(n) for n in columns.names)
    assert text is not None
    for fields in lines:
        if len(fields) != len(header):
            rows.add_problem(f"{len(fields)} fields instead of {len(header)}")
        elif not is_valid("".join(fields)):
            rows.add_problem(f"not {encoding.upper()}")
        else:
            rows.add(
                fields[title] if title is not None else None,
                fields[text],
                fields[label] if label is not None else None,
                split_of(fields[split]) if split is not None else None,
            )
        if rows.full:
            yield rows.take()
    yield rows.take()


def jsonl_rows(open_file: Open, where: str, encoding: str, columns: Columns) -> Iterator[pa.Table]:
    """Yield rows of a file with one JSON object a line."""
    rows = RowBuilder()
    for line in _guarded(open_file, where):
        if line.isspace():
            continue
        try:
            row = json.loads(line.decode(encoding))
        except UnicodeDecodeError:
            rows.add_problem(f"not {encoding.upper()}")
        except (ValueError, RecursionError):
            rows.add_problem("line is not JSON")
        else:
            if isinstance(row, dict):
                text, title, label, split = (None if n is None else _as_text(row.get(n)) for n in columns.names)
                rows.add(title, text, label, split_of(split))
            else:
                rows.add_problem("line is not a JSON object")
        if rows.full:
            yield rows.take()
    yield rows.take()


def csv_header(open_file: Open, where: str, encoding: str, delimiter: str) -> list[str]:
    """Return the first row of a CSV."""
    return next(_csv_rows(open_file, where, encoding, delimiter), [])


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        # A lone surrogate is legal in JSON and not in UTF-8; cleaning would drop it anyway.
        return value if value is None or is_valid(value) else value.encode("utf-8", "replace").decode()
    return json.dumps(value)


def _csv_rows(open_file: Open, where: str, encoding: str, delimiter: str) -> Iterator[list[str]]:
    previous = csv.field_size_limit(_FIELD_BYTES)
    try:
        with open_file() as stream:
            decoded = io.TextIOWrapper(
                stream, "utf-8-sig" if encoding == "utf-8" else encoding, errors="surrogateescape", newline=""
            )
            reader = csv.reader(decoded, delimiter=delimiter)
            for fields in reader:
                if fields:
                    yield fields
    except csv.Error as error:
        raise InputError(f"{where}, line {reader.line_num}: {error}; is a quote never closed?") from error
    except (OSError, EOFError, tarfile.TarError, UnicodeError) as error:
        raise InputError(f"Cannot read {where}: {error}") from error
    finally:
        csv.field_size_limit(previous)


def _guarded(open_file: Open, where: str) -> Iterator[bytes]:
    try:
        with open_file() as stream:
            yield from stream
    except (OSError, EOFError, tarfile.TarError) as error:
        raise InputError(f"Cannot read {where}: {error}") from error
