"""What the user asked of each command, as one frozen dataclass a command."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ScoreConfig:
    """`rayft score`.

    Attributes:
        inputs: files, directories, globs, local or in object stores.
        output: a `.parquet` file or a folder; None is `<stem>.scored.parquet` beside the one input.
        model: None (the shipped one), `bundled`, a directory or a Hub id.
        max_length: tokens; None is the model's own. `truncation` (`head` or `head+tail`) likewise.
        batch_tokens: padded tokens per batch; None is the engine's own.
        columns: appended columns to keep, None for all.
        limit: score at most that many rows of all inputs together.
        engine_backend: the library that computes: `auto`, `openvino` or `torch`.
        engine: `auto`, `local` or `ray`; `address` and `replicas_per_gpu` are for Ray.
        price_per_hour: dollars of all machines together, for the cost in the report.
    """

    inputs: tuple[str, ...]
    output: str | None = None
    model: str | None = None
    text_column: str | None = None
    title_column: str | None = None
    no_title: bool = False
    infer_types: bool = False
    max_length: int | None = None
    truncation: str | None = None
    precision: str = "auto"
    device: str = "auto"
    engine_backend: str = "auto"
    threshold: float = 0.5
    negative_label: str | None = None
    batch_tokens: int | None = None
    prefix: str = ""
    columns: tuple[str, ...] | None = None
    limit: int | None = None
    overwrite: bool = False
    retry_failed: bool = False
    engine: str = "auto"
    address: str | None = None
    replicas: int | None = None
    replicas_per_gpu: int = 1
    threads: int | None = None
    layout: str = "mirror"
    price_per_hour: float | None = None
