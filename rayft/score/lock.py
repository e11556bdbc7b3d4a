"""One writer per output: a kernel lock on local disks, a lease in object stores."""

from __future__ import annotations

import contextlib
import fcntl
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rayft.data.storage import Location
from rayft.errors import RayftError, StoppedError
from rayft.score.state import read_json, this_process, write_json

#: A lease that was not renewed for this long is free. Renewed three times as often.
LEASE_SECONDS = 30.0


@contextlib.contextmanager
def writing(lock: Location, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the right to write while the block runs.

    A local lock is freed by the kernel even at kill -9, so a rerun starts at once. A lease in an
    object store of a killed run is waited out, visibly. Commits do not depend on it: they are
    idempotent, and two writers would write the same bytes.

    Raises:
        StoppedError: somebody else is writing.
    """
    with _kernel_lock(lock) if lock.is_local else _lease(lock, say):
        yield


def is_held(lock: Location) -> bool:
    """Tell whether a run is writing now."""
    if not lock.is_local:
        held = read_json(lock)
        return held is not None and held["renewed"] + held["seconds"] > time.time()
    try:
        with Path(lock.path).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


@contextlib.contextmanager
def _kernel_lock(lock: Location) -> Iterator[None]:
    path = Path(lock.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise _held(lock, file.read()) from error
        file.truncate(0)
        file.write(json.dumps(this_process()))
        file.flush()
        yield


@contextlib.contextmanager
def _lease(lock: Location, say: Callable[[str], None]) -> Iterator[None]:
    me = uuid.uuid4().hex
    first: dict[str, Any] | None = None
    began = time.monotonic()
    while held := read_json(lock):
        # By this machine's clock alone if the other's is ahead of it.
        left = min(held["renewed"] - time.time(), began - time.monotonic()) + held["seconds"]
        if left <= 0:
            break
        if first is None:
            first = held
            say(
                f"Another run holds {lock} (process {held['pid']} on {held['host']}); "
                f"waiting up to {left:.0f} s to see whether it is still there."
            )
        if held != first:
            raise _held(lock, json.dumps(held))
        time.sleep(min(left, 2.0) + 0.1)

    def renew() -> None:
        write_json(lock, {**this_process(), "id": me, "renewed": time.time(), "seconds": LEASE_SECONDS})

    renew()
    time.sleep(0.5)  # whoever wrote last in a tie has it
    if (held := read_json(lock)) and held["id"] != me:
        raise _held(lock, json.dumps(held))
    ended = threading.Event()

    def keep() -> None:
        while True:
            with contextlib.suppress(OSError, RayftError):  # the run itself finds out whether the store is gone
                if (now := read_json(lock)) is None or now["id"] == me:
                    renew()
            if ended.wait(LEASE_SECONDS / 3):
                return

    keeper = threading.Thread(target=keep, daemon=True, name="rayft-lease")
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()
        with contextlib.suppress(OSError, RayftError):  # a lease that stays ends by itself
            if (now := read_json(lock)) and now["id"] == me:
                lock.remove()


def _held(lock: Location, holder: str) -> StoppedError:
    try:
        who = json.loads(holder)
        by = f"process {who['pid']} on {who['host']}, since {who['since']}"
    except (ValueError, KeyError):
        by = "another process"
    return StoppedError(
        f"{lock.parent} is being written by {by}. Wait until it has finished, "
        "or stop it and run the same command again."
    )
