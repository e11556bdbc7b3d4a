"""Batches of texts of similar length under a token budget."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rayft.text.encode import Encoded


def length_sorted_batches(lengths: np.ndarray, batch_tokens: int) -> Iterator[np.ndarray]:
    """Yield row numbers, longest texts first, in batches of at most `batch_tokens` padded tokens.

    Longest first, so that memory peaks at once and the last batches are the cheap ones. A text
    longer than the budget makes a batch of its own. Each row stands in exactly one batch; the
    result depends on the arguments only.

    Args:
        lengths: int[n], tokens per text.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, batch_tokens // max(1, int(lengths[order[start]])))
        yield order[start : start + size]
        start += size


def shuffled_batches(lengths: np.ndarray, batch_tokens: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Cut a shuffled epoch into batches of similar lengths with at most `batch_tokens` padded tokens.

    Texts are shuffled, sorted by length within chunks of about 50 batches, cut, and the batches are
    shuffled again, so that an epoch is random and padding small. The result depends on `lengths`,
    `batch_tokens` and the state of `rng` only; each row stands in exactly one batch.
    """
    order = rng.permutation(len(lengths))
    chunk = max(1, int(50 * batch_tokens / max(1.0, float(lengths.mean()))))
    batches: list[np.ndarray] = []
    for start in range(0, len(order), chunk):
        rows = order[start : start + chunk]
        batches += [rows[batch] for batch in length_sorted_batches(lengths[rows], batch_tokens)]
    return [batches[i] for i in rng.permutation(len(batches))]


def collate(encoded: Encoded, rows: np.ndarray, pad_id: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return (input_ids int64[b, s], attention_mask int64[b, s]) of the given rows, padded on the right."""
    lengths = encoded.lengths[rows]
    width = int(lengths.max())
    mask = np.arange(width)[None, :] < lengths[:, None]
    ids = np.full((len(rows), width), pad_id, dtype=np.int64)
    ids[mask] = np.concatenate([encoded.ids[encoded.offsets[row] : encoded.offsets[row + 1]] for row in rows])
    return ids, mask.astype(np.int64)
