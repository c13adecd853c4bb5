"""What belongs together: a file or a run directory → checkpoints in training order, logs, batches.

Nothing is opened for good here: files are recognised by their first bytes and, where that settles nothing, by their names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ckptdoctor.model import CkptDoctorError, Format, IgnoredFile, RunFiles
from ckptdoctor.recognise import (
    CHECKPOINT_SUFFIXES,
    SERIES_WORD,
    SHARD,
    exists,
    has_magic,
    holds_checkpoints,
    is_batch_directory,
    is_batch_file,
    is_file,
    is_one_checkpoint,
    leads_out,
    order_numbers,
    series_of,
    stem_of,
)

MAX_ENTRIES = 200_000
"""Files and directories that are looked at below one directory; a run has hundreds, a data set may have millions."""
MAX_DEPTH = 12
MAX_IGNORED = 1000
MAX_SNIFFED = 5000
"""Files whose content is looked at to find logs."""
MAX_NEIGHBOURS = 2000
MAX_FOLDERS = 50

_LOG_SUFFIXES = frozenset(
    {".csv", ".tsv", ".txt", ".log", ".out", ".err", ".json", ".jsonl", ".ndjson", ".db", ".sqlite", ".wandb", ""}
)
_TF_DATA = re.compile(r".+\.data-\d{5}-of-\d{5}$")
_LOG_HOMES = frozenset({"logs", "log", "tensorboard", "tb", "train", "mlruns"})
_HOME_NAMES = frozenset({"checkpoints", "checkpoint", "ckpt", "ckpts", "weights", "backup", "saved_models"})
"""Directories whose parent is the run: what people and the recorder call the place of the checkpoints."""
_LOG_ORDER = ("csv", "jsonl", "history-json", "tensorboard", "wandb", "mlflow", "mlflow-sqlite", "console")
RECORD = "recorder.json"
_OWN_FILES = frozenset({RECORD, "checkpoint", "training_metadata.json"})  # read by others, or parts of a checkpoint


def discover(paths: Sequence[str], *, logs: Sequence[str] = (), batches: Sequence[str] = ()) -> RunFiles:
    """Find what the user's paths mean.

    Args:
        paths: a checkpoint, a run directory, or several of them that belong to one run; logs and batches may stand among them.
        logs, batches: explicit choices; they replace what would have been found.

    Raises:
        CkptDoctorError: a path that does not exist, nothing at all, or a directory that holds several runs.
    """
    if not paths:
        raise CkptDoctorError("no path was given: name a checkpoint or a run directory")
    paths = [path.rstrip("/") or path for path in paths]  # `run/` and `run` are one name in the report
    for path in (*paths, *logs, *batches):
        if not exists(path):
            raise CkptDoctorError(f"there is nothing at {path}: check the path")
    found = _Found()
    for path in paths:
        _take_path(path, found, alone=len(paths) == 1)
    if len(paths) == 1 and os.path.isdir(paths[0]):
        _refuse_several_runs(paths[0], found)
    return _settle(paths[0], found, logs, batches)


@dataclass(slots=True)
class _Found:
    """What turned up so far."""

    checkpoints: list[str] = field(default_factory=list)
    logs: dict[str, str] = field(default_factory=dict)  # path -> format
    batches: list[str] = field(default_factory=list)
    ignored: list[IgnoredFile] = field(default_factory=list)
    records: list[str] = field(default_factory=list)  # the flight recorder's
    entries: int = 0
    sniffed: int = 0

    def ignore(self, path: str, reason: str) -> None:
        if len(self.ignored) < MAX_IGNORED:
            self.ignored.append(IgnoredFile(path, reason))


def _take_path(path: str, found: _Found, *, alone: bool) -> None:
    from ckptdoctor.checkpoints import detect_format

    kind = detect_format(path)
    if os.path.isdir(path) and not is_one_checkpoint(path, kind):
        log = _directory_log(path)
        if log is not None and not holds_checkpoints(path):
            found.logs[path] = log
        elif is_batch_directory(path):
            found.batches.append(path)
        else:
            _walk(path, found)
        return
    if kind is None and not path.lower().endswith(CHECKPOINT_SUFFIXES):
        log = _file_log(path, found)
        if log is not None:
            found.logs[path] = log
            return
        if is_batch_file(path):
            found.batches.append(path)
            return
    found.checkpoints.append(path)
    if alone:
        _neighbours(path, found)


def _walk(root: str, found: _Found) -> None:
    """Everything below a directory. Hidden directories are passed over, links to directories not followed."""
    pending = [(root, 0)]
    while pending:
        folder, depth = pending.pop()
        files, folders = _listing(folder, root, found)
        event_folders = any(".tfevents." in name for name in files)
        if event_folders:
            _add_event_folder(folder, root, found)
        if RECORD in files:
            found.records.append(f"{folder}/{RECORD}" if folder != "." else RECORD)
        for name in _visible_files(files):
            _take_file(f"{folder}/{name}" if folder != "." else name, name, files, found)
        for name in reversed(folders):
            child = f"{folder}/{name}" if folder != "." else name
            if _take_directory(child, name, found):
                continue
            if depth + 1 >= MAX_DEPTH:
                found.ignore(child, f"more than {MAX_DEPTH} directories deep")
            else:
                pending.append((child, depth + 1))
        if found.entries > MAX_ENTRIES:
            found.ignore(
                root, f"more than {MAX_ENTRIES:,} files: the rest was not looked at; name the run directory itself"
            )
            return


def _listing(folder: str, root: str, found: _Found) -> tuple[list[str], list[str]]:
    """Names of files and of directories, sorted; links to directories, and out of the run, are ignored with a reason.

    A stranger's run may hold a link to any file of whoever inspects it, parts of which the report would then show.
    """
    files: list[str] = []
    folders: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                found.entries += 1
                if found.entries > MAX_ENTRIES:
                    break
                if entry.is_dir(follow_symlinks=False):
                    if not entry.name.startswith((".", "__pycache__")):
                        folders.append(entry.name)
                elif entry.is_symlink() and entry.is_dir():
                    found.ignore(
                        entry.path, "a link to a directory is not followed; name its target if it belongs to the run"
                    )
                elif entry.is_file():
                    if entry.is_symlink() and leads_out(entry.path, root):
                        found.ignore(entry.path, "a link out of the run is not followed; name its target to use it")
                    else:
                        files.append(entry.name)
    except OSError as error:
        found.ignore(folder, f"cannot be listed: {error.strerror or error}")
    return sorted(files), sorted(folders)


def _visible_files(files: Sequence[str]) -> Iterator[str]:
    """Without parts of others: shards, data files of TensorFlow checkpoints, the recorder's own."""
    present = set(files)
    for name in files:
        shard = SHARD.match(name)
        if name.startswith(".") or name in _OWN_FILES or ".tfevents." in name:
            continue
        if shard and f"{shard['stem']}.weights.json" in present:
            continue
        if _TF_DATA.match(name) and f"{name.rsplit('.data-', 1)[0]}.index" in present:
            continue
        yield name


