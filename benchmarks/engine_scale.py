"""The scoring engine without its model: memory, plan time, and overhead per row on large inputs.

    python benchmarks/engine_scale.py [--engine ray|local] [--gigabytes 4] [--files 10000]

A stub takes the model's place, in this process or in Ray's actors, so that planning, reading, encoding,
committing and assembling are all that is measured. Inputs are made at run time: texts of Amazon Polarity's
lengths (mean about 75 words, 99 % below 190) beside a column of incompressible bytes, as other columns of a
dump are. The resident memory of this process and all its descendants is sampled every second.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[1]))
import rayft.score.run as run
from benchmarks.machine import keep
from rayft.config import ScoreConfig
from rayft.score.job import Job

_PAYLOAD = 3000
_ROWS_PER_GROUP = 20_000
_WORDS = np.array(
    """the it and a of to was is this but not my for with works broke after week lid kettle battery screen good bad
    never again returned cheap plastic happy daughter love price quality stopped charging handle cracked""".split()  # noqa: SIM905
)


class Stub:
    """Answers from the first token, at once."""

    def logits(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        first = input_ids[:, 1 % input_ids.shape[1]] % 7
        return np.stack([first, 3 - first], axis=1).astype(np.float32)


class StubJob(Job):
    """A job whose engine is the stub, wherever it is built."""

    def build_engine(self) -> Any:
        return Stub()


def texts(rows: int, rng: np.random.Generator) -> list[str]:
    """Return texts whose word counts are log-normal: mean 75, 99 % below 190."""
    counts = np.clip(rng.lognormal(4.17, 0.5, rows).astype(int), 1, 400)
    words = _WORDS[rng.integers(0, len(_WORDS), int(counts.sum()))]
    return [" ".join(part) for part in np.split(words, np.cumsum(counts)[:-1])]


def write(path: Path, rows: int, payload: int, rows_per_group: int = _ROWS_PER_GROUP) -> None:
    rng = np.random.default_rng(0)
    schema = pa.schema([("id", pa.int64()), ("text", pa.string()), ("payload", pa.binary())])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, rows, _ROWS_PER_GROUP):
            count = min(_ROWS_PER_GROUP, rows - start)
            blob = rng.integers(0, 256, count * payload, dtype=np.uint8).tobytes()
            offsets = pa.array(np.arange(count + 1, dtype=np.int32) * payload).buffers()[1]
            binary = pa.Array.from_buffers(pa.binary(), count, [None, offsets, pa.py_buffer(blob)])
            table = pa.table(
                [pa.array(range(start, start + count)), pa.array(texts(count, rng)), binary], schema=schema
            )
            writer.write_table(table, row_group_size=rows_per_group)


class Memory(threading.Thread):
    """Samples the resident memory of this process and its descendants, in bytes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.samples: list[int] = []
        self._ended = threading.Event()

    def run(self) -> None:
        me = psutil.Process()
        while not self._ended.wait(1.0):
            total = 0
            for process in [me, *me.children(recursive=True)]:
                try:
                    total += process.memory_full_info().uss
                except psutil.Error:
                    continue
            self.samples.append(total)

    def stop(self) -> dict[str, Any]:
        self._ended.set()
        self.join()
        quarters = [max(part.tolist(), default=0) for part in np.array_split(np.array(self.samples), 4)]
        return {"peak_mib": max(self.samples, default=0) >> 20, "peak_by_quarter_mib": [int(q) >> 20 for q in quarters]}


def measure(source: Path, output: Path, engine: str) -> dict[str, Any]:
    memory = Memory()
    memory.start()
    report = run.score(ScoreConfig((str(source),), output=str(output), engine=engine, precision="fp32", device="cpu"))
    seconds = report["speed"]["scoring_seconds"]
    rows = report["rows"]["this_run"]
    work = sum(report["stages"].values())
    return {
        "rows": rows,
        "input_bytes": sum(p.stat().st_size for p in source.rglob("*.parquet")),
        "start_seconds": report["speed"]["start_seconds"],
        "seconds": seconds,
        "rows_per_second": rows / seconds,
        "microseconds_of_work_per_row": 1e6 * work / rows if rows else None,
        "stages": report["stages"],
        **memory.stop(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=["ray", "local"], default="ray")
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--files", type=int, default=10_000, help="of 100 rows each")
    parser.add_argument("--row-group", type=int, default=1_000_000, help="rows of the one large row group")
    args = parser.parse_args()
    plain = run.make_job
    run.make_job = lambda *given: StubJob(**vars(plain(*given)))
    if args.engine == "ray":
        from ray import cloudpickle

        cloudpickle.register_pickle_by_value(sys.modules[__name__])
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)

        def one(label: str, rows: int, payload: int, group: int, files: int = 1) -> None:
            source, output = folder / "in", folder / "out"
            source.mkdir()
            write(source / "0.parquet", rows, payload, group)
            for number in range(1, files):
                (source / f"{number}.parquet").write_bytes((source / "0.parquet").read_bytes())
            started = time.perf_counter()
            results[label] = measure(source, output, args.engine)
            results[label]["wall_seconds"] = time.perf_counter() - started
            print(label, results[label], flush=True)
            for path in sorted(folder.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()

        if args.files:
            one(f"{args.files:,} files of 100 rows", 100, 10, 100, args.files)
        if args.row_group:
            one(f"{args.row_group:,} rows in one row group", args.row_group, 10, args.row_group)
        if args.gigabytes:
            rows = int(args.gigabytes * 1e9 / (_PAYLOAD + 250))
            one(f"{args.gigabytes:g} GB", rows, _PAYLOAD, _ROWS_PER_GROUP)
    print("kept in", keep(f"engine-scale-{args.engine}", results))


if __name__ == "__main__":
    main()
