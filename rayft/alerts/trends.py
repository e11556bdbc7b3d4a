"""Weekly counts of single products, for charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import polars as pl

from rayft.alerts.counts import ANY, NEGATIVE, SERVICE, Counts

_WEEKS = 78
_FEW_REVIEWS = 5  # a week: four weeks are put together


@dataclass(frozen=True)
class Trend:
    """Counts of one product in bins of one or four weeks that end with the data.

    Attributes:
        days: first day of each bin.
        reports: kind -> reports in each bin.
        daily: the same day by day: day, kind (null: reviews), number.
    """

    bin_days: int
    days: list[date]
    reviews: list[int]
    reports: dict[str, list[int]]
    daily: pl.DataFrame

    @property
    def begin(self) -> date:
        return self.days[0]

    @property
    def end(self) -> date:
        return self.days[-1] + timedelta(days=self.bin_days - 1)

    @property
    def kinds(self) -> list[str]:
        """The defect types that were reported; all defects together if there are no types."""
        return [kind for kind in self.reports if kind not in (ANY, SERVICE, NEGATIVE)] or [ANY]

    def shares(self, kind: str) -> list[tuple[date, float | None]]:
        """Return the share of a kind in each bin, at its first day; None without reviews."""
        counts = self.reports.get(kind, [0] * len(self.days))
        return [(day, y / n if n else None) for day, y, n in zip(self.days, counts, self.reviews, strict=True)]

    def split(self, onset: date) -> tuple[tuple[int, dict[str, int]], tuple[int, dict[str, int]]]:
        """Return reviews and reports by kind, before `onset` and since."""

        def of(part: pl.DataFrame) -> tuple[int, dict[str, int]]:
            sums = dict(part.group_by("kind").agg(pl.col("number").sum()).iter_rows())
            return sums.pop(None, 0), sums

        before, since = of(self.daily.filter(pl.col("day") < onset)), of(self.daily.filter(pl.col("day") >= onset))
        return before, since


def trends(counts: Counts, wanted: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Trend]:
    """Return the trend of each (product, model) that is wanted."""
    names = pl.Series([product for product, _ in wanted], dtype=pl.String).unique()
    own = pl.col("product").is_in(names.implode())
    last = counts.volume["day"].max()
    keys = ["product", "scorer", "day"]
    volume = counts.volume.filter(own).select(*keys, pl.lit(None, pl.String).alias("kind"),
                                              pl.col("reviews").alias("number"))  # fmt: skip
    reports = counts.reports.filter(own).select(*keys, "kind", pl.col("reports").alias("number"))
    parts = pl.concat([volume, reports]).partition_by("product", "scorer", as_dict=True)
    return {key: _trend(parts[key], last) for key in wanted}  # type: ignore[arg-type]


def _trend(daily: pl.DataFrame, last: date) -> Trend:
    first: date = daily["day"].min()  # type: ignore[assignment]
    weeks = (last - first).days / 7 + 1e-9
    reviews = int(daily.filter(pl.col("kind").is_null())["number"].sum())
    bin_days = 28 if reviews / max(1.0, weeks) < _FEW_REVIEWS and weeks >= 12 else 7
    number = min((last - first).days // bin_days + 1, _WEEKS * 7 // bin_days)
    begin = last - timedelta(days=number * bin_days - 1)
    binned = (
        daily.filter(pl.col("day") >= begin)
        .with_columns(((pl.col("day") - begin).dt.total_days() // bin_days).alias("bin"))
        .group_by("kind", "bin")
        .agg(pl.col("number").sum())
    )
    found = {(kind, at): value for kind, at, value in binned.iter_rows()}
    kinds = sorted({kind for kind, _ in found if kind is not None})
    return Trend(
        bin_days,
        [begin + timedelta(days=i * bin_days) for i in range(number)],
        [found.get((None, i), 0) for i in range(number)],
        {kind: [found.get((kind, i), 0) for i in range(number)] for kind in kinds},
        daily,
    )
