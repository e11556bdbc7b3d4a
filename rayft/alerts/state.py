"""What is kept between nightly runs, in the state folder of the output.

    _rayft/alerts.json                the settings, the inputs with their identities, which counts belong to them
    _rayft/alerts-extracts/*.arrow    one per input: fingerprints, flags and redacted quotes, no review text
    _rayft/alerts-counts/*.arrow      counts and flagged reviews after duplicates were collapsed
    _rayft/alerts-thresholds.json     simulated thresholds

`alerts.json` is written last and names the others by digest, so that a run that dies halfway leaves
the state of the one before. All of it can be deleted: the next run rebuilds it from the Parquet.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import polars as pl

from rayft.alerts import extract as extracting
from rayft.alerts.config import AlertsConfig
from rayft.alerts.counts import Counts
from rayft.data.storage import Location
from rayft.score.state import read_json, write_json

#: Changes when the same inputs come to mean other extracts or counts.
VERSION = 1
_EXTRACT_SETTINGS = ("product_column", "date_column", "category_column", "text_column", "id_column", "negative_label")


@dataclass
class Kept:
    """One input as it was counted last.

    Attributes:
        extract: name of its extract, which holds input, version and settings in it.
    """

    identity: str
    extract: str
    scorer: str
    facts: dict[str, Any]
    columns: dict[str, str]
    rows: int
    left_out: dict[str, int]


@dataclass
class AlertsState:
    """The state folder of an output and what `alerts.json` in it says."""

    folder: Location
    inputs: dict[str, Kept] = field(default_factory=dict)
    counts: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def lock(self) -> Location:
        return self.folder / "alerts.lock"

    @property
    def _index(self) -> Location:
        return self.folder / "alerts.json"

    @property
    def _extracts(self) -> Location:
        return self.folder / "alerts-extracts"

    @property
    def _counts(self) -> Location:
        return self.folder / "alerts-counts"

    @property
    def _thresholds(self) -> Location:
        return self.folder / "alerts-thresholds.json"

    def load(self) -> None:
        """Read what the last run left; nothing if there is none or another version wrote it."""
        found = read_json(self._index)
        if found and found.get("version") == VERSION:
            self.inputs = {name: Kept(**kept) for name, kept in found["inputs"].items()}
            self.counts, self.settings = found["counts"], found["settings"]

    def commit(self) -> None:
        """Make the state that is in memory the one of the next run, and drop what it does not name."""
        inputs = {name: asdict(kept) for name, kept in sorted(self.inputs.items())}
        write_json(self._index, {"version": VERSION, "inputs": inputs, "counts": self.counts,
                                 "settings": self.settings})  # fmt: skip
        used = {kept.extract for kept in self.inputs.values()}
        for folder, wanted in ((self._extracts, used), (self._counts, {self.counts})):
            for info in folder.listing():
                if info.base_name.split(".")[0] not in wanted:
                    folder.at(info.path).remove()

    def extract_name(self, uri: str, identity: str, config: AlertsConfig) -> str:
        settings = {name: getattr(config, name) for name in _EXTRACT_SETTINGS}
        return _digest([VERSION, uri, identity, settings, extracting.SCHEMA.names()])

    def write_extract(self, name: str, reviews: pl.DataFrame) -> None:
        (self._extracts / f"{name}.arrow").write_bytes(_ipc(reviews))

    def has_extract(self, name: str) -> bool:
        return (self._extracts / f"{name}.arrow").is_file()

    def read_extracts(self, names: Iterable[str], products: Sequence[str] | None = None) -> pl.DataFrame:
        """Return extracts one after the other, of some products if given."""
        parts = [pl.DataFrame(schema=extracting.SCHEMA)]
        wanted = None if products is None else pl.Series(products, dtype=pl.String)
        for name in names:
            part = pl.read_ipc(io.BytesIO((self._extracts / f"{name}.arrow").read_bytes()))
            parts.append(part if wanted is None else part.filter(pl.col("product").is_in(wanted.implode())))
        return pl.concat(parts)

    def products_of(self, name: str) -> list[str]:
        frame = pl.read_ipc(io.BytesIO((self._extracts / f"{name}.arrow").read_bytes()), columns=["product"])
        return frame["product"].unique().to_list()

    def write_counts(self, counts: Counts, flagged: pl.DataFrame) -> None:
        parts = {"volume": _ipc(counts.volume), "reports": _ipc(counts.reports), "flagged": _ipc(flagged)}
        self.counts = hashlib.blake2b(b"".join(parts.values()), digest_size=10).hexdigest()
        for part, data in parts.items():
            (self._counts / f"{self.counts}.{part}.arrow").write_bytes(data)

    def read_counts(self) -> tuple[Counts, pl.DataFrame]:
        volume, reports, flagged = (
            pl.read_ipc(io.BytesIO((self._counts / f"{self.counts}.{part}.arrow").read_bytes()))
            for part in ("volume", "reports", "flagged")
        )
        return Counts(volume, reports), flagged

    def thresholds(self) -> dict[str, list[float]]:
        return read_json(self._thresholds) or {}

    def keep_thresholds(self, known: dict[str, list[float]]) -> None:
        write_json(self._thresholds, known)


def _ipc(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_ipc(buffer, compression="zstd")
    return buffer.getvalue()


def _digest(value: object) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True, default=str).encode(), digest_size=10).hexdigest()
