"""`python -m tests.fuzz --inputs 20000`: no traceback, no signal, none over 20 s or 512 MiB.

Every input follows from the seed and its number: `--one NUMBER --keep DIR` makes it again and keeps the file.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.fuzz.inputs import KINDS, make
from tests.fuzz.pool import Tally, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--seed", type=int, default=8)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", choices=sorted(KINDS), help="one kind of file")
    parser.add_argument("--one", type=int, metavar="NUMBER", help="make this input again and try it alone")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="with --one: where to leave the file")
    given = parser.parse_args()
    if given.one is not None:
        return _one(given)
    tally = run(given.inputs, given.seed, jobs=given.jobs, only=given.only, first=given.first, progress=_Bar())
    kinds = ", ".join(f"{n:,} {kind}" for kind, n in tally.kinds.most_common())
    print(f"\n{tally.tried:,} inputs in {tally.seconds:.0f} s ({kinds})")
    print(f"slowest {tally.slowest:.1f} s, most memory {tally.highest} MiB, {len(tally.wrong)} wrong")
    return int(bool(tally.wrong))


def _one(given: argparse.Namespace) -> int:
    from tests.fuzz.attempt import attempt

    room = given.keep or Path(f"fuzz-{given.seed}-{given.one}")
    room.mkdir(parents=True)
    made = make(given.seed, given.one, room, given.only)
    print(f"{made.kind} of {made.source}: {made.path}")
    wrong = attempt(made)
    print("\n".join(wrong) or "nothing wrong")
    return int(bool(wrong))


class _Bar:
    """A line every ten seconds, and every fault as it is found."""

    def __init__(self) -> None:
        self._told, self._next = 0, time.monotonic() + 10

    def __call__(self, tally: Tally) -> None:
        for words in tally.wrong[self._told :]:
            print(words, flush=True)
        self._told = len(tally.wrong)
        if time.monotonic() > self._next:
            self._next = time.monotonic() + 10
            print(f"… {tally.tried:,} tried, {len(tally.wrong)} wrong", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
