"""The command line: words to calls. A command's heavy modules are imported when it runs."""

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from search.space.lint import lint, lowered_batches
from search.space.loading import load, with_promotion
from search.space.preflight import check_techniques
from search.space.spec import SearchSpec, resume_command
from trainable.data.readers.storage import exists
from trainable.errors import OutageError, UserError
from trainable.json_text import to_json

if TYPE_CHECKING:
    from search.refresh.look import Answer

app = typer.Typer(
    help="Finds the best way to fine-tune a pretrained image classifier on your own data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
INTERRUPTED = "interrupted; the same command goes on"
# A pipe has no width: wide enough that no row of a table is broken.
console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 240)
errors = Console(stderr=True, soft_wrap=True, highlight=False)

Spaces = Annotated[list[Path], typer.Argument(help="Space files.")]
SpaceFile = Annotated[Path, typer.Argument(help="The space file, such as spaces/resnet.yaml.")]
Name = Annotated[str, typer.Argument(help="The search's name.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="PATH=VALUE: another value for a path of the file; repeatable.")
]
Data = Annotated[str | None, typer.Option("--data", help="The images: a folder, a CSV, a Parquet or Arrow file.")]
Trials = Annotated[int | None, typer.Option("--trials", help="How many trials.")]
NewName = Annotated[str | None, typer.Option("--name", help="The search's name.")]
Folder = Annotated[Path, typer.Option("--folder", help="Where searches are kept.")]
Address = Annotated[
    str | None,
    typer.Option("--address", help="A Ray cluster to join: auto on one of its nodes, or its head's host:port."),
]
TrackingUri = Annotated[str, typer.Option("--uri", help="MLflow's tracking address.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document instead of text.")]


def main() -> None:
    """Run a command; a mistake of the user's is one line and exit code 2, what cannot be done now one line and exit code 1."""
    try:
        app()
    except (UserError, OutageError) as error:
        errors.print(f"error: {error}", markup=False)
        sys.exit(2 if isinstance(error, UserError) else 1)
    except SystemExit as end:
        if end.code == signal.SIGTERM:  # how Ray ends a process that is told to end while Ray starts or stops
            errors.print(INTERRUPTED)
            sys.exit(130)
        raise


@app.command()
def check(
    spaces: Spaces,
    overrides: Set = None,
    data: Data = None,
    trials: Trials = None,
    as_json: AsJson = False,
) -> None:
    """Check space files: every value, range and condition, and what can have no effect."""
    found: list[dict[str, Any]] = []
    for path in spaces:
        spec = load(path, overrides or (), data=data, trials=trials)
        check_techniques(spec)
        notes = lint(spec)
        found.append(
            {"file": str(path), "name": spec.search.name, "values": len(spec.space.dimensions), "notes": notes}
        )
        if not as_json:
            console.print(f"{path}: good, {len(spec.space.dimensions)} values varied", highlight=False)
            for note in notes:
                console.print(f"  note: {note}", highlight=False, markup=False)
        if data is not None or _is_there(spec):
            described = _describe_data(spec)
            found[-1]["data"] = described
            lowered = lowered_batches(spec, num_images=described["training"])
            of_data = [*lowered, *described["notes"]]
            found[-1]["notes"] = notes + of_data
            for note in of_data if not as_json else ():
                console.print(f"  note: {note}", highlight=False, markup=False)
            if not as_json:
                console.print(f"  data: {_said(described)}", highlight=False, markup=False)
    if as_json:
        _print_json(found)


@app.command()
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


@app.command()
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
    result = diagnose_images(base, reference=reference, compare=compare)
    if as_json:
        _print_json(result.as_dict() | {"space": out and str(out), "page": page and str(page)})
    else:
        print_result(result, console=console)
    write_files(result, out=out, page=page)  # after the words, which another file in the way does not cost
    for line in next_step(out, page=page) if not as_json else ():
        console.print(line, highlight=False, markup=False)


@app.command()
def plan(
    space: SpaceFile,
    overrides: Set = None,
    data: Data = None,
    trials: Trials = None,
    as_json: AsJson = False,
) -> None:
    """Say what a search would take: trials at each rung, epochs, checkpoint disk, time from a short measurement."""
    from search.run.plan import make_plan, plan_table

    result = make_plan(load(space, overrides or (), data=data, trials=trials))
    if as_json:
        _print_json(result)
    else:
        console.print(plan_table(result))


@app.command()
def run(
    space: SpaceFile,
    overrides: Set = None,
    data: Data = None,
    trials: Trials = None,
    name: NewName = None,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Run a whole search; the same command goes on with one that was interrupted."""
    spec = load(space, overrides or (), data=data, trials=trials, name=name)
    for note in lint(spec):
        errors.print(f"note: {note}", markup=False)
    _conduct(spec, address=address, as_json=as_json)


@app.command()
def resume(
    name: Name,
    folder: Folder = Path("searches"),
    trials: Trials = None,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Go on with a search that was interrupted or killed, without its file."""
    from search.ledger.stored import check_called_as_its_folder, stored_spec

    spec = stored_spec(folder / name, trials=trials)
    check_called_as_its_folder(spec, folder=folder / name)
    _conduct(spec, address=address, as_json=as_json)


@app.command()
def watch(
    spaces: Spaces,
    cron: Annotated[
        str | None, typer.Option("--cron", help="When, by the local clocks: '0 3 * * *' is every night at three.")
    ] = None,
    every: Annotated[str | None, typer.Option("--every", help="Again after 30s, 10m, 6h or 2d.")] = None,
    on_change: Annotated[bool, typer.Option("--on-change", help="Whenever the data or a space file change.")] = False,
    jitter: Annotated[
        str | None,
        typer.Option("--jitter", help="At most so much later; else a tenth of the time between two, up to 5m."),
    ] = None,
    poll: Annotated[
        str | None,
        typer.Option(
            "--poll",
            help="With --on-change: how often data are looked at of which nobody tells, behind an address, on a network "
            "or in a list of images; else 5m.",
        ),
    ] = None,
    address: Address = None,
    show_status: Annotated[
        bool, typer.Option("--status", help="Only say where the watch of each space stands.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One line of JSON for each event; with --status one JSON document.")
    ] = False,
) -> None:
    """Refresh spaces again and again, by the clock or when their data change, one at a time.

    Exit codes: 130 it was stopped by SIGTERM or SIGINT, 1 it could not begin now, 2 a mistake in what was given.
    """
    from search.watch.loop import WallClock, load_spaces, local_zone, refresh_command
    from search.watch.loop import watch as watch_spaces
    from search.watch.schedule import parse_jitter, parse_when
    from search.watch.status import line, standings, standings_table

    specs = load_spaces(spaces)
    if show_status:
        found = standings(specs.values())
        if as_json:
            _print_json([one.as_dict() for one in found])
        else:
            console.print(standings_table(found))
        return
    when = parse_when(cron=cron, every=every, on_change=on_change, poll=poll, zone=local_zone)
    watch_spaces(
        specs,
        when=when,
        clock=WallClock(),
        command=refresh_command(address),
        jitter_seconds=parse_jitter(jitter, when=when),
        tell=lambda event, record: (
            typer.echo(to_json({"event": event, **record.as_dict()}))
            if as_json
            else console.print(line(event, record), highlight=False, markup=False)
        ),
    )
    sys.exit(130)


@app.command()
def status(name: Name, folder: Folder = Path("searches"), as_json: AsJson = False) -> None:
    """Say where a search stands."""
    from search.report.overview import overview, status_table

    result = overview(folder / name)
    if as_json:
        _print_json(result)
    else:
        console.print(status_table(result))


@app.command("list")
def list_searches(folder: Folder = Path("searches"), as_json: AsJson = False) -> None:
    """List the searches of a folder."""
    from search.report.overview import list_table, overviews

    result = overviews(folder)
    if as_json:
        _print_json(result)
    else:
        console.print(list_table(result))


@app.command()
def report(name: Name, folder: Folder = Path("searches"), as_json: AsJson = False) -> None:
    """Print the leaderboard and write the search's page, report.html."""
    from search.report.report import print_report, report_data, write_page

    place = folder / name
    if as_json:
        _print_json(report_data(place))
    else:
        print_report(place, console=console)
        console.print(f"page: {write_page(place)}", highlight=False)


@app.command()
def compare(
    names: Annotated[list[str], typer.Argument(help="Two searches or more.")],
    folder: Folder = Path("searches"),
    as_json: AsJson = False,
) -> None:
    """Put searches side by side: results, cost, and in what they differ."""
    from search.report.compare import compared, comparison_lines, comparison_table

    if len(set(names)) < 2:
        raise UserError(f"compare: needs two searches, got {', '.join(dict.fromkeys(names))}")
    result = compared([folder / name for name in names])
    if as_json:
        _print_json(result)
        return
    console.print(comparison_table(result))
    for line in comparison_lines(result):
        console.print(line, highlight=False, markup=False)


@app.command()
def promote(
    name: Name,
    folder: Folder = Path("searches"),
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="promote.PATH=VALUE: ask something else than the file; repeatable."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Confirm and judge, change nothing in the registry.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Promote whatever the gate says; this is recorded.")] = False,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Refit a search's best on fresh seeds, judge it against the champion, and register it."""
    from search.ledger.stored import check_called_as_its_folder, stored_spec
    from search.tracking.tracker import set_environment

    if dry_run and force:
        raise UserError("--dry-run and --force exclude each other: a dry run changes nothing")
    spec = with_promotion(stored_spec(folder / name), overrides or ())
    check_called_as_its_folder(spec, folder=folder / name)
    set_environment()
    from search.promotion.promote import promote as promote_best
    from search.promotion.refit import StoppedError
    from search.promotion.table import print_promotion

    screen = errors if as_json else console
    go_on = resume_command(spec, command="promote")
    try:
        found = promote_best(
            spec,
            folder=folder / name,
            address=address,
            dry_run=dry_run,
            force=force,
            tell=lambda line: screen.print(line, highlight=False, markup=False),
        )
    except KeyboardInterrupt:
        errors.print(f"interrupted; to go on: {go_on}", markup=False)
        sys.exit(130)
    except StoppedError as error:
        errors.print(f"error: {error}; to go on: {go_on}", markup=False)
        sys.exit(1)
    if as_json:
        _print_json(found.as_dict(metric=spec.search.metric))
    else:
        print_promotion(found, metric=spec.search.metric, console=console)
    if found.outcome == "refused" or (found.outcome == "dry run" and not found.verdict.promote):
        sys.exit(3)


@app.command()
def refresh(
    space: SpaceFile,
    overrides: Set = None,
    data: Data = None,
    address: Address = None,
) -> None:
    """Do what new images ask for, once: nothing, ask the champion, refit it, or search again. One line of JSON.

    Exit codes: 0 something was done, 3 there is nothing to do now, 1 it failed and may be tried again, 2 a mistake in what was
    given, 130 interrupted by SIGTERM or SIGINT.
    """
    from search.refresh.look import Answer

    def say(answer: Answer) -> None:
        typer.echo(to_json({"space": str(space), **answer.as_dict()}))

    try:
        with _sigterm_as_ctrl_c():
            answer = _answer(space, overrides=overrides or (), data=data, address=address)
    except Exception as error:  # a fault of the program, which comes with its traceback
        say(Answer("failed", (f"{type(error).__name__}: {error}",)))
        raise
    say(answer)
    sys.exit(answer.code)


@app.command()
def rollback(
    model: Annotated[str, typer.Argument(help="The registered model's name.")],
    uri: TrackingUri = "sqlite:///mlflow.db",
    folder: Folder = Path("searches"),
    as_json: AsJson = False,
) -> None:
    """Make the champion before this one champion again."""
    from search.tracking.tracker import set_environment

    set_environment()
    from search.tracking.registry import Registry, resolve

    registry = Registry(uri, name=model, lock_folder=folder)
    resolve(registry.uri, f"models:/{model}@champion")
    now = registry.rollback()
    if as_json:
        _print_json({"name": model, "champion": now})
    else:
        console.print(f"{model}: version {now} is champion again", highlight=False)


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="models:/NAME@champion or models:/NAME/1.")],
    paths: Annotated[list[Path], typer.Argument(help="Images, and folders of images.")],
    uri: TrackingUri = "sqlite:///mlflow.db",
    top_k: Annotated[int, typer.Option("--top-k", help="How many classes to name.", min=1)] = 3,
    csv: Annotated[Path | None, typer.Option("--csv", help="CSV file to write.")] = None,
    as_json: AsJson = False,
) -> None:
    """Classify images by a registered model, whose files are verified before it is loaded."""
    from search.tracking.tracker import set_environment

    set_environment()
    from search.promotion.predict import predict as classified
    from search.promotion.predict import predictions_table, write_csv

    found = classified(model, paths, uri=uri, top_k=top_k)
    if csv is not None:
        write_csv(found, path=csv)
    if as_json:
        _print_json([one.as_dict() for one in found])
    elif csv is None:
        console.print(predictions_table(found))
    failed = sum(one.error is not None for one in found)
    if failed:
        errors.print(f"error: {failed} of {len(found)} images cannot be used", highlight=False)
        sys.exit(1)


