"""The runs of one search in one MLflow store: found, made, brought up to date.

Every call may fail, as stores do; each can be repeated and then adds only what is missing.
"""

import getpass
import hashlib
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from search.ledger.files import PAGE, best_checkpoint
from search.ledger.ledger import Ledger
from search.ledger.notes import BaselineScore
from search.ledger.trials import Trial, best_trial
from search.space.spec import SearchSpec, resume_command
from search.tracking import projection
from search.tracking.classes import class_files
from search.tracking.projection import DataUsed, Point, SearchPlace, SearchState
from search.tracking.uri import artifact_folder, folder_name, page_address
from search.tracking.views import experiment_link, links_of_tags, view_tags, views
from trainable.json_text import to_json

STORE_ERRORS = (MlflowException, SQLAlchemyError, OSError)
METRICS_PER_BATCH = 800  # of MLflow's 1000 items a request; params and tags need the rest
PARAMS_PER_BATCH = 100
RUNS_PER_PAGE = 200
KIND_OF_EXPERIMENT = "custom_model_development"
# By what tag the runs of a kind are told apart.
_KEY_TAG = {
    "study": "search.id",
    "trial": "search.trial",
    "baseline": "search.baseline",
    "refit": "search.refit",
    "gate": "search.candidate",
}
# Tags of the search's run that tell which version of a file of its is there.
_REPORT_TAG, _CONFIGURATION_TAG, _PAGE_TAG = "search.data_report", "search.configuration", "search.page"
_CLASSES_TAG = "search.classes"
CONFIGURATION = "configuration.yaml"
_RUN_STATUS = {"COMPLETE": "FINISHED", "PRUNED": "FINISHED", "FAILED": "FAILED"}
_SEARCH_STATUS: dict[SearchState, str] = {
    "running": "RUNNING",
    "finished": "FINISHED",
    "interrupted": "KILLED",
    "failed": "KILLED",
}


@dataclass
class RunEntry:
    """What a run in the store is known to hold; ``epochs`` is None before its params are written."""

    run_id: str
    status: str
    tags: dict[str, str]

    @property
    def epochs(self) -> int | None:
        """How many epochs are logged."""
        return int(self.tags["search.epochs"]) if "search.epochs" in self.tags else None


