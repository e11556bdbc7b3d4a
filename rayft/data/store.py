"""The token store: a labelled data set as flat arrays of token ids, memory-mapped for training.

    store.json                  what it holds; written last, so a store without it is not finished
    tokenizer.json              the tokeniser that made the ids
    <split>/ids.npy             uint16[tokens], or uint32 for vocabularies beyond 65,536
    <split>/offsets.npy         int64[rows + 1]; row i is ids[offsets[i]:offsets[i + 1]]
    <split>/labels.npy          int32[rows], class numbers
    <split>/truncated.npy       bool[rows], whether the review was longer than the stored maximum
    samples.parquet, profile.*  some texts, and what `rayft profile` shows

Splits are `train`, `validation` and `test`. Rows hold special tokens and are cut to `max_length`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from tokenizers import Tokenizer

from rayft.data.arrays import FileDigest
from rayft.data.storage import Location, locate
from rayft.errors import InputError, UsageError
from rayft.text.encode import Encoded, Truncation

FORMAT, VERSION = "rayft token store", 1
ARRAYS = ("ids", "offsets", "labels", "truncated")
_COPY_BYTES = 8 << 20


def vocabulary_hash(tokenizer: Tokenizer) -> str:
    """Return the SHA-256 of all tokens in the order of their ids: equal ids then mean equal tokens."""
    sha = hashlib.sha256()
    for token, number in sorted(tokenizer.get_vocab(with_added_tokens=True).items(), key=lambda item: item[1]):
        sha.update(f"{number}\t{token}\n".encode("utf-8", "surrogatepass"))
    return sha.hexdigest()


@dataclass(frozen=True)
class Split:
    """One split of a store; the arrays are views of memory-mapped files.

    Attributes:
        ids: uint16 or uint32[tokens].
        offsets: int64[rows + 1].
        labels: int32[rows].
        truncated: bool[rows], reviews that were longer than the stored maximum.
        stored_truncation: which part of those is stored.
    """

    name: str
    ids: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    truncated: np.ndarray
    stored_truncation: Truncation
    pad_id: int

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def _stored_lengths(self) -> np.ndarray:
        return np.diff(self.offsets).astype(np.int32)

    def lengths(self, max_length: int | None = None) -> np.ndarray:
        """Return int32[rows], tokens a row, cut to `max_length`: what batches are planned on."""
        return self._stored_lengths if max_length is None else np.minimum(self._stored_lengths, np.int32(max_length))

    @property
    def encoded(self) -> Encoded:
        """The rows at their stored length, as the encoder returns them but for the width of the ids."""
        return Encoded(self.ids, self.offsets, self.truncated)

    def check_truncation(self, max_length: int, truncation: Truncation) -> None:
        """Refuse a cut that the stored tokens do not allow.

        The first tokens of a long review are there if it was stored by `head`, or by `head+tail` and
        no more than the stored half is asked for. Its last ones are there only by `head+tail`.

        Raises:
            UsageError: with the command that makes a fitting store.
        """
        if not self.truncated.any():
            return
        stored = int(self._stored_lengths.max())
        kept = truncation == self.stored_truncation or (truncation == "head" and max_length <= stored // 2)
        if not kept:
            raise UsageError(
                f"The store keeps long reviews by '{self.stored_truncation}' at {stored} tokens, which does not hold "
                f"what '{truncation}' at {max_length} tokens needs. "
                f"Prepare it again with --truncation {truncation}."
            )

    def batch(
        self, rows: np.ndarray, max_length: int | None = None, truncation: Truncation = "head"
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (input_ids int64[b, s], attention_mask int64[b, s], labels int64[b]), padded on the right.

        Rows longer than `max_length` are cut as `rayft.text.encode.Encoder` cuts them.

        Args:
            rows: int[b], row numbers.
        """
        starts, ends = self.offsets[rows], self.offsets[rows + 1]
        lengths = ends - starts
        if max_length is not None:
            lengths = np.minimum(lengths, max_length)
        width = int(lengths.max())
        head = width if max_length is None else max_length // 2 if truncation == "head+tail" else max_length - 1
        place = np.arange(width)
        mask = place < lengths[:, None]
        # The first `head` places count from the start of a row and the others from its end.
        position = np.where(place < head, starts[:, None] + place, (ends - lengths)[:, None] + place)
        position[~mask] = 0
        input_ids = self.ids[position].astype(np.int64)
        input_ids[~mask] = self.pad_id
        return input_ids, mask.astype(np.int64), self.labels[rows].astype(np.int64)


