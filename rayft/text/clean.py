"""Turn the text of a review, as shops export it, into the text that the model reads."""

from __future__ import annotations

import html
import re

#: How title and text become one input. It is saved with every checkpoint, because a model scores
#: best on the layout that it was trained on.
JOIN_FORMAT = "{title}: {text}"

_TAG_NAMES = (
    "a|abbr|b|big|blockquote|body|br|center|cite|code|dd|del|div|dl|dt|em|font|form|h[1-6]|head|hr|html|i|"
    "iframe|img|input|ins|li|meta|ol|p|pre|q|s|script|small|span|strike|strong|style|sub|sup|table|tbody|"
    "td|th|thead|tr|tt|u|ul|video"
)
_TAG = re.compile(
    rf"</?(?:{_TAG_NAMES})(?:\s[^<>]{{0,500}})?/?>|<!--(?:(?!<!--).){{0,500}}?-->", re.IGNORECASE | re.DOTALL
)
# Control characters other than white space, lone surrogates, the replacement character, non-characters.
_UNPRINTABLE = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ud800-\udfff\ufffd\ufffe\uffff]")
# Soft hyphens, zero-width spaces, marks of direction, byte order marks: they stand within words. The
# zero-width joiners stay, because emoji and several scripts are written with them.
_INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
# No character has such a number, and Python refuses to convert more than 4300 digits.
_ENDLESS_REFERENCE = re.compile(r"&#[0-9]{100,};?")
_PLACE = re.compile(r"\{(title|text)\}")


def clean(text: str) -> str:
    """Return `text` without markup, entities, control and invisible characters and repeated white space.

    Only names of real HTML tags count as tags, so that `<3` and `<see below>` stay. Entities are
    decoded twice because exports often escape them twice (`&amp;#34;`).
    """
    for _ in range(2):
        if "&" in text:
            text = html.unescape(_ENDLESS_REFERENCE.sub(" ", text))
    text = _INVISIBLE.sub("", _UNPRINTABLE.sub(" ", text))
    text = " ".join(text.split())
    if "<" in text:
        text = " ".join(_TAG.sub(" ", text).split())
    return text


def join(title: str | None, text: str | None, join_format: str = JOIN_FORMAT) -> str:
    """Return the model's input for one review: cleaned title and text, or the text alone.

    The result is empty if the text holds nothing but white space and markup, whatever the title:
    a title alone is no review to judge.
    """
    body = clean(text) if text else ""
    heading = clean(title) if title and body else ""
    if not heading:
        return body
    parts = {"title": heading, "text": body}
    return _PLACE.sub(lambda place: parts[place[1]], join_format)
