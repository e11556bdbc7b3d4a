"""Pages and charts: what they show, that data stays data, and that nothing is loaded from anywhere."""

from __future__ import annotations

import copy
import html.parser
import math
import re
import xml.etree.ElementTree as ET
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayft.report import charts, scales
from rayft.report.html import Number, Section, big_numbers, figure, page, reasons
from rayft.report.markup import escape, tag
from rayft.score.figures import binned_rates
from rayft.score.html import score_page
from tests.helpers import EXAMPLE, Cli

NASTY = "<script>alert(1)</script>.parquet"
REPORT: dict[str, Any] = {
    "output": "s3://bucket/scored/",
    "rows": {"total": 5_000_123, "labelled": 4_990_000, "unlabelled": {"empty": 10_123}, "this_run": 3_500_000},
    "speed": {
        "rows_per_second": 2917.4,
        "tokens_per_second": 181_234.5,
        "scoring_seconds": 1200.0,
        "start_seconds": 8.0,
        "wall_seconds": 1208.0,
        "process_seconds": 1209.5,
        "first_batch_seconds": 8.75,
    },
    "tokens": {"computed": 217_481_400, "padding": 0.0432, "duplicates": 0.071, "truncated": 0.0231},
    "stages": {"read": 61.0, "encode": 902.0, "model": 4321.0, "attach": 33.0, "write": 44.0},
    "labels": {"positive": 3_450_001, "negative": 1_539_999},
    "defects": {"flagged": 1_534_567, "rate": 0.30753},
    "lengths": {
        "edges": [8, 16, 32, 64, 96, 128, 192, 256, 384, 512],
        "rows": [10_001, 20_002, 1_300_003, 2_000_004, 900_005, 300_006, 300_007, 159_972, 0, 0, 0],
    },
    "confidences": [0] * 10 + [10_011, 20_012, 30_013, 40_014, 50_015, 60_016, 70_017, 80_018, 90_019, 4_539_865],
    "files": {
        "written": 412,
        "complete_before": 38,
        "failed": {
            NASTY: "no column 'body'",
            '"><img src=x onerror=alert(2)>': "cut off & <b>bad</b>",
            "c\udcff": "\x00",
        },
        "skipped": {"hidden": 17, "not a table": 19},
    },
    "engine": {
        "backend": "torch",
        "precision": "bf16",
        "device": "cuda",
        "executor": "ray",
        "threads": None,
        "batch_tokens": 65536,
        "max_length": 256,
        "model": "acme/model",
        "model_digest": "a7d4a45c",
    },
    "workers": {
        f"replica-{i}": {"rows": 875_000 + i, "model_seconds": 1000.0 + 61 * i, "utilisation": 0.9 + 0.011 * i}
        for i in range(4)
    },
    "timeline": [[second, 2500 + 500 * (second % 2)] for second in range(8, 1208)],
    "peak_rss_bytes": 5 * 2**30,
    "machine": {"cores": 48, "system": "Linux-x"},
    "versions": {"python": "3.12.1", "torch": "2.9.0"},
    "finished": "2026-11-22T01:17:47+0000",
    "notes": ["Reading text 'body' (found by name)."],
    "cost": {"price_per_hour": 12.4, "this_run_dollars": 4.16, "dollars_per_million_reviews": 1.18},
}


class Reader(html.parser.HTMLParser):
    """Collects text and elements, and checks that every element is closed where it should be."""

    void = frozenset({"meta", "link"})

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(source)
        self.close()
        assert not self.open
        self.text = "\n".join(self.texts)

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((name, dict(attributes)))
        if name not in self.void:
            self.open.append(name)

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    def names(self) -> list[str]:
        return [name for name, _ in self.elements]


def svgs(source: str) -> list[ET.Element]:
    """Parse every chart as XML."""
    found, depth, start = [], 0, 0
    for match in re.finditer(r"<svg\b|</svg>", source):
        if match[0] == "<svg":
            start = match.start() if depth == 0 else start
            depth += 1
        else:
            depth -= 1
            if depth == 0:
                found.append(ET.fromstring(source[start : match.end()]))
    return found


