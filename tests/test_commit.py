"""Finished spans and finished files: whole, exact, and not at all if the input changed."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rayft.data.columns import SCORE_FIELDS, ReviewColumns, appended_fields
from rayft.data.source import open_parquet
from rayft.data.storage import Location, locate
from rayft.errors import InputError
from rayft.score import commit as commit_module
from rayft.score.commit import assemble, finished_spans, read_footer, read_span, write_span
from rayft.score.plan import FilePlan, Span, cut_spans
from rayft.score.stats import Stats

ROWS = 40
NUMBERS = range(ROWS)
TEXTS = pa.array([f"text {i}" if i % 7 else None for i in NUMBERS])


def every_third_null(values: list[Any], kind: pa.DataType | None = None) -> pa.Array:
    return pa.array([None if i % 3 == 2 else value for i, value in enumerate(values)], kind)


EXOTIC: dict[str, pa.Array] = {
    "list": every_third_null([list(range(i % 4)) for i in NUMBERS]),
    "list of lists": every_third_null([[[i], [], None] for i in NUMBERS]),
    "list of structs": every_third_null([[{"a": i, "b": [str(i)]}, None] for i in NUMBERS]),
    "large list": every_third_null([[i] for i in NUMBERS], pa.large_list(pa.int8())),
    "list view": every_third_null([[i] for i in NUMBERS], pa.list_view(pa.int8())),
    "fixed-size list": every_third_null([[i, i] for i in NUMBERS], pa.list_(pa.float32(), 2)),
    "struct": every_third_null([{"x": i, "y": {"z": str(i)}} for i in NUMBERS]),
    "map": every_third_null([[("a", i), ("b", None)] for i in NUMBERS], pa.map_(pa.string(), pa.int64())),
    "dictionary": every_third_null([f"v{i % 5}" for i in NUMBERS]).dictionary_encode(),
    "dictionary of bytes": every_third_null([b"%d" % (i % 5) for i in NUMBERS]).dictionary_encode(),
    "small ordered dictionary": pa.DictionaryArray.from_arrays(
        pa.array([i % 2 for i in NUMBERS], pa.int8()), pa.array(["low", "high"]), ordered=True
    ),
    "decimal": every_third_null([Decimal(i) / 8 for i in NUMBERS], pa.decimal128(20, 5)),
    "wide decimal": every_third_null([Decimal(i) for i in NUMBERS], pa.decimal256(60, 3)),
    "timestamp with zone": every_third_null(list(NUMBERS), pa.timestamp("us", "Europe/Berlin")),
    "timestamp in ns": every_third_null([1_700_000_000_000_000_001 + i for i in NUMBERS], pa.timestamp("ns")),
    "date": every_third_null([dt.date(2024, 1, 1 + i % 28) for i in NUMBERS]),
    "time": every_third_null(list(NUMBERS), pa.time64("ns")),
    "duration": every_third_null(list(NUMBERS), pa.duration("ms")),
    "uint8": every_third_null([255 - i for i in NUMBERS], pa.uint8()),
    "uint64": every_third_null([2**64 - 1 - i for i in NUMBERS], pa.uint64()),
    "float16": every_third_null([np.float16(i) for i in NUMBERS], pa.float16()),
    "float": every_third_null([float("inf"), -0.0, 5e-324, 0.1] * (ROWS // 4)),
    "bool": every_third_null([i % 2 == 0 for i in NUMBERS]),
    "large string": TEXTS.cast(pa.large_string()),
    "string view": TEXTS.cast(pa.string_view()),
    "binary": every_third_null([bytes([i, 0, 255]) for i in NUMBERS]),
    "fixed-size binary": every_third_null([bytes([i]) * 3 for i in NUMBERS], pa.binary(3)),
    "uuid": every_third_null([bytes([i]) * 16 for i in NUMBERS], pa.uuid()),
    "null": pa.nulls(ROWS),
    "not UTF-8": pa.Array.from_buffers(pa.string(), ROWS, pa.array([b"caf\xe9"] * ROWS).buffers()),
    "empty text": pa.array([""] * ROWS),
}


class Bench:
    """One input, its spans with made-up scores, and its output, in one folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.input = folder / "in.parquet"
        self.output = folder / "out" / "out.parquet"
        self.spans = locate(folder / "spans")

    def plan(self, table: pa.Table, span_rows: int = 7, limit: int | None = None, **options: Any) -> FilePlan:
        """Write `table` as the input, plan it, and commit scores of every span."""
        pq.write_table(table, self.input, **options)
        return self.plan_again(span_rows, limit)

    def plan_again(self, span_rows: int = 7, limit: int | None = None) -> FilePlan:
        source = open_parquet(locate(self.input))
        spans = cut_spans(source.row_groups, span_rows, source.num_rows if limit is None else limit)
        self.spans.remove()
        for span in spans:
            write_span(self.spans, span, scores(span), Stats(rows=span.rows, tokens=3))
        return FilePlan("key", source, "in.parquet", "out.parquet", ReviewColumns("text", None), {}, spans)

    def assemble(self, plan: FilePlan, prefix: str = "", columns: list[str] | None = None) -> Stats:
        own = [field.name for field in appended_fields("", columns)]
        appended = dict(zip(own, appended_fields(prefix, columns), strict=True))
        return assemble(plan, self.spans, locate(self.output), appended, {"made": "up"})

    @property
    def left(self) -> list[str]:
        """Everything in the folder of the output, temporary files too."""
        return sorted(os.listdir(self.output.parent)) if self.output.parent.exists() else []


