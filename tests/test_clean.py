"""Cleaning and joining of review texts."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rayft.text.clean import JOIN_FORMAT, clean, join

ANY_TEXT = st.text(st.characters(exclude_categories=()))  # lone surrogates too
# Pieces of which exports are made; tags within tags and entities escaped three times are not among them.
PIECES = st.lists(
    st.sampled_from(
        [
            "good",
            "été",
            "好评",
            "👍🏽",
            "❤️",
            " ",
            "\t",
            "\r\n",
            "\xa0",
            "\x00",
            "\x1b",
            "\ud83d",
            "\ufffd",
            "\ufeff",
            "\u200b",
            "\u00ad",
            "<br />",
            "</p>",
            '<a href="x">',
            "<!-- note -->",
            "<3",
            "<see below>",
            "a < b > c",
            "&#34;",
            "&amp;#39;",
            "&lt;br&gt;",
            "&amp;lt;3",
            "&amp;",
            "&nbsp;",
            "& ",
            "5 > 3",
            "{text}",
        ]
    ),
    max_size=12,
).map("".join)


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("It&#39;s &quot;fine&quot;", 'It\'s "fine"'),
        ("It&amp;#39;s &amp;#34;fine&amp;#34;", 'It\'s "fine"'),
        ("AT&T &amp; AT&amp;amp;T", "AT&T & AT&T"),
        ("caf&eacute; &euro;5 &#x1F44D;", "café €5 👍"),
        ("fish & chips; a&b", "fish & chips; a&b"),
        ("one<br>two<br/>three<br />four", "one two three four"),
        ("one&lt;br /&gt;two&amp;lt;br&amp;gt;three", "one two three"),
        ('<p class="a">Bold <B>move</B></p>', "Bold move"),
        ('see <a href="http://x.y/?a=1&amp;b=2">this</a>', "see this"),
        ("kept<!-- a comment\nof two lines -->text", "kept text"),
        ("<!-- never closed, so it stays", "<!-- never closed, so it stays"),
        ("I <3 it </3", "I <3 it </3"),
        ("<see below> <product name>", "<see below> <product name>"),
        ("a < b > c, 3<5>2", "a < b > c, 3<5>2"),
        ("<broken> <brand new> <big deal>", "<broken> <brand new>"),
        ("tab\tnew\r\nline\x0b\x0c  two", "tab new line two"),
        ("no\xa0break\u3000wide\u2028line", "no break wide line"),
        ("nul\x00bell\x07esc\x1bdel\x7fc1\x9b", "nul bell esc del c1"),
        ("high\ud83d low\ude00 gone\ufffd", "high low gone"),
        ("ter\u00adri\u200bble\ufeff \u202eabc\u2060", "terrible abc"),
        ("👩\u200d👩\u200d👧 ❤\ufe0f می\u200cخواهم", "👩\u200d👩\u200d👧 ❤\ufe0f می\u200cخواهم"),
        ("é e\u0301 ﬁ ½", "é e\u0301 ﬁ ½"),
        ("", ""),
        (" \n\t ", ""),
        ("<br /><br />&nbsp;\u200b\x00", ""),
        ("&#0; &#xD800; &#1114112; &#99999999;", ""),
    ],
)
def test_clean_examples(raw: str, cleaned: str) -> None:
    assert clean(raw) == cleaned


def test_numbers_of_thousands_of_digits_are_dropped() -> None:
    digits = "9" * 5_000
    assert clean(f"a &#{digits}; b &amp;#{digits}; c &#{digits} d") == "a b c d"
    assert clean(f"&#x{digits};") == ""


@pytest.mark.parametrize(
    "unit",
    ["a", "<b ", "<!--", "<br />", "&", "&amp;lt;br&amp;gt;", "&#9", "\x00 "],
)
def test_five_megabytes_in_one_text(unit: str) -> None:
    # A quadratic step would take hours; the timeout of the suite is the only clock here.
    cleaned = clean(unit * (5_000_000 // len(unit)))
    assert not re.search(r"\s\s|\x00|<br", cleaned)


@settings(deadline=None)
@given(ANY_TEXT)
@example("&#" + "1" * 4_400)
@example("\ud800&\udfff;")
def test_any_text_is_cleaned_to_printable_utf8(text: str) -> None:
    cleaned = clean(text)
    cleaned.encode("utf-8")
    assert cleaned == cleaned.strip()
    assert "  " not in cleaned
    assert not [c for c in cleaned if unicodedata.category(c) in ("Cc", "Cs")]


@settings(deadline=None)
@given(PIECES)
@example("<b" + " " * 600 + ">")
@example("<b\x00r>")
def test_a_second_clean_changes_nothing(text: str) -> None:
    cleaned = clean(text)
    assert clean(cleaned) == cleaned


@settings(deadline=None)
@given(ANY_TEXT.filter(lambda text: "&" not in text and "<" not in text))
def test_without_markup_only_unreadable_characters_and_spaces_go(text: str) -> None:
    cleaned = clean(text)
    assert clean(cleaned) == cleaned

    def letters(value: str) -> str:
        return "".join(c for c in value if c.isalnum() or (unicodedata.category(c)[0] in "PS" and c != "\ufffd"))

    assert letters(cleaned) == letters(text)


def test_join_puts_title_before_text() -> None:
    assert join("Great<br>kettle", "It&#39;s  fine") == JOIN_FORMAT.format(title="Great kettle", text="It's fine")
    assert join("A", "B", "{text} [{title}]") == "B [A]"
    assert join("A", "B", "Review: {text}") == "Review: B"


@pytest.mark.parametrize("title", [None, "", " \n", "<br>", "&nbsp;"])
def test_join_without_a_title_is_the_text_alone(title: str | None) -> None:
    assert join(title, "Fine.") == "Fine."


@pytest.mark.parametrize("text", [None, "", "  \t\n", "<br /><p></p>", "&nbsp;&#8203;", "\u200b\ufeff", "\x00"])
def test_join_without_a_text_is_empty_whatever_the_title(text: str | None) -> None:
    assert join("Great kettle", text) == ""


@pytest.mark.parametrize(
    ("title", "text"),
    [("A", "say {title}"), ("{text}", "B"), ("{title}", "{text}"), ("{0} {x} {", "}{text}{"), (r"\1 \g<0>", r"\n")],
)
def test_braces_of_reviews_are_not_places_to_fill(title: str, text: str) -> None:
    assert join(title, text) == f"{title}: {text}"


@settings(deadline=None)
@given(title=st.none() | ANY_TEXT, text=st.none() | ANY_TEXT)
def test_join_never_fails_and_is_empty_only_without_a_text(title: str | None, text: str | None) -> None:
    joined = join(title, text)
    assert bool(joined) == bool(clean(text or ""))
    assert joined.endswith(clean(text or ""))
