"""One search from beginning to end: prepared, searched, scored, each step recorded so that it is done once."""

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from importlib import import_module
from itertools import chain, product
from pathlib import Path
from typing import Any

from search.engine.clock import Clock
from search.engine.conductor import OUT_OF_TIME, Conductor
from search.engine.confirming import Confirming
from search.engine.failure import fail_endlessly
from search.engine.limits import Limits
from search.engine.listeners import Listener, Outcome
from search.engine.sampling import sampling_rule
from search.engine.schedulers import scheduler_rule
from search.ledger import ledger as ledgers
from search.ledger.lease import lease
from search.ledger.ledger import Ledger, NoSearchError, identify
from search.ledger.notes import DataFacts
from search.ledger.planned import kept_plan
from search.ledger.stored import SPEC_FILE, as_written, open_ledger_of, study_name
from search.ledger.trials import Trial
from search.run.backbones import choose_backbones
from search.run.baselines import any_params, begin_baselines
from search.run.confirm import Workshop, confirming
from search.run.finish import finish
from search.run.keeping import Keeper
from search.run.pretraining import run_steps
from search.run.probes import begin_probes, probe_scores
from search.run.timekeeper import Timekeeper, clock_of, steady_now
from search.run.warm_start import note_warm_start, warm_recipes
from search.space.dimension import Choice
from search.space.preflight import check_code, check_techniques
from search.space.sections import STEPS
from search.space.spec import SearchSpec, difference
from search.space.values import Value
from search.tracking import uri
from search.tune import machine
from search.tune.cluster import check_address, cluster, total_resources
from search.tune.nursery import Nursery
from search.tune.place import (
    INTERRUPTED,
    Packing,
    Place,
    check_local_resources,
    concurrency,
    gpu_share,
    interruptible,
    make_places,
)
from search.tune.submit import submit
from trainable.atomic import write_beside
from trainable.config.renamed import space_with_new_names
from trainable.config.trial import NO_SAY_IN_IMAGES
from trainable.data.image_guard import ImagesChangedError, check_unchanged
from trainable.errors import UserError
from trainable.loader.own_code import import_code

logger = logging.getLogger(__name__)

# What decides whether data can be packed and a backbone built, but of data those that have no say in it.
PREPARED = (
    "data.",
    "distill.unlabelled",
    "model.name",
    "model.weights",
    "model.until",
    "model.pool",
    "model.drop_path",
)
UNPREPARED = (*(f"data.{name}" for name in NO_SAY_IN_IMAGES), "distill.unlabelled_share")


def search_folder(spec: SearchSpec) -> Path:
    """Where everything of a search lies that is not in its storage."""
    return Path(spec.search.folder) / spec.search.name


def run_search(
    spec: SearchSpec,
    *,
    address: str | None,
    listeners: list[Listener],
    ahead: Nursery | None = None,
    began: float | None = None,
    now: Callable[[], float] = steady_now,
) -> Outcome:
    """Begin the search, or go on with it where it stands; ``ahead`` is where this machine's workers are forked.

    Its time counts by ``now``, from when the command ``began``, else from here.

    Raises UserError, before any worker is asked for, for data, weights or names that cannot be used and for a search of
    this name over another space; HeldError for one that another process is running, ImagesChangedError for one of other images,
    LedgerFailsError where its database does not answer.
    """
    began = now() if began is None else began
    folder = search_folder(spec)
    uri.check_uri(spec.tracking.uri)
    check_techniques(spec)
    check_code(spec, look=import_code)
    check_address(address)
    if address is None:
        check_local_resources(spec)
    with lease(folder):
        ledgers.mend_journal(folder / ledgers.JOURNAL)
        begun = _begun_as(spec, folder)
        if begun is not None:
            _refuse_another_space(spec, begun)
        with cluster(address=address, ahead=ahead):
            facts = _prepare(spec, _looked_at_first(spec), is_joined=address is not None)
            ledger = _open(spec, folder, facts, is_new=begun is None, is_joined=address is not None)
            timekeeper = Timekeeper(ledger, began=began, now=now)
            listeners = [timekeeper, *listeners]  # whoever shows the time at the end hears of the end after it
            for listener in listeners:
                listener.begin(ledger, spec=spec, rule=scheduler_rule(spec))
            outcome = Outcome("failed", "the search broke off", folder)
            try:
                clock = clock_of(spec, data=ledger.notes.data, timekeeper=timekeeper)
                outcome = _with_workers(
                    spec, ledger, folder=folder, is_joined=address is not None, listeners=listeners, clock=clock
                )
            except ImagesChangedError as error:
                outcome = Outcome("failed", str(error), folder)
            except KeyboardInterrupt:
                outcome = Outcome("interrupted", INTERRUPTED, folder)
                raise
            finally:
                _end(listeners, ledger, outcome=outcome)
    return outcome


def _end(listeners: Sequence[Listener], ledger: Ledger, *, outcome: Outcome) -> None:
    """Let every listener hear of the end, in order, also where another fails."""
    with ExitStack() as stack:
        for listener in reversed(listeners):
            stack.callback(listener.end, ledger, outcome=outcome)