class TokenStore:
    """A finished store, opened for reading.

    store = TokenStore.open("s3://bucket/polarity")
    train = store.split("train")
    input_ids, attention_mask, labels = train.batch(rows, max_length=256)
    """

    def __init__(self, location: Location, meta: dict[str, Any], cache: Path | None) -> None:
        self.location = location
        self.meta = meta
        self._cache = cache

    @classmethod
    def open(cls, path: str | Path, cache_dir: str | Path | None = None) -> TokenStore:
        """Open a store on a disk or in an object store.

        Args:
            cache_dir: where files from object stores are kept, once per node; None is `RAYFT_CACHE`
                or `~/.cache/rayft`.

        Raises:
            UsageError: there is no finished store of a version that this release reads.
        """
        location = locate(path)
        try:
            raw = (location / "store.json").read_bytes()
            meta = json.loads(raw)
        except (FileNotFoundError, NotADirectoryError) as error:
            unfinished = (location / "_prepare").is_dir()
            more = " It is not finished: run the same `rayft prepare` again." if unfinished else ""
            raise UsageError(f"{location} is not a token store (no store.json).{more}") from error
        except (OSError, ValueError) as error:
            raise UsageError(f"Cannot read {location}/store.json: {error}") from error
        if meta.get("format") != FORMAT or meta.get("version") != VERSION:
            raise UsageError(
                f"{location} is of format {meta.get('format')!r}, version {meta.get('version')}; "
                f"this release reads version {VERSION}. Prepare it again."
            )
        cache = None
        if not location.is_local:
            cache = cache_folder(cache_dir) / "stores" / hashlib.sha256(raw).hexdigest()[:16]
        return cls(location, meta, cache)

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names by class number."""
        return tuple(self.meta["labels"])

    @property
    def max_length(self) -> int:
        return int(self.meta["max_length"])

    @property
    def vocabulary_hash(self) -> str:
        return str(self.meta["vocabulary"]["sha256"])

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.meta["splits"])

    def check_vocabulary(self, tokenizer: Tokenizer, where: str) -> None:
        """Refuse a model whose token ids mean something else.

        Raises:
            UsageError: the vocabularies differ.
        """
        if vocabulary_hash(tokenizer) != self.vocabulary_hash:
            raise UsageError(
                f"{self.location} was tokenised for another vocabulary than that of {where}. "
                f"Prepare it again with --base {where}."
            )

    def file(self, name: str) -> Path:
        """Return a local path of one of the store's files, fetched once per node if it is remote.

        Raises:
            InputError: it is missing or has another size than the store says.
        """
        expected = FileDigest(**self.meta["files"][name])
        if self._cache is None:
            path = Path((self.location / name).path)
        else:
            path = self._cache / name
            if not path.exists():
                _fetch(self.location / name, path)
        size = path.stat().st_size if path.exists() else -1
        if size != expected.bytes:
            raise InputError(
                f"{self.location}/{name} is damaged: {max(size, 0):,} bytes instead of {expected.bytes:,}."
            )
        return path

    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_file(str(self.file("tokenizer.json")))

    def split(self, name: str) -> Split:
        """Return one split, memory-mapped.

        Raises:
            UsageError: the store has no such split.
        """
        if name not in self.meta["splits"]:
            raise UsageError(f"{self.location} has no split '{name}'; it has: {', '.join(self.splits)}.")
        arrays = {a: np.asarray(np.load(self.file(f"{name}/{a}.npy"), mmap_mode="r")) for a in ARRAYS}
        return Split(name, **arrays, stored_truncation=self.meta["truncation"], pad_id=int(self.meta["pad_id"]))

    def verify(self) -> None:
        """Read every file and compare its digest.

        Raises:
            InputError: a file differs from what was written.
        """
        for name, digest in self.meta["files"].items():
            with self.file(name).open("rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() != digest["sha256"]:
                    raise InputError(f"{self.location}/{name} is damaged: its digest has changed.")


def cache_folder(given: str | Path | None = None) -> Path:
    """Return the folder for what can be fetched or made again."""
    default = os.environ.get("RAYFT_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "rayft"
    return Path(given or default).expanduser()


def _fetch(source: Location, target: Path) -> None:
    """Copy a file into the cache; of several processes on a node one copies and the others wait."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with _only_one(target.with_name(f".{target.name}.lock")):
        if target.exists():
            return
        try:
            with source.filesystem.open_input_stream(source.path) as stream, locate(target).replacing() as out:
                shutil.copyfileobj(cast(BinaryIO, stream), out, _COPY_BYTES)
        except OSError as error:
            raise InputError(f"Cannot read {source}: {error}") from error


@contextlib.contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