@pytest.fixture(scope="module")
def full() -> Reader:
    return Reader(score_page(REPORT))


@pytest.mark.parametrize(
    "shown",
    [
        "3,500,000", "2,917", "30.8%", "1,534,567 of 4,990,000 labelled reviews", "10,123", "10,123 empty",
        "5,000,123", "1,500,123", "20 min", "8 s", "20 min 8 s", "20 min 10 s", "8.75 s",
        "181,234", "217,481,400", "4.3%", "7.1%", "2.3%",
        "61 s", "15 min 2 s", "1 h 12 min", "33 s", "44 s",
        "3,450,001", "69.1%", "1,539,999", "10,001", "159,972", "193 to 256", "cut at 256", "10,011", "4,539,865",
        "412", "38", "17", "19", "Files skipped: hidden", "no column 'body'", NASTY,
        "replica-3", "93.3%", "875,003", "19 min 43 s", "4 workers",
        "torch", "bf16", "cuda", "ray", "65,536", "acme/model", "a7d4a45c", "48", "python 3.12.1", "torch 2.9.0",
        "$1.18", "$4.16", "$12.40", "5.0 GiB", "Reading text 'body' (found by name).",
        "s3://bucket/scored/ · finished 2026-11-22 01:17 +0000", "mean 2,750",
        "3 inputs failed; everything else is complete",
    ],
)  # fmt: skip
def test_everything_of_the_report_is_on_the_page(full: Reader, shown: str) -> None:
    assert shown in full.text


def test_what_matters_comes_first(full: Reader) -> None:
    order = ["reviews scored", "reviews per second", "flagged as defect", "unlabelled", "3 inputs failed", "Throughput"]
    assert sorted(order, key=full.text.index) == order


def test_data_stays_data(full: Reader) -> None:
    assert not {"script", "img", "b", "iframe", "object", "embed"} & set(full.names())
    assert not [name for _, attributes in full.elements for name in attributes if name.startswith("on")]
    assert '"><img src=x onerror=alert(2)>' in full.text
    score_page(REPORT).encode()  # the undecodable file name does not stop it


def test_nothing_is_loaded(full: Reader) -> None:
    source = score_page(REPORT)
    assert not re.search(r"https?://|url\(|@import", source)
    for name, attributes in full.elements:
        assert "src" not in attributes
        assert attributes.get("href") in (None, "data:,"), name
    policy = [a["content"] for _, a in full.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policy) == 1 and "default-src 'none'" in str(policy[0])


def test_charts_are_well_formed_and_have_text_alternatives() -> None:
    found = svgs(score_page(REPORT))
    assert len(found) == 6
    for chart in found:
        assert chart.get("role") == "img" and len(chart.get("aria-label", "")) > 20
        assert chart.find(".//title") is not None
        for value in re.findall(r'\s(?:[xy][12]?|width|height)="([^"]*)"', ET.tostring(chart, encoding="unicode")):
            assert re.fullmatch(r"-?\d+(\.\d+)?%?", value), value


def test_headings_and_tables_are_marked_as_such(full: Reader) -> None:
    names = full.names()
    assert names.count("h1") == 1 and names.count("main") == 1
    sections = [attributes for name, attributes in full.elements if name == "section"]
    headings = [attributes["id"] for name, attributes in full.elements if name == "h2"]
    assert [section["aria-labelledby"] for section in sections] == headings
    assert names.count("caption") == names.count("table") > 0
    assert all(attributes.get("scope") in ("col", "row") for name, attributes in full.elements if name == "th")


@pytest.mark.parametrize("key", sorted(REPORT))
def test_a_part_that_is_missing_is_left_out(key: str) -> None:
    report = copy.deepcopy(REPORT)
    del report[key]
    Reader(score_page(report))


