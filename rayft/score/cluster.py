"""Find or start a Ray cluster, and see that its nodes can do the work."""

from __future__ import annotations

import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rayft import __version__
from rayft.config import ScoreConfig
from rayft.data.source import digest_of
from rayft.data.storage import Location
from rayft.errors import RayftError, StoppedError, UsageError
from rayft.model.checkpoint import Checkpoint
from rayft.model.engine import EngineSpec, resolve_engine
from rayft.score.connect import connected
from rayft.score.layout import Node

_PROBE_SECONDS = 120.0
_LOOK_BYTES = 64 << 10


def wants_ray(config: ScoreConfig) -> bool:
    """Tell whether a run goes to Ray: asked for, inside or beside a cluster, or more than one GPU here."""
    if config.engine != "auto":
        return config.engine == "ray"
    if address_of(config) is not None or _initialized():
        return True
    return config.device != "cpu" and _gpus_here() > 1


def runs_elsewhere(config: ScoreConfig) -> bool:
    """Tell whether a run goes to a cluster that is there already, of other machines perhaps."""
    return wants_ray(config) and (address_of(config) is not None or _initialized())


def _initialized() -> bool:
    return "ray" in sys.modules and bool(sys.modules["ray"].is_initialized())


def address_of(config: ScoreConfig) -> str | None:
    """Return the address of the cluster to use, None to start one here."""
    return config.address or os.environ.get("RAY_ADDRESS") or ("auto" if "RAY_JOB_ID" in os.environ else None)


def _gpus_here() -> int:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return 0 if visible.strip() in ("", "-1") else len(visible.split(","))
    return sum(1 for path in Path("/dev").glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name))


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


def resolve_on_cluster(config: ScoreConfig, checkpoint: Checkpoint) -> EngineSpec:
    """Choose the engine that all nodes can build which will run it: GPUs if any node has one.

    Raises:
        UsageError: the cluster has no GPU and one is asked for.
        StoppedError: the cluster cannot be reached.
    """
    with connected(address_of(config)):
        nodes = alive_nodes()
        on_gpus = [node for node in nodes if node.gpus >= 1] if config.device != "cpu" else []
        if config.device == "cuda" and not on_gpus:
            raise UsageError(f"--device cuda: none of the {len(nodes)} Ray nodes has a GPU.")
        device = "cuda" if on_gpus else "cpu"
        wanted = (config.precision, device, config.engine_backend, checkpoint.config)
        working = [node for node in on_gpus or nodes if node.cpus + node.gpus > 0]
        found = {_resolve_here(*wanted)} if len(others(working)) < len({node.host for node in working}) else set()
        for node, answer in _ask(others(working), _resolve_here, *wanted):
            if isinstance(cause := getattr(answer, "cause", None), RayftError):
                raise cause
            if isinstance(answer, Exception):
                raise StoppedError(f"{node.host} cannot run rayft: {_last_line(answer)}") from answer
            found.add(answer)
        if len(found) == 1:
            return found.pop()
        return EngineSpec("torch", "fp32", "cuda" if on_gpus else "cpu")  # what every machine has


def _resolve_here(precision: str, device: str, backend: str, model: dict[str, Any]) -> EngineSpec:
    """Resolve on a worker, from which Ray hides the GPUs that it has not reserved."""
    hidden = os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    try:
        return resolve_engine(precision, device, backend, model)
    finally:
        if hidden is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = hidden


def check_nodes(nodes: list[Node], files: Sequence[Location]) -> None:
    """See that every node runs this release of rayft and sees `files` as this process does.

    A folder in an object store or on a shared mount passes; one on the disk of this machine alone is
    found out before any work. Nodes of this very machine are not asked.

    Raises:
        StoppedError: names the nodes that cannot, and why.
    """
    release, expected = _look(files) if others(nodes) else ("", [])
    problems = []
    for node, answer in _ask(others(nodes), _look, files):
        if isinstance(answer, Exception):
            problems.append(f"{node.host} cannot run rayft ({_last_line(answer)})")
        elif answer[0] != release:
            problems.append(f"{node.host} has rayft {answer[0]}, not {release}")
        else:
            unseen = [str(f) for f, theirs, ours in zip(files, answer[1], expected, strict=True) if theirs != ours]
            problems += [f"{node.host} does not see {', '.join(unseen)}"] if unseen else []
    if problems:
        raise StoppedError(
            f"{len(problems)} of {len(nodes)} Ray nodes cannot take part: {'; '.join(problems[:5])}. "
            "Inputs, output and model must be on storage that all nodes share (an object store or the same mount), "
            "and the same rayft must be installed on all of them."
        )


def _look(files: Sequence[Location]) -> tuple[str, list[str | None]]:
    """Return the release of rayft here and a digest of the beginning of each file, None if it is not here."""
    return __version__, [_digest(file) for file in files]


def _digest(file: Location) -> str | None:
    try:
        with file.filesystem.open_input_file(file.path) as stream:
            return digest_of(stream.read(_LOOK_BYTES))
    except OSError:
        return None


def others(nodes: Sequence[Node]) -> list[Node]:
    """Return one node that works of every machine but this one."""
    hosts = {node.host: node for node in nodes if node.cpus + node.gpus > 0}
    return [node for host, node in hosts.items() if host != socket.gethostname()]


def _ask(nodes: Sequence[Node], function: Callable[..., Any], *args: Any) -> Iterator[tuple[Node, Any]]:
    """Call a function on each of the nodes; yields what it returned there, or the exception."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    remote = ray.remote(num_cpus=0, max_retries=1)(function)
    refs = [
        remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.name, soft=False)).remote(*args)
        for node in nodes
    ]
    end = time.monotonic() + _PROBE_SECONDS
    for node, ref in zip(nodes, refs, strict=True):
        try:
            yield node, ray.get(ref, timeout=max(0.0, end - time.monotonic()))
        except ray.exceptions.GetTimeoutError:
            yield node, TimeoutError(f"no answer within {_PROBE_SECONDS:.0f} s")
        except Exception as error:
            yield node, error


def _last_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1]
