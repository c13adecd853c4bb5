"""What belongs together: files and run directories as people leave them."""

import json
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from ckptdoctor.discover import discover, order_numbers
from ckptdoctor.model import CkptDoctorError

LOGS = Path(__file__).parents[1] / "fixtures" / "logs"


def checkpoint(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["layers/dense/vars/0"] = np.ones((2, 2), "f4")
    return str(path)


def run_directory(folder: Path, epochs: int = 3) -> Path:
    for epoch in range(epochs):
        checkpoint(folder / "checkpoints" / f"epoch_{epoch:03d}.weights.h5")
    (folder / "training_log.csv").write_text("epoch,loss\n0,1.0\n")
    np.savez(folder / "last_batches.npz", x=np.zeros((2, 4, 3)), y=np.zeros((2, 4)))
    return folder


def short(paths, base: Path):
    return [str(Path(p).relative_to(base)) for p in paths]


def test_a_run_directory(tmp_path):
    run = run_directory(tmp_path / "run")
    (run / "notes.md").write_text("# hello")
    files = discover([str(run)])
    assert short(files.checkpoints, run) == [f"checkpoints/epoch_{e:03d}.weights.h5" for e in range(3)]
    assert short(files.logs, run) == ["training_log.csv"]
    assert short(files.batches, run) == ["last_batches.npz"]
    assert [(Path(i.path).name, i.reason) for i in files.ignored] == [
        ("notes.md", "not a checkpoint, a training log or recorded batches")
    ]
    assert files.path == str(run)


def test_every_kind_of_log_in_one_directory(tmp_path):
    run = run_directory(tmp_path)
    shutil.copytree(LOGS / "keras3" / "tensorboard_healthy", run / "tb")
    shutil.copy(LOGS / "keras3" / "console_healthy_verbose1.txt", run / "train.log")
    shutil.copy(LOGS / "keras3" / "history_healthy.json", run / "history.json")
    shutil.copytree(LOGS / "mlflow" / "mlruns", run / "mlruns")
    logs = short(discover([str(run)]).logs, run)
    assert logs[:4] == ["training_log.csv", "history.json", "tb", logs[3]]
    assert logs[3].startswith("mlruns/")
    assert logs[4:] == ["train.log"]


def test_names_do_not_matter_content_does(tmp_path):
    checkpoint(tmp_path / "whatever")
    shutil.copy(LOGS / "keras3" / "csvlogger_nan.csv", tmp_path / "output.txt")
    files = discover([str(tmp_path)])
    assert short(files.checkpoints, tmp_path) == ["whatever"]
    assert short(files.logs, tmp_path) == ["output.txt"]


def test_numbers_in_names_give_the_order(tmp_path):
    for name in ("m_epoch10", "m_epoch9", "m_epoch1", "final"):
        checkpoint(tmp_path / f"{name}.weights.h5")
    assert [Path(c).name for c in discover([str(tmp_path)]).checkpoints] == [
        "m_epoch1.weights.h5",
        "m_epoch9.weights.h5",
        "m_epoch10.weights.h5",
        "final.weights.h5",
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("epoch_003.keras", (3, None)),
        ("epoch_002_step_00000112.keras", (2, 112)),
        ("weights.07-0.53.hdf5", (7, None)),
        ("ckpt-12", (12, None)),
        ("model_step500.h5", (None, 500)),
        ("1-nan-nan.keras", (1, None)),
        ("cp-0005.weights.h5", (5, None)),
        ("best.keras", (None, None)),
        ("resnet50_epoch=4-val=0.12.keras", (4, None)),
    ],
)
def test_what_a_name_tells(name, expected):
    assert order_numbers(f"/runs/2024/{name}") == expected


def test_a_single_checkpoint_in_its_run_directory_brings_the_run_along(tmp_path):
    run = run_directory(tmp_path / "run")
    files = discover([str(run / "checkpoints" / "epoch_001.weights.h5")])
    assert len(files.checkpoints) == 3
    assert short(files.logs, run) == ["training_log.csv"]
    assert short(files.batches, run) == ["last_batches.npz"]


def test_a_single_checkpoint_among_strangers_stays_alone(tmp_path):
    for name in ("model1", "model2", "resnet"):
        checkpoint(tmp_path / f"{name}.weights.h5")
    shutil.copy(LOGS / "keras3" / "csvlogger_nan.csv", tmp_path / "log.csv")
    files = discover([str(tmp_path / "resnet.weights.h5")])
    assert short(files.checkpoints, tmp_path) == ["resnet.weights.h5"]
    assert files.logs == ()
    assert any("several models" in i.reason for i in files.ignored)


def test_a_single_checkpoint_with_a_log_beside_it(tmp_path):
    checkpoint(tmp_path / "model.weights.h5")
    shutil.copy(LOGS / "keras3" / "csvlogger_nan.csv", tmp_path / "log.csv")
    files = discover([str(tmp_path / "model.weights.h5")])
    assert (short(files.checkpoints, tmp_path), short(files.logs, tmp_path)) == (["model.weights.h5"], ["log.csv"])


def test_explicit_choices_replace_what_was_found(tmp_path):
    run = run_directory(tmp_path / "run")
    other = tmp_path / "other.csv"
    other.write_text("epoch,loss\n0,1\n")
    np.savez(tmp_path / "b.npz", x=np.zeros((2, 4, 3)))
    files = discover([str(run)], logs=[str(other)], batches=[str(tmp_path / "b.npz")])
    assert (files.logs, files.batches) == ((str(other),), (str(tmp_path / "b.npz"),))
    reasons = {Path(i.path).name: i.reason for i in files.ignored}
    assert reasons == {
        "training_log.csv": "another log was named with --log",
        "last_batches.npz": "other batches were named with --batches",
    }


