"""What a search came to, in one sentence: its final candidate beside what is simpler."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from search.ledger.notes import Comparison, PairedScore, SearchNotes
from search.ledger.trials import PROBE, Trial, best_trial, probe_name
from search.report.next_steps import Step, limits_of, steps_after
from search.space.spec import SearchSpec
from trainable.metrics import SCORES, gain, is_better

Kind = Literal["better", "luck", "not better", "probe", "unmeasured", "nothing"]
PERCENT = 100
CONFIDENCE = 0.95  # of what is noted of a search
CHEAPER = 1.5  # times as many seconds, from which on it is said which is cheaper
NAMES = {
    "linear_probe": "the linear probe",
    "zero_shot": "zero-shot classification by the class names",
    "scratch": "training from scratch",
    "bit_hyperrule": "the fixed recipe BiT-HyperRule",
    "source_only": "training on the source alone",
}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a search came to: the sentence, its figures, the other comparisons image by image, the test score, limits, next steps.

    ``against`` is the baseline that the sentence is about, or the trial where the candidate is a probe.
    """

    kind: Kind
    sentence: str
    against: str | None = None
    gain: float | None = None
    low: float | None = None
    high: float | None = None
    others: tuple[str, ...] = ()
    test: str | None = None
    limits: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """A plain dict for JSON, with the ``lines`` for people."""
        return asdict(self) | {"lines": self.lines}

    @property
    def lines(self) -> list[str]:
        """All of it for people, the sentence first."""
        head = [f"verdict: {self.sentence}", *self.others, *([self.test] if self.test else [])]
        return [
            *head,
            *(f"what limited it: {line}" for line in self.limits),
            *(f"next: `{step.command}` {step.why}" for step in self.steps),
        ]


def search_verdict(trials: Sequence[Trial], *, spec: SearchSpec, notes: SearchNotes) -> Verdict | None:
    """Judge a search by its records; None before its final candidate has been tested."""
    metric = spec.search.metric
    best = best_trial(trials, metric=metric, choose_by=spec.search.choose_by)
    if best is None or notes.test is None or notes.test.trial != best.number:
        return None
    rivalry = _Rivalry(best=best, trials=trials, notes=notes, metric=metric)
    kind, against, sentence = _judge(rivalry)
    score = rivalry.paired.get(against) if against else None
    untold = score if score is not None and score.low <= 0 <= score.high else None
    limits = limits_of(trials, best=best, spec=spec, notes=notes, untold=untold)
    return Verdict(
        kind=kind,
        sentence=sentence,
        against=against,
        gain=score.gain if score else rivalry.unpaired_gain(against),
        low=score.low if score else None,
        high=score.high if score else None,
        others=tuple(rivalry.line(name) for name in rivalry.paired if name != against),
        test=_test_line(notes),
        limits=tuple(limit.line for limit in limits),
        steps=tuple(steps_after(limits, is_better=kind == "better", spec=spec, best=best)),
    )


def beside_text(name: str, score: PairedScore, *, metric: str, num_images: int, confidence: float = CONFIDENCE) -> str:
    """How a candidate stands beside another on the same images: better, no more than luck, not better or worse.

    ``confidence`` is that of the two bounds together.
    """
    percent = f"{PERCENT * confidence:.3g} %"
    how = f"({percent}, on the same {num_images} images)"
    if score.low > 0:
        return f"better than {name} by {_range(score.low, score.high, metric=metric)} {how}"
    if score.high < 0:
        return f"worse than {name} by {_range(-score.high, -score.low, metric=metric)} {how}"
    interval = f"{percent}: {_range(score.low, score.high, metric=metric, signed=True)}"
    if score.gain <= 0:
        return f"not better than {name} on the same {num_images} images ({interval})"
    more = score.only_first - score.only_second
    by = f"{more} image{'' if more == 1 else 's'} of {num_images}" if more > 0 else _range(score.gain, metric=metric)
    return f"better than {name} by {by}, which may be luck ({interval})"


def _range(*values: float, metric: str, signed: bool = False) -> str:
    """``0.6 to 2.1 points`` of a share of images; of other metrics numbers, ``0.0612 of val/loss``."""
    name = metric.partition("/")[2]
    is_share = name in SCORES and SCORES[name].compares
    form = f"{'+' if signed else ''}.{1 if is_share else 4}f"
    scale, unit = (PERCENT, "points") if is_share else (1, f"of {metric}")
    return f"{' to '.join(format(scale * value, form) for value in values)} {unit}"


