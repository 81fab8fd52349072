"""What limited a search, from its own numbers, and what to type next."""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.engine.conductor import OUT_OF_TIME
from search.engine.sampling import TRY_FIRST
from search.ledger.notes import PairedScore, SearchNotes
from search.ledger.stored import SPEC_FILE
from search.ledger.trials import Trial
from search.space.dimension import Number
from search.space.paths import config_problems, defaults
from search.space.spec import SearchSpec, resume_command
from trainable.masking import masked_address
from trainable.metrics import SCORES

FEW_IMAGES = 20  # of a class to train on, under which its recall hangs on single images
EDGE = 0.03  # of a range: nearer to an end than this a best value asks for a wider range
WIDER = 10.0  # times, on a logarithmic scale
PERCENT = 100


@dataclass(frozen=True)
class Step:
    """A ``command`` to type, and ``why``, which follows it in a sentence."""

    command: str
    why: str


@dataclass(frozen=True)
class Limit:
    """What held a search back, a ``line``, with the step against it where there is one."""

    line: str
    step: Step | None = None


def limits_of(
    trials: Sequence[Trial], *, best: Trial, spec: SearchSpec, notes: SearchNotes, untold: PairedScore | None
) -> list[Limit]:
    """What held a search back, the dearest first: time, resolution, range, backbones, images to train on and to judge by.

    ``untold`` is the candidate beside what it is not told apart from, None where it is.
    """
    config = defaults() | spec.base | dict(best.params) | dict(best.overrides)
    limits = [
        _time(trials, spec=spec),
        _resolution(config, spec=spec, notes=notes),
        _edge(best, spec=spec),
        _backbones(notes),
        _few_images(config, notes=notes),
        _few_to_judge(untold, spec=spec, notes=notes),
    ]
    return [limit for limit in limits if limit is not None]


def steps_after(limits: Sequence[Limit], *, is_better: bool, spec: SearchSpec, best: Trial) -> list[Step]:
    """What to type next: the promotion, then what may do more about what limited the search."""
    promotion = Step(resume_command(spec, command="promote"), "packages and registers it, if the gate lets it through")
    steps = [promotion, *(limit.step for limit in limits if limit.step is not None)]
    if not is_better and not any(step.command.startswith(_DIAGNOSE) for step in steps):
        config = defaults() | spec.base | dict(best.params)
        steps.append(Step(_diagnosis(config), "says what these images are to the backbone, and what to search"))
    return list(dict.fromkeys(steps))


def _time(trials: Sequence[Trial], *, spec: SearchSpec) -> Limit | None:
    """Trials that were left open when the time was up, and what was to be tried first but was too long for it."""
    seconds = spec.search.budget.seconds
    num_open = sum(trial.state == "RUNNING" and (trial.reason or "").startswith(OUT_OF_TIME) for trial in trials)
    num_passed_over = _num_passed_over(trials, spec=spec)
    if seconds is None or not (num_open or num_passed_over):
        return None
    texts = [f"{_count(num_open, 'trial')} left open"] if num_open else []
    texts += [f"{num_passed_over} of try_first not begun"] if num_passed_over else []
    command = f"{resume_command(spec)} --minutes {2 * seconds / 60:g}"
    return Limit(f"time, {' and '.join(texts)} for want of it", Step(command, "goes on with these"))


def _num_passed_over(trials: Sequence[Trial], *, spec: SearchSpec) -> int:
    """Recipes that no trial was begun with where nothing but the time bounds a search."""
    budget = spec.search.budget
    others = (spec.search.trials, spec.search.tolerance, spec.select_backbones, budget.epochs, budget.gpu_hours)
    if any(bound is not None for bound in others):
        return 0
    return len(spec.try_first) - sum(trial.origin == TRY_FIRST for trial in trials)


def _resolution(config: Mapping[str, Any], *, spec: SearchSpec, notes: SearchNotes) -> Limit | None:
    """Images smaller than those that the backbone was made for."""
    size, own = config["data.image_size"], None if notes.comparison is None else notes.comparison.own_size
    if own is None or size is None or size >= own:
        return None
    step = Step(_search_again(spec, changed=f"data.image_size={own}", name=f"{own}px"), "searches at that size")
    return Limit(f"resolution, images of {size} pixels where the backbone was made for {own}", step)


def _edge(best: Trial, *, spec: SearchSpec) -> Limit | None:
    """A best value at the end of a range of magnitudes, beyond which a better one may lie."""
    for path, value in best.params.items():
        dimension = spec.space.dimensions.get(path)
        if not isinstance(dimension, Number) or not dimension.log or not isinstance(value, int | float):
            continue
        low, high = dimension.low, dimension.high
        place = math.log(value / low) / math.log(high / low)
        if EDGE <= place <= 1 - EDGE:
            continue
        wider = (low / WIDER, high) if place < EDGE else (low, high * WIDER)
        line = f"range, {path} is best at {value:.2g}, the end of what was searched, {low:g} to {high:g}"
        if dimension.whole or any(_is_refused(path, bound) for bound in wider):
            return Limit(line)
        changed = f"vary.{path}={{log: [{wider[0]:g}, {wider[1]:g}]}}"
        return Limit(line, Step(_search_again(spec, changed=changed, name="wider"), "looks beyond it"))
    return None


def _is_refused(path: str, value: float) -> bool:
    """Whether no trial can have this value."""
    return any(line.startswith(path) for line in config_problems({path: value}))


def _backbones(notes: SearchNotes) -> Limit | None:
    choice = notes.backbones
    if choice is None or not choice.not_scored:
        return None
    return Limit(
        f"backbones, {_count(len(choice.not_scored), 'of them was', 'of them were')} not scored for want of time"
    )


def _few_images(config: Mapping[str, Any], *, notes: SearchNotes) -> Limit | None:
    """A class with few images to train on."""
    counts = notes.data.counts.get("train", {})
    if not counts or min(counts.values()) >= FEW_IMAGES:
        return None
    few = sorted((name for name in counts if counts[name] < FEW_IMAGES), key=lambda name: (counts[name], name))
    more = f" and {_count(len(few) - 1, 'other class', 'other classes')} under {FEW_IMAGES}" if len(few) > 1 else ""
    line = f"data, class {few[0]!r} has {_count(counts[few[0]], 'image')} to train on{more}"
    return Limit(line, Step(_diagnosis(config), "says what more images would be worth"))


def _few_to_judge(untold: PairedScore | None, *, spec: SearchSpec, notes: SearchNotes) -> Limit | None:
    """Too few validation images to tell the candidate from the other."""
    comparison = notes.comparison
    if untold is None or comparison is None or not SCORES[spec.search.metric.partition("/")[2]].compares:
        return None
    half = PERCENT * (untold.high - untold.low) / 2
    return Limit(
        f"images to judge by, {comparison.num_images} of them tell nothing apart that differs by less than {half:.1f} points"
    )


_DIAGNOSE = "python -m search diagnose"


def _diagnosis(config: Mapping[str, Any]) -> str:
    model = f" --model {shlex.quote(str(config['model.name']))}"
    if config["data.format"] == "elpv":
        return f"{_DIAGNOSE} --format elpv{model}"
    return f"{_DIAGNOSE} {shlex.quote(masked_address(str(config['data.path'])))}{model}"


def _search_again(spec: SearchSpec, *, changed: str, name: str) -> str:
    """The search from its stored file under another name, with one value changed."""
    stored = shlex.quote(str(Path(spec.search.folder) / spec.search.name / SPEC_FILE))
    return f"python -m search run {stored} --set {shlex.quote(changed)} --name {spec.search.name}-{name}"


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or f'{one}s'}"
