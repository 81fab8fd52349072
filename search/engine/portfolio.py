"""Which configurations of earlier searches a new one begins with: a portfolio that was good on data like its own.

Values of different searches are never compared, only the places of trials within each. Greedily, each next configuration is the
one that most lowers the mean, over the earlier searches by their likeness, of the best place that the portfolio has in each. A
configuration that a search has not tried has there about the place of the nearest one that it has.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.engine.coordinates import Coordinates
from search.engine.recipes import is_near, recipe_of
from search.ledger.notes import DataFacts, WarmStart
from search.ledger.trials import Trial, leaders
from search.space.paths import defaults
from search.space.spec import SearchSpec
from search.space.values import Value
from trainable.config.validation import as_text

Floats = NDArray[np.float64]

MOST_SEARCHES = 20  # the most alike
MOST_CANDIDATES = 10  # of each, its best
MOST_TRIALS = 300  # of each, beside these, at even places
REACH = 0.25  # at this distance, a mean path's, a neighbour's place tells by 1/e; far from all it is the middle one


@dataclass(frozen=True, kw_only=True)
class EarlierSearch:
    """A search that was there before: what it was, its trials, its images."""

    spec: SearchSpec
    trials: Sequence[Trial]
    data: DataFacts


@dataclass(frozen=True, kw_only=True)
class _Known:
    """An earlier search in the words of the new space: recipes from the best place, 0, to the worst, 1, and how alike it is."""

    name: str
    likeness: float
    recipes: Sequence[Mapping[str, Value]]
    places: Floats
    whose: Sequence[str]
    left_out: Sequence[Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """A configuration that may be taken, and its place, known or guessed, in each earlier search."""

    recipe: Mapping[str, Value]
    whose: str
    left_out: Sequence[str]
    places: Floats


def portfolio(searches: Sequence[EarlierSearch], *, spec: SearchSpec, data: DataFacts) -> WarmStart:
    """Choose ``search.num_warm`` distinct recipes for the space of ``spec`` and its images; says what was looked at.

    What an earlier configuration has outside of the space is left out of its recipe, which is said, and what it lacks is
    left to the sampler.
    """
    known = [_known(search, spec=spec, data=data) for search in searches]
    usable = sorted((search for search in known if search.recipes), key=lambda search: (-search.likeness, search.name))
    usable = usable[:MOST_SEARCHES]
    chosen = _greedy(list(_candidates(usable, spec=spec)), known=usable, spec=spec)
    looked = [_looked_at(search, spec=spec, data=data) for search in searches]
    nothing = [f"{search.name}: has no configuration of this space" for search in known if not search.recipes]
    lines = [f"{one.whose}: {line}" for one in chosen for line in one.left_out]
    return WarmStart(
        recipes=tuple(one.recipe for one in chosen),
        whose=tuple(one.whose for one in chosen),
        notes=(*nothing, *lines),
        looked_at=tuple(looked),
        by="auto",
    )


def likeness(search: EarlierSearch, *, spec: SearchSpec, data: DataFacts) -> float:
    """How alike an earlier search's images and backbone are, 1 where they are the same: e to the minus their distance.

    Ten times as many classes, ten times as many training images, a largest class ten times as large beside the smallest,
    images twice as wide, another backbone: each is a distance of 1.
    """
    here, there = _facts(spec, data), _facts(search.spec, search.data)
    distance = sum(abs(there[name] - here[name]) for name in here.keys() & there.keys())
    names = [_fixed(one, "model.name") for one in (spec, search.spec)]
    return math.exp(-distance - float(None not in names and names[0] != names[1]))


def _facts(spec: SearchSpec, data: DataFacts) -> dict[str, float]:
    """What is compared of images, by name, on scales on which 1 is much."""
    counts = list(data.counts.get("train", {}).values())
    size = _fixed(spec, "data.image_size")
    facts = {} if not isinstance(size, int) else {"image size": math.log2(size)}
    if sum(counts):
        facts["classes"] = math.log10(len(counts))
        facts["images"] = math.log10(sum(counts))
        facts["skew"] = math.log10(max(counts) / max(1, min(counts)))
    return facts


def _fixed(spec: SearchSpec, path: str) -> Value:
    """The value that a path has in every trial; None where it is searched, or the backbone's own."""
    return None if path in spec.space.dimensions else (defaults() | spec.base)[path]


