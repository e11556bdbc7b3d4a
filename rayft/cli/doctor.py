"""`rayft doctor`."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rayft.doctor import Check

_MARKS = {"ok": "[green]ok[/]", "warn": "[yellow]warn[/]", "error": "[bold red]error[/]"}


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("-m", "--model", metavar="MODEL", help="Directory, Hub id or 'bundled' (the shipped model, default).")
@click.option("--address", metavar="ADDRESS", help="Ray cluster to look at: auto or HOST:PORT. [default: RAY_ADDRESS]")
@click.option("--quick", is_flag=True, help="Leave out the prediction, which loads the model's weights.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(paths: tuple[str, ...], model: str | None, address: str | None, quick: bool, as_json: bool) -> int:
    """Check machine, model, folders and cluster, and say how to mend what is wrong.

    PATH is any input or output, on disks or in object stores. Nothing stays there.

    \b
    Examples:
      rayft doctor
      rayft doctor --address auto /mnt/reviews s3://bucket/scored/

    Exit codes: 0 nothing is in the way (warnings included), 1 something is.
    """
    from rayft.doctor import examine

    found: list[Check] = []
    for check in examine(model, paths, address or os.environ.get("RAY_ADDRESS") or None, quick):
        found.append(check)
        if not as_json:
            _show(check)
    errors = sum(check.status == "error" for check in found)
    if as_json:
        click.echo(json.dumps({"ok": not errors, "checks": [dataclasses.asdict(check) for check in found]}))
    else:
        warnings = sum(check.status == "warn" for check in found)
        click.echo(f"{len(found)} checks, {errors} errors, {warnings} warnings")
    return 1 if errors else 0


def _show(check: Check) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False, soft_wrap=True)
    mark = _MARKS[check.status] + " " * (5 - len(check.status))
    console.print(f"{mark}  [bold]{escape(check.name)}[/]: {escape(check.finding)}")
    if check.mend:
        console.print(f"       [dim]{escape(check.mend)}[/]")
