"""`rayft evaluate` on a tiny real model, whose answers make the labels, so that every figure is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayft.evaluate.page import evaluation_page
from rayft.score.scorer import Scorer
from tests.helpers import Cli, reviews, tiny_checkpoint

ROWS = 170
FLIPPED = (3, 20, 41, 77, 78, 90, 111, 150)


@pytest.fixture(scope="module")
def labelled(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reviews labelled by the tiny model itself, eight of them wrongly, ten without a text."""
    table = reviews(ROWS, words=8)
    answers = Scorer(str(tiny), precision="fp32").score(table)["label"].to_pylist()
    other = {"negative": "positive", "positive": "negative", None: "negative"}
    labels = [other[a] if i in FLIPPED or a is None else a for i, a in enumerate(answers)]
    path = tmp_path_factory.mktemp("labelled") / "reviews.parquet"
    category = [("toys", "kitchen", "books")[i % 3] for i in range(ROWS)]
    stars = [1 + i % 5 for i in range(ROWS)]
    columns = {"label": pa.array(labels), "category": pa.array(category), "stars": pa.array(stars, pa.int8())}
    for name, column in columns.items():
        table = table.append_column(name, column)
    pq.write_table(table, path)
    return path


def test_known_answers_report_page_and_errors(cli: Cli, tiny: Path, labelled: Path, tmp_path: Path) -> None:
    page, errors = tmp_path / "page.html", tmp_path / "errors.parquet"
    ran = cli("evaluate", tiny, labelled, "--precision", "fp32", "--json", "--top", "3", "--report-html", page,
              "--output", errors, "--baseline", tiny)  # fmt: skip
    assert ran.code == 0, ran.err
    report = ran.json
    data, found = report["data"], report["metrics"]
    usable = ROWS - 10
    assert (data["rows_read"], data["evaluated"], data["dropped"]) == (ROWS, usable, {"no text": 10})
    assert found["accuracy"]["value"] == pytest.approx(1 - len(FLIPPED) / usable)
    assert found["accuracy"]["low"] < found["accuracy"]["value"] < found["accuracy"]["high"]
    assert np.sum(found["confusion"]) == usable and np.trace(found["confusion"]) == usable - len(FLIPPED)
    assert sum(scores["rows"] for scores in found["classes"].values()) == usable
    assert sum(b["rows"] for b in found["calibration"]["bins"]) == usable
    against = report["baseline"]["against"]
    assert against["only_model_right"] == against["only_baseline_right"] == 0 and against["mcnemar_p_value"] == 1
    slices = {(e["group"], e["slice"]): e for e in report["slices"]}
    assert {name for group, name in slices if group == "category"} == {"toys", "kitchen", "books"}
    assert sum(e["errors"] for (group, _), e in slices.items() if group == "stars") == len(FLIPPED)
    assert sum(e["rows"] for (group, _), e in slices.items() if group == "label") == usable
    shown = report["errors"]["shown"]
    assert report["errors"]["rows"] == len(FLIPPED) and len(shown) == 3
    confidences = [entry["confidence"] for entry in shown]
    assert confidences == sorted(confidences, reverse=True)
    assert {entry["row"] for entry in shown} <= set(FLIPPED)
    assert all(entry["effects"] and entry["label"] != entry["predicted"] for entry in shown)

    written = pq.read_table(errors)
    assert sorted(written["row"].to_pylist()) == sorted(FLIPPED)
    assert written["label"].to_pylist() != written["predicted"].to_pylist()
    original = pq.read_table(labelled)
    assert written["text"].to_pylist() == [original["text"][row].as_py() for row in written["row"].to_pylist()]

    html = page.read_text()
    for words in ("Confusion matrix", "Reliability", "Precision and recall", "threshold 0.5", "Where it errs",
                  "Most confident errors", "Against the baseline", "category: toys", "5 stars"):  # fmt: skip
        assert words in html, words
    assert "<script" not in html and "http" not in html.split("</head>")[1]
    report["errors"]["shown"][0]["effects"] = [["<script>alert(1)</script>", 0.5]]
    assert "<script>" not in evaluation_page(report)


def test_summary_for_people_with_an_untrained_and_a_tfidf_baseline(cli: Cli, tiny: Path, labelled: Path) -> None:
    pytest.importorskip("sklearn")
    ran = cli("evaluate", tiny, labelled, "--baseline", "untrained", "--top", "1", "--limit", "60")
    assert ran.code == 0, ran.err
    for words in ("accuracy on 60 reviews (a random sample of 160)", "macro F1", "untrained:", "drawn anew", "McNemar",
                  "adj. p", "category: toys", "taken for"):  # fmt: skip
        assert words in " ".join(ran.out.split()), words
    ran = cli("evaluate", tiny, labelled, "--baseline", "tfidf", "--train", labelled, "--json")
    assert ran.code == 2 and "Every text of --train" in ran.err


def test_untrained_is_the_same_every_time_and_another_base_works(cli: Cli, tiny: Path, labelled: Path) -> None:
    args = ("evaluate", tiny, labelled, "--top", "0", "--limit", "50", "--json")
    first, again, other, base = (
        cli(*args, *more).json["baseline"]
        for more in (
            ("--baseline", "untrained"),
            ("--baseline", "untrained"),
            ("--baseline", "untrained", "--seed", "1"),
            ("--baseline", f"untrained:{tiny}"),
        )
    )
    assert first["metrics"]["log_loss"] == again["metrics"]["log_loss"] != other["metrics"]["log_loss"]
    assert base["metrics"]["log_loss"] == first["metrics"]["log_loss"], "a head that was trained is not used"
    assert "fine-tuned" in first["what"] and "nothing was trained" in base["what"]


