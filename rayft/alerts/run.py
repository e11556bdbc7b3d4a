"""`rayft alerts`: scored Parquet -> alerts.parquet, alerts.json and alerts.html."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import polars as pl

from rayft import __version__
from rayft.alerts.baseline import Stream, streams
from rayft.alerts.config import AlertsConfig
from rayft.alerts.counts import NEGATIVE, SAFETY, SERVICE, Counts, Periods, count, types_of
from rayft.alerts.cusum import DAILY, WEEKLY
from rayft.alerts.detect import ALERT, JOINT, WATCH, detect
from rayft.alerts.extract import Scored, extract, open_scored
from rayft.alerts.page import render
from rayft.alerts.receipts import rank, receipts, to_frame
from rayft.alerts.state import AlertsState, Kept
from rayft.data.inputs import list_inputs
from rayft.data.source import parquet_identity
from rayft.data.storage import Location, locate
from rayft.errors import InputError, UsageError
from rayft.score.lock import writing

OUTPUTS = ("alerts.parquet", "alerts.json", "alerts.html")
#: Settings that change the alerts but not the counts, beside the inputs.
_DETECT_SETTINGS = (
    "period", "sensitivity", "specificity", "type_accuracy", "rise", "min_rise", "false_alarms",
    "safety_false_alarms", "fdr", "dedupe",
)  # fmt: skip


@dataclass
class _Found:
    """What a look at the inputs says."""

    scored: dict[str, Scored] = field(default_factory=dict)
    identities: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def find_alerts(config: AlertsConfig, say: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Find alerts and write them; returns the content of alerts.json with `failed` and `changed`.

    The result depends on the inputs and settings alone, never on earlier runs; what is kept between
    runs saves time only. With the same inputs and settings nothing is written.

    Raises:
        UsageError: inputs, columns or settings do not fit; nothing was done.
        StoppedError: another run writes the same output.
    """
    _check(config)
    output = locate(config.output)
    found = _look(config, output)
    state = AlertsState(output / "_rayft")
    with writing(state.lock, say):
        state.load()
        settings = _settings(config)
        inputs = _update_extracts(config, state, found, say)
        same = settings == state.settings and inputs == state.inputs and state.counts is not None
        if same and all((output / name).is_file() for name in OUTPUTS):
            result: dict[str, Any] = json.loads((output / "alerts.json").read_bytes())
            return {**result, "failed": found.failed, "changed": False}
        counts, flagged = _update_counts(config, state, inputs, say)
        known = state.thresholds()
        before = len(known)
        result, counts_of = _alerts(config, counts, flagged, inputs, known, say)
        if len(known) > before:
            state.keep_thresholds(known)
        _write(output, result, counts_of)
        state.inputs, state.settings = inputs, settings
        state.commit()
    return {**result, "failed": found.failed, "changed": True}


def _check(config: AlertsConfig) -> None:
    if config.sensitivity + config.specificity <= 1:
        raise UsageError(
            f"A classifier of sensitivity {config.sensitivity} and specificity {config.specificity} is no better than "
            "chance: their sum must be above 1."
        )
    if config.rise <= 1 and config.min_rise <= 0:
        raise UsageError("--rise must be above 1 or --min-rise above 0: there is no rise to look for.")


def _settings(config: AlertsConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in _DETECT_SETTINGS}


def _look(config: AlertsConfig, output: Location) -> _Found:
    listing = list_inputs(config.inputs, output)
    parquet = [file for file in listing.files if file.format == "parquet"] or listing.files
    if not parquet:
        why = "; ".join(f"{len(names)} {reason}" for reason, names in listing.skipped.items())
        raise UsageError(f"No scored Parquet in {', '.join(config.inputs)}{f' ({why})' if why else ''}.")
    found = _Found()
    for file in parquet:
        uri = str(file.location)
        try:
            found.scored[uri] = open_scored(file, config)
            found.identities[uri] = str(parquet_identity(file.location))
        except InputError as error:
            found.scored.pop(uri, None)
            found.failed[uri] = str(error)
    if not found.scored:
        raise UsageError(f"None of the inputs can be read: {next(iter(found.failed.values()))}")
    return found


