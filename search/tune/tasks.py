"""Pieces of work beside the trials, which a worker is sent by name: data, scores, soups, baselines, trainings before a search."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from search.ledger.files import epoch_folder
from search.ledger.notes import DataFacts
from search.tune.leg import prune_checkpoints, resume_point
from search.tune.preparation import prepare, recipe_config
from trainable.atomic import write_beside
from trainable.config.meta import MetaConfig
from trainable.config.pretrain import PretrainConfig
from trainable.config.trial import TrialConfig
from trainable.diagnosis.backbone_score import draw_sample, outlook, score_backbone
from trainable.diagnosis.examination import examine
from trainable.diagnosis.features import POOLED, frozen_features
from trainable.diagnosis.probe import stage_probe
from trainable.diagnosis.tsne import domain_picture as pictured
from trainable.json_text import to_json
from trainable.metrics import best_epoch
from trainable.pretraining.meta import meta_reports
from trainable.pretraining.training import pretrain_epochs
from trainable.statistics.comparison import confusion_interval
from trainable.training.checkpoint import read_state
from trainable.training.finishing import StepName, read_finish
from trainable.training.fit import fit
from trainable.training.soup import Ingredient, make_soup, soup_group
from trainable.training.trained import Trained


def prepared(trials: list[dict[str, Any]]) -> tuple[DataFacts, list[str]]:
    """What :func:`prepare` gives, with the warnings that are for whoever runs the search."""
    with _warnings() as lines:
        facts = prepare(trials)
    return facts, lines


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """The warnings that are logged inside, which on a worker nobody would read."""
    lines: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    try:
        yield lines
    finally:
        logging.getLogger().removeHandler(handler)


def averageable(trials: list[dict[str, Any]]) -> list[int]:
    """Positions of the trials whose networks may be averaged with the first one's."""
    groups = [soup_group(TrialConfig.model_validate(trial).model_dump(mode="json")) for trial in trials]
    return [index for index, group in enumerate(groups) if group == groups[0]]


def soup_of(ingredients: list[dict[str, Any]], *, path: str) -> dict[str, Any]:
    """The greedy soup of trials, each ``number``, ``trial``, ``checkpoint`` and ``value``; its members and scores."""
    every = [
        Ingredient(
            name=str(ingredient["number"]),
            config=TrialConfig.model_validate(ingredient["trial"]),
            checkpoint=Path(ingredient["checkpoint"]),
            value=ingredient["value"],
        )
        for ingredient in ingredients
    ]
    soup, evaluation, measured = make_soup(every, path=Path(path))
    tried = [{"trial": int(tasting.name), "value": tasting.score, "kept": tasting.kept} for tasting in soup.tastings]
    scores = evaluation.as_dict() | {"measured": measured}
    return {"members": [int(name) for name in soup.members], "tried": tried, **scores}


def test_score(
    trial: dict[str, Any], *, weights: dict[str, str], finish: dict[str, Any], confidence: float
) -> dict[str, Any]:
    """Scores of a network on the test split, which nothing else reads; for an oracle the target's too.

    ``intervals`` has the bounds of the accuracy, and of what the search goes by where that has some.
    """
    trained = _trained(trial, weights, finish=finish)
    evaluation = trained.score("test")
    names = dict.fromkeys(("accuracy", trained.config.train.metric.partition("/")[2]))
    found = {name: confusion_interval(evaluation.confusion, metric=name, confidence=confidence) for name in names}
    intervals = {name: [bounds.low, bounds.high] for name, bounds in found.items() if bounds is not None}
    scores = evaluation.as_dict() | {"intervals": intervals}
    return scores | {"oracle": trained.score("target_test").as_dict()} if trained.config.data.oracle else scores


