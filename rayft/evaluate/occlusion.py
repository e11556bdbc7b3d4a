"""Which words drove an answer: leave each out in turn and see how the probability falls.

Occlusion (Zeiler and Fergus 2014; for text: Li et al. 2016, arXiv:1612.08220). It asks the model itself, needs
no gradients and works for every engine, at the price of one computed text a word. In long texts stretches of
words are left out first, and single words only of the stretches that matter most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Probabilities = Callable[[Sequence[str]], np.ndarray]

STRETCH = 8  # words
_STRETCHES = 4
_WHOLE = STRETCH * (_STRETCHES + 1)  # up to here every word is left out
_LEAST = 0.01  # a word that adds less decides nothing


def word_effects(
    texts: Sequence[str], classes: Sequence[int], probabilities: Probabilities, most_words: int
) -> list[list[tuple[str, float | None]]]:
    """Return for each text its words with what each adds to the probability of a class.

    The variants of all texts are computed together, in batches of similar length.

    Args:
        texts: cleaned and joined, as the model reads them.
        classes: the class number whose probability is looked at, one a text.
        probabilities: float32[n, classes] of n texts.
        most_words: words behind these are not looked at, as the model does not read them.

    Returns:
        The first `most_words` words in the order of the text, with p(class) of the text minus p(class)
        without the word, so that positive words speak for the class; None for words of stretches that matter
        less than others.
    """
    words_of = [text.split()[:most_words] for text in texts]
    rest_of = [text.split()[most_words:] for text in texts]
    asked: list[list[tuple[int, int]]] = [_stretches(len(words)) for words in words_of]
    whole, falls = _leave_out(words_of, rest_of, classes, asked, probabilities, None)
    single: list[list[tuple[int, int]]] = []
    for words, spans, fall in zip(words_of, asked, falls, strict=True):
        ranked = sorted(range(len(spans)), key=lambda i: -abs(fall[i]))[:_STRETCHES]
        chosen = spans if len(words) <= _WHOLE else [spans[i] for i in sorted(ranked)]
        single.append([(i, i + 1) for low, high in chosen for i in range(low, high)])
    _, falls = _leave_out(words_of, rest_of, classes, single, probabilities, whole)
    effects = []
    for words, spans, fall in zip(words_of, single, falls, strict=True):
        found: list[float | None] = [None] * len(words)
        for (place, _), value in zip(spans, fall, strict=True):
            found[place] = value
        effects.append(list(zip(words, found, strict=True)))
    return effects


def _stretches(count: int) -> list[tuple[int, int]]:
    """Return what is left out of a text first: nothing of short ones, of which every word will be."""
    if count <= _WHOLE:
        return [(0, count)] if count > 1 else []
    return [(low, min(low + STRETCH, count)) for low in range(0, count, STRETCH)]


def _leave_out(
    words_of: Sequence[list[str]],
    rest_of: Sequence[list[str]],
    classes: Sequence[int],
    asked: Sequence[list[tuple[int, int]]],
    probabilities: Probabilities,
    whole: np.ndarray | None,
) -> tuple[np.ndarray, list[list[float]]]:
    """Return p(class) of each whole text, and by how much it falls without each of the asked stretches."""
    variants = [] if whole is not None else [" ".join(w + r) for w, r in zip(words_of, rest_of, strict=True)]
    of_text = list(range(len(variants)))
    for i, (words, rest, spans) in enumerate(zip(words_of, rest_of, asked, strict=True)):
        for low, high in spans:
            left = words[:low] + words[high:] + rest
            if left:
                variants.append(" ".join(left))
                of_text.append(i)
    found = probabilities(variants) if variants else np.zeros((0, 1))
    p = found[np.arange(len(variants)), [classes[i] for i in of_text]] if variants else np.zeros(0)
    if whole is None:
        whole, p = p[: len(words_of)], p[len(words_of) :]
    falls: list[list[float]] = []
    at = 0
    for i, (words, rest, spans) in enumerate(zip(words_of, rest_of, asked, strict=True)):
        own = []
        for low, high in spans:
            empty = not rest and high - low == len(words)  # nothing would be left to judge
            own.append(0.0 if empty else float(whole[i] - p[at]))
            at += not empty
        falls.append(own)
    return whole, falls


def strongest(effects: Sequence[tuple[str, float | None]], count: int = 5) -> list[tuple[str, float]]:
    """Return the words that speak most for the class, the strongest first, without punctuation around them."""
    known = [(word, effect) for word, effect in effects if effect is not None and effect >= _LEAST]
    seen: dict[str, float] = {}
    for word, effect in sorted(known, key=lambda pair: -pair[1]):
        bare = word.strip(".,;:!?\"'()[]{}“”‘’*-–—…") or word
        seen.setdefault(bare, effect)
    return list(seen.items())[:count]
