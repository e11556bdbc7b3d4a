"""Which columns of a table hold title, text, label and split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from rayft.data.columns import choose_columns
from rayft.errors import UsageError, nearest
from rayft.prepare.config import PrepareConfig

LABEL_NAMES = ("label", "labels", "sentiment", "polarity", "class", "target")
STAR_NAMES = ("stars", "star_rating", "rating", "overall", "score")


@dataclass(frozen=True)
class Columns:
    """Names of the columns that are read; None where there is none."""

    text: str
    title: str | None
    label: str | None
    split: str | None

    @property
    def names(self) -> tuple[str, str | None, str | None, str | None]:
        return self.text, self.title, self.label, self.split

    def __str__(self) -> str:
        parts = [f"{role} '{name}'" for role, name in vars(self).items() if name is not None]
        return ", ".join(parts)


def find_columns(schema: pa.Schema, config: PrepareConfig, where: str) -> Columns:
    """Choose the columns of one table, by the user's word or by common names.

    Raises:
        UsageError: text or label is not found; the message lists the columns.
    """
    review = choose_columns(schema, config.text_column, config.title_column, config.no_title, where)
    label = _named(schema, config.label_column, "--label-column", where)
    if label is None:
        known = STAR_NAMES + LABEL_NAMES if config.stars_negative else LABEL_NAMES + STAR_NAMES
        label = next((found for name in known if (found := _like(schema.names, name)) is not None), None)
    if label is None:
        raise UsageError(
            f"{where} has no column that looks like a label; it has: {', '.join(schema.names)}. "
            "Choose one with --label-column."
        )
    return Columns(review.text, review.title, label, _named(schema, config.split_column, "--split-column", where))


def _named(schema: pa.Schema, name: str | None, option: str, where: str) -> str | None:
    if name is not None and name not in schema.names:
        raise UsageError(
            f"{where} has no column '{name}'; it has: {', '.join(schema.names)}. "
            f"Choose one with {option}.{nearest(name, list(schema.names))}"
        )
    return name


def _like(names: Sequence[str], wanted: str) -> str | None:
    return next((name for name in names if name.lower() == wanted), None)
