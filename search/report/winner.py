"""How sure the winner of a search is: its interval, its seeds, and that it was chosen."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from search.ledger.notes import Confirmation, SearchNotes
from search.ledger.trials import Trial, best_trial
from trainable.metrics import is_better

PERCENT = 100
CONFIDENCE = 0.95  # of the share of stopped trials that would have won


def winner_data(
    trials: Sequence[Trial], *, notes: SearchNotes, metric: str, choose_by: Sequence[str] = ()
) -> dict[str, Any]:
    """The winner's interval and what other seeds made of the candidates, as plain data; None for what there is not.

    ``chosen_from`` counts the trials that were compared on the same validation images.
    """
    best = best_trial(trials, metric=metric, choose_by=choose_by)
    interval = notes.interval
    is_its = interval is not None and best is not None and interval.trial == best.number
    chosen_from = sum(trial.state != "FAILED" and trial.best(metric) is not None for trial in trials)
    return {
        "interval": asdict(interval) if interval is not None and is_its and interval.low is not None else None,
        "confirmed": _confirmed(trials, notes.confirmation, metric=metric, choose_by=choose_by),
        "chosen_from": chosen_from,
        "audit": _audit(trials, metric=metric),
    }


def winner_texts(
    winner: Mapping[str, Any], *, metric: str, test: Mapping[str, float] | None, best: int | None
) -> list[str]:
    """What is said of the winner, a line each; none before there is one."""
    if best is None:
        return []
    return [
        *_interval_lines(winner["interval"]),
        *_confirmed_lines(winner["confirmed"], metric=metric, best=best),
        *_audit_lines(winner["audit"], best=best),
        *_selection_lines(winner, metric=metric, test=test),
    ]


def _confirmed(
    trials: Sequence[Trial], confirmation: Confirmation | None, *, metric: str, choose_by: Sequence[str]
) -> dict[str, Any] | None:
    if confirmation is None:
        return None
    rows = []
    for noted in confirmation.trials:
        trial = next(trial for trial in trials if trial.number == noted.number)
        first = trial.best(metric)
        values = [first, *(metrics[metric] for metrics in noted.seeds.values())] if first is not None else []
        rows.append(
            {
                "trial": noted.number,
                "values": values,
                "mean": None if noted.why_not else trial.mean(metric, metric=metric),
                "spread": None if noted.why_not else max(values) - min(values),
                "why_not": noted.why_not,
            }
        )
    return {"trials": rows, "by": list(choose_by) or [metric], "why_not": confirmation.why_not}


def _audit(trials: Sequence[Trial], *, metric: str) -> dict[str, Any] | None:
    """How many of the stopped trials that were trained on all the same would have won; None where none was."""
    audited = [trial for trial in trials if trial.audited_at is not None and trial.state == "COMPLETE"]
    if not audited:
        return None
    from trainable.statistics.comparison import wilson  # SciPy takes a while to load

    best = best_trial([trial for trial in trials if trial.audited_at is None], metric=metric)
    value = None if best is None else best.best(metric)
    values = {trial.number: trial.best(metric) for trial in audited}
    won = [number for number, own in values.items() if own is not None and is_better(own, value, metric=metric)]
    share = wilson(len(won), of=len(audited), confidence=CONFIDENCE)
    return {
        "stopped": len(audited) + sum(trial.state == "PRUNED" for trial in trials),
        "audited": {str(trial.number): trial.audited_at for trial in audited},
        "won": won,
        "share": share.value,
        "low": share.low,
        "high": share.high,
    }


def _audit_lines(audit: Mapping[str, Any] | None, *, best: int) -> list[str]:
    if audit is None:
        return []
    low, high = (PERCENT * audit[end] for end in ("low", "high"))
    lines = [
        f"of {len(audit['audited'])} audited stopped trials {len(audit['won'])} would have won, i.e. "
        f"{PERCENT * audit['share']:.0f} % of the {audit['stopped']} stopped (95 %: {low:.0f} to {high:.0f} %)"
    ]
    if best in audit["won"]:
        epoch = audit["audited"][str(best)]
        lines.append(f"trial {best}, the best, was stopped at epoch {epoch}: scheduler.audit alone trained it on")
    return lines


def _interval_lines(interval: Mapping[str, Any] | None) -> list[str]:
    if interval is None:
        return []
    soup = interval["soup"]
    whose = f"trial {interval['trial']}" if soup is None else f"the soup of trials {', '.join(map(str, soup))}"
    return [
        f"{interval['metric']} of {whose}: between {interval['low']:.4f} and {interval['high']:.4f} "
        f"({PERCENT * interval['confidence']:.0f} %, by resampling its {interval['num_images']} images, before its finish)"
    ]


def _confirmed_lines(confirmed: Mapping[str, Any] | None, *, metric: str, best: int) -> list[str]:
    if confirmed is None:
        return []
    if confirmed["why_not"]:
        return [f"not confirmed on a second seed: {confirmed['why_not']}; the winner is named from one seed"]
    lines = []
    for row in confirmed["trials"]:
        if row["why_not"]:
            lines.append(f"trial {row['trial']} with another seed: out, {row['why_not']}")
            continue
        values = " and ".join(f"{value:.4f}" for value in row["values"])
        lines.append(
            f"trial {row['trial']} with both seeds: {metric} {values}, mean {row['mean']:.4f}, spread {row['spread']:.4f}"
            + (": the winner" if row["trial"] == best else "")
        )
    return lines


def _selection_lines(winner: Mapping[str, Any], *, metric: str, test: Mapping[str, float] | None) -> list[str]:
    """That the best of many is better on the images it was chosen by than on others."""
    number, name = winner["chosen_from"], metric.partition("/")[2]
    if number < 2:
        return []
    measured = {} if test is None else test
    unbiased = f"; without that bias is test/{name} {measured[name]:.4f}" if name in measured else ""
    return [
        f"that {metric} is the best of {number} trials on the same images, so it is too good on average, the more the more trials"
        f"{unbiased}"
    ]
