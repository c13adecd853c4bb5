"""`ckptdoctor inspect` on real files: what goes where, and what the exit status means."""

from __future__ import annotations

import json

import jsonschema
import pytest
from cli_runs import checkpoint, run
from click.testing import CliRunner

from ckptdoctor.cli import COMMANDS, cli
from ckptdoctor.report.document import schema

SICK, HEALTHY = 1, 0


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Every test works in an empty directory of its own."""
    place = tmp_path / "work"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.delenv("COLUMNS", raising=False)
    return place


def call(*arguments: str):
    return CliRunner().invoke(cli, [str(a) for a in arguments], standalone_mode=False)


def test_a_sick_run_prints_the_verdict_and_writes_the_page(tmp_path, elsewhere):
    result = call("inspect", run(tmp_path / "dead run"))
    assert result.return_value == SICK
    assert result.stdout.startswith("SICK")
    assert "dense" in result.stdout
    assert result.stdout.endswith("\nReport: dead_run.ckptdoctor.html\n")
    page = (elsewhere / "dead_run.ckptdoctor.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert page.rstrip().endswith("</html>")


def test_a_healthy_checkpoint_is_status_zero(tmp_path):
    result = call("inspect", checkpoint(tmp_path / "good.keras"))
    assert (result.return_value, result.stdout.split("\n")[0]) == (HEALTHY, "HEALTHY")


@pytest.mark.parametrize("format_", ["text", "json", "markdown", "html", "junit", "github"])
def test_a_format_goes_to_standard_output_alone(tmp_path, elsewhere, format_):
    result = call("inspect", run(tmp_path / "run"), "--format", format_)
    assert result.return_value == SICK
    assert result.stderr == ""
    assert "Report:" not in result.stdout
    assert list(elsewhere.iterdir()) == []


def test_json_prints_only_the_document(tmp_path):
    result = call("inspect", run(tmp_path / "run"), "--format", "json")
    document = json.loads(result.stdout)
    jsonschema.Draft202012Validator(schema()).validate(document)
    assert document["verdict"]["status"] == "sick"
    assert document["timeline"]["last_healthy"].endswith("epoch_000.keras")
    assert document["log"]["first_nonfinite"] == {"metric": "loss", "step": 2.0, "value": "NaN", "axis": "epoch"}


@pytest.mark.parametrize(
    ("name", "start"),
    [("r.json", "{"), ("r.md", "## Sick"), ("r.xml", "<?xml"), ("r.txt", "SICK"), ("r", "<!doctype html>")],
)
def test_output_names_the_file_and_its_suffix_the_format(tmp_path, elsewhere, name, start):
    result = call("inspect", run(tmp_path / "run"), "-o", name)
    assert result.return_value == SICK
    assert (elsewhere / name).read_text(encoding="utf-8").startswith(start)
    assert f"Report: {name}" in result.stdout


def test_a_named_format_outranks_the_suffix_and_prints_nothing(tmp_path, elsewhere):
    result = call("inspect", run(tmp_path / "run"), "--format", "markdown", "-o", "r.json")
    assert result.stdout == ""
    assert (elsewhere / "r.json").read_text(encoding="utf-8").startswith("## Sick")


def test_a_dash_is_standard_output(tmp_path, elsewhere):
    result = call("inspect", run(tmp_path / "run"), "-o", "-")
    assert result.stdout.startswith("<!doctype html>")
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize(
    ("level", "sick", "healthy"), [("error", 1, 0), ("warning", 1, 0), ("never", 0, 0)]
)  # what a healthy file may be blamed for at `info` is the rules' business
def test_fail_on_decides_about_findings_only(tmp_path, level, sick, healthy):
    bad = call("inspect", run(tmp_path / "run"), "--fail-on", level, "--format", "text")
    good = call("inspect", checkpoint(tmp_path / "good.keras"), "--fail-on", level, "--format", "text")
    assert (bad.return_value, good.return_value) == (sick, healthy)


def test_select_and_ignore_choose_rules(tmp_path):
    folder = run(tmp_path / "run")
    only = json.loads(call("inspect", folder, "--select", "CKD101", "--format", "json").stdout)
    assert {f["rule"] for f in only["findings"]} == {"CKD101"}
    without = json.loads(call("inspect", folder, "--ignore", "CKD101,CKD2", "--format", "json").stdout)
    assert not [f for f in without["findings"] if f["rule"] == "CKD101" or f["rule"].startswith("CKD2")]


def test_explicit_logs_outrank_those_found(tmp_path):
    folder = run(tmp_path / "run")
    other = tmp_path / "other.csv"
    other.write_text("epoch,loss\n0,7.0\n1,6.0\n")
    document = json.loads(call("inspect", folder, "--log", other, "--format", "json").stdout)
    assert document["log"]["source"] == str(other)


def test_the_configuration_of_the_project_is_used_and_outranked(tmp_path, elsewhere):
    (elsewhere / "pyproject.toml").write_text('[tool.ckptdoctor]\nfail-on = "never"\nignore = ["CKD101"]\n')
    folder = run(tmp_path / "run")
    result = call("inspect", folder, "--format", "json")
    assert result.return_value == 0
    assert "CKD101" not in {f["rule"] for f in json.loads(result.stdout)["findings"]}
    assert call("inspect", folder, "--format", "json", "--fail-on", "error").return_value == SICK


def test_every_command_has_help_that_says_what_it_does():
    for name in COMMANDS:
        text = call(name, "--help").stdout
        assert "Usage:" in text
        assert len(text.split("\n\n")[1]) > 20


def test_every_option_of_inspect_is_explained():
    command = cli.get_command(None, "inspect")
    for parameter in command.params:
        assert parameter.param_type_name == "argument" or parameter.help, parameter.name
