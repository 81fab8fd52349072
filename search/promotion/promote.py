"""From the best trials of a search to the registered champion: confirmed, measured once, judged, promoted.

Each step is recorded where it belongs, in the ledger or the registry, so that the same command goes on with one that was
cut off: trained refits, the packaged candidate, its test predictions, its version, the switch of champion.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from search.ledger import ledger as ledgers
from search.ledger.lease import lease
from search.ledger.ledger import Ledger
from search.ledger.refits import (
    FOLDER,
    SEED,
    CandidateNote,
    note_candidate,
    note_tested,
    open_refits,
    refit_notes,
)
from search.ledger.stored import check_finished, open_ledger_of
from search.ledger.trials import Trial, best_trial
from search.promotion.card import card
from search.promotion.evidence import PACKAGE, Measured, Served, gather, measure, open_served
from search.promotion.gate import Evidence, Verdict, gate
from search.promotion.refit import Confirmed, Model, StoppedError, best_model, check_judgeable, confirm, weights_of
from search.space.sections import NAME_PATTERN, STEPS
from search.space.spec import BACKBONE, ORACLE, SearchSpec
from search.tracking.model_files import save_model
from search.tracking.registry import CHAMPION, ROLLED_BACK, ROOT, ModelVersion, Registry, store_errors_as_outages
from search.tracking.tracker import runs_of
from search.tune.cluster import check_address
from search.tune.place import check_local_resources
from trainable.atomic import write_beside
from trainable.config.trial import TrialConfig
from trainable.data.image_guard import ImagesChangedError, check_held, check_unchanged, held_to
from trainable.errors import OutageError, UserError, nearest
from trainable.json_text import to_json
from trainable.serving.encoded import encoded_images, fingerprint_now
from trainable.serving.package import digest, package
from trainable.training.checkpoint import OPTIMIZER

MOST_ROUNDS = 5  # of judging anew where somebody else promoted meanwhile


class NoCandidateError(UserError):
    """A search has nothing that could be promoted."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """The model that is judged, where it lies and what it is called by: the digest of its package."""

    model: Model
    package: Path
    digest: str
    confirmed: list[Confirmed]
    reads: int = 0


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """What came of it.

    ``outcome`` is ``promoted``, ``refused``, ``unchanged`` (it is champion already) or ``dry run``; ``champion`` the version
    that it was judged against.
    """

    outcome: str
    name: str
    version: int | None
    champion: int | None
    forced: bool
    verdict: Verdict
    numbers: Mapping[str, Any]
    candidate: Candidate

    def as_dict(self, *, metric: str) -> dict[str, Any]:
        """A plain dict for JSON."""
        own = {name: getattr(self, name) for name in ("outcome", "name", "version", "champion", "forced", "numbers")}
        candidate = {
            "recipe": self.candidate.model.recipe.said,
            "seed": self.candidate.model.seed,
            "digest": self.candidate.digest,
            "package": str(self.candidate.package),
            "test_reads": self.candidate.reads,
        }
        return {
            **own,
            **self.verdict.as_dict(),
            "candidate": candidate,
            "confirmed": confirmed_rows(self, metric=metric),
        }


def confirmed_rows(promotion: Promotion, *, metric: str) -> list[dict[str, Any]]:
    """Every recipe that was refitted, the best first, with its value at each seed."""
    return [
        {
            "recipe": one.recipe.said,
            "values": {str(model.seed): model.metrics[metric] for model in one.models},
            "mean": one.mean(metric) if one.models else None,
            "why_not": one.why_not,
        }
        for one in promotion.candidate.confirmed
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
        ledgers.mend_journal(folder / ledgers.JOURNAL)
        ledger = open_ledger_of(spec, folder=folder)
        _check_ready(spec, ledger)
        refits = open_refits(spec, folder=folder)
        with _stopped_by_changed_images():
            with held_to(ledger.notes.data.fingerprints):
                candidate = _confirmed(spec, ledger, refits, folder=folder, address=address, tell=tell)
            with store_errors_as_outages(registry.uri), TemporaryDirectory() as temporary:
                runs = runs_of(spec, ledger, folder=folder)
                model = Path(temporary) / "model"
                save_model(candidate.package, folder=model)
                served = open_served(model, root=Path.cwd())
                with held_to(ledger.notes.data.fingerprints):
                    measured, reads = _measured_once(served, digest=candidate.digest, refits=refits, folder=folder)
                assert ledger.notes.test is not None
                candidate = replace(candidate, reads=reads + ledger.notes.test.reads)
                judged = _Judged(
                    spec=spec,
                    registry=registry,
                    runs=runs,
                    candidate=candidate,
                    served=served,
                    measured=measured,
                    place=Path(temporary),
                )
                return _carry_out(judged, dry_run=dry_run, force=force, tell=tell)


@contextmanager
def _stopped_by_changed_images() -> Iterator[None]:
    """The images were right when it began, so that they have changed is no mistake in what was given."""
    try:
        yield
    except ImagesChangedError as error:
        raise StoppedError(str(error)) from error


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """A candidate before the gate, with all that judging and registering it takes."""

    spec: SearchSpec
    registry: Registry
    runs: Any
    candidate: Candidate
    served: Served
    measured: Measured
    place: Path

    def evidence(self, champion: ModelVersion | None, *, own: ModelVersion | None) -> Evidence:
        """The candidate, which is registered as ``own`` if at all, beside a champion."""
        opened = None
        if champion is not None:
            folder = self.registry.download(champion, folder=self.place / f"version_{champion.number}")
            opened = open_served(folder, root=Path(champion.tags.get(ROOT, ".")))
        evidence = gather(self.served, self.measured, champion=opened, rule=self.spec.promote)
        return replace(evidence, rolled_back=own is not None and ROLLED_BACK in own.tags)


def _carry_out(judged: _Judged, *, dry_run: bool, force: bool, tell: Callable[[str], None]) -> Promotion:
    """Judge and do what follows; once more where the champion changed meanwhile."""
    registry, candidate = judged.registry, judged.candidate
    for _ in range(MOST_ROUNDS):
        if not dry_run:
            with registry.locked():  # finishes a switch that was cut off
                pass
        champion = registry.by_alias(CHAMPION)
        own = registry.of_candidate(candidate.digest)
        if champion is not None and own is not None and own.number == champion.number:
            return Promotion(
                outcome="unchanged",
                name=registry.name,
                version=own.number,
                champion=own.number,
                forced=False,
                verdict=Verdict(()),
                numbers={},
                candidate=candidate,
            )
        evidence = judged.evidence(champion, own=own)
        verdict = gate(evidence, rule=judged.spec.promote)
        before = None if champion is None else champion.number
        known: dict[str, Any] = {"verdict": verdict, "numbers": evidence.as_dict(), "candidate": candidate}
        if dry_run:
            return Promotion(
                outcome="dry run",
                name=registry.name,
                version=None if own is None else own.number,
                champion=before,
                forced=False,
                **known,
            )
        forced = force and not verdict.promote
        version = _registered(judged, evidence, verdict, forced=forced, known=own)
        if not verdict.promote and not force:
            return Promotion(
                outcome="refused", name=registry.name, version=version.number, champion=before, forced=False, **known
            )
        with registry.locked():
            now = registry.by_alias(CHAMPION)
            if (None if now is None else now.number) == before:
                registry.switch(version.number)
                return Promotion(
                    outcome="promoted",
                    name=registry.name,
                    version=version.number,
                    champion=before,
                    forced=forced,
                    **known,
                )
        tell(f"{registry.name}: another version became champion meanwhile; judging again")
    raise OutageError(f"{registry.name}: others keep promoting; try again later")


def _check_ready(spec: SearchSpec, ledger: Ledger) -> None:
    check_finished(spec, ledger)
    _check_images(spec, ledger)
    check_judgeable(spec, ledger)
    check_floors(spec, classes=list(ledger.notes.data.classes))


def check_floors(spec: SearchSpec, *, classes: Sequence[str]) -> None:
    """Raise UserError for a least recall of a class that there is not."""
    floors = spec.promote.min_recall
    for unknown in [one for one in floors if one not in classes] if isinstance(floors, dict) else ():
        raise UserError(f"promote.min_recall.{unknown}: there is no such class{nearest(unknown, classes)}")


def check_model_name(spec: SearchSpec) -> None:
    """Raise UserError where the registered model would have no valid name: an experiment may be called what a model may not."""
    if re.fullmatch(NAME_PATTERN, spec.model_name) is None:
        raise UserError(
            f"promote.model: missing, and {spec.model_name!r} (tracking.experiment) can be no model's name: letters, digits, "
            "`.`, `_`, `-`; `--set promote.model=NAME` gives one"
        )


def _check_images(spec: SearchSpec, ledger: Ledger) -> None:
    """Nothing may be trained or measured on other images than the search was."""
    best = best_trial(ledger.trials(), metric=spec.search.metric, choose_by=spec.search.choose_by)
    assert best is not None, "a finished search has a best trial"
    now = fingerprint_now(TrialConfig.model_validate(spec.config_of(best)))
    check_unchanged(now, known=ledger.notes.data.fingerprints["path"])


def _confirmed(
    spec: SearchSpec,
    ledger: Ledger,
    refits: Ledger,
    *,
    folder: Path,
    address: str | None,
    tell: Callable[[str], None],
) -> Candidate:
    """Refit, choose the best on validation images, package it."""

    def ended(trial: Trial) -> None:
        if trial.state != "RUNNING":
            value = trial.best(spec.search.metric)
            result = f"{spec.search.metric} {value:.4f}" if value is not None else str(trial.reason)
            tell(f"refit {trial.number}, seed {trial.params[SEED]}: {result}")

    confirmed = confirm(spec, ledger, refits, folder=folder, address=address, tell=ended)
    best = confirmed[0]
    if best.why_not:
        raise NoCandidateError(f"{spec.search.name}: no recipe held up on fresh seeds ({best.why_not})")
    model = best_model(best, metric=spec.search.metric)
    config, weights = weights_of(model, spec=spec, refits=refits, folder=folder)
    called = _content_key(_without_place(config, spec=spec), weights=weights)
    path = (folder / FOLDER / "packages" / called / PACKAGE.name).resolve()
    if not path.is_dir():
        package(TrialConfig.model_validate(config), folder=path, **weights)
    confirmed_now = CandidateNote(package=str(path.relative_to(folder.resolve())), said=model.recipe.said)
    note_candidate(refits, confirmed_now)
    return Candidate(model=model, package=path, digest=digest(path), confirmed=confirmed)


def _without_place(config: Mapping[str, Any], *, spec: SearchSpec) -> dict[str, Any]:
    """A configuration in which the weights of a step before the search bear its name: wherever the search lies it is the same."""
    weights = {str(spec.step_folder(step) / BACKBONE): step for step in STEPS}
    model = config.get("model", {})
    return {**config, "model": {**model, "weights": weights.get(model.get("weights"), model.get("weights"))}}


def _content_key(config: Mapping[str, Any], *, weights: Mapping[str, Path]) -> str:
    """Of what a package is made: refits of other searches, or trained anew, have other packages."""
    found = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for path in weights.values():
        for file in sorted(path.glob("*")) if path.is_dir() else [path]:
            if file.name != OPTIMIZER:
                found.update(file.read_bytes())
    return found.hexdigest()[:16]


def _measured_once(served: Served, *, digest: str, refits: Ledger, folder: Path) -> tuple[Measured, int]:
    """The candidate on its test images, read from what was written when it was measured first, where it was."""
    check_held(served.description["fingerprint"])
    images = encoded_images(served.config, split=served.tested_on)
    path = folder / FOLDER / f"test-{digest}.json"
    tested = refit_notes(refits).tested
    if not path.is_file():
        measured = measure(served, images=images)
        document = {"labels": measured.labels.tolist(), "predicted": measured.predicted.tolist()}
        with write_beside(path) as file:
            file.write(json.dumps(document).encode())
    if digest not in tested:
        tested = (*tested, digest)
        note_tested(refits, tested)
    document = json.loads(path.read_text())
    found = Measured(images, np.array(document["labels"]), np.array(document["predicted"]))
    return found, len(tested)


def _registered(
    judged: _Judged, evidence: Evidence, verdict: Verdict, *, forced: bool, known: ModelVersion | None
) -> ModelVersion:
    """The candidate's version with its verdict in tags and one sentence; the challenger from now on."""
    spec, candidate, registry = judged.spec, judged.candidate, judged.registry
    said = _sentence(spec, candidate, evidence=evidence, verdict=verdict, forced=forced)
    facts = {
        "search.study": spec.search.name,
        "search.recipe": candidate.model.recipe.said,
        "search.seed": str(candidate.model.seed),
        "data.fingerprint": str(judged.served.description["fingerprint"]),
        ROOT: str(judged.served.root.absolute()),
        **({"search.oracle": ORACLE} if judged.served.config.data.oracle else {}),
    }
    version = known
    if version is None:
        text = card(
            judged.served.description,
            spec=spec,
            model=candidate.model,
            confirmed=candidate.confirmed,
            evidence=evidence,
            reads=candidate.reads,
        )
        (judged.served.folder / "card.md").write_text(text)
        run_id = judged.runs.gate_run(candidate.digest, title=f"candidate: {candidate.model.recipe.said}")
        version = registry.register(
            candidate.digest, model=judged.served.folder, run_id=run_id, tags=facts, sentence=said
        )
    tags = {
        "gate.verdict": "yes" if verdict.promote else "no",
        "gate.forced": str(forced).lower(),
        "gate.reasons": "; ".join(verdict.reasons),
        "gate.numbers": to_json(_few(evidence.as_dict())),
    }
    registry.describe(version, tags=tags, sentence=said)
    registry.note_gate(version, {**verdict.as_dict(), "forced": forced, "numbers": evidence.as_dict()})
    registry.challenge(version)
    return version


def _few(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers without those of each class, which a tag has no room for; the gate's file has all."""
    return {
        name: {key: own for key, own in value.items() if key != "per_class"} if isinstance(value, dict) else value
        for name, value in numbers.items()
    }


def _sentence(spec: SearchSpec, candidate: Candidate, *, evidence: Evidence, verdict: Verdict, forced: bool) -> str:
    metric = spec.promote.metric
    found = evidence.test["metrics"][metric]
    decided = (
        "forced past the gate, which said no: " if forced else "passed the gate: " if verdict.promote else "refused: "
    )
    return (
        f"{candidate.model.recipe.said} of search {spec.search.name}, seed {candidate.model.seed}, test {metric} "
        f"{found['value']:.4f} ({found['low']:.4f} to {found['high']:.4f}); {decided}{'; '.join(verdict.reasons)}."
    )
