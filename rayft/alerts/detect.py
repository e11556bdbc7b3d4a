"""The charts of a whole catalogue under one model -> alarms.

Everything at a period depends on reviews dated up to that period only, so that a chart that is run
again with more data says the same of the past, and a rebuild from the Parquet gives the same alarms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from rayft.alerts.baseline import Stream
from rayft.alerts.blocks import Blocks
from rayft.alerts.control import Control, discount
from rayft.alerts.counts import Counts, Grid, Periods, grids
from rayft.alerts.cusum import Chart, Timing, cumulative, onset, run
from rayft.alerts.fdr import cuts
from rayft.alerts.thresholds import Limits, p_values

ALERT, WATCH, JOINT = "alert", "watch", "joint"


@dataclass(frozen=True)
class Alarm:
    """One chart over its threshold. Periods are numbers since 1970 (days or weeks).

    Attributes:
        status: `alert`; `watch` (over the threshold, but not selected by the false-discovery rule); `joint`
            (service complaints rose as well, and what they do not explain stays below the threshold).
        onset: first period of the rise, estimated.
        alarm: period in which it first had this status.
        closed: period in which the chart came back to zero; None while it lasts.
        reviews, reports: from the onset to the alarm.
        reviews_to_date, reports_to_date: from the onset to the end of the rise or of the data.
        normal: the product's flagged share before, posterior mean; `expected` reports are normal * reviews_to_date.
        control_ratio: factor by which service complaints rose at least (1: they did not).
        p_value: at the alarm, adjusted for the number of charts of the product.
        cut: up to this p-value products were selected on that day; None for safety, which is exempt.
    """

    product: str
    category: str
    kind: str
    status: str
    onset: int
    alarm: int
    closed: int | None
    reviews: int
    reports: int
    reviews_to_date: int
    reports_to_date: int
    normal: float
    statistic: float
    peak: float
    threshold: float
    p_value: float
    cut: float | None
    control_ratio: float

    @property
    def excess(self) -> float:
        """Reports to date beyond what is normal."""
        return self.reports_to_date - self.normal * self.reviews_to_date


@dataclass
class _Crossing:
    """The chart of a product that crossed its threshold at some time."""

    product: str
    category: str
    stream: Stream
    reviews: np.ndarray
    reports: np.ndarray
    statistic: np.ndarray
    since: np.ndarray
    normal: np.ndarray
    watched: np.ndarray
    threshold: np.ndarray
    p_value: np.ndarray
    control: Control


@dataclass
class _Evidence:
    """What all chunks of a catalogue leave behind."""

    crossings: list[_Crossing] = field(default_factory=list)
    period: list[np.ndarray] = field(default_factory=list)
    product: list[np.ndarray] = field(default_factory=list)
    p_value: list[np.ndarray] = field(default_factory=list)


def detect(
    counts: Counts,
    scorer: str,
    streams: Sequence[Stream],
    control_kind: str,
    sensitivity: float,
    level: float,
    periods: Periods,
    timing: Timing,
    known: dict[str, list[float]],
) -> list[Alarm]:
    """Run all charts of one model's reviews.

    Args:
        control_kind: kind of the negative control: `service`, or `negative` as a proxy.
        level: false-discovery level.
        known: cached thresholds; new ones are added.
    """
    kinds = [stream.kind for stream in streams] + [control_kind]
    blocks = Blocks.of(counts, scorer, kinds, periods, timing)
    if blocks is None:
        return []
    limits = {stream.kind: Limits(stream, timing, known) for stream in streams}
    filtered = sum(stream.kind != "safety" for stream in streams)  # charts that the false-discovery rule sees
    evidence = _Evidence()
    watched = np.zeros(len(blocks.block_of), np.int64)
    offset = 0
    for grid in grids(counts, scorer, kinds, periods):
        begun = np.cumsum(grid.reviews > 0, axis=1) > 0
        watched += (begun & np.isfinite(blocks.any_prior()[blocks.block_of])[None, :]).sum(axis=0)
        for stream in streams:
            _run_chunk(grid, offset, stream, control_kind, filtered, blocks, limits[stream.kind], level, timing,
                       evidence, sensitivity)  # fmt: skip
        offset += len(grid.products)
    period, product, p_value = (np.concatenate([np.zeros(0), *parts]) for parts in
                                (evidence.period, evidence.product, evidence.p_value))  # fmt: skip
    cut = (cuts(period.astype(np.int64), product.astype(np.int64), p_value, watched, level) if level < 1
           else np.ones(len(watched)))  # fmt: skip
    alarms = [alarm for crossing in evidence.crossings for alarm in _alarms(crossing, cut, blocks.first)]
    return sorted(alarms, key=lambda a: (a.product, a.kind, a.onset))


def run_charts(
    grid: Grid, stream: Stream, blocks: Blocks, limits: Limits, timing: Timing
) -> tuple[Chart, dict[str, np.ndarray]]:
    """Run one stream's charts of a grid; returns them with threshold, scale and rate by product and period."""
    mean, strength = blocks.prior_of(grid, stream.kind)
    limit = limits.lookup(mean, strength, blocks.volume_of(grid))
    cap = 2 * limit["threshold"]
    chart = run(grid.reviews, grid.reports[stream.kind], mean, strength, blocks.block_of, stream, timing, cap)
    return chart, {name: values[:, blocks.block_of] for name, values in limit.items()}


