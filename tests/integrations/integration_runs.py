"""What the tests of integrations share: a run to look at, and the command line in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SICK = ROOT / "fixtures" / "runs" / "nan_feature"
HEALTHY = ROOT / "fixtures" / "runs" / "dense_healthy"
_OURS = ("MLFLOW_", "WANDB_", "GITHUB_", "INPUT_", "COLUMNS")


def environment(**more: object) -> dict[str, str]:
    """This environment without what would lead somewhere else, and with the checkout on the path."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(_OURS)}
    return {**kept, "PYTHONPATH": str(ROOT), **{k: str(v) for k, v in more.items()}}


def ckptdoctor(*arguments: object, cwd: Path, **variables: object) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    return subprocess.run(
        [sys.executable, "-m", "ckptdoctor.cli", *map(str, arguments)],
        cwd=cwd,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def program(folder: Path) -> Path:
    """A directory for PATH in which `ckptdoctor` is the checkout's, run by this interpreter."""
    folder.mkdir(exist_ok=True)
    path = folder / "ckptdoctor"
    path.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m ckptdoctor.cli "$@"\n')
    path.chmod(0o755)
    return folder
