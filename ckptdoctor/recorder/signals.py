"""SIGTERM and Ctrl-C: write what was kept, then let happen what would have happened without the recorder."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


class SignalGuard:
    """While armed, calls `react(name)` on SIGTERM and SIGINT, then the handler that was there before.

    A signal that arrives while `busy()` holds waits until `release()`. Only the main thread can install handlers;
    elsewhere arming does nothing.
    """

    def __init__(self, react: Callable[[str], None], busy: Callable[[], bool]) -> None:
        self._react = react
        self._busy = busy
        self._previous: dict[signal.Signals, Any] = {}
        self._waiting: list[signal.Signals] = []

    def arm(self) -> None:
        """Install the handlers."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            previous = signal.getsignal(number)
            if previous is None:  # installed from C: it could not be put back
                continue
            self._previous[number] = previous
            signal.signal(number, self._handle)

    def disarm(self) -> None:
        """Put back the handlers that were there, unless somebody has replaced ours meanwhile."""
        for number, previous in self._previous.items():
            with contextlib.suppress(ValueError):  # not the main thread
                if signal.getsignal(number) == self._handle:
                    signal.signal(number, previous)
        self._previous.clear()

    def release(self) -> None:
        """Deliver what arrived while busy."""
        while self._waiting:
            self._deliver(self._waiting.pop(0), None)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._busy():
            self._waiting.append(signal.Signals(number))
        else:
            self._deliver(signal.Signals(number), frame)

    def _deliver(self, number: signal.Signals, frame: FrameType | None) -> None:
        previous = self._previous.get(number, signal.SIG_DFL)
        self._react(number.name)
        if callable(previous):
            previous(number, frame)
        elif previous == signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
