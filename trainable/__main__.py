"""What is done without a cluster, one trial above all: ``python -m trainable trial.yaml``."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from trainable.config.strict_yaml import parse, read_document
from trainable.config.trial import FreezeConfig, OptimizerConfig, TrialConfig
from trainable.config.validation import checked
from trainable.cpus import limit_threads
from trainable.errors import OutageError, UserError
from trainable.home import ensure_home, expand_words
from trainable.json_text import to_json
from trainable.loader.own_code import allow_code
from trainable.terminal import Terminal, progress

AllowCode = Annotated[
    bool, typer.Option("--allow-code", help="Import the functions that augment.custom names.", callback=allow_code)
]
COMMANDS = ("weights", "fit", "plan", "lr-range", "pretrain", "meta")
app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
console = Terminal()


def main() -> None:
    """Run a command; the first word may be a trial's file instead. Exit code 2 is a mistake of the user's, 1 a failure."""
    ensure_home()
    limit_threads()
    words = expand_words(sys.argv[1:])
    if words and words[0] not in COMMANDS and not words[0].startswith("-"):
        words = ["fit", *words]
    try:
        app(words)
    except (UserError, OutageError) as error:
        Terminal(stderr=True, highlight=False).print(f"error: {error}")
        sys.exit(2 if isinstance(error, UserError) else 1)


@app.command()
def fit(
    trial: Annotated[Path, typer.Argument(help="A YAML file with the sections of a trial.")],
    save: Annotated[Path | None, typer.Option(help="Folder for the checkpoint of every epoch.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Checkpoint to go on from.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document an epoch.")] = False,
    allow_code: AllowCode = False,
) -> None:
    """Train one trial and print each epoch, with the time left."""
    config = read_trial(trial)

    from trainable.training.checkpoint import BrokenCheckpointError
    from trainable.training.fit import fit as train

    began, epochs = time.monotonic(), config.train.epochs
    try:
        with _diverging():
            for count, epoch in enumerate(train(config, resume_from=resume), start=1):
                if save is not None:
                    epoch.save(save / f"epoch_{epoch.number:05d}")
                left = (time.monotonic() - began) / count * (epochs - epoch.number)
                far = f" of {epochs}, {left:.0f} s left"
                _print_metrics("epoch", epoch.number, epoch.metrics, as_json=as_json, far=far)
    except BrokenCheckpointError as error:
        raise UserError(f"--resume: {error}") from error


@app.command(name="lr-range")
def lr_range(
    trial: Annotated[Path, typer.Argument(help="A YAML file with the sections of a trial.")],
    out: Annotated[Path, typer.Option(help="HTML file of the plot.")] = Path("lr_range.html"),
    lowest: Annotated[float, typer.Option(help="Rate of the first update.")] = 1e-7,
    highest: Annotated[float, typer.Option(help="Rate of the last update.")] = 1.0,
    updates: Annotated[int, typer.Option(help="Updates, the rate growing from one to the next.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Every value as one JSON document, and no plot.")] = False,
    allow_code: AllowCode = False,
) -> None:
    """Try learning rates from far too small to far too large; suggest one for optimizer.lr."""
    config = read_trial(trial)

    from trainable.atomic import write_beside
    from trainable.training.lr_range import lr_range as find
    from trainable.training.lr_range import lr_range_page

    with progress("trying rates", screen=Terminal(stderr=True)) as on_update:
        result = find(config, lowest=lowest, highest=highest, updates=updates, on_update=on_update)
    if as_json:
        typer.echo(to_json(asdict(result)))
        return
    try:
        with write_beside(out) as file:
            file.write(lr_range_page(result).encode())
    except OSError as error:
        raise UserError(f"--out: cannot write {out} ({error.strerror})") from error
    suggestion = "none, the loss never fell" if result.suggested is None else f"{result.suggested:.2g}"
    end = "" if result.diverged_at is None else f", diverged at {result.diverged_at:.2g}"
    console.print(f"optimizer.lr: {suggestion}{end}; plot in {out}", highlight=False)


@app.command()
def pretrain(
    settings: Annotated[Path, typer.Argument(help="A YAML file with the settings of a pre-training.")],
    save: Annotated[Path, typer.Option(help="Folder of the state to go on from and of backbone.safetensors.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document an epoch.")] = False,
) -> None:
    """Pre-train a backbone on images without their labels; a trial's model.weights loads the result."""
    from trainable.config.pretrain import PretrainConfig

    config = checked(PretrainConfig, read_document(settings), where=f"{settings}: ")

    from trainable.pretraining.resumable import BACKBONE
    from trainable.pretraining.training import pretrain_epochs

    with _diverging():
        for epoch in pretrain_epochs(config, folder=save):
            _print_metrics("epoch", epoch.number, epoch.metrics, as_json=as_json)
    if not as_json:
        console.print(f"model.weights: {save / BACKBONE}", highlight=False)


