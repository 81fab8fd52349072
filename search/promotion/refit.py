"""Trains a search's best recipes again on fresh seeds: what it offers is what holds up.

The refits are trials of a study of their own, in the storage of the search's, with its parameters and a ``seed``; so the
search itself, and what it would try next, know nothing of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from search.engine.conductor import Conductor, Limits, was_lost
from search.engine.sampling import Sampling
from search.engine.schedulers import SCHEDULERS
from search.ledger.files import kept_checkpoint, tidy
from search.ledger.ledger import Ledger
from search.ledger.notes import SoupResult
from search.ledger.refits import FOLDER, MOST_SEED, SEED, note_soup, refit_config, refit_notes, refit_space
from search.ledger.trials import Trial, leaders
from search.space.spec import SearchSpec
from search.space.values import Value
from search.tune import tasks
from search.tune.cluster import cluster, total_resources
from search.tune.place import INTERRUPTED, Place, concurrency, interruptible, make_places
from search.tune.submit import submit
from search.tune.tuner import run_legs
from trainable.config.techniques import NORM_METHODS
from trainable.errors import OutageError, UserError
from trainable.metrics import DIRECTIONS
from trainable.seeds import derive
from trainable.statistics.ranking import mean_ranks

SOUPS = "soups"


class StoppedError(OutageError):
    """Refits, or what follows them, ended before their time; run again, they go on. The message says why."""


class NotJudgeableError(UserError):
    """No labelled image can tell the quality of what would be promoted."""


@dataclass(frozen=True)
class Recipe:
    """What is refitted: the values of one trial of the search, or of the several that are averaged into a soup."""

    trials: tuple[int, ...]

    @property
    def said(self) -> str:
        """In words."""
        numbers = ", ".join(map(str, self.trials))
        return f"trial {numbers}" if len(self.trials) == 1 else f"soup of trials {numbers}"


@dataclass(frozen=True, kw_only=True)
class Model:
    """One trained network of a recipe: its seed, the refits it consists of, its metrics on validation images."""

    recipe: Recipe
    seed: int
    refits: tuple[int, ...]
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Confirmed:
    """A recipe with its models, one a seed; ``why_not`` says why it is out, where it is."""

    recipe: Recipe
    models: tuple[Model, ...]
    why_not: str = ""

    def mean(self, metric: str) -> float:
        """The mean over its seeds."""
        return fmean(model.metrics[metric] for model in self.models)


def confirm(
    spec: SearchSpec,
    ledger: Ledger,
    refits: Ledger,
    *,
    folder: Path,
    address: str | None,
    tell: Callable[[Trial], None],
) -> list[Confirmed]:
    """Train what is not trained yet of the best recipes' refits; every recipe, the best first by mean on validation images.

    Ray is started, or the cluster at ``address`` joined, only where something is left to train. ``tell`` hears of every refit
    whose record changed. Raises KeyboardInterrupt where the user stopped them, StoppedError where they ended otherwise before
    their time, ImagesChangedError where the images of a soup are not those of the search.
    """
    wanted = recipes(spec, ledger)
    points = refit_points(spec, ledger, refits, wanted=wanted)
    if _is_left(points, wanted=wanted, spec=spec, ledger=ledger, refits=refits, folder=folder):
        with cluster(address=address):
            is_joined = address is not None
            place = make_places(spec, ledger=ledger, is_joined=is_joined)
            _train(
                points, spec=spec, refits=refits, folder=folder / FOLDER, place=place, is_joined=is_joined, tell=tell
            )
            for soup in _soups(wanted, spec=spec, ledger=ledger, refits=refits, folder=folder):
                if not soup.is_known:
                    note_soup(
                        refits,
                        _cook(soup, spec=spec, refits=refits, folder=folder, place=place()),
                        seed=soup.seed,
                    )
    found = [
        _of_trial(recipe, spec=spec, ledger=ledger, refits=refits)
        if len(recipe.trials) == 1
        else _of_soup(recipe, spec=spec, ledger=ledger, refits=refits, folder=folder)
        for recipe in wanted
    ]
    return _ordered(found, spec=spec)


def best_model(confirmed: Confirmed, *, metric: str) -> Model:
    """The one of its seeds that is best on validation images; the first of equals."""
    sign = 1 if DIRECTIONS[metric] == "maximize" else -1
    return max(confirmed.models, key=lambda model: sign * model.metrics[metric])


def weights_of(
    model: Model, *, spec: SearchSpec, refits: Ledger, folder: Path
) -> tuple[dict[str, Any], dict[str, Path]]:
    """A model's configuration, and where its weights are: ``checkpoint`` or ``soup``. UserError where they are gone."""
    trial = refits.trial(model.refits[0])
    config = refit_config(spec, trial.params)
    if len(model.recipe.trials) == 1:
        return config, {"checkpoint": kept_checkpoint(folder / FOLDER, trial, metric=spec.search.metric)}
    return config, {"soup": soup_weights(folder, seed=model.seed)}


