"""Progress and reports in the terminal."""

from __future__ import annotations

import sys
import time
from typing import Any

from rayft.score.events import Event, FileFailed, SpanDone
from rayft.score.run import Progress, Silent
from rayft.score.span import BatchDone

_LINE_SECONDS = 10.0
_RECENT_SECONDS = 15.0
_SHORTEST_SECONDS = 0.2  # to tell a rate from


def progress(quiet: bool) -> Progress:
    """Return a bar on a terminal, plain lines elsewhere, nothing if quiet. All of it on stderr."""
    if quiet:
        return Silent()
    return Bar() if sys.stderr.isatty() else Lines()


class Rate:
    """Rows per second: of the last seconds and of the whole run."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._points: list[tuple[float, int]] = [(self._started, 0)]
        self.rows = 0

    def add(self, rows: int) -> None:
        self.rows += rows
        now = time.monotonic()
        self._points.append((now, self.rows))
        while len(self._points) > 2 and now - self._points[0][0] > _RECENT_SECONDS:
            self._points.pop(0)

    @property
    def overall(self) -> float:
        return self.rows / max(1e-9, time.monotonic() - self._started)

    @property
    def recent(self) -> float:
        (first_time, first_rows), (last_time, last_rows) = self._points[0], self._points[-1]
        seconds = last_time - first_time
        return (last_rows - first_rows) / seconds if seconds > _SHORTEST_SECONDS else 0.0


class Lines:
    """A plain line every ten seconds."""

    def __init__(self) -> None:
        self.total = self.done = self.failed = 0
        self._workers = ""
        self.rate = Rate()
        self._shown = time.monotonic()

    def begin(self, rows: int, done: int, failed: int) -> None:
        self.total, self.done, self.failed = rows, done, failed
        self.rate = Rate()
        if done and done < rows:
            self.say(f"Resuming: {done:,} of {rows:,} rows were done before.")

    def say(self, message: str) -> None:
        print(message, file=sys.stderr, flush=True)

    def actors(self, ready: int, wanted: int) -> None:
        self._workers = f", {ready} of {wanted} actors" if wanted > 1 else ""
        if not self.rate.rows:
            self.rate = Rate()  # the time that starting took is not in it

    def batch(self, batch: BatchDone) -> None:
        self.rate.add(batch.texts)
        if time.monotonic() - self._shown > _LINE_SECONDS:
            self._shown = time.monotonic()
            self.show()

    def event(self, event: Event) -> None:
        if isinstance(event, FileFailed):
            self.failed += 1
            self.say(f"Failed: {event.reason}")

    def show(self) -> None:
        done = min(self.total, self.done + self.rate.rows)
        self.say(
            f"{done:,} of {self.total:,} rows, {self.rate.recent:,.0f} rows/s "
            f"({self.rate.overall:,.0f} overall), {left(self.total - done, self.rate.recent)} left, "
            f"{self.failed} failed{self._workers}"
        )

    def end(self) -> None:
        pass


class Bar(Lines):
    """A rich progress bar."""

    def begin(self, rows: int, done: int, failed: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self.total, self.done, self.failed = rows, done, failed
        self.rate = Rate()
        self._bar = RichProgress(
            TextColumn("[bold]scoring"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("scoring", total=rows, completed=done, speed="loading the model")
        self._bar.start()

    def say(self, message: str) -> None:
        from rich.console import Console

        (self._bar.console if hasattr(self, "_bar") else Console(stderr=True)).print(message, markup=False)

    def batch(self, batch: BatchDone) -> None:
        self.rate.add(batch.texts)
        done = min(self.total, self.done + self.rate.rows)
        speed = f"{self.rate.recent:,.0f} rows/s ({self.rate.overall:,.0f} overall)"
        speed += f", {left(self.total - done, self.rate.recent)} left{self._workers}"
        if self.failed:
            speed += f", {self.failed} failed"
        self._bar.update(self._task, completed=done, speed=speed)

    def event(self, event: Event) -> None:
        if isinstance(event, SpanDone):
            self._bar.refresh()
        super().event(event)

    def end(self) -> None:
        self._bar.stop()


def left(rows: int, rate: float) -> str:
    """Return the time that `rows` take at `rate`, for people."""
    if rate <= 0:
        return "unknown time"
    return duration(rows / rate)


def duration(seconds: float) -> str:
    """Return a duration in the unit that fits, for people."""
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.1f} h"


def report(result: dict[str, Any]) -> None:
    """Print the report of a run: the three numbers that matter, then the rest."""
    from rich.console import Console
    from rich.markup import escape
    from rich.padding import Padding
    from rich.table import Table

    console = Console()
    rows, speed, tokens, engine = result["rows"], result["speed"], result["tokens"], result["engine"]
    console.print()
    if rows["this_run"]:
        headline = f"[bold green]{rows['this_run']:,}[/] reviews scored in {duration(speed['scoring_seconds'])}"
        if rows["this_run"] < rows["total"]:
            headline += f" ({rows['total'] - rows['this_run']:,} of {rows['total']:,} were done before)"
        console.print("  " + headline)
        console.print(f"  [bold green]{speed['rows_per_second']:,.0f}[/] reviews per second")
    else:
        console.print(f"  [bold green]{rows['total']:,}[/] reviews are complete, scored with these settings before")
    if result["defects"]["flagged"] or "negative" in result["labels"]:
        rate = result["defects"]["rate"]
        console.print(f"  [bold green]{result['defects']['flagged']:,}[/] flagged as defect ({rate:.1%})")
    console.print()
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column()
    unlabelled = sum(rows["unlabelled"].values())
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in rows["unlabelled"].items())
    table.add_row("rows", f"{rows['total']:,} in, {rows['total']:,} out, {unlabelled:,} unlabelled"
                  + (f" ({reasons})" if reasons else ""))  # fmt: skip
    labels = ", ".join(f"{escape(name)} {count:,} ({count / max(1, rows['labelled']):.0%})"
                       for name, count in sorted(result["labels"].items()))  # fmt: skip
    table.add_row("labels", labels or "none")
    if rows["this_run"]:
        table.add_row(
            "tokens",
            f"{speed['tokens_per_second']:,.0f}/s; padding {tokens['padding']:.1%}, "
            f"repeated texts {tokens['duplicates']:.1%}, cut {tokens['truncated']:.1%}",
        )
        stages = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in result["stages"].items())
        table.add_row("stages", f"{stages} (they overlap)")
        start = f"{speed['start_seconds']:.1f} s to plan and load the model, not in the rate"
        table.add_row("start", start + f"; {speed['process_seconds']:.1f} s from command to end")
    model = f"{escape(engine['model'])} ({engine['model_digest'][:8]})"
    table.add_row("model", f"{model}, {engine['backend']} {engine['precision']} on {engine['device']}, "
                  f"executor {engine['executor']}")  # fmt: skip
    if "cost" in result and result["cost"]["dollars_per_million_reviews"] is not None:
        cost = result["cost"]
        table.add_row("cost", f"${cost['dollars_per_million_reviews']:,.2f} per million reviews at "
                      f"${cost['price_per_hour']:,.2f} an hour")  # fmt: skip
    table.add_row("memory", f"{result['peak_rss_bytes'] / 2**20:,.0f} MiB at most")
    files = result["files"]
    words = [f"{files['written']:,} written"]
    words += [f"{files['complete_before']:,} complete before"] if files["complete_before"] else []
    words += [f"{len(files['failed']):,} failed"] if files["failed"] else []
    words += [f"{count:,} skipped ({reason})" for reason, count in files["skipped"].items()]
    table.add_row("files", ", ".join(words))
    table.add_row("output", escape(result["output"]))
    console.print(Padding(table, (0, 0, 0, 2)))
    for note in result["notes"]:
        console.print(f"  {note}", style="dim", highlight=False, markup=False, soft_wrap=True)


def dry_run(found: dict[str, Any]) -> None:
    """Print what a run would do."""
    from rich.console import Console

    console = Console()
    console.print(
        f"  [bold]{found['rows']:,}[/] reviews in {found['files']:,} files to score, "
        f"{found['complete_files']:,} files complete"
    )
    console.print(
        f"  about [bold]{duration(found['estimated_seconds'])}[/] "
        f"at {found['rows_per_second']:,.0f} reviews/s ({found['basis']})"
    )
    if found.get("estimated_dollars") is not None:
        console.print(f"  about [bold]${found['estimated_dollars']:,.2f}[/]")
    console.print(f"  to {found['output']}; reading {', '.join(found['columns'])}", markup=False, soft_wrap=True)
    for name, reason in found["failed"].items():
        console.print(f"  cannot be read: {name}: {reason}", style="red", markup=False, soft_wrap=True)
    for reason, count in found["skipped"].items():
        console.print(f"  {count:,} skipped ({reason})", markup=False)
    console.print("  Nothing was written.")