def _take_file(path: str, name: str, siblings: Sequence[str], found: _Found) -> None:
    from ckptdoctor.checkpoints import detect_format

    lower = name.lower()
    if lower.endswith(".index"):
        stem = path[: -len(".index")]
        if any(s.startswith(Path(stem).name + ".data-") for s in siblings):
            found.checkpoints.append(stem if detect_format(stem) is Format.TF_CHECKPOINT else path)
            return
    if lower.endswith(CHECKPOINT_SUFFIXES) or (has_magic(path) and not lower.endswith(".npz")):
        if detect_format(path) is not None or lower.endswith((".keras", ".weights.h5")):
            found.checkpoints.append(path)
        elif lower.endswith((".h5", ".hdf5")):
            _take_odd_hdf5(path, found)
        else:
            found.ignore(path, "an archive or table that holds no Keras weights")
        return
    if lower.endswith((".npz", ".npy")):
        if is_batch_file(path):
            found.batches.append(path)
        else:
            found.ignore(path, "arrays without one called x: not recorded batches")
        return
    log = _file_log(path, found)
    if log is not None:
        found.logs[path] = log
    else:
        found.ignore(path, "not a checkpoint, a training log or recorded batches")


def _take_odd_hdf5(path: str, found: _Found) -> None:
    """HDF5 by name that is not recognised: damaged is worth a line in the timeline, a data set is not."""
    try:
        with open(path, "rb") as file:
            intact = file.read(8) == b"\x89HDF\r\n\x1a\n"
    except OSError:
        intact = False
    if intact and Path(path).stat().st_size > 0 and not SERIES_WORD.search(stem_of(path)):
        found.ignore(path, "HDF5 without Keras weights")
    else:
        found.checkpoints.append(path)


