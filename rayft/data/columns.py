"""Which columns hold the review, and what the appended columns are called."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from rayft.errors import UsageError, nearest

TEXT_NAMES = (
    "text",
    "review_text",
    "reviewText",
    "body",
    "review_body",
    "content",
    "review",
    "comment",
    "verified_reviews",
)
TITLE_NAMES = ("title", "review_title", "summary", "headline", "review_headline", "review_summary")

#: The appended columns in order. Earlier releases filled some with null; the schema never changes.
SCORE_FIELDS: tuple[pa.Field, ...] = (
    pa.field("label", pa.string()),
    pa.field("confidence", pa.float32()),
    pa.field("defect", pa.bool_()),
    pa.field("defect_score", pa.float32()),
    pa.field("defect_type", pa.string()),
    pa.field("defect_evidence", pa.string()),
    pa.field("defect_severity", pa.string()),
    pa.field("score_note", pa.string()),
)
SCORE_NAMES = tuple(field.name for field in SCORE_FIELDS)


@dataclass(frozen=True)
class ReviewColumns:
    """The columns that the model reads; `title` is None if there is none or it is not wanted."""

    text: str
    title: str | None
    text_guessed: bool = False
    title_guessed: bool = False

    def __str__(self) -> str:
        how = {True: " (found by name)", False: ""}
        title = f"'{self.title}'{how[self.title_guessed]}" if self.title else "none"
        return f"text '{self.text}'{how[self.text_guessed]}, title {title}"


def is_text(kind: pa.DataType) -> bool:
    """Tell whether a column of this type can hold reviews."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def choose_columns(schema: pa.Schema, text: str | None, title: str | None, no_title: bool, where: str) -> ReviewColumns:
    """Find the text and title columns of one file, each on its own.

    A column named by the user must be there and hold strings. One that is not named is found among
    the common names; the text must be found, a missing title is fine.

    Raises:
        UsageError: a column is missing, ambiguous or not text; lists the columns there are.
    """
    if no_title and title:
        raise UsageError("--title-column and --no-title exclude each other.")
    found_text = _named(schema, text, "--text-column", where) or _guessed(schema, TEXT_NAMES, "--text-column", where)
    if found_text is None:
        raise UsageError(
            f"{where} has no column that looks like review text; it has: {_names(schema)}. "
            "Choose one with --text-column."
        )
    found_title = None
    if not no_title:
        found_title = _named(schema, title, "--title-column", where) or _guessed(
            schema, TITLE_NAMES, "--title-column", where
        )
        if found_title == found_text:
            raise UsageError(f"Text and title are both column '{found_text}' of {where}. Use --no-title.")
    return ReviewColumns(found_text, found_title, text is None, title is None and found_title is not None)


def _names(schema: pa.Schema) -> str:
    return ", ".join(schema.names) or "no columns at all"


def _named(schema: pa.Schema, name: str | None, option: str, where: str) -> str | None:
    if name is None:
        return None
    count = schema.names.count(name)
    if count == 0:
        raise UsageError(
            f"{where} has no column '{name}'; it has: {_names(schema)}.{nearest(name, schema.names)} "
            f"Choose one with {option}."
        )
    if count > 1:
        raise UsageError(f"{where} has {count} columns named '{name}'. Rename one of them.")
    kind = schema.field(name).type
    if not is_text(kind):
        raise UsageError(f"Column '{name}' of {where} holds {kind}, not text. Choose another with {option}.")
    return name


def _guessed(schema: pa.Schema, known: Sequence[str], option: str, where: str) -> str | None:
    wanted = {name.lower() for name in known}
    found = [name for name in schema.names if name.lower() in wanted]
    usable = [name for name in found if schema.names.count(name) == 1 and is_text(schema.field(name).type)]
    if len(usable) > 1:
        raise UsageError(
            f"{where} has several columns that could be meant: {', '.join(usable)}; "
            f"all its columns: {_names(schema)}. Choose one with {option}."
        )
    return usable[0] if usable else None


def appended_fields(prefix: str, columns: Sequence[str] | None) -> list[pa.Field]:
    """Return the appended fields, renamed by `prefix`, in their fixed order; `columns` keeps only some.

    Raises:
        UsageError: `columns` names one that rayft does not write.
    """
    if columns is not None:
        for name in columns:
            if name not in SCORE_NAMES:
                hint = nearest(name, list(SCORE_NAMES))
                raise UsageError(f"rayft writes no column '{name}'; it writes: {', '.join(SCORE_NAMES)}.{hint}")
    return [f.with_name(prefix + f.name) for f in SCORE_FIELDS if columns is None or f.name in columns]


def check_collisions(schema: pa.Schema, fields: Sequence[pa.Field], where: str) -> None:
    """Refuse appended names that the input has, also when they differ by case only.

    Raises:
        UsageError: with the colliding names and a prefix that would work.
    """
    taken = {name.lower(): name for name in schema.names}
    collisions = [taken[f.name.lower()] for f in fields if f.name.lower() in taken]
    if collisions:
        prefixes = itertools.chain(("rayft_", "scored_"), (f"rayft{number}_" for number in itertools.count(2)))
        example = next(p for p in prefixes if not any(p + name in taken for name in SCORE_NAMES))
        raise UsageError(
            f"{where} already has column {', '.join(repr(c) for c in collisions)}, which rayft would write. "
            f"Use --prefix {example} (or drop columns with --columns)."
        )
