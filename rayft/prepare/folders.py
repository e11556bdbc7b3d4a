"""Directory-per-class sources such as aclImdb: `[split/]class/*.txt`, one review a file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import pyarrow as pa
from pyarrow import fs

from rayft.data.storage import Location
from rayft.errors import InputError
from rayft.prepare.rows import Part, RowBuilder, split_of


def class_files(root: Location, infos: Sequence[fs.FileInfo]) -> list[fs.FileInfo]:
    """Return the text files that stand in the folder of a class, sorted; nothing for fewer than two classes."""
    start = len(root.path.rstrip("/")) + 1
    found = []
    classes = set()
    for info in infos:
        *folders, name = info.path[start:].split("/")
        if info.type != fs.FileType.File or not name.endswith(".txt") or name.endswith(".ft.txt"):
            continue
        if not folders or any(folder.startswith((".", "_")) for folder in folders):
            continue
        if split_of(folders[-1]) in (None, "unlabelled"):
            classes.add(folders[-1])
            found.append(info)
    return found if len(classes) >= 2 else []


def folder_parts(root: Location, files: Sequence[fs.FileInfo], encoding: str) -> list[Part]:
    """Return one part for each folder of a class; the split is the name of a folder above it, if any."""
    groups: dict[str, list[fs.FileInfo]] = {}
    for info in files:
        groups.setdefault(info.path.rsplit("/", 1)[0], []).append(info)
    return [_part(root, folder, infos, encoding) for folder, infos in sorted(groups.items())]


def _part(root: Location, folder: str, infos: list[fs.FileInfo], encoding: str) -> Part:
    name = folder[len(root.path.rstrip("/")) + 1 :]
    *above, label = name.split("/")
    splits = [split for word in above if (split := split_of(word))]
    unlabelled = split_of(label) == "unlabelled"
    sha = hashlib.sha256()
    for info in infos:
        sha.update(f"{info.path.rsplit('/', 1)[-1]} {info.size} {info.mtime_ns}\n".encode())

    def read() -> Iterator[pa.Table]:
        rows = RowBuilder()
        for info in infos:
            try:
                text = root.at(info.path).read_bytes().decode(encoding)
            except UnicodeDecodeError:
                rows.add_problem(f"not {encoding.upper()}")
            except OSError as error:
                raise InputError(f"Cannot read {info.path}: {error}") from error
            else:
                rows.add(None, text, None if unlabelled else label, splits[-1] if splits else None)
            if rows.full:
                yield rows.take()
        yield rows.take()

    return Part(f"{root.name}/{name}", f"{name} {sha.hexdigest()[:16]}", read)
