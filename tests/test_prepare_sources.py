"""Every kind of source, as files in the exact published format, told by content."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayft.errors import InputError, UsageError
from rayft.prepare.config import PrepareConfig
from rayft.prepare.recognise import open_source
from rayft.prepare.rows import ROW_SCHEMA, RowBuilder, in_chunks, split_of_path

# As in amazon_review_polarity_csv.tar.gz: no header, all quoted, quotes doubled, line breaks as \n.
POLARITY_TRAIN = r""""2","Stuning even for the non-gamer","This sound track was beautiful! It ""paints"" the senery."
"1","Buyer beware","Self-published, and\nif you want to know why--read a few paragraphs!"
"2","","No title here, with ümlaut."
"""
POLARITY_TEST = '"1","Batteries died","within a year ..."\n'
FASTTEXT = "__label__2 Great CD: My lovely Pat has one of the GREAT voices.\n__label__1 Bad: It broke: twice.\n"


def config(**options: Any) -> PrepareConfig:
    return PrepareConfig(sources=("x",), output="x", **options)


def read(source: Path, **options: Any) -> list[dict[str, Any]]:
    opened = open_source(str(source), config(**options))
    tables = [table for part in opened.parts for table in part.read()]
    assert all(table.schema.equals(ROW_SCHEMA) for table in tables)
    again = [table for part in opened.parts for table in part.read()]
    assert [t.to_pylist() for t in again] == [t.to_pylist() for t in tables]
    return [row for table in tables for row in table.to_pylist()]


def short(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(r["title"], r["text"], r["label"], r["split"]) for r in rows]


def polarity_tarball(path: Path) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in (("readme.txt", "Amazon"), ("test.csv", POLARITY_TEST), ("train.csv", POLARITY_TRAIN)):
            info = tarfile.TarInfo(f"amazon_review_polarity_csv/{name}")
            info.size = len(content.encode())
            archive.addfile(info, io.BytesIO(content.encode()))
    return path


EXPECTED = [
    (
        "Stuning even for the non-gamer",
        'This sound track was beautiful! It "paints" the senery.',
        "positive",
        "train",
    ),
    ("Buyer beware", "Self-published, and if you want to know why--read a few paragraphs!", "negative", "train"),
    ("", "No title here, with ümlaut.", "positive", "train"),
    ("Batteries died", "within a year ...", "negative", "test"),
]


@pytest.mark.parametrize("name", ["amazon_review_polarity_csv.tar.gz", "download"])
def test_polarity_tarball(tmp_path: Path, name: str) -> None:
    assert short(read(polarity_tarball(tmp_path / name))) == EXPECTED


def test_polarity_csv_unpacked(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(POLARITY_TRAIN)
    (tmp_path / "test.csv").write_text(POLARITY_TEST)
    (tmp_path / "readme.txt").write_text("Amazon")
    assert sorted(map(str, short(read(tmp_path)))) == sorted(map(str, EXPECTED))


def test_csv_of_five_classes_keeps_its_numbers(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("".join(f'"{i}","title","text {i}"\n' for i in range(1, 6)))
    assert [r["label"] for r in read(tmp_path / "train.csv")] == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize(("suffix", "pack"), [("", bytes), (".bz2", bz2.compress), (".gz", gzip.compress)])
def test_fasttext(tmp_path: Path, suffix: str, pack: Any) -> None:
    (tmp_path / f"train.ft.txt{suffix}").write_bytes(pack(FASTTEXT.encode()))
    (tmp_path / f"test.ft.txt{suffix}").write_bytes(pack(b"__label__1 No: bad\n"))
    assert short(read(tmp_path)) == [
        (None, "No: bad", "negative", "test"),
        (None, "Great CD: My lovely Pat has one of the GREAT voices.", "positive", "train"),
        (None, "Bad: It broke: twice.", "negative", "train"),
    ]


def test_fasttext_problems_are_rows(tmp_path: Path) -> None:
    file = tmp_path / "reviews.txt"
    file.write_bytes(b"__label__a one\nno label\n\n__label__a __label__b two\n__label__a caf\xe9\n__label__b three")
    rows = read(file)
    assert [r["problem"] for r in rows] == [None, "line without __label__", "several labels", "not UTF-8", None]
    assert [r["label"] for r in rows if not r["problem"]] == ["a", "b"]
    assert read(file, encoding="latin-1")[3]["text"] == "café"


def test_user_csv(tmp_path: Path) -> None:
    file = tmp_path / "shop.csv"
    file.write_bytes(
        b'\xef\xbb\xbfid,title,text,stars\n1,Good,"two\nlines, ""quoted""",5\n2,,bad,1.0\n3,x,ok\n4,a,caf\xe9,2\n'
    )
    rows = read(file)
    assert short(rows[:2]) == [("Good", 'two\nlines, "quoted"', "5", None), ("", "bad", "1.0", None)]
    assert [r["problem"] for r in rows[2:]] == ["3 fields instead of 4", "not UTF-8"]


def test_semicolons_and_columns_by_option(tmp_path: Path) -> None:
    file = tmp_path / "kunden.csv"
    file.write_text("Nr;Meinung;Urteil;teil\n1;gut;ja;train\n2;schlecht, sehr;nein;test\n")
    with pytest.raises(UsageError, match="no column that looks like review text"):
        read(file)
    with pytest.raises(UsageError, match="no column that looks like a label; it has: Nr, Meinung, Urteil, teil"):
        read(file, text_column="Meinung")
    rows = read(file, text_column="Meinung", label_column="Urteil", split_column="teil")
    assert short(rows) == [(None, "gut", "ja", "train"), (None, "schlecht, sehr", "nein", "test")]