class Runs:
    """One parent run for the search, one child for each trial, baseline, refit and gate, found again by tags.

    ``_entries`` has them by kind and by what tells runs of a kind apart.
    """

    def __init__(self, place: SearchPlace, *, ledger: Ledger, uri: str) -> None:
        self.place = place
        self.links: dict[str, str] = {}
        self._ledger = ledger
        self._uri = uri
        self._client = MlflowClient(tracking_uri=uri)
        self._source = source_tags(place.folder)
        self._entries: dict[tuple[str, str], RunEntry] = {}
        self._search_points: set[Point] = set()
        self._experiment = ""

    def find(self) -> None:
        """Open the experiment, take over the search's runs that are there, make the parent if it is not."""
        self._experiment = open_experiment(self._client, self.place.spec, uri=self._uri)
        self._entries = {}
        self._search_points = set()
        for run in self._stored_runs():
            self._take_over(run)
        if self._study not in self._entries:
            self._create("study", title=self.place.spec.search.name, started=self.place.began, tags=self._study_tags())
        self._write_data_report(self._entries[self._study])
        self._write_configuration(self._entries[self._study])
        self._write_views()

    def write_trial(self, trial: Trial, *, is_open: bool) -> None:
        """Bring a trial's run up to date; of a search that is not ``is_open`` no run stays RUNNING."""
        entry = self._entries.get(("trial", str(trial.number))) or self._create_trial(trial)
        self._bring_up_to_date(entry, trial, is_open=is_open, more={})

    def write_refit(self, trial: Trial, *, seed: int, of: int) -> None:
        """Bring the run of a refit of trial ``of`` up to date; ``trial`` has the search's parameters."""
        entry = self._entries.get(("refit", str(trial.number))) or self._create_refit(trial, seed=seed, of=of)
        self._bring_up_to_date(entry, trial, is_open=False, more={"seed": str(seed), "cfg.seed": str(seed)})

    def gate_run(self, candidate: str, *, title: str) -> str:
        """The id of the run in which a candidate was judged and its model lies; made where there is none."""
        entry = self._entries.get(("gate", candidate))
        if entry is None:
            entry = self._create("gate", title=title, started=None, tags={**self._child, "search.candidate": candidate})
        if entry.status != "FINISHED":
            self._terminate(entry, status="FINISHED", time=None)
        return entry.run_id

    def _bring_up_to_date(self, entry: RunEntry, trial: Trial, *, is_open: bool, more: dict[str, str]) -> None:
        status = _RUN_STATUS.get(trial.state, "RUNNING" if is_open else "KILLED")
        if status == "RUNNING" and entry.status != "RUNNING":
            self._reopen(entry)
        tags = projection.trial_tags(trial, rungs=self.place.spec.scheduler.rungs)
        if not tags.items() <= entry.tags.items():
            points = projection.trial_points(trial, metric=self._metric, after=entry.epochs or 0)
            params = {} if entry.epochs is not None else projection.trial_params(trial, spec=self.place.spec) | more
            self._log(entry, points=points, params=params, tags=tags)
        if entry.status != status:
            self._terminate(entry, status=status, time=projection.trial_ended(trial))

    def write_search(self, trials: Sequence[Trial], *, state: SearchState) -> None:
        """Bring the parent run, the mark on the best trial, the experiment's note up to date."""
        entry, spec, notes = self._entries[self._study], self.place.spec, self._ledger.notes
        if state == "running" and entry.status != "RUNNING":
            self._reopen(entry)
        points = projection.search_points(
            trials, notes=notes, metric=self._metric, began=self.place.began, choose_by=spec.search.choose_by
        )
        new = [point for point in points if point not in self._search_points]
        resume = resume_command(spec)
        note = projection.search_note(trials, spec=spec, data=self.place.data, resume=resume, notes=notes)
        tags = {"search.state": state, "mlflow.note.content": note}
        tags |= projection.verdict_tags(trials, spec=spec, notes=notes)
        self._log(entry, points=new, params={}, tags=tags)
        self._search_points |= set(new)
        for name, score in notes.baselines.items():
            self._write_baseline(name, score)
        self._mark_best(best_trial(trials, metric=self._metric, choose_by=spec.search.choose_by))
        text = projection.experiment_note(trials, spec=spec, links=self._view_links(page=""))
        self._client.set_experiment_tag(self._experiment, "mlflow.note.content", text)
        status = _SEARCH_STATUS[state]
        if entry.status != status:
            self._terminate(
                entry, status=status, time=max(map(projection.trial_ended, trials), default=self.place.began)
            )
        if state == "finished":  # at last, since they are the largest, and some stores are slow
            self._write_classes(trials)
            self._write_page(entry)

    @staticmethod
    def is_refusal(error: Exception) -> bool:
        """Whether the store took a request for wrong, so that others may still succeed."""
        if not isinstance(error, MlflowException):
            return False
        return error.get_http_status_code() in (400, 404)  # type: ignore[no-untyped-call]

    @property
    def _metric(self) -> str:
        return self.place.spec.search.metric

    def _stored_runs(self) -> Iterator[Run]:
        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment],
                filter_string=f"tags.`search.id` = '{self.place.search_id}'",
                max_results=RUNS_PER_PAGE,
                page_token=token,
            )
            yield from page
            token = page.token
            if not token:
                return

    def _take_over(self, run: Run) -> None:
        """Of two runs of a trial, which a lost answer to a request can leave, the fuller one stays."""
        tags = dict(run.data.tags)
        kind = tags["search.kind"]
        key = (kind, tags[_KEY_TAG[kind]])
        entry = RunEntry(run.info.run_id, run.info.status, tags)
        twin = self._entries.get(key)
        if twin is not None and kind != "gate":  # whose files a registered version may name
            entry, surplus = sorted(
                (entry, twin), key=lambda candidate: (candidate.epochs or 0, candidate.run_id), reverse=True
            )
            self._client.delete_run(surplus.run_id)
        self._entries[key] = entry

    def _create_trial(self, trial: Trial) -> RunEntry:
        tags = {**self._child, "search.trial": str(trial.number), "search.origin": trial.origin}
        title = projection.trial_title(trial, spec=self.place.spec)
        return self._create("trial", title=title, started=projection.trial_started(trial), tags=tags)

    def _create_refit(self, trial: Trial, *, seed: int, of: int) -> RunEntry:
        tags = {**self._child, "search.refit": str(trial.number), "search.refit_of": str(of)}
        title = f"refit {trial.number} of trial {of}, seed {seed}"
        return self._create("refit", title=title, started=projection.trial_started(trial), tags=tags)

    def _write_baseline(self, name: str, score: BaselineScore) -> None:
        """What trials are compared with, as a run beside theirs, ended when it is written."""
        entry = self._entries.get(("baseline", name))
        if entry is None:
            tags = {**self._child, "search.baseline": name}
            entry = self._create("baseline", title=f"baseline: {name}", started=self.place.began, tags=tags)
        tags = {"search.state": "baseline", "search.digest": projection.digest_of(score)}
        if not tags.items() <= entry.tags.items():
            spec = self.place.spec
            points = projection.baseline_points(
                score, metric=self._metric, epochs=spec.scheduler.max_epochs, time=self.place.began
            )
            self._log(entry, points=points, params={}, tags=tags)
        if entry.status != "FINISHED":
            self._terminate(entry, status="FINISHED", time=self.place.began)

    def _create(self, kind: str, *, title: str, started: int | None, tags: Mapping[str, str]) -> RunEntry:
        identity = {
            "search.id": self.place.search_id,
            "search.study": self.place.spec.search.name,
            "search.kind": kind,
        }
        if self.place.spec.base.get("data.oracle"):
            identity["search.oracle"] = "true"
        run = self._client.create_run(
            self._experiment, start_time=started, run_name=title, tags={**self._source, **identity, **tags}
        )
        entry = RunEntry(run.info.run_id, run.info.status, dict(run.data.tags))
        self._entries[kind, entry.tags[_KEY_TAG[kind]]] = entry
        self._client.log_inputs(run.info.run_id, datasets=[_dataset(self.place.data)])
        return entry

    @property
    def _study(self) -> tuple[str, str]:
        return ("study", self.place.search_id)

    @property
    def _child(self) -> dict[str, str]:
        return {"mlflow.parentRunId": self._entries[self._study].run_id}

    def _study_tags(self) -> dict[str, str]:
        environment = {f"env.{name}": text for name, text in self._ledger.notes.environment.items()}
        return {"search.folder": str(self.place.folder)} | environment

    def _log(
        self, entry: RunEntry, *, points: Sequence[Point], params: Mapping[str, str], tags: Mapping[str, str]
    ) -> None:
        """Params, metrics, at last the tags that say they are there."""
        items = [Param(name, text) for name, text in params.items()]
        for start in range(0, len(items), PARAMS_PER_BATCH):
            self._client.log_batch(entry.run_id, params=items[start : start + PARAMS_PER_BATCH])
        metrics = [Metric(point.name, point.value, point.time, point.step) for point in points]
        rest = len(metrics) % METRICS_PER_BATCH
        for start in range(0, len(metrics) - rest, METRICS_PER_BATCH):
            self._client.log_batch(entry.run_id, metrics=metrics[start : start + METRICS_PER_BATCH])
        self._client.log_batch(
            entry.run_id,
            metrics=metrics[len(metrics) - rest :],
            tags=[RunTag(name, text) for name, text in tags.items()],
        )
        entry.tags |= tags

    def _reopen(self, entry: RunEntry) -> None:
        self._client.update_run(entry.run_id, status="RUNNING")
        entry.status = "RUNNING"

    def _terminate(self, entry: RunEntry, *, status: str, time: int | None) -> None:
        self._client.set_terminated(entry.run_id, status=status, end_time=time)
        entry.status = status

    def _mark_best(self, best: Trial | None) -> None:
        trials = {number: entry for (kind, number), entry in self._entries.items() if kind == "trial"}
        for number, entry in trials.items():
            is_best = best is not None and number == str(best.number)
            if is_best and entry.tags.get("search.best") != "true":
                self._client.set_tag(entry.run_id, "search.best", "true")
                entry.tags["search.best"] = "true"
            elif not is_best and "search.best" in entry.tags:
                self._client.delete_tag(entry.run_id, "search.best")
                del entry.tags["search.best"]

    def _write_data_report(self, entry: RunEntry) -> None:
        """What was noticed about the images, once for each version of them."""
        report = self._ledger.notes.data.report
        if report:
            files = {
                "data.json": to_json(report, indent=2),
                "data.txt": "\n".join(report["lines"]) + "\n",
            }
            self._write_files(entry, files, tag=_REPORT_TAG, version=self.place.data.digest)

    def _write_configuration(self, entry: RunEntry) -> None:
        """What no trial changes, once for all of them."""
        files = {CONFIGURATION: projection.fixed_text(self.place.spec)}
        self._write_files(entry, files, tag=_CONFIGURATION_TAG, version=CONFIGURATION)

    def _write_classes(self, trials: Sequence[Trial]) -> None:
        """The validation images class by class, of each trial whose best checkpoint the search keeps."""
        for trial in trials:
            entry = self._entries.get(("trial", str(trial.number)))
            checkpoint = best_checkpoint(self.place.folder, trial, metric=self._metric)
            files = {} if checkpoint is None else class_files(checkpoint)
            if entry is not None and files:
                self._write_files(entry, files, tag=_CLASSES_TAG, version=_version(files))

    def _write_page(self, entry: RunEntry) -> None:
        """The search's page as it lies in its folder."""
        page = self.place.folder / PAGE
        if page.is_file():
            files = {PAGE: page.read_text(encoding="utf-8")}
            self._write_files(entry, files, tag=_PAGE_TAG, version=_version(files))

    def _write_files(self, entry: RunEntry, files: Mapping[str, str], *, tag: str, version: str) -> None:
        """Texts by name, unless that version of them is there; a store of artifacts that refuses is asked again next time."""
        if entry.tags.get(tag) == version:
            return
        with suppress(Exception):  # each kind of store has errors of its own
            for name, text in files.items():
                self._client.log_text(entry.run_id, text, name)
            self._client.set_tag(entry.run_id, tag, version)
            entry.tags[tag] = version

    def _write_views(self) -> None:
        """Views are a convenience: a store that refuses them holds the same data."""
        page = page_address(self._uri)
        self.links = {"runs": experiment_link(page, self._experiment)}
        with suppress(MlflowException):
            for name, text in self._view_tags().items():
                self._client.set_experiment_tag(self._experiment, name, text)
            self.links = self._view_links(page=page)

    def _view_tags(self) -> dict[str, str]:
        spec = self.place.spec
        saved = views(spec.space, metric=self._metric, study=spec.search.name, search_id=self.place.search_id)
        return view_tags(saved, time=self.place.began)

    def _view_links(self, *, page: str) -> dict[str, str]:
        linked = links_of_tags(page, self._experiment, tags=self._view_tags())
        return {name.rpartition(": ")[2]: address for name, address in linked.items()}


