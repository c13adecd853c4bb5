"""One inspection: `python -m tests.evaluation.worker RUN OUT replay|no-replay [MODULE]` writes the JSON document to OUT."""

from __future__ import annotations

import sys
from pathlib import Path


def main(run: str, out: str, replay: str, *modules: str) -> int:
    """Returns 0, or 2 where there is no report; the reason goes to standard error."""
    from ckptdoctor.api import InspectOptions, inspect
    from ckptdoctor.model import CkptDoctorError
    from ckptdoctor.report import render

    try:
        options = InspectOptions(
            replay=None if replay == "replay" else False, custom_objects=modules[0] if modules else None
        )
        report = inspect([run], options)
        document = render(report, "json")
    except CkptDoctorError as error:
        print(error, file=sys.stderr)
        return 2
    partial = Path(out + ".partial")
    partial.write_text(document)
    partial.rename(out)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
