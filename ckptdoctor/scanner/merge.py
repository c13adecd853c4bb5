"""Results files of shards, or of several scans, as one: the last line of a path counts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from ckptdoctor.model import CkptDoctorError
from ckptdoctor.scanner.result import ScanResult, parse_line, path_in_line
from ckptdoctor.scanner.resume import LineIndex, lines

T = TypeVar("T")


def merge(paths: Sequence[str]) -> Iterator[ScanResult]:
    """One result a checkpoint, in the order of the files and lines; a torn last line is left out.

    A path that stands in several files counts once: its line in the last of them. Memory: 16 bytes a line.

    Raises:
        CkptDoctorError: a file that cannot be read or is no results file.
    """
    descriptors: list[int] = []
    try:
        descriptors.extend(_open(path) for path in paths)
        latest = LineIndex()
        base = 0
        bases: list[int] = []
        for fd, path in zip(descriptors, paths, strict=True):
            bases.append(base)
            for number, (offset, line) in enumerate(lines(fd, path), 1):
                latest.put(_checked(path_in_line, path, number, line), base + offset)
            base += os.fstat(fd).st_size + 1
        for fd, path, start in zip(descriptors, paths, bases, strict=True):
            for number, (offset, line) in enumerate(lines(fd, path), 1):
                result = _checked(parse_line, path, number, line)
                if latest.get(result.path) == start + offset:
                    yield result
    finally:
        for fd in descriptors:
            os.close(fd)


def _open(path: str) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except OSError as error:
        raise CkptDoctorError(f"the results file {path} cannot be read: {error.strerror}; check its name") from None
    if not os.path.isfile(path):
        os.close(fd)
        raise CkptDoctorError(f"{path} is no regular file; merge needs files that `ckptdoctor scan` wrote")
    return fd


def _checked(read: Callable[[bytes], T], path: str, number: int, line: bytes) -> T:
    try:
        return read(line)
    except CkptDoctorError as error:
        raise CkptDoctorError(f"{path}, line {number}: {error}") from None