@app.command()
def export(
    name: Annotated[str, typer.Argument(help="A search's name, or models:/NAME@champion.")],
    to: Annotated[list[str] | None, typer.Option("--to", help="onnx, pt2 or tensorrt; repeatable.")] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Also in 8 bits.")] = False,
    prune: Annotated[
        float | None, typer.Option("--prune", help="Also with this share of a CNN's parameters removed, such as 0.3.")
    ] = None,
    recovery_epochs: Annotated[int, typer.Option("--recovery-epochs", help="Epochs trained after pruning.")] = 3,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the files; else the search's own.")] = None,
    folder: Folder = Path("searches"),
    uri: Annotated[str | None, typer.Option("--uri", help="MLflow's tracking address, for models:/….")] = None,
    as_json: AsJson = False,
) -> None:
    """Write the best network for other runtimes, in 8 bits, pruned; size, accuracy and latency of each."""
    from search.tracking.tracker import set_environment

    set_environment()
    from search.promotion.export import export as exported
    from search.promotion.export import variants_table
    from trainable.deploy.exporting import Wanted
    from trainable.deploy.recovery import Recovery

    wanted = Wanted(tuple(to or ["onnx"]), int8, prune, Recovery(epochs=recovery_epochs))
    found = exported(name, folder=folder, uri=uri, out=out, wanted=wanted)
    if as_json:
        _print_json(found.as_dict())
        return
    console.print(variants_table(found.rows))
    for row in found.rows:
        if row["note"]:
            console.print(f"{row['name']}: {row['note']}", highlight=False, markup=False)
    if found.note:
        console.print(found.note, highlight=False, markup=False)
    console.print(
        f"{found.what}: written to {found.folder}, judged on validation images", highlight=False, markup=False
    )