def scores(span: Span) -> pa.Table:
    """Return columns that tell which row of the file they belong to."""
    rows = range(span.start, span.start + span.rows)
    columns: dict[str, pa.Array] = {field.name: pa.nulls(span.rows, field.type) for field in SCORE_FIELDS}
    columns["label"] = pa.array([f"row {row}" for row in rows], pa.string())
    columns["confidence"] = pa.array([None if row % 5 == 4 else row / 8 for row in rows], pa.float32())
    return pa.table(columns, schema=pa.schema(SCORE_FIELDS))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def own_metadata(schema: pa.Schema) -> dict[bytes, bytes]:
    return {key: value for key, value in (schema.metadata or {}).items() if key != b"rayft"}


def check_kept(bench: Bench, rows: int) -> None:
    """Every column of the input is in the output as it was, and each row has its own scores."""
    before = pq.ParquetFile(bench.input).read().slice(0, rows)
    after = pq.ParquetFile(bench.output).read()
    kept = after.select(range(before.num_columns))
    for old, new in zip(before.schema, kept.schema, strict=True):
        assert old.equals(new, check_metadata=True)
    for old, new in zip(before.columns, kept.columns, strict=True):
        if pa.types.is_dictionary(old.type):  # which values a row group lists is not part of the data
            old, new = old.cast(old.type.value_type), new.cast(old.type.value_type)
        assert new.equals(old)
    assert own_metadata(after.schema) == own_metadata(before.schema)
    assert after.select(range(before.num_columns, after.num_columns)).equals(scores(Span(0, rows)))


@pytest.mark.parametrize("name", EXOTIC)
def test_every_type_is_kept(bench: Bench, name: str) -> None:
    plan = bench.plan(pa.table({"text": TEXTS, name: EXOTIC[name]}), row_group_size=11)
    bench.assemble(plan)
    check_kept(bench, ROWS)


def test_all_types_together_are_kept_in_their_order(bench: Bench) -> None:
    plan = bench.plan(pa.table(EXOTIC), span_rows=13, row_group_size=40)
    bench.assemble(plan)
    check_kept(bench, ROWS)


def test_bits_of_floats_are_kept(bench: Bench) -> None:
    bits = np.array([0x7FF8000000000001, 0xFFF0000000000000, 0x8000000000000000, 1], dtype=np.uint64)
    plan = bench.plan(pa.table({"text": ["a"] * 4, "x": bits.view(np.float64)}))
    bench.assemble(plan)
    assert pq.read_table(bench.output)["x"].to_numpy().view(np.uint64).tolist() == bits.tolist()


def test_metadata_of_schema_and_fields_is_kept(bench: Bench) -> None:
    fields = [
        pa.field("text", pa.string(), nullable=False, metadata={"unit": "words", "PARQUET:field_id": "7"}),
        pa.field("n", pa.int32(), metadata={b"\xff": b"\x00"}),
    ]
    schema = pa.schema(fields, metadata={"pandas": "{}", "origin": "shop", b"\xfe": b"\xff"})
    plan = bench.plan(pa.table({"text": ["a"] * ROWS, "n": NUMBERS}, schema=schema), row_group_size=9)
    bench.assemble(plan)
    check_kept(bench, ROWS)
    assert pq.ParquetFile(bench.output).schema_arrow.metadata[b"origin"] == b"shop"


