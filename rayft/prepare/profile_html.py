"""The profile of a data set as a page."""

from __future__ import annotations

from typing import Any

from rayft.report.charts import Bar, histogram, horizontal_bars
from rayft.report.html import Column, Number, Section, big_numbers, facts, figure, page, paragraph, reasons, table
from rayft.report.markup import Html, join

_SHOWN_LETTERS = 600


def profile_page(profile: dict[str, Any], title: str = "Data profile") -> str:
    """Return the HTML document of a profile as `rayft.prepare.profile.make_profile` returns it."""
    sources = "; ".join(f"{s['name']} ({s['kind']})" for s in profile["sources"])
    sections = [
        Section("Classes", _classes(profile)),
        Section("Lengths", _lengths(profile)),
        Section("Duplicates", facts((name, f"{n:,}") for name, n in profile["duplicates"].items())),
        Section("Dropped rows", _dropped(profile), tone="warn" if profile["dropped"] else "plain"),
    ]
    if profile["suspects"] is not None:
        sections.append(Section("Labels in doubt", _suspects(profile["suspects"]), wide=True))
    sections.append(Section("Sample", _samples(profile), wide=True))
    return page(title, sources, sections, lead=_lead(profile))


def _lead(profile: dict[str, Any]) -> Html:
    lengths = profile["lengths"]
    return big_numbers(
        [
            Number(f"{profile['rows']:,}", "reviews", f"of {profile['read']:,} read"),
            Number(f"{profile['tokens']:,}", "tokens", f"{lengths['mean']:.0f} a review"),
            Number(str(len(profile["classes"])), "classes", f"{_balance(profile['classes']):.0%} are the largest"),
            *(Number(f"{share:.1%}", f"fit into {limit} tokens") for limit, share in profile["within"].items()),
        ]
    )


def _balance(classes: dict[str, int]) -> float:
    return max(classes.values()) / max(1, sum(classes.values()))


def _classes(profile: dict[str, Any]) -> Html:
    total = profile["rows"]
    largest = sorted(profile["classes"].items(), key=lambda item: -item[1])[:30]
    bars = [Bar(name, count, f"{count:,}", aside=f"{count / total:.1%}") for name, count in largest]
    rows = [
        (name, f"{split['rows']:,}", ", ".join(f"{c}: {n:,}" for c, n in list(split["classes"].items())[:10]))
        for name, split in profile["splits"].items()
    ]
    return join(
        [
            figure(horizontal_bars(bars, label="Reviews of each class")),
            table([Column("split"), Column("rows", True), Column("classes")], rows, "Rows and classes of each split"),
        ]
    )


def _lengths(profile: dict[str, Any]) -> Html:
    edges, counts = profile["histogram"]["edges"], profile["histogram"]["rows"]
    details = [f"{low + 1} to {high} tokens: {n:,}" for low, high, n in zip(edges, edges[1:], counts, strict=False)]
    lengths = profile["lengths"]
    caption = ", ".join(f"{name} {value:,}" for name, value in lengths.items())
    return figure(
        histogram(counts, edges, label="Reviews by length in tokens", details=details, unit="reviews"),
        f"Tokens a review: {caption}. Longer reviews are cut to the last bin.",
    )


def _dropped(profile: dict[str, Any]) -> Html:
    if not profile["dropped"]:
        return paragraph("None.")
    examples = profile["examples"]
    return reasons(
        (f"{count:,}", reason + (f" — {', '.join(examples[reason])}" if reason in examples else ""))
        for reason, count in profile["dropped"].items()
    )


def _suspects(suspects: dict[str, Any]) -> Html:
    said = paragraph(
        f"On {suspects['checked']:,} sampled reviews the shipped model agrees with "
        f"{suspects['agreeing'] / max(1, suspects['checked']):.1%} of the labels. It is sure of "
        f"{suspects['confident']:,} of them and denies the label of {suspects['disagreeing']:,} of these."
    )
    rows = [(s["label"], s["model"], f"{s['confidence']:.1%}", _cut(s["text"])) for s in suspects["rows"]]
    columns = [Column("label"), Column("model"), Column("confidence", True), Column("text")]
    return join([said, table(columns, rows, "Rows whose label the model denies")] if rows else [said])


def _samples(profile: dict[str, Any]) -> Html:
    rows = [(s["label"], s["split"], f"{s['tokens']:,}", _cut(s["text"])) for s in profile["samples"]]
    columns = [Column("label"), Column("split"), Column("tokens", True), Column("text")]
    return table(columns, rows, "Sample rows of each class")


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_LETTERS else text[: _SHOWN_LETTERS - 1] + "…"
