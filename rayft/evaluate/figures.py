"""The figures of an evaluation's page, each a section made of one part of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rayft.report.charts import Bar, Mark, Series, Tick, horizontal_bars, time_series
from rayft.report.html import Column, Section, figure, paragraph, reasons, table
from rayft.report.markup import Html, join, tag
from rayft.report.scales import integer, percent

#: What `rayft.evaluate.run.evaluate` returns, or the same read from its JSON.
Report = Mapping[str, Any]

_TENTHS = tuple(Tick(i / 5, f"{i / 5:g}") for i in range(6))
_MOST_CURVES = 5
_MOST_MATRIX = 20
_FEWEST = 10  # an accuracy of fewer rows says little
_STRONG = 0.02  # a word that moves the probability by less is not coloured


def ranged(value: Mapping[str, float | None]) -> str:
    """Return a share with its 95 % interval, in percent."""
    if value["value"] is None:
        return "–"
    if value["low"] is None or value["high"] is None:
        return percent(value["value"])
    return f"{value['value']:.1%} ({100 * value['low']:.1f} to {100 * value['high']:.1f})"


def decimals(value: Mapping[str, float | None]) -> str:
    """Return an area with its 95 % interval."""
    if value["value"] is None:
        return "–"
    if value["low"] is None or value["high"] is None:
        return f"{value['value']:.3f}"
    return f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})"


def p_value(value: float) -> str:
    """Return a p-value with three decimals."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def confusion(report: Report) -> Section:
    """Return the confusion matrix, each row coloured by its shares."""
    labels, matrix = report["model"]["labels"], report["metrics"]["confusion"]
    if len(labels) > _MOST_MATRIX:
        return Section("Confusion matrix", _confused_pairs(labels, matrix), wide=True)
    heads = [tag("th", "label \\ model", scope="col")]
    heads += [tag("th", name, scope="col", class_="numeric") for name in labels]
    lines = []
    for k, (name, row) in enumerate(zip(labels, matrix, strict=True)):
        cells = [_cell(count, sum(row), right=k == j) for j, count in enumerate(row)]
        lines.append(tag("tr", tag("th", name, scope="row"), *cells))
    caption = "Confusion matrix: rows are the label, columns what the model says"
    inner = tag("table", tag("caption", caption), tag("thead", tag("tr", *heads)), tag("tbody", *lines))
    grid = tag("div", inner, class_="scroll", role="region", aria_label=caption, tabindex=0)
    note = "Rows are the label, columns what the model says; shares are of the row."
    return Section("Confusion matrix", figure(grid, note), wide=len(labels) > 5)


def _cell(count: int, total: int, right: bool) -> Html:
    share = count / total if total else 0.0
    colour = "var(--s1)" if right else "var(--s2)"
    style = f"background: color-mix(in srgb, {colour} {45 * share:.0f}%, transparent); padding: 10px 12px"
    number = tag("strong", f"{count:,}")
    return tag("td", number, tag("br"), percent(share), class_="numeric", style=style)


def _confused_pairs(labels: Sequence[str], matrix: Sequence[Sequence[int]]) -> Html:
    pairs = [
        (matrix[i][j], i, j) for i in range(len(labels)) for j in range(len(labels)) if i != j and matrix[i][j] > 0
    ]
    rows = [
        (labels[i], labels[j], integer(count), percent(count / sum(matrix[i])))
        for count, i, j in sorted(pairs, reverse=True)[:30]
    ]
    columns = [Column("label"), Column("taken for"), Column("rows", True), Column("share of the label", True)]
    return table(columns, rows, "The pairs of classes that are confused most")


