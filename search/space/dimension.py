"""One searched value: its kinds, how each is written, drawn and checked.

    {choice: [none, light]}               one of the listed values; a value may itself be a list or a mapping
    {uniform: [0.5, 1.0], step: 0.1}      a number between the bounds, on a grid with `step`
    {log: [1e-5, 1e-2]}                   a number between the bounds, its logarithm uniform
    {int: [1, 8], step: 1, log: false}    a whole number, both bounds included

Each takes `when: {path: value, other.path: [values]}`: it is searched only where every named path has one of its
values. A list means any of them; a value that is itself a list is written `[[stage3, stage4]]`.
Each takes `prior: value`, what is known beforehand to be good, with `confidence: low`, `medium` or `high`: where to look first,
not what is allowed.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from search.space.values import Value
from trainable.config.validation import as_text, did_you_mean
from trainable.errors import UserError, nearest

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

Conditions = Mapping[str, tuple[Value, ...]]
Scalar = None | bool | int | float | str
Confidence = Literal["low", "medium", "high"]

OF_ANY = {"when", "prior", "confidence"}
KINDS = {
    "choice": OF_ANY,
    "uniform": {"step"} | OF_ANY,
    "log": OF_ANY,
    "int": {"step", "log"} | OF_ANY,
}
FORMS = "{choice: [...]}, {uniform: [low, high]}, {log: [low, high]} or {int: [low, high]}"


@dataclass(frozen=True)
class Prior:
    """A value known beforehand to be good, and how sure that is."""

    value: Value
    confidence: Confidence = "medium"

    def plain(self) -> dict[str, Any]:
        """The prior as it is written in YAML."""
        return {"prior": self.value, "confidence": self.confidence}


@dataclass(frozen=True)
class Choice:
    """One of the listed values. A list or a mapping among them is JSON text in Optuna, which knows scalars only."""

    members: tuple[Value, ...]
    when: Conditions = field(default_factory=dict)
    prior: Prior | None = None

    def suggest(self, trial: "BaseTrial", *, path: str) -> Value:
        """Ask the trial for a value."""
        return self.decode(trial.suggest_categorical(path, [self.encode(member) for member in self.members]))

    def contains(self, value: Value) -> bool:
        """Whether the value is one of the members."""
        return any(_same(value, member) for member in self.members)

    def encode(self, value: Value) -> Scalar:
        """The value as Optuna stores it."""
        return _stored(value)

    def decode(self, stored: Scalar) -> Value:
        """The member that Optuna stored."""
        return next((member for member in self.members if _same(self.encode(member), stored)), stored)

    def plain(self) -> dict[str, Any]:
        """The choice as it is written in YAML."""
        return {"choice": list(self.members)} | _plain_when(self.when) | _plain_prior(self.prior)

    @property
    def extremes(self) -> tuple[Value, ...]:
        """Values that are valid only if all are: every member."""
        return self.members


@dataclass(frozen=True, kw_only=True)
class Number:
    """A number between two bounds, both included: whole or not, on a linear or a logarithmic scale, perhaps stepped."""

    low: float
    high: float
    whole: bool = False
    log: bool = False
    step: float | None = None
    when: Conditions = field(default_factory=dict)
    prior: Prior | None = None

    def suggest(self, trial: "BaseTrial", *, path: str) -> Value:
        """Ask the trial for a value."""
        if self.whole:
            return trial.suggest_int(path, int(self.low), int(self.high), step=int(self.step or 1), log=self.log)
        return trial.suggest_float(path, self.low, self.high, step=self.step, log=self.log)

    def contains(self, value: Value) -> bool:
        """Whether the value lies within the bounds and on the grid."""
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        return self.low <= value <= self.high and (self.step is None or _is_multiple(value - self.low, of=self.step))

    def encode(self, value: Value) -> Scalar:
        """The value as Optuna stores it."""
        assert not isinstance(value, list | dict)
        return value

    def decode(self, stored: Scalar) -> Value:
        """The value that Optuna stored."""
        return stored

    def plain(self) -> dict[str, Any]:
        """The range as it is written in YAML."""
        kind = "int" if self.whole else "log" if self.log else "uniform"
        plain: dict[str, Any] = {kind: [self.low, self.high]}
        if self.step is not None:
            plain["step"] = self.step
        if self.whole and self.log:
            plain["log"] = True
        return plain | _plain_when(self.when) | _plain_prior(self.prior)

    @property
    def extremes(self) -> tuple[Value, ...]:
        """Values that are valid only if all are: the bounds."""
        return (int(self.low), int(self.high)) if self.whole else (float(self.low), float(self.high))


Dimension = Choice | Number


def parse_dimension(raw: object, *, where: str) -> Dimension:
    """The dimension a mapping from YAML describes; ``where`` is its dotted path. Raises UserError."""
    if not isinstance(raw, Mapping):
        raise UserError(f"{where}: got {as_text(raw)}, must be {FORMS}; a fixed value belongs in base")
    kinds = [kind for kind in KINDS if kind in raw and not (kind == "log" and "int" in raw)]
    if len(kinds) > 1:
        raise UserError(f"{where}: got both {' and '.join(kinds)}, must be {FORMS}")
    keys = {kinds[0], *KINDS[kinds[0]]} if kinds else {*KINDS, "step", *OF_ANY}
    for key in raw:
        if key not in keys:
            raise UserError(f"{where}.{key}: unknown key{did_you_mean(str(key), sorted(keys))}")
    if not kinds:
        raise UserError(f"{where}: says no range, must be {FORMS}")
    when = _parse_when(raw.get("when", {}), where=f"{where}.when")
    dimension: Dimension
    if kinds[0] == "choice":
        dimension = Choice(_parse_members(raw["choice"], where=where), when)
    else:
        dimension = _parse_number(raw, kind=kinds[0], when=when, where=where)
    return replace(dimension, prior=_parse_prior(raw, dimension=dimension, where=where))


def dimension_text(dimension: Dimension) -> str:
    """The values of a dimension in words."""
    if isinstance(dimension, Choice):
        return ", ".join(as_text(member) for member in dimension.members)
    step = f" in steps of {as_text(dimension.step)}" if dimension.step else ""
    return f"{as_text(dimension.low)} to {as_text(dimension.high)}{step}"


def without_prior(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A dimension as YAML has it, without what is known beforehand: which values are allowed, no more."""
    return {key: value for key, value in raw.items() if key not in ("prior", "confidence")}


