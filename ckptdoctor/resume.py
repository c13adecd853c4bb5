"""Where to go on from: a sound checkpoint, or new weights where no checkpoint holds anything worth keeping."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from ckptdoctor.model import Census, Evidence, Finding, Timeline

NOT_LEARNING = ("CKD601",)
"""Findings that say of a finite run that it never came to learn what it should."""


@dataclass(frozen=True, slots=True)
class Resume:
    """From where to continue.

    Attributes:
        path: of the checkpoint; None where training has to begin with new weights.
        reason: why, or why from none. untrained: the checkpoint was saved before the first step.
    """

    path: str | None
    reason: str
    untrained: bool = False

    @property
    def sentence(self) -> str:
        """What to do, in a sentence."""
        if self.path is None:
            return "Start again from new weights."
        return f"{'Start again' if self.untrained else 'Continue'} from {os.path.basename(self.path)}."


def where_to_resume(evidence: Evidence, findings: Sequence[Finding]) -> Resume | None:
    """The place to go on from, or None where no series of checkpoints was read.

    A run that stayed finite and did not learn has no better place than its beginning: its last checkpoint is finite, but
    was shaped by the fault (units that died stay dead, saturated ones stay saturated).
    """
    timeline = evidence.timeline
    if not isinstance(timeline, Timeline):
        return None
    chosen = timeline.points[timeline.resume_from] if timeline.resume_from is not None else None
    untrained = chosen is not None and isinstance(chosen.census, Census) and chosen.census.iterations == 0
    never_failed = timeline.first_bad is None and timeline.resume_from == timeline.last_healthy
    if chosen is not None and not untrained and never_failed and any(f.rule in NOT_LEARNING for f in findings):
        why = (
            f"{os.path.basename(chosen.path)} is finite, but the run did not learn and its weights carry what the fault did "
            "to them: start again from new weights, with the cause removed"
        )
        return Resume(None, why)
    if chosen is None:
        return Resume(None, timeline.resume_reason)
    return Resume(chosen.path, timeline.resume_reason, untrained)
