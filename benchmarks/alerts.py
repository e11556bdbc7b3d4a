"""How early alerts come, against charts of negative reviews, at equal false-alarm rates.

    python benchmarks/alerts.py DATA [--scores FILE] [--calm] [--output benchmarks/results]

DATA holds defects/train.parquet: reviews annotated with polarity and the issue reported. Streams of
made-up products draw their reviews from it; a ramp replaces a growing share of them by reviews that
report one type of defect. The annotation is the classifier, with errors of the stated sensitivity,
specificity and type accuracy (false flags four times as likely on negative reviews); with --scores (a
scored Parquet with the columns id, defect, defect_type) the model's flags are used instead. Negative
reviews are known without error to the baselines that count them.

Unless --calm, products have promotions (three times the volume for three weeks) and a third of
them a wave of complaints about service, with and without a ramp.

Every method's threshold is set, for each volume, on one set of streams without ramps to the same
rate of false alarms and checked on another; the charts of rayft run with their own thresholds too.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from rayft.alerts.baseline import streams
from rayft.alerts.blocks import Blocks
from rayft.alerts.config import AlertsConfig
from rayft.alerts.counts import Counts, Grid, Periods
from rayft.alerts.cusum import DAILY, baseline_counts, cumulative
from rayft.alerts.detect import run_charts
from rayft.alerts.thresholds import Limits

TYPES = ["breakage", "failure", "missing_parts", "workmanship"]
PHYSICAL = ["kitchen", "electronics", "apparel", "camera_photo", "health_personal_care", "sports_outdoors",
            "toys_games", "baby"]  # fmt: skip
VOLUMES = (0.5, 2.0, 8.0)  # reviews a day
SIZES = (0.05, 0.10, 0.20)  # share of reviews that the ramp adds at its end
RAMPS = (1, 28, 56)  # days
REFERENCE = {"size": 0.10, "ramp": 28, "volume": 2.0}
MANUAL_DAYS = (42, 56)  # manual review as published: six to eight weeks
DAYS, WARM = 728, 182  # of every stream; nothing is judged in the first WARM days
FOLLOWED = 182  # days after the onset within which an alarm counts as detection
EPOCH = 20_104  # first day of the streams, a multiple of 28
TARGET = 5.0  # false alarms per 1,000 product-months
MONTH = 30.4375


@dataclasses.dataclass
class Streams:
    """Products with daily counts: kind -> int32 of shape (products, DAYS)."""

    categories: list[str]
    reviews: np.ndarray
    counts: dict[str, np.ndarray]
    onset: np.ndarray
    group: list[tuple[float, float, int]]  # volume, size, ramp


class Pool:
    """Annotated reviews by category and polarity, and the flags that a classifier gives each draw of them."""

    def __init__(self, frame: pl.DataFrame, config: AlertsConfig, scores: pl.DataFrame | None) -> None:
        frame = frame.filter(pl.col("category").is_in(PHYSICAL)).with_row_index("row")
        self.config, self.scored = config, scores is not None
        self.issue = frame["issue"].to_numpy()
        self.negative = (frame["polarity"] == "negative").to_numpy()
        self.defect = frame["defect"].to_numpy()
        if scores is not None:
            own = frame.join(scores, on="id", how="left", maintain_order="left")
            self.flag, self.kind = own["flag"].fill_null(False).to_numpy(), own["kind"].to_numpy()
        self.rows = {key: part["row"].to_numpy() for key, part in
                     frame.partition_by("category", "polarity", as_dict=True).items()}  # fmt: skip
        self.by_issue = {
            key[0]: part["row"].to_numpy() for key, part in frame.partition_by("issue", as_dict=True).items()
        }
        harmless = ~self.defect
        self.categories = sorted(frame["category"].unique())
        share = 0.2 * (self.negative & harmless).sum() / max(1, self.negative.sum())
        rest = 0.8 * (~self.negative & harmless).sum() / max(1, (~self.negative).sum())
        self.false_flag = (1 - config.specificity) * (share + rest) / (4 * share + rest)

    def flags(self, rows: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return whether each drawn review is flagged, and the type it gets."""
        if self.scored:
            return self.flag[rows], self.kind[rows]
        wrong = self.false_flag * np.where(self.negative[rows], 4, 1)
        flagged = rng.random(len(rows)) < np.where(self.defect[rows], self.config.sensitivity, wrong)
        right = self.defect[rows] & (rng.random(len(rows)) < self.config.type_accuracy)
        kinds = np.where(right, self.issue[rows], rng.choice([*TYPES, "safety"], len(rows)))
        return flagged, kinds


