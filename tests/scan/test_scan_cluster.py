"""A real Dask scheduler with two worker processes on loopback; any other executor; lost workers and dead schedulers."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from making_checkpoints import keras_template, write_run

from ckptdoctor.model import CkptDoctorError, Status
from ckptdoctor.scanner import ScanResult, cluster, scan

KERAS = keras_template()


class Cluster:
    """A scheduler and two workers, each a process."""

    def __init__(self, folder: Path) -> None:
        self.processes: list[subprocess.Popen[str]] = []
        self._folder = folder
        self.scheduler, found = self._start(
            "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", until=r"tcp://[\d.]+:\d+"
        )
        self.address = found
        self.workers = [self._worker(f"w{n}") for n in (0, 1)]

    def _worker(self, name: str) -> subprocess.Popen[str]:
        options = [
            "--nthreads",
            "1",
            "--no-dashboard",
            "--no-nanny",
            "--name",
            name,
            "--local-directory",
            str(self._folder),
        ]
        process, _ = self._start("worker", self.address, *options, until="Registered to")
        return process

    def _start(self, what: str, *options: str, until: str) -> tuple[subprocess.Popen[str], str]:
        log = self._folder / f"{what}-{len(self.processes)}.log"
        with log.open("w") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "distributed.cli.dask_" + what, *options], stdout=out, stderr=out, text=True
            )
        self.processes.append(process)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if found := re.search(until, log.read_text()):
                return process, found[0]
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        raise AssertionError(log.read_text())

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def dask(tmp_path_factory) -> Iterator[Cluster]:
    """A cluster of two workers."""
    running = Cluster(tmp_path_factory.mktemp("dask"))
    yield running
    running.stop()


def tree(root: Path, runs: int, epochs: int) -> int:
    for number in range(runs):
        write_run(root / f"r{number}", KERAS, epochs, bad_from=epochs - 1 if number == 1 else None)
    return runs * epochs


def test_a_cluster_measures_and_a_worker_that_is_killed_costs_nothing(dask, tmp_path):
    total = tree(tmp_path / "runs", 20, 15)
    results, killed = [], False
    for result in scan(tmp_path / "runs", cluster=dask.address, resume=tmp_path / "r.jsonl"):
        results.append(result)
        if len(results) == 40 and not killed:
            dask.workers[0].send_signal(signal.SIGKILL)
            killed = True
    assert killed
    assert len({r.path for r in results}) == len(results) == total
    assert [r.status for r in results].count(Status.SICK) == 1
    assert [r.status for r in results].count(Status.UNREADABLE) == 0
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == total


def test_a_scheduler_that_dies_during_the_scan_is_named_and_bounded(dask, tmp_path):
    tree(tmp_path / "runs", 20, 15)
    report = scan(tmp_path / "runs", cluster=dask.address, resume=tmp_path / "r.jsonl")
    results = iter(report)
    seen = sum(1 for _ in itertools.islice(results, 20))
    dask.scheduler.kill()
    started = time.monotonic()
    words = r"scheduler at .* is gone; \d+ checkpoints were measured before, continue with --resume"
    rest: list[ScanResult] = []
    with pytest.raises(CkptDoctorError, match=words):
        rest.extend(results)
    assert time.monotonic() - started < 60
    kept = (tmp_path / "r.jsonl").read_text().splitlines()
    assert seen <= len(kept) < 300
    assert not any('"lost"' in line for line in kept)
    again = scan(tmp_path / "runs", resume=tmp_path / "r.jsonl").finish()
    assert (again.counts.done, again.counts.resumed) == (300, len(kept))


def test_an_address_where_nothing_answers_is_bounded(tmp_path, monkeypatch):
    tree(tmp_path / "runs", 1, 2)
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1.0)
    started = time.monotonic()
    with pytest.raises(CkptDoctorError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        scan(tmp_path / "runs", cluster="tcp://127.0.0.1:9").finish()
    assert time.monotonic() - started < 20


def test_a_cluster_without_workers_is_named(dask, tmp_path, monkeypatch):
    tree(tmp_path / "runs", 1, 2)
    for worker in dask.workers:
        worker.kill()
        worker.wait()
    monkeypatch.setattr(cluster, "WORKERS_SECONDS", 2.0)
    with pytest.raises(CkptDoctorError, match="no worker of it did within 2 s"):
        scan(tmp_path / "runs", cluster=dask.address).finish()


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_any_executor_will_do(tmp_path, monkeypatch, kind):
    total = tree(tmp_path / "runs", 3, 4)
    monkeypatch.chdir(tmp_path)
    make = (
        ThreadPoolExecutor if kind == "threads" else lambda n: ProcessPoolExecutor(n, mp_context=get_context("spawn"))
    )
    with make(2) as executor:
        results = list(scan("runs", executor=executor))
    assert len(results) == total
    assert {r.status for r in results} == {Status.HEALTHY, Status.SICK}
    assert all(r.path.startswith("runs/") for r in results)


def test_an_executor_that_was_shut_down_is_an_error(tmp_path):
    tree(tmp_path / "runs", 1, 2)
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(CkptDoctorError, match="takes no more work"):
        scan(tmp_path / "runs", executor=executor).finish()


def test_an_executor_whose_process_dies_ends_the_scan_with_a_sentence(tmp_path):
    tree(tmp_path / "runs", 1, 3)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        os.kill(executor.submit(os.getpid).result(), signal.SIGKILL)
        with pytest.raises(CkptDoctorError, match="takes no more work"):
            scan(tmp_path / "runs", executor=executor).finish()
