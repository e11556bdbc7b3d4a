"""Slices, suspected labels and occlusion, on texts whose answer is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from rayft.evaluate.occlusion import STRETCH, strongest, word_effects
from rayft.evaluate.slices import RULES, flags, make_slices, slice_report, suspected_labels


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A plain sentence about the kettle on our kitchen table today.", set()),
        ("The sound is great but the battery is terrible after some weeks.", {"contrast", "mixed sentiment"}),
        ("It came late, however the shop was closed on that day too.", {"contrast"}),
        ("This is not a very good lamp, I looked at it for days.", {"negation"}),
        ("I do n't like it and will look for another lamp for us.", {"negation"}),
        ("Yeah right, the lamp of my dreams, it lasted all of one day.", {"sarcasm"}),
        ("A \"great\" lamp that lasted for all of one day in our house.", {"sarcasm"}),
        ("The worst lamp I have seen ever and I have seen some lamps.", {"exaggeration"}),
        ("This lamp is soooo bright, it lights the whole of our street.", {"exaggeration"}),
        ("Love it", {"very short"}),
        ("I want the excellent front lamp, it went well with our plant.", set()),
    ],
)  # fmt: skip
def test_rules(text: str, expected: set[str]) -> None:
    assert {name for name, held in zip(RULES, flags(text, truncated=False), strict=True) if held} == expected


def test_truncated_and_long() -> None:
    assert dict(zip(RULES, flags("word " * 300, True), strict=True))["truncated"]
    assert dict(zip(RULES, flags("word " * 300, False), strict=True))["long"]


def test_a_slice_with_more_errors_is_found_and_others_are_not() -> None:
    rng = np.random.default_rng(0)
    of_text = np.zeros((1000, len(RULES)), dtype=bool)
    of_text[:200, 0] = True  # errs three times as often
    of_text[:, 2] = rng.random(1000) < 0.3  # errs as often as the rest
    wrong = rng.random(1000) < np.where(of_text[:, 0], 0.3, 0.1)
    stars = [str(1 + i % 5) for i in range(1000)]
    slices = make_slices(of_text, ["toys"] * 1000, stars, ["a", "b"] * 500)
    report = {entry["slice"]: entry for entry in slice_report(slices, wrong, wrong[::-1])}
    assert "toys" not in report, "a single category is no slice"
    assert [name for name in report if "star" in name] == ["1 star", "2 stars", "3 stars", "4 stars", "5 stars"]
    found = report[RULES[0]]
    assert found["rows"] == 200 and found["errors"] == int(wrong[:200].sum())
    assert found["rest_error_rate"] == pytest.approx(wrong[200:].mean())
    assert found["verdict"] == "more errors" and found["adjusted_p_value"] < 0.001
    assert {entry["verdict"] for name, entry in report.items() if name != RULES[0]} == {"no difference shown"}
    assert all(entry["p_value"] <= entry["adjusted_p_value"] <= 1 for entry in report.values())


def test_suspected_labels_are_the_flipped_ones_of_which_the_model_is_sure() -> None:
    truth = np.array([0] * 50 + [1] * 50)
    p = np.full(100, 0.9)
    p[[3, 7, 60]] = 0.97  # sure of the other class: wrong labels
    p[[4, 61]] = 0.55  # wrong, but unsure: the model's errors
    right = ~np.isin(np.arange(100), [3, 4, 7, 60, 61])
    probabilities = np.empty((100, 2))
    best = np.where(right, truth, 1 - truth)
    probabilities[np.arange(100), best] = p
    probabilities[np.arange(100), 1 - best] = 1 - p
    assert suspected_labels(truth, probabilities).tolist() == [3, 7, 60]


def test_the_words_that_decide_are_found() -> None:
    asked: list[str] = []

    def probabilities(texts: Sequence[str]) -> np.ndarray:
        asked.extend(texts)
        bad = np.array([0.5 + 0.4 * ("broke" in t) - 0.2 * ("lovely" in t) for t in texts])
        return np.stack([bad, 1 - bad], axis=1)

    long = " ".join(["word"] * 75 + ["broke!"] + ["word"] * 60 + ["lovely"] + ["word"] * 40)
    texts = ["it broke, but lovely", long, "single", "broke " + "x " * 30]
    effects = word_effects(texts, [0, 0, 0, 1], probabilities, most_words=100)
    assert [word for word, _ in effects[0]] == ["it", "broke,", "but", "lovely"]
    assert [value for _, value in effects[0]] == pytest.approx([0, 0.4, 0, -0.2])
    assert strongest(effects[0]) == [("broke", pytest.approx(0.4))]
    assert len(effects[1]) == 100, "words that the model does not read are not looked at"
    assert effects[1][75] == ("broke!", pytest.approx(0.4))
    assert sum(value is not None for _, value in effects[1]) == 4 * STRETCH
    assert effects[2] == [("single", None)], "without its only word nothing is left to judge"
    assert effects[3][0][1] == pytest.approx(-0.4), "of class 1 the word takes probability away"
    assert len(asked) < 4 + 4 + 13 + 4 * STRETCH + 31 + 1
    assert word_effects([], [], probabilities, 10) == []
