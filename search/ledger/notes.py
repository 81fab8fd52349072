"""What a search notes beside its trials: every note of a ledger with its type and who writes it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, Literal, TypeVar

Document = Mapping[str, Any]
SCORES_OF_FINISH = ("balanced_accuracy", "accuracy", "loss", "ece")  # that people are told of a step of finishing
Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True)
class Identity:
    """The search's own ``id``, whatever it is called, and when it ``began``, milliseconds since 1970."""

    id: str
    began: int


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """What one process was at work: when it ``began``, seconds since 1970, and for how many seconds it was seen."""

    began: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What was foreseen: ``epochs`` of trials, and the seconds by the clock of all the search, ``least`` to ``most``."""

    epochs: int
    least: float
    most: float

    @property
    def seconds_an_epoch(self) -> float:
        """By the clock, of all the search: the geometric mean of the range's ends."""
        return math.sqrt(self.least * self.most) / self.epochs


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """The images of a search: fingerprint, class names, number of images by split and class, images that were left out.

    ``fingerprints`` are those of all its data sets by the field of ``data`` that names them. ``target`` has the number of
    images by split of a target domain, and ``oracle`` whether its labels are read. ``report`` is the data report.
    """

    fingerprint: str = ""
    classes: Sequence[str] = field(default_factory=list)
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    bad_images: Sequence[Any] = field(default_factory=list)
    fingerprints: Mapping[str, list[str]] = field(default_factory=dict)
    target: Mapping[str, int] | None = None
    oracle: bool = False
    report: Document = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Scores:
    """How good a model is: metrics by short name, scores by class, confusion K×K (rows are true)."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    per_class: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    confusion: Sequence[Sequence[int]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class BaselineScore(Scores):
    """A baseline on validation images; ``measured`` by full name, and of which ``epoch`` of how many, where it trained."""

    measured: Mapping[str, float] = field(default_factory=dict)
    epoch: int | None = None
    epochs: int | None = None

    def value(self, metric: str) -> float | None:
        """Give its value of a metric; None for one that it does not have, as a probe has no target."""
        of_split = self.metrics if metric.startswith("val/") else {}
        return self.measured.get(metric, of_split.get(metric.partition("/")[2]))


@dataclass(frozen=True, kw_only=True)
class BackboneChoice:
    """The scores of the backbones of a space by name, and the names of those that are searched.

    ``by`` is the score that chose, None in older ledgers; ``not_scored`` are those that the time was too short for.
    """

    scores: Mapping[str, Mapping[str, float]]
    kept: list[Any]
    by: str | None = None
    not_scored: Sequence[Any] = ()


@dataclass(frozen=True, kw_only=True)
class SoupResult(Scores):
    """A soup made ``of`` these trials: who is in it, who was tried, its value, whether it is ``kept`` as the candidate."""

    of: Sequence[int]
    members: Sequence[int] = field(default_factory=list)
    tried: Sequence[Mapping[str, Any]] = field(default_factory=list)
    measured: Mapping[str, float] = field(default_factory=dict)
    value: float | None = None
    kept: bool = False


@dataclass(frozen=True, kw_only=True)
class FinishNote:
    """What the final candidate was given of the ``steps`` that were asked for, of which trial, or soup.

    ``finish`` is a :class:`trainable.training.finishing.Finish` as a dict.
    """

    trial: int
    soup: Sequence[int] | None = None
    steps: Sequence[str] = ()
    finish: Document = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TestScore(Scores):
    """The final candidate on the test split: trial and epoch, the trials of a soup, how often the split was read.

    ``oracle`` are the scores on the target's test split, by its labels; ``intervals`` the bounds of some metrics, by short name,
    with 95 % confidence.
    """

    trial: int
    epoch: int | None = None
    soup: Sequence[int] | None = None
    reads: int = 1
    intervals: Mapping[str, Sequence[float]] = field(default_factory=dict)
    oracle: Scores | None = None


@dataclass(frozen=True, kw_only=True)
class DomainPicture:
    """Of which trial and epoch both domains are laid out in the plane."""

    trial: int
    epoch: int | None


@dataclass(frozen=True, kw_only=True)
class WinnerInterval:
    """Between what the final candidate's validation score lies: of which trial, or soup, by which metric and how many images.

    Without ``low`` and ``high`` the metric has no interval. ``value`` is measured anew, without what rounding kept outputs of
    frozen layers have.
    """

    trial: int
    soup: Sequence[int] | None = None
    metric: str
    confidence: float
    value: float | None = None
    low: float | None = None
    high: float | None = None
    num_images: int = 0


@dataclass(frozen=True, kw_only=True)
class PairedScore:
    """The final candidate beside another on the same images: how much better it is by the metric, and between what that lies.

    ``value`` is the other's, measured anew; ``only_first`` and ``only_second`` count images that the candidate or the other
    alone has right, ``p`` is McNemar's.
    """

    value: float | None = None
    gain: float
    low: float
    high: float
    only_first: int
    only_second: int
    p: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The final candidate, a trial or soup, beside baselines on the same validation images, by a metric.

    ``others`` has those whose answers could be had, of those that were ``asked`` for by name: of baselines their own, of a
    trial `trial N`. ``own_size`` is the side, pixels, of the images that the backbone was made for.
    """

    trial: int
    soup: Sequence[int] | None = None
    metric: str
    confidence: float
    num_images: int = 0
    own_size: int | None = None
    asked: Sequence[str] = ()
    others: Mapping[str, PairedScore] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ConfirmedTrial:
    """A trial that was trained again: its metrics by seed, and ``why_not`` where a refit of it failed."""

    number: int
    seeds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    why_not: str = ""


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """What other seeds made of the last candidates; ``why_not`` says why the winner is named from one seed, where it is."""

    trials: Sequence[ConfirmedTrial] = ()
    why_not: str = ""

    def by_trial(self) -> dict[int, tuple[Mapping[str, float], ...]]:
        """The metrics with each other seed, of the trials that count by their mean."""
        if self.why_not:
            return {}
        return {trial.number: tuple(trial.seeds.values()) for trial in self.trials if not trial.why_not}


