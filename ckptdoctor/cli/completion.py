"""`ckptdoctor completion`: the shell's Tab key, by click's own machinery."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_CKPTDOCTOR_COMPLETE"  # what click derives from the program's name; the scripts set it


@click.command(short_help="A script that lets the shell complete commands.")
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print a script for the shell: commands, options, rule names and files then complete with Tab.

    \b
    bash  ckptdoctor completion bash > ~/.local/share/bash-completion/completions/ckptdoctor
    zsh   ckptdoctor completion zsh > "${fpath[1]}/_ckptdoctor"
    fish  ckptdoctor completion fish > ~/.config/fish/completions/ckptdoctor.fish
    """  # noqa: D301 - what click looks for is the character itself
    from click.shell_completion import get_completion_class

    from ckptdoctor.cli import cli

    kind = get_completion_class(shell)
    assert kind is not None
    # not `kind.source()`: for bash that first runs the bash of this machine to warn about its version
    script = kind(cli, {}, "ckptdoctor", VARIABLE)
    click.echo(script.source_template % script.source_vars())


def rule_words(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Codes and names of rules that begin like what was typed."""
    from ckptdoctor.rules.registry import all_rules

    words = [(word, rule.summary) for rule in all_rules() for word in (rule.code, rule.name)]
    return [CompletionItem(word, help=about) for word, about in words if word.lower().startswith(incomplete.lower())]


def rule_or_cause_words(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """As `rule_words`, and the causes."""
    from ckptdoctor.model import Cause

    causes = [CompletionItem(cause.value) for cause in Cause if cause.value.startswith(incomplete.lower())]
    return rule_words(ctx, parameter, incomplete) + causes
