"""What an inspection can be told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class InspectOptions:
    """What `inspect` can be told; the defaults are those of the command line.

    Attributes:
        log, batches: explicit files that override discovery.
        build: `MODULE:FUNCTION` returning the model, for weights-only files.
        custom_objects: module with the run's own classes and functions. It is imported, hence trusted.
        device: `auto`, `cpu`, `gpu`, `gpu:N`.
        replay: True, False, or None for "where batches were recorded and TensorFlow is installed".
        trust: replay configurations that would run code of their own. unsafe_lambda: Lambda layers too.
        steps: most training steps to replay. budget: seconds for experiments.
        select, ignore: rule codes (or prefixes) and names. thresholds: `CODE.name` to number.
        threads: for the census; None chooses.
        limits: other bounds on what a file may ask for, by the names in `ckptdoctor.checkpoints.limits.ReadLimits`.
    """

    log: tuple[str, ...] = ()
    batches: tuple[str, ...] = ()
    build: str | None = None
    custom_objects: str | None = None
    device: str = "auto"
    replay: bool | None = None
    trust: bool = False
    unsafe_lambda: bool = False
    steps: int = 400
    budget: float = 25.0
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    thresholds: Mapping[str, float] = field(default_factory=dict)
    threads: int | None = None
    limits: Mapping[str, float] = field(default_factory=dict)
