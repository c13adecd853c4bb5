"""The command line as a process: bad input, closed pipes, interrupts, terminals and their absence, start-up."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_runs import checkpoint, run

PROGRAM = [sys.executable, "-m", "ckptdoctor.cli"]


def environment(**extra: str) -> dict[str, str]:
    plain = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "TERM", "FORCE_COLOR")}
    return {**plain, "TERM": "xterm-256color", **extra}


def start(*arguments: object, cwd: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    command = [*PROGRAM, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env=environment(**extra), timeout=120, check=False
    )


BAD: dict[str, object] = {
    "missing": lambda p: p / "no such run",
    "empty file": lambda p: _written(p / "empty.keras", b""),
    "empty directory": lambda p: _made(p / "empty"),
    "not a checkpoint": lambda p: _written(p / "x.keras", b"\x89PNG" + bytes(500)),
    "text": lambda p: _written(p / "x.h5", b"hello\n" * 40),
}


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _made(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_status_two(tmp_path, name):
    result = start("inspect", BAD[name](tmp_path), cwd=tmp_path)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1


def test_a_cut_off_save_is_told_apart_and_reported(tmp_path):
    whole = checkpoint(tmp_path / "whole.keras", nan=True).read_bytes()
    cut = _written(tmp_path / "cut.keras", whole[: len(whole) // 2])
    result = start("inspect", cut, "--format", "json", cwd=tmp_path)
    assert result.returncode in (1, 2)
    assert "Traceback" not in result.stderr
    assert result.stdout.startswith("{")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["inspect"], "Missing argument"),
        (["inspect", "x", "--nonsense"], "No such option"),
        (["nonsense"], "No such command"),
        (["inspect", "x", "--format", "pdf"], "is not one of"),
        (["inspect", "x", "--fail-on", "sometimes"], "is not one of"),
        (["inspect", "x", "--steps", "0"], "not in the range"),
        (["inspect", "x", "--threshold", "CKD201.growth"], "expected CODE.NAME=NUMBER"),
        (["explain", "lables"], "did you mean labels"),
    ],
)
def test_bad_usage_is_status_two_and_names_the_word(tmp_path, arguments, words):
    result = start(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert words in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--select", "CKD999"], "no rule matches"),
        (["--threshold", "CKD201.nonsense=1"], "is not a threshold"),
        (["--config", "absent.toml"], "cannot read the configuration"),
        (["-o", "."], "is a directory"),
        (["-o", "no/such/dir/x.html"], "does not exist"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(tmp_path, arguments, words):
    checkpoint(tmp_path / "x.keras", nan=True)
    result = start("inspect", "x.keras", *arguments, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert words in result.stderr
    assert sorted(os.listdir(tmp_path)) == ["x.keras"]


def test_a_read_only_place_is_an_error_with_a_remedy(tmp_path):
    if os.geteuid() == 0:  # permissions do not bind the superuser: use a place that takes no files from anyone
        target = "/proc/report.html"
    else:
        (tmp_path / "ro").mkdir(mode=0o500)
        target = str(tmp_path / "ro" / "report.html")
    result = start("inspect", checkpoint(tmp_path / "x.keras"), "-o", target, cwd=tmp_path)
    assert result.returncode == 2
    assert "name another place with -o" in result.stderr


def test_a_closed_pipe_is_silent(tmp_path):
    folder = run(tmp_path / "run")
    process = subprocess.Popen(
        [*PROGRAM, "inspect", str(folder), "--format", "html"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=environment(),
    )
    assert process.stdout is not None
    process.stdout.close()
    _, error = process.communicate(timeout=120)
    assert (process.returncode, error) == (141, b"")


def test_an_interrupt_is_status_130_and_leaves_nothing(tmp_path):
    fifo = tmp_path / "slow.csv"
    checkpoint(tmp_path / "x.keras")
    os.mkfifo(fifo)
    script = (
        "import ckptdoctor.api, time\n"
        "ckptdoctor.api.inspect = lambda *a, **k: time.sleep(60)\n"
        "from ckptdoctor.cli import main\n"
        "main(['inspect', 'x.keras'])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, env=environment()
    )
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, b"")
    assert error.strip() == b"Interrupted; nothing was written."
    assert not list(tmp_path.glob("*.html"))


def on_terminal(*arguments: object, cwd: Path, columns: int = 80, **extra: str) -> str:
    """Everything that a process writes to a terminal of that width."""
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        [*PROGRAM, *map(str, arguments)], stdin=theirs, stdout=theirs, stderr=theirs, cwd=cwd, env=environment(**extra)
    )
    os.close(theirs)
    chunks: list[bytes] = []
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # the other side has closed
            break
        if not chunk:
            break
        chunks.append(chunk)
    process.wait(timeout=60)
    os.close(ours)
    return b"".join(chunks).decode()


def test_a_terminal_gets_colour_and_progress(tmp_path):
    shown = on_terminal("inspect", run(tmp_path / "run"), cwd=tmp_path)
    assert "\x1b[1;31mSICK" in shown
    assert "\r\x1b[2K" in shown


def test_no_color_is_obeyed(tmp_path):
    shown = on_terminal("inspect", run(tmp_path / "run"), cwd=tmp_path, NO_COLOR="1")
    assert "\x1b[1;31m" not in shown
    assert "SICK" in shown


def test_a_dumb_terminal_gets_no_colour(tmp_path):
    assert "\x1b[1;31m" not in on_terminal("inspect", run(tmp_path / "run"), cwd=tmp_path, TERM="dumb")


def test_colour_can_be_asked_for_and_refused(tmp_path):
    folder = run(tmp_path / "run")
    assert "\x1b[1;31m" in start("inspect", folder, "--format", "text", "--color", cwd=tmp_path).stdout
    assert "\x1b[1;31m" not in on_terminal("inspect", folder, "--no-color", cwd=tmp_path)


def test_without_a_terminal_there_is_neither_colour_nor_progress(tmp_path):
    result = start("inspect", run(tmp_path / "run"), cwd=tmp_path)
    assert "\x1b" not in result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize("columns", [60, 100])
def test_text_fits_the_terminal(tmp_path, columns):
    from ckptdoctor.report.text import cells

    shown = on_terminal(
        "inspect", run(tmp_path / "run"), "--format", "text", cwd=tmp_path, columns=columns, NO_COLOR="1"
    )
    rows = [row.split("\r\x1b[2K")[-1].rstrip("\r") for row in shown.split("\n")]
    assert max(cells(row) for row in rows) <= columns


def test_an_ascii_terminal_gets_escapes_instead_of_an_error(tmp_path):
    result = start("explain", "mixed_precision", cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert result.returncode == 0
    result = start("inspect", run(tmp_path / "run"), "--format", "text", cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert (result.returncode, result.stderr) == (1, "")


def test_hostile_paths_reach_the_terminal_as_text(tmp_path):
    name = "\x1b]0;owned\x07 <b>.keras"
    checkpoint(tmp_path / name, nan=True)
    result = start("inspect", name, cwd=tmp_path)
    assert result.returncode == 1
    assert "\x1b" not in result.stdout + result.stderr
    assert "\x07" not in result.stdout + result.stderr
    missing = start("inspect", "\x1b[2Jgone", cwd=tmp_path)
    assert "\x1b" not in missing.stderr


def test_version_and_help_import_nothing_heavy(tmp_path):
    code = (
        "import sys\n"
        "from ckptdoctor.cli import main\n"
        "try: main([sys.argv[1]])\n"
        "except SystemExit as e: assert e.code == 0, e.code\n"
        "heavy = {'numpy', 'h5py', 'jinja2', 'tensorflow', 'keras'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    for option in ("--version", "--help"):
        result = subprocess.run(
            [sys.executable, "-c", code, option], capture_output=True, text=True, cwd=tmp_path, check=False
        )
        assert (result.returncode, result.stderr) == (0, "")


def test_inspect_never_imports_tensorflow(tmp_path):
    code = (
        "import sys\n"
        "from ckptdoctor.cli import main\n"
        "try: main(['inspect', sys.argv[1], '--format', 'json'])\n"
        "except SystemExit as e: assert e.code == 1, e.code\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(run(tmp_path / "run"))],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
