"""Requests for the runs that `replay_scenarios.py` makes, through the same stages that `inspect` uses."""

import functools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from ckptdoctor.api import InspectOptions
from ckptdoctor.discover import discover
from ckptdoctor.evidence.gather import gather
from ckptdoctor.replay import request_from, run_replay

HERE = Path(__file__).parent


def silent(_text):
    return None


def make_runs(folder, *names):
    """Build runs in a process of its own."""
    done = subprocess.run(
        [sys.executable, str(HERE / "replay_scenarios.py"), str(folder), *names],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def request_for(run, *, options=None, **changes):
    """What `inspect` would ask replay to do about a run directory."""
    options = options or InspectOptions(replay=False)
    evidence = gather(discover([str(run)]), options, silent)
    return replace(request_from(evidence, options), **changes)


def replayed(run, *, progress=silent, **changes):
    """The replay of a run directory; without experiments unless asked for."""
    return run_replay(request_for(run, **{"experiments": False, **changes}), progress=progress)


@functools.cache
def once(run, **changes):
    """The same, made once per run and options."""
    return replayed(run, **changes)
