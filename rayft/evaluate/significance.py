"""How sure a figure is: intervals and tests, in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from rayft.evaluate.metrics import accuracy, calibration_bins, class_scores, weighted_roc_auc

RESAMPLES = 1000
LEVEL = 0.95
_CELLS = 4_000_000  # weights of resampled rows that are held at once
_Z = 1.959963984540054  # the 97.5 % quantile of the normal distribution

Interval = tuple[float, float]


def percentiles(values: np.ndarray) -> Interval:
    """Return the percentile interval at 95 % of resampled values (Efron 1979); nan if there is none."""
    values = values[np.isfinite(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def matrix_intervals(matrix: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> dict[str, Interval]:
    """Return bootstrap intervals of everything that a confusion matrix determines.

    Drawing n rows with replacement and counting is drawing the matrix from a multinomial distribution, so
    no row is touched.

    Returns:
        accuracy; precision, recall and f1, each as `macro_...`, `weighted_...` and `..._<class number>`.
    """
    n = int(matrix.sum())
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n, matrix.ravel() / n, size=resamples).reshape(resamples, *matrix.shape)
    found = {"accuracy": percentiles(accuracy(drawn))}
    scores = class_scores(drawn)
    for name in ("precision", "recall", "f1"):
        found[f"macro_{name}"] = percentiles(scores.macro(name))
        found[f"weighted_{name}"] = percentiles(scores.weighted(name))
        for number, values in enumerate(getattr(scores, name).T):
            found[f"{name}_{number}"] = percentiles(values)
    return found


def _resampled_rows(n: int, seed: int, resamples: int) -> Iterator[np.ndarray]:
    """Yield blocks of float64[b, n], how often each row is drawn in each resample."""
    rng = np.random.default_rng(seed)
    block = max(1, min(resamples, _CELLS // max(1, n)))
    for start in range(0, resamples, block):
        count = min(block, resamples - start)
        drawn = rng.integers(0, n, size=(count, n)) + n * np.arange(count)[:, None]
        yield np.bincount(drawn.ravel(), minlength=count * n).reshape(count, n).astype(np.float64)


def roc_auc_interval(positive: np.ndarray, scores: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Return the bootstrap interval of the area under the curve of one class against the rest."""
    return _rows_interval(len(scores), lambda w: weighted_roc_auc(positive, scores, w), seed, resamples)


def macro_roc_auc_interval(
    truth: np.ndarray, probabilities: np.ndarray, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """Return the bootstrap interval of the mean area under the curve of the classes that have rows."""
    classes = [k for k in range(probabilities.shape[1]) if 0 < (truth == k).sum() < len(truth)]

    def mean(weights: np.ndarray) -> np.ndarray:
        each = [weighted_roc_auc(truth == k, probabilities[:, k], weights) for k in classes]
        return np.mean(each, axis=0) if each else np.full(len(weights), np.nan)

    return _rows_interval(len(truth), mean, seed, resamples)


def _rows_interval(n: int, measure: Callable[[np.ndarray], np.ndarray], seed: int, resamples: int) -> Interval:
    if not n:
        return float("nan"), float("nan")
    return percentiles(np.concatenate([measure(weights) for weights in _resampled_rows(n, seed, resamples)]))


def calibrated_error(confidence: np.ndarray, bins: int, seed: int = 0, resamples: int = RESAMPLES) -> np.ndarray:
    """Return float64[resamples], the calibration errors of a perfectly calibrated model with these confidences.

    The measured error of a finite sample is never 0: each right answer is drawn here with the probability
    that the model gave it ('consistency resampling', Bröcker and Smith 2007, doi:10.1175/WAF993.1).
    """
    which = calibration_bins(confidence, bins)
    total = np.bincount(which, confidence, bins)
    rng = np.random.default_rng(seed)
    found = np.empty(resamples)
    for i in range(resamples):
        right = np.bincount(which[rng.random(len(confidence)) < confidence], minlength=bins)
        found[i] = np.abs(right - total).sum()
    return found / max(1, len(confidence))


def accuracy_difference(right: np.ndarray, other_right: np.ndarray, seed: int = 0) -> Interval:
    """Return the paired bootstrap interval of the difference of two accuracies on the same rows."""
    n = len(right)
    better, worse = int((right & ~other_right).sum()), int((~right & other_right).sum())
    drawn = np.random.default_rng(seed).multinomial(n, [better / n, worse / n, (n - better - worse) / n], RESAMPLES)
    return percentiles((drawn[:, 0] - drawn[:, 1]) / n)


def wilson_interval(count: int, total: int) -> Interval:
    """Return the 95 % interval of a share (Wilson 1927, doi:10.2307/2276774)."""
    if not total:
        return float("nan"), float("nan")
    share, z2 = count / total, _Z * _Z
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z * np.sqrt(share * (1 - share) / total + z2 / (4 * total * total)) / (1 + z2 / total)
    return float(centre - half) if count else 0.0, float(centre + half) if count < total else 1.0


def _log_factorials(n: int) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1, dtype=np.float64)))])


def mcnemar(better: int, worse: int) -> float:
    """Return the exact two-sided p-value that two classifiers err equally often (McNemar 1947).

    Under the null the rows that only one gets right are split like coin flips (doi:10.1007/BF02295996;
    for classifiers: Dietterich 1998).

    Args:
        better, worse: rows that only the first, and only the second, gets right.
    """
    n = better + worse
    if not n:
        return 1.0
    log = _log_factorials(n)
    few = np.arange(min(better, worse) + 1)
    tail = np.exp(log[n] - log[few] - log[n - few] - n * np.log(2.0)).sum()
    return float(min(1.0, 2 * tail))


def fisher_exact(inside_wrong: int, inside: int, outside_wrong: int, outside: int) -> float:
    """Return the two-sided p-value that rows inside and outside of a slice are wrong equally often.

    Fisher's exact test (1935): the probability, all margins given, of every table that is no more likely
    than the one found.
    """
    wrong, total = inside_wrong + outside_wrong, inside + outside
    if not inside or not outside or wrong in (0, total):
        return 1.0
    log = _log_factorials(total)
    k = np.arange(max(0, wrong - outside), min(wrong, inside) + 1)
    chosen = (log[inside] - log[k] - log[inside - k]) + (log[outside] - log[wrong - k] - log[outside - wrong + k])
    p = np.exp(chosen - (log[total] - log[wrong] - log[total - wrong]))
    return float(min(1.0, p[p <= p[inside_wrong - k[0]] * (1 + 1e-7)].sum()))


def false_discovery(p_values: np.ndarray) -> np.ndarray:
    """Return adjusted p-values: rejecting those up to q keeps the false discovery rate at q.

    Benjamini and Hochberg 1995, doi:10.1111/j.2517-6161.1995.tb02031.x.
    """
    n = len(p_values)
    order = np.argsort(p_values)
    scaled = p_values[order] * n / np.arange(1, n + 1)
    adjusted = np.empty(n)
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(scaled[::-1])[::-1])
    return adjusted