def make(pool: Pool, groups: list[tuple[float, float, int]], each: int, calm: bool, seed: int) -> Streams:
    """Draw streams: `each` products for every (volume, size, ramp); size 0 has no ramp."""
    rng = np.random.default_rng(seed)
    kinds = ["defect", *TYPES, "negative"]
    group = [g for g in groups for _ in range(each)]
    made = Streams(
        [],
        np.zeros((len(group), DAYS), np.int32),
        {k: np.zeros((len(group), DAYS), np.int32) for k in kinds},
        np.zeros(len(group), int),
        group,
    )
    days = np.arange(DAYS)
    for i, (volume, size, ramp) in enumerate(group):
        category = pool.categories[i % len(pool.categories)]
        made.categories.append(category)
        made.onset[i] = onset = rng.integers(WARM + 60, DAYS - FOLLOWED)
        level, wave = np.full(DAYS, volume), np.zeros(DAYS)
        if not calm:
            for start in rng.integers(0, DAYS, 3):
                level[start : start + 21] *= 3
            if rng.random() < 1 / 3:
                start = rng.integers(WARM, DAYS - 21)
                wave[start : start + 21] = 0.10
        n = rng.poisson(level)
        day = np.repeat(days, n)
        negative = rng.random(len(day)) < rng.beta(0.2 * 40, 0.8 * 40)
        rows = np.where(negative, rng.choice(pool.rows[category, "negative"], len(day)),
                        rng.choice(pool.rows[category, "positive"], len(day)))  # fmt: skip
        service = rng.random(len(day)) < wave[day]
        rows = np.where(service, rng.choice(pool.by_issue["service"], len(day)), rows)
        grown = size * np.clip((day - onset + 1) / ramp, 0, 1)
        kind = TYPES[rng.integers(len(TYPES))]
        rows = np.where(rng.random(len(day)) < grown, rng.choice(pool.by_issue[kind], len(day)), rows)
        flagged, found = pool.flags(rows, rng)
        made.reviews[i] = n
        made.counts["defect"][i] = np.bincount(day[flagged], minlength=DAYS)
        made.counts["negative"][i] = np.bincount(day[pool.negative[rows]], minlength=DAYS)
        for k in TYPES:
            made.counts[k][i] = np.bincount(day[flagged & (found == k)], minlength=DAYS)
    return made


def as_counts(made: Streams) -> Counts:
    names = [f"{i:06d}" for i in range(len(made.group))]

    def long(values: np.ndarray, name: str) -> pl.DataFrame:
        row, day = np.nonzero(values)
        return pl.DataFrame({"product": [names[i] for i in row], "scorer": "x", name: values[row, day].astype(np.int64),
                             "day": pl.Series((day + EPOCH).astype(np.int32)).cast(pl.Date)})  # fmt: skip

    category = pl.DataFrame({"product": names, "category": made.categories})
    volume = long(made.reviews, "reviews").join(category, on="product").with_columns(pl.lit(0).alias("collapsed"))
    reports = [long(v, "reports").with_columns(pl.lit(k).alias("kind")) for k, v in made.counts.items()]
    return Counts(volume, pl.concat(reports))


def rayft_statistic(
    made: Streams, background: Blocks, config: AlertsConfig, known: dict[str, list[float]]
) -> np.ndarray:
    """Return the largest of a product's charts, each as a multiple of its threshold, safety left out."""
    watched = streams(TYPES, config.sensitivity, config.specificity, config.type_accuracy, config.rise,
                      config.min_rise, config.false_alarms, config.safety_false_alarms, False)  # fmt: skip
    own = Blocks.of(as_counts(made), "x", ["defect"], Periods(1), DAILY)
    assert own is not None and own.first == background.first
    blocks = dataclasses.replace(own, priors=background.priors, categories=background.categories)
    grid = Grid([f"{i:06d}" for i in range(len(made.group))], made.categories, own.first, made.reviews, made.counts)
    best = np.zeros(made.reviews.shape, np.float32)
    for stream in watched:
        chart, limit = run_charts(grid, stream, blocks, Limits(stream, DAILY, known), DAILY)
        best = np.fmax(best, chart.statistic / limit["threshold"])
    return best


