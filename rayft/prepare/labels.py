"""From the label of a source to the name of a class, or to the reason why the row cannot be used."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rayft.errors import UsageError

_ALIASES = {"neg": "negative", "pos": "positive", "negative": "negative", "positive": "positive"}
_INTEGRAL = re.compile(r"[+-]?\d+\.0+")
#: More values than this are not classes but free text, ids or prices.
MAX_CLASSES = 1000


@dataclass(frozen=True)
class LabelRule:
    """How values become classes.

    Attributes:
        names: (value, class) pairs, the only values that are used; None takes every value.
        stars_negative, stars_positive: if given, values are numbers of stars.
    """

    names: tuple[tuple[str, str], ...] | None = None
    stars_negative: tuple[float, ...] = ()
    stars_positive: tuple[float, ...] = ()

    def resolve(self, value: str | None) -> tuple[str | None, str | None]:
        """Return (class, None), or (None, why the row is dropped)."""
        value = canonical(value)
        if not value:
            return None, "no label"
        if self.stars_negative:
            return self._stars(value)
        if self.names is not None:
            found = dict(self.names).get(value)
            return (found, None) if found is not None else (None, f"unknown label '{value[:40]}'")
        return _ALIASES.get(value.lower(), value), None

    def _stars(self, value: str) -> tuple[str | None, str | None]:
        try:
            stars = float(value)
        except ValueError:
            return None, f"'{value[:40]}' is not a number of stars"
        if stars in self.stars_negative:
            return "negative", None
        if stars in self.stars_positive:
            return "positive", None
        return None, f"{stars:g} stars"


def canonical(value: str | None) -> str:
    """Return a label as text without surrounding space; `4.0` and `4` are one label."""
    value = (value or "").strip()
    return str(int(float(value))) if _INTEGRAL.fullmatch(value) else value


def label_strings(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column of strings, integers, floats, booleans or dictionaries as strings.

    Raises:
        UsageError: the column holds lists or structs.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_floating(column.type):
        whole = pc.and_kleene(pc.is_finite(column), pc.equal(column, pc.floor(column)))
        if pc.all(whole).as_py() is not False:
            column = column.cast(pa.int64())
    try:
        return column.cast(pa.string())
    except pa.ArrowException as error:
        raise UsageError(f"The label column holds {column.type}, not one label a row.") from error


def class_names(schema: pa.Schema, column: str) -> tuple[str, ...] | None:
    """Return the class names that the Hub's `datasets` library wrote into a Parquet file, if any."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[column]["names"]
        return tuple(str(name) for name in names) if features[column]["_type"] == "ClassLabel" else None
    except (KeyError, TypeError, ValueError):
        return None


def named(labels: pa.ChunkedArray, names: Sequence[str]) -> pa.ChunkedArray:
    """Replace class numbers, as strings, by names; others (-1 is the Hub's 'no label') become null."""
    found = pc.index_in(labels, value_set=pa.array([str(i) for i in range(len(names))]))
    return pc.take(pa.array(names, pa.string()), found)


def order_classes(names: Sequence[str]) -> list[str]:
    """Return class names in the order of their class numbers: as numbers if they are, else by name."""
    if all(re.fullmatch(r"[+-]?\d+", name) for name in names):
        return sorted(names, key=int)
    return sorted(names)


def resolve_column(column: pa.ChunkedArray, rule: LabelRule) -> tuple[np.ndarray, list[str], dict[int, str]]:
    """Apply `rule` to a column of strings.

    Returns:
        codes int32[n] (-1 where the row is dropped), the class names that the codes stand for, and
        the reason of each dropped row by row number.

    Raises:
        UsageError: there are far too many values for classes.
    """
    encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
    values = encoded.dictionary.to_pylist()
    if len(values) > MAX_CLASSES:
        raise UsageError(
            f"The label column holds more than {MAX_CLASSES} values, e.g. {values[0]!r} and {values[1]!r}; "
            "is it a class? Choose another with --label-column."
        )
    resolved = [rule.resolve(value) for value in values]
    classes = sorted({name for name, _ in resolved if name is not None})
    code_of = {name: code for code, name in enumerate(classes)}
    table = np.array([-1 if name is None else code_of[name] for name, _ in resolved], dtype=np.int32)
    indices = encoded.indices.to_numpy(zero_copy_only=False)
    codes = table[indices] if len(values) else np.zeros(0, dtype=np.int32)
    dropped = {int(row): str(resolved[indices[row]][1]) for row in np.flatnonzero(codes < 0)}
    return codes, classes, dropped
