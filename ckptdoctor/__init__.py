"""Post-mortem of a training run, from the files it left behind."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ckptdoctor.api import Inspection as Inspection
    from ckptdoctor.api import InspectOptions as InspectOptions
    from ckptdoctor.api import inspect as inspect
    from ckptdoctor.recorder.flight import FlightRecorder as FlightRecorder
    from ckptdoctor.scanner import ScanReport as ScanReport
    from ckptdoctor.scanner import ScanResult as ScanResult
    from ckptdoctor.scanner import scan as scan

__version__ = "0.1.0"

_LAZY = {
    "InspectOptions": "ckptdoctor.api",
    "Inspection": "ckptdoctor.api",
    "inspect": "ckptdoctor.api",
    "FlightRecorder": "ckptdoctor.recorder.flight",  # needs TensorFlow, which `import ckptdoctor` must not
    "ScanReport": "ckptdoctor.scanner",
    "ScanResult": "ckptdoctor.scanner",
    "scan": "ckptdoctor.scanner",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