def _update_extracts(
    config: AlertsConfig, state: AlertsState, found: _Found, say: Callable[[str], None]
) -> dict[str, Kept]:
    """Extract new and changed inputs; an input that cannot be read now counts as it was read last."""
    inputs = {uri: state.inputs[uri] for uri in found.failed if uri in state.inputs}
    for uri, scored in found.scored.items():
        name = state.extract_name(uri, found.identities[uri], config)
        kept = state.inputs.get(uri)
        if kept is not None and kept.extract == name and state.has_extract(name):
            inputs[uri] = kept
            continue
        say(f"Reading {uri}")
        try:
            reviews, left_out = extract(scored, config)
        except InputError as error:
            found.failed[uri] = str(error)
            if kept is not None:
                inputs[uri] = kept
            continue
        state.write_extract(name, reviews)
        inputs[uri] = Kept(found.identities[uri], name, scored.scorer, scored.scorer_facts, scored.columns.names(),
                           reviews.height, left_out)  # fmt: skip
    return dict(sorted(inputs.items()))


def _update_counts(
    config: AlertsConfig, state: AlertsState, inputs: dict[str, Kept], say: Callable[[str], None]
) -> tuple[Counts, pl.DataFrame]:
    """Count the products of new, changed and removed inputs again, and only those."""
    before = {kept.extract for kept in state.inputs.values()}
    now = [kept.extract for kept in inputs.values()]
    whole = state.counts is None or state.settings.get("dedupe") != config.dedupe
    different = before.symmetric_difference(now)
    if whole or any(not state.has_extract(name) for name in different):
        say("Counting all products")
        counts, flagged = count(state.read_extracts(now), config.dedupe)
    else:
        affected = sorted({product for name in different for product in state.products_of(name)})
        say(f"Counting {len(affected):,} products")
        counts, flagged = state.read_counts()
        part, part_flagged = count(state.read_extracts(now, affected), config.dedupe)
        counts = counts.without(affected).plus(part)
        gone = pl.Series(affected, dtype=pl.String)
        flagged = pl.concat([flagged.filter(~pl.col("product").is_in(gone.implode())), part_flagged])
    flagged = flagged.sort("product", "scorer", "day", "quote", "type", "score", nulls_last=True)
    state.write_counts(counts, flagged)
    return counts, flagged


def streams_of(config: AlertsConfig, counts: Counts, scorer: str) -> tuple[list[Stream], str]:
    """Return what is watched under one model, and the kind of its negative control."""
    reports = counts.reports.filter(pl.col("scorer") == scorer)
    kinds = set(reports["kind"].unique())
    types = types_of(reports)
    watched = streams(
        types, config.sensitivity, config.specificity, config.type_accuracy, config.rise, config.min_rise,
        config.false_alarms, config.safety_false_alarms, SAFETY in kinds,
    )  # fmt: skip
    return watched, SERVICE if SERVICE in kinds else NEGATIVE


