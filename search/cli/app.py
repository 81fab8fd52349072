"""The command line: every command by its name."""

import signal
import sys
from collections.abc import Callable

import typer

from search.cli.automatic import auto
from search.cli.checks import check
from search.cli.models import export, predict, promote, rollback
from search.cli.options import INTERRUPTED, errors
from search.cli.refreshes import refresh, watch
from search.cli.searches import (
    compare,
    diagnose,
    fields,
    list_searches,
    plan,
    report,
    resume,
    run,
    status,
    sync,
    ui,
)
from search.cli.spaces import new
from trainable.cpus import limit_threads
from trainable.errors import OutageError, SettingsError, UserError
from trainable.home import ensure_home, expand_words

PROGRAM = "finetune-search"  # by its one word a shell completes; `python -m search` has three
COMPLETION = (["--install-completion"], ["--show-completion"])
COMMANDS: dict[str, Callable[..., None]] = {
    "auto": auto,
    "new": new,
    "check": check,
    "fields": fields,
    "diagnose": diagnose,
    "plan": plan,
    "run": run,
    "resume": resume,
    "watch": watch,
    "status": status,
    "list": list_searches,
    "report": report,
    "compare": compare,
    "promote": promote,
    "refresh": refresh,
    "rollback": rollback,
    "predict": predict,
    "export": export,
    "sync": sync,
    "ui": ui,
}


def main() -> None:
    """Run a command; a mistake of the user's is one line and exit code 2, what cannot be done now one line and exit code 1."""
    try:
        ensure_home()
        limit_threads()
        words = expand_words(sys.argv[1:])
        make_app()(words, prog_name=PROGRAM if words[:1] in COMPLETION else None)
    except (UserError, OutageError) as error:
        for line in error.problems if isinstance(error, SettingsError) else (error,):
            errors.print(f"error: {line}", markup=False)
        sys.exit(2 if isinstance(error, UserError) else 1)
    except SystemExit as end:
        if end.code == signal.SIGTERM:  # how Ray ends a process that is told to end while Ray starts or stops
            errors.print(INTERRUPTED)
            sys.exit(130)
        raise


def make_app() -> typer.Typer:
    """Make the application of all commands."""
    app = typer.Typer(
        help="Finds the best way to fine-tune a pretrained image classifier on your own data.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    for name, command in COMMANDS.items():
        app.command(name)(command)
    return app
