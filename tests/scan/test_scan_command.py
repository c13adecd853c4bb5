"""The commands `scan` and `merge` from outside: formats, exit status, lists, progress, hostile names."""

from __future__ import annotations

import html.parser
import json
import os
import pty
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from making_checkpoints import dense_config, keras_template, write, write_run

from ckptdoctor.cli.scan import duration, listed_paths, progress_line
from ckptdoctor.scanner import Counts

KERAS = keras_template()
SICK = KERAS.patched({"layers/dense/vars/0": np.nan})
CLI = [sys.executable, "-c", "from ckptdoctor.cli import main; main()"]


def run(*arguments: str | Path, cwd: Path | None = None, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*CLI, *map(str, arguments)], capture_output=True, cwd=cwd, input=stdin, timeout=120, check=False
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Three runs: healthy, sick from epoch 2, and one with a damaged file."""
    root = tmp_path_factory.mktemp("scan")
    write_run(root / "runs/fine", KERAS, 3)
    write_run(root / "runs/dead", KERAS, 4, bad_from=2)
    write(root / "runs/cut/model.keras", KERAS.data[:3000])
    return root


def test_the_table_says_what_is_sick_since_when_and_where_to_resume(runs):
    done = run("scan", "runs", "--ignore-errors", "--jobs", "2", cwd=runs)
    assert done.returncode == 1
    assert re.search(
        r"sick +data_nonfinite.* layer_0/kernel +epoch 2, step 20 +runs/dead/epoch_002\.keras", done.stdout
    )
    assert (
        "run        runs/dead: first bad epoch_002.keras (epoch 2, step 20); "
        "last healthy, to resume from: epoch_001.keras (epoch 1, step 10)" in done.stdout
    )
    assert re.search(r"unreadable runs/cut/model\.keras is damaged", done.stdout)
    assert "8 checkpoints in 3 runs: 5 healthy, 2 sick, 1 unreadable." in done.stdout
    assert "fine" not in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["runs/fine"], 0),
        (["runs/dead"], 1),
        (["runs/dead", "--fail-on", "never"], 0),
        (["runs/cut"], 2),
        (["runs/cut", "--ignore-errors"], 0),
        (["runs"], 2),
        (["runs", "--ignore-errors"], 1),
        (["runs/*/epoch_000.keras"], 0),
        (["runs/none*"], 2),
        (["runs/gone"], 2),
        (["runs/fine", "--since", "1min"], 2),
        (["runs/fine", "--shard", "9/3"], 2),
        (["runs/fine", "-o", "page.pdf"], 2),
        (["runs/fine", "-o", "no/such/dir/index.html"], 2),
        (["runs/fine", "--resume", "runs/fine/epoch_000.keras"], 2),
        ([], 2),
    ],
)
def test_the_exit_status(runs, arguments, status):
    done = run("scan", *arguments, cwd=runs)
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    if status == 2 and "unreadable" not in done.stdout:
        assert done.stdout == ""
        assert done.stderr.strip()


def test_lines_stream_as_strict_json(runs):
    done = run("scan", "runs", "--format", "jsonl", cwd=runs)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 8
    (first_bad,) = [x for x in lines if x["path"] == "runs/dead/epoch_002.keras"]
    assert first_bad["run"] == "runs/dead"
    assert (first_bad["status"], first_bad["epoch"], first_bad["step"]) == ("sick", 2, 20)
    assert (first_bad["layer"], first_bad["nonfinite"]) == ("layer_0", 40)
    assert first_bad["size_bytes"] == len(KERAS.data)
    (cut,) = [x for x in lines if x["status"] == "unreadable"]
    assert "cut off" in cut["error"]
    assert cut["kind"] == "damaged"


def test_several_outputs_are_written_whole_beside_the_table(runs, tmp_path):
    page, marks, cases, lines = (tmp_path / name for name in ("index.html", "scan.md", "scan.xml", "scan.jsonl"))
    done = run("scan", "runs", "-o", page, "-o", marks, "-o", cases, "-o", lines, cwd=runs)
    assert done.returncode == 2
    assert "8 checkpoints" in done.stdout
    assert sorted(os.listdir(tmp_path)) == sorted(["index.html", "scan.md", "scan.xml", "scan.jsonl"])
    assert len(lines.read_text().splitlines()) == 8
    assert "| `runs/dead` | 2 of 4 | `epoch_002.keras` epoch 2, step 20 | `epoch_001.keras`" in marks.read_text()
    suite = ET.parse(cases).getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("8", "2", "1")
    assert len(suite.findall(".//testcase")) == 8
    assert {c.get("classname") for c in suite.findall(".//testcase[failure]")} == {"runs/dead"}


class Page(html.parser.HTMLParser):
    """Collects tags, links and text, and refuses what a browser would run or fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        assert tag not in {"img", "iframe", "object", "embed"}
        assert tag != "link" or (given.get("href") or "").startswith("data:image/svg+xml,")
        assert not any(name.startswith("on") for name in given)
        assert "src" not in given
        if tag == "a":
            href = given["href"] or ""
            self.links += [href] if not href.startswith("#") else []

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] not in {"script", "style"}:
            self.text += data


