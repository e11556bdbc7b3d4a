"""CSV and JSONL inputs become Parquet without losing or inventing anything."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rayft.data.inputs import list_inputs
from rayft.data.source import Source
from rayft.data.staging import content_identity, stage
from rayft.data.storage import locate
from rayft.errors import InputError

Stage = Callable[..., pa.Table]


@pytest.fixture
def stage_source(tmp_path: Path) -> Callable[..., Source]:
    """Write a file and stage it."""

    def run(name: str, content: bytes | str, infer_types: bool = False) -> Source:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        (file,) = list_inputs([str(path)]).files
        return stage(file, locate(tmp_path / "staged"), infer_types)

    return run


@pytest.fixture
def staged(stage_source: Callable[..., Source]) -> Stage:
    """Write a file, stage it, and return the table that scoring reads."""

    def run(name: str, content: bytes | str, infer_types: bool = False) -> pa.Table:
        return pq.ParquetFile(stage_source(name, content, infer_types).location.path).read()

    return run


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def types(table: pa.Table) -> dict[str, str]:
    return {field.name: str(field.type) for field in table.schema}


def test_csv_columns_stay_strings(staged: Stage) -> None:
    table = staged("in.csv", "asin,stars,ok,date,text\n0041,5,true,2024-01-02,fine\n0007,4.50,NA,,\n")
    assert set(types(table).values()) == {"string"}
    assert table.to_pylist() == [
        {"asin": "0041", "stars": "5", "ok": "true", "date": "2024-01-02", "text": "fine"},
        {"asin": "0007", "stars": "4.50", "ok": "NA", "date": "", "text": ""},
    ]


def test_csv_types_are_inferred_on_request(staged: Stage) -> None:
    content = "asin,stars,ok,date,text\n0041,5,true,2024-01-02,fine\n0007,4.5,,,\n"
    table = staged("in.csv", content, infer_types=True)
    assert types(table) == {"asin": "int64", "stars": "double", "ok": "bool", "date": "date32[day]", "text": "string"}
    assert table["asin"].to_pylist() == [41, 7]
    assert table["ok"].to_pylist() == [True, None]
    assert table["text"].to_pylist() == ["fine", ""]


def test_csv_quoting(staged: Stage) -> None:
    table = staged("in.csv", 'id,text\r\n1,"two\nlines, ""quoted"""\r\n2,""\r\n3,\r\n,"\r\n"\r\n')
    assert table["text"].to_pylist() == ['two\nlines, "quoted"', "", "", "\r\n"]
    assert table["id"].to_pylist() == ["1", "2", "3", ""]


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(*[st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00\r"))] * 3),
        min_size=1,
    )
)
def test_csv_cells_come_back_as_they_were_written(staged: Stage, rows: list[tuple[str, ...]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerows([("id", "title", "text"), *rows])
    table = staged("in.csv", text.getvalue())
    assert [tuple(row.values()) for row in table.to_pylist()] == rows


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("in.tsv", b"id\ttext\n01\ta, b\n"),
        ("in.csv.gz", gzip.compress(b'id,text\n01,"a, b"\n')),
        ("IN.TSV.GZ", gzip.compress(b"id\ttext\n01\ta, b\n")),
        ("in.tsv.csv", b'id,text\n01,"a, b"\n'),
        ("in.csv", b'\xef\xbb\xbfid,text\n01,"a, b"\n'),
        ("in.jsonl.gz", gzip.compress(b'{"id": "01", "text": "a, b"}\n')),
        ("in.ndjson", b'\xef\xbb\xbf{"id": "01", "text": "a, b"}'),
        ("IN.JSONL.GZ", gzip.compress(b'{"id": "01", "text": "a, b"}\r\n\r\n')),
    ],
)
def test_separators_compression_and_byte_order_marks(staged: Stage, name: str, content: bytes) -> None:
    assert staged(name, content).to_pylist() == [{"id": "01", "text": "a, b"}]


def test_a_csv_larger_than_a_block(staged: Stage) -> None:
    long = "x" * 5_000_000 + "\n, y"
    table = staged("in.csv", f'id,text\n01,"{long}"\n' * 4 + f'id,text\n05,"{long}"\n')
    assert table["id"].to_pylist() == ["01", "id"] * 4 + ["05"]
    assert set(table["text"].to_pylist()) == {long, "text"}


