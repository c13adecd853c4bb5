"""Copies of runs: without their truth, with other names, with less in them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ckptdoctor.checkpoints import open_checkpoint
from tests.evaluation.cases import find_cases, hidden_copy
from tests.evaluation.metamorphic import other_rate
from tests.evaluation.running import Setting, ask, module_of
from tests.evaluation.variants import rename_files, rename_layers

RUNS = Path(__file__).resolve().parents[2] / "fixtures" / "runs"


@pytest.fixture
def case(tmp_path):
    """The NaN fixture as a case with a truth."""
    folder = tmp_path / "cases" / "one"
    shutil.copytree(RUNS / "nan_feature", folder)
    (folder / "truth.json").write_text(json.dumps({"category": "data_nonfinite", "half": "b"}))
    return folder


def test_cases_are_found_in_a_folder_or_by_themselves(case):
    assert [c.name for c in find_cases([case.parent])] == ["one"]
    assert [c.name for c in find_cases([case])] == ["one"]
    assert find_cases([case], half="a") == []
    assert [c.name for c in find_cases([case], half="b", only=["o*"])] == ["one"]


def test_a_folder_without_cases_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no truth\.json"):
        find_cases([tmp_path])


def test_the_copy_does_not_hold_the_truth_or_the_name(case, tmp_path):
    copy = hidden_copy(case, tmp_path)
    assert not list(copy.rglob("truth.json"))
    assert "one" not in str(copy.relative_to(tmp_path))
    assert sorted(p.name for p in copy.iterdir()) == ["checkpoints", "last_batches.npz", "training_log.csv"]


@pytest.mark.parametrize(
    ("part", "left"),
    [
        ("log", ["checkpoints", "last_batches.npz"]),
        ("batches", ["checkpoints", "training_log.csv"]),
        ("history", ["checkpoints", "last_batches.npz", "training_log.csv"]),
    ],
)
def test_parts_can_be_left_out(case, tmp_path, part, left):
    copy = hidden_copy(case, tmp_path, without=(part,))
    assert sorted(p.name for p in copy.iterdir()) == left
    kept = sorted(p.name for p in (copy / "checkpoints").iterdir())
    assert kept[-1] == "epoch_003.keras"
    assert len(kept) == (1 if part == "history" else 4)


def test_files_get_other_names_in_the_same_order(case, tmp_path):
    copy = rename_files(hidden_copy(case, tmp_path), seed=3)
    folder = next(p for p in copy.iterdir() if p.is_dir())
    names = sorted(p.name for p in folder.iterdir())
    assert not any("epoch" in name for name in names)
    assert [int(name.split(".")[0].rsplit("-", 1)[-1]) for name in names] == [0, 1, 2, 3]


def test_layers_get_other_names_and_keep_their_values(case, tmp_path):
    copy = hidden_copy(case, tmp_path)
    mapping = rename_layers(copy, seed=3)
    assert sorted(mapping) == ["hidden", "out"]
    with (
        open_checkpoint(copy / "checkpoints" / "epoch_003.keras") as renamed,
        open_checkpoint(case / "checkpoints" / "epoch_003.keras") as original,
    ):
        for new, old in zip(renamed.tensors, original.tensors, strict=True):
            assert new.info.layer == mapping.get(old.info.layer, old.info.layer)
            np.testing.assert_array_equal(new.load(), old.load())
        names = [layer["config"]["name"] for layer in renamed.info.model_config["config"]["layers"]]
    assert names == ["inputs", mapping["hidden"], mapping["out"]]


def test_a_run_is_inspected_in_a_process_of_its_own(case):
    answer = ask(find_cases([case])[0], Setting("no replay", replay=False), timeout=120)
    assert answer.error == ""
    assert answer.document["verdict"]["cause"] == "data_nonfinite"


def test_a_run_that_takes_too_long_is_ended(case):
    answer = ask(find_cases([case])[0], Setting("no replay", replay=False), timeout=0.05)
    assert answer.document is None
    assert "no answer within" in answer.error


def test_verdicts_at_another_rate_are_compared_by_name(case, tmp_path, capsys):
    def made(folder, run, also=()):
        shutil.copytree(RUNS / run, tmp_path / folder / "one")
        truth = {"category": "data_nonfinite", "also_acceptable": list(also)}
        (tmp_path / folder / "one" / "truth.json").write_text(json.dumps(truth))
        return find_cases([tmp_path / folder])

    options = {"replay": False, "jobs": 1, "timeout": 120.0}
    assert other_rate(find_cases([case.parent]), made("same", "nan_feature"), **options) == 0
    assert "0 verdicts of 1 changed" in capsys.readouterr().out
    assert other_rate(find_cases([case.parent]), made("other", "dense_healthy"), **options) == 1
    assert "one: another rate: sick/data_nonfinite" in capsys.readouterr().out


def test_the_code_of_a_case_is_found_in_the_book():
    assert "fixtures.casebook.cases.loss_function" == module_of("focal_log_zero")
    assert "fixtures.casebook.cases.loss_function" == module_of("focal_log_zero__fixed")
    with pytest.raises(ValueError, match="no case of the book"):
        module_of("nobody")
