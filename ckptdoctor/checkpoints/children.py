"""Processes of the contained readers: started, kept ready for the next file, ended.

What starting one costs is importing numpy and h5py. A program that reads every file in a new copy of itself (see
`confined.one_process_each`) is therefore kept for some seconds: the second opening of a file, and every further file of a
scan, costs a fork.
"""

from __future__ import annotations

import atexit
import os
import select
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

KEPT = 2  # programs kept ready; as many as files are commonly open at a time
_END_SECONDS = 1.0  # for a copy to end when told to
_POSIX = os.name == "posix"


@dataclass(slots=True)
class Reader:
    """One program that reads.

    Attributes:
        script: its file. process: as it was started; its copies are in its process group.
        told: descriptor on which it tells the end of each copy, None where it reads one file only.
        owner: the process that started it. A fork of that process must not talk to it too.
    """

    script: Path
    process: subprocess.Popen[bytes]
    told: int | None
    owner: int

    @property
    def inlet(self) -> int:
        """Where questions are written."""
        assert self.process.stdin is not None
        return self.process.stdin.fileno()

    @property
    def outlet(self) -> int:
        """Where answers are read."""
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def release(self, last_word: bytes) -> None:
        """Let go of the file: keep the program where its copy ends in order, end it otherwise.

        Args:
            last_word: the frame at which a copy ends.
        """
        if self.told is None or self.owner != os.getpid() or not self._ended(last_word) or not _keep(self):
            self.end()

    def _ended(self, last_word: bytes) -> bool:
        assert self.told is not None
        try:
            if os.write(self.inlet, last_word) != len(last_word):
                return False
            heard = select.select([self.told], [], [], _END_SECONDS)[0]
            return bool(heard) and os.read(self.told, 1) == b"e" and self.process.poll() is None
        except (OSError, ValueError):
            return False

    def end(self) -> None:
        """Kill it with its copies and reap it; a reader has nothing to tidy up."""
        if self.owner == os.getpid() and self.process.returncode is None:
            with suppress(OSError):  # as long as it was not waited for, its number belongs to no other group
                if _POSIX:
                    os.killpg(self.process.pid, signal.SIGKILL)
                else:
                    self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        if self.told is not None:
            with suppress(OSError):
                os.close(self.told)
            self.told = None
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(5.0)


def start_reader(script: Path, *, reusable: bool) -> Reader:
    """A new process that runs `script` and nothing from the surroundings.

    Raises:
        OSError: the system starts none.
    """
    environment = {
        "HDF5_PLUGIN_PRELOAD": "::",  # no filter code from outside
        "HDF5_USE_FILE_LOCKING": "FALSE",
        "OPENBLAS_NUM_THREADS": "1",  # no threads, which a copy would lack
        "OMP_NUM_THREADS": "1",
        "PATH": os.defpath,
    }
    # -S: where packages lie is told by the parent, and looking for that costs time.
    command = [sys.executable, "-I", "-S", "-B", str(script)]
    told, tell = os.pipe() if reusable and _POSIX else (None, None)
    try:
        process = subprocess.Popen(  # noqa: S603 - this interpreter, our own script
            command if tell is None else [*command, str(tell)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            bufsize=0,
            close_fds=True,
            pass_fds=() if tell is None else (tell,),
            process_group=0 if _POSIX else None,  # so that it can be ended with its copies
        )
    except OSError:
        if told is not None:
            os.close(told)
        raise
    finally:
        if tell is not None:
            os.close(tell)
    return Reader(script, process, told, os.getpid())


# --- kept ready ------------------------------------------------------------------------------------

_kept: list[Reader] = []
_lock = threading.Lock()


def kept_ready(script: Path) -> Reader | None:
    """A kept program, taken; None where there is none."""
    with _lock:
        for reader in [r for r in _kept if r.script == script]:
            _kept.remove(reader)
            if reader.owner == os.getpid() and reader.process.poll() is None:
                return reader
            reader.end()
    return None


def _keep(reader: Reader) -> bool:
    with _lock:
        if len(_kept) >= KEPT:
            return False
        if not _kept:
            atexit.unregister(end_kept)
            atexit.register(end_kept)
        _kept.append(reader)
        return True


def end_kept() -> None:
    """End what waits for a next file."""
    with _lock:
        while _kept:
            _kept.pop().end()
