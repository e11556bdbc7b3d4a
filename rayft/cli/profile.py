"""`rayft profile`, and the terminal view of a profile that `rayft prepare` shows as well."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from rayft.cli.prepare import Lines, source_options

_BAR = 32
_SHOWN_LETTERS = 160


@click.command()
@source_options
@click.option("--check-labels", type=click.IntRange(0), default=500, show_default=True, metavar="N",
              help="Sampled rows on which the shipped model looks for wrong labels; 0 for none.")  # fmt: skip
@click.option("--html", "html_file", type=click.Path(dir_okay=False), metavar="FILE", help="Write a page as well.")
@click.option("--json", "as_json", is_flag=True, help="Print the profile as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print no progress.")
def command(
    sources: tuple[str, ...],
    check_labels: int,
    html_file: str | None,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Show what a data set is like: classes, lengths, duplicates, doubtful labels.

    SOURCE is whatever `rayft prepare` takes, or one store that it has made.

    \b
    Examples:
      rayft profile reviews.csv --stars-negative 1,2 --stars-positive 4,5
      rayft profile polarity.store --html profile.html
    """
    from rayft.data.storage import locate
    from rayft.prepare.config import PrepareConfig
    from rayft.prepare.profile import find_suspects, read_profile
    from rayft.prepare.run import profile_sources

    if len(sources) == 1 and (locate(sources[0]) / "store.json").is_file():
        profile, samples = read_profile(sources[0])
    else:
        config = PrepareConfig(sources, output="", **options)
        profile, samples = profile_sources(config, Lines(quiet or as_json))
    if profile["suspects"] is None:
        profile["suspects"] = find_suspects(samples, check_labels)
    if html_file is not None:
        from rayft.prepare.profile_html import profile_page

        locate(html_file).write_bytes(profile_page(profile).encode("utf-8"))
    if as_json:
        click.echo(json.dumps(profile, ensure_ascii=False))
    else:
        show_profile(profile)
        if html_file is not None:
            click.echo(f"\nPage: {html_file}")
    return 0


def show_profile(profile: dict[str, Any]) -> None:
    """Print a profile with bars."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    rows = max(1, profile["rows"])
    console.print(f"[bold]{profile['rows']:,} reviews[/] of {profile['read']:,} read, {profile['tokens']:,} tokens")
    for reason, count in profile["dropped"].items():
        where = ", ".join(profile["examples"].get(reason, []))
        console.print(f"  [yellow]dropped {count:,}[/]: {escape(reason)}" + (f" ({escape(where)})" if where else ""))
    console.print("\n[bold]Classes[/]")
    most = max(profile["classes"].values(), default=1)
    for name, count in sorted(profile["classes"].items(), key=lambda item: -item[1])[:30]:
        console.print(f"  {escape(name[:24]):<24} {_bar(count / most)} {count:>11,}  {count / rows:6.1%}")
    for name, split in profile["splits"].items():
        shares = ", ".join(f"{c} {n / max(1, split['rows']):.1%}" for c, n in list(split["classes"].items())[:8])
        console.print(f"  {name:<12} {split['rows']:>11,}  {escape(shares)}")
    _show_lengths(console, profile)
    console.print("\n[bold]Duplicates[/]")
    for name, count in profile["duplicates"].items():
        console.print(f"  {name:<26} {count:>11,}")
    _show_rows(console, profile)


def _show_lengths(console: Any, profile: dict[str, Any]) -> None:
    lengths = profile["lengths"]
    console.print(
        f"\n[bold]Lengths in tokens[/]: mean {lengths['mean']:.0f}, median {lengths['p50']}, 90 % up to "
        f"{lengths['p90']}, 99 % up to {lengths['p99']}"
    )
    edges, counts = profile["histogram"]["edges"], profile["histogram"]["rows"]
    step = max(1, -(-len(counts) // 16))  # at most 16 lines
    merged = [(edges[i] + 1, edges[min(i + step, len(counts))], sum(counts[i : i + step]))
              for i in range(0, len(counts), step)]  # fmt: skip
    most = max((n for *_, n in merged), default=1) or 1
    for low, high, count in merged:
        console.print(f"  {low:>4}-{high:<4} {_bar(count / most)} {count:>11,}")
    for limit, share in profile["within"].items():
        console.print(f"  within {limit} tokens: {share:.2%}")


def _show_rows(console: Any, profile: dict[str, Any]) -> None:
    from rich.markup import escape

    suspects = profile["suspects"]
    if suspects is not None:
        console.print(
            f"\n[bold]Labels in doubt[/]: {suspects['disagreeing']:,} of {suspects['confident']:,} sampled reviews "
            "that the shipped model is sure of"
        )
        for row in suspects["rows"][:5]:
            said = f"{row['label']}, the model says {row['model']} ({row['confidence']:.1%})"
            console.print(f"  [yellow]{escape(said)}[/]: {escape(_cut(row['text']))}")
    console.print("\n[bold]Sample[/]")
    for row in profile["samples"][:10]:
        console.print(f"  [cyan]{escape(row['label'])}[/] ({row['split']}): {escape(_cut(row['text']))}")


def _bar(share: float) -> str:
    return ("█" * max(round(share * _BAR), 1 if share else 0)).ljust(_BAR)


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_LETTERS else text[: _SHOWN_LETTERS - 1] + "…"