def _parse_when(raw: object, *, where: str) -> Conditions:
    if not isinstance(raw, Mapping):
        raise UserError(f"{where}: got {as_text(raw)}, must be {{path: value}} or {{path: [values]}}")
    when = {str(path): tuple(values) if isinstance(values, list) else (values,) for path, values in raw.items()}
    for path, values in when.items():
        if not values:
            raise UserError(f"{where}.{path}: is empty, must list at least one value")
    return when


def _parse_prior(raw: Mapping[str, Any], *, dimension: Dimension, where: str) -> Prior | None:
    if "prior" not in raw:
        if "confidence" in raw:
            raise UserError(f"{where}.confidence: has no effect without a prior; give that too")
        return None
    value, confidence, known = raw["prior"], raw.get("confidence", "medium"), get_args(Confidence)
    if not dimension.contains(value):
        raise UserError(f"{where}.prior: {as_text(value)} is outside {dimension_text(dimension)}")
    if confidence not in known:
        raise UserError(
            f"{where}.confidence: got {as_text(confidence)}, must be low, medium or high{nearest(str(confidence), known)}"
        )
    return Prior(value, confidence)


def _parse_members(raw: object, *, where: str) -> tuple[Value, ...]:
    if not isinstance(raw, list):
        raise UserError(f"{where}.choice: got {as_text(raw)}, must be a list of values")
    if not raw:
        raise UserError(f"{where}.choice: is empty, must list at least one value")
    for index, member in enumerate(raw):
        if any(_same(_stored(member), _stored(earlier)) for earlier in raw[:index]):
            raise UserError(f"{where}.choice: lists {as_text(member)} twice")
    return tuple(raw)


def _parse_number(raw: Mapping[str, Any], *, kind: str, when: Conditions, where: str) -> Number:
    whole = kind == "int"
    low, high = _parse_bounds(raw[kind], whole=whole, where=f"{where}.{kind}")
    log = raw.get("log", False) if whole else kind == "log"
    if not isinstance(log, bool):
        raise UserError(f"{where}.log: got {as_text(log)}, must be true or false")
    if low == high:
        raise UserError(f"{where}: both bounds are {as_text(low)}; a fixed value belongs in base")
    if low > high:
        raise UserError(f"{where}: upper bound {as_text(high)} is below lower bound {as_text(low)}")
    if log and low <= 0:
        raise UserError(f"{where}: a log range needs a lower bound above 0, got {as_text(low)}")
    step = raw.get("step")
    if step is not None:
        _check_step(step, low=low, high=high, whole=whole, log=log, where=where)
    return Number(low=low, high=high, whole=whole, log=log, step=step, when=when)


def _parse_bounds(raw: object, *, whole: bool, where: str) -> tuple[float, float]:
    if not isinstance(raw, list) or len(raw) != 2:
        raise UserError(f"{where}: got {as_text(raw)}, must be [low, high]")
    for bound in raw:
        _check_number(bound, whole=whole, where=where)
    return raw[0], raw[1]


def _check_number(value: object, *, whole: bool, where: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not math.isfinite(value):
        raise UserError(f"{where}: got {as_text(value)}, must be a {'whole' if whole else 'finite'} number")


def _check_step(step: object, *, low: float, high: float, whole: bool, log: bool, where: str) -> None:
    _check_number(step, whole=whole, where=f"{where}.step")
    assert isinstance(step, int | float)
    if log:
        raise UserError(f"{where}.step: a log range takes no step")
    if step <= 0:
        raise UserError(f"{where}.step: got {as_text(step)}, must be above 0")
    if step > high - low and not _is_multiple(high - low, of=step):
        raise UserError(
            f"{where}.step: {as_text(step)} is larger than the range from {as_text(low)} to {as_text(high)}"
        )
    if not _is_multiple(high - low, of=step):
        raise UserError(
            f"{where}.step: {as_text(step)} does not divide the range from {as_text(low)} to {as_text(high)}"
        )


def _is_multiple(distance: float, *, of: float) -> bool:
    """Whether a distance is a whole number of steps, to a millionth of a step: decimal fractions are not exact."""
    return abs(distance / of - round(distance / of)) < 1e-6


def _stored(value: Value) -> Scalar:
    return json.dumps(value) if isinstance(value, list | dict) else value


def _same(first: Value, second: Value) -> bool:
    """Equality that does not take ``True`` for 1."""
    return first == second and isinstance(first, bool) == isinstance(second, bool)


def _plain_when(when: Conditions) -> dict[str, Any]:
    return {"when": {path: _plain_values(when[path]) for path in sorted(when)}} if when else {}


def _plain_prior(prior: Prior | None) -> dict[str, Any]:
    return {} if prior is None else prior.plain()


def _plain_values(values: Sequence[Value]) -> Any:
    return values[0] if len(values) == 1 and not isinstance(values[0], list) else list(values)
