"""`rayft prepare` and `rayft profile` on the command line."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import pyarrow as pa
import pytest

from rayft.prepare.profile import find_suspects
from rayft.prepare.profile_html import profile_page
from tests.helpers import Cli

_GOOD = ["I love it, works great", "Excellent, highly recommended", "Wonderful and perfect in every way"]
_BAD = ["Terrible, a complete waste of money", "Awful, broke after one day", "Horrible quality, very disappointed"]


def shop(path: Path, rows: int = 90) -> Path:
    rng = random.Random(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["title", "review", "stars"])
        for i in range(rows):
            stars = (1, 3, 5)[i % 3]
            said = rng.choice(_BAD if stars == 1 else _GOOD)
            writer.writerow([f"Item {i}", f"{said}. {' '.join(rng.choices(_GOOD + _BAD, k=2))} <b>{i}</b>", stars])
    return path


STARS = ("--stars-negative", "1,2", "--stars-positive", "4,5")


def test_prepare_then_profile(cli: Cli, tmp_path: Path) -> None:
    file, store = shop(tmp_path / "shop.csv"), tmp_path / "shop.store"
    ran = cli("prepare", file, *STARS, "--output", store, "--check-labels", 0)
    assert ran.code == 0, ran.err
    assert "CSV (text 'review', title 'title', label 'stars')" in ran.err
    assert "dropped 30: 3 stars (shop.csv, row 2" in ran.out
    assert f"Store: {store}" in ran.out
    assert "100.00%" in ran.out
    again = cli("prepare", file, *STARS, "--output", store, "--check-labels", 0)
    assert again.code == 0
    assert "It was there already" in again.out
    refused = cli("prepare", file, *STARS, "--output", store, "--max-length", 64)
    assert refused.code == 2
    assert "--overwrite" in refused.err

    page = tmp_path / "page.html"
    shown = cli("profile", store, "--check-labels", 0, "--html", page)
    assert shown.code == 0
    assert "60 reviews of 90 read" in shown.out
    assert "<h1>Data profile</h1>" in page.read_text()
    of_store = cli("profile", store, "--check-labels", 0, "--json").json
    of_source = cli("profile", file, *STARS, "--check-labels", 0, "--json").json
    assert of_store == of_source
    assert of_store["classes"] == {"negative": 30, "positive": 30}


def test_profile_of_a_source_leaves_nothing(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    file = shop(tmp_path / "shop.csv")
    assert cli("profile", file, "--check-labels", 0).code == 0
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["shop.csv"]


def test_wrong_usage(cli: Cli, tmp_path: Path) -> None:
    file = shop(tmp_path / "shop.csv")
    for options, message in (
        (("--stars-negative", "one"), "numbers of stars are expected"),
        (("--stars-negative", "1"), "go together"),
        (("--labels", "=x"), "give values"),
        (("--stars-negative", "1,4", "--stars-positive", "4"), "4 stars cannot be"),
        (("--label-column", "star"), "Did you mean 'stars'?"),
        (("--base", tmp_path), "no tokenizer.json"),
    ):
        ran = cli("prepare", file, "-o", tmp_path / "s", *options)
        assert (ran.code, message in ran.err) == (2, True), ran.err
    assert not (tmp_path / "s").exists()


def test_the_shipped_model_finds_wrong_labels() -> None:
    texts = [f"{text}. {text}. Number {i}." for i, text in enumerate((_GOOD + _BAD) * 4)]
    labels = ["positive" if i % 6 < 3 else "negative" for i in range(24)]
    labels[0], labels[5] = "negative", "positive"
    table = pa.table({"text": texts, "label": labels, "split": ["train"] * 24})
    found = find_suspects(table, 24)
    assert found is not None
    assert found["checked"] == 24
    assert {row["text"] for row in found["rows"]} <= {texts[0], texts[5]}
    assert found["disagreeing"] >= 1
    assert found["agreeing"] == 22
    assert find_suspects(table, 0) is None
    assert find_suspects(table.set_column(1, "label", pa.array(["toys"] * 24)), 24) is None


def test_the_page_escapes_what_reviews_hold() -> None:
    hostile = "<script>alert(1)</script>"
    profile = {
        "sources": [{"name": hostile, "kind": "CSV"}], "read": 2, "rows": 2, "tokens": 8,
        "classes": {hostile: 1, "b": 1}, "splits": {"train": {"rows": 2, "classes": {hostile: 1, "b": 1}}},
        "lengths": {"mean": 4.0, "p50": 4, "p90": 4, "p99": 4, "max": 4},
        "histogram": {"edges": [0, 16], "rows": [2]}, "within": {"128": 1.0},
        "dropped": {hostile: 1}, "examples": {hostile: [hostile]}, "duplicates": {"dropped": 0},
        "samples": [{"label": hostile, "split": "train", "tokens": 4, "text": hostile * 50}],
        "suspects": {"checked": 2, "agreeing": 1, "confident": 2, "disagreeing": 1, "rows": [
            {"text": hostile, "split": "train", "label": hostile, "model": "b", "confidence": 0.99}]},
    }  # fmt: skip
    page = profile_page(profile, hostile)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
