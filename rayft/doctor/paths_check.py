"""Whether a file or folder can be read, and a folder written the way rayft writes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from pyarrow import fs

from rayft.data.object_store import without_secrets
from rayft.data.storage import Location, locate
from rayft.doctor.check import Check, one_line
from rayft.doctor.machine import room_check
from rayft.errors import RayftError

_ROOM_WARN, _ROOM_ERROR = 5 << 30, 200 << 20


def checks(given: str) -> Iterator[Check]:
    """Yield the checks of one path. Nothing stays there."""
    name = without_secrets(given)
    try:
        location = locate(given)
        kind = location.info().type
    except (RayftError, OSError) as error:
        yield Check(name, "error", one_line(error), "See the message; `rayft score` would stop there as well.")
        return
    if kind == fs.FileType.File:
        yield _reading(name, location)
        folder: Location | None = location.parent
    elif kind == fs.FileType.Directory:
        yield _listing(name, location)
        folder = location
    else:
        yield Check(
            name, "warn", "is not there", "An output will be made; an input is misspelt or not mounted on this machine."
        )
        folder = _nearest(location)
    if folder is not None:
        yield _writing(name, folder)
        if folder.is_local:
            yield room_check(f"{name}: room", folder.path, shutil.disk_usage(folder.path).free, _ROOM_WARN, _ROOM_ERROR)


def _nearest(location: Location) -> Location | None:
    """Return the folder below which a missing path would be made."""
    if not location.is_local:
        return location.at(location.path.split("/")[0])
    path = Path(location.path)
    return location.at(str(next(parent for parent in path.parents if parent.is_dir())))


def _reading(name: str, location: Location) -> Check:
    try:
        with location.filesystem.open_input_stream(location.path, compression=None) as stream:
            stream.read(4)
    except OSError as error:
        return Check(name, "error", f"cannot be read: {one_line(error)}", "Give this user the right to read it.")
    return Check(name, "ok", f"file of {location.info().size:,} bytes, readable")


def _listing(name: str, location: Location) -> Check:
    try:
        entries = len(location.listing())
    except (RayftError, OSError) as error:
        return Check(name, "error", f"cannot be listed: {one_line(error)}", "Give this user the right to read it.")
    return Check(name, "ok", f"folder of {entries:,} entries, readable")


def _writing(name: str, folder: Location) -> Check:
    """Replace a hidden file twice, read it, lock it and remove it."""
    name = f"{name}: writing"
    probe = folder / f".rayft-doctor-{uuid.uuid4().hex[:12]}"
    mend = "Choose an --output elsewhere, or give this user the right to write there."
    try:
        probe.write_bytes(b"first")
        probe.write_bytes(b"second")
        if probe.read_bytes() != b"second":
            return Check(name, "error", f"{folder} gives back other bytes than were written", "Use another storage.")
        locks = not folder.is_local or _can_lock(Path(probe.path))
    except (RayftError, OSError) as error:
        return Check(name, "error", one_line(error), mend)
    finally:
        with contextlib.suppress(RayftError, OSError):
            probe.remove()
    if not locks:
        return Check(
            name, "warn", f"{folder} has no locks", "See to it that only one run at a time writes there (NFS: lockd)."
        )
    return Check(name, "ok", f"{folder} takes files and replaces them at once")


def _can_lock(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
