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

MAX_ENTRIES = 200_000
"""Files and directories that are looked at below one directory; a run has hundreds, a data set may have millions."""
MAX_DEPTH = 12
MAX_IGNORED = 1000
MAX_SNIFFED = 5000
"""Files whose content is looked at to find logs."""
MAX_NEIGHBOURS = 2000

_CHECKPOINT_SUFFIXES = (".keras", ".h5", ".hdf5", ".hdf", ".weights.json", ".index")
_LOG_SUFFIXES = frozenset(
    {".csv", ".tsv", ".txt", ".log", ".out", ".err", ".json", ".jsonl", ".ndjson", ".db", ".sqlite", ".wandb", ""}
)
_SHARD = re.compile(r"(?P<stem>.+)_\d{5}\.weights\.h5$")
_TF_DATA = re.compile(r".+\.data-\d{5}-of-\d{5}$")
_HOME_NAMES = frozenset({"checkpoints", "checkpoint", "ckpt", "ckpts", "weights", "backup", "saved_models"})
"""Directories whose parent is the run: what people and the recorder call the place of the checkpoints."""
_COUNTER = re.compile(
    r"(?:epochs?|steps?|iter(?:ation)?s?|batch(?:es)?|ckpt|checkpoint|weights|model|ep|e|s)[-_.=]?(\d{1,18})(?!\d*\.\d)",
    re.IGNORECASE,
)
_SERIES_WORD = re.compile(r"epoch|step|iter|ckpt|checkpoint|weights|(?:^|[^a-z])e[p]?\d|-\d+\.\d+", re.IGNORECASE)
_EPOCH = re.compile(r"(?:epochs?|(?<![a-z])ep?)[-_.=]?(\d{1,18})(?!\d)", re.IGNORECASE)
_STEP = re.compile(r"(?:steps?|iter(?:ation)?s?|global_step|(?<![a-z])s)[-_.=]?(\d{1,18})(?!\d)", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\d.])(\d{1,18})(?![\d]|\.\d)")
_LOG_ORDER = ("csv", "jsonl", "history-json", "tensorboard", "wandb", "mlflow", "mlflow-sqlite", "console")
_OWN_FILES = frozenset(
    {"recorder.json", "checkpoint", "training_metadata.json"}
)  # read by others, or parts of a checkpoint


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
    for path in (*paths, *logs, *batches):
        if not _exists(path):
            raise CkptDoctorError(f"there is nothing at {path}: check the path")
    found = _Found()
    for path in paths:
        _take_path(path, found, alone=len(paths) == 1)
    if len(paths) == 1 and os.path.isdir(paths[0]):
        _refuse_several_runs(paths[0], found)
    return _settle(paths[0], found, logs, batches)


def order_numbers(path: str) -> tuple[int | None, int | None]:
    """(epoch, step) that a checkpoint's name tells; a number without a word counts as the epoch, as in `weights.03-0.51.h5`."""
    name = _stem(path)
    epoch, step = _EPOCH.search(name), _STEP.search(name)
    if epoch or step:
        return (int(epoch[1]) if epoch else None, int(step[1]) if step else None)
    counter = _COUNTER.search(name) or _NUMBER.search(name)
    return (int(counter[1]), None) if counter else (None, None)


@dataclass(slots=True)
class _Found:
    """What turned up so far."""

    checkpoints: list[str] = field(default_factory=list)
    logs: dict[str, str] = field(default_factory=dict)  # path -> format
    batches: list[str] = field(default_factory=list)
    ignored: list[IgnoredFile] = field(default_factory=list)
    entries: int = 0
    sniffed: int = 0

    def ignore(self, path: str, reason: str) -> None:
        if len(self.ignored) < MAX_IGNORED:
            self.ignored.append(IgnoredFile(path, reason))


def _take_path(path: str, found: _Found, *, alone: bool) -> None:
    from ckptdoctor.checkpoints import detect_format

    kind = detect_format(path)
    if os.path.isdir(path) and not _is_one_checkpoint(path, kind):
        log = _directory_log(path)
        if log is not None and not _holds_checkpoints(path):
            found.logs[path] = log
        elif _is_batch_directory(path):
            found.batches.append(path)
        else:
            _walk(path, found)
        return
    if kind is None and not path.lower().endswith(_CHECKPOINT_SUFFIXES):
        log = _file_log(path, found)
        if log is not None:
            found.logs[path] = log
            return
        if _is_batch_file(path):
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
        files, folders = _listing(folder, found)
        event_folders = any(".tfevents." in name for name in files)
        if event_folders:
            _add_event_folder(folder, root, found)
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


def _listing(folder: str, found: _Found) -> tuple[list[str], list[str]]:
    """Names of files and of directories, sorted; links to directories are ignored with a reason."""
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
                    files.append(entry.name)
    except OSError as error:
        found.ignore(folder, f"cannot be listed: {error.strerror or error}")
    return sorted(files), sorted(folders)


def _visible_files(files: Sequence[str]) -> Iterator[str]:
    """Without parts of others: shards, data files of TensorFlow checkpoints, the recorder's own."""
    present = set(files)
    for name in files:
        shard = _SHARD.match(name)
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
    if lower.endswith(_CHECKPOINT_SUFFIXES) or (_magic(path) and not lower.endswith(".npz")):
        if detect_format(path) is not None or lower.endswith((".keras", ".weights.h5")):
            found.checkpoints.append(path)
        elif lower.endswith((".h5", ".hdf5")):
            _take_odd_hdf5(path, found)
        else:
            found.ignore(path, "an archive or table that holds no Keras weights")
        return
    if lower.endswith((".npz", ".npy")):
        if _is_batch_file(path):
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
    if intact and Path(path).stat().st_size > 0 and not _SERIES_WORD.search(_stem(path)):
        found.ignore(path, "HDF5 without Keras weights")
    else:
        found.checkpoints.append(path)


def _take_directory(path: str, name: str, found: _Found) -> bool:
    """Whether a directory counts as one thing: a checkpoint, a log, a set of batches, or something kept apart."""
    from ckptdoctor.checkpoints import detect_format

    if name.startswith("failure_step_") and _is_file(f"{path}/recorder.json"):
        found.ignore(path, "an earlier failure that the recorder moved aside; inspect it by itself")
        return True
    if _is_one_checkpoint(path, detect_format(path)):
        found.checkpoints.append(path)
        return True
    if _is_batch_directory(path):
        found.batches.append(path)
        return True
    if _is_file(f"{path}/meta.yaml") and os.path.isdir(f"{path}/metrics"):
        found.logs[path] = "mlflow"
        return True
    return False


def _is_one_checkpoint(path: str, kind: Format | None) -> bool:
    """A directory that is a checkpoint, not a directory of several (a manager's folder, an orbax root of many steps)."""
    if kind is None:
        return False
    try:
        names = os.listdir(path)
    except OSError:
        return not os.path.isdir(path)
    if kind is Format.TF_CHECKPOINT:
        return sum(n.endswith(".index") for n in names) <= 1
    if kind is Format.ORBAX:
        return sum(n.isdigit() and os.path.isdir(f"{path}/{n}") for n in names) <= 1
    return True


def _holds_checkpoints(path: str) -> bool:
    """Whether any name below a directory of logs is that of a checkpoint; bounded."""
    seen = 0
    for _, _, names in os.walk(path):
        seen += len(names)
        if any(n.lower().endswith((*_CHECKPOINT_SUFFIXES, ".pb")) for n in names):
            return True
        if seen > MAX_NEIGHBOURS:
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


def _is_batch_file(path: str) -> bool:
    """An archive or array with an `x`; data are not read."""
    import zipfile

    if path.lower().endswith(".npy"):
        return _stem(path) == "x" or _stem(path).startswith("x_")
    try:
        with zipfile.ZipFile(path) as archive:
            return any(n in ("x.npy", "x") or n.startswith("x_") for n in archive.namelist()[:10_000])
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError):
        return False


