"""What charts have in common: the place of the plot, grid, labels, and lines with a text."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rayft.report.markup import Html, join, tag
from rayft.report.scales import Tick

Tone = Literal["plain", "warn", "quiet"]

AXIS = 24  # pixels under the plot, for the labels of its axis
_HEAD = 18  # pixels over the plot, for the unit of the other axis
_MARK_ROW = 17
_LETTER = 2.2  # percent of the width of a narrow chart that a letter takes


@dataclass(frozen=True)
class Mark:
    """A labelled vertical line, e.g. an onset or an alarm."""

    at: float
    label: str
    tone: Tone = "plain"


@dataclass(frozen=True)
class Level:
    """A labelled horizontal line, e.g. a mean or a threshold."""

    value: float
    label: str


@dataclass(frozen=True)
class Frame:
    """Where the plot is, in pixels from the top, and what its lower and upper ends are worth."""

    top: int
    height: int
    low: float
    high: float

    @property
    def bottom(self) -> int:
        return self.top + self.height

    def y_at(self, y: float) -> float:
        """Return the pixels from the top at which `y` is drawn."""
        return self.bottom - self.depth(y)

    def depth(self, y: float) -> float:
        """Return how many pixels `y` is over the lower end."""
        return self.height * (y - self.low) / (self.high - self.low)


def pct(x: float) -> str:
    """Return a share of the width as an attribute."""
    return f"{x:.2f}%"


def grid(frame: Frame, ticks: Sequence[Tick], unit: str) -> Html:
    """Return lines across the plot, their values at the right of it, and the unit over it."""
    parts = [tag("text", unit, class_="tick", x=0, y=frame.top - 8)] if unit else []
    for i, tick in enumerate(ticks):
        y = frame.y_at(tick.value)
        parts += [
            tag("line", class_="grid" if i else "base", x1=0, x2="100%", y1=y, y2=y),
            tag("text", tick.label, class_="tick", x="100%", y=y + 4, dx=8),
        ]
    return join(parts)


def x_labels(labels: Iterable[tuple[float, str]], frame: Frame, ends: bool = True) -> Html:
    """Return the texts under the plot; with `ends`, those at its ends stay inside of it."""

    def anchor(x: float) -> str:
        return "start" if ends and x < 2 else "end" if ends and x > 98 else "middle"

    y = frame.bottom + 17
    return join(tag("text", text, class_="tick", x=pct(x), y=y, text_anchor=anchor(x)) for x, text in labels)


def level_lines(levels: Iterable[Level], frame: Frame, nearby: Sequence[float]) -> Html:
    """Return lines across the plot, each with its text at the right, over or under it.

    Args:
        nearby: values at the right of the plot, which the text keeps away from.
    """
    parts = []
    for level in levels:
        y = frame.y_at(level.value)
        room_over = min((v - level.value for v in nearby if v > level.value), default=math.inf)
        room_under = min((level.value - v for v in nearby if v <= level.value), default=math.inf)
        under = room_under > room_over
        parts += [
            tag("line", class_="level", x1=0, x2="100%", y1=y, y2=y),
            tag("text", level.label, class_="note", x="100%", y=y + 16 if under else y - 7, text_anchor="end"),
        ]
    return join(parts)


@dataclass(frozen=True)
class _Placed:
    """A mark with the place of its label: its row, and on which side of the line it is."""

    mark: Mark
    x: float
    row: int
    anchor: Literal["start", "end"]


def _placed(marks: Iterable[Mark], x_at: Callable[[float], float]) -> list[_Placed]:
    """Give labels rows in which they do not meet, on a narrow chart either."""
    ends: list[float] = []  # of what is in each row so far
    found = []
    for mark in sorted(marks, key=lambda mark: mark.at):
        x, width = x_at(mark.at), _LETTER * (len(mark.label) + 1)
        anchor: Literal["start", "end"] = "start" if x + width <= 100 else "end"
        begin = x if anchor == "start" else x - width
        row = next((i for i, end in enumerate(ends) if end <= begin), len(ends))
        ends[row : row + 1] = [begin + width]
        found.append(_Placed(mark, x, row, anchor))
    return found


def head_height(marks: Iterable[Mark], x_at: Callable[[float], float]) -> int:
    """Return the pixels needed over the plot."""
    return _HEAD + _MARK_ROW * len({placed.row for placed in _placed(marks, x_at)})


def mark_lines(marks: Iterable[Mark], frame: Frame, x_at: Callable[[float], float]) -> Html:
    """Return upright lines, each with its text over the plot."""
    parts = []
    for placed in _placed(marks, x_at):
        at, y, tone = pct(placed.x), 12 + _MARK_ROW * placed.row, placed.mark.tone
        shift = 5 if placed.anchor == "start" else -5
        parts += [
            tag("line", class_=f"mark {tone}", x1=at, x2=at, y1=y - 10, y2=frame.bottom),
            tag("text", placed.mark.label, class_=f"note {tone}", x=at, y=y, dx=shift, text_anchor=placed.anchor),
        ]
    return join(parts)
