"""What happens next in a search, and what was reported, written to the ledger before anyone else hears of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Literal

from search.engine.audit import Audited, is_audit
from search.engine.clock import Clock
from search.engine.failure import FAILED, Failure, fail_alike, fail_endlessly
from search.engine.history import History
from search.engine.limits import Limits
from search.engine.reports import Ended, EpochReport, Infeasible, Measured, Report, StopSearch
from search.engine.rule import Action, Budget, Close, Continue, Finish, Hold, Rule, Start, Wait
from search.engine.sampling import Proposal, Sampling, num_led, num_waiting, proposal_of, propose, propose_another
from search.ledger.ledger import Ledger
from search.ledger.trials import Trial
from search.space.space import Space
from search.space.values import Value

LOST_WORKERS_BEFORE_HOPELESS = 3
MOST_PASSED_OVER = 8  # trials, or values of a new one, that are too long for the time left, before it is taken for over
OUT_OF_TIME = "out of time"  # how the reason of a trial begins that is left open
Decision = Literal["go on", "stop"]


@dataclass(frozen=True, kw_only=True)
class Leg:
    """A piece of work for one worker: train trial ``number`` from the end of epoch ``start`` to ``until``.

    ``overrides`` are what the trial has in place of ``params`` and of what is fixed; ``measure`` names what is told of its
    network before it trains.
    """

    number: int
    params: Mapping[str, Value]
    overrides: Mapping[str, Value] = field(default_factory=dict)
    measure: tuple[str, ...] = ()
    start: int
    until: int


class Conductor:
    """Turns decisions into legs and reports into records.

    Plain calls, no threads: ``next_leg`` when a worker is free, ``report`` for each result, ``leg_over`` when the
    worker has left the trial. ``on_change`` hears of every trial whose record changed. ``stopping`` says why the
    search ends before its time, ``finished`` whether everything is decided, ``exhausted`` whether every configuration of
    the space has been tried, ``enough`` why no more are begun although the budget allows it, ``out_of_time`` whether trials are
    left open because the time is up.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        space: Space,
        rule: Rule,
        sampling: Sampling,
        limits: Limits,
        on_change: Callable[[Trial], None],
    ) -> None:
        self.ledger = ledger
        self.space = space
        self.rule = rule
        self.sampling = sampling
        self.limits = limits
        self.on_change = on_change
        self.running: dict[int, Leg] = {}
        self.finished = False
        self.stopping: str | None = None
        self.exhausted = ledger.notes.exhausted
        self.enough: str | None = None
        self.out_of_time = False
        self._known = History()
        self._proposed: tuple[Start, Proposal | None] | None = None
        ledger.write_alone()

    def next_leg(self) -> Leg | None:
        """Work for a free worker; None when there is none for now, or, with ``finished`` set, ever."""
        while not (self.stopping or self.finished):
            trials = self._trials()
            action = self._next_action(trials)
            match action:
                case Start():
                    leg = self._start(trials, action)
                case Continue(number, until):
                    leg = self._continue(trials[number], until=until)
                case Close(number, reason):
                    self._end(number, state="PRUNED", reason=reason)
                    continue
                case Hold(number):
                    self._hold(number)
                    continue
                case Wait():
                    return None
                case Finish():
                    self.finished = True
                    return None
            if leg is not None:
                self.running[leg.number] = leg
                self._tell_of_change(leg.number)
                return leg
        return None

    def report(self, number: int, *, report: Report) -> Decision:
        """Record one report of a worker and say whether it goes on."""
        match report:
            case Measured(values):
                return self._record_measured(number, values=values)
            case EpochReport():
                return self._record_epoch(number, report=report)
            case Ended(reason):
                self._end(number, state="COMPLETE", reason=reason)
            case Infeasible(reason):
                self._end(number, state="FAILED", reason=reason)
            case StopSearch(reason):
                self.stopping = reason
        return "stop"

    def leg_over(self, number: int, *, failure: Failure | None = None) -> None:
        """The worker has left the trial; with a ``failure`` at work, and the trial is tried again, but not for ever."""
        if self.running.pop(number, None) is None or failure is None:
            return
        if self.ledger.trial(number).state == "RUNNING":
            self.ledger.count_failure(number, failure=failure.as_dict())
            trial = self.ledger.trial(number)
            times, most = (
                (trial.losses, self.limits.max_losses)
                if failure.of_machine
                else (trial.attempts, self.limits.max_failures)
            )
            if times > most:
                self._end(number, state="FAILED", reason=f"{FAILED} {times} times: {failure.reason}")
            else:
                self._tell_of_change(number)
            self._stop_if_hopeless(failure)

    def _next_action(self, trials: History) -> Action:
        """What the rule says; of what the clock allows, where it says how long a search may take."""
        running, clock = frozenset(self.running), self.limits.clock
        budget_but_time = self._budget_but_time(trials)
        budget = self._in_time(trials, left=budget_but_time)
        action = self.rule.next_action(trials, running=running, budget=budget)
        if clock is None:
            return action
        fitting = self._fitting(action, trials=trials, clock=clock, budget=budget)
        is_late = budget != budget_but_time or fitting is None
        action = fitting or self.rule.next_action(trials, running=running, budget="compute spent")
        if isinstance(action, Continue) and self._has_time(action.number):
            return action
        is_decided = isinstance(action, Finish) and budget_but_time in ("known trials", "trials spent")
        if is_decided or not is_late:
            return action
        audit = self._late_audit(trials, clock=clock)
        return audit or (Wait() if running else self._leave_open(trials))

    def _fitting(self, action: Action, *, trials: History, clock: Clock, budget: Budget) -> Action | None:
        """The action, or where its leg does not end in time the first that does of what the rule says without it, else a new
        trial of other values; None where nothing does.
        """
        too_long: set[int] = set()
        first, open_to, start = action, budget, None
        while isinstance(action, Start | Continue) and not self._has_leg(action, trials=trials, clock=clock):
            if isinstance(action, Continue) and len(too_long) < MOST_PASSED_OVER:
                too_long.add(action.number)
            elif isinstance(action, Start) and open_to == "open":
                start, open_to = action, "known trials"  # it would name the same new one again
            else:
                break
            action = self.rule.next_action(trials, running=frozenset(self.running) | too_long, budget=open_to)
        else:
            if isinstance(action, Start | Continue) or action is first:
                return action
        return None if start is None else self._another_that_fits(start, trials=trials, clock=clock)

    def _another_that_fits(self, action: Start, *, trials: History, clock: Clock) -> Start | None:
        """A new trial of other values whose leg ends in time, such as one behind layers whose outputs are kept; else None.

        The rule's own where a recipe stood before them, else such as are drawn at random. What is left of the number of trials
        is kept for recipes that wait.
        """
        most, waiting = self.limits.trials, num_waiting(trials, rule=self.sampling)
        if most is not None and most - trials.num_searched <= waiting:  # as in refits, which are nothing else
            return None
        drawn = (
            propose_another(trials, space=self.space, rule=self.sampling, attempt=attempt)
            for attempt in range(1, MOST_PASSED_OVER + 1)
        )
        for proposal in chain([self._own_proposal(trials, action)], drawn):
            another = Start(action.until)
            self._proposed = (another, proposal)
            if proposal is not None and self._has_leg(another, trials=trials, clock=clock):
                return another
        return None

    def _own_proposal(self, trials: History, start: Start) -> Proposal | None:
        """The values that the rule itself names, which it does once its first trials are begun; else None."""
        if start.params is None or trials.num_searched < num_led(self.sampling, space=self.space):
            return None
        return proposal_of(start.params, space=self.space, origin="freeze_thaw")

    def _has_leg(self, action: Start | Continue, *, trials: History, clock: Clock) -> bool:
        running = frozenset(self.running)
        besides = 0.0 if is_audit(action, history=trials) else self._time_for_audits(trials)
        if isinstance(action, Start):
            proposal = self._proposal(trials, action)
            action = Start(action.until, params=None if proposal is None else proposal.params)
        return clock.has_leg(action, trials=trials, rule=self.rule, running=running, besides=besides)

    def _late_audit(self, trials: History, *, clock: Clock) -> Hold | Continue | None:
        """What the time still allows of the audits, where it allows nothing else."""
        if not isinstance(self.rule, Audited) or self._budget_but_time(trials) == "compute spent":
            return None
        audit = self.rule.next_audit(trials, running=frozenset(self.running))
        if isinstance(audit, Continue) and not self._has_leg(audit, trials=trials, clock=clock):
            return None
        return audit

    def _time_for_audits(self, trials: History) -> float:
        """Seconds by the clock that are kept for audits."""
        clock, rule = self.limits.clock, self.rule
        if clock is None or not isinstance(rule, Audited):
            return 0.0
        return rule.seconds_kept(trials, budget=clock.asked_seconds) / (len(self.running) + 1)

    def _leave_open(self, trials: History) -> Finish:
        """End a search whose time is up: what more time would be for stays open, and says where it stands."""
        self.out_of_time = True
        for number in (*trials.unfinished, *trials.audited):
            if trials[number].reason is None:
                self._explain(number)
        return Finish()

    def _explain(self, number: int) -> None:
        self.ledger.explain(number, reason=f"{OUT_OF_TIME} at epoch {self.ledger.trial(number).last_epoch}")
        self._tell_of_change(number)

    def _in_time(self, trials: History, *, left: Budget) -> Budget:
        clock = self.limits.clock
        if clock is None or left == "compute spent":
            return left
        seconds = clock.left(trials)
        if seconds <= 0:
            return "compute spent"
        return "kept for audits" if seconds <= self._time_for_audits(trials) else left

    def _budget_but_time(self, trials: History) -> Budget:
        limits = self.limits
        if limits.is_compute_spent(trials):
            return "compute spent"
        if isinstance(self.rule, Audited) and limits.is_compute_spent(trials, audited=self.rule):
            return "kept for audits"
        are_begun = fail_endlessly(trials) if limits.trials is None else trials.num_searched >= limits.trials
        if are_begun or self._is_enough(trials):
            return "trials spent"
        if self.exhausted:
            return "known trials" if limits.bounds_compute else "trials spent"
        return "open"

    def _is_enough(self, trials: History) -> bool:
        """Whether more trials are not expected to bring what they are to bring at least; then ``enough`` says so."""
        tolerance, running = self.limits.tolerance, frozenset(self.running)
        if tolerance is None:
            return False
        left = self.limits.trials_left(trials, at_once=len(running) + 1)
        gain = self.rule.expected_gain(trials, running=running, num_trials=left)
        is_enough = gain is not None and gain < tolerance
        self.enough = (
            f"the rest of the budget is expected to bring {gain:.2g}, below search.tolerance {tolerance:g}"
            if is_enough
            else None
        )
        return is_enough

    def _trials(self) -> History:
        """All trials; those whose last epoch was told to be their last, and then the driver was lost, are ended first."""
        history = self._history()
        while history.ending:
            trial = history[history.ending[0]]
            self._end(trial.number, state="COMPLETE", reason=str(trial.epochs[-1].ended))
            history = self._history()
        return history

    def _history(self) -> History:
        self._known.update(self.ledger.trials())
        return self._known

    def _start(self, trials: History, start: Start) -> Leg | None:
        proposal = self._proposal(trials, start)
        if proposal is None:
            self.exhausted = True
            self.ledger.note(exhausted=True)
            return None
        number = self.ledger.start(
            encoded=proposal.encoded,
            distributions=proposal.distributions,
            target=start.until,
            origin=proposal.origin,
            overrides=proposal.overrides,
        )
        return self._leg(self.ledger.trial(number), until=start.until)

    def _proposal(self, trials: History, start: Start) -> Proposal | None:
        """What an action begins, looked for once: the clock asks for it too."""
        if self._proposed is None or self._proposed[0] is not start:
            proposal = None
            if not num_waiting(trials, rule=self.sampling):
                proposal = self._own_proposal(trials, start)
            proposal = proposal or propose(trials, space=self.space, rule=self.sampling)
            self._proposed = (start, proposal)
        return self._proposed[1]

    def _continue(self, trial: Trial, *, until: int) -> Leg:
        if until != trial.target:
            self.ledger.aim(trial.number, target=until)
        if trial.reason is not None:
            self.ledger.explain(trial.number, reason=None)
        return self._leg(trial, until=until)

    def _leg(self, trial: Trial, *, until: int) -> Leg:
        """The work from where a trial stands; what its network takes is measured once, before its first epoch."""
        unknown = () if trial.epochs else tuple(name for name in self.limits.constraints if name not in trial.measured)
        return Leg(
            number=trial.number,
            params=trial.params,
            overrides=trial.overrides,
            measure=unknown,
            start=trial.last_epoch,
            until=until,
        )

    def _record_measured(self, number: int, *, values: Mapping[str, float]) -> Decision:
        """Record what a network takes; one that takes more than is allowed is not trained."""
        self.ledger.measure(number, values=values)
        over = [
            f"{name} {values[name]:,.6g} is above {most:,.6g}"
            for name, most in self.limits.constraints.items()
            if values.get(name, 0.0) > most
        ]
        if over:
            self._end(number, state="FAILED", reason=f"search.constraints: {'; '.join(over)}")
            return "stop"
        self._tell_of_change(number)
        return "stop" if self.stopping else "go on"

    def _record_epoch(self, number: int, *, report: EpochReport) -> Decision:
        self.ledger.record(number, epoch=report.number, metrics=report.metrics, ended=report.ended)
        if report.ended:
            self._end(number, state="COMPLETE", reason=report.ended)
            return "stop"
        decision = self._at_rung(number) if report.number == self.ledger.trial(number).target else "go on"
        self._tell_of_change(number)
        if decision == "go on" and not self._has_time(number):
            self._explain(number)
            return "stop"
        return "stop" if self.stopping else decision

    def _has_time(self, number: int) -> bool:
        clock, trials = self.limits.clock, self._history()
        if clock is None:
            return True
        besides = 0.0 if trials[number].audited_at is not None else self._time_for_audits(trials)
        return clock.has_epoch(trials, number=number, besides=besides)

    def _at_rung(self, number: int) -> Decision:
        """Carry out the rule's verdict on a trial that has reached its target."""
        match self.rule.verdict(self._history(), number=number):
            case Continue(_, until):
                self.ledger.aim(number, target=until)
                return "go on"
            case Close(_, reason):
                self._end(number, state="PRUNED", reason=reason)
            case Hold(number):
                self._hold(number)
        return "stop"

    def _hold(self, number: int) -> None:
        self.ledger.hold(number)
        self._tell_of_change(number)

    def _stop_if_hopeless(self, failure: Failure) -> None:
        """Stop when workers keep failing and no trial has ever finished an epoch, or one trial after the other fails alike."""
        trials = self._history()
        failures = sum(trial.attempts + trial.losses for trial in trials)
        if trials.num_epochs == 0 and failures >= LOST_WORKERS_BEFORE_HOPELESS:
            self.stopping = f"every trial fails: {failure.reason}"
        elif alike := fail_alike(trials):
            numbers = ", ".join(str(trial.number) for trial in alike)
            self.stopping = f"trials {numbers} failed alike, one after the other: {failure.reason}"

    def _end(self, number: int, *, state: Literal["COMPLETE", "PRUNED", "FAILED"], reason: str) -> None:
        self.ledger.end(number, state=state, reason=reason)
        self._tell_of_change(number)

    def _tell_of_change(self, number: int) -> None:
        self.on_change(self.ledger.trial(number))