def test_a_csv_with_a_header_only_has_no_rows(staged: Stage) -> None:
    table = staged("in.csv", "id,text\n")
    assert (table.num_rows, types(table)) == (0, {"id": "string", "text": "string"})


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("in.csv", b"", "is empty: not even a header line"),
        ("in.csv", b"id,text\n1,a,b\n", "Expected 2 columns, got 3"),
        ("in.csv", b"id,text\n1,a\n2\n", "Expected 2 columns, got 1"),
        ("in.csv", "id,text\n1,café\n".encode("latin-1"), "is not UTF-8.*iconv"),
        ("in.csv", "id,téxt\n1,a\n".encode("latin-1"), "is not UTF-8.*iconv"),
        ("in.csv.gz", b"id,text\n1,a\n", "Cannot read"),
        ("in.csv.gz", gzip.compress(b"id,text\n1,a\n")[:-9], "Cannot read"),
        ("in.jsonl", b"", "is empty"),
        ("in.jsonl", b" \n\n", "is empty"),
        ("in.jsonl", b'{"text": "a"}\n\n{"text": "b"\n', "line 3: not JSON"),
        ("in.jsonl", b'{"text": "a"}\n[1]\n', "line 2: a JSON object was expected"),
        ("in.jsonl", b'{"text": "a"}\n"b"\n', "line 2: a JSON object was expected"),
        ("in.jsonl", '{"text": "a"}\n{"text": "café"}\n'.encode("latin-1"), "line 2: not JSON"),
        ("in.jsonl", b"[" * 100_000, "line 1: not JSON"),
        ("in.jsonl", b'{"a": ' + b"9" * 5_000 + b"}", "line 1: not JSON"),
        ("in.jsonl.gz", gzip.compress(b'{"text": "a"}\n' * 9)[:-9], "Cannot read"),
    ],
)
@pytest.mark.parametrize("infer_types", [False, True])
def test_files_that_cannot_be_read_are_input_errors(
    staged: Stage, tmp_path: Path, name: str, content: bytes, reason: str, infer_types: bool
) -> None:
    with pytest.raises(InputError, match=rf"(?s){name}.*{reason}|{reason}.*{name}"):
        staged(name, content, infer_types)
    left = [path.name for path in (tmp_path / "staged").glob("*")]
    assert left == []


def test_json_types(staged: Stage) -> None:
    rows = [
        {"asin": "0041", "stars": 5, "price": 1, "ok": True, "none": None, "text": "a"},
        {"text": "b", "price": 2.5, "votes": 10**15},
        {"text": None, "stars": None, "ok": False, "none": None},
    ]
    table = staged("in.jsonl", lines(*rows))
    assert types(table) == {
        "asin": "string",
        "stars": "int64",
        "price": "double",
        "ok": "bool",
        "none": "string",
        "text": "string",
        "votes": "int64",
    }
    assert table.to_pylist() == [{name: row.get(name) for name in table.schema.names} for row in rows]


def test_json_nested_values(staged: Stage) -> None:
    rows = [
        {"text": "a", "images": [], "style": {"color": "red"}, "ranks": [[1], []]},
        {"text": "b", "images": [{"url": "u", "size": [1, 2]}], "style": {"size": 7}, "ranks": None},
    ]
    table = staged("in.jsonl", lines(*rows))
    assert table["images"].to_pylist() == [[], [{"url": "u", "size": [1, 2]}]]
    assert table["style"].to_pylist() == [{"color": "red", "size": None}, {"color": None, "size": 7}]
    assert table["ranks"].to_pylist() == [[[1], []], None]


@pytest.mark.parametrize(
    ("values", "written"),
    [
        (["a", 1, True, None, {"x": "é"}, [1]], ["a", "1", "true", None, '{"x": "é"}', "[1]"]),
        ([1, True], ["1", "true"]),
        ([{}, {}], ["{}", "{}"]),
        ([[{}], []], ["[{}]", "[]"]),
        ([{"a": 1}, {"a": "x"}], ['{"a": 1}', '{"a": "x"}']),
        ([10**30, 1], [str(10**30), "1"]),
        ([2**64 - 1, -1], [str(2**64 - 1), "-1"]),
        ([2**53 + 1, 0.5], [str(2**53 + 1), "0.5"]),
    ],
)
@pytest.mark.parametrize("apart", [0, 10_000])
def test_json_values_of_no_common_type_become_text(
    staged: Stage, values: list[Any], written: list[str | None], apart: int
) -> None:
    # Ten thousand lines apart, so that the values are met in different blocks.
    rows: list[dict[str, Any]] = [{"text": "a", "value": values[0]}, *([{"text": "b"}] * apart)]
    table = staged("in.jsonl", lines(*rows, *({"value": value} for value in values[1:])))
    assert types(table)["value"] == "string"
    assert [value for value in table["value"].to_pylist() if value] == [value for value in written if value]
    assert table.num_rows == len(values) + apart