def trailing(values: np.ndarray, days: int) -> np.ndarray:
    total = cumulative(values)
    start = np.maximum(np.arange(1, DAYS + 1) - days, 0)
    return total[:, 1:] - total[:, start]


def smooth(values: np.ndarray, weight: float) -> np.ndarray:
    out = np.zeros(values.shape)
    now = values[:, :28].mean(axis=1)
    for t in range(values.shape[1]):
        now = (1 - weight) * now + weight * values[:, t]
        out[:, t] = now
    return out


def history(made: Streams, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a product's usual count a day and share: 52 weeks up to 4 weeks ago, with 28 usual days added."""
    rows = np.arange(len(made.group))
    reviews, reports = cumulative(made.reviews), cumulative(made.counts[kind])
    rate, share = np.zeros(made.reviews.shape), np.zeros(made.reviews.shape)
    overall = made.counts[kind][:, :WARM].sum() / made.reviews[:, :WARM].sum()
    for t in range(DAYS):
        until = np.full(len(rows), max(t - DAILY.lag, 0))
        n, y = baseline_counts(reviews, reports, rows, until, DAILY.window)
        length = min(until[0], DAILY.window) + 28
        usual = made.reviews[:, :28].mean(axis=1)
        rate[:, t] = (y + 28 * usual * overall) / length
        share[:, t] = (y + 28 * usual * overall + 0.5) / (n + 28 * usual + 1)
    return rate, share


def baselines(made: Streams, kind: str) -> dict[str, np.ndarray]:
    """Return the statistics of the usual charts of one kind of count."""
    y, n = made.counts[kind].astype(float), made.reviews.astype(float)
    rate, share = history(made, kind)
    spread = np.sqrt(share * (1 - share))
    found: dict[str, np.ndarray] = {}
    for days in (7, 28):
        count, volume = trailing(made.counts[kind], days), trailing(made.reviews, days)
        found[f"fixed threshold on {days}-day count"] = count.astype(float)
        found[f"{days}-day count against own history"] = (count - rate * days) / np.sqrt(rate * days + 0.1)
        found[f"p-chart, {days} days"] = np.where(
            volume > 0, (count - share * volume) / (spread * np.sqrt(np.maximum(volume, 1))), 0.0
        )
    for weight in (0.05, 0.15):
        found[f"EWMA of daily count, weight {weight}"] = (smooth(y, weight) - rate) / np.sqrt(
            (rate + 0.05) * weight / (2 - weight)
        )
        found[f"EWMA of share, weight {weight}"] = (smooth(y, weight) - share * smooth(n, weight)) / (
            spread * np.sqrt((smooth(n, weight) + 0.05) * weight / (2 - weight))
        )
    return found


def first_alarm(statistic: np.ndarray, threshold: float, begin: np.ndarray) -> np.ndarray:
    """Return the first day from `begin` on with the statistic at the threshold, DAYS if there is none."""
    over = (statistic >= threshold) & (np.arange(DAYS)[None] >= begin[:, None])
    return np.where(over.any(axis=1), over.argmax(axis=1), DAYS)


def false_alarms(statistic: np.ndarray, threshold: float) -> float:
    """Return first alarms per 1,000 product-months at risk."""
    first = first_alarm(statistic, threshold, np.full(len(statistic), WARM))
    return 1000 * float((first < DAYS).sum()) / (float((first - WARM).sum()) / MONTH)


def calibrate(statistic: np.ndarray, target: float) -> float:
    """Return the threshold that gives the target rate of false alarms."""
    low, high = 0.0, float(statistic[:, WARM:].max()) + 1
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if false_alarms(statistic, middle) > target else (low, middle)
    return high


def judge(made: Streams, rows: np.ndarray, statistic: np.ndarray, threshold: float) -> dict[str, float | None]:
    """Return detection and delay of some streams; an alarm that is on at the onset counts as none until it ends."""
    onset = made.onset[rows]
    on = statistic[np.arange(len(rows)), onset - 1] >= threshold
    cleared = statistic < threshold
    begin = onset.copy()
    for i in np.flatnonzero(on):
        off = np.flatnonzero(cleared[i, onset[i] :])
        begin[i] = onset[i] + off[0] if len(off) else DAYS
    first = first_alarm(statistic, threshold, begin)
    delay = np.where(first - onset < FOLLOWED, first - onset + 1, np.inf)
    total = cumulative(made.reviews[rows])
    at = np.arange(len(rows))
    needed = np.where(np.isfinite(delay), total[at, np.minimum(first + 1, DAYS)] - total[at, onset], np.inf)

    def finite(value: float) -> float | None:
        return float(value) if np.isfinite(value) else None

    return {
        "detected": float(np.isfinite(delay).mean()),
        "detected_28_days": float((delay <= 28).mean()),
        "median_delay_days": finite(np.median(delay)),
        "median_delay_reviews": finite(np.median(needed)),
        "p90_delay_days": finite(np.sort(delay)[int(0.9 * len(delay))]),
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--scores", type=Path)
    parser.add_argument("--calm", action="store_true")
    parser.add_argument("--nulls", type=int, default=400, help="streams without a ramp, for each volume")
    parser.add_argument("--planted", type=int, default=80, help="streams for each size, ramp and volume")
    parser.add_argument("--sensitivity", type=float, default=AlertsConfig.sensitivity)
    parser.add_argument("--specificity", type=float, default=AlertsConfig.specificity)
    parser.add_argument("--type-accuracy", type=float, default=AlertsConfig.type_accuracy)
    parser.add_argument("--summarise", type=Path, help="print and renew the summary of a file of results")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    if given.summarise:
        found = json.loads(given.summarise.read_text())
        given.summarise.write_text(json.dumps({**found, **summarise(found["results"])}, indent=1) + "\n")
        return
    started = time.time()
    config = AlertsConfig((), "", sensitivity=given.sensitivity, specificity=given.specificity,
                          type_accuracy=given.type_accuracy)  # fmt: skip
    scores = None
    if given.scores:
        scores = pl.read_parquet(given.scores).select("id", pl.col("defect").alias("flag"),
                                                      pl.col("defect_type").alias("kind"))  # fmt: skip
    pool = Pool(pl.read_parquet(given.data / "defects" / "train.parquet"), config, scores)
    quiet = [(v, 0.0, 1) for v in VOLUMES]
    planted = [(v, s, r) for v in VOLUMES for s in SIZES for r in RAMPS]
    sets = {
        "tune": make(pool, quiet, given.nulls, given.calm, 1),
        "check": make(pool, quiet, given.nulls, given.calm, 2),
        "planted": make(pool, planted, given.planted, given.calm, 3),
    }
    background = Blocks.of(as_counts(sets["tune"]), "x", ["defect", *TYPES], Periods(1), DAILY)
    assert background is not None
    known: dict[str, list[float]] = {}
    measured: dict[str, Callable[[Streams], dict[str, np.ndarray]]] = {
        "rayft": lambda made: {"CUSUM": rayft_statistic(made, background, config, known)},
        "negative reviews": lambda made: baselines(made, "negative"),
        "defect flags": lambda made: baselines(made, "defect"),
    }
    results = []
    for counted, method in measured.items():
        statistics = {name: method(made) for name, made in sets.items()}
        for name in statistics["tune"]:
            results.append(measure(sets, {s: statistics[s][name] for s in sets}, f"{name}: {counted}", None))
        if counted == "rayft":
            results.append(
                measure(sets, {s: statistics[s]["CUSUM"] for s in sets}, "CUSUM: rayft, own thresholds", 1.0)
            )
    report = summarise(results)
    report["setting"] = {
        "machine": f"{platform.processor() or platform.machine()}, {platform.system()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "polars": pl.__version__,
        "date": str(date.today()),
        "seconds": round(time.time() - started),
        "calm": given.calm,
        "scores": str(given.scores or "") or None,
        "sensitivity": config.sensitivity,
        "specificity": config.specificity,
        "type_accuracy": config.type_accuracy,
        "rise": config.rise,
        "min_rise": config.min_rise,
        "nulls_per_volume": given.nulls,
        "planted_per_scenario": given.planted,
        "false_alarms_target": TARGET,
        "reference": REFERENCE,
    }
    report["results"] = results
    given.output.mkdir(parents=True, exist_ok=True)
    target = (
        given.output / f"alerts-{date.today()}{'-calm' if given.calm else ''}{'-model' if given.scores else ''}.json"
    )
    target.write_text(json.dumps(report, indent=1) + "\n")
    print(f"Written to {target}")


def measure(
    sets: dict[str, Streams], statistic: dict[str, np.ndarray], name: str, fixed: float | None
) -> dict[str, Any]:
    scenarios = []
    rates = {}
    for volume in VOLUMES:
        null = np.array([g[0] == volume for g in sets["tune"].group])
        threshold = fixed or calibrate(statistic["tune"][null], TARGET)
        rates[str(volume)] = round(false_alarms(statistic["check"][null], threshold), 2)
        for size in SIZES:
            for ramp in RAMPS:
                rows = np.array([i for i, g in enumerate(sets["planted"].group) if g == (volume, size, ramp)])
                found = judge(sets["planted"], rows, statistic["planted"][rows], threshold)
                scenarios.append({"volume": volume, "size": size, "ramp": ramp, **found})
    return {"method": name, "false_alarms_per_1000_product_months": rates, "scenarios": scenarios}


def summarise(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Print the reference scenario and compare with the best baseline that counts negative reviews."""

    def of(result: dict[str, Any], **wanted: float) -> dict[str, float | None]:
        return next(s for s in result["scenarios"] if all(s[k] == v for k, v in wanted.items()))

    def days(value: float | None) -> float:
        return np.inf if value is None else value

    print(f"Reference: {REFERENCE}; false alarms per 1,000 product-months (target {TARGET}) on other streams")
    print(f"{'method':64s} {'detected':>8s} {'days':>6s} {'reviews':>8s}  false alarms by volume")
    for result in results:
        r = of(result, **REFERENCE)
        print(f"{result['method']:64s} {r['detected']:8.0%} {days(r['median_delay_days']):6.0f} "
              f"{days(r['median_delay_reviews']):8.0f}  {result['false_alarms_per_1000_product_months']}")  # fmt: skip
    counting = [r for r in results if str(r["method"]).endswith("negative reviews")]
    rows = []
    print("\nmedian delay in days: rayft / best baseline that counts negative reviews, chosen anew for each scenario")
    for s in results[0]["scenarios"]:
        key = {k: s[k] for k in ("volume", "size", "ramp")}
        best = min(counting, key=lambda r: (days(of(r, **key)["median_delay_days"]), -(of(r, **key)["detected"] or 0)))
        theirs, own = of(best, **key), days(s["median_delay_days"])
        beyond = theirs["median_delay_days"] is None  # fewer than half were found: the ratio is an upper bound
        ratio = own / (FOLLOWED if beyond else days(theirs["median_delay_days"]))
        rows.append(
            {
                **key,
                "rayft_days": s["median_delay_days"],
                "rayft_reviews": s["median_delay_reviews"],
                "rayft_detected": s["detected"],
                "baseline": best["method"],
                "baseline_days": theirs["median_delay_days"],
                "baseline_detected": theirs["detected"],
                "ratio": round(ratio, 3) if np.isfinite(ratio) else None,
                "ratio_is_upper_bound": beyond,
                "lead_days_over_manual_review": [m - own for m in MANUAL_DAYS] if np.isfinite(own) else None,
            }
        )
        bound = "<" if beyond else " "
        print(
            f"  {key['volume']:4.1f}/day +{key['size']:.0%} in {key['ramp']:2d} days: {own:5.0f} / "
            f"{days(theirs['median_delay_days']):5.0f}  {bound}{ratio:4.2f}  "
            f"detected {s['detected']:4.0%} / {theirs['detected']:4.0%}  {best['method'].split(':')[0]}"
        )
    reference = next(r for r in rows if all(r[k] == v for k, v in REFERENCE.items()))
    lead = reference["lead_days_over_manual_review"]
    early = [r for r in rows if days(r["rayft_days"]) + 28 <= MANUAL_DAYS[0]]
    late = [r for r in rows if days(r["rayft_days"]) + 28 <= MANUAL_DAYS[1]]
    halved = [r for r in rows if r["ratio"] is not None and r["ratio"] <= 0.5]
    print(f"\nReference: ratio {reference['ratio']} (target <= 0.5), days before manual review {lead} (target >= 28)")
    print(f"Four weeks before manual review of six weeks: {len(early)} of {len(rows)} found; before eight: {len(late)}")
    print(f"At most half the delay of the best baseline that counts negative reviews: {len(halved)} of {len(rows)}")
    return {"reference_ratio": reference["ratio"], "lead_over_manual_review_days": lead, "comparison": rows}


if __name__ == "__main__":
    main()
