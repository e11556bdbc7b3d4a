"""Which files an INPUT stands for, and the name each one's output gets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

from pyarrow import fs

from rayft.data.object_store import without_secrets
from rayft.data.storage import Location, locate
from rayft.errors import UsageError

Format = Literal["parquet", "csv", "jsonl"]

_SUFFIXES: dict[str, Format] = {
    ".parquet": "parquet",
    ".parq": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv.gz": "csv",
    ".tsv.gz": "csv",
    ".jsonl.gz": "jsonl",
    ".ndjson.gz": "jsonl",
}
_GLOB_CHARACTERS = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class InputFile:
    """One file to score.

    Attributes:
        name: path relative to the root of the INPUT that it came from, with `/`.
        size: bytes.
    """

    location: Location
    name: str
    format: Format
    size: int

    @property
    def output_name(self) -> str:
        """The name of the output below an output folder: the same, ending in `.parquet`."""
        return self.name[: len(self.name) - len(suffix_of(self.name))] + ".parquet"


@dataclass
class Listing:
    """The files of all INPUTs, sorted by name, and what was passed over, by reason."""

    files: list[InputFile] = field(default_factory=list)
    skipped: dict[str, list[str]] = field(default_factory=dict)

    def skip(self, reason: str, name: str) -> None:
        self.skipped.setdefault(reason, []).append(name)


def suffix_of(name: str) -> str:
    """Return the known suffix of a file name (`.csv.gz` as one), or `""`."""
    lower = name.lower()
    return max((s for s in _SUFFIXES if lower.endswith(s)), key=len, default="")


def list_inputs(inputs: Sequence[str], output: Location | None = None) -> Listing:
    """Return the files that `inputs` (files, directories, globs) stand for.

    Passed over and counted: names that begin with `_` or `.`, anything below `output`, and, in
    directories and globs, files of unknown formats.

    Raises:
        UsageError: an INPUT does not exist or matches nothing.
    """
    listing = Listing()
    seen: set[tuple[str, bool]] = set()
    for given in inputs:
        location = locate(given)
        kind = location.info().type
        if kind == fs.FileType.File:
            _add(listing, seen, _named_file(location))
        elif kind == fs.FileType.Directory:
            _add_all(listing, seen, location, location.listing(recursive=True), output)
        elif _GLOB_CHARACTERS.search(location.path):
            _add_glob(listing, seen, location, output)
        else:
            raise UsageError(f"There is no file or directory {without_secrets(given)}.")
    listing.files.sort(key=lambda file: (file.name, str(file.location)))
    return listing


def _named_file(location: Location) -> InputFile:
    info = location.info()
    suffix = suffix_of(location.name)
    if suffix:
        return InputFile(location, location.name, _SUFFIXES[suffix], info.size)

    def begins() -> bytes:
        with location.filesystem.open_input_stream(location.path, compression=None) as stream:
            return bytes(stream.read(4))

    try:
        if location.retrying(begins) == b"PAR1":
            return InputFile(location, location.name, "parquet", info.size)
    except OSError as error:
        raise UsageError(f"Cannot read {location}: {error}") from error
    known = ", ".join(s for s in _SUFFIXES if not s.endswith(".gz"))
    raise UsageError(f"{location} is not Parquet and its name tells no other format; known: {known} (and .gz).")


def _add_glob(listing: Listing, seen: set[tuple[str, bool]], location: Location, output: Location | None) -> None:
    parts = location.path.split("/")
    fixed = next(i for i, part in enumerate(parts) if _GLOB_CHARACTERS.search(part))
    root = location.at("/".join(parts[:fixed]) or "/")
    pattern = [part.replace("[^", "[!") for part in parts[fixed:]]
    if pattern[-1] == "**":
        pattern.append("*")
    prefix = root.path.rstrip("/") + "/"
    matches = [
        info
        for info in root.listing(recursive=len(pattern) > 1)
        if _matches(info.path[len(prefix) :].split("/"), pattern)
    ]
    if not matches:
        raise UsageError(f"No file matches {location}.")
    files = [info for info in matches if info.type == fs.FileType.File]
    for folder in (info for info in matches if info.type == fs.FileType.Directory):
        files += root.at(folder.path).listing(recursive=True)
    _add_all(listing, seen, root, files, output)


def _matches(path: Sequence[str], pattern: Sequence[str]) -> bool:
    """Tell whether the parts of a path match those of a glob, in which `**` is any number of folders."""
    if not pattern:
        return not path
    if pattern[0] == "**":
        return any(_matches(path[i:], pattern[1:]) for i in range(len(path) + 1))
    return bool(path) and fnmatchcase(path[0], pattern[0]) and _matches(path[1:], pattern[1:])


def _add_all(
    listing: Listing, seen: set[tuple[str, bool]], root: Location, infos: Iterable[fs.FileInfo], output: Location | None
) -> None:
    prefix = root.path.rstrip("/") + "/"
    below_output = None
    if output is not None and output.prefix == root.prefix and not output.path.endswith(".parquet"):
        below_output = output.path.rstrip("/") + "/"
    for info in infos:
        if info.type != fs.FileType.File:
            continue
        name = info.path[len(prefix) :]
        parts = name.split("/")
        if below_output and info.path.startswith(below_output):
            reason = "below the output"
        elif any(part.startswith(("_", ".")) or part.endswith(".rayft") for part in parts):
            reason = "name begins with _ or ."
        elif not suffix_of(name):
            reason = "not Parquet, CSV or JSONL"
        else:
            _add(listing, seen, InputFile(root.at(info.path), name, _SUFFIXES[suffix_of(name)], info.size))
            continue
        if _first_time(seen, root.at(info.path), False):
            listing.skip(reason, name)


def _add(listing: Listing, seen: set[tuple[str, bool]], file: InputFile) -> None:
    if _first_time(seen, file.location, True):
        listing.files.append(file)


def _first_time(seen: set[tuple[str, bool]], location: Location, wanted: bool) -> bool:
    """Tell whether this file is met for the first time: named and matched by a glob as well, it counts once."""
    key = (str(location), wanted)
    known = key in seen
    seen.add(key)
    return not known
