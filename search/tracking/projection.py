"""What MLflow shows of a search, computed from its records as plain data."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from search.ledger.failures import failure_text
from search.ledger.notes import BaselineScore, DataFacts, Scores, SearchNotes
from search.ledger.trials import EpochRecord, Trial, best_trial
from search.report.overview import probe_text
from search.report.spending import clock_line
from search.report.verdict import search_verdict
from search.report.winner import winner_data, winner_texts
from search.space.dimension import Number
from search.space.paths import FIELDS, defaults, flatten
from search.space.space import Space
from search.space.spec import ORACLE, SearchSpec
from search.space.values import Value
from trainable.json_text import to_json
from trainable.masking import masked, masked_address
from trainable.metrics import is_better

SearchState = Literal["running", "finished", "interrupted", "failed"]
GREY = "#9e9e9e"
LONGEST_PARAM = 6000
LONGEST_REASON = 4000
LONGEST_TITLE = 120


@dataclass(frozen=True, kw_only=True)
class Point:
    """One value of a metric: ``time`` in milliseconds since 1970, finite, six significant digits."""

    name: str
    value: float
    time: int
    step: int


@dataclass(frozen=True, kw_only=True)
class DataUsed:
    """The images of a search as MLflow's dataset."""

    name: str
    digest: str
    source: str
    profile: str
    known_in_test: int = 0


@dataclass(frozen=True, kw_only=True)
class SearchPlace:
    """Which search: ``search_id`` is the ledger's own, whatever the search is called; ``began`` in milliseconds."""

    spec: SearchSpec
    folder: Path
    search_id: str
    began: int
    data: DataUsed


def short_names(space: Space) -> dict[str, str]:
    """Searched paths by the shortest tail that is no other value's: ``lr``, but ``optimizer.name``."""
    every = {*FIELDS, *space.dimensions}
    return {
        path: next(tail for tail in _tails(path) if _is_unambiguous(tail, path, every)) for path in space.dimensions
    }


def is_log(space: Space, path: str) -> bool:
    """Whether a value is searched on a logarithmic scale."""
    dimension = space.dimensions[path]
    return isinstance(dimension, Number) and dimension.log


def best_name(metric: str) -> str:
    """Under which name the best value of a trial's epochs is logged: ``best/accuracy``."""
    return f"best/{metric.rpartition('/')[2]}"


def trial_title(trial: Trial, *, spec: SearchSpec) -> str:
    """``007 depth=0.5 lr=0.0012``."""
    names, values = short_names(spec.space), trial.params
    parts = [f"{name}={_brief(values[path], digits=3)}" for path, name in names.items() if path in values]
    return " ".join([f"{trial.number:03d}", *parts])[:LONGEST_TITLE]


def trial_params(trial: Trial, *, spec: SearchSpec) -> dict[str, str]:
    """The searched values under their short names and, exactly, under ``cfg.`` with all that :func:`fixed_values` do not say."""
    names = short_names(spec.space)
    values = trial.searched
    params = {}
    for path, value in values.items():
        params[names[path]] = _brief(value, digits=6)
        if is_log(spec.space, path) and isinstance(value, int | float):
            params[f"log10_{names[path]}"] = f"{math.log10(value):.6g}"
    config, fixed = defaults() | flatten(spec.config_of(trial)), fixed_values(spec)
    params |= {f"cfg.{path}": _exact(value) for path, value in config.items() if path in values or fixed[path] != value}
    return {name: text[:LONGEST_PARAM] for name, text in params.items()}


def fixed_values(spec: SearchSpec) -> dict[str, Value]:
    """The configuration by dotted path that every trial has, but for the values that are searched in it or override one."""
    return defaults() | flatten(spec.trial_config({}))


def fixed_text(spec: SearchSpec) -> str:
    """:func:`fixed_values` without those that are searched, as YAML, a line each."""
    fixed = {path: value for path, value in fixed_values(spec).items() if path not in spec.space.dimensions}
    written = {
        path: json.dumps(masked(v)) if isinstance(v, str) else masked(json.dumps(v)) for path, v in fixed.items()
    }
    return "".join(f"{path}: {text}\n" for path, text in sorted(written.items()))


def trial_tags(trial: Trial, *, rungs: Sequence[int]) -> dict[str, str]:
    """How a trial stands, and the last of the ``rungs`` that it came to.

    ``search.epochs`` says how much is logged: it is written after what it counts.
    """
    tags = {"search.state": trial.state, "search.epochs": str(trial.last_epoch)}
    passed = [rung for rung in rungs if rung <= trial.last_epoch]
    if passed:
        tags["search.rung"] = str(max(passed))
    if trial.reason:
        tags["search.reason"] = trial.reason[:LONGEST_REASON]
    if trial.failure:
        tags["search.failure"] = failure_text(trial)[:LONGEST_REASON]
    if trial.state == "PRUNED":
        tags["mlflow.runColor"] = GREY
    return tags


