"""The first screen of a page: what the search came to, its main figures, its two plots that matter most."""

import html
from typing import Any

from search.report.html import Tile, html_tiles, html_verdict
from search.report.report import candidate_text, split_text
from search.report.spending import duration
from trainable.metrics import SCORES

PERCENT = 100


def headline_html(data: dict[str, Any], *, plots: dict[str, str]) -> str:
    """The verdict, the tiles, and the plots, which are HTML by title, side by side."""
    drawn = "".join(f"<div><h3>{html.escape(title)}</h3>{plot}</div>" for title, plot in plots.items())
    return _verdict_html(data) + html_tiles(tiles(data)) + (f'<div class="pair">{drawn}</div>' if drawn else "")


def tiles(data: dict[str, Any]) -> list[Tile]:
    """The main figures of a search, of those that it has."""
    return [
        tile for tile in (_test(data), _validation(data), _gain(data), _work(data), _time(data)) if tile is not None
    ]


def _verdict_html(data: dict[str, Any]) -> str:
    verdict = data["verdict"]
    if verdict is None:
        return html_verdict(f"no verdict yet: the search is {data['state']}")
    return html_verdict(verdict["sentence"], others=verdict["others"])


def _test(data: dict[str, Any]) -> Tile | None:
    """The test score by the search's metric where the test has it, with its interval."""
    name = data["metric"].partition("/")[2]
    if data["test"] is None or name not in data["test"]:
        return None
    bounds = data["test_intervals"].get(name)
    note = candidate_text(data) if bounds is None else f"{_between(*bounds, metric=name)}, {candidate_text(data)}"
    return Tile(f"{_words(name)}, {split_text(data)}", score_text(data["test"][name], name), note)


def _validation(data: dict[str, Any]) -> Tile | None:
    if data["best_value"] is None:
        return None
    split, _, name = data["metric"].partition("/")
    told = f"{_words(name)}, {'validation' if split == 'val' else split}"
    note = f"trial {data['best_trial']}, the best of {data['winner']['chosen_from']}"
    return Tile(told, score_text(data["best_value"], name), note)


def _gain(data: dict[str, Any]) -> Tile | None:
    """How much better the candidate is than what the verdict sets it beside."""
    verdict, name = data["verdict"], data["metric"].partition("/")[2]
    if verdict is None or verdict["gain"] is None:
        return None
    points = f"{PERCENT * verdict['gain']:+.1f} points" if _is_share(name) else f"{verdict['gain']:+.4f}"
    note = "" if verdict["low"] is None else _between(verdict["low"], verdict["high"], metric=name, signed=True)
    return Tile(f"beside {_words(verdict['against'])}", points, note)


def _work(data: dict[str, Any]) -> Tile:
    number = sum(data["trials"].values())
    states = ", ".join(f"{count} {standing}" for standing, count in sorted(data["standings"].items()))
    return Tile("trials", str(number), states)


def _time(data: dict[str, Any]) -> Tile:
    spent = data["clock"]["spent_seconds"]
    worked = duration(data["seconds"])
    if not spent:
        return Tile("work of all trials", worked, f"{data['epochs']} epochs")
    return Tile("time by the clock", duration(spent), f"{data['epochs']} epochs, {worked} of work")


def _words(name: str) -> str:
    return name.replace("_", " ")


def score_text(value: float, name: str) -> str:
    """``85.6 %`` of a share, else four decimals."""
    return f"{PERCENT * value:.1f} %" if _is_share(name) else f"{value:.4f}"


def _between(low: float, high: float, *, metric: str, signed: bool = False) -> str:
    sign = "+" if signed else ""
    if _is_share(metric):
        return f"{PERCENT * low:{sign}.1f} to {PERCENT * high:{sign}.1f} (95 %)"
    return f"{low:{sign}.4f} to {high:{sign}.4f} (95 %)"


def _is_share(name: str) -> bool:
    return name in SCORES and SCORES[name].compares
