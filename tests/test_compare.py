"""`rayft compare` on tiny real models: what changes is what two runs of the scorer say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayft.score.scorer import Scorer
from tests.helpers import Cli, reviews, tiny_checkpoint, write_reviews

ROWS = 120


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("newer"), seed=5)


def test_what_differs_is_what_the_scorer_says(cli: Cli, tiny: Path, newer: Path, tmp_path: Path) -> None:
    dump = tmp_path / "dump"
    write_reviews(dump / "a.parquet", ROWS, seed=1, row_group_size=50)
    (dump / "b.jsonl").write_text("\n".join(json.dumps({"text": f"extra lamp {i}"}) for i in range(9)))
    changed_file = tmp_path / "changed.parquet"
    ran = cli("compare", tiny, newer, dump, "--precision", "fp32", "--json", "--output", changed_file, "--top", "4")
    assert ran.code == 0, ran.err
    report = ran.json
    old, new = (
        pa.concat_tables(
            [
                scorer.score(reviews(ROWS, seed=1)).drop_columns(["id", "title", "text"]),
                scorer.score_texts([f"extra lamp {i}" for i in range(9)]),
            ]
        ).to_pylist()
        for scorer in (Scorer(str(model), precision="fp32") for model in (tiny, newer))
    )
    pairs = [(a, b) for a, b in zip(old, new, strict=True) if a["label"] is not None]
    differing = [(a, b) for a, b in pairs if a["label"] != b["label"]]
    assert differing, "the two models must not agree for this test to mean anything"
    n = len(pairs)
    assert report["rows"] == {"read": ROWS + 9, "compared": n, "empty": ROWS // 17}
    assert report["agreement"] == pytest.approx(1 - len(differing) / n)
    assert report["changed"]["rows"] == len(differing)
    delta = [abs(a["defect_score"] - b["defect_score"]) for a, b in pairs]
    assert report["mean_absolute_change"] == pytest.approx(np.mean(delta), abs=1e-5)
    assert report["defects"]["old_rate"] == pytest.approx(np.mean([a["defect"] for a, _ in pairs]))
    assert report["defects"]["new_rate"] == pytest.approx(np.mean([b["defect"] for _, b in pairs]))
    assert sum(report["histogram"]["rows"]) == np.sum(report["pairs"]) == n
    for side, rows in (("old", old), ("new", new)):
        for label, found in report[side]["labels"].items():
            assert found["rows"] == sum(row["label"] == label for row in rows)
    changed = pq.read_table(changed_file).to_pylist()
    assert len(changed) == len(differing)
    assert {row["file"] for row in changed} <= {"a.parquet", "b.jsonl"}
    texts = reviews(ROWS, seed=1)["text"].to_pylist()
    for row in changed:
        assert row["old_label"] != row["new_label"]
        assert row["text"] == (texts[row["row"]] if row["file"] == "a.parquet" else f"extra lamp {row['row']}")
    assert len(report["top"]) == min(4, len(differing))
    assert [r["change"] for r in report["top"]] == sorted((r["change"] for r in changed), reverse=True)[:4]


def test_a_model_agrees_with_itself_and_the_gate_holds(cli: Cli, tiny: Path, newer: Path, tmp_path: Path) -> None:
    dump = write_reviews(tmp_path / "a.parquet", 60, seed=2)
    ran = cli("compare", tiny, tiny, dump, "--max-change", "0", "--output", tmp_path / "none.parquet")
    assert ran.code == 0 and "100.00% of 57 reviews get the same label" in ran.out, ran.err
    assert pq.read_table(tmp_path / "none.parquet").num_rows == 0
    ran = cli("compare", tiny, newer, dump, "--max-change", "0.001")
    assert ran.code == 1 and "--max-change allows 0.10%" in ran.err
    assert "McNemar" in ran.out and "→" in ran.out
    assert cli("compare", tiny, newer, dump, "--max-change", "1", "-q").out == ""


def test_labels_need_not_be_the_same(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    three = tiny_checkpoint(tmp_path / "three", ("Positive", "negative", "neutral"), seed=3)
    other = tiny_checkpoint(tmp_path / "other", ("cat", "dog"), seed=3)
    dump = write_reviews(tmp_path / "a.parquet", 40, seed=2)
    report = cli("compare", tiny, three, dump, "--json").json
    assert report["labels"] == ["negative", "positive", "neutral"]
    assert np.sum(report["pairs"]) == 38 and report["old"]["labels"]["neutral"]["rows"] == 0
    ran = cli("compare", tiny, other, dump)
    assert ran.code == 2 and "none in common" in ran.err


def test_refusals_are_one_line(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    dump = write_reviews(tmp_path / "a.parquet", 5)
    ran = cli("compare", tiny, tiny, dump, "--text-column", "body")
    assert ran.code == 2 and "has no column 'body'; it has: id, title, text" in ran.err
    broken = tmp_path / "b.parquet"
    broken.write_bytes(b"PAR1")
    ran = cli("compare", tiny, tiny, broken)
    assert ran.code == 2 and len(ran.err.strip().splitlines()) == 1, "1 is for too many changes"
    assert cli("compare", tiny, tmp_path / "no-model-there", dump).code == 2
