"""`rayft score` as its user meets it: files in, files out, messages, exit codes."""

from __future__ import annotations

import datetime
import decimal
import json
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayft.data.columns import SCORE_NAMES
from rayft.data.storage import locate
from rayft.score.commit import read_footer
from tests.helpers import DATA, EXAMPLE, Cli, needs_data, reviews, tiny_checkpoint, write_reviews


@pytest.fixture
def score(cli: Cli, tiny: Path):
    """Run `rayft score` with the tiny model in fp32."""

    def run(*args: object):
        return cli("score", "--model", tiny, "--precision", "fp32", *args)

    return run


def test_one_file_is_scored_beside_it_and_every_row_kept(score, tmp_path: Path) -> None:
    source = write_reviews(tmp_path / "dump.parquet", 300, row_group_size=70)
    ran = score(source, "--json")
    assert ran.code == 0, ran.err
    out = pq.read_table(tmp_path / "dump.scored.parquet")
    assert out.select(["id", "title", "text"]).equals(pq.read_table(source))
    assert out.column_names[3:] == list(SCORE_NAMES)
    report = ran.json
    assert report["rows"] == {"total": 300, "labelled": 283, "unlabelled": {"empty": 17}, "this_run": 300}
    rows = out.to_pylist()
    assert [row["score_note"] for row in rows[15:18]] == [None, "empty", None]
    assert all(row["label"] is None and row["defect"] is None for row in rows if row["text"] is None)
    labelled = [row for row in rows if row["label"]]
    assert all(0.5 <= row["confidence"] <= 1 for row in labelled)
    assert all(row["defect"] == (row["label"] == "negative") for row in labelled)
    assert {row["label"] for row in labelled} == {"negative", "positive"}
    assert sum(report["labels"].values()) == 283
    assert report["defects"]["flagged"] == sum(row["defect"] for row in labelled)


def test_reports_stand_in_the_state_folder_and_nothing_there_ends_in_parquet(score, tmp_path: Path) -> None:
    source = write_reviews(tmp_path / "in/a.parquet", 20)
    assert score(source, "-o", tmp_path / "out/").code == 0
    state = tmp_path / "out/_rayft"
    assert json.loads((state / "report.json").read_text())["rows"]["total"] == 20
    assert json.loads((state / "manifest.json").read_text())["outputs"]["a.parquet"]["rows"] == 20
    assert not list(state.rglob("*.parquet"))
    assert pl.read_parquet(tmp_path / "out/*.parquet").height == 20


