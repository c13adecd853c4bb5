"""Cases on disk: finding them, reading their truth, and handing out copies that do not hold it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

EVIDENCE = ("log", "batches", "history")
"""What can be taken away from a run: its log, its batches, all checkpoints but the last."""


@dataclass(frozen=True)
class EvaluationCase:
    """One run with its truth."""

    path: Path
    truth: dict[str, Any]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def faulty(self) -> bool:
        """Whether something is wrong with it."""
        return self.truth["category"] != "healthy"


def find_cases(folders: Iterable[Path], *, half: str | None = None, only: Sequence[str] = ()) -> list[EvaluationCase]:
    """Every run with a `truth.json` in these folders (or that is one of them), by name.

    Args:
        folders: case folders, or folders of case folders.
        half: keep only cases whose truth names this half; None keeps all.
        only: name patterns, any of which must match.

    Raises:
        FileNotFoundError: a folder without a case.
    """
    found = []
    for folder in folders:
        paths = [folder / "truth.json"] if (folder / "truth.json").exists() else sorted(folder.glob("*/truth.json"))
        if not paths:
            raise FileNotFoundError(f"{folder}: no truth.json here or one level below")
        found += [EvaluationCase(path.parent, json.loads(path.read_text())) for path in paths]
    return [
        case
        for case in found
        if (half is None or case.truth.get("half") == half) and (not only or any(fnmatch(case.name, p) for p in only))
    ]


def hidden_copy(case: Path, into: Path, *, without: Sequence[str] = (), name: str = "run") -> Path:
    """Copy a run without its truth, under a name that tells nothing.

    Args:
        into: an existing folder. without: parts of `EVIDENCE` to leave out.
    """
    copy = into / name
    shutil.copytree(case, copy, ignore=shutil.ignore_patterns("truth.json"), copy_function=_copied)
    for folder in (copy, *(p for p in copy.rglob("*") if p.is_dir())):
        folder.chmod(0o755)
    if "log" in without:
        for path in log_files(copy):
            path.unlink()
    if "batches" in without:
        for path in copy.glob("last_batches*"):
            path.unlink()
    if "history" in without:
        for path in sorted((copy / "checkpoints").iterdir())[:-1]:
            path.unlink()
    return copy


def _copied(source: str, target: str) -> str:
    shutil.copyfile(source, target)
    Path(target).chmod(0o644)
    shutil.copystat(source, target)
    Path(target).chmod(0o644)
    return target


def log_files(run: Path) -> list[Path]:
    """The logs of a run in the form of the case book."""
    patterns = (
        "*.csv",
        "history.json",
        "*.jsonl",
        "*.log",
        "*.txt",
        "logs/**/events.out.tfevents.*",
        "events.out.tfevents.*",
    )
    return [path for pattern in patterns for path in run.glob(pattern)]
