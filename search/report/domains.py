"""What a search says about its two domains: how selectors agree, whether adapting helped, how the images lie."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from search.ledger.files import PICTURE
from search.ledger.notes import BaselineScore, SearchNotes
from search.ledger.trials import Trial, best_trial, leaders
from search.report.figures import PALETTE
from search.space.spec import ORACLE, SearchSpec
from trainable.metrics import DIRECTIONS, gain
from trainable.statistics.ranking import agreement

TARGET_METRICS = tuple(name for name in DIRECTIONS if name.startswith("target/"))
TRUTH = "oracle/balanced_accuracy"
OVERCONFIDENCE = "target/overconfidence"
MOST_OVERCONFIDENCE = 0.05  # that may be chance, or a target that is a little easier
CURVES = (
    "train/source_loss",
    "train/target_loss",
    "train/adapt_weight",
    "train/domain_accuracy",
    "target/entropy",
    OVERCONFIDENCE,
    "target/a_distance",
    "target/mmd",
)


def judge_domains(trials: Sequence[Trial], *, spec: SearchSpec, notes: SearchNotes) -> dict[str, Any] | None:
    """How selectors judge the trials, each at its best epoch, and how the final one compares with source-only; plain data.

    None for a search without a target domain. `choices` has by selector the trial it would choose, `agreement` Kendall's τ_b
    of each two; where the run is an oracle's, both hold the truth too.
    """
    if spec.base.get("data.target") is None:
        return None
    metric = spec.search.metric
    ordered = leaders(trials, metric=metric)
    truth = [TRUTH] if spec.base.get("data.oracle") else []
    judges = list(dict.fromkeys([metric, *TARGET_METRICS, "val/balanced_accuracy", *truth]))
    values = {name: [trial.at_best(name, metric=metric) for trial in ordered] for name in judges}
    chosen = best_trial(trials, metric=metric, choose_by=spec.search.choose_by)
    source_only = notes.baselines.get("source_only")
    return {
        "oracle": bool(spec.base.get("data.oracle")),
        "choices": {name: _choice(ordered, by=name, metric=metric) for name in judges} if ordered else {},
        "agreement": {f"{a} ~ {b}": tau for (a, b), tau in agreement(values, directions=DIRECTIONS).items()},
        "overconfidence": None if chosen is None else _measured(chosen, OVERCONFIDENCE, metric=metric),
        "gains": _gains(chosen, source_only, metric=metric) if chosen and source_only else None,
        "decisive": [name for name in dict.fromkeys([metric, *spec.search.choose_by]) if not name.startswith("val/")],
    }


def judgement_lines(judgement: Mapping[str, Any] | None) -> list[str]:
    """Give a judgement as lines for people."""
    if judgement is None:
        return []
    lines = [ORACLE] if judgement["oracle"] else []
    for name, choice in judgement["choices"].items():
        truth = "" if choice["truth"] is None else f", {TRUTH} {choice['truth']:.4f}"
        lines.append(f"selector {name}: would choose trial {choice['trial']}{truth}")
    with_truth = [pair for pair in judgement["agreement"] if TRUTH in pair]
    pairs = with_truth or [
        pair for pair in judgement["agreement"] if pair.startswith(next(iter(judgement["choices"]), ""))
    ]
    lines += [f"agreement {pair}: τ {judgement['agreement'][pair]:+.2f}" for pair in pairs]
    return lines + _warnings(judgement) + _overconfident(judgement["overconfidence"])


def domain_figures(trials: Sequence[Trial], *, spec: SearchSpec, folder: Path) -> dict[str, Callable[[], go.Figure]]:
    """Figures by title: the final trial's curves, and both domains' images in the plane; none without a target domain."""
    best = best_trial(trials, metric=spec.search.metric, choose_by=spec.search.choose_by)
    if spec.base.get("data.target") is None or best is None:
        return {}
    figures: dict[str, Callable[[], go.Figure]] = {f"Domains, trial {best.number}": lambda: _curves(best)}
    if (folder / PICTURE).is_file():
        figures["Domains before and after (t-SNE)"] = lambda: _picture(json.loads((folder / PICTURE).read_text()))
    return figures


def _choice(ordered: Sequence[Trial], *, by: str, metric: str) -> dict[str, Any]:
    values = {trial.number: trial.at_best(by, metric=metric) for trial in ordered}
    measured = {number: value for number, value in values.items() if value == value}
    sign = 1 if DIRECTIONS[by] == "maximize" else -1
    number = max(measured, key=lambda candidate: sign * measured[candidate], default=ordered[0].number)
    trial = next(trial for trial in ordered if trial.number == number)
    truth = trial.at_best(TRUTH, metric=metric)
    return {"trial": number, "value": values[number], "truth": truth if truth == truth else None}


def _gains(best: Trial, source_only: BaselineScore, *, metric: str) -> dict[str, float]:
    """By target metric, how much better than source-only the final trial is."""
    gains = {}
    for name in (*TARGET_METRICS, TRUTH):
        value, over = best.at_best(name, metric=metric), source_only.value(name)
        if value == value and over is not None:
            gains[name] = gain(value, over=over, metric=name)
    return gains


def _warnings(judgement: Mapping[str, Any]) -> list[str]:
    gains = judgement["gains"]
    if not gains:
        return []
    label_free = [name for name in gains if name != TRUTH]
    worse = [name for name in label_free if gains[name] < 0]
    lines = [f"beside source-only: better by {len(label_free) - len(worse)} of {len(label_free)} selectors"]
    if TRUTH in gains:
        lines.append(f"beside source-only: {TRUTH} {gains[TRUTH]:+.4f}")
    decisive = [name for name in judgement["decisive"] if gains.get(name, 0.0) < 0]
    if decisive or (not judgement["decisive"] and 2 * len(worse) > len(label_free)):
        lines.append(
            f"warning: negative transfer, source-only is better by {', '.join(decisive or worse)}; consider "
            "adapt.method: none, a smaller adapt.weight, or another adapt.layer"
        )
    return lines


def _overconfident(surplus: float | None) -> list[str]:
    if surplus is None or surplus <= MOST_OVERCONFIDENCE:
        return []
    return [
        f"warning: the final trial is surer of target images, by {surplus:.2f}, than it is right on held-out ones of the source; "
        "its probabilities there mean little, and selectors that reward confidence may have been led by it: a smaller "
        "adapt.weight, or adapt.schedule: ganin"
    ]


def _measured(trial: Trial, name: str, *, metric: str) -> float | None:
    value = trial.at_best(name, metric=metric)
    return value if value == value else None


def _curves(trial: Trial) -> go.Figure:
    names = [name for name in CURVES if any(name in epoch.metrics for epoch in trial.epochs)]
    figure = make_subplots(rows=1, cols=len(names), subplot_titles=names)
    for column, name in enumerate(names, start=1):
        values = trial.values(name)
        figure.add_trace(go.Scatter(x=list(values), y=list(values.values()), name=name, showlegend=False), 1, column)
    return figure.update_xaxes(title_text="epoch")


def _picture(picture: Mapping[str, Any]) -> go.Figure:
    figure = make_subplots(rows=1, cols=2, subplot_titles=["before training", "after"])
    groups = sorted({tuple(pair) for pair in zip(picture["domains"], picture["labels"], strict=True)})
    for column, moment in enumerate(("before", "after"), start=1):
        for place, (domain, label) in enumerate(groups):
            rows = [
                index
                for index, pair in enumerate(zip(picture["domains"], picture["labels"], strict=True))
                if pair == (domain, label)
            ]
            points = [picture[moment][row] for row in rows]
            figure.add_trace(
                go.Scatter(
                    x=[point[0] for point in points],
                    y=[point[1] for point in points],
                    mode="markers",
                    name=f"{domain} {label}".strip(),
                    marker={
                        "symbol": "circle" if domain == "source" else "x",
                        "size": 6,
                        "color": PALETTE[place % len(PALETTE)],  # the same before and after
                    },
                    legendgroup=f"{domain} {label}",
                    showlegend=column == 1,
                ),
                1,
                column,
            )
    return figure