def _begun_as(spec: SearchSpec, folder: Path) -> SearchSpec | None:
    """What the search of this name was begun as; None where there is none, or one killed while it was being created."""
    try:
        ledger = open_ledger_of(spec, folder=folder)
    except NoSearchError:
        return None
    stored = ledger.notes.spec
    return None if stored is None else SearchSpec.model_validate(space_with_new_names(stored))


def _refuse_another_space(spec: SearchSpec, begun: SearchSpec) -> None:
    changes = difference(begun, spec)
    if changes:
        more = f" (and {len(changes) - 1} more)" if len(changes) > 1 else ""
        raise UserError(
            f"search.name: a search {spec.search.name!r} exists and differs, {changes[0]}{more}; give this one another --name"
        )


def _prepare(spec: SearchSpec, trials: list[dict[str, Any]], *, is_joined: bool) -> DataFacts:
    """The facts of the data: looked up by a worker, but of a cluster here, whose nodes find here what they share."""
    if is_joined:
        from search.tune.preparation import prepare  # which loads what computes

        return prepare(trials, check_device=False)
    place = Place(
        cpu=spec.resources.cpu,
        gpu=gpu_share(spec, is_joined=False)(),
        threads=1,
        fingerprints={},
        directory=str(Path.cwd()),
    )
    result = submit("prepared", trials, place=place)
    import_module("search.tune.tuner")  # Tune, which is needed next, takes half a second to load
    facts: DataFacts
    facts, warnings = result()
    for line in warnings:
        logger.warning(line)
    return facts


def _looked_at_first(spec: SearchSpec) -> list[dict[str, Any]]:
    """What is prepared before anything else: of backbones that are to be chosen among no weights, of which most go unused."""
    if spec.select_backbones is None:
        return _variants(spec, among=PREPARED)
    trials = _variants(spec, among=("data.",))
    return [trial | {"model": trial.get("model", {}) | {"weights": "random"}} for trial in trials]


def _variants(spec: SearchSpec, *, among: tuple[str, ...]) -> list[dict[str, Any]]:
    """Configurations that between them have every data set, image size, backbone and weights ``among`` these paths."""
    searched = spec.space.dimensions.items()
    dimensions = {path: dimension for path, dimension in searched if path.startswith(among) and path not in UNPREPARED}
    values = [
        dimension.members if isinstance(dimension, Choice) else dimension.extremes for dimension in dimensions.values()
    ]
    configs: dict[str, dict[str, Any]] = {}
    for combination in product(*values):
        point: dict[str, Value] = {**any_params(spec), **dict(zip(dimensions, combination, strict=True))}
        active = spec.space.active(point)
        config = spec.trial_config({path: value for path, value in point.items() if path in active})
        if point.get("model.weights", spec.base.get("model.weights")) in STEPS:
            config["model"]["weights"] = "random"  # what a step trains is not there yet
        configs.setdefault(
            repr([config.get("data"), [point.get(path) for path in dimensions if path in active]]), config
        )
    return list(configs.values())


def _open(spec: SearchSpec, folder: Path, facts: DataFacts, *, is_new: bool, is_joined: bool) -> Ledger:
    if is_new:  # before its ledger, so that a search killed in between can be resumed
        _keep_spec(spec, folder)
    written = as_written(spec, folder=folder).model_dump(mode="json")
    notes = {"metric": spec.search.metric, "spec": written, "data": facts}
    ledger = ledgers.create(
        folder,
        name=study_name(spec, folder=folder),
        storage=spec.search.storage,
        metric=spec.search.metric,
        space=spec.space,
        notes=notes,
    )
    identify(ledger)
    if is_new and not is_joined and (planned := kept_plan(spec, folder=folder)) is not None:
        ledger.note(planned=planned)
    if not ledger.notes.environment:
        ledger.note(environment=machine.environment())
    stored_facts = ledger.notes.data
    check_unchanged(facts.fingerprint, known=[stored_facts.fingerprint])
    if "fingerprints" not in ledger.stored_notes()["data"]:  # begun before they were noted
        ledger.note(data=replace(stored_facts, fingerprints=facts.fingerprints))
    note_warm_start(spec, ledger, data=facts)
    ledger.note(spec=written)
    if ledger.notes.confirmation is not None:  # going on: others may be the last candidates, and their refits are kept
        ledger.confirm(None)
    _keep_spec(spec, folder)
    return ledger


def _keep_spec(spec: SearchSpec, folder: Path) -> None:
    text = as_written(spec, folder=folder).model_dump_json(indent=1)
    with write_beside(folder / SPEC_FILE) as file:
        file.write(text.encode())


