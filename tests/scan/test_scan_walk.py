"""Walking: everything is found once, in order, and what cannot be looked at is named."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from making_checkpoints import keras_template, weights_template, write

from ckptdoctor.model import CkptDoctorError
from ckptdoctor.scanner.result import Kind
from ckptdoctor.scanner.walk import Candidate, Filters, RunEnd, Trouble, walk, walk_list
from ckptdoctor.scanner.work import measure

KERAS = keras_template()


def touch(path: Path, *, age: float = 0.0) -> Path:
    return write(path, b"x", age=age)


def paths(root: Path | str, *more: str, **filters) -> list[str]:
    base = root if isinstance(root, Path) else Path(root)
    events = walk([str(root), *more], Filters(**filters))
    return [
        os.path.relpath(e.path, base) if isinstance(root, Path) else e.path for e in events if isinstance(e, Candidate)
    ]


def troubles(root: Path) -> list[Trouble]:
    return [e for e in walk([str(root)], Filters()) if isinstance(e, Trouble)]


def test_a_tree_is_walked_in_the_order_of_names_and_numbers(tmp_path):
    for name in ("b/e_2.keras", "b/e_10.keras", "a/x.h5", "top.weights.h5", "a/notes.txt"):
        touch(tmp_path / name)
    assert paths(tmp_path) == ["top.weights.h5", "a/x.h5", "b/e_2.keras", "b/e_10.keras"]


def test_each_run_ends_after_its_last_checkpoint(tmp_path):
    touch(tmp_path / "r1/checkpoints/a.keras")
    touch(tmp_path / "r1/best.keras")
    touch(tmp_path / "r2/a.keras")
    told = [(type(e).__name__, os.path.relpath(e.run, tmp_path)) for e in walk([str(tmp_path)], Filters())]
    assert told == [
        ("Candidate", "r1"),
        ("Candidate", "r1"),
        ("RunEnd", "r1"),
        ("Candidate", "r2"),
        ("RunEnd", "r2"),
        ("RunEnd", "."),
    ]


def test_files_of_unknown_names_are_found_by_their_content(tmp_path):
    write(tmp_path / "model_final", KERAS.data)
    write(tmp_path / "weights_final", weights_template().data)
    touch(tmp_path / "README")
    (tmp_path / "other.zip").write_bytes(b"PK\x03\x04" + bytes(100))
    assert paths(tmp_path) == ["model_final", "weights_final"]


def test_a_directory_checkpoint_is_one_and_is_not_entered(tmp_path):
    for name in ("config.json", "metadata.json", "model.weights.h5"):
        touch(tmp_path / "run/m.keras" / name)
    touch(tmp_path / "run/7/_CHECKPOINT_METADATA")
    touch(tmp_path / "run/7/pytree/_METADATA")
    (seven, model) = (e for e in walk([str(tmp_path)], Filters()) if isinstance(e, Candidate))
    assert [os.path.basename(seven.path), os.path.basename(model.path)] == ["7", "m.keras"]
    assert model.run == str(tmp_path / "run")
    assert model.identity.size == 3


def test_include_and_exclude(tmp_path):
    for name in ("a/best.keras", "a/last.keras", "tmp/best.keras", "b/old/best.keras"):
        touch(tmp_path / name)
    assert paths(tmp_path, include=("best*",)) == ["a/best.keras", "b/old/best.keras", "tmp/best.keras"]
    assert paths(tmp_path, exclude=("tmp", "old")) == ["a/best.keras", "a/last.keras"]
    assert paths(tmp_path, include=("b/**/best.keras",)) == ["b/old/best.keras"]


def test_a_wildcard_root_is_what_the_shell_would_have_made_of_it(tmp_path, monkeypatch):
    for name in ("r1/best.keras", "r2/best.keras", "r2/deep/best.keras", "x/best.keras"):
        touch(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert paths("r*/best.keras") == ["r1/best.keras", "r2/best.keras"]
    assert paths("r2*") == ["r2/best.keras", "r2/deep/best.keras"]
    assert paths("**/deep/*.keras") == ["r2/deep/best.keras"]
    assert paths("nothing*/x.keras") == []


def test_since_and_newest(tmp_path):
    for day, name in enumerate(["a/1.keras", "a/2.keras", "a/checkpoints/3.keras", "b/4.keras"]):
        touch(tmp_path / name, age=86_400 * (10 - day))
    newest = touch(tmp_path / "a/0.keras", age=60)
    assert paths(tmp_path, newest=1) == ["a/0.keras", "b/4.keras"]
    assert paths(tmp_path, newest=2) == ["a/0.keras", "a/checkpoints/3.keras", "b/4.keras"]
    assert paths(tmp_path, since=newest.stat().st_mtime) == ["a/0.keras"]


def test_newest_holds_back_no_more_than_it_must(tmp_path):
    for n in range(300):
        touch(tmp_path / f"e_{n}.keras", age=1000 - n)
    assert paths(tmp_path, newest=3) == ["e_297.keras", "e_298.keras", "e_299.keras"]


def test_overlapping_roots_give_each_checkpoint_once(tmp_path):
    touch(tmp_path / "a/x.keras")
    touch(tmp_path / "a/b/y.keras")
    top, inner = str(tmp_path), str(tmp_path / "a/b")
    for order in ([top, inner], [inner, top], [top, top], [str(tmp_path / "a/x.keras"), top]):
        found = [e.path for e in walk(order, Filters()) if isinstance(e, Candidate)]
        assert sorted(found) == [str(tmp_path / "a/b/y.keras"), str(tmp_path / "a/x.keras")]


def test_loops_of_links_are_named_and_end(tmp_path):
    touch(tmp_path / "a/x.keras")
    (tmp_path / "a/up").symlink_to(tmp_path)
    (tmp_path / "a/self").symlink_to("self")
    (tmp_path / "a/ring.keras").symlink_to("ring2.keras")
    (tmp_path / "a/ring2.keras").symlink_to("ring.keras")
    assert paths(tmp_path) == ["a/x.keras"]
    kinds = {os.path.basename(t.path): t.kind for t in troubles(tmp_path)}
    assert kinds == {"up": Kind.LOOP, "ring.keras": Kind.LOOP, "ring2.keras": Kind.LOOP}


def test_a_link_to_what_is_walked_anyway_gives_nothing_twice_and_others_are_followed(tmp_path):
    touch(tmp_path / "tree/run_5/x.keras")
    touch(tmp_path / "elsewhere/y.keras")
    (tmp_path / "tree/latest").symlink_to("run_5")
    (tmp_path / "tree/far").symlink_to(tmp_path / "elsewhere")
    assert paths(tmp_path / "tree") == ["far/y.keras", "run_5/x.keras"]


def test_a_link_to_nothing_is_named(tmp_path):
    (tmp_path / "best.keras").symlink_to("gone.keras")
    (trouble,) = troubles(tmp_path)
    assert trouble.kind is Kind.VANISHED
    assert "link to something that does not exist" in trouble.message


def test_pipes_and_sockets_never_block(tmp_path):
    os.mkfifo(tmp_path / "pipe.keras")
    with socket.socket(socket.AF_UNIX) as plug:
        plug.bind(str(tmp_path / "plug.keras"))
        os.mkfifo(tmp_path / "nameless")
        assert paths(tmp_path) == []
    answer = measure({"path": str(tmp_path / "pipe.keras")})
    assert (answer["status"], answer["kind"]) == ("unreadable", "damaged")
    assert "named pipe" in answer["error"]


def test_permission_denied_is_named(tmp_path):
    write(tmp_path / "open/x.keras", KERAS.data)
    write(tmp_path / "closed/y.keras", KERAS.data)
    locked = write(tmp_path / "locked.keras", KERAS.data)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and folder.is_relative_to("/tmp"):
            folder.chmod(0o755)
    (tmp_path / "closed").chmod(0)
    locked.chmod(0)
    measure({"path": str(tmp_path / "open/x.keras")})  # imports what it needs while it may
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65_534)
        assert paths(tmp_path) == ["locked.keras", "open/x.keras"]
        (trouble,) = troubles(tmp_path)
        answer = measure({"path": str(locked)})
    finally:
        os.seteuid(user)
        (tmp_path / "closed").chmod(0o755)
    assert (trouble.kind, os.path.basename(trouble.path)) == (Kind.DENIED, "closed")
    assert answer["status"] == "unreadable"
    assert answer["kind"] == "denied"
    assert "permission" in answer["error"]


def test_a_name_too_long_or_with_a_nul_is_named():
    for path in ("x" * 5000, "a\0b"):
        answer = measure({"path": path})
        assert answer["status"] == "unreadable"
        assert answer["error"]


def test_a_tree_deeper_than_any_recursion_limit_is_walked(tmp_path):
    here = os.open(tmp_path, os.O_RDONLY)
    depth = 600
    for _ in range(depth):  # below PATH_MAX as a whole
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    handle = os.open("x.keras", os.O_WRONLY | os.O_CREAT, dir_fd=here)
    os.close(handle)
    os.close(here)
    (only,) = paths(tmp_path)
    assert only == "d/" * depth + "x.keras"


def test_an_absent_root_is_an_error_and_an_absent_path_of_a_list_is_not(tmp_path):
    with pytest.raises(CkptDoctorError, match="does not exist"):
        list(walk([str(tmp_path / "gone")], Filters()))
    touch(tmp_path / "x.keras")
    listed = [str(tmp_path / "gone.keras"), str(tmp_path / "x.keras"), str(tmp_path / "x.keras")]
    gone, there = walk_list(iter(listed), Filters())
    assert isinstance(gone, Trouble)
    assert isinstance(there, Candidate)


def test_names_of_any_bytes_pass_through(tmp_path):
    name = os.fsencode(tmp_path) + b"/\xff\n\x1b[31m.keras"
    with open(name, "wb") as file:
        file.write(b"x")
    (only,) = (e for e in walk([str(tmp_path)], Filters()) if isinstance(e, Candidate))
    assert os.fsencode(only.path) == name


def test_an_explicit_file_needs_no_telling_name(tmp_path):
    touch(tmp_path / "notes.txt")
    (only,) = (e for e in walk([str(tmp_path / "notes.txt")], Filters()) if not isinstance(e, RunEnd))
    assert isinstance(only, Candidate)
