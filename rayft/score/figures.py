"""The figures of a scoring run's page, each a section made of one part of the report."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rayft.report.charts import Bar, Level, Mark, Series, Tone, histogram, horizontal_bars, time_series
from rayft.report.html import Column, Section, figure, paragraph, table
from rayft.report.markup import Html
from rayft.report.scales import duration, duration_ticks, integer, percent, rate

#: What `rayft.score.report.build_report` returns, or the same read from its JSON.
Report = Mapping[str, Any]

_MOST_BINS = 60
_BIN_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)
_FEWEST_BINS = 3
_MOST_BARS = 12
_STAGES = {
    "read": "reading rows",
    "encode": "cleaning and tokenising",
    "model": "the model",
    "attach": "putting scores beside their rows",
    "write": "writing and committing",
}


def part(report: Report, name: str) -> Mapping[str, Any]:
    """Return a part of the report, empty if the report has none."""
    return report.get(name) or {}


def throughput(report: Report) -> Section | None:
    """Return texts per second over time."""
    speed, tokens = part(report, "speed"), part(report, "tokens")
    timeline = report.get("timeline") or []
    if not timeline:
        return None
    ready = float(speed.get("start_seconds", timeline[0][0]))
    end = max(float(speed.get("wall_seconds", 0.0)), float(timeline[-1][0]), ready + 1e-9)
    texts, seconds = sum(count for _, count in timeline), end - ready
    mean = texts / seconds
    bins = binned_rates(timeline, ready, end)
    caption = f"Mean {rate(mean)} texts a second over {duration(seconds)}"
    caption += f", after {duration(ready)} to plan and load the model." if ready > 0 else "."
    if tokens.get("duplicates"):
        caption += f" Repeated texts ({percent(tokens['duplicates'])}) are computed once and count once here."
    if len(bins) < _FEWEST_BINS:
        return Section("Throughput", paragraph(f"{caption} Too short for a curve."), wide=True)
    rates = [value for _, _, value in bins]
    points = [(0.0, rates[0]), *(((a + b) / 2, value) for a, b, value in bins), (seconds, rates[-1])]
    chart = time_series(
        [Series("texts per second", points, area=True)],
        label=f"Texts per second over {duration(seconds)}: mean {rate(mean)}, "
              f"lowest {rate(min(rates))}, highest {rate(max(rates))}.",
        x_ticks=duration_ticks(0, seconds),
        x_range=(0, seconds),
        x_form=duration,
        unit="texts per second",
        levels=[Level(mean, f"mean {rate(mean)}")],
    )  # fmt: skip
    numbers = table(
        [Column("Seconds"), Column("Texts per second", numeric=True)],
        [(f"{a:,.0f} to {b:,.0f}", rate(value)) for a, b, value in bins],
        "Texts per second over time",
    )
    return Section("Throughput", figure(chart, caption, numbers=numbers), wide=True)


def binned_rates(timeline: Sequence[Sequence[float]], ready: float, end: float) -> list[tuple[float, float, float]]:
    """Return (from, to, texts per second) of equal stretches of the time since `ready`.

    A batch counts evenly over the time since the batch before it, not in the second in which it ended, so that
    slow machines do not show a comb. Stretches are round, and so wide that there are at most sixty.

    Args:
        timeline: (second since the start, texts of the batches that ended in it), ascending.
        ready: second in which scoring began.
        end: second in which it ended.
    """
    span = end - ready
    width = next((w for w in _BIN_SECONDS if w * _MOST_BINS >= span), span / _MOST_BINS)
    edges = [i * width for i in range(max(1, math.floor(span / width + 0.5)))] + [span]
    times = [0.0] + [min(max(second + 1 - ready, 0.0), span) for second, _ in timeline]
    done = np.concatenate([[0.0], np.cumsum([texts for _, texts in timeline])])
    at_edges = np.interp(edges, times, done)
    at_edges[0], at_edges[-1] = 0.0, done[-1]
    return [
        (a, b, float(after - before) / (b - a))
        for a, b, before, after in zip(edges[:-1], edges[1:], at_edges[:-1], at_edges[1:], strict=True)
    ]


def labels(report: Report) -> Section | None:
    """Return how many reviews have which label, and how many are flagged."""
    labels, defects = part(report, "labels"), part(report, "defects")
    if not labels:
        return None
    labelled = max(1, part(report, "rows").get("labelled") or sum(labels.values()))
    ranked = sorted(labels.items(), key=lambda item: -item[1])
    bars = [_share_bar(name, count, labelled) for name, count in ranked[:_MOST_BARS]]
    if len(ranked) > _MOST_BARS:
        rest = ranked[_MOST_BARS:]
        bars.append(_share_bar(f"{len(rest)} other labels", sum(count for _, count in rest), labelled, "quiet"))
    bars.append(_share_bar("flagged as defect", defects.get("flagged", 0), labelled, "warn"))
    numbers = table(
        [Column("Label"), Column("Reviews", numeric=True), Column("Share", numeric=True)],
        [(name, integer(count), percent(count / labelled)) for name, count in ranked],
        "Reviews by label",
    )
    label = "Share of the labelled reviews: " + "; ".join(f"{bar.name} {bar.text}" for bar in bars)
    chart = horizontal_bars(bars, label=label, full=labelled)
    return Section("Labels and defects", figure(chart, numbers=numbers if len(ranked) > _MOST_BARS else None))


def _share_bar(name: str, count: int, of: int, tone: Tone = "plain") -> Bar:
    return Bar(name, count, percent(count / of), f"{name}: {count:,} reviews", f"{count:,}", tone)


def confidences(report: Report) -> Section | None:
    """Return how sure the model is."""
    counts = report.get("confidences") or []
    total = sum(counts)
    if not total:
        return None
    # Between n labels no confidence is under 1/n: the empty part is left out, down to a whole tenth.
    first = next(i for i, count in enumerate(counts) if count)
    first -= first % 2
    edges = [i / len(counts) for i in range(first, len(counts) + 1)]
    chart, numbers = _distribution(counts[first:], edges, [f"{a:.2f} to {b:.2f}" for a, b in _pairs(edges)],
                                   "Confidence", total)  # fmt: skip
    high = sum(counts[-(len(counts) // 10) :]) / total if len(counts) >= 10 else 0.0
    caption = f"{percent(high)} of the labelled reviews have a confidence of 0.9 or more."
    return Section("Confidence", figure(chart, caption, numbers=numbers))


def lengths(report: Report) -> Section | None:
    """Return how long reviews are, and where they are cut."""
    lengths, tokens = part(report, "lengths"), part(report, "tokens")
    counts, edges = lengths.get("rows") or [], lengths.get("edges") or []
    total = sum(counts)
    if not total:
        return None
    limit = part(report, "engine").get("max_length")
    longest = max(i for i, count in enumerate(counts) if count)
    shown = longest + 1
    if limit:
        shown = max(shown, sum(edge < limit for edge in edges) + 1)
    bounds = [0.0, *map(float, edges), math.inf]
    names = [f"{a + 1:.0f} to {b:.0f}" if b < math.inf else f"over {a:.0f}" for a, b in _pairs(bounds)]
    marks = [Mark(limit, f"cut at {limit:,}")] if limit else []
    chart, numbers = _distribution(counts[:shown], bounds[: shown + 1], names[:shown], "Tokens", total, marks)
    cut = tokens.get("truncated", 0.0)
    caption = f"{percent(cut)} of the reviews were longer than the limit and cut." if cut else "No review was cut."
    return Section("Tokens per review", figure(chart, caption, numbers=numbers))


def _pairs(edges: Sequence[float]) -> list[tuple[float, float]]:
    return list(itertools.pairwise(edges))


def _distribution(
    counts: Sequence[int],
    edges: Sequence[float],
    names: Sequence[str],
    what: str,
    total: int,
    marks: Sequence[Mark] = (),
) -> tuple[Html, Html]:
    """Return a histogram of shares and the table of its numbers."""
    shares = [count / total for count in counts]
    rows = [(name, integer(c), percent(s)) for name, c, s in zip(names, counts, shares, strict=True)]
    most = names[shares.index(max(shares))]
    chart = histogram(
        shares,
        edges,
        label=f"{what}: most reviews, {percent(max(shares))}, are at {most}; the table has every number.",
        details=[f"{what} {name}: {count} reviews ({share})" for name, count, share in rows],
        y_form=lambda share: f"{100 * share:g}%",
        unit="share of reviews",
        marks=marks,
    )
    columns = [Column(what), Column("Reviews", numeric=True), Column("Share", numeric=True)]
    return chart, table(columns, rows, f"{what}: reviews by range")


def stages(report: Report) -> Section | None:
    """Return what took how long."""
    stages = part(report, "stages")
    if not any(stages.values()):
        return None
    elapsed = part(report, "speed").get("scoring_seconds", 0.0)
    bars = [Bar("elapsed", elapsed, duration(elapsed), tone="quiet")] if elapsed else []
    bars += [
        Bar(name, seconds, duration(seconds), f"{_STAGES.get(name, name)}: {duration(seconds)}")
        for name, seconds in stages.items()
    ]
    label = "Time per stage: " + "; ".join(f"{bar.name} {bar.text}" for bar in bars)
    caption = "Added over all workers. Stages overlap, so together they may take longer than the run."
    return Section("Time per stage", figure(horizontal_bars(bars, label=label), caption))


def workers(report: Report) -> Section | None:
    """Return how busy each worker was."""
    workers = part(report, "workers")
    if not workers:
        return None
    shares = {name: values.get("utilisation", 0.0) for name, values in workers.items()}
    names = sorted(shares, key=lambda name: shares[name])[:_MOST_BARS] if len(shares) > _MOST_BARS else list(shares)
    bars = [Bar(name, shares[name], percent(shares[name]), _worker(name, workers[name])) for name in names]
    label = "Share of the time in which the model computed: " + "; ".join(f"{b.name} {b.text}" for b in bars)
    caption = "Share of the time in which the model computed."
    if len(names) < len(shares):
        caption += (
            f" The {len(names)} least busy of {len(shares):,}; mean {percent(sum(shares.values()) / len(shares))}."
        )
    numbers = table(
        [Column("Worker"), Column("Reviews", True), Column("Model time", True), Column("Busy", True)],
        [
            (name, integer(values.get("rows", 0)), duration(values.get("model_seconds", 0.0)), percent(shares[name]))
            for name, values in workers.items()
        ],
        "Workers",
    )
    heading = "1 worker" if len(shares) == 1 else f"{len(shares):,} workers"
    return Section(heading, figure(horizontal_bars(bars, label=label, full=1.0), caption, numbers=numbers))


def _worker(name: str, values: Mapping[str, Any]) -> str:
    return f"{name}: {values.get('rows', 0):,} reviews, {duration(values.get('model_seconds', 0.0))} in the model"
