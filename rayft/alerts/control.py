"""The negative control: a rise that service complaints share is not a defect's alone.

Bad weeks at a carrier, a wave of angry reviews or another site feeding the stream raise service
complaints and defect reports together; a fault of the product raises the latter only (negative
control outcomes: Lipsitch, Tchetgen Tchetgen and Cohen, 2010). The factor by which the control rose
at least is taken out of the defect chart before its threshold is applied.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rayft.alerts.baseline import Stream
from rayft.alerts.cusum import increments

#: Reports that are added to both sides of the ratio: a few complaints prove no rise.
_SHRINK = 2.0


@dataclass(frozen=True)
class Control:
    """Control complaints of one product.

    Attributes:
        complaints: per period.
        mean, strength: the category's prior for them, per period.
        sensitivity: of the classifier: defect reports that it misses count as complaints of the proxy.
    """

    complaints: np.ndarray
    mean: np.ndarray
    strength: np.ndarray
    window: int
    sensitivity: float


class Rise(Protocol):
    """The chart of a product that crossed its threshold."""

    @property
    def stream(self) -> Stream: ...
    @property
    def reviews(self) -> np.ndarray: ...
    @property
    def reports(self) -> np.ndarray: ...
    @property
    def normal(self) -> np.ndarray: ...
    @property
    def watched(self) -> np.ndarray: ...
    @property
    def control(self) -> Control: ...


def control_ratio(chart: Rise, start: int, now: int) -> float:
    """Return the factor by which complaints rose at least (one standard error below the estimate), from 1 on."""
    control = chart.control
    past = slice(max(0, start - control.window), start)
    strength, mean = control.strength[now], control.mean[now]
    usual = (control.complaints[past].sum() + mean * strength) / (chart.reviews[past].sum() + strength)
    rise = slice(start, now + 1)
    reviews, seen = chart.reviews[rise].sum(), control.complaints[rise].sum()
    extra = max(0.0, float(chart.reports[rise].sum() - chart.normal[start] * reviews))
    seen = max(0.0, seen - extra * (1 - control.sensitivity) / control.sensitivity)
    ratio = (seen + _SHRINK) / (usual * reviews + _SHRINK)
    return float(max(1.0, ratio * np.exp(-1 / np.sqrt(seen + _SHRINK))))


def discount(chart: Rise, start: int, now: int) -> tuple[float, float]:
    """Return the control's ratio, and the chart's sum since `start` with that ratio taken as normal."""
    ratio = control_ratio(chart, start, now)
    if not ratio > 1:
        return 1.0, float("inf")
    seen = start + np.flatnonzero(chart.reviews[start : now + 1])
    level = np.minimum(chart.watched[seen].astype(float) * ratio, 0.9)
    total = 0.0
    for step in increments(chart.reports[seen], chart.reviews[seen], level, chart.stream):
        total = max(0.0, total + float(step))
    return ratio, total