@pytest.mark.parametrize(
    "options",
    [
        {"store_schema": False},
        {"use_deprecated_int96_timestamps": True},
        {"data_page_version": "2.0", "compression": "gzip", "write_page_index": True},
        {"compression": "none", "use_dictionary": False, "write_statistics": False},
    ],
)
def test_files_of_other_writers(bench: Bench, options: dict[str, Any]) -> None:
    table = pa.table({"text": TEXTS, "when": EXOTIC["timestamp in ns"], "kind": EXOTIC["dictionary"]})
    bench.assemble(bench.plan(table, row_group_size=11, **options))
    check_kept(bench, ROWS)


@pytest.mark.parametrize(
    "names", [["text", "twice", "twice"], ["text", "", " "], ["text", "a.b", "a"], ["text", "été", "👍"]]
)
def test_odd_and_repeated_names(bench: Bench, names: list[str]) -> None:
    arrays = [TEXTS, pa.array(NUMBERS), pa.array([{"b": i} for i in NUMBERS])]
    bench.assemble(bench.plan(pa.Table.from_arrays(arrays, names), row_group_size=11))
    check_kept(bench, ROWS)


def test_an_input_without_rows(bench: Bench) -> None:
    plan = bench.plan(pa.table(EXOTIC).slice(0, 0))
    assert plan.spans == ()
    assert bench.assemble(plan) == Stats()
    check_kept(bench, 0)


@pytest.mark.parametrize("index", [pa.int8(), pa.uint8(), pa.int16()])
def test_dictionaries_of_several_row_groups_stay_readable(bench: Bench, index: pa.DataType) -> None:
    # Each row group has its own 100 values; in one row group they would be too many for an int8.
    chunks = [
        pa.DictionaryArray.from_arrays(pa.array(range(100), index), pa.array([f"v{i}" for i in range(a, a + 100)]))
        for a in (0, 100, 200)
    ]
    table = pa.table({"text": ["a"] * 300, "kind": pa.chunked_array(chunks)})
    bench.assemble(bench.plan(table, span_rows=70, row_group_size=100))
    check_kept(bench, 300)


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    groups=st.integers(1, 60),
    span_rows=st.integers(1, 60),
    limit=st.integers(0, ROWS),
    row_group_rows=st.integers(1, 50),
)
def test_any_cut_gives_the_same_output(
    tmp_path_factory: pytest.TempPathFactory, groups: int, span_rows: int, limit: int, row_group_rows: int
) -> None:
    bench = Bench(tmp_path_factory.mktemp("cut"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commit_module, "_ROW_GROUP_ROWS", row_group_rows)
        table = pa.table({"text": TEXTS, "kind": EXOTIC["dictionary"], "list": EXOTIC["list"]})
        plan = bench.plan(table, span_rows, limit, row_group_size=groups)
        stats = bench.assemble(plan)
    check_kept(bench, limit)
    assert (stats.rows, stats.tokens) == (limit, 3 * len(plan.spans))


def test_a_part_of_a_file_has_its_own_rows(bench: Bench) -> None:
    whole = bench.plan(pa.table({"text": TEXTS, "n": NUMBERS}), span_rows=10, row_group_size=15)
    part = FilePlan(whole.key, whole.source, whole.name, "p", whole.columns, {}, whole.spans[1:3])
    bench.assemble(part)
    after = pq.read_table(bench.output)
    expected = list(range(part.start, part.start + part.rows))
    assert part.start > 0
    assert after["n"].to_pylist() == expected
    assert after["label"].to_pylist() == [f"row {row}" for row in expected]


def test_appended_columns_can_be_renamed_and_left_out(bench: Bench) -> None:
    bench.assemble(bench.plan(pa.table({"text": TEXTS, "label": TEXTS})), "r_", ["confidence", "label"])
    after = pq.read_table(bench.output)
    assert after.schema.names == ["text", "label", "r_label", "r_confidence"]
    assert after["label"].to_pylist() == TEXTS.to_pylist()
    assert after["r_label"].to_pylist() == [f"row {row}" for row in NUMBERS]


def test_the_footer_tells_of_the_run(bench: Bench) -> None:
    stats = bench.assemble(bench.plan(pa.table({"text": TEXTS})))
    footer = read_footer(locate(bench.output))
    assert footer is not None
    assert (footer["made"], footer["rows"]) == ("up", ROWS)
    assert footer["stats"]["tokens"] == stats.tokens == 3 * 6
    assert read_footer(locate(bench.input)) is None
    (bench.folder / "text").write_text("no Parquet")
    with pytest.raises(InputError, match="text"):
        read_footer(locate(bench.folder / "text"))


def replace_input(bench: Bench) -> None:
    pq.write_table(pa.table({"text": TEXTS.take(list(reversed(NUMBERS)))}), bench.input)


def shorten_input(bench: Bench) -> None:
    bench.input.write_bytes(bench.input.read_bytes()[:-50])


def remove_input(bench: Bench) -> None:
    bench.input.unlink()


CHANGES = pytest.mark.parametrize("change", [replace_input, shorten_input, remove_input])
OLD = pytest.mark.parametrize("old", [None, b"an older output"])


def put_old(bench: Bench, old: bytes | None) -> list[str]:
    if old is not None:
        bench.output.parent.mkdir()
        bench.output.write_bytes(old)
    return bench.left


@OLD
@CHANGES
def test_an_input_that_changed_before_is_noticed(
    bench: Bench, change: Callable[[Bench], None], old: bytes | None
) -> None:
    plan = bench.plan(pa.table({"text": TEXTS}))
    before = put_old(bench, old)
    change(bench)
    with pytest.raises(InputError, match=r"in\.parquet"):
        bench.assemble(plan)
    assert bench.left == before
    assert old is None or bench.output.read_bytes() == old


@OLD
@CHANGES
def test_an_input_that_changes_while_it_is_read_is_noticed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, change: Callable[[Bench], None], old: bytes | None
) -> None:
    plan = bench.plan(pa.table({"text": TEXTS}))
    before = put_old(bench, old)

    def read_last(folder: Location, span: Span) -> tuple[pa.Table, Stats]:
        if span == plan.spans[-1]:
            change(bench)
        return read_span(folder, span)

    monkeypatch.setattr(commit_module, "read_span", read_last)
    with pytest.raises(InputError, match=r"in\.parquet"):
        bench.assemble(plan)
    assert bench.left == before
    assert old is None or bench.output.read_bytes() == old


