"""The command that goes from images to an answer: it looks, decides, writes a space file down, searches."""

import subprocess
import sys
import time
from typing import Annotated

import typer

from search.cli.options import INTERRUPTED, Minutes, NewName, Set, console, errors, images_seen
from search.cli.searches import conduct, print_notes
from search.diagnosis.request import MINUTES, Request, is_written
from search.space.loading import load
from trainable.errors import UserError


def auto(
    data: Annotated[str, typer.Argument(help="The images: a folder, a CSV, a Parquet or Arrow file.")],
    minutes: Minutes = None,
    name: NewName = None,
    model: Annotated[str | None, typer.Option(help="A timm architecture; else one whose weights are at hand.")] = None,
    weights: Annotated[str | None, typer.Option(help="Its weights: as model.weights of a space file.")] = None,
    overrides: Set = None,
    run: Annotated[bool, typer.Option("--run/--no-run", help="Search, or stop when the space file is written.")] = True,
) -> None:
    """Do it all in 20 minutes: look at your images, decide what to search, search, report; the same command goes on."""
    began = time.time()
    if minutes is not None and minutes <= 0:
        raise UserError(f"--minutes {minutes:g}: must be above 0")
    request = Request(data=data, name=name, model=model, weights=weights, overrides=tuple(overrides or ()))
    there = is_written(request)
    if there:
        console.print(f"space: {request.file}, written by this command before", highlight=False, markup=False)
    elif run:
        _look_in_a_process(request, minutes=minutes)
    else:
        _look(request, minutes=minutes)
    if run:
        spec = load(request.file, minutes=minutes)
        print_notes(spec)
        conduct(spec, address=None, as_json=False, began=began)
        step = f"python -m search promote {request.search_name}"
        console.print(f"to register the best as a model: {step}", highlight=False, markup=False)


def _look(request: Request, *, minutes: float | None) -> None:
    from search.diagnosis.automatic import write_automatic_space

    def tell(line: str) -> None:
        console.print(line, highlight=False, markup=False)

    with images_seen() as progress:
        write_automatic_space(request, minutes=minutes or MINUTES, tell=tell, progress=progress)


def _look_in_a_process(request: Request, *, minutes: float | None) -> None:
    """Look in a process of its own, which leaves memory and GPU to the search's workers; where it fails, so does this one."""
    bound = [] if minutes is None else ["--minutes", str(minutes)]
    try:
        command = [sys.executable, "-m", "search", "auto", *request.words(), *bound, "--no-run"]
        code = subprocess.run(command, check=False).returncode
    except KeyboardInterrupt:
        errors.print(INTERRUPTED)
        sys.exit(130)
    if code != 0:
        sys.exit(code if code > 0 else 1)
