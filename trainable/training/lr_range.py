"""The learning-rate range test: the loss while the rate grows from far too small to far too large."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from trainable.config.trial import ScheduleConfig, TrialConfig
from trainable.errors import UserError
from trainable.model.phase import phase
from trainable.training.fit import begin
from trainable.training.trainer import DivergedError, Trainer

SMOOTHING = 0.98  # share of the old average that an update leaves, fastai's
DIVERGED = 4.0  # times the least smoothed loss


@dataclass(frozen=True, kw_only=True)
class LrRange:
    """One value an update: the rate, ``optimizer.lr``; its mean loss, nats; the loss smoothed.

    ``suggested`` is the rate at which the smoothed loss falls most steeply over log(rate) before it is least, None where
    it never falls; ``diverged_at`` the rate that ended the test early, None where it went to its end.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    suggested: float | None
    diverged_at: float | None


def lr_range(
    config: TrialConfig,
    *,
    lowest: float = 1e-7,
    highest: float = 1.0,
    updates: int = 100,
    on_update: Callable[[int, int], None] = lambda done, total: None,
) -> LrRange:
    """Train as the trial would in its first phase, with a rate that grows by one factor from update to update.

    After Smith 2017 (Cyclical learning rates, 3.3), with Gugger's exponential growth. The rate is that of the head; every
    other group keeps its ratio to it. Ends where the smoothed loss is above 4 times its least, and above that of
    guessing, which a head solved beforehand begins far below; or where it is no finite number. Nothing is kept. ``on_update``
    hears how many updates of how many are done. Raises UserError for bounds in the wrong order, and what ``fit`` raises it for.
    """
    if not 0 < lowest < highest:
        raise UserError(f"highest: {highest} must be above lowest: {lowest}, which must be above 0")
    if updates < 2:
        raise UserError(f"updates: got {updates}, must be at least 2")
    if config.finetune.solver != "gradient":
        raise UserError(
            f"finetune.solver: {config.finetune.solver!r} makes no updates, so there is no rate to find; gradient"
        )
    constant = config.model_copy(update={"lr_schedule": ScheduleConfig(name="constant")})
    rates = np.geomspace(lowest, highest, updates).tolist()
    trainer = begin(constant)
    guessing = math.log(len(trainer.inputs.full.pack.classes))
    losses: list[float] = []
    diverged_at = None
    for rate, loss in zip(rates, _losses(trainer, rates=rates), strict=False):
        ahead = smooth([*losses, loss])
        if not math.isfinite(loss) or ahead[-1] > max(DIVERGED * min(ahead), guessing):
            diverged_at = rate
            break
        losses.append(loss)
        on_update(len(losses), updates)
    used, smoothed = rates[: len(losses)], smooth(losses)
    return LrRange(
        rates=tuple(used),
        losses=tuple(losses),
        smoothed=tuple(smoothed),
        suggested=steepest(used, smoothed),
        diverged_at=diverged_at,
    )


def smooth(losses: Sequence[float]) -> list[float]:
    """The running average s ← 0.98·s + 0.02·loss from 0, over 1-0.98^t, which takes the start's bias away (Adam's)."""
    average, averages = 0.0, []
    for number, loss in enumerate(losses, start=1):
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        averages.append(average / (1 - SMOOTHING**number))
    return averages


def steepest(rates: Sequence[float], losses: Sequence[float]) -> float | None:
    """The rate of the most negative slope of the losses over log(rate), up to the least loss; None where none falls."""
    end = int(np.argmin(losses)) + 1 if losses else 0
    if end < 2:
        return None
    slopes = np.gradient(np.asarray(losses[:end]), np.log(rates[:end]))
    return float(rates[int(np.argmin(slopes))])


def lr_range_page(result: LrRange) -> str:
    """The test as a page of its own: loss and smoothed loss over the rate, the suggestion marked."""
    import plotly.graph_objects as go  # plotly is needed for the page alone

    figure = go.Figure()
    figure.add_scatter(x=result.rates, y=result.losses, name="loss", mode="lines", line={"width": 1}, opacity=0.4)
    figure.add_scatter(x=result.rates, y=result.smoothed, name="smoothed loss", mode="lines")
    span = [min(result.losses, default=0.0), max(result.losses, default=1.0)]
    # Lines rather than plotly's vline, whose annotation lands at 10^x on a log axis.
    for name, rate, dash in (("suggested", result.suggested, "dash"), ("diverged at", result.diverged_at, "dot")):
        if rate is not None:
            figure.add_scatter(x=[rate, rate], y=span, name=f"{name} {rate:.2g}", mode="lines", line={"dash": dash})
    figure.update_layout(title="Learning-rate range test", template="plotly_white")
    figure.update_xaxes(type="log", title="optimizer.lr")
    figure.update_yaxes(title="training loss, nats")
    page: str = figure.to_html(include_plotlyjs=True)
    return page


def _losses(trainer: Trainer, *, rates: Sequence[float]) -> Iterator[float]:
    """The mean loss of each update of a trial's own training, the update at that rate."""
    groups = trainer.state.optimizer.param_groups
    ratios = [group["peak_lr"] / trainer.config.optimizer.lr for group in groups]
    updates = _updates(trainer)
    for rate in rates:
        for group, ratio in zip(groups, ratios, strict=True):
            group["peak_lr"] = ratio * rate  # the schedule is constant, so this is the rate of the next update
        try:
            yield next(updates)
        except DivergedError:
            yield math.nan


def _updates(trainer: Trainer) -> Iterator[float]:
    """Update after update, epoch after epoch of the trial's first phase, over and over."""
    epochs = phase(trainer.config, plan=trainer.state.network.plan, epoch=1).last
    for number in itertools.count():
        yield from (float(losses["loss"]) for losses in trainer.updates(1 + number % epochs))
