"""CKD129: optimizer settings that break training by themselves."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, OptimizerSpec, Severity
from ckptdoctor.rules.parts import optimizer_spec_of, spec_of, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule


@rule(
    code="CKD129",
    name="optimizer-settings",
    severity=Severity.WARNING,
    needs={"spec"},
    since="0.1.0",
    thresholds={
        "momentum": Threshold(
            0.99, unit="momentum", source="momentum m multiplies the effective rate by 1/(1-m): 100 at 0.99"
        ),
        "epsilon_low": Threshold(
            1e-12, unit="epsilon", source="squares below it are lost in float32 and the division fails"
        ),
        "epsilon_high": Threshold(
            1e-1, unit="epsilon", source="hand-chosen: larger than usual √v̂, the adaptivity is gone"
        ),
        "beta_1": Threshold(0.99, unit="beta_1", source="hand-chosen: usual 0.9"),
        "clip": Threshold(5e-3, unit="clip", source="hand-chosen: usual clips are 0.1 to 10"),
        "penalty": Threshold(0.05, unit="regularisation", source="hand-chosen: usual 1e-5 to 1e-2"),
        "weight_decay": Threshold(
            0.5, unit="weight decay", source="hand-chosen: times a rate of 0.001 weights halve in 1,400 steps"
        ),
    },
    doc="""
    ## What it finds
    A momentum, epsilon, beta or weight decay outside what can work.
    ## Why it matters
    A momentum of 0.99 multiplies steps by a hundred; an epsilon of zero divides 0 by 0 for weights without gradient; a
    huge one turns Adam into a very slow SGD.
    ## How to confirm
    Replay with the default value.
    ## How to fix
    Use the optimizer's default for that setting.
    ## References
    Keras' defaults; Kingma and Ba 2015.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    optimizer = optimizer_spec_of(spec_of(evidence))
    if optimizer is None:
        return
    for name, value, limit, weight, text in _odd(optimizer, limits):
        yield Finding(
            rule="CKD129",
            severity=Severity.WARNING,
            message=f"{optimizer.class_name} has {name} = {value:g}: {text}.",
            variable=name,
            measured=value,
            threshold=limit,
            unit=name,
            votes=votes((Cause.OPTIMIZER, weight, text)),
        )


def _odd(optimizer: OptimizerSpec, limits: Limits) -> Iterator[tuple[str, float, float, float, str]]:
    if optimizer.momentum is not None and optimizer.momentum >= limits["momentum"]:
        yield (
            "momentum",
            optimizer.momentum,
            limits["momentum"],
            2.5,
            "it multiplies the effective learning rate by 1/(1-momentum)",
        )
    if optimizer.epsilon is not None and optimizer.epsilon < limits["epsilon_low"]:
        yield "epsilon", optimizer.epsilon, limits["epsilon_low"], 3.0, "weights without gradient divide 0 by 0"
    if optimizer.epsilon is not None and optimizer.epsilon > limits["epsilon_high"]:
        yield (
            "epsilon",
            optimizer.epsilon,
            limits["epsilon_high"],
            2.5,
            "it outweighs the second moment, steps become tiny",
        )
    beta = optimizer.config.get("beta_1")
    if isinstance(beta, float) and beta > limits["beta_1"]:
        yield "beta_1", beta, limits["beta_1"], 1.5, "the mean gradient forgets too slowly"
    for name in ("clipnorm", "global_clipnorm", "clipvalue"):
        clip = getattr(optimizer, name)
        if isinstance(clip, float | int) and 0 <= clip < limits["clip"] and optimizer.class_name == "SGD":
            yield (
                name,
                float(clip),
                limits["clip"],
                3.0,
                "gradients are cut to almost nothing and SGD takes them as they are",
            )
    for name in ("l1_regularization_strength", "l2_regularization_strength"):
        strength = optimizer.config.get(name)
        if isinstance(strength, float) and strength > limits["penalty"]:
            yield name, strength, limits["penalty"], 2.5, "it pulls every weight to zero"
    decay = optimizer.config.get("weight_decay")
    if isinstance(decay, float) and decay > limits["weight_decay"]:
        yield "weight_decay", decay, limits["weight_decay"], 3.0, "weights are pulled to zero faster than they learn"
