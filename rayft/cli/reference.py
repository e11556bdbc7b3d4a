"""The command reference, made from the commands themselves: `python -m rayft.cli.reference > docs/cli.md`."""

from __future__ import annotations

import click

from rayft.cli import COMMANDS, group

_HEAD = """# Commands

This page is made from the commands' own help by `python -m rayft.cli.reference > docs/cli.md`.

Every command exits with 0 when it is done (rows left unlabelled included), 1 when some inputs failed and
the rest is complete, 2 when it refused before any work, 3 when it stopped and the same command resumes,
70 for a bug in rayft, 130 when interrupted.

## Shell completion

    eval "$(_RAYFT_COMPLETE=bash_source rayft)"                      # bash, in ~/.bashrc
    eval "$(_RAYFT_COMPLETE=zsh_source rayft)"                       # zsh, in ~/.zshrc
    _RAYFT_COMPLETE=fish_source rayft > ~/.config/fish/completions/rayft.fish
"""


def reference() -> str:
    """Return the page: the help of every command at a width of 100."""
    parts = [_HEAD]
    top = click.Context(group, info_name="rayft", terminal_width=100, **group.context_settings)
    for name in COMMANDS:
        command = group.get_command(top, name)
        if command is None:
            raise KeyError(name)
        with click.Context(command, parent=top, info_name=name) as context:
            parts.append(f"## rayft {name}\n\n```text\n{command.get_help(context).rstrip()}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    print(reference(), end="")
