"""`rayft prepare` on reviews of Amazon Polarity's lengths, and how fast the store feeds a training loop.

    python benchmarks/prepare.py [--rows 3600000] [--workers 2] [--folder FOLDER]

The reviews are made at run time in the layout of the original csv, as train.csv and test.csv (a tenth):
word counts are log-normal (mean about 75, 99 % below 190), words follow Zipf's law over the vocabulary,
one in twelve is a made-up word that splits into several tokens, punctuation stands after one word in
eight; 1 % are exact and 0.5 % near copies of other reviews. Time and memory are of the command and all
its processes: memory is the sum of proportional set sizes, memory-mapped files included, sampled four
times a second.

Feeding: batches are planned as for training (`shuffled_batches` on lengths cut to 256), collated and
padded out of the memory-mapped store by one process and by one process a core. Tokens count without
padding. Processor seconds stand beside wall-clock seconds, because the latter mean little on a busy
machine; the load is written down too.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.machine import keep
from rayft.data.store import TokenStore
from rayft.model.checkpoint import BUNDLED
from rayft.text.batches import shuffled_batches

_SCRIPT = Path(__file__).parents[1] / "cli.py"
_BLOCK_ROWS = 20_000
_MAX_LENGTH = 256
_BATCH_TOKENS = 16_384
_PUBLISHED_ROWS = 3_600_000


def write_reviews(path: Path, rows: int, seed: int) -> int:
    """Write a csv of `rows` reviews and return its number of words."""
    rng = np.random.default_rng(seed)
    tokens = Tokenizer.from_file(str(BUNDLED / "tokenizer.json")).get_vocab()
    ranked = [word for word, _ in sorted(tokens.items(), key=lambda item: item[1]) if word.isascii() and word.isalpha()]
    common = np.array(ranked, dtype=object)
    pieces = rng.integers(0, len(common), (50_000, 2))
    words = np.concatenate([common, common[pieces[:, 0]] + common[pieces[:, 1]]])
    weights = 1.0 / (np.arange(len(common)) + 2.7)
    weights = np.concatenate([weights * (11 / 12 / weights.sum()), np.full(len(pieces), 1 / 12 / len(pieces))])
    bounds = np.cumsum(weights)
    marks = np.array([",", ".", ".", "!", "..."], dtype=object)
    total = 0
    with path.open("w", encoding="utf-8") as file:
        for start in range(0, rows, _BLOCK_ROWS):
            n = min(_BLOCK_ROWS, rows - start)
            counts = np.clip(rng.lognormal(4.22, 0.443, n).astype(int), 3, 230)
            drawn = words[np.minimum(np.searchsorted(bounds, rng.random(counts.sum())), len(words) - 1)]
            marked = rng.random(len(drawn)) < 1 / 8
            drawn[marked] = drawn[marked] + marks[rng.integers(0, len(marks), marked.sum())]
            total += len(drawn)
            ends = np.cumsum(counts)
            texts = [" ".join(drawn[end - count : end]) for end, count in zip(ends, counts, strict=True)]
            kinds = rng.random(n)
            for i in np.flatnonzero(kinds < 0.015):  # copies of a review of this block
                copy = texts[rng.integers(0, n)]
                texts[i] = copy if kinds[i] < 0.01 else copy + " truly"
            labels = rng.integers(1, 3, n)
            file.writelines(
                f'"{label}","{" ".join(text.split(" ", 4)[:3])}","{text}"\n'
                for label, text in zip(labels, texts, strict=True)
            )
    return total


def run_prepare(source: Path, store: Path, workers: int) -> dict[str, Any]:
    """Run the command in processes of its own and watch their memory."""
    command = [sys.executable, _SCRIPT, "prepare", source, "--output", store, "--workers", str(workers)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    process = subprocess.Popen([*command, "--check-labels", "0", "--json"], stdout=subprocess.PIPE, text=True)
    peak = 0
    while process.poll() is None:
        peak = max(peak, proportional_memory(process.pid))
        time.sleep(0.25)
    seconds = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert process.stdout is not None
    if process.returncode:
        raise SystemExit(process.returncode)
    report = json.loads(process.stdout.read())
    rows = report["statistics"]["read"]
    tokens = sum(split["tokens"] for split in report["splits"].values())
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "rows": rows,
        "tokens": tokens,
        "seconds": round(seconds, 1),
        "seconds_reading": report["seconds_reading"],
        "processor_seconds": round(processor, 1),
        "tokens_per_second": round(tokens / seconds),
        "tokens_per_processor_second": round(tokens / processor),
        "peak_memory_mib": peak >> 20,
        "store_bytes": report["bytes"],
        "store_bytes_per_row": round(report["bytes"] / rows, 1),
        "duplicates": report["statistics"]["duplicates"],
        "splits": report["splits"],
    }


def proportional_memory(pid: int) -> int:
    """Return the proportional set sizes of a process and its descendants, in bytes."""
    total = 0
    try:
        for process in [parent := psutil.Process(pid), *parent.children(recursive=True)]:
            total += process.memory_full_info().pss
    except psutil.Error:
        pass  # one has just ended; the next sample counts
    return total


def feed(store: str, rank: int, ranks: int, seconds: float) -> dict[str, float]:
    """Plan, then collate every `ranks`-th batch for some seconds."""
    train = TokenStore.open(store).split("train")
    planned = time.monotonic()
    plan = shuffled_batches(train.lengths(_MAX_LENGTH), _BATCH_TOKENS, np.random.default_rng(0))
    plan_seconds = time.monotonic() - planned
    tokens = places = batches = 0
    started, processor = time.monotonic(), time.process_time()
    while time.monotonic() - started < seconds:
        for rows in plan[rank::ranks]:
            input_ids, mask, _ = train.batch(rows, _MAX_LENGTH)
            tokens += int(mask.sum())
            places += input_ids.size
            batches += 1
            if time.monotonic() - started >= seconds:
                break
    return {
        "plan_seconds": plan_seconds,
        "batches": batches,
        "tokens": tokens,
        "places": places,
        "seconds": time.monotonic() - started,
        "processor_seconds": time.process_time() - processor,
    }


def run_feed(store: Path, processes: int, seconds: float) -> dict[str, Any]:
    """Feed from several processes at once."""
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        found = pool.starmap(feed, [(str(store), rank, processes, seconds) for rank in range(processes)])
    tokens = sum(one["tokens"] for one in found)
    return {
        "processes": processes,
        "plan_seconds": round(max(one["plan_seconds"] for one in found), 2),
        "tokens_per_second": round(sum(one["tokens"] / one["seconds"] for one in found)),
        "tokens_per_processor_second": round(tokens / sum(one["processor_seconds"] for one in found)),
        "padding": round(1 - tokens / sum(one["places"] for one in found), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=_PUBLISHED_ROWS)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seconds", type=float, default=20.0, help="of feeding, for each number of processes")
    parser.add_argument(
        "--folder", type=Path, help="where there is room, about 1.5 kB a row; a temporary one if not given"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        source, store = Path(name) / "amazon_review_polarity_csv", Path(name) / "store"
        source.mkdir()
        made = {file: args.rows * share // 10 for file, share in (("train.csv", 9), ("test.csv", 1))}
        words = sum(write_reviews(source / file, rows, i) for i, (file, rows) in enumerate(made.items()))
        size = sum(path.stat().st_size for path in source.iterdir())
        load = os.getloadavg()[0]
        prepared = run_prepare(source, store, args.workers)
        result = {
            "words_per_review": round(words / args.rows, 1),
            "source_bytes": size,
            "load_before": round(load, 1),
            "workers": args.workers,
            "prepare": prepared,
            "feed": [run_feed(store, n, args.seconds) for n in sorted({1, args.workers})],
            "load_after": round(os.getloadavg()[0], 1),
        }
        if args.rows != _PUBLISHED_ROWS:
            factor = _PUBLISHED_ROWS / prepared["rows"]
            result["extrapolated_to_3600000_rows"] = {
                "seconds": round(prepared["seconds"] * factor),
                "processor_seconds": round(prepared["processor_seconds"] * factor),
                "store_bytes": round(prepared["store_bytes"] * factor),
            }
    print(json.dumps(result, indent=1))
    print(keep("prepare", result))


if __name__ == "__main__":
    main()
