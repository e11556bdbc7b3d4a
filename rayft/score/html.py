"""The report of a scoring run as a page to look at."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from rayft.report.html import Number, Section, big_numbers, facts, page, paragraph, reasons
from rayft.report.markup import join, tag
from rayft.report.scales import compact, dollars, duration, integer, percent, rate, size
from rayft.score import figures
from rayft.score.figures import Report, part

_MOST_FAILURES = 100


def score_page(report: Report) -> str:
    """Return the report of `rayft score` as one HTML document. Parts that the report lacks are left out."""
    sections = [
        _failures(report),
        figures.throughput(report),
        figures.labels(report),
        figures.confidences(report),
        figures.lengths(report),
        figures.stages(report),
        figures.workers(report),
        _rows_and_files(report),
        _speed(report),
        _setup(report),
        _notes(report),
    ]
    subtitle = " · ".join(text for text in (str(report.get("output", "")), _finished(report)) if text)
    return page("Scoring report", subtitle, [s for s in sections if s is not None], big_numbers(_headline(report)))


def _finished(report: Report) -> str:
    text = str(report.get("finished", ""))
    try:
        when = datetime.strptime(text, "%Y-%m-%dT%H:%M:%S%z")
    except ValueError:
        return text
    return f"finished {when:%Y-%m-%d %H:%M} {when:%z}"


def _headline(report: Report) -> list[Number]:
    rows, speed, defects = part(report, "rows"), part(report, "speed"), part(report, "defects")
    total, now, labelled = rows.get("total", 0), rows.get("this_run", 0), rows.get("labelled", 0)
    if now:
        before = f"; {total - now:,} of {total:,} were done before" if now < total else ""
        numbers = [
            Number(_big(now), "reviews scored", f"{now:,} in {duration(speed.get('scoring_seconds', 0.0))}{before}"),
            Number(rate(speed.get("rows_per_second", 0.0)), "reviews per second",
                   f"{rate(speed.get('tokens_per_second', 0.0))} tokens per second"),
        ]  # fmt: skip
    else:
        numbers = [
            Number(
                _big(total), "reviews complete", "scored with these settings before" if total else "no rows to score"
            ),
            Number("–", "reviews per second", "nothing was left to score"),
        ]
    flagged = defects.get("flagged", 0)
    if flagged or "negative" in part(report, "labels"):
        share = percent(defects.get("rate", 0.0))
        numbers.append(Number(share, "flagged as defect", f"{flagged:,} of {labelled:,} labelled reviews"))
    else:
        numbers.append(Number("–", "flagged as defect", "none"))
    unlabelled = part(rows, "unlabelled")
    if any(unlabelled.values()):
        numbers.append(Number(_big(sum(unlabelled.values())), "unlabelled", _counted(unlabelled)))
    return numbers


def _big(count: int) -> str:
    return compact(count) if count >= 10_000_000 else integer(count)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def _failures(report: Report) -> Section | None:
    failed = part(part(report, "files"), "failed")
    if not failed:
        return None
    shown = list(failed.items())[:_MOST_FAILURES]
    body = reasons(shown)
    if len(failed) > len(shown):
        body = join([body, paragraph(f"{len(failed) - len(shown):,} more are in failures.json beside the output.")])
    what = "1 input failed" if len(failed) == 1 else f"{len(failed):,} inputs failed"
    return Section(f"{what}; everything else is complete", body, wide=True, tone="warn")


def _rows_and_files(report: Report) -> Section:
    rows, files = part(report, "rows"), part(report, "files")
    total = rows.get("total", 0)
    pairs: list[tuple[str, object]] = [
        ("Rows in and out", integer(total)),
        ("Labelled", integer(rows.get("labelled", 0))),
    ]
    pairs += [(f"Unlabelled: {reason}", integer(count)) for reason, count in part(rows, "unlabelled").items()]
    if rows.get("this_run", 0) < total:
        pairs.append(("Done before this run", integer(total - rows.get("this_run", 0))))
    pairs.append(("Files written", integer(files.get("written", 0))))
    if files.get("complete_before"):
        pairs.append(("Files complete before", integer(files["complete_before"])))
    pairs.append(("Files failed", integer(len(part(files, "failed")))))
    pairs += [(f"Files skipped: {reason}", integer(count)) for reason, count in part(files, "skipped").items()]
    return Section("Rows and files", facts(pairs))


def _speed(report: Report) -> Section | None:
    speed, tokens, cost = part(report, "speed"), part(report, "tokens"), part(report, "cost")
    pairs: list[tuple[str, object]] = []
    scored = bool(part(report, "rows").get("this_run"))
    if scored:
        pairs = [
            ("Tokens per second", rate(speed.get("tokens_per_second", 0.0))),
            ("Tokens computed", integer(tokens.get("computed", 0))),
            ("Padding", percent(tokens.get("padding", 0.0))),
            ("Repeated texts", percent(tokens.get("duplicates", 0.0))),
        ]
    if "truncated" in tokens:
        pairs.append(("Reviews cut", percent(tokens["truncated"])))
    names = {
        "start_seconds": "Plan and load the model",
        "first_batch_seconds": "First batch done after",
        "scoring_seconds": "Scoring",
        "wall_seconds": "Whole run",
        "process_seconds": "From command to end",
    }
    if not scored:
        del names["scoring_seconds"]
    pairs += [(name, duration(speed[key])) for key, name in names.items() if speed.get(key) is not None]
    if report.get("peak_rss_bytes"):
        pairs.append(("Memory at most", size(report["peak_rss_bytes"])))
    amounts = {
        "dollars_per_million_reviews": "Cost per million reviews",
        "this_run_dollars": "Cost of this run",
        "price_per_hour": "Price per hour",
    }
    pairs += [(name, dollars(cost[key])) for key, name in amounts.items() if cost.get(key) is not None]
    return Section("Efficiency and cost" if cost else "Efficiency", facts(pairs)) if pairs else None


def _setup(report: Report) -> Section | None:
    engine, machine = dict(part(report, "engine")), part(report, "machine")
    known = {
        "model": "Model",
        "model_digest": "Model digest",
        "backend": "Engine",
        "precision": "Precision",
        "device": "Device",
        "executor": "Executor",
        "threads": "Threads",
        "batch_tokens": "Tokens per batch",
        "max_length": "Most tokens per review",
    }
    known |= {key: key.replace("_", " ").capitalize() for key in engine if key not in known}
    pairs: list[tuple[str, object]] = [
        (name, f"{engine[key]:,}" if type(engine[key]) is int else engine[key])
        for key, name in known.items()
        if engine.get(key) is not None
    ]
    pairs += [(name, machine[key]) for key, name in (("cores", "Cores"), ("system", "System")) if key in machine]
    versions = part(report, "versions")
    if versions:
        pairs.append(("Versions", join(tag("div", f"{name} {version}") for name, version in versions.items())))
    return Section("Set-up", facts(pairs)) if pairs else None


def _notes(report: Report) -> Section | None:
    notes = report.get("notes") or []
    return Section("Notes", join(paragraph(note) for note in notes), wide=True) if notes else None
