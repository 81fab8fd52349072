"""What is done when every trial is decided: the soup, its finish, the test, the picture of the domains."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any

from search.engine.conductor import OUT_OF_TIME
from search.engine.listeners import Outcome
from search.ledger.files import KEPT_TRIALS, PICTURE, best_checkpoint, soup_path
from search.ledger.ledger import Ledger
from search.ledger.notes import DomainPicture, FinishNote, SoupResult, TestScore
from search.ledger.trials import Trial, best_trial, leaders
from search.run.confirm import Workshop, confirm_candidates
from search.run.examination import CONFIDENCE, begin_examination
from search.run.probes import train_winning_probe
from search.run.refitting import StoppedError
from search.space.final import finish_steps, makes_soup
from search.space.spec import SearchSpec
from search.tune.place import Place
from search.tune.submit import submit
from trainable.metrics import best_epoch, is_better

PAGE = "search.report.page"  # what draws the search's page, which comes next


def finish(
    spec: SearchSpec,
    ledger: Ledger,
    *,
    folder: Path,
    workshop: Workshop,
    reason: str,
    on_change: Callable[[Trial], None],
) -> Outcome:
    """Make the soup and the trial of a probe that beats it all, confirm what is best, then finish the final candidate and
    measure it on the test split, once, and beside it what validation images say of it and of baselines.

    A search that was enlarged and has another candidate is measured once more. ``on_change`` hears of the probe's trial, and
    of those that are confirmed.
    """
    place = workshop.place()
    metric = spec.search.metric
    if best_trial(ledger.trials(), metric=metric, choose_by=spec.search.choose_by) is None:
        why = f": {reason}; give it more" if reason.startswith(OUT_OF_TIME) else ""
        return Outcome("failed", f"no trial finished an epoch{why}", folder)
    Thread(target=import_module, args=(PAGE,), daemon=True).start()  # seconds, while workers do the rest
    soup = make_soup(spec, ledger, folder=folder, place=place)
    train_winning_probe(spec, ledger, soup=soup, folder=folder, place=place, on_change=on_change)
    try:
        confirm_candidates(spec, ledger, folder=folder, workshop=workshop)
    except StoppedError as error:
        return Outcome("failed", str(error), folder)
    for trial in ledger.trials():
        if trial.confirmed:
            on_change(trial)
    best, members = _candidate(spec, ledger, soup=soup)
    weights = _weights(best, members=members, folder=folder, metric=metric)
    note_examination = begin_examination(
        spec, ledger, best=best, members=members, weights=weights, folder=folder, place=place
    )
    earlier = ledger.notes.test
    if earlier is None or (earlier.trial, earlier.soup) != (best.number, members):
        if weights is None:
            return Outcome("failed", f"the checkpoint of the best trial, {best.number}, is gone: no test score", folder)
        note = finish_candidate(spec, ledger, best=best, members=members, weights=weights, place=place)
        asked = {"weights": weights, "finish": note.finish, "confidence": CONFIDENCE}
        score = submit("test_score", spec.config_of(best), **asked, place=place)()
        epoch = best_epoch(best.values(metric), metric=metric)
        reads = 1 if earlier is None else earlier.reads + 1
        ledger.note(test=TestScore(trial=best.number, epoch=epoch, soup=members, reads=reads, **score))
    note_examination()
    ledger.note(finished=True)
    draw_domains(spec, ledger, folder=folder, place=place)
    return Outcome("finished", reason, folder)


def _weights(best: Trial, *, members: list[int] | None, folder: Path, metric: str) -> dict[str, str] | None:
    """Where the final candidate's weights are, by kind; None where they are gone."""
    if members is not None:
        return {"soup": str(soup_path(folder))}
    checkpoint = best_checkpoint(folder, best, metric=metric)
    return None if checkpoint is None else {"checkpoint": str(checkpoint.resolve())}


