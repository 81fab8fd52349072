"""What a search found: the leaderboard, the best configuration, the page of a search."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.table import Table

from search.engine.sampling import TRY_FIRST
from search.ledger.files import best_checkpoint, soup_path
from search.ledger.ledger import Ledger
from search.ledger.notes import SCORES_OF_FINISH, plain
from search.ledger.stored import SPEC_FILE, open_ledger
from search.ledger.trials import Trial, leaders
from search.report.backbones import backbone_lines
from search.report.domains import judge_domains, judgement_lines
from search.report.history import history, history_table
from search.report.overview import overview
from search.report.pareto import fronts
from search.report.plan_error import plan_error_line
from search.report.spending import spending_line
from search.report.winner import winner_texts
from search.space.paths import flatten
from search.space.spec import SearchSpec
from trainable.metrics import best_epoch, epochs_to_converge, gain

LEADERS = 10


def report_data(folder: Path) -> dict[str, Any]:
    """The overview with the leaderboard, the best configuration, the baselines and the test scores; plain data.

    Of a name that only refreshes bear, whose searches have names of their own, the history alone.
    """
    past = history(folder)
    if past and not (folder / SPEC_FILE).is_file():
        return {"name": folder.name, "history": past}
    spec, ledger = open_ledger(folder)
    trials, metric = ledger.trials(), spec.search.metric
    ordered = leaders(trials, metric=metric, choose_by=spec.search.choose_by)
    best = ordered[0] if ordered else None
    return overview(folder) | {
        "history": past,
        "num_ranked": len(ordered),
        "leaderboard": [_row(trial, spec=spec) for trial in ordered[:LEADERS]],
        "data": dict(ledger.notes.data.report),
        "fronts": fronts(trials, spec=spec),
        "halved": halved_trials(trials),
        "best_config": flatten(spec.config_of(best)) if best else None,
        "best_checkpoint": _text(best_checkpoint(folder, best, metric=metric)) if best else None,
        "warm_start": warm_against_fresh(ledger, metric=metric, rung=spec.scheduler.rungs[0]),
        "steps": dict(ledger.notes.steps),
        "backbones": plain(ledger.notes.backbones),
        "backbone_lines": backbone_lines(ledger.notes.backbones),
        "soup": _soup(ledger, folder=folder),
        "finish": plain(ledger.notes.finish),
        "baselines": {name: dict(score.metrics) for name, score in ledger.notes.baselines.items()},
        "baseline_values": _baseline_values(ledger, metric=metric),
        "adaptation": judge_domains(trials, spec=spec, notes=ledger.notes),
    }


def print_report(folder: Path, *, console: Console) -> None:
    """The leaderboard, the best configuration and its scores, for a terminal."""
    data = report_data(folder)
    if data["history"]:
        console.print(history_table(data["history"]))
    if "leaderboard" not in data:
        return
    for line in verdict_texts(data):
        console.print(line, highlight=False, markup=False)
    console.print(_leaderboard(data))
    if left_out_text(data):
        console.print(left_out_text(data), highlight=False, markup=False)
    for line in [*comparison_texts(data), *time_texts(data)]:
        console.print(line, highlight=False, markup=False)
    if data["best_config"] is not None:
        console.print(f"\nbest configuration, trial {data['best_trial']}:", highlight=False, markup=False)
        for path, value in sorted(data["best_config"].items()):
            console.print(f"  {path}: {value}", highlight=False, markup=False)
        console.print(f"  checkpoint: {data['best_checkpoint']}", highlight=False, markup=False)
    if data["test"] is not None:
        scores = ", ".join(f"test/{name} {value:.4f}" for name, value in data["test"].items())
        seen = (
            "seen by nothing before" if data["test_reads"] == 1 else f"read {data['test_reads']} times for this search"
        )
        console.print(f"\n{split_text(data)}, {seen}, {candidate_text(data)}: {scores}", highlight=False, markup=False)
        for line in known_in_test_texts(data):
            console.print(line, highlight=False, markup=False)
    for line in certainty_texts(data):
        console.print(line, highlight=False, markup=False)
    if data["test_oracle"] is not None:
        scores = ", ".join(f"oracle_test/{name} {value:.4f}" for name, value in data["test_oracle"].items())
        console.print(f"test split of the target, by its labels: {scores}", highlight=False, markup=False)


def verdict_texts(data: dict[str, Any]) -> list[str]:
    """What the search came to and what to do next, each a line; none before its final candidate was tested."""
    return [] if data["verdict"] is None else list(data["verdict"]["lines"])


def split_text(data: dict[str, Any]) -> str:
    """Of which images the test scores are."""
    return "test split" if data["adaptation"] is None else "test split of the source"


def left_out_text(data: dict[str, Any]) -> str:
    """How many trials the leaderboard leaves out; empty where it has all."""
    number = data["num_ranked"] - len(data["leaderboard"])
    return f"and {number} more, all behind these" if number else ""


def certainty_texts(data: dict[str, Any]) -> list[str]:
    """How sure the winner is, each a line."""
    return winner_texts(data["winner"], metric=data["metric"], test=data["test"], best=data["best_trial"])


def time_texts(data: dict[str, Any]) -> list[str]:
    """How much of the time by the clock is spent, and what the trials' time was spent on, each a line or none."""
    lines = {
        "time by the clock": data["clock"]["line"],
        "planned": plan_error_line(data["plan_error"]),
        "time of the trials": spending_line(data["spending"]),
    }
    return [f"{name}: {line}" for name, line in lines.items() if line]


