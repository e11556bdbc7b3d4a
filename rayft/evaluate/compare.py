"""Compare: two models on the same unlabelled reviews, block by block, so that dumps of any size fit."""

from __future__ import annotations

import contextlib
import heapq
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rayft.data.columns import SCORE_FIELDS, choose_columns
from rayft.data.inputs import list_inputs
from rayft.data.source import open_parquet, read_rows
from rayft.data.staging import stage
from rayft.data.storage import locate
from rayft.errors import InputError, UsageError
from rayft.evaluate.config import CompareConfig
from rayft.evaluate.judges import ModelJudge, open_model
from rayft.evaluate.significance import mcnemar, wilson_interval
from rayft.score.run import Progress, Silent
from rayft.score.span import ScoreSettings, attach, strings
from rayft.text.clean import join

BINS = 20
_SHOWN_LETTERS = 1000

_ANSWERS = ("label", "confidence", "defect", "defect_score")

CHANGED_SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("row", pa.int64()),
        ("title", pa.string()),
        ("text", pa.string()),
        *(
            (f"{side}_{field.name}", field.type)
            for field in SCORE_FIELDS
            if field.name in _ANSWERS
            for side in ("old", "new")
        ),
        ("change", pa.float32()),
    ]
)


@dataclass
class Tally:
    """What is counted as blocks go by.

    Attributes:
        pairs: rows by (old label, new label), class numbers of the union of labels.
        flags: rows by (old defect flag, new defect flag).
        histogram: rows by change, see `_change`.
        top: the rows that changed most, a heap of (change, -order, row).
    """

    pairs: np.ndarray
    flags: np.ndarray = field(default_factory=lambda: np.zeros((2, 2), dtype=np.int64))
    histogram: np.ndarray = field(default_factory=lambda: np.zeros(BINS, dtype=np.int64))
    rows: int = 0
    compared: int = 0
    changed: int = 0
    total_change: float = 0.0
    top: list[tuple[float, int, dict[str, Any]]] = field(default_factory=list)


@dataclass(frozen=True)
class Side:
    """One of the models, with its labels as columns of the union of both models' labels."""

    judge: ModelJudge
    settings: ScoreSettings
    columns: np.ndarray


def compare(config: CompareConfig, progress: Progress | None = None) -> dict[str, Any]:
    """Score reviews with two models and return what differs.

    A row is changed if its label or its defect flag is another one. The change of a row is the total
    variation distance of the two probability vectors, which for two classes is |difference of P(negative)|.

    Raises:
        UsageError: a model, an input or a column is not there, or the models have no label in common.
    """
    try:
        return _compare(config, progress or Silent())
    except InputError as error:  # exit code 1 is for too many changes
        raise UsageError(str(error)) from error


def _compare(config: CompareConfig, progress: Progress) -> dict[str, Any]:
    started = time.monotonic()
    judges = [
        open_model(model, config.precision, config.device, config.max_length, config.threads)
        for model in (config.old, config.new)
    ]
    names, old, new = _sides(judges[0], judges[1], config)
    signed = old.settings.negative is not None and new.settings.negative is not None
    tally = Tally(np.zeros((len(names), len(names)), dtype=np.int64))
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="rayft-"))
        blocks, total = _blocks(config, folder)
        writer = None
        if config.output is not None:
            stream = stack.enter_context(locate(config.output).replacing())
            writer = stack.enter_context(pq.ParquetWriter(stream, CHANGED_SCHEMA, compression="zstd"))
        progress.begin(2 * total, 0, 0)
        try:
            for block in blocks:
                changed = _block(block, old, new, signed, tally, config.top, progress)
                if writer is not None and changed.num_rows:
                    writer.write_table(changed)
        finally:
            progress.end()
    return _report(config, names, old, new, signed, tally, time.monotonic() - started)


def _sides(old: ModelJudge, new: ModelJudge, config: CompareConfig) -> tuple[list[str], Side, Side]:
    names: list[str] = []
    for judge in (old, new):
        names += [label for label in judge.checkpoint.labels if label.lower() not in {n.lower() for n in names}]
    common = {label.lower() for label in old.checkpoint.labels} & {label.lower() for label in new.checkpoint.labels}
    if not common:
        raise UsageError(
            f"{old.name} has the labels {', '.join(old.checkpoint.labels)}, {new.name} has "
            f"{', '.join(new.checkpoint.labels)}: none in common, so nothing can be compared."
        )
    lower = [name.lower() for name in names]
    sides = []
    for judge in (old, new):
        labels = judge.checkpoint.labels
        settings = ScoreSettings(labels, judge.checkpoint.negative_index(config.negative_label), config.threshold)
        sides.append(Side(judge, settings, np.array([lower.index(label.lower()) for label in labels])))
    return names, sides[0], sides[1]


@dataclass(frozen=True)
class Block:
    """Some rows of one file."""

    file: str
    start: int
    titles: list[str | None] | None
    texts: list[str | None]


def _blocks(config: CompareConfig, folder: str) -> tuple[Iterator[Block], int]:
    """Return the rows of the inputs, and how many there are; every file is checked before the first is read."""
    listing = list_inputs(config.inputs)
    if not listing.files:
        raise UsageError(f"{', '.join(config.inputs)} holds no Parquet, CSV or JSONL file.")
    opened = []
    for file in listing.files:
        is_parquet = file.format == "parquet"
        source = open_parquet(file.location) if is_parquet else stage(file, locate(folder), infer_types=False)
        columns = choose_columns(
            source.schema, config.text_column, config.title_column, config.no_title, str(file.location)
        )
        opened.append((file.name, source, columns))
    total = sum(source.num_rows for _, source, _ in opened)
    limit = total if config.limit is None else min(total, config.limit)

    def blocks() -> Iterator[Block]:
        left = limit
        for name, source, columns in opened:
            wanted = [column for column in (columns.text, columns.title) if column is not None]
            start = 0
            for batch in read_rows(source, 0, min(left, source.num_rows), wanted):
                titles = strings(batch[columns.title]) if columns.title is not None else None
                yield Block(name, start, titles, strings(batch[columns.text]))
                start += batch.num_rows
            left -= start

    return blocks(), limit


