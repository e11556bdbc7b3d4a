"""Clean, fingerprint and tokenise chunks of raw rows, in parallel, into shards on a local disk.

A shard is a folder of arrays and a marker, `done.json`, that is written last. A run that is killed
does again only the shards without a marker.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer

from rayft.data.arrays import write_array
from rayft.data.storage import Location, locate
from rayft.prepare.duplicates import SIGNATURE, signatures, text_hash, word_ids
from rayft.prepare.labels import LabelRule, resolve_column
from rayft.prepare.rows import SPLITS, Source, in_chunks
from rayft.text.clean import join
from rayft.text.encode import Encoder, Truncation

SHARD_ROWS = 32_768
#: Rows of each shard whose text is kept for profiles: those of the smallest text hashes.
SAMPLE_ROWS = 1024
SAMPLE_SCHEMA = pa.schema([("row", pa.int64()), ("hash", pa.uint64()), ("text", pa.string())])
#: What a shard knows of each row, in one file. `split` is the place in SPLITS, -1 for none.
ROW_DTYPE = np.dtype([("hash", "<u8"), ("length", "<i4"), ("label", "<i4"), ("split", "i1"), ("truncated", "?")])
_ENCODE_ROWS = 1024
_EXAMPLES = 3


@dataclass(frozen=True)
class ShardSettings:
    """What a worker needs to know; plain values, so that they can be sent to it."""

    tokenizer_file: str
    max_length: int
    truncation: Truncation
    wide: bool
    rule: LabelRule


@dataclass(frozen=True)
class Shard:
    """A finished shard.

    Attributes:
        marker: `read`, `rows`, `characters` (counts), `dropped` and `examples` (by reason) and
            `classes` (names of the shard's own label codes).
    """

    folder: Path
    marker: dict[str, Any]

    @property
    def ids(self) -> np.ndarray:
        """uint16 or uint32[tokens] of all rows, memory-mapped."""
        return self._array("ids")

    @property
    def rows(self) -> np.ndarray:
        """ROW_DTYPE[rows], memory-mapped."""
        return self._array("rows")

    @property
    def signatures(self) -> np.ndarray:
        """uint16[rows, SIGNATURE], memory-mapped."""
        return self._array("signatures")

    def _array(self, name: str) -> np.ndarray:
        path = self.folder / f"{name}.npy"
        return np.asarray(np.load(path, mmap_mode="r" if self.marker["rows"] else None))

    def samples(self) -> pa.Table:
        """Return the sampled rows, `SAMPLE_SCHEMA`; `row` counts the rows of this shard."""
        return pq.read_table(self.folder / "samples.parquet")


class ShardMaker:
    """Makes shards; holds the tokeniser."""

    def __init__(self, settings: ShardSettings) -> None:
        self.settings = settings
        tokenizer = Tokenizer.from_file(settings.tokenizer_file)
        self._encoder = Encoder(tokenizer, settings.max_length, settings.truncation)
        self._letters = word_ids(tokenizer)

    def make(self, table: pa.Table, folder: Path, part: str, first_row: int) -> dict[str, Any]:
        """Write the shard of one chunk of raw rows and return its marker.

        Args:
            first_row: number of the chunk's first row in its part, from 1, for messages.
        """
        reasons: dict[int, str] = {
            row: reason for row, reason in enumerate(table["problem"].to_pylist()) if reason is not None
        }
        codes, classes, unlabelled = resolve_column(table["label"], self.settings.rule)
        splits = table["split"].to_pylist()
        texts = [join(t, b) for t, b in zip(table["title"].to_pylist(), table["text"].to_pylist(), strict=True)]
        for row in range(len(texts)):
            if row not in reasons:
                if not texts[row]:
                    reasons[row] = "empty text"
                elif splits[row] == "unlabelled":
                    reasons[row] = "no label"
                elif row in unlabelled:
                    reasons[row] = unlabelled[row]
        kept = [row for row in range(len(texts)) if row not in reasons]
        marker = {
            "read": len(texts),
            "rows": len(kept),
            "characters": sum(len(texts[row]) for row in kept),
            "classes": classes,
            "dropped": dict(sorted(Counter(reasons.values()).items())),
            "examples": _examples(reasons, part, first_row),
        }
        ids, rows, signed = self._encode([texts[row] for row in kept])
        rows["label"] = codes[kept]
        rows["split"] = [_split_code(splits[row]) for row in kept]
        location = locate(folder)
        for name, array in (("ids", ids), ("rows", rows), ("signatures", signed)):
            write_array(location / f"{name}.npy", array.dtype, array.shape, [array])
        _write_samples(location / "samples.parquet", rows["hash"], [texts[row] for row in kept])
        (location / "done.json").write_bytes(json.dumps(marker, indent=1).encode())
        return marker

    def _encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return ids, rows without label and split, and signatures."""
        rows = np.zeros(len(texts), dtype=ROW_DTYPE)
        rows["hash"] = np.fromiter((text_hash(text) for text in texts), dtype=np.uint64, count=len(texts))
        ids = [np.zeros(0, dtype=np.uint32 if self.settings.wide else np.uint16)]
        signed = [np.zeros((0, SIGNATURE), dtype=np.uint16)]
        for start in range(0, len(texts), _ENCODE_ROWS):
            own = rows[start : start + _ENCODE_ROWS]
            encoded = self._encoder(texts[start : start + _ENCODE_ROWS])
            ids.append(encoded.ids.astype(ids[0].dtype))
            signed.append(signatures(encoded.ids, encoded.offsets, self._letters, own["hash"]))
            own["length"] = encoded.lengths
            own["truncated"] = encoded.truncated
        return np.concatenate(ids), rows, np.concatenate(signed)


def _split_code(split: str | None) -> int:
    """Return -1 for rows whose source names no split, else the place in SPLITS."""
    return SPLITS.index(split) if split in SPLITS else -1


def _examples(reasons: dict[int, str], part: str, first_row: int) -> dict[str, list[str]]:
    out: dict[str, list[str]] = {}
    for row in sorted(reasons):
        found = out.setdefault(reasons[row], [])
        if len(found) < _EXAMPLES:
            found.append(f"{part}, row {first_row + row:,}")
    return out


def _write_samples(location: Location, hashes: np.ndarray, texts: Sequence[str]) -> None:
    rows = np.sort(np.argsort(hashes, kind="stable")[:SAMPLE_ROWS])
    table = pa.table([rows, hashes[rows], [texts[row] for row in rows]], schema=SAMPLE_SCHEMA)
    with location.replacing() as stream:
        pq.write_table(table, stream, compression="zstd")


def make_shards(
    sources: Sequence[Source],
    settings: ShardSettings,
    folder: Path,
    workers: int,
    on_shard: Callable[[dict[str, Any], bool], None],
) -> list[Shard]:
    """Make the shards that are not there yet and return all of them in the order of the sources.

    Args:
        on_shard: called with each marker and whether it was there before.
    """
    numbers: list[str] = []

    def tasks() -> Iterator[tuple[pa.Table, Path, str, int]]:
        for number, (source, part) in enumerate((s, p) for s in sources for p in s.parts):
            ended = folder / f"{number:05d}.parts.json"
            if ended.exists():  # nothing of this part needs to be read again
                for name in json.loads(ended.read_text()):
                    numbers.append(name)
                    on_shard(json.loads((folder / name / "done.json").read_text()), True)
                continue
            own: list[str] = []
            for index, chunk in enumerate(in_chunks(part.read(), SHARD_ROWS)):
                name = f"{number:05d}-{index:05d}"
                own.append(name)
                numbers.append(name)
                if (done := folder / name / "done.json").exists():
                    on_shard(json.loads(done.read_text()), True)
                    continue
                where = part.name if source.name.endswith(part.name) else f"{source.name}: {part.name}"
                yield chunk, folder / name, where, index * SHARD_ROWS + 1
            finished.append((ended, own))

    finished: list[tuple[Path, list[str]]] = []

    def mark_parts() -> None:
        while finished and all((folder / name / "done.json").exists() for name in finished[0][1]):
            ended, own = finished.pop(0)
            locate(ended).write_bytes(json.dumps(own).encode())

    for marker in _run(tasks(), settings, workers):
        on_shard(marker, False)
        mark_parts()
    mark_parts()
    return [Shard(folder / name, json.loads((folder / name / "done.json").read_text())) for name in numbers]


def _run(
    tasks: Iterator[tuple[pa.Table, Path, str, int]], settings: ShardSettings, workers: int
) -> Iterator[dict[str, Any]]:
    first = next(tasks, None)
    if first is None:
        return
    second = next(tasks, None) if workers > 1 else None
    if workers == 1 or second is None:  # starting processes would cost more than it gives
        maker = ShardMaker(settings)
        yield maker.make(*first)
        for task in tasks:
            yield maker.make(*task)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(settings,)) as pool:
        running: set[Future[dict[str, Any]]] = {pool.submit(_work, *first), pool.submit(_work, *second)}
        try:
            for task in tasks:
                while len(running) > workers:  # one chunk waits, so that no worker does
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
                running.add(pool.submit(_work, *task))
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_maker: ShardMaker | None = None


def _start_worker(settings: ShardSettings) -> None:
    global _maker
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one process a core already
    pa.set_cpu_count(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _maker = ShardMaker(settings)


def _end_with_parent() -> None:
    """Leave with a parent that was killed; the pool's own queue would keep this process waiting forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        with contextlib.suppress(Exception):
            parent.join()
        os._exit(1)


def _work(table: pa.Table, folder: Path, part: str, first_row: int) -> dict[str, Any]:
    assert _maker is not None
    return _maker.make(table, folder, part, first_row)
