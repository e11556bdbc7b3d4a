"""Kinds of reviews that are known to be hard, told by simple rules over the text.

The rules are for counting errors, not for labelling: each is a short list of English words, so that everyone can
check what a figure means. `DESCRIPTIONS` says what each rule is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rayft.evaluate.significance import false_discovery, fisher_exact, wilson_interval

SHORT_WORDS = 10
LONG_WORDS = 250
_MOST_VALUES = 30  # categories, or numbers of stars, that are looked at
SIGNIFICANT = 0.05

_APPROVING = (
    r"good|great|excellent|best|love[ds]?|loving|wonderful|amazing|awesome|fantastic|perfect|perfectly|nice|happy|"
    r"enjoy(?:ed|able)?|recommend(?:ed)?|beautiful|brilliant|superb|pleased|impressed|impressive|favou?rite|fun|"
    r"worth|like[ds]?|works|worked|better|funny|interesting|useful|satisfied"
)
_DISAPPROVING = (
    r"bad|poor|poorly|terrible|horrible|awful|worst|worse|hate[ds]?|boring|bored|disappoint(?:ed|ing|ment)|broken?|"
    r"broke|useless|waste[ds]?|cheap|cheaply|annoying|annoyed|junk|garbage|crap|stupid|lame|dull|ridiculous|"
    r"defective|fail(?:s|ed|ure)?|problems?|return(?:ed)?|refund|slow|weak|unfortunately|lack(?:s|ed|ing)?|ugly|flaw(?:s|ed)?"
)
_NEGATION = (
    r"(?:not|never|no|nothing|nobody|neither|nor|hardly|barely|scarcely|without|cannot|\w*n['’]t|"
    r"(?:ca|wo|do|did|does|is|was|would|could)nt)"
)

_CONTRAST = re.compile(
    r"\b(?:but|however|although|though|yet|nevertheless|nonetheless|despite|except|unfortunately|on the other hand|"
    r"that said|otherwise|while it)\b",
    re.IGNORECASE,
)
_GOOD = re.compile(rf"\b(?:{_APPROVING})\b", re.IGNORECASE)
_BAD = re.compile(rf"\b(?:{_DISAPPROVING})\b", re.IGNORECASE)
_NEGATED = re.compile(
    rf"\b{_NEGATION}\s+(?:\w+\s+){{0,2}}(?:{_APPROVING}|{_DISAPPROVING})\b",
    re.IGNORECASE,
)
_SARCASM = re.compile(
    r"\b(?:yeah,? right|oh,? (?:great|joy|wonderful|well)|thanks (?:a lot|for nothing)|big (?:deal|whoop)|"
    r"just what (?:i|we) (?:needed|wanted)|what a (?:joke|surprise|treat|bargain)|as if|good luck with|"
    r"so much for|must be nice|how (?:nice|lovely|convenient|clever)|who (?:needs|knew)|give me a break)\b"
    r"|[\"“'‘](?:great|good|new|quality|best|improved|professional|easy|music|art|genius|classic|comedy|thriller)[\"”'’]"
    r"|\(!\)|\?!|!\?",
    re.IGNORECASE,
)
_EXAGGERATION = re.compile(
    r"!{2,}|\?{2,}|([a-z])\1{3,}"
    r"|\b(?:worst|best|greatest|dumbest|stupidest|funniest)\b[^.!?]{0,40}"
    r"\b(?:ever|of all time|in the world|in history)\b"
    r"|\b(?:a (?:million|billion|zillion) (?:times|years|stars)|(?:zero|negative|minus|no) stars|words cannot)\b",
    re.IGNORECASE,
)
_CAPITALS = re.compile(r"\b[A-Z]{4,}\b[^.!?]{0,60}\b[A-Z]{4,}\b")

DESCRIPTIONS = {
    "contrast": "a contrast word: but, however, although, yet, despite, except, unfortunately, on the other hand, ...",
    "mixed sentiment": "a contrast word, and both an approving and a disapproving word",
    "negation": "a negation at most two words before an approving or disapproving word: 'not very good'",
    "sarcasm": "a marker of sarcasm: 'yeah right', 'what a joke', a word of praise in quotes, '?!'",
    "exaggeration": "'!!', 'soooo', 'worst ... ever', 'zero stars', several words in capitals",
    "very short": f"fewer than {SHORT_WORDS} words",
    "long": f"{LONG_WORDS} words or more",
    "truncated": "longer than the model reads, so that the rest was cut",
}
RULES = tuple(DESCRIPTIONS)


def flags(text: str, truncated: bool) -> tuple[bool, ...]:
    """Tell for each of `RULES` whether the slice holds this text, as the model reads it but not cut."""
    words = text.count(" ") + 1
    contrast = bool(_CONTRAST.search(text))
    return (
        contrast,
        contrast and bool(_GOOD.search(text)) and bool(_BAD.search(text)),
        bool(_NEGATED.search(text)),
        bool(_SARCASM.search(text)),
        bool(_EXAGGERATION.search(text)) or bool(_CAPITALS.search(text)),
        words < SHORT_WORDS,
        words >= LONG_WORDS,
        truncated,
    )


@dataclass(frozen=True)
class Slices:
    """Named groups of rows; a row may be in several.

    Attributes:
        names, groups: of each slice; a group is `text`, `category` or `stars`.
        member: bool[n, slices].
    """

    names: tuple[str, ...]
    groups: tuple[str, ...]
    member: np.ndarray

    def of_row(self, row: int) -> list[str]:
        """Return the names of the slices of the text that hold a row."""
        return [self.names[i] for i in np.flatnonzero(self.member[row]) if self.groups[i] == "text"]


def make_slices(
    of_text: np.ndarray, categories: Sequence[str | None], stars: Sequence[str | None], labels: Sequence[str]
) -> Slices:
    """Return the slices of the data.

    Args:
        of_text: bool[n, len(RULES)].
        labels: the true class of each row, which makes slices too.
    """
    names, groups, columns = list(RULES), ["text"] * len(RULES), [of_text]
    for group, values in (("category", categories), ("stars", stars), ("label", labels)):
        counts = Counter(value for value in values if value is not None)
        if len(counts) < 2 or (group == "stars" and len(counts) > _MOST_VALUES):
            continue
        found = np.array([value if value is not None else "" for value in values], dtype=object)
        shown = [value for value, _ in counts.most_common(_MOST_VALUES)]
        for value in sorted(shown, key=_number) if group == "stars" else shown:
            names.append(_stars(value) if group == "stars" else value)
            groups.append(group)
            columns.append((found == value)[:, None])
    return Slices(tuple(names), tuple(groups), np.concatenate(columns, axis=1))


def _number(value: str) -> tuple[float, str]:
    try:
        return float(value), value
    except ValueError:
        return float("inf"), value


def _stars(value: str) -> str:
    return f"{value} star" if value == "1" else f"{value} stars"


def slice_report(slices: Slices, wrong: np.ndarray, other_wrong: np.ndarray | None) -> list[dict[str, Any]]:
    """Return counts, error rates and tests of every slice that holds a row, in their order.

    A slice differs if Fisher's exact test of its errors against those of all other rows, adjusted for the
    number of slices (Benjamini and Hochberg), gives at most 0.05.

    Args:
        wrong: bool[n]; `other_wrong`: the same of the baseline.
    """
    report: list[dict[str, Any]] = []
    total, total_wrong = len(wrong), int(wrong.sum())
    for i, (name, group) in enumerate(zip(slices.names, slices.groups, strict=True)):
        member = slices.member[:, i]
        rows, errors = int(member.sum()), int((member & wrong).sum())
        if not rows:
            continue
        rest, rest_errors = total - rows, total_wrong - errors
        entry: dict[str, Any] = {
            "slice": name,
            "group": group,
            "rows": rows,
            "share": rows / total,
            "errors": errors,
            "error_rate": errors / rows,
            "interval": list(wilson_interval(errors, rows)),
            "rest_error_rate": rest_errors / rest if rest else None,
            "p_value": fisher_exact(errors, rows, rest_errors, rest),
        }
        if other_wrong is not None:
            entry["baseline_error_rate"] = float(other_wrong[member].mean())
        report.append(entry)
    adjusted = false_discovery(np.array([entry["p_value"] for entry in report]))
    for entry, q in zip(report, adjusted.tolist(), strict=True):
        entry["adjusted_p_value"] = q
        rest_rate = entry["rest_error_rate"]
        entry["verdict"] = (
            "no difference shown"
            if rest_rate is None or q > SIGNIFICANT
            else "more errors"
            if entry["error_rate"] > rest_rate
            else "fewer errors"
        )
    return report


def suspected_labels(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the rows whose label is suspected to be wrong, the strongest suspicion first.

    Confident learning (Northcutt et al. 2021, arXiv:1911.00068): class j's threshold is the mean probability
    of j over the rows labelled j. A row labelled i is suspected if the most probable class j is not i and its
    probability reaches j's threshold: the model is as sure of j as it is, on average, of rows that *are*
    labelled j. Suspicion is p(j) - p(i). It finds hard rows (irony, several opinions) as well as wrong labels;
    a person decides.

    Args:
        truth: int64[n]; probabilities: float[n, classes], of a model that was not trained on these rows.
    """
    rows = np.arange(len(truth))
    thresholds = np.full(probabilities.shape[1], np.inf)
    for k in np.unique(truth):
        thresholds[k] = probabilities[truth == k, k].astype(np.float64).mean()
    best = probabilities.argmax(axis=1)
    margin = probabilities[rows, best] - probabilities[rows, truth]
    suspected = np.flatnonzero((best != truth) & (probabilities[rows, best] >= thresholds[best]))
    order: np.ndarray = suspected[np.argsort(-margin[suspected], kind="stable")]
    return order
