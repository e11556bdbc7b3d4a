"""Labelled reviews in memory, with what they are sliced by: category and stars."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from rayft.alerts.columns import CATEGORY_NAMES
from rayft.data.columns import is_text
from rayft.data.inputs import InputFile, list_inputs
from rayft.data.source import open_parquet, read_rows
from rayft.data.staging import stage
from rayft.data.storage import locate
from rayft.errors import InputError, UsageError, nearest
from rayft.evaluate.config import EvaluateConfig
from rayft.prepare.columns import STAR_NAMES, find_columns
from rayft.prepare.config import PrepareConfig
from rayft.prepare.folders import class_files
from rayft.prepare.labels import LabelRule, canonical, class_names, label_strings, named
from rayft.prepare.recognise import open_source
from rayft.prepare.rows import split_of
from rayft.score.span import strings
from rayft.text.clean import clean

_FIELDS = ("title", "text", "label", "split", "problem", "category", "stars", "file")
_SCHEMA = pa.schema([*((name, pa.large_string()) for name in _FIELDS), ("row", pa.int64())])
_SHOWN_VALUES = 8


@dataclass(frozen=True)
class Labelled:
    """Reviews whose label is a class of the model.

    Attributes:
        table: title, text, category, stars, file (all large strings) and row, the place in the file.
        truth: int64[n], class numbers.
        read: rows of the sources; `dropped`: those left out, by reason; `usable`: rows before --limit.
        splits: evaluated rows of each split that the data names.
        sources: name and kind of each source.
    """

    table: pa.Table
    truth: np.ndarray
    read: int
    dropped: dict[str, int]
    usable: int
    splits: dict[str, int]
    sources: list[dict[str, str]]

    def __len__(self) -> int:
        return len(self.truth)

    def texts(self, rows: slice | np.ndarray = slice(None)) -> tuple[list[str | None], list[str | None]]:
        """Return (titles, texts) of some rows."""
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(len(self))
            part = self.table.slice(start, stop - start)
        else:
            part = self.table.take(rows)
        return part["title"].to_pylist(), part["text"].to_pylist()

    def column(self, name: str) -> list[str | None]:
        values: list[str | None] = self.table[name].to_pylist()
        return values


def read_labelled(
    config: EvaluateConfig, sources: Sequence[str], classes: Sequence[str], limit: int | None
) -> Labelled:
    """Read labelled reviews.

    Args:
        classes: class names of the model by class number; case does not matter.

    Raises:
        UsageError: a source or column is not there, or no label is one of the model's.
    """
    prepare = PrepareConfig(
        sources=tuple(sources),
        output="",
        text_column=config.text_column,
        title_column=config.title_column,
        no_title=config.no_title,
        label_column=config.label_column,
        stars_negative=config.stars_negative,
        stars_positive=config.stars_positive,
        labels=config.labels,
    )
    described: list[dict[str, str]] = []
    blocks = [table for given in sources for table in _read(given, prepare, config, described)]
    table = pa.concat_tables(blocks) if blocks else _SCHEMA.empty_table()
    rule = LabelRule(prepare.labels, prepare.stars_negative, prepare.stars_positive)
    truth, reasons = _resolve(table, rule, classes, config.split)
    usable = np.flatnonzero(truth >= 0)
    dropped = dict(Counter(reason for reason in reasons if reason).most_common())
    if not len(usable):
        raise UsageError(_no_labels(table, sources, classes, dropped))
    chosen = usable
    if limit is not None and limit < len(usable):
        chosen = np.sort(np.random.default_rng(config.seed).choice(usable, limit, replace=False))
    kept = table.select(["title", "text", "category", "stars", "file", "row"]).take(chosen)
    splits = Counter(split for split in table["split"].take(chosen).to_pylist() if split)
    return Labelled(kept, truth[chosen], table.num_rows, dropped, len(usable), dict(splits.most_common()), described)


def _read(
    given: str, prepare: PrepareConfig, config: EvaluateConfig, described: list[dict[str, str]]
) -> Iterator[pa.Table]:
    """Yield the rows of one source as `_SCHEMA`.

    Tables are read as `rayft score` reads them, which gives category and stars; everything else, and
    tables that it refuses (no header, another delimiter), as `rayft prepare` reads it.
    """
    files = _table_files(given)
    if files:
        with tempfile.TemporaryDirectory(prefix="rayft-") as folder:
            try:
                tables = [table for file in files for table in _read_table(file, folder, prepare, config)]
            except (UsageError, InputError):
                if all(file.format == "parquet" for file in files):
                    raise
            else:
                described.append({"name": given, "kind": ", ".join(sorted({file.format for file in files}))})
                yield from tables
                return
    source = open_source(given, prepare)
    for option, name in (("--category-column", config.category_column), ("--stars-column", config.stars_column)):
        if name is not None:
            raise UsageError(f"{given} ({source.kind}) has no further columns; leave {option} out.")
    described.append({"name": given, "kind": source.kind})
    for part in source.parts:
        start = 0
        for table in part.read():
            yield _with_rows(
                {**{name: table[name] for name in table.column_names}, "category": None, "stars": None},
                part.name,
                start,
            )
            start += table.num_rows


def _table_files(given: str) -> list[InputFile]:
    """Return the tables that a source stands for; none if it is something else."""
    if given.startswith("hf://"):
        return []
    location = locate(given)
    if location.is_dir() and class_files(location, location.listing(recursive=True)):
        return []
    try:
        return list_inputs([given]).files
    except UsageError:
        return []


def _read_table(file: InputFile, folder: str, prepare: PrepareConfig, config: EvaluateConfig) -> Iterator[pa.Table]:
    location = file.location
    source = open_parquet(location) if file.format == "parquet" else stage(file, locate(folder), infer_types=False)
    schema, where = source.schema, str(location)
    columns = find_columns(schema, prepare, where)
    category = _extra(schema, config.category_column, CATEGORY_NAMES, "--category-column", where)
    stars = _extra(schema, config.stars_column, STAR_NAMES, "--stars-column", where)
    split = columns.split or next((name for name in schema.names if name.lower() == "split"), None)
    label = columns.label
    assert label is not None
    names = class_names(schema, label)
    wanted = {name for name in (columns.text, columns.title, label, split, category, stars) if name is not None}
    start = 0
    for batch in read_rows(source, 0, source.num_rows, [name for name in schema.names if name in wanted]):
        table = pa.Table.from_batches([batch])
        labels = label_strings(table[label])
        yield _with_rows(
            {
                "title": None if columns.title is None else strings(table[columns.title]),
                "text": strings(table[columns.text]),
                "label": labels if names is None else named(labels, names),
                "split": None if split is None else [split_of(v) or v for v in label_strings(table[split]).to_pylist()],
                "problem": None,
                "category": None if category is None else label_strings(table[category]),
                "stars": None if stars is None else label_strings(table[stars]),
            },
            file.name,
            start,
        )
        start += table.num_rows


def _with_rows(columns: dict[str, object], file: str, start: int) -> pa.Table:
    count = len(columns["text"])  # type: ignore[arg-type]
    arrays = []
    for name in _FIELDS[:-1]:
        values = columns[name]
        if values is None:
            arrays.append(pa.nulls(count, pa.large_string()))
        elif isinstance(values, list):
            arrays.append(pa.array(values, pa.large_string()))
        else:
            arrays.append(values.cast(pa.large_string()))  # type: ignore[attr-defined]
    arrays += [pa.array([file] * count, pa.large_string()), pa.array(range(start, start + count), pa.int64())]
    return pa.table(arrays, schema=_SCHEMA)


def _extra(schema: pa.Schema, name: str | None, known: Sequence[str], option: str, where: str) -> str | None:
    """Return the column that the user named, or one with a common name that holds plain values."""
    if name is not None:
        if name not in schema.names:
            hint = nearest(name, list(schema.names))
            raise UsageError(
                f"{where} has no column '{name}'; it has: {', '.join(schema.names)}.{hint} Choose one with {option}."
            )
        return name
    lower = {found.lower(): found for found in schema.names}
    found = next((lower[wanted] for wanted in known if wanted in lower), None)
    if found is None:
        return None
    kind = schema.field(found).type
    plain = is_text(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)
    return found if plain else None


def _resolve(
    table: pa.Table, rule: LabelRule, classes: Sequence[str], split: str | None
) -> tuple[np.ndarray, list[str | None]]:
    """Return (int64[n] class numbers, -1 where the row is left out; the reasons)."""
    number = {name.lower(): k for k, name in enumerate(classes)}
    of_value: dict[str | None, tuple[int, str | None]] = {}
    truth = np.full(table.num_rows, -1, dtype=np.int64)
    reasons: list[str | None] = [None] * table.num_rows
    columns = (table[name].to_pylist() for name in ("text", "label", "split", "problem"))
    for row, (text, value, own_split, problem) in enumerate(zip(*columns, strict=True)):
        if value not in of_value:
            name, reason = rule.resolve(value)
            code = number.get(name.lower(), -1) if name is not None else -1
            if code < 0 and reason is None:
                reason = f"label '{canonical(value)[:40]}' is not one of the model's"
            of_value[value] = code, reason
        code, reason = of_value[value]
        if problem is not None:
            reason = problem
        elif split is not None and own_split != split:
            reason = f"not in split {split}"
        elif reason is None and not (text and clean(text)):
            reason = "no text"
        if reason is None:
            truth[row] = code
        reasons[row] = reason
    return truth, reasons


def _no_labels(table: pa.Table, sources: Sequence[str], classes: Sequence[str], dropped: dict[str, int]) -> str:
    where = ", ".join(sources)
    if not table.num_rows:
        return f"{where} holds no rows."
    if all("not one of the model's" in reason for reason in dropped):
        counts = Counter(table["label"].to_pylist())
        values = [canonical(value) for value, _ in counts.most_common(_SHOWN_VALUES)]
        more = ", ..." if len(counts) > len(values) else ""
        example = ",".join(f"{v}={c}" for v, c in zip(sorted(values), classes, strict=False))
        return (
            f"The labels of {where} are {', '.join(values)}{more}; the model's are {', '.join(classes)}. "
            f"Say which is which, e.g. --labels {example}, or --stars-negative 1,2 --stars-positive 4,5."
        )
    reasons = "; ".join(f"{reason}: {count:,}" for reason, count in list(dropped.items())[:_SHOWN_VALUES])
    return f"None of the {table.num_rows:,} rows of {where} can be used: {reasons}."
