"""The command line: parse, build one config, call one function, print one report."""

from __future__ import annotations

import importlib
import signal
import sys
from typing import Any

import click

from rayft import __version__
from rayft.errors import RayftError

#: Command -> (module, one line for `rayft --help`). Modules are imported only when their command runs.
COMMANDS = {
    "score": ("rayft.cli.score", "Score review files: labels, confidences and defect flags beside every row."),
    "predict": ("rayft.cli.predict", "Judge one or a few reviews from arguments or, one a line, from standard input."),
    "status": ("rayft.cli.status", "Show how far the scoring of OUTPUT is, from another terminal or after a crash."),
    "prepare": ("rayft.cli.prepare", "Make a token store for training out of labelled reviews."),
    "profile": ("rayft.cli.profile", "Show what a data set is like: classes, lengths, duplicates, doubtful labels."),
    "alerts": ("rayft.cli.alerts", "Find products whose share of defect reports rises, early."),
    "evaluate": ("rayft.cli.evaluate", "Measure a model on labelled reviews, and show where it goes wrong."),
    "compare": ("rayft.cli.compare", "Show what changes between two models on the same reviews."),
    "doctor": ("rayft.cli.doctor", "Check machine, model, folders and cluster, and say how to mend what is wrong."),
}


class LazyGroup(click.Group):
    """A group that knows its commands' one-line help without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from rayft.errors import nearest

        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"There is no command '{args[0]}'.{nearest(args[0], list(COMMANDS))}")
        return super().resolve_command(ctx, args)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Shell completion: docs/cli.md. Every command has an example in its --help.",
)
@click.version_option(__version__, prog_name="rayft")
def group() -> None:
    """Find product defects in customer reviews, at any scale.

    \b
    Example:
      rayft score reviews.parquet
    """


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit with the code that rayft.errors documents."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        result: Any = group.main(args=args, prog_name="rayft", standalone_mode=False)
        sys.exit(result if isinstance(result, int) else 0)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except RayftError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("Interrupted. What was finished is kept; the same command goes on from there.", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except Exception:
        import traceback

        traceback.print_exc()
        click.echo(f"\nThis is a bug in rayft {__version__}. Please report it with the lines above.", err=True)
        sys.exit(70)


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt
