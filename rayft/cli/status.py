"""`rayft status`."""

from __future__ import annotations

import json

import click


@click.command()
@click.argument("output")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(output: str, as_json: bool) -> int:
    """Show how far the scoring of OUTPUT is, from another terminal or after a crash.

    OUTPUT is what was given to `rayft score --output`, or the name that it chose.

    \b
    Example:
      rayft status scored/
    """
    from rayft.score.status import read_status

    status = read_status(output)
    if as_json:
        click.echo(json.dumps(status))
        return 0
    from rayft.cli.show import duration

    share = status["rows_done"] / status["rows"] if status["rows"] else 1.0
    click.echo(f"{status['state']}: {status['rows_done']:,} of {status['rows']:,} rows ({share:.1%}), "
               f"{status['spans_done']:,} of {status['spans']:,} spans, {status['files_done']:,} of "
               f"{status['files']:,} files")  # fmt: skip
    if status["rows_per_second"] and status["state"] == "running":
        remaining = (status["rows"] - status["rows_done"]) / status["rows_per_second"]
        click.echo(f"{status['rows_per_second']:,.0f} rows/s, about {duration(remaining)} left")
    for name, reason in status["failed"].items():
        click.echo(f"Failed: {name}: {reason}")
    if status["state"] == "stopped":
        click.echo("Run the same command again to go on.")
    return 0
