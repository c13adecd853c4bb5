"""Rules on the file itself, damaged or hostile (CKD7xx): each fires, and stays silent on a near miss."""

from __future__ import annotations

import pytest
from making import census, evidence
from table import Row, fires, stays_silent

from ckptdoctor.model import Problem, ProblemKind, Severity


def config(*layers: dict, **compile_config) -> object:
    return evidence(
        census=census(
            model_config={
                "class_name": "Sequential",
                "module": "keras",
                "config": {"name": "m", "layers": list(layers)},
            },
            compile_config=compile_config or {"loss": "mse"},
        )
    )


def dense(module: str = "keras.layers", class_name: str = "Dense", **changes) -> dict:
    return {
        "module": module,
        "class_name": class_name,
        "config": {"name": "d", "units": 4} | changes,
        "registered_name": None,
    }


ROWS = [
    Row(
        "CKD701",
        lambda: evidence(census=census(problems=(Problem(ProblemKind.DAMAGED, "cut off"),))),
        lambda: evidence(census=census(problems=(Problem(ProblemKind.UNSUPPORTED, "a filter"),))),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD702",
        lambda: evidence(census=census(problems=(Problem(ProblemKind.HOSTILE, "external storage"),))),
        lambda: evidence(census=census()),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD703",
        lambda: config(dense(class_name="Lambda")),
        lambda: config(dense()),
        severity=Severity.WARNING,
        says="CVE-2024-3660",
    ),
    Row("CKD704", lambda: config(dense("os", "system")), lambda: config(dense()), severity=Severity.ERROR),
    Row(
        "CKD705",
        lambda: config(dense(enable_unsafe_deserialization=True)),
        lambda: config(dense()),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD706",
        lambda: config(dense(class_name="StringLookup", vocabulary="http://example.org/words")),
        lambda: config(dense(class_name="StringLookup", vocabulary="words.txt")),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD707",
        lambda: config(dense(class_name="StringLookup", vocabulary="words.txt")),
        lambda: config(dense(class_name="StringLookup", vocabulary=["a", "b"])),
        severity=Severity.WARNING,
    ),
    Row("CKD708", lambda: config(dense(units=10**12)), lambda: config(dense(units=10**6)), severity=Severity.ERROR),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.code)
def test_fires(row: Row):
    fires(row)


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.code)
def test_stays_silent_on_a_near_miss(row: Row):
    stays_silent(row)
