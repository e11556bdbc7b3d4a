"""`rayft alerts` from scored Parquet to files: what is found, idempotence, late data, models, refusals."""

from __future__ import annotations

import json
import shutil
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rayft.alerts.config import AlertsConfig
from rayft.alerts.receipts import SCHEMA
from rayft.alerts.run import OUTPUTS, find_alerts
from rayft.cli import main
from rayft.errors import UsageError
from tests.alerts_helpers import FIRST, Rise, catalogue, write_scored

RISES = (Rise("P003", 150, 0.3), Rise("P006", 180, 0.06, "safety", ramp=1))


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    return catalogue(10, 220, 2.5, rises=RISES)


@pytest.fixture(scope="module")
def thresholds(frame: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The simulated thresholds of a first run, for the others to start with."""
    folder = tmp_path_factory.mktemp("first")
    write_scored(folder / "in" / "a.parquet", frame)
    find_alerts(config(folder))
    return folder / "out" / "_rayft" / "alerts-thresholds.json"


@pytest.fixture
def folder(tmp_path: Path, thresholds: Path) -> Path:
    (tmp_path / "out" / "_rayft").mkdir(parents=True)
    shutil.copy(thresholds, tmp_path / "out" / "_rayft")
    return tmp_path


def config(folder: Path, **more: Any) -> AlertsConfig:
    return AlertsConfig((str(folder / "in"),), str(folder / "out"), **more)


def alerts(result: dict[str, Any], status: str = "alert") -> dict[tuple[str, str], dict[str, Any]]:
    return {(r["product"], r["defect_type"]): r for r in result["alerts"] if r["status"] == status}


def split_by_month(folder: Path, frame: pl.DataFrame) -> None:
    for (month,), part in (
        frame.with_columns(pl.col("date").dt.month().alias("m")).partition_by("m", as_dict=True).items()
    ):
        write_scored(folder / "in" / f"{month}.parquet", part.drop("m"))


def outputs(folder: Path) -> dict[str, bytes]:
    return {name: (folder / "out" / name).read_bytes() for name in OUTPUTS}


def test_planted_rises_are_found_with_receipts(folder: Path, frame: pl.DataFrame) -> None:
    write_scored(folder / "in" / "a.parquet", frame)
    result = find_alerts(config(folder))
    found = alerts(result)
    failure, safety = found["P003", "failure"], found["P006", "safety"]
    assert abs((date.fromisoformat(failure["onset"]) - FIRST).days - 155) < 15
    assert 150 <= (date.fromisoformat(failure["first_alarm"]) - FIRST).days < 190
    assert failure["statistic"] >= failure["threshold"] > 0
    assert failure["reports_to_date"] > 5 * failure["expected_to_date"]
    assert (failure["model"], failure["model_digest"]) == ("model-a", "digest-of-model-a")
    assert 1 <= len(failure["quotes"]) <= 5
    assert all("[phone]" in quote and "555" not in quote for quote in failure["quotes"])
    assert result["alerts"][0]["id"] == safety["id"], "safety comes first"
    table = pl.read_parquet(folder / "out" / "alerts.parquet")
    assert table.schema == SCHEMA
    assert table["id"].to_list() == [r["id"] for r in result["alerts"]]
    page = (folder / "out" / "alerts.html").read_text()
    assert "P003" in page
    assert "555-123" not in page
    state = b"".join(path.read_bytes() for path in (folder / "out" / "_rayft").rglob("*") if path.is_file())
    assert b"555-123" not in state


def test_the_same_night_twice_changes_nothing(folder: Path, frame: pl.DataFrame) -> None:
    write_scored(folder / "in" / "a.parquet", frame)
    assert find_alerts(config(folder))["changed"]
    before, times = outputs(folder), {p: p.stat().st_mtime_ns for p in (folder / "out").rglob("*.*")}
    again = find_alerts(config(folder))
    assert not again["changed"]
    assert outputs(folder) == before
    assert {p: p.stat().st_mtime_ns for p in times if p.name != "alerts.lock"} == {
        p: t for p, t in times.items() if p.name != "alerts.lock"
    }


def test_night_by_night_is_a_rebuild_from_the_parquet(folder: Path, frame: pl.DataFrame) -> None:
    """Late, corrected and removed data included: what is kept saves time and changes nothing."""
    late = frame.filter(pl.col("review_id").hash(1) % 50 == 0)
    in_time = frame.join(late.select("review_id"), on="review_id", how="anti")
    split_by_month(folder, in_time.filter(pl.col("date") < FIRST + timedelta(days=120)))
    write_scored(folder / "in" / "wrong.parquet", frame.head(40).with_columns(pl.lit("P009").alias("asin")))
    find_alerts(config(folder))
    split_by_month(folder, in_time)
    find_alerts(config(folder))
    (folder / "in" / "wrong.parquet").unlink()
    write_scored(folder / "in" / "late.parquet", late)
    corrected = frame.filter(pl.col("asin") == "P001").head(30).with_columns(pl.lit(False).alias("defect"))
    write_scored(folder / "in" / "z-corrected.parquet", corrected)
    nightly = find_alerts(config(folder))
    state = folder / "out" / "_rayft"
    for name in ("alerts.json", "alerts-extracts", "alerts-counts"):
        target = state / name
        shutil.rmtree(target) if target.is_dir() else target.unlink()
    before = outputs(folder)
    assert find_alerts(config(folder)) == nightly
    assert outputs(folder) == before
    assert nightly["data"]["reviews"] == frame.height


def test_alerts_of_the_past_stay_when_the_future_comes(folder: Path, frame: pl.DataFrame) -> None:
    write_scored(folder / "in" / "a.parquet", frame.filter(pl.col("date") < FIRST + timedelta(days=185)))
    early = alerts(find_alerts(config(folder)))
    write_scored(folder / "in" / "a.parquet", frame)
    later = alerts(find_alerts(config(folder)))
    assert early
    for key, receipt in early.items():
        assert later[key]["first_alarm"] == receipt["first_alarm"]
        assert later[key]["statistic"] == receipt["statistic"]


def test_a_model_change_is_a_new_baseline_and_no_alarm(folder: Path) -> None:
    old = catalogue(10, 120, 2.5, share=0.05, seed=1)
    new = catalogue(10, 120, 2.5, share=0.25, seed=2, first=FIRST + timedelta(days=120))
    write_scored(folder / "in" / "old.parquet", old, "model-a")
    write_scored(folder / "in" / "new.parquet", new.drop("review_id"), "model-b")
    result = find_alerts(config(folder))
    assert not alerts(result)
    assert [m["model"] for m in result["models"]] == ["model-a", "model-b"]
    assert any("own baseline" in note for note in result["notes"])
    write_scored(folder / "in" / "new.parquet", new.drop("review_id"), "model-a")
    assert alerts(find_alerts(config(folder))), "the same step under one model is an alarm"


def test_copied_reviews_count_once(folder: Path, frame: pl.DataFrame) -> None:
    calm = frame.filter(~pl.col("asin").is_in(["P003", "P006"]))
    campaign = calm.filter(pl.col("asin") == "P001", pl.col("date") == FIRST + timedelta(days=200)).head(1)
    campaign = pl.concat([campaign] * 60).with_columns(
        pl.lit(True).alias("defect"), pl.lit("failure").alias("defect_type"),
        pl.format("c{}", pl.int_range(60)).alias("review_id"),
    )  # fmt: skip
    write_scored(folder / "in" / "a.parquet", calm)
    write_scored(folder / "in" / "b.parquet", campaign)
    result = find_alerts(config(folder))
    assert result["data"]["copies_not_counted"] >= 59
    assert not any(product == "P001" for product, _ in alerts(result))
    assert any(product == "P001" for product, _ in alerts(find_alerts(config(folder, dedupe=False))))


def test_without_types_the_safety_rule_says_that_it_is_inactive(folder: Path, frame: pl.DataFrame) -> None:
    nothing = pl.lit(None, pl.String)
    plain = frame.with_columns(nothing.alias("defect_type"), nothing.alias("defect_severity"),
                               nothing.alias("defect_evidence"))  # fmt: skip
    write_scored(folder / "in" / "a.parquet", plain, prefix="x_")
    result = find_alerts(config(folder))
    assert set(alerts(result)) >= {("P003", "defect")}
    assert any("safety rule is inactive" in note for note in result["notes"])
    assert any("stand in" in note for note in result["notes"])


def test_dates_come_from_hive_partitions(folder: Path, frame: pl.DataFrame) -> None:
    for (day,), part in (
        frame.filter(pl.col("date") < FIRST + timedelta(days=5)).partition_by("date", as_dict=True).items()
    ):
        write_scored(folder / "in" / f"date={day}" / "part.parquet", part.drop("date"))
    data = find_alerts(config(folder))["data"]
    assert (data["first"], data["last"]) == (str(FIRST), str(FIRST + timedelta(days=4)))


def test_weeks(folder: Path, frame: pl.DataFrame) -> None:
    write_scored(folder / "in" / "a.parquet", frame)
    receipt = alerts(find_alerts(config(folder, period="week")))["P003", "failure"]
    assert date.fromisoformat(receipt["onset"]).weekday() == 0
    assert date.fromisoformat(receipt["first_alarm"]).weekday() == 6


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"asin": "what"}, {}, "no column that looks like a product; it has:"),
        ({"date": "when"}, {}, "no column that looks like a date; it has:"),
        ({}, {"product_column": "asim"}, "no column 'asim'; it has: .*Did you mean 'asin'"),
        ({"category": "product"}, {}, "several columns that could be the product: asin, product"),
        ({"defect": "flag"}, {}, "no column of defect flags"),
        ({}, {"date_column": "text"}, "holds no dates that rayft understands"),
        ({}, {"sensitivity": 0.3, "specificity": 0.6}, "no better than chance"),
    ],
)
def test_refusals_name_the_columns(
    tmp_path: Path, frame: pl.DataFrame, change: dict[str, str], options: dict[str, Any], message: str
) -> None:
    write_scored(tmp_path / "in" / "a.parquet", frame.head(20).rename(change))
    with pytest.raises(UsageError, match=message):
        find_alerts(config(tmp_path, **options))
    assert not (tmp_path / "out" / "alerts.json").exists()


def test_a_damaged_file_fails_alone(folder: Path, frame: pl.DataFrame) -> None:
    write_scored(folder / "in" / "a.parquet", frame.head(500))
    (folder / "in" / "b.parquet").write_bytes(b"PAR1 this is not Parquet")
    result = find_alerts(config(folder))
    assert [Path(name).name for name in result["failed"]] == ["b.parquet"]
    assert result["data"]["files"] == 1


def test_the_command(folder: Path, frame: pl.DataFrame, capsys: pytest.CaptureFixture[str]) -> None:
    write_scored(folder / "in" / "a.parquet", frame)
    with pytest.raises(SystemExit) as stop:
        main(["alerts", str(folder / "in"), "-o", str(folder / "out"), "--product-column", "asin"])
    shown = capsys.readouterr().out
    assert stop.value.code == 0
    assert "P003: failure since about" in shown
    with pytest.raises(SystemExit):
        main(["alerts", str(folder / "in" / "a.parquet"), "-o", str(folder / "out"), "--json"])
    assert json.loads(capsys.readouterr().out)["summary"]["alert"] >= 2
    with pytest.raises(SystemExit) as stop:
        main(["alerts", str(folder / "nowhere"), "-o", str(folder / "out")])
    assert stop.value.code == 2
