"""Scoring from Python: tables in memory, the same steps as `rayft score`."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from rayft.data.columns import ReviewColumns, appended_fields, check_collisions, choose_columns
from rayft.model.checkpoint import load_checkpoint
from rayft.model.engine import build_engine, resolve_engine
from rayft.score.span import ScoreSettings, attach, encode, infer, strings


class Scorer:
    """A model, loaded once, that scores tables.

        scorer = rayft.Scorer()
        scored = scorer.score(pyarrow.parquet.read_table("reviews.parquet"))

    Args:
        model: None for the shipped model, a directory or a Hub id.
        engine_backend: `auto`, `openvino` or `torch`; auto is OpenVINO on CPUs where it is installed.

    Raises:
        UsageError: the model cannot be loaded, or an engine is asked for that is not there.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        precision: str = "auto",
        device: str = "auto",
        engine_backend: str = "auto",
        max_length: int | None = None,
        truncation: str | None = None,
        threshold: float = 0.5,
        negative_label: str | None = None,
        threads: int | None = None,
    ) -> None:
        self.checkpoint = load_checkpoint(model, truncation)
        spec = resolve_engine(precision, device, engine_backend, self.checkpoint.config)
        self._engine = build_engine(self.checkpoint, spec, threads)
        self._encoder = self.checkpoint.encoder(max_length)
        self._settings = ScoreSettings(
            self.checkpoint.labels, self.checkpoint.negative_index(negative_label), threshold
        )
        self._batch_tokens = spec.batch_tokens

    def score(
        self,
        table: pa.Table,
        *,
        text_column: str | None = None,
        title_column: str | None = None,
        no_title: bool = False,
        prefix: str = "",
    ) -> pa.Table:
        """Return `table` with rayft's columns appended, every row kept in its place.

        Raises:
            UsageError: no text column is found, or a name collides.
        """
        columns = choose_columns(table.schema, text_column, title_column, no_title, "The table")
        fields = appended_fields(prefix, None)
        check_collisions(table.schema, fields, "The table")
        scored = self._score_columns(table, columns)
        for field, column in zip(fields, scored.columns, strict=True):
            table = table.append_column(field, column)
        return table

    def score_texts(self, texts: Sequence[str | None]) -> pa.Table:
        """Return rayft's columns for plain texts."""
        return self._score_columns(pa.table({"text": pa.array(texts, pa.string())}), ReviewColumns("text", None))

    def _score_columns(self, table: pa.Table, columns: ReviewColumns) -> pa.Table:
        titles = strings(table[columns.title]) if columns.title else None
        span = encode(titles, strings(table[columns.text]), self._encoder, self.checkpoint.join_format)
        probabilities = infer(self._engine, span.texts, len(self.checkpoint.labels), self._batch_tokens)
        return attach(span, probabilities, self._settings)
