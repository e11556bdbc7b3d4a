"""Parquet inputs: what identifies them, and reading rows by range."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayft.data import source as source_module
from rayft.data.source import Identity, open_parquet, parquet_identity, read_rows
from rayft.data.storage import locate
from rayft.errors import InputError
from tests.helpers import reviews, write_reviews


def write_groups(path: Path, table: pa.Table, groups: list[int]) -> Path:
    """Write `table` in row groups of the given numbers of rows, none of which is empty."""
    with pq.ParquetWriter(path, table.schema) as writer:
        start = 0
        for rows in groups:
            writer.write_table(table.slice(start, rows), row_group_size=max(rows, 1))
            start += rows
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("source")


@pytest.fixture(scope="module")
def small_batches() -> Iterator[None]:
    """Batches as small as those of rows of half a megabyte, so that ranges begin and end within them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source_module, "_BATCH_BYTES", 1)
        yield


@settings(deadline=None, max_examples=40)
@given(groups=st.lists(st.integers(0, 50), max_size=6), data=st.data())
def test_rows_are_those_of_the_whole_table(
    folder: Path, small_batches: None, groups: list[int], data: st.DataObject
) -> None:
    table = reviews(sum(groups))
    path = write_groups(folder / "groups.parquet", table, groups)
    source = open_parquet(locate(path))
    assert source.num_rows == table.num_rows
    for _ in range(3):
        start = data.draw(st.integers(0, table.num_rows))
        count = data.draw(st.integers(0, table.num_rows - start))
        names = data.draw(st.none() | st.sampled_from([["text"], ["title", "id"], ["text", "title"]]))
        batches = list(read_rows(source, start, count, names))
        expected = table.slice(start, count)
        if names is None:
            assert pa.Table.from_batches(batches, source.schema).equals(expected)
        else:
            for name in names:
                got = [value for batch in batches for value in batch.column(name).to_pylist()]
                assert got == expected[name].to_pylist()
        assert all(batch.num_rows for batch in batches)


def test_a_big_row_group_is_read_in_pieces(tmp_path: Path) -> None:
    source = open_parquet(locate(write_reviews(tmp_path / "in.parquet", 10_000)))
    sizes = [batch.num_rows for batch in read_rows(source, 100, 9_000)]
    assert sum(sizes) == 9_000
    assert max(sizes) <= 4_096
    pq.write_table(pa.table({"text": ["x" * 600_000] * 40}), tmp_path / "big.parquet", use_dictionary=False)
    source = open_parquet(locate(tmp_path / "big.parquet"))
    assert [batch.num_rows for batch in read_rows(source, 0, 40)] == [16, 16, 8]


def test_a_source_describes_the_file(tmp_path: Path) -> None:
    table = reviews(25).replace_schema_metadata({"origin": "shop"})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=10)
    source = open_parquet(locate(tmp_path / "in.parquet"))
    assert source.row_groups == (10, 10, 5)
    assert source.num_rows == 25
    assert source.schema.equals(table.schema, check_metadata=True)
    assert source.footer[b"origin"] == b"shop"
    assert source.row_bytes > 1
    assert source.identity == parquet_identity(locate(tmp_path / "in.parquet"))
    assert source.identity.size == (tmp_path / "in.parquet").stat().st_size


def test_a_staged_copy_keeps_the_identity_of_the_input(tmp_path: Path) -> None:
    path = write_reviews(tmp_path / "in.parquet", 3)
    assert open_parquet(locate(path), Identity(7, "abc")).identity == Identity(7, "abc")
    assert str(Identity(1234567, "abc")) == "1,234,567 bytes, abc"


def test_identity_is_of_content_not_of_name_or_time(tmp_path: Path) -> None:
    first = write_reviews(tmp_path / "a.parquet", 50, seed=1)
    identity = parquet_identity(locate(first))
    os.utime(first, (0, 0))
    assert parquet_identity(locate(first)) == identity
    assert parquet_identity(locate(write_reviews(tmp_path / "b.parquet", 50, seed=1))) == identity


@pytest.mark.parametrize("change", ["values", "rows", "order", "metadata", "row groups", "column name"])
def test_identity_changes_with_the_content(tmp_path: Path, change: str) -> None:
    table = reviews(50, seed=1)
    group_rows = 50
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=group_rows)
    if change == "values":
        table = reviews(50, seed=2)
    elif change == "rows":
        table = table.slice(0, 49)
    elif change == "order":
        table = table.sort_by([("text", "ascending")])
    elif change == "metadata":
        table = table.replace_schema_metadata({"a": "b"})
    elif change == "row groups":
        group_rows = 25
    else:
        table = table.rename_columns(["id", "title", "body"])
    pq.write_table(table, tmp_path / "b.parquet", row_group_size=group_rows)
    assert parquet_identity(locate(tmp_path / "a.parquet")) != parquet_identity(locate(tmp_path / "b.parquet"))


