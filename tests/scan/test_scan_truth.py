"""2,000 checkpoints of which 40 are sick in different ways: all of them are found, none of the others is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from making_checkpoints import Template, keras_template, weights_template, write

from ckptdoctor.model import Status
from ckptdoctor.scanner import ScanResult, scan

WEIGHTS = tuple(f"layers/{layer}/vars/{i}" for layer in ("dense", "dense_1", "dense_2") for i in (0, 1))
SLOTS = tuple(f"optimizer/vars/{n}" for n in range(2, 14))


def one_entry(template: Template, name: str, value: float) -> np.ndarray:
    tensor = template.tensor(name)
    tensor.flat[tensor.size // 2] = value
    return tensor


def row(template: Template, name: str, index: int) -> np.ndarray:
    tensor = template.tensor(name)
    tensor[index] = np.nan
    return tensor


def column(template: Template, name: str, index: int) -> np.ndarray:
    tensor = template.tensor(name)
    tensor[:, index] = np.nan
    return tensor


def sicknesses(template: Template) -> list[bytes]:
    """40 ways, no two alike."""
    ways: list[dict[str, np.ndarray | float]] = []
    ways += [{name: one_entry(template, name, np.nan)} for name in WEIGHTS]
    ways += [{name: one_entry(template, name, np.inf)} for name in WEIGHTS]
    ways += [{name: -np.inf} for name in WEIGHTS]
    ways += [{name: np.nan} for name in SLOTS[1::2]]
    ways += [{name: one_entry(template, name, np.inf)} for name in SLOTS[::2]]
    ways += [dict.fromkeys((*WEIGHTS, *SLOTS), np.nan), dict.fromkeys(WEIGHTS, np.nan), dict.fromkeys(SLOTS, np.nan)]
    ways += [{"optimizer/learning_rate": np.nan}, {"optimizer/learning_rate": np.inf}]
    ways += [{WEIGHTS[0]: row(template, WEIGHTS[0], n)} for n in (0, 4)]
    ways += [{WEIGHTS[0]: column(template, WEIGHTS[0], 2)}, {WEIGHTS[2]: column(template, WEIGHTS[2], 5)}]
    ways += [{WEIGHTS[0]: np.nan, WEIGHTS[5]: np.inf}]
    assert len(ways) == 40
    return [template.patched(way) for way in ways]


def healthy(template: Template, rng: np.random.Generator) -> bytes:
    """Another healthy state of the same model, at another step."""
    values = {name: template.tensor(name) * np.float32(rng.uniform(0.5, 1.5)) for name in WEIGHTS}
    return template.stepped(template.patched(values), int(rng.integers(1, 10_000)))


def test_all_of_40_are_found_among_2000_and_nothing_else_is_named(tmp_path: Path):
    rng = np.random.default_rng(7)
    archives, weights = keras_template(), weights_template()
    sick = sicknesses(archives)[:30] + sicknesses(weights)[30:]
    places = set(rng.choice(2000, 40, replace=False).tolist())
    truth: set[str] = set()
    for number in range(2000):
        folder = tmp_path / f"team_{number % 7}/run_{number % 40:02d}/checkpoints"
        if number in places:
            data = sick.pop()
            template = weights if len(sick) >= 30 else archives
        else:
            template = weights if number % 3 == 0 else archives
            data = healthy(template, rng)
        path = write(folder / f"c_{number:04d}{template.suffix}", data, age=4000 - number)
        if number in places:
            truth.add(str(path))
    report = scan(tmp_path, resume=tmp_path / "results.jsonl")
    found = {status: set[str]() for status in Status}
    for result in report:
        assert isinstance(result, ScanResult)
        found[result.status].add(result.path)
    assert found[Status.SICK] == truth
    assert found[Status.UNREADABLE] == set()
    assert len(found[Status.HEALTHY]) == 1960
    assert report.exit_status() == 1
    assert {run.run for run in report.sick_runs} == {path.rpartition("/checkpoints/")[0] for path in truth}
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert len(lines) == 2000