@app.command()
def sync(name: Name, folder: Folder = Path("searches")) -> None:
    """Write to MLflow whatever of a search it does not hold yet."""
    from search.ledger.stored import stored_spec
    from search.tracking.refreshes import show_all
    from search.tracking.tracker import sync_ledger

    spec = stored_spec(folder / name)
    console.print(sync_ledger(spec, folder=folder / name), highlight=False)
    show_all(spec, folder=folder / name)


@app.command()
def ui(
    uri: TrackingUri = "sqlite:///mlflow.db",
    port: Annotated[int, typer.Option("--port", help="Port on 127.0.0.1.", min=1, max=65535)] = 5000,
) -> None:
    """Serve MLflow's pages on this machine alone."""
    from search.tracking.ui import serve

    serve(uri, port=port)


def _conduct(spec: SearchSpec, *, address: str | None, as_json: bool) -> None:
    _describe_data(spec)  # most mistakes in data show in a second here, before anything heavy is loaded
    from search.report.progress import Progress
    from search.report.report import print_report, report_data, write_page
    from search.run.search import run_search
    from search.tracking.tracker import Tracker

    screen = errors if as_json else console
    tracker = Tracker()
    try:
        outcome = run_search(spec, address=address, listeners=[tracker, Progress(screen)])
    except KeyboardInterrupt:
        _exit("interrupted", reason="", spec=spec)
    if outcome.status == "finished":
        write_page(outcome.folder)
    if as_json:
        _print_json({"status": outcome.status, "reason": outcome.reason, **report_data(outcome.folder)})
    elif outcome.status == "finished":
        print_report(outcome.folder, console=console)
    for line in tracker.closing_lines():
        screen.print(line, highlight=False, markup=False)
    _exit(outcome.status, reason=outcome.reason, spec=spec)


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Inside, SIGTERM ends what is done as Ctrl-C does, which gives back what is held."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _answer(space: Path, *, overrides: Sequence[str], data: str | None, address: str | None) -> "Answer":
    """What a refresh says, however it ends; why it ended too early is said on the screen too."""
    from search.ledger.refreshes import records_of
    from search.refresh.look import Answer, look_first

    try:
        spec = load(space, overrides, data=data)
        found = look_first(spec, records=records_of(spec), now=datetime.now(UTC))
        return found or _refreshed(spec, address=address)
    except UserError as error:
        errors.print(f"error: {error}", markup=False)
        return Answer("bad input", (str(error),), code=2)
    except OutageError as error:
        errors.print(f"error: {error}; to be tried again", markup=False, highlight=False)
        return Answer("failed", (str(error),), code=1)
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code != signal.SIGTERM:  # by which Ray ends a process, as in main()
            raise
        errors.print(INTERRUPTED)
        return Answer("interrupted", (INTERRUPTED,), code=130)


