"""Which files an INPUT stands for."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import fs

from rayft.data.inputs import Listing, list_inputs
from rayft.data.storage import Location, locate
from rayft.errors import UsageError

TREE = (
    "a.parquet",
    "b.csv",
    "c.txt",
    "[x].parquet",
    "2024/a.parquet",
    "2024/b.jsonl",
    "2024/01/a.parquet",
    "2024/01/ab.parquet",
    "2025/a.tsv.gz",
    "2025/01/c.pq",
    "2025/-]/d.parq",
)

Tree = Callable[..., Path]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Make empty files of the given names; returns their folder."""

    def make(*names: str) -> Path:
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return make


def names(listing: Listing) -> list[str]:
    return [file.name for file in listing.files]


def skipped(listing: Listing) -> dict[str, int]:
    return {reason: len(found) for reason, found in listing.skipped.items()}


def test_a_file_a_folder_and_a_glob(tree: Tree) -> None:
    root = tree(*TREE)
    assert names(list_inputs([f"{root}/2024/a.parquet"])) == ["a.parquet"]
    assert names(list_inputs([f"{root}/2024"])) == ["01/a.parquet", "01/ab.parquet", "a.parquet", "b.jsonl"]
    assert names(list_inputs([f"{root}/2024/"])) == names(list_inputs([f"{root}/2024"]))
    assert names(list_inputs([f"{root}/2024/*"])) == names(list_inputs([f"{root}/2024"]))
    assert names(list_inputs([f"{root}/*/a.*"])) == ["2024/a.parquet", "2025/a.tsv.gz"]


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        ("*.parquet", ["[x].parquet", "a.parquet"]),
        ("?.parquet", ["a.parquet"]),
        ("202?/01/*", ["2024/01/a.parquet", "2024/01/ab.parquet", "2025/01/c.pq"]),
        ("2024/**", ["01/a.parquet", "01/ab.parquet", "a.parquet", "b.jsonl"]),
        ("2024/**/*.parquet", ["01/a.parquet", "01/ab.parquet", "a.parquet"]),
        ("**/01/*.p[aq]*", ["2024/01/a.parquet", "2024/01/ab.parquet", "2025/01/c.pq"]),
        ("**/a.parquet", ["2024/01/a.parquet", "2024/a.parquet", "a.parquet"]),
        ("202[4]/?.parquet", ["2024/a.parquet"]),
        ("202[!4]/*.gz", ["2025/a.tsv.gz"]),
        ("202[^4]/*.gz", ["2025/a.tsv.gz"]),
        ("202[0-4]/b*", ["2024/b.jsonl"]),
        ("2025/[]-][]-]/*", ["-]/d.parq"]),
        ("[x].parquet", ["[x].parquet"]),  # a file of that very name
        ("2024/0[1]", ["01/a.parquet", "01/ab.parquet"]),
        ("202*5", ["2025/-]/d.parq", "2025/01/c.pq", "2025/a.tsv.gz"]),
    ],
)
def test_globs(tree: Tree, pattern: str, matched: list[str]) -> None:
    root = tree(*TREE)
    assert names(list_inputs([f"{root}/{pattern}"])) == matched


@pytest.mark.parametrize("pattern", ["*.json", "b?.csv", "[!]", "[", "[z-a].csv", "a[!.]parquet", "nowhere/*.csv"])
def test_a_glob_that_matches_nothing(tree: Tree, pattern: str) -> None:
    root = tree("a.parquet", "b.csv")
    with pytest.raises(UsageError, match="No file matches"):
        list_inputs([f"{root}/{pattern}"])


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.lists(st.sampled_from(["*", "?", "a", "b", "01", "202", "4", ".parquet", "[a4]", "[!a]", "-"]), min_size=1)
        .map("".join)
        .filter(lambda part: "**" not in part)
        | st.just("**"),
        min_size=1,
        max_size=4,
    ).map("/".join)
)
def test_globs_are_those_of_python(tree: Tree, pattern: str) -> None:
    root = tree(*TREE)
    expected = set()
    for match in glob.glob(f"{root}/{pattern}", recursive=True):
        inside = [match] if os.path.isfile(match) else [str(p) for p in Path(match).rglob("*") if p.is_file()]
        expected.update(path for path in inside if not path.endswith(".txt"))
    try:
        listing = list_inputs([f"{root}/{pattern}"])
    except UsageError:
        listing = Listing()
    assert {file.location.path for file in listing.files} == expected


@pytest.mark.parametrize(
    "name",
    [
        "_SUCCESS.parquet",
        ".hidden.parquet",
        "_temporary/a.parquet",
        ".git/a.parquet",
        "deep/_delta_log/x/a.csv",
        "deep/.snapshots/a.jsonl",
        "out.parquet.rayft/staged/a.parquet",
    ],
)
@pytest.mark.parametrize("given_as", ["{root}", "{root}/**", "{root}/**/*"])
def test_hidden_names_anywhere_are_passed_over_and_counted(tree: Tree, name: str, given_as: str) -> None:
    root = tree("in.parquet", name)
    listing = list_inputs([given_as.format(root=root)])
    assert names(listing) == ["in.parquet"]
    assert skipped(listing) == {"name begins with _ or .": 1}