@dataclass(frozen=True, kw_only=True)
class RefreshMark:
    """The refresh that began the search: number and key."""

    number: int
    key: str


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """Recipes that come first, whose they were, what could not be carried over and which searches were looked at, a line each.

    ``by`` says whose choice they are: a refresh's, which has put them into ``try_first``, or that of ``search.warm_start``.
    """

    recipes: tuple[Mapping[str, Any], ...]
    whose: tuple[str, ...]
    notes: tuple[str, ...]
    looked_at: tuple[str, ...] = ()
    by: Literal["refresh", "auto"] = "refresh"

    def as_dict(self) -> dict[str, Any]:
        """A plain dict for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class SearchNotes:
    """Every note of a search's ledger, as it stands; what is not noted has its default. Behind each: who writes it."""

    metric: str = "val/balanced_accuracy"  # run.search
    exhausted: bool = False  # engine.conductor: no configuration of the space is left
    spec: Document | None = None  # run.search, when a search begins or goes on: the contents of the space file
    identity: Identity | None = None  # ledger.ledger
    data: DataFacts = DataFacts()  # run.search
    environment: Mapping[str, str] = field(default_factory=dict)  # run.search: versions and hardware
    planned: Planned | None = None  # run.search, when a search begins: by ledger.planned
    stretches: Sequence[Stretch] = ()  # run.timekeeper
    steps: Mapping[str, Document] = field(default_factory=dict)  # run.pretraining: last metrics by step
    backbones: BackboneChoice | None = None  # run.backbones
    baselines: Mapping[str, BaselineScore] = field(default_factory=dict)  # run.search, by name
    soup: SoupResult | None = None  # run.finish
    finish: FinishNote | None = None  # run.finish
    test: TestScore | None = None  # run.finish
    interval: WinnerInterval | None = None  # run.examination
    comparison: Comparison | None = None  # run.examination
    confirmation: Confirmation | None = None  # run.confirm, by ledger.confirm; run.search takes it back
    domains: DomainPicture | None = None  # run.finish
    finished: bool = False  # run.finish; run.search takes it back
    refresh: RefreshMark | None = None  # refresh.refresh
    warm_start: WarmStart | None = None  # refresh.refresh; run.warm_start

    def finish_of(self, trial: int, *, soup: Sequence[int] | None) -> Document:
        """What this candidate was given before its test; nothing where that is not noted."""
        note = self.finish
        return note.finish if note is not None and (note.trial, note.soup) == (trial, soup) else {}


KEYS = {"identity": "tracking"}  # where the key in the study is another than the name


def key_of(name: str) -> str:
    """Give the key under which a note is stored."""
    assert name in {note.name for note in fields(SearchNotes)}, f"there is no note {name}"
    return KEYS.get(name, name)


def plain(value: Any) -> Any:
    """Give a note as JSON values."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def read_notes(stored: Document) -> SearchNotes:
    """Make the notes of what a study holds; older ledgers have fewer of them, with fewer fields."""
    documents = {note.name: stored[key_of(note.name)] for note in fields(SearchNotes) if key_of(note.name) in stored}
    return SearchNotes(
        **{name: _READERS[name](document) if name in _READERS else document for name, document in documents.items()}
    )


def made(kind: type[Made], document: Document) -> Made:
    """Make a note of the fields that its kind has today."""
    names = {attribute.name for attribute in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in document.items() if name in names})


def _data(document: Document) -> DataFacts:
    first = {"fingerprints": {"path": [document["fingerprint"]]}} if "fingerprint" in document else {}
    return made(DataFacts, {**first, **document})  # begun before there were several


def _confirmation(document: Document) -> Confirmation | None:
    if document is None:
        return None
    trials = tuple(made(ConfirmedTrial, trial) for trial in document["trials"])
    return made(Confirmation, {**document, "trials": trials})


def _comparison(document: Document) -> Comparison:
    others = {name: made(PairedScore, score) for name, score in document["others"].items()}
    return made(Comparison, {**document, "others": others})


def _test(document: Document) -> TestScore:
    oracle = document.get("oracle")
    return made(TestScore, {**document, "oracle": None if oracle is None else made(Scores, oracle)})


_READERS: dict[str, Callable[[Any], Any]] = {
    "identity": lambda document: made(Identity, document),
    "data": _data,
    "planned": lambda document: None if document is None else made(Planned, document),
    "stretches": lambda stretches: tuple(made(Stretch, stretch) for stretch in stretches),
    "backbones": lambda document: made(BackboneChoice, document),
    "baselines": lambda document: {name: made(BaselineScore, score) for name, score in document.items()},
    "soup": lambda document: made(SoupResult, document),
    "finish": lambda document: made(FinishNote, document),
    "test": _test,
    "interval": lambda document: made(WinnerInterval, document),
    "comparison": _comparison,
    "confirmation": _confirmation,
    "domains": lambda document: made(DomainPicture, document),
    "refresh": lambda document: made(RefreshMark, document),
    "warm_start": lambda document: made(
        WarmStart, {key: value if key == "by" else tuple(value) for key, value in document.items()}
    ),
}
