"""Where a chart raises the alarm: thresholds from simulated run lengths, and p-values of its statistic.

The simulation is the null as the detector meets it: products whose true share is drawn from the
category's prior, reviews arriving at a constant rate, the baseline learned as the chart goes. Its
chance to cross a threshold within two years gives the average run length, and the threshold for the
allowed number of false alarms per 1,000 product-months. The estimation error of the baseline is part
of it (Jensen, Jones-Farmer, Champ and Woodall, 2006). The upper tail of the statistic at a fixed
time, exponential as for any such sum, gives p-values (Grigg and Spiegelhalter, 2008).

Every cell of the grid (prior mean, prior strength, volume) has its own fixed seed; results are cached.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

import numpy as np

from rayft.alerts.baseline import STRENGTHS, Stream
from rayft.alerts.cusum import MARGIN, Timing, run

#: Changes when the same parameters come to mean other thresholds.
VERSION = 2
_PATHS = 1000
_MONTHS = 24
_MEAN_STEP, _VOLUME_STEP, _STRENGTH_STEP = 1.5, 2.0, 2.5
_MEANS, _VOLUMES = (0.0005, 0.6), (0.03, 64.0)

Cell = tuple[int, int, int]


@dataclass(frozen=True)
class Limit:
    """What the simulation says of one cell.

    Attributes:
        threshold: alarm from this value of the statistic on.
        scale, rate: P(statistic >= c) at a fixed time is about scale * exp(-rate * c) in the tail.
    """

    threshold: float
    scale: float
    rate: float


def cell_of(mean: float, strength: float, volume: float) -> Cell:
    """Return the nearest cell of the grid (steps by a factor of 1.5, 2.5 and 2)."""

    def step(value: float, low: float, high: float, factor: float) -> int:
        return round(float(np.log(np.clip(value, low, high) / low) / np.log(factor)))

    return (
        step(mean, *_MEANS, _MEAN_STEP),
        step(strength, *STRENGTHS, _STRENGTH_STEP),
        step(volume, *_VOLUMES, _VOLUME_STEP),
    )


def simulate(stream: Stream, cell: Cell, timing: Timing, paths: int = _PATHS) -> Limit:
    """Simulate one cell. Volume is in reviews per period, strengths in reviews."""
    mean = _MEANS[0] * _MEAN_STEP ** cell[0]
    strength = STRENGTHS[0] * _STRENGTH_STEP ** cell[1]
    volume = _VOLUMES[0] * _VOLUME_STEP ** cell[2]
    rng = np.random.default_rng([VERSION, *cell])
    periods = round(_MONTHS * timing.month)
    share = rng.beta(mean * strength, (1 - mean) * strength, (paths, 1))
    reviews = rng.poisson(volume, (paths, periods)).astype(np.int32)
    reports = rng.binomial(reviews, share).astype(np.int32)
    one = np.zeros(periods, np.int64)
    chart = run(reviews, reports, np.full((paths, 1), mean), np.full((paths, 1), strength), one, stream, timing)
    highest = np.sort(chart.statistic.max(axis=1).astype(float))
    sample = np.sort(chart.statistic[:, timing.freeze :: max(1, timing.block // 4)].ravel().astype(float))
    scale, rate = _tail(sample)
    return Limit(_threshold(highest, stream.false_alarms, rate), scale, rate)


def _threshold(highest: np.ndarray, false_alarms: float, rate: float) -> float:
    """Return the value that as many paths reach as the budget allows within the simulated time."""
    crossing = 1 - np.exp(-false_alarms / 1000 * _MONTHS)
    allowed = crossing * len(highest)
    if allowed >= 10:
        above = highest[len(highest) - int(allowed) :]
        return max(1.0, float(above[0]) + 1e-6)
    # too rare to be seen often: from the tenth highest on along the tail of the statistic
    return max(1.0, float(highest[-10]) + float(np.log(10 / allowed)) / rate)


def _tail(sample: np.ndarray) -> tuple[float, float]:
    """Fit the upper tail (between one in 20 and one in 1,000) of the statistic by an exponential."""
    size = len(sample)
    upper, far = sample[int(size * 0.95)], sample[int(size * 0.999)]
    above = sample[int(size * 0.95) :]
    if far <= 0:
        return 1.0, 1.0
    rate = float(np.clip(1 / max(1e-9, float((above - upper).mean())), 0.1, 1.0))
    return float(min(1e6, 0.05 * np.exp(rate * upper))), rate


@dataclass
class Limits:
    """Thresholds of one stream by cell, simulated when they are first asked for."""

    stream: Stream
    timing: Timing
    known: dict[str, list[float]] = field(default_factory=dict)
    simulated: int = 0

    def key(self) -> str:
        """Return the identity of all that the thresholds depend on, beside the cell."""
        stream = {name: value for name, value in asdict(self.stream).items() if name not in ("kind", "min_reports")}
        parameters = [VERSION, _PATHS, _MONTHS, MARGIN, stream, asdict(self.timing)]
        return hashlib.blake2b(json.dumps(parameters, sort_keys=True).encode(), digest_size=8).hexdigest()

    def limit(self, cell: Cell) -> Limit:
        name = f"{self.key()}/{cell[0]}-{cell[1]}-{cell[2]}"
        if name not in self.known:
            limit = simulate(self.stream, cell, self.timing)
            self.known[name] = [round(limit.threshold, 4), round(limit.scale, 6), round(limit.rate, 5)]
            self.simulated += 1
        return Limit(*self.known[name])

    def lookup(self, mean: np.ndarray, strength: np.ndarray, volume: np.ndarray) -> dict[str, np.ndarray]:
        """Return threshold, scale and rate for arrays of priors and volumes; NaN where the mean is NaN."""
        found = {name: np.full(mean.shape, np.nan) for name in ("threshold", "scale", "rate")}
        finite = np.isfinite(mean)
        steps = np.stack([
            _steps(mean[finite], *_MEANS, _MEAN_STEP),
            _steps(strength[finite], *STRENGTHS, _STRENGTH_STEP),
            _steps(volume[finite], *_VOLUMES, _VOLUME_STEP),
        ], axis=1)  # fmt: skip
        cells, which = np.unique(steps, axis=0, return_inverse=True)
        limits = [self.limit((int(a), int(b), int(c))) for a, b, c in cells]
        for name, values in found.items():
            if limits:
                values[finite] = np.array([getattr(limit, name) for limit in limits])[which.ravel()]
        return found


def _steps(values: np.ndarray, low: float, high: float, factor: float) -> np.ndarray:
    return np.asarray(np.rint(np.log(np.clip(values, low, high) / low) / np.log(factor)).astype(np.int64))


def p_values(statistic: np.ndarray, scale: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """Return approximate p-values of the statistic at a fixed time under 'nothing has risen'."""
    return np.asarray(np.where(statistic > 0, np.minimum(1.0, scale * np.exp(-rate * statistic)), 1.0))


def merge(caches: Iterable[dict[str, list[float]]]) -> dict[str, list[float]]:
    """Join cached thresholds."""
    joined: dict[str, list[float]] = {}
    for cache in caches:
        joined.update(cache)
    return joined
