"""Charts as inline SVG: pure functions from numbers to markup, drawn by the styles of `rayft.report.html.page`.

A chart is as wide as what it stands in: horizontal positions are percentages, so that text and lines keep their
size on a phone and on a desk. Every chart has a text alternative, and its marks show their numbers when pointed at.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from rayft.report.axes import (
    AXIS,
    Frame,
    Level,
    Mark,
    Tone,
    grid,
    head_height,
    level_lines,
    mark_lines,
    pct,
    x_labels,
)
from rayft.report.markup import Html, join, tag
from rayft.report.scales import Tick, compact, nice_ticks

__all__ = [
    "Bar",
    "Level",
    "Mark",
    "Series",
    "Tick",
    "Tone",
    "bar_chart",
    "histogram",
    "horizontal_bars",
    "shorten",
    "time_series",
]

_DRAWING = 1000.0  # width of the drawing that is stretched to the width of the chart
_MOST_HOVERS = 400
_ROW = 38  # pixels of a horizontal bar with its text
_NAME_LETTERS = 30
_NARROW_LETTERS = 45  # as many are under a narrow chart


@dataclass(frozen=True)
class Series:
    """A named line; a point without a finite value is a gap."""

    name: str
    points: Sequence[tuple[float, float | None]]
    area: bool = False
    dashed: bool = False


@dataclass(frozen=True)
class Bar:
    """A named bar.

    Attributes:
        text: the value as written.
        detail: what is shown when the bar is pointed at; name and text if empty.
        aside: written before the value, less strong.
    """

    name: str
    value: float
    text: str
    detail: str = ""
    aside: str = ""
    tone: Tone = "plain"


def time_series(
    series: Sequence[Series],
    *,
    label: str,
    x_ticks: Sequence[Tick],
    x_range: tuple[float, float] | None = None,
    x_form: Callable[[float], str] = compact,
    y_form: Callable[[float], str] | None = None,
    unit: str = "",
    marks: Sequence[Mark] = (),
    levels: Sequence[Level] = (),
    from_zero: bool = True,
    height: int = 200,
) -> Html:
    """Return lines over time (or over anything that has an order).

    Args:
        series: at least one; coloured in order, named by `rayft.report.html.figure`'s legend.
        label: what the chart shows, for those who cannot see it.
        x_range: ends of the axis; those of the points if not given.
        unit: of the vertical axis.
        from_zero: the vertical axis begins at zero.
    """
    xs = sorted({x for line in series for x, _ in line.points})
    ys = [y for line in series for _, y in line.points if _known(y)] + [level.value for level in levels]
    ticks = nice_ticks(min([0.0] * from_zero + ys, default=0.0), max([0.0] * from_zero + ys, default=1.0), 5, y_form)
    left, right = x_range or (xs[0] if xs else 0.0, xs[-1] if xs else 1.0)
    right = right if right > left else left + 1

    def x_at(x: float) -> float:
        return 100 * (x - left) / (right - left)

    head = head_height(marks, x_at)
    frame = Frame(head, height, ticks[0].value, ticks[-1].value)
    lines = [part for i, line in enumerate(series, 1) for part in _line(line, i, frame, x_at)]
    drawing = tag("svg", *lines, class_="plot", x=0, y=head, width="100%", height=height, overflow="visible",
                  viewBox=f"0 0 {_DRAWING:g} {height}", preserveAspectRatio="none")  # fmt: skip
    nearby = [y for line in series for x, y in line.points if _known(y) and x_at(x) > 85]
    shown = [tick for tick in x_ticks if left <= tick.value <= right]
    return _chart(
        label,
        frame,
        grid(frame, ticks, unit),
        drawing,
        level_lines(levels, frame, nearby),
        x_labels([(x_at(tick.value), tick.label) for tick in shown], frame),
        mark_lines(marks, frame, x_at),
        _hovers(series, xs, frame, x_at, x_form, y_form or compact) if len(xs) <= _MOST_HOVERS else "",
    )


def histogram(
    counts: Sequence[float],
    edges: Sequence[float],
    *,
    label: str,
    details: Sequence[str],
    edge_form: Callable[[float], str] = compact,
    y_form: Callable[[float], str] | None = None,
    unit: str = "",
    marks: Sequence[Mark] = (),
    height: int = 160,
) -> Html:
    """Return a histogram whose bins are drawn equally wide, whatever their edges.

    Args:
        counts: float[n].
        edges: float[n + 1], ascending; the last may be infinite.
        details: n texts, what each bin shows when pointed at.
    """
    width = 100 / max(1, len(counts))
    texts = [edge_form(edge) if math.isfinite(edge) else "" for edge in edges]
    needed = sum(len(text) + 1.5 for text in texts)
    every = next((n for n in (1, 2, 4, 5, 10) if needed <= n * _NARROW_LETTERS), 20)
    labels = [(i * width, text) for i, text in enumerate(texts) if i % every == 0]

    def x_at(x: float) -> float:
        i = min(max(sum(edge <= x for edge in edges) - 1, 0), len(counts) - 1)
        part = (x - edges[i]) / (edges[i + 1] - edges[i]) if math.isfinite(edges[i + 1]) else 0.5
        return width * (i + min(max(part, 0.0), 1.0))

    ticks = nice_ticks(0, max(counts, default=0.0), 3, y_form)
    frame = Frame(head_height(marks, x_at), height, 0.0, ticks[-1].value)
    columns = [
        _column(i * width + width * 0.03, width * 0.94, count, detail, frame)
        for i, (count, detail) in enumerate(zip(counts, details, strict=True))
    ]
    return _chart(
        label, frame, grid(frame, ticks, unit), *columns, x_labels(labels, frame), mark_lines(marks, frame, x_at)
    )


def bar_chart(
    bars: Sequence[Bar], *, label: str, y_form: Callable[[float], str] | None = None, unit: str = "", height: int = 160
) -> Html:
    """Return upright bars with their names under them, for a few short names that have an order."""
    width = 100 / max(1, len(bars))
    ticks = nice_ticks(0, max((bar.value for bar in bars), default=0.0), 3, y_form)
    frame = Frame(head_height((), float), height, 0.0, ticks[-1].value)
    columns = [
        _column(i * width + width * 0.15, width * 0.7, b.value, b.detail or f"{b.name}: {b.text}", frame, b.tone)
        for i, b in enumerate(bars)
    ]
    names = [((i + 0.5) * width, bar.name) for i, bar in enumerate(bars)]
    return _chart(label, frame, grid(frame, ticks, unit), *columns, x_labels(names, frame, ends=False))


def horizontal_bars(bars: Sequence[Bar], *, label: str, full: float | None = None) -> Html:
    """Return bars one under the other, each with its name and value above it.

    Args:
        full: value of a bar of the whole width; the largest value if not given.
    """
    full = full or max((bar.value for bar in bars), default=0.0) or 1.0
    rows = [_row(bar, i * _ROW, 100 * min(1.0, max(0.0, bar.value / full))) for i, bar in enumerate(bars)]
    return tag("svg", *rows, class_="chart", role="img", aria_label=label, width="100%", height=_ROW * len(bars))


def _row(bar: Bar, top: int, width: float) -> Html:
    aside = tag("tspan", f"{bar.aside}\u2003", class_="aside") if bar.aside else ""
    return tag(
        "g",
        tag("title", bar.detail or f"{bar.name}: {bar.text}"),
        tag("rect", class_="hover", x=0, y=top, width="100%", height=_ROW - 2),
        tag("text", shorten(bar.name), class_="name", x=0, y=top + 15),
        tag("text", aside, tag("tspan", bar.text, class_="value"), x="100%", y=top + 15, text_anchor="end"),
        tag("rect", class_="track", x=0, y=top + 22, width="100%", height=6, rx=3),
        tag("rect", class_=f"bar {bar.tone}", x=0, y=top + 22, width=pct(width), height=6, rx=3),
    )


def shorten(name: str, letters: int = _NAME_LETTERS) -> str:
    """Return `name` without its middle if it is longer than `letters`."""
    keep = letters - 1
    return name if len(name) <= letters else f"{name[: keep - keep // 2]}…{name[-(keep // 2) :]}"


def _chart(label: str, frame: Frame, *parts: object) -> Html:
    return tag(
        "svg", *parts, class_="chart scaled", role="img", aria_label=label, width="100%", height=frame.bottom + AXIS
    )


def _known(y: float | None) -> TypeGuard[float]:
    return y is not None and math.isfinite(y)


def _line(line: Series, number: int, frame: Frame, x_at: Callable[[float], float]) -> list[Html]:
    """Return a line, and the area under it if asked for, in units of the drawing."""
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in line.points:
        if not _known(y):
            runs.append([])
        else:
            runs[-1].append((x_at(x) * _DRAWING / 100, frame.height - frame.depth(y)))
    paths = ["L".join(f"{x:.1f} {y:.1f}" for x, y in run) for run in runs if run]
    # A point alone is a line of no length, which round ends make a dot.
    stroke = "".join(f"M{path}" if "L" in path else f"M{path}L{path}" for path in paths)
    parts = []
    if line.area:
        floor = frame.height
        fill = "".join(f"M{run[0][0]:.1f} {floor}L{path}L{run[-1][0]:.1f} {floor}Z"
                       for run, path in zip([run for run in runs if run], paths, strict=True))  # fmt: skip
        parts.append(tag("path", class_=f"area s{number}", d=fill))
    dashed = " dashed" if line.dashed else ""
    parts.append(tag("path", class_=f"line s{number}{dashed}", d=stroke, vector_effect="non-scaling-stroke"))
    return parts


def _column(x: float, width: float, value: float, detail: str, frame: Frame, tone: Tone = "plain") -> Html:
    deep = frame.depth(value)
    deep = max(deep, 1.5) if value > 0 else deep  # a bin that is not empty is seen
    return tag(
        "g",
        tag("title", detail),
        tag("rect", class_="hover", x=pct(x), y=frame.top, width=pct(width), height=frame.height),
        tag("rect", class_=f"bar {tone}", x=pct(x), y=frame.bottom - deep, width=pct(width), height=deep),
    )


def _hovers(
    series: Sequence[Series],
    xs: Sequence[float],
    frame: Frame,
    x_at: Callable[[float], float],
    x_form: Callable[[float], str],
    y_form: Callable[[float], str],
) -> Html:
    """Return unseen columns, one a point, that show the values when pointed at."""
    values = [dict(line.points) for line in series]
    middles = [x_at((a + b) / 2) for a, b in itertools.pairwise(xs)]
    bounds = [0.0, *middles, 100.0]
    parts = []
    for i, x in enumerate(xs):
        texts = [
            f"{line.name}: {y_form(y)}" for line, value in zip(series, values, strict=True) if _known(y := value.get(x))
        ]
        title = tag("title", "\n".join([x_form(x), *texts]))
        width = max(0.0, bounds[i + 1] - bounds[i])
        parts.append(tag("rect", title, class_="hover", x=pct(bounds[i]), y=frame.top, width=pct(width),
                         height=frame.height))  # fmt: skip
    return join(parts)