@app.command()
def meta(
    settings: Annotated[Path, typer.Argument(help="A YAML file with the settings of a meta-training.")],
    save: Annotated[Path, typer.Option(help="Folder of the state to go on from and of backbone.safetensors.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document a report.")] = False,
) -> None:
    """Meta-train a backbone for tasks of few images; a trial's model.weights loads the result."""
    from trainable.config.meta import MetaConfig

    config = checked(MetaConfig, read_document(settings), where=f"{settings}: ")

    from trainable.pretraining.meta import meta_reports
    from trainable.pretraining.resumable import BACKBONE

    with _diverging():
        for report in meta_reports(config, folder=save):
            _print_metrics("update", report.update, report.metrics, as_json=as_json)
    if not as_json:
        console.print(f"model.weights: {save / BACKBONE}", highlight=False)


@app.command()
def weights(
    trial: Annotated[Path, typer.Argument(help="A YAML file with the sections of a trial.")],
    checkpoint: Annotated[Path, typer.Argument(help="The folder of a saved epoch of it.")],
    out: Annotated[Path, typer.Option(help="The safetensors file to write.")] = Path("network.safetensors"),
) -> None:
    """Write the whole network of a checkpoint as one file, which `model.weights` takes to go on from."""
    config = read_trial(trial)

    from trainable.training.checkpoint import BrokenCheckpointError
    from trainable.training.trained import export_weights

    try:
        export_weights(config, checkpoint=checkpoint, path=out)
    except BrokenCheckpointError as error:
        raise UserError(f"CHECKPOINT: {error}") from error
    console.print(f"{out}: the network of {checkpoint}", highlight=False, markup=False)


@app.command()
def plan(
    model: Annotated[str, typer.Argument(help="A timm architecture.")],
    depth: Annotated[str, typer.Option(help="freeze.depth: a share, a stage, or [stage3, stage4].")] = "0",
    lr: Annotated[float, typer.Option(help="optimizer.lr")] = 1e-3,
    backbone_multiplier: Annotated[float, typer.Option(help="optimizer.backbone_multiplier")] = 1.0,
    layer_decay: Annotated[float, typer.Option(help="optimizer.layer_decay")] = 1.0,
    weight_decay: Annotated[float, typer.Option(help="optimizer.weight_decay")] = 0.01,
) -> None:
    """Print a backbone's units: stage, parameters, frozen or not, learning rate, weight decay."""
    freeze = checked(FreezeConfig, {"depth": parse(depth, where="--depth")}, where="freeze.")
    rates = {
        "lr": lr,
        "backbone_multiplier": backbone_multiplier,
        "layer_decay": layer_decay,
        "weight_decay": weight_decay,
    }
    optimizer = checked(OptimizerConfig, rates, where="optimizer.")

    from trainable.diagnosis.plan_table import plan_rows

    table = Table("unit", "stage", "parameters", "frozen", "lr", "weight decay", box=None, pad_edge=False)
    for row in plan_rows(model, freeze=freeze, optimizer=optimizer):
        rate = "-" if row.is_frozen else f"{row.lr:.3g}"
        frozen = "frozen" if row.is_frozen else ""
        table.add_row(row.unit, row.stage, f"{row.parameters:,}", frozen, rate, f"{row.weight_decay:g}")
    table.add_row("head", "head", "", "", f"{lr:.3g}", f"{weight_decay:g}")
    console.print(table)


def read_trial(path: Path) -> TrialConfig:
    """The trial a YAML file says. Raises SettingsError with a line for each mistake."""
    return checked(TrialConfig, read_document(path), where=f"{path}: ")


@contextmanager
def _diverging() -> Iterator[None]:
    """A training whose loss is no number any more ends in one line and exit code 1."""
    from trainable.training.fit import DivergedError

    try:
        yield
    except DivergedError as error:
        Terminal(stderr=True).print(f"diverged: {error}")
        sys.exit(1)


def _print_metrics(step: str, number: int, metrics: dict[str, float], *, as_json: bool, far: str = "") -> None:
    if as_json:
        typer.echo(to_json({step: number, **metrics}))
    else:
        text = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        console.print(f"{step} {number}{far}  {text}", highlight=False)


if __name__ == "__main__":
    main()
