"""Files on local disks and in object stores behind one small interface, with atomic writes.

Everything goes through pyarrow's filesystems: local paths, `s3://`, `gs://` and `abfs://`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from pyarrow import fs

from rayft.errors import StoppedError, UsageError

_COPY_BYTES = 8 << 20


@dataclass(frozen=True)
class Location:
    """A file or folder: a pyarrow filesystem, the path on it, and the prefix that makes it a URI again.

    `prefix` is `""` for local paths and e.g. `"s3://"` for object stores.
    """

    filesystem: fs.FileSystem
    path: str
    prefix: str = ""

    def __str__(self) -> str:
        return self.prefix + self.path

    def __truediv__(self, name: str) -> Location:
        return Location(self.filesystem, f"{self.path.rstrip('/')}/{name}", self.prefix)

    @property
    def name(self) -> str:
        return self.path.rstrip("/").rsplit("/", 1)[-1]

    @property
    def parent(self) -> Location:
        return Location(self.filesystem, self.path.rstrip("/").rpartition("/")[0] or "/", self.prefix)

    @property
    def is_local(self) -> bool:
        return self.prefix == ""

    def info(self) -> fs.FileInfo:
        return self.filesystem.get_file_info(self.path)

    def is_file(self) -> bool:
        return bool(self.info().type == fs.FileType.File)

    def is_dir(self) -> bool:
        return bool(self.info().type == fs.FileType.Directory)

    def listing(self, recursive: bool = False) -> list[fs.FileInfo]:
        """Return what is in the folder, sorted by path; nothing if it does not exist."""
        selector = fs.FileSelector(self.path, recursive=recursive, allow_not_found=True)
        return sorted(self.filesystem.get_file_info(selector), key=lambda info: str(info.path))

    def at(self, path: str) -> Location:
        """Return another path on the same filesystem."""
        return Location(self.filesystem, path, self.prefix)

    def make_dir(self) -> None:
        with _disk_errors(self):
            self.filesystem.create_dir(self.path, recursive=True)

    def remove(self) -> None:
        """Remove the file or the folder with everything in it; missing is fine."""
        kind = self.info().type
        if kind == fs.FileType.Directory:
            self.filesystem.delete_dir(self.path)
        elif kind == fs.FileType.File:
            self.filesystem.delete_file(self.path)

    def read_bytes(self) -> bytes:
        with self.filesystem.open_input_stream(self.path) as stream:
            return cast(bytes, stream.read())

    def write_bytes(self, data: bytes) -> None:
        """Replace the file atomically."""
        with self.replacing() as stream:
            stream.write(data)

    @contextlib.contextmanager
    def replacing(self) -> Iterator[BinaryIO]:
        """Open a file that takes this name, whole, when the block ends, and leaves no trace if it fails.

        On a local filesystem: a temporary file beside it, fsync, `os.replace`. On an object store: a
        temporary local file, sent as one upload that appears when it is completed.
        """
        if self.is_local:
            with _disk_errors(self), _replacing_local(Path(self.path)) as stream:
                yield stream
            return
        with _disk_errors(self), tempfile.TemporaryFile(prefix="rayft-") as spool:
            yield cast(BinaryIO, spool)
            spool.seek(0)
            with self.filesystem.open_output_stream(self.path) as upload:
                shutil.copyfileobj(spool, upload, _COPY_BYTES)


@contextlib.contextmanager
def _replacing_local(path: Path) -> Iterator[BinaryIO]:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Dot first: a listing of inputs passes over it; no `.parquet` at the end: so does everybody else's.
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _disk_errors(location: Location) -> Iterator[None]:
    """Turn 'no space left' and 'not allowed' into errors that say what to do."""
    try:
        yield
    except OSError as error:
        reason = str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in reason:
            raise StoppedError(
                f"No space left while writing {location}. Nothing partial is visible. "
                "Make room and run the same command again; it resumes."
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise UsageError(f"Cannot write {location}: {error.strerror or reason}.") from error
        raise


def locate(uri: str | Path) -> Location:
    """Return the Location of a path or URI, whether or not something is there.

    Raises:
        UsageError: the scheme is unknown or the store cannot be reached with the configured access.
    """
    text = str(uri)
    if "://" not in text:
        return Location(fs.LocalFileSystem(), os.path.abspath(os.path.expanduser(text)))
    scheme = text.split("://", 1)[0]
    if scheme == "file":
        return Location(fs.LocalFileSystem(), os.path.abspath(text[len("file://") :]))
    try:
        filesystem, path = fs.FileSystem.from_uri(text)
    except (ValueError, OSError, NotImplementedError) as error:
        raise UsageError(f"Cannot use {text}: {error}. Known: paths, s3://, gs://, abfs://.") from error
    return Location(filesystem, path.rstrip("/"), f"{scheme}://")
