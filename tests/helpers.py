"""What several test modules need: a tiny real checkpoint, reviews, and the command line in this process."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayft.cli import main
from rayft.model.checkpoint import BUNDLED

DATA = Path(__file__).parents[1].parent / "shared" / "data"
EXAMPLE = Path(__file__).parents[1] / "examples" / "reviews.parquet"

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the review data for measuring is not here")

_WORDS = """
    the kettle works well but lid cracked after two weeks and I am not happy with it great product would buy
    again terrible quality broke stopped working shipping slow love my daughter uses every day price fine
""".split()  # noqa: SIM905 (a paragraph is easier to read)


def tiny_checkpoint(folder: Path, labels: tuple[str, ...] = ("negative", "positive"), seed: int = 0) -> Path:
    """Write a DistilBERT classifier of width 32 with the real tokeniser and random weights of some spread."""
    import torch
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    torch.manual_seed(seed)
    config = DistilBertConfig(
        dim=32, n_layers=2, n_heads=2, hidden_dim=64, num_labels=len(labels), initializer_range=0.5
    )
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: i for i, label in enumerate(labels)}
    model = DistilBertForSequenceClassification(config)
    # As it is, one answer wins everywhere: take the mean of some made-up texts' logits out.
    ids = torch.randint(1000, 20000, (64, 12))
    with torch.inference_mode():
        model.eval().classifier.bias.data -= model(input_ids=ids).logits.mean(0)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(BUNDLED / name, folder / name)
    return folder


def reviews(rows: int, seed: int = 0, words: int = 12) -> pa.Table:
    """Return made-up reviews with an id, a title and a text; every 17th text is null."""
    rng = random.Random(seed)
    texts = [" ".join(rng.choices(_WORDS, k=rng.randint(1, 2 * words))) for _ in range(rows)]
    return pa.table(
        {
            "id": pa.array(range(rows), pa.int64()),
            "title": pa.array([" ".join(rng.choices(_WORDS, k=3)) for _ in range(rows)], pa.string()),
            "text": pa.array([None if i % 17 == 16 else text for i, text in enumerate(texts)], pa.string()),
        }
    )


def write_reviews(path: Path, rows: int, seed: int = 0, row_group_size: int | None = None, words: int = 12) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(reviews(rows, seed, words), path, row_group_size=row_group_size)
    return path


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.out)
        return value


class Cli:
    """Runs the command line in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *args: object) -> Ran:
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(arg) for arg in args])
        captured = self._capsys.readouterr()
        code = stop.value.code
        return Ran(code if isinstance(code, int) else 0, captured.out, captured.err)
