"""From text to token ids: one flat array with offsets, truncated to the model's length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from tokenizers import Tokenizer

Truncation = Literal["head", "head+tail"]

#: Of a long text, this many characters per token of the maximum length are encoded first. Where they
#: make too few tokens (words of thousands of characters become one token), four times as many are.
_CHARACTERS_PER_TOKEN = 128


@dataclass(frozen=True)
class Encoded:
    """Token ids of n texts.

    Attributes:
        ids: int32[total], the ids of all texts one after the other, special tokens included.
        offsets: int64[n + 1]; text i is `ids[offsets[i]:offsets[i + 1]]`.
        truncated: bool[n], whether text i was longer than the maximum length.
    """

    ids: np.ndarray
    offsets: np.ndarray
    truncated: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """int64[n], the number of tokens of each text."""
        return np.diff(self.offsets)


class Encoder:
    """The tokeniser of a checkpoint with its truncation.

    `head` keeps the first tokens of a long review; `head+tail` keeps the first half and the last
    half, where the verdict often stands (Sun et al. 2019, arXiv:1905.05583).
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int, truncation: Truncation = "head") -> None:
        if max_length < 8:
            raise ValueError(f"max_length must be at least 8 tokens, not {max_length}")
        self.tokenizer = tokenizer
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.max_length = max_length
        self.truncation = truncation
        if truncation == "head":
            self.tokenizer.enable_truncation(max_length + 1)  # one more, to see what was cut

    @classmethod
    def from_directory(cls, directory: str | Path, max_length: int, truncation: Truncation = "head") -> Encoder:
        return cls(Tokenizer.from_file(str(Path(directory) / "tokenizer.json")), max_length, truncation)

    def __call__(self, texts: Sequence[str]) -> Encoded:
        """Encode `texts`; each result is at most `max_length` tokens long."""
        rows = self._whole(texts)
        truncated = np.fromiter((len(row) > self.max_length for row in rows), dtype=bool, count=len(rows))
        rows = [self._truncate(row) if cut else row for row, cut in zip(rows, truncated, strict=True)]
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        ids = np.concatenate(rows) if rows else np.zeros(0, dtype=np.int32)
        return Encoded(ids, offsets, truncated)

    def _whole(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the ids of each text before truncation, or enough of them to be truncated."""
        limit = _CHARACTERS_PER_TOKEN * self.max_length
        rows = [np.zeros(0, dtype=np.int32)] * len(texts)
        todo = list(range(len(texts)))
        while todo:
            clipped = [self._clip(texts[i], limit) for i in todo]
            for i, encoding in zip(todo, self.tokenizer.encode_batch_fast(clipped), strict=True):
                rows[i] = np.asarray(encoding.ids, dtype=np.int32)
            todo = [i for i in todo if len(texts[i]) > limit and len(rows[i]) <= self.max_length]
            limit *= 4
        return rows

    def _clip(self, text: str, limit: int) -> str:
        """Return at most `limit` characters of `text`, cut between words where there are any."""
        if len(text) <= limit:
            return text
        if self.truncation == "head":
            end = text.rfind(" ", 0, limit)
            return text[: end if end > 0 else limit]
        half = limit // 2
        end, start = text.rfind(" ", 0, half), text.find(" ", len(text) - half)
        return text[: end if end > 0 else half] + " " + text[start if start > 0 else -half :]

    def _truncate(self, row: np.ndarray) -> np.ndarray:
        separator = row[-1:]
        kept = self.max_length - 1
        if self.truncation == "head":
            return np.concatenate([row[:kept], separator])
        head = (kept + 1) // 2
        return np.concatenate([row[:head], row[-1 - (kept - head) : -1], separator])
