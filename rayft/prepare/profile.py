"""What a data set is like: classes, lengths, duplicates, rows with doubtful labels, sample rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rayft.data.store import TokenStore
from rayft.errors import UsageError
from rayft.prepare.config import PrepareConfig
from rayft.prepare.plan import Plan
from rayft.prepare.rows import SPLITS
from rayft.prepare.write import class_counts, describe_lengths

LIMITS = (128, 256, 512)
_BIN_TOKENS = 16
_SAMPLES_A_CLASS = 3
_SHOWN_SUSPECTS = 20
#: From this confidence on, the shipped model's disagreement with a label is worth a look.
CONFIDENT = 0.95


def make_profile(
    plan: Plan, samples: pa.Table, sources: Sequence[tuple[str, str]], config: PrepareConfig
) -> dict[str, Any]:
    """Return the profile of the kept rows as plain values for JSON.

    Lengths are in tokens with special tokens; reviews beyond `max_length` count as one more than it.
    `within` tells the share of reviews that fit into 128, 256 and 512 tokens, as far as the stored
    length allows to tell.
    """
    kept = plan.splits >= 0
    lengths = plan.lengths[kept]
    splits = {
        name: {"rows": int((plan.splits == code).sum()), "classes": class_counts(plan, plan.splits == code)}
        for code, name in enumerate(SPLITS)
        if (plan.splits == code).any()
    }
    edges = np.arange(0, config.max_length + _BIN_TOKENS, _BIN_TOKENS)
    return {
        "sources": [{"name": name, "kind": kind} for name, kind in sources],
        "read": plan.read,
        "rows": int(kept.sum()),
        "tokens": int(lengths.sum()),
        "classes": class_counts(plan, kept),
        "splits": splits,
        "lengths": describe_lengths(lengths),
        "histogram": {
            "edges": edges.tolist(),
            "rows": np.histogram(lengths, bins=edges + 0.5)[0].tolist(),  # a bin holds its upper edge
        },
        "within": _within(plan, lengths, config.max_length),
        "dropped": plan.dropped,
        "examples": plan.examples,
        "duplicates": plan.duplicates,
        "samples": _some(samples),
        "suspects": None,
    }


def read_profile(path: str) -> tuple[dict[str, Any], pa.Table]:
    """Return the profile of a finished store and its sampled rows.

    Raises:
        UsageError: it is not a store.
    """
    store = TokenStore.open(path)
    try:
        profile: dict[str, Any] = json.loads((store.location / "profile.json").read_bytes())
    except (FileNotFoundError, ValueError) as error:
        raise UsageError(f"{path} has no profile.json; prepare it again with --overwrite.") from error
    return profile, pq.read_table(store.file("samples.parquet"))


def find_suspects(samples: pa.Table, count: int, model: str | None = None) -> dict[str, Any] | None:
    """Return rows of the sample whose label a model, by default the shipped one, confidently denies.

    Such rows are either labelled wrongly or hard (irony, several opinions, a label by another rule).

    Args:
        samples: columns text, label and split.
        count: rows to look at, at most.

    Returns:
        checked, confident (rows on which the model is sure), disagreeing (counts) and the `rows`
        with most confidence; None if the classes are not those of the model.
    """
    from rayft.score.scorer import Scorer

    scorer = Scorer(model)
    if count < 1 or not set(samples["label"].to_pylist()) <= set(scorer.checkpoint.labels):
        return None
    samples = samples.slice(0, count)
    scored = scorer.score_texts(samples["text"].to_pylist())
    confidence = np.array([c if c is not None else 0.0 for c in scored["confidence"].to_pylist()])
    differs = np.array([a != b for a, b in zip(samples["label"].to_pylist(), scored["label"].to_pylist(), strict=True)])
    sure = confidence >= CONFIDENT
    rows = np.flatnonzero(differs & sure)
    rows = rows[np.argsort(-confidence[rows], kind="stable")]
    return {
        "checked": samples.num_rows,
        "agreeing": int((~differs).sum()),
        "confident": int(sure.sum()),
        "disagreeing": len(rows),
        "rows": [
            {
                "text": samples["text"][i].as_py(),
                "split": samples["split"][i].as_py(),
                "label": samples["label"][i].as_py(),
                "model": scored["label"][i].as_py(),
                "confidence": round(float(confidence[i]), 4),
            }
            for i in rows[:_SHOWN_SUSPECTS].tolist()
        ],
    }


def _within(plan: Plan, lengths: np.ndarray, max_length: int) -> dict[str, float]:
    full = lengths.astype(np.int64) + plan.truncated[plan.splits >= 0]
    return {str(limit): round(float((full <= limit).mean()), 6) for limit in LIMITS if limit <= max_length}


def _some(samples: pa.Table) -> list[dict[str, Any]]:
    """Return a few sample rows of each class, of up to 20 classes."""
    rows: list[dict[str, Any]] = []
    labels = np.array(samples["label"].to_pylist())
    for name in sorted(set(labels.tolist()))[:20]:
        rows += samples.take(np.flatnonzero(labels == name)[:_SAMPLES_A_CLASS]).to_pylist()
    return rows
