"""Tables of numbers: Keras' CSVLogger, pandas, W&B and TensorBoard exports, and what people write by hand."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import PurePath

import numpy as np

from ckptdoctor.logs.axes import Axis, choose_axis, is_axis, is_clock, looks_like_metric
from ckptdoctor.logs.series import Floats, LogBuilder, LogError
from ckptdoctor.logs.spelling import MISSING_WORDS, is_missing, to_number
from ckptdoctor.logs.text import LineReader
from ckptdoctor.model import TrainingLog

MAX_COLUMNS = 4096
_DELIMITERS = (",", ";", "\t", "|")
_CHUNK = 4096  # lines converted at once: one odd line slows down no more than these

# W&B's web page exports "run name - loss" with "…__MIN" and "…__MAX"; TensorBoard's, one tag a file, "Wall time,Step,Value".
_WANDB_EXTREME = re.compile(r"__(?:MIN|MAX)$")
_WANDB_COLUMN = re.compile(r"^.{1,200}? - (?P<name>[^ ].*)$")
_TENSORBOARD_FILE = re.compile(r"tag-(?P<tag>.+)\.csv$", re.IGNORECASE)


def read_csv(path: str) -> TrainingLog:
    """Read a delimited table.

    Rows with another number of cells than their header (a torn last line, two lines glued by a crash) are skipped and
    counted in `notes`. A repeated header is skipped; a new one is used from there on.

    Raises:
        LogError: not a table: no line with a number in it.
    """
    table = _Table(path)
    reader = LineReader(path)
    for lines in reader:
        raw = b"\n".join(lines)
        text = raw.decode("utf-8", "replace").split("\n")
        for start in range(0, len(text), _CHUNK):
            table.take(text[start : start + _CHUNK], has_holes=b"\0" in raw)
    return table.finish(reader)


def looks_like_table(lines: Sequence[str]) -> bool:
    """Whether these first lines are a header and a row of a training log (or the header alone)."""
    rows = [line for line in lines if line.strip() and not line.startswith("#")]
    if not rows:
        return False
    delimiter = _delimiter(rows[0])
    names = _cells(rows[0], delimiter)
    if not _is_header(names):
        return False
    if len(names) == 1 and not looks_like_metric(names[0]):
        return False
    if not any(is_axis(n) or looks_like_metric(n) or n.strip() == "Value" for n in names):
        return False
    if len(rows) == 1:
        return sum(is_axis(n) or looks_like_metric(n) for n in names) >= min(2, len(names))
    cells = _cells(rows[1], delimiter)
    numbers = sum(to_number(c) is not None for c in cells)
    if delimiter == " " and 2 * numbers <= len(cells):
        return False  # sentences have blanks too
    return len(cells) == len(names) and (numbers > 0 or cells == names)


class _Table:
    """The state between chunks of lines."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.log = LogBuilder(path, "csv")
        self.delimiter: str | None = None
        self.names: list[str] = []
        self.axis = Axis(None, "step", ())
        self.rows = 0
        self.last_axis = float("-inf")
        self.text_columns: set[int] = set()
        self.empty: dict[str, int] = {}
        self.torn_last = False

    def take(self, lines: list[str], *, has_holes: bool) -> None:
        if self.delimiter is None:
            lines = self._begin(lines)
        if not lines:
            return
        delimiter = self.delimiter or ","
        width = len(self.names)
        quoted = any('"' in line for line in lines)
        rows = (
            list(csv.reader(lines, delimiter=delimiter))
            if quoted and _safe(lines)
            else [s.split(delimiter) for s in lines]
        )
        if {len(r) for r in rows} == {width} and not any(r[-1] == self.names[-1] for r in rows) and not has_holes:
            self.torn_last = False
            self._convert(rows)
            return
        good: list[list[str]] = []
        for row in rows:
            if self._usable(row, good):
                good.append(row)
        self._convert(good)

    def _begin(self, lines: list[str]) -> list[str]:
        for at, line in enumerate(lines):
            if not line.strip() or line.startswith("#"):
                continue
            self.delimiter = _delimiter(line)
            cells = _cells(line, self.delimiter)
            if _is_header(cells):
                self._header(cells)
                return lines[at + 1 :]
            self.log.note("no header: columns are numbered")
            self._header([f"column {i}" for i in range(len(cells))])
            return lines[at:]
        return []

    def _header(self, cells: list[str]) -> None:
        if len(cells) > MAX_COLUMNS:
            raise LogError(f"expected a training log, found a table of {len(cells):,} columns: {self.path}")
        self.names = [cell.strip().strip('"') for cell in cells]
        shown = _display_names(self.names, self.path)
        self.axis = choose_axis(self.names)
        self.columns = [(i, shown[i]) for i in self.axis.metrics if not _WANDB_EXTREME.search(self.names[i])]
        self.text_columns = set()

    def _usable(self, row: list[str], good: list[list[str]]) -> bool:
        """Sort out one row of a chunk that is not uniform."""
        if not any(cell.strip() for cell in row) or row[0].startswith("#"):
            return False
        self.torn_last = False
        if any("\0" in cell for cell in row):
            self.log.note("rows with NUL bytes (a crash left a hole in the file) were skipped")
            return False
        if [cell.strip().strip('"') for cell in row] == self.names:
            self.log.note("the header stands again in the middle (the run was resumed)")
            return False
        if len(row) > 1 and _is_header(row) and any(is_axis(c) or looks_like_metric(c) for c in row):
            self._convert(good)
            good.clear()
            self.log.note("a new header with other columns was used from there on")
            self._header(row)
            return False
        if len(row) != len(self.names):
            self.torn_last = True
            self.log.note(f"rows that do not have {len(self.names)} cells were skipped")
            return False
        return True

    def _convert(self, rows: list[list[str]]) -> None:
        if not rows:
            return
        by_column = list(zip(*rows, strict=True))
        steps = self._steps(by_column)
        for i, name in self.columns:
            if i in self.text_columns:
                continue
            values, present = self._numbers(by_column[i], i, name)
            if present is None:
                self._store(name, steps, values)
            elif present.any():
                self._store(name, steps[present], values[present])
        self.rows += len(rows)

    def _store(self, name: str, steps: Floats, values: Floats) -> None:
        builder = self.log.series(name, self.axis.kind)
        if builder is not None:
            builder.extend(steps, values)

    def _steps(self, by_column: list[tuple[str, ...]]) -> Floats:
        count = len(by_column[0])
        rows = np.arange(self.rows, self.rows + count, dtype=np.float64)
        if self.axis.column is None:
            return rows
        cells = by_column[self.axis.column]
        try:
            steps = np.array(list(map(float, cells)), dtype=np.float64)
        except ValueError:
            steps = np.array([_or_nan(cell) for cell in cells], dtype=np.float64)
        unknown = ~np.isfinite(steps)
        if unknown.any():
            self.log.note(f"rows without a readable {self.axis.kind} were placed by their position", int(unknown.sum()))
            steps[unknown] = rows[unknown]
        back = np.flatnonzero(np.diff(steps, prepend=self.last_axis) < 0)
        for i in back[:1000].tolist():
            self.log.restart(float(steps[i]))
        self.last_axis = float(steps[-1])
        return steps

    def _numbers(self, cells: tuple[str, ...], column: int, name: str) -> tuple[Floats, np.ndarray | None]:
        """Values of a column's cells, and which of them are present (None: all)."""
        try:
            if not any("_" in cell for cell in (cells[0], cells[-1])):
                return np.array(list(map(float, cells)), dtype=np.float64), None
        except ValueError:
            pass
        distinct = set(cells)
        if distinct <= MISSING_WORDS:
            self._missing(cells, name)
            return np.empty(len(cells)), np.zeros(len(cells), dtype=np.bool_)
        numbers = [to_number(cell) for cell in cells] if self.delimiter == "," else [_european(cell) for cell in cells]
        present = np.array([n is not None for n in numbers], dtype=np.bool_)
        if not present.all():
            self._missing(cells, name)
            if not present.any() and not any(is_missing(c) for c in cells):
                self.text_columns.add(column)
                self.log.note(f"column {name!r} holds text and was not read")
            elif any(n is None and not is_missing(c) for n, c in zip(numbers, cells, strict=True)):
                self.log.note(f"cells of {name!r} that are not numbers were skipped")
        return np.array([0.0 if n is None else n for n in numbers], dtype=np.float64), present

    def _missing(self, cells: tuple[str, ...], name: str) -> None:
        self.empty[name] = self.empty.get(name, 0) + sum(not cell.strip() for cell in cells)

    def finish(self, reader: LineReader) -> TrainingLog:
        if self.delimiter is None:
            raise LogError(f"expected a training log, found no line with text: {self.path}")
        if reader.overlong:
            self.log.note("lines longer than a megabyte were cut", reader.overlong)
        if self.torn_last and reader.unterminated:
            self.log.note("the last line is torn: the program was stopped while writing it")
        for name, count in self.empty.items():
            if count and name in self.log.names():
                self.log.note(
                    f"{name!r} has {count:,} empty cells: pandas writes NaN so, it cannot be told from a missing value"
                )
        log = self.log.build()
        if not self.rows and not log.series:
            self.log.note("there is a header but no row: the run ended before its first epoch did")
        elif not any("loss" in s.name.lower() for s in log.series):
            self.log.note("there is no column with a loss")
        return self.log.build()


