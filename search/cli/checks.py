"""The command that looks before anything is trained: at space files, and at the images themselves."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.cli.options import AllowCode, AsJson, Data, Set, Trials, console, images_seen, print_json
from search.space.lint import lint, lowered_batches
from search.space.loading import load, parse_override, uri_note
from search.space.paths import config_problems, nest
from search.space.preflight import check_models, check_techniques, weights_of
from search.space.spec import SearchSpec
from trainable.config.trial import DataConfig, TrialConfig
from trainable.cpus import usable_cpus
from trainable.errors import SettingsError, UserError

if TYPE_CHECKING:
    from trainable.model.weights_at_hand import WeightsAtHand

SPACE_SUFFIXES = (".yaml", ".yml")
MANY_IMAGES = 10_000  # from which on a bar shows how far the look has come
MOST_WEIGHTS = 20  # that are shown a line each

Things = Annotated[list[str], typer.Argument(help="Space files; or images: a folder, a CSV, a Parquet or Arrow file.")]


def check(
    things: Things,
    overrides: Set = None,
    data: Data = None,
    trials: Trials = None,
    allow_code: AllowCode = False,
    as_json: AsJson = False,
) -> None:
    """Check your images, every one; or space files: every value, range, condition, and the images they name."""
    results = []
    for thing in things:
        is_space = thing.lower().endswith(SPACE_SUFFIXES)
        check_one = _check_space if is_space else _check_images
        try:
            results.append(check_one(thing, overrides=overrides or (), data=data, trials=trials, is_quiet=as_json))
        except UserError as error:  # of which there is nothing to report, while there may be of the next
            mistakes = list(error.problems) if isinstance(error, SettingsError) else [str(error)]
            results.append({"file": thing, "mistakes": mistakes})
    if as_json:
        print_json(results)
    mistakes = [line for result in results for line in result.get("mistakes", ())]
    if mistakes:
        raise SettingsError(mistakes)


def _check_images(
    path: str, *, overrides: Sequence[str], data: str | None, trials: int | None, is_quiet: bool
) -> dict[str, Any]:
    if data is not None or trials is not None:
        raise UserError(f"check {path}: --data and --trials go with a space file, a .yaml")
    described = _report(_data_config(path, overrides=overrides))
    if not is_quiet:
        console.print(f"{path}: {described['as_read']}", highlight=False, markup=False)
        _print(described["lines"])
        if not described["mistakes"]:
            given = [word for text in overrides for word in ("--set", text)]
            step = f"python -m search diagnose {shlex.join([path, *given])} --out spaces/mine.yaml"
            console.print(f"good; what to search: {step}", highlight=False, markup=False)
    return {"data": described, "mistakes": described["mistakes"]}


def _check_space(
    path: str, *, overrides: Sequence[str], data: str | None, trials: int | None, is_quiet: bool
) -> dict[str, Any]:
    spec = load(Path(path), overrides, data=data, trials=trials)
    check_techniques(spec)
    notes = [*check_models(spec), *lint(spec), *_shortages(spec), *filter(None, [uri_note(spec)])]
    weights = weights_of(spec)
    result: dict[str, Any] = {
        "file": path,
        "name": spec.search.name,
        "values": len(spec.space.dimensions),
        "notes": notes,
        "weights": [place.as_dict() for place in weights],
    }
    mistakes: list[str] = []
    described = None
    if data is not None or _is_there(spec):
        described = _report(TrialConfig.model_validate(spec.trial_config({})).data)
        mistakes = described["mistakes"]
        result |= {"data": described, "mistakes": mistakes}
        notes += lowered_batches(spec, num_images=described["training"])
    else:
        notes.append(
            f"the images are not looked at: there is no {spec.base.get('data.path', '')!r} here; --data names them"
        )
    if not is_quiet:
        verdict = "its images cannot be trained on as they are" if mistakes else "good"
        console.print(f"{path}: {verdict}, {result['values']} values varied", highlight=False, markup=False)
        told = [f"note: {note}" for note in notes] + [f"weights: {line}" for line in _weights_lines(weights)]
        _print([*told, *(described["lines"] if described is not None else ())])
    return result


def _weights_lines(places: "Sequence[WeightsAtHand]") -> list[str]:
    """Where each model's weights are, a line each, long lists cut, and what is to be downloaded in all."""
    from trainable.model.weights_at_hand import download_line

    lines = [place.line() for place in places[:MOST_WEIGHTS]]
    more = [f"and {len(places) - MOST_WEIGHTS} more"] if len(places) > MOST_WEIGHTS else []
    return [*lines, *more, *filter(None, [download_line(places)])]


def _report(config: DataConfig) -> dict[str, Any]:
    """The data report as plain data, with its text and what a search would train on."""
    from trainable.data.report import examine

    with images_seen(fewest=MANY_IMAGES) as progress:
        report = examine(config, progress=progress)
    splits = {split: sum(classes.values()) for split, classes in report.counts.items()}
    share = 1.0 if "train" in splits else 1 - config.val_share - config.test_share
    return {
        "classes": len(report.classes),
        "images": report.used,
        "counts": report.counts,
        "training": round(share * splits.get("train", splits.get("all", 0))),
        "target": sum(report.target.values()),
        "notes": [finding.line() for finding in report.findings if not finding.is_mistake],
        "mistakes": report.mistakes,
        "as_read": f"read as {report.format}",
        "lines": report.lines(),
        "report": report.as_dict(),
    }


def _data_config(path: str, *, overrides: Sequence[str]) -> DataConfig:
    """The settings of `data` that were given; a SettingsError for any other."""
    values: dict[str, Any] = {"data.path": path}
    for text in overrides:
        override = parse_override(text)
        if not override.path.startswith("data."):
            raise SettingsError([f"--set {override.path}: the check of images takes data.…"])
        values[override.path] = override.value
    problems = config_problems(values)
    if problems:
        raise SettingsError(problems)
    return TrialConfig.model_validate(nest(values), strict=True).data


def _print(lines: Sequence[str]) -> None:
    for line in lines:
        console.print(f"  {line}", highlight=False, markup=False)


def _shortages(spec: SearchSpec) -> list[str]:
    """What a trial asks for more than this machine has; torch, which knows the GPUs, is loaded only where it is asked."""
    if spec.resources.cpu <= usable_cpus() and spec.resources.gpu in ("auto", 0):
        return []
    from search.tune.place import local_shortages

    return local_shortages(spec)


def _is_there(spec: SearchSpec) -> bool:
    from trainable.data.readers.storage import exists

    base = spec.base
    if base.get("data.format") == "elpv":
        return True
    paths = [base["data.path"]] if base.get("data.path") else [*base.get("data.source", []), base.get("data.target")]
    return all(isinstance(path, str) and exists(path) for path in paths)
