"""Trainings before a search, whose weights its trials may begin with."""

from dataclasses import replace
from typing import Any

from search.ledger.ledger import Ledger
from search.space.sections import STEPS
from search.space.spec import SearchSpec
from search.tune.place import Place
from search.tune.submit import submit


def run_steps(spec: SearchSpec, ledger: Ledger, *, place: Place) -> None:
    """Run the ``ssl`` and ``meta`` steps that the ledger does not know as done; each goes on where it was cut off."""
    done = dict(ledger.notes.steps)
    waiting = {}
    for step in STEPS:
        if getattr(spec, step) is not None and step not in done:
            step_place = place if _is_on_the_trials_images(spec, step, place=place) else replace(place, fingerprints={})
            settings, folder = step_settings(spec, step), str(spec.step_folder(step))
            waiting[step] = submit("run_step", settings, step=step, folder=folder, place=step_place)
    for step, result in waiting.items():
        done = done | {step: result()}
        ledger.note(steps=done)


def _is_on_the_trials_images(spec: SearchSpec, step: str, *, place: Place) -> bool:
    """Where the trials have several data sets, what a step trains on may be none of them."""
    return getattr(spec, step).path is None and len(place.fingerprints["path"]) == 1


def step_settings(spec: SearchSpec, step: str) -> dict[str, Any]:
    """The settings of a step: its section, on the data and the one backbone of the trials that begin with its weights."""
    section = getattr(spec, step).model_dump()
    path, weights = section.pop("path"), section.pop("weights")
    trial = spec.trial_config({})
    (backbone,) = spec.step_backbones(step)
    data: dict[str, Any] = trial.get("data", {})
    if path is not None:
        data = {key: value for key, value in data.items() if key not in ("source", "target", "oracle")}
        data = data | {"path": path, "format": "auto"}
    if step == "ssl":
        section["unlabelled"] = path is not None
    data = {key: value for key, value in data.items() if key != "sampler"}
    settings: dict[str, Any] = section | {"data": data, "model": {"name": backbone, "weights": weights}}
    return settings
