"""Locations, and writes that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from pyarrow import fs

from rayft.data.storage import Location, locate
from rayft.errors import StoppedError, UsageError

Where = Callable[[Path], Location]


def elsewhere(path: Path) -> Location:
    """Return a location that is written as those in object stores are."""
    return Location(fs.LocalFileSystem(), str(path), "mem://")


def test_paths_and_file_uris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for given in (tmp_path / "a/b.csv", "a/b.csv", "./a/../a/b.csv", f"file://{tmp_path}/a/b.csv", "a/b.csv/"):
        location = locate(given)
        assert (location.path, str(location), location.is_local) == (f"{tmp_path}/a/b.csv",) * 2 + (True,)
    assert locate("~").path == f"{tmp_path}/home"
    assert locate("~/x").path == f"{tmp_path}/home/x"
    assert locate("a~b").path == f"{tmp_path}/a~b"


@pytest.mark.parametrize("uri", ["foo://bucket/key", "http://example.com/x.parquet", "C://x"])
def test_an_unknown_scheme_is_refused(uri: str) -> None:
    with pytest.raises(UsageError, match=r"Cannot use .*Known: paths, s3://"):
        locate(uri)


def test_parts_of_a_location() -> None:
    location = locate("/data/2024") / "a.parquet"
    assert (str(location), location.name, str(location.parent)) == ("/data/2024/a.parquet", "a.parquet", "/data/2024")
    assert str(locate("/data").parent) == "/"
    assert str(locate("/") / "data") == "/data"
    assert str(location.at("/other")) == "/other"
    stored = elsewhere(Path("/bucket/key"))
    assert (str(stored), str(stored.parent / "other"), stored.is_local) == (
        "mem:///bucket/key",
        "mem:///bucket/other",
        False,
    )


def test_files_and_folders(tmp_path: Path) -> None:
    folder = locate(tmp_path / "new/folder")
    assert (folder.is_dir(), folder.is_file(), folder.listing()) == (False, False, [])
    folder.make_dir()
    for name in ("b", "a", "c/d"):
        (folder / name).write_bytes(name.encode())
    assert folder.is_dir()
    assert [info.base_name for info in folder.listing()] == ["a", "b", "c"]
    assert [info.base_name for info in folder.listing(recursive=True)] == ["a", "b", "c", "d"]
    assert (folder / "c" / "d").read_bytes() == b"c/d"
    (folder / "a").remove()
    (folder / "a").remove()
    assert not (folder / "a").is_file()
    folder.remove()
    assert not folder.is_dir()


@pytest.mark.parametrize("where", [locate, elsewhere])
def test_a_file_is_replaced_when_the_block_ends(tmp_path: Path, where: Where) -> None:
    path = tmp_path / "out.parquet"
    path.write_bytes(b"old")
    with where(path).replacing() as stream:
        stream.write(b"new" * 1_000_000)
        assert path.read_bytes() == b"old"
        for other in set(os.listdir(tmp_path)) - {"out.parquet"}:
            assert other.startswith(".")  # listings of inputs pass over it
            assert not other.endswith(".parquet")
    assert path.read_bytes() == b"new" * 1_000_000
    assert os.listdir(tmp_path) == ["out.parquet"]


@pytest.mark.parametrize("where", [locate, elsewhere])
@pytest.mark.parametrize("old", [b"old", None])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_write_that_fails_leaves_no_trace(
    tmp_path: Path, where: Where, old: bytes | None, error: type[BaseException]
) -> None:
    path = tmp_path / "out.parquet"
    if old is not None:
        path.write_bytes(old)

    def fail() -> None:
        with where(path).replacing() as stream:
            stream.write(b"half")
            raise error

    with pytest.raises(error):
        fail()
    assert os.listdir(tmp_path) == (["out.parquet"] if old else [])
    assert old is None or path.read_bytes() == old


def test_a_reader_never_sees_a_part(tmp_path: Path) -> None:
    location = locate(tmp_path / "file")
    contents = {bytes([i]) * 300_000 for i in range(40)}
    location.write_bytes(bytes(300_000))
    seen: set[bytes] = set()
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            seen.add(location.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for content in sorted(contents):
        location.write_bytes(content)
    ended.set()
    reader.join()
    assert seen
    assert seen <= contents


def test_folders_above_a_file_are_made(tmp_path: Path) -> None:
    locate(tmp_path / "a/b/c").write_bytes(b"x")
    assert (tmp_path / "a/b/c").read_bytes() == b"x"


@pytest.mark.parametrize("where", [locate, elsewhere])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_stops_the_run_resumably(tmp_path: Path, where: Where, code: int) -> None:
    message = r"No space left.*out.*run the same command again"
    with pytest.raises(StoppedError, match=message), where(tmp_path / "out").replacing():
        raise OSError(code, os.strerror(code))
    assert os.listdir(tmp_path) == []


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Cannot write .*out"), locate(tmp_path / "out").replacing():
        raise PermissionError(errno.EACCES, "Permission denied")
    (tmp_path / "file").write_bytes(b"")
    for place in (tmp_path / "file/out", tmp_path / "file/deep/out"):
        with pytest.raises(UsageError, match=r"Cannot write .*out"):
            locate(place).write_bytes(b"x")
        with pytest.raises(UsageError, match=r"Cannot write .*out"):
            locate(place).make_dir()


def test_other_errors_are_passed_on(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Input/output error"), locate(tmp_path / "out").replacing():
        raise OSError(errno.EIO, "Input/output error")
