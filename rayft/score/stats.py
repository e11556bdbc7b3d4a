"""Counts and times of scoring that add up: per span, per file, per run."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field, fields

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rayft.score.span import NOTES, EncodedSpan

#: Upper edges of the token-length histogram.
LENGTH_EDGES = (8, 16, 32, 64, 96, 128, 192, 256, 384, 512)
CONFIDENCE_BINS = 20


@dataclass
class Stats:
    """Mergeable statistics of scored rows.

    Attributes:
        texts: distinct texts that went through the model.
        tokens: real tokens computed; `padded_tokens` with padding.
        truncated: rows whose text was longer than the maximum length.
        unlabelled: rows without a label, by note.
        seconds: time by stage, added over spans.
        lengths: rows by token length, bins as in LENGTH_EDGES with one more at the end.
        confidences: labelled rows by confidence, CONFIDENCE_BINS equal bins of [0, 1].
    """

    rows: int = 0
    texts: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    truncated: int = 0
    defects: int = 0
    unlabelled: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)
    lengths: list[int] = field(default_factory=lambda: [0] * (len(LENGTH_EDGES) + 1))
    confidences: list[int] = field(default_factory=lambda: [0] * CONFIDENCE_BINS)

    def add(self, other: Stats) -> None:
        """Add `other` to this."""
        for f in fields(self):
            mine, theirs = getattr(self, f.name), getattr(other, f.name)
            if isinstance(mine, Counter):
                mine.update(theirs)
            elif isinstance(mine, dict):
                for stage, seconds in theirs.items():
                    self.spend(stage, seconds)
            elif isinstance(mine, list):
                setattr(self, f.name, [a + b for a, b in zip(mine, theirs, strict=True)])
            else:
                setattr(self, f.name, mine + theirs)

    def spend(self, stage: str, seconds: float) -> None:
        """Count time of a stage."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    @property
    def labelled(self) -> int:
        return self.rows - sum(self.unlabelled.values())

    def to_json(self) -> str:
        return json.dumps(vars(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Stats:
        values = json.loads(text)
        for name in ("unlabelled", "labels"):
            values[name] = Counter(values[name])
        return cls(**values)


def span_stats(span: EncodedSpan, full: pa.Table) -> Stats:
    """Return the counts of one span; `full` holds all appended columns under their own names."""
    scored = span.row_text >= 0
    row_lengths = span.texts.lengths[span.row_text[scored]]
    confidence = full["confidence"].drop_null().to_numpy()
    stats = Stats(
        rows=span.rows,
        texts=len(span.texts),
        truncated=int(span.texts.truncated[span.row_text[scored]].sum()),
        defects=pc.sum(full["defect"]).as_py() or 0,
        lengths=np.bincount(
            np.searchsorted(LENGTH_EDGES, row_lengths, side="left"), minlength=len(LENGTH_EDGES) + 1
        ).tolist(),
        confidences=np.histogram(confidence, bins=CONFIDENCE_BINS, range=(0.0, 1.0))[0].tolist(),
    )
    stats.unlabelled.update(str(NOTES[code]) for code in span.notes[~scored])
    stats.labels.update({v["values"]: v["counts"] for v in pc.value_counts(full["label"].drop_null()).to_pylist()})
    return stats
