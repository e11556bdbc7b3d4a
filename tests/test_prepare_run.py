"""From sources to a finished store: counts, messages, splits, resuming, object stores."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayft.data.store import TokenStore
from rayft.errors import UsageError
from rayft.prepare.config import PrepareConfig
from rayft.prepare.plan import draw_splits
from rayft.prepare.run import prepare

ROOT = Path(__file__).parents[1]
WORDS = """kettle lid broke after two weeks works fine great product would buy again terrible quality
    stopped working shipping slow love daughter uses every day price poor screen bright cable loose""".split()  # noqa: SIM905


def texts(rows: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(8, 40))) + f" no {seed}x{i}" for i in range(rows)]


def write_jsonl(path: Path, rows: list[tuple[Any, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))
    return path


def labelled(rows: int, seed: int = 0, classes: int = 2) -> list[tuple[Any, Any]]:
    return [(text, i % classes) for i, text in enumerate(texts(rows, seed))]


def make(tmp_path: Path, *sources: Path, **options: Any) -> dict[str, Any]:
    options = {"workers": 1, "check_labels": 0, **options}
    return prepare(PrepareConfig(tuple(map(str, sources)), str(tmp_path / "store"), **options))


def digests(store: Path) -> dict[str, str]:
    """Return the digest of every file, hidden ones included."""
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(store.rglob("*"))
        if path.is_file()
    }


def split_rows(report: dict[str, Any]) -> dict[str, int]:
    return {name: split["rows"] for name, split in report["splits"].items()}


def test_every_row_is_accounted_for(tmp_path: Path) -> None:
    rows = labelled(200)
    rows += [("", 1), (None, 0), ("<br />", 1), ("fine", None), ("lonely class here", "x")]
    rows += [(rows[0][0], 0), (rows[2][0].upper() + "!", 1)]
    file = write_jsonl(tmp_path / "a.jsonl", rows)
    file.write_bytes(file.read_bytes() + b'{"text": "caf\xe9", "label": 1}\n{nonsense\n')
    report = make(tmp_path, file, duplicates="all")
    said = report["statistics"]
    assert said["read"] == 209
    assert said["dropped"] == {
        "empty text": 3,
        "no label": 1,
        "not UTF-8": 1,
        "line is not JSON": 1,
        "rare label 'x' (fewer than 10 rows)": 1,
    }
    assert said["duplicates"]["dropped"] == 2
    assert said["duplicates"]["same words, other label"] == 1
    assert sum(split_rows(report).values()) == 200
    profile = json.loads((tmp_path / "store" / "profile.json").read_text())
    assert profile["examples"]["not UTF-8"] == ["a.jsonl, row 208"]
    assert profile["rows"] == 200
    assert sum(profile["histogram"]["rows"]) == 200


def test_own_splits_are_kept_and_leaks_are_dropped(tmp_path: Path) -> None:
    train, test = labelled(300, 1), [(text + f" {text[::-1]}", label) for text, label in labelled(60, 2)]
    leaked = [(text + " indeed", label) for text, label in test[:5]] + test[5:8]
    write_jsonl(tmp_path / "data" / "train.jsonl", train + leaked)
    write_jsonl(tmp_path / "data" / "test.jsonl", [*test, test[0]])
    report = make(tmp_path, tmp_path / "data", validation=30)
    assert split_rows(report) == {"train": 270, "validation": 30, "test": 61}
    duplicates = report["statistics"]["duplicates"]
    assert duplicates["exact between splits"] == 3
    assert duplicates["near between splits"] == 5
    assert duplicates["exact within a split"] == 1
    assert duplicates["dropped"] == 8
    kept = make(tmp_path, tmp_path / "data", validation=30, duplicates="keep", overwrite=True)
    assert sum(split_rows(kept).values()) == 369


def test_sizes_in_rows(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "data" / "train.jsonl", labelled(900, 1))
    write_jsonl(tmp_path / "data" / "test.jsonl", labelled(200, 2))
    report = make(tmp_path, tmp_path / "data", train=500, validation=100, test=100)
    assert split_rows(report) == {"train": 500, "validation": 100, "test": 100}
    assert all(set(split["classes"].values()) == {split["rows"] // 2} for split in report["splits"].values())
    assert report["statistics"]["dropped"]["not drawn (--train, --validation, --test)"] == 400


def test_stars(tmp_path: Path) -> None:
    rows = [(text, 1 + i % 5) for i, text in enumerate(texts(100))] + [("ok", "many"), ("ok", 4.0)]
    report = make(tmp_path, write_jsonl(tmp_path / "a.jsonl", rows), stars_negative=(1.0, 2.0),
                  stars_positive=(4.0, 5.0))  # fmt: skip
    assert report["labels"] == ["negative", "positive"]
    assert report["statistics"]["dropped"] == {"3 stars": 20, "'many' is not a number of stars": 1}
    assert sum(split["classes"]["positive"] for split in report["splits"].values()) == 41


def test_known_labels_only(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", labelled(90, classes=3))
    report = make(tmp_path, file, labels=(("0", "negative"), ("1", "positive")))
    assert report["labels"] == ["negative", "positive"]
    assert report["statistics"]["dropped"] == {"unknown label '2'": 30}
    ordered = make(tmp_path, write_jsonl(tmp_path / "b.jsonl", labelled(240, classes=12)), overwrite=True)
    assert ordered["labels"] == [str(i) for i in range(12)]  # as numbers, not as words


def test_refusals(tmp_path: Path) -> None:
    one = write_jsonl(tmp_path / "one.jsonl", [(text, "neg") for text in texts(30)] + [("", "pos")])
    with pytest.raises(
        UsageError, match=r"All 30 usable rows have the label 'negative'; .* empty text: 1 \(e\.g\. one"
    ):
        make(tmp_path, one)
    none = write_jsonl(tmp_path / "none.jsonl", [("text", None)] * 5)
    with pytest.raises(UsageError, match="None of the 5 rows is usable"):
        make(tmp_path, none)
    free = write_jsonl(tmp_path / "free.jsonl", [(text, text) for text in texts(1500)])
    with pytest.raises(UsageError, match="more than 1000 values"):
        make(tmp_path, free)
    assert not (tmp_path / "store").exists()
    with pytest.raises(UsageError, match="whole number of rows"):
        PrepareConfig(("x",), "y", test=1.5)
    with pytest.raises(UsageError, match="go together"):
        PrepareConfig(("x",), "y", stars_negative=(1.0,))


def test_a_folder_with_other_files_is_not_touched(tmp_path: Path) -> None:
    data = tmp_path / "store"
    write_jsonl(data / "train" / "a.jsonl", labelled(60))
    before = digests(data)
    with pytest.raises(UsageError, match=r"holds other files \(train\)"):
        make(tmp_path, data, overwrite=True)
    assert digests(data) == before


def test_the_same_again_and_other_settings(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", labelled(60))
    assert not make(tmp_path, file)["already"]
    before = digests(tmp_path / "store")
    assert make(tmp_path, file)["already"]
    with pytest.raises(UsageError, match="Replace it with --overwrite"):
        make(tmp_path, file, seed=1)
    assert digests(tmp_path / "store") == before
    write_jsonl(file, labelled(61))
    with pytest.raises(UsageError, match="other sources or settings"):
        make(tmp_path, file)
    assert sum(split_rows(make(tmp_path, file, overwrite=True)).values()) == 61
    (tmp_path / "store" / "store.json").write_text('{"format": "something else"}')
    with pytest.raises(UsageError, match="was not written by rayft"):
        make(tmp_path, file, overwrite=True)


def test_workers_do_not_change_the_store(tmp_path: Path) -> None:
    for i in range(4):
        write_jsonl(tmp_path / "data" / f"{i}.jsonl", labelled(50, i))
    make(tmp_path, tmp_path / "data")
    one = digests(tmp_path / "store")
    make(tmp_path, tmp_path / "data", overwrite=True, seed=1)
    make(tmp_path, tmp_path / "data", workers=2, overwrite=True)
    assert digests(tmp_path / "store") == one


def test_kill_and_resume_gives_the_same_store(tmp_path: Path) -> None:
    for i in range(8):
        write_jsonl(tmp_path / "data" / f"{i}.jsonl", labelled(400, i))
    make(tmp_path, tmp_path / "data")
    undisturbed = digests(tmp_path / "store")
    output = tmp_path / "killed"
    command = [sys.executable, str(ROOT / "cli.py"), "prepare", str(tmp_path / "data"), "--output", str(output),
               "--workers", "2", "--check-labels", "0", "-q"]  # fmt: skip
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 60
    while len(list(output.glob("_prepare/*/*/done.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (output / "store.json").exists()
    done = {path: path.stat().st_mtime_ns for path in output.glob("_prepare/*/*/done.json")}
    assert len(done) >= 2
    with pytest.raises(UsageError, match="unfinished work for other sources"):
        prepare(PrepareConfig((str(tmp_path / "data"),), str(output), seed=5))
    seen: list[bool] = []

    class Watch:
        def say(self, message: str) -> None:
            pass

        def shard(self, marker: dict[str, Any], before: bool) -> None:
            seen.append(before)

    config = PrepareConfig((str(tmp_path / "data"),), str(output), check_labels=0, workers=1)
    prepare(config, Watch())
    assert sum(seen) >= len(done)
    assert len(seen) == 8
    # The store tells its own name on its page only.
    both = {name: value for name, value in digests(output).items() if name != "profile.html"}
    assert both == {name: value for name, value in undisturbed.items() if name != "profile.html"}


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    for i in range(3):
        write_jsonl(tmp_path / "data" / f"{i}.jsonl", labelled(6000, i))
    code = (
        "import sys, rayft.cli\n"
        f"if __name__ == '__main__': rayft.cli.main(['prepare', {str(tmp_path / 'data')!r}, '--output', "
        f"{str(tmp_path / 'store')!r}, '--workers', '2', '-q'])\n"
    )
    script = tmp_path / "run.py"
    script.write_text(code)
    process = subprocess.Popen([sys.executable, str(script)], cwd=ROOT, start_new_session=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("store/_prepare/*/*/ids.npy")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    while members(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not members(process.pid)


def members(group: int) -> list[int]:
    """Return the living processes of a group, but for multiprocessing's own resource tracker."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.getpgid(int(entry.name)) == group and b"spawn_main" in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except (ProcessLookupError, FileNotFoundError):
                continue
    return found


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_drawn_splits(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 120))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    labels = rng.integers(-1, 3, n).astype(np.int32)
    hints = rng.choice(np.array(data.draw(st.sampled_from([[-1], [0], [0, 2], [-1, 1, 2]])), np.int8), n)
    original = np.where(rng.random(n) < 0.2, rng.integers(0, n, n), -1)
    original[original >= np.arange(n)] = -1
    original[np.isin(original, np.flatnonzero(original >= 0))] = -1
    size = st.one_of(st.none(), st.floats(0, 0.9), st.integers(1, 50))
    config = PrepareConfig(("x",), "y", validation=data.draw(size), test=data.draw(size), train=data.draw(size))
    splits = draw_splits(labels, hints, original, config)
    np.testing.assert_array_equal(splits, draw_splits(labels, hints, original, config))
    assert (splits[labels < 0] == -1).all()
    for code, name in enumerate(("train", "validation", "test")):
        own = hints == code
        if code and own.any():  # an own split gains no rows, and without a size loses none
            assert not ((splits == code) & ~own).any()
            if getattr(config, name) is None:
                assert (splits[own & (labels >= 0)] == code).all()
        asked = getattr(config, name)
        if asked is not None and asked >= 1:
            assert (splits == code).sum() <= asked
        if code and not own.any():  # nobody's duplicate is drawn
            assert (original[splits == code] < 0).all()


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real S3 protocol server with a bucket; yields its URI."""
    import boto3

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    patch = pytest.MonkeyPatch()
    url = f"http://127.0.0.1:{port}"
    for name, value in {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
                        "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1"}.items():  # fmt: skip
        patch.setenv(name, value)
    patch.setenv("RAYFT_CACHE", str(tmp_path_factory.mktemp("cache")))
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        client = boto3.client("s3", endpoint_url=url)
        deadline = time.monotonic() + 60
        while True:
            try:
                client.create_bucket(Bucket="stores")
                break
            except Exception:
                if time.monotonic() > deadline or server.poll() is not None:
                    raise
                time.sleep(0.2)
        yield "s3://stores"
    finally:
        server.terminate()
        server.wait()
        patch.undo()


def test_a_store_in_s3_is_cached_once(tmp_path: Path, s3: str) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", labelled(120))
    config = PrepareConfig((str(file),), f"{s3}/a", check_labels=0, workers=1)
    report = prepare(config)
    assert prepare(config)["already"]
    make(tmp_path, file)
    opened = TokenStore.open(f"{s3}/a")
    local = TokenStore.open(tmp_path / "store")
    assert opened.meta["files"] == local.meta["files"]
    assert report["splits"] == local.meta["splits"]
    opened.verify()
    train = opened.split("train")
    np.testing.assert_array_equal(train.ids, local.split("train").ids)
    cached = opened.file("train/ids.npy")
    written = cached.stat().st_mtime_ns
    again = TokenStore.open(f"{s3}/a")
    again.split("train")
    assert again.file("train/ids.npy").stat().st_mtime_ns == written
    # Another store under the same name is another cache.
    prepare(PrepareConfig((str(file),), f"{s3}/a", check_labels=0, workers=1, seed=7, overwrite=True))
    assert TokenStore.open(f"{s3}/a").file("train/ids.npy") != cached
    with pytest.raises(UsageError, match="is not a token store"):
        TokenStore.open(f"{s3}/nothing")


def test_sources_in_s3(tmp_path: Path, s3: str) -> None:
    from rayft.data.storage import locate

    file = write_jsonl(tmp_path / "train.jsonl", labelled(60))
    (locate(f"{s3}/raw/train.jsonl")).write_bytes(file.read_bytes())
    report = prepare(PrepareConfig((f"{s3}/raw",), str(tmp_path / "store"), check_labels=0, workers=1))
    assert sum(split_rows(report).values()) == 60
