"""What is known about the terminal, and the line of progress on it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from typing import TextIO


def wants_color(asked: bool | None, stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether to colour: as asked, else on a terminal where neither NO_COLOR nor TERM=dumb says otherwise."""
    if asked is not None:
        return asked
    return not environment.get("NO_COLOR") and environment.get("TERM") != "dumb" and stream.isatty()


def width(stream: TextIO) -> int | None:
    """Columns of the terminal (or of COLUMNS), at most 100 for the reader's sake; None where there is no terminal."""
    if "COLUMNS" in os.environ or stream.isatty():
        return min(shutil.get_terminal_size((80, 24)).columns, 100)
    return None


class Progress:
    """One line on standard error that is replaced by the next; silent where standard error is no terminal."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._active = self._stream.isatty()
        self._shown = False

    def __call__(self, message: str) -> None:
        """Show what is being done."""
        if self._active:
            from ckptdoctor.report.escape import line

            room = shutil.get_terminal_size((80, 24)).columns - 1
            self._stream.write(f"\r\x1b[2K{line(message)[:room]}")
            self._stream.flush()
            self._shown = True

    def clear(self) -> None:
        """Leave the line empty for what follows."""
        if self._shown:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()
            self._shown = False
