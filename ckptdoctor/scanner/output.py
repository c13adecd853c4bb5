"""Where a scan's output goes: standard output as it comes, files whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO

from ckptdoctor.model import CkptDoctorError
from ckptdoctor.report.writing import OutputError, check_target
from ckptdoctor.scanner.render import SUFFIXES, Renderer, Totals, renderer
from ckptdoctor.scanner.result import ScanResult
from ckptdoctor.scanner.runs import RunSummary


@dataclass(frozen=True, slots=True)
class Target:
    """One output: a format, and a file or (None) standard output."""

    format: str
    path: str | None


def targets(format_: str | None, outputs: Sequence[str]) -> tuple[Target, ...]:
    """What to write where.

    Without a format the table goes to standard output, and each output has the format of its suffix. With a format it
    goes to standard output, or to the only output.

    Raises:
        CkptDoctorError: a suffix that tells no format, several outputs for one format, a target that cannot be written.
    """
    files = [path for path in outputs if path != "-"]
    for path in files:
        check_target(path)
    if format_ is not None:
        if len(outputs) > 1:
            raise CkptDoctorError(
                "--format with several -o makes no sense; leave --format out, suffixes tell the formats"
            )
        return (Target(format_, files[0] if files else None),)
    found = []
    for path in files:
        suffix = os.path.splitext(path)[1].lower()
        if suffix not in SUFFIXES:
            known = ", ".join(SUFFIXES)
            raise CkptDoctorError(f"the suffix of '{path}' tells no format; use one of {known}, or --format")
        found.append(Target(SUFFIXES[suffix], path))
    return (Target("table", None), *found)


class FileOutput:
    """A file that is written beside its name and takes it when it is complete."""

    def __init__(self, path: str) -> None:
        self.path = path
        folder = os.path.dirname(path) or "."
        try:
            handle, self._beside = tempfile.mkstemp(dir=folder, prefix=".ckptdoctor-", suffix=".tmp")
        except OSError as error:
            raise OutputError(f"cannot write into '{folder}': {error.strerror}; name another place with -o") from None
        self._file: IO[str] = os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace", newline="\n")

    def write(self, text: str) -> None:
        """Add text."""
        try:
            self._file.write(text)
        except OSError as error:
            raise OutputError(
                f"cannot write '{self.path}': {error.strerror}; free some space or name another place"
            ) from None

    def commit(self) -> None:
        """Give it its name."""
        mask = os.umask(0)
        os.umask(mask)
        try:
            self._file.close()
            os.chmod(self._beside, 0o666 & ~mask)
            os.replace(self._beside, self.path)
        except OSError as error:
            raise OutputError(
                f"cannot write '{self.path}': {error.strerror}; free some space or name another place"
            ) from None

    def discard(self) -> None:
        """Leave nothing behind, unless it was committed."""
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            os.unlink(self._beside)


class Outputs:
    """All outputs of one scan, fed together."""

    def __init__(
        self, wanted: Sequence[Target], stdout: Callable[[str], None], *, width: int | None = None, color: bool = False
    ) -> None:
        self._files: list[FileOutput] = []
        self._renderers: list[Renderer] = []
        try:
            for target in wanted:
                if target.path is None:
                    self._renderers.append(renderer(target.format, stdout, width=width, color=color))
                    continue
                file = FileOutput(target.path)
                self._files.append(file)
                folder = os.path.dirname(os.path.abspath(target.path))
                self._renderers.append(renderer(target.format, file.write, beside=folder))
        except BaseException:
            self.discard()
            raise

    @property
    def paths(self) -> tuple[str, ...]:
        """The files."""
        return tuple(file.path for file in self._files)

    def event(self, event: ScanResult | RunSummary) -> None:
        """Tell every renderer."""
        for one in self._renderers:
            if isinstance(event, ScanResult):
                one.result(event)
            else:
                one.run(event)

    def finish(self, totals: Totals) -> None:
        """Complete every output."""
        for one in self._renderers:
            one.finish(totals)
        for file in self._files:
            file.commit()

    def discard(self) -> None:
        """Drop the files that are not complete."""
        for file in self._files:
            file.discard()
