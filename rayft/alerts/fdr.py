"""False-discovery control over the products of a day.

Benjamini and Hochberg (1995) on the p-values of the charts' statistics at a fixed time, as for many
surveillance charts in Grigg, Spiegelhalter and Jones (2009). What it promises: of the products that
are selected on any one day, the expected share that has not risen is at most the level, if the null
model holds and the products are independent or positively dependent. It promises nothing about all
days taken together: for that the receipts give the expected false alarms per 1,000 product-months.
"""

from __future__ import annotations

import numpy as np


def cuts(period: np.ndarray, product: np.ndarray, p_value: np.ndarray, watched: np.ndarray, level: float) -> np.ndarray:
    """Return for each period the p-value up to which products are selected; 0 where none is.

    Args:
        period, product, p_value: entries with a p-value up to `level`; others cannot be selected. A
            product with several in a period counts with its smallest.
        watched: number of products that are watched in each period.
    """
    cut = np.zeros(len(watched))
    order = np.lexsort((p_value, product, period))
    period, product, p_value = period[order], product[order], p_value[order]
    first = np.ones(len(order), bool)
    first[1:] = (period[1:] != period[:-1]) | (product[1:] != product[:-1])
    period, p_value = period[first], p_value[first]
    order = np.lexsort((p_value, period))
    period, p_value = period[order], p_value[order]
    bounds = np.searchsorted(period, np.arange(len(watched) + 1))
    for t in np.unique(period):
        own = p_value[bounds[t] : bounds[t + 1]]
        passed = np.flatnonzero(own <= level * np.arange(1, len(own) + 1) / max(1, watched[t]))
        if len(passed):
            cut[t] = own[passed[-1]]
    return cut
