"""From the best trials of a search to the registered champion: confirmed, measured once, judged, promoted.

Each step is recorded where it belongs, in the ledger or the registry, so that the same command goes on with one that was
cut off: trained refits, the packaged candidate, its answers to the test images, its version, the switch of champion.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from search.ledger import ledger as ledgers
from search.ledger.lease import lease
from search.ledger.refits import SEED, FinishedSearch, open_refits
from search.ledger.stored import open_ledger_of
from search.ledger.trials import Trial
from search.promotion.candidate import Candidate, answer_test_once, package_best
from search.promotion.card import card
from search.promotion.checks import check_model_name, check_ready
from search.promotion.evidence import gather
from search.promotion.gate import Evidence, Verdict, gate
from search.promotion.packaged import open_packaged
from search.promotion.refit import confirm
from search.run.refitting import StoppedError
from search.space.spec import ORACLE, SearchSpec
from search.tracking.registry import CHAMPION, ROLLED_BACK, ROOT, ModelVersion, Registry, store_errors_as_outages
from search.tracking.tracker import runs_of
from search.tune.cluster import check_address
from search.tune.place import check_local_resources
from trainable.atomic import write_beside
from trainable.data.image_guard import ImagesChangedError
from trainable.errors import OutageError
from trainable.json_text import to_json

if TYPE_CHECKING:
    from search.tracking.runs import Runs

MOST_ROUNDS = 5  # of judging anew where somebody else promoted meanwhile


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """A candidate with the gate's verdict, and what came of it.

    ``outcome`` is ``promoted``, ``refused``, ``unchanged`` (it is champion already) or ``dry run``; ``version`` its own,
    ``champion`` that which it was judged against. ``evidence`` is None where nothing had to be judged.
    """

    candidate: Candidate
    evidence: Evidence | None
    verdict: Verdict
    outcome: str
    name: str
    version: int | None
    champion: int | None
    forced: bool = False

    def as_dict(self) -> dict[str, Any]:
        """A plain dict for JSON."""
        candidate = {
            "recipe": self.candidate.recipe,
            "seed": self.candidate.seed,
            "digest": self.candidate.digest,
            "package": str(self.candidate.package),
            "test_reads": self.candidate.num_test_reads,
            "test_images_known": self.candidate.num_known,
        }
        return {
            **{name: getattr(self, name) for name in ("outcome", "name", "version", "champion", "forced")},
            "numbers": {} if self.evidence is None else self.evidence.as_dict(),
            **self.verdict.as_dict(),
            "candidate": candidate,
            "confirmed": self.recipe_rows(),
        }

    def recipe_rows(self) -> list[dict[str, Any]]:
        """Every recipe that was trained again, the best first, with its value at each seed."""
        metric = self.candidate.search.metric
        return [
            {
                "recipe": recipe.as_text,
                "values": {str(model.seed): model.metrics[metric] for model in recipe.models},
                "mean": recipe.mean(metric) if recipe.models else None,
                "why_not": recipe.why_not,
            }
            for recipe in self.candidate.recipes
        ]


def promote(
    spec: SearchSpec,
    *,
    folder: Path,
    address: str | None,
    dry_run: bool,
    force: bool,
    tell: Callable[[str], None],
) -> Promotion:
    """Confirm, package, measure and judge the best of a finished search, and make it champion where the gate says yes.

    Raises UserError for a search that is not finished, OutageError for a store that fails and a search that another process
    holds; of these StoppedError where refits ended before their time, and where the images change meanwhile.
    """
    check_address(address)
    if address is None:
        check_local_resources(spec)
    check_model_name(spec)
    registry = Registry(spec.tracking.uri, name=spec.model_name, lock_folder=Path(spec.search.folder))
    with lease(folder):
        search = _open_finished(spec, folder=folder)
        with _changed_images_stop_it():
            recipes = confirm(search, address=address, on_change=_tell_of_refits(tell, metric=search.metric))
            tell("packaging the best refit")
            package = package_best(search, recipes=recipes)
            with store_errors_as_outages(registry.uri), TemporaryDirectory() as temporary:
                runs = runs_of(spec, search.ledger, folder=folder)
                model = Path(temporary) / "model"
                tell("measuring the package on the test images")
                candidate = answer_test_once(search, recipes=recipes, package=package, folder=model)
                return settle(candidate, registry=registry, runs=runs, dry_run=dry_run, force=force, tell=tell)


def _open_finished(spec: SearchSpec, *, folder: Path) -> FinishedSearch:
    """Open what a promotion needs of a search, for writing; nothing is written before the checks have passed."""
    ledgers.mend_journal(folder / ledgers.JOURNAL)
    ledger = open_ledger_of(spec, folder=folder)
    check_ready(spec, ledger)
    return FinishedSearch(spec=spec, ledger=ledger, refits=open_refits(spec, folder=folder), folder=folder)


@contextmanager
def _changed_images_stop_it() -> Iterator[None]:
    """The images were right when it began, so that they have changed is no mistake in what was given."""
    try:
        yield
    except ImagesChangedError as error:
        raise StoppedError(str(error)) from error


def _tell_of_refits(tell: Callable[[str], None], *, metric: str) -> Callable[[Trial], None]:
    def tell_how_far(trial: Trial) -> None:
        if trial.state == "RUNNING" and trial.last_epoch:
            tell(f"refit {trial.number}, seed {trial.params[SEED]}: epoch {trial.last_epoch} of {trial.target}")
        if trial.state != "RUNNING":
            value = trial.best(metric)
            result = f"{metric} {value:.4f}" if value is not None else str(trial.reason)
            tell(f"refit {trial.number}, seed {trial.params[SEED]}: {result}")

    return tell_how_far


def settle(
    candidate: Candidate, *, registry: Registry, runs: "Runs", dry_run: bool, force: bool, tell: Callable[[str], None]
) -> Promotion:
    """Judge and do what follows; once more where the champion changed meanwhile."""
    for _ in range(MOST_ROUNDS):
        champion = registry.by_alias(CHAMPION) if dry_run else registry.settle_champion()
        promotion = _judge(candidate, champion=champion, registry=registry)
        if dry_run or promotion.outcome == "unchanged":
            return promotion
        promotion = replace(promotion, forced=force and not promotion.verdict.promote)
        version = _register(promotion, registry=registry, runs=runs)
        promotion = replace(promotion, version=version.number)
        if not (promotion.verdict.promote or force):
            return replace(promotion, outcome="refused")
        if registry.replace_champion(promotion.champion, by=version.number):
            return replace(promotion, outcome="promoted")
        tell(f"{registry.name}: another version became champion meanwhile; judging again")
    raise OutageError(f"{registry.name}: others keep promoting; try again later")


def _judge(candidate: Candidate, *, champion: ModelVersion | None, registry: Registry) -> Promotion:
    """What the gate says of a candidate beside the champion; ``unchanged`` where it is that."""
    version = registry.of_candidate(candidate.digest)
    before = None if champion is None else champion.number
    promotion = Promotion(
        candidate=candidate,
        evidence=None,
        verdict=Verdict(()),
        outcome="dry run",
        name=registry.name,
        version=None if version is None else version.number,
        champion=before,
    )
    if version is not None and version.number == before:
        return replace(promotion, outcome="unchanged")
    rolled_back = version is not None and ROLLED_BACK in version.tags
    evidence = replace(_measure(candidate, champion=champion, registry=registry), rolled_back=rolled_back)
    return replace(promotion, evidence=evidence, verdict=gate(evidence, rule=candidate.search.spec.promote))


def _measure(candidate: Candidate, *, champion: ModelVersion | None, registry: Registry) -> Evidence:
    """Measure the candidate, beside the files of the champion if there is one."""
    rule = candidate.search.spec.promote
    if champion is None:
        return gather(candidate.test, opponent=None, rule=rule)
    with TemporaryDirectory() as folder:
        files = registry.download(champion, folder=Path(folder))
        opponent = open_packaged(files, root=Path(champion.tags.get(ROOT, ".")))
        return gather(candidate.test, opponent=opponent, rule=rule)


def _register(promotion: Promotion, *, registry: Registry, runs: "Runs") -> ModelVersion:
    """Give the candidate a version, if it has none, with its verdict in tags and one sentence; the challenger from now on."""
    candidate, verdict, evidence = promotion.candidate, promotion.verdict, promotion.evidence
    assert evidence is not None, "it was judged"
    sentence = _sentence(promotion, evidence=evidence)
    version = registry.of_candidate(candidate.digest)
    if version is None:
        with write_beside(candidate.model.folder / "card.md") as file:
            file.write(card(candidate, evidence=evidence).encode())
        run_id = runs.gate_run(candidate.digest, title=f"candidate: {candidate.recipe}")
        version = registry.register(
            candidate.digest,
            model=candidate.model.folder,
            run_id=run_id,
            tags=_origin_tags(candidate),
            sentence=sentence,
        )
    tags = {
        "gate.verdict": "yes" if verdict.promote else "no",
        "gate.forced": str(promotion.forced).lower(),
        "gate.reasons": "; ".join(verdict.reasons),
        "gate.numbers": to_json(_without_classes(evidence.as_dict())),
    }
    registry.describe(version, tags=tags, sentence=sentence)
    registry.note_gate(version, {**verdict.as_dict(), "forced": promotion.forced, "numbers": evidence.as_dict()})
    registry.challenge(version)
    return version


def _origin_tags(candidate: Candidate) -> dict[str, str]:
    """Where a version comes from: its search, its recipe, its images."""
    return {
        "search.study": candidate.search.spec.search.name,
        "search.recipe": candidate.recipe,
        "search.seed": str(candidate.seed),
        "data.fingerprint": candidate.model.fingerprint,
        ROOT: str(candidate.model.root.absolute()),
        **({"search.oracle": ORACLE} if candidate.model.config.data.oracle else {}),
    }


def _sentence(promotion: Promotion, *, evidence: Evidence) -> str:
    candidate, verdict = promotion.candidate, promotion.verdict
    spec = candidate.search.spec
    score = evidence.test.metrics[spec.promote.metric]
    forced = "forced past the gate, which said no: " if promotion.forced else "refused: "
    decided = "passed the gate: " if verdict.promote else forced
    return (
        f"{candidate.recipe} of search {spec.search.name}, seed {candidate.seed}, test {spec.promote.metric} "
        f"{score.value:.4f} ({score.low:.4f} to {score.high:.4f}); {decided}{'; '.join(verdict.reasons)}."
    )


def _without_classes(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers without those of each class, which a tag has no room for; the gate's file has all."""
    return {
        name: {key: number for key, number in value.items() if key != "per_class"} if isinstance(value, dict) else value
        for name, value in numbers.items()
    }
