"""The report of an evaluation as a page to look at."""

from __future__ import annotations

from rayft.evaluate import figures
from rayft.evaluate.figures import Report, decimals, p_value, ranged
from rayft.report.html import Column, Number, Section, big_numbers, facts, page, paragraph, table
from rayft.report.markup import Html, join
from rayft.report.scales import duration, integer


def evaluation_page(report: Report) -> str:
    """Return the report of `rayft evaluate` as one HTML document."""
    sections = [
        _baseline(report),
        figures.confusion(report),
        _data(report),
        figures.reliability(report),
        figures.curves(report),
        figures.classes(report),
        figures.slices(report),
        figures.errors(report),
        figures.suspects(report),
    ]
    model, data = report["model"], report["data"]
    names = ", ".join(source["name"] for source in data["sources"])
    subtitle = f"{model['name']} ({model['digest'][:8]}) on {names}"
    return page("Evaluation", subtitle, [s for s in sections if s is not None], _lead(report))


def _lead(report: Report) -> Html:
    metrics, data = report["metrics"], report["data"]
    found = metrics["calibration"]
    sample = f"a random sample of {data['usable']:,}" if data["evaluated"] < data["usable"] else "reviews"
    rows = f"{_interval(metrics['accuracy'])}; {data['evaluated']:,} {sample}"
    numbers = [
        Number(_percent(metrics["accuracy"]), "accuracy", rows),
        Number(_percent(metrics["macro"]["f1"]), "macro F1", _interval(metrics["macro"]["f1"])),
        Number(_decimals(metrics["roc_auc"]["value"]), "ROC AUC", _interval(metrics["roc_auc"], 1, 3)),
        Number(f"{found['expected_error']:.3f}", "calibration error",
               f"{found['expected_error_if_calibrated']:.3f} if perfectly calibrated"),
    ]  # fmt: skip
    return big_numbers(numbers)


def _percent(value: dict[str, float | None]) -> str:
    return "–" if value["value"] is None else f"{value['value']:.1%}"


def _decimals(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _interval(value: dict[str, float | None], unit: int = 100, digits: int = 1) -> str:
    if value["low"] is None or value["high"] is None:
        return "no interval"
    return f"95 %: {unit * value['low']:.{digits}f} to {unit * value['high']:.{digits}f}"


def _baseline(report: Report) -> Section | None:
    base = report["baseline"]
    if base is None:
        return None
    against, metrics = base["against"], base["metrics"]
    difference = against["accuracy_difference"]
    rows = [
        (name, ranged(found["accuracy"]), ranged(found["macro"]["f1"]), decimals(found["roc_auc"]),
         f"{found['calibration']['expected_error']:.3f}")
        for name, found in ((report["model"]["name"], report["metrics"]), (base["name"], metrics))
    ]  # fmt: skip
    columns = [Column(""), *(Column(n, True) for n in ("accuracy", "macro F1", "ROC AUC", "calibration error"))]
    said = (
        f"The model is {100 * difference['value']:+.1f} points better ({100 * difference['low']:+.1f} to "
        f"{100 * difference['high']:+.1f}). Right on {against['only_model_right']:,} rows where the baseline is "
        f"wrong, wrong on {against['only_baseline_right']:,} where it is right; both wrong on "
        f"{against['both_wrong']:,}. McNemar's exact test: p {p_value(against['mcnemar_p_value'])}."
    )
    body = [table(columns, rows, "Model and baseline"), paragraph(said), paragraph(f"Baseline: {base['what']}.")]
    if base.get("train_rows_also_evaluated"):
        body.append(
            paragraph(
                f"{base['train_rows_also_evaluated']:,} of its training rows are evaluated here and were left out."
            )
        )
    return Section("Against the baseline", join(body), wide=True)


def _data(report: Report) -> Section:
    data, metrics, model = report["data"], report["metrics"], report["model"]
    pairs: list[tuple[str, object]] = [("Rows read", integer(data["rows_read"]))]
    pairs += [(f"Left out: {reason}", integer(count)) for reason, count in data["dropped"].items()]
    if data["evaluated"] < data["usable"]:
        pairs.append(("Usable", integer(data["usable"])))
    pairs.append(("Evaluated", integer(data["evaluated"])))
    pairs += [(f"Split {name}", integer(count)) for name, count in data["splits"].items()]
    pairs += [(f"Label {name}", integer(scores["rows"])) for name, scores in metrics["classes"].items()]
    pairs += [("Log loss", _decimals(metrics["log_loss"])), ("Brier score", _decimals(metrics["brier"]))]
    pairs.append(("Model", f"{model['name']}, {model['precision']} on {model['device']}"))
    pairs += [("Most tokens per review", integer(model["max_length"])), ("Took", duration(report["seconds"]))]
    return Section("Data", facts(pairs))