def test_identity_tells_small_files_of_one_footer_apart(tmp_path: Path) -> None:
    rows = [None if i % 7 == 0 else f"text {i}" for i in range(40)]
    for name, values in (("a", rows), ("b", rows[::-1])):  # equal in sizes and statistics
        pq.write_table(pa.table({"text": values}), tmp_path / name)
    assert pq.read_metadata(tmp_path / "a").equals(pq.read_metadata(tmp_path / "b"))
    assert parquet_identity(locate(tmp_path / "a")) != parquet_identity(locate(tmp_path / "b"))


def test_identity_of_a_footer_longer_than_the_first_read(tmp_path: Path) -> None:
    names = [f"column_with_a_long_name_{i}" for i in range(2_000)]
    for file, value in (("a", 1), ("b", 2)):
        columns = {name: [value if i == 0 else 0] for i, name in enumerate(names)}  # differs at the footer's start
        pq.write_table(pa.table(columns), tmp_path / file)
    size = int.from_bytes((tmp_path / "a").read_bytes()[-8:-4], "little")
    assert size > 128 << 10
    assert parquet_identity(locate(tmp_path / "a")) != parquet_identity(locate(tmp_path / "b"))
    assert open_parquet(locate(tmp_path / "a")).schema.names == names


def test_every_truncation_is_an_input_error_that_names_the_file(tmp_path: Path) -> None:
    whole = write_reviews(tmp_path / "whole.parquet", 30, row_group_size=10).read_bytes()
    path = tmp_path / "cut.parquet"
    for size in {0, 1, 4, 8, 11, 12, 100, *range(0, len(whole), 97), len(whole) - 8, len(whole) - 4, len(whole) - 1}:
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"cut\.parquet"):
            open_parquet(locate(path))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"id,text\n1,good\n", "not a complete Parquet file"),
        (b"PAR1" * 10, "footer is longer than the file"),
        (b"PAR1" + b"\x00" * 100 + (50).to_bytes(4, "little") + b"PAR1", "Cannot read"),
        (b"PAR1" + b"\xff" * 100 + (50).to_bytes(4, "little") + b"PAR1", "Cannot read"),
        (b"PAR1" + (0).to_bytes(4, "little") + b"PAR1", "Cannot read"),
        (b"PAR1" + (2**32 - 1).to_bytes(4, "little") + b"PAR1", "footer is longer than the file"),
    ],
)
def test_garbage_is_an_input_error_that_names_the_file(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "bad.parquet").write_bytes(content)
    with pytest.raises(InputError, match=rf"bad\.parquet.*{reason}|{reason}.*bad\.parquet"):
        open_parquet(locate(tmp_path / "bad.parquet"))


def test_a_missing_file_and_a_folder_are_input_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "none.parquet", tmp_path):
        with pytest.raises(InputError, match="Cannot read"):
            open_parquet(locate(path))


def test_damage_among_the_rows_is_an_input_error(tmp_path: Path) -> None:
    path = write_reviews(tmp_path / "in.parquet", 2_000)
    source = open_parquet(locate(path))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle - 2_000 : middle + 2_000] = b"\xff" * 4_000
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"Cannot read .*in\.parquet"):
        list(read_rows(source, 0, 2_000))


@pytest.mark.parametrize("change", ["gone", "fewer rows", "fewer row groups", "no text column"])
def test_a_file_that_changed_since_it_was_opened_is_an_input_error(tmp_path: Path, change: str) -> None:
    path = write_reviews(tmp_path / "in.parquet", 30, row_group_size=10)
    source = open_parquet(locate(path))
    if change == "gone":
        path.unlink()
    elif change == "fewer rows":
        pq.write_table(reviews(27), path, row_group_size=9)
    elif change == "fewer row groups":
        pq.write_table(reviews(20), path, row_group_size=10)
    else:
        pq.write_table(reviews(30).drop_columns(["text"]), path, row_group_size=10)
    with pytest.raises(InputError, match=r"in\.parquet"):
        list(read_rows(source, 0, 30, ["title", "text"]))
