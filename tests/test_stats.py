"""Statistics of spans, and that they add up."""

from __future__ import annotations

import copy
from collections import Counter

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from rayft.data.columns import SCORE_FIELDS
from rayft.score.span import EncodedSpan, ScoreSettings, attach
from rayft.score.stats import CONFIDENCE_BINS, LENGTH_EDGES, Stats, span_stats
from rayft.text.encode import Encoded

COUNTS = st.integers(0, 10**9)
NAMES = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(1, 10**9))
STATS = st.builds(
    Stats,
    rows=COUNTS,
    texts=COUNTS,
    tokens=COUNTS,
    padded_tokens=COUNTS,
    truncated=COUNTS,
    defects=COUNTS,
    unlabelled=NAMES.map(Counter),
    labels=NAMES.map(Counter),
    seconds=st.dictionaries(st.sampled_from(["read", "model"]), st.integers(0, 1_000).map(float)),
    lengths=st.lists(COUNTS, min_size=len(LENGTH_EDGES) + 1, max_size=len(LENGTH_EDGES) + 1),
    confidences=st.lists(COUNTS, min_size=CONFIDENCE_BINS, max_size=CONFIDENCE_BINS),
)


def span(row_text: list[int], lengths: list[int], truncated: list[bool] | None = None) -> EncodedSpan:
    texts = Encoded(
        np.zeros(sum(lengths), dtype=np.int32),
        np.cumsum([0, *lengths]),
        np.array(truncated or [False] * len(lengths), dtype=bool),
    )
    rows = np.array(row_text, dtype=np.int32)
    return EncodedSpan(texts, rows, (rows < 0).astype(np.int8))


def summed(*parts: Stats) -> Stats:
    total = Stats()
    for part in parts:
        total.add(part)
    return total


@settings(deadline=None, max_examples=30)
@given(STATS)
def test_stats_survive_json(stats: Stats) -> None:
    assert Stats.from_json(stats.to_json()) == stats
    assert Stats.from_json(stats.to_json().encode()) == stats
    assert isinstance(Stats.from_json(stats.to_json()).labels, Counter)


@settings(deadline=None, max_examples=30)
@given(STATS, STATS, STATS)
def test_adding_does_not_depend_on_the_order(a: Stats, b: Stats, c: Stats) -> None:
    before = copy.deepcopy((a, b, c))
    assert summed(a, b, c) == summed(c, a, b) == summed(summed(a, b), c)
    assert summed(a, Stats()) == a
    assert (a, b, c) == before  # what was added is not changed
    total = summed(a, b)
    assert total.rows == a.rows + b.rows
    assert total.labels == a.labels + b.labels
    assert total.confidences == [x + y for x, y in zip(a.confidences, b.confidences, strict=True)]
    assert total.seconds.get("model", 0) == a.seconds.get("model", 0) + b.seconds.get("model", 0)


def test_new_stats_share_nothing() -> None:
    first, second = Stats(), Stats()
    first.labels["a"] += 1
    first.lengths[0] += 1
    first.spend("read", 1.5)
    first.spend("read", 0.5)
    assert second == Stats()
    assert first.seconds == {"read": 2.0}


def test_a_span_is_counted_by_its_rows() -> None:
    # Text 0 stands in three rows, text 1 (truncated) in two; one row has no text.
    encoded = span([0, 1, 0, -1, 1, 0], [8, 600], [False, True])
    probabilities = np.array([[0.9, 0.1], [0.25, 0.75]], dtype=np.float32)
    rule = ScoreSettings(("negative", "positive"), 0, 0.5)
    stats = span_stats(encoded, attach(encoded, probabilities, rule))
    assert (stats.rows, stats.texts, stats.truncated, stats.defects) == (6, 2, 2, 3)
    assert stats.labels == {"negative": 3, "positive": 2}
    assert stats.unlabelled == {"empty": 1}
    assert stats.labelled == 5
    assert stats.lengths == [3, *[0] * (len(LENGTH_EDGES) - 1), 2]
    assert sum(stats.confidences) == 5
    assert stats.confidences[int(0.75 * CONFIDENCE_BINS)] == 2


def test_lengths_are_binned_up_to_and_with_each_edge() -> None:
    encoded = span([0, 1, 2, 3], [8, 9, 16, 512])
    stats = span_stats(encoded, attach(encoded, np.full((4, 2), 0.5, np.float32), ScoreSettings(("a", "b"), None, 0.5)))
    assert stats.lengths[:2] == [1, 2]
    assert stats.lengths[LENGTH_EDGES.index(512)] == 1
    assert stats.defects == 0


def test_a_confidence_of_one_is_in_the_last_bin() -> None:
    encoded = span([0], [3])
    stats = span_stats(encoded, attach(encoded, np.array([[1, 0]], np.float32), ScoreSettings(("a", "b"), 0, 0.5)))
    assert stats.confidences[-1] == 1


def test_a_span_of_no_texts_and_one_of_no_rows() -> None:
    rule = ScoreSettings(("a", "b"), 0, 0.5)
    none = np.zeros((0, 2), np.float32)
    blank = span([-1, -1], [])
    assert span_stats(blank, attach(blank, none, rule)) == Stats(rows=2, unlabelled=Counter(empty=2))
    assert span_stats(span([], []), pa.schema(SCORE_FIELDS).empty_table()) == Stats()
