"""The GitHub Action's own steps and the pre-commit hook, run as they are declared."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import yaml
from integration_runs import HEALTHY, ROOT, SICK, environment, program

ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
SCRIPT = (ROOT / "integrations" / "action.sh").read_text(encoding="utf-8")
STEPS = {step["id"]: step for step in ACTION["runs"]["steps"]}
_EXPRESSION = re.compile(r"\$\{\{ *(.*?) *\}\}")


class Job:
    """What GitHub's runner gives a composite action: inputs with their defaults, files for output and summary."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "workspace"
        self.folder.mkdir()
        self.output, self.summary = folder / "output", folder / "summary"
        self.bin = program(folder / "bin")

    def run(self, step: str, **inputs: str) -> subprocess.CompletedProcess[str]:
        given = {k.replace("-", "_"): v.get("default", "") for k, v in ACTION["inputs"].items()} | inputs
        assert not [k for k, v in ACTION["inputs"].items() if v.get("required") and not given[k.replace("-", "_")]]
        context = {f"inputs.{k.replace('_', '-')}": v for k, v in given.items()} | {"github.action_path": str(ROOT)}
        declared = STEPS[step]
        assert not _EXPRESSION.search(declared["run"]), "an input inside a script's text can be code"
        variables = {k: _EXPRESSION.sub(lambda m: context[m[1]], v) for k, v in declared["env"].items()}
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", declared["run"]],
            cwd=self.folder,
            env=environment(
                **variables,
                GITHUB_OUTPUT=self.output,
                GITHUB_STEP_SUMMARY=self.summary,
                PATH=f"{self.bin}{os.pathsep}{os.environ['PATH']}",
            ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def outputs(self) -> dict[str, str]:
        written = dict(line.split("=", 1) for line in self.output.read_text().splitlines())
        return {
            name: written[re.fullmatch(r"\$\{\{ steps\.look\.outputs\.(.*?) \}\}", declared["value"])[1]]
            for name, declared in ACTION["outputs"].items()
        }


@pytest.fixture
def job(tmp_path) -> Job:
    return Job(tmp_path)


def test_a_sick_run_fails_the_step_annotates_it_and_leaves_everything_for_upload(job):
    done = job.run("look", path=str(SICK), args="--no-replay")
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("::error title=ckptdoctor%3A sick%2C data_nonfinite")
    outputs = job.outputs()
    assert (outputs["exit-status"], outputs["status"], outputs["cause"]) == ("1", "sick", "data_nonfinite")
    assert ET.parse(job.folder / outputs["junit"]).getroot().get("failures") != "0"
    assert json.loads((job.folder / outputs["data"]).read_text())["verdict"]["status"] == "sick"
    assert (job.folder / outputs["report"]).read_text(encoding="utf-8").startswith("<!doctype html>")
    assert "data_nonfinite" in job.summary.read_text(encoding="utf-8")
    files = {p.name for p in (job.folder / outputs["folder"]).iterdir()}
    assert files == {"report.html", "report.json", "junit.xml", "summary.md"}


def test_a_healthy_run_passes_and_the_summary_can_be_left_out(job):
    done = job.run("look", path=str(HEALTHY), args="--no-replay", summary="false")
    assert done.returncode == 0, done.stdout + done.stderr
    assert job.outputs()["status"] == "healthy"
    assert not job.summary.exists()


def test_scan_looks_at_several_paths_and_annotates_the_sick_checkpoints(job):
    done = job.run("look", path=f"{SICK}\n{HEALTHY}\n", command="scan", args="--jobs 1", output="out")
    assert done.returncode == 1, done.stderr
    assert "::error file=" in done.stdout
    assert "epoch_001.keras" in done.stdout
    outputs = job.outputs()
    assert outputs["status"] == ""
    assert len((job.folder / "out" / "results.jsonl").read_text().splitlines()) == len(
        list(SICK.glob("checkpoints/*")) + list(HEALTHY.glob("checkpoints/*"))
    )


def test_what_cannot_be_answered_is_status_two_and_leaves_no_report_of_an_earlier_step(job):
    job.run("look", path=str(HEALTHY), args="--no-replay")
    job.output.unlink()
    done = job.run("look", path="absent")
    assert done.returncode == 2
    assert job.outputs()["exit-status"] == "2"
    assert job.outputs()["status"] == ""
    assert list((job.folder / "ckptdoctor-report").iterdir()) == []


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"path": "\n"}, "names nothing to look at"),
        ({"path": "x", "command": "rules"}, "must be inspect or scan"),
    ],
)
def test_inputs_that_make_no_sense_are_named(job, inputs, message):
    done = job.run("look", **inputs)
    assert done.returncode == 2
    assert done.stdout.startswith("::error title=ckptdoctor::")
    assert message in done.stdout


