"""What the flight recorder wrote beside the checkpoints: `recorder.json`, read as a stranger's file.

It is bounded in size and depth, every member is checked, and no path in it may lead out of the directory that it stands in.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from ckptdoctor.checkpoints.contract import CheckpointError
from ckptdoctor.checkpoints.documents import parse_object
from ckptdoctor.checkpoints.limits import MIB, ReadLimits
from ckptdoctor.model import (
    CkptDoctorError,
    FlightRecord,
    Missing,
    RecordedArgument,
    RecordedTraining,
    RecordedWindow,
    SeedState,
)

__all__ = ["RecordError", "read_record"]

LIMITS = ReadLimits(json_bytes=16 * MIB, json_items=1_000_000, json_depth=16)
"""The recorder nests 6 levels; per batch it writes two numbers a seed generator, and twice about 630 for the run."""
MAX_LISTED = 10_000  # batches, arrays, generators
MAX_TEXT = 1000  # characters of a sentence or a name
STEPS_TAIL = 4 * MIB  # bytes of steps.jsonl that are read, from its end: about 30,000 steps

_STATUS = ("running", "failed", "interrupted", "finished")
_KINDS = ("loss", "weights", "gradients", "signal", "exception", "exit")
_FORMS = ("single", "list", "dict")
_ENVIRONMENT = ("tensorflow", "keras", "numpy", "python", "devices", "onednn", "xla_flags")
T = TypeVar("T")


class RecordError(CkptDoctorError):
    """A `recorder.json` that cannot be used."""


def read_record(path: str | os.PathLike[str]) -> FlightRecord:
    """Read a `recorder.json`.

    A window that cannot be used (a file missing, a path that leads elsewhere) is Missing; the rest is kept.

    Raises:
        RecordError: not a regular file, too large, not JSON, or not what the recorder writes.
    """
    source = os.fspath(path)
    document = _parse(source)
    if not str(document.get("schema_version", "")).startswith("1."):
        raise RecordError(
            f"{source} has schema_version {_shown(document.get('schema_version'))}, this version reads 1.x"
        )
    try:
        reason = _mapping(document.get("reason") or {}, "reason")
        return FlightRecord(
            source=source,
            status=_one_of(document.get("status"), _STATUS, "status"),
            kind=_one_of(reason["kind"], _KINDS, "reason.kind") if reason else "",
            text=_text(reason.get("text", ""), "reason.text"),
            step=_whole_or_none(reason.get("step"), "reason.step"),
            epoch=_whole_or_none(reason.get("epoch"), "reason.epoch"),
            batch=_whole_or_none(reason.get("batch"), "reason.batch"),
            loss=_number(reason.get("loss"), "reason.loss"),
            variables=_texts(reason.get("variables", ()), "reason.variables")[:64],
            steps_taken=_whole(document.get("step"), "step"),
            window=_window_of(document.get("window"), Path(source).parent),
            training=_training(_mapping(document.get("training") or {}, "training")),
            environment=_environment(_mapping(document.get("environment") or {}, "environment")),
            problems=_texts(document.get("problems", ()), "problems")[:50],
        )
    except KeyError as error:
        raise RecordError(f"{source} is not what the recorder writes: there is no {error.args[0]}") from None
    except _OddError as error:
        raise RecordError(f"{source} is not what the recorder writes: {error}") from None


def _parse(source: str) -> dict[str, Any]:
    try:
        raw = _read(Path(source), LIMITS.json_bytes + 1)
        return parse_object(raw, source, LIMITS)
    except OSError as error:
        raise RecordError(f"cannot read {source}: {error.strerror or error}") from None
    except CheckpointError as error:
        raise RecordError(str(error)) from None


def _read(path: Path, most: int, *, tail: bool = False) -> bytes:
    """At most so many bytes of a regular file, from its start or its end.

    Raises:
        OSError: it cannot be read, or is something else (a link, a pipe).
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(0, "not a regular file")
        if tail and found.st_size > most:
            file.seek(-most, os.SEEK_END)
        return file.read(most)