def _block(block: Block, old: Side, new: Side, signed: bool, tally: Tally, top: int, progress: Progress) -> pa.Table:
    """Count one block and return its changed rows as CHANGED_SCHEMA."""
    scored, vectors = [], []
    for side in (old, new):
        span = side.judge.encode(block.titles, block.texts)
        found = side.judge.infer(span, progress.batch)
        scored.append(attach(span, found, side.settings))
        usable = span.row_text >= 0  # the same rows for both: it depends on the text only
        aligned = np.zeros((span.rows, len(tally.pairs)), dtype=np.float64)
        aligned[np.ix_(usable, side.columns)] = found[span.row_text[usable]]
        vectors.append(aligned)
    rows = np.flatnonzero(usable)
    before, after = (vector[rows] for vector in vectors)
    tally.rows += len(usable)
    tally.compared += len(rows)
    best = before.argmax(axis=1), after.argmax(axis=1)
    np.add.at(tally.pairs, best, 1)
    change = np.abs(after - before).sum(axis=1) / 2
    tally.total_change += float(change.sum())
    differs = best[0] != best[1]
    if signed:
        flags = [table["defect"].to_numpy(zero_copy_only=False)[rows].astype(bool) for table in scored]
        np.add.at(tally.flags, (flags[0].astype(int), flags[1].astype(int)), 1)
        differs |= flags[0] != flags[1]
        negative = [table["defect_score"].to_numpy(zero_copy_only=False)[rows] for table in scored]
        tally.histogram += np.histogram(negative[1] - negative[0], BINS, (-1, 1))[0]
    else:
        tally.histogram += np.histogram(change, BINS, (0, 1))[0]
    tally.changed += int(differs.sum())
    changed = _changed_rows(block, scored, rows[differs], change[differs])
    _keep_top(tally, changed, old.judge.checkpoint.join_format, top)
    return changed


def _changed_rows(block: Block, scored: list[pa.Table], rows: np.ndarray, change: np.ndarray) -> pa.Table:
    titles = [None if block.titles is None else block.titles[i] for i in rows.tolist()]
    columns: dict[str, Any] = {
        "file": [block.file] * len(rows),
        "row": block.start + rows,
        "title": titles,
        "text": [block.texts[i] for i in rows.tolist()],
        "change": change.astype(np.float32),
    }
    for side, table in zip(("old", "new"), scored, strict=True):
        for name in _ANSWERS:
            columns[f"{side}_{name}"] = table[name].take(pa.array(rows)).combine_chunks()
    return pa.table(columns, schema=CHANGED_SCHEMA)


def _keep_top(tally: Tally, changed: pa.Table, join_format: str, top: int) -> None:
    if not top or not changed.num_rows:
        return
    change = changed["change"].to_numpy()
    for i in np.argsort(-change, kind="stable")[:top].tolist():
        row = changed.slice(i, 1).to_pylist()[0]
        row["text"] = join(row.pop("title"), row["text"], join_format)[:_SHOWN_LETTERS]
        order = tally.changed - changed.num_rows + i
        item = (float(change[i]), -order, row)
        if len(tally.top) < top:
            heapq.heappush(tally.top, item)
        else:
            heapq.heappushpop(tally.top, item)


def _report(
    config: CompareConfig, names: list[str], old: Side, new: Side, signed: bool, tally: Tally, seconds: float
) -> dict[str, Any]:
    n = tally.compared
    if not n:
        raise UsageError(f"None of the {tally.rows:,} rows of {', '.join(config.inputs)} has a text.")
    agreeing = int(np.trace(tally.pairs))
    report: dict[str, Any] = {
        "inputs": list(config.inputs),
        "rows": {"read": tally.rows, "compared": n, "empty": tally.rows - n},
        "agreement": agreeing / n,
        "changed": {
            "rows": tally.changed,
            "share": tally.changed / n,
            "interval": list(wilson_interval(tally.changed, n)),
        },
        "mean_absolute_change": tally.total_change / n,
        "labels": names,
        "pairs": tally.pairs.tolist(),
        "defects": None,
        "histogram": {
            "of": "new P(negative) minus old" if signed else "total variation distance",
            "edges": np.linspace(-1 if signed else 0, 1, BINS + 1).round(6).tolist(),
            "rows": tally.histogram.tolist(),
        },
        "top": [row for _, _, row in sorted(tally.top, key=lambda item: (-item[0], -item[1]))],
        "seconds": round(seconds, 3),
    }
    for key, side, axis in (("old", old, 1), ("new", new, 0)):
        counts = tally.pairs.sum(axis=axis)
        report[key] = {
            "name": side.judge.name,
            "digest": side.judge.checkpoint.digest,
            "labels": {name: {"rows": int(c), "share": int(c) / n} for name, c in zip(names, counts, strict=True)},
        }
    if signed:
        only_old, only_new, both = int(tally.flags[1, 0]), int(tally.flags[0, 1]), int(tally.flags[1, 1])
        report["defects"] = {
            "threshold": config.threshold,
            "old_rate": (both + only_old) / n,
            "new_rate": (both + only_new) / n,
            "only_old": only_old,
            "only_new": only_new,
            "both": both,
            "mcnemar_p_value": mcnemar(only_old, only_new),
        }
    return report