def test_inputs_are_never_run(job):
    hostile = "$(touch owned); `touch owned`; touch owned"
    for inputs in ({"path": hostile}, {"path": str(SICK), "args": f"'{hostile}'"}, {"path": "x", "fail_on": hostile}):
        assert job.run("look", **inputs).returncode == 2
    assert not list(job.folder.glob("**/owned"))


def test_the_script_reads_the_inputs_that_the_action_gives_it_and_no_others():
    given = {name for name in STEPS["look"]["env"] if name.startswith("INPUT_")}
    assert set(re.findall(r"\bINPUT_\w+", SCRIPT)) == given
    mapped = {_EXPRESSION.fullmatch(v)[1] for step in STEPS.values() for v in step["env"].values()}
    used = {m.removeprefix("inputs.") for m in mapped if m.startswith("inputs.")} | {"install"}  # the step's condition
    assert used == set(ACTION["inputs"])


def test_the_documentation_lists_every_input_and_output():
    page = (ROOT / "docs" / "howto" / "github-action.md").read_text(encoding="utf-8")
    inputs, outputs = page.split("| output |")
    listed = {word for row in re.findall(r"^\| (`.*?) \|", inputs, re.MULTILINE) for word in re.findall("`(.*?)`", row)}
    assert listed == set(ACTION["inputs"])
    table = outputs.split("\n\n")[0]
    listed = {word for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for word in re.findall("`(.*?)`", row)}
    assert listed == set(ACTION["outputs"])


# --- pre-commit ------------------------------------------------------------------------------------

MANIFEST = ROOT / ".pre-commit-hooks.yaml"
(HOOK,) = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))


def git(*arguments: str, cwd: Path) -> None:
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *who, *arguments], cwd=cwd, check=True, capture_output=True, timeout=60)


def pre_commit(*arguments: str, cwd: Path, path: Path, **variables: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pre_commit", *arguments],
        cwd=cwd,
        env=environment(PATH=f"{path}{os.pathsep}{os.environ['PATH']}", **variables),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_manifest_is_one_that_pre_commit_accepts(tmp_path):
    done = pre_commit("validate-manifest", str(MANIFEST), cwd=tmp_path, path=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def repository(tmp_path) -> Path:
    """A repository with the hook as declared; only its environment is this one instead of a new one."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git("init", "-q", cwd=folder)
    hook = {**HOOK, "language": "system"}
    config = {"repos": [{"repo": "local", "hooks": [hook]}]}
    (folder / ".pre-commit-config.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.mark.parametrize(("name", "passes"), [("nan_input", False), ("nan_input-before", True)])
def test_the_hook_refuses_a_sick_checkpoint_and_lets_a_healthy_one_pass(repository, tmp_path, name, passes):
    shutil.copy(ROOT / "fixtures" / "patterns" / f"{name}.keras", repository / "model with space.keras")
    (repository / "notes.txt").write_text("no checkpoint")
    git("add", ".", cwd=repository)
    done = pre_commit("run", cwd=repository, path=program(tmp_path / "bin"), PRE_COMMIT_HOME=tmp_path / "home")
    assert (done.returncode == 0) is passes, done.stdout + done.stderr
    assert ("Passed" in done.stdout) is passes
    assert ("sick" in done.stdout) is not passes


def test_the_hook_has_nothing_to_do_without_a_checkpoint(repository, tmp_path):
    (repository / "notes.txt").write_text("no checkpoint")
    git("add", ".", cwd=repository)
    done = pre_commit("run", cwd=repository, path=program(tmp_path / "bin"), PRE_COMMIT_HOME=tmp_path / "home")
    assert done.returncode == 0
    assert "no files to check" in done.stdout
