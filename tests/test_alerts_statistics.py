"""The statistics of alerts against simulation: false alarms, run lengths, p-values, priors, duplicates."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayft.alerts.baseline import Stream, fit_prior, fit_priors, streams
from rayft.alerts.control import Control, discount
from rayft.alerts.cusum import DAILY, WEEKLY, increments, onset, run
from rayft.alerts.dedupe import fingerprints, mark_duplicates
from rayft.alerts.fdr import cuts
from rayft.alerts.thresholds import _MEANS, _VOLUMES, Limits, cell_of, p_values, simulate

STREAM = Stream("defect", 0.8, 0.05, 2.0, 0.04, 20.0)


def null(paths: int, periods: int, share: float, strength: float, volume: float, seed: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    own = rng.beta(share * strength, (1 - share) * strength, (paths, 1))
    reviews = rng.poisson(volume, (paths, periods)).astype(np.int32)
    reports = rng.binomial(reviews, own).astype(np.int32)
    return reviews, reports, np.full((paths, 1), share), np.full((paths, 1), strength)


@pytest.mark.parametrize(("timing", "factor"), [(DAILY, 1), (WEEKLY, 7)])
def test_thresholds_keep_the_false_alarm_rate(timing: object, factor: int) -> None:
    cell = cell_of(0.1, 60, 1.0 * factor)
    share, volume = _MEANS[0] * 1.5 ** cell[0], _VOLUMES[0] * 2.0 ** cell[2]
    limit = simulate(STREAM, cell, timing)  # type: ignore[arg-type]
    months = 24
    periods = round(months * timing.month)  # type: ignore[attr-defined]
    reviews, reports, mean, strength = null(1500, periods, share, 10 * 2.5 ** cell[1], volume, 99)
    chart = run(reviews, reports, mean, strength, np.zeros(periods, int), STREAM, timing)  # type: ignore[arg-type]
    crossed = (chart.statistic.max(axis=1) >= limit.threshold).mean()
    rate = -1000 * np.log(1 - crossed) / months
    assert 0.75 * STREAM.false_alarms < rate < 1.3 * STREAM.false_alarms


def test_p_values_are_not_too_small() -> None:
    cell = cell_of(0.1, 60, 1.0)
    limit = simulate(STREAM, cell, DAILY)
    share, volume = _MEANS[0] * 1.5 ** cell[0], _VOLUMES[0] * 2.0 ** cell[2]
    reviews, reports, mean, strength = null(4000, 400, share, 10 * 2.5 ** cell[1], volume, 7)
    chart = run(reviews, reports, mean, strength, np.zeros(400, int), STREAM, DAILY)
    at_end = p_values(chart.statistic[:, -1], np.array(limit.scale), np.array(limit.rate))
    for level in (0.05, 0.01):
        assert (at_end <= level).mean() < 1.5 * level


def test_a_rise_is_found_and_dated() -> None:
    reviews, reports, mean, strength = null(300, 400, 0.08, 80, 3.0, 5)
    rng = np.random.default_rng(6)
    reports[:, 300:] = rng.binomial(reviews[:, 300:], 0.35)
    chart = run(reviews, reports, mean, strength, np.zeros(400, int), STREAM, DAILY)
    threshold = simulate(STREAM, cell_of(0.08, 80, 3.0), DAILY).threshold
    over = chart.statistic[:, 300:] >= threshold
    delay = np.where(over.any(axis=1), over.argmax(axis=1), 100)
    assert np.median(delay) < 14
    estimates = [chart.since[i, 300 + d] for i, d in enumerate(delay) if d < 100]
    dated = [s + onset(reviews[i, s : 301 + delay[i]], reports[i, s : 301 + delay[i]], 0.08)
             for i, s in enumerate(estimates)]  # fmt: skip
    assert abs(np.median(dated) - 300) <= 3


def test_more_reviews_alone_raise_nothing() -> None:
    reviews, reports, mean, strength = null(500, 400, 0.08, 300, 1.0, 8)
    rng = np.random.default_rng(9)
    reviews[:, 300:330] = rng.poisson(8.0, (500, 30))
    reports[:, 300:330] = rng.binomial(reviews[:, 300:330], 0.08)
    chart = run(reviews, reports, mean, strength, np.zeros(400, int), STREAM, DAILY)
    threshold = simulate(STREAM, cell_of(0.08, 300, 1.0), DAILY).threshold
    # Eight months' worth of reviews in one: at 20 per 1,000 product-months up to 15 % by chance.
    assert (chart.statistic[:, 300:330].max(axis=1) >= threshold).mean() < 0.15


@given(st.integers(0, 350), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_the_past_does_not_depend_on_the_future(cut: int, seed: int) -> None:
    reviews, reports, mean, strength = null(5, 360, 0.1, 50, 1.5, seed)
    whole = run(reviews, reports, mean, strength, np.zeros(360, int), STREAM, DAILY)
    part = run(reviews[:, :cut], reports[:, :cut], mean, strength, np.zeros(cut, int), STREAM, DAILY)
    np.testing.assert_array_equal(whole.statistic[:, :cut], part.statistic)


def test_thresholds_are_simulated_once_and_the_same_everywhere() -> None:
    known: dict[str, list[float]] = {}
    first, second = Limits(STREAM, DAILY, known), Limits(STREAM, DAILY, {})
    mean, strength, volume = np.array([[0.1, np.nan]]), np.array([[50.0, 50.0]]), np.array([[1.0, 1.0]])
    a, b = first.lookup(mean, strength, volume), second.lookup(mean, strength, volume)
    np.testing.assert_array_equal(a["threshold"], b["threshold"])
    assert np.isnan(a["threshold"][0, 1])
    assert first.simulated == 1
    assert Limits(STREAM, DAILY, known).lookup(mean, strength, volume)["threshold"][0, 0] == a["threshold"][0, 0]


def test_fewer_allowed_false_alarms_mean_a_higher_threshold() -> None:
    cell = cell_of(0.1, 60, 1.0)
    allowed = [simulate(Stream("x", 0.8, 0.05, 2.0, 0.04, rate), cell, DAILY).threshold for rate in (50.0, 5.0, 0.05)]
    assert allowed[0] < allowed[1] < allowed[2]


@given(st.floats(0.001, 0.9))
def test_a_raised_share_is_higher_and_a_probability(share: float) -> None:
    for stream in streams(["failure", "breakage"], 0.85, 0.95, 0.75, 2.0, 0.04, 5.0, 10.0, True):
        assert share < float(stream.raised(np.array(share))) < 1
        step = increments(np.array([0, 1]), np.array([1, 1]), np.array([share, share]), stream)
        assert step[0] < 0 < step[1]


def test_budgets_add_up() -> None:
    watched = streams(["a", "b", "c"], 0.85, 0.95, 0.75, 2.0, 0.04, 5.0, 10.0, True)
    assert sum(s.false_alarms for s in watched if s.kind != "safety") == pytest.approx(5.0)
    safety = watched[-1]
    assert safety.kind == "safety"
    assert safety.false_alarms == 10.0
    assert safety.min_reports == 2


@pytest.mark.parametrize(("mean", "strength"), [(0.05, 40), (0.2, 150)])
def test_priors_are_recovered(mean: float, strength: float) -> None:
    rng = np.random.default_rng(3)
    share = rng.beta(mean * strength, (1 - mean) * strength, 2000)
    reviews = rng.poisson(100, 2000)
    prior = fit_prior(reviews, rng.binomial(reviews, share))
    assert prior is not None
    assert prior.mean == pytest.approx(mean, rel=0.05)
    assert prior.strength == pytest.approx(strength, rel=0.2)


def test_small_categories_lean_on_the_catalogue() -> None:
    categories = np.array([0] * 20 + [1])
    reviews, reports = np.full(21, 100), np.array([5] * 20 + [90])
    priors = fit_priors(categories, reviews, reports)
    assert priors[1] != priors[0]
    assert priors[1].mean < 0.12
    assert fit_priors(categories, np.zeros(21), np.zeros(21)) == {}


def test_false_discoveries_among_products() -> None:
    rng = np.random.default_rng(1)
    products, periods, level = 200, 400, 0.1
    p = rng.random((periods, products))
    p[:, :20] = rng.random((periods, 20)) * 1e-4
    period, product = np.nonzero(p <= level)
    cut = cuts(period, product, p[period, product], np.full(periods, products), level)
    chosen = p <= cut[:, None]
    false = chosen[:, 20:].sum(axis=1) / np.maximum(1, chosen.sum(axis=1))
    assert false.mean() <= level * 1.1
    assert chosen[:, :20].mean() > 0.95


def test_no_discoveries_without_p_values() -> None:
    nothing = np.zeros(0)
    assert cuts(nothing.astype(int), nothing.astype(int), nothing, np.full(3, 10), 0.1).tolist() == [0, 0, 0]


class _Rise:
    def __init__(self, service: float) -> None:
        rng = np.random.default_rng(4)
        self.stream = STREAM
        self.reviews = np.full(100, 10)
        self.reports = np.r_[rng.binomial(10, 0.08, 80), rng.binomial(10, 0.3, 20)]
        self.normal = self.watched = np.full(100, 0.08)
        complaints = np.r_[rng.binomial(10, 0.1, 80), rng.binomial(10, service, 20)]
        self.control = Control(complaints, np.full(100, 0.1), np.full(100, 50.0), 364, 0.9)


def test_a_rise_that_complaints_share_is_discounted() -> None:
    ratio, rest = discount(_Rise(0.1), 80, 99)
    joint_ratio, joint_rest = discount(_Rise(0.4), 80, 99)
    assert ratio < 1.2
    assert joint_ratio > 2.5
    assert joint_rest < 5 < rest


def reviews_of(texts: list[str], day: list[int] | None = None, product: list[str] | None = None) -> pl.DataFrame:
    words, text_hash, signature = fingerprints(pl.Series("text", texts, pl.String))
    days = pl.Series("day", day or [0] * len(texts), pl.Int32).cast(pl.Date)
    return pl.DataFrame([pl.Series("product", product or ["p"] * len(texts)), days, words, text_hash, signature])


LONG = (
    "I bought this kettle for my mother last winter and after two weeks the lid broke off and hot water ran over "
    "the table so we had to throw it away and ask for the money"
)


def test_copies_of_a_product_are_one_review() -> None:
    other = "The lid of mine never broke in two years of use"
    texts = [LONG, f"{LONG.upper()}!", LONG.replace("mother", "aunt"), other, LONG, *["works great"] * 2, "", ""]
    product = ["p", "p", "p", "p", "other", "p", "p", "p", "p"]
    stands = mark_duplicates(reviews_of(texts, [0, 1, 2, 3, 4, 5, 6, 7, 7], product))
    assert stands.tolist() == [0, 0, 0, 3, 4, 5, 6, 7, 8]
    assert mark_duplicates(reviews_of(["works great", "Works great!"])).tolist() == [0, 0]


@given(st.lists(st.text(max_size=60), max_size=20))
@settings(max_examples=50, deadline=None)
def test_fingerprints_depend_on_the_text_alone(texts: list[str]) -> None:
    _, hashes, signatures = fingerprints(pl.Series("text", texts, pl.String))
    for text, text_hash, signature in zip(texts, hashes, signatures, strict=True):
        alone = fingerprints(pl.Series("text", [text], pl.String))
        assert (alone[1][0], alone[2][0]) == (text_hash, signature)
