"""Token ids are those of Hugging Face, truncated as it truncates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from rayft.model.checkpoint import BUNDLED
from rayft.text.encode import Encoded, Encoder, Truncation

CLS, SEP = 101, 102
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=200)
LONG_TEXT = st.lists(st.sampled_from(["good ", "naïve ", "好", "👍", "unbelievably ", "a" * 300 + " ", "!", "\u0301"]))
HARD = [
    "good",
    "The lid cracked after two weeks, and I'm not happy with it at all. " * 8,
    "Crème brûlée — naïve façade Ångström İstanbul",
    "e\u0301 a\u0308 o\u0302 n\u0303" * 20,
    "质量非常好，下次还会购买！" * 10,
    "とても良い製品です。また買います。 한국어 리뷰입니다",
    "منتج رائع جدا مرة أخرى अच्छा उत्पाद",
    "👍🏽👩‍👩‍👧 ❤️ 🇩🇪 :-) <3",
    "tab\tnew\nline\x00nul\x07bell\u200bzero\ufeffbom\ufffd",
    "pneumonoultramicroscopicsilicovolcanoconiosis " * 20,
    "a" * 99 + " " + "b" * 100 + " " + "c" * 101,
    "http://example.com/a?b=c&d=%20e#f user@example.com #tag @name",
    "!?.,;:-_()[]{}" * 30,
    "[CLS] [SEP] [MASK] [PAD] [UNK] ##ing",
    "1234567890 3.14 10,000 $5.99 50%",
    "x",
    " ",
]
# Few tokens of many characters, as only texts of over 128 characters a token show whether enough was encoded.
WIDE = [
    "lid " + "a" * 40_000 + " cracked " + "b" * 40_000 + " after two weeks " + "c" * 9_000,
    "x" * 70_000 + " broke",
    ("y" * 3_000 + " fine ") * 40,
    "e" + "\u0301" * 50_000 + " terrible quality",
    "好" * 50_000,
    "no" + " " * 60_000 + "way",
    "🙂" * 30_000 + " bad",
]


def rows_of(encoded: Encoded) -> list[list[int]]:
    return [encoded.ids[a:b].tolist() for a, b in zip(encoded.offsets, encoded.offsets[1:], strict=False)]


@pytest.fixture(scope="module")
def plain() -> Tokenizer:
    """The tokeniser without any truncation."""
    return Tokenizer.from_file(str(BUNDLED / "tokenizer.json"))


def truncating(max_length: int) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(BUNDLED / "tokenizer.json"))
    tokenizer.enable_truncation(max_length)
    return tokenizer


@pytest.fixture(scope="module")
def heads() -> dict[int, tuple[Encoder, Tokenizer]]:
    """By maximum length, the encoder and the tokeniser that truncates by itself."""
    return {n: (Encoder.from_directory(BUNDLED, n), truncating(n)) for n in (8, 32, 128)}


@pytest.fixture(scope="module")
def both_ends() -> Encoder:
    return Encoder.from_directory(BUNDLED, 16, "head+tail")


@pytest.mark.parametrize("max_length", [8, 9, 256])
def test_ids_are_those_of_transformers(max_length: int) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(BUNDLED))
    texts = HARD + WIDE
    expected = tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]
    assert rows_of(Encoder.from_directory(BUNDLED, max_length)(texts)) == expected


@settings(deadline=None)
@given(texts=st.lists(TEXT | LONG_TEXT.map("".join), max_size=4), max_length=st.sampled_from([8, 32, 128]))
def test_any_text_is_truncated_as_the_tokeniser_does(
    heads: dict[int, tuple[Encoder, Tokenizer]], plain: Tokenizer, texts: list[str], max_length: int
) -> None:
    encoder, tokenizer = heads[max_length]
    encoded = encoder(texts)
    assert rows_of(encoded) == [tokenizer.encode(text).ids for text in texts]
    assert encoded.truncated.tolist() == [len(plain.encode(text).ids) > max_length for text in texts]
    assert encoded.lengths.tolist() == [len(row) for row in rows_of(encoded)]
    assert len(encoded) == len(texts)


@pytest.mark.parametrize("truncation", ["head", "head+tail"])
def test_truncated_is_right_around_the_maximum_length(truncation: Truncation) -> None:
    encoder = Encoder.from_directory(BUNDLED, 16, truncation)
    encoded = encoder(["good " * words for words in (13, 14, 15)])  # with [CLS] and [SEP]: 15, 16, 17
    assert encoded.truncated.tolist() == [False, False, True]
    assert encoded.lengths.tolist() == [15, 16, 16]


@settings(deadline=None)
@given(texts=st.lists(TEXT | LONG_TEXT.map("".join), min_size=1, max_size=4))
def test_head_and_tail_keeps_both_ends(both_ends: Encoder, plain: Tokenizer, texts: list[str]) -> None:
    encoded = both_ends(texts)
    for text, row, truncated in zip(texts, rows_of(encoded), encoded.truncated, strict=True):
        whole = plain.encode(text).ids
        assert truncated == (len(whole) > 16)
        if not truncated:
            assert row == whole
        else:
            assert row == whole[:8] + whole[-8:]
            assert (row[0], row[-1]) == (CLS, SEP)


@pytest.mark.parametrize("max_length", [8, 9, 31, 32])
def test_head_and_tail_of_odd_and_even_lengths(plain: Tokenizer, max_length: int) -> None:
    text = " ".join(f"word{i}" for i in range(500))
    row = rows_of(Encoder.from_directory(BUNDLED, max_length, "head+tail")([text]))[0]
    whole = plain.encode(text).ids
    head = (max_length) // 2
    assert len(row) == max_length
    assert row == whole[:head] + whole[-(max_length - head) :]


def test_head_and_tail_of_a_text_that_is_cut_before_it_is_encoded(plain: Tokenizer) -> None:
    text = "It began well. " + "The filler goes on and on. " * 4_000 + "Never again, it broke."
    encoded = Encoder.from_directory(BUNDLED, 32, "head+tail")([text])
    whole = plain.encode(text).ids
    assert rows_of(encoded)[0] == whole[:16] + whole[-16:]
    assert encoded.truncated.tolist() == [True]


@pytest.mark.parametrize("truncation", ["head", "head+tail"])
def test_wide_texts_are_as_long_as_their_tokens(plain: Tokenizer, truncation: Truncation) -> None:
    encoded = Encoder.from_directory(BUNDLED, 32, truncation)(WIDE)
    whole = [plain.encode(text).ids for text in WIDE]
    assert encoded.truncated.tolist() == [len(ids) > 32 for ids in whole]
    assert encoded.lengths.tolist() == [min(len(ids), 32) for ids in whole]


@pytest.mark.parametrize(
    ("text", "truncation", "length"),
    [
        ("a" * 5_000_000, "head", 3),
        ("ha" * 400_000 + " no", "head+tail", 4),
        ("好" * 1_600_000, "head", 64),
        ("a " * 2_500_000, "head+tail", 64),
    ],
)
def test_five_megabytes_in_one_text(text: str, truncation: Truncation, length: int) -> None:
    encoded = Encoder.from_directory(BUNDLED, 64, truncation)([text])
    assert encoded.lengths.tolist() == [length]
    assert encoded.truncated.tolist() == [length == 64]
    assert (encoded.ids[0], encoded.ids[-1]) == (CLS, SEP)


def test_no_texts_and_texts_without_tokens() -> None:
    encoder = Encoder.from_directory(BUNDLED, 32)
    none = encoder([])
    assert len(none) == 0
    assert none.ids.tolist() == none.lengths.tolist() == none.truncated.tolist() == []
    assert rows_of(encoder(["", "\u200d", " "])) == [[CLS, SEP]] * 3


def test_arrays_have_the_published_types() -> None:
    encoded = Encoder.from_directory(BUNDLED, 32)(["good", "bad " * 50])
    assert (encoded.ids.dtype, encoded.offsets.dtype, encoded.truncated.dtype) == (np.int32, np.int64, np.bool_)
    assert encoded.offsets.tolist() == [0, 3, 35]


def test_lengths_that_leave_no_room_are_refused(plain: Tokenizer) -> None:
    with pytest.raises(ValueError, match="at least 8"):
        Encoder(plain, 7)
