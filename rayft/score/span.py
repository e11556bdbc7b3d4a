"""The three steps of scoring, as functions of Arrow tables and arrays: encode, infer, attach."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from rayft.data.columns import SCORE_FIELDS
from rayft.model.engine import Engine, logits_in_order
from rayft.text.batches import collate, length_sorted_batches
from rayft.text.clean import join
from rayft.text.encode import Encoded, Encoder

#: Why a row has no label, by code; 0 is a scored row. Codes travel between stages, names are written.
NOTES: tuple[str | None, ...] = (None, "empty")
EMPTY = 1


@dataclass(frozen=True)
class EncodedSpan:
    """The rows of a span as the model reads them.

    Attributes:
        texts: token ids of the distinct texts.
        row_text: int32[rows], which of `texts` each row is, or -1 if the row is not scored.
        notes: int8[rows], index into NOTES.
    """

    texts: Encoded
    row_text: np.ndarray
    notes: np.ndarray

    @property
    def rows(self) -> int:
        return len(self.row_text)


@dataclass(frozen=True)
class ScoreSettings:
    """How probabilities become columns.

    Attributes:
        labels: class names by class number.
        negative: class number of the negative label; None leaves the defect columns null.
        threshold: a row is a defect if P(negative) is at least this.
    """

    labels: tuple[str, ...]
    negative: int | None
    threshold: float


@dataclass(frozen=True)
class BatchDone:
    """One batch left the engine: `texts` of it, `tokens` real and `padded_tokens` computed."""

    texts: int
    tokens: int
    padded_tokens: int


def strings(column: pa.ChunkedArray | pa.Array) -> list[str | None]:
    """Return the values of a text column; bytes that are not UTF-8 become U+FFFD."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    try:
        values: list[str | None] = column.to_pylist()
    except UnicodeDecodeError:
        binary = pa.large_binary() if pa.types.is_large_string(column.type) else pa.binary()
        values = [v if v is None else v.decode("utf-8", "replace") for v in column.cast(binary).to_pylist()]
    return values


def encode(
    titles: Sequence[str | None] | None, texts: Sequence[str | None], encoder: Encoder, join_format: str
) -> EncodedSpan:
    """Clean, join and tokenise reviews; texts that are the same are encoded once."""
    numbers: dict[str, int] = {}
    row_text = np.full(len(texts), -1, dtype=np.int32)
    notes = np.zeros(len(texts), dtype=np.int8)
    for row, text in enumerate(texts):
        joined = join(titles[row] if titles is not None else None, text, join_format)
        if joined:
            row_text[row] = numbers.setdefault(joined, len(numbers))
        else:
            notes[row] = EMPTY
    return EncodedSpan(encoder(list(numbers)), row_text, notes)


def infer(
    engine: Engine,
    texts: Encoded,
    classes: int,
    batch_tokens: int,
    on_batch: Callable[[BatchDone], None] | None = None,
) -> np.ndarray:
    """Return float32[n, classes], the class probabilities of `texts` in their order.

    Texts are sorted by length, cut into batches of at most `batch_tokens` padded tokens, and put back.
    """
    out = np.empty((len(texts), classes), dtype=np.float32)
    lengths = texts.lengths
    batches = list(length_sorted_batches(lengths, batch_tokens))
    all_logits = logits_in_order(engine, (collate(texts, rows) for rows in batches))
    for rows, logits in zip(batches, all_logits, strict=True):
        out[rows] = softmax(logits)
        if on_batch is not None:
            on_batch(BatchDone(len(rows), int(lengths[rows].sum()), len(rows) * int(lengths[rows].max())))
    return out


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the softmax over the last axis, computed in float64, as float32."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    exponentials = np.exp(shifted)
    result: np.ndarray = (exponentials / exponentials.sum(axis=-1, keepdims=True)).astype(np.float32)
    return result


def attach(span: EncodedSpan, probabilities: np.ndarray, settings: ScoreSettings) -> pa.Table:
    """Return the columns of SCORE_FIELDS for a span, one row per row of the span.

    Args:
        probabilities: float32[distinct texts, classes].
    """
    scored = span.row_text >= 0
    rows = np.zeros((span.rows, len(settings.labels)), dtype=np.float32)
    rows[scored] = probabilities[span.row_text[scored]]
    best = rows.argmax(axis=1)
    unscored = ~scored
    labels = pa.DictionaryArray.from_arrays(
        pa.array(best.astype(np.int32), mask=unscored), pa.array(settings.labels, pa.string())
    ).cast(pa.string())
    columns: dict[str, pa.Array] = {
        "label": labels,
        "confidence": pa.array(rows[np.arange(span.rows), best], pa.float32(), mask=unscored),
        "defect": pa.nulls(span.rows, pa.bool_()),
        "defect_score": pa.nulls(span.rows, pa.float32()),
        "defect_type": pa.nulls(span.rows, pa.string()),
        "defect_evidence": pa.nulls(span.rows, pa.string()),
        "defect_severity": pa.nulls(span.rows, pa.string()),
        "score_note": pa.array([NOTES[code] for code in span.notes], pa.string()),
    }
    if settings.negative is not None:
        negative = rows[:, settings.negative]
        columns["defect"] = pa.array(negative >= np.float32(settings.threshold), mask=unscored)
        columns["defect_score"] = pa.array(negative, pa.float32(), mask=unscored)
    return pa.table(columns, schema=pa.schema(SCORE_FIELDS))
