"""`rayft alerts`."""

from __future__ import annotations

import json
from typing import Any

import click

from rayft.alerts.config import AlertsConfig

_DEFAULTS = AlertsConfig((), "")


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="SCORED...")
@click.option("-o", "--output", required=True, metavar="DIR", help="Folder for alerts.parquet, .json and .html.")
@click.option("--product-column", metavar="NAME", help="Column of the product; found by common names if not given.")
@click.option("--date-column", metavar="NAME", help="Column, or hive partition, of the review's date.")
@click.option("--category-column", metavar="NAME", help="Column of the product's category: what is normal there.")
@click.option("--text-column", metavar="NAME", help="Column of the review text, to find copies.")
@click.option("--id-column", metavar="NAME", help="Column of the review id: a corrected review replaces the earlier.")
@click.option("--period", type=click.Choice(["day", "week"]), default="day", show_default=True,
              help="How often the charts are looked at.")  # fmt: skip
@click.option("--sensitivity", type=click.FloatRange(0.05, 1), default=_DEFAULTS.sensitivity, show_default=True,
              help="Share of true defect reports that the model flags.")  # fmt: skip
@click.option("--specificity", type=click.FloatRange(0.05, 1), default=_DEFAULTS.specificity, show_default=True,
              help="Share of other reviews that it leaves alone.")  # fmt: skip
@click.option("--type-accuracy", type=click.FloatRange(0.05, 1), default=_DEFAULTS.type_accuracy, show_default=True,
              help="Share of flagged defects that get the right type.")  # fmt: skip
@click.option("--rise", type=click.FloatRange(1), default=_DEFAULTS.rise, show_default=True,
              help="Look for the share growing by this factor ...")  # fmt: skip
@click.option("--min-rise", type=click.FloatRange(0, 0.5), default=_DEFAULTS.min_rise, show_default=True,
              help="... and by at least this share of reviews.")  # fmt: skip
@click.option("--false-alarms", type=click.FloatRange(0, min_open=True), default=_DEFAULTS.false_alarms,
              show_default=True, help="Expected per 1,000 product-months before the false-discovery rule.")  # fmt: skip
@click.option("--safety-false-alarms", type=click.FloatRange(0, min_open=True), show_default=True,
              default=_DEFAULTS.safety_false_alarms, help="The same for safety reports.")  # fmt: skip
@click.option("--fdr", type=click.FloatRange(0, 1, min_open=True), default=_DEFAULTS.fdr, show_default=True,
              help="False-discovery level among the products alerted on a day; 1 switches the rule off.")  # fmt: skip
@click.option("--dedupe/--no-dedupe", default=True, help="Count near-duplicate reviews of a product once.")
@click.option("--negative-label", metavar="LABEL", help="Label of negative reviews, if not 'negative'.")
@click.option("--json", "as_json", is_flag=True, help="Print the alerts as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
def command(as_json: bool, quiet: bool, **options: Any) -> int:
    """Find products whose share of defect reports rises, early.

    SCORED is Parquet that `rayft score` wrote: files, directories or globs, on disks or in object
    stores. Run it every night on the whole folder: only new and changed files are read, the same
    night twice changes nothing, and late or corrected reviews are counted where they belong.

    \b
    Examples:
      rayft alerts scored/ --output alerts/
      rayft alerts 'scored/date=*/*.parquet' --product-column asin --date-column date \\
        --category-column category --output alerts/

    Exit codes: 0 done (with or without alerts), 1 some inputs failed, 2 refused before any work,
    3 stopped but resumable, 130 interrupted.
    """
    from rayft.alerts.run import find_alerts

    config = AlertsConfig(**options)
    found = find_alerts(config, (lambda message: None) if quiet or as_json else lambda m: click.echo(m, err=True))
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
    elif not quiet:
        _print(found, config.output)
    for name, reason in found["failed"].items():
        if not as_json:
            click.echo(f"Failed: {name}: {reason}", err=True)
    return 1 if found["failed"] else 0


def _print(found: dict[str, Any], output: str) -> None:
    data, summary = found["data"], found["summary"]
    copies = f"; {data['copies_not_counted']:,} copies not counted" if data["copies_not_counted"] else ""
    click.echo(f"{data['reviews']:,} reviews of {data['products']:,} products, {data['first']} to "
               f"{data['last']}{copies}")  # fmt: skip
    for reason, number in data["left_out"].items():
        click.echo(f"Left out: {number:,} reviews, {reason}")
    for note in found["notes"]:
        click.echo(f"Note: {note}")
    click.echo(f"{summary['alert']} alerts, {summary['watch']} to watch, {summary['joint']} shared with complaints "
               f"about service{'' if found['changed'] else ' (nothing new since the last run)'}")  # fmt: skip
    shown = [receipt for receipt in found["alerts"] if receipt["status"] == "alert"][:10]
    for receipt in shown:
        ended = f", ended {receipt['ended']}" if receipt["ended"] else ""
        click.echo(f"  {receipt['product']}: {receipt['defect_type']} since about {receipt['onset']}, alarm "
                   f"{receipt['first_alarm']}{ended}: {receipt['reports_to_date']} reports in "
                   f"{receipt['reviews_to_date']:,} reviews, {receipt['expected_to_date']:.1f} expected")  # fmt: skip
    if summary["alert"] > len(shown):
        click.echo(f"  and {summary['alert'] - len(shown)} more")
    click.echo(f"Read {output.rstrip('/')}/alerts.html")
