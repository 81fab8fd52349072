"""The commands on registered models. What is heavy is imported when its command runs."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from search.cli.options import Address, AllowCode, AsJson, Folder, Name, TrackingUri, console, errors, print_json
from search.space.loading import URI_VARIABLE, with_promotion
from search.space.preflight import check_code
from search.space.spec import resume_command
from trainable.errors import UserError


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
    allow_code: AllowCode = False,
    as_json: AsJson = False,
) -> None:
    """Refit a search's best on fresh seeds, judge it against the champion, and register it."""
    from search.ledger.stored import check_called_as_its_folder, stored_spec
    from search.tracking.tracker import set_environment

    if dry_run and force:
        raise UserError("--dry-run and --force exclude each other: a dry run changes nothing")
    spec = with_promotion(stored_spec(folder / name), overrides or ())
    check_called_as_its_folder(spec, folder=folder / name)
    check_code(spec)
    set_environment()
    from search.promotion.page import publish_promotion_page
    from search.promotion.promote import promote as promote_best
    from search.promotion.table import print_promotion
    from search.run.refitting import StoppedError

    screen = errors if as_json else console
    tell = partial(screen.print, highlight=False, markup=False)
    go_on = resume_command(spec, command="promote")
    try:
        promotion = promote_best(
            spec,
            folder=folder / name,
            address=address,
            dry_run=dry_run,
            force=force,
            tell=tell,
        )
    except KeyboardInterrupt:
        errors.print(f"interrupted; to go on: {go_on}", markup=False)
        sys.exit(130)
    except StoppedError as error:
        errors.print(f"error: {error}; to go on: {go_on}", markup=False)
        sys.exit(1)
    if as_json:
        print_json(promotion.as_dict())
    else:
        print_promotion(promotion, console=console)
    publish_promotion_page(promotion, folder=folder / name, tell=tell)
    if promotion.outcome == "refused" or (promotion.outcome == "dry run" and not promotion.verdict.promote):
        sys.exit(3)


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
        print_json({"name": model, "champion": now})
    else:
        console.print(f"{model}: version {now} is champion again", highlight=False, markup=False)


def predict(
    model: Annotated[str, typer.Argument(help="models:/NAME@champion or models:/NAME/1.")],
    paths: Annotated[list[Path], typer.Argument(help="Images, and folders of images.")],
    uri: TrackingUri = "sqlite:///mlflow.db",
    top_k: Annotated[int, typer.Option("--top-k", help="How many classes to name.", min=1)] = 3,
    csv: Annotated[Path | None, typer.Option("--csv", help="CSV file to write.")] = None,
    explain: Annotated[
        Path | None,
        typer.Option(
            "--explain", help="Folder for a picture of each image with where its class is seen; extra `explain`."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Classify images by a registered model, whose files are verified before it is loaded."""
    from search.tracking.tracker import set_environment

    set_environment()
    from search.promotion.predict import predict as predict_images
    from search.promotion.predict import predictions_table, write_csv

    predictions = predict_images(model, paths, uri=uri, top_k=top_k, pictures=explain)
    if explain is not None:
        count = sum(prediction.error is None for prediction in predictions)
        errors.print(f"{explain}: {count} pictures", highlight=False, markup=False)
    if csv is not None:
        write_csv(predictions, path=csv)
        errors.print(f"{csv}: {len(predictions)} images", highlight=False, markup=False)
    if as_json:
        print_json([prediction.as_dict() for prediction in predictions])
    elif csv is None:
        console.print(predictions_table(predictions))
    failed = sum(prediction.error is not None for prediction in predictions)
    if failed:
        errors.print(f"error: {failed} of {len(predictions)} images cannot be used", highlight=False, markup=False)
        sys.exit(1)


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
    uri: Annotated[
        str | None, typer.Option("--uri", envvar=URI_VARIABLE, help="MLflow's tracking address, for models:/….")
    ] = None,
    allow_code: AllowCode = False,
    as_json: AsJson = False,
) -> None:
    """Write the best network for other runtimes, in 8 bits, pruned; size, accuracy and latency of each."""
    from search.tracking.tracker import set_environment

    set_environment()
    from search.promotion.export import export as export_best
    from search.promotion.export import variants_table
    from trainable.deploy.exporting import Wanted
    from trainable.deploy.recovery import Recovery

    wanted = Wanted(to=tuple(to or ["onnx"]), int8=int8, prune=prune, recovery=Recovery(epochs=recovery_epochs))
    result = export_best(name, folder=folder, uri=uri, out=out, wanted=wanted)
    if as_json:
        print_json(result.as_dict())
        return
    console.print(variants_table(result.rows))
    for row in result.rows:
        if row["note"]:
            console.print(f"{row['name']}: {row['note']}", highlight=False, markup=False)
    if result.note:
        console.print(result.note, highlight=False, markup=False)
    console.print(
        f"{result.what}: written to {result.folder}, judged on validation images", highlight=False, markup=False
    )
