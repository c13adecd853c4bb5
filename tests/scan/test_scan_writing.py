"""A checkpoint that is being written while it is scanned: looked at twice, then either right or named."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from making_checkpoints import keras_template, write

from ckptdoctor.model import CkptDoctorError, Status
from ckptdoctor.scanner import Kind, ScanResult, scan
from ckptdoctor.scanner.work import measure

KERAS = keras_template(units=(64, 64, 64), features=64)


class Writer:
    """Writes a file in pieces, in a thread of its own, until it is complete or told to stop."""

    def __init__(self, path: Path, pause: float, pieces: int) -> None:
        self._path, self._pause = path, pause
        self._step = len(KERAS.data) // pieces + 1
        self._stop = threading.Event()
        self.started = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Writer:
        self._thread.start()
        assert self.started.wait(10)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with self._path.open("wb") as file:
            for start in range(0, len(KERAS.data), self._step):
                file.write(KERAS.data[start : start + self._step])
                file.flush()
                self.started.set()
                if self._stop.wait(self._pause):
                    return


def only(results: list[ScanResult], name: str) -> ScanResult:
    (found,) = [r for r in results if os.path.basename(r.path) == name]
    return found


def test_a_save_that_takes_long_is_named_as_still_being_written(tmp_path):
    write(tmp_path / "done.keras", KERAS.data)
    with Writer(tmp_path / "slow.keras", pause=0.1, pieces=1000):
        results = list(scan(tmp_path, jobs=1))
    slow = only(results, "slow.keras")
    assert (slow.status, slow.kind) == (Status.UNREADABLE, Kind.WRITING)
    assert slow.error is not None
    assert "still being written" in slow.error
    assert only(results, "done.keras").status is Status.HEALTHY


def test_a_save_that_ends_meanwhile_is_measured_at_the_second_look(tmp_path):
    with Writer(tmp_path / "quick.keras", pause=0.1, pieces=4) as writer:
        (quick,) = scan(tmp_path, jobs=1)
        writer._thread.join()
    assert quick.status is Status.HEALTHY
    assert quick.size_bytes == len(KERAS.data)


def test_a_cut_file_that_nobody_writes_is_damaged_old_or_fresh(tmp_path):
    write(tmp_path / "old.keras", KERAS.data[:5000])
    write(tmp_path / "fresh.keras", KERAS.data[:5000], age=0)
    for result in scan(tmp_path, jobs=1):
        assert (result.status, result.kind) == (Status.UNREADABLE, Kind.DAMAGED)


def test_data_in_hdf5_is_left_out_unless_the_user_names_it(tmp_path):
    write(tmp_path / "run/model.keras", KERAS.data)
    with h5py.File(tmp_path / "run/data.h5", "w") as file:
        file["images"] = np.zeros((4, 4), "f4")
    report = scan(tmp_path)
    assert [os.path.basename(r.path) for r in report] == ["model.keras"]
    assert report.counts.foreign == 1
    assert report.exit_status() == 0
    (named,) = scan(tmp_path / "run/data.h5")
    assert (named.status, named.kind) == (Status.UNREADABLE, Kind.FOREIGN)
    (included,) = scan(tmp_path, include=["data*"])
    assert included.kind is Kind.FOREIGN
    (tmp_path / "run/model.keras").unlink()
    with pytest.raises(CkptDoctorError, match="no checkpoint was found"):
        scan(tmp_path).finish()


def test_a_chunked_file_is_read_by_the_contained_library_inside_a_worker(tmp_path):
    path = tmp_path / "packed.weights.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("layers/dense/vars")
        group.create_dataset("0", data=np.full((64, 64), np.nan, "f4"), chunks=(16, 16), compression="gzip")
        group.create_dataset("1", data=np.zeros(64, "f4"))
    (found,) = scan(path)
    assert (found.status, found.nonfinite) == (Status.SICK, 4096)


def test_a_report_that_cannot_be_written_is_no_fault_of_the_checkpoint(tmp_path):
    path = write(tmp_path / "x.keras", KERAS.patched({"layers/dense/vars/0": np.nan}))
    answer = measure({"path": str(path), "reports": "/dev/null/reports"})
    assert answer["status"] == "sick"
    assert any(w.startswith("report: ") for w in answer["warnings"])
    assert "report" not in answer


def test_other_files_do_not_wait_for_the_one_being_written(tmp_path):
    for n in range(20):
        write(tmp_path / f"e_{n}.keras", KERAS.with_step(n))
    with Writer(tmp_path / "a.keras", pause=0.1, pieces=1000):
        order = [os.path.basename(r.path) for r in scan(tmp_path, jobs=1)]
    assert order[-1] == "a.keras"
    assert len(order) == 21


def test_a_file_that_vanishes_is_named(tmp_path):
    path = write(tmp_path / "x.keras", KERAS.data)
    path.unlink()
    answer = measure({"path": str(path)})
    assert (answer["status"], answer["kind"]) == ("unreadable", "vanished")
    assert "vanished during the scan" in answer["error"]


def test_files_that_vanish_during_a_scan_cost_only_themselves(tmp_path):
    for n in range(40):
        write(tmp_path / f"e_{n:02d}.keras", KERAS.data)
    seen = {}
    for result in scan(tmp_path, jobs=1):
        seen[os.path.basename(result.path)] = result
        (tmp_path / "e_39.keras").unlink(missing_ok=True)
        time.sleep(0.01)
    assert len(seen) in (39, 40)  # listed before or after it went
    bad = {name for name, result in seen.items() if result.status is not Status.HEALTHY}
    assert bad <= {"e_39.keras"}
    assert all(seen[name].kind is Kind.VANISHED for name in bad)
