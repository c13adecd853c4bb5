"""The case book: what it holds, how skill is measured, and two cases made for real."""

import json
import math
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from ckptdoctor.checkpoints import open_checkpoint
from ckptdoctor.logs import read_log
from ckptdoctor.model import FAULTS
from fixtures.casebook.measured import kept_epochs, skill
from fixtures.casebook.spec import half_of

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "fixtures" / "casebook" / "sample"
REPORTED = ("rep_", "bench_")


def casebook(*arguments: str) -> str:
    """Standard output of `python -m fixtures.casebook`, in a process of its own because it imports Keras."""
    command = [sys.executable, "-m", "fixtures.casebook", *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


@pytest.fixture(scope="module")
def listing() -> list[dict[str, str]]:
    """Name, category, half and family of every case."""
    rows = [line.split(maxsplit=3) for line in casebook("--list").splitlines()]
    return [dict(zip(("name", "category", "half", "family"), row, strict=True)) for row in rows]


def test_every_cause_has_cases_in_both_halves_and_both_reported_ones(listing):
    halves = defaultdict(set)
    for row in listing:
        halves[row["category"]].add(row["half"])
    assert {name: found - {"d"} for name, found in halves.items()} == {
        name: {"a", "b", "c"} for name in (*(c.value for c in FAULTS), "healthy")
    }
    assert sum("d" in found for found in halves.values()) >= 11


def test_halves_a_and_b_are_those_they_always_were():
    families = ("far too large for SGD", "percent for a sigmoid", "just above the stable step")
    assert [half_of(family) for family in families] == ["b", "a", "a"]
    assert half_of("one story") in "ab"
    assert half_of("one story", reported=True) in "cd"


def test_the_reported_cases_are_many_and_most_name_who_reported_them(listing):
    reported = [row for row in listing if row["name"].startswith(REPORTED)]
    faulty = {row["family"] for row in reported if row["category"] != "healthy"}
    assert {row["half"] for row in reported} == {"c", "d"}
    assert len(faulty) >= 36
    assert sum(row["category"] == "healthy" for row in reported) >= 20
    assert all(family.startswith("reported: ") for family in faulty)


def test_there_are_at_least_sixty_faults_and_each_cause_has_several_stories(listing):
    families = defaultdict(set)
    for row in listing:
        families[row["category"]].add(row["family"])
    faulty = [row for row in listing if row["category"] != "healthy"]
    assert len(faulty) >= 60
    assert min(len(families[c.value]) for c in FAULTS) >= 6


OPENED = (
    "rep_",
    "issue_",
    "post_",
    "case_",
    "found_",
    "asked_",
    "filed_",
    "odd_",
    "told_",
    "seen_",
    "plain_",
    "daily_",
    "late_",
)  # the lots of reported cases that were opened after their count


def test_a_family_is_of_one_cause_and_in_one_half(listing):
    seen = defaultdict(set)
    for row in listing:
        seen[row["family"]].add((row["category"], row["half"]))
    assert all(len(pairs) == 1 for pairs in seen.values())
    opened = [row for row in listing if row["name"].startswith(OPENED)]
    assert {"c"} == {row["half"] for row in opened}
    others = [row for row in listing if row not in opened]
    assert all(row["half"] == half_of(row["family"], reported=row["name"].startswith("bench_")) for row in others)


@pytest.mark.parametrize(
    ("rhythm", "kept"),
    [
        ("every", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ("second", [0, 2, 4, 6, 8, 9]),
        ("ends", [0, 9]),
        ("late", [7, 8, 9]),
        ("thinned", [0, 1, 3, 6, 7, 8, 9]),
        ("best", [1, 2, 5]),
    ],
)
def test_save_rhythms(rhythm, kept):
    assert sorted(kept_epochs(rhythm, 9, [5.0, 3.0, 4.0, 3.5, 1.0, 2.0, 2.0, 2.0, 2.0])) == kept


def test_nothing_is_ever_better_than_a_nan():
    assert kept_epochs("best", 3, [math.nan, 1.0, 0.5]) == {1}


def test_skill_is_one_for_all_and_zero_for_a_constant_answer():
    y = np.array([0, 0, 0, 1, 2, 2])
    constant = np.tile([0.8, 0.1, 0.1], (6, 1))
    assert skill("classes", np.eye(3)[y], y, []) == pytest.approx(1.0)
    assert skill("classes", constant, y, []) == pytest.approx(0.0)
    assert skill("classes", constant, np.eye(3)[y], []) == pytest.approx(0.0)


def test_skill_of_a_regression_is_the_share_of_variance_and_ignores_missing_targets():
    y = np.array([[1.0], [2.0], [np.nan], [3.0]])
    assert skill("regression", np.array([[1.0], [2.0], [9.0], [3.0]]), y, []) == pytest.approx(1.0)
    assert skill("regression", np.full((4, 1), 2.0), y, []) == pytest.approx(0.0)


def test_skill_of_a_loss_is_the_share_by_which_it_fell():
    assert skill("loss", np.zeros((1, 1)), np.zeros((1, 1)), [4.0, 1.0]) == pytest.approx(0.75)
    assert skill("loss", np.zeros((1, 1)), np.zeros((1, 1)), [4.0, math.nan]) == -math.inf


def test_predictions_that_are_not_finite_show_no_skill():
    assert skill("regression", np.array([[np.nan]]), np.array([[1.0]]), []) == -math.inf


@pytest.mark.replay
def test_cases_are_made_with_their_twin_and_a_truth_that_was_measured(tmp_path):
    casebook("--only", "lr_sgd_dense", "--only", "linear_model", "--out", str(tmp_path))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["linear_model", "lr_sgd_dense", "lr_sgd_dense__fixed"]
    truth = json.loads((tmp_path / "lr_sgd_dense" / "truth.json").read_text())
    assert (truth["category"], truth["symptom_shown"], truth["fix_verified"]) == ("learning_rate", True, True)
    assert truth["buggy"]["first_bad"]["epoch"] == 1
    assert truth["fixed"]["skill"] > 0.6
    twin = json.loads((tmp_path / "lr_sgd_dense__fixed" / "truth.json").read_text())
    assert (twin["category"], twin["half"]) == ("healthy", truth["half"])


SAMPLES = sorted(path.name for path in SAMPLE.iterdir()) if SAMPLE.exists() else []


def test_a_small_part_of_the_book_is_committed():
    assert len(SAMPLES) >= 6
    assert sum(p.stat().st_size for p in SAMPLE.rglob("*") if p.is_file()) < 1_500_000


@pytest.mark.parametrize("name", SAMPLES)
def test_a_committed_run_shows_what_its_truth_says(name):
    truth = json.loads((SAMPLE / name / "truth.json").read_text())
    last = max((SAMPLE / name / "checkpoints").iterdir())
    with open_checkpoint(last) as checkpoint:
        values = [t.load() for t in checkpoint.tensors if t.info.dtype == "float32" and t.info.size]
    assert any(not np.isfinite(v).all() for v in values) == truth["buggy"]["nanw"]
    log = next(p for p in (SAMPLE / name).iterdir() if p.suffix in {".csv", ".log"} or p.name == "history.json")
    loss = read_log(log).find("loss")
    assert loss is not None
    assert (loss.nonfinite > 0) == truth["buggy"]["nanloss"]
    with np.load(SAMPLE / name / "last_batches.npz", allow_pickle=False) as batches:
        assert (
            any(
                not np.isfinite(batches[k]).all() for k in batches if k.startswith("x") and batches[k].dtype.kind == "f"
            )
            == truth["last_batches_nonfinite"]["x"]
        )
