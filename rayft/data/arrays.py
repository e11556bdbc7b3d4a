"""Arrays as `.npy` files on disks and in object stores, written in blocks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import numpy as np

from rayft.data.storage import Location


@dataclass(frozen=True)
class FileDigest:
    """Size in bytes and SHA-256 of a file of a store."""

    bytes: int
    sha256: str


class _Hashing:
    """A stream that hashes what passes through it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._sha = hashlib.sha256()
        self._bytes = 0

    def write(self, data: Any) -> int:
        self._sha.update(data)
        self._bytes += memoryview(data).nbytes
        return self._stream.write(data)

    @property
    def digest(self) -> FileDigest:
        return FileDigest(self._bytes, self._sha.hexdigest())


def write_array(
    location: Location, dtype: np.dtype, shape: tuple[int, ...], blocks: Iterable[np.ndarray]
) -> FileDigest:
    """Write a `.npy` file atomically from blocks, so that the whole array is never in memory.

    Raises:
        ValueError: the blocks do not add up to `shape`.
    """
    dtype = np.dtype(dtype)
    written = 0
    with location.replacing() as stream:
        out = _Hashing(stream)
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(cast(Any, out), header)
        for block in blocks:
            written += block.size
            if block.size:
                out.write(np.ascontiguousarray(block, dtype=dtype).reshape(-1).view(np.uint8).data)
        if written != int(np.prod(shape)):
            raise ValueError(f"{location}: {written} values were given for an array of shape {shape}")
    return out.digest
