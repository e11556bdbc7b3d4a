"""Reviews per second of rayft and of the Hugging Face pipeline, Parquet to Parquet, side by side.

    python benchmarks/score.py [--data reviews.parquet] [--rows 400] [--rounds 3] [--max-length 128]

The contenders take turns, so that drift of the machine's speed meets all of them; medians are reported. Each
keeps its model loaded between rounds: starting is not measured here. All read the same texts from Parquet and
write a label and a confidence to Parquet.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.machine import keep
from rayft import Scorer
from rayft.model.checkpoint import load_checkpoint
from rayft.model.engine import why_not_openvino
from rayft.text.clean import join

EXAMPLE = Path(__file__).parents[1] / "examples/reviews.parquet"


def rayft_contender(model: str | None, backend: str, precision: str, max_length: int) -> Callable[[Path, Path], None]:
    scorer = Scorer(model, engine_backend=backend, precision=precision, max_length=max_length)

    def run(source: Path, target: Path) -> None:
        pq.write_table(scorer.score(pq.read_table(source), text_column="input", no_title=True), target)

    return run


def pipeline_contender(model: str | None, max_length: int) -> Callable[[Path, Path], None]:
    import torch
    from transformers import pipeline

    directory = str(load_checkpoint(model).directory)
    classify = pipeline("text-classification", directory, dtype=torch.float32, device="cpu")

    def run(source: Path, target: Path) -> None:
        table = pq.read_table(source)
        found = classify(table["input"].to_pylist(), batch_size=32, truncation=True, max_length=max_length)
        table = table.append_column("label", pa.array([row["label"] for row in found]))
        pq.write_table(table.append_column("confidence", pa.array([row["score"] for row in found])), target)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=EXAMPLE, help="Parquet with text and, if there is one, title")
    parser.add_argument("--model", help="as for rayft score")
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-length", type=int, default=128)
    args = parser.parse_args()
    rows = pq.read_table(args.data).to_pylist()
    texts = [text for row in rows if (text := join(row.get("title"), row["text"]))][: args.rows]
    contenders = {
        "Hugging Face pipeline, fp32, batches of 32": pipeline_contender(args.model, args.max_length),
    }
    model = load_checkpoint(args.model).config
    for backend in ("torch",) if why_not_openvino(model) else ("torch", "openvino"):
        for precision in ("fp32", "bf16"):
            contender = rayft_contender(args.model, backend, precision, args.max_length)
            contenders[f"rayft {backend} {precision}"] = contender
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "in.parquet"
        pq.write_table(pa.table({"input": texts[:64]}), source)
        for run in contenders.values():  # the first batches of a library are slow
            run(source, Path(folder) / "out.parquet")
        pq.write_table(pa.table({"input": texts}), source)
        for _ in range(args.rounds):
            for name, run in contenders.items():
                started = time.perf_counter()
                run(source, Path(folder) / "out.parquet")
                rates[name].append(len(texts) / (time.perf_counter() - started))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    base = next(iter(medians.values()))
    for name, median in medians.items():
        low, high = min(rates[name]), max(rates[name])
        print(f"{name:45} {median:8.1f} reviews/s ({low:.1f} to {high:.1f})  {median / base:5.2f}x")
    settings = {"rows": len(texts), "max_length": args.max_length, "data": args.data.name}
    print("kept in", keep("score", {"settings": settings, "rates": rates, "medians": medians}))


if __name__ == "__main__":
    main()