def _refreshed(spec: SearchSpec, *, address: str | None) -> "Answer":
    from search.tracking.tracker import Tracker, set_environment

    set_environment()
    from search.refresh.look import Answer
    from search.refresh.refresh import BrokenOffError, Surroundings
    from search.refresh.refresh import refresh as refresh_once
    from search.report.progress import Progress

    around = Surroundings(
        address=address,
        listeners=lambda: [Tracker(), Progress(errors)],
        tell=lambda line: errors.print(line, highlight=False, markup=False),
        now=lambda: datetime.now(UTC),
    )
    try:
        return refresh_once(spec, around=around)
    except BrokenOffError as error:
        if error.status != "interrupted":
            raise
        errors.print(f"error: {error}; to be tried again", markup=False, highlight=False)
        return Answer("interrupted", (str(error),), code=130)


def _print_json(document: Any) -> None:
    """One JSON document."""
    typer.echo(to_json(document, indent=2))


def _exit(status_of_search: str, *, reason: str, spec: SearchSpec) -> None:
    """Leave with the code of how the search ended, and say how to go on; a finished one just returns."""
    go_on = resume_command(spec)
    if status_of_search == "interrupted":
        errors.print(f"interrupted; every finished epoch is kept. To go on: {go_on}", markup=False)
        sys.exit(130)
    if status_of_search == "failed":
        errors.print(f"error: {reason}\nevery finished epoch is kept. To go on: {go_on}", markup=False)
        sys.exit(1)


