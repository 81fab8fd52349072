"""A running search on the screen: a live table on a terminal, plain lines elsewhere."""

import time
from collections import Counter

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from search.engine.forecast import expected_epochs
from search.engine.listeners import Listener, Outcome
from search.engine.rule import Rule
from search.ledger.ledger import Ledger
from search.ledger.trials import Trial, best_trial
from search.space.lint import lowered_batches
from search.space.spec import ORACLE, SearchSpec

ROWS = 12
SECONDS_BETWEEN_FRAMES = 0.5


class Progress(Listener):
    """Follows a search for a person: what is at work, the best so far, when it will be done."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._trials: dict[int, Trial] = {}
        self._drawn = 0.0
        self._live: Live | None = None

    def begin(self, ledger: Ledger, *, spec: SearchSpec, rule: Rule) -> None:
        """Say what is searched, over which data, and what is already known."""
        self._spec, self._rule = spec, rule
        self._trials = {trial.number: trial for trial in ledger.trials()}
        self._seconds_before = sum(trial.seconds for trial in self._trials.values())
        self._started = time.monotonic()
        self._describe(ledger)
        if self._console.is_terminal:
            self._live = Live(self._frame(), console=self._console, refresh_per_second=4, transient=True)
            self._live.start()

    def changed(self, trial: Trial) -> None:
        """Take a trial's new record; off a terminal, print what happened as a line."""
        before = self._trials.get(trial.number)
        self._trials[trial.number] = trial
        if self._live is None:
            line = self._line(before, trial)
            if line:
                self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def pulse(self) -> None:
        """Redraw the live table when it is time."""
        if self._live is not None and time.monotonic() - self._drawn > SECONDS_BETWEEN_FRAMES:
            self._drawn = time.monotonic()
            self._live.update(self._frame())

    def end(self, ledger: Ledger, *, outcome: Outcome) -> None:
        """Take the live table away."""
        if self._live is not None:
            self._live.stop()
        if outcome.status == "finished":
            self._console.print(f"finished: {outcome.reason}", highlight=False, markup=False)

    def _describe(self, ledger: Ledger) -> None:
        data = ledger.notes.data
        counts = {split: sum(classes.values()) for split, classes in data.counts.items()}
        self._console.print(
            f"search {self._spec.search.name}: {self._spec.search.trials} trials over {len(self._spec.space.dimensions)} "
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
        for line in lowered_batches(self._spec, num_images=counts.get("train", 0)):
            self._console.print(f"note: {line}", highlight=False, markup=False)
        if self._trials:
            self._console.print(f"going on: {len(self._trials)} trials in the ledger", highlight=False, markup=False)

    def _line(self, before: Trial | None, trial: Trial) -> str:
        metric = self._spec.search.metric
        if before is None:
            values = ", ".join(f"{path}={_short(value)}" for path, value in trial.params.items())
            return f"trial {trial.number} starts ({trial.origin}): {values}"
        if trial.state != before.state:
            return f"trial {trial.number} {trial.state.lower()} at epoch {trial.last_epoch}: {trial.reason}"
        if trial.last_epoch > before.last_epoch:
            value = trial.epochs[-1].metrics.get(metric)
            result = "" if value is None else f" {metric} {value:.4f}"
            return f"trial {trial.number} epoch {trial.last_epoch}/{self._rule.rungs[-1]}{result}, {self._remaining()}"
        return ""

    def _frame(self) -> Group:
        return Group(self._headline(), self._table())

    def _headline(self) -> Text:
        trials = list(self._trials.values())
        states = Counter(trial.state.lower() for trial in trials)
        epochs = sum(trial.last_epoch for trial in trials)
        counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        best = best_trial(trials, metric=self._spec.search.metric, choose_by=self._spec.search.choose_by)
        value = best.best(self._spec.search.metric) if best else None
        result = f"best {value:.4f} (trial {best.number})" if best and value is not None else "no result yet"
        return Text(
            f"{self._spec.search.name}: {counts or 'starting workers'}; {epochs} epochs; {result}; {self._remaining()}"
        )

    def _table(self) -> Table:
        metric = self._spec.search.metric
        table = Table("trial", "state", "epoch", metric, "values", box=None, pad_edge=False)
        for trial in sorted(self._trials.values(), key=_last_touched, reverse=True)[:ROWS]:
            best = trial.best(metric)
            values = " ".join(f"{path.rpartition('.')[2]}={_short(value)}" for path, value in trial.params.items())
            score = "" if best is None else f"{best:.4f}"
            epoch = f"{trial.last_epoch}/{self._rule.rungs[-1]}"
            table.add_row(str(trial.number), trial.state.lower(), epoch, score, values)
        return table

    def _remaining(self) -> str:
        """Time left, from the epochs a search of this size takes and the pace of this process so far."""
        trials = list(self._trials.values())
        done = sum(trial.last_epoch for trial in trials)
        spent = sum(trial.seconds for trial in trials) - self._seconds_before
        elapsed = time.monotonic() - self._started
        if not done or not spent:
            return "time left unknown"
        per_epoch = sum(trial.seconds for trial in trials) / done
        parallel = max(1.0, spent / elapsed)
        left = max(0.0, expected_epochs(self._rule, num_trials=self._spec.search.trials) - done) * per_epoch / parallel
        return f"about {_duration(left)} left"


def _last_touched(trial: Trial) -> tuple[bool, float, int]:
    recorded = trial.epochs[-1].recorded.timestamp() if trial.epochs else 0.0
    return (trial.state == "RUNNING" and trial.last_epoch < trial.target, recorded, trial.number)


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