def _version(files: Mapping[str, str]) -> str:
    return hashlib.blake2b("\n".join(files.values()).encode(), digest_size=16).hexdigest()


def find_search_run(spec: SearchSpec, *, uri: str, search_id: str) -> str | None:
    """Find the run of a whole search in MLflow; None where there is none. Raises what the store raises."""
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(spec.tracking.experiment or spec.search.name)
    if experiment is None:
        return None
    wanted = f"tags.`search.id` = '{search_id}' and tags.`search.kind` = 'study'"
    runs = client.search_runs([experiment.experiment_id], filter_string=wanted, max_results=1)
    return str(runs[0].info.run_id) if runs else None


def open_experiment(client: MlflowClient, spec: SearchSpec, *, uri: str) -> str:
    """The id of a search's experiment; made where there is none."""
    name = spec.tracking.experiment or spec.search.name
    experiment = client.get_experiment_by_name(name)
    if experiment is not None and experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    if experiment is not None:
        return str(experiment.experiment_id)
    folder = artifact_folder(uri)
    location = None if folder is None else f"{folder}/{folder_name(name)}"
    tags = {"mlflow.experimentKind": KIND_OF_EXPERIMENT}
    return str(client.create_experiment(name, artifact_location=location, tags=tags))


def _dataset(data: DataUsed) -> DatasetInput:
    dataset = Dataset(data.name, data.digest, source_type="local", source=data.source, profile=data.profile)
    return DatasetInput(dataset, tags=[InputTag("mlflow.data.context", "training")])


def source_tags(folder: Path) -> dict[str, str]:
    """Who runs it and from where: MLflow fills these in only for runs of its own making."""
    tags = {"mlflow.source.type": "LOCAL", "mlflow.source.name": Path(sys.argv[0]).name or "search"}
    with suppress(OSError, KeyError):
        tags["mlflow.user"] = getpass.getuser()
    with suppress(OSError, subprocess.SubprocessError):
        command = ["git", "rev-parse", "HEAD"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
        tags["mlflow.source.git.commit"] = answer.stdout.strip()
    return tags
