"""Which searched values mattered for the result, where enough trials tell."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from optuna.study import StudyDirection, create_study
from optuna.trial import FrozenTrial, TrialState

from search.engine.sampling import rung_study
from search.ledger.trials import Trial
from search.space.spec import SearchSpec

FEWEST = 20  # trials of which importances are drawn: of fewer, lucky trials decide
BEST = 5  # trials at least that count as the best, and a tenth of all: what Optuna advises


@dataclass(frozen=True)
class Importances:
    """By path the share of what tells the best trials from the others, the largest first; without any ``why_not``, a sentence."""

    shares: Mapping[str, float]
    why_not: str = ""


def importances(trials: Sequence[Trial], *, spec: SearchSpec) -> Importances:
    """Importances for the value at the first rung: by how much the best trials differ from all in a searched value.

    PED-ANOVA (Watanabe et al. 2023), with conditional values where Optuna has that. None where fewer than ``FEWEST`` trials
    have reached the rung.
    """
    rung = spec.scheduler.rungs[0]
    study = rung_study(trials, space=spec.space, rung=rung, metric=spec.search.metric)
    judged = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    number = len(judged)
    if number < FEWEST:
        return Importances({}, f"{number} trials reached epoch {rung}, importances of fewer than {FEWEST} say nothing")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is experimental that weights are not made to add up to one
            weights = _weights(judged, direction=study.direction)
    except (ValueError, RuntimeError) as error:
        return Importances({}, str(error))
    whole = sum(weights.values())
    if not whole:
        return Importances({}, f"in no searched value do the best of {number} trials differ from the others")
    return Importances({path: weight / whole for path, weight in weights.items()})


def _weights(judged: Sequence[FrozenTrial], *, direction: StudyDirection) -> dict[str, float]:
    """How much each path tells the best apart; of a study of its own, since the evaluator knows trials by their ids in one."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances  # loads scikit-learn: seconds

    study = create_study(direction=direction)
    study.add_trials(judged)
    evaluator = PedAnovaImportanceEvaluator(target_quantile=max(0.1, BEST / len(judged)))
    return dict(get_param_importances(study, evaluator=evaluator, normalize=False))


def importances_figure(found: Importances, *, rung: int) -> go.Figure:
    """A bar for each value, the most important on top. Raises ValueError where there are none."""
    if not found.shares:
        raise ValueError(found.why_not)
    shares = found.shares
    texts = [f"{share:.2f}" for share in shares.values()]
    figure = go.Figure(go.Bar(x=list(shares.values()), y=list(shares), orientation="h", text=texts))
    figure.update_xaxes(title_text=f"share of what the best trials at epoch {rung} have in common").update_yaxes(
        autorange="reversed"
    )
    return figure.update_layout(height=110 + 26 * len(shares))
