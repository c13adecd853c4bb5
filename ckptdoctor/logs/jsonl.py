"""One JSON object a line: custom training loops, W&B history exports, and the like."""

from __future__ import annotations

import json
import re

from ckptdoctor.logs.records import RecordSink
from ckptdoctor.logs.series import LogBuilder
from ckptdoctor.logs.text import LineReader
from ckptdoctor.model import JsonObject, TrainingLog

# What C and Python print for non-finite numbers and json.loads does not take: nan, -nan, inf, Inf
_BARE = re.compile(r"(?<=[:,\[\s])([+-]?)(nan|inf|infinity)(?=\s*[,}\]])", re.IGNORECASE)


def read_jsonl(path: str) -> TrainingLog:
    """Read a log of one JSON object a line. Lines that are none are skipped and counted.

    Raises:
        LogError: the file cannot be read.
    """
    log = LogBuilder(path, "jsonl")
    sink = RecordSink(log)
    reader = LineReader(path)
    position = 0
    bad = torn = 0
    for lines in reader:
        for line in lines:
            if not line or line.isspace():
                continue
            record = parse_line(line)
            torn = 0
            if record is None:
                bad += 1
                torn = 1
                continue
            sink.take(record, position)
            position += 1
    if torn and reader.unterminated:
        log.note("the last line is torn: the program was stopped while writing it")
        bad -= 1
    if bad:
        log.note("lines that are not a JSON object were skipped", bad)
    if reader.overlong:
        log.note("lines longer than a megabyte were cut", reader.overlong)
    return log.build()


def parse_line(line: bytes) -> JsonObject | None:
    """The JSON object on a line, or None."""
    if b"{" not in line:
        return None
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        text = line.decode("utf-8", "replace")
        fixed = _BARE.sub(lambda m: m[1].replace("+", "") + "Infinity" if m[2][0] in "iI" else "NaN", text)
        if fixed == text:
            return None
        try:
            value = json.loads(fixed)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) else None