def _safe(lines: list[str]) -> bool:
    return not any("\0" in line or len(line) > 100_000 for line in lines)


def _or_nan(cell: str) -> float:
    value = to_number(cell)
    return float("nan") if value is None else value


def _european(cell: str) -> float | None:
    """A number that may have a decimal comma: spreadsheets of many countries write `;` between cells and `,` in numbers."""
    value = to_number(cell)
    if value is None and cell.count(",") == 1 and "." not in cell:
        return to_number(cell.replace(",", "."))
    return value


def _delimiter(line: str) -> str:
    counts = [(line.count(d), d) for d in _DELIMITERS]
    best = max(counts, key=lambda c: c[0])
    if best[0]:
        return best[1]
    return " " if " " in line.strip() else ","


def _cells(line: str, delimiter: str) -> list[str]:
    if '"' in line and _safe([line]):
        return next(csv.reader([line], delimiter=delimiter), [])
    return line.split(delimiter)


def _is_header(cells: Sequence[str]) -> bool:
    """Names, not values: no cell is a number, and there is at least one name."""
    named = [c for c in cells if not is_missing(c)]
    return bool(named) and all(to_number(c) is None for c in named) and len(cells) - len(named) <= 1


def _display_names(names: list[str], path: str) -> list[str]:
    """Names as a log would spell them: exports of web pages put the run's name before, or leave the tag to the file's name."""
    shown = []
    tag = _TENSORBOARD_FILE.search(PurePath(path).name)
    metrics = [n for n in names if not is_axis(n) and not is_clock(n)]
    exported = bool(metrics) and all(_WANDB_COLUMN.match(n) for n in metrics)
    for i, name in enumerate(names):
        found = _WANDB_COLUMN.match(name) if exported else None
        plain = found["name"] if found else name
        if name == "Value" and metrics == ["Value"]:
            plain = tag["tag"] if tag else PurePath(path).stem
        shown.append(plain or f"column {i}")
    seen: dict[str, int] = {}
    for i, name in enumerate(shown):
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            shown[i] = names[i] if exported and names[i] not in seen else f"{name} ({seen[name]})"
    return shown
