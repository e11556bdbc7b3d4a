"""`rayft evaluate`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from rayft.evaluate.config import EvaluateConfig

if TYPE_CHECKING:
    from rich.console import Console

_MOST_MATRIX = 8  # classes whose confusion matrix fits a terminal


def _stars(_ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in value.split(",")) if value else ()
    except ValueError:
        raise click.BadParameter(f"numbers of stars are expected, e.g. 1,2, not '{value}'", param=param) from None


def _labels(_ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[tuple[str, str], ...] | None:
    if value is None:
        return None
    pairs = [part.strip().partition("=") for part in value.split(",") if part.strip()]
    if not pairs or any(not left.strip() or not right.strip() for left, _, right in pairs):
        raise click.BadParameter("give value=class, e.g. 0=negative,1=positive", param=param)
    return tuple((left.strip(), right.strip()) for left, _, right in pairs)


def file_option(suffix: str) -> Any:
    """Return a callback that refuses, before any work, a path that cannot become a file of this kind."""

    def check(_ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
        if value is None:
            return None
        from rayft.data.storage import locate

        if locate(value).is_dir():
            raise click.BadParameter(f"{value} is a folder; give the name of a file in it.", param=param)
        if suffix and not value.endswith(suffix):
            raise click.BadParameter(f"{value} is written as {suffix}; name it so.", param=param)
        return value

    return check


@click.command()
@click.argument("model")
@click.argument("sources", nargs=-1, required=True, metavar="DATA...")
@click.option("-b", "--baseline", metavar="B", help="Compare with a model, 'untrained', 'untrained:MODEL' or 'tfidf'.")
@click.option("--train", metavar="DATA2", help="Labelled data that --baseline tfidf learns from.")
@click.option("--text-column", metavar="NAME", help="Column of the review text; found by common names if not given.")
@click.option("--title-column", metavar="NAME", help="Column of the title; found by common names if not given.")
@click.option("--no-title", is_flag=True, help="Do not read titles.")
@click.option("--label-column", metavar="NAME", help="Column of the label; found by common names if not given.")
@click.option("--category-column", metavar="NAME", help="Column to slice the errors by.")
@click.option("--stars-column", metavar="NAME", help="Column of stars to slice the errors by.")
@click.option("--stars-negative", callback=_stars, metavar="1,2", help="Stars that mean negative.")
@click.option("--stars-positive", callback=_stars, metavar="4,5", help="Stars that mean positive; others: dropped.")
@click.option("--labels", callback=_labels, metavar="V=NAME,...", help="Which label means which class of the model.")
@click.option("--split", type=click.Choice(["train", "validation", "test"]), help="Use only the rows of this split.")
@click.option("--limit", type=click.IntRange(2), metavar="N", help="Evaluate a random sample of N rows.")
@click.option("--threshold", type=click.FloatRange(0, 1), default=0.5, show_default=True,
              help="On the probability of the negative label, marked on its curve.")  # fmt: skip
@click.option("--negative-label", metavar="LABEL", help="The model's label that means negative, if not 'negative'.")
@click.option("--max-length", type=click.IntRange(8), metavar="TOKENS", help="Longer reviews are cut. [default: 256]")
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto", show_default=True,
              help="Arithmetic of the model.")  # fmt: skip
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True,
              help="Where the model runs.")  # fmt: skip
@click.option("--threads", type=click.IntRange(1), metavar="N", help="CPU threads of the model; all cores by default.")
@click.option("--top", type=click.IntRange(0), default=10, show_default=True, metavar="N",
              help="Errors and suspected labels that are shown.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Of samples, intervals and the untrained head.")
@click.option("-o", "--output", callback=file_option(".parquet"), metavar="PATH", help="Write all errors as Parquet.")
@click.option("--report-html", callback=file_option(""), metavar="PATH", help="Also write the report as a page.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
def command(output: str | None, report_html: str | None, as_json: bool, quiet: bool, **options: Any) -> int:
    """Measure a model on labelled reviews, and show where it goes wrong.

    DATA is recognised as by `rayft prepare`: CSV, JSONL or Parquet with a column of labels or stars,
    fastText files, folders of text files, one for each class, or a Hub dataset id.

    \b
    Examples:
      rayft evaluate bundled reviews.parquet --report-html evaluation.html
      rayft evaluate runs/mine held-out.csv --baseline bundled --output errors.parquet
      rayft evaluate runs/mine held-out.csv --baseline tfidf --train train.csv
    """
    from rayft.cli import show
    from rayft.evaluate.run import evaluate, write_errors

    report, errors = evaluate(EvaluateConfig(**options), show.progress(quiet or as_json))
    if output is not None:
        write_errors(errors, output)
    if report_html is not None:
        from rayft.data.storage import locate
        from rayft.evaluate.page import evaluation_page

        locate(report_html).write_bytes(evaluation_page(report).encode())
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False))
    elif not quiet:
        _show(report)
        written = [f"{what}: {path}" for what, path in (("errors", output), ("page", report_html)) if path]
        if written:
            click.echo("\n  " + "; ".join(written))
    return 0


def _show(report: dict[str, Any]) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    _headline(console, report)
    _classes(console, report)
    _slices(console, report)
    _errors(console, report)


def _headline(console: Console, report: dict[str, Any]) -> None:
    data, metrics, base = report["data"], report["metrics"], report["baseline"]
    console.print()
    sample = f" (a random sample of {data['usable']:,})" if data["evaluated"] < data["usable"] else ""
    console.print(f"  [bold green]{_ranged(metrics['accuracy'])}[/] accuracy on {data['evaluated']:,} reviews{sample}")
    console.print(f"  [bold green]{_ranged(metrics['macro']['f1'])}[/] macro F1, "
                  f"[bold green]{_decimals(metrics['roc_auc'])}[/] ROC AUC")  # fmt: skip
    calibration = metrics["calibration"]
    console.print(f"  [bold green]{calibration['expected_error']:.3f}[/] calibration error "
                  f"({calibration['expected_error_if_calibrated']:.3f} if it were perfectly calibrated)")  # fmt: skip
    if base is not None:
        against, difference = base["against"], base["against"]["accuracy_difference"]
        console.print()
        console.print(f"  {base['name']}: {_ranged(base['metrics']['accuracy'])} accuracy, "
                      f"{_ranged(base['metrics']['macro']['f1'])} macro F1", markup=False, soft_wrap=True)  # fmt: skip
        low, high = difference["low"], difference["high"]
        p = _p(against["mcnemar_p_value"])
        console.print(f"  The model is {100 * difference['value']:+.1f} points better ({100 * low:+.1f} to "
                      f"{100 * high:+.1f}); it alone is right on {against['only_model_right']:,}, the baseline alone "
                      f"on {against['only_baseline_right']:,}; McNemar p {p}", soft_wrap=True)  # fmt: skip
        console.print(f"  {base['what']}.", style="dim", markup=False, soft_wrap=True)
    for reason, count in list(data["dropped"].items())[:5]:
        console.print(f"  left out: {count:,} rows, {reason}", style="yellow", markup=False)
    if len(data["splits"]) > 1:
        found = ", ".join(f"{name} {count:,}" for name, count in data["splits"].items())
        console.print(f"  the rows are of several splits ({found}); choose with --split", style="yellow", markup=False)


def _classes(console: Console, report: dict[str, Any]) -> None:
    metrics = report["metrics"]
    table = _table("class", "rows", "precision", "recall", "F1", "", "AUC")
    for name, scores in metrics["classes"].items():
        area = "-" if scores["roc_auc"] is None else f"{scores['roc_auc']:.3f}"
        table.add_row(_plain(name), f"{scores['rows']:,}", *_cells(scores), area)
    for average in ("macro", "weighted"):
        table.add_row(average, "", *_cells(metrics[average]), style="dim")
    _print(console, table)
    labels = list(metrics["classes"])
    if len(labels) <= _MOST_MATRIX:
        matrix = _table("label \\ model", *labels)
        for name, counts in zip(labels, metrics["confusion"], strict=True):
            matrix.add_row(_plain(name), *(f"{count:,}" for count in counts))
        _print(console, matrix)
    threshold = report["threshold"]
    if threshold is not None:
        best = threshold["best_f1"]
        console.print(f"\n  at threshold {threshold['threshold']:g} on {threshold['label']}: precision "
                      f"{threshold['precision']:.1%}, recall {threshold['recall']:.1%}; best F1 {best['f1']:.1%} at "
                      f"{best['threshold']:.3f} (chosen on these rows)", style="dim", markup=False,
                      soft_wrap=True)  # fmt: skip


def _cells(scores: dict[str, Any]) -> list[str]:
    f1, low, high = scores["f1"]["value"], scores["f1"]["low"], scores["f1"]["high"]
    spread = "" if low is None or high is None else f"({100 * low:.1f}–{100 * high:.1f})"
    return [f"{scores['precision']['value']:.1%}", f"{scores['recall']['value']:.1%}", f"{f1:.1%}", spread]


def _slices(console: Console, report: dict[str, Any]) -> None:
    table = _table("slice", "rows", "errors", "rate", "others", "adj. p", "verdict")
    for entry in report["slices"]:
        if entry["group"] == "label":
            continue
        style = {"more errors": "red", "fewer errors": "green"}.get(entry["verdict"], "")
        rest = "-" if entry["rest_error_rate"] is None else f"{entry['rest_error_rate']:.1%}"
        name = entry["slice"] if entry["group"] in ("text", "stars") else f"{entry['group']}: {entry['slice']}"
        table.add_row(_plain(name), f"{entry['rows']:,}", f"{entry['errors']:,}", f"{entry['error_rate']:.1%}", rest,
                      _p(entry["adjusted_p_value"]), entry["verdict"] if style else "", style=style)  # fmt: skip
    _print(console, table)
    console.print("  Verdict: Fisher's exact test against all other rows, false discovery rate 5 %.", style="dim")


def _errors(console: Console, report: dict[str, Any]) -> None:
    errors, suspects = report["errors"], report["suspected_labels"]
    console.print()
    console.print(f"  [bold]{errors['rows']:,}[/] errors; suspected label errors: [bold]{suspects['rows']:,}[/] "
                  f"({suspects['share']:.1%} of the rows)")  # fmt: skip
    for entry in errors["shown"][:5]:
        words = ", ".join(f"{w['word']} {w['effect']:+.2f}" for w in entry["words"])
        text = entry["text"] if len(entry["text"]) <= 150 else entry["text"][:149] + "…"
        said = f"{entry['label']} taken for {entry['predicted']} ({entry['confidence']:.1%}), row {entry['row']}"
        console.print(f"  {said}: {words or 'no single word'}", markup=False, soft_wrap=True)
        console.print(f"    {text}", style="dim", markup=False, soft_wrap=True)


def _table(*columns: str) -> Any:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for i, column in enumerate(columns):
        table.add_column(_plain(column), justify="left" if i == 0 or not column else "right", no_wrap=True)
    return table


def _print(console: Console, table: Any) -> None:
    from rich.padding import Padding

    console.print(Padding(table, (1, 0, 0, 2)))


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _ranged(value: dict[str, float | None]) -> str:
    """Return a share with its interval, in percent."""
    if value["value"] is None:
        return "-"
    if value["low"] is None or value["high"] is None:
        return f"{value['value']:.1%}"
    return f"{value['value']:.1%} ({100 * value['low']:.1f}–{100 * value['high']:.1f})"


def _decimals(value: dict[str, float | None]) -> str:
    """Return an area with its interval."""
    if value["value"] is None:
        return "-"
    if value["low"] is None or value["high"] is None:
        return f"{value['value']:.3f}"
    return f"{value['value']:.3f} ({value['low']:.3f}–{value['high']:.3f})"


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"