def _is_there(spec: SearchSpec) -> bool:
    base = spec.base
    paths = [base["data.path"]] if base.get("data.path") else [*base.get("data.source", []), base.get("data.target")]
    return all(isinstance(path, str) and exists(path) for path in paths)


def _describe_data(spec: SearchSpec) -> dict[str, Any]:
    """Look at the images that ``--data`` names without decoding one: classes, and images of each by split."""
    from trainable.config.trial import TrialConfig
    from trainable.data.describe import describe

    data = TrialConfig.model_validate(spec.trial_config({})).data
    description = describe(data)
    counts = description.counts
    share = 1.0 if "train" in counts else 1 - data.val_share - data.test_share
    training = round(share * sum(counts.get("train", counts.get("all", {})).values()))
    return {
        "classes": len(description.classes),
        "images": description.num_images,
        "counts": counts,
        "training": training,
        "target": description.num_target,
        "notes": list(description.notes),
    }


def _said(described: dict[str, Any]) -> str:
    splits = "; ".join(
        f"{split}: " + ", ".join(f"{count} {name}" for name, count in counts.items())
        for split, counts in described["counts"].items()
    )
    target = f"; {described['target']} images to adapt to" if described["target"] else ""
    return f"{described['images']} images, {described['classes']} classes; {splits}{target}"
