"""The how-to's code runs: shell, Python, the Slurm and Kubernetes scripts, the hook. And its figures are those of the code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from making_checkpoints import keras_template, write_run

from ckptdoctor.scanner import remote, result
from ckptdoctor.scanner.options import ScanOptions

PAGE = (Path(__file__).parents[2] / "docs/howto/scan.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"(<!-- not run: [^>]*-->\n)?```(\w+)\n(.*?)```", re.DOTALL)
BLOCKS = [(bool(mark), language, code) for mark, language, code in BLOCK.findall(PAGE)]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A directory as the page has it in mind, with the command on the path."""
    template = keras_template()
    write_run(tmp_path / "runs/healthy", template, 3)
    write_run(tmp_path / "runs/dead", template, 4, bad_from=2)
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    command = bin_ / "ckptdoctor"
    command.write_text(f"#!{sys.executable}\nfrom ckptdoctor.cli import main\nmain()\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_}:{os.environ['PATH']}")
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shell(code: str, **environment: str) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, code + done.stdout + done.stderr
    return done.stdout


def test_every_shell_block_runs_in_order(place):
    outputs = [shell(code) for _, language, code in BLOCKS if language == "sh"]
    assert "7 checkpoints in 2 runs: 5 healthy, 2 sick, 0 unreadable." in outputs[0]
    assert (place / "index.html").exists()
    assert "sick" in (place / "summary.md").read_text()
    shown = next(code for _, language, code in BLOCKS if language == "text").splitlines()
    assert [row.split()[-1] for row in shown[1:3]] == ["runs/dead/epoch_002.keras", "runs/dead/epoch_003.keras"]
    assert all(row in outputs[0].splitlines() for row in (shown[0], shown[3], shown[5]))


@pytest.mark.usefixtures("place")
def test_every_python_block_runs_in_order():
    names: dict[str, object] = {}
    for apart, language, code in BLOCKS:
        if language == "python":
            compiled = compile(code, "scan.md", "exec")
            if not apart:
                exec(compiled, names)


@pytest.mark.usefixtures("place")
def test_the_array_job_covers_everything_once():
    (script,) = [code for _, language, code in BLOCKS if "SBATCH" in code]
    for i in (1, 2, 3):
        shell(script, SLURM_ARRAY_TASK_ID=str(i), SLURM_ARRAY_TASK_COUNT="3")
    assert "7 checkpoints in 2 runs" in shell("ckptdoctor merge shard-*.jsonl --fail-on never")


@pytest.mark.usefixtures("place")
def test_the_indexed_job_covers_everything_once():
    (job,) = [yaml.safe_load(code) for _, language, code in BLOCKS if "apiVersion" in code]
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert container["command"] == ["sh", "-c"]
    script = container["args"][0].replace("/results/", "")
    assert job["spec"]["completions"] == 16
    for index in range(16):
        shell(script, JOB_COMPLETION_INDEX=str(index))
    assert "7 checkpoints in 2 runs" in shell("ckptdoctor merge shard-*.jsonl --fail-on never")


@pytest.mark.usefixtures("place")
def test_the_hook_lets_healthy_files_pass_and_stops_sick_ones():
    (hooks,) = [yaml.safe_load(code) for _, language, code in BLOCKS if "repos:" in code]
    hook = hooks["repos"][0]["hooks"][0]
    assert re.search(hook["files"], "runs/healthy/epoch_000.keras")
    assert not re.search(hook["files"], "runs/notes.txt")
    shell(f"{hook['entry']} runs/healthy/epoch_000.keras runs/healthy/epoch_001.keras")
    done = subprocess.run([*hook["entry"].split(), "runs/dead/epoch_003.keras"], capture_output=True, check=False)
    assert done.returncode == 1


def test_the_page_tells_the_limits_that_the_code_has():
    defaults = ScanOptions()
    for words in (
        f"`--timeout` ({defaults.timeout:g} s)",
        f"`--memory` ({defaults.memory} MiB)",
        f"`--request-timeout` ({defaults.request_timeout:g} s)",
        f"up to {remote.WHOLE >> 20} MiB",
        f"every {remote.SEGMENT >> 20} MiB",
    ):
        assert words in PAGE.replace("\n", " ")
    assert all(f"`{key}`" in PAGE or f'"{key}"' in PAGE for key in result.KEYS)
