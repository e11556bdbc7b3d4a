"""Exact and near duplicates: a hash of the normalised text, and MinHash over word trigrams.

MinHash signatures (Broder 1997) are cut into bands (locality-sensitive hashing); rows that share a
band are candidates, and the Jaccard similarity of a candidate pair is computed exactly before it
counts. For deduplication of training data by this method see Lee et al. 2022 (arXiv:2107.06499).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

import numpy as np
from tokenizers import Tokenizer

BANDS, BAND_ROWS = 8, 4
#: uint16 values of a signature; a band of four is one uint64.
SIGNATURE = BANDS * BAND_ROWS
_SHINGLE = 3
#: Rows of a bucket that the others are compared with. More find little and cost much in buckets of
#: boilerplate; the other bands give further chances.
_LEADERS = 3
_PAIRS = 1 << 20

_WORDS = re.compile(r"\w+")
_random = np.random.default_rng(20_150_706)
_XORS = _random.integers(0, 2**64, SIGNATURE, dtype=np.uint64)
_FACTORS = _random.integers(0, 2**63, SIGNATURE, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


def text_hash(text: str) -> int:
    """Return 64 bits that are equal for texts of the same words, whatever their case and punctuation.

    Texts without any word are compared as they are.
    """
    words = " ".join(_WORDS.findall(text.casefold())) or text
    return int.from_bytes(hashlib.blake2b(words.encode("utf-8", "replace"), digest_size=8).digest(), "little")


def word_ids(tokenizer: Tokenizer) -> np.ndarray:
    """Return int64[vocabulary]: a number for each token's letters, alike whatever its case; -1 for no letters.

    Special tokens and punctuation have no letters.
    """
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    numbers: dict[str, int] = {}
    out = np.full(tokenizer.get_vocab_size(with_added_tokens=True), -1, dtype=np.int64)
    for token, number in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
        if token not in special and any(c.isalnum() for c in token) and number < len(out):
            out[number] = numbers.setdefault(token.casefold(), len(numbers) + 1)
    return out


def shingles(words: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return uint64[sum(lengths)]: a hash of each word and the two that follow it in its own row.

    Args:
        words: uint64[sum(lengths)], words of all rows one after the other.
    """
    total = len(words)
    ends = np.cumsum(lengths)
    remaining = np.repeat(ends, lengths) - np.arange(total)
    mixed = words.copy()
    for step in range(1, _SHINGLE):
        following = np.zeros(total, dtype=np.uint64)
        following[: max(0, total - step)] = words[step:]
        following[remaining <= step] = 0
        mixed = mixed * np.uint64(0x9E3779B97F4A7C15) + following
    # The finaliser of splitmix64.
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def signatures(ids: np.ndarray, offsets: np.ndarray, letters: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """Return uint16[n, SIGNATURE], 16 bits of each of the minima (Li and König 2010, arXiv:0910.3349).

    A row without words gets a signature made of its text hash, like no other's.

    Args:
        ids, offsets: token ids as in `rayft.text.encode.Encoded`.
        letters: the result of `word_ids`.
        hashes: uint64[n], the result of `text_hash`.
    """
    n = len(offsets) - 1
    words = letters[ids]
    is_word = words >= 0
    counts = np.concatenate([[0], np.cumsum(is_word)])
    lengths = counts[offsets[1:]] - counts[offsets[:-1]]
    hashed = shingles(words[is_word].astype(np.uint64), lengths)
    out = np.empty((n, SIGNATURE), dtype=np.uint16)
    spoken = lengths > 0
    starts = (np.cumsum(lengths) - lengths)[spoken]
    for k in range(SIGNATURE):
        if len(starts):
            minima = np.minimum.reduceat((hashed ^ _XORS[k]) * _FACTORS[k], starts)
            out[spoken, k] = (minima >> np.uint64(24)).astype(np.uint16)
        silent = (hashes[~spoken] ^ _XORS[k]) * _FACTORS[k]
        out[~spoken, k] = (silent >> np.uint64(24)).astype(np.uint16)
    return out


def jaccard(a: np.ndarray, b: np.ndarray, letters: np.ndarray) -> float:
    """Return the Jaccard similarity of the trigram sets of two rows of token ids."""
    sets = []
    for ids in (a, b):
        words = letters[ids]
        words = words[words >= 0].astype(np.uint64)
        sets.append(np.unique(shingles(words, np.array([len(words)]))))
    common = len(np.intersect1d(sets[0], sets[1], assume_unique=True))
    return common / max(1, len(sets[0]) + len(sets[1]) - common)


def find_duplicates(
    hashes: np.ndarray,
    priority: np.ndarray,
    signature: np.ndarray,
    similarity: float,
    compare: Callable[[int, int], float],
) -> tuple[np.ndarray, np.ndarray]:
    """Return for each row the first row that says the same, or -1 for rows that are first themselves.

    'First' is by priority (0 before 1), then by row number. Memory: about 60 bytes a row besides
    `signature`, which may be memory-mapped and is read a band at a time.

    Args:
        hashes: uint64[n].
        priority: int8[n].
        signature: uint16[n, SIGNATURE].
        similarity: Jaccard similarity from which rows are near duplicates; above 1, none are.
        compare: returns the exact similarity of two rows.

    Returns:
        original int64[n] and exact bool[n], whether the row has the same words as its original
        (False: it is near it, or near a row that is near it).
    """
    n = len(hashes)
    rows = np.argsort(priority, kind="stable")
    first = np.full(n, -1, dtype=np.int64)  # in the order of `rows`
    order, starts, counts = _groups(hashes[rows])
    leaders = np.repeat(order[starts], counts)
    first[order[order != leaders]] = leaders[order != leaders]
    exact = first >= 0
    if similarity <= 1:
        for band in range(BANDS):
            _match_band(first, rows, signature, band, similarity, compare)
    while True:  # an original that is a duplicate itself hands on its own original
        nested = np.flatnonzero(first >= 0)
        nested = nested[first[first[nested]] >= 0]
        if not len(nested):
            break
        exact[nested] &= exact[first[nested]]
        first[nested] = first[first[nested]]
    original = np.full(n, -1, dtype=np.int64)
    found = first >= 0
    original[rows[found]] = rows[first[found]]
    exact_of_row = np.zeros(n, dtype=bool)
    exact_of_row[rows] = exact
    return original, exact_of_row


def _groups(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return an order that sorts `keys`, and start and size of each group of equal keys in it."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(keys) else np.zeros(0, int)
    return order, starts, np.diff(np.append(starts, len(keys)))


def _match_band(
    first: np.ndarray,
    rows: np.ndarray,
    signature: np.ndarray,
    band: int,
    similarity: float,
    compare: Callable[[int, int], float],
) -> None:
    alive = np.flatnonzero(first < 0)
    part = np.ascontiguousarray(signature[:, band * BAND_ROWS : (band + 1) * BAND_ROWS])
    order, starts, counts = _groups(part.view(np.uint64)[:, 0][rows[alive]])
    several = counts > 1
    starts, counts = starts[several], counts[several]
    # Positions in `order` of all members of such groups, each with its place in its group.
    place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    start = np.repeat(starts, counts)
    for leader in range(_LEADERS):
        after = place > leader
        pairs = np.stack([alive[order[start[after] + place[after]]], alive[order[start[after] + leader]]], axis=1)
        for block in range(0, len(pairs), _PAIRS):
            for row, other in _likely(pairs[block : block + _PAIRS], rows, signature, similarity):
                if first[row] < 0 and compare(int(rows[row]), int(rows[other])) >= similarity:
                    first[row] = other


def _likely(pairs: np.ndarray, rows: np.ndarray, signature: np.ndarray, similarity: float) -> np.ndarray:
    """Keep pairs whose signatures agree about as much as near duplicates' do: minus three standard errors."""
    agreement = (signature[rows[pairs[:, 0]]] == signature[rows[pairs[:, 1]]]).mean(axis=1)
    error = np.sqrt(similarity * (1 - similarity) / SIGNATURE)
    kept: np.ndarray = pairs[agreement >= similarity - 3 * error]
    return kept
