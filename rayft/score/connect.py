"""Connect to a Ray cluster, or start one on this machine alone, quietly."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from rayft.errors import StoppedError, UsageError

_CONNECT_SECONDS = 10.0

#: Read by Ray's core, which otherwise writes to standard error what rayft says in its own words, and
#: by Ray Data, which otherwise starts an actor that collects what is used of it.
_QUIET = {"RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_DATA_USAGE_DISABLED": "1"}
#: Read by a Ray that starts here. Nothing is sent to its makers; a driver run by `uv run` does not
#: upload its working directory; workers have the priority of the command, not a lower one; and it
#: listens on the loopback interface only, which Ray does of its own on Windows and macOS alone.
_LOCAL = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_worker_niceness": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Be connected to a Ray cluster while the block runs; one that is started here ends with it.

    Args:
        address: `auto`, HOST:PORT, or None to start one; if this process is connected already, it stays so.

    Raises:
        UsageError: the address is one of Ray Client, which cannot run Ray Data reliably.
        StoppedError: there is no cluster at the address.
    """
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        yield
        return
    if address is not None and address.startswith("ray://"):
        raise UsageError(
            f"{address} is an address of Ray Client, which cannot run a scoring run. Run the command on a node "
            "of the cluster with --address auto, or send it there with `ray job submit`."
        )
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if address is None:
        _start()
    else:
        _check_address(address)
        _init(address, address=address)
    import ray

    try:
        yield
    finally:
        ray.shutdown()


def _start() -> None:
    """Start Ray on this machine; nobody else can reach it.

    Raises:
        StoppedError: it does not start.
    """
    from ray._private import ray_constants

    reachable = ray_constants.ENABLE_RAY_CLUSTER
    options = {"address": "local", "num_cpus": len(os.sched_getaffinity(0)), "include_dashboard": False}
    with _environment(_LOCAL):
        ray_constants.ENABLE_RAY_CLUSTER = False  # what the variable says, should Ray be imported already
        try:
            _init("this machine", **options)
        except StoppedError:
            # A Ray that starts on a very busy machine may give up on itself; mostly that passes.
            _init("this machine", **options)
        finally:
            ray_constants.ENABLE_RAY_CLUSTER = reachable


def _init(where: str, **options: Any) -> None:
    import ray

    _mute_ray_data()
    with _own_signals(), _core_silent():
        try:
            ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # Ray raises bare ones
            ray.shutdown()
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            raise StoppedError(f"Cannot use Ray on {where}: {reason}") from error


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables that are not set, for what is started in the block."""
    added = [name for name in values if name not in os.environ]
    os.environ.update({name: values[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _check_address(address: str) -> None:
    """See that something listens at the address: Ray itself would try for ten minutes.

    Raises:
        StoppedError: nothing does.
    """
    from ray._private.services import canonicalize_bootstrap_address

    try:
        found = canonicalize_bootstrap_address(address)
        if found is None:
            raise StoppedError(
                f"No Ray cluster runs on this machine (--address {address}). Start one with `ray start --head`, "
                "give the HOST:PORT of another, or leave --address out."
            )
        host, _, port = found.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise StoppedError(f"Cannot connect to a Ray cluster at {address}: {error}") from error


@contextlib.contextmanager
def _core_silent() -> Iterator[None]:
    """Send what Ray's core prints while it starts nowhere; what goes wrong, it raises as well."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _mute_ray_data() -> None:
    """Keep Ray Data's messages off the terminal; they still go to its log file."""
    import ray.data  # noqa: F401 (sets its handlers up)

    warnings.filterwarnings("ignore", module=r"ray\.")
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.CRITICAL + 1)


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep our handler of SIGTERM, which Ray replaces by one that exits without a message."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
