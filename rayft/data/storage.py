"""Files on local disks and in object stores behind one small interface, with atomic writes.

Everything goes through pyarrow's filesystems: local paths, `s3://`, `gs://` and `abfs://`.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

from pyarrow import fs

from rayft.data import object_store
from rayft.errors import InputError, StoppedError, UsageError

T = TypeVar("T")


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

    def retrying(self, act: Callable[[], T]) -> T:
        """Return what `act`, an operation on this location that may be repeated, returns.

        In an object store it is tried again while the store is busy or out of reach.

        Raises:
            StoppedError: the store still does not answer.
        """
        return act() if self.is_local else object_store.retrying(str(self), act)

    def wait_or_raise(self, error: InputError, attempt: int) -> None:
        """Return when it is time to read on after `error`, met in attempt number `attempt` (from 0); or raise it.

        Raises:
            StoppedError: the object store still does not answer.
        """
        if self.is_local:
            raise error
        object_store.wait_or_raise(str(self), error, attempt)

    def _do(self, act: Callable[[], T]) -> T:
        with _store_errors(self):
            return self.retrying(act)

    def info(self) -> fs.FileInfo:
        return self._do(lambda: self.filesystem.get_file_info(self.path))

    def is_file(self) -> bool:
        return bool(self.info().type == fs.FileType.File)

    def is_dir(self) -> bool:
        return bool(self.info().type == fs.FileType.Directory)

    def listing(self, recursive: bool = False) -> list[fs.FileInfo]:
        """Return what is in the folder, sorted by path; nothing if it does not exist."""
        selector = fs.FileSelector(self.path, recursive=recursive, allow_not_found=True)
        return sorted(self._do(lambda: self.filesystem.get_file_info(selector)), key=lambda info: str(info.path))

    def at(self, path: str) -> Location:
        """Return another path on the same filesystem."""
        return Location(self.filesystem, path, self.prefix)

    def make_dir(self) -> None:
        with _disk_errors(self):
            self._do(lambda: self.filesystem.create_dir(self.path, recursive=True))

    def remove(self) -> None:
        """Remove the file or the folder with everything in it; missing is fine."""
        kind = self.info().type
        with contextlib.suppress(FileNotFoundError):  # gone at a second attempt
            if kind == fs.FileType.Directory:
                self._do(lambda: self.filesystem.delete_dir(self.path))
            elif kind == fs.FileType.File:
                self._do(lambda: self.filesystem.delete_file(self.path))

    def read_bytes(self) -> bytes:
        def read() -> bytes:
            with self.filesystem.open_input_stream(self.path, compression=None) as stream:
                return cast(bytes, stream.read())

        return self._do(read)

    def write_bytes(self, data: bytes) -> None:
        """Replace the file atomically; raises as `replacing` does."""
        if not self.is_local:
            return self._upload(io.BytesIO(data))
        with self.replacing() as stream:
            stream.write(data)

    @contextlib.contextmanager
    def replacing(self) -> Iterator[BinaryIO]:
        """Open a file that takes this name, whole, when the block ends, and leaves no trace if it fails.

        On a local filesystem: a temporary file beside it, fsync, `os.replace`. On an object store: a
        temporary local file, sent as one upload that appears when it is completed.

        Raises:
            UsageError: it may not be written.
            StoppedError: there is no room, or the store does not answer.
        """
        if self.is_local:
            with _disk_errors(self), _replacing_local(Path(self.path)) as stream:
                yield stream
            return
        with _disk_errors(self), tempfile.TemporaryFile(prefix="rayft-") as spool:
            yield cast(BinaryIO, spool)
            self._upload(cast(BinaryIO, spool))

    def _upload(self, data: BinaryIO) -> None:
        with _store_errors(self):
            object_store.upload(self.filesystem, self.path, str(self), data)


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
def _store_errors(location: Location) -> Iterator[None]:
    """Turn what an object store refuses for good into an error that says what to do."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if location.is_local:
            raise
        raise object_store.refusal(str(location), error) from error


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
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
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
    return Location(*object_store.connect(text))