def test_unclosed_quote(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text('text,label\nfine,a\n"never closed,b\n' + "x,y\n" * (5 << 20))
    with pytest.raises(InputError, match="is a quote never closed"):
        read(file)


def test_user_jsonl(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    lines = [
        json.dumps({"text": "good", "rating": 5}),
        "",
        "{broken",
        json.dumps({"text": "\ud83d bad", "rating": 1.0}),
    ]
    file.write_text("\n".join([*lines, "[1]", json.dumps({"text": None, "rating": None})]))
    rows = read(file)
    assert [(r["text"], r["label"], r["problem"]) for r in rows] == [
        ("good", "5", None),
        (None, None, "line is not JSON"),
        ("? bad", "1.0", None),
        (None, None, "line is not a JSON object"),
        (None, None, None),
    ]


def test_user_parquet(tmp_path: Path) -> None:
    table = pa.table(
        {
            "body": pa.array(["a", None, "c"], pa.large_string()),
            "headline": pa.array(["x", "y", None]).dictionary_encode(),
            "label": pa.array([1.0, 0.0, None]),
            "category": ["k", "k", "k"],
        }
    )
    pq.write_table(table, tmp_path / "validation-00000.parquet")
    assert short(read(tmp_path / "validation-00000.parquet")) == [
        ("x", "a", "1", "validation"),
        ("y", None, "0", "validation"),
        (None, "c", None, "validation"),
    ]


def test_class_names_in_parquet_metadata(tmp_path: Path) -> None:
    info = {"info": {"features": {"label": {"names": ["neg", "pos"], "_type": "ClassLabel"}}}}
    table = pa.table({"text": ["a", "b", "c"], "label": [1, 0, -1]})
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(info)}), tmp_path / "a.parquet")
    assert [r["label"] for r in read(tmp_path / "a.parquet")] == ["pos", "neg", None]


def test_acl_imdb(tmp_path: Path) -> None:
    for name, text in {
        "README": "Large Movie Review Dataset",
        "imdb.vocab": "the",
        "train/urls_pos.txt": "http://",
        "train/pos/0_9.txt": "Great<br /><br />film",
        "train/neg/1_1.txt": "Awful",
        "train/unsup/2_0.txt": "Who knows",
        "test/pos/0_10.txt": "Fine",
        "test/neg/0_2.txt": "Not fine",
    }.items():
        path = tmp_path / "aclImdb" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "aclImdb/test/neg/9_2.txt").write_bytes(b"\xff\xfe")
    rows = read(tmp_path / "aclImdb")
    assert [(r["text"], r["label"], r["split"], r["problem"]) for r in rows] == [
        ("Not fine", "neg", "test", None),
        (None, None, None, "not UTF-8"),
        ("Fine", "pos", "test", None),
        ("Awful", "neg", "train", None),
        ("Great<br /><br />film", "pos", "train", None),
        ("Who knows", None, "train", None),
    ]
    assert read(tmp_path)[0] == rows[0]  # a folder above it is as good


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\x00\x01\x02\x03 binary", "neither Parquet nor text"),
        ("text,label\n".encode("utf-16"), "UTF-16; read it with --encoding utf-16"),
        (b'[{"text": "a"}]', "one JSON array"),
        (b"just some text\nmore text\n", "in no format that rayft knows"),
        (b"text,text,label\na,b,c\n", "two columns of the same name"),
    ],
)
def test_what_is_no_source(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "thing"
    file.write_bytes(content)
    with pytest.raises((UsageError, InputError), match=message):
        read(file)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no Parquet, CSV"):
        open_source(str(tmp_path), config())
    with pytest.raises(UsageError, match="There is no file or directory"):
        open_source(str(tmp_path / "no.csv"), config())


def test_damaged_archives(tmp_path: Path) -> None:
    good = polarity_tarball(tmp_path / "a.tgz").read_bytes()
    (tmp_path / "cut.tgz").write_bytes(good[: len(good) // 2])
    with pytest.raises((InputError, UsageError)):
        read(tmp_path / "cut.tgz")
    packed = bz2.compress(FASTTEXT.encode() * 1000)
    (tmp_path / "cut.bz2").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(InputError, match="Cannot read"):
        read(tmp_path / "cut.bz2")


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("data/train-00000-of-00004.parquet", "train"),
        ("plain_text/test/0000.parquet", "test"),
        ("default/partial-train/0000.parquet", "train"),
        ("test.ft.txt.bz2", "test"),
        ("dev.jsonl", "validation"),
        ("latest_reviews.csv", None),
        ("train_test.csv", None),
        ("contest/a.csv", None),
    ],
)
def test_split_of_path(path: str, split: str | None) -> None:
    assert split_of_path(path) == split


@given(st.lists(st.integers(0, 7), max_size=12), st.integers(1, 6))
def test_chunks_keep_rows_and_order(sizes: list[int], rows: int) -> None:
    def tables() -> Any:
        number = 0
        for size in sizes:
            builder = RowBuilder()
            for _ in range(size):
                builder.add(None, str(number), "a", None)
                number += 1
            yield builder.take()

    chunks = list(in_chunks(tables(), rows))
    assert all(chunk.num_rows == rows for chunk in chunks[:-1])
    assert [t for c in chunks for t in c["text"].to_pylist()] == [str(i) for i in range(sum(sizes))]
