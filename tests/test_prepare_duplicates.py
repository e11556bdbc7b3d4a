"""Exact and near duplicates."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from rayft.model.checkpoint import BUNDLED
from rayft.prepare.duplicates import find_duplicates, jaccard, shingles, signatures, text_hash, word_ids
from rayft.text.encode import Encoder

TOKENIZER = Tokenizer.from_file(str(BUNDLED / "tokenizer.json"))
LETTERS = word_ids(TOKENIZER)
WORDS = sorted(w for w in TOKENIZER.get_vocab() if w.isalpha() and len(w) > 3)


def sentence(rng: random.Random, words: int) -> list[str]:
    return rng.choices(WORDS, k=words)


def duplicates(texts: list[str], priority: list[int] | None = None, similarity: float = 0.8) -> list[int]:
    encoded = Encoder(TOKENIZER, 512)(texts)
    hashes = np.array([text_hash(text) for text in texts], dtype=np.uint64)
    signed = signatures(encoded.ids, encoded.offsets, LETTERS, hashes)
    original, exact = find_duplicates(
        hashes,
        np.array(priority or [0] * len(texts), dtype=np.int8),
        signed,
        similarity,
        lambda a, b: jaccard(row(encoded, a), row(encoded, b), LETTERS),
    )
    assert not (exact & (original < 0)).any()
    return original.tolist()


def row(encoded, i: int) -> np.ndarray:  # type: ignore[no-untyped-def]
    return encoded.ids[encoded.offsets[i] : encoded.offsets[i + 1]]


def test_case_and_punctuation_do_not_matter() -> None:
    assert text_hash("It broke! Twice.") == text_hash("it BROKE, twice")
    assert text_hash("It broke") != text_hash("It brokes")
    assert text_hash("!!!") != text_hash("???")
    assert duplicates(["Great, works well.", "other text here", "GREAT works well"]) == [-1, -1, 0]


def test_priority_decides_who_is_first() -> None:
    assert duplicates(["same words here", "unlike", "Same words here!"], priority=[2, 2, 0]) == [2, -1, -1]


def test_texts_without_words_are_equal_only_to_themselves() -> None:
    assert duplicates(["!!!", "???", "!!!", ":-)", ""]) == [-1, -1, 0, -1, -1]


@pytest.mark.parametrize("changed", [0, 1, 2])
def test_a_few_changed_words_are_found(changed: int) -> None:
    rng = random.Random(changed)
    base = [sentence(rng, 60) for _ in range(300)]
    copies = []
    for words in base:
        copy = list(words)
        for place in rng.sample(range(60), changed):
            copy[place] = rng.choice(WORDS)
        copies.append(" ".join(copy))
    found = duplicates([" ".join(words) for words in base] + copies)
    assert found[:300] == [-1] * 300
    hits = sum(a == b for a, b in zip(found[300:], range(300), strict=True))
    assert hits >= (300 if changed == 0 else 290)


def test_half_changed_texts_are_not() -> None:
    rng = random.Random(1)
    base = [sentence(rng, 60) for _ in range(300)]
    copies = [words[:30] + sentence(rng, 30) for words in base]
    assert duplicates([" ".join(words) for words in base + copies]) == [-1] * 600


def test_boilerplate_does_not_hide_a_duplicate() -> None:
    rng = random.Random(2)
    opening = sentence(rng, 12)
    texts = [" ".join(opening + sentence(rng, 50)) for _ in range(200)]
    assert duplicates([*texts, texts[150].upper() + " indeed"])[-1] == 150


def test_chains_end_at_the_first() -> None:
    rng = random.Random(3)
    words = sentence(rng, 80)
    texts = []
    for _ in range(6):  # each differs by one word from the one before
        texts.append(" ".join(words))
        words = [*words]
        words[rng.randrange(80)] = rng.choice(WORDS)
    assert set(duplicates(texts)[1:]) == {0}


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), min_size=1, max_size=40))
def test_exact_groups_have_one_original_of_the_best_priority(rows: list[tuple[int, int]]) -> None:
    rng = random.Random(4)
    pool = [" ".join(sentence(rng, 30)) for _ in range(10)]
    texts, priority = [pool[k] for k, _ in rows], [p for _, p in rows]
    found = duplicates(texts, priority)
    for i, original in enumerate(found):
        group = [j for j, text in enumerate(texts) if text == texts[i]]
        first = min(group, key=lambda j: (priority[j], j))
        assert original == (-1 if i == first else first)


def test_shingles_stay_within_their_row() -> None:
    words = np.array([5, 6, 7, 5, 6, 7, 8], dtype=np.uint64)
    together = shingles(words, np.array([3, 4]))
    assert together.tolist() == [*shingles(words[:3], np.array([3])), *shingles(words[3:], np.array([4]))]
    assert together[0] == together[3]
    assert together[1] != together[4]


def test_jaccard_is_that_of_trigram_sets() -> None:
    a = np.array(Encoder(TOKENIZER, 64)(["one two three four five six"]).ids)
    b = np.array(Encoder(TOKENIZER, 64)(["one two three four five seven"]).ids)
    # Six trigrams each, those at the end padded; the last three differ.
    assert jaccard(a, b, LETTERS) == pytest.approx(3 / 9)
    assert jaccard(a, a, LETTERS) == 1
