"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "error"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what was looked at, in a few words.
        status: `error` stops rayft or is dangerous; with `warn` it works less well than it could.
        finding: what is the case.
        mend: what to do, in one line; empty if there is nothing to do.
    """

    name: str
    status: Status
    finding: str
    mend: str = ""


def size(count: float) -> str:
    """Return a number of bytes for people."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def one_line(error: BaseException) -> str:
    """Return what an exception says, in one line."""
    return str(error).strip().split("\n")[0] or type(error).__name__
