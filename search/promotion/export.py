"""The `export` command: a search's best network, or a registered one, as files for other runtimes."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.table import Table

from search.ledger.files import kept_checkpoint, soup_path
from search.ledger.ledger import Ledger
from search.ledger.refits import existing_refits, refit_notes
from search.ledger.stored import check_finished, open_ledger
from search.promotion.packaged import config_with_data_below
from search.space.spec import SearchSpec
from search.tracking.registry import ROOT, download, log_files, resolve, store_errors_as_outages
from search.tracking.runs import find_search_run
from search.tracking.uri import StoreFailsError, check_uri
from trainable.config.trial import TrialConfig
from trainable.data.packaged import PACKAGE
from trainable.deploy.exporting import TABLE, Wanted, export_weights_file
from trainable.errors import UserError
from trainable.serving.classifier import DESCRIPTION, WEIGHTS
from trainable.serving.package import package
from trainable.training.finishing import read_finish

FOLDER = "export"
COLUMNS = {
    "name": "variant",
    "size_mb": "MB",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced",
    "agreement": "agrees",
    "max_difference": "differs by",
    "latency_ms_1": "ms, 1 image",
    "latency_ms_32": "ms, 32 images",
    "file": "file",
}


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was exported, where the files are, a row for each variant; ``note`` says why MLflow has none of it."""

    what: str
    folder: Path
    rows: list[dict[str, Any]]
    note: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """A plain dict for JSON."""
        return {"exported": self.what, "folder": str(self.folder), "variants": self.rows, "note": self.note}


def export(name: str, *, folder: Path, uri: str | None, out: Path | None, wanted: Wanted) -> Exported:
    """Write what is ``wanted`` of a search's network, or of ``models:/…``, into ``out``; its table goes to MLflow too.

    Of a search that is the candidate that ``promote`` confirmed, else the best checkpoint, or the soup where it was kept.
    Raises UserError for a name that is none, data that are gone, and what cannot be exported.
    """
    with _source(name, folder=folder, uri=uri) as source:
        description = json.loads((source.package / DESCRIPTION).read_text())
        place = out or source.out
        if place.exists() and not place.is_dir():
            raise UserError(f"--out: {place} is a file; name a folder")
        variants = export_weights_file(
            config_with_data_below(description["config"], root=source.root),
            weights=source.package / WEIGHTS,
            classes=description["classes"],
            wanted=wanted,
            folder=place,
            views=read_finish(description.get("finish", {})).views,
        )
        rows = [variant.as_dict() for variant in variants]
        files = [place / TABLE, *(place / row["file"] for row in rows if row["file"] is not None)]
        return Exported(what=source.what, folder=place, rows=rows, note=_log(source, files=files))


def variants_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The rows for a terminal."""
    table = Table(*COLUMNS.values(), box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(_cell(row[key]) for key in COLUMNS))
    return table


@dataclass(frozen=True, kw_only=True)
class _Source:
    """A package, what it is, where its files go if nothing is said, and how to find the MLflow run they belong to."""

    what: str
    package: Path
    out: Path
    uri: str
    find_run: Callable[[], str | None]
    root: Path


@contextmanager
def _source(name: str, *, folder: Path, uri: str | None) -> Iterator[_Source]:
    if not name.startswith("models:"):
        yield _of_search(folder / name)
        return
    address = check_uri(uri or "sqlite:///mlflow.db")
    version = resolve(address, name)
    with TemporaryDirectory() as temporary:
        package_folder = download(address, version.uri, folder=Path(temporary)) / PACKAGE
        out = Path("exports") / f"{version.name}-{version.number}"
        yield _Source(
            what=version.uri,
            package=package_folder,
            out=out,
            uri=address,
            find_run=lambda: version.run_id,
            root=Path(version.tags.get(ROOT, ".")),
        )


def packaged_final(folder: Path) -> Path:
    """The package of the search in ``folder``: of the candidate that ``promote`` confirmed, else of its final candidate."""
    spec, ledger = open_ledger(folder)
    return _packaged(spec, ledger, folder=folder)[1]


def _packaged(spec: SearchSpec, ledger: Ledger, *, folder: Path) -> tuple[str, Path]:
    refits = existing_refits(spec, folder=folder)
    candidate = None if refits is None else refit_notes(refits).candidate
    if candidate is not None:
        return candidate.recipe, _there(folder / candidate.package)
    return _package_final(spec, ledger, folder=folder)


def _of_search(folder: Path) -> _Source:
    spec, ledger = open_ledger(folder)
    what, path = _packaged(spec, ledger, folder=folder)
    address, identity = check_uri(spec.tracking.uri), ledger.notes.identity

    def find_run() -> str | None:
        return None if identity is None else find_search_run(spec, uri=address, search_id=identity.id)

    return _Source(
        what=f"{folder.name}: {what}",
        package=path,
        out=folder / FOLDER,
        uri=address,
        find_run=find_run,
        root=Path.cwd(),
    )


def _log(source: _Source, *, files: Sequence[Path]) -> str | None:
    """Put the files beside the model's run; where that cannot be, say why."""
    try:
        with store_errors_as_outages(source.uri):
            run_id = source.find_run()
        if run_id is None:
            return "not in MLflow, which has no run of this search yet; `sync` writes it there"
        log_files(source.uri, run_id=run_id, files=files, under=FOLDER)
    except StoreFailsError as error:
        return f"not in MLflow: {error}"
    return None


def _there(path: Path) -> Path:
    """The path. UserError where nothing is there."""
    if not path.exists():
        raise UserError(f"{path}: is gone; put it back from a copy, or promote or run the search again")
    return path


def _package_final(spec: SearchSpec, ledger: Ledger, *, folder: Path) -> tuple[str, Path]:
    """Package the final candidate of a search that was not promoted."""
    check_finished(spec, ledger)
    final = ledger.notes.test
    assert final is not None  # of a finished search
    trial = ledger.trial(final.trial)
    config = TrialConfig.model_validate(spec.config_of(trial))
    path = folder / "package"
    finish = read_finish(ledger.notes.finish_of(final.trial, soup=final.soup))  # as it was tested
    if final.soup is not None:
        package(config, folder=path, soup=_there(soup_path(folder)), finish=finish)
        return f"soup of trials {', '.join(map(str, final.soup))}", path
    checkpoint = kept_checkpoint(folder, trial, metric=spec.search.metric)
    package(config, folder=path, checkpoint=checkpoint, finish=finish)
    return f"trial {trial.number}", path


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else value or "-"
