"""Made-up scored reviews of a small catalogue, with rises planted where a test wants them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from rayft.data.columns import SCORE_NAMES
from rayft.score.commit import FOOTER_KEY

FIRST = date(2025, 1, 6)
TYPES = ("failure", "breakage", "workmanship", "missing_parts")
_WORDS = """
    handle screen cable motor box color price gift kitchen week month lid plug switch smell noise bought
    returned again store works broke cracked stopped happy sad great poor light heavy cheap sturdy easy hard
""".split()  # noqa: SIM905


@dataclass(frozen=True)
class Rise:
    """A planted rise: from day `start`, `share` more of the reviews are reports of `kind`, after `ramp` days."""

    product: str
    start: int
    share: float
    kind: str = "failure"
    ramp: int = 14
    end: int = 10_000


def catalogue(
    products: int = 12,
    days: int = 240,
    volume: float = 3.0,
    share: float = 0.06,
    rises: Sequence[Rise] = (),
    seed: int = 0,
    first: date = FIRST,
) -> pl.DataFrame:
    """Return scored reviews: every product has `volume` reviews a day, `share` of them reports of any type."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for i in range(products):
        name = f"P{i:03d}"
        own = rng.beta(share * 60, (1 - share) * 60)
        planted = [rise for rise in rises if rise.product == name]
        for day in range(days):
            for _ in range(rng.poisson(volume)):
                kind: str | None = str(rng.choice(TYPES)) if rng.random() < own else None
                for rise in planted:
                    grown = rise.share * min(1.0, (day - rise.start + 1) / rise.ramp)
                    if rise.start <= day < rise.end and rng.random() < grown:
                        kind = rise.kind
                rows.append(_review(rng, name, first + timedelta(days=day), i, len(rows), kind))
    return pl.DataFrame(rows, infer_schema_length=None)


def _review(rng: np.random.Generator, product: str, day: date, i: int, n: int, kind: str | None) -> dict[str, Any]:
    service = kind == "service"
    defect = kind is not None and not service
    negative = kind is not None or rng.random() < 0.12
    text = " ".join(rng.choice(_WORDS, 14)) + f" {n}"
    return {
        "review_id": f"r{n}", "asin": product, "date": day, "category": ("home", "toys")[i % 2], "text": text,
        "label": "negative" if negative else "positive", "confidence": 0.9, "defect": defect,
        "defect_score": round(0.5 + 0.5 * rng.random(), 3) if defect else round(0.4 * rng.random(), 3),
        "defect_type": kind, "defect_evidence": f"it {kind} after a week, call 555-123-4567 ({n})" if defect else None,
        "defect_severity": ("high" if kind == "safety" else "low") if defect else None, "score_note": None,
    }  # fmt: skip


_SCORES = {
    "label": pl.String, "confidence": pl.Float32, "defect": pl.Boolean, "defect_score": pl.Float32,
    "defect_type": pl.String, "defect_evidence": pl.String, "defect_severity": pl.String, "score_note": pl.String,
}  # fmt: skip


def write_scored(
    path: Path, frame: pl.DataFrame, model: str = "model-a", prefix: str = "", footer: dict[str, Any] | None = None
) -> Path:
    """Write a file as `rayft score` does: typed columns and a footer that names model and columns."""
    frame = frame.cast({name: kind for name, kind in _SCORES.items() if name in frame.columns})
    frame = frame.rename({name: prefix + name for name in SCORE_NAMES if name in frame.columns})
    entry = {
        "model": {"name": model, "digest": f"digest-of-{model}", "labels": ["negative", "positive"]},
        "columns": {name: prefix + name for name in SCORE_NAMES},
        "settings": {"threshold": 0.5},
        **(footer or {}),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    table = frame.to_arrow()
    metadata = {**(table.schema.metadata or {}), FOOTER_KEY: json.dumps(entry).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return path
