"""Where a new search begins: the best configurations of the last ones, said in the words of the new space."""

from collections.abc import Sequence
from itertools import zip_longest
from math import ceil

from search.engine.recipes import Configuration, best_first, is_near, recipe_of
from search.ledger.notes import WarmStart
from search.ledger.trials import Trial
from search.space.spec import SearchSpec
from search.space.values import Value

MOST_SEARCHES = 3


def configurations(searches: Sequence[tuple[SearchSpec, Sequence[Trial]]]) -> list[Configuration]:
    """Take the configurations of the newest searches, given newest first: of every search the best, then the second, and so on.

    Values of different searches are never compared: they were measured on other images.
    """
    ranks = zip_longest(*map(best_first, searches[:MOST_SEARCHES]))
    return [configuration for rank in ranks for configuration in rank if configuration is not None]


def warm_start(candidates: Sequence[Configuration], *, spec: SearchSpec) -> WarmStart:
    """Take the first distinct configurations, as many as ``refresh.warm``, as recipes of the space of ``spec``.

    A number outside its new range becomes the nearest inside, a value that is no choice any more is drawn anew, both are
    said. Old values are not carried over, only configurations.
    """
    recipes: list[dict[str, Value]] = []
    whose: list[str] = []
    notes: list[str] = []
    for candidate in candidates:
        if len(recipes) == spec.refresh.warm:
            break
        recipe, lines = recipe_of(candidate.values, spec=spec)
        others = [*recipes, *spec.try_first] if recipes else []
        if recipe and not any(is_near(recipe, other, space=spec.space) for other in others):
            recipes.append(recipe)
            whose.append(candidate.whose)
            notes += [f"{candidate.whose}: {line}" for line in lines]
    return WarmStart(recipes=tuple(recipes), whose=tuple(whose), notes=tuple(notes))


def warm_spec(spec: SearchSpec, start: WarmStart) -> SearchSpec:
    """The search with the warm start before its own recipes, random ones after them, and a reduced budget."""
    rule, budget = spec.refresh, spec.search.budget
    first = [*start.recipes, *spec.try_first]
    asked, share = spec.search.trials, rule.trials_share
    trials = None if asked is None else max(ceil(share * asked), len(first) + rule.fresh)
    document = spec.model_dump()
    document["try_first"] = [dict(recipe) for recipe in first]
    document["sampler"]["fresh"] = max(rule.fresh, spec.sampler.fresh)
    document["search"] |= {"trials": trials, "warm_start": None}
    document["search"]["budget"] = {
        "hours": budget.hours and budget.hours * share,
        "minutes": budget.minutes and budget.minutes * share,
        "gpu_hours": budget.gpu_hours and budget.gpu_hours * share,
        "epochs": budget.epochs and ceil(budget.epochs * share),
    }
    return SearchSpec.model_validate(document)
