"""Patterns for paths, and points in time, as a command line spells them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from ckptdoctor.model import CkptDoctorError

_MAGIC = re.compile(r"[*?\[]")


def has_magic(text: str) -> bool:
    """Whether a path holds a wildcard."""
    return _MAGIC.search(text) is not None


@lru_cache(maxsize=256)
def compile_pattern(pattern: str) -> re.Pattern[str]:
    """A wildcard pattern as a regular expression for a whole path.

    `*` and `?` stay within one component, `**` spans components, `[a-z]` and `[!a-z]` are sets.

    Raises:
        CkptDoctorError: a set that is not one (`[z-a]`).
    """
    out, i = "", 0
    while i < len(pattern):
        if pattern.startswith("**/", i):
            out, i = out + "(?:[^/]+/)*", i + 3
        elif pattern.startswith("**", i):
            out, i = out + ".*", i + 2
        elif pattern[i] == "*":
            out, i = out + "[^/]*", i + 1
        elif pattern[i] == "?":
            out, i = out + "[^/]", i + 1
        elif pattern[i] == "[" and (end := pattern.find("]", i + 2)) > 0:
            inside = pattern[i + 1 : end].replace("\\", "\\\\").replace("[", "\\[")
            out, i = out + f"[{'^' + inside[1:] if inside[0] in '!^' else inside}]", end + 1
        else:
            out, i = out + re.escape(pattern[i]), i + 1
    try:
        return re.compile(out, re.DOTALL)
    except re.error as error:
        raise CkptDoctorError(f"'{pattern}' is not a pattern: {error}; write wildcards as *, ?, ** or [a-z]") from None


def matches(pattern: str, path: str, name: str) -> bool:
    """Whether a pattern names a path: without a slash it is about the last component, with one about the path's end."""
    pattern = pattern.rstrip("/")
    if "/" not in pattern:
        return compile_pattern(pattern).fullmatch(name) is not None
    if pattern.startswith("/") or "://" in pattern:
        return compile_pattern(pattern).fullmatch(path) is not None
    return compile_pattern("**/" + pattern).fullmatch(path.lstrip("/")) is not None


def split_root(pattern: str) -> tuple[str, int | None]:
    """The directory that a wildcard path starts from, and how many components deep it reaches (None: any depth)."""
    head, sep, tail = pattern, "", ""
    if "://" in pattern:
        scheme, _, rest = pattern.partition("://")
        head, sep, tail = scheme, "://", rest
    else:
        head, tail = "", pattern
    parts = tail.split("/")
    first = next(i for i, part in enumerate(parts) if has_magic(part))
    root = head + sep + "/".join(parts[:first])
    if not root and pattern.startswith("/"):
        root = "/"
    depth = None if any("**" in part for part in parts[first:]) else len(parts) - first
    return root or ".", depth


_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*(m|min|h|d|w)", re.IGNORECASE)
_UNITS = {"m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}


def parse_since(text: str, now: datetime | None = None) -> float:
    """A point in time as seconds since the epoch: `2026-03-01`, `2026-03-01T12:00`, or an age: `90min`, `12h`, `7d`.

    Dates without a zone are local time.

    Raises:
        CkptDoctorError: neither.
    """
    now = now or datetime.now(tz=UTC)
    if age := _AGE.fullmatch(text.strip()):
        return (now - timedelta(seconds=float(age[1]) * _UNITS[age[2].lower()])).timestamp()
    try:
        return datetime.fromisoformat(text.strip()).astimezone().timestamp()
    except (ValueError, OverflowError, OSError):
        raise CkptDoctorError(
            f"--since expects a date (2026-03-01, 2026-03-01T12:00) or an age (90min, 12h, 7d), not '{text}'"
        ) from None


def parse_shard(text: str) -> tuple[int, int]:
    """`i/n`, counted from 1: the i-th of n shares.

    Raises:
        CkptDoctorError: not of that form, or i outside 1…n.
    """
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
    index, count = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= index <= count:
        raise CkptDoctorError(f"--shard expects i/n with 1 <= i <= n, for example 3/16, not '{text}'")
    return index, count
