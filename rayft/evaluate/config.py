"""What the user asked of `rayft evaluate` and `rayft compare`."""

from __future__ import annotations

from dataclasses import dataclass

from rayft.errors import UsageError


@dataclass(frozen=True)
class EvaluateConfig:
    """`rayft evaluate`.

    Attributes:
        model: `bundled`, a directory or a Hub id.
        sources: labelled data, as `rayft prepare` reads it.
        baseline: another model, `untrained`, `untrained:MODEL` or `tfidf`; None for none.
        train: labelled data that `tfidf` is trained on.
        stars_negative, stars_positive: numbers of stars that make a class; other rows are dropped.
        labels: (value, class) pairs; rows with other values are dropped.
        split: use only the rows of that split, if the data names splits.
        limit: evaluate a random sample of that many rows.
        threshold: on the probability of the negative label, marked on the precision-recall curve.
        top: most confident errors and suspected label errors that are shown.
    """

    model: str
    sources: tuple[str, ...]
    baseline: str | None = None
    train: str | None = None
    text_column: str | None = None
    title_column: str | None = None
    no_title: bool = False
    label_column: str | None = None
    category_column: str | None = None
    stars_column: str | None = None
    stars_negative: tuple[float, ...] = ()
    stars_positive: tuple[float, ...] = ()
    labels: tuple[tuple[str, str], ...] | None = None
    split: str | None = None
    limit: int | None = None
    threshold: float = 0.5
    negative_label: str | None = None
    max_length: int | None = None
    precision: str = "auto"
    device: str = "auto"
    threads: int | None = None
    top: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        if self.baseline == "tfidf" and self.train is None:
            raise UsageError("--baseline tfidf needs labelled data to learn from: --train DATA2.")
        if self.train is not None and self.baseline != "tfidf":
            raise UsageError("--train is for --baseline tfidf.")


@dataclass(frozen=True)
class CompareConfig:
    """`rayft compare`.

    Attributes:
        old, new: models, as `rayft score --model` takes them.
        inputs: reviews, as `rayft score` reads them.
        output: Parquet file of the changed rows; None writes none.
        limit: compare only the first rows.
        top: changed rows that are shown.
    """

    old: str
    new: str
    inputs: tuple[str, ...]
    output: str | None = None
    text_column: str | None = None
    title_column: str | None = None
    no_title: bool = False
    limit: int | None = None
    threshold: float = 0.5
    negative_label: str | None = None
    max_length: int | None = None
    precision: str = "auto"
    device: str = "auto"
    threads: int | None = None
    top: int = 10