def test_the_message_says_what_to_do_about_a_changed_input(bench: Bench) -> None:
    plan = bench.plan(pa.table({"text": TEXTS}))
    replace_input(bench)
    with pytest.raises(InputError, match=r"changed while it was scored \(.* before, .* now\).*--overwrite"):
        bench.assemble(plan)


def test_a_missing_span_leaves_no_output(bench: Bench) -> None:
    plan = bench.plan(pa.table({"text": TEXTS}))
    (bench.spans / plan.spans[2].name).remove()
    with pytest.raises(FileNotFoundError):
        bench.assemble(plan)
    assert bench.left == []


def test_an_output_is_replaced_whole(bench: Bench) -> None:
    put_old(bench, b"an older output")
    bench.assemble(bench.plan(pa.table({"text": TEXTS})))
    assert bench.left == ["out.parquet"]
    check_kept(bench, ROWS)


def test_an_input_can_be_replaced_by_its_scored_version(bench: Bench) -> None:
    plan = bench.plan(pa.table({"text": TEXTS}), row_group_size=11)
    bench.assemble(plan)
    first = bench.output.read_bytes()
    bench.assemble(plan)
    assert bench.output.read_bytes() == first  # two writers would write the same bytes


def test_spans_come_back_as_they_were_written(tmp_path: Path) -> None:
    folder = locate(tmp_path / "spans")
    span = Span(70, 5)
    stats = Stats(rows=5, tokens=9)
    stats.labels["negative"] += 2
    write_span(folder, span, scores(span), stats)
    table, back = read_span(folder, span)
    assert table.equals(scores(span))
    assert back == stats


def test_finished_spans_are_those_committed(tmp_path: Path) -> None:
    folder = locate(tmp_path / "spans")
    assert finished_spans(folder) == set()
    done = {Span(0, 5), Span(5, 3)}
    for span in done:
        write_span(folder, span, scores(span), Stats())
    (tmp_path / "spans" / f".{Span(8, 4).name}.1a2b3c4d.tmp").write_bytes(b"half a span")
    assert finished_spans(folder) == done
    assert not any(name.endswith(".parquet") for name in os.listdir(tmp_path / "spans"))


def test_a_span_of_the_wrong_number_of_rows_is_a_bug(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="4 rows"):
        write_span(locate(tmp_path), Span(0, 5), scores(Span(0, 4)), Stats())
    assert os.listdir(tmp_path) == []
