"""Captured terminal output of `fit`: Keras 2 and 3, progress bars and one line an epoch, of any length.

What Keras prints per batch is the running average over the epoch so far: one NaN makes all later ones NaN. The value at
the end of an epoch becomes the series `loss` (axis `epoch`), what the bar showed on the way the series `batch_loss` (axis
`step`, counting batches done over all epochs).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ckptdoctor.logs.records import RecordSink
from ckptdoctor.logs.series import MAX_SERIES, LogBuilder, SeriesBuilder
from ckptdoctor.logs.spelling import to_number
from ckptdoctor.logs.text import BLOCK, blocks
from ckptdoctor.model import TrainingLog

MAX_SEGMENT = 1 << 16
"""Longest stretch between line ends, carriage returns included as ends; a bar with a thousand metrics is shorter."""

_FLUSH = 1024  # epochs
_Column = tuple[list[float], list[float]]

_NUM = rb"[-+]?(?:nan(?:\(ind\))?|inf(?:inity)?|1\.#\w+|(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)"
_BAR = re.compile(rb"(?:^|[\s\x08m:>])(\d{1,12})/(\d{1,12}|Unknown|\?)(?=[\s\x1b])")
_ONE_LINE = re.compile(rb"\s*(\d{1,12})/(\d{1,12}) - \d+s\b")
_PLAIN_EPOCH = re.compile(rb"Epoch (\d{1,9})/\d{1,9}\s*$")
_OLD_ONE_LINE = re.compile(rb"\s*- \d+s\b[^-]* - ")
_METRIC = re.compile(rb" - ([^\s:]{1,200}(?: [^\s:-][^\s:]{0,99}){0,4}): (" + _NUM + rb")", re.IGNORECASE)
_LOSS = re.compile(rb" - loss: (" + _NUM + rb")", re.IGNORECASE)
_EPOCH = re.compile(rb"(?:^|[\s>:])Epoch (\d{1,9})/(\d{1,9})(?!\d)")
_TERMINATED = re.compile(rb"Batch (\d{1,15}): Invalid loss, terminating training")
_RATE = re.compile(rb"Epoch 0*(\d{1,9}): .*?learning rate to (" + _NUM + rb")", re.IGNORECASE)
_ANSI = re.compile(rb"\x1b\[[0-9;?]*[ -/]*[@-~]")
_FREE_PLACE = re.compile(rb"\b(epoch|step|iter|iteration|batch)\b\W{0,4}(\d{1,15})\b", re.IGNORECASE)
_FREE_METRIC = re.compile(rb"\b([a-z_][\w/]{0,60}loss|loss)\b\s{0,3}[:=]\s{0,3}(" + _NUM + rb")", re.IGNORECASE)


def read_console(path: str) -> TrainingLog:
    """Read a console capture. Anything that is not training output is passed over.

    Raises:
        LogError: the file cannot be read.
    """
    console = _Console(path)
    for segments in _segments(path, console.log):
        for segment in segments:
            if b": " in segment or b"Epoch " in segment or b"oss=" in segment:
                console.take(segment)
    return console.finish()


def looks_like_console(data: bytes) -> bool:
    """Whether a stretch of text holds output of `fit`, or of a training loop that prints its loss."""
    if _TERMINATED.search(data) or _EPOCH.search(data):
        return True
    return any(
        (
            _METRIC.search(s)
            and ((_BAR.search(s, 0, 160) and _BAR.search(s, 0, s.find(b" - ") + 1)) or _OLD_ONE_LINE.match(s))
        )
        or (_FREE_PLACE.search(s) and _FREE_METRIC.search(s))
        for s in data.replace(b"\r", b"\n").split(b"\n")
        if len(s) <= MAX_SEGMENT
    )


def _segments(path: str, log: LogBuilder) -> Iterator[list[bytes]]:
    """States of lines: what stands between line ends, with a carriage return starting a new state of the same line."""
    carry = b""
    for block in blocks(path, BLOCK):
        segments = (carry + block.replace(b"\r", b"\n")).split(b"\n")
        carry = segments.pop()
        if len(carry) > MAX_SEGMENT:
            log.note("lines longer than 64 KB were cut")
            carry = carry[-MAX_SEGMENT:]  # the end counts: a bar drawn over itself with backspaces
        yield segments
    yield [carry]


class _Console:
    """The state of the capture between segments."""

    def __init__(self, path: str) -> None:
        self.log = LogBuilder(path, "console")
        self.free = RecordSink(self.log)
        self.free_lines = 0
        self.epoch: int | None = None  # from 0; None before the first header
        self.headers = False
        self.evaluating = False
        self.done = 0  # batches of finished epochs
        self.bar: tuple[int, int, bytes] | None = None  # batches done, of how many (0 unknown), the segment
        self.last_epoch = -1
        self.columns: dict[bytes, _Column] = {}
        self.epochs = 0
        self.announced = SeriesBuilder("learning_rate", "epoch")

    def take(self, segment: bytes) -> None:
        if segment[:6] == b"Epoch " and (header := _PLAIN_EPOCH.match(segment)):
            self._begin_epoch(int(header[1]) - 1)
            return
        if len(segment) > MAX_SEGMENT:
            segment = segment[-MAX_SEGMENT:]
        if b"\x08" in segment:
            segment = segment.rstrip(b"\x08")  # before a carriage return: the bar is about to be drawn anew
            if b"\x08" in segment:
                segment = _erase(segment)
        if b"Invalid loss" in segment and (found := _TERMINATED.search(segment)) and self.log.terminated is None:
            self.log.terminated = (self.epoch, int(found[1]))
        if b"Epoch " in segment and self._header(segment):
            return
        if b" - " in segment:
            whole = _ONE_LINE.match(segment)
            place = whole or _BAR.search(segment, 0, 160)
            if place is not None and place.start() < segment.find(b" - "):
                self._bar(segment, int(place[1]), int(place[2]) if place[2].isdigit() else 0, whole=whole is not None)
                return
            if _OLD_ONE_LINE.match(segment):
                self._bar(segment, 0, 0, whole=True)
                return
        if b"oss" in segment or b"OSS" in segment:
            self._free(segment)

    def _begin_epoch(self, epoch: int) -> None:
        self._finish_epoch()
        self.headers, self.evaluating = True, False
        self.epoch = epoch

    def _header(self, segment: bytes) -> bool:
        found = _EPOCH.search(segment)
        if found is not None:
            self._begin_epoch(int(found[1]) - 1)
            return not segment[found.end() :].strip()
        if b"earning rate to" in segment and (rate := _RATE.search(segment)):
            # the scheduler speaks before its epoch, the plateau callback after it, about the next one
            epoch = int(rate[1]) - (1 if b"setting learning rate" in segment else 0)
            value = to_number(rate[2].decode("ascii", "replace"))
            if value is not None:
                self.announced.add(float(epoch), value)
            return b" - loss: " not in segment
        return False

    def _bar(self, segment: bytes, done: int, total: int, *, whole: bool) -> None:
        """One state of a progress bar, or (`whole`) the one line of an epoch."""
        if self.bar is not None and (whole or done < self.bar[0]):
            self._finish_epoch()
        if self.bar is None and self.headers and self.epoch is None:
            self.evaluating = True  # no header since the last epoch ended: `evaluate` or `predict`
        if self.evaluating:
            return
        if self.bar is not None and b" - val_" in self.bar[2] and b" - val_" not in segment:
            self._finish_epoch()
            self.evaluating = self.headers
            return
        self.bar = (done, total, segment)
        if whole:
            self._finish_epoch()
        elif found := _LOSS.search(segment):
            builder = self.log.series("batch_loss", "step")
            value = to_number(found[1].decode("ascii", "replace"))
            if builder is not None and value is not None:
                builder.add(float(self.done + done), value)

    def _finish_epoch(self) -> None:
        """Take the last state of the bar as the epoch's result."""
        if self.bar is None:
            return
        done, total, segment = self.bar
        self.bar = None
        epoch = self.epoch if self.epoch is not None else self.last_epoch + 1
        self.epoch = None
        found = _METRIC.findall(_ANSI.sub(b"", segment) if b"\x1b" in segment else segment)
        if not found:
            return
        if epoch < self.last_epoch or (epoch == self.last_epoch and self.headers):
            self.log.restart(float(epoch))
        self.last_epoch = epoch
        self.done += max(done, total)
        at = float(epoch)
        for name, value in found:
            column = self.columns.get(name) or self._column(name)
            try:
                number: float | None = float(value)
            except ValueError:
                number = to_number(value.decode("ascii", "replace"))
            if number is not None:
                column[0].append(at)
                column[1].append(number)
        self.epochs += 1
        if self.epochs % _FLUSH == 0:
            self._flush()

    def _column(self, name: bytes) -> _Column:
        """Buffers of one metric; the names of a log are few, those of noise are not kept."""
        column: _Column = ([], [])
        if name not in (b"ETA", b"Time") and len(self.columns) < MAX_SERIES:
            self.columns[name] = column
        return column

    def _flush(self) -> None:
        for name, (steps, values) in self.columns.items():
            builder = self.log.series(name.decode("utf-8", "replace"), "epoch")
            if builder is not None:
                builder.extend(steps, values)
            steps.clear()
            values.clear()

    def _free(self, segment: bytes) -> None:
        """A line of a hand-written loop: `step 100: loss = 0.5`. Places are taken as written."""
        segment = segment[:4096]
        places = {m[1].decode().lower(): int(m[2]) for m in _FREE_PLACE.finditer(segment)}
        if not places or self.headers:
            return
        record: dict[str, object] = {"step" if k in ("step", "iter", "iteration") else k: v for k, v in places.items()}
        record |= {
            m[1].decode("ascii", "replace"): to_number(m[2].decode("ascii", "replace"))
            for m in _FREE_METRIC.finditer(segment)
        }
        self.free.take(record, self.free_lines)
        self.free_lines += 1

    def finish(self) -> TrainingLog:
        unfinished = self.bar is not None and self.bar[0] < self.bar[1]
        self._finish_epoch()
        self._flush()
        if self.announced.count and not {"lr", "learning_rate"} & set(self.log.names()):
            self.log.adopt(self.announced)
        self.log.running_average = "batch_loss" in self.log.names()
        if unfinished:
            self.log.note("the capture ends inside an epoch: its values are the running averages up to there")
        return self.log.build()


def _erase(segment: bytes) -> bytes:
    """Apply backspaces. A run of them longer than what stands before empties it, as Keras redraws its bar."""
    out = bytearray()
    for piece in re.split(rb"(\x08+)", segment):
        if piece[:1] == b"\x08":
            del out[max(len(out) - len(piece), 0) :]
        else:
            out += piece
    return bytes(out)
