"""`rayft prepare` from sources to a finished store, and the same survey without a store for `rayft profile`."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
from tokenizers import Tokenizer

from rayft.data.arrays import FileDigest
from rayft.data.storage import Location, locate
from rayft.data.store import FORMAT, VERSION, cache_folder, vocabulary_hash
from rayft.errors import StoppedError, UsageError
from rayft.model.checkpoint import find_checkpoint
from rayft.prepare.config import PrepareConfig
from rayft.prepare.duplicates import word_ids
from rayft.prepare.labels import LabelRule
from rayft.prepare.plan import Plan, make_plan
from rayft.prepare.profile import find_suspects, make_profile
from rayft.prepare.profile_html import profile_page
from rayft.prepare.recognise import open_source
from rayft.prepare.rows import SPLITS, Source
from rayft.prepare.shards import Shard, ShardSettings, make_shards
from rayft.prepare.write import samples, write_splits, write_table
from rayft.score.lock import writing
from rayft.text.clean import JOIN_FORMAT

#: Raised when the same sources and settings begin to give other shards.
SHARD_VERSION = 1

_NAMES = {*SPLITS, "store.json", "tokenizer.json", "samples.parquet", "profile.json", "profile.html", "_prepare"}


class Progress(Protocol):
    """What a run tells while it works."""

    def say(self, message: str) -> None:
        """Show a line."""

    def shard(self, marker: dict[str, Any], before: bool) -> None:
        """Count a finished shard; `before`: an earlier run had made it."""


class Silent:
    """Tells nothing."""

    def say(self, message: str) -> None:
        pass

    def shard(self, marker: dict[str, Any], before: bool) -> None:
        pass


@dataclass(frozen=True)
class Survey:
    """Sources that have been read: what they hold and what is to become of it."""

    sources: list[Source]
    tokenizer_file: Path
    tokenizer: Tokenizer
    shards: list[Shard]
    plan: Plan

    def samples(self) -> pa.Table:
        return samples(self.shards, self.plan)


def prepare(config: PrepareConfig, progress: Progress | None = None) -> dict[str, Any]:
    """Make the token store of `config` and return a report; a finished one of the same content is left as it is.

    Raises:
        UsageError: a source or setting is wrong, or the output holds something else.
        StoppedError: the disk is full, or another process writes the store; the same command resumes.
    """
    progress = progress or Silent()
    started = time.monotonic()
    sources, tokenizer_file, tokenizer = _open(config, progress)
    output = locate(config.output)
    key = _fingerprint(config, sources, tokenizer)
    if (found := _finished(output)) is not None:
        if found["fingerprint"] == key:
            return {**found, "output": config.output, "already": True}
        if not config.overwrite:
            raise UsageError(f"{output} holds a store of other sources or settings. Replace it with --overwrite.")
    _check_folder(output, found is not None)
    with writing(output / "_prepare" / "lock", progress.say):
        if found is not None:
            (output / "store.json").remove()
        work = _work_folder(config, output, key)
        try:
            with _disk_space(work):
                survey = _survey(config, sources, tokenizer_file, tokenizer, work, progress)
                encoded = time.monotonic()
                meta = _write(output, config, survey, key, progress)
        except UsageError:  # the same command would fail again, so its work is of no use
            _clear(output, work)
            raise
        _clear(output, work)
    seconds = time.monotonic() - started
    tokens = sum(split["tokens"] for split in meta["splits"].values())
    return {
        **meta,
        "output": config.output,
        "already": False,
        "seconds": round(seconds, 3),
        "seconds_reading": round(encoded - started, 3),
        "tokens_per_second": round(tokens / max(1e-9, seconds)),
        "bytes": sum(file["bytes"] for file in meta["files"].values()),
    }


def survey_sources(config: PrepareConfig, folder: Path, progress: Progress | None = None) -> Survey:
    """Read sources as `prepare` does, into `folder`, without writing a store."""
    progress = progress or Silent()
    return _survey(config, *_open(config, progress), folder, progress)


def _open(config: PrepareConfig, progress: Progress) -> tuple[list[Source], Path, Tokenizer]:
    directory = find_checkpoint(config.base)
    tokenizer_file = directory / "tokenizer.json"
    if not tokenizer_file.is_file():
        raise UsageError(f"--base {config.base} has no tokenizer.json; save it with a fast tokeniser.")
    sources = [open_source(given, config) for given in config.sources]
    for source in sources:
        progress.say(f"{source.name}: {source.kind}")
    return sources, tokenizer_file, Tokenizer.from_file(str(tokenizer_file))


def _fingerprint(config: PrepareConfig, sources: Sequence[Source], tokenizer: Tokenizer) -> str:
    content = [
        SHARD_VERSION,
        config.content,
        [[part.identity for part in source.parts] for source in sources],
        hashlib.sha256(tokenizer.to_str().encode()).hexdigest(),
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _finished(output: Location) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads((output / "store.json").read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    if found.get("format") != FORMAT:
        raise UsageError(f"{output}/store.json was not written by rayft. Choose another --output.")
    return found


def _check_folder(output: Location, is_store: bool) -> None:
    """Refuse a folder that holds anything that is not of a store: folders named `train` are replaced in it."""
    if output.is_file():
        raise UsageError(f"{output} is a file; --output is a folder.")
    names = {info.base_name for info in output.listing()}
    ours = is_store or "_prepare" in names or not output.is_local
    if others := sorted(names - _NAMES if ours else names):
        raise UsageError(f"{output} holds other files ({', '.join(others[:5])}). Choose a new folder for --output.")


def _clear(output: Location, work: Path) -> None:
    shutil.rmtree(work, ignore_errors=True)
    if output.is_local:
        shutil.rmtree((output / "_prepare").path, ignore_errors=True)
        with contextlib.suppress(OSError):
            Path(output.path).rmdir()  # only if nothing is in it


def _work_folder(config: PrepareConfig, output: Location, key: str) -> Path:
    """Return the folder of unfinished work for these sources and settings; refuse or drop that of others."""
    if config.work_dir is not None:
        parent = Path(config.work_dir).expanduser()
    elif output.is_local:
        parent = Path((output / "_prepare").path)
    else:
        parent = cache_folder() / "prepare"
    if output.is_local and config.work_dir is None:
        others = [p for p in parent.iterdir() if p.is_dir() and p.name != key] if parent.is_dir() else []
        if others and not config.overwrite:
            raise UsageError(
                f"{output} holds unfinished work for other sources or settings. Give those again to go on, "
                "or drop it with --overwrite."
            )
        for other in others:
            shutil.rmtree(other)
    folder = parent / key
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _survey(
    config: PrepareConfig,
    sources: list[Source],
    tokenizer_file: Path,
    tokenizer: Tokenizer,
    folder: Path,
    progress: Progress,
) -> Survey:
    settings = ShardSettings(
        tokenizer_file=str(tokenizer_file),
        max_length=config.max_length,
        truncation=config.truncation,
        wide=tokenizer.get_vocab_size(with_added_tokens=True) > 1 << 16,
        rule=LabelRule(config.labels, config.stars_negative, config.stars_positive),
    )
    workers = config.workers or os.cpu_count() or 1
    shards = make_shards(sources, settings, folder, workers, progress.shard)
    progress.say("Looking for duplicates and drawing the splits.")
    if not shards:
        raise UsageError("The sources hold no rows.")
    plan = make_plan(shards, word_ids(tokenizer), config, folder)
    if not (plan.splits >= 0).any():
        raise UsageError("No rows are left for any split; see --train, --validation and --test.")
    return Survey(sources, tokenizer_file, tokenizer, shards, plan)


def _write(output: Location, config: PrepareConfig, survey: Survey, key: str, progress: Progress) -> dict[str, Any]:
    progress.say(f"Writing {output}.")
    plan, tokenizer = survey.plan, survey.tokenizer
    for stale in SPLITS:
        (output / stale).remove()
    splits, files = write_splits(output, survey.shards, plan)
    text = survey.tokenizer_file.read_bytes()
    (output / "tokenizer.json").write_bytes(text)
    files["tokenizer.json"] = asdict(FileDigest(len(text), hashlib.sha256(text).hexdigest()))
    sampled = survey.samples()
    files["samples.parquet"] = asdict(write_table(output / "samples.parquet", sampled))
    profile = make_profile(plan, sampled, [(s.name, s.kind) for s in survey.sources], config)
    if config.check_labels:
        progress.say("Looking for doubtful labels in a sample.")
        profile["suspects"] = find_suspects(sampled, config.check_labels)
    (output / "profile.json").write_bytes(json.dumps(profile, indent=1, ensure_ascii=False).encode())
    (output / "profile.html").write_bytes(profile_page(profile, output.name).encode())
    meta = {
        "format": FORMAT,
        "version": VERSION,
        "fingerprint": key,
        "labels": list(plan.classes),
        "max_length": config.max_length,
        "truncation": config.truncation,
        "join_format": JOIN_FORMAT,
        "pad_id": _pad_id(tokenizer),
        "vocabulary": {
            "sha256": vocabulary_hash(tokenizer),
            "size": tokenizer.get_vocab_size(with_added_tokens=True),
            "base": config.base or "bundled",
        },
        "sources": [{"name": s.name, "kind": s.kind} for s in survey.sources],
        "settings": config.content,
        "statistics": {"read": plan.read, "dropped": plan.dropped, "duplicates": plan.duplicates},
        "splits": splits,
        "files": files,
    }
    (output / "store.json").write_bytes(json.dumps(meta, indent=1, ensure_ascii=False).encode())
    return meta


def _pad_id(tokenizer: Tokenizer) -> int:
    """Return the id of the padding token, or 0; the attention mask hides it anyway."""
    found = (tokenizer.token_to_id(name) for name in ("[PAD]", "<pad>"))
    return next((int(number) for number in found if number is not None), 0)


@contextlib.contextmanager
def _disk_space(work: Path) -> Iterator[None]:
    """Say where the space is missing if a memory-mapped or temporary file cannot grow."""
    try:
        yield
    except OSError as error:
        if "No space left" in str(error):
            raise StoppedError(f"No space left below {work}. Make room and run the same command again.") from error
        raise


def profile_sources(config: PrepareConfig, progress: Progress | None = None) -> tuple[dict[str, Any], pa.Table]:
    """Return the profile of sources and the sampled rows; nothing is kept on disk.

    Raises:
        UsageError: as `prepare`.
    """
    with tempfile.TemporaryDirectory(prefix="rayft-profile-") as folder:
        survey = survey_sources(replace(config, output=folder), Path(folder), progress)
        sampled = survey.samples()
        described = [(source.name, source.kind) for source in survey.sources]
        return make_profile(survey.plan, sampled, described, config), sampled
