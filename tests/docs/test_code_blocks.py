"""Every code block of the documentation runs, or is valid, as it stands."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
import yaml
from docs_blocks import ROOT, Block, blocks, commands, files, matches

from ckptdoctor.cli import cli
from ckptdoctor.cli.config import load_config
from ckptdoctor.rules.registry import check_words

# pages whose own tests run their blocks → that test
ELSEWHERE = {
    "docs/howto/recorder.md": "tests/recorder/test_recorder_docs.py",
    "docs/howto/scan.md": "tests/scan/test_scan_docs.py",
}
PAGES = [
    page
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if page.relative_to(ROOT).as_posix() not in ELSEWHERE and blocks(page)
]
SLOW = {"docs/tutorial.md"}  # start TensorFlow
RUN_BY_CI = {"first", "test"}  # commands of the README that .ci/run executes
LANGUAGES = {"sh", "console", "python", "toml", "yaml", "json", "text"}


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def parameters() -> list:
    return [
        pytest.param(page, id=page_id(page), marks=[pytest.mark.replay] if page_id(page) in SLOW else [])
        for page in PAGES
    ]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty directory, and an environment in which `ckptdoctor` and `python` are those of this interpreter."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, code in (("ckptdoctor", "-m ckptdoctor.cli"), ("python", "")):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {code} "$@"\n')
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT", "COLUMNS", "MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    work = tmp_path / "work"
    work.mkdir()
    return work


@pytest.mark.parametrize("page", parameters())
def test_the_blocks_of_a_page_run_in_order(page, place):
    for name, source in files(page).items():
        copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
        copy(ROOT / source, place / name)
    for block in blocks(page):
        if "not run" in block.marks or block.marks.get("command") in RUN_BY_CI:
            check_syntax(block)
        else:
            check(block, place)


def check(block: Block, place: Path) -> None:
    if block.language == "sh":
        run(block, block.code, place)
    elif block.language == "console":
        *before, last = commands(block)
        for command, shown in (*before, last):
            printed = run(block, command, place, allowed=None if command is last[0] else {0, 1})
            assert matches(shown, printed), f"{block}: {command}printed:\n{printed}"
    elif block.language == "python":
        script = place.parent / "block.py"
        script.write_text(block.code)
        run(block, f"python '{script}'", place, allowed={0})
    elif block.language == "toml":
        check_toml(block, place)
    elif block.language == "yaml":
        assert yaml.safe_load(block.code)
    elif block.language == "json":
        json.loads(block.code)


def run(block: Block, code: str, place: Path, allowed: set[int] | None = None) -> str:
    allowed = allowed or ({int(block.marks["status"])} if "status" in block.marks else {0, 1})
    done = subprocess.run(
        ["bash", "-uo", "pipefail", "-c", code],
        cwd=place,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode in allowed, f"{block}: exit status {done.returncode}\n{code}\n{done.stdout}"
    assert "Traceback" not in done.stdout, f"{block}\n{done.stdout}"
    return done.stdout


def check_toml(block: Block, place: Path) -> None:
    table = tomllib.loads(block.code)
    assert set(table.get("tool", {})) == {"ckptdoctor"}, f"{block}: not a [tool.ckptdoctor] table"
    name = place / "config.toml"
    name.write_text(block.code)
    settings = load_config(str(name))
    assert settings, f"{block}: no setting in it"
    check_words(
        select=settings.get("select", ()), ignore=settings.get("ignore", ()), overrides=settings.get("thresholds", {})
    )


def check_syntax(block: Block) -> None:
    """For what cannot run here: the shell's or Python's own parser, and the command line's for every ckptdoctor call."""
    if block.language == "python":
        compile(block.code, str(block), "exec")
        return
    assert block.language in ("sh", "console"), f"{block}: a mark on a block that would not be run anyway"
    code = block.code if block.language == "sh" else "".join(command for command, _ in commands(block))
    subprocess.run(["bash", "-n", "-c", code], check=True, timeout=30)
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if "ckptdoctor" in words:
            parse(words[words.index("ckptdoctor") + 1 :], str(block))


def parse(arguments: list[str], where: str) -> None:
    plain = [a for a in arguments if a not in ("|", ">", ">>", "&&", "||")]
    command = cli.get_command(click.Context(cli), plain[0])
    assert command is not None, f"{where}: there is no command {plain[0]}"
    command.make_context(plain[0], plain[1:])


def test_every_block_says_its_language():
    found = {block.language for page in PAGES for block in blocks(page)}
    assert found <= LANGUAGES


def test_every_mark_gives_its_reason():
    marked = [block for page in PAGES for block in blocks(page) if "not run" in block.marks]
    assert [str(block) for block in marked if not block.marks["not run"].startswith(("needs ", "installs "))] == []


def test_pages_that_are_run_elsewhere_are():
    for page, test in ELSEWHERE.items():
        assert Path(page).name in (ROOT / test).read_text(encoding="utf-8")


def test_the_readme_keeps_the_commands_that_ci_executes():
    marks = {block.marks.get("command") for block in blocks(ROOT / "README.md")}
    assert marks >= RUN_BY_CI


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a\nb\n", "a\nb\n", True),
        ("a\n", "a\nb\n", False),
        ("a\n…\nd\n", "a\nb\nc\nd\n", True),
        ("a…\n", "abc\n", True),
        ("a…\n", "abc\nd\n", False),
        ("…\nd\n", "d\n", True),
        ("1.5\n", "125\n", False),
    ],
)
def test_ellipses_stand_for_any_text_and_nothing_else_does(shown, printed, same):
    assert matches(shown, printed) is same