# --- the window ----------------------------------------------------------------------------------


class _UnusableError(Exception):
    """Why the window cannot be repeated."""


class _OddError(Exception):
    """A member is not what it should be."""


def _window_of(value: Any, run: Path) -> RecordedWindow | Missing:
    if value is None:
        return Missing("the recorder kept no batches with a state to begin from")
    try:
        return _window(_mapping(value, "window"), run)
    except _UnusableError as error:
        return Missing(str(error))


def _window(window: Mapping[str, Any], run: Path) -> RecordedWindow:
    checkpoint = _inside(run, window["checkpoint"], "the checkpoint before the last batches")
    batches = _inside(run, window["batches"], "the last batches")
    structure = _mapping(window["structure"], "window.structure")
    x = _argument(structure.get("x"), "window.structure.x")
    if x is None:
        raise _UnusableError("the recorded batches hold no input")
    first, last = _whole(window["first_step"], "window.first_step"), _whole(window["last_step"], "window.last_step")
    rows = tuple(_wholes(r, "window.rows") for r in _list(window["rows"], "window.rows"))
    if last - first + 1 != len(rows):
        raise _OddError(f"the window goes from step {first} to step {last}, but has {len(rows)} batches")
    traced = _mapping(window.get("traced_as") or {}, "window.traced_as")
    return RecordedWindow(
        checkpoint=checkpoint,
        batches=batches,
        first_step=first,
        last_step=last,
        x=x,
        y=_argument(structure.get("y"), "window.structure.y"),
        sample_weight=_argument(structure.get("sample_weight"), "window.structure.sample_weight"),
        traced_as={k: _shape(v, "window.traced_as") for k, v in traced.items() if v is not None},
        rows=rows,
        densified=_texts(window.get("densified", ()), "window.densified"),
        stored_as={
            k: _text(v, "window.stored_as") for k, v in _mapping(window.get("stored_as") or {}, "stored_as").items()
        },
        seeds=tuple(_seed(e) for e in _list(window.get("seed_generators", ()), "window.seed_generators")),
        losses=_losses(run / "steps.jsonl", first, last),
    )


def _inside(run: Path, value: Any, what: str) -> str:
    """A path of the document, as one that can be opened, joined to the run directory.

    Raises:
        _UnusableError: absent, or it leads out of the run directory, by its words or by a link.
    """
    if value is None:
        raise _UnusableError(f"{what} could not be written when training ended")
    name = _text(value, "a path")
    pure = PurePosixPath(name)
    if not name or "\0" in name or "\\" in name or pure.is_absolute() or ".." in pure.parts:
        raise _UnusableError(f"{what} ({_shown(name)}) would lie outside the run directory")
    path = run / pure
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):
        raise _UnusableError(f"{what} ({_shown(name)}) is not there any more") from None
    if not target.is_relative_to(run.resolve()):
        raise _UnusableError(f"{what} ({_shown(name)}) is a link out of the run directory")
    return str(path)


def _argument(value: Any, where: str) -> RecordedArgument | None:
    if value is None:
        return None
    entry = _mapping(value, where)
    form, names, keys = (
        _one_of(entry["form"], _FORMS, where),
        _texts(entry["names"], where),
        _texts(entry["keys"], where),
    )
    if len(names) != len(keys) or not keys or len(set(keys)) != len(keys) or (form == "single" and len(keys) != 1):
        raise _OddError(f"{where} has {len(names)} names for {len(keys)} arrays")
    return RecordedArgument(form, names, keys)


def _seed(value: Any) -> SeedState:
    entry = _mapping(value, "window.seed_generators")
    layer = entry["layer"]
    state = _list(entry["state"], "window.seed_generators")
    if len(state) != 2 or not all(isinstance(n, int) and not isinstance(n, bool) and abs(n) < 1 << 63 for n in state):
        raise _OddError("the state of a seed generator is not two integers")
    name = None if layer is None else _text(layer, "window.seed_generators")
    return SeedState(name, _whole(entry["index"], "window.seed_generators"), (state[0], state[1]))


