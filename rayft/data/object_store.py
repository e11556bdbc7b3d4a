"""Object stores through pyarrow: addresses as people type them, retries, and uploads that cannot be cut short.

Three things that pyarrow leaves to its caller:

- `FileSystem.from_uri` takes URIs only: a space, a bracket or a `#` in a key is an error or is lost.
- A filesystem made from a URI repeats only requests that could not be connected; a store answers 503 whenever
  it is asked too much.
- An output stream completes its upload when it is closed *or forgotten*, after an exception as well: half an
  object appears under the final name.
"""

from __future__ import annotations

import ctypes
import logging
import random
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, TypeVar

import pyarrow as pa
from pyarrow import fs

from rayft.errors import InputError, RayftError, StoppedError, UsageError

T = TypeVar("T")

#: Whole operations are tried that often, on top of the repeated requests within one.
ATTEMPTS = 4
#: Seconds before the second attempt; twice as long before each further one, half to one and a half of it.
FIRST_WAIT = 1.0

_REQUEST_ATTEMPTS = 4
_TIMEOUTS = {"connect_timeout": 5.0, "request_timeout": 20.0}
_CHUNK_BYTES = 8 << 20
_FLUSH_BYTES = 64 << 20
_URI = re.compile(r"(?P<scheme>[A-Za-z0-9]+)://(?P<authority>[^/?]*)/*(?P<key>.*)", re.DOTALL)
#: Options of pyarrow's filesystems that an address may end with; any other `?` is part of a glob.
_OPTIONS = (
    "allow_bucket_creation|allow_bucket_deletion|allow_delayed_open|anonymous|client_id|client_secret|"
    "default_bucket_location|enable_tls|endpoint_override|project_id|region|retry_limit_seconds|scheme|tenant_id|"
    "blob_storage_authority|blob_storage_scheme|dfs_storage_authority|dfs_storage_scheme|credential_kind|account_key"
)
_QUERY = re.compile(rf"\?((?:{_OPTIONS})=[^&]*(?:&(?:{_OPTIONS})=[^&]*)*)$")

_AWS_ERROR = re.compile(r"AWS Error (?P<name>\w+)(?: \(HTTP status (?P<status>\d+)\))? during (?P<operation>\w+)")
_DENIED = re.compile(
    r"ACCESS_DENIED|INVALID_ACCESS_KEY|SIGNATURE|INVALID_CLIENT_TOKEN|UNRECOGNIZED_CLIENT|MISSING_AUTHENTICATION|"
    r"NOT_AUTHORIZED|UNAUTHENTICATED|PERMISSION_DENIED|AuthenticationFailed|AuthorizationFailure"
)
_EXPIRED = re.compile(r"EXPIRED")
_PERMANENT = re.compile(
    r"NO_SUCH_BUCKET|NO_SUCH_KEY|NOT_FOUND|INVALID_|MALFORMED|VALIDATION|MOVED|TIME_TOO_SKEWED",
)
_TRANSIENT_ELSEWHERE = re.compile(
    r"\b(?:408|429|500|502|503|504)\b|UNAVAILABLE|DEADLINE_EXCEEDED|timed? ?out|ServerBusy|"
    r"connection (?:reset|refused|closed)|InternalError",
    re.IGNORECASE,
)

_log = logging.getLogger(__name__)


def connect(address: str) -> tuple[fs.FileSystem, str, str]:
    """Return the filesystem of `address`, the path on it, and the prefix that makes a path an address again.

    What follows the bucket is the key as it is, without percent-encoding, as in the stores' own tools. Options
    of pyarrow may follow, e.g. `?endpoint_override=localhost:9000&scheme=http`; for S3 the environment does as
    well: AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, and the usual AWS_ variables.

    Raises:
        UsageError: the address cannot be used.
    """
    query = _QUERY.search(address)
    match = _URI.fullmatch(address[: query.start()] if query else address)
    if match is None or not match["authority"]:
        raise UsageError(f"{without_secrets(address)} names no bucket. Write it as s3://BUCKET/PATH.")
    options = f"?{query[1]}" if query else ""
    try:
        filesystem, root = fs.FileSystem.from_uri(f"{match['scheme']}://{match['authority']}{options}")
    except (ValueError, OSError, NotImplementedError) as error:
        raise UsageError(
            f"Cannot use {without_secrets(address)}: {first_line(error)}. Known: paths, s3://, gs://, abfs://."
        ) from error
    # pyarrow cannot name a key with two slashes in a row.
    path = "/".join(part for part in f"{root}/{match['key']}".split("/") if part)
    return _patient(filesystem), path, f"{match['scheme']}://"


def without_secrets(address: str) -> str:
    """Return an address without the access keys that it may hold."""
    return re.sub(r"(secret|account_key)=[^&]*", r"\1=...", re.sub(r"//[^/@]*:[^/@]*@", "//", address))


