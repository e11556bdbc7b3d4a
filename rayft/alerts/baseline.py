"""What is normal: the share of reports that a product's category leads to expect, and the classifier's errors.

A product's true flagged share is taken as drawn from its category's beta distribution (beta-binomial
model; moments after Kleinman, 1973). The classifier's sensitivity and specificity turn a rise of the
true share into the rise of the flagged share that the charts look for (Rogan and Gladen, 1978).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Prior strengths are kept between these numbers of reviews.
STRENGTHS = (10.0, 1000.0)
#: A category needs this many reviews and products for a prior of its own; the catalogue's serves otherwise.
_CATEGORY_REVIEWS, _CATEGORY_PRODUCTS = 200, 5
#: Fewer reviews in the whole catalogue are no baseline at all.
CATALOGUE_REVIEWS = 50
_LONE_STRENGTH = 30.0


@dataclass(frozen=True)
class Stream:
    """One thing that is watched for every product.

    Attributes:
        kind: `defect` (any), a defect type, or `safety`.
        gain: rise of the flagged share for a rise of the true share by 1 (sensitivity + specificity - 1).
        false_share: flagged share if nothing were defective.
        rise: factor of the true share that the chart is tuned to.
        min_rise: least rise of the true share that it is tuned to.
        false_alarms: expected per 1,000 product-months.
        min_reports: fewer reports since the onset raise no alarm.
    """

    kind: str
    gain: float
    false_share: float
    rise: float
    min_rise: float
    false_alarms: float
    min_reports: int = 3

    def true_share(self, flagged: np.ndarray) -> np.ndarray:
        """Return the share corrected for the classifier's errors, within [0, 1]."""
        return np.asarray(np.clip((flagged - self.false_share) / self.gain, 0.0, 1.0))

    def raised(self, flagged: np.ndarray) -> np.ndarray:
        """Return the flagged share after the rise that the chart is tuned to."""
        true = self.true_share(flagged)
        rise = np.maximum(true * (self.rise - 1), self.min_rise)
        return np.asarray(np.minimum(flagged + self.gain * rise, np.maximum(0.95, 0.5 + flagged / 2)))


def streams(
    types: list[str],
    sensitivity: float,
    specificity: float,
    type_accuracy: float,
    rise: float,
    min_rise: float,
    false_alarms: float,
    safety_false_alarms: float,
    safety: bool,
) -> list[Stream]:
    """Return what is watched: any defect, each type, and safety if it is known.

    Half of the false-alarm budget goes to `defect`, the other half to the types in equal parts; safety
    has its own, larger budget, looks for smaller rises and needs two reports instead of three.
    """
    false_share = 1 - specificity
    share = false_alarms / 2 if types else false_alarms
    watched = [Stream("defect", sensitivity - false_share, false_share, rise, min_rise, share)]
    typed = max(0.05, sensitivity * type_accuracy - false_share / (len(types) + 1))
    for kind in types:
        watched.append(
            Stream(kind, typed, false_share / (len(types) + 1), rise, min_rise, false_alarms / 2 / len(types))
        )
    if safety:
        watched.append(
            Stream("safety", typed, false_share / (len(types) + 2), rise, min_rise / 2, safety_false_alarms, 2)
        )
    return watched


@dataclass(frozen=True)
class Prior:
    """A beta distribution of flagged shares: its mean and its strength in reviews."""

    mean: float
    strength: float


def fit_prior(reviews: np.ndarray, reports: np.ndarray) -> Prior | None:
    """Fit the prior of a group of products by moments; None without reviews.

    Args:
        reviews, reports: per product, within the baseline window.
    """
    seen = reviews > 0
    reviews, reports = reviews[seen].astype(float), reports[seen].astype(float)
    total = float(reviews.sum())
    if not total:
        return None
    mean = float((reports.sum() + 0.5) / (total + 10))  # half a report in ten reviews: never exactly 0
    spare = len(reviews) - 1
    weight = total - float((reviews**2).sum()) / total - spare
    if spare < 1 or weight <= 0:
        return Prior(mean, _LONE_STRENGTH)
    scatter = float((reviews * (reports / reviews - mean) ** 2).sum())
    correlation = (scatter / (mean * (1 - mean)) - spare) / weight
    strength = STRENGTHS[1] if correlation <= 1 / (1 + STRENGTHS[1]) else 1 / correlation - 1
    return Prior(mean, float(np.clip(strength, *STRENGTHS)))


def fit_priors(categories: np.ndarray, reviews: np.ndarray, reports: np.ndarray) -> dict[int, Prior]:
    """Fit one prior per category code; small categories get the catalogue's. Empty if there is too little at all."""
    catalogue = fit_prior(reviews, reports)
    if catalogue is None or reviews.sum() < CATALOGUE_REVIEWS:
        return {}
    priors = {}
    for code in np.unique(categories):
        own = categories == code
        enough = reviews[own].sum() >= _CATEGORY_REVIEWS and (reviews[own] > 0).sum() >= _CATEGORY_PRODUCTS
        priors[int(code)] = (fit_prior(reviews[own], reports[own]) if enough else None) or catalogue
    return priors