def test_an_empty_run() -> None:
    assert "no rows to score" in Reader(score_page({})).text
    empty = copy.deepcopy(REPORT)
    empty["rows"] = {"total": 0, "labelled": 0, "unlabelled": {}, "this_run": 0}
    empty |= {"timeline": [], "labels": {}, "workers": {}, "confidences": [0] * 20}
    empty |= {"defects": {"flagged": 0, "rate": 0.0}, "stages": dict.fromkeys(REPORT["stages"], 0.0)}
    empty["lengths"]["rows"] = [0] * 11
    empty["cost"]["dollars_per_million_reviews"] = None
    text = Reader(score_page(empty)).text
    assert "no rows to score" in text and "Throughput" not in text and "Confidence" not in text


def test_a_run_that_found_everything_done() -> None:
    done = copy.deepcopy(REPORT)
    done["rows"]["this_run"] = 0
    done |= {"timeline": [], "workers": {}}
    text = Reader(score_page(done)).text
    assert "reviews complete" in text and "nothing was left to score" in text and "5,000,123" in text
    assert "Tokens per second" not in text and "\nScoring\n" not in text


def test_a_short_run_has_no_curve() -> None:
    short = copy.deepcopy(REPORT)
    short["timeline"] = [[8, 900], [9, 300]]
    short["speed"] |= {"wall_seconds": 9.5, "scoring_seconds": 1.5}
    assert "Mean 800 texts a second over 1.5 s, after 8 s to plan and load the model." in Reader(score_page(short)).text


def test_many_workers_labels_and_failures_stay_readable() -> None:
    many = copy.deepcopy(REPORT)
    many["workers"] = {f"w{i:03}": {"rows": i, "model_seconds": 1.0, "utilisation": i / 200} for i in range(200)}
    many["labels"] = {f"label {i:02}": 100 - i for i in range(40)}
    many["files"]["failed"] = {f"file {i}": "bad" for i in range(5000)}
    text = Reader(score_page(many)).text
    assert "The 12 least busy of 200; mean 49.8%." in text and "w199" in text  # the rest is in the table
    assert "28 other labels" in text and "label 39" in text
    assert "5,000 inputs failed" in text and "4,900 more are in failures.json" in text


@given(st.text())
def test_any_text_is_shown_as_text(nasty: str) -> None:
    report = {"output": nasty, "files": {"failed": {nasty: nasty}}, "workers": {nasty: {}}, "labels": {nasty: 3}}
    plain = Reader(
        score_page({"output": "a", "files": {"failed": {"a": "a"}}, "workers": {"a": {}}, "labels": {"a": 3}})
    )
    source = score_page(report)
    if nasty:
        assert Reader(source).names() == plain.names()
    assert len(svgs(source)) == 2
    source.encode()


@given(st.text(alphabet=st.characters(exclude_categories=["C"])))
def test_escaping_loses_nothing_that_can_be_printed(text: str) -> None:
    element = ET.fromstring(tag("p", text, title=text))
    assert (element.text or "") == text == element.get("title")
    assert escape(escape(text)) == escape(text)


def test_characters_that_reorder_text_are_made_visible() -> None:
    assert escape("gpj.\u202eexe") == "gpj.\ufffdexe"


def test_rates_add_up_and_do_not_comb() -> None:
    timeline = [(10, 16), (13, 48), (14, 16), (19, 80), (21, 32)]  # 16 texts a second, seen when batches end
    bins = binned_rates(timeline, ready=10.0, end=22.0)
    assert [(a, b) for a, b, _ in bins] == [(float(i), float(i + 1)) for i in range(12)]
    assert sum((b - a) * rate for a, b, rate in bins) == pytest.approx(192)
    assert all(rate == pytest.approx(16) for _, _, rate in bins)


@given(
    st.dictionaries(st.integers(0, 10_000), st.integers(0, 10**6), min_size=1).map(lambda found: sorted(found.items())),
    st.floats(0, 100),
    st.floats(0.001, 100),
)
def test_rates_keep_every_text(timeline: list[tuple[int, int]], ready: float, more: float) -> None:
    end = max(ready, timeline[-1][0]) + more
    bins = binned_rates(timeline, ready, end)
    assert 1 <= len(bins) <= 61
    assert bins[0][0] == 0 and bins[-1][1] == pytest.approx(end - ready)
    assert all(rate >= -1e-6 for _, _, rate in bins)
    total = sum(texts for _, texts in timeline)
    assert sum((b - a) * rate for a, b, rate in bins) == pytest.approx(total, abs=1e-3)


