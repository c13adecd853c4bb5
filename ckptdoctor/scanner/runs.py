"""What becomes of each run: first bad, last healthy, where to resume. Incremental; a run is forgotten when it is told."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field

from ckptdoctor.model import Status
from ckptdoctor.scanner.names import natural_key
from ckptdoctor.scanner.result import ScanResult


@dataclass(frozen=True, slots=True)
class Point:
    """One checkpoint of a run, as a summary names it."""

    path: str
    epoch: int | None
    step: int | None

    @property
    def when(self) -> str:
        """`epoch 3, step 120`, as far as it is known."""
        parts = [f"epoch {self.epoch}"] if self.epoch is not None else []
        if self.step is not None:
            parts.append(f"step {self.step}")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run after all of its checkpoints.

    Attributes:
        run: its directory.
        checkpoints, healthy, sick, unreadable, warned: counts; warned ones are among the healthy.
        first_bad: earliest sick one in training order.
        last_healthy: latest healthy one before `first_bad`; the latest one at all where none is sick.
        resume_from: path to continue from, None where no healthy one precedes the trouble.
        order: what the training order was taken from: `iterations`, `epochs`, `names`.
        cause, confidence, grade, layer, variable, headline, report: of `first_bad`.
    """

    run: str
    checkpoints: int
    healthy: int
    sick: int
    unreadable: int
    warned: int
    first_bad: Point | None
    last_healthy: Point | None
    order: str
    cause: str | None = None
    confidence: float | None = None
    grade: str | None = None
    layer: str | None = None
    variable: str | None = None
    headline: str | None = None
    report: str | None = None

    @property
    def resume_from(self) -> str | None:
        """Path of the checkpoint to continue from."""
        return None if self.last_healthy is None else self.last_healthy.path

    @property
    def status(self) -> Status:
        """Of the run as a whole."""
        if self.sick:
            return Status.SICK
        return Status.HEALTHY if self.healthy else Status.UNREADABLE


@dataclass(slots=True)
class _Run:
    """A run under way. Healthy checkpoints cost two numbers and a name each; of sick ones the earliest are kept."""

    pending: int = 0
    ended: bool = False
    sick: int = 0
    unreadable: int = 0
    warned: int = 0
    with_step: int = 0
    with_epoch: int = 0
    steps: array[float] = field(default_factory=lambda: array("d"))
    epochs: array[float] = field(default_factory=lambda: array("d"))
    names: list[bytes] = field(default_factory=list)
    bad: dict[str, ScanResult] = field(default_factory=dict)  # by order: the earliest sick one


ORDERS = ("iterations", "epochs", "names")


class RunBook:
    """Collects results by run.

    `begin` when a checkpoint is handed out, `add` when its result is there, `end` when the walk has left the run; a run
    that ended with nothing pending is summed up and dropped.
    """

    def __init__(self) -> None:
        self._runs: dict[str, _Run] = {}

    def __len__(self) -> int:
        return len(self._runs)

    def begin(self, run: str) -> None:
        """One more checkpoint of this run is being measured."""
        self._runs.setdefault(run, _Run()).pending += 1

    def add(self, result: ScanResult) -> RunSummary | None:
        """A result of a checkpoint that was begun. Returns the run's summary where this was the last one."""
        run = self._runs[result.run]
        run.pending -= 1
        _count(run, result)
        return self._close(result.run) if run.ended and not run.pending else None

    def skip(self, name: str) -> RunSummary | None:
        """A file that was begun turned out to be no checkpoint. Returns the run's summary where this was the last one."""
        run = self._runs[name]
        run.pending -= 1
        return self._close(name) if run.ended and not run.pending else None

    def end(self, name: str) -> RunSummary | None:
        """No further checkpoint of this run will begin."""
        run = self._runs.get(name)
        if run is None:
            return None
        run.ended = True
        return None if run.pending else self._close(name)

    def finish(self) -> list[RunSummary]:
        """All runs that are still open, by name: after the end, or at an interrupt."""
        return [summary for name in sorted(self._runs) if (summary := self._close(name)) is not None]

    def _close(self, name: str) -> RunSummary | None:
        run = self._runs.pop(name)
        healthy, readable = len(run.names), len(run.names) + run.sick
        if not readable and not run.unreadable:
            return None
        order = ORDERS[0] if run.with_step == readable else ORDERS[1] if run.with_epoch == readable else ORDERS[2]
        bad = run.bad.get(order)
        last = _last_healthy(run, order, bad)
        first = {} if bad is None else {key: getattr(bad, key) for key in _OF_FIRST_BAD}
        return RunSummary(
            run=name,
            checkpoints=readable + run.unreadable,
            healthy=healthy,
            sick=run.sick,
            unreadable=run.unreadable,
            warned=run.warned,
            first_bad=None if bad is None else Point(bad.path, bad.epoch, bad.step),
            last_healthy=None if last is None else _point(name, run, last),
            order=order,
            **first,
        )


_OF_FIRST_BAD = ("cause", "confidence", "grade", "layer", "variable", "headline", "report")


def _count(run: _Run, result: ScanResult) -> None:
    if result.status is Status.UNREADABLE:
        run.unreadable += 1
        return
    run.with_step += result.step is not None
    run.with_epoch += result.epoch is not None
    if result.status is Status.HEALTHY:
        run.warned += bool(result.warnings)
        run.steps.append(math.nan if result.step is None else float(result.step))
        run.epochs.append(math.nan if result.epoch is None else float(result.epoch))
        run.names.append(_inside(result).encode("utf-8", "surrogatepass"))
        return
    run.sick += 1
    for order in ORDERS:
        place = _place(result, order)
        known = run.bad.get(order)
        if place is not None and (known is None or place < _certain(known, order)):
            run.bad[order] = result


def _inside(result: ScanResult) -> str:
    return result.path.removeprefix(result.run.rstrip("/") + "/")


Place = tuple[float, tuple[tuple[int, int, str], ...]]


def _place(result: ScanResult, order: str) -> Place | None:
    """Where a checkpoint stands in an order; names decide between equals."""
    name = natural_key(_inside(result))
    if order == "names":
        return 0.0, name
    value = result.step if order == "iterations" else result.epoch
    return None if value is None else (float(value), name)


def _certain(result: ScanResult, order: str) -> Place:
    place = _place(result, order)
    assert place is not None
    return place


def _last_healthy(run: _Run, order: str, bad: ScanResult | None) -> int | None:
    """Index of the latest healthy checkpoint, in that order, before the first bad one."""
    limit = None if bad is None else _certain(bad, order)
    best: Place | None = None
    found = None
    for index, name in enumerate(run.names):
        value = 0.0 if order == "names" else (run.steps if order == "iterations" else run.epochs)[index]
        if (limit is not None and value > limit[0]) or (best is not None and value < best[0]):
            continue
        place = (value, natural_key(name.decode("utf-8", "surrogatepass")))
        earlier = limit is None or value < limit[0] or (order == "names" and place < limit)
        if earlier and (best is None or place > best):
            best, found = place, index
    return found


def _point(name: str, run: _Run, index: int) -> Point:
    step, epoch = run.steps[index], run.epochs[index]
    inside = run.names[index].decode("utf-8", "surrogatepass")
    path = inside if name == "." or inside.startswith("/") or "://" in inside else f"{name.rstrip('/')}/{inside}"
    return Point(path, None if math.isnan(epoch) else int(epoch), None if math.isnan(step) else int(step))