def test_names_above_the_input_do_not_hide_it(tree: Tree) -> None:
    root = tree("_work/.cache/in.parquet")
    assert names(list_inputs([f"{root}/_work/.cache"])) == ["in.parquet"]
    assert names(list_inputs([f"{root}/_work/.cache/*.parquet"])) == ["in.parquet"]


def test_a_file_that_is_named_is_taken_whatever_its_name(tree: Tree) -> None:
    root = tree("_in.parquet", ".in.csv")
    assert names(list_inputs([f"{root}/_in.parquet", f"{root}/.in.csv"])) == [".in.csv", "_in.parquet"]


def test_files_of_unknown_formats_are_counted(tree: Tree) -> None:
    listing = list_inputs([str(tree("a.parquet", "README", "b.json", "c.xlsx", "d.parquet.crc", "e.gz"))])
    assert names(listing) == ["a.parquet"]
    assert skipped(listing) == {"not Parquet, CSV or JSONL": 5}


def test_files_below_the_output_are_counted(tree: Tree) -> None:
    root = tree("a.parquet", "out/a.parquet", "out/_rayft/plan.json", "outside.parquet", "x/out/b.parquet")
    elsewhere = Location(fs.LocalFileSystem(), f"{root}/out", "s3://")
    listing = list_inputs([str(root)], locate(root / "out"))
    assert names(listing) == ["a.parquet", "outside.parquet", "x/out/b.parquet"]
    assert skipped(listing) == {"below the output": 2}
    assert names(list_inputs([f"{root}/**/*.parquet"], locate(root / "out"))) == names(listing)
    assert "out/a.parquet" in names(list_inputs([str(root)], elsewhere))


def test_an_output_file_hides_no_input(tree: Tree) -> None:
    root = tree("a.parquet", "b.parquet", "out.parquet.rayft/plan.json")
    assert names(list_inputs([str(root)], locate(root / "b.parquet"))) == ["a.parquet", "b.parquet"]


def test_what_is_given_twice_counts_once(tree: Tree) -> None:
    root = tree("a.parquet", "b.csv", "_c.csv", "d.txt")
    listing = list_inputs([f"{root}/a.parquet", f"{root}/*", f"{root}/../{root.name}", f"{root}/**", f"{root}/b.csv"])
    assert names(listing) == ["a.parquet", "b.csv"]
    assert skipped(listing) == {"name begins with _ or .": 1, "not Parquet, CSV or JSONL": 1}
    assert names(list_inputs([f"{root}/*.csv", f"{root}/_c.csv"])) == ["_c.csv", "b.csv"]


def test_files_are_sorted_and_know_format_and_size(tmp_path: Path) -> None:
    formats = {
        "a.csv": "csv",
        "b.TSV": "csv",
        "c.csv.gz": "csv",
        "d.tsv.GZ": "csv",
        "e.jsonl": "jsonl",
        "f.ndjson": "jsonl",
        "g.JSONL.gz": "jsonl",
        "h.ndjson.gz": "jsonl",
        "i.parquet": "parquet",
        "j.PQ": "parquet",
        "k.parq": "parquet",
    }
    for name in formats:
        (tmp_path / name).write_bytes(name.encode())
    found = list_inputs([str(tmp_path)]).files
    assert {file.name: file.format for file in found} == formats
    assert [file.name for file in found] == sorted(formats)
    assert [file.size for file in found] == [len(name) for name in sorted(formats)]
    assert [file.output_name for file in found] == [f"{name.split('.')[0]}.parquet" for name in sorted(formats)]


def test_output_names_keep_folders_and_other_dots(tree: Tree) -> None:
    root = tree("v1.2/reviews.2024.csv.gz", "v1.2/a.parquet", "x.csv.parquet")
    outputs = {file.name: file.output_name for file in list_inputs([str(root)]).files}
    assert outputs == {
        "v1.2/reviews.2024.csv.gz": "v1.2/reviews.2024.parquet",
        "v1.2/a.parquet": "v1.2/a.parquet",
        "x.csv.parquet": "x.csv.parquet",
    }


def test_parquet_without_a_suffix_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    for name in ("part-00000", "part-00001.gz"):
        pq.write_table(pa.table({"text": ["a"]}), tmp_path / name)
        (file,) = list_inputs([str(tmp_path / name)]).files
        assert (file.name, file.format, file.output_name) == (name, "parquet", f"{name}.parquet")


@pytest.mark.parametrize("content", [b"", b"PAR", b'{"text": "a"}', b"\x1f\x8b\x08\x00broken"])
@pytest.mark.parametrize("name", ["reviews", "reviews.txt", "reviews.gz", "reviews.bz2"])
def test_a_named_file_of_no_known_format_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=rf"{name} is not Parquet.*\.parquet.*\.csv.*\.jsonl"):
        list_inputs([str(tmp_path / name)])


def test_an_input_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"There is no file or directory .*nowhere\.parquet"):
        list_inputs([str(tmp_path / "nowhere.parquet")])


def test_an_empty_folder_has_no_files(tmp_path: Path) -> None:
    listing = list_inputs([str(tmp_path)])
    assert (listing.files, listing.skipped) == ([], {})