def known_in_test_texts(data: dict[str, Any]) -> list[str]:
    """What is said beside a test score that knows images of its own, a line or none."""
    number = data["data"].get("known_in_test", 0)
    if not number:
        return []
    return [
        f"warning: images of the test split that are in train or val as well: {number}, so this score is too good; "
        "`data.duplicates: keep_first` tests on what is not trained on"
    ]


def warm_against_fresh(ledger: Ledger, *, metric: str, rung: int) -> dict[str, Any] | None:
    """What the configurations of earlier searches brought beside fresh ones; None for a search that began without any.

    By who proposed them, ``warm`` or ``warm_start``, ``random``, the sampler, the number of trials, the best value, and the
    mean of the values at the first ``rung``, which all are to reach.
    """
    note = ledger.notes.warm_start
    if note is None:
        return None
    num_warm, values = len(note.recipes) if note.by == "refresh" else 0, {}
    trials = ledger.trials()
    recipes = [trial.number for trial in trials if trial.origin == TRY_FIRST][:num_warm]
    whose = ["warm" if trial.number in recipes else trial.origin for trial in trials]
    for origin in dict.fromkeys(whose):
        group = [trial for trial, name in zip(trials, whose, strict=True) if name == origin]
        best = leaders(group, metric=metric)
        at_rung = [value for trial in group if (value := trial.best(metric, until=rung)) is not None]
        values[origin] = {
            "trials": len(group),
            "best": best[0].best(metric) if best else None,
            "mean_at_first_rung": fmean(at_rung) if at_rung else None,
        }
    lines = [f"looked at {line}" for line in note.looked_at] + list(note.notes)
    return {"rung": rung, "whose": list(note.whose), "notes": lines, "values": values}


def _soup(ledger: Ledger, *, folder: Path) -> dict[str, Any] | None:
    note = ledger.notes.soup
    if note is None:
        return None
    test = ledger.notes.test
    is_kept = note.kept and (test is None or test.soup is not None)  # a probe may be better
    kept = {"members": list(note.members), "value": note.value, "kept": is_kept}
    return kept | {"weights": str(soup_path(folder)) if is_kept else None}


def _baseline_values(ledger: Ledger, *, metric: str) -> dict[str, float]:
    """The baselines' values of the search's metric, of those that have it."""
    values = {name: score.value(metric) for name, score in ledger.notes.baselines.items()}
    return {name: value for name, value in values.items() if value is not None}


def candidate_text(data: dict[str, Any]) -> str:
    """Who the test scores are of."""
    soup = data["soup"]
    if soup is not None and soup["kept"]:
        return f"soup of trials {', '.join(map(str, soup['members']))}"
    return f"trial {data['best_trial']}"


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _row(trial: Trial, *, spec: SearchSpec) -> dict[str, Any]:
    metric = spec.search.metric
    return {
        "trial": trial.number,
        "state": trial.state,
        "value": trial.best(metric),
        "best_epoch": best_epoch(trial.values(metric), metric=metric),
        "epochs": trial.last_epoch,
        "epochs_to_converge": epochs_to_converge(trial.values(metric), metric=metric),
        "seconds": round(trial.seconds, 1),
        "measured": dict(trial.measured),
        "params": trial.params if trial.is_searched else trial.overrides,
        "reason": trial.reason,
    }


def _leaderboard(data: dict[str, Any]) -> Table:
    table = Table("trial", data["metric"], "state", "epochs", "seconds", "values", box=None, pad_edge=False)
    for row in data["leaderboard"]:
        table.add_row(*row_cells(row))
    return table


