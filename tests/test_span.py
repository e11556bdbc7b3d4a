"""The three steps of scoring: encode, infer, attach."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayft.data.columns import SCORE_FIELDS, SCORE_NAMES
from rayft.model.checkpoint import BUNDLED
from rayft.model.engine import EngineSpec
from rayft.score.span import BatchDone, ScoreSettings, attach, encode, infer, softmax, strings
from rayft.text.clean import JOIN_FORMAT
from rayft.text.encode import Encoder

LABELS = ("negative", "neutral", "positive")
RULE = ScoreSettings(LABELS, 0, 0.5)
TEXTS = st.lists(
    st.none() | st.sampled_from(["", " ", "<br>", "good", "bad lid", "good  lid"]) | st.text(max_size=30), max_size=12
)


@dataclass
class FakeEngine:
    """Logits that follow from the ids of a text alone; keeps what it was given."""

    classes: int = len(LABELS)
    spec: EngineSpec = field(default_factory=lambda: EngineSpec("torch", "fp32", "cpu"))
    batches: list[np.ndarray] = field(default_factory=list)

    def logits(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        self.batches.append(input_ids)
        assert (input_ids[attention_mask == 0] == 0).all()
        places = np.arange(input_ids.shape[1])[:, None] * 7 + np.arange(self.classes) * 3
        weights = (places % 11 - 5) / 4096  # exact in binary, so that padding cannot change the sum
        return ((input_ids * attention_mask) @ weights).astype(np.float32)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.from_directory(BUNDLED, 16)


def scored(encoder: Encoder, texts: list[str | None], batch_tokens: int = 64, rule: ScoreSettings = RULE) -> pa.Table:
    span = encode(None, texts, encoder, JOIN_FORMAT)
    return attach(span, infer(FakeEngine(), span.texts, len(LABELS), batch_tokens), rule)


def test_texts_that_read_the_same_are_scored_once(encoder: Encoder) -> None:
    texts = ["It&#39;s good", "bad", None, "It's   good<br>", "bad", " ", "It's good"]
    span = encode(None, texts, encoder, JOIN_FORMAT)
    assert len(span.texts) == 2
    assert span.row_text.tolist() == [0, 1, -1, 0, 1, -1, 0]
    assert span.notes.tolist() == [0, 0, 1, 0, 0, 1, 0]
    assert span.rows == 7
    engine = FakeEngine()
    infer(engine, span.texts, 3, 1_000)
    assert sum(len(batch) for batch in engine.batches) == 2


def test_titles_count_when_telling_texts_apart(encoder: Encoder) -> None:
    titles = ["Good", "Bad", None, "Good", "Good"]
    span = encode(titles, ["x", "x", "x", "x", None], encoder, JOIN_FORMAT)
    assert span.row_text.tolist() == [0, 1, 2, 0, -1]
    alone = encoder(["Good: x", "Bad: x", "x"])
    assert span.texts.ids.tolist() == alone.ids.tolist()
    other = encode(titles, ["x", "x", "x", "x", None], encoder, "{text} ({title})")
    assert other.texts.ids.tolist() == encoder(["x (Good)", "x (Bad)", "x"]).ids.tolist()


@settings(deadline=None, max_examples=40)
@given(TEXTS)
def test_every_row_has_scores_or_a_note(encoder: Encoder, texts: list[str | None]) -> None:
    table = scored(encoder, texts)
    assert table.schema.equals(pa.schema(SCORE_FIELDS))
    assert table.num_rows == len(texts)
    for row in table.to_pylist():
        if row["score_note"] is None:
            assert row["label"] in LABELS
            assert 1 / 3 - 1e-6 <= row["confidence"] <= 1
            assert row["defect"] == (row["defect_score"] >= 0.5)
            assert row["label"] != "negative" or row["defect_score"] == row["confidence"]
        else:
            assert row["score_note"] == "empty"
            assert {name for name in SCORE_NAMES if row[name] is not None} == {"score_note"}
        assert row["defect_type"] is row["defect_evidence"] is row["defect_severity"] is None


@settings(deadline=None, max_examples=40)
@given(TEXTS, st.integers(1, 400), st.randoms())
def test_scores_depend_on_the_text_alone(
    encoder: Encoder, texts: list[str | None], budget: int, random: Random
) -> None:
    rows = scored(encoder, texts).to_pylist()
    assert scored(encoder, texts, batch_tokens=budget).to_pylist() == rows
    order = list(range(len(texts)))
    random.shuffle(order)
    assert scored(encoder, [texts[i] for i in order]).to_pylist() == [rows[i] for i in order]
    assert [row for text in texts for row in scored(encoder, [text]).to_pylist()] == rows


def test_infer_returns_probabilities_in_the_order_of_the_texts(encoder: Encoder) -> None:
    texts = ["a", "a very long text about a lid that broke", "two words", "b"]
    span = encode(None, texts, encoder, JOIN_FORMAT)
    probabilities = infer(FakeEngine(), span.texts, 3, 8)
    assert probabilities.dtype == np.float32
    assert probabilities.shape == (4, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    for i, text in enumerate(texts):
        one = encode(None, [text], encoder, JOIN_FORMAT)
        assert infer(FakeEngine(), one.texts, 3, 8)[0].tolist() == probabilities[i].tolist()


def test_infer_tells_of_every_batch(encoder: Encoder) -> None:
    span = encode(None, ["a", "b c d e", "f", "g h"], encoder, JOIN_FORMAT)  # 3, 6, 3 and 4 tokens
    seen: list[BatchDone] = []
    infer(FakeEngine(), span.texts, 3, 12, seen.append)
    assert seen == [BatchDone(2, 10, 12), BatchDone(2, 6, 6)]


def test_a_span_without_texts(encoder: Encoder) -> None:
    engine = FakeEngine()
    span = encode(["Title"] * 3, [None, "", "<p></p>"], encoder, JOIN_FORMAT)
    probabilities = infer(engine, span.texts, 3, 64)
    assert engine.batches == []
    table = attach(span, probabilities, RULE)
    assert table["score_note"].to_pylist() == ["empty"] * 3
    assert table["label"].null_count == 3
    assert scored(encoder, []).num_rows == 0


def test_without_a_negative_label_there_are_no_defects(encoder: Encoder) -> None:
    texts = ["good", None, "bad"]
    table = scored(encoder, texts, rule=ScoreSettings(LABELS, None, 0.5))
    assert table["defect"].null_count == table["defect_score"].null_count == 3
    assert table["label"].to_pylist() == scored(encoder, texts)["label"].to_pylist()
    assert table.schema.equals(pa.schema(SCORE_FIELDS))


def attached(probabilities: list[list[float]], rule: ScoreSettings, encoder: Encoder) -> pa.Table:
    span = encode(None, [f"text {i}" for i in range(len(probabilities))], encoder, JOIN_FORMAT)
    return attach(span, np.array(probabilities, dtype=np.float32), rule)


@pytest.mark.parametrize(
    ("threshold", "defects"),
    [
        (0.0, [True, True, True, True, True]),
        (0.1, [False, True, True, True, True]),
        (0.5, [False, False, True, True, True]),
        (0.7, [False, False, False, True, True]),
        (1.0, [False, False, False, False, True]),
    ],
)
def test_a_defect_is_at_or_over_the_threshold(encoder: Encoder, threshold: float, defects: list[bool]) -> None:
    # 0.1 and 0.7 have no exact float32: a score of that very value is still over the threshold.
    scores = [0.0, 0.1, 0.5, 0.7, 1.0]
    table = attached([[s, 1 - s] for s in scores], ScoreSettings(("negative", "positive"), 0, threshold), encoder)
    assert table["defect"].to_pylist() == defects
    assert table["defect_score"].to_pylist() == [float(np.float32(s)) for s in scores]


def test_label_and_confidence_are_of_the_most_probable_class(encoder: Encoder) -> None:
    probabilities = [[0.2, 0.3, 0.5], [0.6, 0.3, 0.1], [0.5, 0.5, 0.0]]
    table = attached(probabilities, ScoreSettings(("one", "two", "three"), 2, 0.5), encoder)
    assert table["label"].to_pylist() == ["three", "one", "one"]
    assert table["confidence"].to_pylist() == [float(np.float32(v)) for v in (0.5, 0.6, 0.5)]
    assert table["defect"].to_pylist() == [True, False, False]


def test_softmax_of_large_and_equal_logits() -> None:
    got = softmax(np.array([[1e4, 0, -1e4], [3, 3, 3], [-800, -801, -802]], dtype=np.float32))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, [[1, 0, 0], [1 / 3] * 3, [0.6652409, 0.2447285, 0.0900306]], rtol=1e-6, atol=1e-12)


VALUES = ["good", None, "", "é👍", "good"]


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.dictionary(pa.int8(), pa.string()),
        pa.dictionary(pa.int32(), pa.large_string()),
    ],
)
def test_strings_of_every_text_type(kind: pa.DataType) -> None:
    array = pa.array(VALUES).cast(kind)
    assert strings(array) == VALUES
    assert strings(pa.chunked_array([array, array.slice(1, 2)])) == VALUES + VALUES[1:3]
    assert strings(pa.chunked_array([], type=kind)) == []


@pytest.mark.parametrize(
    ("kind", "dictionary"),
    [
        (pa.string(), False),
        (pa.large_string(), False),
        (pa.string_view(), False),
        (pa.string(), True),
        (pa.large_string(), True),
    ],
)
def test_bytes_that_are_not_utf8_are_replaced(kind: pa.DataType, dictionary: bool) -> None:
    binary = {"string": pa.binary(), "large_string": pa.large_binary(), "string_view": pa.binary_view()}[str(kind)]
    raw = pa.array([b"good", None, b"caf\xe9", b"a long text with \xff\xfe bytes in it"], binary)
    array = pa.Array.from_buffers(kind, 4, raw.buffers())
    if dictionary:
        array = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), array)
    expected = ["good", None, "caf\ufffd", "a long text with \ufffd\ufffd bytes in it"]
    assert strings(array) == expected
    assert strings(pa.chunked_array([array, array.slice(2)])) == expected + expected[2:]
    with pytest.raises(UnicodeDecodeError):
        array.to_pylist()  # or there would be nothing to replace


def test_notes_are_counted_by_row_not_by_text(encoder: Encoder) -> None:
    table = scored(encoder, [None, None, "", "good", "good"])
    assert Counter(table["score_note"].to_pylist()) == {"empty": 3, None: 2}
