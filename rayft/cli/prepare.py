"""`rayft prepare`, and the options on sources that it shares with `rayft profile`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import click

_LINE_SECONDS = 10.0


def _stars(_ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in value.split(",")) if value else ()
    except ValueError:
        raise click.BadParameter(f"numbers of stars are expected, e.g. 1,2, not '{value}'", param=param) from None


def _labels(_ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[tuple[str, str], ...] | None:
    if value is None:
        return None
    pairs = [part.strip().partition("=") for part in value.split(",") if part.strip()]
    if not pairs or any(not left.strip() for left, _, _ in pairs):
        raise click.BadParameter("give values, e.g. good,bad, or value=class, e.g. 0=negative,1=positive", param=param)
    return tuple((left.strip(), right.strip() or left.strip()) for left, _, right in pairs)


_OPTIONS = [
    click.argument("sources", nargs=-1, required=True, metavar="SOURCE..."),
    click.option("--base", metavar="MODEL", help="Whose tokeniser to use: directory, Hub id or 'bundled' (default)."),
    click.option("--text-column", metavar="NAME", help="Column of the review text, if its name is not a common one."),
    click.option("--title-column", metavar="NAME", help="Column of the title, if its name is not a common one."),
    click.option("--no-title", is_flag=True, help="Do not read titles."),
    click.option("--label-column", metavar="NAME", help="Column of the label, if its name is not a common one."),
    click.option("--split-column", metavar="NAME", help="Column that says train, validation or test."),
    click.option("--stars-negative", callback=_stars, metavar="1,2", help="Stars that mean negative."),
    click.option("--stars-positive", callback=_stars, metavar="4,5", help="Stars that mean positive; others: dropped."),
    click.option("--labels", callback=_labels, metavar="V=NAME,...",
                 help="The only label values to use, with their class: 0=negative,1=positive, or good,bad."),
    click.option("--subset", metavar="NAME", help="Subset (configuration) of a Hub dataset."),
    click.option("--revision", metavar="REV", help="Revision of a Hub dataset."),
    click.option("--encoding", default="utf-8", show_default=True, metavar="NAME", help="Of CSV, JSONL, text files."),
    click.option("--max-length", type=click.IntRange(8), default=512, show_default=True, metavar="TOKENS",
                 help="Longer reviews are cut."),
    click.option("--truncation", type=click.Choice(["head", "head+tail"]), default="head", show_default=True,
                 help="What is kept of longer reviews."),
    click.option("--train", type=float, metavar="SIZE", help="Share below 1, or rows. [default: all the rest]"),
    click.option("--validation", type=float, metavar="SIZE",
                 help="Share or rows, if the source has none. [default: 0.05, at most 10,000]"),
    click.option("--test", type=float, metavar="SIZE",
                 help="Share or rows, if the source has none. [default: 0.1, at most 25,000]"),
    click.option("--seed", type=int, default=0, show_default=True, help="Of the draw of splits."),
    click.option("--duplicates", type=click.Choice(["between", "all", "keep"]), default="between", show_default=True,
                 help="Drop duplicates between splits, everywhere, or nowhere."),
    click.option("--similarity", type=click.FloatRange(0.5, 1), default=0.8, show_default=True,
                 help="Share of equal word trigrams from which texts are near duplicates."),
    click.option("--min-label-rows", type=click.IntRange(1), default=10, show_default=True, metavar="N",
                 help="Drop classes with fewer rows."),
    click.option("--workers", type=click.IntRange(1), metavar="N", help="Processes; one a core by default."),
]  # fmt: skip


def source_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the argument and the options that say how sources are read."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


class Lines:
    """Progress as plain lines on stderr."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._started = self._shown = time.monotonic()
        self._rows = self._before = 0

    def say(self, message: str) -> None:
        if not self._quiet:
            print(message, file=sys.stderr, flush=True)

    def shard(self, marker: dict[str, Any], before: bool) -> None:
        self._rows += marker["read"]
        self._before += marker["read"] if before else 0
        now = time.monotonic()
        if now - self._shown > _LINE_SECONDS:
            self._shown = now
            rate = (self._rows - self._before) / (now - self._started)
            resumed = f", {self._before:,} of them by an earlier run" if self._before else ""
            self.say(f"{self._rows:,} rows{resumed}; {rate:,.0f} rows/s")


@click.command()
@source_options
@click.option("-o", "--output", required=True, metavar="STORE", help="Folder of the token store, local or s3://.")
@click.option("--work-dir", metavar="FOLDER", help="Local folder of unfinished work. [default: in STORE, or the cache]")
@click.option("--check-labels", type=click.IntRange(0), default=500, show_default=True, metavar="N",
              help="Sampled rows on which the shipped model looks for wrong labels; 0 for none.")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace a store, or unfinished work, of other sources or settings.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
def command(as_json: bool, quiet: bool, **options: Any) -> int:
    """Make a token store for training out of labelled reviews.

    SOURCE is recognised by its content: a Hub dataset id, the csv tarball or the fastText files of
    Amazon Polarity, CSV, JSONL or Parquet (files, folders, globs, s3://), or folders of text files, one
    for each class. Texts are cleaned, duplicates between splits are dropped, splits are drawn where
    the source has none, and everything is tokenised once. The same command resumes after any crash.

    \b
    Examples:
      rayft prepare fancyzhx/amazon_polarity --output polarity.store
      rayft prepare reviews.csv --stars-negative 1,2 --stars-positive 4,5 --output reviews.store
      rayft prepare aclImdb --validation 2000 --output s3://bucket/imdb.store
    """
    from rayft.prepare.config import PrepareConfig
    from rayft.prepare.run import prepare

    report = prepare(PrepareConfig(**options), Lines(quiet or as_json))
    if as_json:
        click.echo(json.dumps({name: value for name, value in report.items() if name != "files"}, ensure_ascii=False))
    elif not quiet:
        _show(report)
    return 0


def _show(report: dict[str, Any]) -> None:
    from rayft.cli.profile import show_profile
    from rayft.prepare.profile import read_profile

    show_profile(read_profile(report["output"])[0])
    click.echo(f"\nStore: {report['output']}")
    if report["already"]:
        click.echo("It was there already, made from the same sources with the same settings.")
        return
    click.echo(
        f"{report['seconds']:,.1f} s, {report['tokens_per_second']:,} tokens/s, {report['bytes'] / 1e6:,.1f} MB. "
        f"Page: {report['output'].rstrip('/')}/profile.html"
    )
