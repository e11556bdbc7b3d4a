"""The command line itself: quick help, examples, documentation that matches."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from rayft import __version__
from rayft.cli import COMMANDS, group
from rayft.cli.reference import reference
from tests.helpers import Cli

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str) -> None:
    command = group.get_command(click.Context(group), name)
    assert command is not None and command.help
    assert "Example" in command.help and f"rayft {name}" in command.help
    summary = COMMANDS[name][1]
    assert command.help.startswith(summary.rstrip(".")), "the line in `rayft --help` is the command's own first line"
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{parameter.opts} has no help"


def test_the_reference_is_what_the_commands_say() -> None:
    assert (ROOT / "docs/cli.md").read_text() == reference(), "run: python -m rayft.cli.reference > docs/cli.md"


def test_every_option_in_the_readme_and_docs_exists() -> None:
    import re

    known = {"--help", "--version"}
    for name in COMMANDS:
        command = group.get_command(click.Context(group), name)
        known |= {option for parameter in command.params for option in parameter.opts}  # type: ignore[union-attr]
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    for page in pages:
        for line in re.findall(r"^\s*(?:\$ )?rayft (.*)$", page.read_text(), flags=re.MULTILINE):
            for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", line):
                assert option in known, f"{page.name}: {option} in: rayft {line}"


def test_help_imports_nothing_heavy_and_version_answers() -> None:
    code = (
        "import sys\nfrom rayft.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'ray', 'pyarrow', 'polars', 'numpy', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    for name in COMMANDS:
        assert f"\n  {name}" in ran.stdout


def test_version_and_launcher(cli: Cli) -> None:
    assert cli("--version").out.strip() == f"rayft, version {__version__}"
    ran = subprocess.run([sys.executable, "cli.py", "--version"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ran.stdout.strip() == f"rayft, version {__version__}"


def test_unknown_commands_and_options_suggest_the_near_one(cli: Cli) -> None:
    assert "Did you mean 'score'?" in cli("scroe").err
    assert "--output" in cli("score", "x", "--ouput", "y").err


def test_a_bug_is_reported_with_exit_code_70(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import rayft.score.run as run

    def broken(*_: object) -> None:
        raise RuntimeError("unexpected")

    monkeypatch.setattr(run, "prepare", broken)
    ran = cli("score", tmp_path / "x.parquet")
    assert ran.code == 70
    assert "This is a bug in rayft" in ran.err and "RuntimeError: unexpected" in ran.err