def _is_batch_directory(path: str) -> bool:
    """A saved tf.data dataset, or a directory of nothing but arrays one of which is an x."""
    if _is_file(f"{path}/dataset_spec.pb") and _is_file(f"{path}/snapshot.metadata"):
        return True
    try:
        names = [n for n in os.listdir(path) if not n.startswith(".")]
    except OSError:
        return False
    if not names or not all(n.lower().endswith((".npz", ".npy")) for n in names):
        return False
    arrays = {n[:-4] for n in names if n.endswith(".npy")}
    return any(a == "x" or a.startswith("x_") for a in arrays) or any(
        _is_batch_file(f"{path}/{n}") for n in sorted(names)[:3] if n.endswith(".npz")
    )


def _neighbours(path: str, found: _Found) -> None:
    """Logs, batches and earlier checkpoints around a single checkpoint, where the place is that of one run.

    The place is the checkpoint's directory, or its parent where the directory is named for checkpoints. If checkpoints
    of other series stand there too, nobody can tell whose log it is, and none is used.
    """
    home = str(Path(path).parent)
    around = _Found()
    files, folders = _listing(home, around)
    if around.entries > MAX_NEIGHBOURS:
        return
    pattern = _series(path)
    series = [n for n in files if _series(n) == pattern]
    others = [n for n in files if n.lower().endswith(_CHECKPOINT_SUFFIXES) and n not in series and not _SHARD.match(n)]
    named_home = Path(home).resolve().name.lower() in _HOME_NAMES
    places = [home]
    if named_home:
        places.append(str(Path(home).parent) if Path(home).parent != Path(home) else home)
    evidence = _Found()
    for place in dict.fromkeys(places):
        names, below = (files, folders) if place == home else _listing(place, around)
        for name in _visible_files(names):
            if not name.lower().endswith(_CHECKPOINT_SUFFIXES):
                _take_file(str(Path(place, name)), name, names, evidence)
        if any(".tfevents." in n for n in names):
            evidence.logs[place] = "tensorboard"
        for name in below:
            child = str(Path(place, name))
            if (log := _directory_log(child)) is not None and name.lower() in (
                "logs",
                "log",
                "tensorboard",
                "tb",
                "train",
                "mlruns",
            ):
                evidence.logs[child] = log
            elif _is_batch_directory(child):
                evidence.batches.append(child)
    if others and not named_home:
        for name in (*evidence.logs, *evidence.batches):
            found.ignore(
                name,
                "checkpoints of several models stand beside it: name it with --log or --batches if it belongs to this one",
            )
    else:
        found.logs.update(evidence.logs)
        found.batches += evidence.batches
    is_run = named_home or ((evidence.logs or evidence.batches) and not others)
    if len(series) > 1 and pattern != Path(path).name and (is_run or _SERIES_WORD.search(_stem(path))):
        found.checkpoints = [str(Path(home, name)) if home != "." or "/" in path else name for name in series]


def _series(path: str) -> str:
    """A name with its numbers taken out: `epoch_#.keras`. `nan` counts as a number: patterns hold losses."""
    return re.sub(r"\d+(?:\.\d+)?|\b(?:nan|inf)\b", "#", Path(path).name, flags=re.IGNORECASE)


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
        ranked_batches = sorted(found.batches, key=lambda p: ("batch" not in _stem(p).lower(), p.count("/"), p))
        used_batches = ranked_batches[:1]
    for name in found.batches:
        if name not in used_batches:
            found.ignore(
                name, "another set of batches was used" if not batches else "other batches were named with --batches"
            )
    taken = {*used_logs, *used_batches}
    return RunFiles(
        path=path,
        checkpoints=tuple(sorted(dict.fromkeys(found.checkpoints), key=_training_key)),
        logs=tuple(used_logs),
        batches=tuple(used_batches),
        ignored=tuple(i for i in found.ignored if i.path not in taken),
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


def _stem(path: str) -> str:
    name = Path(path).name
    for suffix in (".weights.h5", ".weights.json", ".keras", ".h5", ".hdf5", ".npz", ".npy", ".index"):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def _magic(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(8)[:4] in (b"PK\x03\x04", b"\x89HDF")
    except OSError:
        return False


def _is_file(path: str) -> bool:
    return os.path.isfile(path)


def _exists(path: str) -> bool:
    return os.path.lexists(path) or _is_file(f"{path}.index")
