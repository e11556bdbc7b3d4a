"""The shipped model: a plain Hugging Face directory whose scores are the same wherever it is loaded."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

import rayft
from rayft.model.checkpoint import BUNDLED
from rayft.text.clean import join
from tests.helpers import DATA, EXAMPLE, Cli, needs_data


@pytest.fixture(scope="module")
def scorer() -> rayft.Scorer:
    return rayft.Scorer(precision="fp32")


def test_it_is_small_and_plain() -> None:
    assert sum(p.stat().st_size for p in BUNDLED.iterdir()) < 50e6
    assert {p.suffix for p in BUNDLED.iterdir()} <= {".json", ".safetensors", ".md"}
    config = json.loads((BUNDLED / "config.json").read_text())
    assert config["dtype"] == "float32"
    assert config["id2label"] == {"0": "negative", "1": "positive"}
    assert config["architectures"] == ["DistilBertForSequenceClassification"]
    card = (BUNDLED / "README.md").read_text()
    for word in ("Apache-2.0", "polarity", "IMDb", "Limits", "MiniLM"):
        assert word in card


def test_the_pipeline_gives_the_same_scores(scorer: rayft.Scorer) -> None:
    import pyarrow.parquet as pq
    from transformers import pipeline

    rows = [r for r in pq.read_table(EXAMPLE).to_pylist() if r["text"] and r["text"].strip()]
    rows = rows[::9] + sorted(rows, key=lambda r: len(r["text"]))[-3:]
    texts = [join(row["title"], row["text"]) for row in rows]
    classify = pipeline("text-classification", str(BUNDLED), device="cpu")
    theirs = classify(texts, truncation=True, batch_size=8)
    fits = [len(ids) <= 256 for ids in classify.tokenizer(texts)["input_ids"]]
    assert sum(fits) > 40 and not all(fits)
    from_both_ends = scorer.score_texts(texts).to_pylist()
    from_the_beginning = rayft.Scorer(precision="fp32", truncation="head").score_texts(texts).to_pylist()
    for fit, ends, beginning, other in zip(fits, from_both_ends, from_the_beginning, theirs, strict=True):
        for row in (ends, beginning) if fit else (beginning,):
            assert row["label"] == other["label"]
            assert row["confidence"] == pytest.approx(other["score"], abs=2e-4)


def test_bf16_agrees_with_fp32(scorer: rayft.Scorer) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(EXAMPLE)
    exact = scorer.score(table)
    rounded = rayft.Scorer(precision="bf16").score(table)
    negative = [np.nan_to_num(t["defect_score"].to_numpy()) for t in (exact, rounded)]
    assert np.abs(negative[0] - negative[1]).mean() < 0.005
    same = np.array(exact["label"].to_pylist()) == np.array(rounded["label"].to_pylist())
    assert same.mean() >= 0.99


# Six cases that a published demo was checked with: strong both ways, slang both ways, mixed, neutral.
@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Absolutely wonderful from the first day, the best purchase I have made in years.", "positive"),
        ("A complete waste of money. It broke at once and nobody would take it back.", "negative"),
        pytest.param(
            "This little speaker slaps, no cap. Sick bass!",
            "positive",
            marks=pytest.mark.xfail(strict=True, reason="a stated limit: slang of later years than the training data"),
        ),
        ("Total garbage, so mid, do not bother with this one.", "negative"),
        ("The screen is lovely, but the battery died within a month and I had to return it.", "negative"),
    ],
)
def test_clear_cases(scorer: rayft.Scorer, text: str, label: str) -> None:
    row = scorer.score_texts([text]).to_pylist()[0]
    assert row["label"] == label and row["confidence"] > 0.5


def test_predict(cli: Cli) -> None:
    ran = cli("predict", "The lid cracked on the second day.", "I love it.", " ")
    assert [line.split()[0] for line in ran.out.splitlines()] == ["negative", "positive", "-"]
    row = json.loads(cli("predict", "I love it.", "--json").out)
    assert row["label"] == "positive" and row["text"] == "I love it."


@needs_data
def test_accuracy_on_real_reviews(scorer: rayft.Scorer) -> None:
    lines = (DATA / "polarity/sample.ft.txt").read_text().splitlines()
    sample = random.Random(1).sample(lines, 400)
    labels = ["negative" if line.startswith("__label__1") else "positive" for line in sample]
    found = scorer.score_texts([line.split(" ", 1)[1] for line in sample])["label"].to_pylist()
    # The whole sample's accuracy is in the model card; 400 rows have a standard error of 1.2 points.
    assert np.mean([a == b for a, b in zip(found, labels, strict=True)]) > 0.91
