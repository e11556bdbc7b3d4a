"""Decide for every row of the shards: its class, its split, and whether it is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rayft.errors import UsageError
from rayft.prepare.config import DEFAULT_SHARES, PrepareConfig
from rayft.prepare.duplicates import SIGNATURE, find_duplicates, jaccard
from rayft.prepare.labels import MAX_CLASSES, order_classes
from rayft.prepare.rows import SPLITS
from rayft.prepare.shards import ROW_DTYPE, Shard

_TRAIN, _VALIDATION, _TEST = range(3)
#: Own test rows are originals before own validation rows, and those before the rest.
_PRIORITY = np.array([2, 1, 0], dtype=np.int8)


@dataclass(frozen=True)
class Plan:
    """What becomes of the rows, in the order of the shards.

    Attributes:
        classes: class names by class number.
        labels: int32[n], class numbers; -1 for rows of rare classes.
        splits: int8[n], places in SPLITS; -1 for rows that are left out.
        lengths: int32[n], tokens.
        truncated: bool[n], longer than the stored maximum.
        starts: int64[shards + 1], rows of shard k are [starts[k], starts[k + 1]).
        read: raw rows. `dropped` and `examples` by reason. `duplicates`: counts, see `_count`.
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    splits: np.ndarray
    lengths: np.ndarray
    truncated: np.ndarray
    starts: np.ndarray
    read: int
    characters: int
    dropped: dict[str, int]
    examples: dict[str, list[str]]
    duplicates: dict[str, int]


def make_plan(shards: Sequence[Shard], letters: np.ndarray, config: PrepareConfig, scratch: Path) -> Plan:
    """Return the plan; it depends on the shards and `config` only.

    Args:
        letters: the result of `duplicates.word_ids`.
        scratch: folder for the signatures of all rows, 64 bytes a row, which are not held in memory.

    Raises:
        UsageError: nothing is left, or a single class.
    """
    dropped: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    for shard in shards:
        dropped.update(shard.marker["dropped"])
        for reason, rows in shard.marker["examples"].items():
            examples[reason] = (examples.get(reason, []) + rows)[:3]
    read = sum(shard.marker["read"] for shard in shards)
    starts = np.concatenate([[0], np.cumsum([shard.marker["rows"] for shard in shards], dtype=np.int64)])
    hints = _column(shards, "split")
    classes, labels, rare = _classes(shards, config.min_label_rows)
    for name, count in rare.items():
        dropped[f"rare label '{name}' (fewer than {config.min_label_rows} rows)"] = count
    if len(classes) < 2:
        raise UsageError(_too_few_classes(classes, labels, read, dropped, examples))
    original, exact = _duplicates(shards, starts, hints, labels, letters, config.similarity, scratch)
    splits = draw_splits(labels, hints, original, config)
    before = splits.copy()
    duplicate = original >= 0
    elsewhere = duplicate & (splits != splits[original])  # a negative index is masked by `duplicate`
    if config.duplicates == "between":
        splits[elsewhere] = -1
    elif config.duplicates == "all":
        splits[duplicate] = -1
    counts = _count(before, splits, labels, original, exact, elsewhere)
    if not_used := int((before == -1).sum() - (labels < 0).sum()):
        dropped["not drawn (--train, --validation, --test)"] = not_used
    return Plan(
        classes=tuple(classes),
        labels=labels,
        splits=splits,
        lengths=_column(shards, "length"),
        truncated=_column(shards, "truncated"),
        starts=starts,
        read=read,
        characters=sum(shard.marker["characters"] for shard in shards),
        dropped=dict(dropped.most_common()),
        examples=examples,
        duplicates=counts,
    )


def draw_splits(labels: np.ndarray, hints: np.ndarray, original: np.ndarray, config: PrepareConfig) -> np.ndarray:
    """Return int8[n], the split of every row before duplicates are dropped; -1 for rows not drawn.

    Rows whose source says `test` or `validation` stay there. If none says so, they are drawn from
    the others, each class in proportion, from rows that are nobody's duplicate.

    Args:
        labels: int32[n], -1 for rows that are out.
        hints: int8[n], the sources' own splits, -1 for none.
        original: int64[n], as `find_duplicates` returns it.
    """
    usable = labels >= 0
    splits = np.where(usable, np.where(hints < 0, _TRAIN, hints), -1).astype(np.int8)
    alone = (original < 0) | (config.duplicates == "keep")
    for split in (_TEST, _VALIDATION, _TRAIN):
        size = getattr(config, SPLITS[split])
        own = splits == split
        rng = np.random.default_rng([config.seed, split])
        if split == _TRAIN or (hints == split).any():
            if size is not None:
                chosen = _stratified(np.flatnonzero(own & alone), labels, _rows_of(size, int(own.sum())), rng)
                splits[own] = -1
                splits[chosen] = split
            continue
        free = (splits == _TRAIN) & alone
        count = _rows_of(size, int(free.sum())) if size is not None else _default_rows(SPLITS[split], int(free.sum()))
        splits[_stratified(np.flatnonzero(free), labels, count, rng)] = split
    return splits


def _default_rows(split: str, available: int) -> int:
    share, most = DEFAULT_SHARES[split]
    return min(_rows_of(share, available), most)


