"""Whether a candidate takes the champion's place: a pure verdict with its reasons."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from search.space.promotion_sections import GateSection

if TYPE_CHECKING:
    from trainable.statistics.comparison import Judged, Paired
    from trainable.statistics.conformal import Covered

JSON_NAMES = {"champion_test": "champion", "old_test": "old", "why_unpaired": "unpaired", "why_no_old_test": "no_old"}


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What was measured of a candidate and, if there is one, the champion.

    ``test`` is the candidate on the test images and ``champion_test`` the champion on them; ``paired`` the two against each
    other, ``old_test`` the two on the champion's own test images. Each of the last three is None where there is no champion,
    or no image that neither was trained on, and then ``why_unpaired`` or ``why_no_old_test`` says why. ``chance`` is what
    always answering the most frequent class gives; ``latency_ms`` the median for one image, ``size_mb`` of the files;
    ``unsure`` what it is worth there that the candidate says it is unsure, where it does; ``rolled_back`` whether this very
    model was champion and taken back.
    """

    test: "Judged"
    chance: float
    latency_ms: float
    size_mb: float
    has_champion: bool = False
    champion_test: "Judged | None" = None
    paired: "Paired | None" = None
    old_test: "Paired | None" = None
    why_unpaired: str = ""
    why_no_old_test: str = ""
    unsure: "Covered | None" = None
    rolled_back: bool = False

    def as_dict(self) -> dict[str, Any]:
        """A plain dict for JSON."""
        return {JSON_NAMES.get(name, name): value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Check:
    """One question of the gate: ``passed``, and in words what was measured and what was asked."""

    name: str
    passed: bool
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """A plain dict for JSON."""
        return {"name": self.name, "passed": self.passed, "said": self.reason}


@dataclass(frozen=True)
class Verdict:
    """``promote`` is whether every check passed."""

    checks: tuple[Check, ...]

    @property
    def promote(self) -> bool:
        """Whether the candidate becomes champion."""
        return all(check.passed for check in self.checks)

    @property
    def reasons(self) -> list[str]:
        """What failed, in words; where nothing did, all that was asked."""
        failed = [check.reason for check in self.checks if not check.passed]
        return failed or [check.reason for check in self.checks]

    def as_dict(self) -> dict[str, Any]:
        """A plain dict for JSON."""
        return {"promote": self.promote, "checks": [check.as_dict() for check in self.checks]}


def gate(evidence: Evidence, *, rule: GateSection) -> Verdict:
    """Every check that the rule asks for, on what was measured."""
    checks = [*_against_champion(evidence, rule=rule), _chance(evidence, rule=rule), _recall(evidence, rule=rule)]
    if evidence.rolled_back:
        checks.append(Check("rolled back", False, "it was champion and was rolled back"))
    if rule.max_ece is not None:
        checks.append(_at_most("calibration", evidence.test.ece, rule.max_ece, unit="", what="calibration error"))
    if rule.max_latency_ms is not None:
        checks.append(_at_most("latency", evidence.latency_ms, rule.max_latency_ms, unit=" ms", what="one image takes"))
    if rule.max_size_mb is not None:
        checks.append(_at_most("size", evidence.size_mb, rule.max_size_mb, unit=" MB", what="size"))
    return Verdict(tuple(checks))


def _against_champion(evidence: Evidence, *, rule: GateSection) -> list[Check]:
    if not evidence.has_champion:
        return [Check("champion", True, "there is no champion yet")]
    if evidence.paired is None:
        return [Check("champion", False, f"cannot be compared with the champion: {evidence.why_unpaired}")]
    checks = [_gain(evidence.paired, rule=rule)]
    if rule.mcnemar_p is not None:
        checks.append(_mcnemar(evidence.paired, limit=rule.mcnemar_p))
    if evidence.old_test is not None:
        checks.append(_old_test(evidence.old_test, rule=rule))
    elif evidence.why_no_old_test:
        reason = f"the champion's own test images were not asked: {evidence.why_no_old_test}"
        checks.append(Check("old test", True, reason))
    return checks


def _gain(paired: "Paired", *, rule: GateSection) -> Check:
    gain = paired.gain
    passed = gain.low > rule.better_by
    reason = (
        f"{rule.metric} {gain.value:+.4f} against the champion on {paired.num_images} images, "
        f"at least {gain.low:+.4f} with {rule.confidence:.0%} confidence, {_asked(passed)} more than {rule.better_by:+g}"
    )
    return Check("gain", passed, reason)


def _mcnemar(paired: "Paired", *, limit: float) -> Check:
    passed = paired.only_first > paired.only_second and paired.p <= limit
    reason = (
        f"alone right on {paired.only_first} images, the champion on {paired.only_second} "
        f"(McNemar p {paired.p:.2g}), {_asked(passed)} more of them and p at most {limit:g}"
    )
    return Check("mcnemar", passed, reason)


def _old_test(old: "Paired", *, rule: GateSection) -> Check:
    lost = -old.gain.value
    passed = lost <= rule.old_tolerance
    reason = (
        f"{rule.metric} {-lost:+.4f} on {old.num_images} of the champion's own test images, "
        f"{_asked(passed)} a loss of at most {rule.old_tolerance:g}"
    )
    return Check("old test", passed, reason)


def _chance(evidence: Evidence, *, rule: GateSection) -> Check:
    low = evidence.test.metrics[rule.metric].low
    passed = low > evidence.chance
    reason = (
        f"{rule.metric} at least {low:.4f}, {_asked(passed)} more than the {evidence.chance:.4f} of always answering the "
        "most frequent class"
    )
    return Check("chance", passed, reason)


def _recall(evidence: Evidence, *, rule: GateSection) -> Check:
    """The class furthest below its floor, or nearest above it."""
    scores = evidence.test.per_class
    recall = {name: score["recall"] for name, score in scores.items()}
    floors = rule.floors(recall)
    for name in sorted(floors.keys() - recall.keys()):
        if floors[name] > 0:
            return Check(
                "recall", False, f"no test image of {name!r}, but asked for a recall of {floors[name]:g} or more"
            )
    worst = min(recall, key=lambda name: (recall[name] - floors[name], name))
    passed = recall[worst] >= floors[worst]
    reason = (
        f"recall of {worst!r} {recall[worst]:.4f} of {scores[worst]['count']} images, "
        f"{_asked(passed)} {floors[worst]:g} or more"
    )
    return Check("recall", passed, reason)


def _at_most(name: str, value: float, limit: float, *, unit: str, what: str) -> Check:
    passed = value <= limit
    return Check(name, passed, f"{what} {value:.4g}{unit}, {_asked(passed)} {limit:g}{unit} or less")


def _asked(passed: bool) -> str:
    return "asked for" if passed else "but asked for"
