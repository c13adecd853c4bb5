"""Runs `inspect` on copies of cases, each in a process of its own with a time limit."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.evaluation.cases import EvaluationCase, hidden_copy


@dataclass(frozen=True)
class Setting:
    """Which evidence is used.

    Attributes:
        name: for tables. replay: whether experiments are run. without: parts of the run that are left out.
        with_code: the modules that define own layers and losses are given, as `--custom-objects` does.
    """

    name: str = "all evidence"
    replay: bool = True
    without: tuple[str, ...] = ()
    with_code: bool = False


MATRIX = (
    Setting(),
    Setting("no replay", replay=False),
    Setting("no log", without=("log",)),
    Setting("no batches", replay=False, without=("batches",)),
    Setting("no batches, no log", replay=False, without=("batches", "log")),
    Setting("last checkpoint and log", replay=False, without=("batches", "history")),
    Setting("last checkpoint alone", replay=False, without=("batches", "log", "history")),
)


@dataclass(frozen=True)
class Answer:
    """What came back for one case."""

    case: EvaluationCase
    setting: Setting
    document: dict[str, Any] | None
    seconds: float
    error: str = ""


Change = Callable[[Path], Path]


def ask(case: EvaluationCase, setting: Setting, *, timeout: float, change: Change | None = None) -> Answer:
    """Inspect a copy of one case. `change` may alter the copy and returns the folder to inspect."""
    with tempfile.TemporaryDirectory(prefix="evaluation-") as folder:
        run = hidden_copy(case.path, Path(folder), without=setting.without)
        if change is not None:
            run = change(run)
        out = Path(folder) / "document.json"
        command = [
            sys.executable,
            "-m",
            "tests.evaluation.worker",
            str(run),
            str(out),
            "replay" if setting.replay else "no-replay",
            *([module_of(case.name)] if setting.with_code else []),
        ]
        start = time.perf_counter()
        error = _run(command, timeout)
        seconds = time.perf_counter() - start
        document = json.loads(out.read_text()) if out.exists() else None
    return Answer(case, setting, document, seconds, error if document is None else "")


@functools.cache
def module_of(case: str) -> str:
    """The module of the case book in which a case, or the one it is the repaired twin of, is defined.

    Raises:
        ValueError: it is no case of the book, so that its code is not at hand.
    """
    import fixtures.casebook.cases as book

    named = re.compile(rf'^    "{re.escape(case.removesuffix("__fixed"))}",$', re.MULTILINE)
    for path in sorted(Path(folder) for folder in book.__path__):
        for module in sorted(path.glob("*.py")):
            if named.search(module.read_text()):
                return f"{book.__name__}.{module.stem}"
    raise ValueError(f"{case} is no case of the book; --with-code knows the code of no other")


def _run(command: Sequence[str], timeout: float) -> str:
    """Start a command in a session of its own; on a time-out end it with its children. Returns what went wrong."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment
    )
    try:
        _, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return f"no answer within {timeout:.0f} s"
    lines = errors.strip().splitlines()
    return "" if process.returncode == 0 else (lines[-1] if lines else f"exit status {process.returncode}")


def ask_all(
    cases: Sequence[EvaluationCase], setting: Setting, *, jobs: int, timeout: float, change: Change | None = None
) -> Iterator[Answer]:
    """Inspect many, `jobs` at a time; answers in the order of the cases."""
    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(lambda case: ask(case, setting, timeout=timeout, change=change), cases)