def _rows_of(size: float, available: int) -> int:
    return min(available, int(size) if size >= 1 else round(size * available))


def _stratified(rows: np.ndarray, labels: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `count` of `rows`, of each class in proportion (largest remainders), at least one if it can be."""
    count = min(count, len(rows))
    if not count:
        return rows[:0]
    classes, of_class = np.unique(labels[rows], return_inverse=True)
    sizes = np.bincount(of_class)
    exact = sizes * (count / len(rows))
    quota = np.floor(exact).astype(np.int64)
    if count >= len(classes):
        quota = np.maximum(quota, 1)
    for k in np.argsort(quota - exact, kind="stable"):  # the largest remainders first
        if quota.sum() >= count:
            break
        quota[k] += 1
    while quota.sum() > count:
        quota[np.argmax(quota)] -= 1
    quota = np.minimum(quota, sizes)
    drawn = [rng.permutation(rows[of_class == k])[:n] for k, n in enumerate(quota)]
    return np.sort(np.concatenate(drawn))


def _column(shards: Sequence[Shard], name: str) -> np.ndarray:
    """Return a field of `ROW_DTYPE` of all rows."""
    return np.concatenate([np.zeros(0, ROW_DTYPE[name]), *(shard.rows[name] for shard in shards)])


def _classes(shards: Sequence[Shard], least: int) -> tuple[list[str], np.ndarray, dict[str, int]]:
    """Return the names of the classes, the class number of every row, and the rare classes with their rows."""
    counts: Counter[str] = Counter()
    for shard in shards:
        found = np.bincount(shard.rows["label"], minlength=len(shard.marker["classes"]))
        for name, count in zip(shard.marker["classes"], found, strict=True):
            counts[name] += int(count)
    if len(counts) > MAX_CLASSES:
        raise UsageError(f"The label column holds {len(counts):,} values; is it a class? Choose with --label-column.")
    rare = {name: count for name, count in sorted(counts.items()) if count < least}
    classes = order_classes([name for name in counts if name not in rare])
    number = {name: code for code, name in enumerate(classes)}
    labels = []
    for shard in shards:
        table = np.array([number.get(name, -1) for name in shard.marker["classes"]] or [-1], dtype=np.int32)
        labels.append(table[shard.rows["label"]])
    return classes, np.concatenate(labels or [np.zeros(0, np.int32)]), rare


def _too_few_classes(
    classes: Sequence[str], labels: np.ndarray, read: int, dropped: Counter[str], examples: dict[str, list[str]]
) -> str:
    if not read:
        return "The sources hold no rows."
    what = (
        f"All {int((labels >= 0).sum()):,} usable rows have the label '{classes[0]}'; a classifier needs two."
        if classes
        else f"None of the {read:,} rows is usable."
    )
    reasons = "; ".join(
        f"{reason}: {count:,}" + (f" (e.g. {examples[reason][0]})" if reason in examples else "")
        for reason, count in dropped.most_common(8)
    )
    return f"{what} Dropped: {reasons}." if reasons else what


def _duplicates(
    shards: Sequence[Shard],
    starts: np.ndarray,
    hints: np.ndarray,
    labels: np.ndarray,
    letters: np.ndarray,
    similarity: float,
    scratch: Path,
) -> tuple[np.ndarray, np.ndarray]:
    """Return `find_duplicates` of all rows; rows of rare classes are nobody's original."""
    n = int(starts[-1])
    path = scratch / "signatures.npy"
    together = np.lib.format.open_memmap(path, "w+", np.uint16, (max(1, n), SIGNATURE))
    for shard, start in zip(shards, starts[:-1], strict=True):
        together[start : start + shard.marker["rows"]] = shard.signatures
    tokens = [shard.ids for shard in shards]
    ends = [np.cumsum(shard.rows["length"], dtype=np.int64) for shard in shards]

    def row_ids(row: int) -> np.ndarray:
        k = int(np.searchsorted(starts, row, side="right")) - 1
        place = row - int(starts[k])
        return tokens[k][int(ends[k][place - 1]) if place else 0 : int(ends[k][place])]

    priority = np.where(hints < 0, _PRIORITY[0], _PRIORITY[hints])
    priority[labels < 0] = 3
    try:
        return find_duplicates(
            _column(shards, "hash"),
            priority,
            together[:n],
            similarity,
            lambda a, b: jaccard(row_ids(a), row_ids(b), letters),
        )
    finally:
        del together
        path.unlink(missing_ok=True)


def _count(
    before: np.ndarray,
    after: np.ndarray,
    labels: np.ndarray,
    original: np.ndarray,
    exact: np.ndarray,
    elsewhere: np.ndarray,
) -> dict[str, int]:
    """Count duplicates: exact and near, between and within splits; how many are dropped; labels in conflict."""
    taken = (original >= 0) & (before >= 0)
    counts: dict[str, Any] = {}
    for kind, of_kind in (("exact", exact), ("near", ~exact)):
        counts[f"{kind} between splits"] = int((taken & of_kind & elsewhere).sum())
        counts[f"{kind} within a split"] = int((taken & of_kind & ~elsewhere).sum())
    counts["dropped"] = int((taken & (after < 0)).sum())
    counts["same words, other label"] = int((taken & exact & (labels != labels[original])).sum())
    return counts