def finish_candidate(
    spec: SearchSpec,
    ledger: Ledger,
    *,
    best: Trial,
    members: list[int] | None,
    weights: dict[str, str],
    place: Place,
) -> FinishNote:
    """What the final candidate is given before its test, as the ledger notes it."""
    earlier, steps = ledger.notes.finish, finish_steps(spec)
    if earlier is not None and (earlier.trial, earlier.soup, earlier.steps) == (best.number, members, steps):
        return earlier
    found = submit("finish_of", spec.config_of(best), weights=weights, steps=steps, place=place)() if steps else {}
    note = FinishNote(trial=best.number, soup=members, steps=steps, finish=found)
    ledger.note(finish=note)
    return note


def _candidate(spec: SearchSpec, ledger: Ledger, *, soup: SoupResult | None) -> tuple[Trial, list[int] | None]:
    """The trial that the search ends with and, where it is the soup, the trials that are averaged, of which it is the best."""
    trials, metric = ledger.trials(), spec.search.metric
    best = best_trial(trials, metric=metric, choose_by=spec.search.choose_by)
    assert best is not None, "a trial finished an epoch"
    if soup is None or not soup.kept:
        return best, None
    value = best.best(metric)
    if not best.is_searched and value is not None and is_better(value, soup.value, metric=metric):
        return best, None
    searched = best_trial([trial for trial in trials if trial.is_searched], metric=metric)
    return searched or best, list(soup.members)


def make_soup(spec: SearchSpec, ledger: Ledger, *, folder: Path, place: Place) -> SoupResult | None:
    """The soup of the search's best trials as the ledger notes it; None where there are fewer than two to average.

    ``kept`` says whether it beats the best of them on validation images; ``of`` names the trials it was made from, so that
    a search that goes on makes another.
    """
    metric = spec.search.metric
    if not makes_soup(spec):
        return None
    best = leaders([trial for trial in ledger.trials() if trial.is_searched], metric=metric)[:KEPT_TRIALS]
    ordered = [trial for trial in best if best_checkpoint(folder, trial, metric=metric)]
    configs = {trial.number: spec.config_of(trial) for trial in ordered}
    if ordered:
        positions = submit("averageable", [configs[trial.number] for trial in ordered], place=place)()
        ordered = [ordered[index] for index in positions][: spec.soup]
    if len(ordered) < 2:
        return None
    numbers = [trial.number for trial in ordered]
    earlier = ledger.notes.soup
    if earlier is not None and earlier.of == numbers:
        return earlier
    ingredients = [
        {
            "number": trial.number,
            "trial": configs[trial.number],
            "checkpoint": str((best_checkpoint(folder, trial, metric=metric) or folder).resolve()),
            "value": trial.best(metric),
        }
        for trial in ordered
    ]
    soup_path(folder).parent.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = submit("soup_of", ingredients, path=str(soup_path(folder)), place=place)()
    value = result["measured"][metric]
    kept = len(result["members"]) > 1 and is_better(value, ordered[0].best(metric), metric=metric)
    soup = SoupResult(of=numbers, value=value, kept=kept, **result)
    ledger.note(soup=soup)
    return soup


def draw_domains(spec: SearchSpec, ledger: Ledger, *, folder: Path, place: Place) -> None:
    """Lay the held-out images of both domains out in the plane, before and after training, once for each final trial."""
    metric = spec.search.metric
    best = best_trial(ledger.trials(), metric=metric, choose_by=spec.search.choose_by)
    if spec.base.get("data.target") is None or best is None:
        return
    drawn = DomainPicture(trial=best.number, epoch=best_epoch(best.values(metric), metric=metric))
    if ledger.notes.domains == drawn:
        return
    checkpoint = best_checkpoint(folder, best, metric=metric)
    if checkpoint is None:
        return
    config = spec.config_of(best)
    path = str((folder / PICTURE).resolve())
    submit("domain_picture", config, checkpoint=str(checkpoint.resolve()), path=path, place=place)()
    ledger.note(domains=drawn)
