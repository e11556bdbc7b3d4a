"""Replace personal data in quotes of reviews by placeholders.

Redacted: e-mail addresses, telephone numbers, order, tracking and account numbers, card numbers,
postal addresses, URLs that name a person's account, and @handles. Product facts stay: model
numbers, sizes, prices, voltages, dates, links to a manual.

Why regular expressions: the maintained libraries that recognise more (Presidio, scrubadub) download
language models of hundreds of megabytes to find *names*, which rayft does not promise to find, and
leave these patterns to regular expressions as well. `phonenumbers` validates numbers against
national plans and needs to know the country; a mistyped telephone number is personal data all the
same. A quote loses little by one placeholder too many, so doubt is decided for redaction.

What is not found: names of people, addresses without a street type or house number, telephone
numbers in words.
"""

from __future__ import annotations

import re
from collections.abc import Callable

EMAIL = "[e-mail]"
PHONE = "[phone]"
ORDER = "[order number]"
CARD = "[card number]"
ADDRESS = "[address]"
LINK = "[link]"
HANDLE = "[user]"

_AT = r"(?:@|\s{0,2}[\[({<]\s?(?:at|a|@)\s?[\])}>]\s{0,2})"
_DOT = r"(?:\.|\s{0,2}[\[({<]\s?(?:dot|\.)\s?[\])}>]\s{0,2}|\sdot\s)"
_EMAIL = re.compile(
    rf"(?:mailto:)?(?<![\w.+-])[\w.+%'-]{{1,64}}{_AT}(?:[\w-]{{1,63}}{_DOT}){{1,5}}[^\W\d_]{{2,24}}(?![\w-])"
    r"|(?<![\w.+-])[\w.+-]{1,64}\sat\s(?:gmail|hotmail|yahoo|outlook|aol|icloud|gmx|proton(?:mail)?)"
    r"(?:(?:\.|\sdot\s)[a-z]{2,3}){1,2}\b",
    re.IGNORECASE,
)

_URL = re.compile(r"(?:https?://|ftp://|www\.)[^\s<>\"']{3,2000}", re.IGNORECASE)
_BARE_PROFILE = re.compile(
    r"(?<![\w@.-])(?:[\w-]{1,30}\.)?(?:facebook|fb|twitter|x|instagram|tiktok|linkedin|youtube|pinterest|github|reddit|"
    r"t|vk|flickr|snapchat|paypal|venmo)\.(?:com|me)/[^\s<>\"']{2,200}",
    re.IGNORECASE,
)
_PERSONAL_URL = re.compile(
    r"^(?:\w+://)?[^/\s]*@"  # user information before the host
    r"|/(?:~|@)[\w.-]"
    r"|/(?:user|users|u|profile|profiles|people|in|member|members|account|pub|gp/pdp|author|channel|c)/[^/\s]"
    r"|[?&;#](?:user(?:_?name|_?id)?|name|e?-?mail|login|account|uid|token|phone|order(?:_?id)?)="
    r"|(?:facebook|fb|twitter|instagram|tiktok|linkedin|pinterest|vk|flickr|snapchat|paypal|venmo)\.\w{2,3}/[\w.@-]"
    r"|(?://|^)(?:www\.)?(?:x|t)\.(?:com|me)/[\w@]"
    r"|//(?!www\.)[\w-]+\.(?:blogspot|wordpress|tumblr|livejournal|myspace)\.",
    re.IGNORECASE,
)
_HANDLE = re.compile(r"(?<![\w@./])@[A-Za-z_][\w.]{1,29}(?<!\.)")

_KNOWN_ORDER = re.compile(  # Amazon, UPS, international post
    r"(?<![\w-])(?:[A-Z\d]\d{2}-\d{7}-\d{7}|1Z[ ]?[0-9A-Z](?:[ ]?[0-9A-Z]){15}|[A-Z]{2}\d{9}[A-Z]{2})(?![\w-])"
)
_ORDER = re.compile(
    r"(?P<kind>\b(?:order|tracking|invoice|rma|case|ticket|claim|confirmation|account|customer|reference|receipt|"
    r"transaction|shipment|parcel|membership|return|complaint)"
    r"(?:[ -](?:number|no\.?|nr\.?|num\.?|id|code|ref(?:erence)?|authorization|confirmation)){0,2}"
    r"\s{0,2}(?:(?:is|was|:|=|of|#|no\.?|number|nr\.?|id)\s{0,2}){0,3}[#:(]{0,2}\s{0,2})"
    r"(?P<number>(?=[\w/-]*\d[\w/-]*\d[\w/-]*\d)(?!(?:19|20)\d\d(?!\w))[A-Z0-9][\w/-]{3,39})",
    re.IGNORECASE,
)

