"""An alarm as a receipt: everything that is needed to believe it or to check it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from rayft.alerts.baseline import Stream
from rayft.alerts.counts import ANY, SAFETY, Counts, Periods
from rayft.alerts.detect import ALERT, WATCH, Alarm

QUOTES = 5
_COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "id": pl.String, "rank": pl.Int32, "status": pl.String, "product": pl.String, "category": pl.String,
    "defect_type": pl.String, "onset": pl.Date, "first_alarm": pl.Date, "ended": pl.Date,
    "ended_because": pl.String,
    "reviews": pl.Int64, "reports": pl.Int64, "reviews_to_date": pl.Int64, "reports_to_date": pl.Int64,
    "expected_to_date": pl.Float64, "excess_to_date": pl.Float64, "copies_not_counted": pl.Int64,
    "share": pl.Float64, "baseline_share": pl.Float64, "corrected_share": pl.Float64,
    "corrected_baseline_share": pl.Float64, "statistic": pl.Float64, "threshold": pl.Float64,
    "peak_statistic": pl.Float64, "false_alarms_per_1000_product_months": pl.Float64, "p_value": pl.Float64,
    "fdr_level": pl.Float64, "p_value_cut": pl.Float64, "control": pl.String, "control_ratio": pl.Float64,
    "model": pl.String, "model_digest": pl.String, "calibration": pl.String, "scorer": pl.String,
    "quotes": pl.List(pl.String),
}  # fmt: skip
#: Columns of alerts.parquet and keys of a receipt.
SCHEMA = pl.Schema(_COLUMNS)


def receipts(
    alarms: Sequence[Alarm],
    scorer: str,
    facts: Mapping[str, Any],
    streams: Sequence[Stream],
    counts: Counts,
    flagged: pl.DataFrame,
    periods: Periods,
    control: str,
    level: float,
    ended_with_model: int | None,
) -> list[dict[str, Any]]:
    """Return receipts with the keys of SCHEMA, not yet ranked.

    Args:
        control: kind of the negative control.
        level: false-discovery level.
        ended_with_model: last period of this model's reviews if another one has followed.
    """
    by_kind = {stream.kind: stream for stream in streams}
    names = pl.Series([alarm.product for alarm in alarms], dtype=pl.String).unique()
    own = pl.col("product").is_in(names.implode()) & (pl.col("scorer") == scorer)
    flagged_of = flagged.filter(own).partition_by("product", as_dict=True)
    volume_of = counts.volume.filter(own).partition_by("product", as_dict=True)
    made = []
    for alarm in alarms:
        stream = by_kind[alarm.kind]
        onset, first_alarm = periods.date(alarm.onset).item(), periods.last_date(alarm.alarm).item()
        ended, why = alarm.closed, "back to normal"
        if ended is None and ended_with_model is not None:
            ended, why = ended_with_model, "model changed"
        last = None if ended is None else periods.last_date(ended).item()
        within = pl.col("day") >= onset
        if last is not None:
            within &= pl.col("day") <= last
        corrected = stream.true_share(pl.Series([alarm.reports / alarm.reviews, alarm.normal]).to_numpy())
        key = [alarm.product, alarm.kind, scorer, str(onset)]
        made.append({
            "id": hashlib.blake2b("\x1f".join(key).encode(), digest_size=6).hexdigest(),
            "rank": 0,
            "status": alarm.status,
            "product": alarm.product,
            "category": alarm.category or None,
            "defect_type": alarm.kind,
            "onset": onset,
            "first_alarm": first_alarm,
            "ended": last,
            "ended_because": None if last is None else why,
            "reviews": alarm.reviews,
            "reports": alarm.reports,
            "reviews_to_date": alarm.reviews_to_date,
            "reports_to_date": alarm.reports_to_date,
            "expected_to_date": round(alarm.normal * alarm.reviews_to_date, 3),
            "excess_to_date": round(alarm.excess, 3),
            "copies_not_counted": int(volume_of[(alarm.product,)].filter(within)["collapsed"].sum()),
            "share": round(alarm.reports / alarm.reviews, 6),
            "baseline_share": round(alarm.normal, 6),
            "corrected_share": round(float(corrected[0]), 6),
            "corrected_baseline_share": round(float(corrected[1]), 6),
            "statistic": round(alarm.statistic, 4),
            "threshold": round(alarm.threshold, 4),
            "peak_statistic": round(alarm.peak, 4),
            "false_alarms_per_1000_product_months": round(stream.false_alarms, 4),
            "p_value": float(f"{alarm.p_value:.3g}"),
            "fdr_level": None if alarm.cut is None else level,
            "p_value_cut": None if alarm.cut is None else float(f"{alarm.cut:.3g}"),
            "control": control,
            "control_ratio": round(alarm.control_ratio, 3),
            **{name: facts.get(name) for name in ("model", "model_digest", "calibration")},
            "scorer": scorer,
            "quotes": _quotes(flagged_of.get((alarm.product,)), alarm.kind, within),
        })  # fmt: skip
    return made


def _quotes(flagged: pl.DataFrame | None, kind: str, within: pl.Expr) -> list[str]:
    """Return the surest reports since the onset, redacted as they were extracted."""
    if flagged is None:
        return []
    own = pl.lit(True) if kind == ANY else pl.col("safety") if kind == SAFETY else pl.col("type") == kind
    found = flagged.filter(within & own & pl.col("quote").is_not_null())
    found = found.sort("score", "day", "quote", descending=[True, True, False], nulls_last=True)
    return found["quote"].unique(maintain_order=True).head(QUOTES).to_list()


def rank(made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Order receipts: alerts before the rest, safety first, lasting before ended, then by reports beyond normal."""
    status = {ALERT: 0, WATCH: 1}
    ordered = sorted(
        made,
        key=lambda r: (
            status.get(r["status"], 2), r["defect_type"] != SAFETY, r["ended_because"] == "back to normal",
            -r["excess_to_date"], r["product"], r["defect_type"], r["onset"], r["scorer"],
        ),
    )  # fmt: skip
    return [{**receipt, "rank": i} for i, receipt in enumerate(ordered, 1)]


def to_frame(ranked: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Return receipts as a table with SCHEMA."""
    return pl.DataFrame(list(ranked), schema=SCHEMA, orient="row")
