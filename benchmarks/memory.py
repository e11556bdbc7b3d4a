"""Peak memory of `rayft score` on a small and on a large input; it must not grow with the input.

    python benchmarks/memory.py [--large-mb 1000]

The model is replaced by a stub, so that reading, encoding and writing are what is measured. Every run is
a process of its own. The inputs are made up: reviews of Amazon Polarity's mean length beside a column of
incompressible bytes, in one row group per 50 MB.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.machine import keep

_PAYLOAD = 3000
_ROWS_PER_GROUP = 50_000_000 // (_PAYLOAD + 450)
_RUN = """
import json, sys
import numpy as np
import rayft.score.job as job
from rayft.config import ScoreConfig
from rayft.score.run import score

class Stub:
    def logits(self, input_ids, attention_mask):
        first = input_ids[:, 1 % input_ids.shape[1]] % 7
        return np.stack([first, 3 - first], axis=1).astype(np.float32)

job.Job.build_engine = lambda self: Stub()
report = score(ScoreConfig((sys.argv[1],), output=sys.argv[2], engine="local"))
print(json.dumps({"rows": report["rows"]["this_run"], "peak_rss_bytes": report["peak_rss_bytes"],
                  "seconds": report["speed"]["wall_seconds"]}))
"""


def write_input(path: Path, megabytes: int) -> None:
    """Write about `megabytes` of Parquet."""
    rng = np.random.default_rng(0)
    words = [
        f"{a}{b}" for a in ("work", "break", "lid", "good", "slow", "kettle", "use") for b in ("", "s", "ed", "ing")
    ]
    chooser = random.Random(0)
    schema = pa.schema([("id", pa.int64()), ("text", pa.string()), ("payload", pa.binary())])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for group in range(max(1, megabytes // 50)):
            texts = [" ".join(chooser.choices(words, k=75)) for _ in range(_ROWS_PER_GROUP)]
            payload = rng.integers(0, 256, (_ROWS_PER_GROUP, _PAYLOAD), dtype=np.uint8)
            ids = pa.array(range(group * _ROWS_PER_GROUP, (group + 1) * _ROWS_PER_GROUP))
            columns = [ids, pa.array(texts), pa.array([row.tobytes() for row in payload])]
            writer.write_table(pa.table(columns, schema=schema), row_group_size=_ROWS_PER_GROUP)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large-mb", type=int, default=1000)
    args = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for megabytes in (50, args.large_mb):
            source = Path(folder) / f"{megabytes}.parquet"
            write_input(source, megabytes)
            ran = subprocess.run(
                [sys.executable, "-c", _RUN, str(source), str(Path(folder) / f"{megabytes}.out.parquet")],
                capture_output=True,
                text=True,
                check=True,
            )
            results[f"{megabytes} MB"] = {"file_bytes": source.stat().st_size, **json.loads(ran.stdout)}
            print(megabytes, "MB:", results[f"{megabytes} MB"], flush=True)
            source.unlink()
    peaks = [result["peak_rss_bytes"] for result in results.values()]
    print(f"difference: {(peaks[-1] - peaks[0]) / 2**20:.0f} MiB (target: at most 300)")
    print("kept in", keep("memory", {"runs": results, "difference_bytes": peaks[-1] - peaks[0]}))


if __name__ == "__main__":
    main()