def test_exotic_columns_and_metadata_pass_through(score, tmp_path: Path) -> None:
    rows = 40
    zone = pa.timestamp("us", tz="Europe/Berlin")
    table = pa.table(
        {
            "Text": pa.array([f"review number {i} is fine" for i in range(rows)], pa.large_string()),
            "tags": pa.array([["a", None, str(i)] for i in range(rows)], pa.list_(pa.string())),
            "nested": pa.array([{"a": i, "b": [{"c": "x"}]} for i in range(rows)]),
            "price": pa.array([decimal.Decimal(i) / 100 for i in range(rows)], pa.decimal128(12, 2)),
            "at": pa.array([datetime.datetime(2026, 1, 1) + datetime.timedelta(hours=i) for i in range(rows)], zone),
            "kind": pa.array(["x", "y"] * (rows // 2)).dictionary_encode(),
            "raw": pa.array([bytes([i, 255]) for i in range(rows)], pa.binary()),
            "small": pa.array(range(rows), pa.uint8()),
        }
    ).replace_schema_metadata({"origin": "shop"})
    table = table.cast(table.schema.set(7, pa.field("small", pa.uint8(), metadata={"unit": "stars"})))
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=16)
    assert score(tmp_path / "x.parquet", "-o", tmp_path / "y.parquet").code == 0
    before, after = pq.read_table(tmp_path / "x.parquet"), pq.read_table(tmp_path / "y.parquet")
    kept = after.select(before.column_names)
    assert kept.equals(before)
    assert kept.schema.types == before.schema.types
    assert kept.schema.field("small").metadata[b"unit"] == b"stars"
    assert after.schema.metadata[b"origin"] == b"shop"


def test_odd_texts_are_scored(score, tmp_path: Path) -> None:
    texts = ["<br />Bad&#34;", "\x00\x07bell", "😀" * 400, "ремонт 修理", "w" * 5_000_000, " ", "<br>", None, "ok"]
    pq.write_table(pa.table({"text": texts}), tmp_path / "odd.parquet")
    ran = score(tmp_path / "odd.parquet", "--json")
    assert ran.code == 0, ran.err
    out = pq.read_table(tmp_path / "odd.scored.parquet")
    assert out["text"].to_pylist() == texts
    assert [label is None for label in out["label"].to_pylist()] == [False] * 5 + [True] * 3 + [False]
    assert ran.json["rows"]["unlabelled"] == {"empty": 3}


def test_csv_and_jsonl(score, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.csv").write_text('product_id,review\n0041,"it broke,\nbadly"\n0042,fine\n')
    (tmp_path / "in/b.jsonl").write_text('{"id": 1, "review": "good \\ud83d"}\n{"id": 2.5, "review": null}\n')
    ran = score(tmp_path / "in", "-o", tmp_path / "out")
    assert ran.code == 0, ran.err
    a, b = pq.read_table(tmp_path / "out/a.parquet"), pq.read_table(tmp_path / "out/b.parquet")
    assert a["product_id"].to_pylist() == ["0041", "0042"]
    assert a["review"].to_pylist() == ["it broke,\nbadly", "fine"]
    assert b["id"].to_pylist() == [1.0, 2.5]
    assert b["label"].is_valid().to_pylist() == [True, False]
    assert score(tmp_path / "in", "-o", tmp_path / "out").out.count("complete") >= 1


def test_collision_names_the_column_and_prefix_solves_it(score, tmp_path: Path) -> None:
    table = reviews(5).append_column("Label", pa.array(list("abcde")))
    pq.write_table(table, tmp_path / "x.parquet")
    refused = score(tmp_path / "x.parquet")
    assert refused.code == 2
    assert "'Label'" in refused.err and "--prefix rayft_" in refused.err
    assert [p.name for p in tmp_path.iterdir()] == ["x.parquet"], "a refusal leaves no trace"
    assert score(tmp_path / "x.parquet", "--prefix", "rayft_").code == 0
    out = pq.read_table(tmp_path / "x.scored.parquet")
    assert out.column_names[4:] == ["rayft_" + name for name in SCORE_NAMES]
    assert read_footer(locate(tmp_path / "x.scored.parquet"))["columns"]["defect"] == "rayft_defect"


def test_columns_keeps_only_those_asked_for(score, tmp_path: Path) -> None:
    source = write_reviews(tmp_path / "x.parquet", 5)
    assert score(source, "--columns", "confidence,label").code == 0
    assert pq.read_table(tmp_path / "x.scored.parquet").column_names[3:] == ["label", "confidence"]
    wrong = score(source, "--columns", "labels", "-o", tmp_path / "z.parquet")
    assert wrong.code == 2 and "Did you mean 'label'?" in wrong.err


@pytest.mark.parametrize(
    ("columns", "options", "words"),
    [
        ({"foo": ["a"], "bar": ["b"]}, [], ["foo, bar", "--text-column"]),
        ({"text": ["a"], "content": ["b"]}, [], ["text, content", "--text-column"]),
        ({"text": ["a"], "title": ["b"], "summary": ["c"]}, [], ["title, summary", "--title-column"]),
        ({"text": ["a"]}, ["--text-column", "txt"], ["no column 'txt'", "it has: text", "Did you mean 'text'?"]),
        ({"text": [1]}, ["--text-column", "text"], ["holds int64, not text"]),
        ({"text": ["a"]}, ["--title-column", "t", "--no-title"], ["exclude each other"]),
    ],
)
def test_column_errors_say_what_there_is(score, tmp_path: Path, columns, options, words) -> None:
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    ran = score(tmp_path / "x.parquet", *options)
    assert ran.code == 2
    for word in words:
        assert word in ran.err
    assert "Traceback" not in ran.err


def test_usage_errors(score, cli: Cli, tmp_path: Path) -> None:
    a = write_reviews(tmp_path / "a/x.parquet", 5)
    b = write_reviews(tmp_path / "b/x.parquet", 5)
    cases = [
        ((tmp_path / "none.parquet",), "There is no file or directory"),
        ((tmp_path / "a",), "choose one with --output"),
        ((a, b, "-o", tmp_path / "out"), "would both be written to"),
        ((a, b, "-o", tmp_path / "out.parquet"), "is one file, but there are 2 inputs"),
        ((a, "-o", a), "would replace its input"),
        ((tmp_path / "a/*.csv", "-o", tmp_path / "out"), "No file matches"),
        ((a, "--max-length", 9999), "--max-length must be between"),
        ((a, "--negative-label", "bad"), "it has: negative, positive"),
        ((a, "--model", tmp_path), "no config.json"),
        ((a, "--model", tmp_path / "nowhere/deep/x"), "There is no model directory"),
    ]
    for args, words in cases:
        ran = score(*args)
        assert ran.code == 2, (args, ran)
        assert words in " ".join(ran.err.split()), (args, ran.err)
        assert "Traceback" not in ran.err
    assert not (tmp_path / "out").exists()
    assert cli("scroe").code == 2
    assert cli("score").code == 2


def test_rerun_leaves_complete_outputs_alone_and_scores_added_files(score, tmp_path: Path) -> None:
    write_reviews(tmp_path / "in/a.parquet", 30, seed=1)
    out = tmp_path / "out"
    assert score(tmp_path / "in", "-o", out).code == 0
    stamp = (out / "a.parquet").stat().st_mtime_ns
    write_reviews(tmp_path / "in/sub/b.parquet", 20, seed=2)
    second = score(tmp_path / "in", "-o", out, "--json")
    assert second.code == 0
    assert second.json["files"]["complete_before"] == 1 and second.json["files"]["written"] == 1
    assert second.json["rows"]["total"] == 50 and second.json["rows"]["this_run"] == 20
    assert (out / "a.parquet").stat().st_mtime_ns == stamp
    assert pq.read_metadata(out / "sub/b.parquet").num_rows == 20


def test_changed_settings_are_refused_with_the_difference_unless_overwrite(score, tmp_path: Path) -> None:
    source = write_reviews(tmp_path / "a.parquet", 30)
    out = tmp_path / "out.parquet"
    assert score(source, "-o", out).code == 0
    before = out.read_bytes()
    refused = score(source, "-o", out, "--threshold", "0.9")
    assert refused.code == 2 and "threshold: 0.5 before, 0.9 now" in refused.err
    assert out.read_bytes() == before
    assert score(source, "-o", out, "--threshold", "0.9", "--overwrite").code == 0
    assert read_footer(locate(out))["settings"]["threshold"] == 0.9


def test_changed_input_is_refused_and_foreign_files_are_not_replaced(score, tmp_path: Path) -> None:
    source = write_reviews(tmp_path / "a.parquet", 30, seed=1)
    out = tmp_path / "out.parquet"
    assert score(source, "-o", out).code == 0
    write_reviews(source, 31, seed=2)
    changed = score(source, "-o", out)
    assert changed.code == 2 and "has changed since" in changed.err
    assert score(source, "-o", out, "--overwrite").code == 0
    foreign = write_reviews(tmp_path / "foreign.parquet", 3)
    refused = score(source, "-o", foreign)
    assert refused.code == 2 and "not written by rayft" in refused.err
    assert pq.read_metadata(foreign).num_rows == 3


def test_skipped_files_are_counted(score, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write_reviews(folder / "a.parquet", 10)
    write_reviews(folder / "_tmp/b.parquet", 10)
    write_reviews(folder / ".c.parquet", 10)
    (folder / "notes.txt").write_text("x")
    assert score(folder / "a.parquet").code == 0  # leaves a.scored.parquet and its state folder inside
    ran = score(folder, "-o", folder / "out", "--json")
    assert ran.code == 0, ran.err
    skipped = ran.json["files"]["skipped"]
    assert skipped["scored by rayft already"] == 1
    assert skipped["not Parquet, CSV or JSONL"] == 1
    assert skipped["name begins with _ or ."] >= 2
    again = score(folder, "-o", folder / "out", "--json")
    assert again.json["files"]["skipped"]["below the output"] >= 1
    assert again.json["rows"]["total"] == 10


def test_a_damaged_file_is_named_the_rest_is_complete(score, tmp_path: Path) -> None:
    write_reviews(tmp_path / "in/good.parquet", 25)
    bad = tmp_path / "in/bad.parquet"
    bad.write_bytes(b"PAR1 this is not it PAR1")
    ran = score(tmp_path / "in", "-o", tmp_path / "out")
    assert ran.code == 1
    assert "bad.parquet" in ran.err and "Traceback" not in ran.err
    assert pq.read_metadata(tmp_path / "out/good.parquet").num_rows == 25
    assert not (tmp_path / "out/bad.parquet").exists()
    again = score(tmp_path / "in", "-o", tmp_path / "out")
    assert again.code == 1 and "not tried again" in again.err
    write_reviews(bad, 5)
    healed = score(tmp_path / "in", "-o", tmp_path / "out")
    assert healed.code == 0, healed.err
    assert pq.read_metadata(tmp_path / "out/bad.parquet").num_rows == 5


def test_damage_inside_a_file_fails_that_file_only(score, tmp_path: Path) -> None:
    write_reviews(tmp_path / "in/good.parquet", 25)
    bad = write_reviews(tmp_path / "in/bad.parquet", 4000, row_group_size=500)
    data = bytearray(bad.read_bytes())
    data[len(data) // 3 : len(data) // 2] = b"\xff" * (len(data) // 2 - len(data) // 3)
    bad.write_bytes(data)
    ran = score(tmp_path / "in", "-o", tmp_path / "out")
    assert ran.code == 1 and "bad.parquet" in ran.err and "Traceback" not in ran.err
    assert pq.read_metadata(tmp_path / "out/good.parquet").num_rows == 25
    assert not (tmp_path / "out/bad.parquet").exists()


def test_limit_and_empty_inputs(score, tmp_path: Path) -> None:
    write_reviews(tmp_path / "in/a.parquet", 50)
    write_reviews(tmp_path / "in/b.parquet", 50)
    ran = score(tmp_path / "in", "-o", tmp_path / "out", "--limit", 60, "--json")
    assert ran.json["rows"]["total"] == 60
    assert pq.read_metadata(tmp_path / "out/b.parquet").num_rows == 10
    write_reviews(tmp_path / "zero/z.parquet", 0)
    empty = score(tmp_path / "zero", "-o", tmp_path / "none", "--json")
    assert empty.code == 0 and empty.json["rows"]["total"] == 0
    assert pq.read_table(tmp_path / "none/z.parquet").column_names[3:] == list(SCORE_NAMES)


def test_layout_parts(score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import rayft.score.planning as planning

    monkeypatch.setattr(planning, "_PART_ROWS", 40)
    monkeypatch.setattr(planning, "rows_per_span", lambda *_: 20)
    source = write_reviews(tmp_path / "in/a.parquet", 110, row_group_size=30)
    assert score(tmp_path / "in", "-o", tmp_path / "out", "--layout", "parts").code == 0
    parts = sorted((tmp_path / "out/a").glob("*.parquet"))
    assert [p.name for p in parts] == ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    joined = pa.concat_tables([pq.read_table(p) for p in parts])
    assert joined.select(["id", "title", "text"]).equals(pq.read_table(source))


def test_dry_run_writes_nothing(score, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.csv").write_text("text\n" + "good one\n" * 50)
    ran = score(tmp_path / "in", "-o", tmp_path / "out", "--dry-run", "--json", "--price-per-hour", "1")
    assert ran.code == 0
    assert ran.json["rows"] == 50 and ran.json["rows_per_second"] > 0 and ran.json["estimated_dollars"] >= 0
    assert not (tmp_path / "out").exists()


def test_a_model_without_a_negative_label_leaves_defects_null(cli: Cli, tmp_path: Path) -> None:
    model = tiny_checkpoint(tmp_path / "m", ("books", "toys", "tools"))
    source = write_reviews(tmp_path / "a.parquet", 20)
    ran = cli("score", source, "--model", model)
    assert ran.code == 0 and "no label that means negative" in " ".join(ran.out.split())
    out = pq.read_table(tmp_path / "a.scored.parquet")
    assert out["defect"].null_count == 20 and set(out["label"].drop_null().to_pylist()) <= {"books", "toys", "tools"}
    ran = cli("score", source, "--model", model, "--negative-label", "tools", "--overwrite")
    assert ran.code == 0
    assert pq.read_table(tmp_path / "a.scored.parquet")["defect"].null_count == 1


def test_quiet_prints_nothing_and_the_plain_report_shows_the_rate(score, tmp_path: Path) -> None:
    source = write_reviews(tmp_path / "a.parquet", 20)
    quiet = score(source, "--quiet")
    assert (quiet.out, quiet.err, quiet.code) == ("", "", 0)
    shown = score(source, "--overwrite", "--no-title", "--price-per-hour", "0.5")
    for words in ("20 reviews scored", "reviews per second", "flagged as defect", "$", "unlabelled (1 empty)"):
        assert words in " ".join(shown.out.split())


def test_status(score, cli: Cli, tmp_path: Path) -> None:
    source = write_reviews(tmp_path / "a.parquet", 20)
    score(source)
    ran = cli("status", tmp_path / "a.scored.parquet", "--json")
    assert ran.json["state"] == "finished" and ran.json["rows_done"] == 20
    assert cli("status", tmp_path / "other").code == 2


def test_the_example_file(score, tmp_path: Path) -> None:
    ran = score(EXAMPLE, "-o", tmp_path / "x.parquet", "--json")
    assert ran.code == 0
    before, after = pq.read_table(EXAMPLE), pq.read_table(tmp_path / "x.parquet")
    assert after.select(before.column_names).equals(before) and before.num_rows >= 300
    assert ran.json["rows"]["unlabelled"]["empty"] == 7


@needs_data
def test_real_reviews_keep_every_column(score, tmp_path: Path) -> None:
    source = DATA / "amazon/reviews.parquet"
    refused = score(source, "-o", tmp_path / "x.parquet")
    assert refused.code == 2 and "'label'" in refused.err
    assert score(source, "-o", tmp_path / "x.parquet", "--prefix", "rayft_", "--limit", 2000).code == 0
    before, after = pq.read_table(source).slice(0, 2000), pq.read_table(tmp_path / "x.parquet")
    assert after.select(before.column_names).equals(before)
    assert after.schema.types[: before.num_columns] == before.schema.types
