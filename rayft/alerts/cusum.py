"""The chart: a one-sided cumulative sum of log-likelihood ratios of binomial counts, denominators varying.

After Page (1954); for binomial counts with varying denominators Steiner, Cook, Farewell and Treasure
(2000) and Mei, Han and Tsui (2011). What is 'in control' is learned from the product's own past with
its category's prior (posterior mean of the beta-binomial model, plus a margin for what is not known
yet), at least `lag` periods back and never from a rise that is under way, a product's first reviews
apart.

Pure functions over arrays: the same code runs the charts and simulates their run lengths.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rayft.alerts.baseline import Stream


@dataclass(frozen=True)
class Timing:
    """Lengths in periods (days or weeks).

    Attributes:
        lag: the newest periods that a baseline does not learn from.
        freeze: a rise older than this is learned as the new normal.
        window: how far back it learns from.
        block: category priors, thresholds and volumes are renewed this often.
        volume: a product's usual volume is measured over these.
        month: periods in a month.
    """

    lag: int
    freeze: int
    window: int
    block: int
    volume: int
    month: float


DAILY = Timing(lag=28, freeze=182, window=364, block=28, volume=84, month=30.4375)
WEEKLY = Timing(lag=4, freeze=26, window=52, block=4, volume=12, month=30.4375 / 7)
#: Standard deviations of the baseline's posterior that are added to its mean.
MARGIN = 1.5
#: A product's first reviews are learned at once, lag or rise notwithstanding: before them nothing is known of it.
FIRST_REVIEWS = 100


@dataclass(frozen=True)
class Chart:
    """The charts of some products, arrays of shape (products, periods).

    Attributes:
        statistic: the cumulative sum at the end of each period.
        since: first period of the excursion above zero that the sum is in.
        normal: posterior mean of the flagged share in control.
        watched: the same with the margin: what the chart calls in control.
    """

    statistic: np.ndarray
    since: np.ndarray
    normal: np.ndarray
    watched: np.ndarray


def baseline_counts(
    cumulative_reviews: np.ndarray, cumulative_reports: np.ndarray, rows: np.ndarray, until: np.ndarray, window: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return reviews and reports of `rows` in the `window` periods before `until` (exclusive)."""
    start = np.maximum(until - window, 0)
    return (
        cumulative_reviews[rows, until] - cumulative_reviews[rows, start],
        cumulative_reports[rows, until] - cumulative_reports[rows, start],
    )


def cumulative(counts: np.ndarray) -> np.ndarray:
    """Return cumulative sums with a leading zero, int64 of shape (products, periods + 1)."""
    out = np.zeros((counts.shape[0], counts.shape[1] + 1), np.int64)
    np.cumsum(counts, axis=1, out=out[:, 1:])
    return out


def increments(reports: np.ndarray, reviews: np.ndarray, watched: np.ndarray, stream: Stream) -> np.ndarray:
    """Return the log-likelihood ratios of a raised share against `watched`."""
    raised = stream.raised(watched)
    return np.asarray(reports * np.log(raised / watched) + (reviews - reports) * np.log((1 - raised) / (1 - watched)))


def run(
    reviews: np.ndarray,
    reports: np.ndarray,
    mean: np.ndarray,
    strength: np.ndarray,
    block_of: np.ndarray,
    stream: Stream,
    timing: Timing,
    cap: np.ndarray | None = None,
) -> Chart:
    """Run the charts of some products for one stream.

    Args:
        reviews, reports: counts, shape (products, periods).
        mean, strength: the categories' priors, shape (products, blocks); NaN where there is none yet: no
            evidence is gathered then.
        block_of: block of each period.
        cap: the sum stays below it, so that it comes down in reasonable time after a rise is over;
            shape (products, blocks).
    """
    products, periods = reviews.shape
    cumulative_reviews, cumulative_reports = cumulative(reviews), cumulative(reports)
    statistic = np.zeros((products, periods), np.float32)
    since = np.zeros((products, periods), np.int32)
    normal = np.full((products, periods), np.nan, np.float32)
    watched = np.full((products, periods), np.nan, np.float32)
    learned = (cumulative_reviews[:, 1:] < FIRST_REVIEWS).sum(axis=1)  # period in which the first ones are complete
    now = np.zeros(products)
    start = np.zeros(products, np.int64)
    for t in range(periods):
        block = block_of[t]
        rows = np.flatnonzero((reviews[:, t] > 0) & np.isfinite(mean[:, block]))
        if len(rows):
            frozen = np.maximum(start[rows], t - timing.freeze)
            until = np.maximum(np.minimum(max(t - timing.lag, 0), frozen), np.minimum(t, learned[rows]))
            past, flagged = baseline_counts(cumulative_reviews, cumulative_reports, rows, until, timing.window)
            weight = strength[rows, block] + past
            share = (mean[rows, block] * strength[rows, block] + flagged) / weight
            level = np.minimum(share + MARGIN * np.sqrt(share * (1 - share) / (weight + 1)), 0.9)
            step = increments(reports[rows, t], reviews[rows, t], level, stream)
            after = np.maximum(now[rows] + step, 0.0)
            if cap is not None:
                after = np.minimum(after, cap[rows, block])
            now[rows] = after
            start[rows[after == 0]] = t + 1
            normal[rows, t], watched[rows, t] = share, level
        idle = now == 0
        start[idle] = t + 1
        statistic[:, t] = now
        since[:, t] = start
    return Chart(statistic, since, normal, watched)


def onset(reviews: np.ndarray, reports: np.ndarray, level: float) -> int:
    """Return the period at which a share most likely left `level`, by the likelihood of a step to an unknown share.

    The maximum-likelihood estimate of Pignatiello and Samuel (2001) for a chart that has just raised
    its alarm; the arrays begin where its sum was last zero and end with the alarm.
    """
    n = np.cumsum(reviews[::-1])[::-1].astype(float)
    y = np.cumsum(reports[::-1])[::-1].astype(float)
    share = np.clip(y / np.maximum(n, 1), level, 1 - 1e-9)
    gain = y * np.log(share / level) + (n - y) * np.log((1 - share) / (1 - level))
    return int(np.argmax(gain))