def recipes(spec: SearchSpec, ledger: Ledger) -> list[Recipe]:
    """The best trials, as many as ``promote.confirm.top``, and the soup where it was the search's final candidate."""
    best = leaders(ledger.trials(), metric=spec.search.metric, choose_by=spec.search.choose_by)
    found = [Recipe((trial.number,)) for trial in best[: spec.promote.confirm.top]]
    test = ledger.notes.test
    if test is not None and test.soup is not None:
        found.append(Recipe(tuple(test.soup)))
    return found


def check_judgeable(spec: SearchSpec, ledger: Ledger) -> None:
    """Raise NotJudgeableError, before anything is trained, for a recipe whose quality no labelled image can tell.

    A network with the target's batch norms is for the target, and only an oracle's run has labels of it.
    """
    if spec.base.get("data.target") is None or spec.base.get("data.oracle"):
        return
    for number in dict.fromkeys(number for recipe in recipes(spec, ledger) for number in recipe.trials):
        method = spec.config_of(ledger.trial(number)).get("adapt", {}).get("method")
        if method in NORM_METHODS:
            raise NotJudgeableError(
                f"{spec.search.name}: trial {number} takes its batch norms from the target (adapt.method: {method}), and no "
                "labelled image of the target says how good that is; promote.confirm.top may leave it out, data.oracle "
                "reads labels"
            )


def fresh_seeds(spec: SearchSpec) -> list[int]:
    """Seeds that no trial of the search had; more of them begin with the same."""
    return [derive(spec.search.seed, "refit", index) % MOST_SEED for index in range(spec.promote.confirm.seeds)]


def soup_weights(folder: Path, *, seed: int) -> Path:
    """The weights of the soup of one seed's refits."""
    return (folder / FOLDER / SOUPS / f"{seed}.safetensors").resolve()


def _is_left(
    points: Sequence[Mapping[str, Value]],
    *,
    wanted: Sequence[Recipe],
    spec: SearchSpec,
    ledger: Ledger,
    refits: Ledger,
    folder: Path,
) -> bool:
    """Whether there is anything to train or to average."""
    trials = refits.trials()
    if len(trials) < len(points) or any(trial.state == "RUNNING" for trial in trials):
        return True
    return any(not soup.is_known for soup in _soups(wanted, spec=spec, ledger=ledger, refits=refits, folder=folder))


def _train(
    points: Sequence[Mapping[str, Value]],
    *,
    spec: SearchSpec,
    refits: Ledger,
    folder: Path,
    place: Callable[[], Place],
    is_joined: bool,
    tell: Callable[[Trial], None],
) -> None:
    epochs, metric = spec.scheduler.max_epochs, spec.search.metric

    def changed(trial: Trial) -> None:
        if trial.state != "RUNNING":
            tidy(folder, trial, metric=metric)
        tell(trial)

    conductor = Conductor(
        refits,
        space=refit_space(spec),
        rule=SCHEDULERS["none"](spec),
        sampling=Sampling(
            sampler="random",
            seed=spec.search.seed,
            random_share=1.0,
            metric=metric,
            rungs=(epochs,),
            try_first=tuple(points),
        ),
        limits=Limits(trials=len(points), max_failures=spec.search.max_failures),
        on_change=changed,
    )
    with interruptible(conductor):
        run_legs(
            conductor,
            trial_config=lambda leg: refit_config(spec, leg.params),
            place=place,
            concurrency=lambda: concurrency(spec, available=total_resources(), gpu=place().gpu, can_grow=is_joined),
            folder=folder,
            on_step=lambda: None,
        )
    if not conductor.finished:
        if conductor.stopping == INTERRUPTED:
            raise KeyboardInterrupt
        raise StoppedError(conductor.stopping or "no worker")


def refit_points(
    spec: SearchSpec, ledger: Ledger, refits: Ledger, *, wanted: Sequence[Recipe]
) -> list[dict[str, Value]]:
    """The values of every refit in the order of their numbers: those that were begun, then what is missing.

    One that only lost its workers is begun anew, by the next call.
    """
    trials, begun = ledger.trials(), refits.trials()
    points = [dict(trial.params) for trial in begun]
    known = [point for point, trial in zip(points, begun, strict=True) if not was_lost(trial)]
    numbers = dict.fromkeys(number for recipe in wanted for number in recipe.trials)
    every = [{**trials[one].params, SEED: seed} for one in numbers for seed in fresh_seeds(spec)]
    return points + [point for point in every if point not in known]