def test_logs_and_batches_may_stand_among_the_paths(tmp_path):
    run = run_directory(tmp_path)
    paths = [
        str(run / "checkpoints" / "epoch_001.weights.h5"),
        str(run / "training_log.csv"),
        str(run / "last_batches.npz"),
    ]
    files = discover(paths)
    assert (len(files.checkpoints), len(files.logs), len(files.batches)) == (1, 1, 1)


def test_directories_that_are_one_checkpoint(tmp_path):
    unzipped = tmp_path / "run" / "model.keras"
    unzipped.mkdir(parents=True)
    (unzipped / "config.json").write_text("{}")
    (unzipped / "metadata.json").write_text(json.dumps({"keras_version": "3.15.1"}))
    checkpoint(unzipped / "model.weights.h5")
    assert short(discover([str(tmp_path / "run")]).checkpoints, tmp_path) == ["run/model.keras"]
    assert discover([str(unzipped)]).checkpoints == (str(unzipped),)


def test_recorded_batches_in_a_directory(tmp_path):
    run = run_directory(tmp_path)
    (run / "last_batches.npz").unlink()
    (run / "last_batches").mkdir()
    for k in range(3):
        np.savez(run / "last_batches" / f"batches_{k:04d}.npz", x=np.zeros((1, 4, 3)), y=np.zeros((1, 4)))
    assert short(discover([str(run)]).batches, run) == ["last_batches"]


def test_a_whole_data_set_beside_the_last_batches_is_not_used(tmp_path):
    run = run_directory(tmp_path)
    np.savez(run / "data.npz", x=np.zeros((100, 3)), y=np.zeros(100))
    files = discover([str(run)])
    assert short(files.batches, run) == ["last_batches.npz"]
    assert ("data.npz", "another set of batches was used") in [(Path(i.path).name, i.reason) for i in files.ignored]


def test_hidden_directories_links_and_loops(tmp_path):
    run = run_directory(tmp_path / "run")
    checkpoint(run / ".trash" / "epoch_099.weights.h5")
    (run / "loop").symlink_to(run)
    (run / "gone").symlink_to(tmp_path / "nowhere")
    files = discover([str(run)])
    assert len(files.checkpoints) == 3
    assert any("link to a directory" in i.reason for i in files.ignored)


def test_too_deep_is_told(tmp_path):
    deep = tmp_path
    for level in range(20):
        deep = deep / f"d{level}"
    checkpoint(deep / "epoch_1.weights.h5")
    checkpoint(tmp_path / "epoch_0.weights.h5")
    files = discover([str(tmp_path)])
    assert len(files.checkpoints) == 1
    assert any("directories deep" in i.reason for i in files.ignored)


def test_many_files_are_bounded(tmp_path, monkeypatch):
    import ckptdoctor.discover as module

    monkeypatch.setattr(module, "MAX_ENTRIES", 50)
    for i in range(200):
        (tmp_path / f"image_{i}.png").write_bytes(b"\x89PNG")
    files = discover([str(tmp_path)])
    assert any("more than 50 files" in i.reason for i in files.ignored)


def test_several_runs_in_one_directory_are_not_mixed(tmp_path):
    for name in ("a", "b"):
        run_directory(tmp_path / name)
    with pytest.raises(CkptDoctorError, match=r"holds 2 runs \(a, b\).*scan"):
        discover([str(tmp_path)])


def test_an_earlier_failure_of_the_recorder_is_kept_apart(tmp_path):
    run = run_directory(tmp_path)
    checkpoint(run / "failure_step_00000123" / "checkpoints" / "epoch_001.weights.h5")
    (run / "failure_step_00000123" / "recorder.json").write_text("{}")
    files = discover([str(run)])
    assert len(files.checkpoints) == 3
    assert any("recorder moved aside" in i.reason for i in files.ignored)


def test_a_damaged_checkpoint_is_still_one(tmp_path):
    run = run_directory(tmp_path)
    (run / "checkpoints" / "epoch_003.keras").write_bytes(b"PK\x03\x04 and no more")
    (run / "checkpoints" / "epoch_004.h5").write_bytes(b"")
    assert [Path(c).name for c in discover([str(run)]).checkpoints][3:] == ["epoch_003.keras", "epoch_004.h5"]


@pytest.mark.parametrize("paths", [[], ["nowhere"]])
def test_nothing_there_is_one_sentence(tmp_path, monkeypatch, paths):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CkptDoctorError, match=r"no path|nothing at"):
        discover(paths)


def test_an_empty_directory_finds_nothing(tmp_path):
    files = discover([str(tmp_path)])
    assert (files.checkpoints, files.logs, files.batches, files.ignored) == ((), (), (), ())


def test_paths_stay_as_they_were_given(tmp_path, monkeypatch):
    run_directory(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    assert discover(["run"]).checkpoints[0] == "run/checkpoints/epoch_000.weights.h5"
    monkeypatch.chdir(tmp_path / "run")
    assert discover(["."]).logs == ("training_log.csv",)


def test_an_unreadable_directory_is_told(tmp_path):
    run = run_directory(tmp_path)
    (run / "secret").mkdir()
    (run / "secret").chmod(0)
    try:
        files = discover([str(run)])
    finally:
        (run / "secret").chmod(0o700)
    assert len(files.checkpoints) == 3
    if os.geteuid() != 0:
        assert any("cannot be listed" in i.reason for i in files.ignored)
