"""Round values for axes, and numbers as people read them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta

_DURATION_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True)
class Tick:
    """A value on an axis and what is written there."""

    value: float
    label: str


def nice_step(span: float, count: int) -> float:
    """Return the smallest of 1, 2, 2.5 and 5 times a power of ten that divides `span` into at most `count` steps."""
    if not (span > 0 and math.isfinite(span)):
        return 1.0
    power = 10.0 ** math.floor(math.log10(span / count))
    return next(f * power for f in (1, 2, 2.5, 5, 10, 20) if f * power * count >= span * (1 - 1e-9))


def nice_ticks(low: float, high: float, count: int = 4, form: Callable[[float], str] | None = None) -> list[Tick]:
    """Return round values, at most `count` steps, from at or under `low` to at or over `high`.

    Args:
        form: how values are written; as `compact` writes the largest if not given.
    """
    extent = max(abs(low), abs(high))
    if not high - low > max(1e-9 * extent, 1e-300):  # a point, as far as a chart can tell
        high = low + (extent if extent > 1e-300 else 1.0)
    step = nice_step(high - low, count)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    values = [float(f"{i * step:.12g}") for i in range(first, last + 1)]
    largest = max(map(abs, values))
    return [Tick(value, form(value) if form else compact(value, largest)) for value in values]


def duration_ticks(low: float, high: float, count: int = 6) -> list[Tick]:
    """Return round times within `low` and `high`, both in seconds."""
    step = next((s for s in _DURATION_STEPS if s * count >= high - low), 0.0)
    step = step or 86400 * nice_step((high - low) / 86400, count)
    values = [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return [Tick(value, _clock(value, step, high)) for value in values]


def _clock(seconds: float, step: float, high: float) -> str:
    if seconds == 0:
        return "0"
    if high < 120:
        return f"{seconds:g} s"
    if step < 60:
        return f"{seconds // 60:.0f}:{seconds % 60:02.0f}"
    if high < 7200:
        return f"{seconds / 60:g} min"
    return f"{seconds / 3600:g} h" if high < 4 * 86400 else f"{seconds / 86400:g} d"


def date_ticks(first: date, last: date, count: int = 6) -> list[Tick]:
    """Return round dates within `first` and `last`; values are `date.toordinal`; a year stands for its January."""
    days = (last - first).days
    step = next((s for s in (1, 2, 7, 14) if s * count >= days), None)
    if step is not None:
        dates = [first + timedelta(days=i) for i in range(0, days + 1, step)]
        return [Tick(day.toordinal(), f"{day.day} {_MONTHS[day.month - 1]}") for day in dates]
    months = next((m for m in (1, 3, 6) if m * 30.4 * count >= days), 12 * math.ceil(days / 365 / count))
    start = first.year * 12 + first.month - (first.day == 1)
    start = -(-start // months) * months
    found = [date(m // 12, m % 12 + 1, 1) for m in range(start, last.year * 12 + last.month, months)]
    names = [str(day.year) if day.month == 1 else _MONTHS[day.month - 1] for day in found]
    return [Tick(day.toordinal(), name) for day, name in zip(found, names, strict=True)]


def compact(value: float, largest: float | None = None) -> str:
    """Return a number in few characters: 950, 1,500, 20k, 3.5M; in the unit of `largest` if it is given."""
    least = abs(value if largest is None else largest)
    for start, size, suffix in ((1e9, 1e9, "B"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if least >= start and value:
            return f"{value / size:,.4g}{suffix}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def integer(value: float) -> str:
    """Return a whole number with thousands separated."""
    return f"{value:,.0f}"


def rate(value: float) -> str:
    """Return a rate: three digits if it is small, whole otherwise."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def percent(share: float) -> str:
    """Return a share in percent; what is not nothing never reads as nothing, nor what is not all as all."""
    if 0 < share < 0.0005:
        return "<0.1%"
    if 0.9995 <= share < 1:
        return ">99.9%"
    return f"{share:.1%}"


def duration(seconds: float) -> str:
    """Return a time in the units that fit."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.3g} ms" if seconds > 0 else "0 s"
    if seconds < 99.95:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    (large, big), (little, small) = (
        ((whole // 60, "min"), (whole % 60, "s"))
        if whole < 3600
        else ((whole // 3600, "h"), (whole % 3600 // 60, "min"))
    )
    return f"{large:,} {big} {little} {small}" if little else f"{large:,} {big}"


def size(count: float) -> str:
    """Return bytes in binary units."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}"
        count /= 1024
    return f"{count:,.1f} GiB"


def dollars(value: float) -> str:
    """Return an amount, with four decimals if it is under a cent."""
    if 0 < value < 0.01:
        return f"${value:.4f}" if value >= 0.0001 else "<$0.0001"
    return f"${value:,.2f}"
