"""Which backbones of a space are worth trying, told by their frozen features within a time."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from search.ledger.ledger import Ledger
from search.ledger.notes import BackboneChoice
from search.space.dimension import Choice
from search.space.spec import SearchSpec
from search.space.values import Value
from search.tune.place import Place
from search.tune.submit import submit

SHOWN = 5  # names of those that were not scored
Score = Mapping[str, float]
# Scores of these backbones, of some None where it would take longer than the seconds beside its name, if there are any.
ScoreAll = Callable[[Mapping[str, float | None]], Sequence[Score | None]]
logger = logging.getLogger(__name__)


def choose_backbones(
    spec: SearchSpec,
    ledger: Ledger,
    *,
    params: Mapping[str, Value],
    place: Place,
    at_once: int,
    now: Callable[[], float],
) -> SearchSpec:
    """The search with only the ``select_backbones.keep`` best of its backbones, which the ledger remembers.

    Each is judged by its frozen pooled features of a sample of the images, at most ``at_once`` at a time, for
    ``select_backbones.minutes`` by ``now``. ``params`` is the point of the space that they share.
    """
    selection = spec.select_backbones
    if selection is None:
        return spec
    choice = ledger.notes.backbones
    if choice is None:
        choice = _choose(spec, params=params, place=place, at_once=at_once, now=now)
        ledger.note(backbones=choice)
        if choice.not_scored:
            logger.warning(not_scored_line(choice.not_scored, of=len(choice.scores) + len(choice.not_scored)))
    return spec.with_choices("model.name", choice.kept)


def reference_trial(spec: SearchSpec, *, params: Mapping[str, Value]) -> dict[str, Any]:
    """The trial by whose pack the images are drawn that all backbones are scored on; of no weights, which are not asked for."""
    config = spec.trial_config(params)
    config["model"] = config.get("model", {}) | {"weights": "random"}
    return config


def backbone_points(spec: SearchSpec, *, params: Mapping[str, Value]) -> dict[str, dict[str, Value]]:
    """A point of the space for each backbone, alike in all else that allows it."""
    backbones = spec.space.dimensions["model.name"]
    assert isinstance(backbones, Choice)
    points: dict[str, dict[str, Value]] = {}
    for name in backbones.members:
        point = {
            **{path: dimension.extremes[0] for path, dimension in spec.space.dimensions.items()},
            **params,
            "model.name": name,
        }
        for path, dimension in spec.space.dimensions.items():
            owners = dimension.when.get("model.name")
            if owners is not None and name not in owners:
                point.pop(path, None)
        active = spec.space.active(point)
        points[str(name)] = {path: value for path, value in point.items() if path in active}
    return points


def score_in_time(
    costs: Mapping[str, float],
    *,
    seconds: float | None,
    at_once: int,
    score_all: ScoreAll,
    now: Callable[[], float],
    one_at_least: bool = True,
) -> dict[str, Score]:
    """The scores of the backbones, cheapest first, that are there within so many seconds; None is without an end.

    ``costs`` are in proportion to the time that each takes. What costs so much more than the last that it would take too long is
    not begun, and nothing behind it. With ``one_at_least`` the cheapest has all the time that it needs.
    """
    names, scores, began = sorted(costs, key=lambda name: costs[name]), dict[str, Score](), now()
    for start in range(0, len(names), at_once):
        wave, asked = names[start : start + at_once], now()
        left = None if seconds is None else seconds - (asked - began)
        results = score_all({name: None if one_at_least and name == names[0] else left for name in wave})
        scores |= {name: result for name, result in zip(wave, results, strict=True) if result is not None}
        following = names[start + at_once : start + at_once + 1]
        if seconds is None or not following:
            continue
        forecast = (now() - asked) * costs[following[0]] / max(costs[wave[-1]], 1e-12)
        if None in results or now() + forecast > began + seconds:
            break
    return scores


def not_scored_line(names: Sequence[Any], *, of: int) -> str:
    """What is said of backbones that there was no time for."""
    shown = ", ".join(map(str, names[:SHOWN])) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    return f"select_backbones.minutes: {len(names)} of {of} backbones not scored for want of time and left out: {shown}"


def _choose(
    spec: SearchSpec, *, params: Mapping[str, Value], place: Place, at_once: int, now: Callable[[], float]
) -> BackboneChoice:
    selection = spec.select_backbones
    assert selection is not None
    trials = {name: _trial(spec, point) for name, point in backbone_points(spec, params=params).items()}
    drawn = {"reference": reference_trial(spec, params=params), "sample": selection.sample}
    began = now()
    outlooks = dict(zip(trials, submit("backbone_outlooks", [*trials.values()], **drawn, place=place)(), strict=True))
    known: dict[str, Score] = {name: found["score"] for name, found in outlooks.items() if found["score"] is not None}

    def score_all(asked: Mapping[str, float | None]) -> list[Score | None]:
        waiting = [
            submit("backbone_score", trials[name], **drawn, seconds=seconds, place=place)
            for name, seconds in asked.items()
        ]
        return [result() for result in waiting]

    scores = known | score_in_time(
        {name: found["gmacs"] for name, found in outlooks.items() if name not in known},
        seconds=None if selection.minutes is None else 60 * selection.minutes - (now() - began),
        at_once=at_once,
        score_all=score_all,
        now=now,
        one_at_least=not known,
    )
    best = sorted(scores, key=lambda name: -scores[name][selection.by])
    return BackboneChoice(
        scores=scores,
        kept=best[: selection.keep],
        by=selection.by,
        not_scored=[name for name in trials if name not in scores],
    )


def _trial(spec: SearchSpec, point: Mapping[str, Value]) -> dict[str, Any]:
    """The trial of a point, at the backbone's own image size where that is asked for."""
    selection = spec.select_backbones
    assert selection is not None
    config = spec.trial_config(point)
    if selection.image_size == "own" and spec.base.get("data.image_size") is None:
        config["data"] = config["data"] | {"image_size": None}
    if config["data"].get("early_size") is not None:
        config["data"] = config["data"] | {"early_size": None, "early_epochs": 0}
    return config