def _losses(path: Path, first: int, last: int) -> tuple[tuple[int, float], ...]:
    """Losses of the window's steps; of a step that stands twice (a resumed run), the later one. Damaged lines are passed over."""
    try:
        lines = _read(path, STEPS_TAIL, tail=True).splitlines()
    except OSError:
        return ()
    found: dict[int, float] = {}
    for line in lines:
        try:
            entry = json.loads(line)
            step, loss = entry["step"], entry["loss"]
        except (ValueError, RecursionError, TypeError, KeyError):
            continue
        if type(step) is int and type(loss) in (int, float) and first <= step <= last:
            found[step] = float(loss)
    return tuple(sorted(found.items()))


# --- the rest ------------------------------------------------------------------------------------


def _training(entry: Mapping[str, Any]) -> RecordedTraining:
    def optional(name: str, kind: type[T]) -> T | None:
        value = entry.get(name)
        return value if isinstance(value, kind) else None

    return RecordedTraining(
        loop="custom" if entry.get("loop") == "custom" else "fit",
        jit_compile=optional("jit_compile", bool),
        run_eagerly=optional("run_eagerly", bool),
        steps_per_execution=_whole_or_none(entry.get("steps_per_execution"), "training.steps_per_execution"),
        gradient_accumulation_steps=_whole_or_none(
            entry.get("gradient_accumulation_steps"), "training.gradient_accumulation_steps"
        ),
        loss_scaling=optional("loss_scaling", bool),
        dtype_policy=_clipped(optional("dtype_policy", str)),
        optimizer=_clipped(optional("optimizer", str)),
        replicas=_whole_or_none(entry.get("replicas"), "training.replicas") or 1,
    )


def _clipped(text: str | None) -> str | None:
    return None if text is None else text[:MAX_TEXT]


def _environment(entry: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for name in _ENVIRONMENT:
        value = entry.get(name)
        if isinstance(value, list):
            value = ", ".join(str(v) for v in value[:16])
        if isinstance(value, (str, int)) and str(value):
            found[name] = str(value)[:200]
    return found


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict) or len(value) > MAX_LISTED:
        raise _OddError(f"{where} is not an object")
    return value


def _list(value: Any, where: str) -> Sequence[Any]:
    if not isinstance(value, (list, tuple)) or len(value) > MAX_LISTED:
        raise _OddError(f"{where} is not a list of at most {MAX_LISTED:,} entries")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise _OddError(f"{where} is not a text")
    return value[:MAX_TEXT]


def _texts(value: Any, where: str) -> tuple[str, ...]:
    return tuple(_text(v, where) for v in _list(value, where))


def _one_of(value: Any, words: Sequence[str], where: str) -> str:
    if value not in words:
        raise _OddError(f"{where} is {_shown(value)}, not one of {', '.join(words)}")
    return str(value)


def _whole(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 53:
        raise _OddError(f"{where} is {_shown(value)}, not a count")
    return value


def _wholes(value: Any, where: str) -> tuple[int, ...]:
    return tuple(_whole(v, where) for v in _list(value, where))


def _whole_or_none(value: Any, where: str) -> int | None:
    return None if value is None else _whole(value, where)


def _number(value: Any, where: str) -> float | None:
    """A number; non-finite ones are strings in this document."""
    if value is None:
        return None
    if value in ("NaN", "Infinity", "-Infinity") or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    raise _OddError(f"{where} is {_shown(value)}, not a number")


def _shape(value: Any, where: str) -> tuple[int | None, ...]:
    return tuple(_whole_or_none(v, where) for v in _list(value, where))


def _shown(value: Any) -> str:
    """A stranger's value in a sentence: short, and no line breaks."""
    return " ".join(repr(value)[:80].split())
