"""From a ScoreConfig to a plan: look at every input, settle columns and names, compare with what is there."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from rayft.config import ScoreConfig
from rayft.data.columns import ReviewColumns, appended_fields, check_collisions, choose_columns
from rayft.data.inputs import InputFile, Listing, list_inputs
from rayft.data.object_store import without_secrets
from rayft.data.source import Source, digest_of, open_parquet
from rayft.data.staging import stage
from rayft.data.storage import Location, locate
from rayft.errors import InputError, StoppedError, UsageError
from rayft.model.checkpoint import Checkpoint
from rayft.model.engine import EngineSpec, openvino_installed, resolve_engine
from rayft.score.cluster import resolve_on_cluster, runs_elsewhere
from rayft.score.commit import parse_footer, read_footer
from rayft.score.plan import FilePlan, cut_parts, cut_spans, differences, file_key, rows_per_span
from rayft.score.state import State, read_json

#: Changes when the same settings come to mean other scores.
_SCORING_VERSION = 1
_PART_ROWS = 2_000_000
_THREADS = 32


@dataclass
class Plan:
    """All that a run has to do and what it may leave alone.

    Attributes:
        files: outputs to write, in order of name; `complete` ones are there already.
        failed: input name -> (reason, identity) of files that cannot be read.
        span_rows: rows that spans are cut at; kept in the state folder for resuming.
    """

    listing: Listing
    engine: EngineSpec
    span_rows: int
    appended: dict[str, pa.Field]
    files: list[FilePlan] = field(default_factory=list)
    complete: list[FilePlan] = field(default_factory=list)
    failed: dict[str, tuple[str, str]] = field(default_factory=dict)
    guessed: set[ReviewColumns] = field(default_factory=set)


def output_of(config: ScoreConfig) -> Location:
    """Return where the output goes.

    Raises:
        UsageError: there are several inputs or a folder, and no --output, or it is in the place of something else.
    """
    if config.output:
        output = locate(config.output)
        _check_place(output)
        return output
    if len(config.inputs) == 1:
        location = locate(config.inputs[0])
        if location.is_file():
            stem = InputFile(location, location.name, "parquet", 0).output_name.removesuffix(".parquet")
            return location.parent / f"{stem}.scored.parquet"
        if not location.is_dir() and not any(c in location.path for c in "*?["):
            raise UsageError(f"There is no file or directory {without_secrets(config.inputs[0])}.")
    raise UsageError("Several files need a folder for their outputs: choose one with --output.")


def _check_place(output: Location) -> None:
    single = output.path.endswith(".parquet")
    if single and output.is_dir():
        raise UsageError(f"--output {output} is a folder; a name that ends in .parquet is for one file.")
    if not single and output.is_file():
        raise UsageError(f"--output {output} is a file; give a folder, or a name that ends in .parquet.")
    above = output.parent
    while output.is_local and above.path != "/":
        if above.is_file():
            raise UsageError(f"--output {output} cannot be written: {above} is a file.")
        above = above.parent


def make_plan(config: ScoreConfig, checkpoint: Checkpoint, output: Location, state: State) -> Plan:
    """Plan a run. Nothing is written but staged copies of CSV and JSONL inputs.

    Raises:
        UsageError: columns, names or settings do not fit; nothing was done.
    """
    listing = list_inputs(config.inputs, output)
    if not listing.files:
        inputs = ", ".join(without_secrets(given) for given in config.inputs)
        raise UsageError(f"There is nothing to score in {inputs}.{_skipped_words(listing)}")
    _check_names(listing.files, output, config.layout)
    fields = appended_fields(config.prefix, config.columns)
    own_names = [f.name for f in appended_fields("", config.columns)]
    stored = read_json(state.plan) or {}
    engine, span_rows = _resolve(config, checkpoint, stored)
    plan = Plan(listing, engine, span_rows, dict(zip(own_names, fields, strict=True)))
    remaining = config.limit
    failures = read_json(state.failures) or {}
    scored_before: list[str] = []
    for file, opened in zip(listing.files, _open_all(config, listing.files, state, failures), strict=True):
        if isinstance(opened, tuple):
            plan.failed[file.name] = opened
            continue
        if parse_footer(opened.footer) is not None:
            listing.skip("scored by rayft already", file.name)
            scored_before.append(file.name)
            continue
        columns = choose_columns(
            opened.schema, config.text_column, config.title_column, config.no_title, str(file.location)
        )
        check_collisions(opened.schema, fields, str(file.location))
        plan.guessed.add(columns)
        rows = opened.num_rows if remaining is None else min(remaining, opened.num_rows)
        if remaining is not None:
            remaining -= rows
            if not rows and opened.num_rows:
                continue
        settings = _settings(config, checkpoint, engine, columns)
        if config.limit is not None:
            settings["limit"] = rows
        plan.files += _file_plans(
            file, opened, columns, settings, cut_spans(opened.row_groups, span_rows, rows), config
        )
    if scored_before and not plan.files and not plan.failed:
        raise UsageError(f"There is nothing to score: {', '.join(scored_before[:5])} was scored by rayft already.")
    _check_outputs(plan, config, output)
    return plan


def _skipped_words(listing: Listing) -> str:
    words = [f"{len(names)} skipped ({reason})" for reason, names in listing.skipped.items()]
    return f" {'; '.join(words)}." if words else ""


def _check_names(files: list[InputFile], output: Location, layout: str) -> None:
    single = output.path.endswith(".parquet")
    if single and len(files) > 1:
        raise UsageError(f"--output {output} is one file, but there are {len(files)} inputs. Give a folder.")
    if single and layout == "parts":
        raise UsageError("--layout parts writes several files; give a folder as --output.")
    targets: dict[str, InputFile] = {}
    for file in files:
        target = output if single else output / file.output_name
        if str(target) == str(file.location):
            raise UsageError(f"The output {target} would replace its input. Choose another --output.")
        other = targets.setdefault(str(target).lower(), file)
        if other is not file:
            raise UsageError(
                f"{other.location} and {file.location} would both be written to {target}. "
                "Rename one, or score them into different folders."
            )


def _resolve(config: ScoreConfig, checkpoint: Checkpoint, stored: dict[str, Any]) -> tuple[EngineSpec, int]:
    """Choose engine and span size, or take those with which this output was begun."""
    if stored.get("asked") == _asked(config, checkpoint):
        engine = EngineSpec(**stored["engine"])
        if engine.device == "cuda" and resolve_engine("auto", "auto").device != "cuda" and not runs_elsewhere(config):
            raise StoppedError(
                "This output was begun on a GPU and this machine has none. Resume it on a GPU, "
                "or start again with --device cpu --overwrite."
            )
        if engine.backend == "openvino" and not openvino_installed():
            raise StoppedError(
                "This output was begun with OpenVINO, which is not installed here. Install it with "
                "pip install 'rayft[fast]', or start again with --engine-backend torch --overwrite."
            )
        return engine, int(stored["span_rows"])
    resolve = resolve_on_cluster if runs_elsewhere(config) else _resolve_here
    engine = resolve(config, checkpoint)
    return engine, rows_per_span(engine.device, engine.precision, engine.backend)


def _asked(config: ScoreConfig, checkpoint: Checkpoint) -> dict[str, str]:
    """Return what an engine is resolved from."""
    return {
        "precision": config.precision,
        "device": config.device,
        "backend": config.engine_backend,
        "model": checkpoint.digest,
    }


def _resolve_here(config: ScoreConfig, checkpoint: Checkpoint) -> EngineSpec:
    return resolve_engine(config.precision, config.device, config.engine_backend, checkpoint.config)


def plan_record(config: ScoreConfig, checkpoint: Checkpoint, plan: Plan) -> dict[str, Any]:
    """Return what the state folder keeps of a plan: enough to cut the same spans again."""
    return {
        "asked": _asked(config, checkpoint),
        "engine": vars(plan.engine),
        "span_rows": plan.span_rows,
        "rows": sum(f.rows for f in plan.files + plan.complete),
        "spans": sum(len(f.spans) for f in plan.files + plan.complete),
        "files": [
            {"input": f.name, "output": f.output, "key": f.key, "rows": f.rows, "spans": len(f.spans)}
            for f in plan.files
        ],
        "complete": len(plan.complete),
        "rows_complete": sum(f.rows for f in plan.complete),
        "spans_complete": sum(len(f.spans) for f in plan.complete),
    }


def _settings(
    config: ScoreConfig, checkpoint: Checkpoint, engine: EngineSpec, columns: ReviewColumns
) -> dict[str, Any]:
    """Return all that the scores of a file depend on, by names that a person understands."""
    return {
        "scoring": _SCORING_VERSION,
        "model": checkpoint.digest,
        "max_length": config.max_length or checkpoint.max_length,
        "truncation": checkpoint.truncation,
        "engine": engine.backend,
        "device": engine.device,
        "precision": engine.precision,
        "threshold": config.threshold,
        "negative_label": config.negative_label,
        "text_column": columns.text,
        "title_column": columns.title,
        "infer_types": config.infer_types,
        "prefix": config.prefix,
        "columns": None if config.columns is None else sorted(config.columns),
    }


def _open_all(
    config: ScoreConfig, files: Iterable[InputFile], state: State, failures: dict[str, Any]
) -> Iterable[Source | tuple[str, str]]:
    """Open all inputs in parallel; one that cannot be read becomes (reason, identity)."""

    def open_one(file: InputFile) -> Source | tuple[str, str]:
        identity = _rough_identity(file)
        known = failures.get(file.name)
        if known and known["identity"] == identity and not config.retry_failed:
            return f"{known['reason']} (not tried again: the file is unchanged; --retry-failed tries it)", identity
        try:
            if file.format == "parquet":
                return open_parquet(file.location)
            return stage(file, state.staged, config.infer_types)
        except InputError as error:
            return str(error), identity

    with ThreadPoolExecutor(_THREADS) as pool:
        yield from pool.map(open_one, files)


def _rough_identity(file: InputFile) -> str:
    """Return an identity of a file that may be damaged: its size and its last bytes."""
    try:
        with file.location.filesystem.open_input_file(file.location.path) as stream:
            size = stream.size()
            return f"{size}, {digest_of(stream.read_at(min(size, 4096), max(0, size - 4096)))}"
    except OSError as error:
        return str(error)


def _file_plans(
    file: InputFile,
    source: Source,
    columns: ReviewColumns,
    settings: dict[str, Any],
    spans: tuple[Any, ...],
    config: ScoreConfig,
) -> list[FilePlan]:
    parts = cut_parts(spans, _PART_ROWS) if config.layout == "parts" else [spans]
    plans = []
    for number, part in enumerate(parts):
        output = file.output_name
        if len(parts) > 1:
            output = f"{output.removesuffix('.parquet')}/part-{number:05d}.parquet"
        own = {**settings, "part": [part[0].start, sum(s.rows for s in part)]} if len(parts) > 1 else settings
        draft = FilePlan("", source, file.name, output, columns, own, part)
        key = file_key(output, source.identity, draft.fingerprint)
        plans.append(FilePlan(key, source, file.name, output, columns, own, part))
    return plans


def _check_outputs(plan: Plan, config: ScoreConfig, output: Location) -> None:
    """Move outputs that are complete aside; refuse to replace others unless told to.

    Raises:
        UsageError: an output of other settings, of another version of the input, or of somebody else.
    """
    single = output.path.endswith(".parquet")
    if single:
        existing = {output.path} if output.is_file() else set()
    else:
        existing = {info.path for info in output.listing(recursive=True) if info.path.endswith(".parquet")}
    todo: list[FilePlan] = []

    def look(file: FilePlan) -> tuple[FilePlan, str | None, bool]:
        target = output if single else output / file.output
        if target.path not in existing:
            return file, None, False
        try:
            footer = read_footer(target)
        except InputError as error:
            return file, str(error), False
        if footer is None:
            return file, f"{target} is there and was not written by rayft score.", False
        if footer["fingerprint"] != file.fingerprint:
            changed = "; ".join(differences(file.settings, footer["settings"]))
            return file, f"{target} was scored with other settings ({changed}).", False
        if footer["identity"] != str(file.source.identity):
            return (
                file,
                f"{file.name} has changed since {target} was scored "
                f"({footer['identity']} before, {file.source.identity} now).",
                False,
            )
        return file, None, True

    refused: list[str] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for file, reason, done in pool.map(look, plan.files):
            if done:
                plan.complete.append(file)
            else:
                todo.append(file)
                if reason and not config.overwrite:
                    refused.append(reason)
    if refused:
        more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
        raise UsageError(f"{refused[0]}{more} Nothing was changed. Use --overwrite to replace, or another --output.")
    plan.files = todo
