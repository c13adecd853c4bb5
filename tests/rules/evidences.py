"""Evidence that the rules of several families are tried on."""

from __future__ import annotations

import math

from making import array, batches, census, evidence, layer, log, loss, replay, series, spec, tensor

from ckptdoctor.model import Cause, Displacement, Experiment
from ckptdoctor.model.replay import Skill

BAD = census(tensor(nan=5))
NAN = math.nan
STUCK = (2.303, 2.302, 2.303, 2.301, 2.302, 2.303, 2.302, 2.302)
CLASSIFIER = spec(
    layer("h"), layer("out", units=10, activation="softmax"), loss=loss("sparse_categorical_crossentropy")
)
BINARY = spec(layer("h"), layer("out", units=1, activation="sigmoid"), loss=loss("binary_crossentropy"))
RELU_HEAD = spec(layer("h"), layer("out", units=1, activation="relu"))
NO_SKILL = Skill(0.0, loss=2.303, trivial_loss=2.303)
IDS_LOSS = loss("sparse_categorical_crossentropy")


def deep(n: int, activation: str = "relu", *, norm: bool = False, **changes):
    """A model of `n` hidden layers with this activation and a linear head; `norm` puts a normalisation before it."""
    return spec(
        *[layer(f"h{i}", activation=activation) for i in range(n)],
        *([layer("bn", "BatchNormalization", activation=None)] if norm else []),
        layer("out", units=1, activation="linear"),
        **changes,
    )


def classes(n: int = 10, **changes):
    """Targets that are the ids of `n` classes, each of them as often as the others."""
    return array(
        "y",
        "target",
        min=0.0,
        max=n - 1.0,
        mean=(n - 1) / 2,
        std=2.0,
        integral=True,
        classes=tuple((float(i), 25) for i in range(n)),
        **changes,
    )


def stuck(**parts):
    """A finite run whose loss stays at that of an even guess over ten classes."""
    fields = {
        "census": census(iterations=400),
        "spec": CLASSIFIER,
        "logs": log(series(values=STUCK)),
        "batches": batches(y=classes()),
    }
    return evidence(**(fields | parts))


def went(*relative: float):
    """Displacements of kernels of size 0.5."""
    return tuple(Displacement(f"layers/h{n}", f"h{n}", "kernel", 0.5 * r, 0.5) for n, r in enumerate(relative))


def experiment(key: str, cause: Cause, *, removes: bool | None = True, learns: bool | None = True) -> Experiment:
    """A change that replay tried for this cause: whether it removes the failure, and whether the run learns with it."""
    return Experiment(key, key, cause, "", removes, learns, 50, 50, 1.0, 0.1)


def standing_still(**changes):
    """The same run, replayed: it knows no more than a constant does."""
    parts = {key: changes.pop(key) for key in ("spec", "batches") if key in changes}
    return stuck(replay=replay(**({"skill": NO_SKILL} | changes)), **parts)