@given(st.floats(-1e12, 1e12), st.floats(-1e12, 1e12), st.integers(2, 8))
def test_ticks_are_round_few_and_cover(a: float, b: float, count: int) -> None:
    low, high = min(a, b), max(a, b)
    ticks = scales.nice_ticks(low, high, count)
    values = [tick.value for tick in ticks]
    slack = 1e-6 * max(1.0, abs(low), abs(high))
    assert values[0] <= low + slack and values[-1] >= high - slack
    assert 2 <= len(values) <= count + 2
    assert values == sorted(values)


def test_ticks_as_written() -> None:
    assert [t.label for t in scales.nice_ticks(0, 12_300, 5)] == ["0", "2.5k", "5k", "7.5k", "10k", "12.5k"]
    assert [t.label for t in scales.nice_ticks(0, 0.3, 3)] == ["0", "0.1", "0.2", "0.3"]
    assert [t.label for t in scales.duration_ticks(0, 7)] == ["0", "2 s", "4 s", "6 s"]
    assert [t.label for t in scales.duration_ticks(0, 150)] == ["0", "0:30", "1:00", "1:30", "2:00", "2:30"]
    assert [t.label for t in scales.duration_ticks(0, 1200)] == ["0", "5 min", "10 min", "15 min", "20 min"]
    assert [t.label for t in scales.duration_ticks(0, 9 * 3600)] == ["0", "2 h", "4 h", "6 h", "8 h"]
    days = scales.date_ticks(date(2026, 11, 28), date(2026, 12, 3))
    assert [t.label for t in days] == ["28 Nov", "29 Nov", "30 Nov", "1 Dec", "2 Dec", "3 Dec"]
    months = scales.date_ticks(date(2026, 10, 12), date(2027, 2, 3))
    assert [(t.label, date.fromordinal(int(t.value))) for t in months] == [
        ("Nov", date(2026, 11, 1)),
        ("Dec", date(2026, 12, 1)),
        ("2027", date(2027, 1, 1)),
        ("Feb", date(2027, 2, 1)),
    ]
    assert [t.label for t in scales.date_ticks(date(2020, 5, 5), date(2027, 2, 3))] == ["2022", "2024", "2026"]


def test_numbers_as_written() -> None:
    assert [scales.percent(x) for x in (0, 0.0001, 0.5, 0.9999, 1)] == ["0.0%", "<0.1%", "50.0%", ">99.9%", "100.0%"]
    assert [scales.duration(x) for x in (0, 0.0123, 1.5, 99.96, 3599.6, 86_400)] == [
        "0 s", "12.3 ms", "1.5 s", "1 min 40 s", "1 h", "24 h",
    ]  # fmt: skip
    assert [scales.compact(x) for x in (0, 0.25, 950, 1500, 20_000, 3.5e6)] == [
        "0",
        "0.25",
        "950",
        "1,500",
        "20k",
        "3.5M",
    ]
    assert [scales.size(x) for x in (12, 2048, 5.5 * 2**20, 2**40)] == ["12 B", "2 KiB", "6 MiB", "1,024.0 GiB"]
    assert [scales.dollars(x) for x in (0, 1e-5, 0.0042, 1234.5)] == ["$0.00", "<$0.0001", "$0.0042", "$1,234.50"]


