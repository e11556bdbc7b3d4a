"""How many model actors fit on a cluster, and how much room they leave for reading and committing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rayft.errors import UsageError

#: CPUs of one task that reads, commits or finishes.
SLOT = 0.25
#: CPUs that stay free of model actors on every node. If actors took all of them, Ray Data would
#: wait for a CPU to read with until its own guard ends the run after half an hour.
_ROOM = 2 * SLOT
_READERS_PER_GPU = 32


@dataclass(frozen=True)
class Node:
    """One Ray node: short id, host name, and what it offers."""

    name: str
    host: str
    cpus: float
    gpus: float = 0.0


@dataclass(frozen=True)
class Layout:
    """What each stage may take.

    Attributes:
        cpus, gpus: reserved by each of the `actors`.
        threads: CPU threads of each actor's engine.
        readers: tasks that read at a time; `committers` likewise. Each takes SLOT CPUs.
    """

    actors: int
    cpus: float
    gpus: float
    threads: int
    readers: int
    committers: int


def plan_layout(
    nodes: Sequence[Node],
    device: str,
    replicas: int | None = None,
    replicas_per_gpu: int = 1,
    threads: int | None = None,
) -> Layout:
    """Divide a cluster between the stages; model actors never take every CPU.

    On GPUs an actor takes `1 / replicas_per_gpu` of one. On CPUs there is one actor a node unless
    `replicas` or `threads` ask for more and smaller ones; an actor with n threads on n cores
    reserves a little less than n CPUs, because reading and committing are short.

    Raises:
        UsageError: the cluster is too small for what is asked; says what would fit.
    """
    total = sum(node.cpus for node in nodes)
    if total < SLOT + _ROOM:
        raise UsageError(f"The Ray cluster has {total:g} CPUs; scoring needs at least {SLOT + _ROOM:g}.")
    if device == "cuda":
        actors, cpus, gpus = _on_gpus(nodes, replicas, replicas_per_gpu)
        readers_at_most = _READERS_PER_GPU * actors
    else:
        actors, cpus = _on_cpus(nodes, replicas, threads)
        gpus = 0.0
        readers_at_most = actors + 1
    slots = int((total - actors * cpus) / SLOT + 1e-9)
    readers = max(1, min(slots // 2, readers_at_most))
    return Layout(actors, cpus, gpus, threads or max(1, math.ceil(cpus)), readers, slots - readers)


def _on_gpus(nodes: Sequence[Node], replicas: int | None, per_gpu: int) -> tuple[int, float, float]:
    """Return actors, CPUs of each and GPUs of each."""
    fit = sum(int(node.gpus) * per_gpu for node in nodes)
    if not fit:
        raise UsageError(f"The model is to run on GPUs, but none of the {len(nodes)} Ray nodes has one.")
    if replicas is not None and replicas > fit:
        raise UsageError(
            f"--replicas {replicas} do not fit: {fit // per_gpu} GPUs hold {fit} at {per_gpu} per GPU. "
            "Use fewer, or more with --replicas-per-gpu."
        )
    # A GPU actor mostly waits for its GPU; without a whole CPU it runs as well, only less evenly.
    cpus = min(_floor((node.cpus - _ROOM) / (int(node.gpus) * per_gpu)) for node in nodes if node.gpus >= 1)
    return replicas or fit, min(1.0, max(0.0, cpus)), 1 / per_gpu


def _on_cpus(nodes: Sequence[Node], replicas: int | None, threads: int | None) -> tuple[int, float]:
    """Return actors and CPUs of each: the largest that fit `replicas`, or that use most of the CPUs."""
    sizes = sorted(set(_actor_sizes(nodes, replicas, threads)), reverse=True)
    if replicas is None:
        cpus = max(sizes, key=lambda size: (_count(nodes, size) * size, size))
        return _count(nodes, cpus), cpus
    for cpus in sizes:
        if _count(nodes, cpus) >= replicas:
            return replicas, cpus
    raise UsageError(
        f"--replicas {replicas} do not fit on {sum(node.cpus for node in nodes):g} CPUs: "
        f"at most {_count(nodes, SLOT)} do, and {len(nodes)} or a few more are fastest."
    )


def _actor_sizes(nodes: Sequence[Node], replicas: int | None, threads: int | None) -> Iterator[float]:
    """Yield the CPUs per actor that divide some node evenly."""
    for node in nodes:
        if replicas is not None:
            counts = range(1, replicas + 1)
        else:
            per_node = max(1, int(node.cpus) // threads) if threads else 1
            counts = range(per_node, per_node + 1)
        for count in counts:
            size = _floor((node.cpus - _ROOM) / count)
            if size < SLOT:
                break
            yield size


def _count(nodes: Sequence[Node], cpus: float) -> int:
    return sum(max(0, int((node.cpus - _ROOM) / cpus + 1e-9)) for node in nodes)


def _floor(cpus: float) -> float:
    """Round down to a hundredth: what actors leave of a node stays too little for one more of them.

    If it were enough, an actor of a lost node would come up there and take the room for reading.
    """
    return math.floor(cpus * 100 + 1e-6) / 100
