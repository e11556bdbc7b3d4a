"""What charts renew every few weeks: category priors and usual volumes, each from the past only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from rayft.alerts.baseline import Prior, fit_priors
from rayft.alerts.counts import Counts, Grid, Periods
from rayft.alerts.cusum import Timing


@dataclass(frozen=True)
class Blocks:
    """Priors and volumes that are renewed block by block. Blocks stand at fixed dates, whatever the data begin with.

    Attributes:
        first: number of the first period of the data.
        block_of: block of each period.
        priors: kind -> per block, category code -> prior.
        volume: reviews per period, by block and product.
    """

    first: int
    block_of: np.ndarray
    categories: dict[str, int]
    priors: dict[str, list[dict[int, Prior]]]
    volume: list[dict[str, float]]
    usual: list[float]

    @classmethod
    def of(cls, counts: Counts, scorer: str, kinds: Sequence[str], periods: Periods, timing: Timing) -> Blocks | None:
        number = periods.number(pl.col("day")).alias("t")
        volume = counts.volume.filter(pl.col("scorer") == scorer).with_columns(number).sort("t", "product")
        if volume.is_empty():
            return None
        reports = counts.reports.filter(pl.col("scorer") == scorer).with_columns(number).sort("t", "product")
        names = volume["product"].unique().sort()
        code = pl.DataFrame({"product": names}).with_row_index("code")
        in_order = code.join(volume.unique("product").select("product", "category"), on="product").sort("code")
        categories = {name: i for i, name in enumerate(in_order["category"].unique().sort())}
        category = in_order["category"].replace_strict(categories, return_dtype=pl.Int64).to_numpy()
        size = len(names)
        sums = _Sums(volume.join(code, on="product", maintain_order="left"), size)
        by_kind = {kind: _Sums(reports.filter(pl.col("kind") == kind).join(code, on="product", maintain_order="left"),
                               size) for kind in kinds}  # fmt: skip
        first, last = int(volume["t"][0]), int(volume["t"][-1])
        block_of = np.arange(first, last + 1) // timing.block - first // timing.block
        priors: dict[str, list[dict[int, Prior]]] = {kind: [] for kind in kinds}
        volumes, usual = [], []
        for block in range(int(block_of[-1]) + 1):
            begin = (first // timing.block + block) * timing.block
            seen = sums.between(begin - timing.window, begin - timing.lag)
            for kind in kinds:
                flagged = by_kind[kind].between(begin - timing.window, begin - timing.lag)
                priors[kind].append(fit_priors(category, seen, flagged))
            length = max(1, min(timing.volume, begin - first))
            recent = sums.between(begin - length, begin) / length
            volumes.append(dict(zip(names.to_list(), recent.tolist(), strict=True)))
            usual.append(float(recent[recent > 0].mean()) if (recent > 0).any() else 1.0)
        return cls(first, block_of, categories, priors, volumes, usual)

    def any_prior(self) -> np.ndarray:
        kind = next(iter(self.priors))
        return np.array([1.0 if priors else np.nan for priors in self.priors[kind]])

    def prior_of(self, grid: Grid, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and strength of shape (products, blocks)."""
        codes = [self.categories[name] for name in grid.categories]
        nothing = Prior(np.nan, np.nan)
        table = [[by_block.get(code, nothing) for by_block in self.priors[kind]] for code in codes]
        mean = np.array([[prior.mean for prior in row] for row in table])
        return mean, np.array([[prior.strength for prior in row] for row in table])

    def volume_of(self, grid: Grid) -> np.ndarray:
        """Return reviews per period of shape (products, blocks); a new product counts as a usual one."""
        return np.array([[volume.get(name, 0.0) or usual for volume, usual in zip(self.volume, self.usual, strict=True)]
                         for name in grid.products])  # fmt: skip


class _Sums:
    """Sums per product between two periods."""

    def __init__(self, frame: pl.DataFrame, size: int) -> None:
        self.code = frame["code"].to_numpy()
        self.t = frame["t"].to_numpy()
        self.value = frame["reports" if "reports" in frame.columns else "reviews"].to_numpy().astype(float)
        self.size = size

    def between(self, begin: int, end: int) -> np.ndarray:
        low, high = np.searchsorted(self.t, [begin, max(begin, end)])
        return np.bincount(self.code[low:high], self.value[low:high], self.size)
