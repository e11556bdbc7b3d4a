"""The frame of a report page, and what its sections are made of besides charts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rayft.report.charts import Series
from rayft.report.markup import Html, escape, join, tag

# Nothing is loaded and nothing runs, even if markup of somebody else got in.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
_STYLE = Path(__file__).with_name("page.css")


@dataclass(frozen=True)
class Section:
    """A part of a page under a heading.

    Attributes:
        wide: takes the whole width on a wide screen; two others stand side by side.
        tone: `plain`, or `warn` for what needs attention.
    """

    heading: str
    body: Html
    wide: bool = False
    tone: Literal["plain", "warn"] = "plain"


@dataclass(frozen=True)
class Number:
    """A big number: the value as written, what it is, and a line of detail."""

    value: str
    name: str
    detail: str = ""


@dataclass(frozen=True)
class Column:
    """A column of a table; numbers are aligned at the right."""

    name: str
    numeric: bool = False


def page(title: str, subtitle: str, sections: Sequence[Section], lead: Html | None = None) -> str:
    """Return a whole HTML document.

    Args:
        subtitle: e.g. what was processed and when.
        lead: what stands before the first section, e.g. `big_numbers`.
    """
    body = join(_section(section, f"section-{i}") for i, section in enumerate(sections, 1))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>
{_STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
<header><p class="brand">rayft</p><h1>{escape(title)}</h1><p class="subtitle">{escape(subtitle)}</p></header>
<main>
{lead or ""}
<div class="sections">{body}</div>
</main>
</body>
</html>
"""


def _section(section: Section, name: str) -> Html:
    wide = " wide" if section.wide else ""
    heading = tag("h2", section.heading, id=name)
    return tag("section", heading, section.body, class_=f"{section.tone}{wide}", aria_labelledby=name)


def big_numbers(numbers: Iterable[Number]) -> Html:
    """Return the few numbers that a reader came for."""
    parts = []
    for number in numbers:
        detail = tag("dd", number.detail, class_="detail") if number.detail else ""
        parts.append(tag("div", tag("dt", number.name), tag("dd", number.value, class_="number"), detail))
    return tag("dl", *parts, class_="numbers")


def facts(pairs: Iterable[tuple[str, object]]) -> Html:
    """Return names with their values, one a line."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs), class_="facts")


def reasons(pairs: Iterable[tuple[object, object]]) -> Html:
    """Return names with what is to be said about each, which may be long."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", text)) for name, text in pairs), class_="reasons")


def table(columns: Sequence[Column], rows: Iterable[Sequence[object]], caption: str) -> Html:
    """Return a table; the first column names the rows. The caption is for those who cannot see the page."""
    kinds = ["numeric" if column.numeric else None for column in columns]
    heads = [tag("th", column.name, scope="col", class_=kind) for column, kind in zip(columns, kinds, strict=True)]
    lines = [
        tag("tr", *(tag("td" if i else "th", cell, class_=kind, scope=None if i else "row")
                    for i, (cell, kind) in enumerate(zip(row, kinds, strict=True))))
        for row in rows
    ]  # fmt: skip
    head, body = tag("thead", tag("tr", *heads)), tag("tbody", *lines)
    inner = tag("table", tag("caption", caption), head, body)
    return tag("div", inner, class_="scroll", role="region", aria_label=caption, tabindex=0)


def figure(chart: Html, caption: object = "", legend: Sequence[Series] = (), numbers: Html | None = None) -> Html:
    """Return a chart with what belongs to it.

    Args:
        legend: the series of the chart, in its order; for one series the caption is enough.
        numbers: a table of what is drawn, folded up.
    """
    keys = [
        tag("li", tag("span", class_=f"key s{i}" + " dashed" * series.dashed), series.name)
        for i, series in enumerate(legend, 1)
    ]
    return tag(
        "figure",
        tag("ul", *keys, class_="legend") if keys else "",
        chart,
        tag("figcaption", caption) if caption else "",
        tag("details", tag("summary", "Numbers"), numbers) if numbers else "",
    )


def paragraph(content: object) -> Html:
    """Return a line of running text."""
    return tag("p", content)
