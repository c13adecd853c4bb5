"""A sample of the fuzzing that `python -m tests.fuzz` does at length, and what the harness itself promises."""

from __future__ import annotations

import hashlib

import pytest

from tests.fuzz import pool
from tests.fuzz.inputs import KINDS, make


def test_three_hundred_changed_files_give_a_result_or_a_sentence():
    tally = pool.run(300, seed=20_261_124)
    assert tally.wrong == []
    assert tally.tried == 300
    assert set(tally.kinds) == set(KINDS)
    assert tally.slowest <= pool.SLOWEST
    assert 0 < tally.highest <= pool.LARGEST


def digest(folder):
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return [(str(p.relative_to(folder)), hashlib.sha256(p.read_bytes()).hexdigest()) for p in files]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_an_input_follows_from_its_number(kind, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        make(5, 17, tmp_path / name, kind)
    assert digest(tmp_path / "a") == digest(tmp_path / "b") != []


def test_the_harness_tells_what_it_looks_for(tmp_path, monkeypatch):
    """A reader that lets a foreign exception through is named, with the place."""
    import tests.fuzz.attempt as module

    def broken(*_arguments, **_options):
        return {}["x"]

    monkeypatch.setattr(module, "detect_format", broken)
    wrong = module.attempt(make(5, 17, tmp_path, "keras"))
    assert len(wrong) == 1
    assert wrong[0].startswith("KeyError: 'x'")
