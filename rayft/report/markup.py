"""Building HTML and SVG so that data cannot become markup."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

# What XML 1.0 has no way to write, and lone surrogates (undecodable file names), which UTF-8 has none for.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
# Characters that reorder the text around them: a file name could pass for another one.
_REORDERING = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class Html(str):
    """Text that is markup already. Every other string is escaped when it is put into a page."""

    __slots__ = ()


def escape(value: object) -> Html:
    """Return `value` as markup: itself if it is Html, its text with everything special escaped otherwise."""
    if isinstance(value, Html):
        return value
    return Html(html.escape(_REORDERING.sub("\ufffd", _UNPRINTABLE.sub("\ufffd", str(value)))))


def join(parts: Iterable[object]) -> Html:
    """Return the parts as markup, one after the other."""
    return Html("".join(escape(part) for part in parts))


def tag(name: str, *children: object, **attributes: object) -> Html:
    """Return an element.

    A trailing underscore of an attribute's name is dropped and others become hyphens (`class_`, `aria_label`);
    an attribute that is None is left out; floats are written with at most two decimals.
    """
    written = [
        f' {key.rstrip("_").replace("_", "-")}="{escape(_attribute(value))}"'
        for key, value in attributes.items()
        if value is not None
    ]
    return Html(f"<{name}{''.join(written)}>{join(children)}</{name}>")


def _attribute(value: object) -> object:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
