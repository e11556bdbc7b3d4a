"""What the user asked of `rayft prepare` and `rayft profile`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from rayft.errors import UsageError
from rayft.text.encode import Truncation

Duplicates = Literal["between", "all", "keep"]

#: Without a size of its own, validation takes this share of the training rows, up to a number of rows.
DEFAULT_SHARES = {"validation": (0.05, 10_000), "test": (0.1, 25_000)}


@dataclass(frozen=True)
class PrepareConfig:
    """`rayft prepare`.

    Attributes:
        sources: files, directories, globs, Hub dataset ids.
        output: folder of the token store, local or in an object store.
        base: model whose tokeniser encodes the reviews; None is the shipped one.
        subset, revision: of a Hub dataset.
        stars_negative, stars_positive: numbers of stars that make a class; others are dropped.
        labels: (value, class) pairs; rows with other values are dropped.
        encoding: of CSV, JSONL and text files.
        max_length: longest stored review, in tokens.
        train, validation, test: a share below 1 or a number of rows; None is all the rest for
            train and the default share for the others.
        duplicates: drop them between splits, everywhere, or keep them.
        similarity: Jaccard similarity of word trigrams from which two texts are near duplicates.
        min_label_rows: classes with fewer rows are dropped.
        workers: processes that clean and tokenise; None is one a core.
        work_dir: folder of unfinished work; None is inside a local store, or the cache folder.
        check_labels: rows of the sample on which the shipped model looks for wrong labels.
    """

    sources: tuple[str, ...]
    output: str
    base: str | None = None
    subset: str | None = None
    revision: str | None = None
    text_column: str | None = None
    title_column: str | None = None
    no_title: bool = False
    label_column: str | None = None
    split_column: str | None = None
    stars_negative: tuple[float, ...] = ()
    stars_positive: tuple[float, ...] = ()
    labels: tuple[tuple[str, str], ...] | None = None
    encoding: str = "utf-8"
    max_length: int = 512
    truncation: Truncation = "head"
    train: float | None = None
    validation: float | None = None
    test: float | None = None
    seed: int = 0
    duplicates: Duplicates = "between"
    similarity: float = 0.8
    min_label_rows: int = 10
    workers: int | None = None
    work_dir: str | None = None
    check_labels: int = 500
    overwrite: bool = False

    def __post_init__(self) -> None:
        if bool(self.stars_negative) != bool(self.stars_positive):
            raise UsageError("--stars-negative and --stars-positive go together, e.g. 1,2 and 4,5.")
        if both := set(self.stars_negative) & set(self.stars_positive):
            raise UsageError(f"{min(both):g} stars cannot be negative and positive at once.")
        if self.labels and self.stars_negative:
            raise UsageError("--labels and --stars-negative/--stars-positive exclude each other.")
        if self.no_title and self.title_column:
            raise UsageError("--title-column and --no-title exclude each other.")
        for name in ("train", "validation", "test"):
            size = getattr(self, name)
            if size is not None and (size < 0 or (size >= 1 and size != int(size))):
                raise UsageError(f"--{name} is a share below 1 or a whole number of rows, not {size:g}.")

    @property
    def content(self) -> dict[str, Any]:
        """What decides the bytes of the store; the rest is only about where and how fast."""
        where = ("sources", "output", "base", "workers", "work_dir", "check_labels", "overwrite")
        return {name: value for name, value in asdict(self).items() if name not in where}
