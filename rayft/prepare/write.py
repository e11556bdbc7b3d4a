"""Gather the kept rows of the shards into the flat arrays of a store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rayft.data.arrays import FileDigest, write_array
from rayft.data.storage import Location
from rayft.prepare.plan import Plan
from rayft.prepare.rows import SPLITS
from rayft.prepare.shards import Shard

#: Rows whose text a store keeps, for profiles.
SAMPLE_ROWS = 4096


def write_splits(output: Location, shards: Sequence[Shard], plan: Plan) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write the arrays of every split that has rows, in the order of the sources.

    Returns:
        for `store.json`: the statistics of the splits, and {file name: size and digest}.
    """
    splits: dict[str, Any] = {}
    files: dict[str, Any] = {}
    for code, name in enumerate(SPLITS):
        chosen = plan.splits == code
        if not chosen.any():
            continue
        lengths = plan.lengths[chosen]
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        truncated = plan.truncated[chosen]
        folder = output / name
        ids = np.dtype(np.uint32 if shards[0].ids.dtype == np.uint32 else np.uint16)
        written = {
            "ids": write_array(folder / "ids.npy", ids, (int(offsets[-1]),), _tokens(shards, plan, chosen)),
            "offsets": write_array(folder / "offsets.npy", np.dtype(np.int64), offsets.shape, [offsets]),
            "labels": write_array(folder / "labels.npy", np.dtype(np.int32), lengths.shape, [plan.labels[chosen]]),
            "truncated": write_array(folder / "truncated.npy", np.dtype(bool), truncated.shape, [truncated]),
        }
        files |= {f"{name}/{array}.npy": asdict(digest) for array, digest in written.items()}
        splits[name] = {
            "rows": len(lengths),
            "tokens": int(offsets[-1]),
            "truncated": int(truncated.sum()),
            "classes": class_counts(plan, chosen),
            "lengths": describe_lengths(lengths),
        }
    return splits, files


def describe_lengths(lengths: np.ndarray) -> dict[str, float]:
    """Return mean, percentiles and maximum of lengths in tokens."""
    out = {"mean": round(float(lengths.mean()), 2)}
    for percent in (50, 90, 99):
        out[f"p{percent}"] = int(np.percentile(lengths, percent, method="higher"))
    return {**out, "max": int(lengths.max())}


def class_counts(plan: Plan, chosen: np.ndarray) -> dict[str, int]:
    """Return the rows of each class among the chosen ones."""
    counts = np.bincount(plan.labels[chosen], minlength=len(plan.classes))
    return {name: int(count) for name, count in zip(plan.classes, counts, strict=True)}


def samples(shards: Sequence[Shard], plan: Plan) -> pa.Table:
    """Return a sample of the kept rows: text, label, split and tokens, those of the smallest text hashes."""
    tables = []
    for k, shard in enumerate(shards):
        table = shard.samples()
        rows = int(plan.starts[k]) + table["row"].to_numpy()
        kept = np.flatnonzero(plan.splits[rows] >= 0)
        rows = rows[kept]
        tables.append(
            pa.table(
                {
                    "hash": table["hash"].take(kept),
                    "text": table["text"].take(kept),
                    "label": pa.array([plan.classes[c] for c in plan.labels[rows]], pa.string()),
                    "split": pa.array([SPLITS[s] for s in plan.splits[rows]], pa.string()),
                    "tokens": pa.array(plan.lengths[rows], pa.int32()),
                }
            )
        )
    together = pa.concat_tables(tables)
    chosen = np.argsort(together["hash"].to_numpy(), kind="stable")[:SAMPLE_ROWS]
    return together.take(pa.array(np.sort(chosen))).drop_columns(["hash"])


def write_table(location: Location, table: pa.Table) -> FileDigest:
    """Write a small table as Parquet and return its digest."""
    import hashlib

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    data = sink.getvalue().to_pybytes()
    location.write_bytes(data)
    return FileDigest(len(data), hashlib.sha256(data).hexdigest())


def _tokens(shards: Sequence[Shard], plan: Plan, chosen: np.ndarray) -> Iterator[np.ndarray]:
    for k, shard in enumerate(shards):
        keep = chosen[plan.starts[k] : plan.starts[k + 1]]
        if keep.any():
            ids, lengths = shard.ids, shard.rows["length"]
            yield ids if keep.all() else ids[np.repeat(keep, lengths)]
