"""Which columns of a scored file hold product, date, category, text and review id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from rayft.alerts.config import AlertsConfig
from rayft.data.columns import SCORE_NAMES, TEXT_NAMES
from rayft.errors import UsageError, nearest

PRODUCT_NAMES = ("product_id", "asin", "parent_asin", "product", "sku", "item_id", "productId", "product_sku", "item")
DATE_NAMES = (
    "date", "review_date", "reviewed_at", "created_at", "timestamp", "reviewTime", "review_time", "unixReviewTime",
    "submitted_at", "submission_date", "time", "day",
)  # fmt: skip
CATEGORY_NAMES = ("category", "product_category", "main_category", "department", "product_type")
ID_NAMES = ("review_id", "reviewId", "reviewID")
ISSUE_NAMES = ("issue", "issue_type")


@dataclass(frozen=True)
class AlertColumns:
    """Columns of one file; None is 'there is none'. Those in `partitions` come from the folders' names.

    Attributes:
        score: column that rayft appended -> its name in this file, for those that are there.
    """

    product: str
    date: str
    category: str | None
    text: str | None
    review_id: str | None
    issue: str | None
    score: Mapping[str, str]
    partitions: Mapping[str, str]

    def names(self) -> dict[str, str]:
        """Return role -> column for the report."""
        roles = {"product": self.product, "date": self.date, "category": self.category, "text": self.text,
                 "id": self.review_id}  # fmt: skip
        return {role: name for role, name in roles.items() if name is not None}


def partitions_of(path: str) -> dict[str, str]:
    """Return the hive partitions (`key=value` folders) in a path."""
    from urllib.parse import unquote

    folders = path.split("/")[:-1]
    return {key: unquote(value) for key, found, value in (folder.partition("=") for folder in folders) if found and key}


def choose(
    schema: pa.Schema, footer: Mapping[str, str] | None, path: str, config: AlertsConfig, where: str
) -> AlertColumns:
    """Find the columns of one file by the user's names or by common ones.

    Args:
        footer: rayft's own column -> name in this file, as the file's footer says; None without one.

    Raises:
        UsageError: a column is missing or ambiguous, or the file was not scored; lists what there is.
    """
    partitions = partitions_of(path)
    names = list(dict.fromkeys([*schema.names, *partitions]))
    score = dict(footer) if footer is not None else {name: name for name in SCORE_NAMES}
    score = {own: name for own, name in score.items() if name in names}
    if "defect" not in score:
        raise UsageError(
            f"{where} has no column of defect flags ('defect'); it has: {', '.join(names) or 'no columns at all'}. "
            "Score it first: rayft score."
        )
    rest = [name for name in names if name not in score.values()]
    product = _pick(rest, config.product_column, PRODUCT_NAMES, "--product-column", "product", where)
    date = _pick(rest, config.date_column, DATE_NAMES, "--date-column", "date", where)
    if product is None or date is None:
        what, option = ("product", "--product-column") if product is None else ("date", "--date-column")
        raise UsageError(
            f"{where} has no column that looks like a {what}; it has: {', '.join(rest)}. Choose one with {option}."
        )
    return AlertColumns(
        product=product,
        date=date,
        category=_pick(rest, config.category_column, CATEGORY_NAMES, "--category-column", "category", where),
        text=_pick(rest, config.text_column, TEXT_NAMES, "--text-column", "text", where),
        review_id=_pick(rest, config.id_column, ID_NAMES, "--id-column", "id", where),
        issue=_pick(rest, None, ISSUE_NAMES, "", "issue", where),
        score=score,
        partitions=partitions,
    )


def _pick(
    names: Sequence[str], given: str | None, known: Sequence[str], option: str, role: str, where: str
) -> str | None:
    if given is not None:
        if given not in names:
            raise UsageError(
                f"{where} has no column '{given}'; it has: {', '.join(names)}.{nearest(given, list(names))} "
                f"Choose one with {option}."
            )
        return given
    wanted = {name.lower() for name in known}
    found = [name for name in names if name.lower() in wanted]
    if len(found) > 1 and option:
        raise UsageError(
            f"{where} has several columns that could be the {role}: {', '.join(found)}; all its columns: "
            f"{', '.join(names)}. Choose one with {option}."
        )
    return found[0] if found else None
