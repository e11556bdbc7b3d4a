"""Whether a Ray cluster is one that rayft can use, and one that only its owners can use.

Ray runs what it is sent. Until tokens are switched on, so does everybody who reaches the dashboard's job
API (CVE-2023-48022) or the head's own port.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterator, Sequence

from rayft import __version__
from rayft.data.object_store import without_secrets
from rayft.doctor.check import Check, one_line
from rayft.doctor.nodes import NodeFacts, addresses, ask_all, http_status, marked
from rayft.errors import RayftError, UsageError

_TOKEN_MEND = (
    "Start every node with RAY_AUTH_MODE=token and the same token (`ray get-auth-token --generate`); "
    "until then keep its ports inside a private network."
)


def checks(address: str, paths: Sequence[str]) -> Iterator[Check]:
    """Connect to a cluster, ask every node, and yield the checks."""
    from rayft.score.connect import connected

    try:
        with connected(address):
            gcs, dashboard = addresses()
            with marked(paths) as marks:
                nodes = ask_all(marks, [port_of(gcs), *([port_of(dashboard)] if dashboard else [])])
            status = http_status(f"http://{dashboard}/api/jobs/") if dashboard else None
    except RayftError as error:
        yield Check(
            "cluster", "error", one_line(error), "Start it with `ray start --head`, or run this on one of its nodes."
        )
        return
    yield from judge(nodes, gcs, dashboard, status)


def judge(nodes: Sequence[NodeFacts], gcs: str, dashboard: str | None, status: int | None) -> Iterator[Check]:
    """Yield the checks of a cluster from what was found.

    Args:
        gcs: address of the head's own port.
        dashboard: address of the dashboard, None if there is none.
        status: HTTP status of a request to the job API without a token, None if it did not answer.
    """
    yield _nodes_check(nodes)
    answered = [node for node in nodes if node.problem is None]
    if not answered:
        return
    yield _versions_check(answered)
    yield _tokens_check(answered, gcs)
    yield _dashboard_check(answered, dashboard, status)
    yield _listening_check(answered, gcs, dashboard)
    yield from _storage_checks(answered)
    yield _fit_check(answered)


def _nodes_check(nodes: Sequence[NodeFacts]) -> Check:
    silent = [f"{node.host} ({node.problem})" for node in nodes if node.problem is not None]
    if silent:
        return Check(
            "cluster",
            "error",
            f"{len(silent)} of {len(nodes)} nodes cannot run rayft: {'; '.join(silent[:5])}",
            "Install the same rayft on every node, or restart those that do not answer.",
        )
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    return Check("cluster", "ok", f"{len(nodes)} nodes answer, {cpus:g} CPUs, {gpus:g} GPUs")


def _versions_check(nodes: Sequence[NodeFacts]) -> Check:
    own = {"Python": _python(), "Ray": ray_version(), "rayft": __version__}
    different = []
    for node in nodes:
        found = {"Python": node.python, "Ray": node.ray, "rayft": node.rayft}
        words = [f"{name} {found[name] or 'missing'}, not {own[name]}" for name in own if found[name] != own[name]]
        if words:
            different.append(f"{node.host} has {' and '.join(words)}")
    if different:
        return Check(
            "versions", "error", "; ".join(different[:5]), "Install the same versions on every node and restart them."
        )
    return Check("versions", "ok", ", ".join(f"{name} {version}" for name, version in own.items()) + " everywhere")


def _tokens_check(nodes: Sequence[NodeFacts], gcs: str) -> Check:
    without = sorted({node.host for node in nodes if node.auth != "token"})
    if not without:
        return Check("tokens", "ok", "every node asks for one")
    if is_local(gcs):
        return Check("tokens", "ok", f"none asked for; Ray's head listens on {gcs}, on this machine alone")
    return Check(
        "tokens",
        "warn",
        f"none asked for by {', '.join(without[:5])}; whoever reaches {gcs} can run programs there",
        _TOKEN_MEND,
    )


def _dashboard_check(nodes: Sequence[NodeFacts], dashboard: str | None, status: int | None) -> Check:
    if dashboard is None:
        return Check("dashboard", "ok", "none")
    bound = _bound(nodes, dashboard)
    where = f"{dashboard} (bound to {', '.join(bound)})" if bound else dashboard
    if status in (401, 403):
        return Check("dashboard", "ok", f"{where} asks for a token")
    tokens = all(node.auth == "token" for node in nodes)
    local = all(map(is_local, bound)) if bound else is_local(dashboard)
    if local:
        return Check("dashboard", "ok", f"{where} listens on that machine alone")
    if status is None and tokens:
        return Check("dashboard", "warn", f"{where} does not answer from here; the nodes ask for tokens")
    if status == 404:  # Ray without its `default` extra
        return Check("dashboard", "ok", f"{where} has no job API")
    return Check(
        "dashboard",
        "error",
        f"{where} listens to the network and asks for no token: its job API runs what anybody sends (CVE-2023-48022)",
        "Restart the head with --dashboard-host 127.0.0.1, or with RAY_AUTH_MODE=token on every node.",
    )


def _listening_check(nodes: Sequence[NodeFacts], gcs: str, dashboard: str | None) -> Check:
    bound = {name: _bound(nodes, at) for name, at in (("head", gcs), ("dashboard", dashboard)) if at}
    words = [f"{name} on {', '.join(found)}" for name, found in bound.items() if found]
    everywhere = [name for name, found in bound.items() if any(_is_any(at) for at in found)]
    finding = "; ".join(words) or "not seen from here"
    if everywhere and not all(node.auth == "token" for node in nodes):
        return Check(
            "addresses",
            "warn",
            f"{finding}: every network interface",
            "Switch tokens on, or let a firewall close these ports to everybody but the nodes.",
        )
    return Check("addresses", "ok", finding)


def _storage_checks(nodes: Sequence[NodeFacts]) -> Iterator[Check]:
    for path in sorted({path for node in nodes for path in node.sees}):
        blind = [node.host for node in nodes if not node.sees.get(path, False)]
        name = f"{without_secrets(path)}: on the nodes"
        if blind:
            yield Check(
                name,
                "error",
                f"not seen, or another one, on {', '.join(blind[:5])}",
                "Use an object store, or mount the same file system at the same path on every node.",
            )
        else:
            yield Check(name, "ok", f"the same on {len(nodes)} nodes")


def _fit_check(nodes: Sequence[NodeFacts]) -> Check:
    from rayft.score.layout import Node, plan_layout

    wrong = []
    for node in nodes:
        if node.cpus > node.cores:
            wrong.append(f"{node.host} offers {node.cpus:g} CPUs and has {node.cores}")
        if node.gpus > node.devices:
            wrong.append(f"{node.host} offers {node.gpus:g} GPUs and has {node.devices}")
        elif node.devices > node.gpus:
            wrong.append(f"{node.host} offers {node.gpus:g} of {node.devices} GPUs")
    device = "cuda" if any(node.gpus >= 1 for node in nodes) else "cpu"
    try:
        layout = plan_layout([Node("", node.host, node.cpus, node.gpus) for node in nodes], device)
    except UsageError as error:
        return Check("fit", "error", one_line(error), "Add nodes, or give `ray start` more --num-cpus.")
    finding = f"{layout.actors} model actors of {layout.gpus or layout.cpus:g} {'GPUs' if layout.gpus else 'CPUs'}"
    if wrong:
        return Check(
            "fit", "warn", f"{finding}; {'; '.join(wrong[:5])}", "Start these nodes with what they have: --num-cpus."
        )
    return Check("fit", "ok", f"{finding}, {layout.readers} readers, {layout.committers} committers")


def _python() -> str:
    return "{}.{}.{}".format(*sys.version_info[:3])


def ray_version() -> str:
    """Return the release of Ray that is installed here."""
    import ray

    return str(ray.__version__)


def port_of(address: str) -> int:
    """Return the port of HOST:PORT."""
    return int(address.rsplit(":", 1)[1])


def is_local(address: str) -> bool:
    """Tell whether a host, with or without a port, is this machine to itself only."""
    host = address.rsplit(":", 1)[0] if address.count(":") == 1 or address.startswith("[") else address
    host = host.strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_any(host: str) -> bool:
    return ipaddress.ip_address(host).is_unspecified


def _bound(nodes: Sequence[NodeFacts], address: str) -> list[str]:
    """Return on which addresses the nodes listen on the port of `address`."""
    return sorted({host for node in nodes for host in node.listening.get(port_of(address), [])})