def _patient(filesystem: fs.FileSystem) -> fs.FileSystem:
    """Return the same S3 filesystem with retries that a URI cannot ask for, and small files sent in one request."""
    if filesystem.type_name != "s3":
        return filesystem
    _, (options,) = filesystem.__reduce__()
    retries = fs.AwsStandardS3RetryStrategy(max_attempts=_REQUEST_ATTEMPTS)
    own = {"retry_strategy": retries, "allow_delayed_open": True}
    for name, seconds in _TIMEOUTS.items():
        if options[name] <= 0:  # not chosen: 1 and 3 seconds, which a busy machine or a far store exceeds
            own[name] = seconds
    return fs.S3FileSystem(**{**options, **own})


def retrying(name: str, act: Callable[[], T]) -> T:
    """Return what `act` returns, trying again while the store is busy or out of reach.

    `act` is a whole operation that may be repeated; an InputError that a busy store caused counts as such.

    Raises:
        StoppedError: the store is still busy after the last attempt, or the access has expired.
        OSError, InputError: as raised by `act`, if trying again is of no use.
    """
    attempt = 0
    while True:
        try:
            return act()
        except (OSError, InputError) as error:
            wait_or_raise(name, error, attempt)
            attempt += 1


def wait_or_raise(name: str, error: OSError | InputError, attempt: int) -> None:
    """Sleep until it is time to repeat what failed with `error`, or raise if that is of no use.

    Args:
        attempt: the number of the one that failed, from 0.

    Raises:
        StoppedError: as `retrying` does.
        OSError, InputError: `error` itself, if the store was not the cause.
    """
    cause = error if isinstance(error, OSError) else error.__cause__
    if not isinstance(cause, OSError) or not is_transient(cause):
        raise error
    if _EXPIRED.search(str(cause)):
        raise StoppedError(
            f"The access to {name} has expired ({summary(cause)}). Renew it and run the same command again; it resumes."
        ) from error
    if attempt + 1 >= ATTEMPTS:
        raise StoppedError(
            f"The object store does not answer for {name} ({summary(cause)}). "
            "Run the same command again when it does; it resumes."
        ) from error
    _log.info("Trying again: %s: %s", name, summary(cause))
    time.sleep(FIRST_WAIT * 2**attempt * random.uniform(0.5, 1.5))


def is_transient(error: OSError) -> bool:
    """Tell whether the same operation may succeed later (expired access included, which a person can renew)."""
    if isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)):
        return False
    text = str(error)
    aws = _AWS_ERROR.search(text)
    if aws is None:
        return bool(_TRANSIENT_ELSEWHERE.search(text)) and not _DENIED.search(text)
    if _EXPIRED.search(aws["name"]):
        return True
    if _DENIED.search(aws["name"]) or _PERMANENT.search(aws["name"]):
        return False
    status = int(aws["status"] or 500)
    return status >= 500 or status in (408, 429)


def refusal(name: str, error: OSError) -> RayftError:
    """Return the error for a person when a store refuses for good."""
    text = str(error)
    if "NO_SUCH_BUCKET" in text or re.search(r"Bucket '.*' not found", text):
        bucket = name.split("://", 1)[-1].split("/")[0]
        return UsageError(f"There is no bucket '{bucket}' for {name}. Create it first.")
    if _DENIED.search(text) or isinstance(error, PermissionError):
        return UsageError(
            f"Access to {name} is denied ({summary(error)}). Check the credentials "
            "(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_PROFILE for s3://) and what they may do."
        )
    return UsageError(f"Cannot use {name}: {summary(error)}.")


def summary(error: BaseException) -> str:
    """Return the part of an error that tells one from another: `ACCESS_DENIED during HeadObject`."""
    aws = _AWS_ERROR.search(str(error))
    if aws is None:
        return first_line(error)
    status = f" (HTTP {aws['status']})" if aws["status"] else ""
    return f"{aws['name']}{status} during {aws['operation']}"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__


def upload(filesystem: fs.FileSystem, path: str, name: str, data: BinaryIO) -> None:
    """Store all of `data` as one object, which appears when it is complete, or not at all.

    The work is done in a thread of its own: there is no moment at which Ctrl-C could end it halfway.
    """

    def send() -> None:
        data.seek(0)
        stream = filesystem.open_output_stream(path, compression=None)
        try:
            unflushed = 0
            while chunk := data.read(_CHUNK_BYTES):
                stream.write(chunk)
                unflushed += len(chunk)
                if unflushed >= _FLUSH_BYTES:  # without it the rest of a huge file would wait in memory
                    stream.flush()
                    unflushed = 0
            stream.close()
        except BaseException:
            _abandon(stream)
            raise

    with ThreadPoolExecutor(1, thread_name_prefix="rayft-upload") as pool:
        pool.submit(retrying, name, send).result()


def _abandon(stream: pa.NativeFile) -> None:
    """See that a failed upload is never completed, which the end of its stream's life would do.

    pyarrow has no way to abort. What was sent stays with the store as an unfinished multipart upload,
    as after a kill; a rule of the bucket for these removes it.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(stream))
