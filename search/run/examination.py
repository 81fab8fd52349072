"""Looks at the final candidate beside baselines on validation images, while it is tested."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from search.ledger.files import MISTAKES, best_checkpoint
from search.ledger.ledger import Ledger
from search.ledger.notes import Comparison, PairedScore, WinnerInterval
from search.ledger.trials import Trial, best_trial, probe_name
from search.run.baselines import RECIPES, any_params, recipe_checkpoint
from search.space.spec import SearchSpec
from search.tune.place import Place
from search.tune.submit import submit
from trainable.atomic import write_beside
from trainable.json_text import to_json

CONFIDENCE = 0.95  # of every interval of the final candidate's scores


def begin_examination(
    spec: SearchSpec,
    ledger: Ledger,
    *,
    best: Trial,
    members: list[int] | None,
    weights: dict[str, str] | None,
    folder: Path,
    place: Place,
) -> Callable[[], None]:
    """Begin to look at the final candidate; gives a call that waits for what is seen and notes it.

    Nothing is begun where that is noted and its file of mistakes is there, or the candidate's weights are gone.
    """
    others = opponents(spec, ledger, best=best, members=members, folder=folder)
    is_noted = _is_noted(ledger, best=best, members=members, asked=list(others)) and (folder / MISTAKES).is_file()
    if weights is None or is_noted:
        return lambda: None
    result = submit(
        "examined", spec.config_of(best), weights=weights, confidence=CONFIDENCE, others=others, place=place
    )

    def note() -> None:
        found = result()
        whose: dict[str, Any] = {"trial": best.number, "soup": members, "metric": spec.search.metric}
        whose["confidence"] = CONFIDENCE
        compared = found["comparison"]
        scores = {name: PairedScore(**score) for name, score in compared.get("others", {}).items()}
        with write_beside(folder / MISTAKES) as file:
            file.write(to_json({"trial": best.number, "soup": members, **found["mistakes"]}).encode())
        ledger.note(
            interval=WinnerInterval(**whose, **(found["interval"] or {})),
            comparison=Comparison(**whose, **{**compared, "others": scores}, asked=list(others)),
        )

    return note


def opponents(
    spec: SearchSpec, ledger: Ledger, *, best: Trial, members: list[int] | None, folder: Path
) -> dict[str, dict[str, Any]]:
    """What the final candidate is compared with, by name: its trial, its checkpoint and, of a trained baseline, the recipe.

    Those are the probes and trained baselines; where the candidate is a probe, the best trial that was searched too.
    """
    metric, trials = spec.search.metric, ledger.trials()
    rivals = {probe_name(trial): trial for trial in trials if not trial.is_searched and trial.state != "FAILED"}
    searched = best_trial([trial for trial in trials if trial.is_searched], metric=metric)
    if not best.is_searched and searched is not None:
        rivals[f"trial {searched.number}"] = searched
    found = {}
    for name, trial in rivals.items():
        checkpoint = best_checkpoint(folder, trial, metric=metric)
        if checkpoint is not None and (members is not None or trial.number != best.number):
            found[name] = _opponent(spec.config_of(trial), checkpoint=checkpoint)
    for name in RECIPES:
        score = ledger.notes.baselines.get(name)
        checkpoint = None if score is None else recipe_checkpoint(folder, name, epoch=score.epoch)
        if checkpoint is not None:
            found[name] = _opponent(spec.trial_config(any_params(spec)), checkpoint=checkpoint, recipe=name)
    return found


def _opponent(trial: Mapping[str, Any], *, checkpoint: Path, recipe: str | None = None) -> dict[str, Any]:
    return {"trial": dict(trial), "checkpoint": str(checkpoint.resolve()), "recipe": recipe}


def _is_noted(ledger: Ledger, *, best: Trial, members: list[int] | None, asked: list[str]) -> bool:
    noted = ledger.notes.comparison
    return noted is not None and (noted.trial, noted.soup, list(noted.asked)) == (best.number, members, asked)
