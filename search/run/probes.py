"""A probe of frozen features that beats every trial, trained as the trial that the search then ends with."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from search.engine.sampling import propose, sampling_rule
from search.ledger.files import checkpoint_folder
from search.ledger.ledger import Ledger
from search.ledger.notes import BaselineScore, SoupResult
from search.ledger.trials import PROBE, Trial, best_trial
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
    "model.head": "linear",
    "freeze.bn": "eval",
    "loss.logit_adjustment": 0.0,
    "adapt.method": "none",
    "data.early_size": None,
}


def winning_probe(
    baselines: Mapping[str, BaselineScore], *, trials: list[Trial], soup: SoupResult | None, metric: str
) -> str | None:
    """Which stage's probe beats every trial and the soup, `pooled` for that of the whole network; None where none does."""
    best = best_trial([trial for trial in trials if trial.is_searched], metric=metric)
    values = {stage_of(name): score.value(metric) for name, score in baselines.items() if stage_of(name) is not None}
    winner, value = None, None if best is None else best.best(metric)
    if soup is not None and soup.kept and soup.value is not None:
        value = soup.value
    for stage, probed in values.items():
        if probed is not None and value is not None and is_better(probed, value, metric=metric):
            winner, value = stage, probed
    return winner


def stage_of(name: str) -> str | None:
    """Which stage a baseline of this name is the probe of; None for what no trial is, other classifiers among them."""
    if name == "linear_probe":
        return "pooled"
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
    """Train the probe that beats every trial, if one does, as one more trial, unless that was done before.

    It is no point of the space: the sampler and the scheduler do not see it. One that cannot be trained, as timm cannot cut the
    backbone there, has failed, with the reason.
    """
    if spec.search.choose_by:  # a probe is judged by one metric
        return
    stage = winning_probe(ledger.notes.baselines, trials=ledger.trials(), soup=soup, metric=spec.search.metric)
    for trial in ledger.trials():
        if not trial.is_searched and trial.state == "RUNNING":  # the search was killed before it was trained
            on_change(_trained(spec, ledger, trial=trial, folder=folder, place=place))
    if stage is None:
        return
    overrides = {**AS_TRIAL, "model.until": None if stage == "pooled" else stage}
    proposal = propose([], space=spec.space, rule=sampling_rule(spec))  # the point that baselines were computed at
    if proposal is None or any(not trial.is_searched and trial.overrides == overrides for trial in ledger.trials()):
        return
    number = ledger.start(
        encoded=proposal.encoded,
        distributions=proposal.distributions,
        target=SOLVED,
        origin=PROBE,
        overrides=overrides,
    )
    on_change(_trained(spec, ledger, trial=ledger.trial(number), folder=folder, place=place))


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