def test_tfidf_learns_from_other_rows(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    good, bad = "love great fine wonderful happy".split(), "broke terrible bad awful junk".split()  # noqa: SIM905

    def write(name: str, rows: int, repeated: str) -> Path:
        lines = [json.dumps({"body": repeated, "sentiment": "positive"})]
        for i in range(rows):
            words = rng.choice(bad if i % 2 else good, 4)
            line = {"body": " ".join(words) + f" item{i % 7}", "sentiment": "negative" if i % 2 else "positive"}
            lines.append(json.dumps(line))
        (tmp_path / name).write_text("\n".join(lines))
        return tmp_path / name

    test, train = write("test.jsonl", 40, "A great LAMP!"), write("train.jsonl", 80, "a great lamp")
    ran = cli("evaluate", tiny, test, "--baseline", "tfidf", "--train", train, "--json", "--top", "0")
    assert ran.code == 0, ran.err
    base = ran.json["baseline"]
    assert base["metrics"]["accuracy"]["value"] > 0.95
    assert base["train_rows_also_evaluated"] >= 1


def test_more_classes_stars_and_csv(cli: Cli, tmp_path: Path) -> None:
    model = tiny_checkpoint(tmp_path / "three", ("bad", "middling", "good"), seed=1)
    table = reviews(90, words=6)
    answers = Scorer(str(model), precision="fp32").score(table)["label"].to_pylist()
    rows = [(text, answer) for text, answer in zip(table["text"].to_pylist(), answers, strict=True) if answer]
    codes = {"bad": "0", "middling": "1", "good": "2"}
    lines = ["text;klass", *(f"{text};{codes[answer]}" for text, answer in rows)]
    (tmp_path / "data.csv").write_text("\n".join(lines))
    page = tmp_path / "page.html"
    args = ("evaluate", model, tmp_path / "data.csv", "--label-column", "klass", "--no-title", "--json")
    refused = cli(*args)
    assert refused.code == 2 and "the model's are bad, middling, good" in refused.err and "--labels" in refused.err
    ran = cli(*args, "--labels", "0=bad,1=middling,2=good", "--report-html", page, "--precision", "fp32")
    assert ran.code == 0, ran.err
    report = ran.json
    assert report["metrics"]["rows"] == len(rows)
    # Titles are not read here, so a few answers may differ from those that made the labels.
    assert report["threshold"] is None and len(report["metrics"]["confusion"]) == 3
    assert report["metrics"]["roc_auc"]["value"] > 0.5
    assert page.read_text().count("<svg") >= 3


def test_stars_make_labels_and_fasttext_is_read(cli: Cli, tiny: Path, labelled: Path, tmp_path: Path) -> None:
    which = ("--label-column", "stars", "--stars-negative", "1,2", "--stars-positive", "4,5")
    ran = cli("evaluate", tiny, labelled, *which, "--json", "--top", "0")
    assert ran.code == 0, ran.err
    stars = [row["stars"] for row in pq.read_table(labelled).to_pylist() if row["text"] is not None]
    classes = ran.json["metrics"]["classes"]
    assert classes["negative"]["rows"] == sum(s <= 2 for s in stars)
    assert classes["positive"]["rows"] == sum(s >= 4 for s in stars)
    assert ran.json["data"]["dropped"]["3 stars"] == ROWS // 5
    (tmp_path / "x.ft.txt").write_text("__label__1 Bad lamp: it broke\n__label__2 Good lamp: it works\n")
    ran = cli("evaluate", tiny, tmp_path / "x.ft.txt", "--json", "--top", "0")
    assert ran.json["metrics"]["rows"] == 2 and ran.json["data"]["sources"][0]["kind"] == "fastText"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--label-column", "lable"), "has no column 'lable'; it has: id, title, text, label, category, stars"),
        (("--text-column", "body"), "has no column 'body'; it has: id, title, text"),
        (("--category-column", "brand"), "has no column 'brand'; it has: id"),
        (("--baseline", "tfidf"), "--train DATA2"),
        (("--baseline", "nowhere/at-all/here"), "There is no model directory"),
        (("--split", "test"), "not in split test: "),
        (("--negative-label", "sad"), "has no label 'sad'"),
        (("--output", "errors.csv"), "is written as .parquet"),
    ],
)  # fmt: skip
def test_refusals_are_one_line(cli: Cli, tiny: Path, labelled: Path, options: tuple[str, ...], message: str) -> None:
    ran = cli("evaluate", tiny, labelled, *options)
    assert ran.code == 2 and message in ran.err and "Traceback" not in ran.err
    assert len(ran.err.strip().splitlines()) <= 4  # click's own refusals bring the usage line


def test_missing_data_is_refused(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    ran = cli("evaluate", tiny, tmp_path / "nothing.parquet")
    assert ran.code == 2 and "There is no file or directory" in ran.err
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 not really")
    assert cli("evaluate", tiny, tmp_path / "broken.parquet").code == 2
