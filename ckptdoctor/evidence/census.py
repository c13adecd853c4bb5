"""The census: every tensor of a checkpoint counted at the speed of memory, in constant memory.

Small tensors are read together (one read for neighbours) and counted in this thread; large ones are split into ranges
that a few threads share, each with one buffer. A tensor with non-finite entries is read a second time to say
where they are. See `kernels` for the counting itself.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock, Thread

import numpy as np
from numpy.typing import NDArray

from ckptdoctor.checkpoints.contract import Checkpoint, Span, StoredTensor, TensorReadError
from ckptdoctor.evidence import units
from ckptdoctor.evidence.blocks import (
    LARGEST_BLOCK,
    all_blocks,
    block_bytes,
    chunk_blocks,
    expect_bytes,
    read_exactly,
    span_blocks,
)
from ckptdoctor.evidence.geometry import AxisCounter, all_axes
from ckptdoctor.evidence.kernels import Counter, Layout, Tally, UnknownDtypeError, layout, nonfinite_mask, values
from ckptdoctor.model import AxisNonfinite, Census, CheckpointInfo, TensorStats, UnitStats

SMALL = 1 << 18
"""Tensors up to this many bytes are counted from one read."""
GAP = 1 << 16
"""Bytes between small tensors that are read along to save a read."""
TOGETHER = 1 << 20
"""Most bytes that one read for several small tensors takes."""
PIECE = 1 << 22
"""Bytes of a large tensor that one thread takes at a time."""
MAX_THREADS = 8


@dataclass(slots=True)
class _Job:
    """One tensor on its way through the census."""

    stored: StoredTensor
    how: Layout
    nbytes: int
    exact_units: bool = False
    tally: Tally = field(default_factory=Tally)
    parts: list[tuple[int, Tally]] = field(default_factory=list)
    axes: tuple[AxisNonfinite, ...] = ()
    units: UnitStats | None = None
    error: str | None = None
    bytes_read: int = 0


def take_census(checkpoint: Checkpoint, *, threads: int | None = None) -> Census:
    """Count every tensor of an open checkpoint.

    Args:
        checkpoint: open; stays open.
        threads: for large tensors; by default one for each processor this process may use, at most 8.

    A tensor that cannot be read, or whose dtype holds no numbers, has `TensorStats.error` set; nothing is raised for it.
    """
    started = time.perf_counter()
    jobs: list[_Job | str] = [_job(stored) for stored in checkpoint.tensors]
    todo = [job for job in jobs if isinstance(job, _Job) and job.nbytes]
    with np.errstate(all="ignore"):
        _plan_units(todo)
        counter = Counter()
        _count_small([j for j in todo if j.stored.span is not None and j.nbytes <= SMALL], counter)
        large = [j for j in todo if j.stored.span is not None and j.nbytes > SMALL]
        if large:
            _count_large(large, threads or _default_threads())
        for job in todo:
            if job.stored.span is None:
                _count_produced(job, counter)
    stats = tuple(
        _stats(job, stored) if isinstance(job, _Job) else TensorStats(stored.info, error=job)
        for job, stored in zip(jobs, checkpoint.tensors, strict=True)
    )
    return Census(
        info=_verified(checkpoint, stats),
        tensors=stats,
        scalars=dict(checkpoint.scalars),
        seconds=time.perf_counter() - started,
        bytes_read=sum(job.bytes_read for job in todo),
    )


def _verified(checkpoint: Checkpoint, stats: Sequence[TensorStats]) -> CheckpointInfo:
    """What the container says of itself, and whether bytes that look like NaN were changed after saving.

    Only where there is something non-finite: damage makes NaN too, and a second reading of healthy weights tells nothing.
    """
    info = checkpoint.info
    if checkpoint.verify is None or not any(s.nonfinite for s in stats):
        return info
    problem = checkpoint.verify()
    return info if problem is None else replace(info, problems=(problem, *info.problems))


def _default_threads() -> int:
    try:
        available = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        available = os.cpu_count() or 1
    return min(available, MAX_THREADS)


def _job(stored: StoredTensor) -> _Job | str:
    try:
        how = layout(stored.info.dtype)
        return _Job(stored, how, expect_bytes(stored, how))
    except (UnknownDtypeError, TensorReadError) as error:
        return str(error)


def _plan_units(jobs: list[_Job]) -> None:
    """Decide which tensors have their unit statistics exact; the smallest first, so small models are exact throughout."""
    budget = units.EXACT_TOTAL
    for job in sorted(jobs, key=lambda j: j.nbytes):
        if job.nbytes > units.EXACT_TENSOR or job.nbytes > budget:
            return
        if units.wanted(job.stored.info):
            budget -= job.nbytes
            job.exact_units = True


def _stats(job: _Job, stored: StoredTensor) -> TensorStats:
    if job.error is not None:
        return TensorStats(stored.info, error=job.error)
    tally = job.tally
    empty = not tally.finite
    return TensorStats(
        info=stored.info,
        nan=tally.nan,
        posinf=tally.posinf,
        neginf=tally.neginf,
        zeros=tally.zeros,
        min=None if empty else tally.low,
        max=None if empty else tally.high,
        mean=tally.mean,
        rms=tally.rms,
        axes=job.axes,
        units=job.units,
    )


# --- small tensors -----------------------------------------------------------------------------


def _count_small(jobs: list[_Job], counter: Counter) -> None:
    for group in _neighbours(jobs):
        first, last = _span(group[0]), _span(group[-1])
        whole = Span(first.source, first.offset, last.offset + last.nbytes - first.offset)
        raw = np.empty(whole.nbytes, np.uint8)
        try:
            read_exactly(whole, 0, raw, group[0].stored.info.path)
        except (TensorReadError, OSError):
            for job in group:  # one of them lies beyond the end of the file: read them one by one
                _count_alone(job, counter)
            continue
        for job in group:
            start = _span(job).offset - whole.offset
            _count_loaded(job, raw[start : start + job.nbytes], counter)


def _span(job: _Job) -> Span:
    assert job.stored.span is not None
    return job.stored.span


def _neighbours(jobs: list[_Job]) -> Iterator[list[_Job]]:
    """Groups of tensors in one source that one read can cover, in file order."""
    group: list[_Job] = []
    start = end = 0
    for job in sorted(jobs, key=lambda j: (id(_span(j).source), _span(j).offset)):
        span = _span(job)
        joins = (
            group
            and _span(group[0]).source is span.source
            and end <= span.offset <= end + GAP
            and span.offset + span.nbytes - start <= TOGETHER
        )
        if not joins:
            if group:
                yield group
            group, start = [], span.offset
        group.append(job)
        end = span.offset + span.nbytes
    if group:
        yield group


def _count_alone(job: _Job, counter: Counter) -> None:
    raw = np.empty(job.nbytes, np.uint8)
    try:
        read_exactly(_span(job), 0, raw, job.stored.info.path)
    except (TensorReadError, OSError) as error:
        job.error = str(error)
        return
    _count_loaded(job, raw, counter)


def _count_loaded(job: _Job, raw: NDArray[np.uint8], counter: Counter) -> None:
    """Everything about a tensor whose bytes are in memory."""
    job.bytes_read += job.nbytes
    info, how = job.stored.info, job.how
    counter.count(raw, how, job.tally)
    if job.tally.nonfinite:
        if job.tally.finite and info.shape:
            axes = AxisCounter(info.shape)
            axes.feed(nonfinite_mask(raw, how))
            job.axes = axes.result()
        else:
            job.axes = all_axes(info.shape)
    if units.wanted(info):
        rows, row_bytes = info.size // info.shape[-1], info.shape[-1] * how.itemsize
        if job.exact_units:
            job.units = units.unit_stats(values(raw, how).reshape(rows, -1))
        else:
            picked = raw.reshape(rows, row_bytes)[units.sample_rows(rows, row_bytes)]
            job.units = units.unit_stats(values(picked.ravel(), how).reshape(len(picked), -1), sampled=True)


# --- large tensors -----------------------------------------------------------------------------


def _count_large(jobs: list[_Job], threads: int) -> None:
    """Share ranges of the tensors, their unit statistics, and then the second passes, between threads."""
    ranges = [(job, start) for job in jobs for start in range(0, job.nbytes, PIECE)]
    tasks: list[tuple[_Job, int]] = [*((j, -1) for j in jobs if units.wanted(j.stored.info)), *ranges]
    _share(tasks, threads)
    for job in jobs:
        for _, part in sorted(job.parts, key=lambda p: p[0]):
            job.tally.merge(part)
        job.parts.clear()
    _share([(job, -2) for job in jobs if job.tally.nonfinite and job.error is None], threads)


def _share(tasks: list[tuple[_Job, int]], threads: int) -> None:
    """Run the tasks: (job, start of a range), (job, -1) for units, (job, -2) for axes."""
    lock = Lock()
    queue = iter(tasks)
    failures: list[BaseException] = []

    def work() -> None:
        buffer = np.empty(LARGEST_BLOCK, np.uint8)
        counter = Counter()
        with np.errstate(all="ignore"):  # not inherited by threads
            while not failures:
                with lock:
                    task = next(queue, None)
                if task is None:
                    return
                job, what = task
                if job.error is not None:
                    continue
                try:
                    if what == -1:
                        _measure_units(job)
                    elif what == -2:
                        _locate(job, buffer)
                    else:
                        part = _count_range(job, what, buffer, counter)
                        with lock:
                            job.parts.append((what, part))
                            job.bytes_read += part.count * job.how.itemsize
                except (TensorReadError, OSError) as error:
                    job.error = str(error)
                except BaseException as error:  # noqa: BLE001 - raised again by the caller's thread
                    failures.append(error)

    helpers = [Thread(target=work, daemon=True) for _ in range(min(threads, len(tasks)) - 1)]
    for helper in helpers:
        helper.start()
    work()
    for helper in helpers:
        helper.join()
    if failures:
        raise failures[0]


def _count_range(job: _Job, start: int, buffer: NDArray[np.uint8], counter: Counter) -> Tally:
    tally = Tally()
    stop = min(start + PIECE, job.nbytes)
    for _, block in span_blocks(_span(job), start, stop, buffer, job.stored.info.path, step=block_bytes(job.how)):
        counter.count(block, job.how, tally)
    return tally


def _locate(job: _Job, buffer: NDArray[np.uint8]) -> None:
    """The second pass over a tensor with non-finite entries: where do they lie?"""
    shape = job.stored.info.shape
    if not job.tally.finite:
        job.axes = all_axes(shape)
        return
    axes = AxisCounter(shape)
    for _, block in all_blocks(job.stored, job.nbytes, buffer):
        axes.feed(nonfinite_mask(block, job.how))
    job.axes = axes.result()


def _measure_units(job: _Job) -> None:
    info, how, span = job.stored.info, job.how, _span(job)
    rows, row_bytes = info.size // info.shape[-1], info.shape[-1] * how.itemsize
    if job.exact_units:
        raw = np.empty(job.nbytes, np.uint8)
        read_exactly(span, 0, raw, info.path)
        job.units = units.unit_stats(values(raw, how).reshape(rows, -1))
        return
    numbers = units.sample_rows(rows, row_bytes)
    picked = np.empty((numbers.size, row_bytes), np.uint8)
    for i, number in enumerate(numbers.tolist()):
        read_exactly(span, number * row_bytes, picked[i], info.path)
    job.units = units.unit_stats(values(picked.ravel(), how).reshape(numbers.size, -1), sampled=True)


# --- tensors whose bytes must be produced --------------------------------------------------------


def _count_produced(job: _Job, counter: Counter) -> None:
    """Deflated or chunked: read from the start, in this thread."""
    info = job.stored.info
    try:
        if job.nbytes <= units.EXACT_TENSOR:
            raw = np.empty(job.nbytes, np.uint8)
            for _ in chunk_blocks(job.stored, job.nbytes, raw, step=job.nbytes):
                pass
            _count_loaded(job, raw, counter)
            return
        buffer = np.empty(LARGEST_BLOCK, np.uint8)
        picker = None
        if units.wanted(info):
            rows, row_bytes = info.size // info.shape[-1], info.shape[-1] * job.how.itemsize
            picker = units.RowPicker(rows, row_bytes)
        for position, block in chunk_blocks(job.stored, job.nbytes, buffer):
            counter.count(block, job.how, job.tally)
            if picker is not None:
                picker.feed(position, block)
        job.bytes_read = job.nbytes
        if picker is not None:
            kept = values(picker.kept.ravel(), job.how).reshape(len(picker.kept), -1)
            job.units = units.unit_stats(kept, sampled=True)
        if job.tally.nonfinite:
            _locate(job, buffer)
    except (TensorReadError, OSError) as error:
        job.error = str(error)
