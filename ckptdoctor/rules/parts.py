"""Typed access to the parts of the evidence that a rule said it needs."""

from __future__ import annotations

from ckptdoctor.model import (
    Batches,
    Cause,
    Census,
    CompileSpec,
    Evidence,
    Fingerprint,
    LossSpec,
    ModelSpec,
    OptimizerSpec,
    OptimizerState,
    Replay,
    Timeline,
    TrainingLog,
    Vote,
)


def census_of(evidence: Evidence) -> Census:
    """The census of the checkpoint in question."""
    assert isinstance(evidence.census, Census)
    return evidence.census


def spec_of(evidence: Evidence) -> ModelSpec:
    """The model."""
    assert isinstance(evidence.spec, ModelSpec)
    return evidence.spec


def fingerprint_of(evidence: Evidence) -> Fingerprint:
    """The geometry of the non-finite entries."""
    assert isinstance(evidence.fingerprint, Fingerprint)
    return evidence.fingerprint


def optimizer_of(evidence: Evidence) -> OptimizerState:
    """The optimizer's state."""
    assert isinstance(evidence.optimizer, OptimizerState)
    return evidence.optimizer


def timeline_of(evidence: Evidence) -> Timeline:
    """The checkpoints over time."""
    assert isinstance(evidence.timeline, Timeline)
    return evidence.timeline


def logs_of(evidence: Evidence) -> tuple[TrainingLog, ...]:
    """All logs, most informative first."""
    assert isinstance(evidence.logs, tuple)
    return evidence.logs


def batches_of(evidence: Evidence) -> Batches:
    """The last batches."""
    assert isinstance(evidence.batches, Batches)
    return evidence.batches


def replay_of(evidence: Evidence) -> Replay:
    """What replay showed."""
    assert isinstance(evidence.replay, Replay)
    return evidence.replay


def maybe_spec(evidence: Evidence) -> ModelSpec | None:
    """The model, where it is known."""
    return evidence.spec if isinstance(evidence.spec, ModelSpec) else None


def compile_of(spec: ModelSpec | None) -> CompileSpec | None:
    """What `compile` was given, where it was recorded."""
    return spec.compile if spec is not None and isinstance(spec.compile, CompileSpec) else None


def optimizer_spec_of(spec: ModelSpec | None) -> OptimizerSpec | None:
    """The configured optimizer, where it was recorded."""
    compiled = compile_of(spec)
    return compiled.optimizer if compiled is not None and isinstance(compiled.optimizer, OptimizerSpec) else None


def losses_of(spec: ModelSpec | None) -> tuple[LossSpec, ...]:
    """The configured losses; empty where none was recorded."""
    compiled = compile_of(spec)
    return compiled.losses if compiled is not None else ()


def votes(*triples: tuple[Cause, float, str]) -> tuple[Vote, ...]:
    """Votes from (cause, log-odds, reason)."""
    return tuple(Vote(cause, weight, reason) for cause, weight, reason in triples)
