"""The commands that run searches and show them. What is heavy is imported when its command runs."""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from search.cli.options import (
    Address,
    AllowCode,
    AsJson,
    Data,
    Folder,
    Minutes,
    Name,
    NewName,
    Set,
    SpaceFile,
    TrackingUri,
    Trials,
    console,
    errors,
    images_seen,
    print_json,
)
from search.space.lint import lint
from search.space.loading import load, uri_note, with_changes
from search.space.preflight import check_code
from search.space.spec import SearchSpec, resume_command
from trainable.errors import UserError


def fields(
    words: Annotated[list[str] | None, typer.Argument(help="Only paths with one of these words.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="The whole of docs/configuration.md.")] = False,
) -> None:
    """Say what can be set and varied: range, default and effect of every value."""
    from search.space.reference import page, rows_like, rows_table

    if markdown:
        typer.echo(page(), nl=False)
    else:
        rows = rows_like(words or [])
        if not rows:
            raise UserError(f"fields: no path holds {' or '.join(map(repr, words or []))}; `fields` alone lists all")
        console.print(rows_table(rows))


def diagnose(
    data: Annotated[str | None, typer.Argument(help="The images: a folder, a CSV, a Parquet or Arrow file.")] = None,
    data_format: Annotated[str | None, typer.Option("--format", help="How DATA is read; elpv needs no DATA.")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="A timm architecture; without it the demonstration's if installed, else resnet50."),
    ] = None,
    weights: Annotated[str | None, typer.Option(help="Its weights: as model.weights of a space file.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side of the input, pixels; else the backbone's own.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="PATH=VALUE of data or train; repeatable.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="A folder with images like the pretraining's; some hundred are enough.")
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Also train shortly with the weights and from scratch.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Space file to write with what is advised.")] = None,
    page: Annotated[Path | None, typer.Option(help="HTML page to write.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what kind of task your images are and what to search: size, balance, probes of every stage."""
    from search.diagnosis.diagnose import (
        base_values,
        check_files,
        diagnose_images,
        next_step,
        print_result,
        write_files,
    )

    asked = {"data.path": data, "data.format": data_format, "data.image_size": image_size}
    base = base_values({**asked, "model.name": model, "model.weights": weights}, overrides=overrides or ())
    check_files(out=out, page=page)
    with images_seen() as progress:
        result = diagnose_images(base, reference=reference, compare=compare, progress=progress)
    if as_json:
        print_json(result.as_dict() | {"space": out and str(out), "page": page and str(page)})
    else:
        print_result(result, console=console)
    write_files(result, out=out, page=page)  # after the words, which another file in the way does not cost
    for line in next_step(out, page=page) if not as_json else ():
        console.print(line, highlight=False, markup=False)


def plan(
    space: SpaceFile,
    overrides: Set = None,
    data: Data = None,
    trials: Trials = None,
    minutes: Minutes = None,
    allow_code: AllowCode = False,
    as_json: AsJson = False,
) -> None:
    """Say what a search would take: trials at each rung, epochs, checkpoint disk, time from a short measurement."""
    from search.ledger.planned import keep_plan
    from search.report.plan_error import earlier_errors, learnt_range, planned_of
    from search.run.plan import make_plan, plan_table

    spec = load(space, overrides or (), data=data, trials=trials, minutes=minutes)
    check_code(spec)
    result = make_plan(spec)
    planned, searches = planned_of(result), Path(spec.search.folder)
    learnt = learnt_range(planned, budget=spec.search.budget, ratios=earlier_errors(searches))
    keep_plan(planned, spec=spec, folder=searches / spec.search.name)
    if as_json:
        print_json(result | {"learnt": learnt})
    else:
        console.print(plan_table(result, learnt=learnt))


def run(
    space: SpaceFile,
    overrides: Set = None,
    data: Data = None,
    trials: Trials = None,
    minutes: Minutes = None,
    name: NewName = None,
    address: Address = None,
    allow_code: AllowCode = False,
    as_json: AsJson = False,
) -> None:
    """Run a whole search; the same command goes on with one that was interrupted."""
    spec = load(space, overrides or (), data=data, trials=trials, minutes=minutes, name=name)
    print_notes(spec)
    conduct(spec, address=address, as_json=as_json)


def resume(
    name: Name,
    folder: Folder = Path("searches"),
    overrides: Set = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Where its images lie now; others than it was begun with are refused.")
    ] = None,
    trials: Trials = None,
    minutes: Minutes = None,
    address: Address = None,
    allow_code: AllowCode = False,
    as_json: AsJson = False,
) -> None:
    """Go on with a search that was interrupted or killed, without its file; what makes no other search of it can be set."""
    from search.ledger.stored import check_called_as_its_folder, stored_spec
    from trainable.data.readers.storage import exists

    stored = stored_spec(folder / name)
    check_called_as_its_folder(stored, folder=folder / name)
    spec = with_changes(stored, overrides or (), data=data, trials=trials, minutes=minutes)
    path = spec.base.get("data.path")
    if path and not exists(path):
        raise UserError(f"data.path: {path!r} does not exist; `--data PATH` says where the images lie now")
    conduct(spec, address=address, as_json=as_json)


def status(
    name: Name,
    trial: Annotated[int | None, typer.Option("--trial", help="Number of one trial, to be told all of it.")] = None,
    folder: Folder = Path("searches"),
    as_json: AsJson = False,
) -> None:
    """Say where a search stands, or one of its trials."""
    if trial is not None:
        from search.report.one_trial import trial_data, trial_lines

        data = trial_data(folder / name, number=trial)
        if as_json:
            print_json(data)
        else:
            for line in trial_lines(data):
                console.print(line, highlight=False, markup=False)
        return
    from search.report.overview import overview, status_table

    result = overview(folder / name)
    if as_json:
        print_json(result)
    else:
        console.print(status_table(result))


def list_searches(folder: Folder = Path("searches"), as_json: AsJson = False) -> None:
    """List the searches of a folder."""
    from search.report.overview import list_table, overviews

    result = overviews(folder)
    if as_json:
        print_json(result)
    else:
        console.print(list_table(result))


def report(name: Name, folder: Folder = Path("searches"), as_json: AsJson = False) -> None:
    """Print the leaderboard and write the search's page, report.html."""
    from search.report.page import write_page
    from search.report.report import print_report, report_data

    place = folder / name
    if as_json:
        print_json(report_data(place))
    else:
        print_report(place, console=console)
        console.print(f"page: {write_page(place)}", highlight=False, markup=False)


def compare(
    names: Annotated[list[str], typer.Argument(help="Two searches or more.")],
    folder: Folder = Path("searches"),
    as_json: AsJson = False,
) -> None:
    """Put searches side by side: results, cost, and in what they differ."""
    from search.report.compare import compare_searches, comparison_lines, comparison_table

    if len(set(names)) < 2:
        raise UserError(f"compare: needs two searches, got {', '.join(dict.fromkeys(names))}")
    result = compare_searches([folder / name for name in names])
    if as_json:
        print_json(result)
        return
    console.print(comparison_table(result))
    for line in comparison_lines(result):
        console.print(line, highlight=False, markup=False)


def sync(name: Name, folder: Folder = Path("searches")) -> None:
    """Write to MLflow whatever of a search it does not hold yet."""
    from search.ledger.stored import stored_spec
    from search.tracking.refreshes import write_refresh_runs
    from search.tracking.tracker import sync_ledger

    spec = stored_spec(folder / name)
    console.print(sync_ledger(spec, folder=folder / name), highlight=False, markup=False)
    write_refresh_runs(spec, folder=folder / name)


def ui(
    uri: TrackingUri = "sqlite:///mlflow.db",
    port: Annotated[int, typer.Option("--port", help="Port on 127.0.0.1.", min=1, max=65535)] = 5000,
) -> None:
    """Serve MLflow's pages on this machine alone."""
    from search.tracking.ui import serve

    serve(uri, port=port)


def print_notes(spec: SearchSpec) -> None:
    """Say what of a search can have no effect, and where its MLflow address comes from."""
    for note in (*lint(spec), uri_note(spec)):
        if note is not None:
            errors.print(f"note: {note}", markup=False)


def conduct(spec: SearchSpec, *, address: str | None, as_json: bool, began: float | None = None) -> None:
    """Run a search, or go on with it, on the screen; its time counts from ``began``, else from now. Exits unless it finishes."""
    began = time.time() if began is None else began
    check_code(spec)
    screen = errors if as_json else console
    from search.run.session import run_on_screen

    try:
        outcome, closing_lines = run_on_screen(spec, address=address, screen=screen, began=began)
    except KeyboardInterrupt:
        _exit("interrupted", reason="", spec=spec)
    from search.report.report import print_report, report_data

    if as_json:
        print_json({"status": outcome.status, "reason": outcome.reason, **report_data(outcome.folder)})
    elif outcome.status == "finished":
        print_report(outcome.folder, console=console)
    for line in closing_lines:
        screen.print(line, highlight=False, markup=False)
    _exit(outcome.status, reason=outcome.reason, spec=spec)


def _exit(status_of_search: str, *, reason: str, spec: SearchSpec) -> None:
    """Leave with the code of how the search ended, and say how to go on; a finished one just returns."""
    go_on = resume_command(spec)
    if status_of_search == "interrupted":
        errors.print(f"interrupted; every finished epoch is kept. To go on: {go_on}", markup=False)
        sys.exit(130)
    if status_of_search == "failed":
        errors.print(f"error: {reason}\nevery finished epoch is kept. To go on: {go_on}", markup=False)
        sys.exit(1)