def classes(report: Report) -> Section:
    """Return precision, recall and F1 of each class and their averages."""
    metrics = report["metrics"]
    columns = [Column("class"), *(Column(n, True) for n in ("rows", "precision", "recall", "F1", "ROC AUC", "AP"))]
    rows = [
        (name, integer(scores["rows"]), *(ranged(scores[key]) for key in ("precision", "recall", "f1")),
         _share(scores["roc_auc"]), _share(scores["average_precision"]))
        for name, scores in metrics["classes"].items()
    ]  # fmt: skip
    rows += [
        (average, integer(metrics["rows"]), *(ranged(metrics[average][key]) for key in ("precision", "recall", "f1")),
         decimals(metrics["roc_auc"]) if average == "macro" else "", "")
        for average in ("macro", "weighted")
    ]  # fmt: skip
    note = "In percent, with 95 % bootstrap intervals; the areas under the curves from 0 to 1."
    return Section("Classes", figure(table(columns, rows, "Metrics of each class"), note), wide=True)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def reliability(report: Report) -> Section:
    """Return accuracy against confidence."""
    found = report["metrics"]["calibration"]
    bins = found["bins"]
    enough = [b for b in bins if b["rows"] >= _FEWEST]
    series = [
        Series(f"accuracy of bins of {_FEWEST} rows or more", [(b["confidence"], b["accuracy"]) for b in enough]),
        Series("perfectly calibrated", [(0.0, 0.0), (1.0, 1.0)], dashed=True),
    ]
    caption = (
        f"Expected calibration error {found['expected_error']:.3f}; a perfectly calibrated model with these "
        f"confidences would show {found['expected_error_if_calibrated']:.3f} on as many "
        f"rows (p {p_value(found['p_value'])}). Mean confidence {found['mean_confidence']:.1%}, accuracy "
        f"{report['metrics']['accuracy']['value']:.1%}."
    )
    chart = time_series(
        series,
        label=f"Accuracy by confidence. {caption}",
        x_ticks=_TENTHS,
        x_range=(0.0, 1.0),
        x_form=lambda x: f"confidence {x:.3f}",
        y_form=lambda y: f"{y:.0%}",
        unit="accuracy, by confidence",
        height=260,
    )
    columns = [Column("confidence"), *(Column(n, True) for n in ("rows", "mean confidence", "accuracy"))]
    rows = [
        (f"{b['low']:.2f} to {b['high']:.2f}", integer(b["rows"]), f"{b['confidence']:.3f}", f"{b['accuracy']:.3f}")
        for b in bins
    ]
    return Section("Reliability", figure(chart, caption, series, table(columns, rows, "Reliability by bin")))


def curves(report: Report) -> Section | None:
    """Return precision against recall, with the chosen threshold."""
    threshold, found = report["threshold"], report["curves"]
    if threshold is not None and threshold["label"] in found:
        names = [threshold["label"]]
    else:
        names = sorted(found, key=lambda name: -report["metrics"]["classes"][name]["rows"])[:_MOST_CURVES]
    if not names:
        return None
    series = [Series(name, [(0.0, found[name][0]["precision"]), *_points(found[name])]) for name in names]
    marks, caption = [], f"Of the {len(names)} largest classes." if len(names) < len(found) else ""
    if threshold is not None:
        marks = [Mark(threshold["recall"], f"threshold {threshold['threshold']:g}", "warn")]
        best = threshold["best_f1"]
        caption = (
            f"'{threshold['label']}' at threshold {threshold['threshold']:g}: precision {threshold['precision']:.1%}, "
            f"recall {threshold['recall']:.1%}, F1 {threshold['f1']:.1%}, {threshold['flagged']:,} rows flagged. "
            f"The best F1 on these rows, {best['f1']:.1%}, is at {best['threshold']:.3f}; chosen here it is flattering."
        )
    chart = time_series(
        series,
        label=f"Precision by recall. {caption}",
        x_ticks=_TENTHS,
        x_range=(0.0, 1.0),
        x_form=lambda x: f"recall {x:.1%}",
        y_form=lambda y: f"{y:.0%}",
        unit="precision, by recall",
        marks=marks,
        height=260,
    )
    return Section("Precision and recall", figure(chart, caption, series if len(series) > 1 else ()))


def _points(curve: Sequence[Mapping[str, float]]) -> list[tuple[float, float | None]]:
    return [(point["recall"], point["precision"]) for point in curve]


