"""Checkpoints behind URLs: a real S3 server and real HTTP servers on loopback; by ranges, without a local copy."""

from __future__ import annotations

import http.server
import os
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from making_checkpoints import keras_template, weights_template

from ckptdoctor.model import CkptDoctorError, Status
from ckptdoctor.scanner import Kind, ScanResult, scan
from ckptdoctor.scanner.remote import Remote, RemoteError, RemoteSource, identity_of
from ckptdoctor.scanner.remote_walk import walk_url
from ckptdoctor.scanner.urls import is_url
from ckptdoctor.scanner.walk import Candidate, Filters

KERAS = keras_template()
CLI = [sys.executable, "-c", "from ckptdoctor.cli import main; main()"]


# --- S3 ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Address of moto's S3 server in a process of its own; credentials and endpoint stand in the environment."""
    code = "from moto.server import ThreadedMotoServer as S; import time\n"
    code += (
        "s = S('127.0.0.1', 0, verbose=False); s.start(); print(s.get_host_and_port()[1], flush=True); time.sleep(600)"
    )
    server = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    before = dict(os.environ)
    assert server.stdout is not None
    address = f"http://127.0.0.1:{server.stdout.readline().strip()}"
    os.environ |= {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    try:
        yield address
    finally:
        os.environ.clear()
        os.environ.update(before)
        server.kill()
        server.wait()
        server.stdout.close()


@pytest.fixture
def bucket(s3) -> Iterator[Bucket]:
    """An empty bucket."""
    import boto3

    client = boto3.client("s3", endpoint_url=s3)
    name = f"b{time.time_ns()}"
    client.create_bucket(Bucket=name)
    yield Bucket(client, name)
    client.close()


class Bucket:
    def __init__(self, client: object, name: str) -> None:
        self.client, self.name, self.url = client, name, f"s3://{name}"

    def put(self, key: str, data: bytes) -> str:
        self.client.put_object(Bucket=self.name, Key=key, Body=data)
        return f"{self.url}/{key}"


def test_a_bucket_is_scanned_like_a_directory(bucket, tmp_path):
    for epoch in range(4):
        data = KERAS.patched({"layers/dense/vars/0": np.nan}) if epoch == 3 else KERAS.data
        bucket.put(f"runs/a/checkpoints/epoch_{epoch}.keras", KERAS.stepped(data, epoch))
    bucket.put("runs/b/model.weights.h5", weights_template().data)
    bucket.put("runs/b/notes.txt", b"nothing")
    bucket.put("runs/c/cut.keras", KERAS.data[:3000])
    report = scan(f"{bucket.url}/runs", resume=tmp_path / "r.jsonl")
    status = {r.path.removeprefix(f"{bucket.url}/runs/"): r.status for r in report}
    assert status == {
        "a/checkpoints/epoch_0.keras": Status.HEALTHY,
        "a/checkpoints/epoch_1.keras": Status.HEALTHY,
        "a/checkpoints/epoch_2.keras": Status.HEALTHY,
        "a/checkpoints/epoch_3.keras": Status.SICK,
        "b/model.weights.h5": Status.HEALTHY,
        "c/cut.keras": Status.UNREADABLE,
    }
    (run,) = report.sick_runs
    assert run.run == f"{bucket.url}/runs/a"
    assert run.resume_from == f"{bucket.url}/runs/a/checkpoints/epoch_2.keras"

    again = scan(f"{bucket.url}/runs", resume=tmp_path / "r.jsonl").finish()
    assert again.counts.resumed == 6


def test_an_object_that_changed_is_known_by_its_content_id(bucket, tmp_path):
    url = bucket.put("r/x.keras", KERAS.data)
    (first,) = scan(url, resume=tmp_path / "r.jsonl")
    assert first.status is Status.HEALTHY
    assert first.etag
    bucket.put("r/x.keras", KERAS.patched({"layers/dense/vars/1": np.inf}))  # the same size
    (second,) = scan(url, resume=tmp_path / "r.jsonl")
    assert second.status is Status.SICK
    assert second.etag != first.etag


def test_a_large_object_is_read_by_ranges_in_parallel(bucket):
    big = keras_template(units=(1024, 2048, 1024), features=512)
    assert len(big.data) > 40 << 20
    url = bucket.put("big/x.keras", big.patched({"layers/dense_1/vars/0": np.nan}))
    (result,) = scan(url)
    assert result.status is Status.SICK
    assert result.nonfinite == 1024 * 2048
    assert result.layer == "layer_1"
    assert 0.9 * len(big.data) < result.bytes_read < 1.2 * len(big.data)


def test_wildcards_include_exclude_and_newest_in_a_bucket(bucket):
    for run in "abc":
        for epoch in range(3):
            bucket.put(f"runs/{run}/epoch_{epoch}.keras", KERAS.with_step(epoch))

    def names(url: str = f"{bucket.url}/runs", **filters) -> list[str]:
        found = walk_url(url, Filters(**filters), 10.0)
        return sorted(e.path.removeprefix(f"{bucket.url}/runs/") for e in found if isinstance(e, Candidate))

    assert names(f"{bucket.url}/runs/*/epoch_1.keras") == ["a/epoch_1.keras", "b/epoch_1.keras", "c/epoch_1.keras"]
    assert names(f"{bucket.url}/runs/b*") == ["b/epoch_0.keras", "b/epoch_1.keras", "b/epoch_2.keras"]
    assert names(include=("*_2.keras",), exclude=("b",)) == ["a/epoch_2.keras", "c/epoch_2.keras"]
    assert len(names(newest=1)) == 3


def test_shards_and_data_files_of_one_checkpoint_are_one(bucket):
    bucket.put("tf/ckpt-1.index", b"not really")
    bucket.put("tf/ckpt-1.data-00000-of-00001", b"data")
    (result,) = scan(f"{bucket.url}/tf")
    assert result.path.endswith("ckpt-1.index")
    assert result.size_bytes == len(b"not really") + len(b"data")


def test_a_bucket_that_does_not_exist_or_holds_nothing_is_exit_2(bucket):
    with pytest.raises(CkptDoctorError, match="does not exist in the store"):
        scan("s3://no-such-bucket-here/runs", request_timeout=10).finish()
    bucket.put("readme.txt", b"x")
    with pytest.raises(CkptDoctorError, match="no checkpoint was found"):
        scan(bucket.url).finish()


def test_one_bad_url_among_several_costs_only_itself(bucket):
    good = bucket.put("x.keras", KERAS.data)
    results = {r.path: r for r in scan([good, "s3://no-such-bucket-here/y.keras"], request_timeout=10)}
    assert results[good].status is Status.HEALTHY
    assert results["s3://no-such-bucket-here/y.keras"].kind is Kind.VANISHED


def test_the_command_line_scans_a_bucket(bucket):
    bucket.put("r/x.keras", KERAS.patched({"layers/dense/vars/0": np.nan}))
    done = subprocess.run([*CLI, "scan", f"{bucket.url}/r"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stderr
    assert f"{bucket.url}/r/x.keras" in done.stdout


# --- HTTP: servers that behave, refuse, stall, ignore ranges, or bloat -------------------------


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `files`; a path's first component says how."""

    protocol_version = "HTTP/1.1"
    files: ClassVar[dict[str, bytes]] = {}
    asked: ClassVar[list[tuple[str, str | None]]] = []

    def log_message(self, *args: object) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        self._reply(body=False)

    def do_GET(self) -> None:
        self._reply(body=True)

    def _reply(self, *, body: bool) -> None:
        mode, _, name = self.path.strip("/").partition("/")
        wanted = self.headers.get("Range")
        self.asked.append((self.path, wanted))
        if mode == "forbid":
            self._send(403, b"no", body)
        elif mode == "stall" or (mode == "stall-data" and body):
            time.sleep(20)
            self.close_connection = True
        elif mode == "flaky" and body and sum(p == self.path for p, _ in self.asked) % 2:
            self._send(503, b"busy", body)
        elif name in self.files:
            self._file(mode, self.files[name], wanted, body)
        else:
            self._send(404, b"nothing here", body)

    def _file(self, mode: str, data: bytes, wanted: str | None, body: bool) -> None:
        if wanted and mode != "no-ranges":
            first, last = (int(n) for n in wanted.removeprefix("bytes=").split("-"))
            piece = data[first : last + 1]
            extra = {"Content-Range": f"bytes {first}-{first + len(piece) - 1}/{len(data)}"}
            self._send(206, piece, body, extra)
        else:
            self._send(200, data, body, {"Accept-Ranges": "bytes"} if mode != "no-ranges" else {})

    def _send(self, code: int, data: bytes, body: bool, extra: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for key, value in {"Content-Length": str(len(data)), "ETag": '"e1"', **(extra or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(data)


@pytest.fixture
def web() -> Iterator[str]:
    """Address of an HTTP server."""
    Handler.files = {"x.keras": KERAS.data, "sick.keras": KERAS.patched({"layers/dense/vars/0": np.nan})}
    Handler.asked = []
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # clients hang up on a server that stalls; that is the point
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.socket.close()


def test_a_web_server_is_read_by_ranges(web):
    (sick,) = scan(f"{web}/plain/sick.keras")
    assert sick.status is Status.SICK
    assert sick.etag == "e1"
    assert any(wanted for _, wanted in Handler.asked)


def test_a_server_that_fails_now_and_then_is_asked_again(web):
    (result,) = scan(f"{web}/flaky/x.keras")
    assert result.status is Status.HEALTHY


def test_a_server_that_ignores_ranges_still_gives_the_right_bytes(web):
    (result,) = scan(f"{web}/no-ranges/sick.keras")
    assert result.status is Status.SICK


def test_a_server_that_refuses_is_named_at_once(web):
    started = time.monotonic()
    with pytest.raises(CkptDoctorError, match="refuses access"):
        scan(f"{web}/forbid/x.keras").finish()
    assert time.monotonic() - started < 10
    results = list(scan([f"{web}/forbid/x.keras", f"{web}/plain/x.keras"]))
    assert [(r.status, r.kind) for r in results] == [(Status.UNREADABLE, Kind.DENIED), (Status.HEALTHY, None)]


def test_a_server_that_stalls_is_bounded_in_time(web):
    started = time.monotonic()
    results = list(
        scan([f"{web}/stall/x.keras", f"{web}/stall-data/x.keras", f"{web}/plain/x.keras"], request_timeout=0.5)
    )
    assert time.monotonic() - started < 30
    kinds = {r.path.removeprefix(web): r.kind for r in results}
    assert kinds == {"/stall/x.keras": Kind.REMOTE, "/stall-data/x.keras": Kind.REMOTE, "/plain/x.keras": None}
    assert "did not answer within 0.5 s" in next(r.error or "" for r in results if "/stall/" in r.path)


def test_a_stall_inside_a_worker_is_bounded_by_the_time_for_one_checkpoint(web):
    started = time.monotonic()
    results = {
        r.path.removeprefix(web): r
        for r in scan([f"{web}/stall-data/x.keras", f"{web}/plain/x.keras"], timeout=3, jobs=1)
    }
    assert results["/stall-data/x.keras"].kind is Kind.TIMEOUT
    assert results["/plain/x.keras"].status is Status.HEALTHY
    assert time.monotonic() - started < 15


def test_a_store_that_is_down_ends_the_scan_instead_of_failing_file_by_file(web):
    urls = [f"{web}/stall/{n}.keras" for n in range(200)]
    started = time.monotonic()
    report = scan(files_from=urls, request_timeout=0.1)
    with pytest.raises(CkptDoctorError, match="5 remote objects failed in a row"):
        report.finish()
    assert time.monotonic() - started < 30
    assert report.counts.done == 5


def test_a_port_where_nobody_listens():
    with pytest.raises(CkptDoctorError, match="the store failed"):
        scan("http://127.0.0.1:9/x.keras", request_timeout=5).finish()


# --- other stores ------------------------------------------------------------------------------


def test_a_store_in_this_process_is_scanned_in_this_process():
    import fsspec

    fs = fsspec.filesystem("memory")
    fs.pipe("/runs/a/x.keras", KERAS.data)
    fs.pipe("/runs/a/y.keras", KERAS.patched({"layers/dense/vars/0": np.inf}))
    try:
        found = {r.path: r.status for r in scan("memory://runs")}
        assert found == {"memory://runs/a/x.keras": Status.HEALTHY, "memory://runs/a/y.keras": Status.SICK}
    finally:
        fs.rm("/runs", recursive=True)


def test_a_file_url_is_a_local_path(tmp_path):
    (tmp_path / "x.keras").write_bytes(KERAS.data)
    (result,) = scan(f"file://{tmp_path}")
    assert result.path == str(tmp_path / "x.keras")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nosuch://bucket/x", "Protocol not known"),
        ("simplecache::s3://b/x", "chained"),
        ("zip://a::http://h/x", "chained"),
    ],
)
def test_urls_that_cannot_be_served_are_refused_with_a_sentence(url, words):
    with pytest.raises(CkptDoctorError, match=words):
        scan(url).finish()


def test_what_is_a_url():
    assert is_url("s3://b/x")
    assert not is_url("runs/s3")
    assert not is_url("file:///x")
    assert not is_url("/data/a://b")


def test_the_identity_is_read_from_whatever_a_store_tells():
    s3 = identity_of({"size": 3, "ETag": '"abc"', "LastModified": "2026-03-01T10:00:00+00:00"})
    web = identity_of({"size": 3, "ETag": "abc", "Last-Modified": "Sun, 01 Mar 2026 10:00:00 GMT"})
    assert s3 == web
    assert identity_of({"size": None}).modified is None


class Counted:
    """A store in memory that counts what it is asked for."""

    def __init__(self, data: bytes) -> None:
        self.data, self.asked = data, []

    def read(self, _url: str, start: int, stop: int, _size: int) -> bytes:
        self.asked.append((start, stop))
        return self.data[start:stop]


def test_small_objects_cost_one_request_and_large_ones_one_for_each_segment():
    small = Counted(bytes(range(256)) * 1000)
    source = RemoteSource(small, "x", len(small.data))
    assert source.read(5, 10) == small.data[5:15]
    buffer = bytearray(1000)
    assert source.read_into(255_500, memoryview(buffer)) == 500
    assert buffer[:500] == small.data[255_500:]
    assert len(small.asked) == 1

    large = Counted(np.random.default_rng(0).bytes(20 << 20))
    source = RemoteSource(large, "x", len(large.data))
    whole = bytearray(len(large.data))
    for start in range(0, len(whole), 1 << 18):  # as the census reads
        source.read_into(start, memoryview(whole)[start : start + (1 << 18)])
    assert whole == large.data
    assert len(large.asked) == 5
    assert source.read(123, 7) == large.data[123:130]
    assert source.read(len(large.data) - 3, 100) == large.data[-3:]
    assert source.read(len(large.data), 1) == b""


def test_threads_that_want_the_same_segment_wait_for_one_request():
    class Slow(Counted):
        def read(self, url: str, start: int, stop: int, size: int) -> bytes:
            time.sleep(0.05)
            return super().read(url, start, stop, size)

    store = Slow(bytes(10 << 20))
    source = RemoteSource(store, "x", len(store.data))
    threads = [threading.Thread(target=lambda: source.read_into(0, memoryview(bytearray(100)))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.asked) == 1


def test_a_failed_request_is_told_and_not_remembered():
    class Once(Counted):
        def read(self, url: str, start: int, stop: int, size: int) -> bytes:
            super().read(url, start, stop, size)
            if len(self.asked) == 1:
                raise RemoteError(Kind.REMOTE, "broken off")
            return self.data[start:stop]

    source = RemoteSource(Once(b"abc"), "x", 3)
    with pytest.raises(RemoteError):
        source.read(0, 3)
    assert source.read(0, 3) == b"abc"


def test_an_answer_of_the_wrong_length_is_no_data(web):
    Handler.files["short"] = b"0123456789"
    remote = Remote(f"{web}/no-ranges/short", timeout=5)
    assert remote.read(f"{web}/no-ranges/short", 2, 5, 10) == b"234"
    with pytest.raises(RemoteError, match="where 3 were asked for"):
        remote.read(f"{web}/no-ranges/short", 2, 5, 99)


def test_results_of_a_scan_are_scan_results(web):
    assert all(isinstance(r, ScanResult) for r in scan(f"{web}/plain/x.keras"))


def test_no_local_copy_is_made(web, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    before = set(Path(tmp_path).rglob("*"))
    list(scan(f"{web}/plain/x.keras"))
    assert set(Path(tmp_path).rglob("*")) == before
