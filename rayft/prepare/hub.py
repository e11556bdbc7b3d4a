"""Datasets of the Hugging Face Hub, read from their Parquet files through the real client."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from rayft.data.storage import locate
from rayft.errors import InputError, UsageError
from rayft.prepare.columns import Columns, find_columns
from rayft.prepare.config import PrepareConfig
from rayft.prepare.rows import Part, Source, split_of_path
from rayft.prepare.tables import parquet_rows, parquet_schema

if TYPE_CHECKING:
    from huggingface_hub.hf_api import DatasetInfo

#: Where the Hub keeps the Parquet version that it makes itself of datasets in other formats.
CONVERTED = "refs/convert/parquet"
_ID = re.compile(r"(?:hf://datasets/)?([A-Za-z0-9][\w.-]*(?:/[\w.-]+)?)")


@dataclass(frozen=True)
class Known:
    """Columns and class names of a dataset, by class number."""

    columns: Columns
    names: tuple[str, ...]
    escaped_newlines: bool = False


_POLARITY = Known(Columns("content", "title", "label", None), ("negative", "positive"), escaped_newlines=True)
_IMDB = Known(Columns("text", None, "label", None), ("negative", "positive"))
KNOWN = {
    "fancyzhx/amazon_polarity": _POLARITY,
    "amazon_polarity": _POLARITY,
    "stanfordnlp/imdb": _IMDB,
    "imdb": _IMDB,
}


def dataset_id(given: str) -> str | None:
    """Return the Hub id that `given` is the form of, or None."""
    match = _ID.fullmatch(given)
    return match[1] if match and (given.startswith("hf://") or "." not in given.rsplit("/", 1)[-1]) else None


def open_hub(given: str, config: PrepareConfig, endpoint: str | None = None) -> Source:
    """Return the Parquet files of a dataset as a source; they are fetched, once, when they are read.

    Args:
        endpoint: of the Hub; None is `HF_ENDPOINT` or huggingface.co.

    Raises:
        UsageError: there is no such dataset, it cannot be reached, holds no Parquet, or has several
            subsets and none was chosen.
    """
    name = dataset_id(given)
    assert name is not None
    info, revision = _find(name, config.revision, endpoint)
    files = _of_subset(name, [s.rfilename for s in info.siblings or [] if s.rfilename.endswith(".parquet")], config)
    if not files:
        raise UsageError(f"Dataset {name} holds no Parquet files, and the Hub has not converted it.")
    known = KNOWN.get(name)
    kind = f"Hub dataset, {len(files)} Parquet files at {str(info.sha)[:12]}" + (
        f" ({revision})" if revision == CONVERTED else ""
    )
    return Source(given, kind, [_part(name, file, str(info.sha), known, config, endpoint) for file in files])


def _find(name: str, revision: str | None, endpoint: str | None) -> tuple[DatasetInfo, str | None]:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    api = HfApi(endpoint=endpoint, library_name="rayft")
    try:
        info = api.dataset_info(name, revision=revision)
        if revision is not None or any(s.rfilename.endswith(".parquet") for s in info.siblings or []):
            return info, revision
        try:
            return api.dataset_info(name, revision=CONVERTED), CONVERTED
        except RevisionNotFoundError:
            return info, revision
    except GatedRepoError as error:
        raise UsageError(
            f"Dataset {name} is gated: accept its terms on the Hub, then `hf auth login` or set HF_TOKEN."
        ) from error
    except RevisionNotFoundError as error:
        raise UsageError(f"Dataset {name} has no revision '{revision}'.") from error
    except RepositoryNotFoundError as error:
        raise UsageError(
            f"There is no file or directory {name}, and no such dataset on the Hub (or it is private: set HF_TOKEN)."
        ) from error
    except Exception as error:  # the client raises its own errors, those of its HTTP library, and OSError
        raise UsageError(f"Cannot reach the Hub for dataset {name}: {_first_line(error)}") from error


def _of_subset(name: str, files: list[str], config: PrepareConfig) -> list[str]:
    """Keep the files of one subset: those below the folder of its name (`plain_text/train-….parquet`)."""
    subsets: dict[str, list[str]] = {}
    for file in files:
        subsets.setdefault(file.split("/", 1)[0] if "/" in file else "default", []).append(file)
    if config.subset is not None:
        if config.subset not in subsets:
            raise UsageError(f"Dataset {name} has no subset '{config.subset}'; it has: {', '.join(sorted(subsets))}.")
        return sorted(subsets[config.subset])
    if len(subsets) > 1:
        raise UsageError(f"Dataset {name} has several subsets: {', '.join(sorted(subsets))}. Choose with --subset.")
    return sorted(files)


def _part(name: str, file: str, sha: str, known: Known | None, config: PrepareConfig, endpoint: str | None) -> Part:
    def read() -> Iterator[pa.Table]:
        location = locate(_fetch(name, file, sha, endpoint))
        schema = parquet_schema(location)
        asked = (config.text_column, config.title_column, config.label_column, config.split_column)
        if known is not None and not any(asked) and not config.stars_negative:
            columns = known.columns
        else:
            columns = find_columns(schema, config, f"{name}/{file}")
        names = known.names if known is not None and columns.label == known.columns.label else None
        split = split_of_path(file)
        for table in parquet_rows(location, columns, names, known is not None and known.escaped_newlines):
            if columns.split is None:
                table = table.set_column(3, "split", pa.array([split] * table.num_rows, pa.string()))
            yield table

    return Part(f"{name}/{file}", f"{name}@{sha}/{file}", read)


def _fetch(name: str, file: str, sha: str, endpoint: str | None) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, file, repo_type="dataset", revision=sha, endpoint=endpoint))
    except Exception as error:
        raise InputError(f"Cannot fetch {file} of dataset {name}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
