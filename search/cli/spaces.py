"""The command that writes a space file to begin with."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from search.cli.options import Data, Minutes, Set, console
from search.space.lint import lint
from search.space.preflight import check_models
from search.space.shipped import made_like, shipped_names, space_of_family
from search.space.writing import check_place, write_space

Like = Annotated[
    str | None,
    typer.Option(
        "--like", help="The shipped space to take; else that of the model's family.", autocompletion=shipped_names
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Write over another file of this name.")]


def new(
    space: Annotated[Path, typer.Argument(help="The space file to write, such as mine.yaml.")],
    like: Like = None,
    model: Annotated[str | None, typer.Option(help="A timm architecture instead of the space's.")] = None,
    data: Data = None,
    minutes: Minutes = None,
    overrides: Set = None,
    force: Force = False,
) -> None:
    """Write a commented space file made from a shipped one; nothing is run."""
    check_place(space, where=str(space))
    text, spec = made_like(
        like or space_of_family(model),
        path=space,
        model=model,
        data=data,
        minutes=minutes,
        overrides=overrides or (),
    )
    if model is not None:
        check_models(spec)
    write_space(text, path=space, where=str(space), force=force, cure="--force writes over it")
    for note in lint(spec):
        console.print(f"note: {note}", highlight=False, markup=False)
    given = "" if data is not None or not spec.base.get("data.path") else " --data path/to/images"
    step = f"python -m search check {shlex.quote(str(space))}{given}"
    console.print(f"space: {space}; to look at it: {step}", highlight=False, markup=False)
