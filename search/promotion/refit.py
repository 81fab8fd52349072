"""Trains a search's best recipes again on fresh seeds: what it offers is what holds up.

The refits are trials of a study of their own, in the storage of the search's, with its parameters and a ``seed``; so the
search itself, and what it would try next, know nothing of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from search.ledger.ledger import Ledger
from search.ledger.notes import SoupResult
from search.ledger.refits import FinishedSearch, note_soup, refit_notes
from search.ledger.trials import Trial, leaders
from search.run.refitting import RefitPoint, points_of, train_refits
from search.space.spec import SearchSpec
from search.tune.cluster import cluster
from search.tune.nursery import workers_ahead
from search.tune.place import Place, make_places
from search.tune.submit import submit
from trainable.data.image_guard import held_to
from trainable.metrics import DIRECTIONS
from trainable.statistics.ranking import mean_ranks


@dataclass(frozen=True)
class RefittedModel:
    """One trained network of a recipe: its seed, the refits it consists of, its metrics on validation images."""

    seed: int
    refits: tuple[int, ...]
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Recipe:
    """What is trained again: the values of one trial of the search, or of the several that are averaged into a soup.

    ``models`` has what came of it, one a seed, nothing before that; ``why_not`` says why the recipe is out, where it is.
    """

    trials: tuple[int, ...]
    models: tuple[RefittedModel, ...] = ()
    why_not: str = ""

    @property
    def is_soup(self) -> bool:
        """Whether several trials are averaged."""
        return len(self.trials) > 1

    @property
    def as_text(self) -> str:
        """The recipe in words."""
        numbers = ", ".join(map(str, self.trials))
        return f"soup of trials {numbers}" if self.is_soup else f"trial {numbers}"

    def mean(self, metric: str) -> float:
        """Average a metric over the seeds."""
        return fmean(model.metrics[metric] for model in self.models)

    def best_model(self, metric: str) -> RefittedModel:
        """Choose the seed that is best on validation images; the first of equals."""
        sign = 1 if DIRECTIONS[metric] == "maximize" else -1
        return max(self.models, key=lambda model: sign * model.metrics[metric])


def confirm(search: FinishedSearch, *, address: str | None, on_change: Callable[[Trial], None]) -> list[Recipe]:
    """Train what is not trained yet of the best recipes' refits; every recipe, the best first by mean on validation images.

    Ray is started, or the cluster at ``address`` joined, only where something is left to train. ``on_change`` hears of every
    refit whose record changed. Raises KeyboardInterrupt where the user stopped them, StoppedError where they ended otherwise
    before their time, ImagesChangedError where the images of a soup are not those of the search.
    """
    recipes = best_recipes(search.spec, search.ledger)
    points = refit_points(search, recipes=recipes)
    if _is_anything_left(search, points=points, recipes=recipes):
        with (
            held_to(search.fingerprints),
            workers_ahead(address=address) as ahead,
            cluster(address=address, ahead=ahead),
        ):
            is_joined = address is not None
            place = make_places(search.spec, ledger=search.ledger, is_joined=is_joined)
            train_refits(search, points=points, place=place, is_joined=is_joined, on_change=on_change)
            for soup in _soups(search, recipes=recipes):
                if not soup.is_done:
                    note_soup(search.refits, _average(soup, search=search, place=place()), seed=soup.seed)
    return _best_first([_with_models(recipe, search=search) for recipe in recipes], spec=search.spec)


def best_recipes(spec: SearchSpec, ledger: Ledger) -> list[Recipe]:
    """The best trials, as many as ``promote.confirm.top``, and the soup where it was the search's final candidate."""
    best = leaders(ledger.trials(), metric=spec.search.metric, choose_by=spec.search.choose_by)
    recipes = [Recipe((trial.number,)) for trial in best[: spec.promote.confirm.top]]
    test = ledger.notes.test
    if test is not None and test.soup is not None:
        recipes.append(Recipe(tuple(test.soup)))
    return recipes


def refit_points(search: FinishedSearch, *, recipes: Sequence[Recipe]) -> list[RefitPoint]:
    """Every refit that the recipes ask for, and those that were begun before, in the order of their numbers."""
    numbers = list(dict.fromkeys(number for recipe in recipes for number in recipe.trials))
    return points_of(search, numbers=numbers, seeds=search.fresh_seeds())