def test_json_types_widen_from_block_to_block(staged: Stage) -> None:
    first = {"n": 1, "late": None, "style": {"a": 1}, "tags": []}
    last = {"n": 0.5, "late": "x", "style": {"b": "y"}, "tags": ["t"], "new": 3}
    table = staged("in.jsonl", lines(*([first] * 10_000), last))
    assert types(table)["n"] == "double"
    assert table.slice(10_000).to_pylist() == [{**last, "style": {"a": None, "b": "y"}}]
    assert table.slice(0, 1).to_pylist() == [{**first, "n": 1.0, "style": {"a": 1, "b": None}, "new": None}]


@pytest.mark.parametrize("shape", ["[", '{"a":'])
def test_json_nested_too_deep_for_parquet_becomes_text(staged: Stage, shape: str) -> None:
    value = shape * 100 + "1" + ("]" if shape == "[" else "}") * 100
    table = staged("in.jsonl", f'{{"text": "a", "value": {value}}}\n')
    assert json.loads(table["value"][0].as_py()) == json.loads(value)


def test_json_halves_of_surrogate_pairs_are_replaced(staged: Stage) -> None:
    table = staged("in.jsonl", r'{"text": "a\ud800b\udfff", "\ud800": [{"x": "\ud83d\ude00"}, {"x": "\ud83d"}]}')
    assert table.to_pylist() == [{"text": "a\ufffdb\ufffd", "\ufffd": [{"x": "😀"}, {"x": "\ufffd"}]}]


def test_json_blank_lines_and_control_characters(staged: Stage) -> None:
    table = staged("in.jsonl", '\n{"text": "a\\u0000b\\n"}\r\n  \t\n\n{"text": "é\u2028c"}')
    assert table["text"].to_pylist() == ["a\x00b\n", "é\u2028c"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(st.sampled_from(["text", "a", "b"]), JSON, min_size=1), min_size=1, max_size=5))
def test_any_json_lines_keep_their_strings_and_rows(staged: Stage, rows: list[dict[str, Any]]) -> None:
    table = staged("in.jsonl", lines(*rows))
    assert table.num_rows == len(rows)
    for name in table.schema.names:
        for row, value in zip(rows, table[name].to_pylist(), strict=True):
            if row.get(name) is None:
                assert value is None
            elif isinstance(row[name], str):
                assert value == row[name]
            elif isinstance(value, str):
                assert json.loads(value) == row[name]
            elif not isinstance(row[name], list | dict):
                assert value == row[name]


def test_a_staged_copy_is_used_again(stage_source: Callable[..., Source], tmp_path: Path) -> None:
    first = stage_source("in.csv", "id,text\n01,a\n")
    written = Path(first.location.path).stat().st_mtime_ns
    again = stage_source("in.csv", "id,text\n01,a\n")
    assert again.location == first.location
    assert Path(again.location.path).stat().st_mtime_ns == written
    typed = stage_source("in.csv", "id,text\n01,a\n", infer_types=True)
    changed = stage_source("in.csv", "id,text\n02,a\n")
    assert len({s.location.path for s in (first, typed, changed)}) == 3
    assert typed.identity == first.identity != changed.identity
    assert not any(path.name.endswith(".parquet") for path in (tmp_path / "staged").iterdir())


def test_the_identity_of_an_input_is_of_all_its_bytes(tmp_path: Path, stage_source: Callable[..., Source]) -> None:
    source = stage_source("in.csv.gz", gzip.compress(b"id,text\n01,a\n", mtime=0))
    assert source.identity == content_identity(locate(tmp_path / "in.csv.gz"))
    assert source.identity.size == (tmp_path / "in.csv.gz").stat().st_size
    with pytest.raises(InputError, match=r"none\.csv"):
        content_identity(locate(tmp_path / "none.csv"))
