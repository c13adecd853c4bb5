"""`[tool.ckptdoctor]`: strict, found upwards, and never a way to run a stranger's code."""

from __future__ import annotations

import pytest

from ckptdoctor.cli.config import ConfigError, load_config


def written(folder, text, name="pyproject.toml"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_without_a_file_there_are_no_settings(tmp_path):
    assert load_config(None, tmp_path) == {}


def test_the_nearest_file_with_the_table_counts(tmp_path):
    written(tmp_path, "[tool.ckptdoctor]\nsteps = 5\n")
    written(tmp_path / "a" / "b", "[tool.other]\nx = 1\n")
    assert load_config(None, tmp_path / "a" / "b") == {"steps": 5}


def test_all_keys(tmp_path):
    path = written(
        tmp_path,
        "[tool.ckptdoctor]\n"
        'select = ["CKD1"]\nignore = "CKD9"\nfail-on = "warning"\nreplay = false\ndevice = "cpu"\nsteps = 10\nbudget = 2.5\n'
        'threads = 2\nbuild = "m:f"\ncustom-objects = "m"\n'
        '[tool.ckptdoctor.thresholds]\nCKD201.growth = 5\n"CKD202.z" = 8.5\n',
        "c.toml",
    )
    assert load_config(str(path)) == {
        "select": ("CKD1",),
        "ignore": ("CKD9",),
        "fail-on": "warning",
        "replay": False,
        "device": "cpu",
        "steps": 10,
        "budget": 2.5,
        "threads": 2,
        "build": "m:f",
        "custom-objects": "m",
        "thresholds": {"CKD201.growth": 5.0, "CKD202.z": 8.5},
    }


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("selekt = []", "has no key 'selekt'; did you mean 'select'"),
        ("zzz = 1", "known keys: select"),
        ("steps = true", "'steps' expects a positive whole number, found True"),
        ("steps = 0", "'steps' expects"),
        ('replay = "yes"', "'replay' expects true or false"),
        ("select = [1]", "'select' expects a list"),
        ('fail-on = "bad"', "'fail-on' expects one of info, warning, error, never"),
        ("thresholds = 3", "'thresholds' expects numbers"),
        ('thresholds = {CKD201 = {growth = "x"}}', "'thresholds' expects numbers"),
        ("budget = -1", "'budget' expects seconds"),
    ],
)
def test_mistakes_are_named_with_their_file(tmp_path, line, words):
    path = written(tmp_path, f"[tool.ckptdoctor]\n{line}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(str(path))
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("key", ["trust", "unsafe-lambda"])
def test_trust_is_given_on_the_command_line_or_not_at_all(tmp_path, key):
    path = written(tmp_path, f"[tool.ckptdoctor]\n{key} = true\n")
    with pytest.raises(ConfigError, match=f"only be given on the command line, as --{key}"):
        load_config(str(path))


@pytest.mark.parametrize("key", ["build", "custom-objects"])
def test_a_file_that_merely_lies_there_names_no_code(tmp_path, key):
    path = written(tmp_path, f'[tool.ckptdoctor]\n{key} = "evil"\n')
    with pytest.raises(ConfigError, match="counts only in a file named with --config"):
        load_config(None, tmp_path)
    assert load_config(str(path)) == {key: "evil"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[tool.ckptdoctor", "is not valid TOML"),
        ("x = 1\n", "has no \\[tool.ckptdoctor\\] table"),
        ("[tool]\nckptdoctor = 3\n", "must be a table"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, text, words):
    path = written(tmp_path, text)
    with pytest.raises(ConfigError, match=words):
        load_config(str(path))


def test_a_missing_file_is_an_error_only_where_it_was_named(tmp_path):
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        load_config(str(tmp_path / "absent.toml"))
