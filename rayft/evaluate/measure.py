"""All figures of one classifier on labelled rows, as plain values that JSON can hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from rayft.evaluate.metrics import (
    CALIBRATION_BINS,
    PrecisionRecall,
    accuracy,
    brier_score,
    calibration,
    class_scores,
    confusion_matrix,
    log_loss,
    precision_recall,
    roc_auc,
)
from rayft.evaluate.significance import (
    Interval,
    accuracy_difference,
    calibrated_error,
    macro_roc_auc_interval,
    matrix_intervals,
    mcnemar,
    roc_auc_interval,
)

_AVERAGES = ("macro", "weighted")
_NAMES = ("precision", "recall", "f1")
_CURVE_POINTS = 200


def measure(truth: np.ndarray, probabilities: np.ndarray, labels: Sequence[str], seed: int) -> dict[str, Any]:
    """Return metrics with 95 % bootstrap intervals as {value, low, high}, and the confusion matrix.

    Args:
        truth: int64[n]; probabilities: float[n, classes].
    """
    classes = len(labels)
    predicted = probabilities.argmax(axis=1)
    matrix = confusion_matrix(truth, predicted, classes)
    scores, spread = class_scores(matrix), matrix_intervals(matrix, seed)
    areas = [roc_auc(truth == k, probabilities[:, k]) for k in range(classes)]
    known = [area for area in areas if math.isfinite(area)]
    area_spread = (
        roc_auc_interval(truth == 1, probabilities[:, 1], seed)
        if classes == 2
        else macro_roc_auc_interval(truth, probabilities, seed)
    )
    return {
        "rows": len(truth),
        "accuracy": _value(float(accuracy(matrix)), spread["accuracy"]),
        **{
            average: {
                name: _value(float(getattr(scores, average)(name)), spread[f"{average}_{name}"]) for name in _NAMES
            }
            for average in _AVERAGES
        },
        "roc_auc": _value(float(np.mean(known)) if known else math.nan, area_spread),
        "log_loss": number(log_loss(truth, probabilities)),
        "brier": number(brier_score(truth, probabilities)),
        "classes": {
            label: {
                "rows": int(matrix[k].sum()),
                "predicted": int(matrix[:, k].sum()),
                **{name: _value(float(getattr(scores, name)[k]), spread[f"{name}_{k}"]) for name in _NAMES},
                "roc_auc": number(areas[k]),
                "average_precision": number(precision_recall(truth == k, probabilities[:, k]).average_precision),
            }
            for k, label in enumerate(labels)
        },
        "confusion": matrix.tolist(),
        "calibration": measure_calibration(truth, probabilities, seed),
    }


def measure_calibration(truth: np.ndarray, probabilities: np.ndarray, seed: int) -> dict[str, Any]:
    """Return the calibration error, what a perfectly calibrated model would show here, and the bins that hold rows."""
    predicted = probabilities.argmax(axis=1)
    confidence = probabilities[np.arange(len(truth)), predicted].astype(np.float64)
    right = predicted == truth
    found = calibration(confidence, right)
    perfect = calibrated_error(confidence, CALIBRATION_BINS, seed)
    return {
        "expected_error": found.error,
        "largest_error": found.largest,
        "mean_confidence": float(confidence.mean()),
        "expected_error_if_calibrated": float(perfect.mean()),
        # With the sample itself counted, as a Monte Carlo test must be (North et al. 2002).
        "p_value": float((1 + (perfect >= found.error).sum()) / (1 + len(perfect))),
        "bins": [
            {
                "low": float(found.edges[k]),
                "high": float(found.edges[k + 1]),
                "rows": int(found.rows[k]),
                "confidence": float(found.confidence[k]),
                "accuracy": float(found.accuracy[k]),
            }
            for k in np.flatnonzero(found.rows)
        ],
    }


def measure_threshold(
    truth: np.ndarray, probabilities: np.ndarray, labels: Sequence[str], target: int, threshold: float
) -> dict[str, Any]:
    """Return precision and recall of one class at the chosen threshold and at the one with the best F1."""
    curve = precision_recall(truth == target, probabilities[:, target])
    limit = float(np.float32(threshold))  # as `rayft score` compares
    precision, recall, f1 = curve.at(limit)
    flagged = probabilities[:, target] >= limit
    best = int(np.argmax(curve.f1))
    return {
        "label": labels[target],
        "threshold": threshold,
        "flagged": int(flagged.sum()),
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "best_f1": {
            "threshold": float(curve.thresholds[best]),
            "precision": float(curve.precision[best]),
            "recall": float(curve.recall[best]),
            "f1": float(curve.f1[best]),
        },
    }


def measure_curves(truth: np.ndarray, probabilities: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    """Return the precision-recall curve of each class that has rows, thinned out to a few hundred points."""
    curves = {}
    for k, label in enumerate(labels):
        if (truth == k).any():
            curves[label] = _thinned(precision_recall(truth == k, probabilities[:, k]))
    return curves


def _thinned(curve: PrecisionRecall) -> list[dict[str, float]]:
    """Return at most two hundred points, evenly over recall, the ends among them."""
    wanted = np.linspace(0, curve.recall[-1], _CURVE_POINTS)
    kept = np.unique(np.clip(np.searchsorted(curve.recall, wanted), 0, len(curve.recall) - 1))
    return [
        {
            "threshold": round(float(curve.thresholds[i]), 6),
            "precision": round(float(curve.precision[i]), 6),
            "recall": round(float(curve.recall[i]), 6),
        }
        for i in kept
    ]


def measure_against(truth: np.ndarray, predicted: np.ndarray, baseline: np.ndarray, seed: int) -> dict[str, Any]:
    """Return the paired comparison of two classifiers on the same rows.

    Args:
        predicted, baseline: int64[n], the answers of the model and of the baseline.
    """
    right, other = predicted == truth, baseline == truth
    better, worse = int((right & ~other).sum()), int((~right & other).sum())
    return {
        "both_right": int((right & other).sum()),
        "only_model_right": better,
        "only_baseline_right": worse,
        "both_wrong": int((~right & ~other).sum()),
        "accuracy_difference": _value((better - worse) / len(truth), accuracy_difference(right, other, seed)),
        "mcnemar_p_value": mcnemar(better, worse),
    }


def _value(value: float, interval: Interval) -> dict[str, float | None]:
    return {"value": number(value), "low": number(interval[0]), "high": number(interval[1])}


def number(value: float) -> float | None:
    """Return a finite number, or None, as JSON has no nan."""
    return float(value) if math.isfinite(value) else None