def row_cells(row: dict[str, Any]) -> list[str]:
    """Give a trial of the leaderboard as texts."""
    values = " ".join(
        f"{path}={value:.3g}" if isinstance(value, float) else f"{path}={value}"
        for path, value in row["params"].items()
    )
    return [
        str(row["trial"]),
        f"{row['value']:.4f}",
        row["state"].lower() if row["state"] != "RUNNING" or not row["reason"] else row["reason"],
        str(row["epochs"]),
        f"{row['seconds']:.0f}",
        values,
    ]


def comparison_texts(data: dict[str, Any]) -> list[str]:
    """What is around the trials, a line each: steps before, backbones left out, baselines, soup, the gain of transfer."""
    metric, lines = data["metric"], _warm_lines(data["warm_start"])
    for step, result in data["steps"].items():
        measures = ", ".join(f"{key} {value:.4g}" for key, value in result["metrics"].items())
        lines.append(f"step {step}: {measures}")
    lines += [*data["backbone_lines"], *halved_texts(data["halved"])]
    for name, value in data["baseline_values"].items():
        lines.append(f"baseline {name}: {metric} {value:.4f}")
    if data["probe"] and data["verdict"] is None:
        lines.append(data["probe"])
    soup = data["soup"]
    if soup is not None:
        lines.append(_soup_line(soup, metric=metric))
    lines += finish_lines(data["finish"])
    if data["adaptation"] is not None and data["finish"] is not None and data["finish"]["steps"]:
        lines.append(
            "finish: fitted to images of the source; how sure it may be of the target nobody knows without labels"
        )
    if "scratch" in data["baseline_values"] and data["best_value"] is not None:
        gained = gain(data["best_value"], over=data["baseline_values"]["scratch"], metric=metric)
        lines.append(f"transfer gain over training from scratch: {gained:+.4f}")
        if gained < 0:
            lines.append(
                "warning: negative transfer, the pretrained weights hurt here; see `python -m search diagnose`"
            )
    return lines + judgement_lines(data["adaptation"])


def halved_trials(trials: Sequence[Trial]) -> dict[str, int]:
    """The batch sizes of trials whose own did not fit into a GPU's memory, by number: the smallest of their epochs."""
    sizes = {
        trial.number: [epoch.metrics["usage/batch_size"] for epoch in trial.epochs if "usage/halvings" in epoch.metrics]
        for trial in trials
    }
    return {str(number): int(min(of_trial)) for number, of_trial in sizes.items() if of_trial}


def halved_texts(halved: dict[str, int]) -> list[str]:
    """What is said of such trials, a line each."""
    return [
        f"trial {number} did not fit into the GPU's memory: trained with batches of {size} and as many images an update as "
        "before; only its batch norms saw fewer at once"
        for number, size in halved.items()
    ]


def _warm_lines(comparison: dict[str, Any] | None) -> list[str]:
    if comparison is None:
        return []
    lines = [f"warm start: {whose}" for whose in comparison["whose"]] + [
        f"warm start: {line}" for line in comparison["notes"]
    ]
    for origin, figures in comparison["values"].items():
        if figures["best"] is not None:
            lines.append(
                f"{origin}: best of {figures['trials']} {figures['best']:.4f}, mean at epoch {comparison['rung']} "
                f"{figures['mean_at_first_rung']:.4f}"
            )
    return lines


def finish_lines(note: dict[str, Any] | None) -> list[str]:
    """What was tried on the final candidate before its test, a line each."""
    lines = []
    for tried in (note or {"finish": {}})["finish"].get("tried", []):
        before, after = tried["before"], tried["after"]
        names = dict.fromkeys((*SCORES_OF_FINISH, tried["by"]))
        scores = ", ".join(f"{name} {before[name]:.4f} → {after[name]:.4f}" for name in names)
        verdict = "kept" if tried["kept"] else f"left out, it does not {_helping(tried['by'])}"
        lines.append(f"finish, {tried['step']}: {verdict}; on validation images it was not fitted to {scores}")
    return lines


def _helping(by: str) -> str:
    """What a step must do with what it is judged by."""
    return f"lower the {by}" if by.endswith("loss") else f"raise the {by} by more than its standard error"


def _soup_line(soup: dict[str, Any], *, metric: str) -> str:
    if len(soup["members"]) == 1:
        return f"soup: no trial makes trial {soup['members'][0]} better when averaged with it"
    verdict = "kept: the final candidate" if soup["kept"] else "no better than its best trial"
    return f"soup of trials {', '.join(map(str, soup['members']))}: {metric} {soup['value']:.4f}, {verdict}"
