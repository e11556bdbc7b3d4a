"""What a run has to do: which files, cut into which spans, under which settings."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rayft.data.columns import ReviewColumns
from rayft.data.source import Identity, Source, digest_of

#: Seconds of model time that a span should take, and rows per second assumed of each kind of
#: engine. Only a size is derived from them: a wrong guess changes how much a crash repeats.
_SPAN_SECONDS = 15
_ASSUMED_ROWS_PER_SECOND = {
    ("torch", "cpu", "fp32"): 70,
    ("torch", "cpu", "bf16"): 270,
    ("torch", "cuda", "fp32"): 4_000,
    ("torch", "cuda", "bf16"): 16_000,
    ("openvino", "cpu", "fp32"): 120,
    ("openvino", "cpu", "bf16"): 400,
}


@dataclass(frozen=True)
class Span:
    """Rows [start, start + rows) of a file; the unit of work, of resuming and of committing."""

    start: int
    rows: int

    @property
    def name(self) -> str:
        return f"{self.start:012d}-{self.rows}.arrow"

    @classmethod
    def from_name(cls, name: str) -> Span:
        start, rows = name.removesuffix(".arrow").split("-")
        return cls(int(start), int(rows))


@dataclass(frozen=True)
class FilePlan:
    """One output: rows of one input, all of them unless --limit or --layout parts says otherwise.

    Attributes:
        key: names the folder of its finished spans; it changes with input and settings.
        name: of the input, below the root that it came from.
        output: name of the output, below the output folder.
        settings: all that its scores depend on.
    """

    key: str
    source: Source
    name: str
    output: str
    columns: ReviewColumns
    settings: dict[str, Any]
    spans: tuple[Span, ...]

    @property
    def start(self) -> int:
        return self.spans[0].start if self.spans else 0

    @property
    def rows(self) -> int:
        return sum(span.rows for span in self.spans)

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(self.settings)


def cut_parts(spans: Sequence[Span], part_rows: int) -> list[tuple[Span, ...]]:
    """Group spans that follow each other into parts of at least `part_rows` rows, the last one less."""
    parts: list[tuple[Span, ...]] = []
    part: list[Span] = []
    for span in spans:
        part.append(span)
        if sum(s.rows for s in part) >= part_rows:
            parts.append(tuple(part))
            part = []
    if part or not parts:
        parts.append(tuple(part))
    return parts


def rows_per_span(device: str, precision: str, backend: str = "torch") -> int:
    """Return the rows that a span may have on an engine."""
    return _SPAN_SECONDS * _ASSUMED_ROWS_PER_SECOND[(backend, device, precision)]


def cut_spans(row_groups: Sequence[int], span_rows: int, rows: int) -> tuple[Span, ...]:
    """Cut the first `rows` rows of a file into spans.

    A row group of more than `span_rows` rows is cut into equal parts of at most that many; smaller
    ones that follow each other are taken together up to that many. No span crosses a large row
    group's border, so that no row group is decoded for more spans than it must be.
    """
    spans: list[Span] = []
    start = 0
    open_start, open_rows = 0, 0

    def close() -> None:
        nonlocal open_rows
        if open_rows:
            spans.append(Span(open_start, open_rows))
            open_rows = 0

    for group in row_groups:
        group = min(group, rows - start)
        if group <= 0:
            continue
        if group > span_rows:
            close()
            parts = -(-group // span_rows)
            edges = [start + group * i // parts for i in range(parts + 1)]
            spans += [Span(a, b - a) for a, b in itertools.pairwise(edges)]
        else:
            if open_rows + group > span_rows:
                close()
            if not open_rows:
                open_start = start
            open_rows += group
        start += group
    close()
    return tuple(spans)


def fingerprint_of(settings: Mapping[str, Any]) -> str:
    """Return the identity of all settings that the scores depend on."""
    return digest_of(json.dumps(settings, sort_keys=True).encode())


def file_key(output: str, identity: Identity, fingerprint: str) -> str:
    """Return the name of the folder of spans of one output: other settings or inputs, other folder."""
    return digest_of(output.encode(), b"\0", str(identity).encode(), b"\0", fingerprint.encode())


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Name the settings that differ, as `precision: bf16 before, fp32 now`."""
    keys = sorted(set(ours) | set(theirs))
    return [f"{key}: {theirs.get(key)} before, {ours.get(key)} now" for key in keys if ours.get(key) != theirs.get(key)]
