"""A running search on the screen: a live table on a terminal, plain lines elsewhere."""

import time
from itertools import islice

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from search.engine.clock import spent
from search.engine.forecast import expected_epochs
from search.engine.history import History
from search.engine.listeners import Listener, Outcome
from search.engine.rule import Rule
from search.ledger.failures import failure_text
from search.ledger.ledger import Ledger
from search.ledger.refits import SEED
from search.ledger.trials import ZERO_SHOT, Trial, best_trial, probe_name
from search.report.spending import duration
from search.space.lint import lowered_batches
from search.space.spec import ORACLE, SearchSpec

ROWS = 12
SECONDS_BETWEEN_FRAMES = 0.5


class Progress(Listener):
    """Follows a search for a person: what is at work, the best so far, when it will be done."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._trials = History()
        self._recent: dict[int, None] = {}  # numbers, the last touched last
        self._best: Trial | None = None
        self._drawn = 0.0
        self._live: Live | None = None

    def begin(self, ledger: Ledger, *, spec: SearchSpec, rule: Rule) -> None:
        """Say what is searched, over which data, and what is already known."""
        self._spec, self._rule = spec, rule
        self._trials = History(ledger.trials())
        self._recent = {trial.number: None for trial in sorted(self._trials, key=_last_touched)}
        self._best = best_trial(self._trials, metric=spec.search.metric, choose_by=spec.search.choose_by)
        self._seconds_before = self._trials.seconds()
        self._started = time.monotonic()
        self._spent_before = spent(ledger.notes.stretches)
        self._describe(ledger)
        if self._console.is_terminal:
            self._live = Live(self.frame(), console=self._console, refresh_per_second=4, transient=True)
            self._live.start()

    def changed(self, trial: Trial) -> None:
        """Take a trial's new record; off a terminal, print what happened as a line, and anywhere that a worker failed."""
        before = self._trials[trial.number] if trial.number < len(self._trials) else None
        self._trials.change(trial)
        self._recent.pop(trial.number, None)
        self._recent[trial.number] = None
        self._best = self._best_after(trial)
        line = self._line(before, trial)
        if line and (self._live is None or _failed_since(before, trial)):
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def refit_changed(self, refit: Trial, *, of: int) -> None:
        """Say what came of a refit that has ended."""
        metric = self._spec.search.metric
        if refit.state != "RUNNING":
            value = refit.best(metric)
            result = f"{metric} {value:.4f}" if value is not None else str(refit.reason)
            line = f"trial {of} once more, with seed {refit.params[SEED]}: {result}"
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def pulse(self) -> None:
        """Redraw the live table when it is time."""
        if self._live is not None and time.monotonic() - self._drawn > SECONDS_BETWEEN_FRAMES:
            self._drawn = time.monotonic()
            self._live.update(self.frame())

    def end(self, ledger: Ledger, *, outcome: Outcome) -> None:
        """Take the live table away."""
        if self._live is not None:
            self._live.stop()
        if outcome.status == "finished":
            self._console.print(f"finished: {outcome.reason}", highlight=False, markup=False)

    def frame(self) -> Group:
        """A headline and as many trials as fit below it."""
        headline = self._headline()
        height = len(headline.wrap(self._console, self._console.width))
        return Group(headline, self._table(min(ROWS, self._console.height - height - 2)))

    def _describe(self, ledger: Ledger) -> None:
        data = ledger.notes.data
        counts = {split: sum(classes.values()) for split, classes in data.counts.items()}
        self._console.print(
            f"search {self._spec.search.name}: {self._asked()} over {len(self._spec.space.dimensions)} "
            f"values, rungs at epoch {', '.join(map(str, self._rule.rungs))}",
            highlight=False,
            markup=False,
        )
        self._console.print(
            f"data {data.fingerprint[:12]}: {len(data.classes)} classes; "
            + ", ".join(f"{count} {split}" for split, count in counts.items()),
            highlight=False,
            markup=False,
        )
        if data.oracle:
            self._console.print(ORACLE, highlight=False, markup=False)
        for finding in data.report.get("findings", ()):
            self._console.print(f"note: {finding['line']}", highlight=False, markup=False)
        self._console.print(_kept_line(self._spec.base.get("data.prefix_gb")), highlight=False, markup=False)
        for line in lowered_batches(self._spec, num_images=counts.get("train", 0)):
            self._console.print(f"note: {line}", highlight=False, markup=False)
        if self._trials:
            self._console.print(f"going on: {len(self._trials)} trials in the ledger", highlight=False, markup=False)

    def _asked(self) -> str:
        """How many trials, and in what time by the clock."""
        trials, seconds = self._spec.search.trials, self._spec.search.budget.seconds
        count = "trials" if trials is None else f"{trials} trials"
        return count if seconds is None else f"{count} in {duration(seconds)}"

    def _line(self, before: Trial | None, trial: Trial) -> str:
        metric = self._spec.search.metric
        if before is None and not trial.is_searched:
            what = "class names as text, zero-shot" if probe_name(trial) == ZERO_SHOT else "a probe of frozen features"
            return f"trial {trial.number} starts: {what}"
        if before is None:
            values = ", ".join(f"{path}={_short(value)}" for path, value in trial.params.items())
            return f"trial {trial.number} starts ({trial.origin}): {values}"
        if trial.state != before.state:
            return f"trial {trial.number} {trial.state.lower()} at epoch {trial.last_epoch}: {trial.reason}"
        if _failed_since(before, trial):
            return f"trial {trial.number} {failure_text(trial)}"
        if trial.last_epoch > before.last_epoch:
            value = trial.epochs[-1].metrics.get(metric)
            result = "" if value is None else f" {metric} {value:.4f}"
            return f"trial {trial.number} epoch {trial.last_epoch}/{self._rule.rungs[-1]}{result}, {self._remaining()}"
        if trial.last_epoch < trial.target and trial.reason not in (None, before.reason):
            return f"trial {trial.number} stays open: {trial.reason}"
        return ""

    def _best_after(self, trial: Trial) -> Trial | None:
        """The best trial now that this one has changed; all are compared only where that may have changed their order."""
        metric, choose_by = self._spec.search.metric, self._spec.search.choose_by
        best = self._best
        if choose_by and best is not None and best.state == "COMPLETE" and trial.state != "COMPLETE":
            return best
        fell = trial.state == "FAILED" and best is not None and best.number == trial.number
        if fell or (choose_by and trial.state == "COMPLETE"):
            return best_trial(self._trials, metric=metric, choose_by=choose_by)
        compared = [trial] if best is None or best.number == trial.number else [best, trial]
        return best_trial(compared, metric=metric)

    def _headline(self) -> Text:
        trials = self._trials
        states = {
            "running": len(trials.underway),
            "waiting": len(trials.unfinished) - len(trials.underway),
            "held for an audit": len(trials.audited),
            "complete": trials.num_complete + trials.num_audited,
            "pruned": trials.num_pruned,
            "failed": len(trials.failed),
        }
        counts = ", ".join(f"{count:,} {state}" for state, count in states.items() if count)
        value = self._best.best(self._spec.search.metric) if self._best else None
        result = (
            f"best {value:.4f} (trial {self._best.number})" if self._best and value is not None else "no result yet"
        )
        return Text(
            f"{self._spec.search.name}: {counts or 'starting workers'}; {trials.num_epochs:,} epochs; {result}; "
            f"{self._remaining()}"
        )

    def _table(self, num_rows: int) -> Table:
        """The best trial, marked, those at work, then what has happened last; each on one line."""
        best = [self._best.number] if self._best else []
        shown = dict.fromkeys([*best, *self._trials.underway, *reversed(self._recent)])
        table = Table(box=None, pad_edge=False)
        for column in ("trial", "state", "epoch", self._spec.search.metric):
            table.add_column(column, no_wrap=True)
        table.add_column("values")  # alone gives way where the screen is narrow
        for number in islice(shown, max(0, num_rows)):
            *cells, values = map(Text, self._row(self._trials[number]))
            values.no_wrap, values.overflow = True, "ellipsis"
            table.add_row(*cells, values, style="bold" if number in best else None)
        return table

    def _row(self, trial: Trial) -> tuple[str, str, str, str, str]:
        is_best = self._best is not None and trial.number == self._best.number
        value = trial.best(self._spec.search.metric)
        return (
            f"{trial.number}{' best' if is_best else ''}",
            trial.standing,
            f"{trial.last_epoch}/{self._rule.rungs[-1]}",
            "" if value is None else f"{value:.4f}",
            " ".join(f"{path.rpartition('.')[2]}={_short(value)}" for path, value in trial.params.items()),
        )

    def _remaining(self) -> str:
        """Time left, from the epochs a search of this size takes and the pace of this process so far, and by the clock."""
        asked = self._spec.search.budget.seconds
        if asked is not None:
            used = self._spent_before + time.monotonic() - self._started
            return f"{duration(max(0.0, asked - used))} of {duration(asked)} left"
        if self._spec.search.trials is None:
            return "until the budget is spent"
        done, seconds = self._trials.num_epochs, self._trials.seconds()
        spent = seconds - self._seconds_before
        elapsed = time.monotonic() - self._started
        if not done or not spent:
            return "time left unknown"
        parallel = max(1.0, spent / elapsed)
        expected = expected_epochs(self._rule, num_trials=self._spec.search.trials)
        return f"about {duration(max(0.0, expected - done) * seconds / done / parallel)} left"


def _failed_since(before: Trial | None, trial: Trial) -> bool:
    return before is not None and (trial.attempts, trial.losses) != (before.attempts, before.losses)


def _last_touched(trial: Trial) -> tuple[float, int]:
    return (trial.epochs[-1].recorded.timestamp() if trial.epochs else 0.0, trial.number)


def _kept_line(gigabytes: object) -> str:
    """What may be kept of what frozen layers make of images."""
    if gigabytes == 0:
        return "frozen layers: computed anew by every trial (data.prefix_gb: 0)"
    limit = "a fifth of the free disk" if gigabytes is None else f"{gigabytes} GB"
    return f"frozen layers: computed once for all trials, kept in at most {limit} (data.prefix_gb)"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
