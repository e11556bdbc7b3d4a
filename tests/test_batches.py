"""Batches of similar lengths under a token budget."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayft.text.batches import collate, length_sorted_batches, shuffled_batches
from rayft.text.encode import Encoded

LENGTHS = st.lists(st.integers(1, 300), max_size=120).map(lambda values: np.array(values, dtype=np.int64))
SOME_LENGTHS = LENGTHS.filter(len)
BUDGETS = st.integers(1, 2_000)


def padded(lengths: np.ndarray, batches: list[np.ndarray]) -> int:
    return sum(len(rows) * int(lengths[rows].max()) for rows in batches)


def check(lengths: np.ndarray, batches: list[np.ndarray], batch_tokens: int) -> None:
    """Every row stands in one batch, no batch is empty, and only a single text goes over the budget."""
    assert sorted(np.concatenate([*batches, np.zeros(0, int)]).tolist()) == list(range(len(lengths)))
    for rows in batches:
        assert len(rows) == 1 or len(rows) * lengths[rows].max() <= batch_tokens


@settings(deadline=None)
@given(LENGTHS, BUDGETS)
def test_each_row_once_within_the_budget(lengths: np.ndarray, batch_tokens: int) -> None:
    batches = list(length_sorted_batches(lengths, batch_tokens))
    check(lengths, batches, batch_tokens)
    assert all(len(rows) for rows in batches)


@settings(deadline=None)
@given(LENGTHS, BUDGETS)
def test_longest_first_and_as_full_as_the_budget_lets(lengths: np.ndarray, batch_tokens: int) -> None:
    batches = list(length_sorted_batches(lengths, batch_tokens))
    in_order = [int(lengths[row]) for rows in batches for row in rows]
    assert in_order == sorted(in_order, reverse=True)
    for rows in batches[:-1]:
        assert (len(rows) + 1) * lengths[rows].max() > batch_tokens


def test_same_lengths_keep_their_order() -> None:
    assert [rows.tolist() for rows in length_sorted_batches(np.array([5, 7, 5, 7, 5]), 14)] == [[1, 3], [0, 2], [4]]


def test_texts_without_tokens_make_a_batch() -> None:
    check(np.zeros(3, dtype=int), list(length_sorted_batches(np.zeros(3, dtype=int), 8)), 8)


def test_sorting_keeps_padding_small() -> None:
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(4, 0.8, 5_000), 3, 256).astype(int)
    unsorted = [rows for start in range(0, 5_000, 16) if len(rows := np.arange(start, min(start + 16, 5_000)))]
    real = lengths.sum()
    assert padded(lengths, list(length_sorted_batches(lengths, 4096))) / real < 1.02
    assert padded(lengths, shuffled_batches(lengths, 4096, rng)) / real < 1.1
    assert padded(lengths, unsorted) / real > 1.5  # so the numbers above say something


@settings(deadline=None)
@given(SOME_LENGTHS, BUDGETS, st.integers(0, 5))
def test_shuffled_each_row_once_within_the_budget(lengths: np.ndarray, batch_tokens: int, seed: int) -> None:
    check(lengths, shuffled_batches(lengths, batch_tokens, np.random.default_rng(seed)), batch_tokens)


def test_a_seed_gives_one_epoch_and_the_next_epoch_differs() -> None:
    lengths = np.random.default_rng(1).integers(3, 200, 1_000)

    def epochs(seed: int) -> list[list[list[int]]]:
        rng = np.random.default_rng(seed)
        return [[rows.tolist() for rows in shuffled_batches(lengths, 2_000, rng)] for _ in range(2)]

    first, second = epochs(7)
    assert [first, second] == epochs(7)
    assert first != second
    assert epochs(8)[0] != first
    means = [lengths[rows].mean() for rows in first]
    assert means != sorted(means)  # batches of an epoch are not in the order of their lengths
    assert means != sorted(means, reverse=True)


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1, max_size=8), st.data())
def test_collate_pads_on_the_right(texts: list[list[int]], data: st.DataObject) -> None:
    encoded = Encoded(
        np.array([i for text in texts for i in text], dtype=np.int32),
        np.cumsum([0, *map(len, texts)]),
        np.zeros(len(texts), dtype=bool),
    )
    rows = np.array(data.draw(st.permutations(range(len(texts))))[: data.draw(st.integers(1, len(texts)))])
    pad = data.draw(st.sampled_from([0, -1]))
    ids, mask = collate(encoded, rows, pad)
    width = max(len(texts[row]) for row in rows)
    assert ids.tolist() == [texts[row] + [pad] * (width - len(texts[row])) for row in rows]
    assert mask.tolist() == [[1] * len(texts[row]) + [0] * (width - len(texts[row])) for row in rows]
    assert (ids.dtype, mask.dtype) == (np.int64, np.int64)


@pytest.mark.parametrize("batch_tokens", [1, 10_000])
def test_no_rows_make_no_batches(batch_tokens: int) -> None:
    assert list(length_sorted_batches(np.zeros(0, dtype=int), batch_tokens)) == []
