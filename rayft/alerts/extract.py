"""A scored Parquet file -> the few columns that alerts need, one row a review, quotes redacted.

Extracts are what is kept between runs: they hold no review text, only fingerprints of it, and the
redacted quotes of flagged reviews.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from rayft.alerts.columns import AlertColumns, choose
from rayft.alerts.config import AlertsConfig
from rayft.alerts.dedupe import fingerprints
from rayft.data.inputs import InputFile
from rayft.errors import InputError, UsageError
from rayft.score.commit import parse_footer
from rayft.text.clean import clean
from rayft.text.redact import redact

QUOTE_CHARACTERS = 200
SCHEMA = pl.Schema(
    {
        "product": pl.String, "category": pl.String, "day": pl.Date, "scorer": pl.String, "review_id": pl.String,
        "defect": pl.Boolean, "type": pl.String, "safety": pl.Boolean, "service": pl.Boolean, "negative": pl.Boolean,
        "score": pl.Float32, "quote": pl.String, "words": pl.UInt16, "text_hash": pl.UInt64, "signature": pl.Binary,
    }
)  # fmt: skip
_BATCH_ROWS = 50_000
#: Settings of a scoring run that change which reviews are flagged, beside the model itself.
_FLAG_SETTINGS = ("threshold", "max_length", "truncation", "negative_label", "scoring", "prior")


@dataclass(frozen=True)
class Scored:
    """A scored file that is ready to be read.

    Attributes:
        scorer: identity of model, calibration and flag settings; another one means another baseline.
        scorer_facts: what the identity stands for, for receipts.
    """

    file: InputFile
    columns: AlertColumns
    scorer: str
    scorer_facts: dict[str, Any]


def scorer_of(footer: Mapping[str, Any] | None) -> tuple[str, dict[str, Any]]:
    """Return the identity of what flagged a file's reviews, and its facts: name, digest, calibration, threshold."""
    footer = footer or {}
    model = footer.get("model") or {}
    calibration = footer.get("calibration") or model.get("calibration")
    if isinstance(calibration, dict):
        calibration = calibration.get("digest") or calibration.get("id") or _digest(calibration)
    settings = footer.get("settings") or {}
    facts = {
        "model": model.get("name"),
        "model_digest": model.get("digest"),
        "calibration": calibration,
        "threshold": settings.get("threshold"),
    }
    return _digest([facts, {key: settings.get(key) for key in _FLAG_SETTINGS}]), facts


def _digest(value: object) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True, default=str).encode(), digest_size=6).hexdigest()


def open_scored(file: InputFile, config: AlertsConfig) -> Scored:
    """Read the footer of a scored file and choose its columns.

    Raises:
        UsageError: it is not scored Parquet or a column is missing.
        InputError: it cannot be read.
    """
    location = file.location
    if file.format != "parquet":
        raise UsageError(f"{location} is {file.format}, not scored Parquet. Score it first: rayft score {location}")
    try:
        with location.filesystem.open_input_file(location.path) as stream:
            parquet = pq.ParquetFile(stream)
            footer = parse_footer(parquet.metadata.metadata or {})
            schema = parquet.schema_arrow
    except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
        raise InputError(f"Cannot read {location}: {str(error).splitlines()[0]}") from error
    columns = choose(schema, footer and footer.get("columns"), location.path, config, str(location))
    scorer, facts = scorer_of(footer)
    return Scored(file, columns, scorer, facts)


def extract(scored: Scored, config: AlertsConfig) -> tuple[pl.DataFrame, dict[str, int]]:
    """Return a file's reviews with SCHEMA, and how many were left out, by reason.

    Raises:
        UsageError: the dates cannot be understood.
        InputError: the file cannot be read.
    """
    columns = scored.columns
    wanted = {columns.product, columns.date, columns.category, columns.text, columns.review_id, columns.issue}
    wanted |= set(columns.score.values())
    names = [name for name in wanted if name is not None and name not in columns.partitions]
    parts: list[pl.DataFrame] = []
    left_out: dict[str, int] = {}
    location = scored.file.location
    try:
        with location.filesystem.open_input_file(location.path) as stream:
            for batch in pq.ParquetFile(stream).iter_batches(_BATCH_ROWS, columns=names):
                frame = pl.DataFrame(pl.from_arrow(batch))
                parts.append(_reviews(frame, scored, config, left_out))
    except (OSError, ValueError) as error:
        raise InputError(f"Cannot read {location}: {str(error).splitlines()[0]}") from error
    return (pl.concat(parts) if parts else pl.DataFrame(schema=SCHEMA)), left_out


