"""The common form of every source: parts that yield raw rows with a label, a split or a problem."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa

#: Raw rows. A row that cannot be used has its reason in `problem` and nulls elsewhere; so every row
#: of a file is counted, and row numbers stay those of the file.
ROW_SCHEMA = pa.schema([(name, pa.string()) for name in ("title", "text", "label", "split", "problem")])

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = (TRAIN, VALIDATION, TEST)

_SPLIT_NAMES = {
    "train": TRAIN,
    "training": TRAIN,
    "validation": VALIDATION,
    "valid": VALIDATION,
    "val": VALIDATION,
    "dev": VALIDATION,
    "test": TEST,
    "testing": TEST,
    "unsupervised": "unlabelled",
    "unsup": "unlabelled",
}
_WORD = re.compile(r"[a-z]+")
_BLOCK_ROWS = 4096


@dataclass(frozen=True)
class Part:
    """One file of a source.

    Attributes:
        name: for messages.
        identity: changes when the content does.
        read: yields tables of `ROW_SCHEMA`, the same rows in the same order at every call.
    """

    name: str
    identity: str
    read: Callable[[], Iterator[pa.Table]]


@dataclass(frozen=True)
class Source:
    """What one SOURCE stands for; `kind` says how it was understood."""

    name: str
    kind: str
    parts: list[Part] = field(default_factory=list)


def split_of(word: str | None) -> str | None:
    """Return train, validation, test, unlabelled, or None if `word` is not the name of a split."""
    return _SPLIT_NAMES.get(word.strip().lower()) if word else None


def split_of_path(path: str) -> str | None:
    """Return the split that a file's name or, if that names none, one of its folders stands for.

    `data/train-00000-of-00004.parquet`, `plain_text/test/0000.parquet` and `test.ft.txt.bz2` name one.
    """
    for component in reversed(path.split("/")):
        found = {split_of(word) for word in _WORD.findall(component.lower())} - {None}
        if len(found) == 1:
            return found.pop()
    return None


class RowBuilder:
    """Collects rows in Python and hands them out as tables."""

    def __init__(self) -> None:
        self._rows: list[tuple[str | None, str | None, str | None, str | None, str | None]] = []

    def add(self, title: str | None, text: str | None, label: str | None, split: str | None) -> None:
        self._rows.append((title, text, label, split, None))

    def add_problem(self, reason: str) -> None:
        self._rows.append((None, None, None, None, reason))

    @property
    def full(self) -> bool:
        return len(self._rows) >= _BLOCK_ROWS

    def take(self) -> pa.Table:
        """Return the rows so far and begin anew."""
        columns = list(zip(*self._rows, strict=True)) or [()] * len(ROW_SCHEMA)
        self._rows = []
        return pa.table([pa.array(c, pa.string()) for c in columns], schema=ROW_SCHEMA)


def is_valid(text: str) -> bool:
    """Tell whether a string decoded with `surrogateescape` was valid in its encoding."""
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def in_chunks(tables: Iterator[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Cut a stream of tables into tables of exactly `rows` rows, the last one shorter."""
    held: list[pa.Table] = []
    count = 0
    for table in tables:
        while count + table.num_rows >= rows:
            head = table.slice(0, rows - count)
            yield pa.concat_tables([*held, head]).combine_chunks()
            table = table.slice(head.num_rows)
            held, count = [], 0
        if table.num_rows:
            held.append(table)
            count += table.num_rows
    if count:
        yield pa.concat_tables(held).combine_chunks()
