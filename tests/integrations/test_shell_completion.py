"""Completion in a real bash: the script is loaded, and asked as the Tab key asks."""

from __future__ import annotations

import os
import subprocess

import pytest
from integration_runs import environment, program

from ckptdoctor.cli import COMMANDS
from ckptdoctor.cli.completion import SHELLS


@pytest.fixture
def tab(tmp_path):
    """Completions of a line, as bash would offer them."""
    path = f"{program(tmp_path / 'bin')}{os.pathsep}{os.environ['PATH']}"

    def press(*words: str) -> list[str]:
        script = 'eval "$(ckptdoctor completion bash)"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
        script += "compopt() { :; }; "  # only works inside a real completion; the script uses it for files
        script += "_ckptdoctor_completion ckptdoctor; printf '%s\\n' \"${COMPREPLY[@]}\""
        done = subprocess.run(
            ["bash", "--norc", "-c", script, "bash", "ckptdoctor", *words],
            env=environment(PATH=path),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.split()

    return press


def test_tab_offers_every_command(tab):
    assert set(tab("")) == set(COMMANDS)


def test_tab_offers_options_choices_rules_and_causes(tab):
    assert "--publish" in tab("inspect", "--pu")
    assert set(tab("inspect", "--format", "j")) == {"json", "junit"}
    assert tab("explain", "nan-feat") == ["nan-feature-rows"]
    assert {"CKD101", "CKD102"} <= set(tab("inspect", "--select", "CKD10"))
    assert tab("explain", "data_n") == ["data_nonfinite"]


@pytest.mark.parametrize("shell", SHELLS)
def test_there_is_a_script_for_every_shell(shell, tmp_path):
    done = subprocess.run(
        ["ckptdoctor", "completion", shell],
        env=environment(PATH=f"{program(tmp_path / 'bin')}{os.pathsep}{os.environ['PATH']}"),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert f"_CKPTDOCTOR_COMPLETE={shell}_complete" in done.stdout