def _reviews(frame: pl.DataFrame, scored: Scored, config: AlertsConfig, left_out: dict[str, int]) -> pl.DataFrame:
    columns = scored.columns
    frame = frame.with_columns(pl.lit(value).alias(key) for key, value in columns.partitions.items()
                               if key not in frame.columns)  # fmt: skip

    def given(name: str | None) -> pl.Expr:
        return pl.col(name).cast(pl.String) if name else pl.lit(None, pl.String)

    def own(name: str, dtype: type[pl.DataType]) -> pl.Expr:
        return pl.col(columns.score[name]).cast(dtype) if name in columns.score else pl.lit(None, dtype)

    negative = (config.negative_label or "negative").lower()
    reviews = frame.select(
        given(columns.product).alias("product"),
        given(columns.category).fill_null("").alias("category"),
        dates(frame[columns.date], str(scored.file.location)).alias("day"),
        pl.lit(scored.scorer).alias("scorer"),
        given(columns.review_id).alias("review_id"),
        own("defect", pl.Boolean).alias("defect"),
        own("defect_type", pl.String).alias("type"),
        (own("defect_type", pl.String).eq_missing("safety") | own("defect_severity", pl.String).eq_missing("high"))
        .alias("safety"),
        (own("defect_type", pl.String).eq_missing("service") | given(columns.issue).eq_missing("service"))
        .alias("service"),
        own("label", pl.String).str.to_lowercase().eq_missing(negative).alias("negative"),
        own("defect_score", pl.Float32).alias("score"),
        own("defect_evidence", pl.String).alias("quote"),
        given(columns.text).alias("text"),
    )  # fmt: skip
    for reason, missing in (("not scored", "defect"), ("no date", "day"), ("no product", "product")):
        count = reviews[missing].null_count()
        if count:
            left_out[reason] = left_out.get(reason, 0) + count
            reviews = reviews.filter(pl.col(missing).is_not_null())
    texts = reviews["text"].fill_null("")
    quotes = [
        _quote(quote, text) if defect else None
        for quote, text, defect in zip(reviews["quote"], texts, reviews["defect"], strict=True)
    ]
    words, text_hash, signature = fingerprints(texts)
    reviews = reviews.with_columns(
        pl.Series("quote", quotes, pl.String), words, text_hash, signature,
        pl.col("safety") & pl.col("defect"), pl.col("service") & ~pl.col("defect"),
        pl.col("negative") & ~pl.col("defect"),
        pl.when("defect").then("type").alias("type"),
    )  # fmt: skip
    return reviews.select(SCHEMA.names()).cast(SCHEMA)


def _quote(evidence: str | None, text: str) -> str | None:
    """Return the evidence, or the beginning of the text if there is none, redacted.

    Redaction comes before cutting: half of a telephone number would not be recognised.
    """
    whole = redact(clean(evidence or text[: 10 * QUOTE_CHARACTERS]))
    if len(whole) > QUOTE_CHARACTERS:
        whole = whole[: QUOTE_CHARACTERS - 1].rsplit(" ", 1)[0] + "…"
    return whole or None


def dates(values: pl.Series, where: str) -> pl.Series:
    """Return a column as dates: date, datetime, ISO text (a time after it is cut), or seconds or ms since 1970.

    Raises:
        UsageError: none of the values is a date.
    """
    if values.dtype == pl.Date:
        return values
    if isinstance(values.dtype, pl.Datetime):
        return values.dt.date()
    if values.dtype.is_numeric():
        numbers = values.cast(pl.Float64)
        seconds = pl.select(pl.when(numbers.abs() > 1e11).then(numbers / 1000).otherwise(numbers)).to_series()
        result = (seconds * 1000).cast(pl.Int64, strict=False).cast(pl.Datetime("ms")).dt.date()
    else:
        text = values.cast(pl.String).str.strip_chars()
        result = text.str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False)
        for layout in ("%m %d, %Y", "%B %d, %Y", "%Y/%m/%d", "%Y%m%d"):
            if result.null_count() > values.null_count():
                result = result.fill_null(text.str.to_date(layout, strict=False))
    if len(values) > values.null_count() and result.null_count() == len(values):
        example = values.drop_nulls()[0]
        raise UsageError(
            f"Column '{values.name}' of {where} holds no dates that rayft understands (for example {example!r}). "
            "Use dates, timestamps, 2026-11-30 or seconds since 1970, or choose another with --date-column."
        )
    return result