def _take_directory(path: str, name: str, found: _Found) -> bool:
    """Whether a directory counts as one thing: a checkpoint, a log, a set of batches, or something kept apart."""
    from ckptdoctor.checkpoints import detect_format

    if name.startswith("failure_step_") and is_file(f"{path}/recorder.json"):
        found.ignore(path, "an earlier failure that the recorder moved aside; inspect it by itself")
        return True
    if is_one_checkpoint(path, detect_format(path)):
        found.checkpoints.append(path)
        return True
    if is_batch_directory(path):
        found.batches.append(path)
        return True
    if is_file(f"{path}/meta.yaml") and os.path.isdir(f"{path}/metrics"):
        found.logs[path] = "mlflow"
        return True
    return False


def _add_event_folder(folder: str, root: str, found: _Found) -> None:
    """A writer's directory: `train` and `validation` of one callback are one log."""
    parent = str(Path(folder).parent)
    is_writer = Path(folder).name in ("train", "validation") and folder != root
    found.logs[parent if is_writer and len(parent) >= len(root.rstrip("/")) else folder] = "tensorboard"


def _directory_log(path: str) -> str | None:
    from ckptdoctor.logs import detect_log

    return detect_log(path)


def _file_log(path: str, found: _Found) -> str | None:
    from ckptdoctor.logs import detect_log

    known = Path(path).suffix.lower() in _LOG_SUFFIXES or ".tfevents." in path
    if not known or found.sniffed >= MAX_SNIFFED:
        return None
    found.sniffed += 1
    return detect_log(path)


def _neighbours(path: str, found: _Found) -> None:
    """Logs, batches and checkpoints of the same series around a single one, where the place is that of one run.

    The place is the checkpoint's directory, or its parent where the directory is named for checkpoints. If checkpoints
    of other series stand there too, nobody can tell whose log it is, and none is used.
    """
    home = Path(path).parent if Path(path).name not in ("", "..") else Path(path).resolve().parent
    around = _Found()
    files, folders = _listing(str(home), str(home), around)
    if around.entries > MAX_NEIGHBOURS:
        return
    pattern = series_of(path)
    same_kind = folders if Path(path).is_dir() else files
    series = [n for n in same_kind if series_of(n) == pattern]
    named_home = home.resolve().name.lower() in _HOME_NAMES
    strangers = not named_home and _has_strangers(home, files, folders, series)
    evidence = _Found()
    places = [home, home.parent] if named_home and home.parent != home else [home]
    for place in places:
        _take_beside(place, evidence)
    if strangers:
        for name in (*evidence.logs, *evidence.batches):
            found.ignore(
                name,
                "checkpoints of several models stand beside it: name it with --log or --batches if it belongs to this one",
            )
    else:
        found.logs.update(evidence.logs)
        found.batches += evidence.batches
    is_run = named_home or ((evidence.logs or evidence.batches) and not strangers)
    if len(series) > 1 and pattern != Path(path).name and (is_run or SERIES_WORD.search(stem_of(path))):
        prefix = path[: len(path.rstrip("/")) - len(Path(path).name)]
        found.checkpoints = [f"{prefix}{name}" for name in series]


