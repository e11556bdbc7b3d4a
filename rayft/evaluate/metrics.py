"""Metrics of a classifier, in NumPy.

`truth` and `predicted` are int[n] class numbers, `probabilities` float[n, classes] with rows that sum to one.
What has no value (the precision of a class that is never predicted) is 0, as in scikit-learn with
`zero_division=0`; what cannot be computed at all (the area under the curve of a single class) is nan.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Bins of the expected calibration error, as in Guo et al. 2017.
CALIBRATION_BINS = 15


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Return int64[classes, classes]: rows are the true class, columns the predicted one."""
    counts: np.ndarray = np.bincount(truth * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes)


@dataclass(frozen=True)
class Scores:
    """Precision, recall and F1 of each class and their averages; every array may have leading axes.

    Attributes:
        precision, recall, f1: float64[..., classes].
        support, predicted: int64[..., classes], rows of each class, and rows given to it.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray
    predicted: np.ndarray

    def macro(self, name: str) -> np.ndarray:
        """Return the plain mean over the classes of `precision`, `recall` or `f1`.

        A class with neither true nor predicted rows is left out (`labels=None` in scikit-learn).
        """
        present = (self.support > 0) | (self.predicted > 0)
        return _mean(getattr(self, name), present.astype(np.float64))

    def weighted(self, name: str) -> np.ndarray:
        """Return the mean over the classes, each with the weight of its rows."""
        return _mean(getattr(self, name), self.support.astype(np.float64))


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    result: np.ndarray = (values * weights).sum(axis=-1) / np.maximum(weights.sum(axis=-1), 1e-300)
    return result


def class_scores(matrix: np.ndarray) -> Scores:
    """Return precision, recall and F1 (van Rijsbergen 1979) from confusion matrices [..., classes, classes]."""
    right = np.diagonal(matrix, axis1=-2, axis2=-1).astype(np.float64)
    support, predicted = matrix.sum(axis=-1), matrix.sum(axis=-2)
    precision = right / np.maximum(predicted, 1)
    recall = right / np.maximum(support, 1)
    f1 = 2 * right / np.maximum(support + predicted, 1)
    return Scores(precision, recall, f1, support, predicted)


def accuracy(matrix: np.ndarray) -> np.ndarray:
    """Return the share of right predictions from confusion matrices [..., classes, classes]."""
    right = np.diagonal(matrix, axis1=-2, axis2=-1).sum(axis=-1)
    result: np.ndarray = right / np.maximum(matrix.sum(axis=(-2, -1)), 1)
    return result


def roc_auc(positive: np.ndarray, scores: np.ndarray) -> float:
    """Return the area under the receiver operating characteristic of one class against the rest.

    It is the probability that a positive row scores higher than another, ties counting half (Hanley and
    McNeil 1982, doi:10.1148/radiology.143.1.7063747).

    Args:
        positive: bool[n].
        scores: float[n], higher for positive.

    Returns:
        nan if all rows are of one kind.
    """
    return float(weighted_roc_auc(positive, scores, np.ones((1, len(scores))))[0])


def weighted_roc_auc(positive: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return float64[b], the area under the curve with each of the weights float[b, n]; see `roc_auc`."""
    if not len(scores):
        return np.full(len(weights), np.nan)
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], np.diff(scores[order]) > 0]))
    weights = weights[:, order]
    of_positive = np.add.reduceat(np.where(positive[order], weights, 0.0), starts, axis=1)
    of_others = np.add.reduceat(np.where(positive[order], 0.0, weights), starts, axis=1)
    below = np.cumsum(of_others, axis=1) - of_others / 2
    pairs = of_positive.sum(axis=1) * of_others.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        result: np.ndarray = np.where(pairs > 0, (of_positive * below).sum(axis=1) / pairs, np.nan)
    return result


@dataclass(frozen=True)
class PrecisionRecall:
    """Precision and recall at every threshold: a row is positive if its score is at least the threshold.

    Attributes:
        thresholds: float64[m], descending distinct scores; precision, recall: float64[m].
    """

    thresholds: np.ndarray
    precision: np.ndarray
    recall: np.ndarray

    @property
    def f1(self) -> np.ndarray:
        total = self.precision + self.recall
        result: np.ndarray = 2 * self.precision * self.recall / np.maximum(total, 1e-300)
        return result

    @property
    def average_precision(self) -> float:
        """The mean precision weighted by the gain in recall, without interpolation (Boyd et al. 2013)."""
        return float((np.diff(self.recall, prepend=0.0) * self.precision).sum())

    def at(self, threshold: float) -> tuple[float, float, float]:
        """Return (precision, recall, F1) at a threshold; zeros if no row reaches it."""
        reached = int((self.thresholds >= threshold).sum()) - 1
        if reached < 0:
            return 0.0, 0.0, 0.0
        return float(self.precision[reached]), float(self.recall[reached]), float(self.f1[reached])


def precision_recall(positive: np.ndarray, scores: np.ndarray) -> PrecisionRecall:
    """Return the precision-recall curve of one class against the rest; recall is nan without positive rows."""
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.concatenate([np.diff(scores[order]) < 0, [True]])) if len(scores) else np.zeros(0, int)
    found = np.cumsum(positive[order])[ends]
    total = int(positive.sum())
    recall = found / total if total else np.full(len(ends), np.nan)
    return PrecisionRecall(scores[order][ends].astype(np.float64), found / (ends + 1), recall)


@dataclass(frozen=True)
class Calibration:
    """How confidence and accuracy agree, in bins of equal width of the confidence.

    Attributes:
        edges: float64[bins + 1]; bin k holds confidences in (edges[k], edges[k + 1]].
        rows: int64[bins]; confidence, accuracy: float64[bins], means, nan where a bin is empty.
        error: expected calibration error, the mean gap weighted by rows.
        largest: the largest gap of a bin (maximum calibration error).
    """

    edges: np.ndarray
    rows: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    error: float
    largest: float


def calibration(confidence: np.ndarray, right: np.ndarray, bins: int = CALIBRATION_BINS) -> Calibration:
    """Return the reliability diagram and the expected calibration error (Guo et al. 2017, arXiv:1706.04599).

    Args:
        confidence: float[n], probability of the predicted class.
        right: bool[n], whether the prediction is right.
    """
    which = calibration_bins(confidence, bins)
    rows = np.bincount(which, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(which, confidence, bins) / rows
        share = np.bincount(which, right.astype(np.float64), bins) / rows
    gaps = np.nan_to_num(np.abs(mean - share))
    error = float((gaps * rows).sum() / max(1, len(confidence)))
    return Calibration(np.linspace(0, 1, bins + 1), rows, mean, share, error, float(gaps.max(initial=0.0)))


def calibration_bins(confidence: np.ndarray, bins: int = CALIBRATION_BINS) -> np.ndarray:
    """Return int64[n], the bin (k / bins, (k + 1) / bins] that each confidence is in."""
    result: np.ndarray = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    return result


def log_loss(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the mean negative log-likelihood in nats; a probability below 1e-15 counts as that."""
    own = probabilities[np.arange(len(truth)), truth].astype(np.float64)
    return float(-np.log(np.clip(own, 1e-15, 1.0)).mean()) if len(truth) else float("nan")


def brier_score(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the mean squared distance of the probabilities to the truth, from 0 to 2 (Brier 1950)."""
    if not len(truth):
        return float("nan")
    target = np.zeros(probabilities.shape)
    target[np.arange(len(truth)), truth] = 1.0
    return float(((probabilities - target) ** 2).sum(axis=1).mean())
