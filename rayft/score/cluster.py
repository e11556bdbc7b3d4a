"""Find or start a Ray cluster, and see that its nodes can do the work."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rayft import __version__
from rayft.config import ScoreConfig
from rayft.data.storage import Location
from rayft.errors import StoppedError, UsageError
from rayft.score.layout import Node

_CONNECT_SECONDS = 10.0
_PROBE_SECONDS = 120.0

#: Read by Ray's core, which otherwise writes to standard error what rayft says in its own words.
_QUIET = {"RAY_BACKEND_LOG_LEVEL": "fatal"}
#: Read by a Ray that starts here: nothing is sent to its makers, and a driver run by `uv run` does
#: not upload its working directory.
_LOCAL = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}


def wants_ray(config: ScoreConfig) -> bool:
    """Tell whether a run goes to Ray: asked for, inside or beside a cluster, or more than one GPU here."""
    if config.engine != "auto":
        return config.engine == "ray"
    if address_of(config) is not None or "RAY_JOB_ID" in os.environ:
        return True
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        return True
    return config.device != "cpu" and _gpus_here() > 1


def address_of(config: ScoreConfig) -> str | None:
    """Return the address of the cluster to use, None to start one here."""
    return config.address or os.environ.get("RAY_ADDRESS") or None


def _gpus_here() -> int:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return 0 if visible.strip() in ("", "-1") else len(visible.split(","))
    return sum(1 for path in Path("/dev").glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name))


@contextlib.contextmanager
def connected(config: ScoreConfig) -> Iterator[None]:
    """Be connected to a Ray cluster while the block runs; one that is started here ends with it.

    Raises:
        UsageError: the address is one of Ray Client, which cannot run Ray Data reliably.
        StoppedError: there is no cluster at the address.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    address = address_of(config)
    if address is not None and address.startswith("ray://"):
        raise UsageError(
            f"{address} is an address of Ray Client, which cannot run a scoring run. Run the command on a node "
            "of the cluster with --address auto, or send it there with `ray job submit`."
        )
    _start(address)
    try:
        yield
    finally:
        ray.shutdown()


def _start(address: str | None) -> None:
    import ray

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    _mute_ray_data()
    for name, value in (_QUIET if address else _QUIET | _LOCAL).items():
        os.environ.setdefault(name, value)
    if address is None:
        options |= {
            "address": "local",
            "num_cpus": len(os.sched_getaffinity(0)),
            "include_dashboard": False,
            "_node_ip_address": "127.0.0.1",
        }
    else:
        _check_address(address)
        options["address"] = address
    with _own_signals(), _core_silent():
        try:
            ray.init(**options)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            if address is None:
                raise StoppedError(f"Ray does not start on this machine: {reason}") from error
            raise StoppedError(f"Cannot connect to a Ray cluster at {address}: {reason}") from error


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


def alive_nodes() -> list[Node]:
    """Return the nodes of the cluster that are alive, with what they offer."""
    import ray

    return [
        Node(
            entry["NodeID"],
            entry["NodeManagerHostname"],
            entry["Resources"].get("CPU", 0.0),
            entry["Resources"].get("GPU", 0.0),
        )
        for entry in ray.nodes()
        if entry["Alive"]
    ]


def check_nodes(nodes: list[Node], file: Location) -> None:
    """See that every node runs this release of rayft and reads `file` as this process does.

    A folder in an object store or on a shared mount passes; one on the disk of this machine alone is
    found out before any work. Nodes of this very machine are not asked.

    Raises:
        StoppedError: names the nodes that cannot, and why.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    others = [node for node in nodes if node.host != socket.gethostname() and node.cpus + node.gpus > 0]
    if not others:
        return
    expected = (__version__, file.read_bytes())
    probe = ray.remote(num_cpus=0, max_retries=1)(_look)
    asked = {
        probe.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.name, soft=False)).remote(file): node
        for node in others
    }
    ready, late = ray.wait(list(asked), num_returns=len(asked), timeout=_PROBE_SECONDS)
    problems = [f"{asked[ref].host} did not answer within {_PROBE_SECONDS:.0f} s" for ref in late]
    for ref in ready:
        host = asked[ref].host
        try:
            release, content = ray.get(ref)
        except ray.exceptions.RayError as error:
            problems.append(f"{host} cannot run rayft ({str(error).strip().splitlines()[-1]})")
            continue
        if release != expected[0]:
            problems.append(f"{host} has rayft {release}, not {expected[0]}")
        elif content != expected[1]:
            problems.append(f"{host} does not see {file}")
    if problems:
        raise StoppedError(
            f"{len(problems)} of {len(nodes)} Ray nodes cannot take part: {'; '.join(problems[:5])}. "
            "Inputs, output and model must be on storage that all nodes share (an object store or the same mount), "
            "and the same rayft must be installed on all of them."
        )


def _look(file: Location) -> tuple[str, bytes | None]:
    try:
        return __version__, file.read_bytes()
    except OSError:
        return __version__, None