def _has_strangers(home: Path, files: Sequence[str], folders: Sequence[str], series: Sequence[str]) -> bool:
    """Whether checkpoints of other series stand in the same directory."""
    from ckptdoctor.checkpoints import detect_format

    if any(n.lower().endswith(CHECKPOINT_SUFFIXES) and n not in series and not SHARD.match(n) for n in files):
        return True
    return any(n not in series and detect_format(home / n) is not None for n in folders[:MAX_FOLDERS])


def _take_beside(place: Path, evidence: _Found) -> None:
    """Logs and batches that stand directly in a directory."""
    names, below = _listing(str(place), str(place), _Found())
    for name in _visible_files(names):
        if not name.lower().endswith(CHECKPOINT_SUFFIXES):
            _take_file(str(place / name), name, names, evidence)
    if any(".tfevents." in n for n in names):
        evidence.logs[str(place)] = "tensorboard"
    for name in below:
        child = str(place / name)
        if name.lower() in _LOG_HOMES and (log := _directory_log(child)) is not None:
            evidence.logs[child] = log
        elif is_batch_directory(child):
            evidence.batches.append(child)
    evidence.checkpoints.clear()


def _refuse_several_runs(root: str, found: _Found) -> None:
    """Two or more directories that each have checkpoints and a log of their own are that many runs.

    Raises:
        CkptDoctorError: naming them.
    """
    base = Path(root)
    holding = {_branch(base, c) for c in found.checkpoints}
    logged = {_branch(base, p) for p in (*found.logs, *found.batches)}
    runs = sorted((holding & logged) - {""})
    if len(runs) > 1:
        shown = ", ".join(runs[:5]) + (" …" if len(runs) > 5 else "")
        raise CkptDoctorError(
            f"{root} holds {len(runs)} runs ({shown}): inspect one of them, or look through all with `ckptdoctor scan {root}`"
        )


def _branch(base: Path, path: str) -> str:
    """The directory just below `base` that holds a path; "" for what stands in `base` itself."""
    try:
        parts = Path(path).relative_to(base).parts
    except ValueError:
        return ""
    return parts[0] if len(parts) > 1 else ""


def _settle(path: str, found: _Found, logs: Sequence[str], batches: Sequence[str]) -> RunFiles:
    """Explicit choices, the order of the checkpoints, and one set of batches."""
    used_logs = list(logs)
    if logs:
        for name in found.logs:
            if name not in logs:
                found.ignore(name, "another log was named with --log")
    else:
        ranked = sorted(found.logs.items(), key=lambda item: (_LOG_ORDER.index(item[1]), item[0].count("/"), item[0]))
        used_logs = [name for name, _ in ranked]
    used_batches = list(batches)
    if not batches and found.batches:
        ranked_batches = sorted(found.batches, key=lambda p: ("batch" not in stem_of(p).lower(), p.count("/"), p))
        used_batches = ranked_batches[:1]
    for name in found.batches:
        if name not in used_batches:
            found.ignore(
                name, "another set of batches was used" if not batches else "other batches were named with --batches"
            )
    if len(found.records) > 1:
        for name in found.records:
            found.ignore(name, "one of several recordings; inspect the directory of one by itself")
    taken = {*used_logs, *used_batches}
    return RunFiles(
        path=path,
        checkpoints=tuple(sorted(dict.fromkeys(found.checkpoints), key=_training_key)),
        logs=tuple(used_logs),
        batches=tuple(used_batches),
        ignored=tuple(i for i in found.ignored if i.path not in taken),
        recorder=found.records[0] if len(found.records) == 1 else None,
    )


def _training_key(path: str) -> tuple[int, int, int, float, str]:
    """Numbered ones first, by epoch and step; then the others by modification time."""
    epoch, step = order_numbers(path)
    try:
        changed = Path(path).stat().st_mtime
    except OSError:
        changed = 0.0
    if epoch is None and step is None:
        return 1, 0, 0, changed, path
    return 0, epoch if epoch is not None else step or 0, step if step is not None else 0, 0.0, path
