"""Tell by its content what a SOURCE is, and open it."""

from __future__ import annotations

import csv
import functools
import io
import json
import re
from collections.abc import Callable, Iterator
from typing import BinaryIO

import pyarrow as pa
from pyarrow import fs

from rayft.data.source import parquet_identity
from rayft.data.staging import content_identity
from rayft.data.storage import Location, locate
from rayft.errors import InputError, UsageError
from rayft.prepare import text_files
from rayft.prepare.columns import find_columns
from rayft.prepare.config import PrepareConfig
from rayft.prepare.folders import class_files, folder_parts
from rayft.prepare.hub import dataset_id, open_hub
from rayft.prepare.rows import Part, Source, split_of_path
from rayft.prepare.tables import parquet_rows, parquet_schema

_HEAD_BYTES = 1 << 20
_DATA_NAME = re.compile(
    r".*\.(parquet|parq|pq|csv|tsv|jsonl|ndjson|json|ft\.txt|ftz?|tar|tgz)(\.(gz|bz2))?", re.IGNORECASE
)
_GLOB = re.compile(r"[*?\[]")
_NUMBER = re.compile(r"\d{1,3}")

Rows = Callable[[], Iterator[pa.Table]]


def open_source(given: str, config: PrepareConfig) -> Source:
    """Open a file, directory, glob or Hub dataset id.

    Raises:
        UsageError: nothing is there, or it is in no format that can be recognised.
        InputError: it cannot be read.
    """
    if given.startswith("hf://"):
        return open_hub(given, config)
    location = locate(given)
    kind = location.info().type
    if kind == fs.FileType.File:
        return _from_files(given, [(location, location.name)], config)
    if kind == fs.FileType.Directory:
        return _from_directory(given, location, config)
    if _GLOB.search(location.path):
        return _from_glob(given, location, config)
    if "://" not in given and dataset_id(given) is not None:
        return open_hub(given, config)
    raise UsageError(f"There is no file or directory {given}, and it is not the id of a Hub dataset.")


def _from_directory(given: str, root: Location, config: PrepareConfig) -> Source:
    infos = root.listing(recursive=True)
    if files := class_files(root, infos):
        parts = folder_parts(root, files, config.encoding)
        return Source(given, f"{len(files):,} text files in the folders of their classes", parts)
    start = len(root.path.rstrip("/")) + 1
    found = []
    for info in infos:
        name = info.path[start:]
        hidden = any(part.startswith(("_", ".")) for part in name.split("/"))
        if info.type == fs.FileType.File and not hidden and _DATA_NAME.fullmatch(name):
            found.append((root.at(info.path), name))
    if not found:
        raise UsageError(
            f"{given} holds no Parquet, CSV, JSONL, fastText or tar file, nor text files in the folders of two classes."
        )
    return _from_files(given, found, config)


def _from_glob(given: str, location: Location, config: PrepareConfig) -> Source:
    from rayft.data.inputs import list_inputs

    files = list_inputs([given]).files
    if not files:
        raise UsageError(f"No Parquet, CSV or JSONL file matches {given}.")
    return _from_files(given, [(file.location, file.name) for file in files], config)


def _from_files(given: str, files: list[tuple[Location, str]], config: PrepareConfig) -> Source:
    parts: list[Part] = []
    kinds: dict[str, int] = {}
    for location, name in files:
        kind, found = _recognise(location, name, config)
        kinds[kind] = kinds.get(kind, 0) + 1
        parts += found
    described = ", ".join(kind if count == 1 else f"{count} x {kind}" for kind, count in kinds.items())
    return Source(given, described, parts)


def _recognise(location: Location, name: str, config: PrepareConfig) -> tuple[str, list[Part]]:
    """Return what one file is and its parts."""
    with location.filesystem.open_input_file(location.path) as stream:
        magic = stream.read(4)
    if magic == b"PAR1":
        columns = find_columns(parquet_schema(location), config, str(location))
        identity = str(parquet_identity(location))
        parquet = functools.partial(parquet_rows, location, columns)
        return f"Parquet ({columns})", [_part(name, identity, parquet, columns.split is None)]
    open_file = functools.partial(text_files.open_binary, location)
    head = _head(open_file, location)
    if head[257:262] == b"ustar":
        return _tarball(location, config)
    identity = str(content_identity(location))
    kind, read, owns_split = _text_reader(open_file, head, str(location), config)
    return kind, [_part(name, identity, read, owns_split)]


def _tarball(location: Location, config: PrepareConfig) -> tuple[str, list[Part]]:
    members = text_files.tar_members(location)
    wanted = [name for name in ("train.csv", "test.csv") if name in members]
    if not wanted:
        raise UsageError(
            f"{location} is a tar archive without train.csv and test.csv; it has: {', '.join(sorted(members)[:10])}. "
            "Unpack it and give the folder."
        )
    identity = str(content_identity(location))
    parts = []
    kind = ""
    for name in wanted:
        open_file = functools.partial(text_files.open_member, location, members[name])
        where = f"{location}/{name}"
        kind, read, owns_split = _text_reader(open_file, _head(open_file, location), where, config)
        parts.append(_part(name, f"{identity} {name}", read, owns_split))
    return f"tar archive of {kind}", parts


