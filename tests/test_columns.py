"""Finding the review's columns, and naming those that are appended."""

from __future__ import annotations

import pyarrow as pa
import pytest

from rayft.data.columns import (
    SCORE_NAMES,
    TEXT_NAMES,
    TITLE_NAMES,
    appended_fields,
    check_collisions,
    choose_columns,
    is_text,
)
from rayft.errors import UsageError


def schema(*names: str, **types: pa.DataType) -> pa.Schema:
    return pa.schema([(name, pa.string()) for name in names] + list(types.items()))


@pytest.mark.parametrize(
    "name",
    [
        *("text", "review_text", "reviewText", "body", "content", "review", "comment", "verified_reviews"),
        *TEXT_NAMES,
        *("Text", "REVIEW_TEXT", "reviewtext"),
    ],
)
def test_text_is_found_by_its_name(name: str) -> None:
    found = choose_columns(schema("id", name, "asin"), None, None, False, "in.parquet")
    assert (found.text, found.title, found.text_guessed) == (name, None, True)
    assert name in str(found)
    assert "found by name" in str(found)


@pytest.mark.parametrize("name", ["title", "summary", "headline", *TITLE_NAMES, "Title", "HEADLINE"])
def test_title_is_found_by_its_name(name: str) -> None:
    found = choose_columns(schema(name, "text"), None, None, False, "in.parquet")
    assert (found.title, found.title_guessed) == (name, True)
    assert f"title '{name}' (found by name)" in str(found)


def test_each_is_guessed_on_its_own() -> None:
    columns = schema("opinion", "title", "text", "heading")
    assert str(choose_columns(columns, "opinion", None, False, "in")) == "text 'opinion', title 'title' (found by name)"
    assert str(choose_columns(columns, None, "heading", False, "in")) == "text 'text' (found by name), title 'heading'"
    assert str(choose_columns(columns, "opinion", "heading", False, "in")) == "text 'opinion', title 'heading'"
    assert str(choose_columns(columns, None, None, True, "in")) == "text 'text' (found by name), title none"


def test_a_missing_text_column_lists_what_there_is() -> None:
    with pytest.raises(UsageError) as refused:
        choose_columns(schema("id", "stars"), None, None, False, "in.parquet")
    assert str(refused.value) == (
        "in.parquet has no column that looks like review text; it has: id, stars. Choose one with --text-column."
    )
    with pytest.raises(UsageError, match="no columns at all"):
        choose_columns(pa.schema([]), None, None, False, "in.parquet")


def test_a_named_column_that_is_not_there_suggests_one() -> None:
    with pytest.raises(UsageError) as refused:
        choose_columns(schema("id", "body_text", "Title"), "bodytext", None, False, "in.parquet")
    assert "in.parquet has no column 'bodytext'; it has: id, body_text, Title." in str(refused.value)
    assert "Did you mean 'body_text'?" in str(refused.value)
    with pytest.raises(UsageError, match=r"no column 'titel'.*Did you mean 'title'.*--title-column"):
        choose_columns(schema("text", "title"), None, "titel", False, "in.parquet")
    with pytest.raises(UsageError, match="no column 'TEXT'"):  # names given are exact
        choose_columns(schema("text"), "TEXT", None, False, "in.parquet")


@pytest.mark.parametrize(
    ("names", "candidates", "option"),
    [
        (("id", "text", "body"), "text, body", "--text-column"),
        (("text", "Text"), "text, Text", "--text-column"),
        (("text", "title", "summary"), "title, summary", "--title-column"),
    ],
)
def test_several_candidates_are_ambiguous(names: tuple[str, ...], candidates: str, option: str) -> None:
    with pytest.raises(UsageError) as refused:
        choose_columns(schema(*names), None, None, False, "in.parquet")
    for words in (candidates, f"all its columns: {', '.join(names)}", option, "in.parquet"):
        assert words in str(refused.value)


def test_naming_one_of_the_candidates_ends_the_ambiguity() -> None:
    columns = schema("text", "body", "title", "summary")
    assert choose_columns(columns, "body", "summary", False, "in").text == "body"
    assert choose_columns(columns, "body", None, True, "in").title is None


