"""What a search would take, before it is begun."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Any

from rich.table import Table

from search.engine.clock import FINISHING_SECONDS
from search.engine.confirming import Confirming
from search.engine.forecast import expected_epochs, expected_trials, trials_within
from search.engine.rule import Rule
from search.engine.schedulers import scheduler_rule
from search.report.plan_error import learnt_line
from search.report.spending import duration
from search.run.baselines import RECIPES
from search.run.warm_start import choose_warm_start, warm_start_lines
from search.space.dimension import Choice
from search.space.sections import BudgetSection
from search.space.spec import SearchSpec
from search.space.values import Value
from search.tune import machine, preparation
from search.tune.place import check_local_resources, concurrency
from trainable.prefix.prefixes import limit_bytes

AROUND_SECONDS = 12.0 + FINISHING_SECONDS  # before the first trial and after the last, on two cores
SAVED_AT_ONCE = 3  # checkpoints of a trial at work: the newest, the one before, the best


def make_plan(spec: SearchSpec) -> dict[str, Any]:
    """Trials at each rung, epochs, baselines' too, checkpoint disk and time; plain data.

    The time is for this machine and comes from a few updates of the cheapest and the dearest corner of the space, run in
    this process.
    Raises UserError as a run would for data and weights that cannot be used.
    """
    check_local_resources(spec)
    rule = scheduler_rule(spec)
    points = _corners(spec)
    corners = [spec.trial_config(params) for params in points]
    facts = preparation.prepare(corners)
    start = None if spec.search.warm_start is None else choose_warm_start(spec, data=facts)
    measured = [preparation.measure(config, threads=max(1, math.floor(spec.resources.cpu))) for config in corners]
    seconds = [corner["epoch_seconds"] for corner in measured]
    available = machine.local_resources()
    gpu = (1.0 if available["gpu"] else 0.0) if spec.resources.gpu == "auto" else spec.resources.gpu
    at_once = concurrency(spec, available=available, gpu=gpu, can_grow=False)
    beside = _baseline_epochs(spec, config=corners[0])
    beside_seconds = beside * max(seconds) / at_once
    fitting = epochs_within(
        spec.search.budget, epoch_seconds=fmean(seconds), at_once=at_once, gpu=gpu, beside_seconds=beside_seconds
    )
    work = foreseen_work(spec, fitting=fitting)
    trials, epochs = next(iter(work["rungs"].values())), work["epochs"]
    largest = max(corner["checkpoint_bytes"] for corner in measured)
    once = frozen_seconds_once(points, measured=measured, epochs=rule.rungs[-1])
    each_time = epochs * sum(corner["frozen_seconds"] for corner in measured) / len(measured)
    return {
        "name": spec.search.name,
        **work,
        "asked_seconds": spec.search.budget.seconds,
        "images": {split: sum(classes.values()) for split, classes in facts.counts.items()},
        "epoch_seconds": {"least": min(seconds), "most": max(seconds)},
        "concurrency": at_once,
        "baseline_epochs": beside,
        "hours": {
            "least": (epochs * min(seconds) / at_once + beside_seconds + AROUND_SECONDS) / 3600,
            "most": ((epochs * max(seconds) + once) / at_once + beside_seconds + AROUND_SECONDS) / 3600,
        },
        "frozen_hours": {"once": once / at_once / 3600, "saved": max(0.0, each_time - once) / at_once / 3600},
        "frozen_bytes": _frozen_bytes(spec),
        "checkpoint_bytes": trials * largest + at_once * (SAVED_AT_ONCE - 1) * largest,
        "warm_start": None if start is None else warm_start_lines(start),
        "peak_memory_bytes": max(corner["peak_memory_bytes"] for corner in measured),
    }


def frozen_seconds_once(
    points: Sequence[Mapping[str, Value]], *, measured: Sequence[Mapping[str, Any]], epochs: int
) -> float:
    """What frozen layers take for all trials together: of alike images and backbones each view once, by the deepest cut."""
    longest: dict[str, float] = {}
    for params, corner in zip(points, measured, strict=True):
        alike = str(
            sorted((path, value) for path, value in params.items() if path.startswith(("data.", "model.", "augment.")))
        )
        seconds = corner["frozen_seconds"] * min(corner["views"], epochs)
        longest[alike] = max(longest.get(alike, 0.0), seconds)
    return sum(longest.values())


def foreseen_work(spec: SearchSpec, *, fitting: int | None) -> dict[str, Any]:
    """How many trials reach each rung, and the epochs of all that is trained, where ``fitting`` many fit into the budget."""
    rule, asked, share = scheduler_rule(spec), spec.search.trials, spec.scheduler.audit
    confirming = Confirming(count=spec.search.confirm, until=rule.rungs[-1])
    confirmed = confirming.until * confirming.count if fitting is None else confirming.epochs_kept(budget=fitting)
    left = None if fitting is None else fitting - confirmed
    trials = most_trials(rule, asked=asked, epochs=left)
    audited = expected_audit_epochs(expected_trials(rule, num_trials=trials), share=share)
    if left is not None:  # audits are inside the budget, of which they take half at most
        audited = min(audited, left // 2)
        trials = most_trials(rule, asked=asked, epochs=left - audited)
        audited = min(audited, expected_audit_epochs(expected_trials(rule, num_trials=trials), share=share))
    rungs = expected_trials(rule, num_trials=trials)
    confirmed = min(confirmed, confirming.until * rungs[confirming.until])
    return {
        "rungs": {str(rung): count for rung, count in rungs.items()},
        "epochs": expected_epochs(rule, num_trials=trials) + confirmed + audited,
        "epochs_without_halving": trials * rule.rungs[-1] + confirmed,
        "confirm_epochs": confirmed,
        "audit_epochs": audited,
    }


def epochs_within(
    budget: BudgetSection, *, epoch_seconds: float, at_once: int, gpu: float, beside_seconds: float = 0.0
) -> int | None:
    """How many epochs of this length a budget allows, its narrowest bound; None without a bound.

    By the clock it holds what baselines take, ``beside_seconds``, and the search's start and end too.
    """
    bounds: list[float] = [] if budget.epochs is None else [budget.epochs]
    if budget.seconds is not None:
        bounds.append(max(0.0, budget.seconds - AROUND_SECONDS - beside_seconds) * at_once / epoch_seconds)
    if budget.gpu_hours is not None:
        bounds.append(budget.gpu_hours * 3600 / (gpu or 1.0) / epoch_seconds)
    return math.floor(min(bounds)) if bounds else None


def most_trials(rule: Rule, *, asked: int | None, epochs: int | None) -> int:
    """The trials that a search comes to, asked for or allowed by the epochs of its budget, whichever are fewer."""
    bounds = [] if epochs is None else [trials_within(rule, epochs=epochs)]
    return min([*bounds, *([] if asked is None else [asked])])


def expected_audit_epochs(rungs: Mapping[int, int], *, share: float) -> int:
    """How many epochs audits take of a share of the trials that stop, by how many reach each rung."""
    stopped = ((rung, count - after) for (rung, count), (_, after) in pairwise(rungs.items()))
    return round(share * sum(count * (max(rungs) - rung) for rung, count in stopped))


def plan_table(plan: dict[str, Any], *, learnt: Mapping[str, Any] | None) -> Table:
    """The plan for a terminal, with what it comes to if it is as far off as earlier ones."""
    table = Table(show_header=False, box=None, pad_edge=False)
    rungs = ", ".join(f"{count} to epoch {rung}" for rung, count in plan["rungs"].items())
    seconds, hours = plan["epoch_seconds"], plan["hours"]
    table.add_row("trials", f"about {rungs}")
    if plan["asked_seconds"] is not None:
        table.add_row("time", f"{duration(plan['asked_seconds'])} asked, trials and epochs are what fits into it")
    table.add_row("epochs", f"about {plan['epochs']} (all trials in full: {plan['epochs_without_halving']})")
    if plan["confirm_epochs"] or plan["audit_epochs"]:
        table.add_row(
            "of these", f"{plan['confirm_epochs']} to confirm the last candidates, {plan['audit_epochs']} for audits"
        )
    if plan["baseline_epochs"]:
        table.add_row("baselines", f"{plan['baseline_epochs']} epochs beside")
    table.add_row("images", ", ".join(f"{count} {split}" for split, count in plan["images"].items()))
    table.add_row("an epoch", f"{seconds['least']:.1f} to {seconds['most']:.1f} s on this machine, one trial alone")
    table.add_row(
        "the search",
        f"{duration(3600 * hours['least'])} to {duration(3600 * hours['most'])} with {plan['concurrency']} trials at once, "
        "start, baselines and end in it",
    )
    if learnt is not None:
        table.add_row("earlier searches", learnt_line(learnt))
    frozen = plan["frozen_hours"]
    table.add_row(
        "frozen layers",
        f"{duration(3600 * frozen['once'])} at most to compute once, which saves about {duration(3600 * frozen['saved'])}; kept "
        f"in at most {plan['frozen_bytes'] / 1e9:.1f} GB (data.prefix_gb)",
    )
    table.add_row("checkpoints", f"at most {plan['checkpoint_bytes'] / 1e9:.2f} GB")
    table.add_row("memory", f"{plan['peak_memory_bytes'] / 1e9:.1f} GB a trial at most")
    for line in plan["warm_start"] or ():
        table.add_row("warm start", line.removeprefix("warm start: "))
    return table


def _baseline_epochs(spec: SearchSpec, *, config: Mapping[str, Any]) -> int:
    """How many epochs the baselines take that are trained, on a trial's images."""
    return sum(
        preparation.recipe_config(dict(config), name=name).train.epochs for name in spec.baselines if name in RECIPES
    )


def _frozen_bytes(spec: SearchSpec) -> int:
    """What outputs of frozen layers may take of the disk at most."""
    return limit_bytes(spec.validated(_point(spec, end=0)).data)


def _corners(spec: SearchSpec) -> list[dict[str, Value]]:
    """The points at the lowest and the highest end of every dimension, and each choice of a backbone or a depth."""
    ends = [_point(spec, end=end) for end in (0, -1)]
    for path in ("freeze.depth", "model.name", "data.image_size"):
        dimension = spec.space.dimensions.get(path)
        if isinstance(dimension, Choice):
            ends += [ends[0] | {path: member} for member in dimension.members[1:-1] if path in ends[0]]
    distinct: list[dict[str, Value]] = []
    for point in ends:
        if point not in distinct:
            distinct.append(point)
    return distinct


def _point(spec: SearchSpec, *, end: int) -> dict[str, Value]:
    values: dict[str, Value] = {path: dimension.extremes[end] for path, dimension in spec.space.dimensions.items()}
    active = spec.space.active(values)
    return {path: value for path, value in values.items() if path in active}