def _looked_at(search: EarlierSearch, *, spec: SearchSpec, data: DataFacts) -> str:
    counts = list(search.data.counts.get("train", {}).values())
    return (
        f"{search.spec.search.name}: likeness {likeness(search, spec=spec, data=data):.2f}, {len(counts)} classes, "
        f"{sum(counts)} training images, {as_text(_fixed(search.spec, 'model.name') or 'several backbones')}, "
        f"{len(search.trials)} trials"
    )


def _known(search: EarlierSearch, *, spec: SearchSpec, data: DataFacts) -> _Known:
    """A search's trials as recipes by their places; those that failed share the last one."""
    metric, name = spec.search.metric, search.spec.search.name
    searched = [trial for trial in search.trials if trial.is_searched]
    ordered = leaders(searched, metric=metric)
    failed = [trial for trial in searched if trial.state == "FAILED"]
    ranked = [(trial, place / max(1, len(ordered) - 1)) for place, trial in enumerate(ordered)]
    ranked += [(trial, 1.0) for trial in failed] if ordered else []
    rows = []
    best, rest = ranked[:MOST_CANDIDATES], ranked[MOST_CANDIDATES:]
    for trial, place in best + rest[:: len(rest) // MOST_TRIALS + 1]:
        recipe, lines = recipe_of({**search.spec.base, **trial.params}, spec=spec, to_nearest=False)
        if recipe:
            rows.append((recipe, place, f"trial {trial.number} of {name}", lines))
    recipes, places, whose, left_out = zip(*rows, strict=True) if rows else ((), (), (), ())
    return _Known(
        name=name,
        likeness=likeness(search, spec=spec, data=data),
        recipes=recipes,
        places=np.array(places),
        whose=whose,
        left_out=left_out,
    )


def _candidates(known: Sequence[_Known], *, spec: SearchSpec) -> Iterator[_Candidate]:
    """The best of the better half of each search, those of the most alike first."""
    coordinates = Coordinates(spec.space)
    for search in known:
        for index in range(min(MOST_CANDIDATES, len(search.recipes))):
            if search.places[index] > 0.5:
                break
            recipe = search.recipes[index]
            places = [_place(recipe, among=other, coordinates=coordinates) for other in known]
            yield _Candidate(
                recipe=recipe,
                whose=search.whose[index],
                left_out=search.left_out[index],
                places=np.array(places),
            )


def _place(recipe: Mapping[str, Value], *, among: _Known, coordinates: Coordinates) -> float:
    """The place of the nearest recipe, the nearer to the middle the farther that is away."""
    new = coordinates.features(coordinates.rows([recipe]))
    tried = coordinates.features(coordinates.rows(among.recipes))
    squares = np.sum([((a - b) ** 2).sum(-1) for a, b in zip(new, tried, strict=True)], axis=0) / len(new)
    nearest = int(squares.argmin())
    trust = math.exp(-squares[nearest] / REACH**2)
    return float(trust * among.places[nearest] + (1 - trust) * 0.5)


def _greedy(candidates: Sequence[_Candidate], *, known: Sequence[_Known], spec: SearchSpec) -> list[_Candidate]:
    """Take one after the other; of those that lower the mean as far the one that is better by itself, the first of equals."""
    weights = np.array([search.likeness for search in known])
    chosen: list[_Candidate] = []
    best = np.ones(len(known))
    while len(chosen) < spec.search.num_warm:
        others = [*(one.recipe for one in chosen), *spec.try_first]
        left = [one for one in candidates if not any(is_near(one.recipe, other, space=spec.space) for other in others)]
        if not left:
            break
        taken = min(
            left,
            key=lambda one: (float(weights @ np.minimum(best, one.places)), float(weights @ one.places)),
        )
        best = np.minimum(best, taken.places)
        chosen.append(taken)
    return chosen