def _is_anything_left(search: FinishedSearch, *, points: Sequence[RefitPoint], recipes: Sequence[Recipe]) -> bool:
    """Whether there is anything to train or to average."""
    trials = search.refits.trials()
    if len(trials) < len(points) or any(trial.state == "RUNNING" for trial in trials):
        return True
    return any(not soup.is_done for soup in _soups(search, recipes=recipes))


@dataclass(frozen=True, kw_only=True)
class _Soup:
    """The soup of one seed's refits: those that are alive, the best first, and what is noted of a soup of this seed."""

    seed: int
    refits: tuple[int, ...]
    note: SoupResult | None
    path: Path

    @property
    def is_done(self) -> bool:
        """Whether it was made of just these and is still there, or cannot be made."""
        is_made = self.note is not None and list(self.note.of) == list(self.refits) and self.path.is_file()
        return len(self.refits) < 2 or is_made


def _soups(search: FinishedSearch, *, recipes: Sequence[Recipe]) -> list[_Soup]:
    soups = []
    notes = refit_notes(search.refits).soups
    for recipe in recipes:
        for seed in search.fresh_seeds() if recipe.is_soup else ():
            refits = [search.find_refit(number, seed=seed) for number in recipe.trials]
            alive = [trial for trial in refits if trial.state != "FAILED" and trial.best(search.metric) is not None]
            numbers = tuple(trial.number for trial in leaders(alive, metric=search.metric))
            soups.append(_Soup(seed=seed, refits=numbers, note=notes.get(seed), path=search.soup_path(seed=seed)))
    return soups


def _average(soup: _Soup, *, search: FinishedSearch, place: Place) -> SoupResult:
    """Average the refits of one seed greedily anew; what is to be noted of it."""
    soup.path.parent.mkdir(parents=True, exist_ok=True)
    ingredients = [
        {
            "number": number,
            "trial": search.refit_config(number),
            "checkpoint": str(search.refit_checkpoint(number)),
            "value": search.refits.trial(number).best(search.metric),
        }
        for number in soup.refits
    ]
    result: dict[str, Any] = submit("soup_of", ingredients, path=str(soup.path), place=place)()
    return SoupResult(of=list(soup.refits), **result)


def _with_models(recipe: Recipe, *, search: FinishedSearch) -> Recipe:
    return _with_soups(recipe, search=search) if recipe.is_soup else _with_refits(recipe, search=search)


def _with_refits(recipe: Recipe, *, search: FinishedSearch) -> Recipe:
    models = []
    for seed in search.fresh_seeds():
        trial = search.find_refit(recipe.trials[0], seed=seed)
        if trial.state == "FAILED" or trial.best(search.metric) is None:
            return replace(recipe, why_not=f"refit {trial.number} failed: {trial.reason}")
        names = {name for epoch in trial.epochs for name in epoch.metrics if name in DIRECTIONS}
        metrics = {name: trial.at_best(name, metric=search.metric) for name in sorted(names)}
        models.append(RefittedModel(seed, (trial.number,), metrics))
    return replace(recipe, models=tuple(models))


def _with_soups(recipe: Recipe, *, search: FinishedSearch) -> Recipe:
    models = []
    for soup in _soups(search, recipes=[recipe]):
        if soup.note is None or len(soup.refits) < 2:
            return replace(recipe, why_not=f"fewer than two of its refits with seed {soup.seed} can be averaged")
        models.append(RefittedModel(soup.seed, tuple(soup.note.members), soup.note.measured))
    return replace(recipe, models=tuple(models))


def _best_first(recipes: Sequence[Recipe], *, spec: SearchSpec) -> list[Recipe]:
    """Sort by the mean, or the mean of ranks where the search chooses so; recipes that are out come last."""
    alive = [recipe for recipe in recipes if not recipe.why_not]
    means: dict[str, list[float]] = {
        name: [recipe.mean(name) for recipe in alive] for name in spec.search.choose_by or [spec.search.metric]
    }
    ranks = mean_ranks(means, directions=DIRECTIONS) if alive else []
    best = [alive[index] for _, index in sorted(zip(ranks, range(len(alive)), strict=True))]
    return best + [recipe for recipe in recipes if recipe.why_not]
