"""Near-duplicate reviews of a product become one, so that a copied text is one voice.

A text's fingerprint is a one-permutation MinHash of its word pairs (Li, Owen and Zhang, 2012),
densified by rotation (Shrivastava and Li, 2014), 64 bins of 8 bits (b-bit minwise hashing, Li and
König, 2010). Reviews that share a band of 4 bins are compared; from an estimated Jaccard similarity
of 0.7 on they are one. Word hashes are BLAKE2b, so that fingerprints in the state of an earlier
release stay comparable.

Short texts are alike by nature ("works great"): below 8 words only the same words count as a copy,
below 4 words only on the same day. Empty texts are never copies.
"""

from __future__ import annotations

import hashlib

import numpy as np
import polars as pl
import pyarrow as pa

BINS = 64
BAND = 4
SIMILARITY = 0.7
NEAR_WORDS = 8
EXACT_WORDS = 4
_EMPTY = np.uint64(2**64 - 1)
_CHUNK_ROWS = 20_000


def normalise(texts: pl.Series) -> pl.Series:
    """Return texts in lower case with letters and digits only, single spaces between words."""
    return texts.fill_null("").str.to_lowercase().str.replace_all(r"[^\p{L}\p{N}]+", " ").str.strip_chars()


def fingerprints(texts: pl.Series) -> tuple[pl.Series, pl.Series, pl.Series]:
    """Return number of words (UInt16), hash of the normalised text (UInt64) and MinHash signature of each text.

    Signatures are 64 bytes; null for texts of fewer than NEAR_WORDS words.
    """
    normal = normalise(texts)
    split = normal.str.split(" ")
    counts = split.list.len().to_numpy().astype(np.int64)
    counts[(normal == "").to_numpy()] = 0
    hashes = [int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") for text in normal]
    signatures: list[pa.Array] = []
    for start in range(0, len(texts), _CHUNK_ROWS):
        piece = slice(start, start + _CHUNK_ROWS)
        signatures.append(_signatures(split[piece], counts[piece]))
    joined = pa.chunked_array(signatures, pa.binary()) if signatures else pa.chunked_array([], pa.binary())
    return (
        pl.Series("words", np.minimum(counts, 65535).astype(np.uint16)),
        pl.Series("text_hash", hashes, pl.UInt64),
        pl.Series("signature", pl.from_arrow(joined), pl.Binary),
    )


def _signatures(split: pl.Series, counts: np.ndarray) -> pa.Array:
    words = split.explode()
    distinct = words.unique()
    table = np.array(
        [int.from_bytes(hashlib.blake2b((w or "").encode(), digest_size=8).digest(), "little") for w in distinct],
        np.uint64,
    )
    codes = words.cast(pl.Enum(distinct.drop_nulls())).to_physical().fill_null(0).to_numpy()
    if distinct.null_count():
        table = table[~distinct.is_null().to_numpy()]
    lengths = np.maximum(counts, 1)  # an empty text splits into one empty word
    row = np.repeat(np.arange(len(lengths)), lengths)
    pair = np.flatnonzero(row[1:] == row[:-1])
    hashed = table[codes]
    shingles = _mix(hashed[pair] * np.uint64(0x9E3779B97F4A7C15) + hashed[pair + 1])
    bins = np.full(len(lengths) * BINS, _EMPTY)
    np.minimum.at(bins, row[pair] * BINS + (shingles % np.uint64(BINS)).astype(np.int64), shingles >> np.uint64(6))
    signature = _densify(bins.reshape(-1, BINS))
    long = counts >= NEAR_WORDS
    values: list[bytes | None] = [
        line.tobytes() if keep else None for line, keep in zip(signature, long.tolist(), strict=True)
    ]
    return pa.array(values, pa.binary())


def _mix(values: np.ndarray) -> np.ndarray:
    """Finish a 64-bit hash (splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(values ^ (values >> np.uint64(31)))


def _densify(bins: np.ndarray) -> np.ndarray:
    """Fill empty bins from the next filled one to the right, marked by the distance; returns uint8."""
    filled = bins != _EMPTY
    out = bins.copy()
    for distance in range(1, BINS):
        empty = out == _EMPTY
        if not empty[filled.any(axis=1)].any():
            break
        source = np.roll(bins, -distance, axis=1)
        take = empty & np.roll(filled, -distance, axis=1)
        out[take] = source[take] + np.uint64(distance * 0xD1B54A32D192ED03 % 2**64)
    return np.asarray((_mix(out) >> np.uint64(24)).astype(np.uint8))


def mark_duplicates(reviews: pl.DataFrame) -> np.ndarray:
    """Return for each review the row of the one that stands for it (itself if it is no copy).

    Args:
        reviews: sorted so that the first of several copies is the one to keep; columns product, day,
            words, text_hash, signature.
    """
    indexed = reviews.select("product", "day", "words", "text_hash", "signature").with_row_index("row")
    same_day = pl.when(pl.col("words") < EXACT_WORDS).then("day")
    first = indexed.select(
        pl.when(pl.col("words") > 0)
        .then(pl.col("row").min().over("product", "text_hash", same_day))
        .otherwise("row")
        .alias("first")
    ).to_series()
    parent = first.to_numpy().astype(np.int64)
    near = indexed.filter((pl.col("row") == first) & pl.col("signature").is_not_null())
    if near.height > 1:
        rows = near["row"].to_numpy().astype(np.int64)
        signature = np.frombuffer(b"".join(near["signature"]), np.uint8).reshape(-1, BINS)
        own = np.arange(len(rows))
        best = own.copy()
        for band in range(0, BINS, BAND):
            key = np.ascontiguousarray(signature[:, band : band + BAND]).view(np.uint32)[:, 0]
            leader = near.select(
                pl.int_range(pl.len()).alias("at"), "product", pl.Series("key", key)
            ).select(pl.col("at").min().over("product", "key")).to_series().to_numpy()  # fmt: skip
            differs = np.flatnonzero(leader != own)
            agree = (signature[differs] == signature[leader[differs]]).mean(axis=1)
            alike = differs[(agree - 1 / 256) / (1 - 1 / 256) >= SIMILARITY]
            best[alike] = np.minimum(best[alike], leader[alike])
        parent[rows] = rows[best]
    while True:  # a copy of a copy belongs to the first
        above = parent[parent]
        if np.array_equal(above, parent):
            return parent
        parent = above
