"""Probes of frozen features as trials: that of the whole network, the first of all, and one of a stage that beats every trial."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.engine.sampling import propose, sampling_rule
from search.ledger.files import checkpoint_folder
from search.ledger.ledger import Ledger
from search.ledger.notes import BaselineScore, SoupResult
from search.ledger.trials import POOLED_PROBE, PROBE, ZERO_SHOT, Trial, best_trial, probe_name
from search.space.spec import SearchSpec
from search.space.values import Value
from search.tune.place import Place
from search.tune.submit import submit
from trainable.errors import OutageError, UserError
from trainable.metrics import is_better

SOLVED = 1  # the only epoch of a trial whose head is solved for
# What a trial is that comes to a probe's scores: its head on the stage, and nothing else than the features as they are.
AS_TRIAL: Mapping[str, Value] = {
    "finetune.strategy": "linear_probe",
    "finetune.solver": "lbfgs",
    "finetune.probe_c": 1.0,
    "finetune.l2_sp": 0.0,
    "finetune.ewc": 0.0,
    "model.pool": "own",
    "model.head": "linear",
    "freeze.bn": "eval",
    "loss.logit_adjustment": 0.0,
    "adapt.method": "none",
    "data.early_size": None,
}


@dataclass(frozen=True)
class Probe:
    """A trial of the whole network that is asked for by some of ``baselines``, and what it has in place of searched values."""

    asked_by: frozenset[str]
    overrides: Mapping[str, Value]


_OF_WHOLE = {**AS_TRIAL, "model.until": None}
PROBES: Mapping[str, Probe] = {
    POOLED_PROBE: Probe(frozenset({"linear_probe", "stage_probes"}), _OF_WHOLE),
    ZERO_SHOT: Probe(frozenset({"zero_shot"}), {**_OF_WHOLE, "finetune.solver": "text", "model.head": "text"}),
}


def begin_probes(spec: SearchSpec, ledger: Ledger) -> None:
    """Note those of :data:`PROBES` that ``baselines`` ask for as trials to be trained before any other.

    They are no points of the space: the sampler does not see them, the scheduler no more than their values. A search that was
    begun when probes were no trials, and has the score, needs none.
    """
    for name, probe in PROBES.items():
        is_asked = probe.asked_by.intersection(spec.baselines)
        if is_asked and name not in ledger.notes.baselines and _trial_of(ledger, name=name) is None:
            _start(spec, ledger, overrides=probe.overrides)


def probe_scores(ledger: Ledger) -> dict[str, BaselineScore]:
    """The scores of :data:`PROBES` by their names, from their trials; nothing of one that has none."""
    scores = {}
    for name in PROBES:
        trial = _trial_of(ledger, name=name)
        if trial is not None and trial.epochs:
            measured = {
                name: value for name, value in trial.epochs[-1].metrics.items() if not name.startswith("usage/")
            }
            of_val = {name.removeprefix("val/"): value for name, value in measured.items() if name.startswith("val/")}
            scores[name] = BaselineScore(metrics=of_val, measured=measured)
    return scores


def winning_probe(
    baselines: Mapping[str, BaselineScore], *, trials: list[Trial], soup: SoupResult | None, metric: str
) -> str | None:
    """Which stage's probe beats every trial and the soup; None where none does."""
    best = best_trial(trials, metric=metric)
    values = {stage_of(name): score.value(metric) for name, score in baselines.items() if stage_of(name) is not None}
    winner, value = None, None if best is None else best.best(metric)
    if soup is not None and soup.kept and soup.value is not None and is_better(soup.value, value, metric=metric):
        value = soup.value
    for stage, probed in values.items():
        if probed is not None and value is not None and is_better(probed, value, metric=metric):
            winner, value = stage, probed
    return winner


def stage_of(name: str) -> str | None:
    """Which stage a baseline of this name is the probe of; None for what is no trial with a linear head on a stage."""
    found = re.fullmatch(r"probe_(stage\d)", name)
    return found[1] if found else None


def train_winning_probe(
    spec: SearchSpec,
    ledger: Ledger,
    *,
    soup: SoupResult | None,
    folder: Path,
    place: Place,
    on_change: Callable[[Trial], None],
) -> None:
    """Train the probe of a stage that beats every trial, if one does, as one more trial, unless that was done before.

    One that cannot be trained, as timm cannot cut the backbone there, has failed, with the reason.
    """
    if spec.search.choose_by:  # the probe of a stage is judged by one metric
        return
    for trial in ledger.trials():
        if not trial.is_searched and trial.state == "RUNNING":  # the search was killed before it was trained
            on_change(_trained(spec, ledger, trial=trial, folder=folder, place=place))
    stage = winning_probe(ledger.notes.baselines, trials=ledger.trials(), soup=soup, metric=spec.search.metric)
    if stage is not None and _trial_of(ledger, name=f"probe_{stage}") is None:
        trial = ledger.trial(_start(spec, ledger, overrides={**AS_TRIAL, "model.until": stage}))
        on_change(trial)
        on_change(_trained(spec, ledger, trial=trial, folder=folder, place=place))


def _trial_of(ledger: Ledger, *, name: str) -> Trial | None:
    """The trial that is a probe of this name."""
    probes = (trial for trial in ledger.trials() if not trial.is_searched)
    return next((trial for trial in probes if probe_name(trial) == name), None)


def _start(spec: SearchSpec, ledger: Ledger, *, overrides: Mapping[str, Value]) -> int:
    """Note the trial of a probe, at the point of the space that baselines are computed at; its number."""
    point = propose([], space=spec.space, rule=sampling_rule(spec))
    assert point is not None, "a space has a point"
    return ledger.start(
        encoded=point.encoded,
        distributions=point.distributions,
        target=SOLVED,
        origin=PROBE,
        overrides=dict(overrides),
    )


def _trained(spec: SearchSpec, ledger: Ledger, *, trial: Trial, folder: Path, place: Place) -> Trial:
    """Train a probe's trial and record what came of it; its record."""
    checkpoints = str(checkpoint_folder(folder, trial.number).resolve())
    try:
        result: dict[str, Any] = submit("solved_trial", spec.config_of(trial), folder=checkpoints, place=place)()
    except (UserError, OutageError) as error:
        ledger.end(trial.number, state="FAILED", reason=str(error))
        return ledger.trial(trial.number)
    ledger.record(trial.number, epoch=SOLVED, metrics=result["metrics"], ended=result["ended"])
    ledger.end(trial.number, state="COMPLETE", reason=result["ended"])
    return ledger.trial(trial.number)
