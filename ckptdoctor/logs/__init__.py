"""Training logs of every kind, read as streams: `read_log` finds the format by content."""

from ckptdoctor.logs.detect import detect_log, read_log
from ckptdoctor.logs.series import LogError, SeriesBuilder

__all__ = ["LogError", "SeriesBuilder", "detect_log", "read_log"]