def test_several_series_with_gaps_marks_and_levels() -> None:
    lines = [
        charts.Series("observed", [(0, 1.0), (1, None), (2, math.nan), (3, 2.0), (4, 4.0)], area=True),
        charts.Series("expected & more", [(0, 1.5), (4, 1.5)], dashed=True),
    ]
    marks = [charts.Mark(3.0, "alarm <now>", "warn"), charts.Mark(2.9, "onset"), charts.Mark(4.0, "end")]
    chart = charts.time_series(lines, label="Share", x_ticks=scales.nice_ticks(0, 4), marks=marks,
                               levels=[charts.Level(3.0, "threshold")], unit="share")  # fmt: skip
    root = ET.fromstring(chart)
    paths = {path.get("class"): path.get("d", "") for path in root.iter("path")}
    assert set(paths) == {"area s1", "line s1", "line s2 dashed"}
    assert paths["line s1"].count("M") == 2, "a gap interrupts the line"
    texts = {text.text: text for text in root.iter("text")}
    assert {"alarm <now>", "onset", "end", "threshold", "share"} <= set(texts)
    assert texts["onset"].get("y") != texts["alarm <now>"].get("y"), "labels side by side would meet"
    assert texts["end"].get("text-anchor") == "end"
    legend = Reader(figure(chart, legend=lines))
    assert "expected & more" in legend.texts


@pytest.mark.parametrize("values", [[], [0.0], [3.0], [0.0, 0.0], [1e-9, 5e12], [math.nan]])
def test_charts_take_odd_values(values: list[float]) -> None:
    points = list(enumerate(values))
    known = [value for value in values if math.isfinite(value)]
    bars = [charts.Bar(str(i), value, str(value)) for i, value in enumerate(known)]
    edges = [float(i) for i in range(len(known) + 1)]
    for chart in (
        charts.time_series([charts.Series("a", points)], label="a", x_ticks=[]),
        charts.time_series([charts.Series("a", points)], label="a", x_ticks=[], from_zero=False),
        charts.bar_chart(bars, label="a"),
        charts.horizontal_bars(bars, label="a"),
        charts.histogram(
            known, edges, label="a", details=[""] * len(known), marks=[charts.Mark(0.5, "m")] if known else []
        ),
    ):
        ET.fromstring(chart)
        assert "nan" not in chart and "inf" not in chart


def test_long_names_lose_their_middle() -> None:
    assert charts.shorten("short") == "short"
    assert charts.shorten("a" * 40 + "z" * 40) == "a" * 15 + "…" + "z" * 14


def test_a_page_of_another_command() -> None:
    body = reasons([("<i>", "why")])
    source = page("Alerts", "a < b", [Section("One", body, wide=True)], big_numbers([Number("3", "alarms", "& more")]))
    read = Reader(source)
    assert {"Alerts", "a < b", "One", "<i>", "why", "3", "alarms", "& more"} <= set(read.texts)


def _contrast(one: str, other: str) -> float:
    """WCAG 2.2 contrast ratio."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_have_contrast(scheme: int) -> None:
    style = (Path(charts.__file__).with_name("page.css")).read_text()
    palette = dict(re.findall(r"--([\w-]+): (#\w{6})", re.findall(r":root \{(.*?)\}", style, flags=re.DOTALL)[scheme]))
    for text in ("ink", "muted", "warn", "s1"):
        assert _contrast(palette[text], palette["paper"]) >= 4.5, text
    for text in ("ink", "warn"):
        assert _contrast(palette[text], palette["warn-paper"]) >= 4.5, text
    for drawn in ("s1", "s2", "s3", "s4", "s5"):
        assert _contrast(palette[drawn], palette["paper"]) >= 3 and _contrast(palette[drawn], palette["track"]) >= 3, (
            drawn
        )


def test_the_option_writes_the_page(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    where = tmp_path / "new" / "report.html"
    ran = cli("score", EXAMPLE, "-o", tmp_path / "out.parquet", "-m", tiny, "--report-html", where, "-q")
    assert ran.code == 0, ran.err
    text = Reader(where.read_text()).text
    assert "reviews scored" in text and str(tmp_path / "out.parquet") in text


def test_the_option_refuses_a_folder_before_any_work(cli: Cli, tmp_path: Path) -> None:
    ran = cli("score", EXAMPLE, "-o", tmp_path / "out.parquet", "--report-html", tmp_path)
    assert ran.code == 2 and "is a folder" in ran.err
    assert not list(tmp_path.iterdir())
