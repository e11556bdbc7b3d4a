"""The token store as a reader sees it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from rayft.data.arrays import write_array
from rayft.data.storage import locate
from rayft.data.store import Split, TokenStore, vocabulary_hash
from rayft.errors import InputError, UsageError
from rayft.model.checkpoint import BUNDLED
from rayft.prepare.config import PrepareConfig
from rayft.prepare.run import prepare
from rayft.text.batches import collate, shuffled_batches
from rayft.text.encode import Encoder, Truncation

TOKENIZER = Tokenizer.from_file(str(BUNDLED / "tokenizer.json"))


def write_csv(path: Path, rows: int = 80) -> Path:
    lines = [f'"{1 + i % 2}","Title {i}","Review number {i} {"very " * (i % 9)}{"good" * (i % 2)} {i * i}"\n'
             for i in range(rows)]  # fmt: skip
    path.write_text("".join(lines))
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    config = PrepareConfig((str(write_csv(folder / "a.csv")),), str(folder / "s"), max_length=16, check_labels=0)
    prepare(config)
    return folder / "s"


def make_split(lengths: list[int], stored: Truncation = "head", truncated: bool = False) -> Split:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = np.arange(1, offsets[-1] + 1, dtype=np.uint16)
    flags = np.full(len(lengths), truncated)
    return Split("train", ids, offsets, np.zeros(len(lengths), np.int32), flags, stored, 0)


def test_types_and_contents(store: Path) -> None:
    opened = TokenStore.open(store)
    assert opened.labels == ("negative", "positive")
    assert opened.splits == ("train", "validation", "test")
    assert opened.vocabulary_hash == vocabulary_hash(TOKENIZER)
    train = opened.split("train")
    assert [train.ids.dtype, train.offsets.dtype, train.labels.dtype] == [np.uint16, np.int64, np.int32]
    assert isinstance(train.ids.base, np.memmap)
    assert len(train) == len(train.encoded) == opened.meta["splits"]["train"]["rows"]
    assert int(train.lengths().max()) == 16
    encoder = Encoder(TOKENIZER, 16)
    number = {TOKENIZER.decode(encoder([f"Title {i}"]).ids.tolist()): i for i in range(80)}
    for i in range(len(train)):
        shown = TOKENIZER.decode(train.ids[train.offsets[i] : train.offsets[i + 1]].tolist())
        assert train.labels[i] == number[shown.split(" :")[0]] % 2
    opened.verify()


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=12),
    st.integers(8, 30),
    st.sampled_from(["head", "head+tail"]),
)
def test_batches_are_cut_as_the_encoder_cuts(words: list[int], max_length: int, truncation: Truncation) -> None:
    texts = [" ".join(["kettle", "lid", "broke", "pump", "cable"][k % 5] for k in range(n)) for n in words]
    whole = Encoder(TOKENIZER, 64)(texts)
    split = Split("train", whole.ids.astype(np.uint16), whole.offsets, np.arange(len(texts), dtype=np.int32),
                  whole.truncated, "head", 0)  # fmt: skip
    rows = np.random.default_rng(len(words)).permutation(len(texts))
    expected = Encoder(TOKENIZER, max_length, truncation)(texts)
    ids, mask = collate(expected, rows)
    got_ids, got_mask, labels = split.batch(rows, max_length, truncation)
    assert got_ids.dtype == got_mask.dtype == labels.dtype == np.int64
    np.testing.assert_array_equal(got_ids, ids)
    np.testing.assert_array_equal(got_mask, mask)
    np.testing.assert_array_equal(labels, rows)
    np.testing.assert_array_equal(split.lengths(max_length), expected.lengths)


def test_uncut_batches_equal_collate(store: Path) -> None:
    train = TokenStore.open(store).split("train")
    for rows in shuffled_batches(train.lengths(), 200, np.random.default_rng(0)):
        for got, expected in zip(train.batch(rows), collate(train.encoded, rows), strict=False):
            np.testing.assert_array_equal(got, expected)


def test_padding_is_the_stores(store: Path) -> None:
    split = make_split([2, 5])
    padded = Split(**{**vars(split), "pad_id": 99})
    assert padded.batch(np.array([0, 1]))[0].tolist() == [[1, 2, 99, 99, 99], [3, 4, 5, 6, 7]]


def test_cuts_that_the_stored_tokens_do_not_allow() -> None:
    make_split([16, 4]).check_truncation(8, "head+tail")  # nothing was cut: anything goes
    cut = make_split([16, 16], "head", truncated=True)
    cut.check_truncation(12, "head")
    with pytest.raises(UsageError, match=r"Prepare it again with --truncation head\+tail"):
        cut.check_truncation(8, "head+tail")
    both = make_split([16, 16], "head+tail", truncated=True)
    both.check_truncation(12, "head+tail")
    both.check_truncation(8, "head")
    with pytest.raises(UsageError, match="does not hold"):
        both.check_truncation(9, "head")


def test_another_vocabulary_is_refused(store: Path) -> None:
    opened = TokenStore.open(store)
    opened.check_vocabulary(opened.tokenizer(), "itself")
    with pytest.raises(UsageError, match=r"Prepare it again with --base other"):
        opened.check_vocabulary(Tokenizer(models.WordPiece({"a": 0, "[UNK]": 1})), "other")


def test_what_is_no_store(tmp_path: Path, store: Path) -> None:
    with pytest.raises(UsageError, match="is not a token store"):
        TokenStore.open(tmp_path)
    (tmp_path / "_prepare").mkdir()
    with pytest.raises(UsageError, match="not finished: run the same"):
        TokenStore.open(tmp_path)
    (tmp_path / "store.json").write_text(json.dumps({"format": "rayft token store", "version": 99}))
    with pytest.raises(UsageError, match=r"version 99; this release reads version 1"):
        TokenStore.open(tmp_path)
    with pytest.raises(UsageError, match=r"no split 'dev'; it has: train, validation, test"):
        TokenStore.open(store).split("dev")


def test_damage_is_found(store: Path, tmp_path: Path) -> None:
    import shutil

    copy = shutil.copytree(store, tmp_path / "copy")
    ids = copy / "train" / "ids.npy"
    content = bytearray(ids.read_bytes())
    content[-1] ^= 1
    ids.write_bytes(content)
    with pytest.raises(InputError, match=r"train/ids.npy is damaged: its digest"):
        TokenStore.open(copy).verify()
    ids.write_bytes(content[:-2])
    with pytest.raises(InputError, match=r"train/ids.npy is damaged: .* bytes instead of"):
        TokenStore.open(copy).split("train")
    ids.unlink()
    with pytest.raises(InputError, match="damaged: 0 bytes"):
        TokenStore.open(copy).split("train")


def test_reading_imports_neither_torch_nor_ray() -> None:
    code = "import rayft.data.store, sys; sys.exit(bool({'torch', 'ray', 'click'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@given(blocks=st.lists(st.lists(st.integers(0, 65535), max_size=5), max_size=6))
def test_arrays_in_blocks(blocks: list[list[int]], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("a") / "x.npy"
    total = sum(map(len, blocks))
    arrays: list[Any] = [np.array(block, dtype=np.uint16) for block in blocks]
    digest = write_array(locate(path), np.dtype(np.uint16), (total,), arrays)
    assert np.load(path).tolist() == [v for block in blocks for v in block]
    assert digest.bytes == path.stat().st_size
    with pytest.raises(ValueError, match="values were given"):
        write_array(locate(path), np.dtype(np.uint16), (total + 1,), arrays)
