"""Cutting files into spans and parts, and telling plans apart."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rayft.config import ScoreConfig
from rayft.data.source import Identity
from rayft.errors import UsageError
from rayft.score.plan import Span, cut_parts, cut_spans, differences, file_key, fingerprint_of, rows_per_span
from rayft.score.planning import output_of

GROUPS = st.lists(st.integers(0, 300), max_size=12)
SPAN_ROWS = st.integers(1, 120)


def borders(groups: list[int]) -> list[int]:
    return list(itertools.accumulate(groups, initial=0))


@settings(deadline=None)
@given(GROUPS, SPAN_ROWS, st.integers(0, 4_000))
@example([], 10, 0)
@example([0, 0], 10, 5)
@example([10, 11, 1], 10, 22)
def test_spans_partition_the_rows_in_order(groups: list[int], span_rows: int, limit: int) -> None:
    rows = min(limit, sum(groups))
    spans = cut_spans(groups, span_rows, rows)
    assert [row for span in spans for row in range(span.start, span.start + span.rows)] == list(range(rows))
    assert all(0 < span.rows <= span_rows for span in spans)


@settings(deadline=None)
@given(GROUPS, SPAN_ROWS, st.integers(0, 4_000))
def test_no_span_crosses_the_border_of_a_large_row_group(groups: list[int], span_rows: int, limit: int) -> None:
    rows = min(limit, sum(groups))
    for start, end in itertools.pairwise(borders(groups)):
        if min(end, rows) - start > span_rows:
            for span in cut_spans(groups, span_rows, rows):
                inside = [row for row in (span.start, span.start + span.rows - 1) if start <= row < end]
                assert len(inside) in (0, 2)


@settings(deadline=None)
@given(GROUPS, SPAN_ROWS)
def test_small_row_groups_are_decoded_for_one_span_only(groups: list[int], span_rows: int) -> None:
    spans = cut_spans(groups, span_rows, sum(groups))
    for start, end in itertools.pairwise(borders(groups)):
        if 0 < end - start <= span_rows:
            assert sum(span.start < end and span.start + span.rows > start for span in spans) == 1


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), max_size=12))
def test_small_row_groups_are_taken_together_while_they_fit(groups: list[int]) -> None:
    for first, second in itertools.pairwise(cut_spans(groups, 50, sum(groups))):
        next_group = groups[borders(groups).index(second.start)]
        assert first.rows + next_group > 50


def test_spans_of_typical_files() -> None:
    assert cut_spans([100], 40, 100) == (Span(0, 33), Span(33, 33), Span(66, 34))
    assert cut_spans([10, 10, 10, 10], 30, 40) == (Span(0, 30), Span(30, 10))
    assert cut_spans([10, 50, 10], 40, 70) == (Span(0, 10), Span(10, 25), Span(35, 25), Span(60, 10))
    assert cut_spans([100, 100], 60, 110) == (Span(0, 50), Span(50, 50), Span(100, 10))


@settings(deadline=None)
@given(st.integers(0, 10**11), st.integers(1, 10**9))
def test_the_name_of_a_span_tells_its_rows(start: int, rows: int) -> None:
    name = Span(start, rows).name
    assert Span.from_name(name) == Span(start, rows)
    assert not name.endswith(".parquet")


def test_names_of_spans_sort_as_their_rows_do() -> None:
    names = [Span(start, 7).name for start in (0, 7, 70, 700, 7 * 10**8)]
    assert sorted(names) == names


@settings(deadline=None)
@given(GROUPS, SPAN_ROWS, st.integers(1, 500))
@example([], 1, 1)
def test_parts_partition_the_spans_in_order(groups: list[int], span_rows: int, part_rows: int) -> None:
    spans = cut_spans(groups, span_rows, sum(groups))
    parts = cut_parts(spans, part_rows)
    assert tuple(span for part in parts for span in part) == spans
    assert len(parts) >= 1  # a file without rows has an output too
    for part in parts[:-1]:
        rows = [span.rows for span in part]
        assert sum(rows) >= part_rows > sum(rows[:-1])
    assert parts[-1] or not spans


def test_differences_are_named_for_a_person() -> None:
    before = {"precision": "bf16", "threshold": 0.5, "model": "abc", "title_column": "title"}
    now = {"precision": "fp32", "threshold": 0.5, "model": "abd", "columns": ["label"], "title_column": None}
    assert differences(now, before) == [
        "columns: None before, ['label'] now",
        "model: abc before, abd now",
        "precision: bf16 before, fp32 now",
        "title_column: title before, None now",
    ]
    assert differences(now, dict(reversed(now.items()))) == []


def test_fingerprints_follow_the_settings_not_their_order() -> None:
    chosen = {"model": "abc", "threshold": 0.5, "columns": None}
    assert fingerprint_of(chosen) == fingerprint_of(dict(reversed(chosen.items())))
    others = [{**chosen, key: "other"} for key in chosen] + [{**chosen, "new": None}]
    assert len({fingerprint_of(s) for s in [chosen, *others]}) == 5


def test_the_folder_of_spans_is_of_one_output_input_and_setting() -> None:
    key = file_key("a.parquet", Identity(10, "abc"), "f1")
    others = [
        file_key("b.parquet", Identity(10, "abc"), "f1"),
        file_key("a.parquet", Identity(11, "abc"), "f1"),
        file_key("a.parquet", Identity(10, "abd"), "f1"),
        file_key("a.parquet", Identity(10, "abc"), "f2"),
    ]
    assert key == file_key("a.parquet", Identity(10, "abc"), "f1")
    assert len({key, *others}) == 5
    assert key.isalnum()


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("notes.txt", "is a file; give a folder"),
        ("notes.txt/out", "cannot be written: .*notes.txt is a file"),
        ("notes.txt/deep/out.parquet", "cannot be written: .*notes.txt is a file"),
        ("folder.parquet", "is a folder"),
    ],
)
def test_an_output_in_the_place_of_something_else_is_refused(tmp_path: Path, output: str, reason: str) -> None:
    (tmp_path / "notes.txt").touch()
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(UsageError, match=reason):
        output_of(ScoreConfig(("in.parquet",), output=str(tmp_path / output)))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_faster_engines_get_larger_spans(device: str) -> None:
    assert 0 < rows_per_span(device, "fp32") < rows_per_span(device, "bf16")
    assert rows_per_span("cpu", "bf16") < rows_per_span("cuda", "fp32")