def _with_workers(
    spec: SearchSpec,
    ledger: Ledger,
    *,
    folder: Path,
    is_joined: bool,
    listeners: list[Listener],
    clock: Clock | None,
) -> Outcome:
    from search.tune.tuner import run_legs

    place = make_places(spec, ledger=ledger, is_joined=is_joined)
    if ledger.notes.finished:  # once more: enlarged perhaps, and not finished before it says so again
        ledger.note(finished=False)
    run_steps(spec, ledger, place=place())
    spec = _with_chosen_backbones(spec, ledger, place=place, is_joined=is_joined)
    tell = _tell(listeners, keeper=Keeper(folder, spec=spec, trials=ledger.trials()))
    workshop = _workshop(spec, folder=folder, place=place, is_joined=is_joined, listeners=listeners, clock=clock)
    conductor = Conductor(
        ledger,
        space=spec.space,
        rule=scheduler_rule(spec),
        sampling=sampling_rule(spec, warm=warm_recipes(spec, ledger)),
        limits=workshop.limits,
        on_change=tell,
    )
    begin_probes(spec, ledger)
    waiting = begin_baselines(spec, ledger, params=any_params(spec), folder=folder, place=place())
    packing = Packing(spec, place=place, trials=ledger.trials)
    with interruptible(conductor):
        run_legs(
            conductor,
            trial_config=spec.config_of,
            place=packing.of,
            concurrency=lambda: packing.at_once(can_grow=is_joined),
            folder=folder,
            on_step=workshop.on_step,
            epoch_limit_seconds=spec.search.epoch_limit_seconds,
        )
    if not conductor.finished:
        interrupted = conductor.stopping == INTERRUPTED
        return Outcome("interrupted" if interrupted else "failed", conductor.stopping or "no worker", folder)
    for scores in chain([probe_scores(ledger)], (result() for result in waiting)):
        ledger.note(baselines={**ledger.notes.baselines, **scores})
    return finish(spec, ledger, folder=folder, workshop=workshop, reason=_why_over(conductor, spec), on_change=tell)


def _with_chosen_backbones(
    spec: SearchSpec, ledger: Ledger, *, place: Callable[[], Place], is_joined: bool
) -> SearchSpec:
    """The search over those of its backbones that are worth it, which are then prepared as all are where none is chosen."""
    if spec.select_backbones is None:
        return spec
    at_once = concurrency(spec, available=total_resources(), gpu=place().gpu, can_grow=False)
    chosen = choose_backbones(spec, ledger, params=any_params(spec), place=place(), at_once=at_once, now=steady_now)
    _prepare(chosen, _variants(chosen, among=PREPARED), is_joined=is_joined)
    return chosen


def _why_over(conductor: Conductor, spec: SearchSpec) -> str:
    """Why nothing more is trained."""
    if conductor.out_of_time:
        budget = spec.search.budget
        asked = f"minutes: {budget.minutes:g}" if budget.minutes is not None else f"hours: {budget.hours:g}"
        return f"{OUT_OF_TIME} (search.budget.{asked})"
    if conductor.enough is not None:
        return conductor.enough
    if spec.search.trials is None and fail_endlessly(conductor.ledger.trials()):
        return "the latest trials all failed at once, more are begun with search.trials alone"
    return "every configuration of the space has been tried" if conductor.exhausted else "every trial is decided"


def _workshop(
    spec: SearchSpec,
    *,
    folder: Path,
    place: Callable[[], Place],
    is_joined: bool,
    listeners: list[Listener],
    clock: Clock | None,
) -> Workshop:
    """With what this process trains, and what of the budget it keeps for the last candidates."""
    at_once = concurrency(spec, available=total_resources(), gpu=place().gpu, can_grow=False)
    kept = confirming(spec, folder=folder, at_once=at_once)

    def tell(refit: Trial, of: int) -> None:
        for listener in listeners:
            listener.refit_changed(refit, of=of)

    return Workshop(
        place=place,
        is_joined=is_joined,
        at_once=at_once,
        limits=_limits(spec, gpu=place().gpu, clock=clock, kept=kept),
        refit_changed=tell,
        on_step=_pulse(listeners),
    )


def _limits(spec: SearchSpec, *, gpu: float, clock: Clock | None, kept: Confirming | None) -> Limits:
    budget = spec.search.budget
    if clock is not None and kept is not None:
        clock = replace(clock, kept=partial(kept.time_kept, budget=clock.asked_seconds))
    return Limits(
        trials=spec.search.trials,
        epochs=budget.epochs,
        gpu_hours=budget.gpu_hours,
        clock=clock,
        gpus=gpu or 1.0,
        confirming=kept,
        tolerance=spec.search.tolerance,
        max_failures=spec.search.max_failures,
        max_losses=spec.search.max_losses,
        constraints=spec.search.constraints,
    )


def _tell(listeners: list[Listener], *, keeper: Keeper) -> Callable[[Trial], None]:
    def changed(trial: Trial) -> None:
        keeper.changed(trial)
        for listener in listeners:
            listener.changed(trial)

    return changed


def _pulse(listeners: list[Listener]) -> Callable[[], None]:
    def pulse() -> None:
        for listener in listeners:
            listener.pulse()

    return pulse