def _run_chunk(
    grid: Grid,
    offset: int,
    stream: Stream,
    control_kind: str,
    charts: int,
    blocks: Blocks,
    limits: Limits,
    level: float,
    timing: Timing,
    evidence: _Evidence,
    sensitivity: float,
) -> None:
    chart, by_period = run_charts(grid, stream, blocks, limits, timing)
    p_value = np.minimum(1.0, charts * p_values(chart.statistic, by_period["scale"], by_period["rate"]))
    if stream.kind != "safety" and level < 1:
        row, period = np.nonzero(p_value <= level)
        evidence.period.append(period)
        evidence.product.append(row + offset)
        evidence.p_value.append(p_value[row, period])
    crossed = np.flatnonzero((chart.statistic >= by_period["threshold"]).any(axis=1))
    if not len(crossed):
        return
    control_mean, control_strength = blocks.prior_of(grid, control_kind)
    for i in crossed:
        control = Control(grid.reports[control_kind][i], control_mean[i, blocks.block_of],
                          control_strength[i, blocks.block_of], timing.window, sensitivity)  # fmt: skip
        evidence.crossings.append(_Crossing(
            grid.products[i], grid.categories[i], stream, grid.reviews[i], grid.reports[stream.kind][i],
            chart.statistic[i], chart.since[i], chart.normal[i], chart.watched[i], by_period["threshold"][i],
            p_value[i], control,
        ))  # fmt: skip


def _alarms(chart: _Crossing, cut: np.ndarray, first: int) -> list[Alarm]:
    """Return the best-founded status of every rise of one chart."""
    over = np.flatnonzero(chart.statistic >= chart.threshold)
    reviews, reports = cumulative(chart.reviews[None])[0], cumulative(chart.reports[None])[0]
    alarms = []
    for start in np.unique(chart.since[over]):
        rise = over[chart.since[over] == start]
        back = np.flatnonzero(chart.statistic[rise[0] :] == 0)
        closed = int(rise[0] + back[0]) if len(back) else None
        found: dict[str, tuple[int, float]] = {}
        for t in rise:
            if reports[t + 1] - reports[start] < chart.stream.min_reports:
                continue
            ratio, rest = discount(chart, int(start), int(t))
            status = JOINT
            if rest >= chart.threshold[t]:
                status = ALERT if chart.stream.kind == "safety" or chart.p_value[t] <= cut[t] else WATCH
            found.setdefault(status, (int(t), ratio))
            if status == ALERT:
                break
        if not found:
            continue
        status = next(s for s in (ALERT, WATCH, JOINT) if s in found)
        t, ratio = found[status]
        end = len(chart.reviews) if closed is None else closed
        normal = float(chart.normal[start])
        rise_began = slice(int(start), t + 1)
        began = int(start) + onset(chart.reviews[rise_began], chart.reports[rise_began], normal)
        alarms.append(Alarm(
            product=chart.product, category=chart.category, kind=chart.stream.kind, status=status,
            onset=first + began, alarm=first + t, closed=None if closed is None else first + closed,
            reviews=int(reviews[t + 1] - reviews[began]), reports=int(reports[t + 1] - reports[began]),
            reviews_to_date=int(reviews[end] - reviews[began]), reports_to_date=int(reports[end] - reports[began]),
            normal=normal, statistic=float(chart.statistic[t]),
            peak=float(chart.statistic[start:end].max()), threshold=float(chart.threshold[t]),
            p_value=float(chart.p_value[t]), cut=None if chart.stream.kind == "safety" else float(cut[t]),
            control_ratio=ratio,
        ))  # fmt: skip
    return alarms