def _alerts(
    config: AlertsConfig,
    counts: Counts,
    flagged: pl.DataFrame,
    inputs: dict[str, Kept],
    known: dict[str, list[float]],
    say: Callable[[str], None],
) -> tuple[dict[str, Any], Counts]:
    periods, timing = (Periods(1), DAILY) if config.period == "day" else (Periods(7), WEEKLY)
    facts = {kept.scorer: kept.facts for kept in inputs.values()}
    spans = counts.volume.group_by("scorer").agg(
        pl.col("day").min().alias("first"), pl.col("day").max().alias("last"), pl.col("reviews").sum()
    ).sort("last", "first", "scorer")  # fmt: skip
    made: list[dict[str, Any]] = []
    models, notes = [], _notes(config, counts, inputs)
    for scorer, first, last, reviews in spans.iter_rows():
        watched, control = streams_of(config, counts, scorer)
        say(f"Running {len(watched)} charts a product, model {facts[scorer]['model'] or 'unknown'}")
        alarms = detect(counts, scorer, watched, control, config.sensitivity, config.fdr, periods, timing, known)
        newest = scorer == spans["scorer"][-1]
        end = None if newest else periods.number(pl.lit(last))
        ended = None if end is None else int(pl.select(end).item())
        made += receipts(alarms, scorer, facts[scorer], watched, counts, flagged, periods, control, config.fdr, ended)
        models.append({**facts[scorer], "scorer": scorer, "first": first, "last": last, "reviews": reviews,
                       "charts": [asdict(stream) for stream in watched], "control": control})  # fmt: skip
        if SAFETY not in {stream.kind for stream in watched}:
            notes.append(_safety_note(counts, scorer, facts[scorer]["model"]))
        if control == NEGATIVE:
            notes.append("Negative control: service complaints are not told apart in these files; negative reviews "
                         "that report no defect stand in for them.")  # fmt: skip
    if len(models) > 1:
        newest_from = spans.filter(pl.col("scorer") == spans["scorer"][-1])["first"][0]
        notes.append(f"{len(models)} models or settings flagged these reviews. Each has its own baseline; the newest "
                     f"begins on {newest_from} and watches a product once its baseline is learned. Score the history "
                     "again with the new model to watch without a gap.")  # fmt: skip
    ranked = rank(made)
    days = counts.volume["day"]
    result = {
        "rayft": __version__,
        "settings": {**_settings(config), "period_days": periods.days},
        "data": {
            "reviews": int(counts.volume["reviews"].sum()),
            "copies_not_counted": int(counts.volume["collapsed"].sum()),
            "products": counts.volume["product"].n_unique(),
            "first": days.min(), "last": days.max(), "files": len(inputs),
            "left_out": _sum_up([kept.left_out for kept in inputs.values()]),
        },
        "models": models,
        "notes": list(dict.fromkeys(notes)),
        "summary": {status: sum(r["status"] == status for r in ranked) for status in (ALERT, WATCH, JOINT)},
        "alerts": ranked,
    }  # fmt: skip
    plain: dict[str, Any] = json.loads(json.dumps(result, default=str))
    return plain, counts


def _safety_note(counts: Counts, scorer: str, model: str | None) -> str:
    reports = counts.reports.filter(pl.col("scorer") == scorer)
    if types_of(reports):
        return "No safety report so far: the safety chart starts with the first one."
    return (f"The safety rule is inactive: {model or 'the model'} fills neither defect_type nor defect_severity. "
            "Only the share of all defect reports is watched.")  # fmt: skip


def _notes(config: AlertsConfig, counts: Counts, inputs: dict[str, Kept]) -> list[str]:
    notes = []
    roles = [set(kept.columns) for kept in inputs.values()]
    if any("text" not in found for found in roles):
        notes.append("Some files have no text column that is known: copies of reviews are not found there.")
    if not config.dedupe:
        notes.append("Copies of reviews were counted (--no-dedupe).")
    if counts.volume["category"].is_in([""]).any():
        notes.append("Products without a category are compared with each other.")
    return notes


def _sum_up(parts: list[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in parts:
        for reason, number in part.items():
            total[reason] = total.get(reason, 0) + number
    return total


def _write(output: Location, result: dict[str, Any], counts: Counts) -> None:
    buffer = io.BytesIO()
    dated = [{**r, **{k: _date(r[k]) for k in ("onset", "first_alarm", "ended")}} for r in result["alerts"]]
    to_frame(dated).write_parquet(buffer, compression="zstd")
    (output / "alerts.parquet").write_bytes(buffer.getvalue())
    (output / "alerts.html").write_bytes(render(result, counts).encode())
    (output / "alerts.json").write_bytes(json.dumps(result, indent=1, ensure_ascii=False).encode())


def _date(text: str | None) -> Any:
    from datetime import date

    return None if text is None else date.fromisoformat(text)
