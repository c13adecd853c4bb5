"""The tables that are printed and that go into the documentation."""

from dataclasses import replace

import pytest

from tests.evaluation.__main__ import main
from tests.evaluation.scoring import CaseScore
from tests.evaluation.tables import case_line, markdown_report, replay_report, text_report, with_section

NAMED = CaseScore(
    "first", "labels", "a", "sick", "labels", "likely", 0.8, 2.0, cause_right=True, exact=True, layer_right=True
)
MISSED = CaseScore(
    "second", "optimizer", "b", "sick", "labels", "likely", 0.6, 4.0, cause_right=False, exact=False, fix_found=False
)
PEACEFUL = CaseScore(
    "third", "healthy", "b", "healthy", "healthy", "likely", 0.9, 1.0, false_alarm=False, status_right=True
)


def test_a_line_tells_truth_verdict_and_what_was_asked():
    assert case_line(NAMED).split()[:5] == ["ok", "first", "labels", "->", "labels"]
    assert case_line(MISSED).startswith("BAD second")
    assert case_line(MISSED).endswith("fix NO")


def test_the_report_counts_by_cause_and_names_what_went_wrong():
    text = text_report([NAMED, MISSED, PEACEFUL])
    assert "1/2 (50 %)" in text
    assert "optimizer taken for labels" in text
    assert "second" in text


def test_the_markdown_is_a_section_with_tables_of_equal_width():
    section = markdown_report("Case book", {"all evidence": [NAMED, MISSED, PEACEFUL], "no log": [NAMED]})
    assert section.startswith("## Case book\n")
    assert "3 runs: 2 faulty, 1 healthy." in section
    assert "| no log |" in section
    for block in section.split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) <= 1


def test_what_replay_came_to_has_a_table_where_something_was_replayed():
    replayed = replace(NAMED, replayed=True, failure_repeated=True, phase="loss", phase_right=True, fix_found=True)
    section = markdown_report("Case book", {"all evidence": [replayed, PEACEFUL]})
    row = next(line for line in section.split("What replay came to:")[1].splitlines() if line.startswith("| labels"))
    assert ["labels", *["1/1 (100 %)"] * 5, "`first`"] == [cell.strip() for cell in row.strip("|").split("|")]
    assert "phase right" in text_report([replayed])
    assert "1 faulty runs.\n" in replay_report("Replay", [replayed, PEACEFUL])
    assert "What replay came to" not in markdown_report("Case book", {"no replay": [NAMED]})


def test_a_section_is_replaced_and_the_rest_of_the_page_stays():
    page = with_section("# Title\n\n", "case book", "old\n") + "\nafter\n"
    changed = with_section(page, "case book", "new\n")
    assert changed == "# Title\n\n<!-- begin case book -->\nnew\n<!-- end case book -->\n\nafter\n"
    assert with_section(changed, "other", "more\n").startswith(changed)


@pytest.mark.replay
@pytest.mark.timeout(300)
def test_one_command_makes_the_case_book_and_the_table(tmp_path):
    runs, page = tmp_path / "runs", tmp_path / "page.md"
    words = [
        str(runs),
        "--make",
        "--only",
        "lr_tiny_dense*",
        "--no-replay",
        "--title",
        "One case",
        "--markdown",
        str(page),
    ]
    assert main(words) == 0
    assert {"lr_tiny_dense", "lr_tiny_dense__fixed"} == {p.name for p in runs.iterdir() if not p.name.startswith(".")}
    assert "2 runs: 1 faulty, 1 healthy." in page.read_text()
