"""What is done with one input: everything that reads it, judges it and shows it. Whatever is wrong comes back as words."""

from __future__ import annotations

import traceback
from pathlib import Path

import ckptdoctor
from ckptdoctor.checkpoints import CheckpointError, TensorReadError, detect_format, open_checkpoint
from ckptdoctor.evidence.batches import BatchesError, open_batches
from ckptdoctor.logs import LogError, detect_log, read_log
from ckptdoctor.model import CkptDoctorError
from ckptdoctor.report import render
from tests.fuzz.inputs import Input

LOADED = 1 << 20  # bytes of a tensor that is read whole
FORMATS = ("text", "json", "markdown", "html", "junit", "github")


def attempt(given: Input) -> list[str]:
    """Sentences about what must not happen: a foreign exception, a crashed rule, an error of more than a line."""
    wrong: list[str] = []
    try:
        _read(given, wrong)
        _inspect(given, wrong)
    except Exception:  # noqa: BLE001 - the very thing that is looked for
        lines = traceback.format_exc().strip().splitlines()
        places = [line.strip() for line in lines if line.strip().startswith("File ") and "ckptdoctor/" in line]
        wrong.append(f"{lines[-1][:300]} at {places[-1] if places else lines[-2].strip()}")
    return wrong


def _read(given: Input, wrong: list[str]) -> None:
    if given.kind == "log":
        for path in sorted(p for p in (given.path, *given.path.rglob("*")) if p.exists()):
            detect_log(path)
            try:
                read_log(path)
            except LogError as error:
                _sentence(error, wrong)
    elif given.kind == "batches":
        try:
            with open_batches(given.path / "last_batches.npz") as batches:
                for _inputs, _targets, _weight, _step in batches:
                    pass
        except BatchesError as error:
            _sentence(error, wrong)
    else:
        _checkpoint(given.path, wrong)


def _checkpoint(path: Path, wrong: list[str]) -> None:
    detect_format(path)
    try:
        with open_checkpoint(path) as checkpoint:
            for stored in checkpoint.tensors:
                if stored.info.nbytes <= LOADED:
                    try:
                        stored.load()
                    except TensorReadError as error:
                        _sentence(error, wrong)
            if not 0.0 <= checkpoint.info.coverage <= 1.0:
                wrong.append(f"coverage of {checkpoint.info.coverage}")
    except CheckpointError as error:
        _sentence(error, wrong)


def _inspect(given: Input, wrong: list[str]) -> None:
    try:
        report = ckptdoctor.inspect(given.path, replay=False)
    except CkptDoctorError as error:
        _sentence(error, wrong)
        return
    wrong += [f"rule {f.rule} failed: {f.error[:300]}" for f in report.failures]
    for name in (FORMATS[given.number % len(FORMATS)], "json"):
        text = render(report, name)
        if "\x1b" in text or "\x00" in text:
            wrong.append(f"a control character in the {name} report")


def _sentence(error: Exception, wrong: list[str]) -> None:
    text = str(error)
    if not text or "\n" in text or len(text) > 4000:
        wrong.append(f"not one sentence: {text[:200]!r}")
