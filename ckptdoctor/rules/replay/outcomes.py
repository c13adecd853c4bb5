"""The outcomes of experiments as three classes, and questions about their pattern."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum

from ckptdoctor.model import Experiment, Replay


class Outcome(str, Enum):
    """What one change did."""

    HEALS = "heals"  # learns again, or the failure is gone and learning could not be judged
    FINITE = "finite"  # the failure is gone but the model does not learn
    FAILS = "fails"
    UNTOLD = "untold"  # not run, or not decidable


def outcome(experiment: Experiment) -> Outcome:
    """The class of one experiment."""
    if experiment.removes_failure is False:
        return Outcome.FAILS
    if experiment.learns is True:
        return Outcome.HEALS
    if experiment.learns is False:
        return Outcome.FINITE
    return Outcome.HEALS if experiment.removes_failure is True else Outcome.UNTOLD


class Pattern:
    """The experiments of one replay, by family."""

    def __init__(self, replay: Replay) -> None:
        self.experiments: tuple[Experiment, ...] = replay.experiments

    def of(self, *prefixes: str) -> tuple[Experiment, ...]:
        """Experiments whose key starts with one of these."""
        return tuple(e for e in self.experiments if e.key.startswith(prefixes))

    def best(self, *prefixes: str) -> Outcome:
        """The best outcome of a family."""
        return _best(outcome(e) for e in self.of(*prefixes))

    def heals(self, *prefixes: str) -> bool:
        """Whether one of the family heals."""
        return self.best(*prefixes) is Outcome.HEALS

    def healing(self, *prefixes: str) -> Experiment | None:
        """The first of the family that heals, best score first."""
        found = [e for e in self.of(*prefixes) if outcome(e) is Outcome.HEALS]
        return max(found, key=lambda e: e.score if e.score is not None else 0.0, default=None)

    def tried(self, *prefixes: str) -> bool:
        """Whether one of the family was run to a result."""
        return any(outcome(e) is not Outcome.UNTOLD for e in self.of(*prefixes))

    def any_heals(self) -> bool:
        """Whether any experiment heals."""
        return any(outcome(e) is Outcome.HEALS for e in self.experiments)


def _best(outcomes: Iterable[Outcome]) -> Outcome:
    order: Sequence[Outcome] = (Outcome.UNTOLD, Outcome.FAILS, Outcome.FINITE, Outcome.HEALS)
    return max(outcomes, key=order.index, default=Outcome.UNTOLD)