_CARD = re.compile(r"(?<![\w-])(?:\d[ -]?){12,18}\d(?![\w-])")
_BANK = re.compile(r"\b[A-Z]{2}\d{2}(?:[ ]?[A-Z0-9]{4}){3,7}(?:[ ]?[A-Z0-9]{1,3})?\b")
_SOCIAL_SECURITY = re.compile(r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])")
_PHONE = re.compile(
    r"(?<![\w#$€£.,/-])(?:"
    r"(?:\+|00)\s?\d{1,3}(?:[\s./-]{0,2}\(?\d{1,5}\)?){2,6}"  # +49 (0)30 1234567
    r"|(?:\+?1[\s.-]{0,2})?\(\s?\d{3}\s?\)[\s.-]{0,3}\d{3}[\s.-]{0,3}\d{4}"  # (555) 123-4567, ( 555 ) 123-4567
    r"|(?:1[\s.-])?\d{3}[.-]\s?\d{3}[.-]\s?\d{4}"  # 555-123-4567, 1.800.555.1234
    r"|(?:1\s)?[2-9]\d{2}\s[2-9]\d{2}[\s-]\d{4}"  # 555 123 4567
    r"|1[- ]?8(?:00|33|44|55|66|77|88)[- ](?-i:[A-Z0-9]{3,4}-?[A-Z0-9]{4,6})"  # 1-800-FLOWERS
    r"|0\d{2,4}[\s/-]\d{3,4}[\s-]?\d{3,5}"  # 020 7946 0958, 030/1234567
    r"|0\d{9,10}"  # 07700900123
    r"|0\d(?:[\s.]\d{2}){4}"  # 06 12 34 56 78
    r")(?:\s?(?:x|ext\.?|extension)\s?\d{1,6})?(?![\w-]|[.,]\d)",
    re.IGNORECASE,
)
_CALLED = re.compile(
    r"(?P<kind>\b(?:call(?:ed)?|phoned?|tel|telephone|cell|mobile|fax|whatsapp|text(?:ed)?|dial(?:ed)?|"
    r"(?:my|his|her|our|your|their|phone|cell|mobile|toll[ -]free)\snumber)"
    r"(?:\s(?:me|us|him|her|them|is|at|on|number|no\.?)){0,3}\s?[:.#]?\s?)"
    r"(?P<number>\(?\+?\d[\d\s().-]{5,18}\d)(?!\w)",
    re.IGNORECASE,
)

