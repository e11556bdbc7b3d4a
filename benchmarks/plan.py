"""Time to plan: many small files, one huge row group, no rows at all, and a million spans.

    python benchmarks/plan.py [--quick]

Real Parquet files and the real planner; nothing is scored. The million spans are 4,100 files of a million
rows, whose columns repeat one value and are therefore small on disk. For the ledger, the spans of some of
these files are committed as a run commits them, and the work that is missing is found again.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.machine import keep
from rayft.config import ScoreConfig
from rayft.data.columns import SCORE_FIELDS
from rayft.score.commit import write_span
from rayft.score.report import peak_rss
from rayft.score.run import missing_work, prepare
from rayft.score.state import write_json
from rayft.score.stats import Stats


def plan(folder: Path) -> dict[str, float]:
    """Plan a folder and return seconds and counts."""
    started = time.perf_counter()
    config = ScoreConfig((str(folder),), output=str(folder.parent / "out"), precision="fp32", device="cpu")
    with prepare(config, keep=False) as ready:
        seconds = time.perf_counter() - started
        spans = sum(len(file.spans) for file in ready.plan.files)
        return {"seconds": seconds, "files": len(ready.plan.files), "spans": spans, "peak_rss_mib": peak_rss() / 2**20}


def small_files(root: Path, count: int) -> dict[str, float]:
    table = pa.table({"text": ["it broke after a week"] * 100})
    (root / "in").mkdir()
    pq.write_table(table, root / "in/0.parquet")
    data = (root / "in/0.parquet").read_bytes()
    for number in range(1, count):
        (root / f"in/{number}.parquet").write_bytes(data)
    return plan(root / "in")


def one_row_group(root: Path) -> dict[str, float]:
    (root / "in").mkdir()
    pq.write_table(pa.table({"text": ["fine"] * 1_000_000}), root / "in/a.parquet", row_group_size=1_000_000)
    return plan(root / "in")


def no_rows(root: Path) -> dict[str, float]:
    (root / "in").mkdir()
    for number in range(10):
        pq.write_table(pa.table({"text": pa.array([], pa.string())}), root / f"in/{number}.parquet")
    return plan(root / "in")


def million_spans(root: Path, files: int, started_files: int) -> dict[str, float]:
    (root / "in").mkdir()
    pq.write_table(pa.table({"text": ["fine"] * 1_000_000}), root / "in/0.parquet", row_group_size=250_000)
    data = (root / "in/0.parquet").read_bytes()
    for number in range(1, files):
        (root / f"in/{number:05d}.parquet").write_bytes(data)
    config = ScoreConfig((str(root / "in"),), output=str(root / "out"), precision="fp32", device="cpu")
    result = {}
    started = time.perf_counter()
    with prepare(config) as ready:
        result["plan_seconds"] = time.perf_counter() - started
        result["files"], result["spans"] = len(ready.plan.files), sum(len(f.spans) for f in ready.plan.files)
        empty = {f.name: pa.nulls(1, f.type) for f in SCORE_FIELDS}
        one = pa.table(empty)
        committed = 0
        started = time.perf_counter()
        for file in ready.plan.files[:started_files]:
            for span in file.spans[::2]:
                columns = pa.concat_tables([one]).take(pa.array([0] * span.rows))
                write_span(ready.state.spans(file.key), span, columns, Stats(rows=span.rows))
                committed += 1
        result["commits"], result["seconds_per_commit"] = committed, (time.perf_counter() - started) / committed
        write_json(ready.state.plan, {"spans": result["spans"]})
        started = time.perf_counter()
        before = Stats()
        missing = sum(len(work.missing) for work in missing_work(ready.state, ready.plan.files, before))
        result["ledger_seconds"] = time.perf_counter() - started
        if missing != result["spans"] - committed:
            raise AssertionError(f"{missing} missing of {result['spans']}")
    result["peak_rss_mib"] = peak_rss() / 2**20
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the files")
    args = parser.parse_args()
    scale = 10 if args.quick else 1
    results = {}
    for name, measure in (
        ("no rows, 10 files", no_rows),
        ("1,000,000 rows in one row group", one_row_group),
        (f"{10_000 // scale:,} files of 100 rows", lambda root: small_files(root, 10_000 // scale)),
        ("a million spans", lambda root: million_spans(root, 1_850 // scale, 20)),
    ):
        with tempfile.TemporaryDirectory() as folder:
            results[name] = measure(Path(folder))
        print(name, results[name], flush=True)
    print("kept in", keep("plan", results))


if __name__ == "__main__":
    main()
