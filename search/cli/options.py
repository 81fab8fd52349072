"""What every command shares: options, where it prints, how its JSON is written."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any

import typer

from search.space.loading import URI_VARIABLE
from trainable.json_text import to_json
from trainable.loader.own_code import allow_code
from trainable.terminal import Terminal, progress

INTERRUPTED = "interrupted; the same command goes on"
# A pipe has no width: wide enough that no row of a table is broken.
console = Terminal(width=None if sys.stdout.isatty() else 240)
errors = Terminal(stderr=True, highlight=False)

Spaces = Annotated[list[Path], typer.Argument(help="Space files.")]
SpaceFile = Annotated[Path, typer.Argument(help="The space file, such as spaces/resnet.yaml.")]
Name = Annotated[str, typer.Argument(help="The search's name.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="PATH=VALUE: another value for a path of the file; repeatable.")
]
Data = Annotated[str | None, typer.Option("--data", help="The images: a folder, a CSV, a Parquet or Arrow file.")]
Trials = Annotated[int | None, typer.Option("--trials", help="How many trials.")]
Minutes = Annotated[
    float | None, typer.Option("--minutes", help="Time by the clock in which all is to end, instead of the file's.")
]
NewName = Annotated[str | None, typer.Option("--name", help="The search's name.")]
Folder = Annotated[Path, typer.Option("--folder", help="Where searches are kept.")]
Address = Annotated[
    str | None,
    typer.Option("--address", help="A Ray cluster to join: auto on one of its nodes, or its head's host:port."),
]
AllowCode = Annotated[
    bool,
    typer.Option("--allow-code", help="Import the functions that augment.custom names.", callback=allow_code),
]
TrackingUri = Annotated[str, typer.Option("--uri", envvar=URI_VARIABLE, help="MLflow's tracking address.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document instead of text.")]


def images_seen(*, fewest: int = 0) -> AbstractContextManager[Callable[[int, int], None]]:
    """A bar of the images that were looked at, of more than ``fewest``; gives what is told how many of how many are."""
    return progress("looking at images", screen=errors, fewest=fewest)


def print_json(document: Any) -> None:
    """Print one JSON document."""
    typer.echo(to_json(document, indent=2))