_STREET = (
    r"(?:street|str|st|avenue|ave|av|road|rd|boulevard|blvd|lane|ln|terrace|parkway|pkwy|highway|hwy|crescent|"
    r"drive|dr|court|ct|way|place|pl|circle|cir|square|sq|close|trail|trl|mews|gardens)"
)
_STRICT_STREET = r"(?:street|st\.|avenue|ave\.?|road|rd\.?|boulevard|blvd\.?|parkway|pkwy|crescent|lane)"
_NOT_STREET = (
    r"(?!(?:(?:gb|tb|mb|hard|flash|disk|usb|thumb|pen|zip|dvd|cd|tape|external|internal|star|stars|inch|year|month|week|"
    r"day|hour|minute|mile|miles|one|two|three|four|way|ways|times|time|in|on|off|of|the|a|to|for|and|feet|foot|st|hp|"
    r"cordless|wheel|speed|gear|bit|watt|amp|volt|pin)\b))"
)
_TOWN = (
    r"(?:,?\s+(?i:apt|apartment|suite|ste|unit|flat|floor|room|\#)\.?\s?\#?\s?[\w-]{1,6})?"
    r"(?:,\s*[A-Z][a-z.'-]+(?:\s[A-Z][a-z.'-]+){0,2})?"
    r"(?:,?\s+[A-Z]{2}\.?\s+\d{5}(?:-\d{4})?|,\s*[A-Z]{2}(?![\w])|,?\s+[A-Z]{1,2}\d[A-Z\d]?\s?\d[A-Z]{2})?"
)
_POSTAL = (
    re.compile(  # 123 N. Main Street, Apt 4, Springfield, IL 62704 (capitals as written)
        r"(?<![\w$.#-])(?:(?:Flat|Apt\.?|Apartment|Unit|Suite)\s\w{1,5},?\s+)?\d{1,5}[A-Za-z]?(?:-\d{1,4})?,?\s+"
        r"(?:[NSEW]{1,2}\.?\s+|(?:North|South|East|West)\s+)?"
        rf"(?:(?i:{_NOT_STREET})(?:[A-Z][\w'-]*|[A-Z]\w{{0,2}}\.|\d{{1,3}}(?:st|nd|rd|th))\s+){{1,4}}"
        rf"(?i:{_STREET})\b(?:\.(?=,|\s+[A-Z#]))?(?:\s+(?:NW|NE|SW|SE|N|S|E|W)\b)?{_TOWN}"
    ),
    re.compile(  # 123 main street (lower-cased text)
        rf"(?<![\w$.#-])\d{{1,5}}\s+(?:[nsew]\.?\s+)?(?:{_NOT_STREET}[a-z][\w'-]+\s+){{1,3}}{_STRICT_STREET}(?!\w)"
        r"(?:\s*,?\s*(?:apt|suite|unit)\.?\s?\#?\w{1,5})?",
        re.IGNORECASE,
    ),
    re.compile(r"\bP\.?\s?O\.?\s?Box\s{1,2}#?\d{1,8}\b" + _TOWN, re.IGNORECASE),
    re.compile(  # Hauptstraße 12a, 10115 Berlin; 12 rue de la Paix, 75002 Paris
        r"\b[A-ZÄÖÜ][\w.-]*(?:stra(?:ß|ss)e|str\.|weg|platz|allee|gasse|damm)\s+\d{1,4}\s?[a-z]?\b"
        r"(?:,?\s+(?:D-)?\d{4,5}\s+[A-ZÄÖÜ][\w-]+)?"
        r"|\b\d{1,4}(?:\s?bis)?,?\s+(?:rue|avenue|boulevard|place|impasse|chemin|calle|via)\s+"
        r"(?:(?:de|du|des|la|le|les|d'|l'|del|della)\s?){0,3}[A-ZÀ-Ý][\w'-]+(?:\s[A-ZÀ-Ý][\w'-]+)?"
        r"(?:,?\s+\d{5}\s+[A-ZÀ-Ý][\w-]+)?"
    ),
    re.compile(r"\b(?:A[KLRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEINOST]|N[CDEHJMVY]|O[HKR]|PA|RI|S[CD]|T[NX]|UT|"
               r"V[AT]|W[AIVY]),?\s+\d{5}(?:-\d{4})?\b"),
    re.compile(r"\b(?:GIR\s?0AA|[A-PR-UWYZ](?:\d{1,2}|[A-HK-Y]\d|[A-HK-Y]\d\d|\d[A-HJKPS-UW]|[A-HK-Y]\d[ABEHMNPRV-Y])"
               r"\s\d[ABD-HJLNP-UW-Z]{2})\b"),
)  # fmt: skip


def redact(text: str) -> str:
    """Return `text` with personal data replaced by placeholders such as `[phone]`.

    Pure and idempotent: redacting twice changes nothing more.
    """
    text = _URL.sub(_link, text)
    if "@" in text or " at " in text or "[at" in text or "(" in text or "AT" in text or "<" in text:
        text = _EMAIL.sub(EMAIL, text)
    text = _BARE_PROFILE.sub(_whole(LINK), text)
    if "@" in text:
        text = _HANDLE.sub(HANDLE, text)
    if any(character.isdigit() for character in text):
        text = _KNOWN_ORDER.sub(ORDER, text)
        text = _ORDER.sub(_order, text)
        text = _SOCIAL_SECURITY.sub(CARD, text)
        text = _BANK.sub(_card, text)
        text = _PHONE.sub(_phone, text)
        text = _CARD.sub(_card, text)
        text = _CALLED.sub(_called, text)
        for pattern in _POSTAL:
            text = pattern.sub(ADDRESS, text)
    return text


def _digits(text: str) -> int:
    return sum(character.isdigit() for character in text)


def _whole(placeholder: str) -> Callable[[re.Match[str]], str]:
    return lambda found: placeholder + _tail(found.group())


def _tail(url: str) -> str:
    """Return punctuation at the end of a URL that belongs to the sentence."""
    return url[len(url.rstrip(".,;:!?)]}")) :]


def _link(found: re.Match[str]) -> str:
    url = found.group()
    return LINK + _tail(url) if _PERSONAL_URL.search(url) else url


def _order(found: re.Match[str]) -> str:
    return found["kind"] + ORDER


def _phone(found: re.Match[str]) -> str:
    number = found.group()
    return PHONE if 7 <= _digits(number) <= 19 or number[:2] in ("1-", "1 ", "18") else number


def _card(found: re.Match[str]) -> str:
    return CARD if _digits(found.group()) >= 12 else found.group()


def _called(found: re.Match[str]) -> str:
    if 7 <= _digits(found["number"]) <= 15:
        return f"{found['kind']}{PHONE}"
    return found.group()