def _text_reader(open_file: text_files.Open, head: bytes, where: str, config: PrepareConfig) -> tuple[str, Rows, bool]:
    """Return what a text file is, a function that reads it, and whether its name may tell the split."""
    encoding = config.encoding
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") and not encoding.lower().startswith("utf-16"):
        raise InputError(f"{where} is UTF-16; read it with --encoding utf-16, or convert it with iconv.")
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start:
        raise InputError(f"{where} is empty.")
    if b"\0" in head[:4096] and not encoding.lower().startswith("utf-16"):
        raise UsageError(f"{where} is neither Parquet nor text (CSV, JSONL, fastText, tar, each may be compressed).")
    if start.startswith(b"__label__"):
        return "fastText", _two_classes(functools.partial(text_files.fasttext_rows, open_file, where, encoding)), True
    if start.startswith(b"{"):
        columns = find_columns(_json_schema(start), config, where)
        jsonl = functools.partial(text_files.jsonl_rows, open_file, where, encoding, columns)
        return f"JSONL ({columns})", jsonl, columns.split is None
    if start.startswith(b"["):
        raise UsageError(f"{where} is one JSON array; write one object a line instead (jq -c '.[]').")
    sample = _sample(head, encoding)
    if len(sample) and all(len(row) in (2, 3) and _NUMBER.fullmatch(row[0].strip()) for row in sample):
        kind = "CSV without header: class, " + ("title, text" if len(sample[0]) == 3 else "text")
        return kind, _two_classes(functools.partial(text_files.class_csv_rows, open_file, where, encoding)), True
    delimiter = _delimiter(head)
    header = text_files.csv_header(open_file, where, encoding, delimiter)
    if len(header) < 2:
        raise UsageError(
            f"{where} is in no format that rayft knows: Parquet, CSV with a header, JSONL, fastText, "
            "the csv of Amazon Polarity, or a tar archive of it."
        )
    if len(set(header)) < len(header):
        raise UsageError(f"{where} has two columns of the same name: {', '.join(header)}.")
    columns = find_columns(pa.schema([(name, pa.string()) for name in header]), config, where)
    read = functools.partial(text_files.csv_rows, open_file, where, encoding, delimiter, columns)
    return f"CSV ({columns})", read, columns.split is None


def _part(name: str, identity: str, read: Rows, name_tells_split: bool) -> Part:
    """Give every row of a file the split that its name stands for, if any."""
    split = split_of_path(name) if name_tells_split else None
    if split is None:
        return Part(name, identity, read)

    def with_split() -> Iterator[pa.Table]:
        for table in read():
            yield table.set_column(3, "split", pa.array([split] * table.num_rows, pa.string()))

    return Part(name, f"{identity} {split}", with_split)


def _two_classes(read: Rows) -> Rows:
    """Name the classes 1 and 2 of the polarity sets; a set with other classes keeps its numbers.

    The first table decides: the published sets are shuffled.
    """

    def renamed() -> Iterator[pa.Table]:
        polarity: bool | None = None
        for table in read():
            if polarity is None:
                values = set(table["label"].to_pylist()) - {None}
                polarity = values <= {"1", "2"}
            if polarity:
                names = {"1": "negative", "2": "positive"}
                labels = [names.get(v, v) if v is not None else None for v in table["label"].to_pylist()]
                table = table.set_column(2, "label", pa.array(labels, pa.string()))
            yield table

    return renamed


def _head(open_file: Callable[[], BinaryIO], location: Location) -> bytes:
    try:
        with open_file() as stream:
            return stream.read(_HEAD_BYTES)
    except (OSError, EOFError) as error:
        raise InputError(f"Cannot read {location}: {error}") from error


def _sample(head: bytes, encoding: str) -> list[list[str]]:
    """Return up to 50 whole rows of the beginning of a comma-separated file."""
    text = head.decode(encoding, "replace").lstrip("\ufeff")
    rows = []
    try:
        for row in csv.reader(io.StringIO(text, newline="")):
            rows.append(row)
            if len(rows) == 51:
                break
    except csv.Error:
        return []
    return rows[:50] if len(rows) == 51 or len(head) < _HEAD_BYTES else rows[:-1]


def _delimiter(head: bytes) -> str:
    line = head.split(b"\n", 1)[0].decode("latin-1")
    return max(",;\t|", key=line.count)


def _json_schema(head: bytes) -> pa.Schema:
    """Return the fields of the first lines of a JSONL file: strings, or int64 for whatever else."""
    kinds: dict[str, pa.DataType] = {}
    for line in head.split(b"\n")[:200]:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            for name, value in row.items():
                if isinstance(value, str) or name not in kinds:
                    kinds[name] = pa.string() if isinstance(value, str) else pa.int64()
    return pa.schema(list(kinds.items()))
