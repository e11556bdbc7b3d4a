"""Ask every node of a Ray cluster what it is and what it sees."""

from __future__ import annotations

import contextlib
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rayft.data.storage import Location, locate
from rayft.errors import RayftError

_ANSWER_SECONDS = 60.0
_HTTP_SECONDS = 5.0


@dataclass(frozen=True)
class NodeFacts:
    """What one node says of itself.

    Attributes:
        cpus, gpus: as Ray was told.
        cores, devices: as the machine shows them.
        auth: Ray's authentication mode, `token` or `disabled`.
        sees: path -> whether it is the same file or folder as here.
        listening: port -> addresses on which it listens, of the ports that were asked for.
        problem: why nothing else is known.
    """

    host: str
    cpus: float
    gpus: float
    python: str = ""
    ray: str = ""
    rayft: str | None = None
    cores: int = 0
    devices: int = 0
    auth: str = ""
    sees: dict[str, bool] = field(default_factory=dict)
    listening: dict[int, list[str]] = field(default_factory=dict)
    problem: str | None = None


def addresses() -> tuple[str, str | None]:
    """Return the addresses of the head's port and of the dashboard."""
    import ray
    from ray._private.worker import _global_node  # no public way to the dashboard of a cluster joined before

    dashboard = getattr(_global_node, "webui_url", None) or None
    if dashboard:
        dashboard = dashboard.split("://")[-1].rstrip("/")
    return str(ray.get_runtime_context().gcs_address), dashboard


def http_status(url: str) -> int | None:
    """Return the status of a request without a token, None if there is no answer."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_HTTP_SECONDS) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, ValueError):
        return None


@contextlib.contextmanager
def marked(paths: Sequence[str]) -> Iterator[dict[str, tuple[str, bytes | None]]]:
    """Put a mark in every folder that can be written, for the nodes to find; paths that are missing are left out.

    Yields path -> (what to read, what it must hold; None if it is enough that it is there).
    """
    marks: dict[str, tuple[str, bytes | None]] = {}
    written: list[Location] = []
    try:
        for path in paths:
            with contextlib.suppress(RayftError, OSError):
                location = locate(path)
                if not location.is_dir():
                    if location.is_file():
                        marks[path] = (str(location) if location.is_local else path, None)
                    continue
                # An address may end with options, so that its mark cannot be named by appending to it.
                if not location.is_local:
                    marks[path] = (path, None)
                    continue
                marks[path] = (str(location), None)
                mark, content = location / f".rayft-doctor-{uuid.uuid4().hex[:12]}", uuid.uuid4().bytes
                mark.write_bytes(content)
                written.append(mark)
                marks[path] = (str(mark), content)
        yield marks
    finally:
        for mark in written:
            with contextlib.suppress(RayftError, OSError):
                mark.remove()


def ask_all(marks: Mapping[str, tuple[str, bytes | None]], ports: Sequence[int]) -> list[NodeFacts]:
    """Ask every node that is alive; one that does not answer becomes a problem."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from rayft.score.cluster import alive_nodes

    nodes = alive_nodes()
    task = ray.remote(num_cpus=0, max_retries=0)(_questions())
    asked = {
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.name, soft=False)).remote(
            dict(marks), list(ports)
        ): node
        for node in nodes
    }
    ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_SECONDS)
    facts = []
    for ref, node in asked.items():
        if ref not in ready:
            problem = f"no answer within {_ANSWER_SECONDS:.0f} s"
            facts.append(NodeFacts(node.host, node.cpus, node.gpus, problem=problem))
            continue
        try:
            facts.append(NodeFacts(node.host, node.cpus, node.gpus, **ray.get(ref)))
        except ray.exceptions.RayError as error:
            facts.append(NodeFacts(node.host, node.cpus, node.gpus, problem=str(error).strip().splitlines()[-1][:200]))
    return facts


def _questions() -> Callable[..., dict[str, Any]]:
    """Return the function that a node runs. It travels by value: a node without rayft must answer as well."""

    def answer(marks: dict[str, tuple[str, bytes | None]], ports: list[int]) -> dict[str, Any]:
        import os
        import re
        import socket
        import struct
        import sys
        from pathlib import Path

        import ray

        def same(target: str, content: bytes | None) -> bool:
            try:
                if "://" not in target:
                    path = Path(target)
                    return path.exists() if content is None else path.read_bytes() == content
                from rayft.data.storage import locate

                return int(locate(target).info().type) != 0
            except Exception:
                return False

        def listeners(port: int) -> list[str]:
            found = set()
            for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
                try:
                    lines = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
                except OSError:
                    continue
                for line in lines:
                    host, _, number = line.split()[1].partition(":")
                    if int(number, 16) == port and line.split()[3] == "0A":
                        words = [int(host[i : i + 8], 16) for i in range(0, len(host), 8)]
                        found.add(socket.inet_ntop(family, struct.pack(f"={len(words)}I", *words)))
            return sorted(found)

        def auth() -> str:
            try:
                from ray._raylet import AuthenticationMode, get_authentication_mode  # type: ignore[attr-defined]

                return "token" if get_authentication_mode() == AuthenticationMode.TOKEN else "disabled"
            except ImportError:
                return os.environ.get("RAY_AUTH_MODE", "disabled").lower()

        try:
            import rayft

            release = rayft.__version__
        except ImportError:
            release = None
        devices = [p for p in Path("/dev").glob("nvidia*") if re.fullmatch(r"nvidia\d+", p.name)]
        return {
            "python": "{}.{}.{}".format(*sys.version_info[:3]),
            "ray": ray.__version__,
            "rayft": release,
            "cores": os.cpu_count() or 0,
            "devices": len(devices),
            "auth": auth(),
            "sees": {path: same(*mark) for path, mark in marks.items()},
            "listening": {port: found for port in ports if (found := listeners(port))},
        }

    return answer
