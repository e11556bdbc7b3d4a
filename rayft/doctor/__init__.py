"""Look at a machine, a model, folders and a cluster before work begins, and say how to mend what is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rayft.doctor.check import Check

__all__ = ["Check", "examine"]


def examine(
    model: str | None = None, paths: Sequence[str] = (), address: str | None = None, quick: bool = False
) -> Iterator[Check]:
    """Yield the checks as they are done; what is broken becomes a check, never an exception.

    Args:
        model: as for `rayft score`.
        paths: inputs and outputs, local or in object stores.
        address: of a Ray cluster; without it, only this machine is looked at.
        quick: leave out the prediction, which loads the model's weights.
    """
    from rayft.doctor import machine, model_check, paths_check

    yield from machine.checks()
    yield from model_check.checks(model, quick)
    for path in paths:
        yield from paths_check.checks(path)
    if address is not None:
        from rayft.doctor import cluster

        yield from cluster.checks(address, paths)
