"""`rayft compare`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from rayft.cli.evaluate import file_option
from rayft.evaluate.config import CompareConfig

if TYPE_CHECKING:
    from rich.console import Console

_BAR = 40


@click.command()
@click.argument("old")
@click.argument("new")
@click.argument("inputs", nargs=-1, required=True, metavar="DUMP...")
@click.option("-o", "--output", callback=file_option(".parquet"), metavar="PATH",
              help="Write the changed rows as Parquet.")  # fmt: skip
@click.option("--max-change", type=click.FloatRange(0, 1), metavar="SHARE",
              help="Exit with 1 if a larger share of the rows changes.")  # fmt: skip
@click.option("--text-column", metavar="NAME", help="Column of the review text; found by common names if not given.")
@click.option("--title-column", metavar="NAME", help="Column of the title; found by common names if not given.")
@click.option("--no-title", is_flag=True, help="Do not read titles.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Compare only the first N rows.")
@click.option("--threshold", type=click.FloatRange(0, 1), default=0.5, show_default=True,
              help="Flag a defect from this probability on.")  # fmt: skip
@click.option("--negative-label", metavar="LABEL", help="The models' label that means negative, if not 'negative'.")
@click.option("--max-length", type=click.IntRange(8), metavar="TOKENS", help="Longer reviews are cut. [default: 256]")
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto", show_default=True,
              help="Arithmetic of the models.")  # fmt: skip
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True,
              help="Where the models run.")  # fmt: skip
@click.option("--threads", type=click.IntRange(1), metavar="N", help="CPU threads of the models; all cores by default.")
@click.option("--top", type=click.IntRange(0), default=10, show_default=True, metavar="N",
              help="Changed rows that are shown.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
def command(as_json: bool, quiet: bool, max_change: float | None, **options: Any) -> int:
    """Show what changes between two models on the same reviews.

    OLD and NEW are directories, Hub ids or 'bundled'; DUMP is read as by `rayft score`, without labels.
    A row is changed if its label or its defect flag is another one.

    \b
    Examples:
      rayft compare bundled runs/mine reviews.parquet --output changed.parquet
      rayft compare runs/v1 runs/v2 'dump/*.parquet' --limit 20000 --max-change 0.02

    Exit codes: 0 done, 1 more rows changed than --max-change allows, 2 refused.
    """
    from rayft.cli import show
    from rayft.evaluate.compare import compare

    report = compare(CompareConfig(**options), show.progress(quiet or as_json))
    refused = max_change is not None and report["changed"]["share"] > max_change
    report["max_change"] = max_change
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False))
    elif not quiet:
        _show(report)
        if options["output"] is not None:
            click.echo(f"\n  changed rows: {options['output']}")
    if refused:
        share = report["changed"]["share"]
        click.echo(f"{share:.2%} of the rows changed; --max-change allows {max_change:.2%}.", err=True)
    return 1 if refused else 0


def _show(report: dict[str, Any]) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    rows, changed = report["rows"], report["changed"]
    low, high = changed["interval"]
    console.print()
    console.print(f"  [bold green]{report['agreement']:.2%}[/] of {rows['compared']:,} reviews get the same label")
    console.print(f"  [bold green]{changed['rows']:,}[/] rows change ({changed['share']:.2%}; "
                  f"95 %: {100 * low:.2f} to {100 * high:.2f})")  # fmt: skip
    console.print(f"  [bold green]{report['mean_absolute_change']:.4f}[/] mean change of the probabilities")
    if rows["empty"]:
        console.print(f"  {rows['empty']:,} rows without text are left out", style="dim")
    _rates(console, report)
    _histogram(console, report["histogram"])
    for row in report["top"]:
        text = row["text"] if len(row["text"]) <= 150 else row["text"][:149] + "…"
        before, after = (f"{row[f'{side}_label']} {row[f'{side}_confidence']:.1%}" for side in ("old", "new"))
        console.print(f"  {before} → {after}  {row['file']}, row {row['row']}", markup=False, soft_wrap=True)
        console.print(f"    {text}", style="dim", markup=False, soft_wrap=True)


def _rates(console: Console, report: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.padding import Padding
    from rich.table import Table

    names = report["labels"]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("", no_wrap=True)
    for name in ("old", "new", *(f"→ {escape(name)}" for name in names[:6])):
        table.add_column(name, justify="right", no_wrap=True)
    for k, name in enumerate(names):
        shares = [report[side]["labels"][name]["share"] for side in ("old", "new")]
        table.add_row(escape(name), *(f"{s:.2%}" for s in shares), *(f"{c:,}" for c in report["pairs"][k][:6]))
    found = report["defects"]
    if found is not None:
        table.add_row("defect", f"{found['old_rate']:.2%}", f"{found['new_rate']:.2%}")
    console.print(Padding(table, (1, 0, 0, 2)))
    if found is not None:
        p = found["mcnemar_p_value"]
        only_old, only_new = found["only_old"], found["only_new"]
        console.print(f"  flagged by the old model only: {only_old:,}, by the new only: {only_new:,}; "
                      f"McNemar p {'<0.001' if p < 0.001 else f'{p:.3f}'}", style="dim")  # fmt: skip


def _histogram(console: Console, found: dict[str, Any]) -> None:
    most = max(found["rows"]) or 1
    console.print(f"\n  {found['of']}", style="dim")
    filled = [i for i, count in enumerate(found["rows"]) if count]
    for i in range(filled[0], filled[-1] + 1):
        count = found["rows"][i]
        bar = "█" * max(round(_BAR * count / most), 1 if count else 0)
        console.print(f"  {found['edges'][i]:+5.2f} to {found['edges'][i + 1]:+5.2f}  {bar} {count:,}")
    console.print()