def trial_points(trial: Trial, *, metric: str, after: int) -> list[Point]:
    """The metrics of the epochs after ``after``; a new best value is also the summary's, at step 0.

    What the network takes is at step 0, too.
    """
    began = trial_started(trial) or 0
    measured = trial.measured.items() if after == 0 else ()
    points = [Point(name=name, value=_rounded(value), time=began, step=0) for name, value in measured]
    best: float | None = None
    for epoch in trial.epochs:
        value = epoch.metrics.get(metric)
        improved = value is not None and math.isfinite(value) and is_better(value, best, metric=metric)
        best = value if improved else best
        if epoch.number > after:
            points += _epoch_points(epoch)
        if epoch.number > after and improved and value is not None:
            points.append(
                Point(name=best_name(metric), value=_rounded(value), time=_milliseconds(epoch.recorded), step=0)
            )
    return points


def trial_ended(trial: Trial) -> int:
    """When a trial ended, or was last heard of, in milliseconds."""
    moments = [trial.ended or (trial.epochs[-1].recorded if trial.epochs else trial.started)]
    return next((_milliseconds(moment) for moment in moments if moment), 0)


def trial_started(trial: Trial) -> int | None:
    """When a trial began, in milliseconds."""
    return None if trial.started is None else _milliseconds(trial.started)


def search_points(
    trials: Sequence[Trial], *, notes: SearchNotes, metric: str, began: int, choose_by: Sequence[str] = ()
) -> list[Point]:
    """The search's own metrics: the best so far after the n-th ended trial, the baselines, the best trial's test."""
    points = _progress_points(trials, metric=metric)
    for baseline, score in notes.baselines.items():
        points += _score_points(score, prefix=baseline, time=began)
    test = notes.test
    best = best_trial(trials, metric=metric, choose_by=choose_by)
    if test is not None and best is not None and test.trial == best.number:
        # Of two values at a step MLflow shows the later one, so a second test needs a later time than the first.
        points += _score_points(test, prefix="test", time=trial_ended(best))
        points += _score_points(test.oracle or Scores(), prefix="oracle_test", time=trial_ended(best))
    winner = winner_data(trials, notes=notes, metric=metric, choose_by=choose_by)
    return points if best is None else points + _winner_points(winner, metric=metric, best=best)


def _winner_points(winner: Mapping[str, Any], *, metric: str, best: Trial) -> list[Point]:
    """The interval of the best value, and the mean and spread of the winner's seeds."""
    name, values = best_name(metric), {}
    if winner["interval"] is not None:
        values = {f"{name}_{end}": winner["interval"][end] for end in ("low", "high")}
    for row in (winner["confirmed"] or {"trials": ()})["trials"]:
        if row["trial"] == best.number and not row["why_not"]:
            values |= {f"{name}_{figure}": row[figure] for figure in ("mean", "spread")}
    time = trial_ended(best)
    return [Point(name=name, value=_rounded(value), time=time, step=0) for name, value in values.items()]


def digest_of(score: Scores) -> str:
    """Tells one version of a baseline's scores from another."""
    return hashlib.blake2b(to_json(asdict(score), sort_keys=True).encode(), digest_size=8).hexdigest()


def baseline_points(score: BaselineScore, *, metric: str, epochs: int, time: int) -> list[Point]:
    """A baseline's scores under the names of a trial's, the search's metric at the first and last epoch: a line in a chart."""
    found = {f"val/{name}": value for name, value in score.metrics.items()} | dict(score.measured)
    value = score.value(metric)
    named = [(name, value, 0) for name, value in found.items() if name != metric]
    if value is not None:
        named += [(metric, value, step) for step in sorted({1, epochs})] + [(best_name(metric), value, 0)]
    return [
        Point(name=name, value=_rounded(number), time=time, step=step)
        for name, number, step in named
        if math.isfinite(number)
    ]


def counts(trials: Sequence[Trial]) -> str:
    """``12 trials: 3 complete, 9 pruned``."""
    states = sorted(Counter(trial.standing for trial in trials).items())
    return f"{len(trials)} trials" + (": " if states else "") + ", ".join(f"{count} {state}" for state, count in states)


def said_best(trials: Sequence[Trial], *, metric: str, choose_by: Sequence[str] = ()) -> str:
    """``best so far: val/accuracy 0.9310, trial 7``."""
    best = best_trial(trials, metric=metric, choose_by=choose_by)
    return "nothing measured yet" if best is None else f"best: {metric} {best.best(metric):.4f}, trial {best.number}"


