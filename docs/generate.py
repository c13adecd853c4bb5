"""Write what is made from the code: pages on rules, commands, causes, JSON and constants, the man page. `--check` only compares.

python docs/generate.py [--check]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FAMILIES = {
    "1": "Checkpoints",
    "2": "Training logs",
    "3": "Checkpoints over time",
    "4": "Recorded batches",
    "5": "Replay",
    "6": "All of it together",
    "7": "The file itself",
}


def pages() -> Iterator[tuple[Path, str]]:
    """Every generated page as (path, text)."""
    yield HERE / "rules.md", rules_page()
    yield HERE / "causes.md", causes_page()
    yield HERE / "commands.md", commands_page()
    yield HERE / "json.md", json_page()
    yield HERE / "schema" / "report-1.0.json", _schema()
    yield HERE / "constants.md", constants_page()
    yield HERE / "man" / "ckptdoctor.1", _man_page()


def _schema() -> str:
    from ckptdoctor.report.schema import schema_text

    return schema_text()


def rules_page() -> str:
    from ckptdoctor.rules.registry import all_rules

    lines = ["# Rules", "", "Made from the rules themselves; `ckptdoctor explain CODE` prints the same.", ""]
    family = ""
    for rule in all_rules():
        if rule.code[3] != family:
            family = rule.code[3]
            lines += [f"## {FAMILIES[family]}", ""]
        needs = ", ".join(sorted(rule.needs)) or "nothing in particular"
        lines += [
            f"### {rule.code} {rule.name}",
            "",
            f"Severity {rule.severity.name.lower()}, needs {needs}, since {rule.since}.",
        ]
        for line in rule.doc.splitlines():
            lines.append(f"\n**{line[3:]}**\n" if line.startswith("## ") else line)
        lines.append("")
        if rule.thresholds:
            lines += ["| threshold | value | unit | source |", "|---|---|---|---|"]
            lines += [f"| `{n}` | {t.value:g} | {t.unit} | {t.source} |" for n, t in rule.thresholds.items()]
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def causes_page() -> str:
    from ckptdoctor.causes import CAUSE_DOCS

    lines = ["# Causes", "", "Made from `ckptdoctor/causes.py`; `ckptdoctor explain CAUSE` prints the same.", ""]
    for cause, doc in CAUSE_DOCS.items():
        lines += [
            f"## {cause.value}",
            "",
            f"**{doc.title}** (group: {cause.group.value}). {doc.plain}",
            "",
            f"*How to tell:* {doc.how_to_tell}",
            "",
            f"*How to fix:* {doc.how_to_fix}",
            "",
        ]
    return "\n".join(lines).rstrip() + "\n"


def commands_page() -> str:
    import click

    from ckptdoctor.cli import cli

    lines = ["# Commands", "", "Made from the commands' own help.", ""]
    context = click.Context(cli, info_name="ckptdoctor", terminal_width=100, **cli.context_settings)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        if command is None or command.hidden:
            continue
        with click.Context(command, info_name=name, parent=context, terminal_width=100, max_content_width=100) as sub:
            lines += [f"## {name}", "", "```text", command.get_help(sub), "```", ""]
    return "\n".join(lines).rstrip() + "\n"


def json_page() -> str:
    from ckptdoctor.report.document import schema

    document = schema()
    lines = [
        "# JSON document",
        "",
        "Made from the schema, [report-1.0.json](schema/report-1.0.json). `ckptdoctor inspect RUN --format json` prints such a",
        "document and nothing else; `report.to_json()` returns it. It is strict JSON: numbers that are not finite are the strings",
        '`"NaN"`, `"Infinity"`, `"-Infinity"`. Every key is always there; what is not known is `null`, and `not_checked` says why.',
        "Added keys raise the minor number of `schema_version`, renamed or removed ones the major number.",
        "",
        *_members("document", document),
    ]
    for name, record in document["$defs"].items():
        if "properties" in record:
            lines += ["", *_members(name, record)]
    return "\n".join(lines).rstrip() + "\n"


def _members(name: str, record: dict[str, Any]) -> Iterator[str]:
    yield f"## {name}"
    yield ""
    yield record.get("description", "")
    yield ""
    yield "| key | type | meaning |"
    yield "|---|---|---|"
    for key, member in record["properties"].items():
        yield f"| `{key}` | {_type(member)} | {_cell(member.get('description', ''))} |"


def _type(member: dict[str, Any]) -> str:
    """A JSON schema in a few words, with links to the tables of this page."""
    if "$ref" in member:
        name = member["$ref"].rpartition("/")[2]
        return "number" if name == "real" else f"[{name}](#{name})"
    if "anyOf" in member:
        return " or ".join(dict.fromkeys(_type(m) for m in member["anyOf"]))
    if "enum" in member:
        return ", ".join(f"`{_cell(word)}`" for word in member["enum"])
    if member.get("type") == "array":
        return f"list of {_type(member.get('items', {}))}"
    return str(member.get("type", "anything"))


def _cell(text: object) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")


def constants_page() -> str:
    from ckptdoctor import diagnosis

    lines = [
        "# Constants of the ranking",
        "",
        "Made from `ckptdoctor/diagnosis.py`; what they do is told in [the method](method.md). The weights of single findings stand",
        "in the rules, beside the reason that the report quotes.",
        "",
        "| constant | value | meaning |",
        "|---|---|---|",
        f"| `UNKNOWN_LOG_ODDS` | {diagnosis.UNKNOWN_LOG_ODDS:g} | sum that a cause must pass to be preferred over `unknown` |",
        f"| `TEMPERATURE` | {diagnosis.TEMPERATURE:g} | sums are divided by it before they become probabilities |",
        f"| `CEILING` | {diagnosis.CEILING[True]:g}, {diagnosis.CEILING[False]:g} | how sure a cause is at most, observed or "
        "proved, and otherwise: probabilities are multiplied by it |",
        f"| `HEALTHY` | {diagnosis.HEALTHY:g} | how sure `healthy` is at most |",
        f"| `LIKELY` | {diagnosis.LIKELY:g} | confidence from which a cause is `likely` (and may be `confirmed`) |",
        f"| `POSSIBLE` | {diagnosis.POSSIBLE:g} | confidence from which a cause is `possible` |",
        "",
        "| cause | log-odds before any evidence |",
        "|---|---|",
        *(f"| `{cause.value}` | {value:+.1f} |" for cause, value in diagnosis.PRIORS.items()),
    ]
    return "\n".join(lines) + "\n"


def _man_page() -> str:
    from ckptdoctor import __version__
    from ckptdoctor.cli import cli

    sys.path.insert(0, str(HERE.parent))  # run as a script, this file's neighbours are no package
    from docs.manpage import man_page

    return man_page(cli, __version__)


def main(arguments: list[str]) -> int:
    stale = []
    for path, text in pages():
        if "--check" in arguments:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                stale.append(path.name)
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if stale:
        print(f"not current: {', '.join(stale)}; run `python docs/generate.py`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
