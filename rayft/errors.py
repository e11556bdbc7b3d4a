"""The errors that rayft raises on purpose, each with the exit code of the command that meets it.

Exit codes: 0 done; 1 some inputs failed, the rest is complete; 2 wrong usage, refused before any
work; 3 stopped, the same command resumes; 70 a bug in rayft; 130 interrupted.
"""

from __future__ import annotations


class RayftError(Exception):
    """Something went wrong that the message explains; no traceback is shown."""

    exit_code = 70


class UsageError(RayftError):
    """The request cannot be carried out as given. Nothing was done."""

    exit_code = 2


class InputError(RayftError):
    """One input cannot be read or has changed. The others are not affected."""

    exit_code = 1


class StoppedError(RayftError):
    """The run stopped (disk full, lock held, cluster lost). The same command resumes it."""

    exit_code = 3


def nearest(name: str, known: list[str]) -> str:
    """Return a hint such as ` Did you mean 'text'?` if one of `known` is close to `name`."""
    import difflib

    matches = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean '{matches[0]}'?" if matches else ""
