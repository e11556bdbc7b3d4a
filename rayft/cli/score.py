"""`rayft score`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from rayft.config import ScoreConfig

if TYPE_CHECKING:
    from rayft.data.storage import Location


def _names(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(name.strip() for name in value.split(",") if name.strip())


def _page(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Location | None:
    """Return where the page goes, refused before any work if it cannot go there."""
    if value is None:
        return None
    from rayft.data.storage import locate

    location = locate(value)
    if location.is_dir():
        raise click.BadParameter(f"{value} is a folder; give the name of a file in it.")
    return location


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("-o", "--output", metavar="PATH", help="A .parquet file or a folder; for one file <stem>.scored.parquet.")
@click.option("-m", "--model", metavar="MODEL", help="Directory, Hub id or 'bundled' (the shipped model, default).")
@click.option("--text-column", metavar="NAME", help="Column of the review text; found by common names if not given.")
@click.option("--title-column", metavar="NAME", help="Column of the title; found by common names if not given.")
@click.option("--no-title", is_flag=True, help="Do not read titles.")
@click.option("--max-length", type=click.IntRange(8), metavar="TOKENS", help="Longer reviews are cut. [default: 256]")
@click.option("--truncation", type=click.Choice(["head", "head+tail"]),
              help="What is read of longer reviews. [default: the model's own]")  # fmt: skip
@click.option(
    "--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto", show_default=True,
    help="Arithmetic of the model; auto takes the fastest that the machine has natively.",
)  # fmt: skip
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True,
              help="Where the model runs.")  # fmt: skip
@click.option("--engine-backend", type=click.Choice(["auto", "openvino", "torch"]), default="auto", show_default=True,
              help="Library that computes; auto takes OpenVINO on CPUs if rayft[fast] is installed.")  # fmt: skip
@click.option("--threshold", type=click.FloatRange(0, 1), default=0.5, show_default=True,
              help="Flag a defect from this probability on.")  # fmt: skip
@click.option("--negative-label", metavar="LABEL", help="The model's label that means negative, if not 'negative'.")
@click.option("--prefix", default="", metavar="TEXT", help="Put before the names of the appended columns.")
@click.option("--columns", callback=_names, metavar="A,B,...", help="Append only these of rayft's columns.")
@click.option("--infer-types", is_flag=True, help="Guess the types of CSV columns instead of keeping strings.")
@click.option("--batch-tokens", type=click.IntRange(64), metavar="N", help="Padded tokens per batch.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Score only the first N rows.")
@click.option("--overwrite", is_flag=True, help="Replace outputs of other settings or changed inputs, file by file.")
@click.option("--retry-failed", is_flag=True, help="Try inputs again that failed before and have not changed.")
@click.option("--layout", type=click.Choice(["mirror", "parts"]), default="mirror", show_default=True,
              help="One output per input, or several parts for inputs of over two million rows.")  # fmt: skip
@click.option("--threads", type=click.IntRange(1), metavar="N", help="CPU threads of the model; all cores by default.")
@click.option("--engine", type=click.Choice(["auto", "local", "ray"]), default="auto", show_default=True,
              help="Score in this process or on Ray; auto takes Ray for a cluster or several GPUs.")  # fmt: skip
@click.option("--address", metavar="ADDRESS", help="Ray cluster to score on: auto or HOST:PORT. [default: RAY_ADDRESS]")
@click.option("--replicas", type=click.IntRange(1), metavar="N", help="Model actors on Ray; as many as fit by default.")
@click.option("--replicas-per-gpu", type=click.IntRange(1), default=1, show_default=True, metavar="K",
              help="Model actors that share a GPU.")  # fmt: skip
@click.option("--price-per-hour", type=click.FloatRange(0), metavar="DOLLARS", help="Report the cost at this price.")
@click.option("--dry-run", is_flag=True, help="Show files, rows, time and cost; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--report-html", callback=_page, metavar="PATH", help="Also write the report as a page to look at.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
def command(as_json: bool, quiet: bool, dry_run: bool, report_html: Location | None, **options: Any) -> int:
    """Score review files: labels, confidences and defect flags beside every row.

    INPUT is Parquet, CSV or JSONL: files, directories or globs, on disks or in object stores (s3://,
    gs://, abfs://). Every row and column is kept, in order; the same command resumes after any crash
    and never scores a row twice.

    \b
    Examples:
      rayft score reviews.parquet
      rayft score dump/ --output scored/ --price-per-hour 0.34
      rayft score 's3://bucket/reviews/date=2026-11-*/*.parquet' --output s3://bucket/scored/

    Exit codes: 0 done, 1 some inputs failed, 2 refused before any work, 3 stopped but resumable,
    130 interrupted.
    """
    config = ScoreConfig(**options)
    from rayft.cli import show

    if dry_run:
        from rayft.score.dry_run import dry_run as estimate

        found = estimate(config)
        if as_json:
            click.echo(json.dumps(found))
        elif not quiet:
            show.dry_run(found)
        return 0
    from rayft.score.run import score

    report = score(config, show.progress(quiet or as_json))
    if as_json:
        click.echo(json.dumps(report))
    elif not quiet:
        show.report(report)
    if report_html is not None:
        from rayft.score.html import score_page

        report_html.write_bytes(score_page(report).encode())
    for name, reason in report["files"]["failed"].items():
        if not as_json:
            click.echo(f"Failed: {name}: {reason}", err=True)
    return 1 if report["files"]["failed"] else 0