def test_columns_that_hold_no_text_are_no_candidates() -> None:
    columns = schema("body", text=pa.int64(), review=pa.list_(pa.string()), title=pa.bool_())
    found = choose_columns(columns, None, None, False, "in.parquet")
    assert (found.text, found.title) == ("body", None)
    with pytest.raises(UsageError, match=r"'text' of in\.parquet holds int64, not text.*--text-column"):
        choose_columns(columns, "text", None, False, "in.parquet")
    with pytest.raises(UsageError, match=r"'title' of .* holds bool, not text.*--title-column"):
        choose_columns(columns, None, "title", False, "in.parquet")


def test_two_columns_of_one_name_are_refused() -> None:
    twice = pa.schema([("text", pa.string()), ("text", pa.string()), ("body", pa.string())])
    with pytest.raises(UsageError, match="2 columns named 'text'"):
        choose_columns(twice, "text", None, False, "in.parquet")
    assert choose_columns(twice, None, None, False, "in.parquet").text == "body"


def test_title_options_that_contradict() -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        choose_columns(schema("text", "title"), None, "title", True, "in.parquet")
    with pytest.raises(UsageError, match=r"both column 'title'.*--no-title"):
        choose_columns(schema("title", "stars"), "title", None, False, "in.parquet")


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (pa.string(), True),
        (pa.large_string(), True),
        (pa.string_view(), True),
        (pa.dictionary(pa.int8(), pa.string()), True),
        (pa.dictionary(pa.int32(), pa.large_string()), True),
        (pa.dictionary(pa.int32(), pa.int64()), False),
        (pa.binary(), False),
        (pa.int64(), False),
        (pa.null(), False),
        (pa.list_(pa.string()), False),
        (pa.struct([("text", pa.string())]), False),
    ],
)
def test_types_that_hold_text(kind: pa.DataType, text: bool) -> None:
    assert is_text(kind) is text
    if text:
        assert choose_columns(pa.schema([("text", kind)]), None, None, False, "in").text == "text"


def test_appended_columns_are_the_published_ones() -> None:
    assert [(f.name, str(f.type)) for f in appended_fields("", None)] == [
        ("label", "string"),
        ("confidence", "float"),
        ("defect", "bool"),
        ("defect_score", "float"),
        ("defect_type", "string"),
        ("defect_evidence", "string"),
        ("defect_severity", "string"),
        ("score_note", "string"),
    ]


def test_columns_are_kept_in_their_fixed_order_and_prefixed() -> None:
    fields = appended_fields("r_", ["score_note", "label", "label"])
    assert [f.name for f in fields] == ["r_label", "r_score_note"]
    assert appended_fields("r_", []) == []


def test_a_column_that_is_not_written_is_refused() -> None:
    with pytest.raises(UsageError) as refused:
        appended_fields("", ["label", "confidense"])
    assert "no column 'confidense'" in str(refused.value)
    assert ", ".join(SCORE_NAMES) in str(refused.value)
    assert "Did you mean 'confidence'?" in str(refused.value)


@pytest.mark.parametrize("taken", ["label", "Label", "DEFECT_SCORE"])
def test_a_collision_names_the_column_and_a_prefix(taken: str) -> None:
    with pytest.raises(UsageError) as refused:
        check_collisions(schema("text", taken), appended_fields("", None), "in.parquet")
    assert f"in.parquet already has column '{taken}'" in str(refused.value)
    assert "--prefix rayft_" in str(refused.value)


def test_the_suggested_prefix_works() -> None:
    names = ["text", *SCORE_NAMES, *(p + n for p in ("RAYFT_", "scored_", "rayft_scored_") for n in SCORE_NAMES)]
    with pytest.raises(UsageError) as refused:
        check_collisions(schema(*names), appended_fields("", None), "in.parquet")
    prefix = str(refused.value).split("--prefix ")[1].split()[0]
    check_collisions(schema(*names), appended_fields(prefix, None), "in.parquet")


def test_only_columns_that_are_written_collide() -> None:
    check_collisions(schema("label", "text"), appended_fields("", ["defect"]), "in.parquet")
    check_collisions(schema("label", "text"), appended_fields("r_", None), "in.parquet")
    with pytest.raises(UsageError, match="'R_Label'"):
        check_collisions(schema("R_Label"), appended_fields("r_", None), "in.parquet")