class _Rivalry:
    """The final candidate of a search and all that it can be compared with."""

    def __init__(self, *, best: Trial, trials: Sequence[Trial], notes: SearchNotes, metric: str) -> None:
        assert notes.test is not None, "the candidate was tested"
        soup = notes.test.soup
        is_soup = soup is not None and notes.soup is not None
        self.metric, self.best, self._trials = metric, best, trials
        self.is_probe = not best.is_searched and not is_soup
        self.value = notes.soup.value if is_soup and notes.soup is not None else best.best(metric)
        self.members = [trial for trial in trials if trial.number in (soup or [best.number])]
        self.paired, self.num_images = _paired(notes.comparison, trial=best.number, soup=soup)
        own = _probe_name(best) if self.is_probe else None
        self.unpaired = {
            name: value
            for name, score in notes.baselines.items()
            if name not in self.paired and name != own and (value := score.value(metric)) is not None
        }

    def strongest(self, values: Mapping[str, float]) -> str | None:
        """The best of these by the metric."""
        best: str | None = None
        for name, value in values.items():
            if is_better(value, None if best is None else values[best], metric=self.metric):
                best = name
        return best

    def unpaired_gain(self, name: str | None) -> float | None:
        """How much better the candidate is than a baseline whose answers were not compared image by image."""
        if name not in self.unpaired or self.value is None:
            return None
        return gain(self.value, over=self.unpaired[name], metric=self.metric)

    def line(self, name: str) -> str:
        """One of them beside the candidate."""
        if name in self.paired:
            return beside_text(_told(name), self.paired[name], metric=self.metric, num_images=self.num_images)
        gained = self.unpaired_gain(name)
        assert gained is not None, "it has a value"
        by = _range(abs(gained), metric=self.metric)
        return f"{'better' if gained > 0 else 'worse'} than {_told(name)} by {by} (not compared image by image)"

    def seconds(self, name: str) -> float | None:
        """What a trial of that name took to train; None for what is no trial."""
        rival = next((trial for trial in self._trials if name in (_probe_name(trial), f"trial {trial.number}")), None)
        return rival.seconds if rival is not None else None

    def cheaper(self, name: str, *, than: bool = False) -> str:
        """``, it is 40 times cheaper``: the rival of this name or, with ``than``, the candidate; nothing where it is not."""
        rival, candidate = self.seconds(name), sum(trial.seconds for trial in self.members)
        if not rival or not candidate:
            return ""
        times = rival / candidate if than else candidate / rival
        return f", it is {times:.{0 if times >= 10 else 1}f} times cheaper to train" if times >= CHEAPER else ""


def _judge(rivalry: _Rivalry) -> tuple[Kind, str | None, str]:
    """Which kind of verdict, against whom, in words."""
    searched = next((name for name in rivalry.paired if name.startswith("trial ")), None)
    if rivalry.is_probe:
        return _of_probe(rivalry, searched=searched)
    above = {name: value for name, value in rivalry.unpaired.items() if (rivalry.unpaired_gain(name) or 0.0) < 0}
    strongest = rivalry.strongest(above)
    if strongest is not None:
        return "not better", strongest, f"{rivalry.line(strongest)}: take {_told(strongest)}"
    strongest = rivalry.strongest(
        {name: score.value for name, score in rivalry.paired.items() if score.value is not None}
    )
    if strongest is not None:
        return _of_pair(rivalry, name=strongest)
    strongest = rivalry.strongest(rivalry.unpaired)
    if strongest is not None:
        return "unmeasured", strongest, f"{rivalry.line(strongest)}, so it may be luck"
    return "nothing", None, "nothing to compare with: `baselines: [linear_probe]` in the space file takes seconds"


def _of_pair(rivalry: _Rivalry, *, name: str) -> tuple[Kind, str, str]:
    score, text = rivalry.paired[name], rivalry.line(name)
    if score.low > 0:
        return "better", name, text
    cheaper = rivalry.cheaper(name)
    if score.gain > 0:
        return "luck", name, text + (f"; {_told(name)} does as well for what is known{cheaper}" if cheaper else "")
    return "not better", name, f"{text}: take {_told(name)}{cheaper}"


def _of_probe(rivalry: _Rivalry, *, searched: str | None) -> tuple[Kind, str | None, str]:
    name = _told(_probe_name(rivalry.best))
    if searched is None:
        return "probe", None, f"no trial is better than {name}: take it"
    beside = beside_text(searched, rivalry.paired[searched], metric=rivalry.metric, num_images=rivalry.num_images)
    cheaper = rivalry.cheaper(searched, than=True)
    return "probe", searched, f"no trial is better than {name}: take it{cheaper}; it is {beside}"


def _paired(
    comparison: Comparison | None, *, trial: int, soup: Sequence[int] | None
) -> tuple[Mapping[str, PairedScore], int]:
    if comparison is None or (comparison.trial, comparison.soup) != (trial, soup):
        return {}, 0
    return comparison.others, comparison.num_images


def _probe_name(trial: Trial) -> str:
    return probe_name(trial) if trial.origin == PROBE else ""


def _told(name: str) -> str:
    """A baseline in words."""
    if name.startswith("probe_"):
        return f"the probe of {' by '.join(name.removeprefix('probe_').split('_', maxsplit=1))}"
    return NAMES.get(name, name)


def _test_line(notes: SearchNotes) -> str | None:
    """The test score with its interval, for the metrics that have one."""
    test = notes.test
    if test is None or not test.intervals:
        return None
    num_images = sum(map(sum, test.confusion))
    scores = ", ".join(
        f"{name} {test.metrics[name]:.4f} ({low:.2f} to {high:.2f})" for name, (low, high) in test.intervals.items()
    )
    return f"on {num_images} test images: {scores}, 95 %"
