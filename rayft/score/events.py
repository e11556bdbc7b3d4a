"""What an executor reports as it goes."""

from __future__ import annotations

from dataclasses import dataclass

from rayft.score.plan import FilePlan, Span
from rayft.score.stats import Stats


@dataclass(frozen=True)
class SpanDone:
    """A span is committed; `stats` are of its rows. `worker` names the actor that ran the model."""

    plan: FilePlan
    span: Span
    stats: Stats
    worker: str = "local"


@dataclass(frozen=True)
class FileDone:
    """An output is committed; `stats` hold the seconds of assembling it."""

    plan: FilePlan
    stats: Stats


@dataclass(frozen=True)
class FileFailed:
    """A file cannot be read or has changed; its output is not written."""

    plan: FilePlan
    reason: str


Event = SpanDone | FileDone | FileFailed
