"""The fenced code blocks of the documentation, and how each kind of them is run.

A page says in comments what its blocks work on:

    <!-- files: run=fixtures/runs/nan_feature -->   copied into the directory where the page's blocks run, in order
    <!-- not run: needs a cluster -->               before a block: it is only checked for syntax
    <!-- status: 2 -->                              before a block: the exit status it must end with (default: 0 or 1)

In a `console` block the lines after `$` are commands and the others what they print; `…` alone on a line stands for any
lines, and at the end of a line for the rest of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"^ *<!-- (files|not run|status|command): (.*?) -->$")


@dataclass(frozen=True)
class Block:
    """One block: its language, its text, the line it begins at, and the comments before it."""

    page: str
    line: int
    language: str
    code: str
    marks: dict[str, str]

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Every fenced block of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        indent, language, code = match.groups()
        before = text[: match.start()].rstrip("\n").split("\n")
        marks = {}
        while before and (comment := _COMMENT.match(before[-1])):
            marks[comment[1]] = comment[2]
            before.pop()
        code = "".join(line.removeprefix(indent) for line in code.splitlines(keepends=True))
        name = page.relative_to(ROOT).as_posix()
        found.append(Block(name, text.count("\n", 0, match.start()) + 1, language, code, marks))
    return found


def files(page: Path) -> dict[str, str]:
    """What the page's blocks find in their directory: name → path in the checkout."""
    found: dict[str, str] = {}
    for listed in re.findall(r"^<!-- files: (.*?) -->$", page.read_text(encoding="utf-8"), re.MULTILINE):
        found |= dict(item.split("=", 1) for item in listed.split())
    return found


def commands(block: Block) -> Iterator[tuple[str, str]]:
    """(command, what it should print) of a console block."""
    command, output = "", ""
    for line in block.code.splitlines(keepends=True):
        if line.startswith("$ "):
            if command:
                yield command, output
            command, output = line[2:], ""
        elif command.endswith("\\\n"):
            command += line
        else:
            output += line
    if command:
        yield command, output


def matches(shown: str, printed: str) -> bool:
    """Whether a page shows what was printed, its `…` filled in."""
    pattern = ""
    for line in shown.rstrip("\n").split("\n"):
        if line.strip() == "…":
            pattern += r"(?:.*\n)*?"
        elif line.endswith("…"):
            pattern += re.escape(line[:-1]) + ".*\n"
        else:
            pattern += re.escape(line) + "\n"
    return re.fullmatch(pattern + r"\s*", printed.rstrip("\n") + "\n") is not None