def test_the_index_page_names_runs_and_links_their_reports(runs, tmp_path):
    done = run("scan", "runs", "-o", tmp_path / "index.html", "--reports", tmp_path / "reports", cwd=runs)
    assert done.returncode == 2
    page = Page((tmp_path / "index.html").read_text())
    for words in (
        "runs/dead",
        "epoch_002.keras",
        "epoch_001.keras",
        "data_nonfinite",
        "runs/cut/model.keras",
        "runs/fine",
    ):
        assert words in page.text
    reports = sorted(os.listdir(tmp_path / "reports"))
    assert len(reports) == 2
    assert set(page.links) == {f"./reports/{name}" for name in reports}
    for name in reports:
        assert "data_nonfinite" in (tmp_path / "reports" / name).read_text()


def test_annotations(runs):
    done = run("scan", "runs", "--format", "github", cwd=runs)
    rows = done.stdout.splitlines()
    assert sum(row.startswith("::error file=runs/dead/epoch_00") for row in rows) == 2
    assert any(row.startswith("::error file=runs/cut/model.keras,title=unreadable checkpoint::") for row in rows)
    assert rows[-1].startswith("::notice title=ckptdoctor scan::8 checkpoints in 3 runs")


HOSTILE = [
    "<script>alert(1)<script>",
    "a\nb::error::injected",
    "\x1b[31mred\x1b]0;title\x07",
    "=cmd|' /C calc'!A0",
    "| pipe ` tick [link](http:x)",
    "\u202egnp.exe",
    "%0A::warning::x",
]


