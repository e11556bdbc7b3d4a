"""The page that a quality manager reads: what to look at first, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any

from rayft.alerts.counts import ANY, SAFETY, SERVICE, Counts
from rayft.alerts.detect import ALERT, JOINT, WATCH
from rayft.alerts.trends import Trend, trends
from rayft.report.charts import Bar, Level, Mark, Series, horizontal_bars, shorten, time_series
from rayft.report.html import Column, Number, Section, big_numbers, facts, figure, page, paragraph, reasons, table
from rayft.report.markup import Html, join, tag
from rayft.report.scales import date_ticks, integer, percent

_PRODUCTS = 25  # with a section of their own; the table names all
_ROWS = 200
_RECENT_DAYS = 7
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
_COLUMNS_STYLE = "display:grid;gap:28px 48px;grid-template-columns:repeat(auto-fit,minmax(min(100%,340px),1fr))"
_LIST_STYLE = "list-style:none"
_ITEM_STYLE = "display:flex;flex-wrap:wrap;gap:0 24px;padding:6px 0;border-top:1px solid var(--rule)"
_QUOTE_STYLE = "margin:0 0 10px;padding:0 0 0 12px;border-left:3px solid var(--rule)"
Receipt = Mapping[str, Any]


def render(result: Mapping[str, Any], counts: Counts) -> str:
    """Return the page of a result of `rayft.alerts.run.find_alerts`."""
    receipts = result["alerts"]
    alerts = [r for r in receipts if r["status"] == ALERT]
    open_alerts = [r for r in alerts if r["ended"] is None]
    by_product = _by_product(open_alerts)
    ended = [r for r in alerts if r["ended"] is not None]
    shown = by_product[:_PRODUCTS]
    data = result["data"]
    drawn = trends(counts, [(own[0]["product"], own[0]["scorer"]) for own in shown])
    last = date.fromisoformat(data["last"])
    sections = [Section("What to look at first", _ranking(by_product, shown, last), wide=True)]
    for own in shown:
        trend = drawn[own[0]["product"], own[0]["scorer"]]
        safety = any(r["defect_type"] == SAFETY for r in own)
        sections.append(Section(f"{own[0]['product']}: more {_what(own)}", _product(own, trend, last), wide=True,
                                tone="warn" if safety else "plain"))  # fmt: skip
    watch = [r for r in receipts if r["status"] == WATCH and r["ended"] is None]
    joint = [r for r in receipts if r["status"] == JOINT and r["ended"] is None]
    if watch:
        text = "Over their threshold, but among so many products not selected by the false-discovery rule."
        sections.append(Section("Worth watching", join([paragraph(text), _list(watch)]), wide=True))
    if joint:
        text = ("Defect reports rose, but so did complaints that have nothing to do with the product. What those do "
                "not explain stays below the threshold.")  # fmt: skip
        sections.append(Section("Shared with complaints about service", join([paragraph(text), _list(joint)]),
                                wide=True))  # fmt: skip
    if ended:
        sections.append(Section("Over", _list(ended), wide=True))
    sections.append(Section("How much to believe", _belief(result)))
    sections.append(Section("What was read", _data(result)))
    models = ", ".join(dict.fromkeys(str(m["model"] or "unknown") for m in result["models"]))
    subtitle = (f"{data['reviews']:,} reviews of {data['products']:,} products, {_day(data['first'])} to "
                f"{_day(data['last'])}. Flagged by {models}.")  # fmt: skip
    return page("Product alerts", subtitle, sections, _lead(open_alerts, by_product, data, last))


def _by_product(receipts: Iterable[Receipt]) -> list[list[Receipt]]:
    """Group ranked receipts by product and model, groups in the order of their best."""
    groups: dict[tuple[str, str], list[Receipt]] = {}
    for receipt in receipts:
        groups.setdefault((receipt["product"], receipt["scorer"]), []).append(receipt)
    # What says most leads: safety, then a type rather than all defects, then the earlier alarm.
    order = {SAFETY: 0, ANY: 2}
    return [sorted(own, key=lambda r: (order.get(r["defect_type"], 1), r["first_alarm"])) for own in groups.values()]


def _lead(open_alerts: Sequence[Receipt], by_product: Sequence[Sequence[Receipt]], data: Receipt, last: date) -> Html:
    new = sum(_is_new(r, last) for r in open_alerts)
    safety = len({r["product"] for r in open_alerts if r["defect_type"] == SAFETY})
    excess = sum(max(r["excess_to_date"] for r in own) for own in by_product)
    return big_numbers([
        Number(integer(len(by_product)), "products with an alert", f"of {data['products']:,} watched"),
        Number(integer(safety), "with safety reports"),
        Number(integer(new), "new alerts", f"in the last {_RECENT_DAYS} days of data"),
        Number(integer(round(excess)), "reports beyond normal", "since the onsets, all products"),
    ])  # fmt: skip


def _is_new(receipt: Receipt, last: date) -> bool:
    return (last - date.fromisoformat(receipt["first_alarm"])).days < _RECENT_DAYS


def _ranking(by_product: Sequence[Sequence[Receipt]], shown: Sequence[Sequence[Receipt]], last: date) -> Html:
    if not by_product:
        return paragraph("No product's share of defect reports has risen beyond what chance and its category explain.")
    items = []
    for place, own in enumerate(by_product[:_ROWS], 1):
        name = shorten(own[0]["product"], 40)
        link = tag("a", name, href=f"#section-{place + 1}", style="color:inherit") if place <= len(shown) else name
        new = " · new" if any(_is_new(r, last) for r in own) else ""
        items.append(_item(link, f"{_what(own)}, since about {_day(own[0]['onset'])}{new}", own[0]))
    parts = [tag("ul", *items, style=_LIST_STYLE)]
    if len(by_product) > len(items):
        parts.append(paragraph(f"{len(by_product) - len(items):,} more are in alerts.parquet."))
    return join(parts)


def _item(name: object, text: str, receipt: Receipt) -> Html:
    """Return one line of a list of alerts; on a phone its right half goes under its left."""
    usual = receipt["expected_to_date"]
    counts = f"{receipt['reports_to_date']:,} reports, {'<1' if usual < 1 else f'{usual:,.0f}'} normal"
    return tag(
        "li",
        tag("div", tag("strong", name), f" {text}", style="flex:1 1 320px"),
        tag("div", _share(receipt), tag("span", f" · {counts}", style="color:var(--muted)"), style="flex:none"),
        style=_ITEM_STYLE,
    )


def _what(own: Sequence[Receipt]) -> str:
    kinds = [_kind(r["defect_type"]) for r in own if r["defect_type"] != ANY] or ["defect reports"]
    kinds = list(dict.fromkeys(kinds))
    listed = " and ".join(filter(None, [", ".join(kinds[:-1]), kinds[-1]]))
    return listed if listed.endswith("reports") else f"{listed} reports"


def _kind(kind: str) -> str:
    return "all defects" if kind == ANY else str(kind).replace("_", " ")


def _share(receipt: Receipt) -> str:
    since = receipt["reports_to_date"] / max(1, receipt["reviews_to_date"])
    return f"{percent(receipt['baseline_share'])} → {percent(since)}"


def _product(own: Sequence[Receipt], trend: Trend, last: date) -> Html:
    first = own[0]
    kind = "defect" if first["defect_type"] == ANY else _kind(first["defect_type"])
    days = (date.fromisoformat(first["first_alarm"]) - date.fromisoformat(first["onset"])).days + 1
    usual = first["expected_to_date"]
    normal = "less than one" if usual < 1 else f"about {usual:,.0f}"
    story = (f"{first['reports_to_date']:,} {kind} reports in {first['reviews_to_date']:,} reviews since about "
             f"{_day(first['onset'])}; {normal} would be normal. The alarm came on "
             f"{_day(first['first_alarm'])}, {days} {'day' if days == 1 else 'days'} and {first['reviews']:,} reviews "
             "into the rise.")  # fmt: skip
    if first["copies_not_counted"]:
        story += f" {first['copies_not_counted']:,} copied reviews were not counted."
    quotes = join(tag("blockquote", f"“{quote}”", style=_QUOTE_STYLE) for quote in _quotes(own))
    beside = tag(
        "div",
        tag("div", figure(_breakdown(trend, date.fromisoformat(first["onset"])),
                          "Reports since the onset, by type, beside the same weeks at the share before.")),
        tag("div", quotes or paragraph("No quotes."), tag("p", "Quotes of reviews; personal data is taken out.",
                                                          style="color:var(--muted);font-size:14px")),
        style=_COLUMNS_STYLE,
    )  # fmt: skip
    return join([paragraph(story), _chart(own, trend), tag("div", beside, style="margin-top:24px"), _receipts(own)])


def _quotes(own: Sequence[Receipt]) -> list[str]:
    return list(dict.fromkeys(quote for receipt in own for quote in receipt["quotes"]))[:5]


def _chart(own: Sequence[Receipt], trend: Trend) -> Html:
    first = own[0]
    kinds = list(dict.fromkeys([first["defect_type"], ANY]))
    middle = trend.bin_days / 2
    series = [
        Series(
            _kind(kind),
            [(day.toordinal() + middle, share) for day, share in trend.shares(kind)],
            area=i == 0,
            dashed=i > 0,
        )
        for i, kind in enumerate(kinds)
    ]
    onset, alarm = (date.fromisoformat(first[name]) for name in ("onset", "first_alarm"))
    marks = [Mark(onset.toordinal(), f"onset ~{onset.day} {_MONTHS[onset.month - 1]}"),
             Mark(alarm.toordinal(), f"alarm {alarm.day} {_MONTHS[alarm.month - 1]}", "warn")]  # fmt: skip
    begin, end = trend.begin, trend.end
    chart = time_series(
        series,
        label=f"Share of the reviews of {first['product']} that report {' and '.join(map(_kind, kinds))}, "
        f"{_day(begin)} to {_day(end)}; onset about {_day(onset)}, alarm on {_day(alarm)}",
        x_ticks=date_ticks(begin, end),
        x_range=(begin.toordinal(), end.toordinal()),
        x_form=lambda x: f"{trend.bin_days} days from {_day(date.fromordinal(int(x - middle)))}",
        y_form=percent,
        unit=f"share of reviews, {'weekly' if trend.bin_days == 7 else 'every four weeks'}",
        marks=marks,
        levels=[Level(first["baseline_share"], "")],
    )
    rows = [[_day(day), f"{n:,}", *(f"{trend.reports[kind][i]:,}" for kind in kinds)]
            for i, (day, n) in enumerate(zip(trend.days, trend.reviews, strict=True))]  # fmt: skip
    columns = [Column("From"), Column("Reviews", True), *(Column(_kind(kind), True) for kind in kinds)]
    caption = f"Dotted: normal for this product, {percent(first['baseline_share'])} of reviews."
    return figure(chart, caption, legend=series, numbers=table(columns, rows, "Reviews and reports"))


def _breakdown(trend: Trend, onset: date) -> Html:
    before, since = trend.split(onset)
    reviews_before, reviews_since = before[0], since[0]
    bars = []
    for kind in trend.kinds:
        usual = before[1].get(kind, 0) / reviews_before * reviews_since if reviews_before else 0.0
        found = since[1].get(kind, 0)
        bars.append(Bar(_kind(kind), found, f"{found:,}", aside=f"normal {usual:.1f}",
                        tone="warn" if found > 2 * usual + 1 else "plain"))  # fmt: skip
    bars.sort(key=lambda bar: -bar.value)
    return horizontal_bars(bars, label="Reports since the onset by type")


def _receipts(own: Sequence[Receipt]) -> Html:
    blocks = []
    for r in own:
        pairs: list[tuple[str, object]] = [
            ("watched", f"share of {_kind(r['defect_type'])} reports"),
            ("at the alarm", f"{r['reports']:,} of {r['reviews']:,} reviews ({percent(r['share'])})"),
            ("normal for this product", percent(r["baseline_share"])),
            ("corrected for the model's errors", f"{percent(r['corrected_baseline_share'])} → "
                                                 f"{percent(r['corrected_share'])}"),
            ("statistic, threshold", f"{r['statistic']:.1f}, {r['threshold']:.1f} (highest {r['peak_statistic']:.1f})"),
            ("false alarms of this chart", f"{r['false_alarms_per_1000_product_months']:g} in 1,000 product-months"),
            ("p-value that day", f"{r['p_value']:.2g}"),
            ("service complaints" if r["control"] == SERVICE else "other negative reviews",
             f"rose {r['control_ratio']:.1f}-fold at least" if r["control_ratio"] > 1 else "did not rise"),
            ("model", f"{r['model'] or 'unknown'} ({(r['model_digest'] or 'no digest')[:12]})"),
            ("calibration", (r["calibration"] or "none")[:12]),
            ("receipt", r["id"]),
        ]  # fmt: skip
        blocks.append(facts(pairs))
    return tag("details", tag("summary", "Receipt" if len(own) == 1 else "Receipts"),
               tag("div", *blocks, style=_COLUMNS_STYLE))  # fmt: skip


def _list(receipts: Sequence[Receipt]) -> Html:
    items = []
    for r in receipts[:_ROWS]:
        end = "" if r["ended"] is None else f", {r['ended_because']} {_day(r['ended'])}"
        items.append(
            _item(shorten(r["product"], 40), f"{_kind(r['defect_type'])}, since about {_day(r['onset'])}{end}", r)
        )
    return tag("ul", *items, style=_LIST_STYLE)


def _belief(result: Mapping[str, Any]) -> Html:
    s = result["settings"]
    promise = (
        f"Of the products that come up on any one day, about {s['fdr']:.0%} at most are expected to be false alarms"
        if s["fdr"] < 1 else "The false-discovery rule is switched off"
    )  # fmt: skip
    pairs = [
        ("An alert is", "a statistical finding: the share of reviews that report a defect has risen. It is not a proof "
                        "of a defect; read the quotes."),
        ("Alarms by chance", f"Before that rule, about {s['false_alarms']:g} in 1,000 product-months are expected, and "
                             f"{s['safety_false_alarms']:g} more from the safety charts, which are more sensitive on "
                             "purpose and exempt from the rule."),
        ("The rule", f"{promise}, if reviews come as the model assumes. It promises nothing about all days together."),
        ("The model's errors", f"Taken into account: it flags {s['sensitivity']:.0%} of defect reports and leaves "
                               f"{s['specificity']:.0%} of other reviews alone (as given to the command)."),
        ("The onset", "is an estimate: the day from which on a higher share explains the reviews best."),
    ]  # fmt: skip
    return reasons(pairs)


def _data(result: Mapping[str, Any]) -> Html:
    data = result["data"]
    pairs: list[tuple[str, object]] = [
        ("files", integer(data["files"])),
        ("reviews counted", integer(data["reviews"])),
        ("copies not counted", integer(data["copies_not_counted"])),
        *((f"left out: {reason}", integer(number)) for reason, number in data["left_out"].items()),
        *((f"model {m['model'] or 'unknown'}", f"{_day(m['first'])} to {_day(m['last'])}") for m in result["models"]),
        ("rayft", result["rayft"]),
    ]
    return join([facts(pairs), *(paragraph(note) for note in result["notes"])])


def _day(value: str | date) -> str:
    day = date.fromisoformat(value) if isinstance(value, str) else value
    return f"{day.day} {_MONTHS[day.month - 1]} {day.year}"
