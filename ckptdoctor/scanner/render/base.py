"""What renderers share: the words for a result, and what they are told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ckptdoctor.model import Status
from ckptdoctor.scanner.counts import Counts
from ckptdoctor.scanner.result import ScanResult
from ckptdoctor.scanner.runs import RunSummary

Write = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Totals:
    """The scan as a whole.

    Attributes:
        subject: what was scanned, as the user said it. interrupted: it was stopped before its end.
    """

    subject: str
    counts: Counts
    seconds: float
    interrupted: bool
    tool_version: str

    @property
    def sentence(self) -> str:
        """As in: 2,000 checkpoints in 40 runs: 1,960 healthy, 40 sick, 0 unreadable."""
        c = self.counts
        odd = f" ({c.warned:,} of them with warnings)" if c.warned else ""
        return (
            f"{plural(c.done, 'checkpoint')} in {plural(c.runs, 'run')}: {c.healthy:,} healthy{odd}, {c.sick:,} sick, "
            f"{c.unreadable:,} unreadable."
        )

    @property
    def pace(self) -> str:
        """As in: 3.2 s, 620 checkpoints/s, 1.2 GB read; 1,500 unchanged since the scan before."""
        c = self.counts
        fresh = c.done - c.resumed
        parts = [f"{self.seconds:.1f} s"]
        if fresh and self.seconds > 0:
            parts.append(f"{fresh / self.seconds:,.0f} checkpoints/s")
            parts.append(f"{size(c.bytes)} read")
        text = ", ".join(parts)
        if c.foreign:
            text += f"; {plural(c.foreign, 'HDF5 file')} without weights left out"
        if c.resumed:
            text += f"; {c.resumed:,} unchanged since the scan before"
        return text


class Renderer(Protocol):
    """One format of a scan."""

    def result(self, result: ScanResult) -> None:
        """One checkpoint."""
        ...

    def run(self, summary: RunSummary) -> None:
        """One run whose last result is there."""
        ...

    def finish(self, totals: Totals) -> None:
        """The end. Nothing is left unwritten after it."""
        ...


def plural(count: int, noun: str) -> str:
    """`1 run`, `2,000 runs`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def size(count: float) -> str:
    """Bytes in decimal units, as disks and bills count them."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def where(result: ScanResult | RunSummary) -> str:
    """`dense_1/kernel`, as far as it is known."""
    return "/".join(part for part in (result.layer, result.variable) if part)


def when(result: ScanResult) -> str:
    """`epoch 3, step 120`, as far as it is known."""
    parts = [f"epoch {result.epoch}"] if result.epoch is not None else []
    if result.step is not None:
        parts.append(f"step {result.step}")
    return ", ".join(parts)


def cause(result: ScanResult | RunSummary) -> str:
    """`data_nonfinite (likely, 0.83)`."""
    if result.cause is None:
        return ""
    if result.cause == "unknown" or result.confidence is None:
        return result.cause
    return f"{result.cause} ({result.grade}, {result.confidence:.2f})"


def suspicious(result: ScanResult) -> tuple[str, ...]:
    """The warnings that are about malice in the file: not about training, not about damage (CKD701)."""
    return tuple(w for w in result.warnings if w.startswith(("CKD7", "hostile")) and not w.startswith("CKD701"))


def inside(path: str, run: str) -> str:
    """A checkpoint's path within its run."""
    return path.removeprefix(run.rstrip("/") + "/")


def mark(status: Status) -> str:
    """A sign that needs no colour."""
    return {Status.SICK: "✗", Status.UNREADABLE: "?", Status.HEALTHY: "✓"}[status]
