"""A TensorBoard log directory (or one event file of it) as one log: writers merged, axes told apart."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from ckptdoctor.logs.crc import masked_crc
from ckptdoctor.logs.series import LogBuilder, LogError, SeriesBuilder
from ckptdoctor.logs.text import is_dir, raw_head
from ckptdoctor.logs.tfevents import EventFile
from ckptdoctor.model import TrainingLog

MAX_FILES = 2000
_NAME = re.compile(r"\.tfevents\.(\d+)")
# Keras prefixes: epoch_* counts epochs, batch_* counts steps; evaluation_*_vs_iterations counts the optimizer's steps.
_WRITERS = ("train", "validation")


def is_event_file(data: bytes) -> bool:
    """Whether a file begins with a record: its length, with the right checksum."""
    if len(data) < 12:
        return False
    return int(masked_crc(np.frombuffer(data, np.uint8, 8)[None])[0]) == int.from_bytes(data[8:12], "little")


def event_files(path: str) -> list[str]:
    """Event files of a directory by writer and time, or the file itself. Links are not followed."""
    if not is_dir(path):
        return [path]
    found: list[tuple[str, int, str]] = []
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in names:
            if ".tfevents." in name and not name.endswith(".profile-empty"):
                stamp = _NAME.search(name)
                found.append((folder, int(stamp[1][:18]) if stamp else 0, name))
        if len(found) > MAX_FILES:
            break
    return [str(Path(folder, name)) for folder, _, name in sorted(found)[:MAX_FILES]]


def read_tensorboard(path: str) -> TrainingLog:
    """Read the scalars of a log directory, of a writer's directory, or of one event file.

    Series of a writer called `validation` get that prefix; those of `train` (and of the directory itself) none;
    those of other writers their directory's name.

    Raises:
        LogError: no file that begins like an event file.
    """
    log = LogBuilder(path, "tensorboard")
    files = event_files(path)
    unreadable = 0
    last: dict[str, float] = {}
    scalars = 0
    for name in files:
        if not is_event_file(raw_head(name, 12)):
            unreadable += 1
            continue
        scalars += _read_file(name, _prefix(path, name), log, last)
    if unreadable == len(files):
        raise LogError(f"expected TensorBoard event files, found none that begins like one in {path}")
    if unreadable:
        log.note("files that only have the name of event files were skipped", unreadable)
    if not scalars:
        log.note("the event files hold no scalars: another program wrote them, or only graphs and images")
    # Keras' callback writes what `logs` holds at the end of a batch: the mean over the epoch so far
    log.running_average = {"batch_loss", "epoch_loss"} <= set(log.names())
    return log.build()


def _prefix(root: str, name: str) -> str:
    folder = Path(name).parent
    relative = "" if not is_dir(root) else folder.relative_to(root).as_posix()
    parts = [p for p in relative.split("/") if p not in ("", ".")]
    if not parts and folder.name in _WRITERS:
        parts = [folder.name]
    if parts and parts[-1] == "train":
        parts = parts[:-1]
    return "".join(p + "/" for p in parts)


def _read_file(path: str, prefix: str, log: LogBuilder, last: dict[str, float]) -> int:
    events = EventFile(path)
    builders: dict[str, SeriesBuilder] = {}
    shown = Path(path).name
    for tag, step, value in events:
        builder = builders.get(tag)
        if builder is None:
            builder = log.series(prefix + tag, _axis(tag))
            if builder is None:
                continue
            builders[tag] = builder
        before = last.get(builder.name)
        if before is not None and step < before:
            log.restart(float(step))
        last[builder.name] = step
        builder.add(float(step), value)
    if events.truncated:
        log.note(f"{shown} ends inside a record: the program was stopped while writing it")
    if events.damaged:
        log.note(f"{shown}: records with a wrong checksum were skipped", events.damaged)
    return events.scalars


def _axis(tag: str) -> str:
    name = tag.rsplit("/", 1)[-1]
    return "epoch" if tag.startswith("epoch_") or name.startswith("epoch_") else "step"