def slices(report: Report) -> Section:
    """Return error rates of the slices, those of the text first."""
    overall = 1 - report["metrics"]["accuracy"]["value"]
    entries = report["slices"]
    tones = {"more errors": "warn", "fewer errors": "plain"}
    bars = [
        Bar(_named(e), e["error_rate"], f"{e['error_rate']:.1%}",
            f"{_named(e)}: {e['errors']:,} errors in {e['rows']:,} rows", f"{e['errors']:,} of {e['rows']:,}",
            tones.get(e["verdict"], "quiet"))  # type: ignore[arg-type]
        for e in entries if e["group"] == "text"
    ]  # fmt: skip
    with_baseline = any("baseline_error_rate" in e for e in entries)
    columns = [Column("slice"), *(Column(n, True) for n in ("rows", "errors", "error rate", "other rows"))]
    columns += [Column("baseline", True)] if with_baseline else []
    columns += [Column("adjusted p", True), Column("")]
    rows = []
    for e in entries:
        row: list[object] = [_named(e), integer(e["rows"]), integer(e["errors"])]
        row.append(f"{e['error_rate']:.1%} ({100 * e['interval'][0]:.1f} to {100 * e['interval'][1]:.1f})")
        row.append("–" if e["rest_error_rate"] is None else f"{e['rest_error_rate']:.1%}")
        row += [f"{e['baseline_error_rate']:.1%}"] if with_baseline else []
        row += [p_value(e["adjusted_p_value"]), e["verdict"]]
        rows.append(row)
    caption = (
        f"All rows: {overall:.1%} errors. Orange: more errors than in the other rows, blue: fewer, grey: no "
        "difference shown (Fisher's exact test, false discovery rate 5 %). A review may be in several slices."
    )
    rules = [(name, text) for name, text in report["slice_rules"].items()]
    described = tag(
        "details", tag("summary", "What the slices are"), table([Column("slice"), Column("rule")], rules, "Slices")
    )
    label = "Error rates by slice: " + "; ".join(f"{bar.name} {bar.text}" for bar in bars)
    body = [figure(horizontal_bars(bars, label=label), caption), table(columns, rows, "Errors by slice"), described]
    return Section("Where it errs", join(body), wide=True)


def _named(entry: Mapping[str, Any]) -> str:
    return entry["slice"] if entry["group"] in ("text", "stars") else f"{entry['group']}: {entry['slice']}"


def errors(report: Report) -> Section:
    """Return the most confident errors, their words coloured by what they add to the wrong answer."""
    found = report["errors"]
    parts = [
        paragraph(
            f"{found['rows']:,} of {report['metrics']['rows']:,} answers are wrong. These are the ones of which the "
            "model was most confident. Orange words speak for the wrong answer, blue ones against it: each was "
            "left out in turn."
        )
    ]
    for entry in found["shown"]:
        words = ", ".join(f"{w['word']} {w['effect']:+.2f}" for w in entry["words"])
        notes = [f"row {entry['row']} of {entry['file']}", *entry["slices"]]
        notes += ["the label is suspected to be wrong"] if entry["suspected_label"] else []
        notes += [f"baseline says {entry['baseline']}"] if "baseline" in entry else []
        head = f"{entry['label']} taken for {entry['predicted']} ({entry['confidence']:.1%})"
        said = [tag("strong", head), tag("div", " · ".join(notes), class_="aside"), _coloured(entry)]
        parts.append(tag("figure", *said, tag("figcaption", words or "no single word decides")))
    return Section("Most confident errors", join(parts), wide=True)


def _coloured(entry: Mapping[str, Any]) -> Html:
    strongest = max((abs(effect) for _, effect in entry["effects"] if effect is not None), default=0.0)
    words: list[object] = []
    for word, effect in entry["effects"]:
        if effect is None or abs(effect) < _STRONG:
            words += [word, " "]
            continue
        colour = "var(--s2)" if effect > 0 else "var(--s1)"
        style = f"background: color-mix(in srgb, {colour} {15 + 45 * abs(effect) / strongest:.0f}%, transparent)"
        words += [tag("span", word, style=style, title=f"{effect:+.3f}"), " "]
    return tag("p", *words)


def suspects(report: Report) -> Section | None:
    """Return rows whose label is suspected to be wrong."""
    found = report["suspected_labels"]
    if not found["rows"]:
        return None
    said = paragraph(
        f"{found['rows']:,} rows ({percent(found['share'])}): the model is as sure of another class as it is, on "
        "average, of rows that carry that class's label (confident learning, Northcutt et al. 2021). Some are wrong "
        "labels, some are hard reviews; a person decides. If the model was trained on these rows this finds little."
    )
    rows = [
        (f"{e['label']}; the model says {e['predicted']} ({e['confidence']:.1%}); row {e['row']} of {e['file']}",
         e["text"][:300] + "…" * (len(e["text"]) > 300))
        for e in found["shown"]
    ]  # fmt: skip
    return Section("Suspected label errors", join([said, reasons(rows)]), wide=True)
