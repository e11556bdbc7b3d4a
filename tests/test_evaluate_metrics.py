"""Metrics, intervals and tests: known answers, and the same as scikit-learn and SciPy."""

from __future__ import annotations

import numpy as np
import pytest

from rayft.evaluate import metrics, significance
from rayft.evaluate.measure import measure, measure_threshold


def made_up(rows: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return truth and probabilities of a classifier that is right more often than not, with tied scores."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(classes, rows, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum())
    logits = rng.normal(size=(rows, classes)) + 1.5 * np.eye(classes)[truth]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    p = p.round(2) + 1e-6
    return truth, p / p.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("rows", "classes"), [(300, 2), (500, 5), (7, 3)])
def test_the_same_as_scikit_learn(rows: int, classes: int) -> None:
    sk = pytest.importorskip("sklearn.metrics")
    truth, p = made_up(rows, classes, seed=rows)
    predicted = p.argmax(axis=1)
    matrix = metrics.confusion_matrix(truth, predicted, classes)
    assert matrix.tolist() == sk.confusion_matrix(truth, predicted, labels=range(classes)).tolist()
    assert metrics.accuracy(matrix) == pytest.approx(sk.accuracy_score(truth, predicted))
    scores = metrics.class_scores(matrix)
    each = sk.precision_recall_fscore_support(truth, predicted, labels=range(classes), zero_division=0)
    for ours, theirs in zip((scores.precision, scores.recall, scores.f1, scores.support), each, strict=True):
        assert ours.tolist() == pytest.approx(theirs.tolist())
    for average in ("macro", "weighted"):
        theirs = sk.precision_recall_fscore_support(truth, predicted, average=average, zero_division=0)
        ours = [float(getattr(scores, average)(name)) for name in ("precision", "recall", "f1")]
        assert ours == pytest.approx(list(theirs[:3]))
    assert metrics.log_loss(truth, p) == pytest.approx(sk.log_loss(truth, p, labels=range(classes)))
    for k in range(classes):
        if not 0 < (truth == k).sum() < rows:
            continue
        assert metrics.roc_auc(truth == k, p[:, k]) == pytest.approx(sk.roc_auc_score(truth == k, p[:, k]))
        curve = metrics.precision_recall(truth == k, p[:, k])
        precision, recall, thresholds = sk.precision_recall_curve(truth == k, p[:, k])
        assert curve.average_precision == pytest.approx(sk.average_precision_score(truth == k, p[:, k]))
        kept = len(thresholds)
        assert curve.precision[::-1][-kept:].tolist() == pytest.approx(precision[:-1].tolist())
        assert curve.recall[::-1][-kept:].tolist() == pytest.approx(recall[:-1].tolist())


def test_brier_and_binary_brier() -> None:
    sk = pytest.importorskip("sklearn.metrics")
    truth, p = made_up(200, 2, seed=4)
    assert metrics.brier_score(truth, p) == pytest.approx(2 * sk.brier_score_loss(truth, p[:, 1]))


def test_calibration_by_hand() -> None:
    # Ten answers of confidence 0.9 with seven right, ten of 0.6 with six right: gaps 0.2 and 0.
    confidence = np.array([0.9] * 10 + [0.6] * 10)
    right = np.array([True] * 7 + [False] * 3 + [True] * 6 + [False] * 4)
    found = metrics.calibration(confidence, right)
    assert found.error == pytest.approx(0.1)
    assert found.largest == pytest.approx(0.2)
    assert found.rows[found.rows > 0].tolist() == [10, 10]
    assert metrics.calibration_bins(np.array([0.0, 1 / 15, 1 / 15 + 1e-9, 1.0])).tolist() == [0, 0, 1, 14]


def test_calibration_error_has_a_floor_that_honest_models_reach() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 400)
    floor = significance.calibrated_error(confidence, 15, seed=1, resamples=300)
    honest = metrics.calibration(confidence, rng.random(400) < confidence).error
    boasting = metrics.calibration(confidence, rng.random(400) < confidence - 0.2).error
    assert 0.02 < floor.mean() < 0.08
    assert (floor >= honest).mean() > 0.01 and (floor >= boasting).mean() == 0


