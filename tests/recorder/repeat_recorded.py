"""Replays recorded runs as `inspect` does, all in one process: starting TensorFlow for each would take minutes.

`python repeat_recorded.py DIRECTORY` writes DIRECTORY/<run>.json for every run below it: what the replay found. The
environment is the one that `inspect` starts its child process in.
"""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from pathlib import Path

from ckptdoctor.discover import discover
from ckptdoctor.evidence.gather import gather
from ckptdoctor.options import InspectOptions
from ckptdoctor.replay.child import Reporter
from ckptdoctor.replay.failure import CannotReplay
from ckptdoctor.replay.request import request_from

OPTIONS = {
    "custom": {"build": "recorded_failures:build_for_custom"},
    "global_generator": {"custom_objects": "recorded_failures"},
    "own_step": {"custom_objects": "recorded_failures"},
}


def main(directory: str) -> None:
    from ckptdoctor.replay.course import replay

    for run in sorted(p for p in Path(directory).iterdir() if p.is_dir()):
        options = InspectOptions(replay=False, **OPTIONS.get(run.name, {}))
        evidence = gather(discover([str(run)]), options, lambda _: None)
        request = replace(request_from(evidence, options), experiments=False)
        said = io.StringIO()
        found: dict[str, object] = {"window_unused": request.window_unused}
        try:
            replay(request, Reporter(said))
        except CannotReplay as error:
            found["reason"] = str(error)
        for line in said.getvalue().splitlines():
            found |= json.loads(line).get("fields", {})
        Path(f"{run}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