def test_hostile_names_are_text_everywhere(tmp_path):
    for name in HOSTILE:
        write(tmp_path / "runs" / name / f"{name[:40]}.keras", SICK)
    with open(os.fsencode(tmp_path) + b"/runs/\xff\xfe.keras", "wb") as file:
        file.write(SICK)
    outputs = [tmp_path / f"out.{suffix}" for suffix in ("html", "md", "xml", "jsonl")]
    done = run("scan", "runs", "--reports", "reports", *(f"-o{p}" for p in outputs), cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "8 checkpoints" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    assert "\u202e" not in done.stdout
    assert not any(row.startswith("b::error") for row in done.stdout.splitlines())
    page = Page(outputs[0].read_text())
    assert "<script>alert(1)<script>" in page.text
    assert page.tags.count("script") == 1  # the page's own, allowed by its hash
    assert len(page.links) == 8
    assert "\n::error" not in outputs[1].read_text()
    assert len(ET.parse(outputs[2]).getroot().findall(".//testcase")) == 8
    assert all(row.isascii() and json.loads(row)["status"] == "sick" for row in outputs[3].read_text().splitlines())
    names = os.listdir(tmp_path / "reports")
    assert len(names) == 8
    assert all(re.fullmatch(r"[\w.+-]+\.html", name) and not name.startswith((".", "-")) for name in names)
    shown = run("scan", "runs", "--format", "github", cwd=tmp_path)
    assert all(row.startswith(("::error file=", "::notice ", "::warning ")) for row in shown.stdout.splitlines())


EVIL = {"class_name": "__lambda__", "config": {"code": "4wEAAAA=", "defaults": None, "closure": None}}


def test_malice_is_shown_without_making_a_healthy_file_sick(tmp_path):
    config = dense_config()
    layers = config["config"]["layers"]
    layers.append({"module": "keras.layers", "class_name": "Lambda", "config": {"name": "l", "function": EVIL}})
    write(tmp_path / "evil.keras", keras_template(config=config).data)
    write(tmp_path / "good.keras", KERAS.data)
    done = run("scan", tmp_path, "--format", "jsonl")
    lines = {os.path.basename(x["path"]): x for x in map(json.loads, done.stdout.splitlines())}
    assert lines["good.keras"]["warnings"] == []
    assert any(w.startswith("CKD7") for w in lines["evil.keras"]["warnings"]), lines["evil.keras"]
    table = run("scan", tmp_path)
    assert re.search(r"suspect +\S+evil\.keras: CKD7", table.stdout)
    assert run("scan", tmp_path, "--fail-on", "warning").returncode == 1


def test_a_list_of_files_from_standard_input_by_lines_or_nuls(runs):
    for separator in (b"\n", b"\0"):
        listed = separator.join([b"runs/fine/epoch_000.keras", b"runs/dead/epoch_003.keras", b""])
        done = run("scan", "--files-from", "-", cwd=runs, stdin=listed)
        assert done.returncode == 1
        assert "2 checkpoints in 2 runs: 1 healthy, 1 sick, 0 unreadable." in done.stdout
    gone = run("scan", "--files-from", "-", cwd=runs, stdin=b"runs/gone.keras\n")
    assert gone.returncode == 2
    assert "runs/gone.keras vanished" in gone.stdout


def test_listed_paths_are_read_as_they_come():
    pieces = iter([b"a\nb", b"c\r\n", b"\nd"])
    assert list(listed_paths(lambda _most: next(pieces, b""))) == ["a", "bc", "d"]
    pieces = iter([b"a\nb\0c", b"\0"])
    assert list(listed_paths(lambda _most: next(pieces, b""))) == ["a\nb", "c"]


def test_shards_and_merge_are_the_whole(runs, tmp_path):
    for i in (1, 2):
        run("scan", "runs", "--shard", f"{i}/2", "--resume", tmp_path / f"s{i}.jsonl", cwd=runs)
    done = run("merge", tmp_path / "s1.jsonl", tmp_path / "s2.jsonl", "-o", tmp_path / "all.html", cwd=runs)
    assert done.returncode == 2
    assert "8 checkpoints in 3 runs: 5 healthy, 2 sick, 1 unreadable." in done.stdout
    assert "first bad epoch_002.keras (epoch 2, step 20); last healthy, to resume from: epoch_001.keras" in done.stdout
    assert "runs/dead" in Page((tmp_path / "all.html").read_text()).text
    assert run("merge", tmp_path / "none.jsonl").returncode == 2
    (tmp_path / "empty.jsonl").touch()
    assert run("merge", tmp_path / "empty.jsonl").returncode == 2


def on_a_terminal(arguments: list[str], cwd: Path) -> str:
    """What a terminal sees on standard error."""
    main, other = pty.openpty()
    process = subprocess.Popen([*CLI, *arguments], stdout=subprocess.DEVNULL, stderr=other, cwd=cwd)
    os.close(other)
    seen = b""
    while True:
        try:
            piece = os.read(main, 4096)
        except OSError:  # the other side closed
            break
        if not piece:
            break
        seen += piece
    process.wait(60)
    os.close(main)
    return seen.decode()


def test_progress_with_rate_and_remaining_time_only_on_a_terminal(tmp_path):
    for number in range(12):
        write_run(tmp_path / f"runs/r{number}", KERAS, 20)
    seen = on_a_terminal(["scan", "runs", "--jobs", "1"], tmp_path)
    assert re.search(r"\[#+-+\] \d+/240  \d+(\.\d)?/s  \d+ s left  0 sick", seen)
    assert seen.endswith("\r\x1b[2K")
    assert run("scan", "runs/r1", cwd=tmp_path).stderr == ""


def test_the_words_of_progress():
    counts = Counts(done=1200, resumed=200, sick=12, unreadable=1)
    assert (
        progress_line(counts, 2000, 10.0)
        == "[##############----------] 1,200/2,000  100/s  8 s left  12 sick  1 unreadable"
    )
    assert progress_line(Counts(done=3), None, 1.0) == "3 measured  3.0/s  0 sick"
    assert [duration(s) for s in (0.4, 59, 200, 7500)] == ["0 s", "59 s", "3 min 20 s", "2 h 05 min"]


def test_nothing_heavy_is_imported():
    code = "import sys, ckptdoctor.scanner; bad = {'numpy', 'h5py', 'fsspec', 'distributed', 'tensorflow', 'keras', 'jinja2'}"
    code += "; sys.exit(str(bad & set(sys.modules)) if bad & set(sys.modules) else 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
