"""A model on disk: a plain Hugging Face directory of a sequence classifier."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rayft.errors import UsageError
from rayft.text.clean import JOIN_FORMAT
from rayft.text.encode import Encoder, Truncation

BUNDLED = Path(__file__).parent / "bundled"

_NEGATIVE_NAMES = ("negative", "neg")
_FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class Checkpoint:
    """What scoring needs to know of a model, read without loading its weights.

    Attributes:
        labels: class names by class number, from `id2label`.
        join_format, max_length, truncation: the layout that the model was trained on.
        digest: of weights and tokeniser; equal digests give equal scores.
    """

    directory: Path
    name: str
    config: dict[str, Any]
    labels: tuple[str, ...]
    join_format: str
    max_length: int
    truncation: Truncation
    digest: str

    def encoder(self, max_length: int | None = None) -> Encoder:
        return Encoder.from_directory(self.directory, max_length or self.max_length, self.truncation)

    def negative_index(self, name: str | None) -> int | None:
        """Return the class number of the negative label, or None if none is recognised.

        Raises:
            UsageError: `name` is given and is not a label of this model.
        """
        if name is not None:
            if name not in self.labels:
                raise UsageError(
                    f"Model {self.name} has no label '{name}'; it has: {', '.join(self.labels)}. "
                    "Choose one with --negative-label."
                )
            return self.labels.index(name)
        for number, label in enumerate(self.labels):
            if label.lower() in _NEGATIVE_NAMES:
                return number
        return None


def find_checkpoint(model: str | None) -> Path:
    """Return the directory of `model`: None or `bundled`, a directory, or a Hub id that is fetched.

    Only safetensors and plain-text files are fetched; code and pickles never are.

    Raises:
        UsageError: there is no such model, or the Hub cannot be reached.
    """
    if model is None or model == "bundled":
        return BUNDLED
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise UsageError(f"--model {model} is a file; give the directory that holds config.json.")
    if not _HUB_ID.fullmatch(model) or model.startswith("."):
        raise UsageError(f"There is no model directory {model}.")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, allow_patterns=list(_FILES)))
    except Exception as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise UsageError(
            f"Cannot fetch model '{model}' from the Hub, and no directory has that name: {reason}"
        ) from error


def load_checkpoint(model: str | None, truncation: str | None = None) -> Checkpoint:
    """Find and describe a model.

    Args:
        truncation: `head` or `head+tail` in place of what the checkpoint says.

    Raises:
        UsageError: it is not a sequence classifier that rayft can load safely; says why.
    """
    directory = find_checkpoint(model)
    name = "bundled" if directory == BUNDLED else str(model)
    config = _read_config(directory, name)
    if "auto_map" in config:
        raise UsageError(f"Model {name} brings its own code (auto_map in config.json), which rayft does not run.")
    architectures = config.get("architectures") or []
    if architectures and not any("SequenceClassification" in a for a in architectures):
        raise UsageError(
            f"Model {name} is a {', '.join(architectures)}, not a sequence classifier. "
            "Fine-tune it first: rayft train --base."
        )
    weights = sorted(directory.glob("*.safetensors"))
    if not weights:
        pickles = sorted(p.name for p in directory.glob("*.bin"))
        more = f" {', '.join(pickles)} is a pickle, which can run code; convert it to safetensors." if pickles else ""
        raise UsageError(f"Model {name} has no *.safetensors weights in {directory}.{more}")
    tokenizer = directory / "tokenizer.json"
    if not tokenizer.is_file():
        raise UsageError(f"Model {name} has no tokenizer.json; save it with a fast tokeniser.")
    own = config.get("rayft", {})
    return Checkpoint(
        directory=directory,
        name=name,
        config=config,
        labels=_labels(config, name),
        join_format=own.get("join_format", JOIN_FORMAT),
        max_length=min(own.get("max_length", 256), config.get("max_position_embeddings", 512)),
        truncation=_truncation(truncation or own.get("truncation", "head"), name),
        digest=_digest([*weights, tokenizer, directory / "config.json"]),
    )


def _truncation(value: str, name: str) -> Truncation:
    if value == "head":
        return "head"
    if value == "head+tail":
        return "head+tail"
    raise UsageError(f"Model {name} asks for truncation '{value}'; rayft knows head and head+tail.")


def _read_config(directory: Path, name: str) -> dict[str, Any]:
    try:
        config = json.loads((directory / "config.json").read_text("utf-8"))
    except FileNotFoundError:
        raise UsageError(f"Model {name} has no config.json in {directory}: not a Hugging Face checkpoint.") from None
    except (ValueError, OSError) as error:
        raise UsageError(f"Cannot read {directory / 'config.json'}: {error}") from error
    if not isinstance(config, dict):
        raise UsageError(f"{directory / 'config.json'} does not hold a configuration.")
    return config


def _labels(config: dict[str, Any], name: str) -> tuple[str, ...]:
    id2label = config.get("id2label") or {str(i): f"LABEL_{i}" for i in range(config.get("num_labels", 2))}
    try:
        return tuple(str(id2label[key]) for key in sorted(id2label, key=int))
    except (ValueError, TypeError) as error:
        raise UsageError(f"Model {name}: id2label in config.json does not name labels by class number.") from error


def _digest(files: list[Path]) -> str:
    sha = hashlib.sha256()
    for file in files:
        sha.update(file.name.encode())
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                sha.update(chunk)
    return sha.hexdigest()[:16]
