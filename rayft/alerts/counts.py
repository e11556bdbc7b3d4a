"""Reviews and reports per product, model and day, and the dense grids that the charts run over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from rayft.alerts.dedupe import mark_duplicates

#: Kinds of counted reviews that are not values of `defect_type`.
ANY, SAFETY, SERVICE, NEGATIVE = "defect", "safety", "service", "negative"
MAX_TYPES = 12
OWN_TYPES = ("failure", "breakage", "workmanship", "missing_parts")
_EPOCH_MONDAY = 3  # 1970-01-01 was a Thursday, three days after its Monday


@dataclass(frozen=True)
class Counts:
    """The counts of a catalogue.

    Attributes:
        volume: product, category, scorer, day, reviews, collapsed (copies not counted).
        reports: product, scorer, day, kind, reports; kind is `defect` (any), a defect type, `safety`,
            `service` or `negative` (negative and not a defect).
    """

    volume: pl.DataFrame
    reports: pl.DataFrame

    def without(self, products: Sequence[str]) -> Counts:
        gone = pl.Series(products, dtype=pl.String)
        return Counts(*(f.filter(~pl.col("product").is_in(gone.implode())) for f in (self.volume, self.reports)))

    def plus(self, other: Counts) -> Counts:
        return Counts(
            pl.concat([self.volume, other.volume]).sort("product", "scorer", "day"),
            pl.concat([self.reports, other.reports]).sort("product", "scorer", "day", "kind"),
        )


def count(reviews: pl.DataFrame, dedupe: bool = True) -> tuple[Counts, pl.DataFrame]:
    """Count extracted reviews; returns the counts and the flagged reviews that were counted, with their quotes.

    Of several versions of a review with one id the last is counted (files come in order of name); of
    near-duplicates the earliest.
    """
    reviews = reviews.with_row_index("order")
    latest = pl.col("order") == pl.col("order").max().over("product", "review_id")
    reviews = reviews.filter(pl.col("review_id").is_null() | latest)
    reviews = reviews.sort("product", "day", "scorer", "text_hash", "defect", "type", "quote", "score",
                           nulls_last=True)  # fmt: skip
    rows = np.arange(reviews.height)
    stands = mark_duplicates(reviews) if dedupe else rows
    copies = np.bincount(stands, minlength=reviews.height) - 1
    kept = reviews.with_columns(pl.Series("collapsed", copies, pl.Int64)).filter(pl.Series(stands == rows))
    category = kept.group_by("product", "category").len().sort(
        "product", "len", "category", descending=[False, True, False]
    ).unique("product", keep="first").select("product", "category")  # fmt: skip
    volume = (
        kept.group_by("product", "scorer", "day")
        .agg(pl.len().cast(pl.Int64).alias("reviews"), pl.col("collapsed").sum())
        .join(category, on="product")
        .select("product", "category", "scorer", "day", "reviews", "collapsed")
        .sort("product", "scorer", "day")
    )
    flags = {ANY: pl.col("defect"), SAFETY: pl.col("safety"), SERVICE: pl.col("service"), NEGATIVE: pl.col("negative")}
    keys = ["product", "scorer", "day"]
    by_flag = [kept.filter(flag).select(*keys, pl.lit(kind).alias("kind")) for kind, flag in flags.items()]
    typed = pl.col("type").is_not_null() & ~pl.col("type").is_in([ANY, SAFETY, SERVICE, NEGATIVE])
    by_type = kept.filter(pl.col("defect") & typed).select(*keys, pl.col("type").alias("kind"))
    reports = (
        pl.concat([*by_flag, by_type])
        .group_by(*keys, "kind")
        .agg(pl.len().cast(pl.Int64).alias("reports"))
        .sort(*keys, "kind")
    )
    flagged = kept.filter("defect").select(*keys, "type", "safety", "score", "quote").sort(*keys, "quote", "score")
    return Counts(volume, reports), flagged


def types_of(reports: pl.DataFrame) -> list[str]:
    """Return the defect types to watch, safety apart: those reported, at most the 12 most frequent.

    rayft's own types are watched from the first report of any of them: what is watched, and with it the
    share of each chart in the false-alarm budget, does not change when a rare one is first seen.
    """
    apart = [ANY, SAFETY, SERVICE, NEGATIVE]
    totals = reports.filter(~pl.col("kind").is_in(apart)).group_by("kind").agg(pl.col("reports").sum())
    found = set(totals.sort("reports", "kind", descending=[True, False])["kind"].head(MAX_TYPES))
    return sorted(found.union(OWN_TYPES) if found.intersection(OWN_TYPES) else found)


@dataclass(frozen=True)
class Periods:
    """The calendar as numbers: days or Monday-to-Sunday weeks since 1970; `days` is the length of one."""

    days: int

    def number(self, day: pl.Expr) -> pl.Expr:
        since_epoch = day.cast(pl.Int32).cast(pl.Int64)
        return since_epoch if self.days == 1 else (since_epoch + _EPOCH_MONDAY) // 7

    def date(self, number: int) -> np.datetime64:
        """Return the first day of a period."""
        return np.datetime64(number if self.days == 1 else number * 7 - _EPOCH_MONDAY, "D")

    def last_date(self, number: int) -> np.datetime64:
        return self.date(number) + np.timedelta64(self.days - 1, "D")

    def count(self, days: int) -> int:
        """Return how many periods make `days`, at least 1."""
        return max(1, round(days / self.days))


@dataclass(frozen=True)
class Grid:
    """Dense counts of some products under one model.

    Attributes:
        products: names, in order of rows.
        categories: of each product.
        first: number of the first period.
        reviews: int32 of shape (products, periods).
        reports: kind -> int32 of that shape.
    """

    products: list[str]
    categories: list[str]
    first: int
    reviews: np.ndarray
    reports: dict[str, np.ndarray]


def grids(counts: Counts, scorer: str, kinds: Sequence[str], periods: Periods, chunk: int = 2000) -> Iterator[Grid]:
    """Yield the grids of one model's products, `chunk` products at a time; all cover the same periods."""
    volume = counts.volume.filter(pl.col("scorer") == scorer).with_columns(periods.number(pl.col("day")).alias("t"))
    reports = counts.reports.filter(pl.col("scorer") == scorer, pl.col("kind").is_in(list(kinds)))
    reports = reports.with_columns(periods.number(pl.col("day")).alias("t"))
    if volume.is_empty():
        return
    first, last = int(volume["t"].min()), int(volume["t"].max())  # type: ignore[arg-type]
    products = volume.unique("product").select("product", "category").sort("product")
    for start in range(0, products.height, chunk):
        part = products.slice(start, chunk).with_row_index("row")
        shape = (part.height, last - first + 1)
        grid = Grid(
            part["product"].to_list(),
            part["category"].to_list(),
            first,
            _dense(volume.join(part.select("product", "row"), on="product"), "reviews", first, shape),
            {
                kind: _dense(
                    reports.filter(pl.col("kind") == kind).join(part.select("product", "row"), on="product"),
                    "reports", first, shape,
                )
                for kind in kinds
            },
        )  # fmt: skip
        yield grid


def _dense(frame: pl.DataFrame, value: str, first: int, shape: tuple[int, int]) -> np.ndarray:
    grid = np.zeros(shape, np.int32)
    np.add.at(grid, (frame["row"].to_numpy(), frame["t"].to_numpy() - first), frame[value].to_numpy().astype(np.int32))
    return grid