def search_note(trials: Sequence[Trial], *, spec: SearchSpec, data: DataUsed, resume: str, notes: SearchNotes) -> str:
    """The search's description in Markdown."""
    metric, choose_by = spec.search.metric, spec.search.choose_by
    line = clock_line(spec.search.budget, stretches=notes.stretches)
    best = best_trial(trials, metric=metric, choose_by=choose_by)
    verdict = search_verdict(trials, spec=spec, notes=notes)
    probe = probe_text(best) if verdict is None else None
    winner = winner_data(trials, notes=notes, metric=metric, choose_by=choose_by)
    is_tested = notes.test is not None and best is not None and notes.test.trial == best.number
    test = notes.test.metrics if notes.test is not None and is_tested else None
    certainty = winner_texts(winner, metric=metric, test=test, best=best.number if best and is_tested else None)
    lines = [
        *([] if verdict is None else verdict.lines),
        *([probe] if probe else []),
        said_best(trials, metric=metric, choose_by=choose_by),
        *certainty,
        counts([trial for trial in trials if trial.is_searched])
        + ("" if spec.search.trials is None else f" of at most {spec.search.trials}"),
        *([f"time by the clock: {line}"] if line else []),
        f"data: {data.name}",
        *([f"to go on: `{resume}`"] if verdict is None else []),
    ]
    if data.known_in_test:
        lines.append(f"test scores are too good: {data.known_in_test} test images are in train or val as well")
    if spec.base.get("data.oracle"):
        lines.insert(0, ORACLE)
    return "\n".join(f"- {line}" for line in lines)


def verdict_tags(trials: Sequence[Trial], *, spec: SearchSpec, notes: SearchNotes) -> dict[str, str]:
    """What a search came to, in a sentence, and of which kind that is; none before its final candidate is tested."""
    verdict = search_verdict(trials, spec=spec, notes=notes)
    if verdict is None:
        return {"search.verdict": "none yet", "search.verdict_kind": "none yet"}
    return {"search.verdict": verdict.sentence[:LONGEST_REASON], "search.verdict_kind": verdict.kind}


def experiment_note(trials: Sequence[Trial], *, spec: SearchSpec, links: Mapping[str, str]) -> str:
    """One line: MLflow shows the first line of it above the runs."""
    linked = " · ".join(f"[{name}]({address})" for name, address in links.items())
    best = said_best(trials, metric=spec.search.metric, choose_by=spec.search.choose_by)
    return f"{spec.search.name}: {linked} · {best} · {counts(trials)}\n"


def data_used(spec: SearchSpec, *, facts: DataFacts) -> DataUsed:
    """The images under a name that holds their version, as MLflow's charts go by the name alone."""
    config = defaults() | spec.base
    path = masked_address(str(config["data.path"]))
    fingerprint = facts.fingerprint
    folder = "elpv" if config["data.format"] == "elpv" else path.rstrip("/").rpartition("/")[2] or "images"
    if config["data.target"] is not None:
        sources = "+".join(str(source).rstrip("/").rpartition("/")[2] for source in config["data.source"])
        folder += f" {sources or 'others'}→{str(config['data.target']).rstrip('/').rpartition('/')[2]}"
    profile = {"classes": list(facts.classes), "counts": facts.counts}
    return DataUsed(
        name=f"{folder}@{fingerprint[:8]}",
        digest=fingerprint[:36],
        source=path or folder,
        profile=json.dumps(profile)[:60_000],
        known_in_test=facts.report.get("known_in_test", 0),
    )


def _tails(path: str) -> list[str]:
    names = path.split(".")
    return [".".join(names[start:]) for start in reversed(range(len(names)))]


def _is_unambiguous(tail: str, path: str, every: set[str]) -> bool:
    return tail == path or not any(f".{other}".endswith(f".{tail}") for other in every if other != path)


def _epoch_points(epoch: EpochRecord) -> list[Point]:
    time = _milliseconds(epoch.recorded)
    return [
        Point(name=name, value=_rounded(value), time=time, step=epoch.number)
        for name, value in epoch.metrics.items()
        if math.isfinite(value)
    ]


def _progress_points(trials: Sequence[Trial], *, metric: str) -> list[Point]:
    """Over ended trials only: what is logged once must stay true, and a running trial may yet fail."""
    points: list[Point] = []
    best: float | None = None
    ended = sorted((trial for trial in trials if trial.ended), key=lambda trial: (trial_ended(trial), trial.number))
    for step, trial in enumerate(ended, start=1):
        value = None if trial.state == "FAILED" else trial.best(metric)
        if value is not None and math.isfinite(value) and is_better(value, best, metric=metric):
            best = value
        if best is not None:
            points.append(Point(name=best_name(metric), value=_rounded(best), time=trial_ended(trial), step=step))
    return points


def _score_points(score: Scores, *, prefix: str, time: int) -> list[Point]:
    return [
        Point(name=f"{prefix}/{name}", value=_rounded(value), time=time, step=0)
        for name, value in score.metrics.items()
        if math.isfinite(value)
    ]


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _brief(value: Value, *, digits: int) -> str:
    return f"{value:.{digits}g}" if isinstance(value, float) else _exact(value)


def _exact(value: Any) -> str:
    return masked(value if isinstance(value, str) else json.dumps(value))