def _find(number: int, *, seed: int, spec: SearchSpec, ledger: Ledger, refits: Ledger) -> Trial:
    """A trial's refit with a seed, the newest where there are several."""
    wanted = {**ledger.trial(number).params, SEED: seed}
    return next(trial for trial in reversed(refits.trials()) if trial.params == wanted)


def _of_trial(recipe: Recipe, *, spec: SearchSpec, ledger: Ledger, refits: Ledger) -> Confirmed:
    models = []
    for seed in fresh_seeds(spec):
        trial = _find(recipe.trials[0], seed=seed, spec=spec, ledger=ledger, refits=refits)
        if trial.state == "FAILED" or trial.best(spec.search.metric) is None:
            return Confirmed(recipe, (), f"refit {trial.number} failed: {trial.reason}")
        names = {name for epoch in trial.epochs for name in epoch.metrics if name in DIRECTIONS}
        metrics = {name: trial.at_best(name, metric=spec.search.metric) for name in sorted(names)}
        models.append(Model(recipe=recipe, seed=seed, refits=(trial.number,), metrics=metrics))
    return Confirmed(recipe, tuple(models))


@dataclass(frozen=True, kw_only=True)
class _Soup:
    """The soup of one seed's refits: those that are alive, the best first, and what is noted of a soup of this seed."""

    seed: int
    numbers: tuple[int, ...]
    note: SoupResult | None
    path: Path

    @property
    def is_known(self) -> bool:
        """Whether it was made of just these and is still there, or cannot be made."""
        is_made = self.note is not None and list(self.note.of) == list(self.numbers) and self.path.is_file()
        return len(self.numbers) < 2 or is_made


def _soups(wanted: Sequence[Recipe], *, spec: SearchSpec, ledger: Ledger, refits: Ledger, folder: Path) -> list[_Soup]:
    metric, found = spec.search.metric, []
    for recipe in wanted:
        for seed in fresh_seeds(spec) if len(recipe.trials) > 1 else ():
            every = [_find(number, seed=seed, spec=spec, ledger=ledger, refits=refits) for number in recipe.trials]
            alive = [trial for trial in every if trial.state != "FAILED" and trial.best(metric) is not None]
            numbers = tuple(trial.number for trial in leaders(alive, metric=metric))
            path = soup_weights(folder, seed=seed)
            found.append(_Soup(seed=seed, numbers=numbers, note=refit_notes(refits).soups.get(seed), path=path))
    return found


def _of_soup(recipe: Recipe, *, spec: SearchSpec, ledger: Ledger, refits: Ledger, folder: Path) -> Confirmed:
    models = []
    for soup in _soups([recipe], spec=spec, ledger=ledger, refits=refits, folder=folder):
        if soup.note is None or len(soup.numbers) < 2:
            return Confirmed(recipe, (), f"fewer than two of its refits with seed {soup.seed} can be averaged")
        models.append(Model(recipe=recipe, seed=soup.seed, refits=tuple(soup.note.members), metrics=soup.note.measured))
    return Confirmed(recipe, tuple(models))


def _cook(soup: _Soup, *, spec: SearchSpec, refits: Ledger, folder: Path, place: Place) -> SoupResult:
    """Average the refits of one seed greedily anew; what is noted of it."""
    metric = spec.search.metric
    soup.path.parent.mkdir(parents=True, exist_ok=True)
    ingredients = []
    for number in soup.numbers:
        trial = refits.trial(number)
        checkpoint = kept_checkpoint(folder / FOLDER, trial, metric=metric)
        config = refit_config(spec, trial.params)
        ingredients.append(
            {"number": number, "trial": config, "checkpoint": str(checkpoint), "value": trial.best(metric)}
        )
    found: dict[str, Any] = submit(tasks.soup_of, ingredients, path=str(soup.path), place=place)()
    return SoupResult(of=list(soup.numbers), **found)


def _ordered(found: Sequence[Confirmed], *, spec: SearchSpec) -> list[Confirmed]:
    """The best first, by the mean of ranks where the search chooses so; those that are out come last."""
    alive = [one for one in found if not one.why_not]
    measured: dict[str, list[float]] = {
        name: [one.mean(name) for one in alive] for name in spec.search.choose_by or [spec.search.metric]
    }
    ranks = mean_ranks(measured, directions=DIRECTIONS) if alive else []
    best = [alive[index] for _, index in sorted(zip(ranks, range(len(alive)), strict=True))]
    return best + [one for one in found if one.why_not]