def examined(
    trial: dict[str, Any], *, weights: dict[str, str], confidence: float, others: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """What :func:`examine` says of a network beside ``others``, each by name a ``trial``, ``checkpoint`` and ``recipe``.

    The trial of a ``recipe`` is the one that it was made from; of others that is None.
    """
    networks = {
        name: Trained(config=recipe_config(other["trial"], name=other["recipe"]), checkpoint=Path(other["checkpoint"]))
        for name, other in others.items()
    }
    return examine(_trained(trial, weights), others=networks, confidence=confidence)


def finish_of(trial: dict[str, Any], *, weights: dict[str, str], steps: list[StepName]) -> dict[str, Any]:
    """Which of these steps help a network on validation images, as :class:`trainable.training.finishing.Finish`."""
    return _trained(trial, weights).find_finish(steps).as_dict()


def _trained(trial: dict[str, Any], weights: dict[str, str], *, finish: dict[str, Any] | None = None) -> Trained:
    """The network whose weights are a ``checkpoint`` or a ``soup``."""
    places = {kind: Path(place) for kind, place in weights.items()}
    return Trained(config=TrialConfig.model_validate(trial), finish=read_finish(finish or {}), **places)


def probe_scores(trial: dict[str, Any], *, kinds: list[str]) -> dict[str, dict[str, Any]]:
    """Validation scores of a logistic regression on the frozen features of each stage, ``probe_stage1``….

    Those of other classifiers bear their name at the end, ``probe_stage1_knn``, and are of the pooled features too, whose
    logistic regression is the linear probe, a trial.
    """
    features = frozen_features(TrialConfig.model_validate(trial))
    return {
        f"probe_{stage}" + ("" if kind == "logreg" else f"_{kind}"): stage_probe(
            features, stage=stage, kind=kind
        ).as_dict()
        for kind in kinds
        for stage in features.stages
        if (stage, kind) != (POOLED, "logreg")
    }


def baseline_score(trial: dict[str, Any], *, recipe: str, folder: str) -> dict[str, dict[str, Any]]:
    """Train a fixed recipe, ``scratch``, ``bit_hyperrule`` or ``source_only``, to its end; scores of its best epoch.

    Every epoch is saved in ``folder``, so that a call that was cut off is gone on with.
    """
    config = recipe_config(trial, name=recipe)
    place, metric = Path(folder), config.train.metric
    for epoch in fit(config, resume_from=resume_point(place, _newest_epoch(place))):
        epoch.save(epoch_folder(place, epoch.number))
        prune_checkpoints(place, newest=epoch.number, metric=metric)
    last = read_state(epoch_folder(place, _newest_epoch(place)))
    best = best_epoch({int(number): value for number, value in last["history"].items()}, metric=metric)
    results = read_state(epoch_folder(place, best or 0))["results"]
    measured = {name: value for name, value in results["metrics"].items() if not name.startswith("usage/")}
    return {recipe: results["evaluation"] | {"measured": measured, "epoch": best, "epochs": last["epoch"]}}


def solved_trial(trial: dict[str, Any], *, folder: str) -> dict[str, Any]:
    """Train a trial whose head is solved for, its checkpoint in ``folder``; its metrics and why it ended."""
    epoch = next(fit(TrialConfig.model_validate(trial)))
    epoch.save(epoch_folder(Path(folder), epoch.number))
    return {"metrics": epoch.metrics, "ended": epoch.ended}


def run_step(settings: dict[str, Any], *, step: str, folder: str) -> dict[str, Any]:
    """Pre-train (``ssl``) or meta-train (``meta``) into ``folder``, going on where it stands; its last metrics."""
    metrics: dict[str, float] = {}
    if step == "ssl":
        for epoch in pretrain_epochs(PretrainConfig.model_validate(settings), folder=Path(folder)):
            metrics = epoch.metrics
    else:
        for report in meta_reports(MetaConfig.model_validate(settings), folder=Path(folder)):
            metrics = report.metrics
    return {"metrics": metrics}


def backbone_outlooks(
    trials: list[dict[str, Any]], *, reference: dict[str, Any], sample: int | None
) -> list[dict[str, Any]]:
    """Of each trial's backbone the billions of multiply-adds of an image, and its score where that is kept from before.

    ``reference`` is the trial whose pack has the images that are drawn, at most ``sample`` of each split.
    """
    drawn = draw_sample(TrialConfig.model_validate(reference), limit=sample)
    return [asdict(outlook(TrialConfig.model_validate(trial), sample=drawn)) for trial in trials]


def backbone_score(
    trial: dict[str, Any], *, reference: dict[str, Any], sample: int | None, seconds: float | None
) -> dict[str, Any] | None:
    """The score of a trial's backbone; None where that would take more than so many seconds."""
    drawn = draw_sample(TrialConfig.model_validate(reference), limit=sample)
    scored = score_backbone(TrialConfig.model_validate(trial), sample=drawn, seconds=seconds)
    return None if scored is None else asdict(scored)


def domain_picture(trial: dict[str, Any], *, checkpoint: str, path: str) -> None:
    """Write where the images of both domains lie before and after a training, as JSON; nothing where they have no place."""
    picture = pictured(TrialConfig.model_validate(trial), checkpoint=Path(checkpoint))
    Path(path).unlink(missing_ok=True)
    if picture is not None:
        with write_beside(Path(path)) as file:
            file.write(to_json(picture).encode())


def _newest_epoch(folder: Path) -> int:
    return max((int(path.name.removeprefix("epoch_")) for path in folder.glob("epoch_*")), default=0)