def test_one_class_has_no_area_and_a_curve_of_its_own() -> None:
    assert np.isnan(metrics.roc_auc(np.ones(3, bool), np.array([0.1, 0.2, 0.3])))
    curve = metrics.precision_recall(np.array([True, False, True]), np.array([0.9, 0.5, 0.5]))
    assert curve.thresholds.tolist() == [0.9, 0.5]
    assert curve.at(0.6) == (1.0, 0.5, pytest.approx(2 / 3))
    assert curve.at(0.95) == (0.0, 0.0, 0.0)


def test_weights_of_the_area_are_repetitions() -> None:
    truth, p = made_up(60, 2, seed=9)
    weights = np.random.default_rng(1).integers(0, 4, (3, 60))
    found = metrics.weighted_roc_auc(truth == 1, p[:, 1], weights.astype(float))
    for w, area in zip(weights, found, strict=True):
        rows = np.repeat(np.arange(60), w)
        assert area == pytest.approx(metrics.roc_auc(truth[rows] == 1, p[rows, 1]))


def test_bootstrap_intervals_cover_and_are_seeded() -> None:
    covered = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        truth = rng.integers(0, 2, 400)
        predicted = np.where(rng.random(400) < 0.9, truth, 1 - truth)
        low, high = significance.matrix_intervals(metrics.confusion_matrix(truth, predicted, 2), 0, 400)["accuracy"]
        covered += low <= 0.9 <= high
    assert covered >= 51, "95 % intervals hold the true accuracy in about 57 of 60 samples"
    truth, p = made_up(80, 2, seed=2)
    first = significance.roc_auc_interval(truth == 1, p[:, 1], seed=3)
    assert first == significance.roc_auc_interval(truth == 1, p[:, 1], seed=3)
    assert first[0] < metrics.roc_auc(truth == 1, p[:, 1]) < first[1]


def test_exact_tests_are_those_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for better, worse in ((0, 0), (1, 0), (5, 9), (30, 11), (400, 380)):
        expected = stats.binomtest(better, better + worse, 0.5).pvalue if better + worse else 1.0
        assert significance.mcnemar(better, worse) == pytest.approx(expected, rel=1e-9)
    for a, n, b, m in ((3, 10, 5, 90), (0, 4, 7, 60), (12, 12, 3, 40), (40, 400, 300, 2500)):
        expected = stats.fisher_exact([[a, n - a], [b, m - b]]).pvalue
        assert significance.fisher_exact(a, n, b, m) == pytest.approx(expected, rel=1e-6)
    p = np.array([0.01, 0.04, 0.03, 0.9, 0.2])
    assert significance.false_discovery(p).tolist() == pytest.approx(stats.false_discovery_control(p).tolist())
    expected = stats.binomtest(7, 50).proportion_ci(method="wilson")
    assert significance.wilson_interval(7, 50) == pytest.approx((expected.low, expected.high))
    assert significance.wilson_interval(0, 50)[0] == 0


def test_the_report_of_a_perfect_and_of_a_hopeless_model() -> None:
    truth = np.array([0, 1] * 50)
    perfect = np.where(np.eye(2)[truth] > 0, 0.9, 0.1)
    found = measure(truth, perfect, ["negative", "positive"], seed=0)
    assert found["accuracy"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert found["roc_auc"]["value"] == 1.0 and found["confusion"] == [[50, 0], [0, 50]]
    assert found["calibration"]["expected_error"] == pytest.approx(0.1)
    hopeless = measure(truth, perfect[::-1], ["negative", "positive"], seed=0)
    assert hopeless["accuracy"]["value"] == hopeless["macro"]["f1"]["value"] == hopeless["roc_auc"]["value"] == 0.0
    at = measure_threshold(truth, perfect, ["negative", "positive"], target=0, threshold=0.95)
    assert (at["flagged"], at["recall"], at["best_f1"]["f1"]) == (0, 0.0, 1.0)
